//! The background work of a running daemon: one set, each task by its name.

use std::collections::HashMap;
use std::future::pending;

use tokio::task::{Id, JoinSet};

use crate::model::event::Event;

/// The tasks that go on beside requests until the set is dropped.
#[derive(Debug, Default)]
pub(super) struct Background {
    tasks: JoinSet<()>,
    names: HashMap<Id, &'static str>,
}

impl Background {
    /// Starts a task.
    pub(super) fn start(&mut self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        let task = self.tasks.spawn(work);
        self.names.insert(task.id(), name);
    }

    /// Logs each task that ends; none should. Requests are still answered without it.
    pub(super) async fn watch(&mut self) {
        while let Some(ended) = self.tasks.join_next_with_id().await {
            let (id, reason) = match ended {
                Ok((id, ())) => (id, "it returned".to_owned()),
                Err(fault) => (fault.id(), fault.to_string()),
            };
            let task = self.names.get(&id).copied().unwrap_or_default();
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
        let mut background = Background::default();
        let (done, other) = tokio::sync::oneshot::channel();
        background.start("broken", async { panic!("broken") });
        background.start("sound", async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            done.send(()).unwrap();
            pending::<()>().await;
        });
        let watched = tokio::time::timeout(Duration::from_millis(200), background.watch()).await;
        assert!(watched.is_err(), "watching goes on");
        other.await.unwrap();
        assert_eq!(background.tasks.len(), 1);
    }
}
