//! Times as zTOCs hold them: RFC 3339 text, in UTC when we write it, with any offset when we read it.

use crate::model::Timestamp;

const DAY: i64 = 86_400;

/// Days since 1970-01-01 of a date in the Gregorian calendar; months from 1, days from 1.
fn days(year: i64, month: i64, day: i64) -> i64 {
    // Years are counted from March, so that a leap day is the last of its year, in cycles of 400 years.
    let year = if month <= 2 { year - 1 } else { year };
    let cycle = year.div_euclid(400);
    let year = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    cycle * 146_097 + year * 365 + year / 4 - year / 100 + day_of_year - 719_468
}

/// Year, month and day of a number of days since 1970-01-01.
fn date(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let cycle = days.div_euclid(146_097);
    let day = days.rem_euclid(146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (cycle * 400 + year + i64::from(month <= 2), month, day)
}

/// The text of `time`; empty where the text can't say it, as the Go tool has it.
pub(super) fn format(time: Option<Timestamp>) -> String {
    let Some(Timestamp { seconds, nanoseconds }) =
        time.filter(|time| Timestamp::YEARS.contains(&time.seconds))
    else {
        return String::new();
    };
    let (year, month, day) = date(seconds.div_euclid(DAY));
    let second = seconds.rem_euclid(DAY);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let mut text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    if nanoseconds != 0 {
        let fraction = format!(".{nanoseconds:09}");
        text.push_str(fraction.trim_end_matches('0'));
    }
    text.push('Z');
    text
}

/// The number that exactly `N` digits at the start of `text` make, and what follows them.
fn digits<const N: usize>(text: &[u8]) -> Option<(i64, &[u8])> {
    let (number, rest) = text.split_at_checked(N)?;
    let value = number
        .iter()
        .try_fold(0, |value, byte| byte.is_ascii_digit().then(|| value * 10 + i64::from(byte - b'0')))?;
    Some((value, rest))
}

fn after(mark: u8, text: &[u8]) -> Option<&[u8]> {
    text.split_first().filter(|(first, _)| **first == mark).map(|(_, rest)| rest)
}

/// The time that `text` says, or `None` when it is no RFC 3339 time.
pub(super) fn parse(text: &[u8]) -> Option<Timestamp> {
    let (year, text) = digits::<4>(text)?;
    let (month, text) = digits::<2>(after(b'-', text)?)?;
    let (day, text) = digits::<2>(after(b'-', text)?)?;
    let (hour, text) = digits::<2>(after(b'T', text)?)?;
    let (minute, text) = digits::<2>(after(b':', text)?)?;
    let (second, mut text) = digits::<2>(after(b':', text)?)?;
    let mut nanoseconds = 0;
    if let Some(fraction) = after(b'.', text) {
        let count = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if count == 0 {
            return None;
        }
        let (fraction, rest) = fraction.split_at(count);
        let padded = fraction.iter().copied().chain(std::iter::repeat(b'0')).take(9);
        nanoseconds = padded.fold(0, |value, byte| value * 10 + u32::from(byte - b'0'));
        text = rest;
    }
    let offset = match text.split_first()? {
        (b'Z', []) => 0,
        (sign @ (b'+' | b'-'), zone) => {
            let (hours, zone) = digits::<2>(zone)?;
            let (minutes, zone) = digits::<2>(after(b':', zone)?)?;
            if !zone.is_empty() || hours > 24 || minutes > 59 {
                return None;
            }
            let offset = hours * 3600 + minutes * 60;
            if *sign == b'-' { -offset } else { offset }
        }
        _ => return None,
    };
    let at = days(year, month, day);
    // A date that isn't in the calendar (the 30th of February) doesn't come back as itself.
    if !(1..=12).contains(&month) || date(at) != (year, month, day) || hour > 23 || minute > 59 || second > 59
    {
        return None;
    }
    Some(Timestamp { seconds: at * DAY + hour * 3600 + minute * 60 + second - offset, nanoseconds })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_survive_as_text() {
        for (seconds, nanoseconds, text) in [
            (0, 0, "1970-01-01T00:00:00Z"),
            (-1, 999_999_999, "1969-12-31T23:59:59.999999999Z"),
            (951_782_400, 500_000_000, "2000-02-29T00:00:00.5Z"),
            (4_107_542_400, 1_000, "2100-03-01T00:00:00.000001Z"),
            (-62_135_596_800, 0, "0001-01-01T00:00:00Z"),
            (Timestamp::YEARS.start, 0, "0000-01-01T00:00:00Z"),
            (Timestamp::YEARS.end - 1, 0, "9999-12-31T23:59:59Z"),
        ] {
            let time = Timestamp { seconds, nanoseconds };
            assert_eq!(format(Some(time)), text);
            assert_eq!(parse(text.as_bytes()), Some(time), "{text}");
        }
    }

    #[test]
    fn years_of_five_digits_have_no_text() {
        for seconds in [Timestamp::YEARS.start - 1, Timestamp::YEARS.end, i64::MIN, i64::MAX] {
            assert_eq!(format(Some(Timestamp { seconds, nanoseconds: 0 })), "", "{seconds}");
        }
    }

    #[test]
    fn zones_are_read_as_instants() {
        for (text, seconds) in [
            ("1970-01-01T01:00:00+01:00", 0),
            ("1969-12-31T23:30:00-00:30", 0),
            ("2024-06-01T12:00:00.1234567891+02:00", 1_717_236_000),
        ] {
            assert_eq!(parse(text.as_bytes()).map(|time| time.seconds), Some(seconds), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_none() {
        for text in [
            "",
            "1970-01-01",
            "1970-01-01T00:00:00",
            "1970-02-30T00:00:00Z",
            "1970-13-01T00:00:00Z",
            "1970-00-01T00:00:00Z",
            "1970-01-01T24:00:00Z",
            "1970-01-01T00:00:60Z",
            "1970-01-01T00:00:00.Z",
            "1970-01-01T00:00:00Zx",
            "1970-01-01T00:00:00+1:00",
            "+970-01-01T00:00:00Z",
        ] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
    }
}
