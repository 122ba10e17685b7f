//! Tensors of one shape: extents, strides and bytes as numbers. Leaves to others: memory.

use kernel_spec::dtype::Dtype;
use kernel_spec::expr::Expr;
use serde::{Deserialize, Serialize};

use super::{Draw, Input, Output};
use crate::key::BadKey;
use crate::names::Names;

/// Where the elements of a tensor lie.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// Extents, each at least 1; none is one element.
    pub shape: Vec<u64>,
    /// Distance between neighbours along each dimension, in elements.
    pub strides: Vec<u64>,
    /// How many elements there are.
    pub elements: u64,
    /// Bytes from the first to the end of the last element, gaps included.
    pub bytes: u64,
}

/// What a kernel does with a tensor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Reads it.
    Input {
        /// How it is drawn; absent where `generate` must make it.
        draw: Option<Draw>,
    },
    /// Writes it.
    Output {
        /// The input whose memory it is.
        inplace: Option<String>,
    },
}

/// A tensor of one shape.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tensor {
    /// Its name.
    pub name: String,
    /// Element type.
    pub dtype: Dtype,
    /// Where its elements lie.
    pub layout: Layout,
    /// What it is for.
    pub role: Role,
}

impl Layout {
    /// Of a dense tensor, innermost dimension last.
    pub fn dense(shape: &[Expr], dtype: Dtype, names: &Names, key: &str) -> Result<Layout, BadKey> {
        Layout::of(shape, None, dtype, names, key)
    }

    /// Of a tensor with its strides, which must not let two elements share memory. `key` is that of the tensor.
    pub fn of(
        shape: &[Expr],
        strides: Option<&[Expr]>,
        dtype: Dtype,
        names: &Names,
        key: &str,
    ) -> Result<Layout, BadKey> {
        let numbers = |part: &str, exprs: &[Expr]| {
            let number = |(i, expr)| names.integer(expr, 1, &format!("{key}.{part}[{i}]")).map(|n| n as u64);
            exprs.iter().enumerate().map(number).collect::<Result<Vec<u64>, BadKey>>()
        };
        let too_large = || BadKey::new(format!("{key}.shape"), "overflow: more bytes than 64 bits can count");
        let shape = numbers("shape", shape)?;
        let elements = shape.iter().try_fold(1_u64, |n, extent| n.checked_mul(*extent)).ok_or_else(too_large)?;
        let strides = match strides {
            Some(strides) => numbers("strides", strides)?,
            None => dense_strides(&shape),
        };
        if strides.len() != shape.len() {
            let why = format!("{} are given for {} dimensions: give each one", strides.len(), shape.len());
            return BadKey::refuse(format!("{key}.strides"), why);
        }
        let last = shape
            .iter()
            .zip(&strides)
            .try_fold(0_u64, |at, (extent, stride)| at.checked_add((extent - 1).checked_mul(*stride)?));
        let span = last.and_then(|at| at.checked_add(1)?.checked_mul(dtype.bytes() as u64));
        let bytes = span.filter(|b| *b <= i64::MAX as u64).ok_or_else(too_large)?;
        if overlaps(&shape, &strides) {
            let why = format!("{strides:?} let elements of the shape {shape:?} share memory");
            return BadKey::refuse(format!("{key}.strides"), why);
        }
        Ok(Layout { shape, strides, elements, bytes })
    }
}

fn dense_strides(shape: &[u64]) -> Vec<u64> {
    let mut strides = vec![1; shape.len()];
    for i in (1..shape.len()).rev() {
        // The product of all extents fits, so this part of it does.
        strides[i - 1] = strides[i] * shape[i];
    }
    strides
}

/// Whether a dimension steps into what those of smaller strides span.
fn overlaps(shape: &[u64], strides: &[u64]) -> bool {
    let mut dimensions: Vec<_> = strides.iter().zip(shape).filter(|(_, extent)| **extent > 1).collect();
    dimensions.sort_unstable();
    let mut span = 1_u64;
    dimensions.into_iter().any(|(stride, extent)| {
        let steps_inside = *stride < span;
        span = span.saturating_add((extent - 1).saturating_mul(*stride));
        steps_inside
    })
}

pub(super) fn input(name: &str, input: &Input, names: &Names) -> Result<Tensor, BadKey> {
    let key = format!("operator.inputs.{name}");
    let layout = Layout::of(&input.shape, input.strides.as_deref(), input.dtype, names, &key)?;
    let draw = match &input.distribution {
        Some(distribution) => Some(distribution.draw(input.dtype, layout.elements, names, &key)?),
        None => input.dtype.is_float().then_some(Draw::Normal),
    };
    Ok(Tensor { name: name.to_owned(), dtype: input.dtype, layout, role: Role::Input { draw } })
}

pub(super) fn output(name: &str, output: &Output, names: &Names) -> Result<Tensor, BadKey> {
    let key = format!("operator.outputs.{name}");
    let layout = Layout::of(&output.shape, output.strides.as_deref(), output.dtype, names, &key)?;
    let role = Role::Output { inplace: output.inplace.clone() };
    Ok(Tensor { name: name.to_owned(), dtype: output.dtype, layout, role })
}
