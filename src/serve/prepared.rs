//! The first state: the database is ready or awaited, keys and TLS files have been read, and no socket is open.

use std::sync::Arc;

use anyhow::Context as _;

use super::descriptors;
use super::prepare::{self, config_error, prepare_database};
use super::sealing_key::RowsInUse;
use super::{pkcs11, sealing_key};
use crate::config::Config;
use crate::crypto::seal::SealingKey;
use crate::model::profile::Profile;
use crate::state::pkcs11::Module;
use crate::state::registry::feed::PendingMigrations;
use crate::store::Store;
use crate::transport::tls::{Tls, TlsOptions};

/// A daemon that could listen.
pub(super) struct Prepared {
    pub(super) config: Config,
    pub(super) store: Store,
    pub(super) sealing_key: SealingKey,
    /// The PKCS #11 module of attached keys.
    pub(super) module: Option<Arc<Module>>,
    /// The migrations and seeds that wait for the database.
    pub(super) pending_migrations: Option<PendingMigrations>,
    /// TLS of the public listener.
    pub(super) tls: Option<Arc<Tls>>,
    /// The limit on open files.
    pub(super) file_limit: Option<u64>,
}

impl Prepared {
    /// Reads what the configuration names, and brings the database up to date.
    pub(super) async fn open(config: Config, store: Store) -> anyhow::Result<Self> {
        let file_limit = descriptors::raise_limit();
        prepare::announce(&config);
        let settings = config.sealing.clone();
        // A command takes up to ten seconds, and a signal to stop does not wait for it.
        let read = tokio::task::spawn_blocking(move || sealing_key::read(&settings));
        let sealing_key = read.await.context("reading the sealing key")??;
        let pending_migrations = prepare_database(&config, &store).await?;
        let rows = RowsInUse::read(&store).await?;
        sealing_key::refuse_foreign_rows(&rows, &sealing_key)?;
        let module = match config.pkcs11.clone() {
            Some(settings) => {
                let loaded = tokio::task::spawn_blocking(move || pkcs11::load(&settings));
                let library = loaded.await.context("loading the PKCS #11 module")??;
                Some(Arc::new(Module::start(library).context("starting the threads of the PKCS #11 module")?))
            }
            None => {
                pkcs11::refuse_attached_keys(&rows, &sealing_key)?;
                None
            }
        };
        let terms = TlsOptions { fapi: config.profile == Profile::Fapi2, clients: None };
        let tls = config.tls.clone().map(|files| Tls::load_with(files, terms)).transpose();
        let tls = tls.map_err(|error| config_error("server.tls", &error))?.map(Arc::new);
        Ok(Self { config, store, sealing_key, module, pending_migrations, tls, file_limit })
    }
}
