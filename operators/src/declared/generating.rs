//! The generate job: the user's `inputs` makes inputs, which are held to their declarations and written where launches
//! and comparisons read them. Leaves to others: the process that it runs in, and drawing the rest.

use anyhow::{Context, Result, bail, ensure};
use kbench::job::{Event, GenerateJob, Task};
use kbench::operator::declared::{Declared, Role, Tensor};
use kbench::operator::{Operator, Problem};
use kernel_spec::dtype::Dtype;
use serde_json::{Value, json};

use super::host::{Array, Bounds, Host, Kind, Refused, values};
use super::inputs;
use super::layout::coordinate;
use super::truth::on;
use crate::Tell;

/// Runs the job.
pub fn run(job: &GenerateJob, tell: Tell) -> Result<()> {
    let Operator::Declared(operator) = &job.task.operator else { bail!("attention draws all of its inputs") };
    let file = operator.generate.as_deref().context("the operator has no `generate`")?;
    ensure!(!job.task.generated.as_os_str().is_empty(), "there is no folder for generated inputs");
    let mut host = Host::start(&job.task, Kind::Generate, file, Bounds::default())?;
    for (i, problem) in job.problems.iter().enumerate() {
        tell(Event::progress(i, job.problems.len(), &format!("inputs of {}", problem.id())));
        one(&mut host, &job.task, operator, problem).map_err(|error| on(error, problem))?;
    }
    Ok(())
}

fn one(host: &mut Host, task: &Task, operator: &Declared, problem: &Problem) -> Result<()> {
    let declared = inputs::tensors(operator, problem)?;
    let is_input = |tensor: &&Tensor| matches!(tensor.role, Role::Input { .. });
    let tensors: Vec<&Tensor> = declared.iter().filter(is_input).collect();
    let first = made(host, operator, problem, &tensors)?;
    let second = made(host, operator, problem, &tensors)?;
    if first != second {
        return Err(Refused::because(format!("{} differs between two calls with one seed", host.name)));
    }
    let is_made = |tensor: &Tensor| first.iter().any(|(name, _)| *name == tensor.name);
    let missing = |tensor: &&&Tensor| matches!(tensor.role, Role::Input { draw: None }) && !is_made(tensor);
    if let Some(tensor) = tensors.iter().find(missing) {
        let line = format!("{} does not make `{}`, which has no distribution", host.name, tensor.name);
        return Err(Refused::because(line));
    }
    let narrow = |(name, bytes): (String, Vec<u8>)| {
        let tensor = tensors.iter().find(|tensor| tensor.name == name).context("only inputs are made")?;
        let elements = narrowed(tensor, &bytes).map_err(|why| Refused::because(format!("{} {why}", host.name)))?;
        Ok((name, elements))
    };
    let first: Vec<(String, Vec<u8>)> = first.into_iter().map(narrow).collect::<Result<_>>()?;
    let folder = inputs::folder(task, problem);
    std::fs::create_dir_all(&folder).with_context(|| format!("failed to create `{}`", folder.display()))?;
    for (name, elements) in first {
        let path = inputs::generated(task, problem, &name);
        let partial = path.with_extension("partial");
        std::fs::write(&partial, elements).with_context(|| format!("failed to write `{}`", partial.display()))?;
        std::fs::rename(&partial, &path).with_context(|| format!("failed to write `{}`", path.display()))?;
    }
    Ok(())
}

/// Names and bytes of what one call makes.
fn made(
    host: &mut Host,
    operator: &Declared,
    problem: &Problem,
    tensors: &[&Tensor],
) -> Result<Vec<(String, Vec<u8>)>> {
    let expected: Vec<Value> = tensors.iter().map(|tensor| expectation(host, tensor)).collect();
    let mut question = values(operator, &problem.shape.axes)?;
    question["seed"] = json!(problem.seed);
    let answer = host.call(&[("inputs", &expected)], question)?;
    let names: Vec<String> = serde_json::from_value(answer["made"].clone()).context("it told no names")?;
    names.into_iter().map(|name| host.take("made", &name).map(|bytes| (name, bytes))).collect()
}

/// Floats of a type that numpy has must be exact in it; those of others are rounded here.
fn expectation(host: &Host, tensor: &Tensor) -> Value {
    let mut expected = host.expect("made", &Array::whole(tensor));
    if matches!(tensor.dtype, Dtype::F32 | Dtype::F16) {
        expected["exact"] = json!(tensor.dtype);
    }
    expected
}

/// Elements of the input's own type. NaN is refused: every reference would make NaN of it.
fn narrowed(tensor: &Tensor, bytes: &[u8]) -> std::result::Result<Vec<u8>, String> {
    if !tensor.dtype.is_float() {
        return Ok(bytes.to_vec());
    }
    let mut elements = Vec::with_capacity(bytes.len() / 8 * tensor.dtype.bytes());
    for (i, element) in (0..).zip(bytes.chunks_exact(8)) {
        let value = Dtype::F64.decode(element);
        if value.is_nan() {
            return Err(format!("has NaN in `{}` at {:?}", tensor.name, coordinate(&tensor.layout.shape, i)));
        }
        tensor.dtype.encode(value, &mut elements);
    }
    Ok(elements)
}
