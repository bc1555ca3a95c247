//! A layer's mounts: by EROFS over its file in the device, or of folders of the FUSE tree. Both are called under the gate, but
//! for the taking down.

use std::path::Path;
use std::sync::Arc;

use tracing::warn;

use super::super::record::Record;
use super::super::stream::padded;
use super::Layer;
use crate::Error;
use crate::device::Device;
use crate::filesystem::FileSystem;
use crate::tree::Tree;

impl Layer {
    /// Mounts `table` at `target`.
    ///
    /// # Errors
    /// When the layer's files are damaged, or the kernel refuses.
    pub(super) async fn mount_table(
        self: &Arc<Self>,
        record: &Record,
        table: &Path,
        target: &Path,
    ) -> Result<(), Error> {
        match &self.node.filesystem {
            FileSystem::Erofs(device) => {
                self.serve(device, record).await?;
                let (file, directio) = (device.path(&self.key.0), self.node.options.directio);
                self.node.mounter.erofs(table, &file, target, directio).await
            }
            FileSystem::Fuse(tree) => self.mount_folder(tree, record, table, target).await,
        }
    }

    /// Adds the layer's file to the device, unless it is there.
    async fn serve(self: &Arc<Self>, device: &Device, record: &Record) -> Result<(), Error> {
        if device.has(&self.key.0) {
            return Ok(());
        }
        let backing = self.backing(record).await?;
        device.add(&self.key.0, padded(record.stream_len), backing)
    }

    /// Gives the layer a folder in the tree, and mounts that at `target`.
    async fn mount_folder(
        self: &Arc<Self>,
        tree: &Tree,
        record: &Record,
        table: &Path,
        target: &Path,
    ) -> Result<(), Error> {
        let backing = self.backing(record).await?;
        let source = tree.add(&self.key.0, target, table, record.stream_len, backing).await?;
        let mounted = self.node.mounter.folder(&source, target).await;
        if mounted.is_err()
            && let Err(error) = tree.remove(target).await
        {
            warn!(layer = self.key.0, target = %target.display(), %error, "its folder stays in the tree");
        }
        mounted
    }

    /// Takes what is mounted at `target` away, and its folder in the tree.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) async fn take_down(&self, target: &Path) -> Result<(), Error> {
        self.node.mounter.unmount(target).await?;
        match &self.node.filesystem {
            FileSystem::Fuse(tree) => tree.remove(target).await,
            FileSystem::Erofs(_) => Ok(()),
        }
    }
}
