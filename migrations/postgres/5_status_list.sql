-- The status list (draft-ietf-oauth-status-list): a client has a status index for each epoch, and the bit of an index is set
-- when its epoch has ended. ../sqlite/5_status_list.sql is the twin of this file.

-- Whether tokens for the resource refer to the status list.
alter table resource add column status_list bigint not null default 0;
alter table resource add constraint "status_list: 0 or 1"
    check (status_list in (0, 1));

-- The number of the client's present epoch. -1 asks for a new one, which ends the epoch. Numbers are never used again.
create sequence status_index minvalue 0;
select setval('status_index', 0);
alter table client add column status_index bigint not null default nextval('status_index');
alter table client alter column status_index set default -1;
create unique index client_status_index on client (status_index);

-- The list that the numbers are counted from: the status index of a client is status_list * 2^20 + client.status_index. A
-- cut-off of all tokens begins a new list. -1 asks for that.
alter table token_cutoff add column status_list bigint not null default 0;

-- Status indices whose epoch has ended, from first_index to last_index, until the last token that carries one has expired.
create table ended_status (
    first_index bigint primary key,
    last_index  bigint not null,
    ended_at    bigint not null,
    -- As in revoked_token.
    batch       bigint not null default txid_current(),
    constraint "last_index: first_index or above"
        check (last_index >= first_index),
    constraint "ended_at: seconds since 1970, not milliseconds"
        check (ended_at between 0 and 99999999999)
);
create index ended_status_batch on ended_status (batch);
create index ended_status_ended_at on ended_status (ended_at);

-- A client that was registered before may have the claim; grantd's own takes its place.
create trigger client_claims_status before insert or update of claims on client for each row
    when (new.claims::jsonb ? 'status')
    execute function grantd_refuse('claims: status is set by grantd');

-- Gives a client the number of a new epoch.
create function grantd_begin_epoch() returns trigger language plpgsql security definer
set search_path = pg_catalog, pg_temp as $$
begin
    new.status_index := nextval(format('%I.status_index', tg_table_schema)::regclass);
    return new;
end $$;

-- Records the epochs that a statement ended. The lock of the revision comes first, so that the list is read after a cut-off
-- of all tokens that is committed meanwhile.
create function grantd_end_epochs() returns trigger language plpgsql security definer
set search_path = pg_catalog, pg_temp as $$
declare
    ended  text := 'select status_index from replaced';
    is_any boolean;
begin
    if tg_op = 'INSERT' then
        -- Rows of a copy have their numbers; new ones are above them.
        execute format('select setval(%1$L::regclass, highest) from (select max(status_index) as highest from changed) as c
            where highest > (select last_value from %1$s)', format('%I.status_index', tg_table_schema));
        return null;
    elsif tg_op = 'UPDATE' then
        ended := 'select status_index from replaced except select status_index from changed';
    elsif tg_op = 'TRUNCATE' then
        ended := format('select status_index from %I.client', tg_table_schema);
    end if;
    execute format('select exists (%s)', ended) into is_any;
    if is_any then
        execute format('update %I.registry_revision set revision = revision', tg_table_schema);
        execute format('insert into %1$I.ended_status (first_index, last_index, ended_at)
            select first + status_index, first + status_index, floor(extract(epoch from clock_timestamp()))::bigint
            from (%2$s) as ended, (select coalesce(max(status_list), 0) << 20 as first from %1$I.token_cutoff) as list
            on conflict (first_index) do nothing', tg_table_schema, ended);
    end if;
    return null;
end $$;

-- Begins a new list, and ends every index of the lists before it. The number of a list is not below the time, so no restore
-- of the database brings back one that was used.
create function grantd_begin_list() returns trigger language plpgsql security definer
set search_path = pg_catalog, pg_temp as $$
declare
    behind bigint;
    now_at bigint;
begin
    execute format('update %I.registry_revision set revision = revision', tg_table_schema);
    now_at := floor(extract(epoch from clock_timestamp()))::bigint;
    execute format('select $1 + (last_value >> 20) + 1 from %I.status_index', tg_table_schema) into behind using old.status_list;
    execute format('insert into %I.ended_status (first_index, last_index, ended_at) values ($1, $2, $3)
        on conflict (first_index) do update set last_index = greatest(ended_status.last_index, excluded.last_index)',
        tg_table_schema) using old.status_list << 20, (behind << 20) - 1, now_at;
    new.status_list := greatest(behind, now_at);
    return new;
end $$;

-- Raises the revision. Replicas write again what a restored database has lost: no client gets these numbers.
create function grantd_note_ended() returns trigger language plpgsql security definer
set search_path = pg_catalog, pg_temp as $$
declare
    now_at bigint;
begin
    if not exists (select from ended) then
        return null;
    end if;
    execute format('select %I.grantd_raise_revision($1, null)', tg_table_schema) into now_at using tg_table_schema::text;
    execute format('insert into %I.registry_change (kind, id, revision) values ($1, txid_current()::text, $2)
        on conflict (kind, id) do update set revision = excluded.revision', tg_table_schema) using 'ended'::text, now_at;
    execute format('select setval(%1$L::regclass, highest) from
        (select max(first_index) - (select coalesce(max(status_list), 0) << 20 from %2$I.token_cutoff) as highest from ended) as e
        where highest > (select last_value from %1$s)', format('%I.status_index', tg_table_schema), tg_table_schema);
    return null;
end $$;

create trigger client_epoch_begun before insert on client for each row
    when (new.status_index < 0)
    execute function grantd_begin_epoch();
-- A client that is enabled again gets a number that no replica has known as one of a disabled client. grantd does not write
-- when a client's time is over: it computes that. So that epoch ends when the end is moved afterwards.
create trigger client_epoch_ended before update on client for each row
    when (new.enabled <> old.enabled or new.not_before > old.not_before or new.client_id <> old.client_id or new.status_index < 0
        or old.expires_at <= floor(extract(epoch from clock_timestamp()))::bigint and new.expires_at is distinct from old.expires_at)
    execute function grantd_begin_epoch();
create trigger client_epochs_inserted after insert on client referencing new table as changed
    for each statement execute function grantd_end_epochs();
create trigger client_epochs_updated after update on client referencing old table as replaced new table as changed
    for each statement execute function grantd_end_epochs();
create trigger client_epochs_deleted after delete on client referencing old table as replaced
    for each statement execute function grantd_end_epochs();
create trigger client_epochs_truncated before truncate on client
    for each statement execute function grantd_end_epochs();
create trigger token_cutoff_list_begun before update on token_cutoff for each row
    when (new.not_before > old.not_before or new.status_list < 0)
    execute function grantd_begin_list();
create trigger ended_status_noted after insert on ended_status referencing new table as ended
    for each statement execute function grantd_note_ended();
