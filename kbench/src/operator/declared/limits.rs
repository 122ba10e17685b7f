//! What the errors of an output are held to: what is declared, else a bound that follows from the output's type and the
//! length of the sums behind it. Leaves to others: measuring errors, and judging them.

use kernel_spec::dtype::Dtype;
use kernel_spec::expr::Expr;
use serde::{Deserialize, Serialize};

use super::{Declared, Output};
use crate::key::BadKey;
use crate::names::Names;

/// Where nothing is declared, a candidate's errors may be this many times the control's.
pub const TIMES_CONTROL: f64 = 1.5;

/// Where nothing is declared, an output may be this much larger or smaller than its reference, all of it: errors that are
/// roundings cancel in that, whatever the type, and a factor that is wrong does not.
pub const USUAL_SLOPE: f64 = 0.005;

/// How many times the root of its length a sum may lose, in units of its type.
const TIMES_ROOT: f64 = 8.0;

/// Most that long sums add to a bound: beyond it a bound would not tell a wrong kernel from a right one.
const MOST_OF_A_SUM: f64 = 1.0 / 128.0;

/// Limits on the errors of one output; those that are absent are not asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ErrorLimits {
    /// Largest |error|.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
    /// Mean |error|.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mean: Option<f64>,
    /// Largest |error| / |reference| of an element.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relative: Option<f64>,
    /// Root mean square of the errors over that of the reference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relative_rms: Option<f64>,
    /// Largest |error| of a row over the largest |reference| of that row; a row is the last axis.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub row_relative: Option<f64>,
    /// Largest gain or loss of all of it; where absent, [`USUAL_SLOPE`] besides what chance explains.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slope: Option<f64>,
}

/// What one output's errors are held to.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Limits {
    /// Every bit: integers and bools.
    Exact,
    /// As declared.
    Declared(ErrorLimits),
    /// At most [`TIMES_CONTROL`] times the control's errors, and within a bound that the control must keep too.
    Default {
        /// |error| over the largest |reference| of the output; never under one ulp.
        bound: f64,
        /// One ulp of the output's type, relative.
        ulp: f64,
        /// Terms of the longest sum that the declaration lets one expect.
        reduction: u64,
    },
}

impl ErrorLimits {
    /// Names and values of those that are given.
    pub fn given(&self) -> impl Iterator<Item = (&'static str, f64)> {
        let all = [
            ("max", self.max),
            ("mean", self.mean),
            ("relative", self.relative),
            ("relative_rms", self.relative_rms),
            ("row_relative", self.row_relative),
            ("slope", self.slope),
        ];
        all.into_iter().filter_map(|(name, value)| Some((name, value?)))
    }

    /// Sets a limit by name; an unknown one lists all.
    pub(super) fn set(&mut self, name: &str, value: f64) -> Result<(), String> {
        let limit = match name {
            "max" => &mut self.max,
            "mean" => &mut self.mean,
            "relative" => &mut self.relative,
            "relative_rms" => &mut self.relative_rms,
            "row_relative" => &mut self.row_relative,
            "slope" => &mut self.slope,
            _ => {
                let known = "max, mean, relative, relative_rms, row_relative, slope";
                return Err(format!("unknown error `{name}`: with a reference there are {known}"));
            }
        };
        *limit = Some(value);
        Ok(())
    }
}

pub(super) fn of(operator: &Declared, name: &str, output: &Output, names: &Names) -> Result<Limits, BadKey> {
    if !output.dtype.is_float() {
        return Ok(Limits::Exact);
    }
    if let Some(errors) = output.errors {
        return Ok(Limits::Declared(errors));
    }
    if !operator.errors.is_empty() {
        let mut errors = ErrorLimits::default();
        for (figure, limit) in operator.errors.iter() {
            errors.set(figure, *limit).map_err(|why| BadKey::new("operator.errors", why))?;
        }
        return Ok(Limits::Declared(errors));
    }
    let reduction = reduction(operator, name, output, names)?;
    let ulp = 2.0 * output.dtype.unit_roundoff().unwrap_or_default();
    Ok(Limits::Default { bound: bound(output.dtype, reduction), ulp, reduction })
}

/// One ulp of the output, and what rounding makes of a sum in f32 (in f64 for an f64 output): its errors are of either sign,
/// so they grow as the root of the number of terms, and few sums lose more than some times that.
fn bound(dtype: Dtype, reduction: u64) -> f64 {
    let unit = |dtype: Dtype| dtype.unit_roundoff().unwrap_or_default();
    let accumulator = if dtype == Dtype::F64 { Dtype::F64 } else { Dtype::F32 };
    2.0 * unit(dtype) + (TIMES_ROOT * (reduction as f64).sqrt() * unit(accumulator)).min(MOST_OF_A_SUM)
}

/// Terms of the longest sum that the shapes let one expect: the last extent of every tensor (a softmax or norm keeps
/// the axis that it reduces), and of every input the dimensions that the output does not have (a product's inner one).
fn reduction(operator: &Declared, name: &str, output: &Output, names: &Names) -> Result<u64, BadKey> {
    let extents = |kind: &str, tensor: &str, shape: &[Expr]| {
        let extent = |(i, e)| names.integer(e, 1, &format!("operator.{kind}.{tensor}.shape[{i}]")).map(|n| n as u64);
        shape.iter().enumerate().map(extent).collect::<Result<Vec<u64>, BadKey>>()
    };
    let kept = |expr: &Expr| output.shape.contains(expr);
    let mut longest = extents("outputs", name, &output.shape)?.last().copied().unwrap_or(1);
    for (input, tensor) in operator.inputs.iter() {
        let extents = extents("inputs", input, &tensor.shape)?;
        let gone = tensor.shape.iter().zip(&extents).filter(|(expr, _)| !kept(expr)).map(|(_, n)| *n);
        longest = longest.max(extents.last().copied().unwrap_or(1)).max(gone.fold(1, u64::saturating_mul));
    }
    Ok(longest)
}
