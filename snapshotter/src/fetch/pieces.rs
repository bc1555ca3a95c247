//! A whole blob in pieces: several range requests at a time, handed on in order, each piece tried again by itself from the
//! byte where it broke off.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

use super::engine::{Engine, Memory};
use super::limits::{
    FIRST_PIECE_LEN, MAX_BACKOFF, MIN_BACKOFF, MIN_PROGRESS, PIECE_LEN, PIECE_TRIES, PIECES_AT_ONCE,
};
use super::source::{BlobSource, Cause, SourceError};

/// A part of a blob, which counts against the memory budget until it is dropped.
#[derive(Debug)]
pub(crate) struct Piece {
    /// Its bytes, as they came.
    pub chunks: Vec<Bytes>,
    _memory: Option<Memory>,
}

/// Hands all `size` bytes of a blob to `taker`, in order; ends when that is gone.
///
/// Memory is given to pieces in their order, and freed in it: the next in order never waits for what later ones have.
///
/// # Errors
/// Why a piece can't be had, after some tries.
pub(crate) async fn download(
    source: Arc<dyn BlobSource>,
    engine: &Arc<Engine>,
    size: u64,
    taker: mpsc::Sender<Piece>,
) -> Result<(), SourceError> {
    let _filling = engine.filling(source.host());
    // In tasks of their own: they go on while a piece waits to be taken.
    let (sender, mut under_way) = mpsc::channel(PIECES_AT_ONCE - 1);
    let ask = async {
        for range in ranges(size) {
            let memory = engine.memory(source.host(), range.end - range.start).await;
            let task = fetch(Arc::clone(&source), Arc::clone(engine), range, memory);
            if sender.send(AbortOnDropHandle::new(tokio::spawn(task))).await.is_err() {
                break;
            }
        }
        drop(sender);
    };
    let hand_on = async {
        let mut came = 0;
        while let Some(task) = under_way.recv().await {
            let piece = task.await.unwrap_or_else(|error| {
                Err(SourceError { cause: Cause::Unreachable, text: format!("a task failed: {error}") })
            });
            let piece = match piece {
                Ok(piece) => piece,
                Err(error) => return Err((error, came)),
            };
            came += piece.chunks.iter().map(|chunk| chunk.len() as u64).sum::<u64>();
            if taker.send(piece).await.is_err() {
                break;
            }
        }
        Ok(())
    };
    let done = tokio::select! {
        done = hand_on => done,
        never = async { ask.await; std::future::pending().await } => never,
    };
    match done {
        Ok(()) => Ok(()),
        // A registry that knows no ranges has to be read through.
        Err((error, came)) if error.cause == Cause::Unsupported => {
            debug!(size, came, "this registry sends no ranges: the blob is read from its beginning");
            read_through(&*source, engine, size, came, &taker).await
        }
        Err((error, _)) => Err(error),
    }
}

/// The pieces of a blob: a short one to begin with, so that inflating begins, then long ones.
fn ranges(size: u64) -> impl Iterator<Item = Range<u64>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let len = if at == 0 && size > PIECE_LEN { FIRST_PIECE_LEN } else { PIECE_LEN };
        let range = at..size.min(at + len);
        at = range.end;
        (!range.is_empty()).then_some(range)
    })
}

async fn fetch(
    source: Arc<dyn BlobSource>,
    engine: Arc<Engine>,
    range: Range<u64>,
    memory: Memory,
) -> Result<Piece, SourceError> {
    let mut piece = Piece { chunks: Vec::new(), _memory: Some(memory) };
    let mut rest = range;
    let (mut tries, mut backoff) = (0, MIN_BACKOFF);
    loop {
        let before = rest.start;
        let error = match receive(&*source, &engine, &mut rest, &mut piece.chunks).await {
            Ok(()) => return Ok(piece),
            Err(error) => error,
        };
        engine.metrics.error(error.cause.class());
        // Bytes that trickle earn no more tries.
        if rest.start - before >= MIN_PROGRESS {
            (tries, backoff) = (0, MIN_BACKOFF);
        }
        tries += 1;
        // The client has asked for new credentials itself.
        let lasting = matches!(error.cause, Cause::Absent | Cause::Refused | Cause::Unsupported);
        if lasting || tries >= PIECE_TRIES {
            return Err(error);
        }
        debug!(%error, ?rest, ?backoff, "a piece of a blob is asked for again");
        tokio::time::sleep(backoff).await;
        backoff = (backoff * 2).min(MAX_BACKOFF);
    }
}

/// Receives what is left of `rest`, which begins behind what came.
async fn receive(
    source: &dyn BlobSource,
    engine: &Arc<Engine>,
    rest: &mut Range<u64>,
    chunks: &mut Vec<Bytes>,
) -> Result<(), SourceError> {
    let asked = tokio::time::Instant::now();
    let mut answer = source.open(rest.clone()).await?;
    while let Some(chunk) = answer.next().await? {
        engine.metrics.fetched_bytes.inc_by(chunk.len() as u64);
        rest.start += chunk.len() as u64;
        chunks.push(chunk);
    }
    engine.metrics.fetch_seconds.observe(asked.elapsed().as_secs_f64());
    if rest.is_empty() {
        return Ok(());
    }
    Err(SourceError { cause: Cause::Unreachable, text: "the answer ended early".to_owned() })
}

/// Reads a blob from its beginning, and hands on what lies behind `came`.
async fn read_through(
    source: &dyn BlobSource,
    engine: &Arc<Engine>,
    size: u64,
    came: u64,
    taker: &mpsc::Sender<Piece>,
) -> Result<(), SourceError> {
    let mut answer = source.open(0..size).await?;
    let mut skip = came;
    while let Some(mut chunk) = answer.next().await? {
        engine.metrics.fetched_bytes.inc_by(chunk.len() as u64);
        let passed = usize::try_from(skip).map_or(chunk.len(), |skip| skip.min(chunk.len()));
        skip -= passed as u64;
        let chunk = chunk.split_off(passed);
        if !chunk.is_empty() && taker.send(Piece { chunks: vec![chunk], _memory: None }).await.is_err() {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fetch::testing::{Blob, Fault, noise, settings};
    use crate::metrics::Metrics;

    const MIB: u64 = 1 << 20;

    fn engine(memory: u64) -> Arc<Engine> {
        Engine::new(&crate::fetch::Settings { memory_budget: memory, ..settings() }, Metrics::new())
    }

    async fn whole(blob: &Arc<Blob>, engine: &Arc<Engine>, size: usize) -> Result<Vec<u8>, SourceError> {
        let mut bytes = Vec::new();
        let (sender, mut pieces) = mpsc::channel::<Piece>(1);
        let take = async {
            while let Some(piece) = pieces.recv().await {
                piece.chunks.iter().for_each(|chunk| bytes.extend_from_slice(chunk));
            }
        };
        let (downloaded, ()) =
            tokio::join!(download(Arc::clone(blob) as _, engine, size as u64, sender), take);
        downloaded.map(|()| bytes)
    }

    #[test]
    fn pieces_tile_the_blob() {
        for size in [0, 1, PIECE_LEN, PIECE_LEN + 1, 10 * PIECE_LEN, 10 * PIECE_LEN + 7] {
            let mut at = 0;
            for range in ranges(size) {
                assert_eq!(range.start, at);
                assert!(!range.is_empty());
                at = range.end;
            }
            assert_eq!(at, size);
        }
        assert_eq!(ranges(PIECE_LEN).count(), 1, "a small blob is one request");
    }

    #[tokio::test(start_paused = true)]
    async fn a_piece_that_breaks_is_gone_on_with_where_it_broke() {
        let bytes = noise(1, 12 << 20);
        let blob = Blob::new(bytes.clone());
        blob.next([Fault::None, Fault::Break(100_000), Fault::Fail(Cause::Unreachable)]);
        let engine = engine(256 << 20);
        assert!(whole(&blob, &engine, bytes.len()).await.expect("it comes") == bytes);
        let pieces = ranges(bytes.len() as u64).count();
        let requests = blob.requests();
        assert_eq!(requests.len(), pieces + 2, "{requests:?}");
        let second = ranges(bytes.len() as u64).nth(1).expect("there is one");
        assert!(requests.contains(&(second.start + 100_000..second.end)), "{requests:?}");
        assert_eq!(engine.free_memory(), 256 << 20);
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_had_ends_in_time() {
        for (fault, tries) in [
            (Fault::Fail(Cause::Absent), 1),
            (Fault::Fail(Cause::Refused), 1),
            (Fault::Fail(Cause::Unreachable), PIECE_TRIES as usize),
            (Fault::Break(1000), PIECE_TRIES as usize),
        ] {
            let blob = Blob::new(noise(1, 100_000));
            blob.always(fault.clone());
            let since = tokio::time::Instant::now();
            assert!(whole(&blob, &engine(MIB), 100_000).await.is_err(), "{fault:?}");
            assert_eq!(blob.requests().len(), tries, "{fault:?}");
            assert!(since.elapsed() <= MAX_BACKOFF * PIECE_TRIES, "{fault:?}: {:?}", since.elapsed());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn where_there_are_no_ranges_the_blob_is_read_through() {
        let bytes = noise(2, 9 << 20);
        let blob = Blob::new(bytes.clone());
        blob.next([Fault::None, Fault::Fail(Cause::Unsupported), Fault::Fail(Cause::Unsupported)]);
        let came = whole(&blob, &engine(256 << 20), bytes.len()).await;
        assert!(came.is_ok_and(|came| came == bytes), "{:?}", blob.requests());
        assert_eq!(blob.requests().last(), Some(&(0..bytes.len() as u64)));
    }

    #[tokio::test(start_paused = true)]
    async fn who_wants_no_more_gets_no_more() {
        let blob = Blob::new(noise(2, 20 << 20));
        let (sender, mut pieces) = mpsc::channel(1);
        let take = async {
            pieces.recv().await.expect("the first one");
            pieces.close();
            while pieces.recv().await.is_some() {}
        };
        let engine = engine(256 << 20);
        let (downloaded, ()) =
            tokio::join!(download(Arc::clone(&blob) as _, &engine, 20 << 20, sender), take);
        downloaded.expect("that nobody takes it is no error");
        assert!(blob.requests().len() <= PIECES_AT_ONCE + 3, "{:?}", blob.requests());
        assert_eq!(engine.free_memory(), 256 << 20);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        /// Whatever breaks, and however little memory there is: every byte, in order, and the memory is given back.
        #[test]
        fn all_bytes_come_in_order(size in 1usize..20_000_000, memory in 1u64..40, faults in prop::collection::vec(0u8..3, 0..8)) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().expect("one");
            runtime.block_on(async {
                let bytes = noise(size as u64, size);
                let blob = Blob::new(bytes.clone());
                blob.next(faults.iter().map(|fault| match fault {
                    0 => Fault::Break(200_000.min(size / 2)),
                    1 => Fault::Fail(Cause::Busy),
                    _ => Fault::None,
                }));
                let engine = engine(memory * MIB);
                let several = futures_util::future::join_all((0..3).map(|_| whole(&blob, &engine, size))).await;
                for came in several {
                    match came {
                        Ok(came) => assert!(came == bytes),
                        Err(error) => assert!(faults.iter().filter(|fault| **fault < 2).count() >= PIECE_TRIES as usize, "{error}"),
                    }
                }
                assert_eq!(engine.free_memory(), memory * MIB);
            });
        }
    }
}
