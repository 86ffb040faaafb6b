-- Workload identity federation: issuers whose JWTs prove who a client is, and the rules that say which JWT is which client.

-- Issuers of others: GitHub, GitLab, a Kubernetes cluster, a SPIFFE trust domain, any OpenID provider.
create table trusted_issuer (
    -- The exact iss of its tokens; for SPIFFE the trust domain, spiffe://example.org.
    issuer       text primary key,
    kind         text not null,
    -- Where its keys are: at jwks_uri, in jwks (pinned), at bundle_uri (SPIFFE), or else where its discovery document says.
    jwks_uri     text,
    jwks         text,
    bundle_uri   text,
    -- The only aud of its tokens; null for the issuer of this server.
    audience     text,
    -- The most seconds from iat, or from now, to exp of a token; null for 3600.
    max_lifetime bigint,
    -- The CAs of its hosts, in PEM, instead of the public ones.
    ca_pem       text,
    enabled      bigint not null default 1,
    created_at   bigint not null default extract(epoch from now())::bigint,
    constraint "kind: one of github gitlab kubernetes spiffe oidc"
        check (kind in ('github', 'gitlab', 'kubernetes', 'spiffe', 'oidc')),
    constraint "issuer: the exact iss, an https URL without ? and #"
        check (kind = 'spiffe' or (issuer ~ '^https://[!-~]+$' and issuer !~ '[?#]' and length(issuer) <= 1024)),
    constraint "issuer: for spiffe the trust domain, spiffe://example.org"
        check (kind <> 'spiffe' or (issuer ~ '^spiffe://[a-z0-9._-]+$' and length(issuer) <= 264)),
    constraint "jwks_uri, jwks, bundle_uri: at most one of them"
        check (num_nonnulls(jwks_uri, jwks, bundle_uri) <= 1),
    constraint "bundle_uri: spiffe needs it or jwks, no other kind has it"
        check (case kind when 'spiffe' then jwks_uri is null and num_nonnulls(jwks, bundle_uri) = 1 else bundle_uri is null end),
    constraint "jwks_uri: an https URL without fragment, at most 2048 long"
        check (jwks_uri ~ '^https://[!-~]+$' and position('#' in jwks_uri) = 0 and length(jwks_uri) <= 2048),
    constraint "bundle_uri: an https URL without fragment, max 2048"
        check (bundle_uri ~ '^https://[!-~]+$' and position('#' in bundle_uri) = 0 and length(bundle_uri) <= 2048),
    constraint "jwks: at most 65536 ASCII characters"
        check (octet_length(jwks) = length(jwks) and length(jwks) <= 65536),
    constraint "jwks: a JWK Set, a JSON object with the array keys"
        check (jwks is null or jsonb_typeof(jwks::jsonb) = 'object' and coalesce(jsonb_typeof(jwks::jsonb -> 'keys') = 'array', false)),
    constraint "jwks: public keys only; no d p q dp dq qi oth k"
        check (not jsonb_path_exists(jwks::jsonb, '$.keys[*] ? (exists (@.d) || exists (@.p) || exists (@.q) || exists (@.dp)
            || exists (@.dq) || exists (@.qi) || exists (@.oth) || exists (@.k))')),
    constraint "audience: null for our issuer, else 1 to 1024 ASCII"
        check (audience ~ '^[!-~]+$' and length(audience) <= 1024),
    constraint "max_lifetime: seconds, from 60 to 86400; null for 3600"
        check (max_lifetime between 60 and 86400),
    constraint "ca_pem: certificates in PEM, at most 65536 ASCII"
        check (octet_length(ca_pem) = length(ca_pem) and length(ca_pem) <= 65536
            and position('-----BEGIN CERTIFICATE-----' in ca_pem) > 0),
    constraint "ca_pem: certificates only, no private key"
        check (position('PRIVATE KEY' in ca_pem) = 0),
    constraint "enabled: 0 or 1"
        check (enabled in (0, 1)),
    constraint "created_at: seconds since 1970, not milliseconds"
        check (created_at between 0 and 99999999999)
);

-- Rules: the client that a token of an issuer belongs to. A rule may stand before its issuer, and matches nothing until then.
create table client_federation (
    rule_id    text primary key default replace(gen_random_uuid()::text, '-', ''),
    client_id  text collate "C" not null,
    issuer     text not null,
    -- The sub of the tokens; where the kind of the issuer allows it, its beginning with /* or :* at the end.
    subject    text not null,
    -- Members that the token has to have, with these values.
    claims     text not null default '{}',
    label      text not null default '',
    created_at bigint not null default extract(epoch from now())::bigint,
    expires_at bigint,
    constraint "client_id: no such client; insert into client first"
        foreign key (client_id) references client (client_id) on delete cascade,
    constraint "rule_id: 1 to 64 of A-Z a-z 0-9 -"
        check (rule_id ~ '^[A-Za-z0-9-]{1,64}$'),
    constraint "issuer: the iss as in trusted_issuer, https or spiffe"
        check (issuer ~ '^(https|spiffe)://[!-~]+$' and length(issuer) <= 1024),
    constraint "subject: 1 to 1024 printable ASCII; write the whole sub"
        check (subject ~ '^[ -~]+$' and length(subject) <= 1024),
    constraint "subject: not * alone; write the sub up to a / and then *"
        check (subject !~ '^[*:/ ]+$'),
    constraint "claims: ASCII; write other characters as \u00e9"
        check (octet_length(claims) = length(claims)),
    constraint "claims: at most 4096 characters"
        check (length(claims) <= 4096),
    constraint "claims: a JSON object"
        check (jsonb_typeof(claims::jsonb) = 'object'),
    constraint "claims: iss sub aud exp iat nbf jti have rules of their own"
        check (not claims::jsonb ?| array['iss', 'sub', 'aud', 'exp', 'iat', 'nbf', 'jti']),
    constraint "label: at most 128 characters"
        check (length(label) <= 128),
    constraint "created_at: seconds since 1970, not milliseconds"
        check (created_at between 0 and 99999999999),
    constraint "expires_at: seconds since 1970, not milliseconds"
        check (expires_at between 0 and 99999999999)
);
create index client_federation_client_id on client_federation (client_id);
create index client_federation_issuer on client_federation (issuer);

-- The last time each rule authenticated its client; without change triggers, as client_secret_use.
create table client_federation_use (
    rule_id      text primary key references client_federation (rule_id) on delete cascade,
    last_used_at bigint not null,
    constraint "last_used_at: seconds since 1970, not milliseconds"
        check (last_used_at between 0 and 99999999999)
);

-- The issuer of the servers on this database, which they write when they start: it is never a trusted one.
create table own_issuer (
    issuer text primary key
);

-- Names of grants and methods that federation adds.
alter table client drop constraint "grant_types: client_credentials, or empty for none";
alter table client add constraint "grant_types: names separated by spaces, or empty for none"
    check (string_to_array(grant_types, ' ') <@ array['client_credentials', 'urn:ietf:params:oauth:grant-type:jwt-bearer']) not valid;
alter table client drop constraint "auth_methods: null for any, else names as in the metadata";
alter table client add constraint "auth_methods: null for any, else names as in the metadata"
    check (string_to_array(auth_methods, ' ') <@ array['client_secret_basic', 'client_secret_post', 'private_key_jwt',
           'tls_client_auth', 'self_signed_tls_client_auth', 'spiffe_jwt', 'spiffe_x509']) not valid;

-- Refuses a rule with a message, where its issuer is of this kind.
create function grantd_refuse_rule() returns trigger language plpgsql security definer
set search_path = pg_catalog, pg_temp as $$
declare
    of_kind boolean;
begin
    execute format('select exists (select from %I.trusted_issuer where issuer = $1 and kind = any ($2))', tg_table_schema)
        into of_kind using new.issuer, string_to_array(tg_argv[1], ' ');
    if of_kind then
        raise exception using errcode = 'check_violation', constraint = tg_argv[0], table = tg_table_name, message = tg_argv[0];
    end if;
    return new;
end $$;

-- What each kind has to pin. Names on GitHub and GitLab can be registered again by others; ids cannot.
create trigger client_federation_github before insert or update on client_federation for each row
    when (not new.claims::jsonb ?& array['repository_id', 'repository_owner_id'])
    execute function grantd_refuse_rule('claims: github needs repository_id and repository_owner_id', 'github');
create trigger client_federation_github_event before insert or update on client_federation for each row
    when (new.claims::jsonb -> 'event_name' = '"pull_request_target"')
    execute function grantd_refuse_rule('claims: no pull_request_target; strangers start such runs', 'github');
create trigger client_federation_gitlab before insert or update on client_federation for each row
    when (not new.claims::jsonb ?& array['project_id', 'namespace_id'])
    execute function grantd_refuse_rule('claims: gitlab needs project_id and namespace_id', 'gitlab');
create trigger client_federation_prefix before insert or update on client_federation for each row
    when (new.subject ~ '[/:][*]$' and substr(new.subject, 1, length(new.subject) - 2) !~ '[^/:].*[/:].*[^/:]')
    execute function grantd_refuse_rule('subject: two parts before *, such as repo:acme/*', 'github gitlab');
create trigger client_federation_whole before insert or update on client_federation for each row
    when (new.subject ~ '[/:][*]$')
    execute function grantd_refuse_rule('subject: oidc has whole subjects; no /* or :* at the end', 'oidc');
create trigger client_federation_kubernetes before insert or update on client_federation for each row
    when (new.subject !~ '^system:serviceaccount:[a-z0-9-]+:[a-z0-9.-]+$')
    execute function grantd_refuse_rule('subject: write system:serviceaccount:NAMESPACE:NAME', 'kubernetes');
create trigger client_federation_spiffe before insert or update on client_federation for each row
    when (position(new.issuer || '/' in new.subject) <> 1 or new.subject !~ '^spiffe://[^/]+(/[A-Za-z0-9._-]+)*/([A-Za-z0-9._-]+|[*])$')
    execute function grantd_refuse_rule('subject: spiffe://TRUST-DOMAIN/PATH, in the domain of issuer', 'spiffe');

create function grantd_refuse_own_issuer() returns trigger language plpgsql security definer
set search_path = pg_catalog, pg_temp as $$
declare
    is_own boolean;
begin
    execute format('select exists (select from %I.own_issuer where issuer = $1)', tg_table_schema) into is_own using new.issuer;
    if is_own then
        raise exception using errcode = 'check_violation', constraint = tg_argv[0], table = tg_table_name, message = tg_argv[0];
    end if;
    return new;
end $$;
create trigger trusted_issuer_not_own before insert or update of issuer on trusted_issuer for each row
    execute function grantd_refuse_own_issuer('issuer: that is this server; its own tokens prove nothing');

-- Watched tables, as in 1_schema.sql.
do $$
declare
    watched record;
begin
    for watched in select * from (values
        ('trusted_issuer', 'issuer', 'issuer'),
        ('client_federation', 'client', 'client_id')) as t (name, kind, id)
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
