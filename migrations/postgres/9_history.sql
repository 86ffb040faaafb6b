-- Whose a revision is: each has a random id, so that a replica notices a database with another past.
--
-- ../sqlite/9_history.sql is its twin and a test compares them.

-- A restore, a failover that lost changes, or another database behind the same address may have the same revision. It does
-- not have the same id.
alter table registry_revision add column history text not null default '';

-- The ids of the last ten thousand revisions. A replica that holds an older one loads everything.
create table registry_history (
    revision bigint primary key,
    history  text not null
);
update registry_revision set history = gen_random_uuid()::text;
insert into registry_history (revision, history) select revision, history from registry_revision;

create or replace function grantd_raise_revision(of_schema text, what text) returns bigint language plpgsql
set search_path = pg_catalog, pg_temp as $$
declare
    now_at bigint;
    its_id text;
begin
    execute format('update %I.registry_revision set revision = revision + 1, history = gen_random_uuid()::text
        returning revision, history', of_schema) into now_at, its_id;
    execute format('insert into %I.registry_history (revision, history) values ($1, $2)
        on conflict (revision) do update set history = excluded.history', of_schema) using now_at, its_id;
    execute format('delete from %I.registry_history where revision <= $1', of_schema) using now_at - 10000;
    if what is not null then
        execute format('insert into %I.registry_change (kind, id, revision) values ($1, $2, $3)
            on conflict (kind, id) do update set revision = excluded.revision', of_schema) using what, ''::text, now_at;
    end if;
    perform pg_notify('grantd', now_at::text);
    return now_at;
end $$;

-- Whoever may change a client needs no rights on these tables: the triggers act as the owner of the schema.
revoke execute on function grantd_raise_revision(text, text) from public;
alter function grantd_note_change() security definer;
alter function grantd_note_revocation() security definer;
alter function grantd_note_cutoff() security definer;
alter function grantd_client_deleted() security definer;
alter function grantd_client_made_again() security definer;
