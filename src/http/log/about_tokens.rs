//! The lines of introspections and revocations: who asked, about which token, and what came of it.

use std::net::IpAddr;

use super::{Log, TokenLabels, cut, micros};
use crate::protocol::introspection::Introspected;
use crate::protocol::{Outcome, Revocation};

impl Log {
    pub(super) fn introspection(
        &self,
        outcome: &Outcome<Introspected>,
        source: IpAddr,
        request_id: &str,
        seconds: f64,
    ) {
        let method = outcome.method.map_or("none", |method| method.as_str());
        let client_id = outcome.client_id.as_deref().map(cut);
        let (result, reason) = match &outcome.result {
            Ok(introspected) => match introspected.inactive {
                None => ("active", "active"),
                Some(inactive) => ("inactive", inactive.reason()),
            },
            Err(error) => ("refused", error.reason()),
        };
        self.counts.introspections.get_or_create(&TokenLabels { result, reason, method }).inc();
        let token = outcome.result.as_ref().ok().and_then(|introspected| introspected.token.as_ref());
        tracing::info!(
            event = "introspection",
            reason,
            detail = outcome.result.as_ref().err().map(tracing::field::display),
            client_id,
            auth_method = method,
            credential_id = outcome.credential_id.as_deref(),
            jti = token.map(|(jti, _)| jti.as_str()),
            token_client_id = token.map(|(_, client_id)| client_id.as_str()),
            remote_addr = %source,
            request_id,
            duration_us = micros(seconds),
        );
    }

    pub(super) fn revocation(&self, outcome: &Outcome<Revocation>, source: IpAddr, request_id: &str, seconds: f64) {
        let method = outcome.method.map_or("none", |method| method.as_str());
        let client_id = outcome.client_id.as_deref().map(cut);
        let (result, reason) = match &outcome.result {
            Ok(revocation) => ("done", revocation.inactive.map_or("revoked", |inactive| inactive.reason())),
            Err(error) => ("refused", error.reason()),
        };
        self.counts.revocations.get_or_create(&TokenLabels { result, reason, method }).inc();
        let jti = outcome.result.as_ref().ok().and_then(|revocation| revocation.jti.as_deref());
        tracing::info!(
            event = "revocation",
            reason,
            detail = outcome.result.as_ref().err().map(tracing::field::display),
            client_id,
            auth_method = method,
            credential_id = outcome.credential_id.as_deref(),
            jti,
            remote_addr = %source,
            request_id,
            duration_us = micros(seconds),
        );
    }
}
