//! The instrument that says how much sooner a program is ready, and what that costs: start-up, file system, index and
//! scale, side by side with what people would use instead.
//!
//! `results` is what a run leaves, and all that `report` (the program) makes docs/benchmarks.md from.

pub mod report;
pub mod results;
