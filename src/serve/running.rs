//! The last states: running until a signal stops it, then draining.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::sync::watch;

use super::certificates::Certificates;
use super::clients::reload_jwks_uri_cas;
use super::credentials::Following;
use super::notify::Notifier;
use super::signals::{Asked, Signals};
use super::tasks::Tasks;
use crate::config::Config;
use crate::model::event::Event;
use crate::store::Store;
use crate::transport::fetch::Fetcher;

/// A daemon that answers.
pub(super) struct Running {
    /// The listeners and the feed, which end when they have drained.
    pub(super) serving: Tasks,
    /// The work beside requests.
    pub(super) background: Tasks,
    /// Closes the listeners.
    pub(super) stop: watch::Sender<bool>,
    /// Turns readiness off, and makes each answer the last on its connection.
    pub(super) draining: Arc<AtomicBool>,
    /// The time from the signal to stop until the listeners close.
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

/// A daemon whose listeners are told to close, and whose requests in flight are finishing.
pub(super) struct Draining {
    serving: Tasks,
    background: Tasks,
    store: Store,
    files: ReloadedFiles,
    /// The name of the listener or feed whose end stopped the daemon.
    failed: Option<&'static str>,
}

impl Running {
    /// Runs until a signal stops it and `drain_delay` is over, then tells the listeners to close. A second signal to stop
    /// skips the rest of the delay. The end of a listener or of the feed stops it too: the service manager restarts it.
    pub(super) async fn until_stopped(self, signals: &mut Signals, notifier: &Notifier) -> anyhow::Result<Draining> {
        let Self { mut serving, mut background, stop, draining, drain_delay, store, files } = self;
        let reload = || {
            notifier.reloading();
            files.reload();
        };
        notifier.ready();
        let failed = loop {
            tokio::select! {
                asked = signals.next() => match asked {
                    Asked::Stop => break None,
                    Asked::Reload => {
                        reload();
                        notifier.ready();
                    }
                },
                () = background.watch() => {}
                Some((task, end)) = serving.ended() => {
                    let reason = end.err().map_or_else(|| "it returned".to_owned(), |fault| fault.to_string());
                    tracing::error!(event = Event::BackgroundEnded.as_str(), task, reason, "the process stops");
                    break Some(task);
                }
            }
        };
        // Readiness says no first, so that load balancers take the server out while it still answers. Each answer says
        // `close`, so that kept connections are gone before the listeners close.
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
        Ok(Draining { serving, background, store, files, failed })
    }
}

impl Draining {
    /// Waits for the requests in flight, until the drain deadline at the latest.
    pub(super) async fn finish(self, signals: &mut Signals) -> anyhow::Result<()> {
        let Self { mut serving, background, store, files, mut failed } = self;
        loop {
            tokio::select! {
                ended = serving.ended() => match ended {
                    Some((task, Err(_))) => failed = Some(task),
                    Some((_, Ok(()))) => {}
                    None => break,
                },
                asked = signals.next() => if asked == Asked::Reload { files.reload() },
            }
        }
        drop(background);
        store.close().await;
        tracing::info!(event = Event::Stopped.as_str());
        failed.map_or(Ok(()), |task| bail!("stopped since the {task} failed; the log has the reason"))
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
            Ok(cas) => {
                self.certificates.replace_jwks_uri_cas(cas);
                tracing::info!(event = Event::Reload.as_str(), setting, "the CAs have been reloaded");
            }
            Err(error) => {
                tracing::error!(event = Event::Reload.as_str(), setting, reason = %error, "the CAs in use stay");
            }
        }
    }
}
