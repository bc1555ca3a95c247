//! What the tool `spandrel` does.
#![forbid(unsafe_code)]

pub mod pull;
