//! Writes that go to the database together.
//!
//! A commit takes one disk write however many rows it has. Requests that arrive during a write wait, and share the next
//! one.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Semaphore, oneshot};

use super::{DEADLINE, Store, StoreError};

/// Items that wait for the next batched write, each with the channel for its answer.
#[derive(Debug)]
pub(super) struct WriteQueue<T, A> {
    waiting: Mutex<VecDeque<Pending<T, A>>>,
    /// Permits of concurrent writes. Few, so that batches grow and connections stay free for others.
    turns: Semaphore,
}

type Pending<T, A> = (T, oneshot::Sender<Result<A, Arc<StoreError>>>);

impl<T, A> WriteQueue<T, A> {
    pub(super) fn new(turns: usize) -> Self {
        Self { waiting: Mutex::default(), turns: Semaphore::new(turns) }
    }

    fn join(&self, pending: Pending<T, A>) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push_back(pending);
    }

    /// Takes the items that waited longest. Abandoned ones are dropped: they are not written.
    fn next(&self) -> Vec<Pending<T, A>> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let mut batch = Vec::new();
        while batch.len() < TOGETHER
            && let Some(pending) = waiting.pop_front()
        {
            if !pending.1.is_closed() {
                batch.push(pending);
            }
        }
        batch
    }
}

impl Store {
    /// Writes an item together with others of its queue, and returns its answer once they are committed. `write` gets a
    /// batch, and returns an answer for each item.
    ///
    /// The write is a task of its own, so a client that disconnects cannot stop it halfway.
    ///
    /// # Errors
    /// [`StoreError`], shared with the other items. Whether they were written is unknown.
    pub(super) async fn write_together<T, A, W, F>(
        &self,
        queue: fn(&Self) -> &WriteQueue<T, A>,
        item: T,
        write: W,
    ) -> Result<A, Arc<StoreError>>
    where
        T: Send + 'static,
        A: Send + 'static,
        W: FnOnce(Self, Vec<T>) -> F + Send + 'static,
        F: Future<Output = Result<Vec<A>, StoreError>> + Send,
    {
        let (answer, answered) = oneshot::channel();
        queue(self).join((item, answer));
        // Each item starts a task, so none is left waiting. Most tasks find the queue empty.
        let store = self.clone();
        tokio::spawn(async move {
            let Ok(_turn) = queue(&store).turns.acquire().await else { return };
            let (items, answers): (Vec<T>, Vec<_>) = queue(&store).next().into_iter().unzip();
            if items.is_empty() {
                return;
            }
            let written = write(store.clone(), items).await.map_err(Arc::new);
            let mut written = written.map(Vec::into_iter);
            for answer in answers {
                let done = match &mut written {
                    Ok(done) => done.next().map(Ok),
                    Err(error) => Some(Err(Arc::clone(error))),
                };
                // An item that was abandoned meanwhile is written all the same.
                drop(done.map(|done| answer.send(done)));
            }
        });
        match tokio::time::timeout(DEADLINE, answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(gone)) => Err(Arc::new(StoreError::Unavailable(sqlx::Error::Io(std::io::Error::other(gone))))),
            Err(_) => Err(Arc::new(StoreError::Late(DEADLINE))),
        }
    }
}

/// Pads rows to a power of two with copies, so that there are few statements to prepare. A copy conflicts with its original
/// and is ignored.
pub(super) fn padded<T: Copy>(rows: &[T]) -> impl Iterator<Item = T> {
    rows.iter().copied().cycle().take(rows.len().next_power_of_two())
}

/// Maximum number of items in one write.
const TOGETHER: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_few_statements_to_prepare() {
        assert_eq!(padded(&[0, 1, 2, 3, 4]).collect::<Vec<u8>>(), [0, 1, 2, 3, 4, 0, 1, 2]);
        assert_eq!(padded(&[1]).count(), 1);
    }

    #[test]
    fn an_abandoned_item_is_not_written() {
        let queue = WriteQueue::<u8, ()>::new(1);
        let (kept, abandoned) = (oneshot::channel(), oneshot::channel());
        queue.join((1, kept.0));
        queue.join((2, abandoned.0));
        drop(abandoned.1);
        let batch: Vec<u8> = queue.next().into_iter().map(|(item, _)| item).collect();
        assert_eq!(batch, [1]);
        drop(kept.1);
    }
}
