//! The third state: the server is put together, its snapshot is empty, and nothing runs.

use std::hash::RandomState;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use prometheus_client::metrics::counter::Counter;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

use super::Announce;
use super::bound::{Bound, Sockets};
use super::certificates::Certificates;
use super::clients::{MutualTlsFiles, jwks_uri_cas, mutual_tls, offered};
use super::credentials::Following;
use super::descriptors::Connections;
use super::feed;
use super::prepared::Prepared;
use super::running::{ReloadedFiles, Running};
use super::secret_upkeep::look_after_secrets;
use super::status_list::keep_status_lists;
use super::sweep::sweep;
use super::tasks::Tasks;
use crate::config::Config;
use crate::crypto::seal::SealingKey;
use crate::crypto::secret_verifier::VerifierKey;
use crate::http::admin::{self, Admin};
use crate::http::log::recent::RecentRefusals;
use crate::http::log::{Counts, Log, RequestIds};
use crate::http::refusals::ShownRefusals;
use crate::http::{App, HttpSettings, ListenerUrl};
use crate::model::event::Event;
use crate::model::issuer::Issuer;
use crate::model::time::Clock;
use crate::protocol::AuthorizationServer;
use crate::protocol::client_auth::{Authenticator, OwnerSearches, UsedSecret};
use crate::protocol::client_secret::Memory;
use crate::protocol::dpop::Dpop;
use crate::protocol::federation::known_tokens::KnownTokens;
use crate::protocol::status_list::StatusLists;
use crate::state::hashing::Lane;
use crate::state::key_sets::KeySets;
use crate::state::key_sets::source::Fetch;
use crate::state::keyring::Keyring;
use crate::state::load_shedding::LoadShedding;
use crate::state::pkcs11::Module;
use crate::state::registry::Registry;
use crate::state::registry::feed::{Feed, FeedContext, PendingMigrations};
use crate::state::throttle::repeated::RepeatedSecrets;
use crate::state::throttle::{KnownSources, Throttle};
use crate::store::Store;
use crate::store::replay_cache::ReplayCache;
use crate::telemetry::{self, Logging};
use crate::transport::fetch::Fetcher;
use crate::transport::listener::Listener;
use crate::transport::listener::connection_rate::ConnectionRate;
use crate::transport::listener::refusals::Refusals;
use crate::transport::tls::Tls;

/// The parts of a server, which can answer requests and has no socket.
pub struct ServerParts {
    /// Answers requests.
    pub server: Arc<AuthorizationServer>,
    /// Keeps it current.
    pub feed: Feed,
    /// The public surface.
    pub app: Arc<App>,
    /// The counters and histograms of requests.
    pub counts: Counts,
    /// Used secrets whose rows need work; for [`look_after_secrets`].
    pub used_secrets: mpsc::Receiver<UsedSecret>,
    /// Load shedding, to be started.
    pub load_shedding: Arc<LoadShedding>,
    /// Key sets to be fetched; for a [`Fetcher`].
    pub fetches: mpsc::Receiver<Fetch>,
    /// The files for clients with certificates.
    pub mutual_tls: MutualTlsFiles,
    /// Counts and logs what is refused before the surface sees it.
    pub refusals: Arc<Refusals>,
    /// The last refusals of the surface.
    pub recent_refusals: Arc<RecentRefusals>,
}

/// Puts a server together.
///
/// # Errors
/// When the system gives no thread for the argon2 lane, or a file for clients with certificates cannot be used.
pub fn assemble(
    config: &Config,
    store: &Store,
    sealing_key: SealingKey,
    module: Option<Arc<Module>>,
    issuer: Issuer,
    clock: Clock,
    pending_migrations: Option<PendingMigrations>,
) -> anyhow::Result<ServerParts> {
    let registry = Arc::new(Registry::new(config.registry));
    let token_endpoint = issuer.endpoint("/token");
    let offered = offered(config, &issuer);
    let dpop = Dpop::new(sealing_key.derive(DPOP_NONCES), config.dpop_require_nonce, &token_endpoint);
    let by_alias = offered.alias.as_ref().map(|alias| alias.endpoint("/token"));
    let token_endpoints = [Some(token_endpoint.clone()), by_alias].into_iter().flatten().map(Into::into).collect();
    let dpop = dpop.with_previous(sealing_key.previous().map(|previous| previous.derive(DPOP_NONCES)));
    let dpop = dpop.under(config.profile);
    let dpop = match &offered.alias {
        Some(alias) => dpop.with_alias(&alias.endpoint("/token")),
        None => dpop,
    };
    let verifiers = VerifierKey::new(&sealing_key);
    let keyring = Arc::new(Keyring::new(config.fully_specified, config.rotate_every, module));
    let feed = Feed::new(FeedContext {
        store: store.clone(),
        registry: Arc::clone(&registry),
        keyring: Arc::clone(&keyring),
        sealing_key: Arc::new(sealing_key),
        clock: clock.clone(),
        default_alg: config.token_alg,
        default_ttl: config.token_ttl,
        pending_migrations,
    });
    let queue = Some(config.hashing_queue).filter(|capacity| *capacity > 0);
    let lane = Lane::start(config.hashing_threads, queue, config.argon2).context("starting the argon2 lane")?;
    let (upkeep, used_secrets) = mpsc::channel(USED_SECRETS);
    let (client_jwks, fetches) = KeySets::new();
    let mutual_tls = mutual_tls(config)?;
    let server = Arc::new(AuthorizationServer {
        defaults: config.defaults(&issuer),
        registry: Arc::clone(&registry),
        keyring,
        profile: config.profile,
        authenticator: Authenticator {
            profile: config.profile,
            audience: issuer.as_str().into(),
            token_endpoints,
            issuer_keys: client_jwks.beside(),
            client_jwks,
            known_tokens: KnownTokens::new().context("making the key that tokens are remembered under")?,
            registry,
            memory: Memory::new().context("making the key that secrets are remembered under")?,
            lane,
            throttle: Throttle::default(),
            repeated: RepeatedSecrets::new(Instant::now()),
            known_sources: KnownSources::default(),
            owner_searches: OwnerSearches::default(),
            decoys: RandomState::new(),
            cost: config.argon2,
            verifiers,
            verifier_mismatches: Counter::default(),
            upkeep,
        },
        mutual_tls: offered,
        issuer,
        dpop,
        api_proofs: ReplayCache::default(),
        store: store.clone(),
        clock,
        status_lists: StatusLists::new(config.status_ttl),
        metadata: ArcSwap::default(),
    });
    let counts = Counts::default();
    let load_shedding = Arc::new(LoadShedding::new(config.overload_delay));
    let settings = HttpSettings {
        basic: config.basic_reading,
        body_deadline: config.body_deadline,
        client_cert_header: mutual_tls.vouch(),
        openid_configuration: config.openid_configuration,
    };
    let request_ids = RequestIds::new().context("making request ids")?;
    let refusals = Arc::new(Refusals::new(counts.connections_refused.clone(), request_ids.clone()));
    let recent_refusals = Arc::new(RecentRefusals::default());
    let log = Log {
        trusted_proxies: config.trusted_proxies.clone().into(),
        counts: counts.clone(),
        request_ids,
        recent: Arc::clone(&recent_refusals),
        clock: server.clock.clone(),
    };
    let app = Arc::new(App::new(Arc::clone(&server), settings, Arc::clone(&load_shedding), log));
    Ok(ServerParts {
        server,
        feed,
        app,
        counts,
        used_secrets,
        load_shedding,
        fetches,
        mutual_tls,
        refusals,
        recent_refusals,
    })
}

/// A daemon that is put together.
pub(super) struct Assembled {
    config: Config,
    store: Store,
    tls: Option<Arc<Tls>>,
    file_limit: Option<u64>,
    sockets: Sockets,
    fetcher: Fetcher,
    parts: ServerParts,
}

impl Assembled {
    /// Puts the server together.
    pub(super) fn new(bound: Bound) -> anyhow::Result<Self> {
        let Bound { prepared, sockets, fetcher, issuer } = bound;
        let Prepared { config, store, sealing_key, module, pending_migrations, tls, file_limit } = prepared;
        let parts = assemble(&config, &store, sealing_key, module, issuer, Clock::System, pending_migrations)?;
        Ok(Self { config, store, tls, file_limit, sockets, fetcher, parts })
    }

    /// Reads the database once, then starts the listeners and the background work.
    pub(super) async fn start(self, logging: &Logging, announce: Option<Announce>) -> anyhow::Result<Running> {
        let Self { mut config, store, tls, file_limit, sockets, fetcher, parts } = self;
        let ServerParts { server, feed, app, counts, used_secrets, load_shedding, fetches, mutual_tls, .. } = parts;
        let (refusals, recent_refusals) = (parts.refusals, parts.recent_refusals);
        let (stop, stopped) = watch::channel(false);
        let mut serving = Tasks::default();
        feed::start(feed, Arc::clone(&server), store.clone(), stopped.clone(), &mut serving).await?;

        let cas = jwks_uri_cas(&config)?;
        let certificates = Arc::new(Certificates::new(tls.clone(), mutual_tls.clone(), cas, server.clock.clone()));
        let draining = Arc::new(AtomicBool::new(false));
        let metrics = telemetry::metrics::exposition(logging, &server, &store, &counts, certificates.ends(&server));
        let admin = admin::router(Admin {
            server: Arc::clone(&server),
            draining: Arc::clone(&draining),
            metrics,
            refusals: ShownRefusals {
                server: Arc::clone(&server),
                recent: recent_refusals,
                replica: replica_name(sockets.admin.local_addr()?.port()).into(),
            },
        });

        let listeners = if sockets.mtls.is_some() { 2 } else { 1 };
        let most = Connections::within(file_limit, config.max_connections, listeners, config.database_max_connections);
        tell_listening(&config, &sockets, tls.is_some(), &server.issuer, most)?;
        tell_capped(&config, file_limit, most);
        let listener = |socket: TcpListener, tls, max_connections| Listener {
            socket,
            tls,
            deadlines: config.deadlines,
            max_connections,
            draining: Arc::clone(&draining),
            refusals: Arc::clone(&refusals),
            pace: ConnectionRate::new(Arc::clone(&load_shedding), config.trusted_proxies.clone().into()),
        };
        let answer_at = |url| {
            let app = Arc::clone(&app);
            move |caller, request| {
                let app = Arc::clone(&app);
                async move { app.answer(url, &caller, request).await }
            }
        };
        let public = listener(sockets.public, tls, most.public);
        let private = listener(sockets.admin, None, most.admin);
        let mtls = sockets.mtls.map(|socket| listener(socket, mutual_tls.listener.clone(), most.public));
        serving.start("public listener", public.run(answer_at(ListenerUrl::Issuer), stopped.clone()));
        serving.start(
            "admin listener",
            private.run(move |caller, request| admin::answer(&admin, caller.address, request), stopped.clone()),
        );
        if let Some(mtls) = mtls {
            serving.start("mtls listener", mtls.run(answer_at(ListenerUrl::MtlsAlias), stopped));
        }

        load_shedding.watch(Handle::current()).context("starting the thread that watches for overload")?;
        let mut background = Tasks::default();
        background.start("secrets", look_after_secrets(used_secrets, Arc::clone(&server), store.clone()));
        background.start("key sets of clients and issuers", fetcher.clone().run(fetches));
        background.start("status lists", keep_status_lists(Arc::clone(&server)));
        background.start("sweeps", sweep(store.clone(), Arc::clone(&server)));
        background.start("certificate files", Arc::clone(&certificates).watch());

        let url_file = Following::start(config.database_url_file.take(), &store);
        if let Some(announce) = announce {
            announce(&server.issuer);
        }
        let drain_delay = config.drain_delay;
        let files = ReloadedFiles { config, fetcher, certificates, url_file };
        Ok(Running { serving, background, stop, draining, drain_delay, store, files })
    }
}

fn tell_listening(
    config: &Config,
    sockets: &Sockets,
    tls: bool,
    issuer: &Issuer,
    most: Connections,
) -> anyhow::Result<()> {
    tracing::info!(event = Event::Listening.as_str(), listener = "admin", address = %sockets.admin.local_addr()?, max_connections = most.admin);
    if let Some(mtls) = &config.client_certificates.mtls {
        tracing::info!(event = Event::Listening.as_str(), listener = "mtls", address = %mtls.listen, tls = true, max_connections = most.public);
    }
    tracing::info!(event = Event::Listening.as_str(), listener = "public", address = %sockets.public.local_addr()?, tls, issuer = %issuer, max_connections = most.public);
    Ok(())
}

/// The name of this process among its replicas: the machine, or the pod, and the port of the admin listener.
fn replica_name(port: u16) -> String {
    // Where the kernel does not tell the name of the machine, the port has to do.
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}:{port}", Some(host.trim()).filter(|host| !host.is_empty()).unwrap_or("localhost"))
}

fn tell_capped(config: &Config, limit: Option<u64>, most: Connections) {
    if most.public < config.max_connections {
        tracing::warn!(
            event = Event::ListenerCapped.as_str(),
            limit,
            max_connections = most.public,
            "the limit on open files leaves fewer connections than server.max_connections; raise the hard limit (LimitNOFILE= of systemd, `ulimit -Hn`)"
        );
    }
}

/// Number of used secrets that may wait until their rows are looked after, about 1 KiB each. What finds no room is queued
/// at its next use.
const USED_SECRETS: usize = 4096;
/// The purpose of the key that is derived for DPoP nonces.
const DPOP_NONCES: &str = "DPoP nonces";
