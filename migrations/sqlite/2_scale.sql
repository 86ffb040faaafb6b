-- A million clients and hundreds of replicas: revocations are noted by their batch, old notes are deleted, and secrets
-- have a verifier. ../postgres/2_scale.sql is the twin of this file.

-- A MAC of the secret under a key that is derived from the sealing key: `<key id>.<MAC>`. A process that has just started
-- recognises the secret by it, and verifies the hash afterwards. Null for imported secrets.
alter table client_secret add column verifier text
    constraint "verifier: <8 of 0-9 a-f>.<43 of base64url>, imported = 0"
        check (verifier is null or length(verifier) = 52 and not substr(verifier, 1, 8) glob '*[^0-9a-f]*' and substr(verifier, 9, 1) = '.'
            and not substr(verifier, 10) glob '*[^A-Za-z0-9_-]*' and length(cast(verifier as blob)) = 52 and imported = 0);

-- Rows that came with one change have the same batch, and a change of kind `revoked` names it.
alter table revoked_token add column batch integer not null default 0;
create index revoked_token_batch on revoked_token (batch);

-- Work that one process does for all, until a moment by the database's clock.
create table lease (
    work   text primary key not null,
    holder text not null,
    until  integer not null,
    constraint "until: seconds since 1970, not milliseconds"
        check (until between 0 and 99999999999)
) strict;

-- Notes of revocations name a batch from here on.
delete from registry_change where kind = 'revoked';

drop trigger revoked_token_noted;
create trigger revoked_token_noted after insert on revoked_token begin
    update registry_revision set revision = revision + 1;
    update revoked_token set revision = (select revision from registry_revision), batch = (select revision from registry_revision)
        where jti = new.jti;
    insert into registry_change (kind, id, revision) select 'revoked', revision, revision from registry_revision where true
        on conflict (kind, id) do update set revision = excluded.revision;
end;
