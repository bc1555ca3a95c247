//! Points in time as RFC 3339 text, in UTC: what annotations of images have. To the nanosecond, since of two indexes made
//! within a second one is the newer.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

const DAY: u64 = 24 * 60 * 60;

/// Digits of a fraction that count: nanoseconds, all that a [`SystemTime`] holds.
const FRACTION: usize = 9;

/// `time` as `2026-11-24T23:39:00Z`, with as many digits of a fraction as it takes; what lies before 1970 becomes 1970.
pub fn to_rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = since.as_secs();
    let (year, month, day) = date(seconds / DAY);
    let rest = seconds % DAY;
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    let fraction = format!(".{:0FRACTION$}", since.subsec_nanos());
    let fraction = fraction.trim_end_matches('0').trim_end_matches('.');
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
}

/// The time that `text` says, if it says one in UTC (with `Z`) from 1970 on; less than a nanosecond is dropped.
pub fn from_rfc3339(text: &str) -> Option<SystemTime> {
    let bytes = text.as_bytes();
    let form = b"0000-00-00T00:00:00";
    let fits = bytes.len() > form.len()
        && form
            .iter()
            .zip(bytes)
            .all(|(want, got)| if *want == b'0' { got.is_ascii_digit() } else { want == got });
    let rest = text.get(form.len()..)?;
    let fraction = rest.strip_suffix('Z')?;
    let nanos = if fraction.is_empty() { 0 } else { nanos(fraction.strip_prefix('.')?)? };
    if !fits {
        return None;
    }
    let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<u64>().ok();
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    // 60 is a leap second.
    if year < 1970
        || !(1..=12).contains(&month)
        || !(1..=31).contains(&day)
        || hour > 23
        || minute > 59
        || second > 60
    {
        return None;
    }
    let seconds = days(year, month, day) * DAY + hour * 3600 + minute * 60 + second;
    UNIX_EPOCH.checked_add(Duration::new(seconds, nanos))
}

/// The nanoseconds that the digits after a point say.
fn nanos(digits: &str) -> Option<u32> {
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    format!("{digits:0<FRACTION$}").get(..FRACTION)?.parse().ok()
}

/// Year, month and day that lie `days` after 1970-01-01. Years are counted from March, so that the leap day ends one, in
/// eras of 400 years that have the same number of days.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468; // from 0000-03-01
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, of_year - (153 * shifted + 2) / 5 + 1)
}

/// The reverse of [`date`].
fn days(year: u64, month: u64, day: u64) -> u64 {
    let year = year - u64::from(month <= 2);
    let year_of_era = year % 400;
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    year / 400 * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_days() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"), // 2100 has no leap day
        ] {
            let time = UNIX_EPOCH + Duration::from_secs(seconds);
            assert_eq!(to_rfc3339(time), text);
            assert_eq!(from_rfc3339(text), Some(time));
        }
        let time = UNIX_EPOCH + Duration::from_millis(1999);
        for text in ["1970-01-01T00:00:01.999Z", "1970-01-01T00:00:01.9990000009Z"] {
            assert_eq!(from_rfc3339(text), Some(time), "{text}");
        }
        assert_eq!(to_rfc3339(time), "1970-01-01T00:00:01.999Z");
        for text in [
            "",
            "Z",
            "1969-12-31T23:59:59Z",
            "2024-13-01T00:00:00Z",
            "2024-01-01T00:00:00",
            "2024-01-01T00:00:00.Z",
            "2024-01-01T00:00:00.5xZ",
            "2024-01-01T00:00:00é5Z",
            "2024-01-01 00:00:00Z",
            "2024-01-0éT00:00:0Z",
        ] {
            assert_eq!(from_rfc3339(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(seconds in 0u64..253_402_300_800, nanos in 0u32..1_000_000_000) {
            let time = UNIX_EPOCH + Duration::new(seconds, nanos);
            prop_assert_eq!(from_rfc3339(&to_rfc3339(time)), Some(time));
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,30}") {
            let _ = from_rfc3339(&text);
        }
    }
}
