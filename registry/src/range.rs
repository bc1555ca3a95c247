//! `Range` and `Content-Range` (RFC 9110, 14): how a part of a blob is asked for and what the answer must say. Pure.

use std::ops::Range;

/// The value of `Range` for the bytes `range`, which isn't empty. (The header's end is inclusive, ours never is.)
pub(crate) fn header(range: &Range<u64>) -> String {
    format!("bytes={}-{}", range.start, range.end.saturating_sub(1))
}

/// What a `Content-Range` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ContentRange {
    /// The bytes that the body holds; `None` in a 416 (`bytes */123`).
    pub(crate) range: Option<Range<u64>>,
    /// Length of the whole; `None` where the server doesn't say (`*`).
    pub(crate) total: Option<u64>,
}

/// Reads `bytes FIRST-LAST/TOTAL`; `None` for anything else or anything that contradicts itself.
pub(crate) fn parse(value: &str) -> Option<ContentRange> {
    let (unit, rest) = value.trim().split_once(' ')?;
    if !unit.eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (range, total) = rest.trim().split_once('/')?;
    let total = match total.trim() {
        "*" => None,
        digits => Some(number(digits)?),
    };
    if range.trim() == "*" {
        return Some(ContentRange { range: None, total: Some(total?) });
    }
    let (first, last) = range.split_once('-')?;
    let (first, last) = (number(first.trim())?, number(last.trim())?);
    let end = last.checked_add(1)?;
    if first >= end || total.is_some_and(|total| end > total) {
        return None;
    }
    Some(ContentRange { range: Some(first..end), total })
}

/// Digits only: `u64::from_str` also takes a plus sign.
fn number(text: &str) -> Option<u64> {
    if text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn content_ranges_are_checked() {
        for (text, want) in [
            ("bytes 0-0/1", Some((Some(0..1), Some(1)))),
            ("bytes 5-9/10", Some((Some(5..10), Some(10)))),
            ("Bytes 5-9/*", Some((Some(5..10), None))),
            ("bytes */10", Some((None, Some(10)))),
            ("bytes */*", None),
            ("bytes 5-10/10", None), // past the end
            ("bytes 5-4/10", None),
            ("bytes -5/10", None),
            ("bytes +5-9/10", None),
            ("bytes 5-18446744073709551615/*", None), // the end overflows
            ("bytes=5-9/10", None),
            ("items 5-9/10", None),
            ("bytes 5-9", None),
            ("", None),
        ] {
            let got = parse(text).map(|c| (c.range, c.total));
            assert_eq!(got, want, "{text}");
        }
        assert_eq!(header(&(5..10)), "bytes=5-9");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(first in 0..u64::MAX / 2, len in 1..u64::MAX / 4, more in 0..1000u64) {
            let (end, total) = (first + len, first + len + more);
            let got = parse(&format!("bytes {first}-{}/{total}", end - 1));
            prop_assert_eq!(got, Some(ContentRange { range: Some(first..end), total: Some(total) }));
        }

        #[test]
        fn nothing_panics(text in "\\PC{0,60}|bytes [0-9*/ -]{0,60}") {
            if let Some(ContentRange { range: Some(range), total: Some(total) }) = parse(&text) {
                prop_assert!(range.start < range.end && range.end <= total);
            }
        }
    }
}
