//! The formats of `/metrics`: the text format of Prometheus, version 0.0.4, and OpenMetrics 1.0, by content negotiation
//! (RFC 9110 section 12.5.1).

use std::collections::HashMap;

use axum::http::{HeaderMap, header};

/// A format, as `Accept` asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// The format that every scraper reads, and the default.
    Text,
    /// The format for a scraper that prefers it.
    OpenMetrics,
}

impl Format {
    /// The format that `Accept` prefers; [`Format::Text`] when it says nothing, or nothing that there is.
    pub(super) fn accepted(headers: &HeaderMap) -> Self {
        let fields = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let (mut text, mut open) = (0, 0);
        for range in fields.flat_map(|field| field.split(',')) {
            let mut parts = range.split(';').map(str::trim);
            let media_type = parts.next().unwrap_or_default().to_ascii_lowercase();
            let parameters: HashMap<String, &str> = parts
                .filter_map(|part| part.split_once('='))
                .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().trim_matches('"')))
                .collect();
            let quality = parameters.get("q").map_or(1000, |text| quality(text));
            let version = |wanted| parameters.get("version").is_none_or(|version| *version == wanted);
            match media_type.as_str() {
                "application/openmetrics-text" if version("1.0.0") => open = open.max(quality),
                "text/plain" if version("0.0.4") => text = text.max(quality),
                "text/*" | "*/*" => text = text.max(quality.min(1)),
                _ => {}
            }
        }
        if open > text { Self::OpenMetrics } else { Self::Text }
    }

    /// The media type of the answer.
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// The metrics in this format, from OpenMetrics.
    pub(super) fn write(self, open_metrics: String) -> String {
        match self {
            Self::OpenMetrics => open_metrics,
            Self::Text => text(&open_metrics),
        }
    }
}

/// A weight (RFC 9110 section 12.4.2) in thousandths; one that is malformed counts as none.
fn quality(text: &str) -> u32 {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    match whole {
        "1" => 1000,
        "0" if digits(fraction) && fraction.len() <= 3 => format!("{fraction:0<3}").parse().unwrap_or(0),
        _ => 0,
    }
}

/// The same metrics as text of version 0.0.4: a counter's `HELP` and `TYPE` name it with `_total` as its samples do, an
/// `info` is a gauge with `_info`, and there is neither `UNIT` nor `EOF`.
fn text(open_metrics: &str) -> String {
    let types: HashMap<&str, &str> =
        open_metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    let suffix = |name: &str| match types.get(name) {
        Some(&"counter") => "_total",
        Some(&"info") => "_info",
        _ => "",
    };
    let mut text = String::with_capacity(open_metrics.len() + 1024);
    for line in open_metrics.lines() {
        let described = |keyword: &str| line.strip_prefix(keyword)?.split_once(' ');
        if let Some((name, help)) = described("# HELP ") {
            // Quotation marks are escaped in OpenMetrics alone.
            text.extend(["# HELP ", name, suffix(name), " ", &help.replace("\\\"", "\"")]);
        } else if let Some((name, kind)) = described("# TYPE ") {
            let kind = match kind {
                "info" | "stateset" => "gauge",
                "unknown" => "untyped",
                kind => kind,
            };
            text.extend(["# TYPE ", name, suffix(name), " ", kind]);
        } else if line.starts_with('#') {
            continue;
        } else {
            text.push_str(line);
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(accept: &[&str]) -> Format {
        let mut headers = HeaderMap::new();
        for value in accept {
            headers.append(header::ACCEPT, value.parse().unwrap());
        }
        Format::accepted(&headers)
    }

    #[test]
    fn the_format_is_the_one_that_accept_prefers() {
        for text in [
            &[][..],
            &["*/*"],
            &["text/plain"],
            &["text/plain; version=0.0.4"],
            &["text/html,application/xhtml+xml,*/*;q=0.8"],
            &["application/json"],
            &["application/openmetrics-text;version=1.0.0;q=0.3, text/plain;version=0.0.4;q=0.5"],
            &["application/openmetrics-text;q=0"],
            &["application/openmetrics-text; version=2.0.0, */*"],
            &["application/openmetrics-text;q=7"],
        ] {
            assert_eq!(accepted(text), Format::Text, "{text:?}");
        }
        for open in [
            &["application/openmetrics-text"][..],
            &["application/openmetrics-text; version=1.0.0; charset=utf-8"],
            &["Application/OpenMetrics-Text;version=\"1.0.0\", */*;q=0.1"],
            &["text/plain;q=0.2", "application/openmetrics-text;q=0.8"],
            // As Prometheus 3 asks.
            &[
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
            ],
        ] {
            assert_eq!(accepted(open), Format::OpenMetrics, "{open:?}");
        }
    }

    #[test]
    fn counters_and_infos_have_the_names_of_their_samples_in_text() {
        let open = "# HELP a_requests Said \\\"so\\\".\n# TYPE a_requests counter\na_requests_total{x=\"1\"} 3\n# HELP a_build What.\n# TYPE a_build info\na_build_info{version=\"1\"} 1\n# HELP s Time.\n# TYPE s histogram\n# UNIT s seconds\ns_sum 0.5\ns_count 1\ns_bucket{le=\"+Inf\"} 1\n# EOF\n";
        let text = "# HELP a_requests_total Said \"so\".\n# TYPE a_requests_total counter\na_requests_total{x=\"1\"} 3\n# HELP a_build_info What.\n# TYPE a_build_info gauge\na_build_info{version=\"1\"} 1\n# HELP s Time.\n# TYPE s histogram\ns_sum 0.5\ns_count 1\ns_bucket{le=\"+Inf\"} 1\n";
        assert_eq!(Format::Text.write(open.to_owned()), text);
        assert_eq!(Format::OpenMetrics.write(open.to_owned()), open);
    }
}
