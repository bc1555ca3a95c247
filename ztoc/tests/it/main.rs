//! The crate as its users see it, held against what other tools do with the same bytes.
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

mod real;
mod support;
mod vectors;
