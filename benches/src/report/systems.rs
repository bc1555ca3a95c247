//! Which systems there are: which is ours, which is what everybody has, and the colour of each.

use plotters::style::RGBColor;

/// containerd's own pull: what everybody has, and what others are compared with.
pub const BASELINE: &str = "overlayfs";

/// Spandrel as it is meant to be used, lazily.
pub const OURS: &str = "spandrel";

/// Between a system's name and its version, where versions are compared.
const AT: char = '@';

/// A system without its version.
pub fn base(system: &str) -> &str {
    system.split(AT).next().unwrap_or(system)
}

/// The name of a version of a system of ours; that of any other as it is.
pub fn of_version(system: &str, version: Option<&str>) -> String {
    match version {
        Some(version)
            if system == OURS || system.strip_prefix(OURS).is_some_and(|rest| rest.starts_with('-')) =>
        {
            format!("{system}{AT}{version}")
        }
        _ => system.to_owned(),
    }
}

/// The name of a system where there are values of several versions of the measurements ([`Machine::set_up`]); only soci's
/// aren't alike.
///
/// [`Machine::set_up`]: crate::results::Machine::set_up
pub fn of_set_up(system: &str, set_up: &str) -> String {
    if system == "soci" || system.starts_with("soci-") {
        format!("{system}{AT}set-up-{set_up}")
    } else {
        system.to_owned()
    }
}

/// Which of these systems is ours: where there are several versions the newest, which comes last.
pub fn ours(systems: &[String]) -> &str {
    systems.iter().rev().find(|name| base(name) == OURS).map_or(OURS, String::as_str)
}

/// Whether it is one of ours that fetches lazily.
pub fn is_lazy_of_ours(system: &str) -> bool {
    let base = base(system);
    let ours = base == OURS || base.strip_prefix(OURS).is_some_and(|rest| rest.starts_with('-'));
    ours && base != "spandrel-eager"
}

/// All versions of ours among these systems, where there are several.
pub fn versions(systems: &[String]) -> Vec<&str> {
    let all: Vec<&str> =
        systems.iter().map(String::as_str).filter(|name| base(name) == OURS && name.contains(AT)).collect();
    if all.len() > 1 { all } else { Vec::new() }
}

/// Colours that can be told from white, from near black and, by most who don't see all colours, from one another
/// (they are close to Okabe and Ito's).
const COLOURS: [(&str, RGBColor); 7] = [
    (OURS, RGBColor(0x2F, 0x81, 0xF7)),
    (BASELINE, RGBColor(0x7D, 0x85, 0x90)),
    ("soci", RGBColor(0xD5, 0x5E, 0x00)),
    ("spandrel-eager", RGBColor(0x00, 0x9E, 0x73)),
    ("stargz", RGBColor(0xC8, 0x6F, 0xA0)),
    ("soci-given", RGBColor(0x8E, 0x6C, 0xD0)),
    ("soci-parallel", RGBColor(0xB0, 0x86, 0x0B)),
];

/// Of systems that have none of their own.
const OTHERS: [RGBColor; 3] =
    [RGBColor(0x6B, 0x8E, 0x23), RGBColor(0xCF, 0x4A, 0x5C), RGBColor(0x3C, 0x96, 0xA8)];

/// A system's colour; `place` is its place among all systems that are shown.
pub fn colour(system: &str, place: usize) -> RGBColor {
    let own = COLOURS.iter().find(|(name, _)| *name == system).map(|(_, colour)| *colour);
    own.unwrap_or(OTHERS[place % OTHERS.len()])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Contrast as WCAG 2 defines it.
    fn contrast(a: RGBColor, b: RGBColor) -> f64 {
        let linear = |channel: u8| {
            let value = f64::from(channel) / 255.0;
            if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
        };
        let light = |colour: RGBColor| {
            0.2126 * linear(colour.0) + 0.7152 * linear(colour.1) + 0.0722 * linear(colour.2)
        };
        let (a, b) = (light(a), light(b));
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    }

    #[test]
    fn versions_are_ours_and_the_last_is_the_newest() {
        let named = |name| of_version(name, Some("1f"));
        assert_eq!(
            ["spandrel", "spandrel-eager", "soci", "spandrels"].map(named),
            ["spandrel@1f", "spandrel-eager@1f", "soci", "spandrels"]
        );
        assert_eq!(of_version("spandrel", None), "spandrel");
        let systems = ["overlayfs", "spandrel@1", "spandrel@2", "spandrel-eager@2"].map(str::to_owned);
        assert_eq!((ours(&systems), versions(&systems)), ("spandrel@2", vec!["spandrel@1", "spandrel@2"]));
        let systems = ["spandrel".to_owned()];
        assert_eq!((ours(&systems), versions(&systems).len()), ("spandrel", 0));
    }

    #[test]
    fn colours_stand_out_on_light_and_dark() {
        let all = COLOURS.iter().map(|(_, colour)| *colour).chain(OTHERS);
        for colour in all {
            for paper in [RGBColor(0xFF, 0xFF, 0xFF), RGBColor(0x0D, 0x11, 0x17)] {
                // WCAG 2 asks 3:1 of graphics.
                assert!(
                    contrast(colour, paper) >= 3.0,
                    "{colour:?} on {paper:?}: {}",
                    contrast(colour, paper)
                );
            }
        }
    }
}
