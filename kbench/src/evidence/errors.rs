//! What an output was worth: errors against a reference and beside the control's output. Leaves to others: limits on them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Errors of one output against float64 attention. Maxima are over finite elements; NaN and Inf are counted apart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Errors {
    /// Output elements.
    pub elements: u64,
    /// NaN in the output.
    pub nan: u64,
    /// Infinities in the output.
    pub inf: u64,
    /// Kernel error: against float64 on the dequantised inputs.
    pub kernel_max: f64,
    /// Mean kernel error.
    pub kernel_mean: f64,
    /// Where in the output the worst kernel error is, or the first element that is not finite.
    pub worst_at: Vec<u32>,
    /// Quantisation floor: float64 on dequantised inputs against float64 on the originals.
    pub floor_max: f64,
    /// Largest end-to-end error: against float64 on the FP16 originals.
    pub end_to_end_max: f64,
    /// Mean end-to-end error.
    pub end_to_end_mean: f64,
    /// Root mean square of end-to-end errors over that of the result on the originals, where that was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_to_end_rms: Option<f64>,
    /// Share of elements whose end-to-end error exceeds the suite's `bad_element`.
    pub bad_share: f64,
    /// Largest magnitude of the float64 result on the dequantised inputs.
    pub reference_amax: f64,
    /// Largest difference from the control's output, when that exists.
    pub from_control_max: Option<f64>,
    /// Errors by output, where a gate file declares the operator; the figures above are then the worst over all outputs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<OutputErrors>,
    /// What a checker says of the outputs, by figure, where there is one instead of a reference.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub figures: BTreeMap<String, f64>,
    /// The rows that were compared, as head (batch times heads, flattened) and row; absent when all were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampled_rows: Option<Vec<[u32; 2]>>,
    /// The kernel error in proportion to the output, where that was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proportion: Option<Proportion>,
    /// What quantising alone costs in the mean, where that was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub floor: Option<Floor>,
    /// All of the output beside the control's, where only some rows were compared with float64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub whole: Option<WholeOutput>,
}

/// What quantising the inputs costs whatever the kernel is: float64 on the dequantised inputs against float64 on the originals.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Floor {
    /// Mean |difference|.
    pub mean: f64,
    /// Share of elements whose difference exceeds the suite's `bad_element`.
    pub bad_share: f64,
}

/// Kernel error in proportion to the output: an output grows smaller the more keys there are, a limit in absolute terms
/// does not. Over finite elements.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Proportion {
    /// Rows that were compared.
    pub rows: u64,
    /// |<output, reference> / <reference, reference> - 1|: a gain or a loss of all of it.
    pub slope: f64,
    /// Largest root mean square of a row's errors over that of its reference.
    pub row_rms: f64,
    /// Mean |reference|.
    pub magnitude: f64,
}

/// An output beside the control's, element by element. Maxima are over finite numbers: where either is NaN or infinite, the
/// difference is as large as can be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WholeOutput {
    /// Elements that were compared.
    pub elements: u64,
    /// Largest root mean square of the differences in eight neighbouring columns, over that of the control's whole row.
    pub block_rms: f64,
    /// The first element of that block.
    pub worst_at: Vec<u32>,
}

/// Errors of one output of a declared operator against its reference. Infinity equal to the reference's is right and has
/// no error; NaN, and an infinity where the reference has none, count as not finite. Maxima are over the other elements.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OutputErrors {
    /// Its name.
    pub output: String,
    /// Elements.
    pub elements: u64,
    /// Elements that are not the reference's: by bits for integers and bools; NaN or a wrong infinity for floats.
    pub wrong: u64,
    /// Place of the worst element, or of the first that is wrong.
    pub worst_at: Vec<u32>,
    /// Largest |error|.
    pub max: f64,
    /// Mean |error|.
    pub mean: f64,
    /// Largest |error| / |reference|; where the reference is 0, an error counts as `f64::MAX`.
    pub relative: f64,
    /// Root mean square of the errors over that of the reference.
    pub relative_rms: f64,
    /// |<output, reference> / <reference, reference> - 1|, where that was measured: a gain or a loss of all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slope: Option<f64>,
    /// Largest |error| of a row over the largest |reference| of that row; a row is the last axis.
    pub row_relative: f64,
    /// Largest |reference|.
    pub reference_amax: f64,
    /// Whether gaps between strided elements still hold what they held.
    pub gaps_intact: bool,
}

impl OutputErrors {
    /// A figure by the name that limits have.
    pub fn figure(&self, name: &str) -> f64 {
        match name {
            "max" => self.max,
            "mean" => self.mean,
            "relative" => self.relative,
            "relative_rms" => self.relative_rms,
            "row_relative" => self.row_relative,
            "slope" => self.slope.unwrap_or(f64::NAN),
            _ => f64::NAN,
        }
    }
}
