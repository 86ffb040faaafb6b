//! Floor 3: state in memory. The registry and its feed, signing keys, JWK Sets of clients and issuers, the argon2 lane, throttling,
//! load shedding.

pub mod hashing;
pub mod key_sets;
pub mod keyring;
pub mod load_shedding;
pub mod pkcs11;
pub mod registry;
pub mod rotation;
pub mod signer;
pub mod throttle;
