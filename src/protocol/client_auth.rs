//! Client authentication (RFC 6749 section 2.3): who asks, by the one credential that the request carries.

use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc;

use super::client_secret;
use super::error::{ClientAuthError, Error, RequestError, Unavailable};
use crate::crypto::secret::{ClientSecret, HashParams, SecretHash};
use crate::hashing::Lane;
use crate::model::client::{AuthMethod, Client};
use crate::model::credential::StoredSecret;
use crate::model::time::UnixTime;
use crate::registry::{Freshness, Registry};
use crate::throttle::Throttle;

/// The credential that a request carries, read but not checked.
#[derive(Debug)]
pub struct Presented {
    /// Who it says it is.
    pub client_id: String,
    /// How.
    pub method: AuthMethod,
    /// The secret, in each way that the bytes can be read: form-decoded and, where that differs, raw.
    pub readings: Vec<ClientSecret>,
}

/// A client that has proved who it is.
#[derive(Debug)]
pub struct Authenticated {
    /// Who.
    pub client: Arc<Client>,
    /// How.
    pub method: AuthMethod,
    /// Whether the raw reading of a Basic secret was the right one: the client does not form-encode.
    pub raw_reading: bool,
}

/// What authenticating takes.
#[derive(Debug)]
pub struct Authenticator {
    /// Every client.
    pub registry: Arc<Registry>,
    /// Checks secrets.
    pub lane: Lane,
    /// Slows down guessing.
    pub throttle: Throttle,
    /// Chooses what an unknown client costs, always the same for the same id.
    pub decoys: RandomState,
    /// What hashes should cost.
    pub cost: HashParams,
    /// Takes secrets whose hashes cost less.
    pub outdated: mpsc::Sender<Outdated>,
}

impl Authenticator {
    /// Authenticates the client of a request that came from `source`. `credential_id` is set when a secret of the client
    /// is right, even when it may no longer be used.
    ///
    /// Every failure of a well-formed secret does the same work and has the same answer.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn authenticate(
        &self,
        presented: Presented,
        source: IpAddr,
        now: UnixTime,
        credential_id: &mut Option<Box<str>>,
    ) -> Result<Authenticated, Error> {
        let Presented { client_id, method, readings } = presented;
        let freshness = self.registry.freshness();
        if freshness == Freshness::Unusable {
            return Err(Unavailable::Registry.into());
        }
        self.throttle.check(&client_id, source, Instant::now()).map_err(Error::Throttled)?;

        let snapshot = self.registry.snapshot().clone();
        let client = snapshot.client(&client_id);
        let readings: Vec<Arc<ClientSecret>> = readings.into_iter().map(Arc::new).collect();
        let decoy = self.decoys.hash_one(&client_id);
        let known = client.map(|client| &**client);
        let matched = client_secret::verify(&snapshot, &self.lane, known, decoy, &readings, now).await;

        // The queue may have taken seconds: what counts is what is known now.
        let right = matched
            .as_ref()
            .ok()
            .and_then(|matched| client?.secrets.get(matched.secret))
            .map(|secret| secret.secret_id.clone());
        let snapshot = self.registry.snapshot().clone();
        let client = snapshot.client(&client_id);
        let decided = match (client, matched) {
            (_, Err(error @ Error::Unavailable(_))) => return Err(error),
            (None, _) if snapshot.broken().contains_key(&format!("client {client_id}")) => Err(ClientAuthError::Broken),
            (None, _) => Err(ClientAuthError::Unknown),
            (Some(_), Err(_)) => Err(ClientAuthError::WrongSecret),
            (Some(client), Ok(matched)) => {
                match client.secrets.iter().find(|secret| Some(&secret.secret_id) == right.as_ref()) {
                    None => Err(ClientAuthError::WrongSecret),
                    Some(secret) => {
                        *credential_id = Some(secret.secret_id.clone());
                        usable(client, method, secret, now).map(|()| (Arc::clone(client), secret, matched.reading))
                    }
                }
            }
        };
        match decided {
            Ok((client, secret, reading)) => {
                self.throttle.succeeded(&client_id, source);
                secret.used(now);
                if let Some(presented) =
                    readings.get(reading).filter(|_| secret.hash.params().is_cheaper_than(self.cost))
                {
                    self.raise_cost(secret, presented);
                }
                Ok(Authenticated { client, method, raw_reading: reading > 0 })
            }
            // The credential may be newer than what we know: say so, rather than that it is wrong.
            Err(_) if freshness != Freshness::Current => Err(Unavailable::Unconfirmed.into()),
            Err(error) => {
                self.throttle.failed(&client_id, source, Instant::now());
                Err(error.into())
            }
        }
    }

    /// Hands a secret that is hashed more cheaply than configured to whoever hashes it again. When that one is busy, the
    /// next use will do.
    fn raise_cost(&self, secret: &StoredSecret, presented: &Arc<ClientSecret>) {
        let outdated =
            Outdated { secret_id: secret.secret_id.clone(), hash: secret.hash.clone(), secret: Arc::clone(presented) };
        if self.outdated.try_send(outdated).is_err() {
            tracing::debug!(secret_id = &*secret.secret_id, "its hash will be raised at its next use");
        }
    }
}

/// A secret whose hash is cheaper than the configuration asks for, just used and so known in clear for a moment.
#[derive(Debug)]
pub struct Outdated {
    /// Which.
    pub secret_id: Box<str>,
    /// The hash it has.
    pub hash: SecretHash,
    /// The secret.
    pub secret: Arc<ClientSecret>,
}

fn usable(client: &Client, method: AuthMethod, secret: &StoredSecret, now: UnixTime) -> Result<(), ClientAuthError> {
    if !client.enabled {
        return Err(ClientAuthError::Disabled);
    }
    if !client.may_use(method) {
        return Err(ClientAuthError::MethodNotAllowed);
    }
    client_secret::usable(secret, now)
}

/// A `client_id` in the body beside other credentials names the same client: SEC-12.
///
/// # Errors
/// [`RequestError::OtherClientId`].
pub fn same_client(authenticating: &str, in_body: Option<&str>) -> Result<(), RequestError> {
    if in_body.is_none_or(|client_id| client_id == authenticating) { Ok(()) } else { Err(RequestError::OtherClientId) }
}
