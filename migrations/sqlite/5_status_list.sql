-- The status list (draft-ietf-oauth-status-list): a client has a status index for each epoch, and the bit of an index is set
-- when its epoch has ended. ../postgres/5_status_list.sql is the twin of this file.

-- Whether tokens for the resource refer to the status list.
alter table resource add column status_list integer not null default 0
    constraint "status_list: 0 or 1"
        check (status_list in (0, 1));

-- The number of the client's present epoch. -1 asks for a new one, which ends the epoch. A number is used again only when its
-- row of ended_status is deleted.
alter table client add column status_index integer not null default -1;
update client set status_index = rowid;
create unique index client_status_index on client (status_index);

-- The list that the numbers are counted from: the status index of a client is status_list * 2^20 + client.status_index. A
-- cut-off of all tokens begins a new list. -1 asks for that.
alter table token_cutoff add column status_list integer not null default 0;

-- Status indices whose epoch has ended, from first_index to last_index, until the last token that carries one has expired.
create table ended_status (
    first_index integer primary key not null,
    last_index  integer not null,
    ended_at    integer not null,
    -- As in revoked_token.
    batch       integer not null default 0,
    constraint "last_index: first_index or above"
        check (last_index >= first_index),
    constraint "ended_at: seconds since 1970, not milliseconds"
        check (ended_at between 0 and 99999999999)
) strict;
create index ended_status_batch on ended_status (batch);
create index ended_status_ended_at on ended_status (ended_at);

-- A client that was registered before may have the claim; grantd's own takes its place.
create trigger client_claims_status_on_insert before insert on client when case when json_valid(new.claims) then json_type(new.claims, '$.status') is not null end begin
    select raise(abort, 'claims: status is set by grantd');
end;
create trigger client_claims_status_on_update before update of claims on client when case when json_valid(new.claims) then json_type(new.claims, '$.status') is not null end begin
    select raise(abort, 'claims: status is set by grantd');
end;

-- A new number is above those of all clients and above those that have ended in the present list.
create trigger client_epoch_begun after insert on client when new.status_index < 0 begin
    update client set status_index = 1 + max(coalesce((select max(status_index) from client), 0), coalesce((select max(first_index)
        from ended_status where first_index >= (select max(status_list) << 20 from token_cutoff)), 0)
        - coalesce((select max(status_list) << 20 from token_cutoff), 0)) where client_id = new.client_id;
end;
-- A client that is enabled again gets a number that no replica has known as one of a disabled client. grantd does not write
-- when a client's time is over: it computes that. So that epoch ends when the end is moved afterwards.
create trigger client_epoch_ended after update on client when old.status_index >= 0 and (new.enabled <> old.enabled
    or new.not_before > old.not_before or new.client_id <> old.client_id or new.status_index < 0
    or old.expires_at <= unixepoch() and new.expires_at is not old.expires_at) begin
    insert into ended_status (first_index, last_index, ended_at) select i, i, unixepoch()
        from (select old.status_index + coalesce(max(status_list) << 20, 0) as i from token_cutoff) where true
        on conflict (first_index) do nothing;
    update client set status_index = 1 + max(coalesce((select max(status_index) from client), 0), coalesce((select max(first_index)
        from ended_status where first_index >= (select max(status_list) << 20 from token_cutoff)), 0)
        - coalesce((select max(status_list) << 20 from token_cutoff), 0)) where client_id = new.client_id;
end;
create trigger client_epoch_deleted before delete on client when old.status_index >= 0 begin
    insert into ended_status (first_index, last_index, ended_at) select i, i, unixepoch()
        from (select old.status_index + coalesce(max(status_list) << 20, 0) as i from token_cutoff) where true
        on conflict (first_index) do nothing;
end;

-- Begins a new list, and ends every index of the lists before it. The number of a list is not below the time, so no restore
-- of the database brings back one that was used.
create trigger token_cutoff_list_begun after update on token_cutoff when new.not_before > old.not_before or new.status_list < 0 begin
    insert into ended_status (first_index, last_index, ended_at)
        select old.status_list << 20, ((old.status_list + (highest >> 20) + 1) << 20) - 1, unixepoch()
        from (select coalesce(max(status_index), 0) as highest from client) where true
        on conflict (first_index) do update set last_index = max(last_index, excluded.last_index);
    update token_cutoff set status_list = max(unixepoch(),
        old.status_list + 1 + (select coalesce(max(status_index), 0) >> 20 from client));
end;

create trigger ended_status_noted after insert on ended_status begin
    update registry_revision set revision = revision + 1;
    update ended_status set batch = (select revision from registry_revision) where first_index = new.first_index;
    insert into registry_change (kind, id, revision) select 'ended', revision, revision from registry_revision where true
        on conflict (kind, id) do update set revision = excluded.revision;
end;
