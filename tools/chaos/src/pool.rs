//! Connections to one replica that are kept alive for a stream of requests.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use grantd_kit::connection::Connection;
use tokio::sync::Semaphore;

/// Idle connections to one replica, and a bound on those in use.
pub struct Pool {
    idle: Mutex<VecDeque<Connection>>,
    most: usize,
    /// A permit for each connection that may be open and in use.
    pub places: Semaphore,
}

impl Pool {
    pub fn new(most: usize) -> Self {
        Self { idle: Mutex::default(), most, places: Semaphore::new(most) }
    }

    /// Takes the connection that was used last and that the replica has not closed. A client that looks before it sends
    /// does the same; this is not a retry.
    pub fn take(&self) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(connection) = idle.pop_back() {
            if connection.is_open() {
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a connection for a later request; the one that was idle for longest makes room.
    pub fn give_back(&self, connection: Connection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push_back(connection);
        if idle.len() > self.most {
            idle.pop_front();
        }
    }
}
