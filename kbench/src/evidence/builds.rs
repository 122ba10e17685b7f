//! What builders report: entry functions, builds, and what could not be built. Plain data. Leaves to others: what is gated.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::deferral::Deferral;
use crate::operator::Shape;
use crate::resources::EntryResources;
use crate::variant::Language;

/// What an entry function takes, and so what its errors are measured against.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Operands {
    /// e4m3 as the tensors lie, with the largest magnitude of a head at 448.
    #[default]
    RowMajor,
    /// Shared-memory images from the project's own quantiser, with scale targets of 16 for Q and K.
    HopperImages,
    /// The FP16 originals: the quantiser itself.
    Originals,
}

impl Operands {
    /// Whether it is the usual form, which records leave out.
    pub fn is_row_major(&self) -> bool {
        *self == Operands::RowMajor
    }
}

/// How to launch one entry function; everything that the host needs to know of a kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchRecord {
    /// Entry function in the module.
    pub entry: String,
    /// The symbol that says what the entry was compiled with.
    pub config_symbol: String,
    /// Sizes of a shape that it is for, by axis; any size of the others.
    pub serves: BTreeMap<String, i64>,
    /// What it takes.
    #[serde(default, skip_serializing_if = "Operands::is_row_major")]
    pub operands: Operands,
    /// Query rows per CTA: the grid is `[ceil(seq_q / tile_q), batch * heads, 1]` for row-major operands.
    pub tile_q: u32,
    /// CTA size.
    pub threads: u32,
    /// Dynamic shared memory in bytes.
    pub dynamic_smem_bytes: u32,
    /// Zeroed device memory that the kernel wants, in bytes.
    pub workspace_bytes: u32,
}

impl LaunchRecord {
    /// Whether it is for a shape.
    pub fn serves(&self, shape: &Shape) -> bool {
        self.serves.iter().all(|(axis, size)| shape.axes.get(axis) == Some(size))
    }
}

/// One entry function of a build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryBuild {
    /// What ptxas said.
    pub resources: EntryResources,
    /// What the module said of itself.
    pub launch: LaunchRecord,
    /// SHA-256 of the entry's machine code, hex.
    pub code_sha256: String,
    /// Whether limits on registers and shared memory gate it; every entry is gated on spills and on fitting the chip.
    pub gated: bool,
}

/// One variant built for one architecture, or the reason why it could not be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildRecord {
    /// Variant.
    pub variant: String,
    /// Target, e.g. `sm_89`.
    pub arch: String,
    /// The content key: a hash over sources, flags and tools.
    pub key: String,
    /// The toggles it was asked for.
    pub toggles: BTreeMap<String, u32>,
    /// What the kernel is written in.
    #[serde(default, skip_serializing_if = "Language::is_cuda")]
    pub language: Language,
    /// The version of what made the PTX: nvcc's, or `triton 3.9.0`; empty where nobody says.
    pub nvcc: String,
    /// ptxas' version; empty where it assembled nothing.
    pub ptxas: String,
    /// SHA-256 of what is launched with it on every shape, hex; empty where the variant's family decides that.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub plan_sha256: String,
    /// Whether it adds floats atomically, so that the order of sums, and the last bits, may differ between launches.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub adds_floats_atomically: bool,
    /// SHA-256 of the PTX, hex; empty where there is none.
    pub ptx_sha256: String,
    /// SHA-256 of the cubin, hex.
    pub cubin_sha256: String,
    /// Device memory of the module's own variables, in bytes: what a kernel could remember between launches.
    pub global_bytes: u32,
    /// Constant memory of the module's own variables but what it says of itself, in bytes: memory like any other.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub constant_bytes: u32,
    /// Entry functions, in the family's order.
    pub entries: Vec<EntryBuild>,
    /// What was taken off the source's function before it was compiled, because the gate file says it instead.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub taken_off: Vec<String>,
    /// Advisories and warnings that ptxas printed.
    pub warnings: Vec<String>,
    /// Toggles that the module contradicts, one sentence each.
    pub toggle_mismatches: Vec<String>,
    /// Hints in the PTX on what stays in which cache, with how often each stands there.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub cache_hints: BTreeMap<String, u32>,
    /// Whether it copies in bulk: no thread makes such a write, so that compute-sanitizer's racecheck cannot tell its order.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub copies_in_bulk: bool,
    /// Machine instructions by entry function and mnemonic; absent where nothing disassembled them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instructions: Option<BTreeMap<String, BTreeMap<String, u32>>>,
}

impl BuildRecord {
    /// What its attention entries take.
    pub fn operands(&self) -> Operands {
        self.entries.iter().map(|e| e.launch.operands).find(|o| *o != Operands::Originals).unwrap_or_default()
    }

    /// The first entry for a shape.
    pub fn entry(&self, shape: &Shape) -> Option<&EntryBuild> {
        self.entries.iter().find(|e| e.launch.serves(shape))
    }

    /// The entry of this name; the first for the shape where none is named.
    pub fn entry_named(&self, name: Option<&str>, shape: &Shape) -> Option<&EntryBuild> {
        match name {
            Some(name) => self.entries.iter().find(|e| e.launch.entry == name),
            None => self.entry(shape),
        }
    }

    /// Why nobody knows what an entry spills: what is written on it is the assembler's to say, and without its word an
    /// entry spills nothing for certain only where it has no stack.
    pub fn unknown_spills(&self, entry: &EntryBuild) -> Option<Deferral> {
        let stack = entry.resources.stack_frame_bytes;
        (!self.language.has_ptx() && stack > 0).then(|| {
            let why = format!("machine code does not say which of the {stack} bytes of its stack are spills");
            Deferral::new(why, "give the kernel's PTX as `source`")
        })
    }

    /// Spill bytes over all entries.
    pub fn spill_bytes(&self) -> u64 {
        let spill = |e: &EntryBuild| u64::from(e.resources.spill_store_bytes) + u64::from(e.resources.spill_load_bytes);
        self.entries.iter().map(spill).sum()
    }
}

/// A variant that could not be built.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildFailure {
    /// Variant.
    pub variant: String,
    /// Target.
    pub arch: String,
    /// The compiler's first error, with file and line; where it was not asked, why not.
    pub error: String,
    /// Why that says nothing of the variant: it does not claim to run on this architecture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unclaimed: Option<Deferral>,
}

/// Everything the build step produced; `builds.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Builds {
    /// What was built, for the suite's architecture and, when there is a GPU, for the device's.
    pub records: Vec<BuildRecord>,
    /// What was not.
    pub failures: Vec<BuildFailure>,
    /// Why nothing could be built.
    pub deferred: Option<Deferral>,
    /// Why nothing could be disassembled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_disassembled: Option<Deferral>,
}

impl Builds {
    /// The build of a variant for an architecture.
    pub fn get(&self, variant: &str, arch: &str) -> Option<&BuildRecord> {
        self.records.iter().find(|b| b.variant == variant && b.arch == arch)
    }

    /// Every build of a variant for an architecture.
    pub fn all(&self, variant: &str, arch: &str) -> impl Iterator<Item = &BuildRecord> {
        self.records.iter().filter(move |b| b.variant == variant && b.arch == arch)
    }

    /// A build that was not made because the variant does not claim to run there.
    pub fn unclaimed(&self, variant: &str) -> Option<&BuildFailure> {
        self.failures.iter().find(|f| f.variant == variant && f.unclaimed.is_some())
    }

    /// Why a variant was not built for an architecture.
    pub fn failure(&self, variant: &str, arch: &str) -> Option<&BuildFailure> {
        self.failures.iter().find(|f| f.variant == variant && f.arch == arch)
    }
}

fn is_zero(bytes: &u32) -> bool {
    *bytes == 0
}
