-- Clients that were deleted: the tokens that they were issued stay worthless when another client gets the same id.
--
-- ../postgres/5_deleted_client.sql is its twin and a test compares them.

-- Rows are kept until the last of those tokens has ended by itself.
create table deleted_client (
    client_id  text primary key not null,
    deleted_at integer not null
) strict;

create trigger client_deleted_noted before delete on client begin
    insert into deleted_client (client_id, deleted_at) values (old.client_id, unixepoch())
        on conflict (client_id) do update set deleted_at = excluded.deleted_at;
end;
create trigger client_made_again after insert on client
    when exists (select 1 from deleted_client where client_id = new.client_id and deleted_at > new.not_before) begin
    update client set not_before = (select deleted_at from deleted_client where client_id = new.client_id)
        where client_id = new.client_id;
end;
