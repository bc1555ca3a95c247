//! Every key of the configuration with what it means, its default and the reason for that. The commented file that
//! `config default` prints and the table in docs/configuration.md are made of this.

use std::fmt::Write as _;

/// One key.
struct Key {
    /// Name of its table, empty for the top.
    table: &'static str,
    /// Its name.
    name: &'static str,
    /// Its default, in TOML.
    default: &'static str,
    /// What it means.
    what: &'static str,
    /// Why the default is what it is.
    why: &'static str,
}

const fn key(
    table: &'static str,
    name: &'static str,
    default: &'static str,
    what: &'static str,
    why: &'static str,
) -> Key {
    Key { table, name, default, what, why }
}

/// All keys but those of `[[registry.hosts]]`, in the order of the file.
const KEYS: &[Key] = &[
    key(
        "",
        "address",
        r#""/run/spandrel-snapshotter/spandrel-snapshotter.sock""#,
        "Unix socket of the snapshots service: what containerd's proxy plugin names.",
        "A directory of its own that only root enters.",
    ),
    key(
        "",
        "root",
        r#""/var/lib/spandrel-snapshotter""#,
        "Where records, layers and containers' files lie. Must be on ext4 or xfs.",
        "Beside containerd's own root; the kernel mounts layer tables only from plain ext4 or xfs.",
    ),
    key(
        "",
        "filesystem",
        r#""auto""#,
        "As what layers are mounted: \"erofs\", by the kernel itself (Linux 6.12); \"fuse\", through the daemon, which any kernel \
         from 5.8 on can do; \"auto\": erofs where a trial mount at the start works, else fuse. /filesystem says which, and why.",
        "With EROFS no name or attribute is asked of the daemon; it is the better one wherever it works.",
    ),
    key(
        "log",
        "level",
        r#""info""#,
        "error, warn, info, debug or trace; or levels by module, as in \"info,spandrel_snapshotter::service=debug\".",
        "One line for each layer of a pull and nothing for reads.",
    ),
    key(
        "log",
        "format",
        r#""text""#,
        "text or json, on standard error.",
        "The journal adds what JSON would.",
    ),
    key(
        "containerd",
        "address",
        r#""/run/containerd/containerd.sock""#,
        "containerd's socket, whose content store has the image's manifest at the time of a pull. Where it can't be reached, or \
         this is empty, the manifest comes by digest from the registry.",
        "Where containerd listens if nothing is configured; saves two requests for each image.",
    ),
    key(
        "metrics",
        "address",
        r#""""#,
        "Where /metrics, /healthz, /layers and /filesystem are served: IP:PORT (for example 127.0.0.1:9464), or the absolute path of a unix \
         socket; empty: nowhere.",
        "Which layers a node has is nobody's business unless somebody decides so.",
    ),
    key(
        "index",
        "v1",
        "true",
        "Use SOCI indexes of version 1, which refer to the image from outside.",
        "Works with images that were indexed without changing them. They are neither signed nor part of the image: \
         switch them off where only the image's own digest is trusted.",
    ),
    key(
        "index",
        "v2",
        "true",
        "Use SOCI indexes of version 2, which the image's manifest names by digest.",
        "The image's digest covers them.",
    ),
    key(
        "index",
        "min_layer_size",
        r#""10MiB""#,
        "Layers smaller than this, compressed, are downloaded whole, even if they are indexed.",
        "Below it one request brings all of the layer about as fast as its first span.",
    ),
    key(
        "fetch",
        "read_timeout",
        r#""5m""#,
        "How long a read waits for bytes that can't be had before it fails with EIO.",
        "Longer than a registry's restart or an expired credential lasts; a program that gets EIO usually dies.",
    ),
    key(
        "fetch",
        "resolve_timeout",
        r#""20s""#,
        "How long a pull looks for an image's manifest, index and zTOCs; after that containerd pulls and unpacks the image.",
        "containerd holds a lock meanwhile, and its other calls wait; all this takes a second or two, and a registry that hangs \
         is not waited for at each layer anew.",
    ),
    key(
        "fetch",
        "concurrency",
        "64",
        "Requests to registries under way at once.",
        "One connection to S3 brings about 90 MB/s, after 20 to 40 ms: a 25 Gbit/s network needs some 35.",
    ),
    key(
        "fetch",
        "downloads",
        "8",
        "Whole layers (small, or without an index) downloaded at once from one registry; from all of them four times as many.",
        "Inflating one layer keeps a core busy; demand for single spans goes first, and no registry holds up the layers of another.",
    ),
    key(
        "fetch",
        "memory",
        r#""256MiB""#,
        "What spans may occupy that are being fetched or aren't written to disk yet.",
        "Sixty spans of the usual 4 MiB: enough for the requests above, and little beside a node's memory.",
    ),
    key(
        "fetch",
        "background",
        r#""stream""#,
        "When the rest of mounted layers is fetched that nobody has read: \"stream\", from the first read of a mounted layer on (at \
         the latest two seconds after the last mount), when nobody waits for the host nor did within two round trips, and not \
         while a layer of it is filled in full; \"quiet\", when nobody has waited for half a second; \"off\", never.",
        "What came before it is read is never waited for, and a complete layer needs its registry no more.",
    ),
    key(
        "fetch",
        "background_rate",
        r#""0""#,
        "Most bytes a second that fetching the rest of layers takes; 0 for as many as come.",
        "It gives way by itself to what somebody waits for. A limit is for networks that others pay for or wait for.",
    ),
    key(
        "disk",
        "quota",
        r#""60%""#,
        "What layers may take on the root's file system: a share of it, or a size. Beyond it, layers that no image uses go first, then \
         the contents of layers that aren't mounted, then what was read longest ago; what is read again is fetched again.",
        "Leaves a quarter of the file system below the 85 % at which the kubelet deletes images: for what containers write, logs, \
         and containerd's own.",
    ),
    key(
        "disk",
        "unused_mark",
        r#""80%""#,
        "How full the file system may be (a share, or a size) while layers are kept that no image uses; fuller, those go, the ones \
         used longest ago first. 0% keeps none.",
        "What is kept needn't be fetched by the next pull. At 85 % the kubelet deletes images and then evicts pods: it must not \
         meet bytes that no image accounts for.",
    ),
    key(
        "snapshots",
        "keep_mounted",
        "100",
        "Layers that no container uses and that stay mounted all the same, those used last.",
        "A mount costs a millisecond to make again, but every container's start copies the host's mount table: with 1,600 \
         mounts `runc run` takes 64 ms, not 35.",
    ),
    key(
        "snapshots",
        "pending_wait",
        r#""10s""#,
        "How long a container's start waits for a layer that is still being filled before it fails (and is tried again).",
        "Pulls wait for such layers without limit; this is only met when a container is started beside the pull.",
    ),
    key(
        "registry",
        "docker_config",
        r#""""#,
        "Docker's config.json with credentials and credential helpers. Empty: $DOCKER_CONFIG/config.json, else \
         ~/.docker/config.json; that it isn't there is fine. What it doesn't know of Amazon ECR comes from AWS.",
        "Where credential helpers are configured on most nodes already.",
    ),
];

/// Keys of `[[registry.hosts]]`; `default` is an example here.
const HOST_KEYS: &[Key] = &[
    key(
        "registry.hosts",
        "host",
        r#""registry.example:5000""#,
        "host[:port] as image references write it.",
        "",
    ),
    key(
        "registry.hosts",
        "plain_http",
        "false",
        "Speak HTTP, not HTTPS.",
        "Loopback addresses are spoken to so without being listed here.",
    ),
    key("registry.hosts", "skip_verify", "false", "Don't check the server's certificate.", "For tests only."),
    key(
        "registry.hosts",
        "ca_files",
        r#"["/etc/ssl/registry-ca.pem"]"#,
        "Further certificate authorities: PEM files.",
        "None: the system's are always used.",
    ),
    key(
        "registry.hosts",
        "mirrors",
        r#"["https://mirror.example/hub"]"#,
        "Other hosts to ask first, in order: scheme://host[:port][/path].",
        "None.",
    ),
];

/// Width of comments in the file.
const WIDTH: usize = 110;

fn comment(text: &str, out: &mut String) {
    let mut line = String::from("#");
    for word in text.split_whitespace() {
        if line.len() + 1 + word.len() > WIDTH {
            out.push_str(&line);
            out.push('\n');
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    out.push_str(&line);
    out.push('\n');
}

/// The file that says what holds when there is none, with comments.
pub fn file() -> String {
    let mut out = String::new();
    comment(
        "Configuration of spandrel-snapshotter: every key with its default. Flags win over this file.",
        &mut out,
    );
    let mut table = "";
    for key in KEYS {
        out.push('\n');
        if key.table != table {
            table = key.table;
            let _ = writeln!(out, "[{table}]"); // writing into a string doesn't fail
        }
        comment(key.what, &mut out);
        comment(&format!("Why: {}", key.why), &mut out);
        let _ = writeln!(out, "{} = {}", key.name, key.default);
    }
    out.push('\n');
    comment("Registry hosts that need something special, each in a table of its own. An example:", &mut out);
    out.push_str("#[[registry.hosts]]\n");
    for key in HOST_KEYS {
        comment(&format!("{} {}", key.what, key.why), &mut out);
        let _ = writeln!(out, "#{} = {}", key.name, key.default);
    }
    out
}

/// The table of docs/configuration.md.
pub fn documentation() -> String {
    // In a table's cell a bar would end it.
    let cell = |text: &str| text.replace('|', "\\|");
    let mut out = String::from("| key | default | what | why |\n|---|---|---|---|\n");
    for key in KEYS {
        let dot = if key.table.is_empty() { "" } else { "." };
        let _ = writeln!(
            out,
            "| `{}{dot}{}` | `{}` | {} | {} |",
            key.table,
            key.name,
            key.default,
            cell(key.what),
            cell(key.why)
        );
    }
    out.push_str(
        "\nIn each `[[registry.hosts]]` table:\n\n| key | example | what | by default |\n|---|---|---|---|\n",
    );
    for key in HOST_KEYS {
        let _ =
            writeln!(out, "| `{}` | `{}` | {} | {} |", key.name, key.default, cell(key.what), cell(key.why));
    }
    out
}

#[cfg(test)]
pub(super) fn names() -> Vec<String> {
    let dot = |table: &str| if table.is_empty() { String::new() } else { format!("{table}.") };
    KEYS.iter().map(|key| format!("{}{}", dot(key.table), key.name)).collect()
}

#[cfg(test)]
pub(super) fn host_names() -> Vec<&'static str> {
    HOST_KEYS.iter().map(|key| key.name).collect()
}
