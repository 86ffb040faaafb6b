-- Whose a revision is: each has a random id, so that a replica notices a database with another past.
--
-- ../postgres/9_history.sql is its twin and a test compares them.

-- A restore, or another file at the same path, may have the same revision. It does not have the same id.
alter table registry_revision add column history text not null default '';

-- The ids of the last ten thousand revisions. A replica that holds an older one loads everything.
create table registry_history (
    revision integer primary key not null,
    history  text not null
) strict;
update registry_revision set history = lower(hex(randomblob(16)));
insert into registry_history (revision, history) select revision, history from registry_revision;

create trigger registry_revision_raised after update of revision on registry_revision when new.revision <> old.revision begin
    update registry_revision set history = lower(hex(randomblob(16)));
    insert into registry_history (revision, history) select revision, history from registry_revision where true
        on conflict (revision) do update set history = excluded.history;
    delete from registry_history where revision <= new.revision - 10000;
end;
