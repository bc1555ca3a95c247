//! What this kernel can do, found out by doing it: a layer's mount over the device or from the tree, small and for a moment,
//! below the root.
//! Versions aren't looked at: distributions backport, and configurations leave out.
//!
//! Whatever reads from the trial mount is a process of its own (see [`read_whole`]): a thread of the daemon that waits on the
//! daemon's own device could not die with it.

mod table;
mod trial;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use crate::Error;
use crate::device::Device;
use crate::mounter::{Mounter, is_mount_point};
use crate::tree::Tree;
use table::Plan;
use trial::Trial;

/// Longest that one trial read may take: it is answered from memory, but the machine may be busy with its own start.
const READ_WAIT: Duration = Duration::from_secs(30);

/// How long the kernel may take to close the trial's device file. It takes milliseconds.
const CLOSE_WAIT: Duration = Duration::from_secs(5);

/// Name of the trial's file in the device; no layer's name has a dash.
const NAME: &str = "kernel-probe";

/// What to do about a kernel that can't mount tables.
const KERNEL_HINT: &str = "needed is Linux 6.12 or later with CONFIG_EROFS_FS and CONFIG_EROFS_FS_BACKED_BY_FILE (on Debian 12: \
    the package linux-image-amd64 or linux-image-arm64 from bookworm-backports)";

/// What to do about a kernel that can't mount the tree.
const FUSE_HINT: &str = "needed is Linux 5.8 or later with CONFIG_FUSE_FS";

/// What the kernel can do beyond what is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Able {
    /// Layers need EROFS's mount option `directio`: without it this kernel reads one piece after the other.
    pub directio: bool,
    /// One reader puts several requests in flight; where not even `directio` gives that, big reads are slow.
    pub parallel: bool,
    /// A device that ends too early gives errors. Where it gives zeros, a layer's stream must never be EROFS's device itself.
    pub short_reads_fail: bool,
}

/// Tries the kernel out. `program` is this program: it is started for trial reads.
///
/// # Errors
/// [`Error::FailedPrecondition`] names what it can't do, and which kernel can.
pub async fn run(
    root: &Path,
    device: &Arc<Device>,
    mounter: &Mounter,
    program: &Path,
) -> Result<Able, Error> {
    let bench = Bench { dir: root.join("probe"), on: On::Device(device), mounter, program };
    bench.clear().await;
    let result = bench.try_device(device).await;
    bench.clear().await;
    match &result {
        Ok(able) => {
            tracing::info!(
                directio = able.directio,
                parallel = able.parallel,
                short_reads_fail = able.short_reads_fail,
                "the kernel can mount layers"
            );
            if !able.parallel {
                tracing::warn!(
                    "this kernel reads one piece after the other: large files come slowly (Linux 6.13 doesn't)"
                );
            }
        }
        Err(error) => tracing::warn!(%error, "the kernel can't mount layers' tables"),
    }
    result
}

/// Tries out whether layers can be mounted from the tree. `program` is this program: it is started for trial reads.
///
/// # Errors
/// [`Error::FailedPrecondition`] names what the kernel can't do, and which kernel can.
pub async fn run_tree(root: &Path, tree: &Tree, mounter: &Mounter, program: &Path) -> Result<(), Error> {
    let bench = Bench { dir: root.join("probe"), on: On::Tree(tree), mounter, program };
    bench.clear().await;
    let result = bench.try_tree().await;
    bench.clear().await;
    if let Err(error) = &result {
        tracing::warn!(%error, "layers can't be mounted from the tree");
    }
    result
}

fn unable(what: &str, why: &dyn std::fmt::Display, hint: &str) -> Error {
    Error::FailedPrecondition(format!("this kernel can't {what}: {why}; {hint}"))
}

/// On what it is tried out.
enum On<'a> {
    Device(&'a Device),
    Tree(&'a Tree),
}

/// Where it is tried out.
struct Bench<'a> {
    dir: PathBuf,
    on: On<'a>,
    mounter: &'a Mounter,
    program: &'a Path,
}

/// Mount points in the bench, those on others first.
const MOUNT_POINTS: [&str; 4] = ["upper", "overlay", "plain", "layer"];

impl Bench<'_> {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Takes away what is there, of this run or one that was killed.
    async fn clear(&self) {
        for name in MOUNT_POINTS {
            if let Err(error) = self.mounter.unmount(&self.path(name)).await {
                tracing::warn!(%error, "a trial mount stays");
            }
        }
        match &self.on {
            On::Device(device) => {
                device.remove(NAME, CLOSE_WAIT).await;
            }
            On::Tree(tree) => {
                if let Err(error) = tree.remove(&self.path("layer")).await {
                    tracing::warn!(%error, "the trial's folder stays");
                }
            }
        }
        match fs::remove_dir_all(&self.dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(dir = %self.dir.display(), %error, "the trial's directory stays");
            }
            _ => {}
        }
    }

    /// What both trials begin with: directories and the table.
    fn prepare(&self) -> Result<Arc<Trial>, Error> {
        let plan = Plan;
        let prepare = || -> io::Result<()> {
            fs::create_dir(&self.dir)?;
            for name in MOUNT_POINTS.iter().chain(["other", "another"].iter()) {
                fs::create_dir(self.path(name))?;
            }
            fs::write(self.path("table"), plan.table().map_err(io::Error::other)?)
        };
        let failed = |error| {
            Error::Internal(format!("{}: the kernel can't be tried out: {error}", self.dir.display()))
        };
        prepare().map_err(failed)?;
        Ok(Arc::new(Trial::new(plan)))
    }

    async fn try_tree(&self) -> Result<(), Error> {
        let trial = self.prepare()?;
        self.layer(&trial, false).await?;
        // That several requests may be under way the kernel has promised; a window of its read-ahead is one.
        self.is_whole(&trial, self.read(&self.path("layer").join(table::WHOLE)).await)?;
        self.errors_are_errors().await?;
        self.overlays().await
    }

    async fn try_device(&self, device: &Device) -> Result<Able, Error> {
        let trial = self.prepare()?;
        device.add(NAME, trial.plan.device_len(), Arc::clone(&trial) as _)?;
        self.layer(&trial, false).await?;
        let mut parallel = self.reads_in_parallel(&trial).await?;
        let mut directio = false;
        if !parallel {
            self.mounter.unmount(&self.path("layer")).await?;
            self.layer(&trial, true).await?;
            parallel = self.reads_in_parallel(&trial).await?;
            directio = parallel;
            if !directio {
                self.mounter.unmount(&self.path("layer")).await?;
                self.layer(&trial, false).await?;
            }
        }
        self.errors_are_errors().await?;
        self.overlays().await?;
        Ok(Able { directio, parallel, short_reads_fail: self.short_reads_fail(&trial.plan).await? })
    }

    /// Mounts the trial layer, and looks at it.
    async fn layer(&self, trial: &Arc<Trial>, directio: bool) -> Result<(), Error> {
        let what = match self.on {
            On::Device(_) => "mount an EROFS table from a plain file over a FUSE file",
            On::Tree(_) => "mount a folder of the FUSE tree",
        };
        let (table, target) = (self.path("table"), self.path("layer"));
        let mounted = match &self.on {
            On::Device(device) => self.mounter.erofs(&table, &device.path(NAME), &target, directio).await,
            On::Tree(tree) => {
                let backing = Arc::clone(trial) as _;
                let source = tree.add(NAME, &target, &table, trial.plan.device_len(), backing).await?;
                self.mounter.folder(&source, &target).await
            }
        };
        mounted.map_err(|error| unable(what, &error, self.hint()))?;
        if matches!(self.on, On::Tree(_)) {
            // No more than that: whatever a thread of the daemon asks, a thread of the daemon would have to answer.
            return if is_mount_point(&target) {
                Ok(())
            } else {
                Err(unable("say where something is mounted", &"statx doesn't", self.hint()))
            };
        }
        // Answered by the table, which is a plain file: the device isn't asked.
        let len = fs::metadata(target.join(table::WHOLE)).map(|found| found.len());
        if len.as_ref().is_ok_and(|len| *len == trial.plan.whole_len()) {
            return Ok(());
        }
        Err(unable(
            what,
            &format!("a file in it should have {} bytes: {len:?}", trial.plan.whole_len()),
            self.hint(),
        ))
    }

    fn hint(&self) -> &'static str {
        match self.on {
            On::Device(_) => KERNEL_HINT,
            On::Tree(_) => FUSE_HINT,
        }
    }

    fn cant_read(&self, why: &dyn std::fmt::Display) -> Error {
        let what = match self.on {
            On::Device(_) => "read through an EROFS mount over a FUSE file",
            On::Tree(_) => "read through a folder of the FUSE tree",
        };
        unable(what, why, self.hint())
    }

    /// Reads the trial file; says whether several requests were under way at once.
    async fn reads_in_parallel(&self, trial: &Trial) -> Result<bool, Error> {
        trial.hold();
        let file = self.path("layer").join(table::WHOLE);
        let (bytes, parallel) = tokio::join!(self.read(&file), trial.together());
        self.is_whole(trial, bytes)?;
        Ok(parallel)
    }

    /// Compares what came of the trial file with what was answered.
    fn is_whole(&self, trial: &Trial, bytes: Result<Vec<u8>, ReadError>) -> Result<(), Error> {
        let bytes = bytes.map_err(|error| self.cant_read(&error))?;
        if bytes.len() as u64 == trial.plan.whole_len() && trial.plan.is_right(0, &bytes) {
            return Ok(());
        }
        let why = format!("{} bytes came that aren't what was answered", bytes.len());
        Err(self.cant_read(&why))
    }

    /// A device that fails must fail the reader, not give it zeros.
    async fn errors_are_errors(&self) -> Result<(), Error> {
        match self.read(&self.path("layer").join(table::BROKEN)).await {
            Err(ReadError::Failed(_)) => Ok(()),
            Err(error) => Err(self.cant_read(&error)),
            Ok(bytes) => {
                let why = format!("{} bytes came where there was an error to be given", bytes.len());
                Err(self.cant_read(&why))
            }
        }
    }

    /// Containers' overlays stand on layers, and whole images are mounted as overlays that others stand on.
    async fn overlays(&self) -> Result<(), Error> {
        let what = "mount an overlay on layers";
        let hint = "needed is overlayfs (CONFIG_OVERLAY_FS, the module overlay)";
        let (layer, overlay, upper) = (self.path("layer"), self.path("overlay"), self.path("upper"));
        let unable = |error| unable(what, &error, hint);
        self.mounter.overlay(vec![layer, self.path("other")], &overlay).await.map_err(unable)?;
        self.mounter.overlay(vec![overlay, self.path("another")], &upper).await.map_err(unable)?;
        match self.read(&upper.join(table::WHOLE)).await {
            Ok(_) => Ok(()),
            Err(error) => {
                Err(unable(Error::Internal(format!("a file of the layer can't be read through it: {error}"))))
            }
        }
    }

    /// Whether a plain file as device that ends too early gives an error.
    async fn short_reads_fail(&self, plan: &Plan) -> Result<bool, Error> {
        let stream = self.path("stream");
        let write = || -> io::Result<()> {
            let file = fs::File::create(&stream)?;
            // In the middle of a page of the broken file: the rest of that page is what kernels fill with zeros.
            file.set_len(plan.broken_start() + table::CUT)
        };
        write().map_err(|error| Error::Internal(format!("{}: {error}", stream.display())))?;
        let target = self.path("plain");
        // Not needed today: that it can't be mounted so is an answer too.
        if let Err(error) = self.mounter.erofs(&self.path("table"), &stream, &target, false).await {
            tracing::debug!(%error, "a plain file can't be EROFS's device");
            return Ok(false);
        }
        let read = self.read(&target.join(table::BROKEN)).await;
        Ok(matches!(read, Err(ReadError::Failed(_))))
    }

    /// Has a process of its own read `file` whole.
    async fn read(&self, file: &Path) -> Result<Vec<u8>, ReadError> {
        let child = tokio::process::Command::new(self.program)
            .arg("probe-read")
            .arg(file)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(READ_WAIT, child)
            .await
            .map_err(|_| ReadError::Late)?
            .map_err(|error| ReadError::NotStarted(error.to_string()))?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        Err(ReadError::Failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
    }
}

#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error("nothing came within {READ_WAIT:?}")]
    Late,
    #[error("the process that reads can't be started: {0}")]
    NotStarted(String),
    #[error("{0}")]
    Failed(String),
}

/// What the reading process does: it asks for all of `file` at once, so that the kernel may send several requests, then
/// copies it to `to`.
///
/// # Errors
/// What the kernel says.
pub fn read_whole(file: &Path, to: &mut impl io::Write) -> io::Result<()> {
    let mut from = fs::File::open(file)?;
    // Answers when all requests are sent, not when they are answered, where the kernel sends them asynchronously.
    rustix::fs::fadvise(&from, 0, None, rustix::fs::Advice::WillNeed)?;
    io::copy(&mut from, to).map(|_| ())
}
