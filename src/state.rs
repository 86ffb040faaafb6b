//! Floor 3: state in memory. The registry and its feed, signing keys, JWK Sets of clients, the argon2 lane, throttling,
//! load shedding.

pub mod client_jwks;
pub mod hashing;
pub mod keyring;
pub mod load_shedding;
pub mod registry;
pub mod throttle;
