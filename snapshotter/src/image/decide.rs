//! What a layer of an image is to become. A decision only: no I/O.

use spandrel_ztoc::unpack::LayerFormat;

use super::ImageLayer;

/// What a layer is to become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plan {
    /// Mounted from its zTOC, filled as it is read.
    Lazy,
    /// Downloaded and filled in full.
    Eager,
    /// containerd's to unpack; the reason is for the metric.
    Ordinary(&'static str),
}

/// Why a layer of this media type is containerd's to unpack, if it is.
pub(super) fn foreign(media_type: &str) -> Option<&'static str> {
    if media_type.ends_with("+encrypted") {
        return Some("encrypted");
    }
    if media_type.contains(".nondistributable.") || media_type.contains(".foreign.") {
        // Such blobs lie elsewhere, as their URLs say; containerd knows how to follow them.
        return Some("nondistributable");
    }
    LayerFormat::of_media_type(media_type).is_none().then_some("media-type")
}

/// What `layer` is to become, where layers under `min_layer_size` compressed bytes count as small.
pub(crate) fn decide(layer: &ImageLayer, min_layer_size: u64) -> Plan {
    if let Some(reason) = foreign(&layer.media_type) {
        return Plan::Ordinary(reason);
    }
    match LayerFormat::of_media_type(&layer.media_type) {
        None => Plan::Ordinary("media-type"),
        Some(LayerFormat::Zstd) => Plan::Eager,
        Some(LayerFormat::Tar | LayerFormat::Gzip) => {
            let indexed = layer.ztoc.as_ref().is_some_and(super::LayerZtoc::is_usable);
            if indexed && layer.size >= min_layer_size { Plan::Lazy } else { Plan::Eager }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::tests::layer;

    #[test]
    fn the_table_of_the_design() {
        const OCI: &str = "application/vnd.oci.image.layer.v1.tar";
        const DOCKER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
        for (media_type, size, indexed, want) in [
            (format!("{OCI}+gzip"), 100, true, Plan::Lazy),
            (DOCKER.to_owned(), 101, true, Plan::Lazy),
            (OCI.to_owned(), 100, true, Plan::Lazy),
            (format!("{OCI}+gzip"), 99, true, Plan::Eager), // small
            (format!("{OCI}+gzip"), 100, false, Plan::Eager),
            (format!("{OCI}+zstd"), 100, true, Plan::Eager), // no index can be right
            (format!("{OCI}+gzip+encrypted"), 100, true, Plan::Ordinary("encrypted")),
            (
                "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip".to_owned(),
                100,
                true,
                Plan::Ordinary("nondistributable"),
            ),
            (
                "application/vnd.cncf.helm.chart.content.v1.tar+gzip".to_owned(),
                100,
                false,
                Plan::Ordinary("media-type"),
            ),
        ] {
            assert_eq!(
                decide(&layer(&media_type, size, indexed), 100),
                want,
                "{media_type} {size} {indexed}"
            );
        }
    }

    #[test]
    fn a_ztoc_that_did_not_fit_is_not_tried_again() {
        let layer = layer("application/vnd.oci.image.layer.v1.tar+gzip", 100, true);
        layer.ztoc.as_ref().expect("has one").reject();
        assert_eq!(decide(&layer, 100), Plan::Eager);
    }
}
