//! The search for better toggles, as a pure function of a plan and of what was measured: which configurations exist
//! (`space`), which to try next (`search`), what was learned (`insight`), the files that a run keeps (`record`), and what
//! they add up to (`outcome`, `text`). Leaves to others: building, checking, timing, and every clock.

mod insight;
mod outcome;
mod profiled;
mod propose;
mod record;
mod search;
mod space;
mod spent;
mod text;

pub use insight::{Effect, effects};
pub use outcome::{Finalist, Pick, Rejection, Sweep, Tuned, conclude, evaluations, finalists, outcome_of, rejection};
pub use profiled::{ProfileInsight, profile_insights};
pub use propose::{Candidates, Request, Task};
pub use record::{
    Activity, Evaluation, Figures, Finals, Generation, Line, Origin, Outcome, Phase, Plan, Profiled, Proposal, Rounds,
    Span, Stage, Stopped, parse_journal,
};
pub use search::{GENERATION, LAG, Search, elites};
pub use space::{Dimension, Layer, Space, SpaceError, Toggles};
pub use spent::{Spent, spent};
pub use text::render;

#[cfg(test)]
mod properties;
