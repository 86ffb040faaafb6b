-- Times in seconds, cut-offs that have come, and functions that work whatever the session's settings are.
--
-- ../sqlite/8_times_and_sessions.sql is its twin and a test compares them.

-- Trigger functions run in sessions of administrators, dumps and restores. Each looks up built-in functions in pg_catalog
-- alone, and names its tables with the schema of the table that was changed.

-- Raises the revision, notes what changed in it, and returns it.
create function grantd_raise_revision(of_schema text, what text) returns bigint language plpgsql
set search_path = pg_catalog, pg_temp as $$
declare
    now_at bigint;
begin
    execute format('update %I.registry_revision set revision = revision + 1 returning revision', of_schema) into now_at;
    if what is not null then
        execute format('insert into %I.registry_change (kind, id, revision) values ($1, $2, $3)
            on conflict (kind, id) do update set revision = excluded.revision', of_schema) using what, ''::text, now_at;
    end if;
    perform pg_notify('grantd', now_at::text);
    return now_at;
end $$;

create or replace function grantd_note_change() returns trigger language plpgsql
set search_path = pg_catalog, pg_temp as $$
declare
    now_at bigint;
    raise_revision text := format('select %I.grantd_raise_revision($1, $2)', tg_table_schema);
    rows   text := 'select * from changed';
begin
    if tg_op = 'TRUNCATE' then
        execute raise_revision using tg_table_schema::text, 'all'::text;
        return null;
    end if;
    if not exists (select from changed) then
        return null;
    end if;
    if tg_op = 'UPDATE' then
        rows := 'select * from changed union all select * from replaced';
    end if;
    execute raise_revision into now_at using tg_table_schema::text, null::text;
    execute format(
        'insert into %I.registry_change (kind, id, revision) select distinct %L, %I, $1 from (%s) as touched order by 2
         on conflict (kind, id) do update set revision = excluded.revision', tg_table_schema, tg_argv[0], tg_argv[1], rows) using now_at;
    return null;
end $$;

create or replace function grantd_note_revocation() returns trigger language plpgsql
set search_path = pg_catalog, pg_temp as $$
begin
    execute format('select %I.grantd_raise_revision($1, $2)', tg_table_schema) into new.revision
        using tg_table_schema::text, 'revoked'::text;
    return new;
end $$;

create or replace function grantd_note_cutoff() returns trigger language plpgsql
set search_path = pg_catalog, pg_temp as $$
begin
    execute format('select %I.grantd_raise_revision($1, $2)', tg_table_schema) using tg_table_schema::text, 'cutoff'::text;
    return null;
end $$;

create or replace function grantd_client_deleted() returns trigger language plpgsql
set search_path = pg_catalog, pg_temp as $$
begin
    if tg_op = 'TRUNCATE' then
        execute format('insert into %1$I.deleted_client (client_id, deleted_at)
            select client_id, floor(extract(epoch from clock_timestamp()))::bigint from %1$I.client
            on conflict (client_id) do update set deleted_at = excluded.deleted_at', tg_table_schema);
    else
        execute format('insert into %I.deleted_client (client_id, deleted_at)
            values ($1, floor(extract(epoch from clock_timestamp()))::bigint)
            on conflict (client_id) do update set deleted_at = excluded.deleted_at', tg_table_schema) using old.client_id;
    end if;
    return old;
end $$;

create or replace function grantd_client_made_again() returns trigger language plpgsql
set search_path = pg_catalog, pg_temp as $$
declare
    deleted_at bigint;
begin
    execute format('select deleted_at from %I.deleted_client where client_id = $1', tg_table_schema)
        into deleted_at using new.client_id;
    new.not_before := greatest(new.not_before, deleted_at);
    return new;
end $$;

-- Refuses a row with the message that the trigger names, as a constraint of that name would.
create function grantd_refuse() returns trigger language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    raise exception using errcode = 'check_violation', constraint = tg_argv[0], table = tg_table_name, message = tg_argv[0];
end $$;

-- A cut-off in the future would take every new token along, with no way back. Five seconds are left for clocks.
create trigger client_not_before_checked before insert or update of not_before on client for each row
    when (new.not_before > floor(extract(epoch from clock_timestamp()))::bigint + 5)
    execute function grantd_refuse('not_before: not in the future; new tokens would be dead');
create trigger token_cutoff_not_before_checked before insert or update of not_before on token_cutoff for each row
    when (new.not_before > floor(extract(epoch from clock_timestamp()))::bigint + 5)
    execute function grantd_refuse('not_before: not in the future; new tokens would be dead');

-- A moment in milliseconds is fifty thousand years away, and a credential with such an end never expires. Rows that are
-- there are looked at when read.
alter table resource add constraint "created_at: seconds since 1970, not milliseconds" check (created_at between 0 and 99999999999) not valid;
alter table client add constraint "created_at: seconds since 1970, not milliseconds" check (created_at between 0 and 99999999999) not valid;
alter table client add constraint "not_before: seconds since 1970, not milliseconds" check (not_before between 0 and 99999999999) not valid;
alter table client_secret add constraint "created_at: seconds since 1970, not milliseconds" check (created_at between 0 and 99999999999) not valid;
alter table client_secret add constraint "expires_at: seconds since 1970, not milliseconds" check (expires_at between 0 and 99999999999) not valid;
alter table client_secret add constraint "revoked_at: seconds since 1970, not milliseconds" check (revoked_at between 0 and 99999999999) not valid;
alter table client_secret_use add constraint "last_used_at: seconds since 1970, not milliseconds" check (last_used_at between 0 and 99999999999) not valid;
alter table client_key add constraint "created_at: seconds since 1970, not milliseconds" check (created_at between 0 and 99999999999) not valid;
alter table client_key add constraint "expires_at: seconds since 1970, not milliseconds" check (expires_at between 0 and 99999999999) not valid;
alter table client_key_use add constraint "last_used_at: seconds since 1970, not milliseconds" check (last_used_at between 0 and 99999999999) not valid;
alter table client_certificate add constraint "created_at: seconds since 1970, not milliseconds" check (created_at between 0 and 99999999999) not valid;
alter table client_certificate add constraint "expires_at: seconds since 1970, not milliseconds" check (expires_at between 0 and 99999999999) not valid;
alter table client_certificate_use add constraint "last_used_at: seconds since 1970, not milliseconds" check (last_used_at between 0 and 99999999999) not valid;
alter table signing_key add constraint "active_at: seconds since 1970, not milliseconds" check (active_at between 0 and 99999999999) not valid;
alter table signing_key add constraint "created_at: seconds since 1970, not milliseconds" check (created_at between 0 and 99999999999) not valid;
alter table secret_tag_key add constraint "created_at: seconds since 1970, not milliseconds" check (created_at between 0 and 99999999999) not valid;
alter table revoked_token add constraint "expires_at: seconds since 1970, not milliseconds" check (expires_at between 0 and 99999999999) not valid;
alter table revoked_token add constraint "revoked_at: seconds since 1970, not milliseconds" check (revoked_at between 0 and 99999999999) not valid;
alter table deleted_client add constraint "deleted_at: seconds since 1970, not milliseconds" check (deleted_at between 0 and 99999999999) not valid;
alter table spent_jti add constraint "expires_at: seconds since 1970, not milliseconds" check (expires_at between 0 and 99999999999) not valid;
alter table token_cutoff add constraint "not_before: seconds since 1970, not milliseconds" check (not_before between 0 and 99999999999) not valid;
