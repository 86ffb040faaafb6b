-- Clients that prove themselves by a key (RFC 7523) or by a certificate (RFC 8705), and what may be used only once.
--
-- ../postgres/3_client_credentials.sql is its twin and a test compares them.

-- Public keys of a client. One algorithm each: the jwk's alg.
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
            and json_type(jwk, '$.oth') is null and json_type(jwk, '$.k') is null)
) strict;

-- Where a client publishes its keys, instead of rows above.
alter table client add column jwks_uri text
    constraint "jwks_uri: an https URL without fragment, at most 2048 long"
        check (jwks_uri is null or jwks_uri glob 'https://?*' and not jwks_uri glob '*[^!-~]*' and instr(jwks_uri, '#') = 0
            and length(cast(jwks_uri as blob)) = length(jwks_uri) and length(jwks_uri) <= 2048);

-- What is known of a client's certificate: one name in it, or its hash.
create table client_certificate (
    cert_id    text primary key not null default (lower(hex(randomblob(16)))),
    client_id  text not null references client (client_id) on delete cascade,
    kind       text not null,
    value      text not null,
    created_at integer not null default (unixepoch()),
    constraint "cert_id: 1 to 64 of A-Z a-z 0-9 -"
        check (not cert_id glob '*[^A-Za-z0-9-]*' and length(cast(cert_id as blob)) = length(cert_id)
            and length(cert_id) between 1 and 64),
    constraint "kind: subject_dn, san_dns, _uri, _ip, _email or self_signed"
        check (kind in ('subject_dn', 'san_dns', 'san_uri', 'san_ip', 'san_email', 'self_signed')),
    constraint "value: 1 to 4096 characters"
        check (length(value) between 1 and 4096)
) strict;
create index client_certificate_client_id on client_certificate (client_id);
-- RFC 8705 section 2.1.2: exactly one name. Self-signed certificates overlap while they are replaced.
create unique index client_certificate_one_name on client_certificate (client_id) where kind <> 'self_signed';

-- What was used and may not be used again until it expires. No registration, so it has no change trigger.
create table spent_jti (
    kind       text not null,
    owner      text not null,
    jti        blob not null,
    expires_at integer not null,
    primary key (kind, owner, jti)
) strict, without rowid;
create index spent_jti_expires_at on spent_jti (expires_at);

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
