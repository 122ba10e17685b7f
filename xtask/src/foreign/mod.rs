//! Kernels that a gate file names, as far as compilers know them: what is in a source, what it is made of, and what comes
//! out of it. Leaves to others: gate files themselves, which are kbench's, and running anything on a device.

pub mod compile;
pub mod flags;
pub mod names;
mod source_text;
pub mod sources;
mod wrapper;

/// Something that the gate file asks for and that cannot be done: wrong usage, not a kernel that fails.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {why}")]
pub struct Refused {
    /// The key of the gate file.
    pub key: String,
    /// What is wrong and what to do.
    pub why: String,
}

impl Refused {
    /// A refusal of what is at a key.
    pub fn new(key: impl Into<String>, why: impl Into<String>) -> Refused {
        Refused { key: key.into(), why: why.into() }
    }
}
