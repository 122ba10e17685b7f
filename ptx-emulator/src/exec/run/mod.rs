//! The way of a launch: `grid` hands blocks to threads in the `order` of the schedule, and begins anew (`retry`) where
//! that must be; `block` schedules warps, `warp` holds fragments and picks what to run, `step` executes one instruction,
//! `rows` and `straight` runs of them.

#[cfg(test)]
mod alu_levels;
pub(crate) mod block;
pub(crate) mod cluster;
mod counting;
pub(crate) mod grid;
pub(crate) mod order;
pub(crate) mod print;
pub(crate) mod profile;
pub(crate) mod retry;
pub(crate) mod rows;
pub(crate) mod step;
mod straight;
pub(crate) mod warp;
