//! A layer's files while they are open: opened for a mount, watched over until they are what the image says, and closed when the
//! layer isn't mounted any more and nothing is left to do. Layers that nobody uses then take neither descriptors nor, but for
//! their records, memory.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use super::lazy::{LazyBacking, STREAM, WholeBacking};
use super::one::{Layer, lock};
use super::record::{Record, Stage};
use super::stream::Stream;
use super::{files, lazy, verify};
use crate::Error;
use crate::device::Backing;
use crate::fetch::{Spans, blocking};
use crate::open_files::LazyFile;

/// Wait before a check of a complete layer that could not be done is tried again; doubles each time.
const MIN_VERIFY_BACKOFF: Duration = Duration::from_secs(1);

/// Longest such wait: the check asks the registry for the blob's end, and nobody waits for it.
const MAX_VERIFY_BACKOFF: Duration = Duration::from_secs(60 * 60);

/// The files of a layer.
#[derive(Debug)]
pub(super) enum Opened {
    /// Of one that is filled as it is read.
    Lazy {
        /// Its spans.
        spans: Arc<Spans>,
        /// Ends the tasks that watch over them.
        watch: CancellationToken,
    },
    /// Of one that was filled in full.
    Whole(Arc<Stream>),
}

impl Opened {
    /// The files are deleted, or others take their places: whoever reads on means these.
    pub(super) fn hold_files(&self) {
        match self {
            Self::Lazy { spans, .. } => spans.hold_files(),
            Self::Whole(stream) => stream.hold(),
        }
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        if let Self::Lazy { watch, .. } = self {
            watch.cancel();
        }
    }
}

impl Layer {
    /// The spans of a lazy layer, while it is open.
    pub(super) fn spans(&self) -> Option<Arc<Spans>> {
        match &*lock(&self.opened) {
            Some(Opened::Lazy { spans, .. }) => Some(Arc::clone(spans)),
            _ => None,
        }
    }

    /// How many spans of a lazy layer are present, and how many there are; while it is open.
    pub(super) fn progress(&self) -> Option<(u32, u32)> {
        self.spans().map(|spans| spans.progress())
    }

    /// Opens a lazy layer's files, unless they are.
    ///
    /// # Errors
    /// When they are damaged, or the layer was removed.
    pub(super) async fn open(self: &Arc<Self>) -> Result<Arc<Spans>, Error> {
        if let Some(spans) = self.spans() {
            return Ok(spans);
        }
        let _held = self.gate.lock().await;
        self.not_stopped()?;
        self.open_held().await
    }

    async fn open_held(self: &Arc<Self>) -> Result<Arc<Spans>, Error> {
        if let Some(spans) = self.spans() {
            return Ok(spans);
        }
        let (record, node) = (self.record(), Arc::clone(&self.node));
        let source = (self.node.sources)(&record.repository(), &record.digest);
        let len = blocking({
            let dir = Arc::clone(&self.dir);
            move || lazy::ztoc_len(&dir)
        });
        let _turn = self.node.building(len.await?).await;
        let dir = Arc::clone(&self.dir);
        let spans = blocking(move || lazy::open(&dir, &record, source, &node)).await?;
        if self.stop.is_cancelled() {
            spans.close();
        }
        let watch = self.stop.child_token();
        let watching = Arc::clone(self).watch_over(Arc::clone(&spans), watch.clone());
        self.node.tasks.spawn(watching);
        *lock(&self.opened) = Some(Opened::Lazy { spans: Arc::clone(&spans), watch });
        Ok(spans)
    }

    /// What its stream is read from; under the gate. Its files are opened, unless they are.
    ///
    /// # Errors
    /// When they are damaged.
    pub(super) async fn backing(self: &Arc<Self>, record: &Record) -> Result<Arc<dyn Backing>, Error> {
        if record.stage == Stage::Indexed {
            return Ok(Arc::new(LazyBacking(self.open_held().await?)));
        }
        let whole = |stream| -> Arc<dyn Backing> {
            Arc::new(WholeBacking { stream, just_filled: !self.was_mounted() })
        };
        if let Some(Opened::Whole(stream)) = &*lock(&self.opened) {
            return Ok(whole(Arc::clone(stream)));
        }
        let (file, len) = (LazyFile::new(&self.dir, STREAM, &self.node.files), record.stream_len);
        let open = move || {
            let path = file.path();
            Stream::open_when_used(file, len).map_err(|e| files::failed("open", &path, &e))
        };
        let stream = Arc::new(blocking(open).await?);
        *lock(&self.opened) = Some(Opened::Whole(Arc::clone(&stream)));
        Ok(whole(stream))
    }

    /// Records what is found out about a lazy layer while its files are open: by reads, and by comparing the whole stream with
    /// the image and its index when its last span has come, until that has been done.
    async fn watch_over(self: Arc<Self>, spans: Arc<Spans>, ended: CancellationToken) {
        let mut backoff = MIN_VERIFY_BACKOFF;
        loop {
            let found = tokio::select! {
                biased;
                () = ended.cancelled() => return,
                what = spans.doubted() => {
                    self.record_doubt(what).await;
                    return spans.ended();
                }
                verdict = self.verdict(&spans) => verdict,
            };
            // Not broken off by an end: the file would be written on after the gate was let go.
            let recorded = match found {
                Ok(verdict) => self.record_verdict(verdict).await,
                Err(error) => Err(error),
            };
            match recorded {
                Ok(()) => spans.ended(),
                Err(error) => {
                    warn!(layer = self.key().0, %error, ?backoff, "the complete stream can't be checked yet");
                    tokio::select! {
                        biased;
                        () = ended.cancelled() => return,
                        () = tokio::time::sleep(backoff) => {}
                    }
                    backoff = (backoff * 2).min(MAX_VERIFY_BACKOFF);
                }
            }
        }
    }

    /// Whether nothing more is to be found out about a lazy layer.
    fn is_settled(&self) -> bool {
        let record = lock(&self.record);
        record.verified || record.refuted.is_some()
    }

    /// Compares the whole stream with what the image and its index say, when it has all come; once.
    async fn verdict(&self, spans: &Arc<Spans>) -> Result<Result<(), String>, Error> {
        if self.is_settled() {
            std::future::pending::<()>().await;
        }
        spans.completed().await;
        // All of it is read again for that, and whoever has just started has use for disk and cores.
        tokio::time::sleep(self.node.options.verify_delay).await;
        let record = self.record();
        let source = (self.node.sources)(&record.repository(), &record.digest);
        verify::whole_stream(spans, &record, source, &self.node.checks).await
    }

    async fn record_verdict(&self, verdict: Result<(), String>) -> Result<(), Error> {
        match verdict {
            Ok(()) => {
                debug!(layer = self.key().0, "the complete stream is what the image says");
                self.change(|record| record.verified = true).await
            }
            Err(what) => {
                error!(
                    layer = self.key().0,
                    what, "A LAYER ISN'T WHAT ITS IMAGE SAYS: no new container gets it"
                );
                self.node.metrics.error("diff-id");
                self.change(|record| record.refuted = Some(what)).await
            }
        }
    }

    /// Records what reads have found out about the layer, so that it lasts over a restart.
    async fn record_doubt(&self, what: String) {
        if let Err(error) = self.change(|record| record.refuted = Some(what)).await {
            warn!(layer = self.key().0, %error, "that it isn't to be believed can't be recorded");
        }
    }

    /// Closes the layer's files as soon as nothing is left to do, unless it is mounted again before.
    pub(super) fn close_later(self: &Arc<Self>) {
        if lock(&self.opened).is_none() {
            return;
        }
        let this = Arc::clone(self);
        self.node.tasks.spawn(async move {
            // The kernel gives up the device's file, or the tree's folder, some time after the unmount; one that a mount namespace has kept stays.
            let released = this.node.filesystem.released(&this.key().0);
            let released = tokio::time::timeout(this.node.options.close_patience, released);
            if let Some(Ok(())) = this.stop.run_until_cancelled(released).await {
                this.stop.run_until_cancelled(this.close_when_idle()).await;
            }
        });
    }

    async fn close_when_idle(&self) {
        loop {
            let spans = self.spans();
            let mut less = std::pin::pin!(spans.as_ref().map(|spans| spans.less_to_do()));
            if let Some(less) = less.as_mut().as_pin_mut() {
                less.enable();
            }
            if !self.close().await {
                return;
            }
            match less.as_mut().as_pin_mut() {
                Some(less) => less.await,
                None => return,
            }
        }
    }

    /// Closes the layer's files if it isn't mounted and nothing is left to do; says whether that is to be tried again when less
    /// is.
    async fn close(&self) -> bool {
        let _held = self.gate.lock().await;
        if self.stop.is_cancelled() || !lock(&self.targets).is_empty() {
            return false;
        }
        if !self.is_idle() {
            return true;
        }
        // Nobody opens it now: mounts wait for the gate.
        if self.node.filesystem.remove_closed(&self.key().0) {
            let closed = lock(&self.opened).take();
            debug!(layer = self.key().0, "its files are closed: it isn't mounted any more");
            if let Some(Opened::Lazy { spans, .. }) = &closed {
                // Before they are opened again: somebody may still be about to give spans of the old ones back.
                spans.close();
                spans.written().await;
                // Whoever waits to close them needn't any more.
                spans.ended();
            }
        }
        false
    }

    /// Whether no task of the layer has anything left to do.
    fn is_idle(&self) -> bool {
        let Some(spans) = self.spans() else { return true };
        let (present, all) = spans.progress();
        // It is compared with its digest when it is complete, and what comes out is recorded.
        !spans.is_busy() && (self.is_settled() || (present < all && spans.refuted().is_none()))
    }
}
