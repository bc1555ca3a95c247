//! Being interrupted: what is under way is given up and cleaned up, what was measured is kept.

use std::future::Future;
use std::sync::OnceLock;

use anyhow::{Context as _, Result};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

static TOLD: OnceLock<watch::Receiver<bool>> = OnceLock::new();

/// Listens for SIGINT, SIGTERM and SIGHUP from now on, on a thread of its own.
///
/// # Errors
/// When there can be no thread or handler.
pub fn listen() -> Result<()> {
    let (tell, told) = watch::channel(false);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut signals = {
        let _inside = runtime.enter();
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        kinds.into_iter().map(signal).collect::<std::io::Result<Vec<_>>>().context("signal handlers")?
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            let any = signals.iter_mut().map(|signal| Box::pin(signal.recv()));
            futures_util::future::select_all(any).await;
        });
        // Nobody may be listening any more. (A second signal changes nothing: what is under way is being given up.)
        let _ = tell.send(true);
    })?;
    // Called once, by main.
    let _ = TOLD.set(told);
    Ok(())
}

/// Whether it was interrupted.
pub fn told() -> bool {
    TOLD.get().is_some_and(|told| *told.borrow())
}

/// What `work` yields, or `None` when it was interrupted meanwhile (and dropped).
pub async fn or<T>(work: impl Future<Output = T>) -> Option<T> {
    let Some(mut told) = TOLD.get().cloned() else { return Some(work.await) };
    tokio::select! {
        done = work => Some(done),
        _ = told.wait_for(|told| *told) => None,
    }
}
