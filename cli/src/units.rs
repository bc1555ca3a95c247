//! Sizes and durations as people write them.

use std::time::Duration;

use spandrel_ztoc::limits::MAX_SPAN_LEN;

/// A number of bytes: `4194304`, `4MiB`, `4M`, `4m`. Suffixes count by 1024, as docker's and soci's users expect.
///
/// # Errors
/// When it is no such number, or more than 64 bits hold.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, suffix) = text.split_at(digits);
    let suffix = suffix.trim_start().to_ascii_lowercase();
    let shift = match suffix.as_str() {
        "" | "b" => 0,
        "k" | "ki" | "kib" => 10,
        "m" | "mi" | "mib" => 20,
        "g" | "gi" | "gib" => 30,
        "t" | "ti" | "tib" => 40,
        _ => {
            return Err(format!(
                "unknown unit {suffix:?}: write a number of bytes, or one with K, M, G or T"
            ));
        }
    };
    let number: u64 =
        number.parse().map_err(|_| "write a number of bytes, as in 4194304 or 4MiB".to_owned())?;
    number.checked_mul(1 << shift).ok_or_else(|| "that is more than 64 bits hold".to_owned())
}

/// As [`parse_size`], and a length that a span can have.
///
/// # Errors
/// As [`parse_size`], and for 0 and what no reader holds in memory.
pub fn parse_span_size(text: &str) -> Result<u64, String> {
    match parse_size(text)? {
        0 => Err("spans need a length".to_owned()),
        size if size > MAX_SPAN_LEN => Err(format!("a span may have {MAX_SPAN_LEN} bytes at most")),
        size => Ok(size),
    }
}

/// A duration as Go's tools take it: `30s`, `1m30s`, `250ms`, and `0` or `0s` for none at all.
///
/// # Errors
/// When it is no such text.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let error = || "write a duration, as in 30s, 5m or 1h30m".to_owned();
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let (mut rest, mut sum) = (text, Duration::ZERO);
    if rest.is_empty() {
        return Err(error());
    }
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = rest.split_at(digits);
        let letters = after.bytes().take_while(u8::is_ascii_lowercase).count();
        let (unit, after) = after.split_at(letters);
        let millis: u64 = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return Err(error()),
        };
        let number: u64 = number.parse().map_err(|_| error())?;
        let part = number.checked_mul(millis).map(Duration::from_millis);
        sum = part.and_then(|part| sum.checked_add(part)).ok_or_else(error)?;
        rest = after;
    }
    Ok(sum)
}

/// A duration in whole seconds as Go prints it: `0s`, `59s`, `1m5s`, `26h0m0s`.
pub fn go_duration(duration: Duration) -> String {
    let seconds = (duration + Duration::from_millis(500)).as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds}s"),
        _ => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, want) in [
            ("0", Some(0)),
            ("4194304", Some(4 << 20)),
            ("4MiB", Some(4 << 20)),
            ("4 m", Some(4 << 20)),
            ("10k", Some(10 << 10)),
            ("1Gi", Some(1 << 30)),
            ("17T", Some(17 << 40)),
            ("", None),
            ("M", None),
            ("-1", None),
            ("1.5M", None),
            ("4MB", None), // a million or 1024 times 1024: nobody knows
            ("18446744073709551616", None),
            ("16777216T", None),
        ] {
            assert_eq!(parse_size(text).ok(), want, "{text:?}");
        }
        assert!(parse_span_size("0").is_err());
        assert_eq!(parse_span_size("1G"), Ok(1 << 30));
        assert!(parse_span_size("1073741825").is_err());
    }

    #[test]
    fn durations() {
        for (text, want) in [
            ("0", Some(0)),
            ("0s", Some(0)),
            ("30s", Some(30_000)),
            ("1h30m", Some(5_400_000)),
            ("250ms", Some(250)),
            ("", None),
            ("5", None),
            ("s", None),
            ("5d", None),
            ("99999999999999999999s", None),
        ] {
            assert_eq!(parse_duration(text).ok(), want.map(Duration::from_millis), "{text:?}");
        }
        for (millis, want) in
            [(0, "0s"), (499, "0s"), (500, "1s"), (59_499, "59s"), (65_000, "1m5s"), (93_600_000, "26h0m0s")]
        {
            assert_eq!(go_duration(Duration::from_millis(millis)), want);
        }
    }
}
