//! An operator as a gate file declares it: inputs drawn by type and distribution, launches as they were planned, and outputs
//! compared with what the file's reference or checker says.

use std::path::Path;

use anyhow::{Result, bail};
use kbench::job::{ErrorsJob, GenerateJob, Module, Task};
use kbench::operator::Problem;
use kbench::operator::declared::Declared;
use serde_json::Value;

use super::{Comparer, Executor, Operator};
use crate::setup::Setup;

/// Draws inputs and sets up launches.
pub struct Drawing {
    task: Task,
    operator: Declared,
}

impl Drawing {
    /// Of a task.
    pub fn of(task: &Task, operator: &Declared) -> Drawing {
        Drawing { task: task.clone(), operator: operator.clone() }
    }
}

impl Operator for Drawing {
    fn echo(&self, _module: &Module, _read: &dyn Fn(&str) -> Result<Vec<u8>>) -> Result<()> {
        Ok(())
    }

    fn setup(&mut self, module: &Module, problem: &Problem, _executor: &Executor) -> Result<Setup> {
        bail!("{} {} {:?} {:?}", module.variant, problem.id(), self.task.folder, self.operator.axes)
    }

    fn hand_to_peers(&mut self, _problems: &[Problem], _dir: &Path) -> Result<Value> {
        bail!("peers measure attention alone")
    }
}

/// Compares with a reference or asks a checker.
pub struct Comparing {
    task: Task,
    operator: Declared,
}

impl Comparing {
    /// Of a task.
    pub fn of(task: &Task, operator: &Declared) -> Comparing {
        Comparing { task: task.clone(), operator: operator.clone() }
    }
}

impl Comparer for Comparing {
    fn run(&mut self, job: &ErrorsJob) -> Result<()> {
        bail!("{} {:?} {:?}", job.control, self.task.folder, self.operator.axes)
    }
}

/// Has `generate` make inputs.
pub fn generate(job: &GenerateJob) -> Result<()> {
    bail!("{:?}", job.problems)
}
