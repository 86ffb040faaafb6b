-- Generated secrets carry a tag, a MAC under a key of the deployment, so that a made-up one is refused before any hash.
--
-- ../sqlite/2_secret_tags.sql is its twin and a test compares them.

-- Sealed like signing keys. The newest tags new secrets, all of them tell; what is missing here costs speed, not access.
create table secret_tag_key (
    kid        text primary key,
    sealed     bytea not null,
    created_at bigint not null default extract(epoch from now())::bigint,
    constraint "kid: 16 of 0-9 a-f; run `grantd key tag rotate`"
        check (kid ~ '^[0-9a-f]{16}$')
);

-- Under which key a secret was tagged; null for secrets without a tag. It need not be there any more.
alter table client_secret add column tag_key text
    constraint "tag_key: 16 of 0-9 a-f, and only where imported = 0"
        check (tag_key is null or tag_key ~ '^[0-9a-f]{16}$' and imported = 0);

create trigger secret_tag_key_inserted after insert on secret_tag_key referencing new table as changed
    for each statement execute function grantd_note_change('tag_key', 'kid');
create trigger secret_tag_key_updated after update on secret_tag_key referencing new table as changed old table as replaced
    for each statement execute function grantd_note_change('tag_key', 'kid');
create trigger secret_tag_key_deleted after delete on secret_tag_key referencing old table as changed
    for each statement execute function grantd_note_change('tag_key', 'kid');
create trigger secret_tag_key_truncated after truncate on secret_tag_key
    for each statement execute function grantd_note_change('tag_key', 'kid');
