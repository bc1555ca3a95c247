//! How much memory the tool takes while an image passes through it, by the kernel's own count.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use spandrel_fixtures::huge::{HugeLayer, HugeRegistry};

use crate::support::{Ran, Tool};

/// The layer's length in bytes.
const LAYER: u64 = 2 << 30;

/// The most memory that the tool may take for it, in bytes: docs/cli.md says 30 MiB and three times the zTOC's 16 MiB. The rest is
/// room for another allocator's ways; it is a sixteenth of the layer.
const MOST: u64 = 128 << 20;

/// The most memory that a process has had in RAM so far, in bytes.
fn peak(pid: u32) -> u64 {
    let status = std::fs::read_to_string(PathBuf::from(format!("/proc/{pid}/status"))).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

#[test]
fn a_layer_of_2_gib_passes_through_in_little_memory() {
    let layer = HugeLayer::new(LAYER);
    // The tag comes last: then the tool still runs, and has done all else.
    let (pid, measured) = (Arc::new(Mutex::new(0)), Arc::new(Mutex::new(0)));
    let (whose, takes) = (Arc::clone(&pid), Arc::clone(&measured));
    let registry =
        HugeRegistry::start(layer.clone(), move || *takes.lock().unwrap() = peak(*whose.lock().unwrap()));
    let name = |repository: &str| format!("{}/{repository}:1", registry.host());
    let tool = Tool::new();
    let mut command = tool.command(&["convert", &name("app"), &name("lazy"), "--platform", "linux/amd64"]);
    // Held until it is known.
    let mut known = pid.lock().unwrap();
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    *known = child.id();
    drop(known);
    let ran = Ran::of(child.wait_with_output().unwrap());
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    // All of it went there, in one piece, and the image names its index.
    assert_eq!(registry.uploaded("lazy", &layer.digest), Some(layer.len()));
    let index: serde_json::Value = serde_json::from_slice(&registry.manifest("lazy", "1").unwrap()).unwrap();
    assert_eq!(index["manifests"].as_array().unwrap().len(), 2);
    let ztoc = ran.text().trim_end().rsplit_once(' ').unwrap().1.to_owned();
    // A window for each 4 MiB and what is left of a block.
    assert_eq!(registry.uploaded("lazy", &ztoc).unwrap() >> 20, 15);
    let measured = *measured.lock().unwrap();
    assert!(0 < measured && measured <= MOST, "{} MiB", measured >> 20);
}
