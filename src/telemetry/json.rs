//! Events as JSON, one object per line. Every token writes one, so events are written without an intermediate value.

use std::cell::{Cell, RefCell};
use std::fmt::{self, Write as _};
use std::time::{SystemTime, UNIX_EPOCH};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::lines::Lines;
use super::printable::{is_printable, json_escape};
use crate::model::time::UnixTime;

/// Layer that writes events as JSON.
#[derive(Debug)]
pub struct Json(pub Lines);

impl<S: Subscriber> Layer<S> for Json {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        thread_local! {
            static LINE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
        }
        // Taken, not borrowed, since writing a field may log an event itself.
        let mut line = Object(LINE.take());
        line.0.clear();
        line.0.extend_from_slice(b"{\"timestamp\":\"");
        line.timestamp();
        line.0.extend_from_slice(b"\",\"level\":\"");
        line.0.extend_from_slice(event.metadata().level().as_str().as_bytes());
        line.0.push(b'"');
        event.record(&mut line);
        line.0.extend_from_slice(b"}\n");
        self.0.put(&line.0);
        LINE.set(line.0);
    }
}

/// JSON object without its closing brace.
struct Object(Vec<u8>);

impl Object {
    /// Writes the time as RFC 3339 in UTC with microseconds.
    fn timestamp(&mut self) {
        thread_local! {
            static SECOND: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
        }
        #[expect(clippy::disallowed_methods, reason = "a line tells the machine's time, and nothing is decided by it")]
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        SECOND.with_borrow_mut(|(second, text)| {
            if *second != now.as_secs() {
                *second = now.as_secs();
                *text = UnixTime(i64::try_from(*second).unwrap_or(i64::MAX)).to_string();
            }
            self.0.extend_from_slice(text.trim_end_matches('Z').as_bytes());
        });
        let micros = now.subsec_micros();
        self.0.push(b'.');
        for place in [100_000, 10_000, 1000, 100, 10, 1] {
            self.0.push(b'0' + u8::try_from(micros / place % 10).unwrap_or(0));
        }
        self.0.push(b'Z');
    }

    fn name(&mut self, field: &Field) {
        self.0.extend_from_slice(b",\"");
        // Field names come from this crate, so they need no escapes.
        self.0.extend_from_slice(field.name().as_bytes());
        self.0.extend_from_slice(b"\":");
    }

    fn bare(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        self.name(field);
        // Writing into memory does not fail.
        self.write_fmt(value).unwrap_or_default();
    }
}

impl Visit for Object {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.name(field);
        self.0.push(b'"');
        self.write_str(value).unwrap_or_default();
        self.0.push(b'"');
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.name(field);
        self.0.push(b'"');
        self.write_fmt(format_args!("{value:?}")).unwrap_or_default();
        self.0.push(b'"');
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.bare(field, format_args!("{value}"));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.bare(field, format_args!("{value}"));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.bare(field, format_args!("{value}"));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        if value.is_finite() {
            self.bare(field, format_args!("{value}"));
        } else {
            self.bare(field, format_args!("null"));
        }
    }
}

/// Writes text between the quotes of a JSON string (RFC 8259 section 7), with escapes for everything that a terminal or
/// a line reader could misinterpret.
impl fmt::Write for Object {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // Looking at all bytes takes vector instructions, a search branches at each.
        let escaped = |byte| !matches!(byte, b' '..=b'~') || matches!(byte, b'"' | b'\\');
        if text.bytes().fold(0, |found, byte| found | u8::from(escaped(byte))) == 0 {
            self.0.extend_from_slice(text.as_bytes());
            return Ok(());
        }
        for character in text.chars() {
            match character {
                '"' | '\\' => self.0.extend_from_slice(&[b'\\', u8::try_from(character).unwrap_or(b'?')]),
                '\n' => self.0.extend_from_slice(b"\\n"),
                hidden if !is_printable(hidden) => json_escape(hidden, &mut self.0),
                other => self.0.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use proptest::prelude::*;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::super::lines::tests::Channel;
    use super::*;

    fn written(events: impl FnOnce()) -> String {
        let (sender, receiver) = mpsc::channel();
        let (lines, writer) = Lines::to(Channel(sender)).unwrap();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(Json(lines)), events);
        drop(writer);
        String::from_utf8(receiver.try_iter().flatten().collect()).unwrap()
    }

    #[test]
    fn an_event_is_one_json_object_on_one_line_whatever_it_contains() {
        let hostile = "a\"\\\r\n\t\u{1b}[2J\u{7f}\u{85}\u{200e}\u{2028}\u{202e}\u{2066}é\u{1f600}\u{e0041}";
        let text = written(|| {
            tracing::warn!(event = "x", client_id = hostile, n = 1_u64, i = -1_i64, b = true, f = 0.5, nan = f64::NAN, absent = None::<&str>, shown = %hostile, "said {}", "so");
        });
        assert!(text.ends_with('\n') && text.lines().count() == 1);
        assert!(text.trim_end().chars().all(is_printable), "{text:?}");
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&line["client_id"], &line["shown"]), (&hostile.into(), &hostile.into()));
        assert_eq!(
            (&line["n"], &line["i"], &line["b"], &line["f"]),
            (&1.into(), &(-1).into(), &true.into(), &0.5.into())
        );
        assert!(line["nan"].is_null() && line.get("absent").is_none());
        assert_eq!(
            (&line["message"], &line["level"], &line["event"]),
            (&"said so".into(), &"WARN".into(), &"x".into())
        );
        let timestamp = line["timestamp"].as_str().unwrap();
        assert!(humantime::parse_rfc3339(timestamp).is_ok() && timestamp.len() == 27, "{timestamp}");
    }

    proptest! {
        #[test]
        fn any_text_reads_back(text in any::<String>()) {
            let line = written(|| tracing::info!(text));
            prop_assert_eq!(line.lines().count(), 1);
            let line: serde_json::Value = serde_json::from_str(&line).unwrap();
            prop_assert_eq!(line["text"].as_str(), Some(text.as_str()));
        }
    }
}
