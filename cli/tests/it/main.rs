//! The tool's binary against real and scripted registries, real images, and SOCI's own tool.
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

mod containerd;
mod convert;
mod create;
mod diff;
mod faults;
mod get_file;
mod help;
mod inspect;
mod interop;
mod memory;
mod same;
mod store;
mod support;
mod ztoc;
