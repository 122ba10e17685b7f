//! Rows of registers as operands, and what an instruction does with them.

pub(crate) use crate::machine::slot::{Class, Slot};

/// What an instruction does with a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Read,
    /// Replaces the row in every active lane.
    Write,
    /// Replaces the row in some active lanes.
    WriteSome,
    /// Reads the row that it names as its result.
    ReadResult,
}
