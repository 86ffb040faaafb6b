//! Floor 5: sockets. The listener with its deadlines, TLS, and outbound requests.

pub mod client;
mod exchange;
pub mod fetch;
pub mod listener;
pub mod tls;
