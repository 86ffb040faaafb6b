-- Clients that prove themselves by a key (RFC 7523) or by a certificate (RFC 8705), and what may be used only once.
--
-- ../sqlite/3_client_credentials.sql is its twin and a test compares them.

-- Public keys of a client. One algorithm each: the jwk's alg.
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
        check (not jwk::jsonb ?| array['d', 'p', 'q', 'dp', 'dq', 'qi', 'oth', 'k'])
);

-- Where a client publishes its keys, instead of rows above.
alter table client add column jwks_uri text
    constraint "jwks_uri: an https URL without fragment, at most 2048 long"
        check (jwks_uri ~ '^https://[!-~]+$' and position('#' in jwks_uri) = 0 and length(jwks_uri) <= 2048);

-- What is known of a client's certificate: one name in it, or its hash.
create table client_certificate (
    cert_id    text primary key default replace(gen_random_uuid()::text, '-', ''),
    client_id  text not null,
    kind       text not null,
    value      text not null,
    created_at bigint not null default extract(epoch from now())::bigint,
    constraint "client_id: no such client; insert into client first"
        foreign key (client_id) references client (client_id) on delete cascade,
    constraint "cert_id: 1 to 64 of A-Z a-z 0-9 -"
        check (cert_id ~ '^[A-Za-z0-9-]{1,64}$'),
    constraint "kind: subject_dn, san_dns, _uri, _ip, _email or self_signed"
        check (kind in ('subject_dn', 'san_dns', 'san_uri', 'san_ip', 'san_email', 'self_signed')),
    constraint "value: 1 to 4096 characters"
        check (length(value) between 1 and 4096)
);
create index client_certificate_client_id on client_certificate (client_id);
-- RFC 8705 section 2.1.2: exactly one name. Self-signed certificates overlap while they are replaced.
create unique index client_certificate_one_name on client_certificate (client_id) where kind <> 'self_signed';

-- What was used and may not be used again until it expires. No registration, so it has no change trigger.
create table spent_jti (
    kind       text not null,
    owner      text not null,
    jti        bytea not null,
    expires_at bigint not null,
    primary key (kind, owner, jti)
);
create index spent_jti_expires_at on spent_jti (expires_at);

do $$
declare
    watched text;
begin
    foreach watched in array array['client_key', 'client_certificate'] loop
        execute format('create trigger %1$s_inserted after insert on %1$s referencing new table as changed
                        for each statement execute function grantd_note_change(''client'', ''client_id'')', watched);
        execute format('create trigger %1$s_updated after update on %1$s referencing new table as changed old table as replaced
                        for each statement execute function grantd_note_change(''client'', ''client_id'')', watched);
        execute format('create trigger %1$s_deleted after delete on %1$s referencing old table as changed
                        for each statement execute function grantd_note_change(''client'', ''client_id'')', watched);
        execute format('create trigger %1$s_truncated after truncate on %1$s
                        for each statement execute function grantd_note_change(''client'', ''client_id'')', watched);
    end loop;
end $$;
