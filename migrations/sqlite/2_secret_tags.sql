-- Generated secrets carry a tag, a MAC under a key of the deployment, so that a made-up one is refused before any hash.
--
-- ../postgres/2_secret_tags.sql is its twin and a test compares them.

-- Sealed like signing keys. The newest tags new secrets, all of them tell; what is missing here costs speed, not access.
create table secret_tag_key (
    kid        text primary key not null,
    sealed     blob not null,
    created_at integer not null default (unixepoch()),
    constraint "kid: 16 of 0-9 a-f; run `grantd key tag rotate`"
        check (not kid glob '*[^0-9a-f]*' and length(kid) = 16 and length(cast(kid as blob)) = 16)
) strict;

-- Under which key a secret was tagged; null for secrets without a tag. It need not be there any more.
alter table client_secret add column tag_key text
    constraint "tag_key: 16 of 0-9 a-f, and only where imported = 0"
        check (tag_key is null or not tag_key glob '*[^0-9a-f]*' and length(tag_key) = 16 and length(cast(tag_key as blob)) = 16 and imported = 0);

create trigger secret_tag_key_inserted after insert on secret_tag_key begin
    update registry_revision set revision = revision + 1;
    insert into registry_change (kind, id, revision) select 'tag_key', new.kid, revision from registry_revision where true
        on conflict (kind, id) do update set revision = excluded.revision;
end;
create trigger secret_tag_key_updated after update on secret_tag_key begin
    update registry_revision set revision = revision + 1;
    insert into registry_change (kind, id, revision) select 'tag_key', old.kid, revision from registry_revision where true
        on conflict (kind, id) do update set revision = excluded.revision;
    insert into registry_change (kind, id, revision) select 'tag_key', new.kid, revision from registry_revision where true
        on conflict (kind, id) do update set revision = excluded.revision;
end;
create trigger secret_tag_key_deleted after delete on secret_tag_key begin
    update registry_revision set revision = revision + 1;
    insert into registry_change (kind, id, revision) select 'tag_key', old.kid, revision from registry_revision where true
        on conflict (kind, id) do update set revision = excluded.revision;
end;
