//! What the outputs of a problem should be, by the user's reference: in one call, or in slices of an axis that is declared
//! independent. Tests once that the reference answers twice alike, and in slices what it answers as a whole.
//! Leaves to others: the process that it runs in, and the outputs that are compared with it.

use std::borrow::Cow;
use std::ops::Range;

use anyhow::{Context, Result};
use kbench::job::Task;
use kbench::operator::Problem;
use kbench::operator::declared::{Declared, Tensor};
use kernel_spec::expr::Expr;

use super::errors::Truth;
use super::host::{Array, Bounds, Host, Kind, Refused, values, wide};
use super::inputs::Input;
use super::layout::coordinate;

/// Elements of inputs and outputs above which a call is cut into slices.
const LARGE: u64 = 1 << 24;
/// How far slices may be from the whole, relative to the largest value: sums in another order.
const SLICE_NOISE: f64 = 1e-6;

/// The user's reference in its process.
pub struct Reference {
    host: Host,
    operator: Declared,
    large: u64,
}

impl Reference {
    /// Loads it.
    pub fn start(task: &Task, operator: &Declared, file: &str, bounds: Bounds) -> Result<Reference> {
        let host = Host::start(task, Kind::Reference, file, bounds)?;
        Ok(Reference { host, operator: operator.clone(), large: LARGE })
    }

    /// What each output of a problem should be.
    pub fn of(&mut self, problem: &Problem, inputs: &[Input], outputs: &[Tensor]) -> Result<Vec<Truth>> {
        let tensors = inputs.iter().map(|input| &input.tensor).chain(outputs);
        let elements: u64 = tensors.map(|tensor| tensor.layout.elements).sum();
        let extent = self.extent(problem);
        let slices = elements.div_ceil(self.large).min(extent);
        let found = if slices > 1 {
            self.sliced(problem, inputs, outputs, slices)
        } else {
            self.call(problem, inputs, outputs, None)
        };
        let found = found.map_err(|error| on(error, problem))?;
        let truths: Vec<Truth> = found.into_iter().map(|elements| Truth { elements }).collect();
        for (output, truth) in outputs.iter().zip(&truths).filter(|(output, _)| output.dtype.is_float()) {
            if let Some(at) = truth.first_nan() {
                let (reference, name) = (&self.host.name, &output.name);
                let at = coordinate(&output.layout.shape, at);
                let line = format!("{reference} has NaN in output `{name}` at {at:?}, on {}", problem.id());
                return Err(Refused::because(line));
            }
        }
        Ok(truths)
    }

    /// Refuses a reference that answers differently when it is asked again.
    pub fn test_repeats(&mut self, problem: &Problem, inputs: &[Input], outputs: &[Tensor]) -> Result<()> {
        let mut call = || self.call(problem, inputs, outputs, None).map_err(|error| on(error, problem));
        let (first, second) = (call()?, call()?);
        for ((output, a), b) in outputs.iter().zip(&first).zip(&second) {
            if a != b {
                let (reference, name, id) = (&self.host.name, &output.name, problem.id());
                let line = format!("{reference} differs between two calls on the same inputs, in `{name}`, on {id}");
                return Err(Refused::because(line));
            }
        }
        Ok(())
    }

    /// Refuses slices that are not what the whole is. A problem whose axis cannot be cut tests nothing.
    pub fn test_slices(&mut self, problem: &Problem, inputs: &[Input], outputs: &[Tensor]) -> Result<()> {
        if self.extent(problem) < 2 {
            return Ok(());
        }
        let whole = self.call(problem, inputs, outputs, None).map_err(|error| on(error, problem))?;
        let sliced = self.sliced(problem, inputs, outputs, 2).map_err(|error| on(error, problem))?;
        for ((output, a), b) in outputs.iter().zip(&whole).zip(&sliced) {
            let dtype = wide(output.dtype);
            let value = |element: &[u8]| dtype.decode(element);
            let amax =
                a.chunks_exact(dtype.bytes()).map(value).filter(|x| x.is_finite()).fold(0.0, |m, x| x.abs().max(m));
            let most = if output.dtype.is_float() { SLICE_NOISE * amax } else { 0.0 };
            if super::errors::difference(dtype, a, b) > most {
                let (reference, name) = (&self.host.name, &output.name);
                let axis = self.operator.independent.as_deref().unwrap_or_default();
                let line = format!("{reference} gives other values of `{name}` in slices of `{axis}` than as a whole");
                return Err(Refused::because(format!("{line}, on {}: remove operator.independent", problem.id())));
            }
        }
        Ok(())
    }

    /// Extent of the axis that may be cut; 1 where there is none.
    pub fn extent(&self, problem: &Problem) -> u64 {
        let axis = self.operator.independent.as_ref().and_then(|axis| problem.shape.axes.get(axis));
        axis.map_or(1, |extent| *extent as u64)
    }

    fn sliced(&mut self, problem: &Problem, inputs: &[Input], outputs: &[Tensor], slices: u64) -> Result<Vec<Vec<u8>>> {
        let extent = self.extent(problem);
        let step = extent.div_ceil(slices);
        let empty = |output: &Tensor| vec![0; output.layout.elements as usize * wide(output.dtype).bytes()];
        let mut whole: Vec<Vec<u8>> = outputs.iter().map(empty).collect();
        let mut start = 0;
        while start < extent {
            let range = start..extent.min(start + step);
            let part = self.call(problem, inputs, outputs, Some(range.clone()))?;
            for ((output, whole), part) in outputs.iter().zip(&mut whole).zip(part) {
                let cut = self.cut(&output.name, &output.layout.shape).context("every output has the axis")?;
                cut.paste(whole, &part, &range, wide(output.dtype).bytes());
            }
            start = range.end;
        }
        Ok(whole)
    }

    /// Calls the reference on all, or on a range of the axis that may be cut: float64, or elements of their own type.
    fn call(
        &mut self,
        problem: &Problem,
        inputs: &[Input],
        outputs: &[Tensor],
        range: Option<Range<u64>>,
    ) -> Result<Vec<Vec<u8>>> {
        let mut axes = problem.shape.axes.clone();
        if let (Some(axis), Some(range)) = (&self.operator.independent, &range) {
            axes.insert(axis.clone(), (range.end - range.start) as i64);
        }
        let part_of = |name: &str, shape: &[u64]| {
            let cut = range.as_ref().and_then(|range| Some((self.cut(name, shape)?, range)));
            let extents = match &cut {
                Some((cut, range)) => cut.extents(shape, range),
                None => shape.to_vec(),
            };
            (extents, cut)
        };
        let mut given = Vec::new();
        for input in inputs {
            let tensor = &input.tensor;
            let (shape, cut) = part_of(&tensor.name, &tensor.layout.shape);
            let elements = match cut {
                Some((cut, range)) => Cow::Owned(cut.copy(&input.elements, range, tensor.dtype.bytes())),
                None => Cow::Borrowed(&input.elements[..]),
            };
            given.push(self.host.put("in", &array(tensor, &shape), &elements)?);
        }
        let expected: Vec<_> = outputs
            .iter()
            .map(|output| self.host.expect("out", &array(output, &part_of(&output.name, &output.layout.shape).0)))
            .collect();
        let values = values(&self.operator, &axes)?;
        self.host.call(&[("inputs", &given), ("outputs", &expected)], values)?;
        outputs.iter().map(|output| self.host.take("out", &output.name)).collect()
    }

    /// Where a tensor is cut, if the axis is one of its dimensions.
    fn cut(&self, name: &str, shape: &[u64]) -> Option<Cut> {
        let axis = self.operator.independent.as_deref()?;
        let inputs = self.operator.inputs.get(name).map(|input| &input.shape);
        let exprs: &Vec<Expr> = inputs.or_else(|| Some(&self.operator.outputs.get(name)?.shape))?;
        let dimension = exprs.iter().position(|expr| expr.as_name() == Some(axis))?;
        let inner = shape[dimension + 1..].iter().product::<u64>() as usize;
        Some(Cut { dimension, extent: shape[dimension] as usize, inner })
    }
}

fn array<'a>(tensor: &'a Tensor, shape: &'a [u64]) -> Array<'a> {
    Array { name: &tensor.name, dtype: tensor.dtype, shape }
}

/// Says on which problem the user's code was refused.
pub fn on(error: anyhow::Error, problem: &Problem) -> anyhow::Error {
    match error.downcast::<Refused>() {
        Ok(refused) => Refused { line: format!("{refused}, on {}", problem.id()), ..refused }.into(),
        Err(error) => error,
    }
}

/// A dimension along which dense elements are taken apart.
#[derive(Clone, Copy)]
struct Cut {
    dimension: usize,
    extent: usize,
    /// Elements of one step along the dimension.
    inner: usize,
}

impl Cut {
    fn extents(&self, shape: &[u64], range: &Range<u64>) -> Vec<u64> {
        let mut extents = shape.to_vec();
        extents[self.dimension] = range.end - range.start;
        extents
    }

    /// Bytes of a whole row, and of the range in it.
    fn bytes(&self, range: &Range<u64>, size: usize) -> (usize, Range<usize>) {
        let step = self.inner * size;
        (self.extent * step, range.start as usize * step..range.end as usize * step)
    }

    fn copy(&self, whole: &[u8], range: &Range<u64>, size: usize) -> Vec<u8> {
        let (row, part) = self.bytes(range, size);
        whole.chunks_exact(row).flat_map(|row| &row[part.clone()]).copied().collect()
    }

    fn paste(&self, whole: &mut [u8], part: &[u8], range: &Range<u64>, size: usize) {
        let (row, into) = self.bytes(range, size);
        for (row, part) in whole.chunks_exact_mut(row).zip(part.chunks_exact(into.len())) {
            row[into.clone()].copy_from_slice(part);
        }
    }
}
