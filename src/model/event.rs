//! The events of the log: one variant for each value of the field `event`. `grantd reference` prints this list.

macro_rules! events {
    ($($name:literal $variant:ident $level:literal [$($field:ident)*] $meaning:literal)+) => {
        /// An event of the log.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Event { $(#[doc = $meaning] $variant),+ }

        impl Event {
            /// Every event, in the order of their names.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The value of the field `event`.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }

            /// The levels at which the event is logged.
            #[must_use]
            pub const fn level(self) -> &'static str {
                match self { $(Self::$variant => $level),+ }
            }

            /// The fields that a line of the event may have besides `timestamp`, `level`, `event` and `message`.
            #[must_use]
            pub const fn fields(self) -> &'static [&'static str] {
                match self { $(Self::$variant => &[$(stringify!($field)),*]),+ }
            }

            /// The occasion of the event, and its consequence for the operator.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning),+ }
            }
        }
    };
}

events! {
    "background.ended" BackgroundEnded "error" [task reason]
        "A task of the server has ended, which is a fault of grantd. When it is a listener or the feed, the process stops with code 1. Otherwise requests are answered, and the work of `task` is not done until the process restarts."
    "changes.swept" ChangesSwept "debug" [swept revision reason]
        "Notes of changes that every replica has read were deleted from `registry_change`, up to `revision`, or could not be."
    "client.certificate_unusable" ClientCertificateUnusable "warn" [client_id credential_id reason]
        "No TLS handshake accepts the certificate in `x5c` of this client key. The key works for assertions."
    "client.changed" ClientChanged "info" [client_id revision what clients came gone changed duration_ms]
        "A client was loaded again (`what` is `loaded`) or deleted (`gone`). More than 100 clients at once have one line with their number, `clients`, and no `client_id`."
    "client.malformed" ClientMalformed "error" [client_id reason]
        "The row of a client cannot be read. This client cannot authenticate; all others can. `grantd doctor` names the fault."
    "clock.skew" ClockSkew "warn, info" [seconds side]
        "The clocks of this machine and of the database differ by more than 5 seconds, or agree again (info)."
    "config.exposed" ConfigExposed "warn" [key reason]
        "At start: a file that holds a secret is readable by more than its owner. `key` names the setting. The group may read a file that root owns."
    "config.file" ConfigFile "info" [path profile]
        "At start: the configuration file in force (no `path` when there is none) and the profile."
    "connection.closed" ConnectionClosed "debug" [remote_addr reason]
        "A connection ended early."
    "connection.not_vouched_for" ConnectionNotVouchedFor "debug" [reason]
        "No configured CA verifies a client certificate. Names in it count for nothing; a registered certificate still does."
    "connection.refused" ConnectionRefused "info" [reason detail error remote_addr request_id]
        "A connection or request was refused before it reached an endpoint. At most one line a second for each reason and peer; the metric counts all."
    "credential.expiring" CredentialExpiring "warn, debug" [kind setting name client_id credential_id expires_at others reason]
        "A certificate, a CA or a revocation list of the configuration (`setting`, `name`) expires within 14 days, or has expired. Or a credential of a client (`client_id`, `credential_id`) expires: one replica logs it 30 days, 7 days and 1 day ahead, for at most 1,000 credentials in ten minutes; `others` is the number of the rest. With `reason` (debug): the lease of this work could not be taken."
    "database.credentials" DatabaseCredentials "info, warn" [path reason]
        "`database.url_file` has changed, and the database accepts the new credentials; or they cannot be used yet (warn)."
    "database.embedded" DatabaseEmbedded "warn" [path]
        "At start: no database is configured, so the embedded SQLite database is used."
    "database.made" DatabaseMade "warn" [path]
        "A new, empty embedded database was created. Check the directory if one should have been there."
    "database.moved" DatabaseMoved "warn" [from to path set_aside reason]
        "Connections lead to another database server or file than before. Older connections are replaced and everything is loaded again."
    "database.newer_schema" DatabaseNewerSchema "warn" [by]
        "A newer grantd has migrated the database by `by` migrations. This version works on that schema too."
    "database.no_lineage" DatabaseNoLineage "debug" [reason]
        "The database does not tell its system identifier or timeline, so a failover is found by the registry's history alone."
    "database.scarce" DatabaseScarce "warn" [reason]
        "The database refuses further connections, so the pool gave one to the change feed."
    "database.server" DatabaseServer "warn" [host port]
        "Another host of `database.url` is used from now on."
    "database.unverified" DatabaseUnverified "warn" []
        "At start: the connection to PostgreSQL does not verify the server. Add `sslmode=verify-full`."
    "database.waiting" DatabaseWaiting "error" [reason]
        "At start: the database cannot be used yet. The server starts and is not ready until it can, or waits for the schema."
    "database.writes" DatabaseWrites "error, info" [reason]
        "A write to the database failed, or writes succeed again (info). Tokens for secrets need no write; assertions, proofs and revocations do."
    "internal" Internal "error" [reason at]
        "A fault of grantd itself. Report it."
    "introspection" Introspection "info, warn" [reason detail client_id auth_method credential_id federated_issuer federated_subject federated_jti jti token_client_id remote_addr request_id duration_us]
        "An introspection request was answered (warn: refused). `client_id` is the caller."
    "introspection.unknown_key" IntrospectionUnknownKey "warn" [reason]
        "An introspection request names a key that this replica does not know, and the database cannot be asked. It was answered 503."
    "jwks_uri.changed" JwksUriChanged "info" [client_id uri keys skipped]
        "The JWK Set at a client's `jwks_uri` has other keys than before. `skipped` says which keys cannot be used, and why."
    "jwks_uri.trouble" JwksUriTrouble "warn" [client_id uri reason]
        "The JWK Set at a client's `jwks_uri` could not be fetched. The last good one is used for an hour."
    "issuer.changed" IssuerChanged "info" [issuer revision what issuers]
        "A trusted issuer was created, changed, enabled or disabled, or is gone (`what`): it was deleted, or its row cannot be read. More than 100 issuers at once have one line with their number, `issuers`, and no `issuer`. A changed rule is a `client.changed`."
    "issuer.keys_changed" IssuerKeysChanged "info" [issuer uri keys skipped]
        "The key set of a trusted issuer has other keys than before. `skipped` says which keys cannot be used, and why."
    "issuer.keys_trouble" IssuerKeysTrouble "warn" [issuer uri reason]
        "The keys of a trusted issuer, or its discovery document, could not be fetched. The last good set is used for an hour."
    "issuer.malformed" IssuerMalformed "error" [reason]
        "The row of a trusted issuer cannot be read. None of its tokens is accepted; all others work."
    "key.changed" KeyChanged "info" [kid alg signs_from what]
        "A signing key was published or removed, or the server made the first key of an algorithm or the first tag key."
    "key.lifetime_not_raised" KeyLifetimeNotRaised "warn" [kid max_ttl reason]
        "A client or a resource has tokens that live longer than those of the signing key may, and the key's row could not be changed. Tokens live for `max_ttl` until it can be. Check the grants of the serving role."
    "key.malformed" KeyMalformed "error" [reason]
        "A signing key or tag key cannot be read. It is left out. `grantd doctor` names the fault."
    "key.not_made" KeyNotMade "error, warn" [alg reason]
        "An algorithm in use has no signing key, or there is no tag key, or a rotation is due, and no key could be made. Check the grants of the serving role."
    "key.not_swept" KeyNotSwept "debug" [kid reason]
        "The row of a signing key that is gone for a day could not be deleted; the next sweep tries again."
    "key.rotation_due" KeyRotationDue "info" [kid alg due_at]
        "The signing key is replaced at `due_at` (`keys.rotate_every`). Logged a week, a day and an hour before, by one replica; by each when the serving role may not write `lease`."
    "key.sealing_key_made" KeySealingKeyMade "warn" [path]
        "A sealing key was created beside the embedded database. Back it up: without it the signing keys are lost."
    "limit.not_raised" LimitNotRaised "warn" [reason]
        "The soft limit on open files could not be raised."
    "listener.accept_failed" ListenerAcceptFailed "warn" [error]
        "A connection could not be accepted, often for lack of file descriptors."
    "listener.capped" ListenerCapped "warn" [limit max_connections]
        "The limit on open files leaves fewer connections than `server.max_connections`."
    "listener.cut" ListenerCut "warn" []
        "Connections were closed at the drain deadline with requests in flight."
    "listening" Listening "info" [listener address tls issuer max_connections]
        "A listener accepts connections."
    "log.lost" LogLost "warn" [lines reason]
        "`lines` log lines were lost; lines can be written again."
    "migrate.waiting" MigrateWaiting "warn, debug" [holders reason]
        "`grantd migrate` waits for a lock. `holders` names the sessions that hold it."
    "notify.failed" NotifyFailed "warn" [reason]
        "The service manager behind `NOTIFY_SOCKET` could not be notified."
    "proxy.untrusted" ProxyUntrusted "warn" []
        "At start: `server.cleartext` is `behind-proxy` and `server.trusted_proxies` is empty, so every request seems to come from the proxy."
    "registry.current" RegistryCurrent "info" [revision]
        "The registry follows the database again."
    "registry.difference" RegistryDifference "error" [difference]
        "The periodic full load differs from the registry although no change was announced. What the database holds is in force now."
    "registry.history_changed" RegistryHistoryChanged "error" [from_revision from_history to_revision to_history clients_came clients_gone clients_changed resources_changed keys_came keys_gone revocations_lost]
        "The database has another history: it was restored, or a failover lost changes. Everything was loaded again."
    "registry.loading" RegistryLoading "info" [clients seconds]
        "Everything is being read and this takes a while. `clients` are in memory so far."
    "registry.lost" RegistryLost "error, warn" [client_id kid jti what until reason left]
        "The other history lacks a revocation, a cut-off, a removed key or a disabled client. All but the last stay in force."
    "registry.no_hints" RegistryNoHints "debug" [reason]
        "Notifications of PostgreSQL do not arrive. Changes are found by polling alone."
    "registry.rewritten" RegistryRewritten "warn" [written]
        "Revocations that the database had lost were written into it again."
    "registry.trouble" RegistryTrouble "error" [reason]
        "The change feed cannot read the database. Known clients are served from memory until `registry.max_stale`."
    "reload" Reload "info, error" [setting reason]
        "Certificates or CAs were read again, or could not be (error; those in use stay)."
    "request" Request "info" [method path status remote_addr request_id duration_us]
        "Any other request on the public listener was answered."
    "resource.changed" ResourceChanged "info" [revision]
        "The resources were loaded again."
    "resource.malformed" ResourceMalformed "error" [reason]
        "The row of a resource cannot be read. No token is issued for it; all others work."
    "revocation" Revocation "info, warn" [reason detail client_id auth_method credential_id federated_issuer federated_subject federated_jti jti token_client_id remote_addr request_id duration_us]
        "A revocation request was answered (warn: refused)."
    "revocation.not_written" RevocationNotWritten "error" [reason]
        "The database did not accept a revocation. The token is still valid, and the client was told so."
    "revoked.swept" RevokedSwept "debug" [swept]
        "Rows of expired tokens were deleted from `revoked_token`."
    "revoked.trouble" RevokedTrouble "debug" [reason]
        "Rows of expired tokens could not be deleted; the next sweep tries again."
    "revoked_token.malformed" RevokedTokenMalformed "error" [reason]
        "A row of `revoked_token` has a `jti` that no token has. It is left out."
    "secret.no_verifier" SecretNoVerifier "debug" [credential_id reason]
        "The verifier of a secret could not be written. The secret works; its first use on each replica costs a hash."
    "secret.not_rehashed" SecretNotRehashed "warn" [reason]
        "A secret was not hashed at the new cost. Its next use tries again."
    "secret.rehashed" SecretRehashed "info" [credential_id cost]
        "A secret was hashed again after `secrets.argon2` was raised."
    "secret.verifier_mismatch" SecretVerifierMismatch "error" [client_id credential_id]
        "A secret was accepted by its verifier, and its argon2id hash does not match. It is not accepted again. Whoever wrote the verifier has the sealing key and writes to the database: revoke the secret, revoke the client's tokens, and replace the sealing key."
    "signal.ignored" SignalIgnored "info" [signal]
        "SIGUSR1 or SIGUSR2 arrived. They do nothing."
    "signing.recovered" SigningRecovered "info" [kid]
        "The PKCS #11 module signs again."
    "signing.trouble" SigningTrouble "error" [kid key reason]
        "A signing key is in a PKCS #11 module, which does not sign. Requests that need the key are refused until it does; it is tried every five seconds. `grantd doctor` has the key sign."
    "spent.swept" SpentSwept "debug" [swept]
        "Expired single-use ids were deleted from `spent_jti`."
    "spent.trouble" SpentTrouble "warn, debug" [reason]
        "The database cannot record single-use ids (assertions and proofs are answered 503), or expired ones could not be deleted (debug)."
    "status_list.large" StatusListLarge "warn" [revoked]
        "The status list has the ids of more than 10,000 tokens that were revoked one by one, and every verifier fetches them. Revoke the tokens of a client, or all tokens, instead."
    "stopped" Stopped "info" []
        "The process ends."
    "stopping" Stopping "info" []
        "The process was told to stop. Requests in flight finish."
    "token.issued" TokenIssued "info" [reason client_id auth_method credential_id federated_issuer federated_subject federated_jti basic_reading scope aud token_type jti kid remote_addr request_id duration_us]
        "A token was issued."
    "token.refused" TokenRefused "warn" [reason detail client_id auth_method credential_id federated_issuer federated_subject federated_jti remote_addr request_id duration_us]
        "A token request was refused."
    "uses.not_written" UsesNotWritten "warn" [reason]
        "The last-used times of credentials could not be written. Nothing else depends on them."
    "verification" Verification "info, warn" [reason detail client_id aud resource jti remote_addr request_id duration_us]
        "A gateway asked whether a request may pass (warn: it may not). `client_id`, `aud` and `jti` are those of the token, `resource` is the gateway's."
}
