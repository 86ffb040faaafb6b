//! Trusted issuers: create, change, disable, enable, delete, show.

use serde_json::{Value, json};

use super::change::Change;
use super::{Admin, AdminError, AdminResult, Outcome, Warning};
use crate::model::federation::kind::IssuerKind;
use crate::model::federation::trusted_issuer::{IssuerColumns, KeySource, TrustedIssuer};
use crate::model::lifetime::FederatedLifetime;
use crate::model::time::{Span, UnixTime};
use crate::store::StoreError;
use crate::store::federation::StoredRule;

/// Trusted issuer to register, in texts.
#[derive(Debug, Clone)]
pub struct IssuerFields {
    /// The exact `iss` of its tokens, or the trust domain.
    pub issuer: String,
    /// The kind.
    pub kind: IssuerKind,
    /// The place of its keys.
    pub keys: KeyLocation,
    /// The only `aud` of its tokens; `None` for the issuer of this server.
    pub audience: Option<String>,
    /// The longest lifetime of its tokens; `None` for the default.
    pub max_lifetime: Option<FederatedLifetime>,
    /// The CAs of its hosts, in PEM; `None` for the public ones.
    pub ca_pem: Option<String>,
}

/// Place of the keys of an issuer: one of these, or the one that its discovery document names.
#[derive(Debug, Clone, Default)]
pub struct KeyLocation {
    /// The URL of its JWK Set.
    pub jwks_uri: Option<String>,
    /// The JWK Set itself.
    pub jwks: Option<String>,
    /// The URL of its SPIFFE bundle.
    pub bundle_uri: Option<String>,
}

/// Changes of a trusted issuer.
#[derive(Debug, Clone, Default)]
pub struct IssuerPatch {
    pub keys: Change<KeyLocation>,
    pub audience: Change<Option<String>>,
    pub max_lifetime: Change<Option<FederatedLifetime>>,
    pub ca_pem: Change<Option<String>>,
}

/// Trusted issuer with the number of rules that name it.
#[derive(Debug)]
pub struct IssuerDetails {
    pub issuer: TrustedIssuer,
    pub rules: i64,
}

impl From<&TrustedIssuer> for IssuerFields {
    fn from(issuer: &TrustedIssuer) -> Self {
        let mut keys = KeyLocation::default();
        match &issuer.keys {
            KeySource::Discovery(_) => {}
            KeySource::JwksUri(uri) => keys.jwks_uri = Some(uri.to_string()),
            KeySource::Pinned(pinned) => keys.jwks = Some(pinned.text.to_string()),
            KeySource::Bundle(uri) => keys.bundle_uri = Some(uri.to_string()),
        }
        Self {
            issuer: issuer.issuer.to_string(),
            kind: issuer.kind,
            keys,
            audience: issuer.audience.as_deref().map(str::to_owned),
            max_lifetime: issuer.max_lifetime,
            ca_pem: issuer.ca_pem.as_deref().map(str::to_owned),
        }
    }
}

impl IssuerPatch {
    /// Returns the issuer with these changes.
    fn applied(&self, issuer: &TrustedIssuer) -> Result<TrustedIssuer, AdminError> {
        let (patch, mut fields) = (self.clone(), IssuerFields::from(issuer));
        patch.keys.apply(&mut fields.keys);
        patch.audience.apply(&mut fields.audience);
        patch.max_lifetime.apply(&mut fields.max_lifetime);
        patch.ca_pem.apply(&mut fields.ca_pem);
        let changed = fields.read(issuer.created_at)?;
        Ok(TrustedIssuer { enabled: issuer.enabled, ..changed })
    }
}

impl IssuerFields {
    fn read(&self, created_at: UnixTime) -> Result<TrustedIssuer, AdminError> {
        let columns = IssuerColumns {
            issuer: &self.issuer,
            kind: self.kind,
            jwks_uri: self.keys.jwks_uri.as_deref(),
            jwks: self.keys.jwks.as_deref(),
            bundle_uri: self.keys.bundle_uri.as_deref(),
            audience: self.audience.as_deref(),
            ca_pem: self.ca_pem.as_deref(),
        };
        Ok(TrustedIssuer { max_lifetime: self.max_lifetime, ..TrustedIssuer::new(columns, created_at)? })
    }
}

impl IssuerDetails {
    /// Returns the issuer as JSON, its members named like the columns.
    #[must_use]
    pub fn document(&self) -> Value {
        let fields = IssuerFields::from(&self.issuer);
        // A pinned key set is shown as JSON, or as the text that stands in the row.
        let jwks = fields.keys.jwks.map(|text| serde_json::from_str(&text).unwrap_or(Value::String(text)));
        json!({
            "issuer": fields.issuer,
            "kind": fields.kind.as_str(),
            "enabled": self.issuer.enabled,
            "created_at": self.issuer.created_at,
            "jwks_uri": fields.keys.jwks_uri,
            "jwks": jwks,
            "bundle_uri": fields.keys.bundle_uri,
            "audience": fields.audience,
            "max_lifetime": fields.max_lifetime.map(|lifetime| Span::from(lifetime).seconds()),
            "ca_pem": fields.ca_pem,
            "rules": self.rules,
        })
    }
}

impl Admin {
    /// Makes an issuer to be registered. This server's own issuer is refused: its access tokens prove nothing.
    pub fn new_trusted_issuer(&self, fields: &IssuerFields) -> Result<TrustedIssuer, AdminError> {
        if fields.issuer.trim_end_matches('/') == self.policy.issuer.as_str().trim_end_matches('/') {
            return Err(AdminError::OwnIssuer(fields.issuer.clone()));
        }
        fields.read(self.now())
    }

    /// Registers a trusted issuer. Rules may name it already; those that do not pin what its kind demands are warned of.
    pub async fn create_trusted_issuer(&self, issuer: TrustedIssuer) -> AdminResult<IssuerDetails> {
        self.store.create_trusted_issuer(&issuer).await?;
        let rules = self.store.federation_rules_of_issuer(&issuer.issuer).await?;
        let unsafe_rule = |stored: &StoredRule| {
            let rule = &stored.rule;
            let fault = issuer.kind.check_pins(&issuer.issuer, &rule.subject, &rule.claims).err()?;
            Some(Warning::UnsafeRule { client_id: stored.client_id.clone(), rule_id: rule.rule_id.clone(), fault })
        };
        let warnings = rules.iter().filter_map(unsafe_rule).collect();
        let value = IssuerDetails { rules: i64::try_from(rules.len()).unwrap_or(i64::MAX), issuer };
        Ok(Outcome { value, warnings })
    }

    /// Returns a trusted issuer with the number of its rules.
    pub async fn trusted_issuer(&self, issuer: &str) -> Result<IssuerDetails, AdminError> {
        let found = self.store.trusted_issuer(issuer).await?;
        let found = found.ok_or_else(|| AdminError::NoSuchIssuer(issuer.to_owned()))?;
        let rules = self.store.federation_rule_counts().await?.remove(issuer).unwrap_or(0);
        Ok(IssuerDetails { issuer: found, rules })
    }

    /// Returns all trusted issuers with the numbers of their rules. One that cannot be read is an error of its own.
    pub async fn trusted_issuers(&self) -> Result<Vec<Result<IssuerDetails, StoreError>>, AdminError> {
        let counts = self.store.federation_rule_counts().await?;
        let details = |issuer: TrustedIssuer| {
            let rules = counts.get(&*issuer.issuer).copied().unwrap_or(0);
            IssuerDetails { issuer, rules }
        };
        Ok(self.store.trusted_issuers().await?.into_iter().map(|issuer| issuer.map(details)).collect())
    }

    /// Returns an issuer as it would be after a change, so that its documents can be looked at before.
    pub async fn changed_trusted_issuer(&self, issuer: &str, patch: &IssuerPatch) -> Result<TrustedIssuer, AdminError> {
        let found = self.store.trusted_issuer(issuer).await?;
        patch.applied(&found.ok_or_else(|| AdminError::NoSuchIssuer(issuer.to_owned()))?)
    }

    /// Changes a trusted issuer. `Ok(false)` when it has these values already.
    pub async fn change_trusted_issuer(&self, issuer: &str, patch: &IssuerPatch) -> Result<bool, AdminError> {
        let change = |found: &mut TrustedIssuer| {
            *found = patch.applied(found)?;
            Ok::<_, AdminError>(())
        };
        let changed = self.store.update_trusted_issuer(issuer, change).await?;
        changed.ok_or_else(|| AdminError::NoSuchIssuer(issuer.to_owned()))
    }

    /// Enables or disables a trusted issuer. `Ok(false)` when it already was.
    pub async fn set_trusted_issuer_enabled(&self, issuer: &str, enabled: bool) -> Result<bool, AdminError> {
        let change = |found: &mut TrustedIssuer| {
            found.enabled = enabled;
            Ok::<_, AdminError>(())
        };
        let changed = self.store.update_trusted_issuer(issuer, change).await?;
        changed.ok_or_else(|| AdminError::NoSuchIssuer(issuer.to_owned()))
    }

    /// Deletes a trusted issuer, `with_rules` with all rules that name it. Returns the number of deleted rules.
    pub async fn delete_trusted_issuer(&self, issuer: &str, with_rules: bool) -> Result<u64, AdminError> {
        let deleted = self.store.delete_trusted_issuer(issuer, with_rules).await?;
        deleted.ok_or_else(|| AdminError::NoSuchIssuer(issuer.to_owned()))
    }
}
