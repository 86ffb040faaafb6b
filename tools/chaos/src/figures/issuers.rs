//! Figure 16: trusted issuers that are down, hang, serve garbage or no keys, or rotate their keys, while tokens of a
//! thousand others come with key ids that do not exist. Everybody else's tokens are served.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use grantd_kit::client_key::{ClientKey, assertion_request};
use grantd_kit::clients::SCOPE;
use grantd_kit::connection::{LOCALHOST, ask};
use grantd_kit::grantd::ISSUER;
use grantd_kit::http::{Answer, post_form};
use grantd_kit::issuer::{KID, service_account, subject};
use grantd_kit::report::Goal;
use grantd_kit::stats::number;
use tokio::time::Instant;

use super::{Base, about};
use crate::chance::{below, scatter};
use crate::driver::{Kind, Record, Request, Stream};
use crate::issuer_host::{Does, Hosts};
use crate::options::Options;
use crate::report::Report;
use crate::rig::{Rig, drive_all};
use crate::tally::Tally;

pub async fn measure(rig: &mut Rig, options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let (settings, lasts) = (rig.grantd.settings.clone(), options.lengths().issuers);
    let issuers = Arc::new(Issuers::register(rig).await?);
    // Replicas that have asked no issuer yet.
    rig.start_anew().await?;
    issuers.first_tokens(rig).await?;
    let before = rig.unattacked("issuers-before", options.lengths().base).await?;

    issuers.begin_to_fail();
    let (origin, addresses) = (Instant::now(), rig.addresses());
    let drive = |stream: Stream| drive_all(origin, vec![stream], &addresses);
    let [healthy, down, slow, garbage, empty, rotated, revoked] =
        FAULTS.map(|fault| drive(issuers.stream(fault, rig.honest_rate, lasts)));
    let crowd = drive(issuers.crowd_stream(2.0 * rig.honest_rate, lasts));
    let secrets = drive(rig.registrations.warm_stream(rig.honest_rate, lasts));
    let (secrets, crowd, healthy, down, slow, garbage, empty, rotated, revoked) =
        tokio::join!(secrets, crowd, healthy, down, slow, garbage, empty, rotated, revoked);
    rig.keep("issuers", &secrets)?;
    let after = rig.unattacked("issuers-after", options.lengths().base).await?;

    let base = Base::of(&before, &after);
    let mut add = |what: &str, goal, value, note: String| report.add("16", what, goal, value, note);
    add("secrets: goodput, % of base", Goal::AtLeast(99.0), base.share(&secrets), about(&secrets));
    let most = Goal::AtLeast(99.0);
    for (what, tally, goal) in [
        ("issuers without a fault", &healthy, most),
        ("issuers that are down", &down, most),
        ("issuers that serve garbage", &garbage, most),
        ("issuers that serve an empty key set", &empty, most),
        // On each replica, those that come when the set is due wait once, longer than the driver.
        ("issuers that do not answer", &slow, Goal::None),
    ] {
        add(&format!("{what}: tokens served, %"), goal, tally.success(), about(tally));
    }
    let what = "issuers that rotate within max-age: s until the new key works everywhere";
    add(what, Goal::AtMost(A_FETCH), last(&rotated, |record| !record.is_ok()), about(&rotated));
    let what = "trust domains that publish an empty bundle: s until nothing is accepted";
    add(what, Goal::AtMost(A_FETCH), last(&revoked, Record::is_ok), about(&revoked));
    let accepted = number(crowd.count(Record::is_ok));
    add("1,000 issuers, unknown key ids: accepted", Goal::AtMost(0.0), accepted, about(&crowd));
    let (all, most) = issuers.hosts.connections(Duration::from_secs(29));
    let note = format!("{all} connections to {} hosts in all, of three replicas", CROWD + FAULTS.len() * OF_A_KIND);
    add("connections to one issuer within 29 s, at most", Goal::AtMost(3.0), number(most), note);

    rig.database.sql(FORGET).await?;
    rig.grantd.settings = settings;
    rig.start_anew().await
}

/// A fault of issuers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    Down,
    Slow,
    Garbage,
    Empty,
    /// The keys are others, within the `max-age` of the ones before.
    Rotated,
    /// A trust domain whose bundle is empty.
    Revoked,
}

const FAULTS: [Fault; 7] =
    [Fault::None, Fault::Down, Fault::Slow, Fault::Garbage, Fault::Empty, Fault::Rotated, Fault::Revoked];

/// Trusted issuers, a few for each fault, and a crowd of others.
struct Issuers {
    hosts: Hosts,
    key: ClientKey,
    /// The key after the rotation; of the crowd, one that no issuer has.
    other: ClientKey,
}

impl Issuers {
    /// Starts the hosts and registers issuers, clients and rules. Replicas that start from now on may reach the hosts.
    async fn register(rig: &mut Rig) -> anyhow::Result<Self> {
        let few = FAULTS.into_iter().flat_map(|fault| (0..OF_A_KIND).map(move |nth| address(fault, nth)));
        let addresses: Vec<Ipv4Addr> = few.chain((0..CROWD).map(crowd_address)).collect();
        let hosts = Hosts::start(&addresses).await?;
        let issuers = Self { hosts, key: ClientKey::generate()?, other: ClientKey::generate()? };
        for nth in 0..OF_A_KIND {
            for fault in FAULTS {
                issuers.hosts.set(address(fault, nth), serves(fault, &issuers.key, KID));
            }
        }
        for nth in 0..CROWD {
            let does = match nth % 4 {
                0 => serves(Fault::None, &issuers.key, KID),
                1 => Does::Serves { document: NO_KEYS.to_owned(), cache_control: "max-age=30" },
                2 => Does::Fails,
                _ => Does::Hangs,
            };
            issuers.hosts.set(crowd_address(nth), does);
        }
        rig.database.sql(&issuers.sql()).await.context("issuers")?;
        let ca = rig.grantd.directory.join("issuers.pem");
        std::fs::write(&ca, &issuers.hosts.ca_pem)?;
        rig.grantd = rig.grantd.clone().with("clients.jwks_uri_allow", "127.0.0.0/8");
        rig.grantd = rig.grantd.clone().with("clients.jwks_uri_ca_file", ca.display().to_string());
        Ok(issuers)
    }

    fn sql(&self) -> String {
        let insert = |issuer: &str, kind: &str, column: &str, host: Ipv4Addr| {
            let keys = format!("{}/keys", self.url(host));
            format!("insert into trusted_issuer (issuer, kind, {column}) values ('{issuer}', '{kind}', '{keys}');\n")
        };
        let crowd = (0..CROWD).map(crowd_address).map(|host| insert(&self.url(host), "kubernetes", "jwks_uri", host));
        let few = FAULTS.into_iter().flat_map(|fault| (0..OF_A_KIND).map(move |nth| (fault, nth)));
        let few = few.map(|(fault, nth)| {
            let (issuer, host) = (self.issuer(fault, nth), address(fault, nth));
            let (kind, column) =
                if fault == Fault::Revoked { ("spiffe", "bundle_uri") } else { ("kubernetes", "jwks_uri") };
            let name = name(fault, nth);
            let subject = if fault == Fault::Revoked { format!("{issuer}/{name}") } else { subject(&name) };
            insert(&issuer, kind, column, host)
                + &format!("insert into client (client_id, scope, default_scope) values ('{name}', '{SCOPE}', '{SCOPE}');\n")
                + &format!("insert into client_federation (client_id, issuer, subject) values ('{name}', '{issuer}', '{subject}');\n")
        });
        format!("begin; {FORGET} {} commit;", few.chain(crowd).collect::<String>())
    }

    fn url(&self, host: Ipv4Addr) -> String {
        format!("https://{host}:{}", self.hosts.port)
    }

    fn issuer(&self, fault: Fault, nth: usize) -> String {
        if fault == Fault::Revoked { format!("spiffe://domain-{nth}.test") } else { self.url(address(fault, nth)) }
    }

    /// Lets the faults begin.
    fn begin_to_fail(&self) {
        for (fault, nth) in FAULTS.into_iter().flat_map(|fault| (0..OF_A_KIND).map(move |nth| (fault, nth))) {
            let does = match fault {
                Fault::None => continue,
                Fault::Down => Does::Drops,
                Fault::Slow => Does::Hangs,
                Fault::Garbage => Does::Garbles,
                Fault::Empty | Fault::Revoked => {
                    Does::Serves { document: NO_KEYS.to_owned(), cache_control: "max-age=30" }
                }
                Fault::Rotated => serves(fault, &self.other, "k2"),
            };
            self.hosts.set(address(fault, nth), does);
        }
    }

    /// Gets a token at each replica by each issuer but those of the crowd.
    async fn first_tokens(&self, rig: &Rig) -> anyhow::Result<()> {
        for (fault, nth) in FAULTS.into_iter().flat_map(|fault| (0..OF_A_KIND).map(move |nth| (fault, nth))) {
            for replica in rig.addresses() {
                let (mut last, mut attempts) = (None, 0);
                while last.as_ref().is_none_or(|(answer, _): &(Answer, String)| answer.status != 200) {
                    anyhow::ensure!(attempts < 30, "no token by {} at first: {last:?}", self.issuer(fault, nth));
                    attempts += 1;
                    let request = self.request(fault, nth, (&self.key, KID))?;
                    last = ask(LOCALHOST, replica, &request, Duration::from_secs(10)).await;
                }
            }
        }
        Ok(())
    }

    /// Requests with new tokens of the issuers with one fault.
    fn stream(self: &Arc<Self>, fault: Fault, honest_rate: f64, lasts: Duration) -> Stream {
        let issuers = Arc::clone(self);
        let ask = move |n: u64| {
            let signer = if fault == Fault::Rotated { (&issuers.other, "k2") } else { (&issuers.key, KID) };
            // A request that cannot be signed is empty, and no token comes of it.
            let bytes = issuers.request(fault, below(n, OF_A_KIND), signer).unwrap_or_default();
            Request { kind: Kind::Federated, replica: below(n ^ 0x7e11, 3), bytes: bytes.into() }
        };
        Stream::honest(honest_rate / if fault == Fault::None { 4.0 } else { 20.0 }, lasts, Box::new(ask))
    }

    /// Requests with tokens of the crowd, each with another key id.
    fn crowd_stream(self: &Arc<Self>, rate: f64, lasts: Duration) -> Stream {
        let issuers = Arc::clone(self);
        let ask = move |n: u64| {
            let issuer = issuers.url(crowd_address(below(n ^ 0x0c20_3d00, CROWD)));
            let header = format!(r#"{{"alg":"ES256","kid":"{:x}"}}"#, scatter(n));
            let token =
                service_account(&issuer, "nobody", ISSUER).and_then(|claims| issuers.other.sign(&header, &claims));
            let bytes = assertion_request(&token.unwrap_or_default());
            Request { kind: Kind::Federated, replica: below(n ^ 0x7e11, 3), bytes: bytes.into() }
        };
        Stream::honest(rate, lasts, Box::new(ask))
    }

    fn request(&self, fault: Fault, nth: usize, (key, kid): (&ClientKey, &str)) -> std::io::Result<Vec<u8>> {
        let (issuer, name) = (self.issuer(fault, nth), name(fault, nth));
        let claims = service_account(&issuer, &name, ISSUER)?;
        let header = format!(r#"{{"alg":"ES256","kid":"{kid}","typ":"JWT"}}"#);
        if fault != Fault::Revoked {
            return Ok(assertion_request(&key.sign(&header, &claims)?));
        }
        let svid = key.sign(&header, &claims.replace(&subject(&name), &format!("{issuer}/{name}")))?;
        let form = format!(
            "grant_type=client_credentials&client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3A\
             client-assertion-type%3Ajwt-spiffe&client_assertion={svid}"
        );
        Ok(post_form("/token", &[], &form))
    }
}

/// Serves the key set of a healthy issuer.
fn serves(fault: Fault, key: &ClientKey, kid: &str) -> Does {
    let usage = if fault == Fault::Revoked { "jwt-svid" } else { "sig" };
    let jwk = key.jwk().replacen('{', &format!(r#"{{"use":"{usage}","kid":"{kid}","#), 1);
    let document = format!(r#"{{"keys":[{jwk}],"spiffe_refresh_hint":30}}"#);
    // EKS says a week, and rotates within it.
    let cache_control = if fault == Fault::Rotated { "max-age=604800" } else { "max-age=30" };
    Does::Serves { document, cache_control }
}

/// Seconds from the beginning to the last record that is so.
fn last(tally: &Tally, is: impl Fn(&Record) -> bool) -> f64 {
    tally.0.iter().filter(|record| is(record)).map(|record| record.scheduled.as_secs_f64()).fold(0.0, f64::max)
}

fn name(fault: Fault, nth: usize) -> String {
    format!("pod-{fault:?}-{nth}").to_ascii_lowercase()
}

fn address(fault: Fault, nth: usize) -> Ipv4Addr {
    let kind = FAULTS.iter().position(|known| *known == fault).unwrap_or_default();
    within(Ipv4Addr::new(127, 20, 0, 0), kind * 256 + nth + 1)
}

fn crowd_address(nth: usize) -> Ipv4Addr {
    within(Ipv4Addr::new(127, 21, 0, 0), nth + 1)
}

fn within(network: Ipv4Addr, nth: usize) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(network) + u32::try_from(nth).unwrap_or_default())
}

/// Issuers with each fault.
const OF_A_KIND: usize = 4;
/// Issuers whose tokens have unknown key ids.
const CROWD: usize = 1000;
/// Seconds within which a key set is fetched again for an unknown key id, or because it is due: 30, and a second's room.
const A_FETCH: f64 = 31.0;
const NO_KEYS: &str = r#"{"keys":[],"spiffe_refresh_hint":30}"#;
const FORGET: &str = "delete from client where client_id like 'pod-%'; delete from trusted_issuer;";
