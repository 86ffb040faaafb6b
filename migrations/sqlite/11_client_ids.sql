-- Client ids as RFC 6749 appendix A.1 permits them, so that clients of other servers keep theirs.
--
-- ../postgres/11_client_ids.sql is its twin and a test compares them.

-- SQLite has no statement that alters a CHECK. Making the table anew would delete what refers to it. This is the way of
-- https://www.sqlite.org/lang_altertable.html for changes that do not touch the rows.
pragma writable_schema = on;
update sqlite_schema set sql = replace(replace(sql,
        '"client_id: 1 to 128 of A-Z a-z 0-9 . _ ~ -"',
        '"client_id: 1 to 255 printable ASCII, no space at either end"'),
        'check (not client_id glob ''*[^A-Za-z0-9._~-]*'' and length(cast(client_id as blob)) = length(client_id)
            and length(client_id) between 1 and 128)',
        'check (not client_id glob ''*[^ -~]*'' and not client_id glob '' *'' and not client_id glob ''* ''
            and length(cast(client_id as blob)) = length(client_id) and length(client_id) between 1 and 255)')
    where type = 'table' and name = 'client';
-- Reads the schema again, here; what follows changes the schema's version, which makes every other connection do so.
pragma writable_schema = reset;
create view schema_version_raised as select 1;
drop view schema_version_raised;
