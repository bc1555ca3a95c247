//! A part of a file system, as the configuration writes it: `"60%"`, or a size.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::config::Size;

/// A part of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Share {
    /// So many hundredths of its length, 100 at most.
    Percent(u8),
    /// So many bytes.
    Bytes(u64),
}

impl Share {
    /// Its bytes, of a file system of `len` bytes; never more than that.
    pub(crate) fn of(self, len: u64) -> u64 {
        match self {
            // A hundredth first: no overflow, and an error of under 100 bytes.
            Self::Percent(percent) => (len / 100).saturating_mul(u64::from(percent)).min(len),
            Self::Bytes(bytes) => bytes.min(len),
        }
    }
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some(number) = text.strip_suffix('%') else {
            return text.parse().map(|Size(bytes)| Self::Bytes(bytes));
        };
        let percent = number.trim_end().parse().ok().filter(|percent| *percent <= 100);
        percent.map(Self::Percent).ok_or_else(|| format!("{text:?} is no share: write 0% to 100%, or a size"))
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Percent(percent) => write!(f, "{percent}%"),
            Self::Bytes(bytes) => Size(*bytes).fmt(f),
        }
    }
}

impl TryFrom<String> for Share {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Share> for String {
    fn from(share: Share) -> Self {
        share.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_understood_or_refused() {
        for (text, want) in [
            ("60%", Some(Share::Percent(60))),
            ("0%", Some(Share::Percent(0))),
            ("100 %", Some(Share::Percent(100))),
            ("101%", None),
            ("-1%", None),
            ("1.5%", None),
            ("%", None),
            ("100GiB", Some(Share::Bytes(100 << 30))),
            ("100GB", None),
            ("", None),
        ] {
            assert_eq!(text.parse::<Share>().ok(), want, "{text}");
            if let Some(share) = want {
                assert_eq!(share.to_string().parse(), Ok(share));
            }
        }
    }

    #[test]
    fn a_share_is_never_more_than_there_is() {
        for (share, len, want) in [
            (Share::Percent(60), 1000, 600),
            (Share::Percent(100), u64::MAX, u64::MAX / 100 * 100),
            (Share::Percent(60), 50, 0),
            (Share::Bytes(10), 1000, 10),
            (Share::Bytes(u64::MAX), 1000, 1000),
        ] {
            assert_eq!(share.of(len), want, "{share:?} of {len}");
        }
    }
}
