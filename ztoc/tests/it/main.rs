//! The crate as its users see it, held against what other tools do with the same bytes.
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]
#![expect(clippy::print_stderr, reason = "a test that can't run here says so")]

mod archive;
mod disk;
mod hostile;
mod real;
mod support;
mod tree;
mod vectors;
