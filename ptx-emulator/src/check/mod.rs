//! Checking modes: clocks, shadow memory and what they conclude.
//!
//! Direction of errors: a reported race is a real lack of ordering in the executed schedule.
//! Not every race is seen: a cell remembers its last write and the reads since; a partial
//! `bar.warp.sync` counts as one of the whole warp; the global shadow keeps one writer and one
//! reader per word.

pub(crate) mod agents;
pub(crate) mod clock;
mod engine;
pub(crate) mod global;
pub(crate) mod lanes;
pub(crate) mod order;
mod recent;
pub(crate) mod runs;
pub(crate) mod shadow;
mod single;
