//! The daemon as a program: started, asked over its sockets, killed and started again; and behind a real containerd. Layers
//! that are filled on demand have their own tests.

mod admin;
mod command_line;
mod containerd;
#[path = "../common/daemon.rs"]
mod daemon;
mod lifecycle;
mod mount;
mod rpc;
