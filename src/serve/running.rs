//! A server that listens: it runs until it is told to stop, then drains.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::certificates::Certificates;
use super::clients::reload_jwks_uri_cas;
use super::credentials::Following;
use super::notify::Notifier;
use super::signals::{Asked, Signals};
use crate::config::Config;
use crate::model::event::Event;
use crate::store::Store;
use crate::transport::fetch::Fetcher;

/// What has been started.
pub(super) struct Running {
    /// End when they have drained: the listeners and the feed.
    pub(super) draining_tasks: Vec<JoinHandle<()>>,
    /// Are ended.
    pub(super) background: Vec<JoinHandle<()>>,
    /// Closes the listeners.
    pub(super) stop: watch::Sender<bool>,
    /// Turns readiness off, and makes each answer the last on its connection.
    pub(super) draining: Arc<AtomicBool>,
    /// From the signal to stop until the listeners close.
    pub(super) drain_delay: Duration,
    pub(super) store: Store,
    pub(super) files: ReloadedFiles,
}

/// The files that SIGHUP reads again, with what uses them.
pub(super) struct ReloadedFiles {
    pub(super) config: Config,
    pub(super) fetcher: Fetcher,
    pub(super) certificates: Arc<Certificates>,
    pub(super) url_file: Following,
}

impl Running {
    /// Runs until a signal stops it and it has drained.
    pub(super) async fn until_stopped(self, signals: &mut Signals, notifier: &Notifier) -> anyhow::Result<()> {
        let Self { draining_tasks, background, stop, draining, drain_delay, store, files } = self;
        let reload = || {
            notifier.reloading();
            files.reload();
        };
        notifier.ready();
        while signals.next().await == Asked::Reload {
            reload();
            notifier.ready();
        }
        // Readiness says no first, so that load balancers take us out while we still answer. Each answer says `close`, so
        // that kept connections are gone before the listeners close.
        draining.store(true, Ordering::Relaxed);
        notifier.stopping();
        tracing::info!(event = Event::Stopping.as_str(), "requests in flight will finish");
        let mut delay = std::pin::pin!(tokio::time::sleep(drain_delay));
        loop {
            tokio::select! {
                () = delay.as_mut() => break,
                asked = signals.next() => match asked {
                    Asked::Stop => break,
                    Asked::Reload => reload(),
                },
            }
        }
        stop.send(true).context("the tasks ended by themselves")?;
        let mut drained = std::pin::pin!(async {
            for task in draining_tasks {
                task.await.context("a task failed while stopping")?;
            }
            anyhow::Ok(())
        });
        loop {
            tokio::select! {
                done = drained.as_mut() => break done?,
                asked = signals.next() => if asked == Asked::Reload { reload() },
            }
        }
        background.iter().for_each(JoinHandle::abort);
        store.close().await;
        tracing::info!(event = Event::Stopped.as_str());
        Ok(())
    }
}

impl ReloadedFiles {
    fn reload(&self) {
        self.url_file.again();
        let has_cas = self.config.jwks_uri_ca_file.is_some();
        if !has_cas || self.certificates.has_files() {
            self.certificates.reload();
        }
        if !has_cas {
            return;
        }
        let setting = "clients.jwks_uri_ca_file";
        match reload_jwks_uri_cas(&self.config, &self.fetcher) {
            Ok(()) => tracing::info!(event = Event::Reload.as_str(), setting, "the CAs have been reloaded"),
            Err(error) => {
                tracing::error!(event = Event::Reload.as_str(), setting, reason = %error, "the CAs in use stay");
            }
        }
    }
}
