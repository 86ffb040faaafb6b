-- The lifecycle of clients: what a client is for, who answers for it, and when it ends. ../sqlite/3_lifecycle.sql is the
-- twin of this file.

-- For administrators; no token request depends on them.
alter table client add column description text not null default '';
alter table client add column owner text not null default '';
-- The client may not authenticate from this second on, by the database's clock.
alter table client add column expires_at bigint;
alter table client add constraint "description: at most 512 characters"
    check (length(description) <= 512);
alter table client add constraint "owner: at most 128 characters"
    check (length(owner) <= 128);
alter table client add constraint "expires_at: seconds since 1970, not milliseconds"
    check (expires_at between 1 and 99999999999);
