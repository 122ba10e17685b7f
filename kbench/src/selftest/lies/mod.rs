//! Every lie, by what it is about. One more is an entry at the end of a table, or a table of its own in a file beside these.
//! Leaves to others: how it is judged.

mod builds;
mod memory;
mod outputs;
mod run;
mod timing;

use super::Lie;

/// The tables.
const TABLES: &[&[Lie]] = &[builds::LIES, outputs::LIES, timing::LIES, run::LIES, memory::LIES];

/// Every lie.
pub(super) fn lies() -> impl Iterator<Item = &'static Lie> {
    TABLES.iter().copied().flatten()
}
