//! The daemon's life: prepared → bound → assembled → running → drained. Each state is a type that is made of
//! the one before.

pub mod assembled;
mod bound;
pub mod certificates;
pub mod clients;
mod credentials;
pub(crate) mod descriptors;
pub mod expiry;
pub mod expiry_notices;
mod feed;
mod notify;
pub mod pkcs11;
pub mod prepare;
mod prepared;
mod running;
mod sealing_command;
pub mod sealing_key;
pub mod secret_upkeep;
pub mod signals;
pub mod status_list;
mod sweep;
mod tasks;

use crate::config::Config;
use crate::model::event::Event;
use crate::model::issuer::Issuer;
use crate::store::Store;
use crate::telemetry::Logging;
use assembled::Assembled;
use bound::Bound;
use notify::Notifier;
use prepared::Prepared;
use signals::Signals;

/// A callback that is told the issuer once the daemon listens.
pub type Announce = Box<dyn FnOnce(&Issuer) + Send>;

/// Runs until a signal stops it, also while it starts.
///
/// # Errors
/// The fault that keeps it from starting. A database that cannot be reached does not: the server comes up and waits for it.
pub async fn run(
    config: Config,
    store: Store,
    logging: &Logging,
    announce: Option<Announce>,
    mut signals: Signals,
) -> anyhow::Result<()> {
    let notifier = Notifier::new(std::env::var_os("NOTIFY_SOCKET").as_deref());
    let start = async {
        let prepared = Prepared::open(config, store).await?;
        let bound = Bound::open(prepared, announce.is_some())?;
        Assembled::new(bound)?.start(logging, announce).await
    };
    let running = tokio::select! {
        running = start => running?,
        () = signals.stop() => {
            sealing_command::kill_running();
            tracing::info!(event = Event::Stopped.as_str(), "told to stop before it listened");
            return Ok(());
        }
    };
    running.until_stopped(&mut signals, &notifier).await?.finish(&mut signals).await
}
