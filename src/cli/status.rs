//! `grantd status`: one screen about the running server, from the documents of its admin listener.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::bail;
use clap::Args;
use serde::Serialize;
use serde_json::Value;

use super::admin_listener::AdminListener;
use super::explain::{Document, span};
use crate::config::{ConfigError, Sources};
use crate::model::time::{Clock, UnixTime};
use crate::telemetry::printable::{self, one_line};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Redraw every two seconds, until interrupted
    #[arg(long)]
    watch: bool,
    /// URL of the admin listener [default: from admin.listen]
    #[arg(long, value_name = "URL")]
    admin_url: Option<String>,
}

/// The state of a server, as `--json` prints it.
#[derive(Debug, Serialize)]
struct Status {
    replica: String,
    version: String,
    ready: bool,
    /// The checks that fail, with their reasons.
    not_ready: BTreeMap<String, String>,
    uptime_seconds: Option<i64>,
    clients: i64,
    registry_age_seconds: Option<f64>,
    registry_trouble: Option<String>,
    standby: bool,
    clock_skew_seconds: Option<i64>,
    database_write_trouble: Option<String>,
    database_write_failures: i64,
    signing_keys: Vec<Value>,
    tokens_issued: i64,
    /// Over the time between two looks; `None` at a first look that was not repeated.
    tokens_per_second: Option<f64>,
    /// Refusals of the last five minutes, by reason.
    refused: BTreeMap<String, usize>,
    /// Seconds until the next credential of a kind expires; negative once it has.
    expires_seconds: BTreeMap<String, i64>,
}

impl Arguments {
    pub(super) async fn run(
        &self,
        json: bool,
        named: Option<&Path>,
        sources: Result<Sources, ConfigError>,
    ) -> anyhow::Result<()> {
        let listener = AdminListener::find(self.admin_url.as_deref(), named, sources)?;
        let mut before = (Instant::now(), look(&listener).await?.tokens_issued);
        let mut pause = FIRST_PAUSE;
        loop {
            tokio::time::sleep(pause).await;
            let looked = look(&listener).await.map(|mut status| {
                let seconds = before.0.elapsed().as_secs_f64();
                let issued = status.tokens_issued.saturating_sub(before.1);
                before = (Instant::now(), status.tokens_issued);
                // After a restart the counter begins anew. No server issues four thousand million tokens between two looks.
                status.tokens_per_second = u32::try_from(issued).ok().map(|issued| f64::from(issued) / seconds);
                status
            });
            match looked {
                Err(error) if !self.watch => return Err(error),
                Err(error) => draw(&one_line(&format!("{error:#}")))?,
                Ok(status) if json => draw_line(&printable::json(&status)?)?,
                Ok(status) if self.watch => draw(&status.screen())?,
                Ok(status) => return super::print(false, &status, || status.screen()),
            }
            if !self.watch {
                return Ok(());
            }
            pause = PAUSE;
        }
    }
}

/// Prints a screen in place of the one before, or below it where stdout is no terminal.
fn draw(screen: &str) -> anyhow::Result<()> {
    // Home, then erase to the end: nothing flickers as it would with an erased screen.
    let (home, end) = if io::stdout().is_terminal() { ("\x1b[H\x1b[J", "") } else { ("", "\n") };
    let mut out = io::stdout();
    writeln!(out, "{home}{}{end}", printable::lines(screen))?;
    Ok(out.flush()?)
}

fn draw_line(line: &str) -> anyhow::Result<()> {
    let mut out = io::stdout();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

/// Reads the three documents.
async fn look(listener: &AdminListener) -> anyhow::Result<Status> {
    // 503 while the server is not ready, with the same body.
    let (_, body) = listener.get("/readyz").await?;
    let Ok(readiness) = serde_json::from_str::<Value>(&body) else {
        bail!("/readyz is no JSON; this is not the admin listener of a grantd")
    };
    let (_, metrics) = listener.get("/metrics").await?;
    let recent: Document = listener.document("/v1/refusals").await?;
    let now = Clock::System.now();
    let text = |name: &str| readiness.get(name).and_then(Value::as_str).map(str::to_owned);
    let checks = readiness.get("checks").and_then(Value::as_object);
    let failing = checks
        .into_iter()
        .flatten()
        .filter_map(|(name, check)| Some((name.clone(), check.get("reason")?.as_str()?.to_owned())));
    let mut refused = BTreeMap::new();
    for refusal in recent.refusals.iter().take_while(|refusal| refusal.at >= now.0 - RECENT) {
        *refused.entry(refusal.reason.clone()).or_insert(0) += 1;
    }
    let expires = samples(&metrics, "grantd_credential_expires_seconds");
    Ok(Status {
        replica: recent.replica,
        version: samples(&metrics, "grantd_build_info")
            .find_map(|(labels, _)| label(labels, "version"))
            .unwrap_or_default(),
        ready: readiness.get("ready").and_then(Value::as_bool).unwrap_or(false),
        not_ready: failing.collect(),
        uptime_seconds: first(&metrics, "process_start_time_seconds").map(|started| now.0 - started),
        clients: first(&metrics, "grantd_registry_clients").unwrap_or(0),
        registry_age_seconds: readiness.get("registry_age_seconds").and_then(Value::as_f64),
        registry_trouble: text("registry_trouble"),
        standby: readiness.get("standby").and_then(Value::as_bool).unwrap_or(false),
        clock_skew_seconds: readiness.get("clock_skew_seconds").and_then(Value::as_i64),
        database_write_trouble: text("database_write_trouble"),
        database_write_failures: first(&metrics, "grantd_database_write_failures_total").unwrap_or(0),
        signing_keys: readiness.get("signing_keys").and_then(Value::as_array).cloned().unwrap_or_default(),
        tokens_issued: samples(&metrics, "grantd_token_requests_total")
            .filter(|(labels, _)| label(labels, "result").as_deref() == Some("issued"))
            .map(|(_, value)| value)
            .sum(),
        tokens_per_second: None,
        refused,
        expires_seconds: expires.filter_map(|(labels, value)| Some((label(labels, "kind")?, value))).collect(),
    })
}

impl Status {
    fn screen(&self) -> String {
        let now = Clock::System.now();
        let mut lines = Vec::new();
        let up = self.uptime_seconds.map(|seconds| format!(", up {}", span(seconds))).unwrap_or_default();
        let state = if self.ready { "ready" } else { "NOT READY" };
        lines.push(("grantd", format!("{} on {}{up}: {state}", self.version, self.replica)));
        lines.extend(self.not_ready.iter().map(|(check, reason)| ("", format!("{check}: {reason}"))));
        let age = self.registry_age_seconds.map_or("never confirmed by the database".to_owned(), |age| {
            format!("confirmed by the database {age:.1} s ago")
        });
        let trouble = self.registry_trouble.as_ref().map(|trouble| format!("; {trouble}")).unwrap_or_default();
        lines.push(("registry", format!("{} clients, {age}{trouble}", self.clients)));
        lines.push((
            "clock",
            match self.clock_skew_seconds {
                Some(0) => "agrees with the database's".to_owned(),
                Some(ahead) if ahead < 0 => format!("{} behind the database's", span(-ahead)),
                Some(ahead) => format!("{} ahead of the database's", span(ahead)),
                None => "not compared yet".to_owned(),
            },
        ));
        let standby = if self.standby { "; it is a standby" } else { "" };
        lines.push((
            "database",
            match &self.database_write_trouble {
                Some(trouble) => format!("WRITES FAIL: {trouble}{standby}"),
                None => format!("writes succeed, {} failed since the start{standby}", self.database_write_failures),
            },
        ));
        let mut names = std::iter::once("keys").chain(std::iter::repeat(""));
        let keys = self.signing_keys.iter().map(|key| key_line(key, now));
        lines.extend(keys.map(|line| (names.next().unwrap_or_default(), line)));
        let rate = self.tokens_per_second.map(|rate| format!("{rate:.1} a second, ")).unwrap_or_default();
        lines.push(("tokens", format!("{rate}{} since the start", self.tokens_issued)));
        let refused: Vec<String> = self.refused.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        let refused = if refused.is_empty() {
            "nothing in the last 5 min".to_owned()
        } else {
            format!("{} in the last 5 min; `grantd explain` says why", refused.join(", "))
        };
        lines.push(("refused", refused));
        let mut ends: Vec<(&String, &i64)> = self.expires_seconds.iter().collect();
        ends.sort_by_key(|(_, seconds)| **seconds);
        let ends = ends.into_iter().map(|(kind, seconds)| match seconds {
            0.. => format!("{kind} in {}", span(*seconds)),
            _ => format!("{kind} EXPIRED {} ago", span(-*seconds)),
        });
        let ends: Vec<String> = ends.collect();
        lines.push(("ends next", if ends.is_empty() { "nothing expires".to_owned() } else { ends.join(", ") }));
        let lines: Vec<String> = lines.iter().map(|(name, text)| format!("{name:9}  {}", one_line(text))).collect();
        lines.join("\n")
    }
}

fn key_line(key: &Value, now: UnixTime) -> String {
    let text = |name: &str| key.get(name).and_then(Value::as_str).unwrap_or_default();
    let seconds = |name: &str| key.get(name).and_then(Value::as_i64).map(|at| at.saturating_sub(now.0));
    let changes = match (text("state"), seconds("changes_at").map(span)) {
        ("active", Some(changes)) => format!("signs; the next key does in {changes}"),
        ("active", None) => match seconds("rotation_due_at") {
            Some(left @ 0..) => format!("signs; rotates in {}", span(left)),
            Some(over) => format!("signs; ROTATION OVERDUE for {}", span(-over)),
            None => "signs; no next key".to_owned(),
        },
        ("next", Some(changes)) => format!("next; signs in {changes}"),
        ("retiring", Some(changes)) => format!("retiring; published for {changes} more"),
        (state, _) => state.to_owned(),
    };
    format!("{} {}  {changes}", text("alg"), text("kid"))
}

/// The samples of a metric in the text format of Prometheus: the labels, and the value without its fraction.
fn samples<'a>(metrics: &'a str, name: &'a str) -> impl Iterator<Item = (&'a str, i64)> {
    metrics.lines().filter_map(move |line| {
        let rest = line.strip_prefix(name).filter(|rest| rest.starts_with(['{', ' ']))?;
        let (labels, value) = rest.rsplit_once(' ')?;
        // A line without a number is no sample.
        Some((labels, whole(value.parse().ok()?)))
    })
}

#[expect(clippy::cast_possible_truncation, reason = "counts and seconds are far below 2^53")]
fn whole(value: f64) -> i64 {
    value as i64
}

fn first(metrics: &str, name: &str) -> Option<i64> {
    samples(metrics, name).next().map(|(_, value)| value)
}

/// The value of a label. Labels of grantd are from closed lists, without quotation marks.
fn label(labels: &str, name: &str) -> Option<String> {
    let (_, rest) = labels.split_once(&format!("{name}=\""))?;
    rest.split('"').next().map(str::to_owned)
}

/// Time between the two looks that tell the tokens a second.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Time between two screens.
const PAUSE: Duration = Duration::from_secs(2);
/// Seconds for which refusals are counted.
const RECENT: i64 = 300;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_read_by_their_whole_name() {
        let text =
            "# HELP a b\na_total{x=\"1\",y=\"two\"} 5\na_total{x=\"2\",y=\"three\"} 7.9\na_total_more 9\nb -1.5\n";
        let all: Vec<_> =
            samples(text, "a_total").map(|(labels, value)| (label(labels, "y").unwrap(), value)).collect();
        assert_eq!(all, [("two".to_owned(), 5), ("three".to_owned(), 7)]);
        assert_eq!((first(text, "b"), first(text, "c")), (Some(-1), None));
    }
}
