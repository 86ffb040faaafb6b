//! HTTP/1.1 (RFC 9112): requests as bytes, and the parser of answers.

use std::ops::Range;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

/// An answer: its status, the header fields that matter here, and where its body is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// `Retry-After`, in seconds.
    pub retry_after: Option<u32>,
    /// `max-age` of `Cache-Control`, in seconds.
    pub max_age: Option<u32>,
    /// Whether the server closes the connection after this answer.
    pub close: bool,
    /// Range of the body in the bytes that were received.
    pub body: Range<usize>,
}

/// Result of parsing the bytes received so far.
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed {
    /// More bytes are needed.
    Partial,
    /// The bytes are not one HTTP/1 answer.
    Malformed,
    /// The answer is complete.
    Whole(Answer),
}

/// Parses one answer; `ended` says that the server has closed the connection.
#[must_use]
pub fn parse(bytes: &[u8], ended: bool) -> Parsed {
    let mut fields = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Response::new(&mut fields);
    let start = match head.parse(bytes) {
        Ok(httparse::Status::Complete(start)) => start,
        Ok(httparse::Status::Partial) if bytes.len() <= MAX_HEAD => return Parsed::Partial,
        _ => return Parsed::Malformed,
    };
    let Some(status) = head.code else { return Parsed::Malformed };
    let (mut length, mut chunked, mut close, mut retry_after, mut max_age) = (None, false, ended, None, None);
    for field in &*head.headers {
        let value = std::str::from_utf8(field.value).unwrap_or_default().trim();
        let is = |name: &str| field.name.eq_ignore_ascii_case(name);
        if is("content-length") {
            let Ok(bytes) = value.parse::<usize>() else { return Parsed::Malformed };
            length = Some(bytes);
        } else if is("transfer-encoding") {
            chunked = value.eq_ignore_ascii_case("chunked");
        } else if is("connection") {
            close |= value.eq_ignore_ascii_case("close");
        } else if is("retry-after") {
            retry_after = value.parse().ok();
        } else if is("cache-control") {
            max_age = value.rsplit_once("max-age=").and_then(|(_, seconds)| seconds.parse().ok());
        }
    }
    let end = match (length, chunked) {
        (Some(length), false) => start + length,
        // Only the last chunk is looked for: tokens have lengths, only rare refusals are chunked.
        (None, true) if bytes.ends_with(b"0\r\n\r\n") => bytes.len(),
        (None, false) if matches!(status, 204 | 304) => start,
        // RFC 9112 §6.3: "the message body length is determined by the number of octets received prior to the server
        // closing the connection."
        (None, false) if ended => bytes.len(),
        (None, _) => return Parsed::Partial,
        (Some(_), true) => return Parsed::Malformed,
    };
    match bytes.len().cmp(&end) {
        std::cmp::Ordering::Less => Parsed::Partial,
        std::cmp::Ordering::Equal => Parsed::Whole(Answer { status, retry_after, max_age, close, body: start..end }),
        std::cmp::Ordering::Greater => Parsed::Malformed,
    }
}

/// A request with a body of that media type.
#[must_use]
pub fn request(method: &str, path: &str, fields: &[(&str, &str)], media_type: &str, body: &str) -> Vec<u8> {
    let fields: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!(
        "{method} {path} HTTP/1.1\r\nHost: {HOST}\r\n{fields}Content-Type: {media_type}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// `POST` of a form.
#[must_use]
pub fn post_form(path: &str, fields: &[(&str, &str)], form: &str) -> Vec<u8> {
    request("POST", path, fields, "application/x-www-form-urlencoded", form)
}

/// `POST` of a form with HTTP Basic. The id and the secret consist of characters that form-encode to themselves.
#[must_use]
pub fn post_basic(path: &str, client_id: &str, secret: &str, form: &str) -> Vec<u8> {
    post_form(path, &[("Authorization", &basic(client_id, secret))], form)
}

/// A token request with HTTP Basic.
#[must_use]
pub fn token_request(client_id: &str, secret: &str) -> Vec<u8> {
    post_basic("/token", client_id, secret, "grant_type=client_credentials")
}

/// The value of `Authorization` for HTTP Basic (RFC 7617).
#[must_use]
pub fn basic(client_id: &str, secret: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("{client_id}:{secret}")))
}

/// `GET` with header fields.
#[must_use]
pub fn get_request(path: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    let fields: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n{fields}\r\n").into_bytes()
}

/// The request with one more header field, in front of the others.
#[must_use]
pub fn with_field(request: &[u8], name: &str, value: &str) -> Vec<u8> {
    let line = request.iter().position(|&byte| byte == b'\n').map_or(0, |end| end + 1);
    let (line, rest) = request.split_at(line);
    [line, format!("{name}: {value}\r\n").as_bytes(), rest].concat()
}

const HOST: &str = "auth.example.com";
const MAX_HEAD: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";

    fn whole(bytes: &[u8], ended: bool) -> Answer {
        match parse(bytes, ended) {
            Parsed::Whole(answer) => answer,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_answer_is_whole_when_its_last_byte_is_there_and_not_before() {
        for cut in 0..OK.len() {
            assert_eq!(parse(&OK[..cut], false), Parsed::Partial, "{cut} bytes");
        }
        let answer = whole(OK, false);
        assert_eq!((answer.status, answer.retry_after, answer.close), (200, None, false));
        assert_eq!(&OK[answer.body], b"{}");
        assert_eq!(parse(&[OK, OK].concat(), false), Parsed::Malformed);
    }

    #[test]
    fn refusals_say_when_to_come_back_and_whether_the_connection_ends() {
        let busy =
            b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length:  0\r\n\r\n";
        let answer = whole(busy, false);
        assert_eq!((answer.status, answer.retry_after, answer.close), (503, Some(1), true));
    }

    #[test]
    fn chunks_end_with_the_empty_one_and_a_body_without_a_length_with_the_connection() {
        let head = b"HTTP/1.1 400 Bad Request\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n".to_vec();
        assert_eq!(parse(&head, false), Parsed::Partial);
        assert_eq!(whole(&[head, b"0\r\n\r\n".to_vec()].concat(), false).status, 400);
        let until_closed = b"HTTP/1.0 200 OK\r\n\r\nhello";
        assert_eq!(parse(until_closed, false), Parsed::Partial);
        let answer = whole(until_closed, true);
        assert_eq!((&until_closed[answer.body], answer.close), (&b"hello"[..], true));
    }

    #[test]
    fn bytes_that_are_not_http_are_malformed() {
        let wrong: [&[u8]; 4] = [
            b"SSH-2.0-x\r\n\r\n",
            b"HTTP/1.1 abc\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n",
        ];
        for bytes in wrong {
            assert_eq!(parse(bytes, false), Parsed::Malformed, "{}", String::from_utf8_lossy(bytes));
        }
        let endless = [b"HTTP/1.1 200 OK\r\nx: ", &[b'x'; MAX_HEAD][..]].concat();
        assert_eq!(parse(&endless, false), Parsed::Malformed);
    }

    #[test]
    fn a_token_request_carries_its_credentials_and_its_length() {
        let text = String::from_utf8(with_field(&token_request("a", "b"), "DPoP", "c")).unwrap();
        assert!(text.starts_with("POST /token HTTP/1.1\r\nDPoP: c\r\nHost: "), "{text}");
        assert!(text.contains("Authorization: Basic YTpi\r\n"), "{text}");
        assert!(text.ends_with("Content-Length: 29\r\n\r\ngrant_type=client_credentials"), "{text}");
    }
}
