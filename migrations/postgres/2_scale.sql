-- A million clients and hundreds of replicas: bulk changes and revocations are noted once a statement, old notes are
-- deleted, one replica sweeps for all, and secrets have a verifier.

-- Client ids are ASCII. In the order of their bytes a replica can load them range by range, whatever the database's collation.
alter table client alter column client_id type text collate "C";
alter table client_resource alter column client_id type text collate "C";
alter table client_secret alter column client_id type text collate "C";
alter table client_key alter column client_id type text collate "C";
alter table client_certificate alter column client_id type text collate "C";

-- A MAC of the secret under a key that is derived from the sealing key: `<key id>.<MAC>`. A replica that has just started
-- recognises the secret by it, and verifies the hash afterwards. Null for imported secrets.
alter table client_secret add column verifier text;
alter table client_secret add constraint "verifier: <8 of 0-9 a-f>.<43 of base64url>, imported = 0"
    check (verifier is null or verifier ~ '^[0-9a-f]{8}\.[A-Za-z0-9_-]{43}$' and imported = 0);

-- Rows that were inserted by one transaction have the same batch, and a change of kind `revoked` names it. The number of a
-- revision would have to be known before the rows are written, and its lock held while they are.
-- Versions that read rows by their revision read all of these again.
alter table revoked_token add column batch bigint not null default 0;
alter table revoked_token alter column batch set default txid_current();
alter table revoked_token alter column revision set default 9223372036854775807;
create index revoked_token_batch on revoked_token (batch);

-- Work that one replica does for all, until a moment by the database's clock.
create table lease (
    work   text primary key,
    holder text not null,
    until  bigint not null,
    constraint "until: seconds since 1970, not milliseconds"
        check (until between 0 and 99999999999)
);

-- Notes of revocations name a batch from here on.
delete from registry_change where kind = 'revoked';

drop trigger revoked_token_noted on revoked_token;
drop function grantd_note_revocation();
create function grantd_note_revocation() returns trigger language plpgsql security definer
set search_path = pg_catalog, pg_temp as $$
declare
    now_at bigint;
begin
    if not exists (select from revoked) then
        return null;
    end if;
    execute format('select %I.grantd_raise_revision($1, null)', tg_table_schema) into now_at using tg_table_schema::text;
    execute format('insert into %I.registry_change (kind, id, revision) values ($1, txid_current()::text, $2)
        on conflict (kind, id) do update set revision = excluded.revision', tg_table_schema) using 'revoked'::text, now_at;
    return null;
end $$;
create trigger revoked_token_noted after insert on revoked_token referencing new table as revoked
    for each statement execute function grantd_note_revocation();

-- A statement that changes more than ten thousand rows is noted as one change of everything: replicas load a range of
-- clients after the other, and other changes in between.
create or replace function grantd_note_change() returns trigger language plpgsql security definer
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
    if exists (select from changed offset 10000) then
        execute raise_revision using tg_table_schema::text, 'all'::text;
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
