-- What grantd knows: clients, their secrets, the resources they may ask for, the keys that sign.
--
-- One schema in two dialects; ../postgres/1_registry.sql is its twin and a test compares them.
-- Times are integer seconds (NumericDate), flags are 0 or 1, lists are space-delimited as on the wire.
-- A constraint's name is the message its violation prints, so it says what to write instead.
-- length(cast(x as blob)) = length(x) refuses NUL and everything outside ASCII.

create table resource (
    identifier text primary key not null,
    scope      text not null,
    alg        text,
    token_ttl  integer,
    created_at integer not null default (unixepoch()),
    constraint "identifier: absolute URI without fragment (RFC 8707), max 2048"
        check (identifier glob '[A-Za-z]*:?*' and not identifier glob '*[^]!$-;=?-Z_a-z~[%-]*'
            and not substr(identifier, 1, instr(identifier, ':') - 1) glob '*[^A-Za-z0-9+.-]*'
            and length(cast(identifier as blob)) = length(identifier) and length(identifier) <= 2048),
    constraint "scope: tokens with single spaces between; no "" \ or control"
        check (not scope glob '*[^] !#-[^-~]*' and not scope glob ' *' and not scope glob '* ' and not scope glob '*  *'
            and length(cast(scope as blob)) = length(scope) and length(scope) <= 4096
            and length(scope) - length(replace(scope, ' ', '')) < 100),
    constraint "alg: one of ES256 EdDSA PS256 RS256"
        check (alg in ('ES256', 'EdDSA', 'PS256', 'RS256')),
    constraint "token_ttl: seconds, from 1 to 86400"
        check (token_ttl between 1 and 86400)
) strict;

create table client (
    client_id            text primary key not null,
    scope                text not null default '',
    default_scope        text not null default '',
    grant_types          text not null default 'client_credentials',
    auth_methods         text,
    token_ttl            integer,
    claims               text not null default '{}',
    require_dpop         integer not null default 0,
    require_mtls_binding integer not null default 0,
    enabled              integer not null default 1,
    created_at           integer not null default (unixepoch()),
    constraint "client_id: 1 to 128 of A-Z a-z 0-9 . _ ~ -"
        check (not client_id glob '*[^A-Za-z0-9._~-]*' and length(cast(client_id as blob)) = length(client_id)
            and length(client_id) between 1 and 128),
    constraint "scope: tokens with single spaces between; no "" \ or control"
        check (not scope glob '*[^] !#-[^-~]*' and not scope glob ' *' and not scope glob '* ' and not scope glob '*  *'
            and length(cast(scope as blob)) = length(scope) and length(scope) <= 4096
            and length(scope) - length(replace(scope, ' ', '')) < 100),
    constraint "grant_types: client_credentials, or empty for none"
        check (grant_types in ('', 'client_credentials')),
    constraint "token_ttl: seconds, from 1 to 86400"
        check (token_ttl between 1 and 86400),
    constraint "claims: ASCII; write other characters as \u00e9"
        check (length(cast(claims as blob)) = length(claims)),
    constraint "claims: a JSON object"
        check (json_valid(claims) and json_type(claims) = 'object'),
    constraint "claims: iss sub aud exp iat jti scope … are set by grantd"
        check (json_type(claims, '$.iss') is null and json_type(claims, '$.sub') is null and json_type(claims, '$.aud') is null
            and json_type(claims, '$.exp') is null and json_type(claims, '$.nbf') is null and json_type(claims, '$.iat') is null
            and json_type(claims, '$.jti') is null and json_type(claims, '$.scope') is null
            and json_type(claims, '$.client_id') is null and json_type(claims, '$.cnf') is null
            and json_type(claims, '$.act') is null and json_type(claims, '$.may_act') is null
            and json_type(claims, '$.auth_time') is null and json_type(claims, '$.acr') is null
            and json_type(claims, '$.amr') is null),
    constraint "require_dpop, require_mtls_binding, enabled: 0 or 1"
        check (require_dpop in (0, 1) and require_mtls_binding in (0, 1) and enabled in (0, 1))
) strict;

create table client_resource (
    client_id  text not null references client (client_id) on delete cascade,
    identifier text not null references resource (identifier),
    primary key (client_id, identifier)
) strict;
create index client_resource_identifier on client_resource (identifier);

create table resource_introspector (
    identifier text not null references resource (identifier) on delete cascade,
    client_id  text not null references client (client_id) on delete cascade,
    primary key (identifier, client_id)
) strict;
create index resource_introspector_client_id on resource_introspector (client_id);

create table client_secret (
    secret_id  text primary key not null default (lower(hex(randomblob(16)))),
    client_id  text not null references client (client_id) on delete cascade,
    hash       text not null,
    label      text not null default '',
    -- 0 for secrets that grantd made: those carry their secret_id, all others have to be tried.
    imported   integer not null default 1,
    created_at integer not null default (unixepoch()),
    expires_at integer,
    revoked_at integer,
    constraint "secret_id: 1 to 64 of A-Z a-z 0-9 -"
        check (not secret_id glob '*[^A-Za-z0-9-]*' and length(cast(secret_id as blob)) = length(secret_id)
            and length(secret_id) between 1 and 64),
    constraint "hash: not argon2id; insert what `grantd hash-secret` prints"
        check (hash glob '$argon2id$v=19$m=[0-9]*,t=[0-9]*,p=[0-9]*$??????????????????????*$???????????????????????????????????????????*'
            and not hash glob '*[^A-Za-z0-9+/$=,]*' and length(cast(hash as blob)) = length(hash) and length(hash) <= 256
            and length(hash) - length(replace(hash, '$', '')) = 5),
    constraint "hash: too weak, want m=19456,t=2; use `grantd hash-secret`"
        check (not hash glob '$argon2id$v=19$m=[0-9]*,t=[0-9]*,p=[0-9]*$*'
            or (cast(substr(hash, 18) as integer) >= 19456 and cast(substr(hash, instr(hash, ',t=') + 3) as integer) >= 2)
            or (cast(substr(hash, 18) as integer) >= 47104 and cast(substr(hash, instr(hash, ',t=') + 3) as integer) >= 1)
            or (cast(substr(hash, 18) as integer) >= 12288 and cast(substr(hash, instr(hash, ',t=') + 3) as integer) >= 3)),
    constraint "hash: too costly to verify, at most m=65536,t=10,p=16"
        check (not hash glob '$argon2id$v=19$m=[0-9]*,t=[0-9]*,p=[0-9]*$*'
            or (cast(substr(hash, 18) as integer) <= 65536 and cast(substr(hash, instr(hash, ',t=') + 3) as integer) <= 10
                and cast(substr(hash, instr(hash, ',p=') + 3) as integer) between 1 and 16)),
    constraint "imported: 0 or 1"
        check (imported in (0, 1)),
    constraint "label: at most 128 characters"
        check (length(label) <= 128)
) strict;
create index client_secret_client_id on client_secret (client_id);

-- When a secret last authenticated its client, written in batches and watched by nobody, so it has no change trigger.
create table client_secret_use (
    secret_id    text primary key not null references client_secret (secret_id) on delete cascade,
    last_used_at integer not null
) strict;

-- Private keys are sealed under a key that is not in the database. A key signs from active_at until its successor does.
create table signing_key (
    kid        text primary key not null,
    alg        text not null,
    sealed     blob not null,
    active_at  integer not null,
    created_at integer not null default (unixepoch()),
    constraint "kid: an RFC 7638 thumbprint; run `grantd key generate`"
        check (not kid glob '*[^A-Za-z0-9_-]*' and length(kid) = 43 and length(cast(kid as blob)) = 43),
    constraint "alg: one of ES256 EdDSA PS256 RS256"
        check (alg in ('ES256', 'EdDSA', 'PS256', 'RS256'))
) strict;

-- Checks that need a look beyond the row's own columns.
create trigger client_default_scope_on_insert before insert on client when new.default_scope <> '' and (
    new.default_scope glob '*[^] !#-[^-~]*' or new.default_scope glob '* ' or new.default_scope glob ' *' or new.default_scope glob '*  *'
    or exists (select 1 from json_each('["' || replace(new.default_scope, ' ', '","') || '"]')
               where instr(' ' || new.scope || ' ', ' ' || value || ' ') = 0)) begin
    select raise(abort, 'default_scope: must be a part of scope');
end;
create trigger client_default_scope_on_update before update of scope, default_scope on client when new.default_scope <> '' and (
    new.default_scope glob '*[^] !#-[^-~]*' or new.default_scope glob '* ' or new.default_scope glob ' *' or new.default_scope glob '*  *'
    or exists (select 1 from json_each('["' || replace(new.default_scope, ' ', '","') || '"]')
               where instr(' ' || new.scope || ' ', ' ' || value || ' ') = 0)) begin
    select raise(abort, 'default_scope: must be a part of scope');
end;
create trigger client_auth_methods_on_insert before insert on client when new.auth_methods <> '' and (
    new.auth_methods glob '*[^a-z_ ]*'
    or exists (select 1 from json_each('["' || replace(new.auth_methods, ' ', '","') || '"]')
               where value not in ('client_secret_basic', 'client_secret_post', 'private_key_jwt', 'tls_client_auth',
                                   'self_signed_tls_client_auth'))) begin
    select raise(abort, 'auth_methods: null for any, else names as in the metadata');
end;
create trigger client_auth_methods_on_update before update of auth_methods on client when new.auth_methods <> '' and (
    new.auth_methods glob '*[^a-z_ ]*'
    or exists (select 1 from json_each('["' || replace(new.auth_methods, ' ', '","') || '"]')
               where value not in ('client_secret_basic', 'client_secret_post', 'private_key_jwt', 'tls_client_auth',
                                   'self_signed_tls_client_auth'))) begin
    select raise(abort, 'auth_methods: null for any, else names as in the metadata');
end;
create trigger client_resource_identifier_on_insert before insert on client_resource when not exists (select 1 from resource where identifier = new.identifier) begin
    select raise(abort, 'identifier: no such resource; insert into resource first');
end;
create trigger client_resource_identifier_on_update before update of identifier on client_resource when not exists (select 1 from resource where identifier = new.identifier) begin
    select raise(abort, 'identifier: no such resource; insert into resource first');
end;
create trigger resource_introspector_client_id_on_insert before insert on resource_introspector when not exists (select 1 from client where client_id = new.client_id) begin
    select raise(abort, 'client_id: no such client; insert into client first');
end;
create trigger resource_introspector_client_id_on_update before update of client_id on resource_introspector when not exists (select 1 from client where client_id = new.client_id) begin
    select raise(abort, 'client_id: no such client; insert into client first');
end;
create trigger client_secret_client_id_on_insert before insert on client_secret when not exists (select 1 from client where client_id = new.client_id) begin
    select raise(abort, 'client_id: no such client; insert into client first');
end;
create trigger client_secret_client_id_on_update before update of client_id on client_secret when not exists (select 1 from client where client_id = new.client_id) begin
    select raise(abort, 'client_id: no such client; insert into client first');
end;

-- The change feed. Every change above raises the revision in its own transaction and notes what it touched:
-- replicas poll the one row and load only what is newer than what they have. Hand-written SQL is seen like any other.
create table registry_revision (
    only_row integer primary key not null check (only_row = 1),
    revision integer not null
) strict;
insert into registry_revision (only_row, revision) values (1, 1);

create table registry_change (
    kind     text not null,
    id       text not null,
    revision integer not null,
    primary key (kind, id)
) strict;
create index registry_change_revision on registry_change (revision);
create trigger resource_inserted after insert on resource begin
    update registry_revision set revision = revision + 1;
    insert into registry_change (kind, id, revision) select 'resource', new.identifier, revision from registry_revision where true
        on conflict (kind, id) do update set revision = excluded.revision;
end;
create trigger resource_updated after update on resource begin
    update registry_revision set revision = revision + 1;
    insert into registry_change (kind, id, revision) select 'resource', old.identifier, revision from registry_revision where true
        on conflict (kind, id) do update set revision = excluded.revision;
    insert into registry_change (kind, id, revision) select 'resource', new.identifier, revision from registry_revision where true
        on conflict (kind, id) do update set revision = excluded.revision;
end;
create trigger resource_deleted after delete on resource begin
    update registry_revision set revision = revision + 1;
    insert into registry_change (kind, id, revision) select 'resource', old.identifier, revision from registry_revision where true
        on conflict (kind, id) do update set revision = excluded.revision;
end;
create trigger resource_introspector_inserted after insert on resource_introspector begin
    update registry_revision set revision = revision + 1;
    insert into registry_change (kind, id, revision) select 'resource', new.identifier, revision from registry_revision where true
        on conflict (kind, id) do update set revision = excluded.revision;
end;
create trigger resource_introspector_updated after update on resource_introspector begin
    update registry_revision set revision = revision + 1;
    insert into registry_change (kind, id, revision) select 'resource', old.identifier, revision from registry_revision where true
        on conflict (kind, id) do update set revision = excluded.revision;
    insert into registry_change (kind, id, revision) select 'resource', new.identifier, revision from registry_revision where true
        on conflict (kind, id) do update set revision = excluded.revision;
end;
create trigger resource_introspector_deleted after delete on resource_introspector begin
    update registry_revision set revision = revision + 1;
    insert into registry_change (kind, id, revision) select 'resource', old.identifier, revision from registry_revision where true
        on conflict (kind, id) do update set revision = excluded.revision;
end;
create trigger client_inserted after insert on client begin
    update registry_revision set revision = revision + 1;
    insert into registry_change (kind, id, revision) select 'client', new.client_id, revision from registry_revision where true
        on conflict (kind, id) do update set revision = excluded.revision;
end;
create trigger client_updated after update on client begin
    update registry_revision set revision = revision + 1;
    insert into registry_change (kind, id, revision) select 'client', old.client_id, revision from registry_revision where true
        on conflict (kind, id) do update set revision = excluded.revision;
    insert into registry_change (kind, id, revision) select 'client', new.client_id, revision from registry_revision where true
        on conflict (kind, id) do update set revision = excluded.revision;
end;
create trigger client_deleted after delete on client begin
    update registry_revision set revision = revision + 1;
    insert into registry_change (kind, id, revision) select 'client', old.client_id, revision from registry_revision where true
        on conflict (kind, id) do update set revision = excluded.revision;
end;
create trigger client_resource_inserted after insert on client_resource begin
    update registry_revision set revision = revision + 1;
    insert into registry_change (kind, id, revision) select 'client', new.client_id, revision from registry_revision where true
        on conflict (kind, id) do update set revision = excluded.revision;
end;
create trigger client_resource_updated after update on client_resource begin
    update registry_revision set revision = revision + 1;
    insert into registry_change (kind, id, revision) select 'client', old.client_id, revision from registry_revision where true
        on conflict (kind, id) do update set revision = excluded.revision;
    insert into registry_change (kind, id, revision) select 'client', new.client_id, revision from registry_revision where true
        on conflict (kind, id) do update set revision = excluded.revision;
end;
create trigger client_resource_deleted after delete on client_resource begin
    update registry_revision set revision = revision + 1;
    insert into registry_change (kind, id, revision) select 'client', old.client_id, revision from registry_revision where true
        on conflict (kind, id) do update set revision = excluded.revision;
end;
create trigger client_secret_inserted after insert on client_secret begin
    update registry_revision set revision = revision + 1;
    insert into registry_change (kind, id, revision) select 'client', new.client_id, revision from registry_revision where true
        on conflict (kind, id) do update set revision = excluded.revision;
end;
create trigger client_secret_updated after update on client_secret begin
    update registry_revision set revision = revision + 1;
    insert into registry_change (kind, id, revision) select 'client', old.client_id, revision from registry_revision where true
        on conflict (kind, id) do update set revision = excluded.revision;
    insert into registry_change (kind, id, revision) select 'client', new.client_id, revision from registry_revision where true
        on conflict (kind, id) do update set revision = excluded.revision;
end;
create trigger client_secret_deleted after delete on client_secret begin
    update registry_revision set revision = revision + 1;
    insert into registry_change (kind, id, revision) select 'client', old.client_id, revision from registry_revision where true
        on conflict (kind, id) do update set revision = excluded.revision;
end;
create trigger signing_key_inserted after insert on signing_key begin
    update registry_revision set revision = revision + 1;
    insert into registry_change (kind, id, revision) select 'key', new.kid, revision from registry_revision where true
        on conflict (kind, id) do update set revision = excluded.revision;
end;
create trigger signing_key_updated after update on signing_key begin
    update registry_revision set revision = revision + 1;
    insert into registry_change (kind, id, revision) select 'key', old.kid, revision from registry_revision where true
        on conflict (kind, id) do update set revision = excluded.revision;
    insert into registry_change (kind, id, revision) select 'key', new.kid, revision from registry_revision where true
        on conflict (kind, id) do update set revision = excluded.revision;
end;
create trigger signing_key_deleted after delete on signing_key begin
    update registry_revision set revision = revision + 1;
    insert into registry_change (kind, id, revision) select 'key', old.kid, revision from registry_revision where true
        on conflict (kind, id) do update set revision = excluded.revision;
end;
