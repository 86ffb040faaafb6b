//! Stored trusted issuers, and the rules of clients.

use std::collections::HashMap;
use std::sync::Arc;

use super::columns::{flag, lifetime, moment};
use super::rows::{borrowed_row, row};
use super::statement::{Column, Value, args, insert, update};
use super::{Refusal, Store, StoreError, transaction};
use crate::model::federation::rule::FederationRule;
use crate::model::federation::trusted_issuer::{IssuerColumns, KeySource, TrustedIssuer};
use crate::model::time::{Span, UnixTime};

row!(
    /// Row of a trusted issuer.
    IssuerRow of "trusted_issuer" by "order by c.issuer" {
        issuer: String,
        kind: String,
        jwks_uri: Option<String>,
        jwks: Option<String>,
        bundle_uri: Option<String>,
        audience: Option<String>,
        max_lifetime: Option<i64>,
        ca_pem: Option<String>,
        enabled: i64,
        created_at: i64,
    }
);
borrowed_row!(
    /// Row of a rule.
    RuleRow of "client_federation" by "order by c.client_id, c.rule_id" {
        client_id: &'r str,
        rule_id: &'r str,
        issuer: &'r str,
        subject: &'r str,
        claims: &'r str,
        created_at: i64,
        expires_at: Option<i64>,
    }
);

/// Rule of a client as an administrator sees it.
#[derive(Debug, Clone)]
pub struct StoredRule {
    /// The client.
    pub client_id: String,
    /// The rule.
    pub rule: FederationRule,
    /// The administrator's note.
    pub label: String,
    /// The last use, to within half a minute.
    pub last_used_at: Option<UnixTime>,
}

/// Rows of a list of rules.
type ListedRow = (String, String, String, String, String, i64, Option<i64>, String, Option<i64>);

impl Store {
    /// Adds a trusted issuer.
    ///
    /// # Errors
    /// [`StoreError::Taken`], and [`StoreError::Refused`] when a constraint refuses it.
    pub async fn create_trusted_issuer(&self, issuer: &TrustedIssuer) -> Result<(), StoreError> {
        let mut all = columns(issuer);
        all.extend([("issuer", (&*issuer.issuer).into()), ("created_at", issuer.created_at.into())]);
        let (sql, values) = insert("trusted_issuer", all);
        transaction!(self, |tx| {
            let added = tx.execute(sql.clone(), &values).await;
            added.map(drop).map_err(|error| error.naming("trusted issuer", &issuer.issuer))
        })
    }

    /// Changes a trusted issuer in one transaction: reads it, applies `change`, and writes the columns whose values
    /// differ. `change` may run more than once. Returns whether anything was written; `None` when the issuer does not
    /// exist.
    ///
    /// # Errors
    /// The error of `change`, and [`StoreError::Refused`] when a constraint refuses it.
    pub async fn update_trusted_issuer<E: From<StoreError> + Send>(
        &self,
        issuer: &str,
        change: impl Fn(&mut TrustedIssuer) -> Result<(), E> + Sync,
    ) -> Result<Option<bool>, E> {
        let id = args![issuer];
        let updated = transaction!(self, |tx| {
            tx.lock_row("select 1 from trusted_issuer where issuer = $1 for no key update", &id).await?;
            tx.take_turn().await?;
            let Some(row) = tx.fetch::<IssuerRow>(IssuerRow::select(ONE), &id).await?.pop() else {
                return Ok(Ok(None));
            };
            let before = read_issuer(&row)?;
            let mut after = before.clone();
            if let Err(error) = change(&mut after) {
                return Ok(Err(error));
            }
            let update = update("trusted_issuer", ("issuer", issuer.into()), &columns(&before), &columns(&after));
            let is_changed = update.is_some();
            if let Some((sql, values)) = update {
                tx.execute(sql, &values).await?;
            }
            Ok(Ok(Some(is_changed)))
        });
        updated?
    }

    /// Reads one trusted issuer.
    ///
    /// # Errors
    /// [`StoreError`]; [`StoreError::Malformed`] when its row cannot be read.
    pub async fn trusted_issuer(&self, issuer: &str) -> Result<Option<TrustedIssuer>, StoreError> {
        let rows: Vec<IssuerRow> = self.fetch(IssuerRow::select(ONE), &args![issuer]).await?;
        rows.first().map(read_issuer).transpose()
    }

    /// Returns all trusted issuers. One that cannot be read is an error of its own.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn trusted_issuers(&self) -> Result<Vec<Result<TrustedIssuer, StoreError>>, StoreError> {
        let rows: Vec<IssuerRow> = self.fetch(IssuerRow::select(""), &[]).await?;
        Ok(rows.iter().map(read_issuer).collect())
    }

    /// Deletes a trusted issuer, `with_rules` with all rules that name it. Returns the number of deleted rules; `None`
    /// when the issuer does not exist.
    ///
    /// # Errors
    /// [`StoreError::Refused`] with the clients whose rules name the issuer, unless `with_rules`.
    pub async fn delete_trusted_issuer(&self, issuer: &str, with_rules: bool) -> Result<Option<u64>, StoreError> {
        let id = args![issuer];
        transaction!(self, |tx| {
            tx.take_turn().await?;
            let mut rules = 0;
            if with_rules {
                rules = tx.execute("delete from client_federation where issuer = $1", &id).await?;
            } else {
                let sql =
                    "select distinct client_id from client_federation where issuer = $1 order by client_id limit 10";
                let users: Vec<(String,)> = tx.fetch(sql, &id).await?;
                if !users.is_empty() {
                    let clients = users.into_iter().map(|(client_id,)| client_id).collect();
                    return Err(StoreError::Refused(Refusal::IssuerInUse { issuer: issuer.to_owned(), clients }));
                }
            }
            let deleted = tx.execute("delete from trusted_issuer where issuer = $1", &id).await?;
            Ok((deleted > 0).then_some(rules))
        })
    }

    /// Adds a rule to a client.
    ///
    /// # Errors
    /// [`StoreError::Taken`], and [`StoreError::Refused`] when the client does not exist, or the kind of the issuer
    /// demands what the rule lacks.
    pub async fn add_federation_rule(
        &self,
        client_id: &str,
        rule: &FederationRule,
        label: &str,
    ) -> Result<(), StoreError> {
        let sql =
            "insert into client_federation (rule_id, client_id, issuer, subject, claims, label, created_at, expires_at)
                   values ($1, $2, $3, $4, $5, $6, $7, $8)";
        let values = args![
            &*rule.rule_id,
            client_id,
            &*rule.issuer,
            rule.subject.as_str(),
            rule.claims.to_ascii(),
            label,
            rule.created_at,
            rule.expires_at,
        ];
        self.execute(sql, &values).await.map(drop).map_err(|error| error.naming("client federation", &rule.rule_id))
    }

    /// Removes a rule. `Ok(false)` when the client has no rule of that id.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn remove_federation_rule(&self, client_id: &str, rule_id: &str) -> Result<bool, StoreError> {
        let sql = "delete from client_federation where client_id = $1 and rule_id = $2";
        Ok(self.execute(sql, &args![client_id, rule_id]).await? > 0)
    }

    /// Returns the rules of a client, in the order of their ids.
    ///
    /// # Errors
    /// [`StoreError`]; [`StoreError::Malformed`] when one cannot be read.
    pub async fn federation_rules_of_client(&self, client_id: &str) -> Result<Vec<StoredRule>, StoreError> {
        let sql = concat!(listed!(), " where c.client_id = $1 order by c.rule_id");
        self.listed_rules(sql, &args![client_id]).await
    }

    /// Returns the rules of all clients that name an issuer, by client and rule.
    ///
    /// # Errors
    /// [`StoreError`]; [`StoreError::Malformed`] when one cannot be read.
    pub async fn federation_rules_of_issuer(&self, issuer: &str) -> Result<Vec<StoredRule>, StoreError> {
        let sql = concat!(listed!(), " where c.issuer = $1 order by c.client_id, c.rule_id");
        self.listed_rules(sql, &args![issuer]).await
    }

    /// Returns the number of rules that name each issuer.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn federation_rule_counts(&self) -> Result<HashMap<String, i64>, StoreError> {
        let sql = "select issuer, count(*) from client_federation group by issuer";
        Ok(self.fetch::<(String, i64)>(sql, &[]).await?.into_iter().collect())
    }

    /// Returns the rules of all clients, by client and rule.
    ///
    /// # Errors
    /// [`StoreError`]; [`StoreError::Malformed`] when one cannot be read.
    pub async fn federation_rules(&self) -> Result<Vec<StoredRule>, StoreError> {
        self.listed_rules(concat!(listed!(), " order by c.client_id, c.rule_id"), &[]).await
    }

    async fn listed_rules(&self, sql: &'static str, values: &[Value]) -> Result<Vec<StoredRule>, StoreError> {
        let rows: Vec<ListedRow> = self.fetch(sql, values).await?;
        let read = |row: &ListedRow| {
            let (client_id, rule_id, issuer, subject, claims, created_at, expires_at, label, last_used_at) = row;
            let (created_at, expires_at) = (*created_at, *expires_at);
            let row = RuleRow { client_id, rule_id, issuer, subject, claims, created_at, expires_at };
            let malformed = |reason| StoreError::Malformed { kind: "client", id: client_id.clone(), reason };
            let rule = rule_of(&row, issuer.as_str().into()).map_err(malformed)?;
            let last_used_at = last_used_at.map(UnixTime);
            Ok(StoredRule { client_id: client_id.clone(), rule, label: label.clone(), last_used_at })
        };
        rows.iter().map(read).collect()
    }

    /// Records the issuer of this server, so that the database refuses it as a trusted one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn record_own_issuer(&self, issuer: &str) -> Result<(), StoreError> {
        let known: Vec<(String,)> =
            self.fetch("select issuer from own_issuer where issuer = $1", &args![issuer]).await?;
        if known.is_empty() {
            let sql = "insert into own_issuer (issuer) values ($1) on conflict (issuer) do nothing";
            self.execute(sql, &args![issuer]).await?;
        }
        Ok(())
    }
}

/// SQL that lists rules with their labels and last uses.
macro_rules! listed {
    () => {
        "select c.client_id, c.rule_id, c.issuer, c.subject, c.claims, c.created_at, c.expires_at, c.label, u.last_used_at
         from client_federation c left join client_federation_use u on u.rule_id = c.rule_id"
    };
}
use listed;

/// SQL condition for the row of one issuer.
const ONE: &str = "where c.issuer = $1";

/// Returns the columns of an issuer that an administrator may set.
fn columns(issuer: &TrustedIssuer) -> Vec<Column> {
    let (jwks_uri, jwks, bundle_uri) = match &issuer.keys {
        KeySource::Discovery(_) => (None, None, None),
        KeySource::JwksUri(uri) => (Some(uri.as_str()), None, None),
        KeySource::Pinned(pinned) => (None, Some(&*pinned.text), None),
        KeySource::Bundle(uri) => (None, None, Some(uri.as_str())),
    };
    vec![
        ("kind", issuer.kind.as_str().into()),
        ("jwks_uri", jwks_uri.into()),
        ("jwks", jwks.into()),
        ("bundle_uri", bundle_uri.into()),
        ("audience", issuer.audience.as_deref().into()),
        ("max_lifetime", issuer.max_lifetime.map(Span::from).into()),
        ("ca_pem", issuer.ca_pem.as_deref().into()),
        ("enabled", issuer.enabled.into()),
    ]
}

/// Reads the row of an issuer.
pub(super) fn read_issuer(row: &IssuerRow) -> Result<TrustedIssuer, StoreError> {
    issuer_of(row).map_err(|reason| StoreError::Malformed { kind: "trusted issuer", id: row.issuer.clone(), reason })
}

fn issuer_of(row: &IssuerRow) -> Result<TrustedIssuer, String> {
    let columns = IssuerColumns {
        issuer: &row.issuer,
        kind: row.kind.parse().map_err(|error| format!("kind: {error}"))?,
        jwks_uri: row.jwks_uri.as_deref(),
        jwks: row.jwks.as_deref(),
        bundle_uri: row.bundle_uri.as_deref(),
        audience: row.audience.as_deref(),
        ca_pem: row.ca_pem.as_deref(),
    };
    let issuer =
        TrustedIssuer::new(columns, moment("created_at", row.created_at)?).map_err(|error| error.to_string())?;
    Ok(TrustedIssuer {
        max_lifetime: row.max_lifetime.map(|seconds| lifetime("max_lifetime", seconds)).transpose()?,
        enabled: flag("enabled", row.enabled)?,
        ..issuer
    })
}

/// Reads the row of a rule, whose issuer is shared with other rules.
pub(super) fn rule_of(row: &RuleRow<'_>, issuer: Arc<str>) -> Result<FederationRule, String> {
    let RuleRow { rule_id, subject, claims, created_at, expires_at, .. } = *row;
    let at = |column: &str, error: &dyn std::fmt::Display| format!("client_federation {rule_id}: {column}: {error}");
    Ok(FederationRule {
        rule_id: rule_id.into(),
        issuer,
        subject: subject.parse().map_err(|error| at("subject", &error))?,
        claims: claims.parse().map_err(|error| at("claims", &error))?,
        created_at: moment("client_federation.created_at", created_at)?,
        expires_at: expires_at.map(|at| moment("client_federation.expires_at", at)).transpose()?,
        used: Arc::default(),
    })
}
