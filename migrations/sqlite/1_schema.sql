-- The schema: resources, clients and their credentials, keys, spent and revoked ids, and the change feed.
--
-- One schema in two dialects; ../postgres/1_schema.sql is its twin and a test compares them.
-- Times are integer seconds since 1970 (NumericDate), flags are 0 or 1, lists are space-delimited as on the wire.
-- A constraint's name is the message that its violation prints, so it says what to write instead.
-- length(cast(x as blob)) = length(x) refuses NUL and everything outside ASCII.

-- Resource servers (RFC 8707): the aud of their tokens, and the scope that may be granted for them.
create table resource (
    identifier text primary key not null,
    scope      text not null,
    -- The algorithm that signs tokens for this resource; null for the server's default.
    alg        text,
    -- Seconds from iat to exp of a token: the shorter of the client's and the resource's, or else the server's default.
    token_ttl  integer,
    -- RFC 9068 section 2.1 says at+jwt, which some libraries of resource servers refuse.
    token_typ  text not null default 'at+jwt',
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
        check (token_ttl between 1 and 86400),
    constraint "token_typ: at+jwt or JWT"
        check (token_typ in ('at+jwt', 'JWT')),
    constraint "created_at: seconds since 1970, not milliseconds"
        check (created_at between 0 and 99999999999)
) strict;

-- Registered clients.
create table client (
    -- RFC 6749 appendix A.1, so that clients of other servers keep their ids.
    client_id            text primary key not null,
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
    assertion_lifetime   integer,
    -- Seconds from iat to exp of a token, as in resource.
    token_ttl            integer,
    -- Additional claims of the client's tokens.
    claims               text not null default '{}',
    require_dpop         integer not null default 0,
    require_mtls_binding integer not null default 0,
    -- RFC 9701 section 6: the algorithm of introspection responses to this client; null for the server's default.
    introspection_signed_response_alg text,
    enabled              integer not null default 1,
    -- Cut-off: the client's tokens that were issued in this second or before are revoked.
    not_before           integer not null default 0,
    created_at           integer not null default (unixepoch()),
    constraint "client_id: 1 to 255 printable ASCII, no space at either end"
        check (not client_id glob '*[^ -~]*' and not client_id glob ' *' and not client_id glob '* '
            and length(cast(client_id as blob)) = length(client_id) and length(client_id) between 1 and 255),
    constraint "scope: tokens with single spaces between; no "" \ or control"
        check (not scope glob '*[^] !#-[^-~]*' and not scope glob ' *' and not scope glob '* ' and not scope glob '*  *'
            and length(cast(scope as blob)) = length(scope) and length(scope) <= 4096
            and length(scope) - length(replace(scope, ' ', '')) < 100),
    constraint "grant_types: client_credentials, or empty for none"
        check (grant_types in ('', 'client_credentials')),
    constraint "jwks_uri: an https URL without fragment, at most 2048 long"
        check (jwks_uri is null or jwks_uri glob 'https://?*' and not jwks_uri glob '*[^!-~]*' and instr(jwks_uri, '#') = 0
            and length(cast(jwks_uri as blob)) = length(jwks_uri) and length(jwks_uri) <= 2048),
    constraint "assertion_audience: issuer or token-endpoint"
        check (assertion_audience in ('issuer', 'token-endpoint')),
    constraint "assertion_lifetime: seconds, from 60 to 3600"
        check (assertion_lifetime is null or (typeof(assertion_lifetime) = 'integer' and assertion_lifetime between 60 and 3600)),
    constraint "token_ttl: seconds, from 1 to 86400"
        check (token_ttl between 1 and 86400),
    constraint "claims: ASCII; write other characters as \u00e9"
        check (length(cast(claims as blob)) = length(claims)),
    -- A token has to fit into a header field, and into a request to the introspection endpoint.
    constraint "claims: at most 4096 characters"
        check (length(claims) <= 4096),
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
    constraint "introspection_signed_response_alg: ES256 EdDSA PS256 or RS256"
        check (introspection_signed_response_alg is null or introspection_signed_response_alg in ('ES256', 'EdDSA', 'PS256', 'RS256')),
    constraint "require_dpop, require_mtls_binding, enabled: 0 or 1"
        check (require_dpop in (0, 1) and require_mtls_binding in (0, 1) and enabled in (0, 1)),
    constraint "not_before: seconds since 1970, not milliseconds"
        check (not_before between 0 and 99999999999),
    constraint "created_at: seconds since 1970, not milliseconds"
        check (created_at between 0 and 99999999999)
) strict;

-- The resources for which a client may request tokens.
create table client_resource (
    client_id  text not null references client (client_id) on delete cascade,
    identifier text not null references resource (identifier),
    primary key (client_id, identifier)
) strict;
create index client_resource_identifier on client_resource (identifier);

-- The clients that may introspect the tokens of a resource (RFC 7662).
create table resource_introspector (
    identifier text not null references resource (identifier) on delete cascade,
    client_id  text not null references client (client_id) on delete cascade,
    primary key (identifier, client_id)
) strict;
create index resource_introspector_client_id on resource_introspector (client_id);

-- Client secrets, as argon2id hashes.
create table client_secret (
    secret_id  text primary key not null default (lower(hex(randomblob(16)))),
    client_id  text not null references client (client_id) on delete cascade,
    hash       text not null,
    label      text not null default '',
    -- 0 for a secret that grantd generated: it carries its secret_id. All other secrets of a client have to be tried.
    imported   integer not null default 1,
    -- The secret_tag_key of the secret's tag; null for a secret without a tag. That key may have been deleted.
    tag_key    text,
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
    constraint "label: at most 128 characters"
        check (length(label) <= 128),
    constraint "imported: 0 or 1"
        check (imported in (0, 1)),
    constraint "tag_key: 16 of 0-9 a-f, and only where imported = 0"
        check (tag_key is null or not tag_key glob '*[^0-9a-f]*' and length(tag_key) = 16 and length(cast(tag_key as blob)) = 16 and imported = 0),
    constraint "created_at: seconds since 1970, not milliseconds"
        check (created_at between 0 and 99999999999),
    constraint "expires_at: seconds since 1970, not milliseconds"
        check (expires_at between 0 and 99999999999),
    constraint "revoked_at: seconds since 1970, not milliseconds"
        check (revoked_at between 0 and 99999999999)
) strict;
create index client_secret_client_id on client_secret (client_id);

-- The last time each secret authenticated its client. grantd writes it in batches and no replica reads it, so it has no
-- change triggers.
create table client_secret_use (
    secret_id    text primary key not null references client_secret (secret_id) on delete cascade,
    last_used_at integer not null,
    constraint "last_used_at: seconds since 1970, not milliseconds"
        check (last_used_at between 0 and 99999999999)
) strict;

-- Public keys of clients, for private_key_jwt (RFC 7523). Each has one algorithm, the alg of its JWK.
create table client_key (
    client_id  text not null references client (client_id) on delete cascade,
    kid        text not null,
    jwk        text not null,
    created_at integer not null default (unixepoch()),
    expires_at integer,
    primary key (client_id, kid),
    constraint "kid: 1 to 256 printable ASCII characters"
        check (not kid glob '*[^ -~]*' and length(cast(kid as blob)) = length(kid) and length(kid) between 1 and 256),
    constraint "jwk: at most 4096 ASCII characters"
        check (length(cast(jwk as blob)) = length(jwk) and length(jwk) <= 4096),
    constraint "jwk: a JSON object with kty"
        check (json_valid(jwk) and json_type(jwk) = 'object' and json_type(jwk, '$.kty') is not null),
    constraint "jwk: public keys only; no d p q dp dq qi oth k"
        check (json_type(jwk, '$.d') is null and json_type(jwk, '$.p') is null and json_type(jwk, '$.q') is null
            and json_type(jwk, '$.dp') is null and json_type(jwk, '$.dq') is null and json_type(jwk, '$.qi') is null
            and json_type(jwk, '$.oth') is null and json_type(jwk, '$.k') is null),
    constraint "created_at: seconds since 1970, not milliseconds"
        check (created_at between 0 and 99999999999),
    constraint "expires_at: seconds since 1970, not milliseconds"
        check (expires_at between 0 and 99999999999)
) strict;

-- The last time each key authenticated its client; without change triggers, as client_secret_use.
create table client_key_use (
    client_id    text not null,
    kid          text not null,
    last_used_at integer not null,
    primary key (client_id, kid),
    foreign key (client_id, kid) references client_key (client_id, kid) on delete cascade,
    constraint "last_used_at: seconds since 1970, not milliseconds"
        check (last_used_at between 0 and 99999999999)
) strict;

-- Certificates of clients (RFC 8705): one name in the certificate, or the hash of a self-signed one.
create table client_certificate (
    cert_id    text primary key not null default (lower(hex(randomblob(16)))),
    client_id  text not null references client (client_id) on delete cascade,
    kind       text not null,
    value      text not null,
    created_at integer not null default (unixepoch()),
    -- The registration does not count from this second on. A self-signed certificate has its own notAfter besides.
    expires_at integer,
    constraint "cert_id: 1 to 64 of A-Z a-z 0-9 -"
        check (not cert_id glob '*[^A-Za-z0-9-]*' and length(cast(cert_id as blob)) = length(cert_id)
            and length(cert_id) between 1 and 64),
    constraint "kind: subject_dn, san_dns, _uri, _ip, _email or self_signed"
        check (kind in ('subject_dn', 'san_dns', 'san_uri', 'san_ip', 'san_email', 'self_signed')),
    constraint "value: 1 to 4096 characters"
        check (length(value) between 1 and 4096),
    constraint "created_at: seconds since 1970, not milliseconds"
        check (created_at between 0 and 99999999999),
    constraint "expires_at: seconds since 1970, not milliseconds"
        check (expires_at between 0 and 99999999999)
) strict;
create index client_certificate_client_id on client_certificate (client_id);
-- RFC 8705 section 2.1.2: exactly one name. Self-signed certificates overlap while they are replaced.
create unique index client_certificate_one_name on client_certificate (client_id) where kind <> 'self_signed';

-- The last time each certificate authenticated its client; without change triggers, as client_secret_use.
create table client_certificate_use (
    cert_id      text primary key not null references client_certificate (cert_id) on delete cascade,
    last_used_at integer not null,
    constraint "last_used_at: seconds since 1970, not milliseconds"
        check (last_used_at between 0 and 99999999999)
) strict;

-- Deleted clients. Their tokens stay revoked when another client gets the same id. A row is kept until the last of those
-- tokens has expired.
create table deleted_client (
    client_id  text primary key not null,
    deleted_at integer not null,
    constraint "deleted_at: seconds since 1970, not milliseconds"
        check (deleted_at between 0 and 99999999999)
) strict;

-- Signing keys. The private key is sealed under a key that is not in the database. A key signs from active_at until the
-- next key of its algorithm does.
create table signing_key (
    kid        text primary key not null,
    alg        text not null,
    sealed     blob not null,
    active_at  integer not null,
    created_at integer not null default (unixepoch()),
    constraint "kid: an RFC 7638 thumbprint; run `grantd key generate`"
        check (not kid glob '*[^A-Za-z0-9_-]*' and length(kid) = 43 and length(cast(kid as blob)) = 43),
    constraint "alg: one of ES256 EdDSA PS256 RS256"
        check (alg in ('ES256', 'EdDSA', 'PS256', 'RS256')),
    constraint "active_at: seconds since 1970, not milliseconds"
        check (active_at between 0 and 99999999999),
    constraint "created_at: seconds since 1970, not milliseconds"
        check (created_at between 0 and 99999999999)
) strict;

-- Keys of the tags (MACs) of generated secrets, by which a made-up secret is refused before any hash. Sealed like signing
-- keys. The newest key tags new secrets; all of them verify. Without a key its secrets cost a hash, and still work.
create table secret_tag_key (
    kid        text primary key not null,
    sealed     blob not null,
    created_at integer not null default (unixepoch()),
    constraint "kid: 16 of 0-9 a-f; run `grantd key tag rotate`"
        check (not kid glob '*[^0-9a-f]*' and length(kid) = 16 and length(cast(kid as blob)) = 16),
    constraint "created_at: seconds since 1970, not milliseconds"
        check (created_at between 0 and 99999999999)
) strict;

-- Single-use ids (jti of assertions and DPoP proofs) until they expire. They are no registration, so without change
-- triggers.
create table spent_jti (
    kind       text not null,
    owner      text not null,
    jti        blob not null,
    expires_at integer not null,
    primary key (kind, owner, jti),
    constraint "expires_at: seconds since 1970, not milliseconds"
        check (expires_at between 0 and 99999999999)
) strict, without rowid;
create index spent_jti_expires_at on spent_jti (expires_at);

-- Revoked tokens (RFC 7009) until they expire. Each row has the revision that it came with, so that replicas read only new
-- rows. client_id is no foreign key: the tokens of a deleted client stay revoked when the client is created again.
create table revoked_token (
    jti        text primary key not null,
    client_id  text not null default '',
    expires_at integer not null,
    revoked_at integer not null default (unixepoch()),
    revision   integer not null default 0,
    constraint "jti: as it stands in the token, 22 of A-Z a-z 0-9 _ -"
        check (not jti glob '*[^A-Za-z0-9_-]*' and jti glob '*[AQgw]' and length(jti) = 22 and length(cast(jti as blob)) = 22),
    constraint "expires_at: seconds since 1970, not milliseconds"
        check (expires_at between 0 and 99999999999),
    constraint "revoked_at: seconds since 1970, not milliseconds"
        check (revoked_at between 0 and 99999999999)
) strict;
create index revoked_token_revision on revoked_token (revision);
create index revoked_token_expires_at on revoked_token (expires_at);

-- Cut-off of all clients: tokens that were issued in this second or before are revoked.
create table token_cutoff (
    only_row   integer primary key not null check (only_row = 1),
    not_before integer not null,
    constraint "not_before: seconds since 1970, not milliseconds"
        check (not_before between 0 and 99999999999)
) strict;
insert into token_cutoff (only_row, not_before) values (1, 0);

-- The change feed. Each change of a watched table raises the revision in its own transaction and notes the changed ids.
-- Replicas poll the one row and load only ids that are newer than their revision. SQL by hand is noticed like any other.
-- Each revision has a random id: a restored database, or another file at the same path, may have the same revision,
-- and has another id.
create table registry_revision (
    only_row integer primary key not null check (only_row = 1),
    revision integer not null,
    history  text not null default ''
) strict;
insert into registry_revision (only_row, revision, history) values (1, 1, lower(hex(randomblob(16))));

-- The last revision in which each id changed.
create table registry_change (
    kind     text not null,
    id       text not null,
    revision integer not null,
    primary key (kind, id)
) strict;
create index registry_change_revision on registry_change (revision);

-- The ids of the last ten thousand revisions. A replica that holds an older one loads everything.
create table registry_history (
    revision integer primary key not null,
    history  text not null
) strict;
insert into registry_history (revision, history) select revision, history from registry_revision;

-- Rules that look beyond the row, or at the time: a check cannot, so triggers raise the messages.
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
create trigger client_key_client_id_on_insert before insert on client_key when not exists (select 1 from client where client_id = new.client_id) begin
    select raise(abort, 'client_id: no such client; insert into client first');
end;
create trigger client_key_client_id_on_update before update of client_id on client_key when not exists (select 1 from client where client_id = new.client_id) begin
    select raise(abort, 'client_id: no such client; insert into client first');
end;
create trigger client_certificate_client_id_on_insert before insert on client_certificate when not exists (select 1 from client where client_id = new.client_id) begin
    select raise(abort, 'client_id: no such client; insert into client first');
end;
create trigger client_certificate_client_id_on_update before update of client_id on client_certificate when not exists (select 1 from client where client_id = new.client_id) begin
    select raise(abort, 'client_id: no such client; insert into client first');
end;

-- A cut-off in the future would revoke every new token too, with no way back. Five seconds are left for clocks.
create trigger client_not_before_on_insert before insert on client when new.not_before > unixepoch() + 5 begin
    select raise(abort, 'not_before: not in the future; new tokens would be dead');
end;
create trigger client_not_before_on_update before update of not_before on client when new.not_before > unixepoch() + 5 begin
    select raise(abort, 'not_before: not in the future; new tokens would be dead');
end;
create trigger token_cutoff_not_before_on_insert before insert on token_cutoff when new.not_before > unixepoch() + 5 begin
    select raise(abort, 'not_before: not in the future; new tokens would be dead');
end;
create trigger token_cutoff_not_before_on_update before update of not_before on token_cutoff when new.not_before > unixepoch() + 5 begin
    select raise(abort, 'not_before: not in the future; new tokens would be dead');
end;

create trigger client_deleted_noted before delete on client begin
    insert into deleted_client (client_id, deleted_at) values (old.client_id, unixepoch())
        on conflict (client_id) do update set deleted_at = excluded.deleted_at;
end;
create trigger client_made_again after insert on client
    when exists (select 1 from deleted_client where client_id = new.client_id and deleted_at > new.not_before) begin
    update client set not_before = (select deleted_at from deleted_client where client_id = new.client_id)
        where client_id = new.client_id;
end;
create trigger revoked_token_noted after insert on revoked_token begin
    update registry_revision set revision = revision + 1;
    update revoked_token set revision = (select revision from registry_revision) where jti = new.jti;
    insert into registry_change (kind, id, revision) select 'revoked', '', revision from registry_revision where true
        on conflict (kind, id) do update set revision = excluded.revision;
end;
create trigger registry_revision_raised after update of revision on registry_revision when new.revision <> old.revision begin
    update registry_revision set history = lower(hex(randomblob(16)));
    insert into registry_history (revision, history) select revision, history from registry_revision where true
        on conflict (revision) do update set history = excluded.history;
    delete from registry_history where revision <= new.revision - 10000;
end;

-- The triggers of the watched tables. A test compares them with the list in ../postgres/1_schema.sql, and prints what is
-- missing here.
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
create trigger client_key_inserted after insert on client_key begin
    update registry_revision set revision = revision + 1;
    insert into registry_change (kind, id, revision) select 'client', new.client_id, revision from registry_revision where true
        on conflict (kind, id) do update set revision = excluded.revision;
end;
create trigger client_key_updated after update on client_key begin
    update registry_revision set revision = revision + 1;
    insert into registry_change (kind, id, revision) select 'client', old.client_id, revision from registry_revision where true
        on conflict (kind, id) do update set revision = excluded.revision;
    insert into registry_change (kind, id, revision) select 'client', new.client_id, revision from registry_revision where true
        on conflict (kind, id) do update set revision = excluded.revision;
end;
create trigger client_key_deleted after delete on client_key begin
    update registry_revision set revision = revision + 1;
    insert into registry_change (kind, id, revision) select 'client', old.client_id, revision from registry_revision where true
        on conflict (kind, id) do update set revision = excluded.revision;
end;
create trigger client_certificate_inserted after insert on client_certificate begin
    update registry_revision set revision = revision + 1;
    insert into registry_change (kind, id, revision) select 'client', new.client_id, revision from registry_revision where true
        on conflict (kind, id) do update set revision = excluded.revision;
end;
create trigger client_certificate_updated after update on client_certificate begin
    update registry_revision set revision = revision + 1;
    insert into registry_change (kind, id, revision) select 'client', old.client_id, revision from registry_revision where true
        on conflict (kind, id) do update set revision = excluded.revision;
    insert into registry_change (kind, id, revision) select 'client', new.client_id, revision from registry_revision where true
        on conflict (kind, id) do update set revision = excluded.revision;
end;
create trigger client_certificate_deleted after delete on client_certificate begin
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
create trigger secret_tag_key_inserted after insert on secret_tag_key begin
    update registry_revision set revision = revision + 1;
    insert into registry_change (kind, id, revision) select 'tag_key', new.kid, revision from registry_revision where true
        on conflict (kind, id) do update set revision = excluded.revision;
end;
create trigger secret_tag_key_updated after update on secret_tag_key begin
    update registry_revision set revision = revision + 1;
    insert into registry_change (kind, id, revision) select 'tag_key', old.kid, revision from registry_revision where true
        on conflict (kind, id) do update set revision = excluded.revision;
    insert into registry_change (kind, id, revision) select 'tag_key', new.kid, revision from registry_revision where true
        on conflict (kind, id) do update set revision = excluded.revision;
end;
create trigger secret_tag_key_deleted after delete on secret_tag_key begin
    update registry_revision set revision = revision + 1;
    insert into registry_change (kind, id, revision) select 'tag_key', old.kid, revision from registry_revision where true
        on conflict (kind, id) do update set revision = excluded.revision;
end;
create trigger token_cutoff_inserted after insert on token_cutoff begin
    update registry_revision set revision = revision + 1;
    insert into registry_change (kind, id, revision) select 'cutoff', '', revision from registry_revision where true
        on conflict (kind, id) do update set revision = excluded.revision;
end;
create trigger token_cutoff_updated after update on token_cutoff begin
    update registry_revision set revision = revision + 1;
    insert into registry_change (kind, id, revision) select 'cutoff', '', revision from registry_revision where true
        on conflict (kind, id) do update set revision = excluded.revision;
end;
create trigger token_cutoff_deleted after delete on token_cutoff begin
    update registry_revision set revision = revision + 1;
    insert into registry_change (kind, id, revision) select 'cutoff', '', revision from registry_revision where true
        on conflict (kind, id) do update set revision = excluded.revision;
end;
