//! `bench-fs`: reads and metadata in a container, in three states.
//!
//! `test` says what is done and by which command, `fio` understands what fio prints, `station` is a node with a running
//! container in which tests are measured, `requests` asks the daemon how often the kernel asked it. Which test is done when, and
//! on which node, is the program's (`bin/bench-fs.rs`).

mod fio;
mod requests;
mod station;
mod test;

pub use station::Station;
pub use test::{FsTest, SHORT};
