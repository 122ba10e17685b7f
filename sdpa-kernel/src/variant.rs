//! What a variant is made of: its family, its entry functions, what they take, its toggles. Leaves to others: which
//! variants there are, and what each family says of them.

use std::collections::BTreeMap;

/// A set of variants that share a translation unit, its entry functions and its parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// `ladder/sdpa_ladder.cu`: any architecture since sm_80.
    Ladder,
    /// `hopper/sdpa_hopper.cu`: see [`crate::hopper`].
    Hopper,
}

impl Family {
    /// All of them.
    pub const ALL: [Family; 2] = [Family::Ladder, Family::Hopper];
}

/// What an entry function takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operands {
    /// e4m3 as the tensors lie, with the largest magnitude of a head at 448.
    RowMajor,
    /// Shared-memory images that the family's quantiser made, with its scale targets.
    HopperImages,
    /// The FP16 originals: this entry is the quantiser.
    Originals,
}

/// An entry function of a family's module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryPoint {
    /// Its name.
    pub name: String,
    /// The symbol that says what it was compiled with.
    pub config_symbol: String,
    /// D that it is for.
    pub head_dim: u32,
    /// What it takes.
    pub operands: Operands,
}

/// A variant that can be built: a registered one, or one with some toggles changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variant {
    /// Its name.
    pub name: String,
    /// Its translation unit under `cuda/`.
    pub source: String,
    /// What it is one of.
    pub family: Family,
    /// Its toggles by name.
    pub toggles: BTreeMap<String, u32>,
}

impl Variant {
    /// The compiler definitions that select this variant: `SDPA_STAGES=2`.
    pub fn defines(&self) -> Vec<String> {
        self.toggles.iter().map(|(name, value)| format!("SDPA_{}={value}", name.to_uppercase())).collect()
    }
}

/// Why the emulator's output of a variant is not compared with a GPU's in every bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// No GPU has run it, for this reason: it is compared with nothing.
    Wholly(&'static str),
    /// The PTX that a GPU ran is another, for this reason: it is compared within a limit.
    Bits(&'static str),
}
