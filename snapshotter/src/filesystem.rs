//! As what layers are mounted: the kernel's EROFS over the device, or folders of the FUSE tree where the kernel can't do
//! that. It is chosen once, when the daemon starts.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::device::{Device, DeviceOptions};
use crate::metrics::Metrics;
use crate::mounter::Mounter;
use crate::probe;
use crate::tree::{Tree, TreeOptions};

/// Threads that take requests of the kernel. Those for present bytes and names are answered on them, from the page cache or
/// the disk; all others only pass through.
const THREADS: usize = 4;

/// Where below the root the device is mounted.
const DEVICE_DIR: &str = "device";

/// Where below the root the tree is mounted.
const TREE_DIR: &str = "tree";

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Choice {
    /// EROFS where a trial mount at the start works, else FUSE.
    #[default]
    Auto,
    /// EROFS, or no start.
    Erofs,
    /// FUSE.
    Fuse,
}

/// What layers are mounted by.
#[derive(Debug, Clone)]
pub enum FileSystem {
    /// The kernel mounts tables over files of the device.
    Erofs(Arc<Device>),
    /// Folders of the tree are bind-mounted.
    Fuse(Arc<Tree>),
}

impl From<Arc<Device>> for FileSystem {
    fn from(device: Arc<Device>) -> Self {
        Self::Erofs(device)
    }
}

impl From<Arc<Tree>> for FileSystem {
    fn from(tree: Arc<Tree>) -> Self {
        Self::Fuse(tree)
    }
}

/// What was chosen, and why: for operators.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Chosen {
    /// `erofs` or `fuse`.
    pub filesystem: &'static str,
    /// What was asked for.
    pub configured: Choice,
    /// In a sentence.
    pub why: String,
    /// Whether layers need EROFS's mount option `directio`.
    #[serde(skip)]
    pub directio: bool,
}

impl FileSystem {
    /// Mounts the device or the tree below `root`, and finds out by a trial what the kernel can do. `program` is this program:
    /// it is started for trial reads.
    ///
    /// # Errors
    /// When the kernel can't do what is asked for.
    pub async fn start(
        choice: Choice,
        root: &Path,
        metrics: &Arc<Metrics>,
        mounter: &Mounter,
        program: &Path,
    ) -> Result<(Self, Chosen), Error> {
        // What a killed process left, also if it had chosen otherwise: on a dead mount even `stat` fails.
        for dir in [DEVICE_DIR, TREE_DIR] {
            crate::device::unmount(&root.join(dir));
        }
        let (files, chosen, reason) = match choice {
            Choice::Fuse => {
                let tree = start_tree(root, metrics, mounter, program).await?;
                let why = "the configuration asks for it".to_owned();
                (
                    Self::Fuse(tree),
                    Chosen { filesystem: "fuse", configured: choice, why, directio: false },
                    "configured",
                )
            }
            Choice::Auto | Choice::Erofs => match start_device(root, metrics, mounter, program).await {
                Ok((device, able)) => {
                    let why = "the kernel mounts layer tables".to_owned();
                    let directio = able.directio;
                    (
                        Self::Erofs(device),
                        Chosen { filesystem: "erofs", configured: choice, why, directio },
                        "probe",
                    )
                }
                Err(error @ Error::FailedPrecondition(_)) if choice == Choice::Auto => {
                    let tree = start_tree(root, metrics, mounter, program).await?;
                    let why = error.to_string();
                    (
                        Self::Fuse(tree),
                        Chosen { filesystem: "fuse", configured: choice, why, directio: false },
                        "probe",
                    )
                }
                Err(error) => return Err(error),
            },
        };
        metrics.filesystem(chosen.filesystem, reason);
        tracing::info!(filesystem = chosen.filesystem, configured = ?choice, why = chosen.why, "layers are mounted");
        Ok((files, chosen))
    }

    /// Waits until the kernel has given up the layer called `name`: it is mounted nowhere.
    pub(crate) async fn released(&self, name: &str) {
        match self {
            Self::Erofs(device) => device.released(name).await,
            Self::Fuse(tree) => tree.released(name).await,
        }
    }

    /// Serves the layer no more if it is mounted nowhere; says whether it isn't served now.
    pub(crate) fn remove_closed(&self, name: &str) -> bool {
        match self {
            Self::Erofs(device) => device.remove_closed(name),
            Self::Fuse(tree) => !tree.has(name),
        }
    }

    /// Takes what is served of the layer away, and waits for `patience` at most until the kernel has given it up; says whether
    /// it has. Otherwise it goes on being served to whoever has it mounted.
    pub(crate) async fn remove(&self, name: &str, patience: Duration) -> bool {
        match self {
            Self::Erofs(device) => device.remove(name, patience).await,
            Self::Fuse(tree) => tree.remove_all(name, patience).await,
        }
    }

    /// Unmounts it and ends its threads. Layers that are still mounted get errors from now on, or soon.
    pub fn unmount(&self) {
        match self {
            Self::Erofs(device) => device.unmount(),
            Self::Fuse(tree) => tree.unmount(),
        }
    }
}

async fn start_device(
    root: &Path,
    metrics: &Arc<Metrics>,
    mounter: &Mounter,
    program: &Path,
) -> Result<(Arc<Device>, probe::Able), Error> {
    let options = DeviceOptions { dir: root.join(DEVICE_DIR), threads: THREADS };
    let device = Arc::new(Device::mount(&options, Arc::clone(metrics))?);
    match probe::run(root, &device, mounter, program).await {
        Ok(able) => Ok((device, able)),
        Err(error) => {
            device.unmount();
            Err(error)
        }
    }
}

async fn start_tree(
    root: &Path,
    metrics: &Arc<Metrics>,
    mounter: &Mounter,
    program: &Path,
) -> Result<Arc<Tree>, Error> {
    let options = TreeOptions { dir: root.join(TREE_DIR), threads: THREADS };
    let tree = Arc::new(Tree::mount(&options, Arc::clone(metrics))?);
    match probe::run_tree(root, &tree, mounter, program).await {
        Ok(()) => Ok(tree),
        Err(error) => {
            tree.unmount();
            Err(error)
        }
    }
}
