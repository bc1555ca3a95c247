//! Values of the configuration that have a unit: times and sizes, written as text (`"5m"`, `"10MiB"`).

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Longest time that a key takes, in seconds: a year. More is a mistake, and adds up to overflows elsewhere.
const MAX_SECONDS: u64 = 365 * 24 * 60 * 60;

/// Units of time in milliseconds, the largest first.
const TIME_UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// Units of size in bytes, the largest first.
const SIZE_UNITS: [(&str, u64); 5] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// A length of time: a whole number with `ms`, `s`, `m` or `h` behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Time(pub Duration);

/// A size: a whole number with `B`, `KiB`, `MiB`, `GiB` or `TiB` behind it, or of bytes with nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "SizeText", into = "String")]
pub struct Size(pub u64);

/// A size may be a number in TOML too.
#[derive(Deserialize)]
#[serde(untagged)]
enum SizeText {
    Number(u64),
    Text(String),
}

/// Splits into the number and what follows it.
fn split(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..end].parse().ok()?, text[end..].trim_start()))
}

impl FromStr for Time {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("{text:?} is no time: write a whole number and ms, s, m or h, for example \"30s\"");
        let (number, unit) = split(text).ok_or_else(wrong)?;
        let (_, millis) = TIME_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
        let millis = number.checked_mul(*millis).filter(|millis| *millis <= MAX_SECONDS * 1000);
        millis
            .map(|millis| Self(Duration::from_millis(millis)))
            .ok_or_else(|| format!("{text:?} is over a year"))
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!("{text:?} is no size: write a whole number and KiB, MiB or GiB, for example \"10MiB\"")
        };
        let (number, unit) = split(text).ok_or_else(wrong)?;
        let unit = if unit.is_empty() { "B" } else { unit };
        let (_, bytes) = SIZE_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
        number.checked_mul(*bytes).map(Self).ok_or_else(|| format!("{text:?} doesn't fit 64 bits"))
    }
}

/// `number` in the largest of `units` that needs no fraction.
fn in_units(number: u64, units: &[(&str, u64)]) -> String {
    let fits = |unit: &&(&str, u64)| number.is_multiple_of(unit.1) && number >= unit.1;
    let (name, value) = units.iter().find(fits).or(units.last()).copied().unwrap_or(("", 1));
    format!("{}{name}", number / value)
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&in_units(u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX), &TIME_UNITS))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&in_units(self.0, &SIZE_UNITS))
    }
}

impl TryFrom<String> for Time {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Time> for String {
    fn from(time: Time) -> Self {
        time.to_string()
    }
}

impl TryFrom<SizeText> for Size {
    type Error = String;

    fn try_from(text: SizeText) -> Result<Self, String> {
        match text {
            SizeText::Number(bytes) => Ok(Self(bytes)),
            SizeText::Text(text) => text.parse(),
        }
    }
}

impl From<Size> for String {
    fn from(size: Size) -> Self {
        size.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_are_understood_or_refused() {
        for (text, want) in [
            ("250ms", Some(250)),
            ("30s", Some(30_000)),
            ("5m", Some(300_000)),
            ("5 m", Some(300_000)),
            ("1h", Some(3_600_000)),
            ("0s", Some(0)),
            ("8760h", Some(31_536_000_000)),
            ("8761h", None),
            ("5", None),
            ("", None),
            ("m", None),
            ("-5s", None),
            ("1.5s", None),
            ("5 minutes", None),
            ("99999999999999999999s", None),
        ] {
            let got = text.parse::<Time>().ok().map(|time| time.0.as_millis());
            assert_eq!(got, want, "{text}");
        }
        for (text, want) in [
            ("10MiB", Some(10 << 20)),
            ("64 KiB", Some(64 << 10)),
            ("4096", Some(4096)),
            ("0", Some(0)),
            ("10MB", None), // ten million or ten times 2^20? Nobody agrees.
            ("10mib", None),
            ("-1", None),
            ("99999999999TiB", None),
        ] {
            assert_eq!(text.parse::<Size>().ok().map(|size| size.0), want, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_written_is_read(millis in 0..=MAX_SECONDS * 1000, bytes: u64) {
            let time = Time(Duration::from_millis(millis));
            proptest::prop_assert_eq!(time.to_string().parse(), Ok(time));
            let size = Size(bytes);
            proptest::prop_assert_eq!(size.to_string().parse(), Ok(size));
        }
    }
}
