//! What an operator is to the process of a job: it draws inputs, sets up what a variant is launched on, and compares outputs with
//! its reference. Which one a job is about, the job says. Leaves to others: devices, timing, and what errors are worth.

mod attention;
pub mod declared;
#[cfg(test)]
#[path = "../../sdpa-runner/tests/declared/python.rs"]
mod python;
pub mod setup;

use std::path::Path;

use anyhow::Result;
use kbench::job::{ErrorsJob, Event, Module, Task};
use kbench::operator::declared::Layout;
use kbench::operator::{Operator as Kind, Problem};
use kernel_spec::dtype::Dtype;
use serde_json::Value;

use crate::setup::{Role, Setup};

/// What a setup depends on besides the problem.
#[derive(Clone, Copy, Debug)]
pub struct Executor {
    /// Multiprocessors as the kernel is to see them.
    pub sm_count: u32,
    /// On the emulator, a grid of more CTAs than this is sampled where the operator knows which CTA computes what.
    pub max_ctas: Option<u32>,
    /// On the emulator, whether the problem is launched as the last part of one so large that places within its tensors
    /// are beyond what 32 bits count, where the operator can say how.
    pub far: bool,
}

/// Nobody's kernel can be launched on a problem: a plan or an input is missing, or the problem is none of this operator's.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NoSetup(pub String);

/// A tensor as host code is handed it.
#[derive(Clone, Debug)]
pub struct Handed {
    /// Its name.
    pub name: String,
    /// The input that it overwrites, where that has another name.
    pub also: Option<String>,
    pub dtype: Dtype,
    pub layout: Layout,
    /// What it holds before a call; there is no scratch.
    pub role: Role,
    /// How its values may be replaced.
    pub fresh: Fresh,
}

/// How an element of an input may be replaced so that the tensor is still one that could have been drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fresh {
    /// By any other that was drawn for this tensor: each was drawn for itself.
    Each,
    /// By another of the same tensor, which takes its place.
    Swapped,
    /// Every drawing gives the same.
    Constant,
    /// Elements depend on each other in a way that is not known.
    Never,
}

/// Draws inputs and sets up launches. It may keep what it drew.
pub trait Operator {
    /// Refuses a module that says of itself what it was not asked for: `read` gives the bytes of an exported symbol.
    fn echo(&self, module: &Module, read: &dyn Fn(&str) -> Result<Vec<u8>>) -> Result<()>;

    /// What a variant is launched on, and how.
    fn setup(&mut self, module: &Module, problem: &Problem, executor: &Executor) -> Result<Setup>;

    /// Every tensor of a problem as host code is handed it, inputs first.
    fn handed(&mut self, problem: &Problem) -> Result<Vec<Handed>>;

    /// Writes the inputs of problems of one shape for peers; answers with the message that hands them over.
    fn hand_to_peers(&mut self, problems: &[Problem], dir: &Path) -> Result<Value>;
}

/// Who hears how a job goes.
pub type Tell<'a> = &'a mut dyn FnMut(Event);

/// Compares outputs that were written with the operator's reference. It may keep references.
pub trait Comparer {
    /// Runs a job, and tells an event for each output.
    fn run(&mut self, job: &ErrorsJob, tell: Tell) -> Result<()>;
}

/// What draws for an operator.
pub fn of(task: &Task) -> Box<dyn Operator> {
    match &task.operator {
        Kind::Attention => Box::new(attention::Attention::of(&task.generated)),
        Kind::Declared(operator) => Box::new(declared::Drawing::of(task, operator)),
    }
}

/// What compares for an operator; `keeping` says whether references stay from one job to the next.
pub fn comparer(task: &Task, keeping: bool) -> Box<dyn Comparer> {
    match &task.operator {
        Kind::Attention => Box::new(attention::errors::Comparer::of(&task.generated, keeping)),
        Kind::Declared(operator) => Box::new(declared::Comparing::of(task, operator)),
    }
}
