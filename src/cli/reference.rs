//! `grantd reference`: writes `docs/reference` from the types and files that hold its facts. A test compares the two.

mod command_line;
mod configuration;
mod limits;
mod tables;

use std::fs;
use std::path::Path;

use anyhow::Context as _;

use crate::model::event::Event;
use crate::protocol::error::reason::Reason;
use crate::telemetry::metrics::Metric;
use crate::transport::listener::refusals::RefusalReason;

/// Writes all pages into a directory.
pub(super) async fn write(directory: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
    let pages = [
        ("cli.md", "Command line", command_line::page()),
        ("configuration.md", "Configuration", configuration::page()),
        ("reasons.md", "Reason codes", reasons()),
        ("events.md", "Log events", events()),
        ("metrics.md", "Metrics", metrics()),
        ("tables.md", "SQL tables", tables::page().await?),
        ("limits.md", "Limits", limits::page()),
    ];
    for (file, title, text) in pages {
        let path = directory.join(file);
        fs::write(&path, format!("# {title}\n\n{GENERATED}\n\n{}\n", text.trim_end()))
            .with_context(|| path.display().to_string())?;
    }
    Ok(())
}

fn reasons() -> String {
    let mut page = String::from(REASONS);
    for reason in Reason::ALL {
        page += &row(&[&code(reason.as_str()), reason.answer(), reason.meaning(), reason.remedy()]);
    }
    page += REFUSED;
    for refused in RefusalReason::ALL {
        page += &row(&[&code(refused.reason()), refused.answer(), refused.detail()]);
    }
    page
}

fn events() -> String {
    let mut page = String::from(EVENTS);
    for event in Event::ALL {
        let fields: Vec<String> = event.fields().iter().map(|field| code(field)).collect();
        page += &row(&[&code(event.as_str()), event.level(), event.meaning(), &fields.join(", ")]);
    }
    page
}

fn metrics() -> String {
    let mut page = String::from(METRICS);
    for metric in Metric::ALL {
        page += &row(&[&code(metric.sample()), metric.help()]);
    }
    page + PROCESS
}

/// A line of a table.
fn row(cells: &[&str]) -> String {
    let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|").replace('\n', " ")).collect();
    format!("| {} |\n", cells.join(" | "))
}

fn code(text: &str) -> String {
    if text.contains('`') { format!("`` {text} ``") } else { format!("`{text}`") }
}

const GENERATED: &str = "<!-- Written by `grantd reference`; change the source of the fact, not this page. -->";

const REASONS: &str = "\
The values of `reason` in the log events `token.issued`, `token.refused`, `introspection`, `revocation` and `verification`, and of the label `reason` of their metrics.

Clients see less. Every failed client authentication (401 `invalid_client`) has the same answer for the same authentication method, so that nobody learns which clients exist. Under `profile = \"fapi2\"`, which offers no HTTP Basic, these answers have the status 400 instead, unless the request had an `Authorization` field (RFC 6749 section 5.2). At `/verify`, every reason of a token or a proof is 401.

| reason | answer | what happened | what to do |
|---|---|---|---|
";

const REFUSED: &str = "
## Refused connections

The values of `reason` in the event `connection.refused` and in `grantd_connections_refused_total`. An answer has an `x-request-id` that is also in the log line.

| reason | answer | what happened, and what to do |
|---|---|---|
";

const EVENTS: &str = "\
The values of the field `event`, with the level and the further fields of their lines. Every line has `timestamp`, `level` and `event`; `message` stands on lines that need words. Secrets, hashes and tokens are in no line at any level.

| field | meaning |
|---|---|
| `reason` | of requests one of the [reason codes](reasons.md); of other events the fault in words |
| `detail` | the reason of a refusal in words |
| `client_id` | as the request names it, known or not; cut at 256 bytes |
| `auth_method` | `client_secret_basic`, `client_secret_post`, `private_key_jwt`, `tls_client_auth`, `self_signed_tls_client_auth`, or `none` before one is known |
| `credential_id` | the id of the secret, key or certificate that matched, also when it has expired or was revoked |
| `basic_reading` | `raw` when a Basic secret matched only without form-decoding |
| `token_client_id` | the client of the token that an introspection request is about |
| `remote_addr` | the address of the client, trusted proxies taken off |
| `request_id` | also in the answer, as `x-request-id` |
| `duration_us` | microseconds from the head of the request to the answer |

| event | level | when | further fields |
|---|---|---|---|
";

const METRICS: &str = "\
`GET /metrics` on the admin listener, in the text format of Prometheus (version 0.0.4), or in OpenMetrics when `Accept` prefers `application/openmetrics-text`. Every label value is from a closed list, so requests with made-up client ids add no series.

| metric | meaning |
|---|---|
";

const PROCESS: &str = "
On Linux also `process_cpu_seconds_total`, `process_resident_memory_bytes`, `process_open_fds`, `process_max_fds` and `process_start_time_seconds`.

Worth an alarm: `grantd_registry_age_seconds` above 60 or -1, `grantd_credential_expires_seconds` below 604800, `grantd_key_next_rotation_seconds` below -60, an increase of `grantd_log_lines_dropped_total`, `grantd_registry_malformed` or `grantd_secret_verifier_mismatches_total` above 0, any `reason=\"internal\"`, `reason=\"no_signing_key\"`, `reason=\"overloaded\"` or `reason=\"hashing_busy\"`, and a jump in `reason=\"wrong_secret\"` or `reason=\"unknown_client\"`.
";
