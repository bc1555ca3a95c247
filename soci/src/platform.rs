//! Platforms as people write them (`linux/arm64/v8`), and which image fits which: the rules of containerd's package
//! `platforms`, as far as Linux images need them.

use spandrel_registry::manifest::Platform;

/// Which images of an index are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Platforms {
    /// The one for this machine; of a reference to a single image that image, whatever it is for.
    Default,
    /// The best one for each of these.
    Listed(Vec<Platform>),
    /// All that there are.
    All,
}

/// The text is no platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid platform {0:?}: it is written os/architecture or os/architecture/variant, as in linux/arm64"
)]
pub struct PlatformError(pub String);

/// The platform that `text` names.
///
/// # Errors
/// When it has none or more than three parts, or a part that is no word.
pub fn parse(text: &str) -> Result<Platform, PlatformError> {
    let error = || PlatformError(text.to_owned());
    let parts: Vec<&str> = text.split('/').collect();
    let word = |part: &&str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
    };
    if !parts.iter().all(word) {
        return Err(error());
    }
    let (os, architecture, variant) = match parts[..] {
        // One word is an operating system or an architecture.
        ["linux" | "windows" | "darwin" | "freebsd"] => (parts[0], host_architecture(), ""),
        [architecture] => ("linux", architecture, ""),
        [os, architecture] => (os, architecture, ""),
        [os, architecture, variant] => (os, architecture, variant),
        _ => return Err(error()),
    };
    Ok(normalize(os, architecture, variant))
}

/// The platform of the machine this runs on. (Its variant isn't looked for: any image for the architecture's base runs.)
pub fn host() -> Platform {
    normalize("linux", host_architecture(), "")
}

/// `os/architecture`, and `/variant` where it has one.
pub fn name(platform: &Platform) -> String {
    let Platform { os, architecture, variant, .. } = platform;
    if variant.is_empty() { format!("{os}/{architecture}") } else { format!("{os}/{architecture}/{variant}") }
}

/// Whether nobody can run it: what attestations have for a platform.
pub fn is_unknown(platform: &Platform) -> bool {
    platform.os == "unknown" && platform.architecture == "unknown"
}

/// How far an image for `have` is from what was `wanted`, 0 being exact; `None` when it doesn't run there.
pub fn distance(wanted: &Platform, have: &Platform) -> Option<u32> {
    let wanted = normalize(&wanted.os, &wanted.architecture, &wanted.variant);
    let have = normalize(&have.os, &have.architecture, &have.variant);
    if wanted.os != have.os || wanted.architecture != have.architecture {
        return None;
    }
    if wanted.variant == have.variant {
        return Some(0);
    }
    // A later variant runs what is made for an earlier one.
    match (level(&wanted), level(&have)) {
        (Some(wanted), Some(have)) => wanted.checked_sub(have),
        _ => None,
    }
}

/// The number in a variant; the architecture's base where there is none.
fn level(platform: &Platform) -> Option<u32> {
    match (platform.architecture.as_str(), platform.variant.strip_prefix('v')) {
        (_, Some(number)) => number.parse().ok(),
        ("amd64", None) if platform.variant.is_empty() => Some(1),
        ("arm64", None) if platform.variant.is_empty() => Some(8),
        _ => None,
    }
}

fn host_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
        "loongarch64" => "loong64",
        other => other,
    }
}

fn normalize(os: &str, architecture: &str, variant: &str) -> Platform {
    let (os, architecture, variant) =
        (os.to_lowercase(), architecture.to_lowercase(), variant.to_lowercase());
    let (architecture, variant) = match (architecture.as_str(), variant.as_str()) {
        ("i386", _) => ("386", ""),
        ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
        ("x86_64" | "x86-64", variant) => ("amd64", variant),
        ("aarch64" | "arm64", "8" | "v8") => ("arm64", ""),
        ("aarch64", variant) => ("arm64", variant),
        ("armhf", _) | ("arm", "" | "7") => ("arm", "v7"),
        ("armel", _) | ("arm", "6") => ("arm", "v6"),
        ("arm", "5") => ("arm", "v5"),
        ("arm", "8") => ("arm", "v8"),
        (architecture, variant) => (architecture, variant),
    };
    Platform {
        architecture: architecture.to_owned(),
        os: if os == "macos" { "darwin".to_owned() } else { os },
        os_version: String::new(),
        os_features: Vec::new(),
        variant: variant.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_are_read_as_containerd_reads_them() {
        for (text, want) in [
            ("linux/amd64", "linux/amd64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm64/v9", "linux/arm64/v9"),
            ("Linux/AArch64", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/arm/6", "linux/arm/v6"),
            ("linux/armhf", "linux/arm/v7"),
            ("x86_64", "linux/amd64"),
            ("s390x", "linux/s390x"),
            ("linux/x86-64/v3", "linux/amd64/v3"),
        ] {
            assert_eq!(name(&parse(text).unwrap()), want, "{text}");
        }
        assert_eq!(parse("linux").unwrap(), host());
        for text in ["", "/", "linux/", "linux/amd64/v1/x", "linux/a b", "linux//v8"] {
            assert_eq!(parse(text), Err(PlatformError(text.to_owned())));
        }
    }

    #[test]
    fn a_machine_runs_what_is_made_for_earlier_variants() {
        for (wanted, have, want) in [
            ("linux/amd64", "linux/amd64", Some(0)),
            ("linux/arm64", "linux/arm64/v8", Some(0)),
            ("linux/arm64/v9", "linux/arm64", Some(1)),
            ("linux/arm64", "linux/arm64/v9", None),
            ("linux/amd64/v3", "linux/amd64", Some(2)),
            ("linux/amd64", "linux/amd64/v2", None),
            ("linux/arm/v7", "linux/arm/v6", Some(1)),
            ("linux/arm/v6", "linux/arm/v7", None),
            ("linux/amd64", "linux/arm64", None),
            ("linux/amd64", "windows/amd64", None),
        ] {
            let got = distance(&parse(wanted).unwrap(), &parse(have).unwrap());
            assert_eq!(got, want, "{have} on {wanted}");
        }
    }
}
