//! Until when a signed URL can be used, read from its query. Pure.
//!
//! Sources: AWS Signature Version 4 query parameters (`X-Amz-Date`, `X-Amz-Expires`), the same of Google Cloud Storage
//! (`X-Goog-…`), the older `Expires=<seconds since 1970>` (CloudFront, S3 version 2), and `se=<time>` of Azure Blob Storage.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use crate::limits::{MAX_URL_LIFE, URL_LIFE, URL_MARGIN};

/// What a URL says of its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Expiry {
    /// When it ends, by the signer's clock.
    pub(crate) ends: SystemTime,
    /// How long it lives altogether, where that is said.
    pub(crate) life: Option<Duration>,
}

/// When the URL with these query parameters ends, or `None` when they don't say.
pub(crate) fn of_query<'a>(pairs: impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)>) -> Option<Expiry> {
    let (mut date, mut life, mut end) = (None, None, None);
    for (name, value) in pairs {
        match name.to_ascii_lowercase().as_str() {
            "x-amz-date" | "x-goog-date" => date = basic_time(&value),
            "x-amz-expires" | "x-goog-expires" => life = value.parse().ok().map(Duration::from_secs),
            "expires" => end = value.parse().ok().and_then(since_epoch),
            "se" => end = end.or_else(|| extended_time(&value)),
            _ => {}
        }
    }
    if let (Some(date), Some(life)) = (date, life)
        && let Some(ends) = date.checked_add(life)
    {
        return Some(Expiry { ends, life: Some(life) });
    }
    end.map(|ends| Expiry { ends, life: None })
}

/// Until when to use a URL that was got `now`: until shortly before its end. Nobody hands out a URL that has ended; where it
/// looks so, the two clocks differ, and its life counts from now.
pub(crate) fn useful_until(said: Option<Expiry>, now: SystemTime) -> SystemTime {
    let life = match said {
        None => URL_LIFE,
        Some(said) => match said.ends.duration_since(now) {
            Ok(left) if !left.is_zero() => left,
            _ => said.life.unwrap_or(URL_LIFE),
        },
    };
    // Where URLs live very short, half of the life is the margin.
    now + life.saturating_sub(URL_MARGIN).max(life / 2).min(MAX_URL_LIFE)
}

fn since_epoch(seconds: u64) -> Option<SystemTime> {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

/// `20261124T235959Z`.
fn basic_time(text: &str) -> Option<SystemTime> {
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    let shape_ok = text.len() == 16 && text.as_bytes().get(8) == Some(&b'T') && text.ends_with('Z');
    if shape_ok && digits.len() == 14 { from_digits(&digits) } else { None }
}

/// `2026-11-24T23:59:59Z`, and without seconds or with fractions, as Azure allows.
fn extended_time(text: &str) -> Option<SystemTime> {
    let text = text.strip_suffix('Z')?;
    let text = text.split('.').next()?;
    let mut digits: String = text.chars().filter(char::is_ascii_digit).collect();
    if digits.len() == 8 {
        digits.push_str("000000");
    } else if digits.len() == 12 {
        digits.push_str("00");
    }
    if digits.len() == 14 { from_digits(&digits) } else { None }
}

fn from_digits(digits: &str) -> Option<SystemTime> {
    let part = |range: std::ops::Range<usize>| digits.get(range)?.parse::<u64>().ok();
    let (year, month, day) = (part(0..4)?, part(4..6)?, part(6..8)?);
    let (hour, minute, second) = (part(8..10)?, part(10..12)?, part(12..14)?);
    if year < 1970
        || !(1..=12).contains(&month)
        || !(1..=31).contains(&day)
        || hour > 23
        || minute > 59
        || second > 60
    {
        return None;
    }
    // Days since 1970-01-01 of a proleptic Gregorian date, counting years from March so that February is last.
    let y = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = (y * 365 + y / 4 - y / 100 + y / 400 + day_of_year).checked_sub(719_468)?;
    since_epoch(((days * 24 + hour) * 60 + minute) * 60 + second)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(query: &str) -> Option<u64> {
        let url = reqwest::Url::parse(&format!("https://s3.example/x?{query}")).expect("a URL");
        let ends = of_query(url.query_pairs()).map(|said| said.ends);
        ends.map(|ends| ends.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs())
    }

    #[test]
    fn the_end_is_read_from_what_the_stores_write() {
        for (query, want) in [
            ("X-Amz-Date=20261124T233901Z&X-Amz-Expires=1200&X-Amz-Signature=s", Some(1_795_563_541 + 1200)),
            ("x-amz-expires=1200&x-amz-date=20240229T000000Z", Some(1_709_164_800 + 1200)),
            ("X-Goog-Date=19700101T000000Z&X-Goog-Expires=5", Some(5)),
            ("Expires=1795563541&Signature=s", Some(1_795_563_541)),
            ("se=2026-11-24T23%3A39%3A01Z&sig=s", Some(1_795_563_541)),
            ("se=2026-11-24T23%3A39Z", Some(1_795_563_540)),
            ("X-Amz-Date=20261124T233901Z", None),
            ("X-Amz-Date=20261324T233901Z&X-Amz-Expires=1", None), // month 13
            ("X-Amz-Date=yesterday&X-Amz-Expires=1", None),
            ("Expires=soon", None),
            ("", None),
        ] {
            assert_eq!(of(query), want, "{query}");
        }
    }

    #[test]
    fn a_url_is_used_until_shortly_before_its_end() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let now = at(1_000_000);
        let day = Some(Duration::from_secs(86_400));
        for (said, want) in [
            (None, 1_000_000 + 270),
            (Some(Expiry { ends: at(1_001_200), life: None }), 1_001_170),
            (Some(Expiry { ends: at(1_001_200), life: day }), 1_001_170),
            (Some(Expiry { ends: at(1_000_010), life: None }), 1_000_005), // short: half of it
            (Some(Expiry { ends: at(999_000), life: Some(Duration::from_secs(1200)) }), 1_001_170), // our clock is ahead
            (Some(Expiry { ends: at(999_000), life: None }), 1_000_270),
            (Some(Expiry { ends: at(9_000_000), life: None }), 1_000_000 + 6 * 3600), // not for ever
        ] {
            assert_eq!(useful_until(said, now), at(want), "{said:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(query in "\\PC{0,80}|(X-Amz-Date|X-Amz-Expires|Expires|se)=[0-9TZ:-]{0,30}(&X-Amz-Expires=[0-9]{0,25})?") {
            let _ = of(&query);
        }

        #[test]
        fn dates_agree_with_another_calendar(seconds in 0..4_102_444_800u64) {
            // httpdate, an independent implementation, writes `Sun, 06 Nov 1994 08:49:37 GMT`.
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            let text = httpdate::fmt_http_date(time);
            let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
            let parts: Vec<&str> = text.split(' ').collect();
            let month = months.iter().position(|m| *m == parts[2]).expect("a month") + 1;
            let stamp = format!("{}{month:02}{}T{}Z", parts[3], parts[1], parts[4].replace(':', ""));
            prop_assert_eq!(basic_time(&stamp), Some(time));
        }
    }
}
