//! The layer store with its own client against a scripted registry, its own helper process, and the kernel's mounts.

mod bench;
mod filesystem;
mod lazy;
