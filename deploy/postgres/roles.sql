-- The two roles of grantd and its database. Run once with psql as a superuser, before the first migration:
-- grantd_owner owns the schema, migrates and administers; grantd_app serves. Neither is a superuser.
-- The passwords are read from two files, so that they stand in no argument and no history. compose.yaml mounts both;
-- elsewhere, put the passwords into these files first.
\set ON_ERROR_STOP on
\set owner_password `cat /run/secrets/owner_password`
\set app_password `cat /run/secrets/app_password`

select :'owner_password' = '' or :'app_password' = '' as password_missing \gset
\if :password_missing
  do $$ begin raise exception 'a file of a password is missing or empty: see the head of roles.sql'; end $$;
\endif

create role grantd_owner login password :'owner_password';
create role grantd_app login password :'app_password';
create database grantd owner grantd_owner;
revoke connect, temporary on database grantd from public;
grant connect on database grantd to grantd_app;
