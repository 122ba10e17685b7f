//! An operator as a gate file declares it: axes, tensors, what is right, and what it costs. Reading has no effects;
//! what one shape makes of it is computed here too, and every fault is one line that names its key.
//! Leaves to others: drawing inputs, running references and checkers, and the suite around it.

mod checks;
mod draw;
mod limits;
mod tensor;
#[cfg(test)]
mod tests;

use kernel_spec::dtype::Dtype;
use kernel_spec::expr::Expr;
use kernel_spec::words;
use serde::{Deserialize, Serialize};

use crate::key::BadKey;
use crate::names::{Axes, Definition, Names};
use crate::ordered::Ordered;
pub use draw::{Distribution, Draw};
pub use limits::{ErrorLimits, Limits, TIMES_CONTROL, USUAL_SLOPE};
pub use tensor::{Layout, Role, Tensor};

/// The table `[operator]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Declared {
    /// Names of the axes; a shape gives each an integer.
    pub axes: Vec<String>,
    /// Values that follow from the axes; reference, check and generate get those that they have a parameter for.
    #[serde(rename = "let", default, skip_serializing_if = "Ordered::is_empty")]
    pub values: Ordered<Expr>,
    /// A shape for which one of these is false is refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub constraints: Vec<Expr>,
    /// Python file whose function computes the outputs; this or `check`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// Python file whose function judges outputs, where several are right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<String>,
    /// Python file that makes inputs; those that it leaves out are drawn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generate: Option<String>,
    /// An axis along which the reference may be computed in slices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub independent: Option<String>,
    /// Tensors that kernels read, in order.
    #[serde(default, skip_serializing_if = "Ordered::is_empty")]
    pub inputs: Ordered<Input>,
    /// Tensors that kernels write, in order.
    pub outputs: Ordered<Output>,
    /// With a reference: limits of float outputs that have none of their own, by the names of [`ErrorLimits`]. With a
    /// check: the largest value of each figure that it returns.
    #[serde(default, skip_serializing_if = "Ordered::is_empty")]
    pub errors: Ordered<f64>,
    /// Work of one call, for the physical floor; there is none without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<Cost>,
}

/// A tensor that kernels read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "draw::InputTable", into = "draw::InputTable")]
pub struct Input {
    /// Extents; none is one element.
    pub shape: Vec<Expr>,
    /// Element type.
    pub dtype: Dtype,
    /// Distances between neighbours along each dimension, in elements; dense where absent.
    pub strides: Option<Vec<Expr>>,
    /// How it is drawn; where absent, floats are normal and others come from `generate`.
    pub distribution: Option<Distribution>,
}

/// A tensor that kernels write.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Output {
    /// Extents; none is one element.
    pub shape: Vec<Expr>,
    /// Element type.
    pub dtype: Dtype,
    /// Distances between neighbours along each dimension, in elements; dense where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strides: Option<Vec<Expr>>,
    /// The input that it overwrites, which may have the same name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inplace: Option<String>,
    /// Limits on its errors; integers and bools are exact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errors: Option<ErrorLimits>,
}

/// What one call takes at least.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cost {
    /// Arithmetic operations, two a multiply-add.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flops: Option<Expr>,
    /// Bytes that must cross device memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<Expr>,
    /// What does the arithmetic; the fastest for the inputs' types where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<super::Unit>,
}

impl Declared {
    /// Its `let`, with keys.
    pub(crate) fn definitions(&self) -> Vec<Definition<'_>> {
        let define = |(name, expr)| Definition { name, key: format!("operator.let.{name}"), expr };
        self.values.iter().map(define).collect()
    }

    /// Every name that has a value: axes, then `let`.
    pub fn value_names(&self) -> Vec<&str> {
        self.axes.iter().map(String::as_str).chain(self.values.keys()).collect()
    }

    /// The values of axes and `let` for one shape, which must give every axis and nothing else.
    pub fn names(&self, axes: &Axes) -> Result<Names, BadKey> {
        let key = "operator.axes";
        if let Some(unknown) = axes.keys().find(|name| !self.axes.contains(name)) {
            let near = words::suggestion(unknown, self.axes.iter().map(String::as_str));
            return BadKey::refuse(key, format!("the shape gives `{unknown}`, which is no axis: {near}"));
        }
        let mut names = Names::default();
        for axis in &self.axes {
            let value = axes.get(axis).ok_or_else(|| BadKey::new(key, format!("the shape gives no `{axis}`")))?;
            names.add(axis, *value);
        }
        names.define(&self.definitions())?;
        Ok(names)
    }

    /// Why a shape is refused: a constraint that is false, or one that has no value.
    pub fn refuse(&self, axes: &Axes) -> Option<String> {
        let names = match self.names(axes) {
            Ok(names) => names,
            Err(error) => return Some(error.to_string()),
        };
        self.constraints.iter().enumerate().find_map(|(i, constraint)| {
            let key = format!("operator.constraints[{i}]");
            match constraint.truth(&names) {
                Ok(true) => None,
                Ok(false) => {
                    let text = words::one_line(&constraint.to_string());
                    Some(format!("{key}: `{text}` is false for {}", names.shown(constraint)))
                }
                Err(error) => Some(format!("{key}: {error}")),
            }
        })
    }

    /// Inputs, then outputs, as one shape has them.
    pub fn tensors(&self, axes: &Axes) -> Result<Vec<Tensor>, BadKey> {
        let names = self.names(axes)?;
        let mut tensors = Vec::new();
        for (name, input) in self.inputs.iter() {
            tensors.push(tensor::input(name, input, &names)?);
        }
        for (name, output) in self.outputs.iter() {
            let tensor = tensor::output(name, output, &names)?;
            if let Some(from) = &output.inplace {
                let same = |t: &&Tensor| (t.dtype, &t.layout) == (tensor.dtype, &tensor.layout);
                if tensors.iter().find(|t| t.name == *from).is_some_and(|t| !same(&t)) {
                    let why = format!("`{from}` has another shape, dtype or strides, so it cannot be overwritten");
                    return BadKey::refuse(format!("operator.outputs.{name}.inplace"), why);
                }
            }
            tensors.push(tensor);
        }
        Ok(tensors)
    }

    /// What one shape costs.
    pub fn work(&self, axes: &Axes) -> Result<Option<super::Cost>, BadKey> {
        let Some(cost) = &self.cost else { return Ok(None) };
        let names = self.names(axes)?;
        let amount = |expr: &Option<Expr>, key: &str| {
            let Some(expr) = expr else { return Ok(0.0) };
            let value = expr.float(&names).map_err(crate::names::at(key))?;
            if value < 0.0 {
                return BadKey::refuse(key, format!("is {value:?} for {}, and cannot be negative", names.shown(expr)));
            }
            Ok(value)
        };
        Ok(Some(super::Cost {
            flops: amount(&cost.flops, "operator.cost.flops")?,
            bytes: amount(&cost.bytes, "operator.cost.bytes")?,
            unit: cost.unit.unwrap_or_else(|| self.fastest_unit()),
        }))
    }

    /// The fastest unit for the types of its inputs: a bound on the time must not ask for more than any kernel could do.
    fn fastest_unit(&self) -> super::Unit {
        use super::Unit;
        let of = |dtype: Dtype| match dtype {
            Dtype::E4m3 | Dtype::E5m2 | Dtype::I8 | Dtype::U8 => Unit::F8Tensor,
            Dtype::F16 | Dtype::Bf16 => Unit::F16Tensor,
            Dtype::F64 => Unit::F64Tensor,
            _ => Unit::Tf32Tensor,
        };
        let order = [Unit::F8Tensor, Unit::F16Tensor, Unit::Tf32Tensor];
        let units: Vec<Unit> = self.inputs.iter().map(|(_, input)| of(input.dtype)).collect();
        order.into_iter().find(|unit| units.contains(unit)).unwrap_or(Unit::F64Tensor)
    }

    /// What each output's errors are held to on one shape; none where a checker judges.
    pub fn limits(&self, axes: &Axes) -> Result<Vec<(&str, Limits)>, BadKey> {
        if self.check.is_some() {
            return Ok(Vec::new());
        }
        let names = self.names(axes)?;
        self.outputs.iter().map(|(name, output)| Ok((name, limits::of(self, name, output, &names)?))).collect()
    }
}
