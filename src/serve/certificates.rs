//! Certificates, CAs and revocation lists in use: read again on SIGHUP and when their files are replaced, watched for their
//! ends.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use super::clients::MutualTlsFiles;
use super::expiry::{self, Ending};
use crate::crypto::certificate::validity::Validity;
use crate::model::event::Event;
use crate::model::time::Clock;
use crate::protocol::AuthorizationServer;
use crate::telemetry::metrics::TimeToExpiry;
use crate::transport::tls::clients::HeaderCertificateVerifier;
use crate::transport::tls::files::Version;
use crate::transport::tls::{Tls, TlsError};

/// All that was read from files for TLS.
#[derive(Debug)]
pub struct Certificates {
    tls: Option<Arc<Tls>>,
    mutual_tls: MutualTlsFiles,
    jwks_uri_cas: ArcSwap<Vec<Validity>>,
    clock: Clock,
    parts: Vec<Part>,
}

/// Files that are read and used together.
#[derive(Debug)]
struct Part {
    /// The setting that names them.
    key: &'static str,
    source: Source,
    /// A version that is read once it has not changed between two looks: a file may be half written.
    settling: Mutex<Option<Version>>,
}

#[derive(Debug)]
enum Source {
    Listener(Arc<Tls>),
    Header(Arc<HeaderCertificateVerifier>),
}

/// The result of a look at the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Look {
    /// Nothing new.
    Same,
    /// New files, which were read.
    Read,
    /// New files, to be looked at again in a moment.
    Settling,
}

impl Certificates {
    /// Watches what was read.
    #[must_use]
    pub fn new(tls: Option<Arc<Tls>>, mutual_tls: MutualTlsFiles, jwks_uri_cas: Vec<Validity>, clock: Clock) -> Self {
        let part = |key, source| Part { key, source, settling: Mutex::default() };
        let public = tls.iter().map(|tls| part("server.tls", Source::Listener(Arc::clone(tls))));
        let listener = mutual_tls.listener.iter().map(|tls| part("server.mtls", Source::Listener(Arc::clone(tls))));
        let header = mutual_tls.header.iter().map(|one| part("server.mtls", Source::Header(Arc::clone(one))));
        let parts = public.chain(listener).chain(header).collect();
        Self { tls, mutual_tls, jwks_uri_cas: ArcSwap::from_pointee(jwks_uri_cas), clock, parts }
    }

    /// Takes the dates of other CAs for hosts of key sets, after their file was read again.
    pub fn replace_jwks_uri_cas(&self, cas: Vec<Validity>) {
        self.jwks_uri_cas.store(Arc::new(cas));
    }

    /// Whether anything was read from files.
    #[must_use]
    pub fn has_files(&self) -> bool {
        !self.parts.is_empty()
    }

    /// The ends of the files that are in use.
    #[must_use]
    pub fn endings(&self) -> Vec<Ending> {
        expiry::of_files(self.tls.as_deref(), &self.mutual_tls, &self.jwks_uri_cas.load())
    }

    /// The ends that `grantd_credential_expires_seconds` tells.
    #[must_use]
    pub fn ends(self: &Arc<Self>, server: &Arc<AuthorizationServer>) -> TimeToExpiry {
        let (certificates, server) = (Arc::clone(self), Arc::clone(server));
        Box::new(move || {
            let now = server.clock.now();
            let ends = expiry::soonest(&certificates.endings(), &server.registry.snapshot(), now);
            ends.into_iter().map(|(kind, at)| (kind, at.0.saturating_sub(now.0))).collect()
        })
    }

    /// Reads all files again, as SIGHUP asks for. What cannot be used stays as it was.
    pub fn reload(&self) {
        if self.parts.is_empty() {
            tracing::info!(event = Event::Reload.as_str(), "SIGHUP: there is no certificate to reload");
        }
        self.parts.iter().for_each(|part| self.read(part));
    }

    /// Reads the files again that were replaced since they were read.
    #[must_use]
    pub fn look(&self) -> Look {
        let look = |part: &Part| {
            let newer = match &part.source {
                Source::Listener(tls) => tls.newer(),
                Source::Header(vouching) => vouching.newer(),
            };
            let mut settling = part.settling.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(newer) = newer else {
                *settling = None;
                return Look::Same;
            };
            if settling.as_ref() != Some(&newer) {
                *settling = Some(newer);
                return Look::Settling;
            }
            *settling = None;
            self.read(part);
            Look::Read
        };
        self.parts.iter().map(look).max().unwrap_or(Look::Same)
    }

    /// Looks at the files every ten seconds, and warns every day of what ends soon, until the end of the program.
    pub async fn watch(self: Arc<Self>) {
        let mut warned_at = None;
        let mut pause = LOOK;
        loop {
            if warned_at.is_none_or(|at: Instant| at.elapsed() >= DAY) {
                warned_at = Some(Instant::now());
                expiry::warn(&self.endings(), self.clock.now());
            }
            tokio::time::sleep(pause).await;
            let watched = Arc::clone(&self);
            // A file system may be slow to answer.
            match tokio::task::spawn_blocking(move || watched.look()).await {
                Ok(Look::Settling) => pause = SETTLED,
                Ok(Look::Same | Look::Read) => pause = LOOK,
                Err(error) => {
                    tracing::error!(event = Event::Internal.as_str(), reason = %error, "the files of certificates are not looked at");
                }
            }
        }
    }

    fn read(&self, part: &Part) {
        let read = match &part.source {
            Source::Listener(tls) => tls.reload(),
            Source::Header(vouching) => vouching.reload(),
        };
        match read {
            Ok(()) => {
                tracing::info!(
                    event = Event::Reload.as_str(),
                    setting = part.key,
                    "the certificates have been reloaded"
                );
                let endings = self.endings();
                let of_part: Vec<Ending> =
                    endings.into_iter().filter(|ending| ending.key.starts_with(part.key)).collect();
                expiry::warn(&of_part, self.clock.now());
            }
            Err(error) => told(part.key, &error),
        }
    }
}

fn told(key: &str, error: &TlsError) {
    tracing::error!(event = Event::Reload.as_str(), setting = key, reason = %error, "a certificate was not reloaded; the one in use stays");
}

const LOOK: Duration = Duration::from_secs(10);
const SETTLED: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_hours(24);
