-- Tokens that were revoked (RFC 7009): one by one, all of a client, all there are.
--
-- ../postgres/4_revocation.sql is its twin and a test compares them.

-- Rows are kept until the token would have ended by itself. Each has the revision it came with, so that replicas read only
-- those that are new; the client is no reference, since its tokens stay revoked when it is deleted and made again.
create table revoked_token (
    jti        text primary key not null,
    client_id  text not null default '',
    expires_at integer not null,
    revoked_at integer not null default (unixepoch()),
    revision   integer not null default 0,
    constraint "jti: as it stands in the token, 22 of A-Z a-z 0-9 _ -"
        check (not jti glob '*[^A-Za-z0-9_-]*' and jti glob '*[AQgw]' and length(jti) = 22 and length(cast(jti as blob)) = 22)
) strict;
create index revoked_token_revision on revoked_token (revision);
create index revoked_token_expires_at on revoked_token (expires_at);

-- Tokens that were issued then or before count for nothing.
alter table client add column not_before integer not null default 0;

create table token_cutoff (
    only_row   integer primary key not null check (only_row = 1),
    not_before integer not null
) strict;
insert into token_cutoff (only_row, not_before) values (1, 0);

create trigger revoked_token_noted after insert on revoked_token begin
    update registry_revision set revision = revision + 1;
    update revoked_token set revision = (select revision from registry_revision) where jti = new.jti;
    insert into registry_change (kind, id, revision) select 'revoked', '', revision from registry_revision where true
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
