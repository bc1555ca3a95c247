//! The fallback for kernels that can't mount a layer's table: one FUSE filesystem for the node with a folder for each mounted
//! layer, which answers from the same table what the kernel would, and reads the same stream. A layer's mount is a bind
//! mount of its folder.
//!
//! What is kept in memory of a layer is where its table's root is, and one descriptor of the table; of an entry nothing: the
//! kernel keeps what it was told for ever, and what it asks for is read from the table (`spandrel-erofs` knows how).
//! `folders` knows which there are and which the kernel knows; `serve` is what the FUSE library calls; `look` looks into a
//! layer without the kernel. When a layer is mounted, and what a read means for it, is `layer`'s.

mod folders;
mod look;
mod serve;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::Error;
use crate::device::{Access, Backing, Session, mount, unmount};
use crate::fetch::blocking;
use crate::metrics::Metrics;
use folders::{Folder, Folders};
use serve::Handle;

pub use look::{Layer, LookUp};

/// Name of the one thing in a folder: the layer. What the kernel keeps of it is given up under a lock of the folder above,
/// and that may have to wait for reads under way: so each has a folder of its own.
const LAYER: &str = "layer";

/// How the tree is set up.
#[derive(Debug, Clone)]
pub struct TreeOptions {
    /// Where it is mounted: a directory that is made when it isn't there.
    pub dir: PathBuf,
    /// Threads that read requests from the kernel.
    pub threads: usize,
}

/// The mounted tree.
pub struct Tree {
    dir: PathBuf,
    folders: Arc<Folders>,
    /// Number of the folder for each place where one is mounted, or is about to be.
    targets: Mutex<HashMap<PathBuf, u64>>,
    session: Arc<Session>,
}

impl fmt::Debug for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tree").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl Tree {
    /// Mounts the tree; what a former process left mounted there is taken away first.
    ///
    /// # Errors
    /// [`Error::Internal`] when FUSE isn't there or refuses.
    pub fn mount(options: &TreeOptions, metrics: Arc<Metrics>) -> Result<Self, Error> {
        let fd = mount(&options.dir, Access::Everybody)?;
        let folders = Arc::new(Folders::default());
        let handle = Handle::new(Arc::clone(&folders), metrics);
        let session = Arc::new(Session::start("tree", handle, fd, options.threads, Access::Everybody)?);
        Ok(Self { dir: options.dir.clone(), folders, targets: Mutex::default(), session })
    }

    /// Adds a folder for the layer `name`, whose table is in the file `table`, and whose stream of `stream_len` bytes is read
    /// from `backing`; says what is to be bind-mounted at `target`. A layer has one for each of its mounts.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the table is damaged, [`Error::NotFound`] when it isn't there.
    pub async fn add(
        &self,
        name: &str,
        target: &Path,
        table: &Path,
        stream_len: u64,
        backing: Arc<dyn Backing>,
    ) -> Result<PathBuf, Error> {
        // That of a mount that was broken off.
        self.remove(target).await?;
        let (name, table) = (name.to_owned(), table.to_path_buf());
        let folder = blocking(move || Folder::open(name, &table, stream_len, backing)).await?;
        let number = self.folders.add(folder);
        self.targets().insert(target.to_path_buf(), number);
        Ok(self.dir.join(number.to_string()).join(LAYER))
    }

    /// Takes the folder of the layer away that was mounted at `target`, if there is one, and has the kernel give up what it
    /// keeps of it: it waits for reads of the layer that are under way. Whoever has the layer mounted still, in another mount
    /// namespace, goes on being answered.
    ///
    /// # Errors
    /// When the waiting is broken off.
    pub async fn remove(&self, target: &Path) -> Result<(), Error> {
        let number = self.targets().remove(target);
        let Some(folder) = number.and_then(|number| self.folders.unlist(number)) else { return Ok(()) };
        let (own, reads, session) = (folder.own(), folder.reads(), Arc::clone(&self.session));
        // It goes when the kernel knows nothing of it, not before: nor later.
        drop(folder);
        // Also when nobody waits for it any more.
        let given_up = tokio::spawn(async move {
            // The kernel waits for pages that are being read, in a way that not even SIGKILL ends: a thread of the daemon that
            // was killed in there would keep the filesystem's descriptor, and with it all readers, for ever.
            reads.wait().await;
            blocking(move || {
                session.forget_name(own, LAYER);
                session.forget_name(fuser::INodeNo::ROOT, &own.0.to_string());
                Ok(())
            })
            .await
        });
        given_up
            .await
            .map_err(|error| Error::Internal(format!("a folder of the tree isn't given up: {error}")))?
    }

    /// Takes all folders of the layer `name` away and waits, for `patience` at most, until the kernel knows nothing of them.
    /// Returns whether it does; if not (a mount namespace has kept a copy of a mount), they go on answering.
    pub async fn remove_all(&self, name: &str, patience: Duration) -> bool {
        let targets: Vec<PathBuf> = {
            let targets = self.targets();
            let of_layer = |number: &u64| self.folders.get(*number).is_some_and(|folder| folder.name == name);
            targets.iter().filter(|(_, number)| of_layer(number)).map(|(target, _)| target.clone()).collect()
        };
        let gone = async {
            for target in targets {
                if let Err(error) = self.remove(&target).await {
                    tracing::warn!(target = %target.display(), %error, "a removed layer stays in the tree");
                }
            }
            self.released(name).await;
        };
        tokio::time::timeout(patience, gone).await.is_ok()
    }

    /// Waits until there is no folder of the layer `name`.
    pub async fn released(&self, name: &str) {
        while let Some(mut alive) = self.folders.alive(name) {
            // An error means that one is gone: it is looked for again.
            alive.changed().await.ok();
        }
    }

    /// Whether there is a folder of the layer `name`, also one that was taken away and that the kernel still knows.
    pub fn has(&self, name: &str) -> bool {
        self.folders.alive(name).is_some()
    }

    /// The layer that is mounted at `target`, to be looked into without the kernel.
    pub fn layer_at(&self, target: &Path) -> Option<Layer> {
        let number = *self.targets().get(target)?;
        self.folders.get(number).map(Layer)
    }

    /// How many layers the kernel may still ask for, those that were taken away too.
    pub fn len(&self) -> usize {
        self.folders.len()
    }

    /// Whether there is no such layer.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many requests the kernel has sent so far.
    pub fn requests(&self) -> u64 {
        self.folders.requests()
    }

    /// Where the tree is mounted.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Unmounts the tree. Its threads end when no layer is mounted any more; one that still is goes on being answered until
    /// then.
    pub fn unmount(&self) {
        unmount(&self.dir);
        self.session.join();
    }

    fn targets(&self) -> MutexGuard<'_, HashMap<PathBuf, u64>> {
        // No code panics while holding it.
        self.targets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
