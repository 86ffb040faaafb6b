//! Just enough HTTP/1.1 (RFC 9112) to ask grantd and read its answers from a socket we hold.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

/// What matters of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// Seconds to wait.
    pub retry_after: Option<u32>,
    /// Whether the connection ends with this answer.
    pub close: bool,
    /// Where the body is in the bytes that were read.
    pub body: std::ops::Range<usize>,
}

/// What the bytes so far are.
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed {
    Partial,
    Malformed,
    Whole(Answer),
}

/// A token request with HTTP Basic. Ids and secrets here are of characters that form-encode to themselves.
pub fn token_request(client_id: &str, secret: &str) -> Vec<u8> {
    post_request("/token", client_id, secret, "grant_type=client_credentials")
}

/// A form with HTTP Basic.
pub fn post_request(path: &str, client_id: &str, secret: &str, body: &str) -> Vec<u8> {
    let credentials = BASE64_STANDARD.encode(format!("{client_id}:{secret}"));
    format!(
        "POST {path} HTTP/1.1\r\nHost: grantd\r\nAuthorization: Basic {credentials}\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// A `GET`, after which the connection closes.
pub fn get_request(path: &str) -> Vec<u8> {
    let mut request = String::new();
    // Writing to a string does not fail.
    let _ = write!(request, "GET {path} HTTP/1.1\r\nHost: grantd\r\nConnection: close\r\n\r\n");
    request.into_bytes()
}

/// Reads one answer from the start of `bytes`. A body without a length ends with the connection and is not for keep-alive;
/// grantd sends none such to us.
pub fn parse(bytes: &[u8]) -> Parsed {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return if bytes.len() > MAX_HEAD { Parsed::Malformed } else { Parsed::Partial };
    };
    let Some(head) = bytes.get(..end).and_then(|head| std::str::from_utf8(head).ok()) else { return Parsed::Malformed };
    let mut lines = head.split("\r\n");
    let status = lines
        .next()
        .and_then(|line| line.strip_prefix("HTTP/1.1 "))
        .and_then(|rest| rest.get(..3))
        .and_then(|code| code.parse().ok());
    let Some(status) = status else { return Parsed::Malformed };
    let (mut length, mut chunked, mut close, mut retry_after) = (None, false, false, None);
    for line in lines {
        let Some((name, value)) = line.split_once(':') else { return Parsed::Malformed };
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => match value.parse::<usize>() {
                Ok(bytes) => length = Some(bytes),
                Err(_) => return Parsed::Malformed,
            },
            "transfer-encoding" => chunked = value.eq_ignore_ascii_case("chunked"),
            "connection" => close = value.eq_ignore_ascii_case("close"),
            "retry-after" => retry_after = value.parse().ok(),
            _ => {}
        }
    }
    let start = end + 4;
    let whole = match (length, chunked) {
        (Some(length), false) if bytes.len() >= start + length => start + length,
        // The last chunk is all that is looked for: tokens have lengths, only odd refusals are chunked.
        (None, true) if bytes.ends_with(b"0\r\n\r\n") => bytes.len(),
        (Some(_), false) | (None, true) => return Parsed::Partial,
        (None, false) if matches!(status, 204 | 304) => start,
        _ => return Parsed::Malformed,
    };
    Parsed::Whole(Answer { status, retry_after, close, body: start..whole })
}

const MAX_HEAD: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";

    #[test]
    fn an_answer_is_whole_when_its_last_byte_is_there_and_not_before() {
        for cut in 0..OK.len() {
            assert_eq!(parse(&OK[..cut]), Parsed::Partial, "{cut} bytes");
        }
        let Parsed::Whole(answer) = parse(OK) else { panic!("not whole") };
        assert_eq!((answer.status, answer.retry_after, answer.close), (200, None, false));
        assert_eq!(&OK[answer.body], b"{}");
    }

    #[test]
    fn refusals_say_when_to_come_back_and_whether_the_connection_ends() {
        let busy =
            b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
        let Parsed::Whole(answer) = parse(busy) else { panic!("not whole") };
        assert_eq!((answer.status, answer.retry_after, answer.close), (503, Some(1), true));
    }

    #[test]
    fn chunks_end_with_the_empty_one() {
        let head = b"HTTP/1.1 400 Bad Request\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n".to_vec();
        assert_eq!(parse(&head), Parsed::Partial);
        assert!(matches!(parse(&[head, b"0\r\n\r\n".to_vec()].concat()), Parsed::Whole(Answer { status: 400, .. })));
    }

    #[test]
    fn what_is_not_http_is_malformed() {
        let wrong: [&[u8]; 5] = [
            b"SSH-2.0-x\r\n\r\n",
            b"HTTP/1.1 abc\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n\r\nwithout a length",
        ];
        for bytes in wrong {
            assert_eq!(parse(bytes), Parsed::Malformed, "{}", String::from_utf8_lossy(bytes));
        }
        assert_eq!(parse(&vec![b'x'; MAX_HEAD + 1]), Parsed::Malformed);
    }

    #[test]
    fn a_token_request_carries_its_credentials_and_its_length() {
        let text = String::from_utf8(token_request("a", "b")).unwrap();
        assert!(text.contains("Authorization: Basic YTpi\r\n"));
        assert!(text.ends_with("Content-Length: 29\r\n\r\ngrant_type=client_credentials"));
    }
}
