//! Floor 5: sockets. The listener with its deadlines, TLS, and outbound requests for JWK Sets.

pub mod fetch;
pub mod listener;
pub mod tls;
