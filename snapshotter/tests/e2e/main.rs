//! The whole path for real: a registry, an index made by `spandrel create`, containerd 1.6 and 2.1 with the daemon as their
//! snapshotter, which mounts layers by EROFS and from the FUSE tree, and pods through CRI. `bed` sets it up, `cri` does what a kubelet
//! does, the others are the cases.

mod bed;
mod busy;
#[path = "../common/daemon.rs"]
mod daemon;
mod ecr;
mod failures;
mod images;
mod lazy;
mod pull;
mod reboot;
mod removal;
mod restart;
mod soci;
mod tool;
