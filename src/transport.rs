//! Floor 5: sockets. The listener with its deadlines, TLS, and requests to hosts of clients.

pub mod fetch;
pub mod listener;
pub mod tls;
