//! Every metric of the daemon: names, labels and what they count, in this one file. `docs/metrics.md` lists them for
//! operators, and a test keeps the two together. Serving them is `admin`'s.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// One label with a value out of a small fixed set: never a digest, a name or anything else that grows.
pub type Label = [(&'static str, &'static str); 1];

/// Two such labels.
pub type TwoLabels = [(&'static str, &'static str); 2];

/// From a unix socket's round trip to the five minutes that a read waits for its span at most, in seconds.
const SECONDS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0];

fn seconds() -> Histogram {
    Histogram::new(SECONDS)
}

/// All metrics. One for the process, shared.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Calls of the snapshots service by `operation` and gRPC `code`.
    pub operations: Family<TwoLabels, Counter>,
    /// How long they took, in seconds, by `operation`.
    pub operation_seconds: Family<Label, Histogram, fn() -> Histogram>,
    /// Layers offered by containerd that became ordinary snapshots, by `reason`.
    pub fallbacks: Family<Label, Counter>,
    /// Spans and whole layers made present, by `cause`: `demand`, `readahead`, `prefetch`, `background`, `eager`.
    pub fills: Family<Label, Counter>,
    /// Bytes that came from registries, compressed as they were sent.
    pub fetched_bytes: Counter,
    /// Bytes of streams answered to the kernel.
    pub served_bytes: Counter,
    /// Time from sending a request to a registry to its last byte, in seconds.
    pub fetch_seconds: Histogram,
    /// Layers mounted now.
    pub layer_mounts: Gauge,
    /// Bytes that layers take on the disk, as last counted.
    pub layers_bytes: Gauge,
    /// How many of these are of layers that no snapshot refers to.
    pub layers_unused_bytes: Gauge,
    /// Bytes that layers may take.
    pub layers_quota_bytes: Gauge,
    /// Bytes given back to the disk to make room, by `what`: `unused` and `unmounted` layers, `spans` of mounted ones.
    pub given_back_bytes: Family<Label, Counter>,
    /// 1 for the file system that layers are mounted as, `filesystem`, and why, `reason`.
    pub filesystem: Family<TwoLabels, Gauge>,
    /// Failures by `class`, as callers see them.
    pub errors: Family<Label, Counter>,
    /// Requests of the kernel to the FUSE device or tree by `operation`.
    pub fuse_requests: Family<Label, Counter>,
    /// Reads of the FUSE device or tree that were answered with an error: programs in containers get one, too.
    pub fuse_errors: Counter,
    /// Questions for a registry credential by the `source` that had one and their `outcome`.
    pub credentials: Family<TwoLabels, Counter>,
    /// Tokens asked of Amazon ECR by `cause` and `outcome`.
    pub ecr_tokens: Family<TwoLabels, Counter>,
}

impl Metrics {
    /// All metrics at zero, registered under their names.
    pub fn new() -> Arc<Self> {
        let mut registry = Registry::with_prefix("spandrel");
        let operations = Family::default();
        let operation_seconds: Family<Label, Histogram, fn() -> Histogram> =
            Family::new_with_constructor(seconds);
        let fallbacks = Family::default();
        let fills = Family::default();
        let fetched_bytes = Counter::default();
        let served_bytes = Counter::default();
        let fetch_seconds = seconds();
        let layer_mounts = Gauge::default();
        let layers_bytes = Gauge::default();
        let layers_unused_bytes = Gauge::default();
        let layers_quota_bytes = Gauge::default();
        let given_back_bytes = Family::default();
        let filesystem = Family::default();
        let errors = Family::default();
        let fuse_requests = Family::default();
        let fuse_errors = Counter::default();
        let credentials = Family::default();
        let ecr_tokens = Family::default();
        registry.register(
            "snapshot_operations",
            "Calls of the snapshots service",
            Family::clone(&operations),
        );
        registry.register(
            "snapshot_operation_seconds",
            "Time a call of the snapshots service took",
            operation_seconds.clone(),
        );
        registry.register(
            "fallbacks",
            "Image layers that became ordinary snapshots",
            Family::clone(&fallbacks),
        );
        registry.register("fills", "Spans and whole layers made present", Family::clone(&fills));
        registry.register(
            "fetched_bytes",
            "Bytes received from registries, compressed as sent",
            Counter::clone(&fetched_bytes),
        );
        registry.register(
            "served_bytes",
            "Bytes of layer streams answered to the kernel",
            Counter::clone(&served_bytes),
        );
        registry.register(
            "fetch_seconds",
            "Time from a registry request to its last byte",
            fetch_seconds.clone(),
        );
        registry.register("layer_mounts", "Layers mounted now", Gauge::clone(&layer_mounts));
        registry.register(
            "layers_bytes",
            "Bytes that layers take on the disk, as last counted",
            layers_bytes.clone(),
        );
        registry.register(
            "layers_unused_bytes",
            "Bytes of layers that no snapshot refers to",
            layers_unused_bytes.clone(),
        );
        registry.register("layers_quota_bytes", "Bytes that layers may take", layers_quota_bytes.clone());
        registry.register(
            "given_back_bytes",
            "Bytes given back to the disk to make room",
            Family::clone(&given_back_bytes),
        );
        registry.register(
            "filesystem",
            "As what layers are mounted, and what decided it",
            Family::clone(&filesystem),
        );
        registry.register("errors", "Failures by class", Family::clone(&errors));
        registry.register(
            "fuse_requests",
            "Requests of the kernel to the FUSE device or tree",
            Family::clone(&fuse_requests),
        );
        registry.register(
            "fuse_errors",
            "Reads of the FUSE device or tree answered with an error",
            Counter::clone(&fuse_errors),
        );
        registry.register(
            "credentials",
            "Questions for a registry credential by the source that had one",
            Family::clone(&credentials),
        );
        registry.register("ecr_tokens", "Tokens asked of Amazon ECR", Family::clone(&ecr_tokens));
        Arc::new(Self {
            registry,
            operations,
            operation_seconds,
            fallbacks,
            fills,
            fetched_bytes,
            served_bytes,
            fetch_seconds,
            layer_mounts,
            layers_bytes,
            layers_unused_bytes,
            layers_quota_bytes,
            given_back_bytes,
            filesystem,
            errors,
            fuse_requests,
            fuse_errors,
            credentials,
            ecr_tokens,
        })
    }

    /// A call of the snapshots service was answered with `code` after `took`.
    pub fn operation(&self, operation: &'static str, code: &'static str, took: Duration) {
        self.operations.get_or_create(&[("operation", operation), ("code", code)]).inc();
        self.operation_seconds.get_or_create(&[("operation", operation)]).observe(took.as_secs_f64());
    }

    /// A layer became an ordinary snapshot.
    pub fn fallback(&self, reason: &'static str) {
        self.fallbacks.get_or_create(&[("reason", reason)]).inc();
    }

    /// Layers are mounted as this, because of that.
    pub fn filesystem(&self, filesystem: &'static str, reason: &'static str) {
        self.filesystem.get_or_create(&[("filesystem", filesystem), ("reason", reason)]).set(1);
    }

    /// A span, or a whole layer, was made present.
    pub fn fill(&self, cause: &'static str) {
        self.fills.get_or_create(&[("cause", cause)]).inc();
    }

    /// Room was made.
    pub fn given_back(&self, what: &'static str, bytes: u64) {
        self.given_back_bytes.get_or_create(&[("what", what)]).inc_by(bytes);
    }

    /// Something failed.
    pub fn error(&self, class: &'static str) {
        self.errors.get_or_create(&[("class", class)]).inc();
    }

    /// The kernel asked the FUSE device.
    pub fn fuse_request(&self, operation: &'static str) {
        self.fuse_requests.get_or_create(&[("operation", operation)]).inc();
    }

    /// All metrics in OpenMetrics text format.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Writing into a string doesn't fail.
        text::encode(&mut text, &self.registry).expect("a String takes everything");
        text
    }
}

impl spandrel_credentials::Observer for Metrics {
    fn asked(&self, source: &'static str, outcome: &'static str) {
        self.credentials.get_or_create(&[("source", source), ("outcome", outcome)]).inc();
    }

    fn token(&self, cause: &'static str, is_ok: bool) {
        let outcome = if is_ok { "ok" } else { "failed" };
        self.ecr_tokens.get_or_create(&[("cause", cause), ("outcome", outcome)]).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_what_is_shown() {
        let metrics = Metrics::new();
        metrics.operation("Prepare", "AlreadyExists", Duration::from_millis(3));
        metrics.fallback("no-image-labels");
        metrics.fallback("no-image-labels");
        metrics.layer_mounts.inc();
        let text = metrics.encode();
        for line in [
            r#"spandrel_snapshot_operations_total{operation="Prepare",code="AlreadyExists"} 1"#,
            r#"spandrel_snapshot_operation_seconds_bucket{le="0.0025",operation="Prepare"} 0"#,
            r#"spandrel_snapshot_operation_seconds_bucket{le="0.005",operation="Prepare"} 1"#,
            r#"spandrel_fallbacks_total{reason="no-image-labels"} 2"#,
            "spandrel_layer_mounts 1",
        ] {
            assert!(text.lines().any(|have| have == line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn every_metric_is_documented() {
        let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");
        let docs = std::fs::read_to_string(docs).expect("docs/metrics.md");
        for line in Metrics::new().encode().lines() {
            let Some(rest) = line.strip_prefix("# TYPE ") else { continue };
            let (name, kind) = rest.split_once(' ').expect("name and type");
            let name = if kind == "counter" { format!("`{name}_total`") } else { format!("`{name}`") };
            assert!(docs.contains(&name), "docs/metrics.md lacks {name}");
        }
    }
}
