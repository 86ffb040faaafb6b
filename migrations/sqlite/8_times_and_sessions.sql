-- Times in seconds, and cut-offs that have come.
--
-- ../postgres/8_times_and_sessions.sql is its twin and a test compares them.

-- A cut-off in the future would take every new token along, with no way back. Five seconds are left for clocks.
create trigger client_not_before_on_insert before insert on client when new.not_before > unixepoch() + 5 begin
    select raise(abort, 'not_before: not in the future; new tokens would be dead');
end;
create trigger client_not_before_on_update before update of not_before on client when new.not_before > unixepoch() + 5 begin
    select raise(abort, 'not_before: not in the future; new tokens would be dead');
end;
create trigger token_cutoff_not_before_on_insert before insert on token_cutoff when new.not_before > unixepoch() + 5 begin
    select raise(abort, 'not_before: not in the future; new tokens would be dead');
end;
create trigger token_cutoff_not_before_on_update before update of not_before on token_cutoff when new.not_before > unixepoch() + 5 begin
    select raise(abort, 'not_before: not in the future; new tokens would be dead');
end;

-- A moment in milliseconds is fifty thousand years away, and a credential with such an end never expires. Rows that are
-- there are looked at when read.
create trigger resource_created_at_seconds_on_insert before insert on resource when new.created_at not between 0 and 99999999999 begin
    select raise(abort, 'created_at: seconds since 1970, not milliseconds');
end;
create trigger resource_created_at_seconds_on_update before update of created_at on resource when new.created_at not between 0 and 99999999999 begin
    select raise(abort, 'created_at: seconds since 1970, not milliseconds');
end;
create trigger client_created_at_seconds_on_insert before insert on client when new.created_at not between 0 and 99999999999 begin
    select raise(abort, 'created_at: seconds since 1970, not milliseconds');
end;
create trigger client_created_at_seconds_on_update before update of created_at on client when new.created_at not between 0 and 99999999999 begin
    select raise(abort, 'created_at: seconds since 1970, not milliseconds');
end;
create trigger client_not_before_seconds_on_insert before insert on client when new.not_before not between 0 and 99999999999 begin
    select raise(abort, 'not_before: seconds since 1970, not milliseconds');
end;
create trigger client_not_before_seconds_on_update before update of not_before on client when new.not_before not between 0 and 99999999999 begin
    select raise(abort, 'not_before: seconds since 1970, not milliseconds');
end;
create trigger client_secret_created_at_seconds_on_insert before insert on client_secret when new.created_at not between 0 and 99999999999 begin
    select raise(abort, 'created_at: seconds since 1970, not milliseconds');
end;
create trigger client_secret_created_at_seconds_on_update before update of created_at on client_secret when new.created_at not between 0 and 99999999999 begin
    select raise(abort, 'created_at: seconds since 1970, not milliseconds');
end;
create trigger client_secret_expires_at_seconds_on_insert before insert on client_secret when new.expires_at not between 0 and 99999999999 begin
    select raise(abort, 'expires_at: seconds since 1970, not milliseconds');
end;
create trigger client_secret_expires_at_seconds_on_update before update of expires_at on client_secret when new.expires_at not between 0 and 99999999999 begin
    select raise(abort, 'expires_at: seconds since 1970, not milliseconds');
end;
create trigger client_secret_revoked_at_seconds_on_insert before insert on client_secret when new.revoked_at not between 0 and 99999999999 begin
    select raise(abort, 'revoked_at: seconds since 1970, not milliseconds');
end;
create trigger client_secret_revoked_at_seconds_on_update before update of revoked_at on client_secret when new.revoked_at not between 0 and 99999999999 begin
    select raise(abort, 'revoked_at: seconds since 1970, not milliseconds');
end;
create trigger client_secret_use_last_used_at_seconds_on_insert before insert on client_secret_use when new.last_used_at not between 0 and 99999999999 begin
    select raise(abort, 'last_used_at: seconds since 1970, not milliseconds');
end;
create trigger client_secret_use_last_used_at_seconds_on_update before update of last_used_at on client_secret_use when new.last_used_at not between 0 and 99999999999 begin
    select raise(abort, 'last_used_at: seconds since 1970, not milliseconds');
end;
create trigger client_key_created_at_seconds_on_insert before insert on client_key when new.created_at not between 0 and 99999999999 begin
    select raise(abort, 'created_at: seconds since 1970, not milliseconds');
end;
create trigger client_key_created_at_seconds_on_update before update of created_at on client_key when new.created_at not between 0 and 99999999999 begin
    select raise(abort, 'created_at: seconds since 1970, not milliseconds');
end;
create trigger client_key_expires_at_seconds_on_insert before insert on client_key when new.expires_at not between 0 and 99999999999 begin
    select raise(abort, 'expires_at: seconds since 1970, not milliseconds');
end;
create trigger client_key_expires_at_seconds_on_update before update of expires_at on client_key when new.expires_at not between 0 and 99999999999 begin
    select raise(abort, 'expires_at: seconds since 1970, not milliseconds');
end;
create trigger client_key_use_last_used_at_seconds_on_insert before insert on client_key_use when new.last_used_at not between 0 and 99999999999 begin
    select raise(abort, 'last_used_at: seconds since 1970, not milliseconds');
end;
create trigger client_key_use_last_used_at_seconds_on_update before update of last_used_at on client_key_use when new.last_used_at not between 0 and 99999999999 begin
    select raise(abort, 'last_used_at: seconds since 1970, not milliseconds');
end;
create trigger client_certificate_created_at_seconds_on_insert before insert on client_certificate when new.created_at not between 0 and 99999999999 begin
    select raise(abort, 'created_at: seconds since 1970, not milliseconds');
end;
create trigger client_certificate_created_at_seconds_on_update before update of created_at on client_certificate when new.created_at not between 0 and 99999999999 begin
    select raise(abort, 'created_at: seconds since 1970, not milliseconds');
end;
create trigger client_certificate_expires_at_seconds_on_insert before insert on client_certificate when new.expires_at not between 0 and 99999999999 begin
    select raise(abort, 'expires_at: seconds since 1970, not milliseconds');
end;
create trigger client_certificate_expires_at_seconds_on_update before update of expires_at on client_certificate when new.expires_at not between 0 and 99999999999 begin
    select raise(abort, 'expires_at: seconds since 1970, not milliseconds');
end;
create trigger client_certificate_use_last_used_at_seconds_on_insert before insert on client_certificate_use when new.last_used_at not between 0 and 99999999999 begin
    select raise(abort, 'last_used_at: seconds since 1970, not milliseconds');
end;
create trigger client_certificate_use_last_used_at_seconds_on_update before update of last_used_at on client_certificate_use when new.last_used_at not between 0 and 99999999999 begin
    select raise(abort, 'last_used_at: seconds since 1970, not milliseconds');
end;
create trigger signing_key_active_at_seconds_on_insert before insert on signing_key when new.active_at not between 0 and 99999999999 begin
    select raise(abort, 'active_at: seconds since 1970, not milliseconds');
end;
create trigger signing_key_active_at_seconds_on_update before update of active_at on signing_key when new.active_at not between 0 and 99999999999 begin
    select raise(abort, 'active_at: seconds since 1970, not milliseconds');
end;
create trigger signing_key_created_at_seconds_on_insert before insert on signing_key when new.created_at not between 0 and 99999999999 begin
    select raise(abort, 'created_at: seconds since 1970, not milliseconds');
end;
create trigger signing_key_created_at_seconds_on_update before update of created_at on signing_key when new.created_at not between 0 and 99999999999 begin
    select raise(abort, 'created_at: seconds since 1970, not milliseconds');
end;
create trigger secret_tag_key_created_at_seconds_on_insert before insert on secret_tag_key when new.created_at not between 0 and 99999999999 begin
    select raise(abort, 'created_at: seconds since 1970, not milliseconds');
end;
create trigger secret_tag_key_created_at_seconds_on_update before update of created_at on secret_tag_key when new.created_at not between 0 and 99999999999 begin
    select raise(abort, 'created_at: seconds since 1970, not milliseconds');
end;
create trigger revoked_token_expires_at_seconds_on_insert before insert on revoked_token when new.expires_at not between 0 and 99999999999 begin
    select raise(abort, 'expires_at: seconds since 1970, not milliseconds');
end;
create trigger revoked_token_expires_at_seconds_on_update before update of expires_at on revoked_token when new.expires_at not between 0 and 99999999999 begin
    select raise(abort, 'expires_at: seconds since 1970, not milliseconds');
end;
create trigger revoked_token_revoked_at_seconds_on_insert before insert on revoked_token when new.revoked_at not between 0 and 99999999999 begin
    select raise(abort, 'revoked_at: seconds since 1970, not milliseconds');
end;
create trigger revoked_token_revoked_at_seconds_on_update before update of revoked_at on revoked_token when new.revoked_at not between 0 and 99999999999 begin
    select raise(abort, 'revoked_at: seconds since 1970, not milliseconds');
end;
create trigger deleted_client_deleted_at_seconds_on_insert before insert on deleted_client when new.deleted_at not between 0 and 99999999999 begin
    select raise(abort, 'deleted_at: seconds since 1970, not milliseconds');
end;
create trigger deleted_client_deleted_at_seconds_on_update before update of deleted_at on deleted_client when new.deleted_at not between 0 and 99999999999 begin
    select raise(abort, 'deleted_at: seconds since 1970, not milliseconds');
end;
create trigger spent_jti_expires_at_seconds_on_insert before insert on spent_jti when new.expires_at not between 0 and 99999999999 begin
    select raise(abort, 'expires_at: seconds since 1970, not milliseconds');
end;
create trigger spent_jti_expires_at_seconds_on_update before update of expires_at on spent_jti when new.expires_at not between 0 and 99999999999 begin
    select raise(abort, 'expires_at: seconds since 1970, not milliseconds');
end;
create trigger token_cutoff_not_before_seconds_on_insert before insert on token_cutoff when new.not_before not between 0 and 99999999999 begin
    select raise(abort, 'not_before: seconds since 1970, not milliseconds');
end;
create trigger token_cutoff_not_before_seconds_on_update before update of not_before on token_cutoff when new.not_before not between 0 and 99999999999 begin
    select raise(abort, 'not_before: seconds since 1970, not milliseconds');
end;
