-- The schema: resources, clients and their credentials, keys, spent and revoked ids, and the change feed.
--
-- One schema in two dialects; ../sqlite/1_schema.sql is its twin and a test compares them.
-- Times are integer seconds since 1970 (NumericDate), flags are 0 or 1, lists are space-delimited as on the wire.
-- A constraint's name is the message that its violation prints, so it says what to write instead (63 bytes at most).

-- Resource servers (RFC 8707): the aud of their tokens, and the scope that may be granted for them.
create table resource (
    identifier text primary key,
    scope      text not null,
    -- The algorithm that signs tokens for this resource; null for the server's default.
    alg        text,
    -- Seconds from iat to exp of a token: the shorter of the client's and the resource's, or else the server's default.
    token_ttl  bigint,
    -- RFC 9068 section 2.1 says at+jwt, which some libraries of resource servers refuse.
    token_typ  text not null default 'at+jwt',
    created_at bigint not null default extract(epoch from now())::bigint,
    constraint "identifier: absolute URI without fragment (RFC 8707), max 2048"
        check (identifier ~ '^[A-Za-z][A-Za-z0-9+.-]*:[!$-;=?-Z_a-z~[\]%-]+$' and length(identifier) <= 2048),
    constraint "scope: tokens with single spaces between; no "" \ or control"
        check (scope ~ '^([]!#-[^-~]+( []!#-[^-~]+)*)?$' and length(scope) <= 4096
            and length(scope) - length(replace(scope, ' ', '')) < 100),
    constraint "alg: one of ES256 EdDSA PS256 RS256"
        check (alg in ('ES256', 'EdDSA', 'PS256', 'RS256')),
    constraint "token_ttl: seconds, from 1 to 86400"
        check (token_ttl between 1 and 86400),
    constraint "token_typ: at+jwt or JWT"
        check (token_typ in ('at+jwt', 'JWT')),
    constraint "created_at: seconds since 1970, not milliseconds"
        check (created_at between 0 and 99999999999)
);

-- Registered clients.
create table client (
    -- RFC 6749 appendix A.1, so that clients of other servers keep their ids.
    client_id            text primary key,
    -- The scope that the client may request, and the part of it that a request without scope is granted.
    scope                text not null default '',
    default_scope        text not null default '',
    grant_types          text not null default 'client_credentials',
    auth_methods         text,
    -- The URL at which the client publishes its keys, instead of rows in client_key.
    jwks_uri             text,
    -- The aud of a client assertion. draft-ietf-oauth-rfc7523bis section 4 requires the issuer; many libraries send the URL
    -- of the token endpoint.
    assertion_audience   text not null default 'issuer',
    -- The most seconds from iat, or from now, to exp of an assertion; null for 300. Some libraries sign for an hour.
    assertion_lifetime   bigint,
    -- Seconds from iat to exp of a token, as in resource.
    token_ttl            bigint,
    -- Additional claims of the client's tokens.
    claims               text not null default '{}',
    require_dpop         bigint not null default 0,
    require_mtls_binding bigint not null default 0,
    -- RFC 9701 section 6: the algorithm of introspection responses to this client; null for the server's default.
    introspection_signed_response_alg text,
    enabled              bigint not null default 1,
    -- Cut-off: the client's tokens that were issued in this second or before are revoked.
    not_before           bigint not null default 0,
    created_at           bigint not null default extract(epoch from now())::bigint,
    constraint "client_id: 1 to 255 printable ASCII, no space at either end"
        check (client_id collate "C" ~ '^[!-~]([ -~]{0,253}[!-~])?$'),
    constraint "scope: tokens with single spaces between; no "" \ or control"
        check (scope ~ '^([]!#-[^-~]+( []!#-[^-~]+)*)?$' and length(scope) <= 4096
            and length(scope) - length(replace(scope, ' ', '')) < 100),
    constraint "default_scope: must be a part of scope"
        check (default_scope = '' or string_to_array(default_scope, ' ') <@ string_to_array(scope, ' ')),
    constraint "grant_types: client_credentials, or empty for none"
        check (grant_types in ('', 'client_credentials')),
    constraint "auth_methods: null for any, else names as in the metadata"
        check (string_to_array(auth_methods, ' ') <@ array['client_secret_basic', 'client_secret_post',
               'private_key_jwt', 'tls_client_auth', 'self_signed_tls_client_auth']),
    constraint "jwks_uri: an https URL without fragment, at most 2048 long"
        check (jwks_uri ~ '^https://[!-~]+$' and position('#' in jwks_uri) = 0 and length(jwks_uri) <= 2048),
    constraint "assertion_audience: issuer or token-endpoint"
        check (assertion_audience in ('issuer', 'token-endpoint')),
    constraint "assertion_lifetime: seconds, from 60 to 3600"
        check (assertion_lifetime between 60 and 3600),
    constraint "token_ttl: seconds, from 1 to 86400"
        check (token_ttl between 1 and 86400),
    constraint "claims: ASCII; write other characters as \u00e9"
        check (octet_length(claims) = length(claims)),
    -- A token has to fit into a header field, and into a request to the introspection endpoint.
    constraint "claims: at most 4096 characters"
        check (length(claims) <= 4096),
    constraint "claims: a JSON object"
        check (jsonb_typeof(claims::jsonb) = 'object'),
    constraint "claims: iss sub aud exp iat jti scope … are set by grantd"
        check (not claims::jsonb ?| array['iss', 'sub', 'aud', 'exp', 'nbf', 'iat', 'jti', 'scope', 'client_id', 'cnf',
               'act', 'may_act', 'auth_time', 'acr', 'amr']),
    constraint "introspection_signed_response_alg: ES256 EdDSA PS256 or RS256"
        check (introspection_signed_response_alg in ('ES256', 'EdDSA', 'PS256', 'RS256')),
    constraint "require_dpop, require_mtls_binding, enabled: 0 or 1"
        check (require_dpop in (0, 1) and require_mtls_binding in (0, 1) and enabled in (0, 1)),
    constraint "not_before: seconds since 1970, not milliseconds"
        check (not_before between 0 and 99999999999),
    constraint "created_at: seconds since 1970, not milliseconds"
        check (created_at between 0 and 99999999999)
);

-- The resources for which a client may request tokens.
create table client_resource (
    client_id  text not null references client (client_id) on delete cascade,
    identifier text not null,
    primary key (client_id, identifier),
    constraint "identifier: no such resource; insert into resource first"
        foreign key (identifier) references resource (identifier)
);
create index client_resource_identifier on client_resource (identifier);

-- The clients that may introspect the tokens of a resource (RFC 7662).
create table resource_introspector (
    identifier text not null references resource (identifier) on delete cascade,
    client_id  text not null,
    primary key (identifier, client_id),
    constraint "client_id: no such client; insert into client first"
        foreign key (client_id) references client (client_id) on delete cascade
);
create index resource_introspector_client_id on resource_introspector (client_id);

-- Client secrets, as argon2id hashes.
create table client_secret (
    secret_id  text primary key default replace(gen_random_uuid()::text, '-', ''),
    client_id  text not null,
    hash       text not null,
    label      text not null default '',
    -- 0 for a secret that grantd generated: it carries its secret_id. All other secrets of a client have to be tried.
    imported   bigint not null default 1,
    -- The secret_tag_key of the secret's tag; null for a secret without a tag. That key may have been deleted.
    tag_key    text,
    created_at bigint not null default extract(epoch from now())::bigint,
    expires_at bigint,
    revoked_at bigint,
    constraint "client_id: no such client; insert into client first"
        foreign key (client_id) references client (client_id) on delete cascade,
    constraint "secret_id: 1 to 64 of A-Z a-z 0-9 -"
        check (secret_id ~ '^[A-Za-z0-9-]{1,64}$'),
    constraint "hash: not argon2id; insert what `grantd hash-secret` prints"
        check (hash ~ '^\$argon2id\$v=19\$m=[0-9]{1,9},t=[0-9]{1,9},p=[0-9]{1,9}\$[A-Za-z0-9+/]{22,86}\$[A-Za-z0-9+/]{43,86}$'),
    constraint "hash: too weak, want m=19456,t=2; use `grantd hash-secret`"
        check (hash !~ '^\$argon2id\$v=19\$m=[0-9]{1,9},t=[0-9]{1,9},p=[0-9]{1,9}\$'
            or (substring(hash from 'm=([0-9]{1,9})')::bigint >= 19456 and substring(hash from ',t=([0-9]{1,9})')::bigint >= 2)
            or (substring(hash from 'm=([0-9]{1,9})')::bigint >= 47104 and substring(hash from ',t=([0-9]{1,9})')::bigint >= 1)
            or (substring(hash from 'm=([0-9]{1,9})')::bigint >= 12288 and substring(hash from ',t=([0-9]{1,9})')::bigint >= 3)),
    constraint "hash: too costly to verify, at most m=65536,t=10,p=16"
        check (hash !~ '^\$argon2id\$v=19\$m=[0-9]{1,9},t=[0-9]{1,9},p=[0-9]{1,9}\$'
            or (substring(hash from 'm=([0-9]{1,9})')::bigint <= 65536 and substring(hash from ',t=([0-9]{1,9})')::bigint <= 10
                and substring(hash from ',p=([0-9]{1,9})')::bigint between 1 and 16)),
    constraint "label: at most 128 characters"
        check (length(label) <= 128),
    constraint "imported: 0 or 1"
        check (imported in (0, 1)),
    constraint "tag_key: 16 of 0-9 a-f, and only where imported = 0"
        check (tag_key is null or tag_key ~ '^[0-9a-f]{16}$' and imported = 0),
    constraint "created_at: seconds since 1970, not milliseconds"
        check (created_at between 0 and 99999999999),
    constraint "expires_at: seconds since 1970, not milliseconds"
        check (expires_at between 0 and 99999999999),
    constraint "revoked_at: seconds since 1970, not milliseconds"
        check (revoked_at between 0 and 99999999999)
);
create index client_secret_client_id on client_secret (client_id);

-- The last time each secret authenticated its client. grantd writes it in batches and no replica reads it, so it has no
-- change triggers.
create table client_secret_use (
    secret_id    text primary key references client_secret (secret_id) on delete cascade,
    last_used_at bigint not null,
    constraint "last_used_at: seconds since 1970, not milliseconds"
        check (last_used_at between 0 and 99999999999)
);

-- Public keys of clients, for private_key_jwt (RFC 7523). Each has one algorithm, the alg of its JWK.
create table client_key (
    client_id  text not null,
    kid        text not null,
    jwk        text not null,
    created_at bigint not null default extract(epoch from now())::bigint,
    expires_at bigint,
    primary key (client_id, kid),
    constraint "client_id: no such client; insert into client first"
        foreign key (client_id) references client (client_id) on delete cascade,
    constraint "kid: 1 to 256 printable ASCII characters"
        check (kid ~ '^[ -~]+$' and length(kid) <= 256),
    constraint "jwk: at most 4096 ASCII characters"
        check (octet_length(jwk) = length(jwk) and length(jwk) <= 4096),
    constraint "jwk: a JSON object with kty"
        check (jsonb_typeof(jwk::jsonb) = 'object' and jwk::jsonb ? 'kty'),
    constraint "jwk: public keys only; no d p q dp dq qi oth k"
        check (not jwk::jsonb ?| array['d', 'p', 'q', 'dp', 'dq', 'qi', 'oth', 'k']),
    constraint "created_at: seconds since 1970, not milliseconds"
        check (created_at between 0 and 99999999999),
    constraint "expires_at: seconds since 1970, not milliseconds"
        check (expires_at between 0 and 99999999999)
);

-- The last time each key authenticated its client; without change triggers, as client_secret_use.
create table client_key_use (
    client_id    text not null,
    kid          text not null,
    last_used_at bigint not null,
    primary key (client_id, kid),
    foreign key (client_id, kid) references client_key (client_id, kid) on delete cascade,
    constraint "last_used_at: seconds since 1970, not milliseconds"
        check (last_used_at between 0 and 99999999999)
);

-- Certificates of clients (RFC 8705): one name in the certificate, or the hash of a self-signed one.
create table client_certificate (
    cert_id    text primary key default replace(gen_random_uuid()::text, '-', ''),
    client_id  text not null,
    kind       text not null,
    value      text not null,
    created_at bigint not null default extract(epoch from now())::bigint,
    -- The registration does not count from this second on. A self-signed certificate has its own notAfter besides.
    expires_at bigint,
    constraint "client_id: no such client; insert into client first"
        foreign key (client_id) references client (client_id) on delete cascade,
    constraint "cert_id: 1 to 64 of A-Z a-z 0-9 -"
        check (cert_id ~ '^[A-Za-z0-9-]{1,64}$'),
    constraint "kind: subject_dn, san_dns, _uri, _ip, _email or self_signed"
        check (kind in ('subject_dn', 'san_dns', 'san_uri', 'san_ip', 'san_email', 'self_signed')),
    constraint "value: 1 to 4096 characters"
        check (length(value) between 1 and 4096),
    constraint "created_at: seconds since 1970, not milliseconds"
        check (created_at between 0 and 99999999999),
    constraint "expires_at: seconds since 1970, not milliseconds"
        check (expires_at between 0 and 99999999999)
);
create index client_certificate_client_id on client_certificate (client_id);
-- RFC 8705 section 2.1.2: exactly one name. Self-signed certificates overlap while they are replaced.
create unique index client_certificate_one_name on client_certificate (client_id) where kind <> 'self_signed';

-- The last time each certificate authenticated its client; without change triggers, as client_secret_use.
create table client_certificate_use (
    cert_id      text primary key references client_certificate (cert_id) on delete cascade,
    last_used_at bigint not null,
    constraint "last_used_at: seconds since 1970, not milliseconds"
        check (last_used_at between 0 and 99999999999)
);

-- Deleted clients. Their tokens stay revoked when another client gets the same id. A row is kept until the last of those
-- tokens has expired.
create table deleted_client (
    client_id  text primary key,
    deleted_at bigint not null,
    constraint "deleted_at: seconds since 1970, not milliseconds"
        check (deleted_at between 0 and 99999999999)
);

-- Signing keys. The private key is sealed under a key that is not in the database. A key signs from active_at until the
-- next key of its algorithm does.
create table signing_key (
    kid        text primary key,
    alg        text not null,
    sealed     bytea not null,
    active_at  bigint not null,
    created_at bigint not null default extract(epoch from now())::bigint,
    constraint "kid: an RFC 7638 thumbprint; run `grantd key generate`"
        check (kid ~ '^[A-Za-z0-9_-]{43}$'),
    constraint "alg: one of ES256 EdDSA PS256 RS256"
        check (alg in ('ES256', 'EdDSA', 'PS256', 'RS256')),
    constraint "active_at: seconds since 1970, not milliseconds"
        check (active_at between 0 and 99999999999),
    constraint "created_at: seconds since 1970, not milliseconds"
        check (created_at between 0 and 99999999999)
);

-- Keys of the tags (MACs) of generated secrets, by which a made-up secret is refused before any hash. Sealed like signing
-- keys. The newest key tags new secrets; all of them verify. Without a key its secrets cost a hash, and still work.
create table secret_tag_key (
    kid        text primary key,
    sealed     bytea not null,
    created_at bigint not null default extract(epoch from now())::bigint,
    constraint "kid: 16 of 0-9 a-f; run `grantd key tag rotate`"
        check (kid ~ '^[0-9a-f]{16}$'),
    constraint "created_at: seconds since 1970, not milliseconds"
        check (created_at between 0 and 99999999999)
);

-- Single-use ids (jti of assertions and DPoP proofs) until they expire. They are no registration, so without change
-- triggers.
create table spent_jti (
    kind       text not null,
    owner      text not null,
    jti        bytea not null,
    expires_at bigint not null,
    primary key (kind, owner, jti),
    constraint "expires_at: seconds since 1970, not milliseconds"
        check (expires_at between 0 and 99999999999)
);
create index spent_jti_expires_at on spent_jti (expires_at);

-- Revoked tokens (RFC 7009) until they expire. Each row has the revision that it came with, so that replicas read only new
-- rows. client_id is no foreign key: the tokens of a deleted client stay revoked when the client is created again.
create table revoked_token (
    jti        text primary key,
    client_id  text not null default '',
    expires_at bigint not null,
    revoked_at bigint not null default extract(epoch from now())::bigint,
    revision   bigint not null default 0,
    constraint "jti: as it stands in the token, 22 of A-Z a-z 0-9 _ -"
        check (jti ~ '^[A-Za-z0-9_-]{21}[AQgw]$'),
    constraint "expires_at: seconds since 1970, not milliseconds"
        check (expires_at between 0 and 99999999999),
    constraint "revoked_at: seconds since 1970, not milliseconds"
        check (revoked_at between 0 and 99999999999)
);
create index revoked_token_revision on revoked_token (revision);
create index revoked_token_expires_at on revoked_token (expires_at);

-- Cut-off of all clients: tokens that were issued in this second or before are revoked.
create table token_cutoff (
    only_row   bigint primary key check (only_row = 1),
    not_before bigint not null,
    constraint "not_before: seconds since 1970, not milliseconds"
        check (not_before between 0 and 99999999999)
);
insert into token_cutoff (only_row, not_before) values (1, 0);

-- The change feed. Each change of a watched table raises the revision in its own transaction and notes the changed ids.
-- Replicas poll the one row and load only ids that are newer than their revision. SQL by hand is noticed like any other.
-- Each revision has a random id: a restored database, a failover that lost changes, or another database behind the same
-- address may have the same revision, and has another id.
create table registry_revision (
    only_row bigint primary key check (only_row = 1),
    revision bigint not null,
    history  text not null default ''
);
insert into registry_revision (only_row, revision, history) values (1, 1, gen_random_uuid()::text);

-- The last revision in which each id changed.
create table registry_change (
    kind     text not null,
    id       text not null,
    revision bigint not null,
    primary key (kind, id)
);
create index registry_change_revision on registry_change (revision);

-- The ids of the last ten thousand revisions. A replica that holds an older one loads everything.
create table registry_history (
    revision bigint primary key,
    history  text not null
);
insert into registry_history (revision, history) select revision, history from registry_revision;

-- Trigger functions run in sessions of administrators, dumps and restores. Each looks up built-in functions in pg_catalog
-- alone, and names its tables with the schema of the table that was changed. They act as the owner of the schema, so an
-- administrator who changes a client needs no rights on the tables of the change feed.

-- Raises the revision, notes the change of kind `what`, and returns the revision. The row lock on registry_revision is held
-- until commit, so revisions become visible in their own order.
create function grantd_raise_revision(of_schema text, what text) returns bigint language plpgsql
set search_path = pg_catalog, pg_temp as $$
declare
    now_at bigint;
    its_id text;
begin
    execute format('update %I.registry_revision set revision = revision + 1, history = gen_random_uuid()::text
        returning revision, history', of_schema) into now_at, its_id;
    execute format('insert into %I.registry_history (revision, history) values ($1, $2)
        on conflict (revision) do update set history = excluded.history', of_schema) using now_at, its_id;
    execute format('delete from %I.registry_history where revision <= $1', of_schema) using now_at - 10000;
    if what is not null then
        execute format('insert into %I.registry_change (kind, id, revision) values ($1, $2, $3)
            on conflict (kind, id) do update set revision = excluded.revision', of_schema) using what, ''::text, now_at;
    end if;
    perform pg_notify('grantd', now_at::text);
    return now_at;
end $$;
revoke execute on function grantd_raise_revision(text, text) from public;

create function grantd_note_change() returns trigger language plpgsql security definer
set search_path = pg_catalog, pg_temp as $$
declare
    now_at bigint;
    raise_revision text := format('select %I.grantd_raise_revision($1, $2)', tg_table_schema);
    rows   text := 'select * from changed';
begin
    if tg_op = 'TRUNCATE' then
        execute raise_revision using tg_table_schema::text, 'all'::text;
        return null;
    end if;
    if not exists (select from changed) then
        return null;
    end if;
    if tg_op = 'UPDATE' then
        rows := 'select * from changed union all select * from replaced';
    end if;
    execute raise_revision into now_at using tg_table_schema::text, null::text;
    execute format(
        'insert into %I.registry_change (kind, id, revision) select distinct %L, %I, $1 from (%s) as touched order by 2
         on conflict (kind, id) do update set revision = excluded.revision', tg_table_schema, tg_argv[0], tg_argv[1], rows) using now_at;
    return null;
end $$;

create function grantd_note_revocation() returns trigger language plpgsql security definer
set search_path = pg_catalog, pg_temp as $$
begin
    execute format('select %I.grantd_raise_revision($1, $2)', tg_table_schema) into new.revision
        using tg_table_schema::text, 'revoked'::text;
    return new;
end $$;

create function grantd_note_cutoff() returns trigger language plpgsql security definer
set search_path = pg_catalog, pg_temp as $$
begin
    execute format('select %I.grantd_raise_revision($1, $2)', tg_table_schema) using tg_table_schema::text, 'cutoff'::text;
    return null;
end $$;

create function grantd_client_deleted() returns trigger language plpgsql security definer
set search_path = pg_catalog, pg_temp as $$
begin
    if tg_op = 'TRUNCATE' then
        execute format('insert into %1$I.deleted_client (client_id, deleted_at)
            select client_id, floor(extract(epoch from clock_timestamp()))::bigint from %1$I.client
            on conflict (client_id) do update set deleted_at = excluded.deleted_at', tg_table_schema);
    else
        execute format('insert into %I.deleted_client (client_id, deleted_at)
            values ($1, floor(extract(epoch from clock_timestamp()))::bigint)
            on conflict (client_id) do update set deleted_at = excluded.deleted_at', tg_table_schema) using old.client_id;
    end if;
    return old;
end $$;

create function grantd_client_made_again() returns trigger language plpgsql security definer
set search_path = pg_catalog, pg_temp as $$
declare
    deleted_at bigint;
begin
    execute format('select deleted_at from %I.deleted_client where client_id = $1', tg_table_schema)
        into deleted_at using new.client_id;
    new.not_before := greatest(new.not_before, deleted_at);
    return new;
end $$;

-- Refuses a row with the message that the trigger names, as a constraint of that name would.
create function grantd_refuse() returns trigger language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    raise exception using errcode = 'check_violation', constraint = tg_argv[0], table = tg_table_name, message = tg_argv[0];
end $$;

-- A cut-off in the future would revoke every new token too, with no way back. Five seconds are left for clocks.
create trigger client_not_before_checked before insert or update of not_before on client for each row
    when (new.not_before > floor(extract(epoch from clock_timestamp()))::bigint + 5)
    execute function grantd_refuse('not_before: not in the future; new tokens would be dead');
create trigger token_cutoff_not_before_checked before insert or update of not_before on token_cutoff for each row
    when (new.not_before > floor(extract(epoch from clock_timestamp()))::bigint + 5)
    execute function grantd_refuse('not_before: not in the future; new tokens would be dead');

create trigger client_deleted_noted before delete on client
    for each row execute function grantd_client_deleted();
create trigger client_truncated_noted before truncate on client
    for each statement execute function grantd_client_deleted();
create trigger client_made_again before insert on client
    for each row execute function grantd_client_made_again();
create trigger revoked_token_noted before insert on revoked_token
    for each row execute function grantd_note_revocation();
create trigger token_cutoff_changed after insert or update or delete or truncate on token_cutoff
    for each statement execute function grantd_note_cutoff();

-- The watched tables: name, kind of the change, column of the id. A test makes the triggers of SQLite from this list.
do $$
declare
    watched record;
begin
    for watched in select * from (values
        ('resource', 'resource', 'identifier'),
        ('resource_introspector', 'resource', 'identifier'),
        ('client', 'client', 'client_id'),
        ('client_resource', 'client', 'client_id'),
        ('client_secret', 'client', 'client_id'),
        ('client_key', 'client', 'client_id'),
        ('client_certificate', 'client', 'client_id'),
        ('signing_key', 'key', 'kid'),
        ('secret_tag_key', 'tag_key', 'kid')) as t (name, kind, id)
    loop
        execute format('create trigger %1$s_inserted after insert on %1$s referencing new table as changed
                        for each statement execute function grantd_note_change(%2$L, %3$L)', watched.name, watched.kind, watched.id);
        execute format('create trigger %1$s_updated after update on %1$s referencing new table as changed old table as replaced
                        for each statement execute function grantd_note_change(%2$L, %3$L)', watched.name, watched.kind, watched.id);
        execute format('create trigger %1$s_deleted after delete on %1$s referencing old table as changed
                        for each statement execute function grantd_note_change(%2$L, %3$L)', watched.name, watched.kind, watched.id);
        execute format('create trigger %1$s_truncated after truncate on %1$s
                        for each statement execute function grantd_note_change(%2$L, %3$L)', watched.name, watched.kind, watched.id);
    end loop;
end $$;
