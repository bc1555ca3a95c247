//! What runs in the helper process.

use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::calls;
use super::protocol::{self, Failure, Reply, Request};

/// How many operations may be under way: each has a thread, and one that the kernel holds up must not hold up others.
const MAX_THREADS: usize = 512;

/// Runs the helper: it takes requests from standard input, a socket that the daemon holds the other end of, until that
/// is closed.
///
/// # Errors
/// When standard input is no socket, or the daemon says what isn't a request.
pub fn run() -> io::Result<()> {
    let mut from = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let to = Arc::new(Mutex::new(from.try_clone()?));
    let running = Arc::new(AtomicUsize::new(0));
    while let Some(request) = protocol::read::<Request>(&mut from)? {
        if running.fetch_add(1, Ordering::Relaxed) >= MAX_THREADS {
            running.fetch_sub(1, Ordering::Relaxed);
            let message = format!("{MAX_THREADS} mounts are under way and none ends");
            answer(&to, &Reply { id: request.id, failure: Some(Failure { message }) })?;
            continue;
        }
        let (to, running) = (Arc::clone(&to), Arc::clone(&running));
        std::thread::Builder::new().name("mount".to_owned()).spawn(move || {
            let failure = calls::perform(&request.op).err().map(|message| Failure { message });
            running.fetch_sub(1, Ordering::Relaxed);
            // An error here means that the daemon has gone: then the loop above ends.
            answer(&to, &Reply { id: request.id, failure }).ok();
        })?;
    }
    Ok(())
}

fn answer(to: &Mutex<UnixStream>, reply: &Reply) -> io::Result<()> {
    let bytes = protocol::encode(reply)?;
    to.lock().unwrap_or_else(PoisonError::into_inner).write_all(&bytes)
}
