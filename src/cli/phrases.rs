//! Additions of the command line to errors and warnings of the admin floor: the command that helps.

use super::nearest::Mistyped;
use crate::admin::checkup::RegistrationFault;
use crate::admin::lifecycle::Advice;
use crate::admin::secrets::ChosenSecretError;
use crate::admin::{AdminError, Warning};
use crate::model::client_id::in_shell;
use crate::store::{Refusal, StoreError};

/// Returns the remedy to append to an error.
pub(super) fn remedy(error: &anyhow::Error) -> Option<String> {
    if let Some(ChosenSecretError::TooWeak) = error.downcast_ref() {
        return Some("`grantd client secret add` generates one".to_owned());
    }
    let meant = error.chain().find_map(|cause| cause.downcast_ref::<Mistyped>());
    let meant = meant.map(|mistyped| format!("did you mean {}? ", mistyped.nearest)).unwrap_or_default();
    let remedy = match error.chain().find_map(|cause| cause.downcast_ref::<AdminError>())? {
        AdminError::NoSuchClient(_) => "`grantd client list` lists them".to_owned(),
        AdminError::NoSuchResource(_) => "`grantd resource list` lists them".to_owned(),
        AdminError::NoSuchSecret { client_id, .. } => {
            format!("`grantd client secret list {}` lists them", client_id.in_shell())
        }
        AdminError::NoSuchClientKey { client_id, .. } => {
            format!("`grantd client key list {}` lists them", client_id.in_shell())
        }
        AdminError::NoSuchCertificate { client_id, .. } => {
            format!("`grantd client cert list {}` lists them", client_id.in_shell())
        }
        AdminError::NoSuchIssuer(_) => "`grantd trusted-issuer list` lists them".to_owned(),
        AdminError::NoSuchRule { client_id, .. } => {
            format!("`grantd client federation list {}` lists them", client_id.in_shell())
        }
        AdminError::NoSuchSigningKey(_) => "`grantd key list` lists them".to_owned(),
        AdminError::KeyInModule(_) => {
            "attach the next key with `grantd key attach`, or run `grantd key generate` if one in memory is wanted"
                .to_owned()
        }
        AdminError::SoleKeyInModule(_) => {
            "first attach the next key with `grantd key attach`, or run `grantd key generate`".to_owned()
        }
        AdminError::NoSuchTagKey(_) => "`grantd key tag list` lists them".to_owned(),
        AdminError::SecretTooLongLived { limit, .. } => format!("leave the option out, or write {limit} or less"),
        AdminError::DefaultScope(_) => "name both, --scope and --default-scope".to_owned(),
        AdminError::UnusableCertificate { kid: Some(_), .. } => {
            "leave x5c out, or make a certificate of X.509 version 3".to_owned()
        }
        AdminError::UnusableCertificate { kid: None, .. } => {
            "make one of X.509 version 3 with openssl req -x509".to_owned()
        }
        AdminError::Store(StoreError::Refused(Refusal::ResourceInUse { .. })) => {
            "first remove it from them with `grantd client set ID --resource …`".to_owned()
        }
        AdminError::Store(StoreError::Refused(Refusal::IssuerInUse { .. })) => {
            "remove these with `grantd client federation remove`, or delete it with --with-rules".to_owned()
        }
        AdminError::Store(StoreError::Refused(Refusal::TooManyImported(_))) => {
            "secrets of `grantd client secret add` have no such limit".to_owned()
        }
        _ => return None,
    };
    Some(meant + &remedy)
}

/// Writes a warning as a line for stderr.
pub(super) fn line(warning: &Warning) -> String {
    match warning {
        Warning::SecretsRefused => format!(
            "note: {warning}; `grantd client create --no-secret`, then `grantd client key add` or `grantd client cert add`, creates a client that can authenticate"
        ),
        Warning::NoIssuer(issuer) => {
            format!("note: {warning}; `grantd trusted-issuer create {}` registers it", in_shell(issuer))
        }
        Warning::IssuerDisabled(issuer) => {
            format!("note: {warning}; `grantd trusted-issuer enable {}` enables it", in_shell(issuer))
        }
        Warning::Untagged => format!("{warning}; `grantd doctor` says more"),
        Warning::LeftOut(_) => warning.to_string(),
        _ => format!("warning: {warning}"),
    }
}

/// Writes advice about a client with the command that follows it. `id` is quoted for a shell.
pub(super) fn advice(advice: &Advice, id: &str) -> String {
    match advice {
        Advice::Ownerless => format!("{advice}; `grantd client set {id} --owner TEAM` notes one"),
        Advice::Unused(_) => format!("{advice}; `grantd client disable {id}` if nobody needs it"),
        Advice::LongLivedSecret { .. } => format!("{advice}; `grantd client secret rotate {id}` replaces it"),
    }
}

/// Writes a fault of a registration with the command that corrects it. `id` is the client's or the resource's, quoted
/// for a shell.
pub(super) fn fault(fault: &RegistrationFault, id: &str) -> String {
    let mend = match fault {
        RegistrationFault::KeysExpired => format!("; `grantd client key add {id}` adds one"),
        RegistrationFault::CertificateExpired(cert_id) => format!(
            "; `grantd client cert add {id}` adds the next, `grantd client cert remove {id} {cert_id}` removes it"
        ),
        RegistrationFault::UnusableCertificate { kid, .. } => {
            format!("; `grantd client key remove {id} {kid}`, then add the key without x5c or with another certificate")
        }
        RegistrationFault::CredentialsRefused(_) => {
            format!(
                "; `grantd client key add {id}` or `grantd client cert add {id}` adds a credential that the profile accepts"
            )
        }
        RegistrationFault::IntrospectionAlg(_) => {
            format!("; `grantd client set {id} --introspection-signed-response-alg ES256`")
        }
        RegistrationFault::ResourceAlg(_) => format!("; `grantd resource set {id} --alg ES256`"),
        RegistrationFault::TokenTyp => format!("; `grantd resource set {id} --token-typ at+jwt`"),
        RegistrationFault::StatusClaim => {
            format!("; `grantd client set {id} --claim …` without it replaces its claims")
        }
        RegistrationFault::NoClientCa
        | RegistrationFault::NoWayForCertificates
        | RegistrationFault::ImportedSecrets(_) => String::new(),
    };
    format!("{fault}{mend}")
}
