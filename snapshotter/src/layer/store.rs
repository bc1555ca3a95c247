//! All layers of the node.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;

pub use super::options::{Parts, StoreOptions};
use super::{LayerKey, LayerRequest, Layers, Prepared, Ready, Usage};
use crate::Error;

/// The layers below one root.
#[derive(Debug)]
pub struct LayerStore {
    options: StoreOptions,
    parts: Parts,
}

impl LayerStore {
    /// Opens the store. To be called within a tokio runtime, which its work goes on in. What is on the disk is left alone
    /// until [`Layers::restore`].
    ///
    /// # Errors
    /// When the directory can't be made.
    pub fn open(options: StoreOptions, parts: Parts) -> Result<Arc<Self>, Error> {
        Ok(Arc::new(Self { options, parts }))
    }

    fn later(&self) -> Error {
        Error::Internal(format!("not there yet: {:?} {:?}", self.options, self.parts))
    }
}

#[async_trait]
impl Layers for LayerStore {
    async fn prepare(&self, _: &LayerRequest) -> Result<Prepared, Error> {
        Err(self.later())
    }

    async fn ready(&self, _: &LayerKey) -> Result<Ready, Error> {
        Err(self.later())
    }

    async fn mount(&self, _: &LayerKey, _: &Path) -> Result<(), Error> {
        Err(self.later())
    }

    async fn unmount(&self, _: &LayerKey, target: &Path) -> Result<(), Error> {
        self.parts.mounter.unmount(target).await
    }

    async fn usage(&self, _: &LayerKey) -> Result<Usage, Error> {
        Err(self.later())
    }

    async fn remove(&self, _: &LayerKey) -> Result<(), Error> {
        Err(self.later())
    }

    async fn restore(&self, _: &[LayerKey]) -> Result<(), Error> {
        Ok(())
    }

    async fn shutdown(&self) {}
}
