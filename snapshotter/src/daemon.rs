//! The daemon as containerd sees it: a [`Node`] served on a socket until a signal says that it is enough.

use std::future::Future;
use std::io;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;

use crate::Error;
use crate::admin::{Admin, Phase};
use crate::config::Config;
use crate::layer::Layers;
use crate::listen;
use crate::metrics::Metrics;
use crate::node::Node;
use crate::root::Root;
use crate::service::grpc::Service;
use crate::snapshots::{self, Snapshots};

/// Longest that calls under way are waited for when the daemon stops: those that wait for a layer would take for ever.
const CALLS_WAIT: Duration = Duration::from_secs(3);

/// Longest that removals under way are waited for when the daemon stops; the next start finishes what is left.
const REMOVALS_WAIT: Duration = Duration::from_secs(5);

/// Longest that `systemctl` may take to say whether the system is going down.
const SYSTEMCTL_WAIT: Duration = Duration::from_secs(2);

/// Runs the daemon until SIGTERM or SIGINT.
///
/// # Errors
/// When it can't start, or can't serve any more.
pub async fn run(config: &Config) -> Result<(), Error> {
    tracing::info!(version = env!("CARGO_PKG_VERSION"), root = %config.root.display(), "starting");
    // Before anything that takes time, so that a signal meanwhile is obeyed.
    let stop = stop_signal()?;
    let metrics_address =
        config.metrics.listen().map_err(|error| Error::InvalidArgument(error.to_string()))?;
    let node = Node::start(Root::open(&config.root)?, config).await?;
    let options = snapshots::Options {
        root: node.root.path().to_path_buf(),
        keep_mounted: config.snapshots.keep_mounted as usize,
        pending_wait: config.snapshots.pending_wait.0,
    };
    let snapshots = Snapshots::open(&options, Arc::clone(&node.layers) as _, Arc::clone(&node.metrics))?;
    snapshots.restore().await?;
    let admin = Admin::new(
        Arc::clone(&node.metrics),
        Arc::clone(&node.layers) as Arc<dyn Layers>,
        node.chosen.clone(),
    );
    let _admin_socket = match &metrics_address {
        Some(address) => admin.serve(address).await?,
        None => None,
    };
    let (listener, socket) = listen::unix(&config.address)?;
    let (stopping, stopped) = tokio::sync::oneshot::channel::<()>();
    let mut serving = tokio::spawn(serve(listener, &snapshots, &node.metrics, stopped));
    admin.set_phase(Phase::Serving);
    tracing::info!(address = %config.address.display(), "serving snapshots");
    notify(&[NotifyState::Ready]);
    let result = tokio::select! {
        signal = stop => {
            tracing::info!(signal, "stopping");
            Ok(())
        }
        ended = &mut serving => Err(ended_early(ended)),
    };
    notify(&[NotifyState::Stopping]);
    admin.set_phase(Phase::Stopping);
    // The name goes first: who connects now gets an error, not a wait.
    drop(socket);
    drop(stopping);
    if result.is_ok() && tokio::time::timeout(CALLS_WAIT, &mut serving).await.is_err() {
        tracing::info!("calls that still wait are broken off");
        snapshots.stop();
        // Each connection is a task of its own: those that wait have their answer now.
        if tokio::time::timeout(CALLS_WAIT, &mut serving).await.is_err() {
            serving.abort();
        }
    }
    say_who_loses(&snapshots);
    snapshots.finish_background(REMOVALS_WAIT).await;
    node.layers.shutdown().await;
    if system_is_stopping().await {
        // Nothing orders these mounts against this service: without us they would hold up the system's end.
        tracing::info!("the system is going down: taking the mounts away");
        snapshots.unmount_all().await;
        node.filesystem.unmount();
    }
    tracing::info!("stopped");
    result
}

/// Serves the snapshots service until `stopped` says so and no call is under way.
fn serve(
    listener: UnixListener,
    snapshots: &Arc<Snapshots>,
    metrics: &Arc<Metrics>,
    stopped: tokio::sync::oneshot::Receiver<()>,
) -> impl Future<Output = Result<(), tonic::transport::Error>> + Send + use<> {
    let service = Service::new(Arc::new(Arc::clone(snapshots)), Arc::clone(metrics)).into_server();
    Server::builder().add_service(service).serve_with_incoming_shutdown(
        UnixListenerStream::new(listener),
        async move {
            // Sent or dropped: both mean that it is enough.
            let _ = stopped.await;
        },
    )
}

fn ended_early(ended: Result<Result<(), tonic::transport::Error>, tokio::task::JoinError>) -> Error {
    let why = match ended {
        Ok(Ok(())) => "it ended".to_owned(),
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    };
    Error::Internal(format!("the snapshots service can't go on: {why}"))
}

/// Resolves to the name of the signal that ends the process.
///
/// # Errors
/// When signals can't be caught.
pub(crate) fn stop_signal() -> Result<impl Future<Output = &'static str>, Error> {
    let failed = |error: io::Error| Error::Internal(format!("signals can't be caught: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        }
    })
}

pub(crate) fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager could not be told");
    }
}

fn say_who_loses(snapshots: &Snapshots) {
    match snapshots.lazy_containers() {
        Ok(0) => {}
        Ok(containers) => tracing::warn!(
            containers,
            "containers stand on layers that this daemon serves: what they haven't read yet they can't read any more, also \
             after the next start; start them anew then"
        ),
        Err(error) => tracing::warn!(%error, "it isn't known how many containers lose their layers"),
    }
}

/// Whether the whole system is going down, as far as systemd says.
async fn system_is_stopping() -> bool {
    if !sd_notify::booted().unwrap_or(false) {
        return false;
    }
    let asked = tokio::process::Command::new("systemctl")
        .arg("is-system-running")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    match tokio::time::timeout(SYSTEMCTL_WAIT, asked).await {
        Ok(Ok(output)) => output.stdout.trim_ascii() == b"stopping",
        _ => false,
    }
}
