//! Names of register rows.

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
