//! The daemon: assemble, bind, run, drain.

pub mod certificates;
pub mod clients;
mod costs;
mod credentials;
pub(crate) mod descriptors;
pub mod expiry;
mod notify;
pub mod prepare;
mod running;
pub mod signals;

use std::hash::RandomState;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::config::Config;
use crate::crypto::random;
use crate::crypto::seal::SealingKey;
use crate::http::admin::{self, Admin};
use crate::http::log::{Counts, Log, RequestIds};
use crate::http::{App, Door, Surface};
use crate::model::event::Event;
use crate::model::issuer::Issuer;
use crate::model::profile::Profile;
use crate::model::time::{Clock, UnixTime};
use crate::protocol::client_auth::{Authenticator, Outdated};
use crate::protocol::client_secret::Memory;
use crate::protocol::dpop::Dpop;
use crate::protocol::{AuthorizationServer, signing_histogram};
use crate::state::client_jwks::{ClientJwks, Fetch};
use crate::state::hashing::Lane;
use crate::state::keyring::Keyring;
use crate::state::load_shedding::LoadShedding;
use crate::state::registry::Registry;
use crate::state::registry::feed::{Feed, FeedContext, PendingMigrations};
use crate::state::throttle::repeated::RepeatedSecrets;
use crate::state::throttle::{KnownSources, Throttle};
use crate::store::Store;
use crate::store::replay_cache::ReplayCache;
use crate::telemetry::{self, Logging};
use crate::transport::listener::Listener;
use crate::transport::listener::connection_rate::ConnectionRate;
use crate::transport::listener::refusals::Refusals;
use crate::transport::tls::{Tls, TlsOptions};
use certificates::Certificates;
use clients::{MutualTlsFiles, fetcher, jwks_uri_cas, mutual_tls, offered};
use credentials::Following;
use descriptors::Connections;
use notify::Notifier;
use prepare::{config_error, prepare_database, sealing_key};
use running::{ReloadedFiles, Running};
use signals::Signals;

pub use costs::raise_costs;

/// The pieces of a server, put together but not listening.
pub struct Assembled {
    /// Answers requests.
    pub server: Arc<AuthorizationServer>,
    /// Keeps it current.
    pub feed: Feed,
    /// The public surface.
    pub app: Arc<App>,
    /// What is counted.
    pub counts: Counts,
    /// Secrets whose hashes should cost more; for [`raise_costs`].
    pub outdated: mpsc::Receiver<Outdated>,
    /// To be watched.
    pub load_shedding: Arc<LoadShedding>,
    /// Key sets to be fetched; for a [`Fetcher`](crate::transport::fetch::Fetcher).
    pub fetches: mpsc::Receiver<Fetch>,
    /// What was read for clients with certificates.
    pub mutual_tls: MutualTlsFiles,
    /// Counts and logs what is refused before the surface sees it.
    pub refusals: Arc<Refusals>,
}

/// Puts a server together.
///
/// # Errors
/// When the system gives no thread for the argon2 lane, or a file for clients with certificates cannot be used.
pub fn assemble(
    config: &Config,
    store: &Store,
    sealing_key: SealingKey,
    issuer: Issuer,
    clock: Clock,
    pending_migrations: Option<PendingMigrations>,
) -> anyhow::Result<Assembled> {
    let registry = Arc::new(Registry::new(config.registry));
    let token_endpoint = issuer.endpoint("/token");
    let offered = offered(config, &issuer);
    let dpop = Dpop::new(sealing_key.derive("DPoP nonces"), config.dpop_require_nonce, &token_endpoint);
    let by_alias = offered.alias.as_ref().map(|alias| alias.endpoint("/token"));
    let token_endpoints = [Some(token_endpoint.clone()), by_alias].into_iter().flatten().map(Into::into).collect();
    let dpop = dpop.under(config.profile);
    let dpop = match &offered.alias {
        Some(alias) => dpop.with_alias(&alias.endpoint("/token")),
        None => dpop,
    };
    let keyring = Arc::new(Keyring::new(config.fully_specified));
    let feed = Feed::new(FeedContext {
        store: store.clone(),
        registry: Arc::clone(&registry),
        keyring: Arc::clone(&keyring),
        sealing_key: Arc::new(sealing_key),
        clock: clock.clone(),
        default_alg: config.token_alg,
        pending_migrations,
    });
    let lane = Lane::start(config.hashing_threads, config.hashing_queue).context("starting the argon2 lane")?;
    let (outdated, to_raise) = mpsc::channel(16);
    let (client_jwks, fetches) = ClientJwks::new();
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
            client_jwks,
            registry,
            memory: Memory::new().context("making the key that secrets are remembered under")?,
            lane,
            throttle: Throttle::default(),
            repeated: RepeatedSecrets::new(Instant::now()),
            known_sources: KnownSources::default(),
            decoys: RandomState::new(),
            cost: config.argon2,
            outdated,
        },
        mutual_tls: offered,
        issuer,
        dpop,
        api_proofs: ReplayCache::default(),
        store: store.clone(),
        clock,
        metadata: ArcSwap::default(),
        signing_seconds: signing_histogram(),
    });
    let counts = Counts::default();
    let load_shedding = Arc::new(LoadShedding::new(config.overload_delay));
    let surface = Surface {
        server: Arc::clone(&server),
        basic: config.basic_reading,
        body_deadline: config.body_deadline,
        load_shedding: Arc::clone(&load_shedding),
        client_cert_header: mutual_tls.vouch(),
        openid_configuration: config.openid_configuration,
    };
    let request_ids = RequestIds::new().context("making request ids")?;
    let refusals = Arc::new(Refusals::new(counts.connections_refused.clone(), request_ids.clone()));
    let log = Log { trusted_proxies: config.trusted_proxies.clone().into(), counts: counts.clone(), request_ids };
    let app = Arc::new(App::new(surface, log));
    Ok(Assembled { server, feed, app, counts, outdated: to_raise, load_shedding, fetches, mutual_tls, refusals })
}

/// What the daemon does once it listens.
pub type Announce = Box<dyn FnOnce(&Issuer) + Send>;

/// Runs until told to stop, also while it starts.
///
/// # Errors
/// What keeps it from starting. A database that cannot be reached does not: the server comes up and waits for it.
pub async fn run(
    config: Config,
    store: Store,
    logging: &Logging,
    announce: Option<Announce>,
    mut signals: Signals,
) -> anyhow::Result<()> {
    let notifier = Notifier::new(std::env::var_os("NOTIFY_SOCKET").as_deref());
    let running = tokio::select! {
        running = start(config, store, logging, announce) => running?,
        () = signals.stop() => {
            tracing::info!(event = Event::Stopped.as_str(), "told to stop before it listened");
            return Ok(());
        }
    };
    running.until_stopped(&mut signals, &notifier).await
}

async fn start(
    mut config: Config,
    store: Store,
    logging: &Logging,
    announce: Option<Announce>,
) -> anyhow::Result<Running> {
    let limit = descriptors::raise_limit();
    prepare::announce(&config);
    let sealing_key = sealing_key(&config)?;
    let pending_migrations = prepare_database(&config, &store).await?;
    let tls = config
        .tls
        .clone()
        .map(|files| Tls::load_with(files, TlsOptions { fapi: config.profile == Profile::Fapi2, clients: None }))
        .transpose()
        .map_err(|error| config_error("server.tls", &error))?
        .map(Arc::new);

    let public = TcpListener::bind(config.listen).await.with_context(|| bind_failed("server.listen", config.listen))?;
    let private = TcpListener::bind(config.admin_listen)
        .await
        .with_context(|| bind_failed("admin.listen", config.admin_listen))?;
    let mutual = match &mut config.client_certificates.mtls {
        Some(mtls) => {
            let socket =
                TcpListener::bind(mtls.listen).await.with_context(|| bind_failed("server.mtls.listen", mtls.listen))?;
            // Port 0 has become a port that the metadata can name.
            mtls.listen = socket.local_addr()?;
            Some(socket)
        }
        None => None,
    };
    let fetcher = fetcher(&config)?;
    let issuer = match &announce {
        Some(_) => config.issuer_or(public.local_addr()?),
        None => config.issuer.clone().unwrap_or_default(),
    };

    let Assembled { server, feed, app, counts, outdated, load_shedding, fetches, mutual_tls, refusals } =
        assemble(&config, &store, sealing_key, issuer, Clock::System, pending_migrations)?;
    let (stop, stopped) = watch::channel(false);
    let feed = follow(feed, Arc::clone(&server), store.clone(), stopped.clone()).await?;

    let certificates = Certificates::new(tls.clone(), mutual_tls.clone(), jwks_uri_cas(&config)?, server.clock.clone());
    let certificates = Arc::new(certificates);

    let draining = Arc::new(AtomicBool::new(false));
    let metrics = telemetry::metrics::exposition(logging, &server, &store, &counts, certificates.ends(&server));
    let admin = admin::router(Admin { server: Arc::clone(&server), draining: Arc::clone(&draining), metrics });
    let (public_address, private_address) = (public.local_addr()?, private.local_addr()?);
    let listeners = if mutual.is_some() { 2 } else { 1 };
    let most = Connections::within(limit, config.max_connections, listeners, config.database_max_connections);
    let listener = |socket, tls, max_connections| Listener {
        socket,
        tls,
        deadlines: config.deadlines,
        max_connections,
        draining: Arc::clone(&draining),
        refusals: Arc::clone(&refusals),
        pace: ConnectionRate::new(Arc::clone(&load_shedding), config.trusted_proxies.clone().into()),
    };
    let public = listener(public, tls.clone(), most.public);
    let private = listener(private, None, most.admin);
    let mutual = mutual.map(|socket| listener(socket, mutual_tls.listener.clone(), most.public));
    load_shedding.watch(Handle::current()).context("starting the thread that watches for overload")?;
    let background = vec![
        tokio::spawn(raise_costs(outdated, Arc::clone(&server), store.clone())),
        tokio::spawn(fetcher.clone().run(fetches)),
        tokio::spawn(sweep(store.clone(), Arc::clone(&server))),
        tokio::spawn(Arc::clone(&certificates).watch()),
    ];
    let url_file = Following::start(config.database_url_file.take(), &store);
    let answer_at = |door| {
        let app = Arc::clone(&app);
        move |caller, request| {
            let app = Arc::clone(&app);
            async move { app.answer(door, &caller, request).await }
        }
    };
    let mutual = mutual.map(|mutual| tokio::spawn(mutual.run(answer_at(Door::Alias), stopped.clone())));
    let public = tokio::spawn(public.run(answer_at(Door::Issuer), stopped.clone()));
    let private = tokio::spawn(private.run(move |_, request| admin::answer(&admin, request), stopped));
    tracing::info!(event = Event::Listening.as_str(), listener = "admin", address = %private_address, max_connections = most.admin);
    if let Some(mtls) = &config.client_certificates.mtls {
        tracing::info!(event = Event::Listening.as_str(), listener = "mtls", address = %mtls.listen, tls = true, max_connections = most.public);
    }
    tracing::info!(event = Event::Listening.as_str(), listener = "public", address = %public_address, tls = tls.is_some(), issuer = %server.issuer, max_connections = most.public);
    if most.public < config.max_connections {
        tracing::warn!(
            event = Event::ListenerCapped.as_str(),
            limit,
            max_connections = most.public,
            "the limit on open files leaves fewer connections than server.max_connections; raise the hard limit (LimitNOFILE= of systemd, `ulimit -Hn`)"
        );
    }
    if let Some(announce) = announce {
        announce(&server.issuer);
    }
    let draining_tasks = [public, private, feed].into_iter().chain(mutual).collect();
    let drain_delay = config.drain_delay;
    let files = ReloadedFiles { config, fetcher, certificates, url_file };
    Ok(Running { draining_tasks, background, stop, draining, drain_delay, store, files })
}

/// Forgets what has expired of what may be used once, and of what was revoked, every few seconds.
async fn sweep(store: Store, server: Arc<AuthorizationServer>) {
    loop {
        // Replicas that started together do not sweep together.
        let jitter = random::<2>().map_or(0, |bytes| u64::from(u16::from_ne_bytes(bytes) % 5000));
        let pause = SWEEP.max(server.registry.options().poll) + Duration::from_millis(jitter);
        tokio::time::sleep(pause).await;
        // The database's clock decides: by that of a replica that is ahead, what others still need would be gone.
        let now = match store.now().await {
            Ok(now) => now,
            Err(error) => {
                tracing::debug!(event = Event::SpentTrouble.as_str(), reason = %error, "nothing is swept until the database answers");
                continue;
            }
        };
        match store.sweep_spent(now).await {
            Ok(swept) => tracing::debug!(event = Event::SpentSwept.as_str(), swept),
            Err(error) => {
                tracing::debug!(event = Event::SpentTrouble.as_str(), reason = %error, "expired uses are kept until the next sweep");
            }
        }
        // By every replica's clock the tokens have ended by then.
        let ended = UnixTime(now.0 - SKEW);
        server.registry.revoked.forget(ended);
        match store.sweep_revoked_tokens(ended).await {
            Ok(swept) => tracing::debug!(event = Event::RevokedSwept.as_str(), swept),
            Err(error) => {
                tracing::debug!(event = Event::RevokedTrouble.as_str(), reason = %error, "rows of tokens that ended are kept until the next sweep");
            }
        }
    }
}

/// Starts the feed on a thread of its own, so that neither does loading many clients hold up requests, nor do many
/// requests hold up the news that a client has been switched off. Returns when it has read everything once.
async fn follow(
    mut feed: Feed,
    server: Arc<AuthorizationServer>,
    store: Store,
    stopped: watch::Receiver<bool>,
) -> anyhow::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the feed")?;
    let (started, starting) = oneshot::channel();
    let running = tokio::task::spawn_blocking(move || {
        runtime.block_on(async {
            let first = first_steps(&mut feed, &server, &store).await;
            let may_run = first.is_ok();
            // Whoever started us waits for this, or has ended.
            if started.send(first).is_ok() && may_run {
                feed.run(stopped).await;
            }
        });
    });
    starting.await.context("the feed ended at its start")??;
    Ok(running)
}

/// Reads everything once before the first request, and a second time when that made the first signing key.
async fn first_steps(feed: &mut Feed, server: &AuthorizationServer, store: &Store) -> anyhow::Result<()> {
    for _ in 0..2 {
        match feed.step().await {
            Ok(()) => {}
            Err(error) if error.is_outage() => {
                tracing::error!(event = Event::DatabaseWaiting.as_str(), reason = %error, "starting without the database; not ready until it is there");
                return Ok(());
            }
            Err(error) => return Err(error).context("reading the database"),
        }
    }
    if server.keyring.signing(server.defaults.alg, server.database_time()).is_none() {
        let sealed = store.keys().await?.len();
        bail!(
            "none of the {sealed} stored signing keys can sign with {}; `grantd doctor` says why. Restore the sealing key that they were sealed under, or remove them with `grantd key remove KID --now`",
            server.defaults.alg
        );
    }
    Ok(())
}

fn bind_failed(key: &str, address: std::net::SocketAddr) -> String {
    format!(
        "cannot listen on {address}; is another process there? Set {key} to a free address (port 0 picks a free port)"
    )
}

/// From one sweep to the next, a little more each time.
const SWEEP: Duration = Duration::from_secs(5);
/// How far apart the clocks of replicas may be, in seconds, and as much again.
const SKEW: i64 = 120;
