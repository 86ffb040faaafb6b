-- Clients that were deleted: the tokens that they were issued stay worthless when another client gets the same id.
--
-- ../sqlite/5_deleted_client.sql is its twin and a test compares them.

-- Rows are kept until the last of those tokens has ended by itself.
create table deleted_client (
    client_id  text primary key,
    deleted_at bigint not null
);

create function grantd_client_deleted() returns trigger language plpgsql as $$
begin
    if tg_op = 'TRUNCATE' then
        insert into deleted_client (client_id, deleted_at)
            select client_id, floor(extract(epoch from clock_timestamp()))::bigint from client
            on conflict (client_id) do update set deleted_at = excluded.deleted_at;
    else
        insert into deleted_client (client_id, deleted_at)
            values (old.client_id, floor(extract(epoch from clock_timestamp()))::bigint)
            on conflict (client_id) do update set deleted_at = excluded.deleted_at;
    end if;
    return old;
end $$;
create trigger client_deleted_noted before delete on client
    for each row execute function grantd_client_deleted();
create trigger client_truncated_noted before truncate on client
    for each statement execute function grantd_client_deleted();

create function grantd_client_made_again() returns trigger language plpgsql as $$
begin
    new.not_before := greatest(new.not_before,
        (select deleted_at from deleted_client where client_id = new.client_id));
    return new;
end $$;
create trigger client_made_again before insert on client
    for each row execute function grantd_client_made_again();
