//! One gate file on many devices: where each task of a fleet stands, and what its runs add up to. Pure: reads what others
//! found. Leaves to others: asking the scheduler, and whether a run holds.

mod spread;
mod task;
mod verdict;

pub use spread::Spread;
pub use task::{Attempt, Begin, End, Sighting, Standing, TaskState, attempts_in_log, last_step};
pub use verdict::{
    Cell, Column, GateMatrix, Kind, Measured, Outcome, Row, RunOutcome, ShapeRatio, Task, exit, matrix, ratios,
    same_gate,
};
