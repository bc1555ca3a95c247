//! The room that layers take on the disk: how much they may have, and who goes when it is to be less.
//!
//! `policy` decides, from figures alone; `share` is how limits are written; `ledger` is what those who write tell and are told
//! meanwhile. `fresh` knows what may still be in the page cache. Who measures and carries out is `layer::store`, which knows the layers.
//!
//! What goes, in this order: layers that no snapshot refers to, as a whole; the streams of layers that are mounted nowhere;
//! spans of mounted layers, those used longest ago. Tables, zTOCs and bitmaps of layers that snapshots refer to stay, but
//! for layers without checkpoints, which are one piece. What is being filled is never touched, nor is a stream that is
//! mounted without the device: its holes would be read as zeros.

mod fresh;
mod ledger;
mod policy;
mod share;

pub(crate) use fresh::{Due, Fresh};
pub(crate) use ledger::{Ledger, Look};
pub(crate) use policy::{Candidate, Hold, Holding, Situation, Step, choose, is_tight, plan};
pub use share::Share;
