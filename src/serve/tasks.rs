//! Sets of tasks of a running daemon, each task by its name.

use std::collections::HashMap;
use std::future::pending;

use tokio::task::{Id, JoinError, JoinSet};

use crate::model::event::Event;

/// Tasks that go on until they end or the set is dropped.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    tasks: JoinSet<()>,
    names: HashMap<Id, &'static str>,
}

impl Tasks {
    /// Starts a task.
    pub(super) fn start(&mut self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        let task = self.tasks.spawn(work);
        self.names.insert(task.id(), name);
    }

    /// Starts a task that blocks a thread of its own.
    pub(super) fn start_blocking(&mut self, name: &'static str, work: impl FnOnce() + Send + 'static) {
        let task = self.tasks.spawn_blocking(work);
        self.names.insert(task.id(), name);
    }

    /// The next task that ends, with the fault if it failed; `None` when none is left.
    pub(super) async fn ended(&mut self) -> Option<(&'static str, Result<(), JoinError>)> {
        let (id, end) = match self.tasks.join_next_with_id().await? {
            Ok((id, ())) => (id, Ok(())),
            Err(fault) => (fault.id(), Err(fault)),
        };
        Some((self.names.get(&id).copied().unwrap_or_default(), end))
    }

    /// Logs each task that ends; none should. Requests are still answered without it.
    pub(super) async fn watch(&mut self) {
        while let Some((task, end)) = self.ended().await {
            let reason = end.err().map_or_else(|| "it returned".to_owned(), |fault| fault.to_string());
            tracing::error!(
                event = Event::BackgroundEnded.as_str(),
                task,
                reason,
                "restart the process to have this work done again"
            );
        }
        pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_task_that_panics_takes_none_of_the_others_with_it() {
        let mut tasks = Tasks::default();
        let (done, other) = tokio::sync::oneshot::channel();
        tasks.start("broken", async { panic!("broken") });
        tasks.start("sound", async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            done.send(()).unwrap();
            pending::<()>().await;
        });
        let watched = tokio::time::timeout(Duration::from_millis(200), tasks.watch()).await;
        assert!(watched.is_err(), "watching goes on");
        other.await.unwrap();
        assert_eq!(tasks.tasks.len(), 1);
    }

    #[tokio::test]
    async fn the_end_of_a_task_comes_with_its_name_and_its_fault() {
        let mut tasks = Tasks::default();
        tasks.start_blocking("feed", || panic!("broken"));
        let (name, end) = tasks.ended().await.unwrap();
        assert!(name == "feed" && end.unwrap_err().is_panic());
        tasks.start("listener", async {});
        assert!(matches!(tasks.ended().await, Some(("listener", Ok(())))));
        assert!(tasks.ended().await.is_none());
    }
}
