-- Tokens that were revoked (RFC 7009): one by one, all of a client, all there are.
--
-- ../sqlite/4_revocation.sql is its twin and a test compares them.

-- Rows are kept until the token would have ended by itself. Each has the revision it came with, so that replicas read only
-- those that are new; the client is no reference, since its tokens stay revoked when it is deleted and made again.
create table revoked_token (
    jti        text primary key,
    client_id  text not null default '',
    expires_at bigint not null,
    revoked_at bigint not null default extract(epoch from now())::bigint,
    revision   bigint not null default 0,
    constraint "jti: as it stands in the token, 22 of A-Z a-z 0-9 _ -"
        check (jti ~ '^[A-Za-z0-9_-]{21}[AQgw]$')
);
create index revoked_token_revision on revoked_token (revision);
create index revoked_token_expires_at on revoked_token (expires_at);

-- Tokens that were issued then or before count for nothing.
alter table client add column not_before bigint not null default 0;

create table token_cutoff (
    only_row   bigint primary key check (only_row = 1),
    not_before bigint not null
);
insert into token_cutoff (only_row, not_before) values (1, 0);

create function grantd_note_revocation() returns trigger language plpgsql as $$
begin
    update registry_revision set revision = revision + 1 returning revision into new.revision;
    insert into registry_change (kind, id, revision) values ('revoked', '', new.revision)
        on conflict (kind, id) do update set revision = excluded.revision;
    perform pg_notify('grantd', new.revision::text);
    return new;
end $$;
create trigger revoked_token_noted before insert on revoked_token
    for each row execute function grantd_note_revocation();

create function grantd_note_cutoff() returns trigger language plpgsql as $$
declare
    now_at bigint;
begin
    update registry_revision set revision = revision + 1 returning revision into now_at;
    insert into registry_change (kind, id, revision) values ('cutoff', '', now_at)
        on conflict (kind, id) do update set revision = excluded.revision;
    perform pg_notify('grantd', now_at::text);
    return null;
end $$;
create trigger token_cutoff_changed after insert or update or delete or truncate on token_cutoff
    for each statement execute function grantd_note_cutoff();
