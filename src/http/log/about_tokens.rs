//! The lines of introspections and revocations: who asked, about which token, and what came of it.

use std::net::IpAddr;

use super::{Log, RequestId, TokenLabels, VerificationLabels, cut, micros};
use crate::model::client::AuthMethod;
use crate::model::event::Event;
use crate::protocol::error::Error;
use crate::protocol::error::inactive::Inactive;
use crate::protocol::error::reason::Reason;
use crate::protocol::introspection::IntrospectionResponse;
use crate::protocol::verification::VerificationOutcome;
use crate::protocol::{Attempt, Revocation};

/// The facts that every line says of its request.
pub(super) struct LineContext {
    pub(super) source: IpAddr,
    pub(super) request_id: RequestId,
    pub(super) seconds: f64,
}

/// The token that a line is about, where it is one of ours.
#[derive(Default)]
struct About<'a> {
    jti: Option<&'a str>,
    client_id: Option<&'a str>,
}

impl Log {
    pub(super) fn introspection(
        &self,
        attempt: &Attempt,
        introspected: Result<&IntrospectionResponse, &Error>,
        context: &LineContext,
    ) {
        let (result, reason) = match introspected {
            Ok(introspected) => match introspected.inactive {
                None => ("active", Reason::Active),
                Some(inactive) => ("inactive", inactive.reason()),
            },
            Err(error) => ("refused", error.reason()),
        };
        let labels = TokenLabels { result, reason: reason.as_str(), method: name(attempt.method) };
        self.counts.introspections.get_or_create(&labels).inc();
        let token = introspected.ok().and_then(|introspected| introspected.token.as_ref());
        let about = token.map(|(jti, client_id)| About { jti: Some(jti), client_id: Some(client_id) });
        write(Event::Introspection, reason, attempt, introspected.err(), &about.unwrap_or_default(), context);
    }

    pub(super) fn revocation(&self, attempt: &Attempt, revoked: Result<&Revocation, &Error>, context: &LineContext) {
        let (result, reason) = match revoked {
            Ok(revocation) => ("done", revocation.inactive.map_or(Reason::Revoked, Inactive::reason)),
            Err(error) => ("refused", error.reason()),
        };
        let labels = TokenLabels { result, reason: reason.as_str(), method: name(attempt.method) };
        self.counts.revocations.get_or_create(&labels).inc();
        let jti = revoked.ok().and_then(|revocation| revocation.jti.as_deref());
        write(Event::Revocation, reason, attempt, revoked.err(), &About { jti, client_id: None }, context);
    }
}

impl Log {
    pub(super) fn verification(&self, verified: &VerificationOutcome, resource: Option<&str>, context: &LineContext) {
        let token = verified.token.as_ref();
        let (client_id, jti) = token.map(|token| (cut(&token.client_id), token.jti.to_string())).unzip();
        let (remote_addr, request_id, duration_us) =
            (context.source, context.request_id.as_str(), micros(context.seconds));
        let (aud, resource) = (token.map(|token| &*token.aud), resource.map(cut));
        match &verified.verdict {
            Ok(()) => {
                self.counts.passed.inc();
                tracing::info!(
                    event = Event::Verification.as_str(),
                    reason = Reason::Ok.as_str(),
                    client_id,
                    aud,
                    jti,
                    remote_addr = %remote_addr,
                    request_id,
                    duration_us,
                );
            }
            Err(refusal) => {
                let reason = refusal.reason().as_str();
                self.counts.verifications.get_or_create(&VerificationLabels { result: "refused", reason }).inc();
                tracing::warn!(
                    event = Event::Verification.as_str(),
                    reason,
                    detail = %refusal,
                    client_id,
                    aud,
                    resource,
                    jti,
                    remote_addr = %remote_addr,
                    request_id,
                    duration_us,
                );
            }
        }
    }
}

fn name(method: Option<AuthMethod>) -> &'static str {
    method.map_or("none", AuthMethod::as_str)
}

fn write(
    event: Event,
    reason: Reason,
    attempt: &Attempt,
    error: Option<&Error>,
    about: &About<'_>,
    context: &LineContext,
) {
    let client_id = attempt.client_id.as_deref().map(cut);
    let auth_method = name(attempt.method);
    let credential_id = attempt.credential_id.as_deref();
    let [federated_issuer, federated_subject, federated_jti] = federated(attempt);
    let (remote_addr, request_id, duration_us) = (context.source, context.request_id.as_str(), micros(context.seconds));
    match error {
        None => tracing::info!(
            event = event.as_str(),
            reason = reason.as_str(),
            client_id,
            auth_method,
            credential_id,
            federated_issuer,
            federated_subject,
            federated_jti,
            jti = about.jti,
            token_client_id = about.client_id,
            remote_addr = %remote_addr,
            request_id,
            duration_us,
        ),
        Some(error) => tracing::warn!(
            event = event.as_str(),
            reason = reason.as_str(),
            detail = %error,
            client_id,
            auth_method,
            credential_id,
            federated_issuer,
            federated_subject,
            federated_jti,
            remote_addr = %remote_addr,
            request_id,
            duration_us,
        ),
    }
}

/// Issuer, subject and id of the token of a trusted issuer, verified or not.
pub(super) fn federated(attempt: &Attempt) -> [Option<&str>; 3] {
    let Some(claims) = attempt.federated.as_deref() else { return [None; 3] };
    [Some(cut(&claims.issuer)), Some(cut(&claims.subject)), claims.jti.as_deref().map(cut)]
}
