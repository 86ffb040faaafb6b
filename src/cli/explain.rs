//! `grantd explain`: why requests were refused, as the running server keeps it, and what to do.

mod story;

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::io::{self, Write as _};
use std::path::Path;

use anyhow::bail;
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::admin_listener::AdminListener;
use crate::config::{ConfigError, Sources};
use crate::model::time::{Clock, Span, UnixTime};
use crate::protocol::error::reason::Reason;
use crate::telemetry::printable::one_line;

use story::Story;
pub(super) use story::span;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Request id of an answer (its `x-request-id`), or a reason code to look up offline
    #[arg(value_name = "REQUEST_ID|REASON", allow_hyphen_values = true, conflicts_with_all = ["client", "reason", "since"])]
    subject: Option<String>,
    /// Only refusals of this client
    #[arg(long, value_name = "ID")]
    client: Option<String>,
    /// Only refusals for this reason, such as `wrong_secret`
    #[arg(long, value_parser = reason)]
    reason: Option<Reason>,
    /// Only refusals within this time [default: 1h, or all with --client or --reason]
    #[arg(long, value_name = "SPAN")]
    since: Option<Span>,
    /// URL of the admin listener [default: from admin.listen]
    #[arg(long, value_name = "URL")]
    admin_url: Option<String>,
}

/// The document of `GET /v1/refusals`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Document {
    pub(super) replica: String,
    pub(super) refusals: Vec<Refusal>,
}

/// A refusal in it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Refusal {
    pub(super) request_id: String,
    pub(super) at: i64,
    pub(super) client_id: Option<String>,
    pub(super) remote_addr: String,
    pub(super) reason: String,
    pub(super) detail: String,
    pub(super) remedy: String,
    pub(super) compared: Map<String, Value>,
}

impl Refusal {
    /// A text among the compared values; empty where there is none.
    fn fact(&self, name: &str) -> &str {
        self.compared.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    fn number(&self, name: &str) -> Option<i64> {
        self.compared.get(name).and_then(Value::as_i64)
    }
}

impl Arguments {
    pub(super) async fn run(
        &self,
        json: bool,
        named: Option<&Path>,
        sources: impl FnOnce() -> Result<Sources, ConfigError>,
    ) -> anyhow::Result<()> {
        let subject = self.subject.as_deref();
        if let Some(reason) = subject.and_then(Reason::named) {
            return page(json, reason);
        }
        if let Some(subject) = subject.filter(|subject| !is_request_id(subject)) {
            bail!(
                "`{subject}` is neither a request id, which has 16 characters, nor a reason code{}",
                nearest(subject)
            );
        }
        let listener = AdminListener::find(self.admin_url.as_deref(), named, sources())?;
        let mut document: Document = listener.document("/v1/refusals").await?;
        let kept = (document.refusals.len(), document.refusals.last().map(|refusal| UnixTime(refusal.at)));
        document.refusals.retain(|refusal| self.includes(refusal));
        if let Some(id) = subject
            && document.refusals.is_empty()
        {
            bail!("no refusal has the request id {id}; {}", replica_line(&document.replica, kept));
        }
        super::print(json, &document, || match (subject, document.refusals.first()) {
            (Some(_), Some(refusal)) => whole(refusal),
            _ => self.summary(&document.refusals),
        })?;
        if !json {
            writeln!(io::stderr(), "{}", one_line(&replica_line(&document.replica, kept)))?;
        }
        Ok(())
    }

    fn includes(&self, refusal: &Refusal) -> bool {
        let default = (self.subject.is_none() && self.client.is_none() && self.reason.is_none()).then_some(RECENT);
        let earliest = self.since.or(default).map(|since| Clock::System.now().0.saturating_sub(since.seconds()));
        self.subject.as_ref().is_none_or(|id| refusal.request_id == *id)
            && self.client.as_ref().is_none_or(|client| refusal.client_id.as_ref() == Some(client))
            && self.reason.is_none_or(|reason| refusal.reason == reason.as_str())
            && earliest.is_none_or(|earliest| refusal.at >= earliest)
    }

    /// The groups of refusals with one cause, the newest first.
    fn summary(&self, refusals: &[Refusal]) -> String {
        let groups = grouped(refusals);
        if groups.is_empty() {
            return match (&self.client, self.reason, self.since) {
                (None, None, None) => "Nothing was refused in the last hour. A client that fails all the same reached another replica, or none: look at its URL and at the proxy in front.".to_owned(),
                (Some(client), ..) => format!("No refusal of {} is kept here. Its requests reached another replica or none, or came without this client id: `grantd explain` shows all.", one_line(client)),
                _ => "No such refusal is kept here; `grantd explain` shows the last hour.".to_owned(),
            };
        }
        let shown: Vec<String> = groups.iter().take(GROUPS).map(Group::text).collect();
        let more = groups.len().saturating_sub(GROUPS);
        let more = if more == 0 {
            String::new()
        } else {
            format!("\n\n{more} further causes; narrow them with --client, --reason or --since.")
        };
        shown.join("\n\n") + &more
    }
}

/// Refusals of one client with one cause.
struct Group<'a> {
    /// The newest first.
    refusals: Vec<&'a Refusal>,
}

/// Groups refusals by client and cause, in the order of the newest of each. Many made-up client ids of one address are one
/// group, so that a guesser does not hide the others.
fn grouped(refusals: &[Refusal]) -> Vec<Group<'_>> {
    let mut unknown: HashMap<&str, HashSet<&Option<String>>> = HashMap::new();
    for refusal in refusals.iter().filter(|refusal| refusal.reason == Reason::UnknownClient.as_str()) {
        unknown.entry(&refusal.remote_addr).or_default().insert(&refusal.client_id);
    }
    let mut groups: Vec<Group<'_>> = Vec::new();
    let mut positions = HashMap::new();
    for refusal in refusals {
        let is_guess = refusal.reason == Reason::UnknownClient.as_str()
            && unknown.get(&*refusal.remote_addr).is_some_and(|ids| ids.len() > GUESSED_IDS);
        let who = if is_guess { Err(&refusal.remote_addr) } else { Ok(&refusal.client_id) };
        let key = (who, &refusal.reason, &refusal.detail, GROUPING.map(|name| refusal.fact(name)));
        let position = *positions.entry(key).or_insert(groups.len());
        match groups.get_mut(position) {
            Some(group) => group.refusals.push(refusal),
            None => groups.push(Group { refusals: vec![refusal] }),
        }
    }
    groups
}

impl Group<'_> {
    fn text(&self) -> String {
        let (Some(newest), Some(oldest)) = (self.refusals.first(), self.refusals.last()) else { return String::new() };
        let Story { cause, remedy } = Story::of(newest);
        let ids: BTreeSet<_> = self.refusals.iter().map(|refusal| refusal.client_id.as_deref()).collect();
        let who = match (ids.len(), &newest.client_id) {
            (1, Some(client)) => one_line(client).into_owned(),
            (1, None) => "A request without a client id".to_owned(),
            (number, _) => format!("{number} ids that no client has"),
        };
        let were = if ids.len() == 1 { "was" } else { "were" };
        let times = match self.refusals.len() {
            1 => "once".to_owned(),
            number => match newest.at.saturating_sub(oldest.at) {
                0 => format!("{number} times"),
                seconds => format!("{number} times in {}", span(seconds)),
            },
        };
        let addresses: BTreeSet<&str> = self.refusals.iter().map(|refusal| &*refusal.remote_addr).collect();
        let from = match addresses.len() {
            0..=3 => addresses.iter().copied().collect::<Vec<_>>().join(", "),
            number => format!("{number} addresses, {} the last", newest.remote_addr),
        };
        let ago = span(Clock::System.now().0.saturating_sub(newest.at));
        format!(
            "{who} {were} refused {times} from {from}: {}. {} {}\n  last {ago} ago, request {}",
            newest.reason,
            one_line(&cause),
            one_line(&remedy),
            newest.request_id
        )
    }
}

/// All that is kept of one refusal.
fn whole(refusal: &Refusal) -> String {
    let Story { cause, remedy } = Story::of(refusal);
    let client = refusal.client_id.as_deref().unwrap_or("none that can be read");
    let mut lines = vec![
        ("request", refusal.request_id.clone()),
        ("at", UnixTime(refusal.at).to_string()),
        ("client", client.to_owned()),
        ("from", refusal.remote_addr.clone()),
        ("reason", refusal.reason.clone()),
        ("detail", refusal.detail.clone()),
    ];
    for (name, value) in &refusal.compared {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        lines.push((name, if text.is_empty() { "(none)".to_owned() } else { text }));
    }
    let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let lines: Vec<String> = lines.iter().map(|(name, text)| format!("{name:width$}  {}", one_line(text))).collect();
    format!("{}\n\n{} {}", lines.join("\n"), one_line(&cause), one_line(&remedy))
}

/// Prints the reason's row of the reference.
fn page(json: bool, reason: Reason) -> anyhow::Result<()> {
    let (code, answer, meaning, remedy) = (reason.as_str(), reason.answer(), reason.meaning(), reason.remedy());
    super::print(json, &json!({"reason": code, "answer": answer, "meaning": meaning, "remedy": remedy}), || {
        format!("{code}\n  answer         {answer}\n  what happened  {meaning}\n  what to do     {remedy}")
    })
}

/// Names the replica that answered, with the number and the age of what it keeps.
fn replica_line(replica: &str, (number, oldest): (usize, Option<UnixTime>)) -> String {
    let since = oldest.map(|oldest| format!(" since {oldest}")).unwrap_or_default();
    let refusals = if number == 1 { "refusal" } else { "refusals" };
    format!(
        "replica {replica} answered: it keeps {number} {refusals}{since}; other replicas keep their own, and a restart forgets them"
    )
}

/// Whether a text has the form of a request id: twelve bytes in base64url.
fn is_request_id(text: &str) -> bool {
    text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

fn reason(text: &str) -> Result<Reason, String> {
    Reason::named(text).ok_or_else(|| format!("no such reason code{}", nearest(text)))
}

/// Names the reason codes that share a word with a text, for its error.
fn nearest(text: &str) -> String {
    let words: Vec<&str> = text.split(['_', '-', ' ']).filter(|word| word.len() > 2).collect();
    let shared = |reason: &str| words.iter().filter(|word| reason.contains(*word)).count();
    let mut found: Vec<&str> =
        Reason::ALL.iter().map(|reason| reason.as_str()).filter(|reason| shared(reason) > 0).collect();
    if found.is_empty() {
        return "; docs/reference/reasons.md lists the codes".to_owned();
    }
    found.sort_by_key(|reason| Reverse(shared(reason)));
    found.truncate(6);
    format!("; there are {}", found.join(", "))
}

/// Values that tell one cause from another of the same reason.
const GROUPING: [&str; 6] =
    ["requested_scope", "requested_resource", "kid", "secret_of_client", "credential_id", "certificate_subject"];
/// Most causes that are printed.
const GROUPS: usize = 20;
/// Unknown client ids of one address beyond which they are one cause.
const GUESSED_IDS: usize = 3;
/// The time that is looked at without options.
const RECENT: Span = Span::from_secs(3600);
