//! Rows of registers as operands, and what an instruction does with them.

/// Register class of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Class {
    W,
    D,
    P,
}

/// A row of a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Slot {
    pub(crate) class: Class,
    pub(crate) row: u16,
}

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
