//! How figures are written: seconds, bytes (decimal, as networks count), ratios.

/// Seconds, in three digits or so: `84.0 µs`, `45.1 ms`, `4.21 s`, `62.4 s`, `312 s`.
pub fn seconds(value: f64) -> String {
    if value == 0.0 {
        return "0 s".to_owned();
    }
    if value < 0.001 {
        return format!("{} µs", significant(value * 1e6));
    }
    if value < 0.1 {
        return format!("{} ms", significant(value * 1000.0));
    }
    format!("{} s", significant(value))
}

/// Bytes: `812 B`, `4.21 kB`, `62.4 MB`.
pub fn bytes(value: f64) -> String {
    scaled(value, &["B", "kB", "MB", "GB", "TB"])
}

/// A whole number of bytes.
pub fn whole_bytes(value: u64) -> String {
    bytes(float(value))
}

/// Bytes in a second.
pub fn rate(value: f64) -> String {
    format!("{}/s", bytes(value))
}

/// A count whose median may lie between two whole numbers: `12`, `12.5`.
pub fn count(value: f64) -> String {
    if value.fract() == 0.0 { format!("{value:.0}") } else { format!("{value:.1}") }
}

/// A share in percent: `37 %`, `0.4 %`.
pub fn percent(share: f64) -> String {
    let value = share * 100.0;
    if value != 0.0 && value < 9.95 { format!("{value:.1} %") } else { format!("{value:.0} %") }
}

/// How much sooner `ours` is than `other`: `2.9× sooner`, `1.2× later`, `as soon`.
pub fn ratio(ours: f64, other: f64) -> String {
    if ours <= 0.0 || other <= 0.0 {
        return "–".to_owned();
    }
    let (factor, word) = if ours <= other { (other / ours, "sooner") } else { (ours / other, "later") };
    if factor < 1.005 {
        return "as soon".to_owned();
    }
    let factor = if factor < 1.095 { format!("{factor:.2}") } else { format!("{factor:.1}") };
    format!("{factor}× {word}")
}

/// A count as a number to draw and divide; exact up to 2^53, more than anything that is counted here.
pub fn float(value: u64) -> f64 {
    value as f64
}

/// [`float`] of something in memory.
pub fn float_len(value: usize) -> f64 {
    value as f64
}

fn scaled(value: f64, units: &[&str]) -> String {
    let mut value = value;
    for unit in units {
        // 999.5 would be written as 1000.
        if value < 999.5 || Some(unit) == units.last() {
            return format!("{} {unit}", if *unit == "B" { count(value) } else { significant(value) });
        }
        value /= 1000.0;
    }
    String::new()
}

fn significant(value: f64) -> String {
    match value {
        0.0 => "0".to_owned(),
        _ if value < 9.995 => format!("{value:.2}"),
        _ if value < 99.95 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_three_digits_and_a_unit() {
        for (got, want) in [
            (seconds(0.0), "0 s"),
            (seconds(0.000084), "84.0 µs"),
            (seconds(0.0451), "45.1 ms"),
            (seconds(4.214), "4.21 s"),
            (seconds(9.999), "10.0 s"),
            (seconds(62.44), "62.4 s"),
            (seconds(312.4), "312 s"),
            (bytes(812.0), "812 B"),
            (bytes(4214.0), "4.21 kB"),
            (bytes(999_900.0), "1.00 MB"),
            (bytes(62_440_000.0), "62.4 MB"),
            (rate(5e9), "5.00 GB/s"),
            (count(12.0), "12"),
            (count(12.5), "12.5"),
            (percent(0.374), "37 %"),
            (percent(0.0041), "0.4 %"),
            (percent(0.0), "0 %"),
        ] {
            assert_eq!(got, want);
        }
    }

    #[test]
    fn ratios_say_sooner_or_later() {
        for (ours, other, want) in [
            (1.0, 2.9, "2.9× sooner"),
            (2.4, 2.0, "1.2× later"),
            (1.0, 1.04, "1.04× sooner"),
            (1.0, 1.001, "as soon"),
            (1.0, 0.0, "–"),
        ] {
            assert_eq!(ratio(ours, other), want);
        }
    }
}
