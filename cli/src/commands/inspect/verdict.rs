//! What becomes of a layer on Spandrel, on soci-snapshotter and on AWS Fargate, by what is known of it and of the image's
//! indexes. Decisions only: no I/O.
//!
//! Spandrel's are those of its daemon, with its defaults but for the smallest layer. soci-snapshotter's are those of its
//! defaults (version 1 off, no smallest layer). Fargate's are what AWS says: private ECR only, version 2, and version 1 for
//! accounts that used it before there was another.

use serde::Serialize;
use spandrel_ztoc::unpack::LayerFormat;

/// What becomes of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum How {
    /// Mounted at once, and read as it is needed.
    Lazy,
    /// The same where indexes of version 1 are used.
    LazyV1,
    /// Downloaded whole by the snapshotter.
    Whole,
    /// Downloaded whole and unpacked by containerd.
    Containerd,
    /// The index lies about the layer or can't be read: what comes of that is only known of Spandrel.
    Unclear,
}

impl How {
    /// As in JSON.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Lazy => "lazy",
            Self::LazyV1 => "lazy-v1",
            Self::Whole => "whole",
            Self::Containerd => "containerd",
            Self::Unclear => "unclear",
        }
    }
}

/// What an index says of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Listed {
    /// Nothing.
    Not,
    /// It has a zTOC that can be used.
    Good,
    /// It has one that can't, and why.
    Bad(String),
}

/// Whether the image has an index of one version, and what that says of the layer in question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    /// It has none.
    None,
    /// One is named and can't be used, and why.
    Broken(String),
    /// It has one.
    Found(Listed),
}

/// What is known of a layer.
#[derive(Debug)]
pub(super) struct Facts<'a> {
    /// Its media type.
    pub(super) media_type: &'a str,
    /// Its length in bytes.
    pub(super) size: u64,
    /// Length below which Spandrel's daemon takes a layer for a small one.
    pub(super) min_layer_size: u64,
    /// The index that the image names.
    pub(super) v2: State,
    /// The index that refers to the image.
    pub(super) v1: State,
    /// Whether it is in a private Amazon ECR registry.
    pub(super) ecr: bool,
}

/// What becomes of a layer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) spandrel: How,
    pub(super) soci: How,
    pub(super) fargate: How,
    /// Why it isn't lazy on Spandrel.
    pub(super) reason: Option<String>,
}

/// What is done with a layer of this media type, whatever an index says; why no snapshotter reads it, if so.
pub(super) fn foreign(media_type: &str) -> Option<&'static str> {
    if media_type.ends_with("+encrypted") {
        return Some("it is encrypted");
    }
    if media_type.contains(".nondistributable.") || media_type.contains(".foreign.") {
        return Some("it lies elsewhere (non-distributable)");
    }
    LayerFormat::of_media_type(media_type).is_none().then_some("it is of an unknown kind")
}

/// Decides.
pub(super) fn decide(facts: &Facts<'_>) -> Verdict {
    if let Some(reason) = foreign(facts.media_type) {
        let how = How::Containerd;
        return Verdict { spandrel: how, soci: how, fargate: How::Whole, reason: Some(reason.to_owned()) };
    }
    let reason = why_not(facts);
    let spandrel = if reason.is_some() { How::Whole } else { How::Lazy };
    Verdict { spandrel, soci: soci(facts), fargate: fargate(facts), reason }
}

/// Why the daemon doesn't mount the layer at once, unless it does.
fn why_not(facts: &Facts<'_>) -> Option<String> {
    // A referrer never stands in for an index that the image names.
    let index = if facts.v2 == State::None { &facts.v1 } else { &facts.v2 };
    if LayerFormat::of_media_type(facts.media_type) == Some(LayerFormat::Zstd) {
        return Some("zstd can't be read from the middle".to_owned());
    }
    match index {
        State::None => Some("the image has no index".to_owned()),
        State::Broken(_) => Some("the index can't be used".to_owned()),
        State::Found(Listed::Not) if facts.size < facts.min_layer_size => {
            Some(format!("it isn't in the index, and smaller than {} bytes", facts.min_layer_size))
        }
        State::Found(Listed::Not) => Some("it isn't in the index".to_owned()),
        State::Found(_) if facts.size < facts.min_layer_size => {
            Some(format!("it is smaller than {} bytes", facts.min_layer_size))
        }
        State::Found(Listed::Bad(what)) => Some(what.clone()),
        State::Found(Listed::Good) => None,
    }
}

fn soci(facts: &Facts<'_>) -> How {
    match (&facts.v2, &facts.v1) {
        (State::Found(Listed::Good), _) => How::Lazy,
        (State::Found(Listed::Not), _) => How::Whole,
        (State::Found(Listed::Bad(_)), _) | (State::None, State::Found(Listed::Bad(_))) => How::Unclear,
        (State::None, State::Found(Listed::Good)) => How::LazyV1,
        // Without an index that it can use it leaves the whole image to containerd.
        _ => How::Containerd,
    }
}

fn fargate(facts: &Facts<'_>) -> How {
    match (&facts.v2, &facts.v1) {
        _ if !facts.ecr => How::Whole,
        (State::Found(Listed::Good), _) => How::Lazy,
        (State::Found(Listed::Bad(_)), _) | (State::None, State::Found(Listed::Bad(_))) => How::Unclear,
        (State::None, State::Found(Listed::Good)) => How::LazyV1,
        _ => How::Whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

    fn facts(media_type: &str, v2: State, v1: State) -> Facts<'_> {
        Facts { media_type, size: 100, min_layer_size: 100, v2, v1, ecr: true }
    }

    #[test]
    fn every_kind_of_layer_and_index() {
        use How::{Containerd, Lazy, LazyV1, Unclear, Whole};
        let found = |listed| State::Found(listed);
        let good = || found(Listed::Good);
        let bad = || found(Listed::Bad("a lie".to_owned()));
        let broken = || State::Broken("rubbish".to_owned());
        let none = || State::None;
        for (case, media_type, v2, v1, want, reason) in [
            ("named", GZIP, good(), none(), [Lazy, Lazy, Lazy], ""),
            ("both", GZIP, good(), good(), [Lazy, Lazy, Lazy], ""),
            ("referrer", GZIP, none(), good(), [Lazy, LazyV1, LazyV1], ""),
            ("none", GZIP, none(), none(), [Whole, Containerd, Whole], "no index"),
            ("unlisted", GZIP, found(Listed::Not), good(), [Whole, Whole, Whole], "isn't in the index"),
            ("unlisted by a referrer", GZIP, none(), found(Listed::Not), [Whole, Containerd, Whole], "isn't"),
            ("lie", GZIP, bad(), good(), [Whole, Unclear, Unclear], "a lie"),
            ("lie of a referrer", GZIP, none(), bad(), [Whole, Unclear, Unclear], "a lie"),
            // A referrer never stands in for the index that the image names.
            ("broken", GZIP, broken(), good(), [Whole, Containerd, Whole], "can't be used"),
            ("broken referrer", GZIP, none(), broken(), [Whole, Containerd, Whole], "can't be used"),
            (
                "zstd",
                "application/vnd.oci.image.layer.v1.tar+zstd",
                found(Listed::Not),
                none(),
                [Whole, Whole, Whole],
                "zstd",
            ),
            (
                "encrypted",
                "application/vnd.oci.image.layer.v1.tar+gzip+encrypted",
                found(Listed::Not),
                none(),
                [Containerd, Containerd, Whole],
                "encrypted",
            ),
            (
                "elsewhere",
                "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
                good(),
                none(),
                [Containerd, Containerd, Whole],
                "elsewhere",
            ),
            ("chart", "application/x", none(), none(), [Containerd, Containerd, Whole], "unknown kind"),
        ] {
            let verdict = decide(&facts(media_type, v2, v1));
            assert_eq!([verdict.spandrel, verdict.soci, verdict.fargate], want, "{case}");
            assert_eq!(verdict.reason.is_none(), want[0] == Lazy, "{case}");
            assert!(verdict.reason.unwrap_or_default().contains(reason), "{case}");
        }
    }

    #[test]
    fn small_layers_are_lazy_elsewhere_and_fargate_has_ecr_only() {
        let small = Facts { size: 99, ..facts(GZIP, State::Found(Listed::Good), State::None) };
        let verdict = decide(&small);
        assert_eq!((verdict.spandrel, verdict.soci, verdict.fargate), (How::Whole, How::Lazy, How::Lazy));
        assert_eq!(verdict.reason.as_deref(), Some("it is smaller than 100 bytes"));
        let elsewhere = Facts { ecr: false, ..facts(GZIP, State::Found(Listed::Good), State::None) };
        let verdict = decide(&elsewhere);
        assert_eq!((verdict.spandrel, verdict.soci, verdict.fargate), (How::Lazy, How::Lazy, How::Whole));
    }
}
