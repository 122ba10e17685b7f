//! What is computed, as data: axes with values (a shape), one problem to solve, and what the work costs.
//! Leaves to others: where tensors live and what computes them.

pub mod attention;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// A value for every axis of an operator.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shape {
    /// The name used on the command line and in reports, e.g. `mission-causal`.
    pub name: String,
    /// Sizes by axis.
    pub axes: BTreeMap<String, i64>,
}

/// What the work on one shape costs at least, whoever does it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    /// Floating-point operations, 2 per multiply-add.
    pub flops: f64,
    /// Bytes of inputs and outputs, each once.
    pub bytes: f64,
    /// What does the operations.
    pub unit: Unit,
}

/// A unit of a multiprocessor that operations can be counted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// Matrix units on 8-bit floats.
    Fp8Tensor,
}

/// What is computed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Operator {
    /// softmax(Q K^T) V on e4m3 operands.
    #[default]
    Attention,
}

/// No shape of this name, and what there is instead.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub struct NoShape(String);

impl Operator {
    /// Whether it is the built-in one, which suites need not name.
    pub fn is_attention(&self) -> bool {
        *self == Operator::Attention
    }

    /// The shape of a name.
    pub fn shape(&self, name: &str) -> Result<Shape, NoShape> {
        match self {
            Operator::Attention => name.parse().map_err(|e: attention::UnknownShape| NoShape(e.to_string())),
        }
    }

    /// What a shape costs at least, where that is known.
    pub fn cost(&self, shape: &Shape) -> Option<Cost> {
        match self {
            Operator::Attention => Some(attention::Sizes::of(shape).cost()),
        }
    }

    /// The sizes of a shape with the names of their axes, for a heading.
    pub fn sizes_by_name(&self, shape: &Shape) -> String {
        match self {
            Operator::Attention => attention::Sizes::of(shape).by_name(),
        }
    }

    /// The sizes of a shape as a product, for a cell of a table.
    pub fn sizes_as_product(&self, shape: &Shape) -> String {
        match self {
            Operator::Attention => attention::Sizes::of(shape).as_product(),
        }
    }

    /// What cases that fail have in common and others have not, with its usual cause.
    pub fn failing_pattern(&self, bad: &[&Problem], good: &[&Problem]) -> Option<&'static str> {
        match self {
            Operator::Attention => attention::failing_pattern(bad, good),
        }
    }

    /// Problems with one key have the same inputs.
    pub fn inputs_key(&self, problem: &Problem) -> String {
        match self {
            Operator::Attention => attention::inputs_key(problem),
        }
    }

    /// Elements of all inputs and outputs, a measure of how long a problem takes to draw and compare.
    pub fn elements(&self, shape: &Shape) -> usize {
        match self {
            Operator::Attention => {
                let sizes = attention::Sizes::of(shape);
                sizes.q_len() + sizes.kv_len()
            }
        }
    }

    /// Rows that a comparison may sample from.
    pub fn rows(&self, shape: &Shape) -> usize {
        match self {
            Operator::Attention => {
                let sizes = attention::Sizes::of(shape);
                sizes.batch_heads() * sizes.seq_q as usize
            }
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// How the values of an input are drawn. Only `Normal` is gated on the absolute error limits;
/// the others are gated on finiteness and on error relative to the output's own magnitude.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Distribution {
    /// Standard normal.
    Normal,
    /// Normal, one element in 256 is 20 times larger.
    Outliers,
    /// Normal, Q and K 16 times larger: the softmax saturates.
    Large,
    /// Every element of a tensor is the same value.
    Constant,
    /// Every element is zero: amax is 0.
    Zeros,
    /// Normal, and scores rise with the key index, so that the running maximum moves in every tile.
    MaximumLast,
    /// V is constant, Q and K are normal: the output is that constant, whatever the probabilities are.
    ConstantValues,
    /// Q is zero, K and V are normal: every output row is the mean of the keys it may see.
    ZeroQueries,
    /// Rows of Q and K are unit vectors with a sign, which numbers them modulo 2D; V is normal. Row i of the output is the
    /// mean of those rows of V with the number of i: one that stands in another's place shows as what it is.
    Permutation,
}

impl Distribution {
    /// All distributions, the gated one first.
    pub const ALL: [Distribution; 9] = [
        Distribution::Normal,
        Distribution::Outliers,
        Distribution::Large,
        Distribution::Constant,
        Distribution::Zeros,
        Distribution::MaximumLast,
        Distribution::ConstantValues,
        Distribution::ZeroQueries,
        Distribution::Permutation,
    ];

    /// The name used in JSON and reports.
    pub fn name(self) -> &'static str {
        match self {
            Distribution::Normal => "normal",
            Distribution::Outliers => "outliers",
            Distribution::Large => "large",
            Distribution::Constant => "constant",
            Distribution::Zeros => "zeros",
            Distribution::MaximumLast => "maximum-last",
            Distribution::ConstantValues => "constant-values",
            Distribution::ZeroQueries => "zero-queries",
            Distribution::Permutation => "permutation",
        }
    }

    /// Whether the output is a plain mean of rows of V, so that no rounding of a probability shows in it and what is left
    /// of an error is a value in the wrong place.
    pub fn is_exact(self) -> bool {
        use Distribution::{Constant, ConstantValues, Permutation, ZeroQueries, Zeros};
        matches!(self, Constant | Zeros | ConstantValues | ZeroQueries | Permutation)
    }
}

/// One problem to solve: a shape, a seed and a distribution. A case of DESIGN is this and a variant.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Problem {
    /// Sizes.
    pub shape: Shape,
    /// Named seed of the inputs.
    pub seed: u64,
    /// How values are drawn.
    pub distribution: Distribution,
}

impl Problem {
    /// A name that is also fit for a file: `mission-causal.seed1.normal`.
    pub fn id(&self) -> String {
        format!("{}.seed{}.{}", self.shape.name, self.seed, self.distribution.name())
    }
}
