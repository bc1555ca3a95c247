//! Why one try failed, and whether another can help. `retry` makes the user's [`crate::Error`] of the last one.
//!
//! Text from outside (a registry's message, an HTTP library's) passes [`scrub`] before it gets into a message: no query
//! string, no secret that was sent, no control character, no novel.

use std::error::Error as _;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, StatusCode};
use reqwest::Url;

use crate::ErrorKind;
use crate::limits::MAX_MESSAGE;

/// Whether another try can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Retry {
    /// It would fail the same way.
    No,
    /// Once, after the usual wait: what is wrong may be a cache or proxy that another connection passes by.
    Once,
    /// After the usual wait.
    Yes,
    /// After this long at least: the server said so.
    After(Duration),
}

/// One failed try.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    /// The class.
    pub(crate) kind: ErrorKind,
    /// What went wrong; free of secrets.
    pub(crate) message: String,
    /// Whether another try can help.
    pub(crate) retry: Retry,
}

impl Failure {
    /// A failure that no other try at the same host can cure.
    pub(crate) fn lasting(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), retry: Retry::No }
    }

    /// The server isn't there, or not now.
    pub(crate) fn passing(message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Unavailable, message: message.into(), retry: Retry::Yes }
    }

    /// The bytes aren't what they should be.
    pub(crate) fn corrupt(message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Corrupt, message: message.into(), retry: Retry::Once }
    }

    /// What the HTTP library says. Its own text holds the URL with its query: only the causes below are used.
    pub(crate) fn of_reqwest(error: reqwest::Error) -> Self {
        let error = error.without_url();
        let causes = causes(&error);
        if error.is_builder() {
            return Self::lasting(ErrorKind::Invalid, format!("the request can't be made: {causes}"));
        }
        if causes.contains("certificate") {
            return Self::lasting(
                ErrorKind::Unavailable,
                format!("the server's certificate isn't trusted: {causes}; add its authority with ca_files"),
            );
        }
        if error.is_timeout() {
            return Self::passing(format!("no answer in time ({causes})"));
        }
        let doing = if error.is_connect() { "can't connect" } else { "the connection broke" };
        Self::passing(format!("{doing}: {causes}"))
    }

    /// What an answer's status means. `detail` is the registry's own message, scrubbed.
    pub(crate) fn of_status(status: StatusCode, headers: &HeaderMap, now: SystemTime, detail: &str) -> Self {
        let wait = headers
            .get(http::header::RETRY_AFTER)
            .and_then(|v| v.to_str().ok())
            .and_then(|v| retry_after(v, now));
        let again = wait.map_or(Retry::Yes, Retry::After);
        let (kind, retry) = match status.as_u16() {
            404 | 410 => (ErrorKind::NotFound, Retry::No),
            401 | 403 => (ErrorKind::Unauthorized, Retry::No),
            429 => (ErrorKind::RateLimited, again),
            408 | 425 | 500 | 502..=504 | 506..=599 => (ErrorKind::Unavailable, again),
            407 => (ErrorKind::Unavailable, Retry::No),
            416 => (ErrorKind::Corrupt, Retry::No),
            _ => (ErrorKind::Invalid, Retry::No),
        };
        let detail = if detail.is_empty() { String::new() } else { format!(": {detail}") };
        let note = match status.as_u16() {
            407 => " (the proxy wants credentials)",
            416 => " (the range lies outside the blob)",
            300..=399 => " (a redirect that isn't followed)",
            _ => "",
        };
        Self { kind, message: format!("answered {status}{note}{detail}"), retry }
    }
}

/// `Retry-After`: seconds, or an HTTP date.
pub(crate) fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse::<u32>() {
        return Some(Duration::from_secs(u64::from(seconds)));
    }
    let at = httpdate::parse_http_date(value).ok()?;
    Some(at.duration_since(now).unwrap_or_default())
}

/// The causes below an HTTP error, from the outside in, without repetition.
fn causes(error: &reqwest::Error) -> String {
    let mut texts: Vec<String> = Vec::new();
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        if !texts.iter().any(|before| before.contains(&text)) {
            texts.push(text);
        }
        source = cause.source();
    }
    if texts.is_empty() {
        texts.push(error.to_string());
    }
    scrub(&texts.join(": "), &[])
}

/// Text from outside made fit for a message: secrets and query strings out, one line, not long.
pub(crate) fn scrub(text: &str, secrets: &[String]) -> String {
    let mut text = text.to_owned();
    for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
        text = text.replace(secret.as_str(), "…");
    }
    let mut clean = String::new();
    let mut in_query = false;
    for c in text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_MESSAGE) {
        in_query = in_query && !(c.is_whitespace() || matches!(c, '"' | '\'' | '>' | ')'));
        if !in_query {
            clean.push(c);
        }
        if c == '?' {
            in_query = true;
        }
    }
    clean.trim().to_owned()
}

/// A URL as messages and logs may show it: scheme, host and port, no more. Paths and queries of signed URLs let anybody in.
pub(crate) fn shown(url: &Url) -> String {
    url.origin().ascii_serialization()
}

/// The registry's own words in an error's body (OCI distribution: `{"errors":[{"code","message"}]}`), scrubbed.
pub(crate) fn registry_message(body: &[u8], secrets: &[String]) -> String {
    let Ok(value) = serde_json::from_slice::<serde_json::Value>(body) else { return String::new() };
    let text = |value: &serde_json::Value, key: &str| {
        value.get(key).and_then(|v| v.as_str()).unwrap_or("").to_owned()
    };
    let found = match value.get("errors").and_then(|errors| errors.get(0)) {
        Some(error) => format!("{} {}", text(error, "code"), text(error, "message")),
        None => format!("{} {}", text(&value, "error"), text(&value, "message")),
    };
    scrub(&found, secrets)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn statuses_have_their_class() {
        for (status, kind, retry) in [
            (404, ErrorKind::NotFound, false),
            (401, ErrorKind::Unauthorized, false),
            (403, ErrorKind::Unauthorized, false),
            (429, ErrorKind::RateLimited, true),
            (500, ErrorKind::Unavailable, true),
            (503, ErrorKind::Unavailable, true),
            (501, ErrorKind::Invalid, false),
            (416, ErrorKind::Corrupt, false),
            (400, ErrorKind::Invalid, false),
            (302, ErrorKind::Invalid, false),
        ] {
            let status = StatusCode::from_u16(status).expect("a status");
            let failure = Failure::of_status(status, &HeaderMap::new(), SystemTime::UNIX_EPOCH, "");
            assert_eq!((failure.kind, failure.retry == Retry::Yes), (kind, retry), "{status}");
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777); // Sun, 06 Nov 1994 08:49:37 GMT
        for (text, want) in [
            ("7", Some(7)),
            (" 0 ", Some(0)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", Some(60)),
            ("Sun, 06 Nov 1994 08:49:00 GMT", Some(0)), // already past
            ("-1", None),
            ("soon", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(retry_after(text, now), want.map(Duration::from_secs), "{text}");
        }
    }

    #[test]
    fn a_registry_cannot_make_us_print_what_we_sent() {
        let body = br#"{"errors":[{"code":"DENIED","message":"you sent hunter2 to https://s3/x?X-Amz-Signature=abc \n and more"}]}"#;
        let text = registry_message(body, &["hunter2".to_owned()]);
        assert_eq!(text, "DENIED you sent … to https://s3/x?   and more");
        assert_eq!(registry_message(b"<html>", &[]), "");
    }

    proptest! {
        #[test]
        fn scrubbed_text_is_short_and_has_no_secret(text in "\\PC{0,300}", secret in "[a-z0-9]{6,12}", tail in "\\PC{0,30}") {
            let got = scrub(&format!("{text}{secret}{tail}"), std::slice::from_ref(&secret));
            prop_assert!(!got.contains(&secret));
            prop_assert!(got.chars().count() <= MAX_MESSAGE);
            prop_assert!(!got.chars().any(char::is_control));
        }
    }
}
