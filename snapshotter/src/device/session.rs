//! The threads that serve a FUSE filesystem of ours, whichever it is.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::Duration;

use fuser::{Filesystem, INodeNo, KernelConfig, Notifier, SessionACL};
use tracing::{debug, warn};

use super::mount::{Access, MAX_READ};
use crate::Error;

/// Reads that EROFS or a read-ahead makes count as background requests of the one connection. With a small limit, reads that
/// wait for a registry would keep every other read of the node from being sent.
const MAX_BACKGROUND: u16 = u16::MAX;

/// How long the end of the session is waited for after an unmount. It comes at once, unless something still has the
/// filesystem open.
const END_PATIENCE: Duration = Duration::from_secs(5);

/// Tells the kernel how long requests may be, and how many may be under way.
pub(crate) fn limits(config: &mut KernelConfig) -> io::Result<()> {
    let refused = |what: &str| io::Error::new(io::ErrorKind::Unsupported, what.to_owned());
    config.set_max_write(MAX_READ).map_err(|_| refused("requests of 1 MiB"))?;
    config.set_max_background(MAX_BACKGROUND).map_err(|_| refused("max_background"))?;
    config.set_congestion_threshold(MAX_BACKGROUND).map_err(|_| refused("congestion_threshold"))?;
    Ok(())
}

/// The threads.
pub(crate) struct Session {
    /// Yields an error (disconnected) when the threads have ended.
    ended: Mutex<mpsc::Receiver<()>>,
    notifier: Notifier,
    /// What it is called in the log.
    name: &'static str,
}

impl Session {
    /// Starts `threads` threads that answer what comes from `fd` as `filesystem` does.
    ///
    /// # Errors
    /// When threads can't be had.
    pub(crate) fn start(
        name: &'static str,
        filesystem: impl Filesystem,
        fd: OwnedFd,
        threads: usize,
        access: Access,
    ) -> Result<Self, Error> {
        let failed = |e: io::Error| Error::Internal(format!("the FUSE session can't start: {e}"));
        let mut config = fuser::Config::default();
        config.n_threads = Some(threads.max(1));
        let acl = match access {
            Access::Root => SessionACL::Owner,
            Access::Everybody => SessionACL::All,
        };
        // Never clone_fd: a clone's requests are aborted when it is closed.
        let session = fuser::Session::from_fd(filesystem, fd, acl, config).map_err(failed)?;
        let notifier = session.notifier();
        let (alive, ended) = mpsc::channel::<()>();
        let serve = move || {
            if let Err(error) = session.run() {
                warn!(%error, "the FUSE session has ended");
            }
            drop(alive);
        };
        std::thread::Builder::new().name(name.to_owned()).spawn(serve).map_err(failed)?;
        Ok(Self { ended: Mutex::new(ended), notifier, name })
    }

    /// Tells the kernel that `name` in `parent` leads nowhere now. That it didn't know the name is fine.
    pub(crate) fn forget_name(&self, parent: INodeNo, name: &str) {
        if let Err(error) = self.notifier.inval_entry(parent, OsStr::new(name)) {
            debug!(name, %error, "the kernel did not know a removed name");
        }
    }

    /// Waits for the threads, which end when the filesystem is unmounted and closed everywhere.
    pub(crate) fn join(&self) {
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(mpsc::RecvTimeoutError::Timeout) = ended.recv_timeout(END_PATIENCE) {
            warn!("the {} is unmounted, but something has it open still", self.name);
        }
    }
}
