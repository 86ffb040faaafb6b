//! Escapes text for terminals and log readers: characters that are not visible are written as escapes.
//!
//! Text from outside reaches every output: a `kid` of a token, a label, a name in a certificate. Control characters
//! control a terminal; direction marks and zero-width characters make a text look like another (Unicode TR 36).

use std::borrow::Cow;
use std::fmt;
use std::io;

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, Serializer};
use tracing::field::Field;
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{Writer, debug_fn};

/// Whether `character` is written without an escape: a space or a visible character that does not change those around
/// it.
#[must_use]
pub fn is_printable(character: char) -> bool {
    match character {
        ' '..='~' => true,
        // Soft hyphen, grapheme joiner, Arabic letter mark, fillers, vowel separators.
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{3164}' | '\u{ffa0}'
        // Zero-width characters, direction marks, line and paragraph separators, embeddings, overrides, isolates.
        | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        // Variation selectors, the byte order mark, annotations, noncharacters.
        | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{fff0}'..='\u{fffb}' | '\u{fdd0}'..='\u{fdef}'
        // Notation controls, tags, further variation selectors.
        | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}' => false,
        other => !other.is_control() && u32::from(other) & 0xfffe != 0xfffe,
    }
}

/// Returns `text` on one line: every character that is not [printable](is_printable) is escaped, also line ends.
#[must_use]
pub fn one_line(text: &str) -> Cow<'_, str> {
    escaped(text, is_printable)
}

/// Returns `text` with its line feeds: every other character that is not [printable](is_printable) is escaped.
///
/// Only for text whose line feeds are grantd's own. Values from outside go through [`one_line`] first.
#[must_use]
pub fn lines(text: &str) -> Cow<'_, str> {
    escaped(text, |character| character == '\n' || is_printable(character))
}

fn escaped(text: &str, stays: impl Fn(char) -> bool) -> Cow<'_, str> {
    if text.chars().all(&stays) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if stays(character) {
            safe.push(character);
        } else {
            safe.extend(character.escape_unicode());
        }
    }
    Cow::Owned(safe)
}

/// Writes `character` as a JSON escape, `\u` and four hexadecimal digits (RFC 8259 section 7).
pub fn json_escape(character: char, out: &mut Vec<u8>) {
    for unit in character.encode_utf16(&mut [0; 2]) {
        out.extend_from_slice(b"\\u");
        for shift in [12, 8, 4, 0] {
            let digit = char::from_digit(u32::from(*unit) >> shift & 0xf, 16).unwrap_or('0');
            out.push(u8::try_from(digit).unwrap_or(b'0'));
        }
    }
}

/// Serialises `value` as one line of JSON in which every character is [printable](is_printable). It reads back as the
/// same value.
///
/// # Errors
/// The errors of the value's serialisation.
pub fn json(value: &impl Serialize) -> serde_json::Result<String> {
    let mut out = Vec::new();
    value.serialize(&mut Serializer::with_formatter(&mut out, PrintableFormatter))?;
    String::from_utf8(out).map_err(serde::ser::Error::custom)
}

/// Compact JSON formatter with more escapes.
struct PrintableFormatter;

impl Formatter for PrintableFormatter {
    fn write_string_fragment<W: io::Write + ?Sized>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        if fragment.chars().all(is_printable) {
            return CompactFormatter.write_string_fragment(writer, fragment);
        }
        let mut out = Vec::with_capacity(fragment.len() + 16);
        for character in fragment.chars() {
            if is_printable(character) {
                out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            } else {
                json_escape(character, &mut out);
            }
        }
        writer.write_all(&out)
    }
}

/// Returns the formatter of an event's fields in the text format of the log, with escapes.
#[must_use]
pub fn fields() -> impl for<'w> FormatFields<'w> + Send + Sync + 'static {
    debug_fn(|writer: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug| {
        let value = format!("{value:?}");
        if field.name() == "message" {
            writer.write_str(&one_line(&value))
        } else {
            write!(writer, "{}={}", field.name(), one_line(&value))
        }
    })
    .delimited(" ")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    /// One of each kind that a terminal or a reader takes for something else.
    const HOSTILE: &str = "\0\t\r\u{1b}[2J\u{7f}\u{85}\u{9b}\u{ad}\u{61c}\u{200b}\u{200d}\u{200e}\u{200f}\u{2028}\u{2029}\u{202a}\u{202e}\u{2060}\u{2066}\u{2069}\u{feff}\u{e0041}";

    #[test]
    fn only_visible_text_is_left_unescaped() {
        let plain = "Zoë, 日本語, العربية, עברית, \u{1f600} \"quoted\" \\";
        assert_eq!((one_line(plain), lines(plain)), (plain.into(), plain.into()));
        let escaped = one_line(HOSTILE);
        assert!(escaped.chars().all(|character| matches!(character, ' '..='~')), "{escaped}");
        assert!(escaped.contains("\\u{202e}") && escaped.contains("\\u{1b}[2J"), "{escaped}");
        assert_eq!(one_line("a\nb"), "a\\u{a}b");
        assert_eq!(lines("a\nb\r\n"), "a\nb\\u{d}\n");
    }

    #[test]
    fn json_is_printable_and_reads_back() {
        let value = serde_json::json!({"iss": HOSTILE, HOSTILE: ["\"\\\n", "日本語"]});
        let text = json(&value).unwrap();
        assert!(text.chars().all(is_printable), "{text}");
        assert!(text.contains("\\u202e") && text.contains("\\u009b") && text.contains("\\udb40\\udc41"), "{text}");
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
        assert_eq!(json(&serde_json::json!({"a": [1, "x"]})).unwrap(), r#"{"a":[1,"x"]}"#);
    }

    proptest! {
        #[test]
        fn any_text_is_printable_once_escaped(text in any::<String>()) {
            prop_assert!(one_line(&text).chars().all(is_printable));
            let json = json(&text).unwrap();
            prop_assert!(json.chars().all(is_printable));
            prop_assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
        }
    }
}
