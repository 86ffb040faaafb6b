-- Client ids as RFC 6749 appendix A.1 permits them, so that clients of other servers keep theirs.
--
-- ../sqlite/11_client_ids.sql is its twin and a test compares them.

alter table client drop constraint "client_id: 1 to 128 of A-Z a-z 0-9 . _ ~ -";
alter table client add constraint "client_id: 1 to 255 printable ASCII, no space at either end"
    check (client_id collate "C" ~ '^[!-~]([ -~]{0,253}[!-~])?$');
