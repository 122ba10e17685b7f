//! One variant on one problem before it has a place: what lies in memory, what is launched on it, and in which order.
//! Operators make it; a workload gives it a place on a machine. Plain data.

use std::collections::BTreeMap;
use std::sync::Arc;

use kernel_spec::launch::{Launch, Step};

/// A tensor by name, and what it holds when a launch begins.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// The name by which steps speak of it.
    pub name: String,
    pub role: Role,
}

/// What a tensor is to the kernel.
#[derive(Clone, Debug)]
pub enum Role {
    /// Holds these bytes, before and after.
    Input(Arc<Vec<u8>>),
    /// Made by the operator's own kernels on the machine, which must leave these bytes.
    Made(Arc<Vec<u8>>),
    /// So many bytes for the kernel to write; before each launch this pattern, again and again.
    Output(usize, Pattern),
    /// Holds these bytes before each launch and the result after it.
    InPlace(Arc<Vec<u8>>),
    /// So many bytes for the kernel to use.
    Scratch(usize, Fill),
}

/// What memory holds that nobody wrote. It begins anew every four bytes.
pub type Pattern = [u8; 4];

/// NaN in every float format.
pub const NAN: Pattern = [0xff; 4];

/// What scratch holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// Poison, before each launch.
    Poison,
    /// Zeroes, before each launch.
    Zero,
    /// Zeroes once; a kernel leaves it as it wants to find it.
    ZeroOnce,
}

/// How inputs of several problems of one shape and distribution make another problem that is as good as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mixing {
    /// Tensors that go together; each group may come from another problem. What is in none of them goes together too.
    pub groups: Vec<Vec<String>>,
    /// A tensor with four-byte words of several groups, and the group of each word, beginning anew after the last.
    pub woven: Option<(String, Vec<usize>)>,
}

/// Everything of one variant on one problem.
#[derive(Clone, Debug)]
pub struct Setup {
    /// All memory, each name once.
    pub tensors: Vec<Tensor>,
    /// What may come from another problem.
    pub mixing: Mixing,
    /// What makes the tensors that are made.
    pub making: Vec<Step>,
    /// What is judged.
    pub steps: Vec<Step>,
    /// What is judged, from what the making begins with; empty where that is nothing else.
    pub from_originals: Vec<Step>,
    /// The entry function that outcomes name, where a module has several.
    pub entry: Option<String>,
    /// The CTAs that an emulator runs, where that is not all of them.
    pub part: Option<Part>,
    /// Whether an emulator gives up what is too long, because nobody chose sizes that it can run.
    pub bounded: bool,
}

/// Some CTAs of a grid that stand for all of them.
#[derive(Clone, Debug)]
pub struct Part {
    /// Those that run, by entry function; of others all do.
    pub blocks: BTreeMap<String, Vec<[u32; 3]>>,
    /// How many of the judged entry's that is.
    pub count: u32,
    /// Of how many that have work.
    pub of: u32,
    /// The chip's size as the kernel sees it.
    pub sm_count: u32,
    /// What of the output they compute: ranges of bytes, in order.
    pub ranges: Vec<std::ops::Range<usize>>,
    /// The same in the operator's words, for whoever compares.
    pub rows: serde_json::Value,
    /// Bytes of tensors, by name, that lie ahead of what is here and that no CTA which runs touches: a kernel gets an
    /// address that is so much lower.
    pub ahead: BTreeMap<String, u64>,
}

impl Role {
    /// How many bytes it takes.
    pub fn bytes(&self) -> usize {
        match self {
            Role::Input(bytes) | Role::Made(bytes) | Role::InPlace(bytes) => bytes.len(),
            Role::Output(len, _) | Role::Scratch(len, _) => *len,
        }
    }

    /// Whether it is a result.
    pub fn is_output(&self) -> bool {
        matches!(self, Role::Output(..) | Role::InPlace(_))
    }

    /// Whether a launch leaves it to the next one as it is.
    pub fn stays(&self) -> bool {
        matches!(self, Role::Scratch(_, Fill::ZeroOnce))
    }

    /// Whether every launch that counts has its own.
    pub fn is_written(&self) -> bool {
        self.is_output() || matches!(self, Role::Scratch(..))
    }
}

impl Setup {
    /// Bytes of all results, one after the other.
    pub fn output_bytes(&self) -> usize {
        self.tensors.iter().filter(|t| t.role.is_output()).map(|t| t.role.bytes()).sum()
    }

    /// What is there before a launch and is no scratch, by name.
    pub fn given(&self) -> impl Iterator<Item = (&str, &Arc<Vec<u8>>)> {
        self.tensors.iter().filter_map(|tensor| match &tensor.role {
            Role::Input(bytes) | Role::Made(bytes) | Role::InPlace(bytes) => Some((tensor.name.as_str(), bytes)),
            Role::Output(..) | Role::Scratch(..) => None,
        })
    }

    /// Kernel launches of the judged steps.
    pub fn launches(&self) -> impl Iterator<Item = &Launch> {
        self.steps.iter().filter_map(|step| match step {
            Step::Launch(launch) => Some(launch),
            Step::Memset { .. } | Step::Copy { .. } => None,
        })
    }
}
