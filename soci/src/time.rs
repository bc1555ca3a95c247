//! Points in time as RFC 3339 text, in UTC: what annotations of images have. To the nanosecond, since of two indexes made
//! within a second one is the newer.

use std::time::{SystemTime, UNIX_EPOCH};

/// `time` as `2026-11-24T23:39:00Z`, with a fraction where it has one; what lies before 1970 becomes 1970.
pub fn to_rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339(time.max(UNIX_EPOCH)).to_string()
}

/// The time that `text` says, if it says one in UTC (with `Z`) from 1970 on.
pub fn from_rfc3339(text: &str) -> Option<SystemTime> {
    humantime::parse_rfc3339(text).ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_are_written_to_the_nanosecond() {
        let time = UNIX_EPOCH + Duration::from_secs(951_782_400);
        assert_eq!(to_rfc3339(time), "2000-02-29T00:00:00Z");
        assert_eq!(to_rfc3339(time + Duration::from_nanos(1)), "2000-02-29T00:00:00.000000001Z");
        assert_eq!(to_rfc3339(UNIX_EPOCH - Duration::from_secs(1)), "1970-01-01T00:00:00Z");
        assert_eq!(from_rfc3339("2000-02-29T00:00:00.5Z"), Some(time + Duration::from_millis(500)));
        for text in [
            "",
            "Z",
            "1969-12-31T23:59:59Z",
            "2024-13-01T00:00:00Z",
            "2024-01-01T00:00:00",
            "2024-01-01 00:00",
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
