//! The helper process that mounts and unmounts, and the daemon's end of the line to it.
//!
//! Mounting and unmounting EROFS read the device, which the daemon serves. A daemon killed inside such a call would leave
//! a thread that can't die and keeps the FUSE connection open. So a small process of its own makes these calls; it holds
//! nothing that matters and ends when the daemon does. `server` is what runs in it, `protocol` what is said, `calls` the
//! system calls; when to mount what is `layer`'s.

mod calls;
mod client;
mod protocol;
mod server;

pub use calls::is_mount_point;
pub use client::{Helper, Mounter};
pub use server::run;
