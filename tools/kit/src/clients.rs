//! Clients to measure with: registered as an operator does, or by SQL when they only fill the registry.

use std::io;
use std::sync::Arc;

use anyhow::Context as _;

use crate::client_key::ClientKey;
use crate::grantd::Grantd;
use crate::http::token_request;
use crate::program::field;

/// A registered client and its secret.
#[derive(Debug, Clone)]
pub struct Client {
    /// `client_id`.
    pub id: String,
    /// `client_secret`.
    pub secret: String,
    /// Id of the secret.
    pub secret_id: String,
    /// Whether the secret was imported: such a secret carries no tag.
    pub imported: bool,
    /// Its token request, ready to send.
    pub request: Arc<[u8]>,
}

impl Client {
    /// The client with that secret.
    #[must_use]
    pub fn new(id: &str, secret: String, secret_id: String, imported: bool) -> Self {
        let request = token_request(id, &secret).into();
        Self { id: id.to_owned(), secret, secret_id, imported, request }
    }
}

/// Registers a client with a secret that grantd generates; `more` is appended to the command.
pub async fn register(grantd: &Grantd, id: &str, more: &[&str]) -> anyhow::Result<Client> {
    let printed = create(grantd, id, more).await?;
    let text = |name| field(&printed, name).with_context(|| format!("grantd printed no {name}"));
    Ok(Client::new(id, text("client_secret")?, text("secret_id")?, false))
}

/// Registers a client and imports its secret.
pub async fn register_imported(grantd: &Grantd, id: &str, secret: &str) -> anyhow::Result<Client> {
    create(grantd, id, &["--no-secret"]).await?;
    let printed = grantd.run_ok(&["client", "secret", "import", id, "--json"], secret).await?.stdout;
    let secret_id = field(&printed, "secret_id").context("grantd printed no secret_id")?;
    Ok(Client::new(id, secret.to_owned(), secret_id, true))
}

/// Registers a client that has a key and no secret.
pub async fn register_key(grantd: &Grantd, id: &str) -> anyhow::Result<ClientKey> {
    let key = ClientKey::generate()?;
    create(grantd, id, &["--no-secret"]).await?;
    grantd.run_ok(&["client", "key", "add", id, "--jwk", "-"], &key.jwk()).await?;
    Ok(key)
}

async fn create(grantd: &Grantd, id: &str, more: &[&str]) -> anyhow::Result<String> {
    let command = [&["client", "create", id, "--json"][..], &SCOPES, more].concat();
    Ok(grantd.run_ok(&command, "").await?.stdout)
}

/// SQL, true on both databases, that registers `count` clients with hashes that no secret has: `prefix-1`, `prefix-2`, ….
/// With `imported`, every tenth has no tag, as after an import.
#[must_use]
pub fn idle_clients(prefix: &str, count: usize, imported: bool) -> String {
    let numbers = format!("with recursive n (i) as (select 1 union all select i + 1 from n where i < {count})");
    let is_imported = if imported { "i % 10 = 0" } else { "1 = 0" };
    format!(
        "{numbers} insert into client (client_id, scope, default_scope)
         select '{prefix}-' || i, 'api:read api:write', '{SCOPE}' from n where i <= {count};
         {numbers} insert into client_secret (secret_id, client_id, hash, imported, tag_key)
         select '{prefix}' || i, '{prefix}-' || i, '{UNUSED_HASH}', case when {is_imported} then 1 else 0 end,
             case when {is_imported} then null else (select max(kid) from secret_tag_key) end
         from n where i <= {count};\n"
    )
}

/// Dialect of SQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// PostgreSQL, as a superuser.
    Postgres,
    /// SQLite.
    Sqlite,
}

/// SQL that registers `count` clients such as a large organisation has, with the resources that they use. Each client has 5
/// to 20 scope tokens, one or two of 48 resources, and a secret with a hash that no secret has; every tenth secret is
/// imported. Every twentieth client has a key too, every twentieth a certificate.
///
/// With `verifiers`, each generated secret has a verifier under the key of those that the database holds already.
/// In PostgreSQL no trigger runs and no constraint is checked, which takes a millisecond for each secret; afterwards one
/// change raises the revision.
pub fn fleet_clients(dialect: Dialect, count: usize, verifiers: bool) -> io::Result<String> {
    let numbers = format!(
        "with recursive n (i) as (select cast(1 as bigint) union all select i + 1 from n where i < {count}),
         j (j) as (select 0 union all select j + 1 from j where j < 19)"
    );
    let id = format!(
        "{} || '-' || {} || '-' || {} || '-' || i",
        word(SERVICES, "i % 26"),
        word(ROLES, "i / 26 % 8"),
        word(STAGES, "i % 3")
    );
    // 251 is prime, so a step from 1 to 250 meets no token twice.
    let token = |number: &str| {
        let at = format!("((i * 7919 + {number} * (1 + i / 251 % 250)) % 251)");
        format!("{} || ':' || {}", word(SERVICES, &format!("({at} / 10)")), word(ACTIONS, &format!("{at} % 10")))
    };
    let resource = |at: &str| {
        format!("'https://' || {} || '.example.com/v' || (1 + ({at}) / 26)", word(SERVICES, &format!("({at}) % 26")))
    };
    let join = if dialect == Dialect::Postgres { "string_agg" } else { "group_concat" };
    let random = |salt: &str| match dialect {
        Dialect::Postgres => format!("md5('{salt}' || i)"),
        Dialect::Sqlite => "lower(hex(randomblob(16)))".to_owned(),
    };
    let is_imported = "i % 10 = 0";
    // The last character of unpadded base64 has no bits beyond the last byte.
    let (salt, more, output) = (random("salt"), random("more"), random("output"));
    let hash = format!(
        "'$argon2id$v=19$m=19456,t=2,p=1$' || substr({salt}, 1, 21) || 'g$' || substr({output} || {more}, 1, 42) || '8'"
    );
    let (verifier, its_value) = if verifiers {
        let key = "(select max(substr(verifier, 1, 9)) from client_secret)";
        let mac = format!("substr({more} || {salt}, 1, 42) || '8'");
        (", verifier", format!(", case when {is_imported} then null else {key} || {mac} end"))
    } else {
        ("", String::new())
    };
    let keys = (0..8).map(|number| {
        let jwk = ClientKey::generate()?.jwk().replacen('{', r#"{"alg":"ES256","use":"sig","#, 1);
        Ok(format!("when {number} then '{jwk}' "))
    });
    let keys = keys.collect::<io::Result<String>>()?;
    let fill = format!(
        "with recursive n (i) as (select 1 union all select i + 1 from n where i < 48)
         insert into resource (identifier, scope) select {}, {} || ':read ' || {} || ':write' from n;
         {numbers} insert into client (client_id, scope, default_scope, status_index)
         select {id}, (select {join}({}, ' ') from j where j < 5 + i * 31 / 7 % 16), {},
             (select coalesce(max(status_index), 0) from client) + i from n;
         {numbers} insert into client_resource (client_id, identifier) select {id}, {} from n
         union all select {id}, {} from n where i % 3 = 0;
         {numbers} insert into client_secret (secret_id, client_id, hash, imported, tag_key{verifier})
         select substr({}, 1, 16), {id}, {hash}, case when {is_imported} then 1 else 0 end,
             case when {is_imported} then null else (select max(kid) from secret_tag_key) end{its_value} from n;
         {numbers} insert into client_key (client_id, kid, jwk)
         select {id}, 'key-' || i / 20 % 8, case i / 20 % 8 {keys} end from n where i % 20 = 1;
         {numbers} insert into client_certificate (client_id, kind, value)
         select {id}, case when i % 40 = 2 then 'subject_dn' else 'san_dns' end,
             case when i % 40 = 2 then 'CN=' || {id} || ',O=Example' else {id} || '.example.com' end
         from n where i % 20 = 2;\n",
        resource("i - 1"),
        word(SERVICES, "(i - 1) % 26"),
        word(SERVICES, "(i - 1) % 26"),
        token("j"),
        token("0"),
        resource("i % 48"),
        resource("((i + 1 + i / 48 % 47) % 48)"),
        random("id"),
    );
    Ok(match dialect {
        Dialect::Sqlite => fill,
        Dialect::Postgres => format!(
            "set session_replication_role = replica;
             create temporary table checked as select conrelid::regclass as of, conname, pg_get_constraintdef(oid) as must
                 from pg_constraint where contype = 'c' and connamespace = 'public'::regnamespace;
             do $$ declare one record; begin
                 for one in select * from checked loop
                     execute format('alter table %s drop constraint %I', one.of, one.conname);
                 end loop;
             end $$;
             {fill}
             select setval('status_index', max(status_index)) from client;
             do $$ declare one record; begin
                 for one in select * from checked loop
                     execute format('alter table %s add constraint %I %s not valid', one.of, one.conname, one.must);
                 end loop;
             end $$;
             set session_replication_role = origin;
             vacuum analyze;
             update resource set token_ttl = token_ttl where identifier = (select min(identifier) from resource);
             checkpoint;\n"
        ),
    })
}

/// SQL of the word of that number, from 0, in a list of words that are padded to ten characters each.
fn word(words: &str, number: &str) -> String {
    format!("rtrim(substr('{words}', 1 + 10 * cast({number} as integer), 10))")
}

/// 26 services.
const SERVICES: &str = "billing   payments  orders    catalogue inventory shipping  customers identity  search    \
    pricing   reporting ledger    mail      sms       fraud     loyalty   returns   warehouse routing   forecast  \
    exports   imports   media     tax       contracts support   ";
const ACTIONS: &str =
    "read      write     list      delete    approve   export    import    audit     admin     watch     ";
const ROLES: &str = "worker    consumer  exporter  gateway   cron      sync      indexer   agent     ";
const STAGES: &str = "prod      stage     test      ";

/// The scope of a token when the request names none.
pub const SCOPE: &str = "api:read";
/// Arguments that give a client its scopes.
pub const SCOPES: [&str; 4] = ["--scope", "api:read api:write", "--default-scope", SCOPE];
const UNUSED_HASH: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$MDEyMzQ1Njc4OWFiY2RlZg$4PTs6i9jvSbk26IegYamZi+9v3lOmSCppfpnmuUDP68";
