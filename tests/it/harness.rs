//! The harness of the tests: a database for each, a server put together in process, and short ways to send requests.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode, header};
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use grantd::config::{Config, Settings, Sources};
use grantd::crypto::seal::SealingKey;
use grantd::crypto::secret::{ClientSecret, HashMemory, HashParams, SecretHash, new_secret_id};
use grantd::crypto::secret_tag::TagKey;
use grantd::http::log::{Counts, RequestIds};
use grantd::http::{App, Caller, ListenerUrl};
use grantd::model::client::{Client, ClientScope};
use grantd::model::credential::{SecretOrigin, StoredSecret};
use grantd::model::resource::Resource;
use grantd::model::time::{Clock, UnixTime};
use grantd::protocol::AuthorizationServer;
use grantd::serve::assembled::{ServerParts, assemble};
use grantd::serve::clients::fetcher;
use grantd::serve::secret_upkeep::look_after_secrets;
use grantd::serve::status_list::keep_status_lists;
use grantd::state::load_shedding::LoadShedding;
use grantd::state::registry::Registry;
use grantd::state::registry::feed::Feed;
use grantd::store::secrets::NewSecret;
use grantd::store::tag_keys::SealedTagKey;
use grantd::store::{Database, Store, StoreError};
use grantd::transport::listener::connection_rate::ConnectionRate;
use grantd::transport::listener::refusals::Refusals;
use http_body_util::BodyExt as _;
use serde_json::Value;
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgConnectOptions;
use tokio::sync::watch;

/// Stamps async functions that take a [`Db`] into tests on both databases.
macro_rules! on_both {
    ($($name:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() { super::$name(crate::harness::Db::sqlite()).await; })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() { super::$name(crate::harness::Db::postgres().await).await; })*
        }
    };
}

/// A database of a test's own.
pub struct Db {
    pub database: Database,
    /// For `database.url`.
    pub url: String,
    pub directory: tempfile::TempDir,
}

impl Db {
    pub fn sqlite() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("grantd.db");
        std::fs::File::create(&path).unwrap();
        Self { database: Database::Sqlite(path.clone()), url: format!("sqlite:{}", path.display()), directory }
    }

    pub async fn postgres() -> Self {
        let server = std::env::var("GRANTD_TEST_POSTGRES")
            .expect("set GRANTD_TEST_POSTGRES to a PostgreSQL server for tests, or run script/test, which starts one");
        let name = format!("t_{:016x}", u64::from_ne_bytes(grantd::crypto::random::<8>().unwrap()));
        let admin = sqlx::PgPool::connect(&server).await.expect("the PostgreSQL server for tests answers");
        sqlx::raw_sql(AssertSqlSafe(format!("create database {name}"))).execute(&admin).await.unwrap();
        admin.close().await;
        let (base, query) = server.split_once('?').map_or((server.as_str(), ""), |(base, query)| (base, query));
        let base = &base[..base.rfind('/').unwrap()];
        let url = if query.is_empty() { format!("{base}/{name}") } else { format!("{base}/{name}?{query}") };
        let database = Database::Postgres(Box::new(url.parse::<PgConnectOptions>().unwrap().into()));
        Self { database, url, directory: tempfile::tempdir().unwrap() }
    }

    pub fn is_postgres(&self) -> bool {
        matches!(self.database, Database::Postgres(_))
    }

    /// A store with the schema applied.
    pub async fn store(&self) -> Store {
        let store = Store::open(&self.database, 4);
        store.migrate(&self.database, None).await.unwrap();
        store
    }

    /// Runs SQL as an administrator would, past grantd.
    pub async fn sql(&self, sql: &str) -> Result<(), sqlx::Error> {
        let sql = AssertSqlSafe(sql.to_owned());
        match &self.database {
            Database::Postgres(_) => {
                let pool = sqlx::PgPool::connect(&self.url).await?;
                let done = sqlx::raw_sql(sql).execute(&pool).await.map(drop);
                pool.close().await;
                done
            }
            Database::Sqlite(path) => {
                let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path).foreign_keys(true);
                let pool = sqlx::SqlitePool::connect_with(options).await?;
                let done = sqlx::raw_sql(sql).execute(&pool).await.map(drop);
                pool.close().await;
                done
            }
        }
    }

    pub fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }
}

/// A server that is being set up.
pub struct Setup {
    pub db: Db,
    pub store: Store,
    pub settings: Settings,
    pub clock: Clock,
    pub sealing_key: String,
    pub tag_key: TagKey,
}

pub const ISS: &str = "https://as.test";

impl Setup {
    pub async fn new(db: Db) -> Self {
        let store = db.store().await;
        let settings = Settings { issuer: ISS.into(), data_dir: db.directory.path().to_owned(), ..Settings::default() };
        let sealing_key = SealingKey::generate_base64().unwrap().to_string();
        let under = SealingKey::from_base64(&sealing_key).unwrap();
        let sealed = SealedTagKey::generate(&under, UnixTime(1)).unwrap();
        assert!(store.add_tag_key(&sealed, true).await.unwrap());
        let tag_key = sealed.open(&under).unwrap();
        Self { db, store, settings, clock: Clock::System, sealing_key, tag_key }
    }

    /// A server with the client `basic-client`: scopes `api:read api:write`, default `api:read`, and its secret.
    pub async fn with_basic_client(db: Db) -> (Server, String) {
        let setup = Self::new(db).await;
        let secret = setup.client(client("basic-client")).await;
        (setup.start().await, secret)
    }

    /// Registers a client with one generated secret, and returns it.
    pub async fn client(&self, client: Client) -> String {
        let id = new_secret_id().unwrap();
        let secret = ClientSecret::generate(client.client_id.as_str(), &id, Some(&self.tag_key)).unwrap();
        let stored = new_secret(&id, secret.expose(), SecretOrigin::Tagged(self.tag_key.kid()));
        self.store.create_client(&client, Some(&stored)).await.unwrap();
        secret.expose().to_owned()
    }

    /// Registers a client with a secret chosen elsewhere.
    pub async fn imported(&self, client: Client, secret: &str) {
        let id = new_secret_id().unwrap();
        self.store.create_client(&client, Some(&new_secret(&id, secret, SecretOrigin::Imported))).await.unwrap();
    }

    pub async fn resource(&self, identifier: &str, scope: &str) {
        let resource = Resource {
            identifier: identifier.parse().unwrap(),
            scope: scope.parse().unwrap(),
            alg: None,
            token_ttl: None,
            token_typ: grantd::model::resource::TokenTyp::default(),
            status_list: false,
            introspectors: Vec::new(),
        };
        self.save(resource).await;
    }

    pub async fn save(&self, resource: Resource) {
        self.store.create_resource(&resource, UnixTime(1)).await.unwrap();
    }

    /// A server's registry with the feed that fills it, which takes its steps when the test asks.
    pub fn feed(&self) -> (Arc<Registry>, Feed) {
        let config = Config::parse(&self.settings, &Sources::default()).unwrap();
        let parts = parts(&config, &self.store, &self.sealing_key, self.clock.clone());
        (Arc::clone(&parts.server.registry), parts.feed)
    }

    pub async fn start(self) -> Server {
        let config = Arc::new(Config::parse(&self.settings, &Sources::default()).unwrap());
        Box::pin(Server::launch(Arc::new(self.db), self.store, config, self.sealing_key, self.clock)).await
    }
}

fn parts(config: &Config, store: &Store, sealing_key: &str, clock: Clock) -> ServerParts {
    let under = SealingKey::from_base64(sealing_key).unwrap();
    assemble(config, store, under, None, config.issuer.clone().unwrap(), clock, None).unwrap()
}

/// Sets or removes a client's `jwks_uri`. Returns whether the client exists.
pub async fn set_jwks_uri(store: &Store, id: &str, uri: Option<&str>) -> Result<bool, StoreError> {
    let uri = uri.map(|uri| uri.parse().unwrap());
    let set = |client: &mut Client, _: &mut _| {
        client.jwks_uri.clone_from(&uri);
        Ok::<_, StoreError>(())
    };
    Ok(store.update_client(id, set).await?.is_some())
}

/// Restricts a client's authentication methods, or permits all. Returns whether the client exists.
pub async fn set_auth_methods(store: &Store, id: &str, names: Option<&str>) -> Result<bool, StoreError> {
    let set = |client: &mut Client, _: &mut _| {
        client.auth_methods = names.map(Into::into);
        Ok::<_, StoreError>(())
    };
    Ok(store.update_client(id, set).await?.is_some())
}

/// A secret to be stored.
pub fn new_secret(id: &str, secret: &str, origin: SecretOrigin) -> NewSecret {
    let hash = SecretHash::new(secret, HashParams::default(), &mut HashMemory::default()).unwrap();
    NewSecret {
        secret_id: id.to_owned(),
        hash,
        origin,
        verifier: None,
        label: String::new(),
        created_at: Clock::System.now(),
        expires_at: None,
    }
}

/// The scopes of a client.
pub fn scopes(allowed: &str, default: &str) -> ClientScope {
    ClientScope::new(allowed.parse().unwrap(), default.parse().unwrap()).unwrap()
}

/// A client as most tests want one.
pub fn client(id: &str) -> Client {
    Client::new(id.parse().unwrap(), scopes("api:read api:write", "api:read"), UnixTime(1_700_000_000))
}

/// A server in process.
pub struct Server {
    pub db: Arc<Db>,
    pub store: Store,
    pub config: Arc<Config>,
    pub sealing_key: String,
    pub server: Arc<AuthorizationServer>,
    pub app: Arc<App>,
    pub counts: Counts,
    _stop: watch::Sender<bool>,
}

impl Server {
    async fn launch(db: Arc<Db>, store: Store, config: Arc<Config>, sealing_key: String, clock: Clock) -> Self {
        Self::launch_after(db, store, config, sealing_key, clock, true).await
    }

    async fn launch_after(
        db: Arc<Db>,
        store: Store,
        config: Arc<Config>,
        sealing_key: String,
        clock: Clock,
        must_read: bool,
    ) -> Self {
        let ServerParts { server, mut feed, app, counts, used_secrets, fetches, .. } =
            parts(&config, &store, &sealing_key, clock);
        for _ in 0..2 {
            let step = feed.step().await;
            assert!(step.is_ok() || !must_read, "{step:?}");
        }
        let (stop, stopped) = watch::channel(false);
        tokio::spawn(feed.run(stopped));
        tokio::spawn(look_after_secrets(used_secrets, Arc::clone(&server), store.clone()));
        tokio::spawn(fetcher(&config).unwrap().run(fetches));
        tokio::spawn(keep_status_lists(Arc::clone(&server)));
        Self { db, store, config, sealing_key, server, app, counts, _stop: stop }
    }

    /// For a listener: refusals that are counted in `counts`.
    pub fn refusals(&self) -> Arc<Refusals> {
        refusals(&self.counts)
    }

    /// Another server on the same database, with the same settings and the same clock.
    pub async fn replica(&self) -> Self {
        self.replica_at(self.server.clock.clone()).await
    }

    /// Another server on the same database, which may be read-only: then its feed cannot take its first steps.
    pub async fn replica_that_may_fail(&self) -> Self {
        let (db, config) = (Arc::clone(&self.db), Arc::clone(&self.config));
        let clock = self.server.clock.clone();
        Box::pin(Self::launch_after(db, self.store.clone(), config, self.sealing_key.clone(), clock, false)).await
    }

    /// Another server on the same database, whose clock says something else.
    pub async fn replica_at(&self, clock: Clock) -> Self {
        let (db, config) = (Arc::clone(&self.db), Arc::clone(&self.config));
        Box::pin(Self::launch(db, self.store.clone(), config, self.sealing_key.clone(), clock)).await
    }

    /// Waits until the server has seen what was changed before the call.
    pub async fn refresh(&self) {
        let mut feed = self.store.change_reader().await.unwrap();
        let wanted = feed.poll().await.unwrap().position.revision;
        let started = Instant::now();
        while self.server.registry.snapshot().revision < wanted {
            assert!(started.elapsed() < Duration::from_secs(5), "a change was not seen");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        feed.close().await;
    }

    /// Waits until every tagged secret has a verifier, which is written after its first use.
    pub async fn verifiers_written(&self) {
        let started = Instant::now();
        let is_missing =
            |secret: &StoredSecret| matches!(secret.origin, SecretOrigin::Tagged(_)) && secret.verifier.is_none();
        while self.server.registry.snapshot().clients().any(|client| client.secrets.iter().any(is_missing)) {
            assert!(started.elapsed() < Duration::from_secs(10), "a verifier was not written");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub async fn send(&self, request: Request<Body>) -> Answer {
        self.send_from(([192, 0, 2, 1], 4711), request).await
    }

    pub async fn send_from(&self, from: impl Into<SocketAddr>, request: Request<Body>) -> Answer {
        self.send_by(&Caller { address: from.into(), certificate: None }, request).await
    }

    pub async fn send_by(&self, caller: &Caller, mut request: Request<Body>) -> Answer {
        request.headers_mut().entry(header::HOST).or_insert_with(|| "as.test".parse().unwrap());
        let response = self.app.answer(ListenerUrl::Issuer, caller, request).await;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = response.into_body().collect().await.unwrap().to_bytes();
        Answer { status, headers, body: String::from_utf8(body.to_vec()).unwrap() }
    }

    /// POSTs a form to the token endpoint with further header fields.
    pub async fn post(&self, fields: &[(&str, &str)], body: impl Into<Body>) -> Answer {
        self.post_to("/token", fields, body).await
    }

    /// POSTs a form with further header fields.
    pub async fn post_to(&self, path: &str, fields: &[(&str, &str)], body: impl Into<Body>) -> Answer {
        self.send(form(path, fields, body)).await
    }

    /// Asks about a token, as the client `id`.
    pub async fn introspect(&self, id: &str, secret: &str, token: &str) -> Answer {
        self.post_to("/introspect", &[("authorization", &basic(id, secret))], format!("token={token}")).await
    }

    /// Asks that a token be revoked, as the client `id`.
    pub async fn revoke(&self, id: &str, secret: &str, token: &str) -> Answer {
        self.post_to("/revoke", &[("authorization", &basic(id, secret))], format!("token={token}")).await
    }

    /// Asks for a token with Basic credentials, each half sent as it is.
    pub async fn basic(&self, id: &str, secret: &str, form: &str) -> Answer {
        let body = format!("grant_type=client_credentials&{form}");
        self.post(&[("authorization", &basic(id, secret))], body).await
    }

    /// Asks for a token with credentials in the body.
    pub async fn in_body(&self, id: &str, secret: &str, form: &str) -> Answer {
        let body = format!("grant_type=client_credentials&client_id={id}&client_secret={secret}&{form}");
        self.post(&[], body).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(Request::get(path).body(Body::empty()).unwrap()).await
    }
}

/// For a listener: addresses connect as often as they like.
pub fn pace() -> ConnectionRate {
    ConnectionRate::new(Arc::new(LoadShedding::new(Duration::from_millis(250))), [].into())
}

/// For a listener: refusals that are counted in `counts`.
pub fn refusals(counts: &Counts) -> Arc<Refusals> {
    Arc::new(Refusals::new(counts.connections_refused.clone(), RequestIds::new().unwrap()))
}

/// Whether a CA vouches for a certificate, as a listener says it.
pub fn verdict(ca_verified: bool) -> Result<(), Arc<str>> {
    if ca_verified { Ok(()) } else { Err("no CA".into()) }
}

/// A POST of a form with further header fields.
pub fn form(path: &str, fields: &[(&str, &str)], body: impl Into<Body>) -> Request<Body> {
    let mut request = Request::post(path).header("content-type", "application/x-www-form-urlencoded");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(body.into()).unwrap()
}

pub fn basic(id: &str, secret: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("{id}:{secret}")))
}

/// An answer, read whole.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// 200 with all that RFC 6749 section 5.1 asks for. Returns the JSON.
    #[track_caller]
    pub fn ok(&self) -> Value {
        self.ok_of_type("Bearer")
    }

    /// As [`ok`](Self::ok), with a token of another type.
    #[track_caller]
    pub fn ok_of_type(&self, token_type: &str) -> Value {
        assert_eq!(self.status, StatusCode::OK, "{}", self.body);
        self.assert_json_headers();
        let json = self.json();
        let members: Vec<&str> = json.as_object().unwrap().keys().map(String::as_str).collect();
        assert!(
            members.iter().all(|name| ["access_token", "token_type", "expires_in", "scope"].contains(name)),
            "{members:?}"
        );
        assert!(json["access_token"].is_string() && json["scope"].is_string(), "{json}");
        assert_eq!(json["token_type"], token_type);
        assert!(json["expires_in"].is_i64() && json["expires_in"].as_i64() > Some(0), "positive seconds");
        json
    }

    /// 400 with `code` and all that RFC 6749 section 5.2 asks for.
    #[track_caller]
    pub fn error(&self, code: &str) {
        self.refusal(StatusCode::BAD_REQUEST, code);
        assert!(!self.headers.contains_key("www-authenticate"));
    }

    /// 401 `invalid_client` with a challenge.
    #[track_caller]
    pub fn unauthorized(&self) {
        self.refusal(StatusCode::UNAUTHORIZED, "invalid_client");
        assert_eq!(self.header("www-authenticate"), "Basic realm=\"grantd\", charset=\"UTF-8\"");
    }

    #[track_caller]
    pub fn refusal(&self, status: StatusCode, code: &str) {
        assert_eq!((self.status, self.json()["error"].as_str()), (status, Some(code)), "{}", self.body);
        self.assert_json_headers();
        let json = self.json();
        assert!(json.get("access_token").is_none());
        let description = json["error_description"].as_str().unwrap();
        let legal = |byte: u8| matches!(byte, 0x20..=0x21 | 0x23..=0x5b | 0x5d..=0x7e);
        assert!(description.bytes().all(legal), "{description:?}");
    }

    #[track_caller]
    fn assert_json_headers(&self) {
        assert_eq!(self.header("content-type"), "application/json");
        assert_eq!(self.header("cache-control"), "no-store");
        assert_eq!(self.header("pragma"), "no-cache");
    }

    /// Header and claims of the access token.
    pub fn token(&self) -> (Value, Value) {
        let json = self.json();
        let json = self.ok_of_type(json["token_type"].as_str().unwrap());
        let token = json["access_token"].as_str().unwrap();
        let parts: Vec<&str> = token.split('.').collect();
        let read = |part: &str| serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap();
        (read(parts[0]), read(parts[1]))
    }

    /// The access token itself.
    pub fn access_token(&self) -> String {
        self.json()["access_token"].as_str().unwrap_or_else(|| panic!("{}", self.body)).to_owned()
    }

    /// An inactive token: 200, exactly `{"active":false}`, not to be stored.
    #[track_caller]
    pub fn inactive(&self) {
        assert_eq!((self.status, self.body.as_str()), (StatusCode::OK, r#"{"active":false}"#));
        self.assert_json_headers();
    }

    /// All that a client sees, but for what differs in every answer.
    pub fn face(&self) -> String {
        let mut headers: Vec<String> = self
            .headers
            .iter()
            .filter(|(name, _)| *name != "x-request-id" && *name != "date")
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        headers.sort();
        format!("{}\n{}\n\n{}", self.status, headers.join("\n"), self.body)
    }
}
