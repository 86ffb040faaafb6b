//! Floor 3: what is known now. The registry and its feed, signing keys, key sets of clients, the argon2 lane, throttling.

pub mod client_jwks;
pub mod hashing;
pub mod keyring;
pub mod load_shedding;
pub mod registry;
pub mod throttle;
