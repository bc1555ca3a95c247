//! A container that `runc` runs by itself, without containerd, image or snapshotter: how long that takes depends on the machine,
//! and on how many mounts there are to be copied.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

/// What it runs; it is linked statically.
const BUSYBOX: &str = "/bin/busybox";

/// A bundle, as the OCI's runtime specification calls it.
#[derive(Debug)]
pub struct Bundle(TempDir);

impl Bundle {
    /// A bundle whose program does nothing.
    ///
    /// # Errors
    /// When `runc` or busybox isn't there.
    pub fn new() -> Result<Self> {
        let dir = tempfile::tempdir().context("a temporary folder")?;
        let bin = dir.path().join("rootfs/bin");
        fs::create_dir_all(&bin)?;
        fs::copy(BUSYBOX, bin.join("busybox")).context("busybox-static isn't installed")?;
        let made = Command::new("runc").arg("spec").arg("--bundle").arg(dir.path()).status();
        ensure!(made.context("runc isn't installed")?.success(), "runc spec has failed");
        let config = dir.path().join("config.json");
        let mut spec: Value = serde_json::from_slice(&fs::read(&config)?).context("what runc spec wrote")?;
        spec["process"]["terminal"] = json!(false);
        spec["process"]["args"] = json!(["/bin/busybox", "true"]);
        fs::write(&config, spec.to_string())?;
        Ok(Self(dir))
    }

    /// Runs it once; seconds until its end.
    ///
    /// # Errors
    /// `runc`'s.
    pub fn run(&self) -> Result<f64> {
        let dir: &Path = self.0.path();
        // Its state is in a folder of its own, and its name is nobody else's.
        let id = format!("spandrel-{}", std::process::id());
        let begin = Instant::now();
        let ran = Command::new("runc")
            .arg("--root")
            .arg(dir.join("state"))
            .args(["run", "--bundle"])
            .arg(dir)
            .arg(id)
            .stdin(Stdio::null())
            .output()
            .context("runc")?;
        let seconds = begin.elapsed().as_secs_f64();
        if !ran.status.success() {
            bail!("runc run: {}", String::from_utf8_lossy(&ran.stderr).trim());
        }
        Ok(seconds)
    }
}
