-- What grantd knows: clients, their secrets, the resources they may ask for, the keys that sign.
--
-- One schema in two dialects; ../sqlite/1_registry.sql is its twin and a test compares them.
-- Times are integer seconds (NumericDate), flags are 0 or 1, lists are space-delimited as on the wire.
-- A constraint's name is the message its violation prints, so it says what to write instead (63 bytes at most).

create table resource (
    identifier text primary key,
    scope      text not null,
    alg        text,
    token_ttl  bigint,
    created_at bigint not null default extract(epoch from now())::bigint,
    constraint "identifier: absolute URI without fragment (RFC 8707), max 2048"
        check (identifier ~ '^[A-Za-z][A-Za-z0-9+.-]*:[!$-;=?-Z_a-z~[\]%-]+$' and length(identifier) <= 2048),
    constraint "scope: tokens with single spaces between; no "" \ or control"
        check (scope ~ '^([]!#-[^-~]+( []!#-[^-~]+)*)?$' and length(scope) <= 4096
            and length(scope) - length(replace(scope, ' ', '')) < 100),
    constraint "alg: one of ES256 EdDSA PS256 RS256"
        check (alg in ('ES256', 'EdDSA', 'PS256', 'RS256')),
    constraint "token_ttl: seconds, from 1 to 86400"
        check (token_ttl between 1 and 86400)
);

create table client (
    client_id            text primary key,
    scope                text not null default '',
    default_scope        text not null default '',
    grant_types          text not null default 'client_credentials',
    auth_methods         text,
    token_ttl            bigint,
    claims               text not null default '{}',
    require_dpop         bigint not null default 0,
    require_mtls_binding bigint not null default 0,
    enabled              bigint not null default 1,
    created_at           bigint not null default extract(epoch from now())::bigint,
    constraint "client_id: 1 to 128 of A-Z a-z 0-9 . _ ~ -"
        check (client_id ~ '^[A-Za-z0-9._~-]{1,128}$'),
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
    constraint "token_ttl: seconds, from 1 to 86400"
        check (token_ttl between 1 and 86400),
    constraint "claims: ASCII; write other characters as \u00e9"
        check (octet_length(claims) = length(claims)),
    constraint "claims: a JSON object"
        check (jsonb_typeof(claims::jsonb) = 'object'),
    constraint "claims: iss sub aud exp iat jti scope … are set by grantd"
        check (not claims::jsonb ?| array['iss', 'sub', 'aud', 'exp', 'nbf', 'iat', 'jti', 'scope', 'client_id', 'cnf',
               'act', 'may_act', 'auth_time', 'acr', 'amr']),
    constraint "require_dpop, require_mtls_binding, enabled: 0 or 1"
        check (require_dpop in (0, 1) and require_mtls_binding in (0, 1) and enabled in (0, 1))
);

create table client_resource (
    client_id  text not null references client (client_id) on delete cascade,
    identifier text not null,
    primary key (client_id, identifier),
    constraint "identifier: no such resource; insert into resource first"
        foreign key (identifier) references resource (identifier)
);
create index client_resource_identifier on client_resource (identifier);

create table resource_introspector (
    identifier text not null references resource (identifier) on delete cascade,
    client_id  text not null,
    primary key (identifier, client_id),
    constraint "client_id: no such client; insert into client first"
        foreign key (client_id) references client (client_id) on delete cascade
);
create index resource_introspector_client_id on resource_introspector (client_id);

create table client_secret (
    secret_id  text primary key default replace(gen_random_uuid()::text, '-', ''),
    client_id  text not null,
    hash       text not null,
    label      text not null default '',
    -- 0 for secrets that grantd made: those carry their secret_id, all others have to be tried.
    imported   bigint not null default 1,
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
    constraint "imported: 0 or 1"
        check (imported in (0, 1)),
    constraint "label: at most 128 characters"
        check (length(label) <= 128)
);
create index client_secret_client_id on client_secret (client_id);

-- When a secret last authenticated its client, written in batches and watched by nobody, so it has no change trigger.
create table client_secret_use (
    secret_id    text primary key references client_secret (secret_id) on delete cascade,
    last_used_at bigint not null
);

-- Private keys are sealed under a key that is not in the database. A key signs from active_at until its successor does.
create table signing_key (
    kid        text primary key,
    alg        text not null,
    sealed     bytea not null,
    active_at  bigint not null,
    created_at bigint not null default extract(epoch from now())::bigint,
    constraint "kid: an RFC 7638 thumbprint; run `grantd key generate`"
        check (kid ~ '^[A-Za-z0-9_-]{43}$'),
    constraint "alg: one of ES256 EdDSA PS256 RS256"
        check (alg in ('ES256', 'EdDSA', 'PS256', 'RS256'))
);

-- The change feed. Every change above raises the revision in its own transaction and notes what it touched:
-- replicas poll the one row and load only what is newer than what they have. Hand-written SQL is seen like any other.
create table registry_revision (
    only_row bigint primary key check (only_row = 1),
    revision bigint not null
);
insert into registry_revision (only_row, revision) values (1, 1);

create table registry_change (
    kind     text not null,
    id       text not null,
    revision bigint not null,
    primary key (kind, id)
);
create index registry_change_revision on registry_change (revision);

-- The row lock on registry_revision is held until commit, so revisions become visible in their own order.
create function grantd_note_change() returns trigger language plpgsql as $$
declare
    now_at bigint;
    rows   text := 'select * from changed';
begin
    if tg_op = 'TRUNCATE' then
        update registry_revision set revision = revision + 1 returning revision into now_at;
        insert into registry_change (kind, id, revision) values ('all', '', now_at)
            on conflict (kind, id) do update set revision = excluded.revision;
        perform pg_notify('grantd', now_at::text);
        return null;
    end if;
    if not exists (select from changed) then
        return null;
    end if;
    if tg_op = 'UPDATE' then
        rows := 'select * from changed union all select * from replaced';
    end if;
    update registry_revision set revision = revision + 1 returning revision into now_at;
    execute format(
        'insert into registry_change (kind, id, revision) select distinct %L, %I, $1 from (%s) as touched order by 2
         on conflict (kind, id) do update set revision = excluded.revision', tg_argv[0], tg_argv[1], rows) using now_at;
    perform pg_notify('grantd', now_at::text);
    return null;
end $$;

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
        ('signing_key', 'key', 'kid')) as t (name, kind, id)
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
