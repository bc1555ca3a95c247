//! Figures that don't depend on the machine, measured on the daemon as a program and compared with what is written down in
//! `values`: requests and how they wait for one another (`start`), bytes (`bytes`), FUSE requests (`fuse`), disk (`disk`), file
//! descriptors (`open`).
//! A figure that has become better fails too, so that what is written down is always true.
//!
//! `image` has the images, `node` runs the daemon as containerd would, `content` stands in for containerd itself, `sheet`
//! compares.

mod bytes;
mod content;
#[path = "../common/daemon.rs"]
mod daemon;
mod disk;
mod fuse;
mod image;
mod node;
mod open;
mod sheet;
mod start;
mod values;
