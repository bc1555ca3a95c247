//! An image's root file system mounted lazily at a directory, with neither containerd nor configuration: what
//! `spandrel mount` starts. One process for each directory, with a root of its own below the folder of all such mounts; it
//! ends when it is told to or when somebody unmounts the directory, and leaves nothing.
//!
//! [`run`] is that process; `image` finds out what a reference means, `state` keeps the folder, `table` reads the kernel's
//! mount table, `background` starts the process apart from the caller's terminal.

mod background;
mod image;
mod state;
mod table;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use rustix::mount::UnmountFlags;
use sd_notify::NotifyState;
use spandrel_registry::{Reference, ReferenceError};

use crate::Error;
use crate::admin::{Admin, Phase};
use crate::config::{Config, Host, Listen};
use crate::daemon::{notify, stop_signal};
use crate::fetch::Background;
use crate::layer::{LayerKey, Layers, Prepared};
use crate::node::Node;
use crate::root::Root;
use image::Image;
use state::State;

pub use background::{READY, start as start_in_background};
pub use state::DEFAULT_FOLDER;

/// Layers that are waited for and mounted at a time. Those that are downloaded whole have a limit of their own.
const LAYERS_AT_ONCE: usize = 32;

/// Longest that mounts under way are waited for when a signal comes: what they wait for fails at once.
const STOP_WAIT: Duration = Duration::from_secs(10);

/// Longest that the end of a mount's process is waited for after its directory was unmounted.
const END_WAIT: Duration = Duration::from_secs(30);

/// What is to be mounted where.
#[derive(Debug, Clone)]
pub struct MountOptions {
    /// Reference of the image.
    pub reference: String,
    /// The directory.
    pub dir: PathBuf,
    /// The folder of all such mounts, on ext4 or xfs.
    pub folder: PathBuf,
    /// Speak HTTP to the image's registry.
    pub plain_http: bool,
}

/// Mounts the image, calls `ready` with a sentence that says so, and serves it until SIGTERM, SIGINT or an unmount of the
/// directory.
///
/// # Errors
/// When it can't be mounted: what is wrong with the reference, the directory, the image or the kernel.
pub async fn run(
    options: &MountOptions,
    mut config: Config,
    ready: impl FnOnce(&str) -> std::io::Result<()>,
) -> Result<(), Error> {
    let stop = stop_signal()?;
    let (state, root) = State::open(&options.folder, &options.dir)?;
    let reference: Reference = match options.reference.parse() {
        Ok(reference) => reference,
        Err(error) => {
            state.remove(root);
            return Err(invalid(error));
        }
    };
    if options.plain_http {
        let host = reference.repository.host.clone();
        config.registry.hosts.retain(|known| known.host != host);
        config.registry.hosts.push(Host { host, plain_http: true, ..Host::default() });
    }
    config.containerd.address = PathBuf::new();
    // Who looks into an image wants a part of it.
    config.fetch.background = Background::Off;
    let dir = state.dir().to_path_buf();
    let admin_socket = root.path().join("admin.sock");
    let root_path = root.path().to_path_buf();
    let node = match Node::start(root, &config).await {
        Ok(node) => node,
        Err(error) => {
            // The root went with the node.
            if let Ok(root) = Root::open(&root_path) {
                state.remove(root);
            }
            return Err(error);
        }
    };
    tokio::pin!(stop);
    let served = async {
        let _admin = serve_admin(&node, &admin_socket).await?;
        let stopped = |signal| Error::Unavailable(format!("{signal} came before the image was mounted"));
        let image = tokio::select! {
            biased;
            signal = &mut stop => return Err(stopped(signal)),
            image = Image::resolve(&node.client, &reference) => image?,
        };
        let mount = Mounted::mount(&node, &image, &dir);
        tokio::pin!(mount);
        let mounted = tokio::select! {
            biased;
            signal = &mut stop => {
                tracing::info!(signal, "stopping before the image is mounted");
                // Whoever waits for a layer gets an error now; what is being mounted comes to its end, so that it can be
                // taken away.
                node.layers.shutdown().await;
                if let Ok(Ok(mounted)) = tokio::time::timeout(STOP_WAIT, &mut mount).await {
                    mounted.unmount(&dir)?;
                }
                return Err(stopped(signal));
            }
            mounted = &mut mount => mounted?,
        };
        let sentence = format!("{} is mounted at {}", image.name, dir.display());
        let result = async {
            state.write(&image)?;
            tracing::info!("{sentence}");
            notify(&[NotifyState::Ready]);
            ready(&sentence)
                .map_err(|error| Error::Internal(format!("nobody waits for the mount: {error}")))?;
            tokio::select! {
                signal = &mut stop => tracing::info!(signal, "unmounting"),
                result = table::unmounted(mounted.id) => {
                    result?;
                    tracing::info!("somebody has unmounted the directory");
                }
            }
            Ok(())
        }
        .await;
        notify(&[NotifyState::Stopping]);
        mounted.unmount(&dir)?;
        result
    }
    .await;
    end(node, state).await;
    served
}

fn invalid(error: ReferenceError) -> Error {
    Error::InvalidArgument(error.to_string())
}

/// Where the log of a mount at `dir` goes when it is served in the background.
///
/// # Errors
/// When there is no such directory.
pub fn log_file(folder: &Path, dir: &Path) -> Result<PathBuf, Error> {
    State::log(folder, dir)
}

async fn serve_admin(node: &Node, path: &Path) -> Result<Option<crate::listen::Socket>, Error> {
    let admin = Admin::new(
        Arc::clone(&node.metrics),
        Arc::clone(&node.layers) as Arc<dyn Layers>,
        node.chosen.clone(),
    );
    // One whose path is too long for a socket goes without.
    let socket = match admin.serve(&Listen::Unix(path.to_path_buf())).await {
        Ok(socket) => socket,
        Err(error) => {
            tracing::warn!(%error, "metrics aren't served");
            None
        }
    };
    admin.set_phase(Phase::Serving);
    Ok(socket)
}

/// Takes everything away: layers, device, files.
async fn end(node: Node, state: State) {
    // First: a read that waits for the registry would hold up the unmounting.
    node.layers.shutdown().await;
    let lowers = node.root.path().join("lowers");
    for entry in std::fs::read_dir(&lowers).into_iter().flatten().flatten() {
        // The key is for the layer's own books, which go with it.
        if let Err(error) = node.layers.unmount(&LayerKey(String::new()), &entry.path()).await {
            tracing::warn!(%error, "a layer stays mounted");
        }
    }
    node.filesystem.unmount();
    let Node { root, .. } = node;
    state.remove(root);
}

/// The mount at the directory.
struct Mounted {
    /// Number of the mount in the kernel's table.
    id: u64,
}

impl Mounted {
    /// Makes every layer ready, mounts each, and an overlay of them at `dir`.
    async fn mount(node: &Node, image: &Image, dir: &Path) -> Result<Self, Error> {
        node.layers.restore(&[]).await?;
        let mut keys = Vec::new();
        for request in image.requests() {
            match node.layers.prepare(&request).await? {
                Prepared::Remote(key) => keys.push(key),
                Prepared::Ordinary(reason) => {
                    return Err(Error::FailedPrecondition(format!(
                        "image {}: layer {} can't be mounted ({reason}): use a container runtime that unpacks it",
                        image.name,
                        keys.len() + 1
                    )));
                }
            }
        }
        let lowers = node.root.path().join("lowers");
        let made = |error| Error::Internal(format!("{}: {error}", lowers.display()));
        std::fs::create_dir(&lowers).map_err(made)?;
        // An overlay wants two directories at least: this one is empty and lies below all layers.
        let empty = lowers.join("empty");
        std::fs::create_dir(&empty).map_err(made)?;
        let failed = |error| Error::Unavailable(format!("image {}: {error}", image.name));
        let targets: Vec<(LayerKey, PathBuf)> =
            (0..).zip(keys).map(|(n, key): (u32, _)| (key, lowers.join(n.to_string()))).collect();
        stream::iter(&targets)
            .map(|(key, target)| async move {
                std::fs::create_dir(target).map_err(made)?;
                node.layers.ready(key).await?;
                if node.layers.depends_on_lowers(key)? {
                    return Ok(());
                }
                node.layers.mount(key, None, target).await
            })
            .buffer_unordered(LAYERS_AT_ONCE)
            .try_collect::<()>()
            .await
            .map_err(failed)?;
        // The others one after the other, from the bottom: each looks into those below it.
        for (number, (key, target)) in targets.iter().enumerate() {
            if node.layers.depends_on_lowers(key).map_err(failed)? {
                let below: Vec<PathBuf> =
                    targets[..number].iter().rev().map(|(_, target)| target.clone()).collect();
                let table = target.with_extension("table");
                node.layers.write_table(key, &below, &table).await.map_err(failed)?;
                node.layers.mount(key, Some(&table), target).await.map_err(failed)?;
            }
        }
        let stack = targets.into_iter().rev().map(|(_, target)| target).chain([empty]).collect();
        node.mounter.overlay(stack, dir).await?;
        Ok(Self { id: table::mount_id(dir)? })
    }

    /// Unmounts the directory, unless that was done; lazily where something still uses it.
    fn unmount(&self, dir: &Path) -> Result<(), Error> {
        if table::mount_id(dir)? != self.id {
            return Ok(()); // gone, or something else is mounted above it
        }
        // The overlay's end reads no layer.
        rustix::mount::unmount(dir, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
            .map_err(|error| Error::Internal(format!("unmount {}: {error}", dir.display())))
    }
}

/// Unmounts `dir`, which [`run`] mounted, and waits until that process has ended.
///
/// # Errors
/// When nothing of ours is mounted there, it is in use, or the process doesn't end.
pub async fn unmount(folder: &Path, dir: &Path) -> Result<(), Error> {
    let state = State::find(folder, dir)?;
    let dir = state.dir().to_path_buf();
    let ended = tokio::task::spawn_blocking(move || {
        rustix::mount::unmount(&dir, UnmountFlags::NOFOLLOW)
            .map_err(|error| Error::FailedPrecondition(format!("unmount {}: {error}", dir.display())))?;
        state.wait_for_end(END_WAIT)
    });
    ended.await.unwrap_or_else(|error| Err(Error::Internal(format!("a task failed: {error}"))))
}
