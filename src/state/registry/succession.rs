//! A client that was loaded again takes over what is remembered of its credentials.

use std::sync::Arc;

use crate::model::client::Client;
use crate::model::credential::StoredKey;

/// Returns a client that was loaded again, with the cached verifications and last uses of its credentials. A secret whose
/// hash has changed loses its cached verification. With `keep_cut_off`, a later cut-off of the client before stays.
pub(super) fn succeeding(mut client: Arc<Client>, before: Option<&Arc<Client>>, keep_cut_off: bool) -> Arc<Client> {
    let is_new = |key: &&StoredKey| !before.is_some_and(|before| before.keys.iter().any(|old| old.kid == key.kid));
    client.keys.iter().filter(is_new).for_each(|key| key.warn_about_certificate(client.client_id.as_str()));
    let Some(before) = before else { return client };
    // The client was just made, so this does not copy it.
    let new = Arc::make_mut(&mut client);
    if keep_cut_off {
        new.not_before = new.not_before.max(before.not_before);
    }
    for secret in &mut new.secrets {
        let known = before.secrets.iter().find(|known| known.secret_id == secret.secret_id);
        match known {
            Some(known) if known.hash == secret.hash => secret.cache = Arc::clone(&known.cache),
            Some(known) => secret.cache = Arc::new(known.cache.without_mac()),
            None => {}
        }
    }
    for key in &mut new.keys {
        if let Some(known) = before.keys.iter().find(|known| known.kid == key.kid) {
            key.used = Arc::clone(&known.used);
        }
    }
    for one in &mut new.certificates {
        if let Some(known) = before.certificates.iter().find(|known| known.cert_id == one.cert_id) {
            one.used = Arc::clone(&known.used);
        }
    }
    for rule in new.federation.as_mut_slice() {
        if let Some(known) = before.federation.as_slice().iter().find(|known| known.rule_id == rule.rule_id) {
            rule.used = Arc::clone(&known.used);
        }
    }
    client
}
