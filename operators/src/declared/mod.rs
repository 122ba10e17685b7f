//! An operator as a gate file declares it: inputs drawn by type and distribution, launches as they were planned, and
//! outputs compared with what the file's reference or checker says.

mod checking;
mod comparing;
mod draw;
mod errors;
mod generating;
mod host;
mod inputs;
mod layout;
mod truth;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use kbench::job::{Module, Task};
use kbench::operator::declared::{Declared, Draw, Role as Part, Tensor as Declaration};
use kbench::operator::{Distribution, Problem};
use kernel_spec::launch::{Argument, Step};
use serde_json::Value;

use super::{Executor, Fresh, Handed, NoSetup, Operator};
use crate::setup::{Fill, Mixing, Role, Setup, Tensor};
pub use comparing::Comparing;
pub use generating::run as generate;
use inputs::Drawn;

/// Draws inputs and sets up launches.
pub struct Drawing {
    task: Task,
    operator: Declared,
    drawn: Drawn,
}

impl Drawing {
    /// Of a task.
    pub fn of(task: &Task, operator: &Declared) -> Drawing {
        Drawing { task: task.clone(), operator: operator.clone(), drawn: Drawn::default() }
    }
}

impl Drawing {
    /// Floats are drawn apart from each other, so each may come from another seed; what counts or points goes together, and
    /// what `generate` makes is one whole.
    fn mixing(&self, inputs: &[inputs::Input], overwritten: &BTreeMap<&str, &str>) -> Mixing {
        if self.operator.generate.is_some() {
            return Mixing::default();
        }
        let floats = inputs.iter().map(|input| &input.tensor).filter(|tensor| tensor.dtype.is_float());
        let apart = floats.filter(|tensor| !overwritten.contains_key(tensor.name.as_str()));
        Mixing { groups: apart.map(|tensor| vec![tensor.name.clone()]).collect(), woven: None }
    }
}

impl Drawing {
    /// How an input may be made new.
    fn fresh(&self, input: &inputs::Input, problem: &Problem) -> Fresh {
        let Part::Input { draw: Some(draw) } = &input.tensor.role else { return Fresh::Never };
        if self.operator.generate.is_some() {
            return Fresh::Never;
        }
        let own = self.operator.inputs.get(&input.tensor.name).and_then(|input| input.distribution.as_ref());
        let is_replaced = own.is_none() && input.tensor.dtype.is_float();
        match draw {
            _ if is_replaced && matches!(problem.distribution, Distribution::Constant | Distribution::Zeros) => {
                Fresh::Constant
            }
            Draw::Normal | Draw::Uniform | Draw::Integers { .. } | Draw::Outliers | Draw::Large | Draw::Negative => {
                Fresh::Each
            }
            Draw::Permutation { .. } => Fresh::Swapped,
            Draw::Constant { .. } => Fresh::Constant,
            Draw::Offsets { .. } => Fresh::Never,
        }
    }
}

impl Operator for Drawing {
    /// A user's kernel says nothing of itself.
    fn echo(&self, _module: &Module, _read: &dyn Fn(&str) -> Result<Vec<u8>>) -> Result<()> {
        Ok(())
    }

    fn setup(&mut self, module: &Module, problem: &Problem, _executor: &Executor) -> Result<Setup> {
        let Some(planned) = module.planned(problem) else {
            let (variant, shape) = (&module.variant, &problem.shape.name);
            return Err(NoSetup(format!("`{variant}` has no plan for the shape `{shape}`")).into());
        };
        let inputs = self.drawn.of(&self.task, &self.operator, problem)?;
        let outputs: Vec<Declaration> = inputs::tensors(&self.operator, problem)?
            .into_iter()
            .filter(|tensor| matches!(tensor.role, Part::Output { .. }))
            .collect();
        let overwritten: BTreeMap<&str, &str> =
            outputs.iter().filter_map(|output| Some((overwrites(output)?, output.name.as_str()))).collect();
        let bytes = |name: &str| {
            let input = inputs.iter().find(|input| input.tensor.name == name)?;
            Some(Arc::new(layout::spread(&input.tensor, input.elements.clone())))
        };
        let mut tensors = Vec::new();
        for name in inputs.iter().map(|input| input.tensor.name.as_str()) {
            if let Some(bytes) = bytes(name).filter(|_| !overwritten.contains_key(name)) {
                tensors.push(Tensor { name: name.to_owned(), role: Role::Input(bytes) });
            }
        }
        for output in &outputs {
            let role = match overwrites(output).and_then(bytes) {
                Some(bytes) => Role::InPlace(bytes),
                None => Role::Output(output.layout.bytes as usize, layout::unwritten(output.dtype)),
            };
            tensors.push(Tensor { name: output.name.clone(), role });
        }
        for scratch in &planned.scratch {
            let fill = if scratch.zero_once { Fill::ZeroOnce } else { Fill::Poison };
            tensors.push(Tensor { name: scratch.name.clone(), role: Role::Scratch(scratch.bytes, fill) });
        }
        let memory = |name: &mut String| {
            if let Some(output) = overwritten.get(name.as_str()) {
                *name = (*output).to_owned();
            }
        };
        Ok(Setup {
            tensors,
            mixing: self.mixing(&inputs, &overwritten),
            making: Vec::new(),
            steps: planned.steps.iter().cloned().map(|step| renamed(step, &memory)).collect(),
            from_originals: Vec::new(),
            entry: None,
            part: None,
            bounded: true,
        })
    }

    fn handed(&mut self, problem: &Problem) -> Result<Vec<Handed>> {
        let inputs = self.drawn.of(&self.task, &self.operator, problem)?;
        let all = inputs::tensors(&self.operator, problem)?;
        let bytes = |input: &inputs::Input| Arc::new(layout::spread(&input.tensor, input.elements.clone()));
        let by_name = |name: &str| inputs.iter().find(|input| input.tensor.name == name);
        let is_overwritten = |name: &str| all.iter().any(|output| overwrites(output) == Some(name));
        let mut handed = Vec::new();
        for tensor in &all {
            let Declaration { name, dtype, layout, .. } = tensor.clone();
            let (of, also, role) = match &tensor.role {
                Part::Input { .. } if is_overwritten(&name) => continue,
                Part::Input { .. } => {
                    let input = by_name(&name).with_context(|| format!("`{name}` was drawn"))?;
                    (Some(input), None, Role::Input(bytes(input)))
                }
                Part::Output { inplace: Some(from) } => {
                    let input = by_name(from).with_context(|| format!("`{from}` was drawn"))?;
                    (Some(input), Some(from.clone()).filter(|from| *from != name), Role::InPlace(bytes(input)))
                }
                Part::Output { inplace: None } => {
                    (None, None, Role::Output(layout.bytes as usize, layout::unwritten(dtype)))
                }
            };
            let fresh = of.map_or(Fresh::Never, |input| self.fresh(input, problem));
            handed.push(Handed { name, also, dtype, layout, role, fresh });
        }
        handed.sort_by_key(|tensor| tensor.role.is_output());
        Ok(handed)
    }

    fn hand_to_peers(&mut self, _problems: &[Problem], _dir: &Path) -> Result<Value> {
        bail!("peers measure attention alone")
    }
}

/// The input that an output overwrites.
fn overwrites(output: &Declaration) -> Option<&str> {
    match &output.role {
        Part::Output { inplace } => inplace.as_deref(),
        Part::Input { .. } => None,
    }
}

/// A step with other names for its memory.
fn renamed(mut step: Step, rename: &dyn Fn(&mut String)) -> Step {
    match &mut step {
        Step::Launch(launch) => launch.params.iter_mut().for_each(|argument| rename_in(argument, rename)),
        Step::Memset { tensor, .. } => rename(tensor),
        Step::Copy { from, to } => {
            rename(from);
            rename(to);
        }
    }
    step
}

fn rename_in(argument: &mut Argument, rename: &dyn Fn(&mut String)) {
    match argument {
        Argument::Tensor(tensor) | Argument::Map { tensor, .. } => rename(tensor),
        Argument::Struct { fields, .. } => fields.iter_mut().for_each(|field| rename_in(field, rename)),
        Argument::Null | Argument::Scalar { .. } => {}
    }
}
