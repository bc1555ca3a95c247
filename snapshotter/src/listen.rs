//! Unix sockets to listen on: in a directory made for them, readable by root only, in place of one that nobody answers on.

use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

use crate::Error;

/// A bound socket, whose name goes when it is dropped.
#[derive(Debug)]
pub struct Socket {
    path: PathBuf,
}

impl Drop for Socket {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = fs::remove_file(&self.path);
    }
}

/// Listens on the unix socket `path`, as user only.
///
/// # Errors
/// [`Error::FailedPrecondition`] when somebody answers there or it is no socket, [`Error::Internal`] when it can't be bound.
pub fn unix(path: &Path) -> Result<(UnixListener, Socket), Error> {
    let failed = |what: &str, error: &io::Error| {
        Error::Internal(format!("socket {}: {what}: {error}", path.display()))
    };
    if let Some(dir) = path.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(|error| failed("cannot make its directory", &error))?;
    }
    clear(path)?;
    let listener = UnixListener::bind(path).map_err(|error| failed("cannot be bound", &error))?;
    let socket = Socket { path: path.to_path_buf() };
    // Whoever may connect decides what containers run.
    fs::set_permissions(path, Permissions::from_mode(0o600))
        .map_err(|error| failed("its mode cannot be set", &error))?;
    Ok((listener, socket))
}

/// Takes away a socket that a dead process left.
fn clear(path: &Path) -> Result<(), Error> {
    let refused = |why: &str| Err(Error::FailedPrecondition(format!("socket {}: {why}", path.display())));
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::Internal(format!("socket {}: {error}", path.display()))),
        Ok(found) if !found.file_type().is_socket() => {
            return refused("is a file of another kind; it is left alone");
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Ok(_) => refused("another process answers there: stop that one, or choose another address"),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|error| {
                Error::Internal(format!("socket {}: cannot be removed: {error}", path.display()))
            })
        }
        // Its queue is full, or the like: somebody is there.
        Err(error) => refused(&format!("is in use ({error})")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_dead_socket_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("new/s.sock");
        let (listener, socket) = unix(&path).expect("bound");
        assert_eq!(fs::metadata(&path).expect("metadata").permissions().mode() & 0o777, 0o600);
        assert_eq!(
            fs::metadata(dir.path().join("new")).expect("metadata").permissions().mode() & 0o777,
            0o700
        );
        let taken = unix(&path).expect_err("in use");
        assert!(matches!(taken, Error::FailedPrecondition(_)), "{taken}");
        drop(listener); // as a kill -9 does, which leaves the name
        std::mem::forget(socket);
        let (_listener, socket) = unix(&path).expect("replaced");
        drop(socket);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn what_is_no_socket_is_left_alone() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("file");
        fs::write(&path, "precious").expect("written");
        assert!(matches!(unix(&path), Err(Error::FailedPrecondition(_))));
        assert_eq!(fs::read_to_string(&path).expect("read"), "precious");
    }
}
