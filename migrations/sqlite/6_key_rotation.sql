-- Signing keys end as soon as their tokens have. ../postgres/6_key_rotation.sql is the twin of this file.

-- The longest lifetime of a token that the key signs, in seconds. A key that was replaced stays published for as long.
-- Raised while the key signs, never lowered. Versions that do not know the column sign tokens of up to a day.
alter table signing_key add column max_ttl integer not null default 86400
    constraint "max_ttl: seconds, from 1 to 86400"
        check (max_ttl between 1 and 86400);
