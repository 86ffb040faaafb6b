//! The log of `grantd dev` for people: one line for each request, each refusal with its remedy, and a lesson after the
//! first token.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::lines::Lines;
use super::printable::one_line;
use crate::model::event;
use crate::model::time::Clock;
use crate::protocol::error::reason::Reason;

/// The lesson that follows the first token, which is known once the server listens.
#[derive(Clone, Default)]
pub struct Tutor(Arc<OnceLock<Lesson>>);

/// Tells the lesson. It is called once.
type Lesson = Mutex<Option<Box<dyn FnOnce() + Send>>>;

impl Tutor {
    /// Sets the lesson.
    pub fn teach(&self, lesson: impl FnOnce() + Send + 'static) {
        // Set once: a server listens once.
        drop(self.0.set(Mutex::new(Some(Box::new(lesson)))));
    }

    fn first_token(&self) {
        let lesson = self.0.get().and_then(|lesson| lesson.lock().unwrap_or_else(PoisonError::into_inner).take());
        if let Some(tell) = lesson {
            tell();
        }
    }
}

/// Layer that writes events for people.
pub(super) struct TutorLayer {
    pub(super) lines: Lines,
    pub(super) tutor: Tutor,
}

impl<S: Subscriber> Layer<S> for TutorLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let Some(text) = fields.sentence(*event.metadata().level()) else { return };
        // Hours, minutes and seconds of a time in RFC 3339.
        let now = Clock::System.now().to_string();
        let line = format!("{}  {}\n", now.get(11..19).unwrap_or_default(), one_line(&text));
        self.lines.put(line.as_bytes());
        if fields.text("event") == event::Event::TokenIssued.as_str() {
            self.tutor.first_token();
        }
    }
}

/// The fields of an event.
#[derive(Debug, Default)]
struct Fields(BTreeMap<&'static str, String>);

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }
}

impl Fields {
    fn text(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    /// The line of an event; `None` for one that teaches nothing.
    fn sentence(&self, level: Level) -> Option<String> {
        use event::Event as Named;
        let name = self.text("event");
        let is = |event: Named| name == event.as_str();
        let client = match self.text("client_id") {
            "" => "a client without an id",
            id => id,
        };
        let duration = self.text("duration_us").parse::<f64>().map_or(0.0, |micros| micros / 1000.0);
        let about =
            |rest: &str| format!("{rest}  ({} from {}, {duration:.1} ms)", self.method(), self.text("remote_addr"));
        Some(if is(Named::TokenIssued) {
            let scope = match self.text("scope") {
                "" => "no scope",
                scope => scope,
            };
            about(&format!("POST /token 200: {client} got a token for {}, with {scope}", self.text("aud")))
        } else if is(Named::TokenRefused) {
            about(&format!("POST /token {}", self.refusal(client)))
        } else if is(Named::Introspection) {
            about(&format!("POST /introspect {}", self.refusal(client)))
        } else if is(Named::Revocation) {
            about(&format!("POST /revoke {}", self.refusal(client)))
        } else if is(Named::Verification) {
            format!("/verify {}  (from {}, {duration:.1} ms)", self.refusal(client), self.text("remote_addr"))
        } else if is(Named::Request) {
            let (method, path, status) = (self.text("method"), self.text("path"), self.text("status"));
            format!("{method} {path} {status}  (from {}, {duration:.1} ms)", self.text("remote_addr"))
        } else if is(Named::ClientChanged) {
            format!("client {client} was {} in the database: the server knows", self.changed())
        } else if level == Level::WARN || level == Level::ERROR {
            let message = [self.text("message"), self.text("reason")].into_iter().find(|text| !text.is_empty());
            let path = Some(self.text("path")).filter(|path| !path.is_empty()).map(|path| format!(": {path}"));
            format!(
                "{}: {}{}",
                if level == Level::WARN { "warning" } else { "error" },
                message.unwrap_or(name),
                path.unwrap_or_default()
            )
        } else {
            return None;
        })
    }

    fn changed(&self) -> &'static str {
        if self.text("what") == "gone" { "deleted" } else { "created or changed" }
    }

    fn method(&self) -> &str {
        match self.text("auth_method") {
            "" => "none",
            method => method,
        }
    }

    /// The status, the reason and the remedy of a request, or its outcome where nothing was refused.
    fn refusal(&self, client: &str) -> String {
        let reason = self.text("reason");
        let detail = self.text("detail");
        let Some(known) = Reason::ALL.iter().find(|known| known.as_str() == reason) else {
            return format!("{client}: {reason}");
        };
        let answer = known.answer().replace('`', "");
        let detail = if detail.is_empty() { known.meaning() } else { detail };
        let remedy =
            if known.remedy() == "Nothing." { String::new() } else { format!(" What to do: {}", known.remedy()) };
        let end = if detail.ends_with('.') { "" } else { "." };
        format!("{answer}: {client}, {reason}: {detail}{end}{remedy}")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use tracing_subscriber::layer::SubscriberExt as _;

    use super::super::lines::tests::Channel;
    use super::*;

    #[test]
    fn each_request_has_one_line_and_the_first_token_is_followed_by_the_lesson() {
        let (sender, receiver) = mpsc::channel();
        let (lines, writer) = Lines::to(Channel(sender)).unwrap();
        let (tutor, told) = (Tutor::default(), Arc::new(Mutex::new(0)));
        let layer = TutorLayer { lines, tutor: tutor.clone() };
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            tracing::info!(event = "listening", listener = "public");
            let told = Arc::clone(&told);
            tutor.teach(move || *told.lock().unwrap() += 1);
            tracing::warn!(
                event = "token.refused",
                reason = "wrong_secret",
                detail = "no secret of the client matches",
                client_id = "a\u{1b}[2J",
                auth_method = "client_secret_basic",
                remote_addr = "127.0.0.1",
                duration_us = 2500_u64
            );
            for _ in 0..2 {
                tracing::info!(
                    event = "token.issued",
                    client_id = "demo",
                    auth_method = "client_secret_post",
                    scope = "read:data",
                    aud = "https://api.test",
                    remote_addr = "127.0.0.1",
                    duration_us = 300_u64
                );
            }
            tracing::info!(
                event = "request",
                method = "GET",
                path = "/jwks",
                status = 200_u16,
                remote_addr = "::1",
                duration_us = 90_u64
            );
        });
        drop(writer);
        let text = String::from_utf8(receiver.try_iter().flatten().collect()).unwrap();
        let lines: Vec<&str> = text.lines().map(|line| line.get(10..).unwrap_or(line)).collect();
        let refused =
            "POST /token 401 invalid_client: a\\u{1b}[2J, wrong_secret: no secret of the client matches. What to do: ";
        assert!(
            lines[0].starts_with(refused) && lines[0].ends_with("(client_secret_basic from 127.0.0.1, 2.5 ms)"),
            "{text}"
        );
        let issued = "POST /token 200: demo got a token for https://api.test, with read:data  (client_secret_post from 127.0.0.1, 0.3 ms)";
        assert_eq!(lines[1], issued);
        assert_eq!(&lines[2..], [issued, "GET /jwks 200  (from ::1, 0.1 ms)"], "{text}");
        assert_eq!(*told.lock().unwrap(), 1, "after the first token alone");
    }
}
