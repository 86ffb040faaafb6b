//! Clients read range after range, so that a use case needs the memory of one range, whatever the size of the registry.

use std::sync::Arc;

use super::{Admin, AdminError, Outcome, Warning};
use crate::model::client::Client;
use crate::model::client_id::ClientId;
use crate::store::ReadClient;
use crate::store::changes::ChangeReader;
use crate::store::ranges::RangeReader;

/// Clients in the order of their ids. A client whose rows cannot be read is an error of its own.
pub type ClientRange = Vec<(String, ReadClient)>;

/// The clients of a registry, range after range. Each range is read as of one moment.
#[derive(Debug)]
pub enum ClientStream {
    /// One range, which is in memory.
    One(ClientRange),
    /// All clients: the ranges that are still to be read.
    All(Box<(ChangeReader, RangeReader)>),
    /// Everything was read.
    End,
}

impl ClientStream {
    /// Returns the next range; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<ClientRange>, AdminError> {
        match std::mem::replace(self, Self::End) {
            Self::End => Ok(None),
            Self::One(range) => Ok(Some(range)),
            Self::All(mut reading) => {
                let (reader, ranges) = &mut *reading;
                let range = ranges.next(reader).await?;
                if range.through.is_some() {
                    *self = Self::All(reading);
                } else {
                    reading.0.close().await;
                }
                Ok(Some(range.clients))
            }
        }
    }
}

impl Admin {
    /// Returns the client `id`, or all clients.
    pub async fn clients(&self, id: Option<&ClientId>) -> Result<ClientStream, AdminError> {
        Ok(match id {
            Some(id) => ClientStream::One(vec![(id.to_string(), Ok(Arc::new(self.client(id).await?)))]),
            None => ClientStream::All(Box::new((self.store.reader().await?, RangeReader::default()))),
        })
    }
}

/// Returns the clients of a range that can be read, with a warning for each other.
pub(super) fn readable(range: ClientRange) -> Outcome<Vec<Arc<Client>>> {
    let (mut value, mut warnings) = (Vec::with_capacity(range.len()), Vec::new());
    for (_, client) in range {
        match client {
            Ok(client) => value.push(client),
            Err(fault) => warnings.push(Warning::LeftOut(fault)),
        }
    }
    Outcome { value, warnings }
}
