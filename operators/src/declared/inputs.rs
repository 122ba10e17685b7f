//! Inputs of a problem as dense elements: drawn by their distributions, or read where `generate` made them.
//! Leaves to others: how elements are drawn, where they lie in memory, and running `generate`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use kbench::job::Task;
use kbench::operator::declared::{Declared, Draw, Role, Tensor};
use kbench::operator::{Distribution, Problem};
use kernel_spec::expr::Value;

use super::draw;
use crate::NoSetup;

/// What every element is in the distribution of that name.
const CONSTANT: f64 = 0.5;

/// An input and its elements, little-endian, the last dimension innermost.
pub struct Input {
    /// Its name, type and layout.
    pub tensor: Tensor,
    /// Its elements.
    pub elements: Vec<u8>,
}

/// The tensors of a problem's shape.
pub fn tensors(operator: &Declared, problem: &Problem) -> Result<Vec<Tensor>> {
    if let Some(why) = operator.refuse(&problem.shape.axes) {
        return refuse(format!("shape `{}`: {why}", problem.shape.name));
    }
    operator.tensors(&problem.shape.axes).or_else(|e| refuse(format!("shape `{}`: {e}", problem.shape.name)))
}

/// All inputs of a problem, in order.
pub fn of(task: &Task, operator: &Declared, problem: &Problem) -> Result<Vec<Input>> {
    let tensors = tensors(operator, problem)?;
    let inputs = tensors.into_iter().filter_map(|tensor| match &tensor.role {
        Role::Input { draw } => Some((draw.clone(), tensor)),
        Role::Output { .. } => None,
    });
    inputs.map(|(draw, tensor)| input(task, operator, problem, draw, tensor)).collect()
}

fn input(task: &Task, operator: &Declared, problem: &Problem, draw: Option<Draw>, tensor: Tensor) -> Result<Input> {
    let count = tensor.layout.elements as usize;
    if operator.generate.is_some() {
        let file = generated(task, problem, &tensor.name);
        if let Some(elements) = read_if_there(&file)? {
            let wanted = count * tensor.dtype.bytes();
            if elements.len() != wanted {
                let (file, found) = (file.display(), elements.len());
                return refuse(format!("`{file}` has {found} bytes, `{}` takes {wanted}", tensor.name));
            }
            return Ok(Input { tensor, elements });
        }
        let folder = folder(task, problem);
        if draw.is_none() || !folder.is_dir() {
            let (name, id) = (&tensor.name, problem.id());
            return refuse(format!("input `{name}` of {id} was not generated: no `{}`", file.display()));
        }
    }
    let name = &tensor.name;
    let Some(draw) = draw else {
        return refuse(format!("input `{name}` has no distribution, and the operator no `generate`"));
    };
    let draw = match operator.inputs.get(name) {
        Some(input) if input.dtype.is_float() && input.distribution.is_none() => replaced(draw, problem.distribution)?,
        _ => draw,
    };
    let stream = stream(problem, name);
    let elements =
        draw::elements(&stream, &draw, tensor.dtype, count).with_context(|| format!("failed to draw `{name}`"))?;
    Ok(Input { tensor, elements })
}

/// The draw of an input that declares none, in a distribution of the whole problem.
fn replaced(own: Draw, distribution: Distribution) -> Result<Draw> {
    Ok(match distribution {
        Distribution::Normal => own,
        Distribution::Outliers => Draw::Outliers,
        Distribution::Large => Draw::Large,
        Distribution::Negative => Draw::Negative,
        Distribution::Constant => Draw::Constant { value: Value::Float(CONSTANT) },
        Distribution::Zeros => Draw::Constant { value: Value::Float(0.0) },
        attentions => {
            let why = "means something for attention alone: use normal, outliers, large, negative, constant or zeros";
            return refuse(format!("the distribution `{}` {why}", attentions.name()));
        }
    })
}

/// Names an input, so that no two share a stream.
fn stream(problem: &Problem, tensor: &str) -> String {
    let axes: Vec<String> = problem.shape.axes.iter().map(|(axis, value)| format!("{axis}={value}")).collect();
    let (axes, distribution) = (axes.join(","), problem.distribution.name());
    format!("gate-inputs/1 {axes} {distribution} seed {} {tensor}", problem.seed)
}

/// Where generated inputs of a problem lie.
pub fn folder(task: &Task, problem: &Problem) -> PathBuf {
    task.generated.join(task.operator.inputs_key(problem))
}

/// Where `generate` leaves an input.
pub fn generated(task: &Task, problem: &Problem, input: &str) -> PathBuf {
    folder(task, problem).join(format!("{input}.bin"))
}

fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("failed to read `{}`", path.display())),
    }
}

fn refuse<T>(why: String) -> Result<T> {
    Err(NoSetup(why).into())
}

/// Inputs by problem, as many as memory is worth.
#[derive(Default)]
pub struct Drawn {
    kept: Vec<(Problem, Arc<Vec<Input>>)>,
}

impl Drawn {
    /// Bytes kept before all are forgotten.
    const MOST: usize = 512 << 20;

    /// The inputs of a problem, made now or remembered.
    pub fn of(&mut self, task: &Task, operator: &Declared, problem: &Problem) -> Result<Arc<Vec<Input>>> {
        if let Some((_, kept)) = self.kept.iter().find(|(kept, _)| kept == problem) {
            return Ok(kept.clone());
        }
        let inputs = Arc::new(of(task, operator, problem)?);
        let bytes = |inputs: &[Input]| inputs.iter().map(|input| input.elements.len()).sum::<usize>();
        if self.kept.iter().map(|(_, kept)| bytes(kept)).sum::<usize>() + bytes(&inputs) > Self::MOST {
            self.kept.clear();
        }
        self.kept.push((problem.clone(), inputs.clone()));
        Ok(inputs)
    }
}
