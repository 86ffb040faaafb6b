-- Workload identity federation: issuers whose JWTs prove who a client is, and the rules that say which JWT is which client.
-- ../postgres/4_federation.sql is the twin of this file.

-- Names of grants that federation adds. SQLite cannot drop a check; its documentation ("Making Other Kinds Of Table Schema
-- Changes") says to write such a change into the text of the table. The tables below raise the version of the schema.
pragma writable_schema = on;
update sqlite_schema set sql = replace(replace(sql,
    'constraint "grant_types: client_credentials, or empty for none"',
    'constraint "grant_types: names separated by spaces, or empty for none"'),
    'check (grant_types in ('''', ''client_credentials''))',
    'check (grant_types in ('''', ''client_credentials'', ''urn:ietf:params:oauth:grant-type:jwt-bearer'',
            ''client_credentials urn:ietf:params:oauth:grant-type:jwt-bearer'',
            ''urn:ietf:params:oauth:grant-type:jwt-bearer client_credentials''))')
    where type = 'table' and name = 'client';
pragma writable_schema = reset;

-- Issuers of others: GitHub, GitLab, a Kubernetes cluster, a SPIFFE trust domain, any OpenID provider.
create table trusted_issuer (
    -- The exact iss of its tokens; for SPIFFE the trust domain, spiffe://example.org.
    issuer       text primary key not null,
    kind         text not null,
    -- Where its keys are: at jwks_uri, in jwks (pinned), at bundle_uri (SPIFFE), or else where its discovery document says.
    jwks_uri     text,
    jwks         text,
    bundle_uri   text,
    -- The only aud of its tokens; null for the issuer of this server.
    audience     text,
    -- The most seconds from iat, or from now, to exp of a token; null for 3600.
    max_lifetime integer,
    -- The CAs of its hosts, in PEM, instead of the public ones.
    ca_pem       text,
    enabled      integer not null default 1,
    created_at   integer not null default (unixepoch()),
    constraint "kind: one of github gitlab kubernetes spiffe oidc"
        check (kind in ('github', 'gitlab', 'kubernetes', 'spiffe', 'oidc')),
    constraint "issuer: the exact iss, an https URL without ? and #"
        check (kind = 'spiffe' or (issuer glob 'https://?*' and not issuer glob '*[^!-~]*' and not issuer glob '*[?#]*'
            and length(cast(issuer as blob)) = length(issuer) and length(issuer) <= 1024)),
    constraint "issuer: for spiffe the trust domain, spiffe://example.org"
        check (kind <> 'spiffe' or (issuer glob 'spiffe://?*' and not substr(issuer, 10) glob '*[^a-z0-9._-]*'
            and length(cast(issuer as blob)) = length(issuer) and length(issuer) <= 264)),
    constraint "jwks_uri, jwks, bundle_uri: at most one of them"
        check ((jwks_uri is not null) + (jwks is not null) + (bundle_uri is not null) <= 1),
    constraint "bundle_uri: spiffe needs it or jwks, no other kind has it"
        check (case kind when 'spiffe' then jwks_uri is null and (jwks is not null) + (bundle_uri is not null) = 1
                         else bundle_uri is null end),
    constraint "jwks_uri: an https URL without fragment, at most 2048 long"
        check (jwks_uri is null or jwks_uri glob 'https://?*' and not jwks_uri glob '*[^!-~]*' and instr(jwks_uri, '#') = 0
            and length(cast(jwks_uri as blob)) = length(jwks_uri) and length(jwks_uri) <= 2048),
    constraint "bundle_uri: an https URL without fragment, max 2048"
        check (bundle_uri is null or bundle_uri glob 'https://?*' and not bundle_uri glob '*[^!-~]*' and instr(bundle_uri, '#') = 0
            and length(cast(bundle_uri as blob)) = length(bundle_uri) and length(bundle_uri) <= 2048),
    constraint "jwks: at most 65536 ASCII characters"
        check (length(cast(jwks as blob)) = length(jwks) and length(jwks) <= 65536),
    constraint "jwks: a JWK Set, a JSON object with the array keys"
        check (jwks is null or (json_valid(jwks) and json_type(jwks) = 'object' and coalesce(json_type(jwks, '$.keys') = 'array', 0))),
    constraint "audience: null for our issuer, else 1 to 1024 ASCII"
        check (audience is null or not audience glob '*[^!-~]*' and length(cast(audience as blob)) = length(audience)
            and length(audience) between 1 and 1024),
    constraint "max_lifetime: seconds, from 60 to 86400; null for 3600"
        check (max_lifetime between 60 and 86400),
    constraint "ca_pem: certificates in PEM, at most 65536 ASCII"
        check (ca_pem is null or length(cast(ca_pem as blob)) = length(ca_pem) and length(ca_pem) <= 65536
            and instr(ca_pem, '-----BEGIN CERTIFICATE-----') > 0),
    constraint "ca_pem: certificates only, no private key"
        check (ca_pem is null or instr(ca_pem, 'PRIVATE KEY') = 0),
    constraint "enabled: 0 or 1"
        check (enabled in (0, 1)),
    constraint "created_at: seconds since 1970, not milliseconds"
        check (created_at between 0 and 99999999999)
) strict;

-- Rules: the client that a token of an issuer belongs to. A rule may stand before its issuer, and matches nothing until then.
create table client_federation (
    rule_id    text primary key not null default (lower(hex(randomblob(16)))),
    client_id  text not null references client (client_id) on delete cascade,
    issuer     text not null,
    -- The sub of the tokens; where the kind of the issuer allows it, its beginning with /* or :* at the end.
    subject    text not null,
    -- Members that the token has to have, with these values.
    claims     text not null default '{}',
    label      text not null default '',
    created_at integer not null default (unixepoch()),
    expires_at integer,
    constraint "rule_id: 1 to 64 of A-Z a-z 0-9 -"
        check (not rule_id glob '*[^A-Za-z0-9-]*' and length(cast(rule_id as blob)) = length(rule_id)
            and length(rule_id) between 1 and 64),
    constraint "issuer: the iss as in trusted_issuer, https or spiffe"
        check ((issuer glob 'https://?*' or issuer glob 'spiffe://?*') and not issuer glob '*[^!-~]*'
            and length(cast(issuer as blob)) = length(issuer) and length(issuer) <= 1024),
    constraint "subject: 1 to 1024 printable ASCII; write the whole sub"
        check (not subject glob '*[^ -~]*' and length(cast(subject as blob)) = length(subject) and length(subject) between 1 and 1024),
    constraint "subject: not * alone; write the sub up to a / and then *"
        check (subject = '' or subject glob '*[^*:/ ]*'),
    constraint "claims: ASCII; write other characters as \u00e9"
        check (length(cast(claims as blob)) = length(claims)),
    constraint "claims: at most 4096 characters"
        check (length(claims) <= 4096),
    constraint "claims: a JSON object"
        check (json_valid(claims) and json_type(claims) = 'object'),
    constraint "claims: iss sub aud exp iat nbf jti have rules of their own"
        check (json_type(claims, '$.iss') is null and json_type(claims, '$.sub') is null and json_type(claims, '$.aud') is null
            and json_type(claims, '$.exp') is null and json_type(claims, '$.iat') is null and json_type(claims, '$.nbf') is null
            and json_type(claims, '$.jti') is null),
    constraint "label: at most 128 characters"
        check (length(label) <= 128),
    constraint "created_at: seconds since 1970, not milliseconds"
        check (created_at between 0 and 99999999999),
    constraint "expires_at: seconds since 1970, not milliseconds"
        check (expires_at between 0 and 99999999999)
) strict;
create index client_federation_client_id on client_federation (client_id);
create index client_federation_issuer on client_federation (issuer);

-- The last time each rule authenticated its client; without change triggers, as client_secret_use.
create table client_federation_use (
    rule_id      text primary key not null references client_federation (rule_id) on delete cascade,
    last_used_at integer not null,
    constraint "last_used_at: seconds since 1970, not milliseconds"
        check (last_used_at between 0 and 99999999999)
) strict;

-- The issuer of the servers on this database, which they write when they start: it is never a trusted one.
create table own_issuer (
    issuer text primary key not null
) strict;

drop trigger client_auth_methods_on_insert;
drop trigger client_auth_methods_on_update;
create trigger client_auth_methods_on_insert before insert on client when new.auth_methods <> '' and (
    new.auth_methods glob '*[^a-z0-9_ ]*'
    or exists (select 1 from json_each('["' || replace(new.auth_methods, ' ', '","') || '"]')
               where value not in ('client_secret_basic', 'client_secret_post', 'private_key_jwt', 'tls_client_auth',
                                   'self_signed_tls_client_auth', 'spiffe_jwt', 'spiffe_x509'))) begin
    select raise(abort, 'auth_methods: null for any, else names as in the metadata');
end;
create trigger client_auth_methods_on_update before update of auth_methods on client when new.auth_methods <> '' and (
    new.auth_methods glob '*[^a-z0-9_ ]*'
    or exists (select 1 from json_each('["' || replace(new.auth_methods, ' ', '","') || '"]')
               where value not in ('client_secret_basic', 'client_secret_post', 'private_key_jwt', 'tls_client_auth',
                                   'self_signed_tls_client_auth', 'spiffe_jwt', 'spiffe_x509'))) begin
    select raise(abort, 'auth_methods: null for any, else names as in the metadata');
end;

-- Rules that look into arrays or at other tables: a check cannot, so triggers raise the messages.
create trigger client_federation_client_id_on_insert before insert on client_federation when not exists (select 1 from client where client_id = new.client_id) begin
    select raise(abort, 'client_id: no such client; insert into client first');
end;
create trigger client_federation_client_id_on_update before update of client_id on client_federation when not exists (select 1 from client where client_id = new.client_id) begin
    select raise(abort, 'client_id: no such client; insert into client first');
end;
create trigger trusted_issuer_jwks_on_insert before insert on trusted_issuer when case when json_valid(new.jwks) then exists (
    select 1 from json_each(new.jwks, '$.keys') where type = 'object' and (json_type(value, '$.d') is not null or json_type(value, '$.p') is not null or json_type(value, '$.q') is not null or json_type(value, '$.dp') is not null or json_type(value, '$.dq') is not null or json_type(value, '$.qi') is not null or json_type(value, '$.oth') is not null or json_type(value, '$.k') is not null)) end begin
    select raise(abort, 'jwks: public keys only; no d p q dp dq qi oth k');
end;
create trigger trusted_issuer_jwks_on_update before update of jwks on trusted_issuer when case when json_valid(new.jwks) then exists (
    select 1 from json_each(new.jwks, '$.keys') where type = 'object' and (json_type(value, '$.d') is not null or json_type(value, '$.p') is not null or json_type(value, '$.q') is not null or json_type(value, '$.dp') is not null or json_type(value, '$.dq') is not null or json_type(value, '$.qi') is not null or json_type(value, '$.oth') is not null or json_type(value, '$.k') is not null)) end begin
    select raise(abort, 'jwks: public keys only; no d p q dp dq qi oth k');
end;
create trigger trusted_issuer_not_own_on_insert before insert on trusted_issuer when exists (select 1 from own_issuer where issuer = new.issuer) begin
    select raise(abort, 'issuer: that is this server; its own tokens prove nothing');
end;
create trigger trusted_issuer_not_own_on_update before update of issuer on trusted_issuer when exists (select 1 from own_issuer where issuer = new.issuer) begin
    select raise(abort, 'issuer: that is this server; its own tokens prove nothing');
end;

-- What each kind has to pin. Names on GitHub and GitLab can be registered again by others; ids cannot.
create trigger client_federation_github_on_insert before insert on client_federation when (case when json_valid(new.claims) then json_type(new.claims, '$.repository_id') is null or json_type(new.claims, '$.repository_owner_id') is null end)
    and exists (select 1 from trusted_issuer where issuer = new.issuer and kind in ('github')) begin
    select raise(abort, 'claims: github needs repository_id and repository_owner_id');
end;
create trigger client_federation_github_on_update before update on client_federation when (case when json_valid(new.claims) then json_type(new.claims, '$.repository_id') is null or json_type(new.claims, '$.repository_owner_id') is null end)
    and exists (select 1 from trusted_issuer where issuer = new.issuer and kind in ('github')) begin
    select raise(abort, 'claims: github needs repository_id and repository_owner_id');
end;
create trigger client_federation_github_event_on_insert before insert on client_federation when case when json_valid(new.claims) then json_extract(new.claims, '$.event_name') = 'pull_request_target' end
    and exists (select 1 from trusted_issuer where issuer = new.issuer and kind in ('github')) begin
    select raise(abort, 'claims: no pull_request_target; strangers start such runs');
end;
create trigger client_federation_github_event_on_update before update on client_federation when case when json_valid(new.claims) then json_extract(new.claims, '$.event_name') = 'pull_request_target' end
    and exists (select 1 from trusted_issuer where issuer = new.issuer and kind in ('github')) begin
    select raise(abort, 'claims: no pull_request_target; strangers start such runs');
end;
create trigger client_federation_gitlab_on_insert before insert on client_federation when (case when json_valid(new.claims) then json_type(new.claims, '$.project_id') is null or json_type(new.claims, '$.namespace_id') is null end)
    and exists (select 1 from trusted_issuer where issuer = new.issuer and kind in ('gitlab')) begin
    select raise(abort, 'claims: gitlab needs project_id and namespace_id');
end;
create trigger client_federation_gitlab_on_update before update on client_federation when (case when json_valid(new.claims) then json_type(new.claims, '$.project_id') is null or json_type(new.claims, '$.namespace_id') is null end)
    and exists (select 1 from trusted_issuer where issuer = new.issuer and kind in ('gitlab')) begin
    select raise(abort, 'claims: gitlab needs project_id and namespace_id');
end;
create trigger client_federation_prefix_on_insert before insert on client_federation when new.subject glob '*[/:][*]'
    and not substr(new.subject, 1, length(new.subject) - 2) glob '*[^/:]*[/:]*[^/:]*' and exists (select 1 from trusted_issuer where issuer = new.issuer and kind in ('github', 'gitlab')) begin
    select raise(abort, 'subject: two parts before *, such as repo:acme/*');
end;
create trigger client_federation_prefix_on_update before update on client_federation when new.subject glob '*[/:][*]'
    and not substr(new.subject, 1, length(new.subject) - 2) glob '*[^/:]*[/:]*[^/:]*' and exists (select 1 from trusted_issuer where issuer = new.issuer and kind in ('github', 'gitlab')) begin
    select raise(abort, 'subject: two parts before *, such as repo:acme/*');
end;
create trigger client_federation_whole_on_insert before insert on client_federation when new.subject glob '*[/:][*]'
    and exists (select 1 from trusted_issuer where issuer = new.issuer and kind in ('oidc')) begin
    select raise(abort, 'subject: oidc has whole subjects; no /* or :* at the end');
end;
create trigger client_federation_whole_on_update before update on client_federation when new.subject glob '*[/:][*]'
    and exists (select 1 from trusted_issuer where issuer = new.issuer and kind in ('oidc')) begin
    select raise(abort, 'subject: oidc has whole subjects; no /* or :* at the end');
end;
create trigger client_federation_kubernetes_on_insert before insert on client_federation when not (new.subject glob 'system:serviceaccount:[a-z0-9-]*:[a-z0-9.-]*'
    and not substr(new.subject, 23) glob '*[^a-z0-9:.-]*' and not substr(new.subject, 23) glob '*.*:*'
    and length(new.subject) - length(replace(new.subject, ':', '')) = 3)
    and exists (select 1 from trusted_issuer where issuer = new.issuer and kind in ('kubernetes')) begin
    select raise(abort, 'subject: write system:serviceaccount:NAMESPACE:NAME');
end;
create trigger client_federation_kubernetes_on_update before update on client_federation when not (new.subject glob 'system:serviceaccount:[a-z0-9-]*:[a-z0-9.-]*'
    and not substr(new.subject, 23) glob '*[^a-z0-9:.-]*' and not substr(new.subject, 23) glob '*.*:*'
    and length(new.subject) - length(replace(new.subject, ':', '')) = 3)
    and exists (select 1 from trusted_issuer where issuer = new.issuer and kind in ('kubernetes')) begin
    select raise(abort, 'subject: write system:serviceaccount:NAMESPACE:NAME');
end;
create trigger client_federation_spiffe_on_insert before insert on client_federation when (instr(new.subject, new.issuer || '/') <> 1 or new.subject glob '?????????*//*' or new.subject glob '*/'
    or substr(new.subject, length(new.issuer) + 2) glob '*[^A-Za-z0-9._/*-]*' or new.subject glob '*[*]?*' or new.subject glob '*[^/][*]')
    and exists (select 1 from trusted_issuer where issuer = new.issuer and kind in ('spiffe')) begin
    select raise(abort, 'subject: spiffe://TRUST-DOMAIN/PATH, in the domain of issuer');
end;
create trigger client_federation_spiffe_on_update before update on client_federation when (instr(new.subject, new.issuer || '/') <> 1 or new.subject glob '?????????*//*' or new.subject glob '*/'
    or substr(new.subject, length(new.issuer) + 2) glob '*[^A-Za-z0-9._/*-]*' or new.subject glob '*[*]?*' or new.subject glob '*[^/][*]')
    and exists (select 1 from trusted_issuer where issuer = new.issuer and kind in ('spiffe')) begin
    select raise(abort, 'subject: spiffe://TRUST-DOMAIN/PATH, in the domain of issuer');
end;

-- The triggers of the watched tables.
create trigger trusted_issuer_inserted after insert on trusted_issuer begin
    update registry_revision set revision = revision + 1;
    insert into registry_change (kind, id, revision) select 'issuer', new.issuer, revision from registry_revision where true
        on conflict (kind, id) do update set revision = excluded.revision;
end;
create trigger trusted_issuer_updated after update on trusted_issuer begin
    update registry_revision set revision = revision + 1;
    insert into registry_change (kind, id, revision) select 'issuer', old.issuer, revision from registry_revision where true
        on conflict (kind, id) do update set revision = excluded.revision;
    insert into registry_change (kind, id, revision) select 'issuer', new.issuer, revision from registry_revision where true
        on conflict (kind, id) do update set revision = excluded.revision;
end;
create trigger trusted_issuer_deleted after delete on trusted_issuer begin
    update registry_revision set revision = revision + 1;
    insert into registry_change (kind, id, revision) select 'issuer', old.issuer, revision from registry_revision where true
        on conflict (kind, id) do update set revision = excluded.revision;
end;
create trigger client_federation_inserted after insert on client_federation begin
    update registry_revision set revision = revision + 1;
    insert into registry_change (kind, id, revision) select 'client', new.client_id, revision from registry_revision where true
        on conflict (kind, id) do update set revision = excluded.revision;
end;
create trigger client_federation_updated after update on client_federation begin
    update registry_revision set revision = revision + 1;
    insert into registry_change (kind, id, revision) select 'client', old.client_id, revision from registry_revision where true
        on conflict (kind, id) do update set revision = excluded.revision;
    insert into registry_change (kind, id, revision) select 'client', new.client_id, revision from registry_revision where true
        on conflict (kind, id) do update set revision = excluded.revision;
end;
create trigger client_federation_deleted after delete on client_federation begin
    update registry_revision set revision = revision + 1;
    insert into registry_change (kind, id, revision) select 'client', old.client_id, revision from registry_revision where true
        on conflict (kind, id) do update set revision = excluded.revision;
end;
