//! The device: one flat FUSE filesystem for the node, with one file per layer, which is what EROFS reads when a page
//! isn't cached.
//!
//! The rest of the daemon sees [`Device`], [`Backing`] and [`ReadReply`]; the FUSE library is named in this folder and in
//! `tree` only, so that its loop can be exchanged. What a read means for a layer is `layer`'s; this module knows names,
//! lengths and open files. `tree` mounts and serves its filesystem with the same parts (`mount`, `session`).

mod errno;
mod flat;
mod mount;
mod session;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::Error;
use crate::metrics::Metrics;
use flat::{Flat, Handle};

pub(crate) use errno::errno;
pub(crate) use mount::{Access, mount, unmount};
pub(crate) use session::{Session, limits};

/// What a file of the device reads from.
pub trait Backing: Send + Sync + 'static {
    /// Answers a read of `len` bytes from `offset`, at once or later, from any thread. It is called on a thread of the
    /// FUSE loop: waiting for anything but the local disk here would hold up every layer of the node.
    fn read(&self, offset: u64, len: usize, reply: ReadReply);
}

/// What takes an answer.
type Taker = Box<dyn FnOnce(Result<&[u8], &Error>) + Send>;

/// The answer that a read waits for. Dropped without an answer, it answers EIO.
pub struct ReadReply {
    len: usize,
    send: Taker,
}

impl fmt::Debug for ReadReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadReply").field("len", &self.len).finish_non_exhaustive()
    }
}

impl ReadReply {
    /// A reply that wants `len` bytes and hands them, or the error, to `send`.
    pub fn new(len: usize, send: impl FnOnce(Result<&[u8], &Error>) + Send + 'static) -> Self {
        Self { len, send: Box::new(send) }
    }

    /// Answers with `bytes`. Fewer than were asked for become an error: kernels fill up a short reply with zeros and keep
    /// them in the page cache.
    pub fn data(self, bytes: &[u8]) {
        if bytes.len() == self.len {
            (self.send)(Ok(bytes));
        } else {
            let what = format!("a read of {} bytes was about to be answered with {}", self.len, bytes.len());
            self.fail(&Error::Internal(what));
        }
    }

    /// Answers with an error.
    pub fn fail(self, error: &Error) {
        (self.send)(Err(error));
    }
}

/// How the device is set up.
#[derive(Debug, Clone)]
pub struct DeviceOptions {
    /// Where it is mounted: a directory that is made when it isn't there.
    pub dir: PathBuf,
    /// Threads that read requests from the kernel.
    pub threads: usize,
}

/// The mounted device.
pub struct Device {
    dir: PathBuf,
    flat: Arc<Flat>,
    session: Session,
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl Device {
    /// Mounts the device; what a former process left mounted there is taken away first.
    ///
    /// # Errors
    /// [`Error::Internal`] when FUSE isn't there or refuses.
    pub fn mount(options: &DeviceOptions, metrics: Arc<Metrics>) -> Result<Self, Error> {
        let fd = mount(&options.dir, Access::Root)?;
        let flat = Arc::new(Flat::new(metrics));
        let handle = Handle(Arc::clone(&flat));
        let session = Session::start("device", handle, fd, options.threads, Access::Root)?;
        Ok(Self { dir: options.dir.clone(), flat, session })
    }

    /// Path of the file called `name`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Where the device is mounted.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Adds the file `name` of `len` bytes.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`] when there is one of that name.
    pub fn add(&self, name: &str, len: u64, backing: Arc<dyn Backing>) -> Result<(), Error> {
        self.flat.add(name, len, backing)
    }

    /// Whether there is a file called `name`.
    pub fn has(&self, name: &str) -> bool {
        self.flat.has(name)
    }

    /// Takes the file's name away and waits, for `patience` at most, until the kernel has closed it. Returns whether it
    /// has; if not (a mount namespace has kept a copy of a mount), the file goes on answering whoever has it open, and
    /// goes when it is closed.
    pub async fn remove(&self, name: &str, patience: Duration) -> bool {
        let Some(closed) = self.flat.unlist(name) else { return true };
        self.session.forget_name(fuser::INodeNo::ROOT, name);
        tokio::time::timeout(patience, closed).await.is_ok()
    }

    /// Waits until the kernel doesn't have the file `name` open, or there is none.
    pub async fn released(&self, name: &str) {
        self.flat.released(name).await;
    }

    /// Takes the file away if the kernel doesn't have it open; says whether there is none now.
    pub fn remove_closed(&self, name: &str) -> bool {
        let removed = self.flat.unlist_closed(name);
        if removed {
            self.session.forget_name(fuser::INodeNo::ROOT, name);
        }
        removed
    }

    /// How many requests the kernel has sent so far.
    pub fn requests(&self) -> u64 {
        self.flat.requests()
    }

    /// Unmounts the device and ends its threads. Mounts that read from it get errors from now on.
    pub fn unmount(&self) {
        unmount(&self.dir);
        self.session.join();
    }
}
