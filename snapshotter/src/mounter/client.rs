//! The daemon's end: starts the helper, sends it requests, several at a time, and starts it anew when it has died.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedReadHalf;
use tokio::sync::{mpsc, oneshot};
use tracing::{info, warn};

use super::protocol::{self, Failure, MAX_MESSAGE, Op, Reply, Request};
use crate::Error;

/// How the helper is started.
#[derive(Debug, Clone)]
pub struct Helper {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
}

impl Default for Helper {
    /// This very program, also when its file has been replaced since, with the argument `mounter`.
    fn default() -> Self {
        Self { program: "/proc/self/exe".into(), args: vec!["mounter".into()] }
    }
}

/// Who waits for an answer, by the request's number; `None` when the helper has died.
type Waiting = Arc<Mutex<Option<HashMap<u64, oneshot::Sender<Option<Failure>>>>>>;

/// A running helper.
#[derive(Debug)]
struct Line {
    /// Whole messages: a call that is cancelled must not leave half of one behind.
    to: mpsc::UnboundedSender<Vec<u8>>,
    waiting: Waiting,
    next_id: u64,
}

/// Mounts and unmounts, through the helper.
#[derive(Debug)]
pub struct Mounter {
    helper: Helper,
    line: tokio::sync::Mutex<Option<Line>>,
}

impl Mounter {
    /// A mounter; the helper is started when it is first needed.
    pub fn new(helper: Helper) -> Self {
        Self { helper, line: tokio::sync::Mutex::new(None) }
    }

    /// Mounts the EROFS image `table` over the file `device` at the directory `target`; with `directio` EROFS reads its
    /// device past that file's page cache.
    ///
    /// # Errors
    /// [`Error::Internal`] with the kernel's words.
    pub async fn erofs(
        &self,
        table: &Path,
        device: &Path,
        target: &Path,
        directio: bool,
    ) -> Result<(), Error> {
        let (table, device, target) = (table.into(), device.into(), target.into());
        self.perform(Op::Erofs { table, device, target, directio }).await
    }

    /// Mounts an overlay of `lowers`, the topmost first, read-only at `target`.
    ///
    /// # Errors
    /// [`Error::Internal`] with the kernel's words.
    pub async fn overlay(&self, lowers: Vec<PathBuf>, target: &Path) -> Result<(), Error> {
        self.perform(Op::Overlay { lowers, target: target.into() }).await
    }

    /// Mounts the directory `source` read-only at the directory `target` too.
    ///
    /// # Errors
    /// [`Error::Internal`] with the kernel's words.
    pub async fn bind(&self, source: &Path, target: &Path) -> Result<(), Error> {
        self.perform(Op::Bind { source: source.into(), target: target.into() }).await
    }

    /// Mounts the layer in the tree's folder `source` read-only at the directory `target` too.
    ///
    /// # Errors
    /// [`Error::Internal`] with the kernel's words.
    pub async fn folder(&self, source: &Path, target: &Path) -> Result<(), Error> {
        self.perform(Op::Folder { source: source.into(), target: target.into() }).await
    }

    /// Takes away everything that is mounted at `target`, lazily where something uses it; does nothing when nothing is.
    ///
    /// # Errors
    /// [`Error::Internal`] with the kernel's words.
    pub async fn unmount(&self, target: &Path) -> Result<(), Error> {
        self.perform(Op::Unmount { target: target.into() }).await
    }

    async fn perform(&self, op: Op) -> Result<(), Error> {
        let answer = self.send(op).await.map_err(|e| Error::Internal(format!("the mount helper: {e}")))?;
        match answer.await {
            Ok(None) => Ok(()),
            Ok(Some(failure)) => Err(Error::Internal(failure.message)),
            // It isn't known whether it was done; the caller may try again, since all of it may be done twice.
            Err(_) => Err(Error::Unavailable("the mount helper died during a mount; try again".to_owned())),
        }
    }

    async fn send(&self, op: Op) -> io::Result<oneshot::Receiver<Option<Failure>>> {
        let mut slot = self.line.lock().await;
        let dead = |line: &Line| line.waiting.lock().unwrap_or_else(PoisonError::into_inner).is_none();
        if slot.as_ref().is_none_or(dead) {
            *slot = Some(self.start()?);
        }
        let Some(line) = slot.as_mut() else { return Err(io::Error::other("no helper")) };
        let id = line.next_id;
        line.next_id += 1;
        let (sender, answer) = oneshot::channel();
        if let Some(waiting) = line.waiting.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            waiting.insert(id, sender);
        }
        let died = |_| io::Error::other("it died when it was asked");
        line.to.send(protocol::encode(&Request { id, op })?).map_err(died)?;
        Ok(answer)
    }

    fn start(&self) -> io::Result<Line> {
        let (ours, theirs) = StdUnixStream::pair()?;
        let mut child = Command::new(&self.helper.program)
            .args(&self.helper.args)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            // What ends the daemon from a terminal ends the helper by closing its line, not by the signal.
            .process_group(0)
            .spawn()?;
        info!(pid = child.id(), "started the mount helper");
        ours.set_nonblocking(true)?;
        let (from, mut socket) = UnixStream::from_std(ours)?.into_split();
        let (to, mut messages) = mpsc::unbounded_channel::<Vec<u8>>();
        tokio::spawn(async move {
            while let Some(message) = messages.recv().await {
                if socket.write_all(&message).await.is_err() {
                    return;
                }
            }
        });
        let waiting: Waiting = Arc::new(Mutex::new(Some(HashMap::new())));
        let listening = Arc::clone(&waiting);
        tokio::spawn(async move {
            let ended = listen(from, &listening).await;
            // Whoever waits gets an error by the drop of its sender.
            drop(listening.lock().unwrap_or_else(PoisonError::into_inner).take());
            let status = tokio::task::spawn_blocking(move || child.wait()).await;
            warn!(error = ?ended.err(), ?status, "the mount helper has ended");
        });
        Ok(Line { to, waiting, next_id: 0 })
    }
}

/// Hands replies to those who wait for them, until the helper closes the line.
async fn listen(mut from: OwnedReadHalf, waiting: &Waiting) -> io::Result<()> {
    loop {
        let len = match from.read_u32_le().await {
            Ok(len) if len <= MAX_MESSAGE => len,
            Ok(len) => return Err(io::Error::other(format!("a reply of {len} bytes"))),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(e) => return Err(e),
        };
        let mut body = vec![0; len as usize];
        from.read_exact(&mut body).await?;
        let reply: Reply = serde_json::from_slice(&body).map_err(io::Error::other)?;
        let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = waiting.as_mut().and_then(|waiting| waiting.remove(&reply.id)) {
            // Nobody waits any more when the call that asked was cancelled.
            sender.send(reply.failure).ok();
        }
    }
}
