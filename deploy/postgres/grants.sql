-- The privileges of the serving role. Run as grantd_owner in grantd's database after each migration; it may run any number of
-- times. Everything else in the database, the serving role only reads.
grant select on all tables in schema public to grantd_app;
-- The first signing key of an algorithm and those of rotations, the first tag key, and signing keys whose time is over.
-- The longest lifetime of the tokens of a key.
grant insert on signing_key, secret_tag_key to grantd_app;
grant delete on signing_key to grantd_app;
grant update (max_ttl) on signing_key to grantd_app;
grant update on registry_revision to grantd_app;
-- When credentials were last used, hashes whose cost was raised, and verifiers of older secrets.
grant insert, update on client_secret_use, client_key_use, client_certificate_use, client_federation_use to grantd_app;
-- The issuer of this server, which is never a trusted one.
grant insert on own_issuer to grantd_app;
grant update (hash, verifier) on client_secret to grantd_app;
-- Single-use ids and revocations, until they expire.
grant insert, delete on revoked_token, spent_jti, ended_status to grantd_app;
-- Revocations that a restored database has lost (registry.rewrite_lost_revocations).
grant update (not_before, status_index) on client to grantd_app;
grant insert, update on token_cutoff to grantd_app;
grant delete on deleted_client to grantd_app;
-- The election of the replica that sweeps, and notes of changes that every replica has read.
grant insert, update on lease to grantd_app;
grant insert, update, delete on registry_change to grantd_app;
