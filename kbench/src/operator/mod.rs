//! What is computed, as data: axes with values (a shape), one problem to solve, and what the work costs.
//! Leaves to others: where tensors live and what computes them.

pub mod attention;
pub mod declared;

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::key::BadKey;
use declared::{Declared, Role};

/// A value for every axis of an operator.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shape {
    /// The name used on the command line and in reports, e.g. `mission`.
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

/// What does the arithmetic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// CUDA cores in double precision.
    F64,
    /// CUDA cores in single precision.
    F32,
    /// Tensor cores on f64.
    F64Tensor,
    /// Tensor cores on f32 rounded to 11 bits.
    Tf32Tensor,
    /// Tensor cores on f16 and bf16.
    F16Tensor,
    /// Tensor cores on e4m3 and e5m2.
    F8Tensor,
    /// Tensor cores on 8-bit integers.
    I8Tensor,
}

/// What is computed.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Operator {
    /// softmax(Q K^T) V on e4m3 operands.
    #[default]
    Attention,
    /// What a gate file declares.
    Declared(Box<Declared>),
}

/// The name of the built-in operator in a gate file.
const ATTENTION: &str = "attention";

impl Serialize for Operator {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Operator::Attention => serializer.serialize_str(ATTENTION),
            Operator::Declared(declared) => declared.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Operator {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Operator, D::Error> {
        struct NameOrTable;
        impl<'de> Visitor<'de> for NameOrTable {
            type Value = Operator;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a table, or the name \"{ATTENTION}\"")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<Operator, E> {
                match name {
                    ATTENTION => Ok(Operator::Attention),
                    _ => Err(E::custom(format!("unknown operator `{name}`: use a table, or \"{ATTENTION}\""))),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Operator, A::Error> {
                let declared = Declared::deserialize(de::value::MapAccessDeserializer::new(map))?;
                Ok(Operator::Declared(Box::new(declared)))
            }
        }
        deserializer.deserialize_any(NameOrTable)
    }
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

    /// The shape of a name that the operator itself knows.
    pub fn shape(&self, name: &str) -> Result<Shape, NoShape> {
        match self {
            Operator::Attention => name.parse().map_err(|e: attention::UnknownShape| NoShape(e.to_string())),
            Operator::Declared(_) => Err(NoShape(format!("unknown shape `{name}`: define it in [shapes]"))),
        }
    }

    /// A shape of a file with the sizes that follow from the others.
    pub fn completed(&self, shape: Shape) -> Shape {
        match self {
            Operator::Attention => attention::completed(shape),
            Operator::Declared(_) => shape,
        }
    }

    /// Refuses a shape of a file that the operator cannot have.
    pub fn check_shape(&self, shape: &Shape) -> Result<(), BadKey> {
        match self {
            Operator::Attention => attention::check(shape),
            Operator::Declared(declared) => {
                let key = format!("shapes.{}", shape.name);
                if let Some(why) = declared.refuse(&shape.axes) {
                    return BadKey::refuse(key, why);
                }
                declared.tensors(&shape.axes).map(|_| ())
            }
        }
    }

    /// Distributions besides the usual one that correctness is checked on.
    pub fn stress(&self) -> Vec<Distribution> {
        match self {
            Operator::Attention => Distribution::ALL.into_iter().filter(|d| !d.is_normal()).collect(),
            // Nothing is replaced that the file draws by a distribution of its own.
            Operator::Declared(declared) => {
                let free = declared.inputs.iter().any(|(_, i)| i.dtype.is_float() && i.distribution.is_none());
                if free { vec![Distribution::Outliers, Distribution::Negative] } else { Vec::new() }
            }
        }
    }

    /// Those that were checked by runs which did not record them.
    pub fn stress_before_it_was_recorded(&self) -> Vec<Distribution> {
        let mut distributions = self.stress();
        if self.is_attention() {
            distributions.truncate(Distribution::BEFORE_THEY_WERE_RECORDED - 1);
        }
        distributions
    }

    /// What is timed where a gate file does not say: normal inputs, and such as make a difference to a kernel that was
    /// written for those. What the file draws by a distribution of its own, or generates, comes in no other.
    pub(crate) fn usually_timed(&self) -> Vec<Distribution> {
        match self {
            Operator::Declared(declared)
                if declared.generate.is_none() && self.stress().contains(&Distribution::Outliers) =>
            {
                vec![Distribution::Normal, Distribution::Outliers]
            }
            Operator::Attention | Operator::Declared(_) => vec![Distribution::Normal],
        }
    }

    /// What a shape costs at least, where that is known.
    pub fn cost(&self, shape: &Shape) -> Option<Cost> {
        match self {
            Operator::Attention => Some(attention::Sizes::of(shape).cost()),
            Operator::Declared(declared) => declared.work(&shape.axes).ok()?,
        }
    }

    /// The sizes of a shape with the names of their axes, for a heading.
    pub fn sizes_by_name(&self, shape: &Shape) -> String {
        match self {
            Operator::Attention => attention::Sizes::of(shape).by_name(),
            Operator::Declared(declared) => {
                let size = |axis: &String| Some(format!("{axis} {}", shape.axes.get(axis)?));
                declared.axes.iter().filter_map(size).collect::<Vec<_>>().join(", ")
            }
        }
    }

    /// The sizes of a shape as a product, for a cell of a table.
    pub fn sizes_as_product(&self, shape: &Shape) -> String {
        match self {
            Operator::Attention => attention::Sizes::of(shape).as_product(),
            Operator::Declared(declared) => {
                let sizes = declared.axes.iter().filter_map(|axis| shape.axes.get(axis));
                sizes.map(i64::to_string).collect::<Vec<_>>().join(" x ")
            }
        }
    }

    /// What cases that fail have in common and others have not, with its usual cause.
    pub fn failing_pattern(&self, bad: &[&Problem], good: &[&Problem]) -> Option<String> {
        match self {
            Operator::Attention => attention::failing_pattern(bad, good).map(str::to_owned),
            Operator::Declared(_) => pattern_of_axes(bad, good),
        }
    }

    /// Problems with one key have the same inputs.
    pub fn inputs_key(&self, problem: &Problem) -> String {
        match self {
            Operator::Attention => attention::inputs_key(problem),
            Operator::Declared(_) => problem.id(),
        }
    }

    /// Elements of all inputs and outputs, a measure of how long a problem takes to draw and compare.
    pub fn elements(&self, shape: &Shape) -> usize {
        match self {
            Operator::Attention => {
                let sizes = attention::Sizes::of(shape);
                sizes.q_len() + sizes.kv_len()
            }
            Operator::Declared(declared) => {
                let tensors = declared.tensors(&shape.axes).unwrap_or_default();
                tensors.iter().map(|tensor| tensor.layout.elements as usize).sum()
            }
        }
    }

    /// Names and extents of the outputs; attention's one output has no name. `None` where the shape has none, which a suite
    /// refuses.
    pub fn outputs(&self, shape: &Shape) -> Option<Vec<(String, Vec<u64>)>> {
        match self {
            Operator::Attention => Some(vec![(String::new(), attention::Sizes::of(shape).output().to_vec())]),
            Operator::Declared(declared) => {
                let tensors = declared.tensors(&shape.axes).ok()?;
                let outputs = tensors.into_iter().filter(|tensor| matches!(tensor.role, Role::Output { .. }));
                Some(outputs.map(|tensor| (tensor.name, tensor.layout.shape)).collect())
            }
        }
    }

    /// Elements of one of the rows that a comparison may sample from; `None` where it never does.
    pub fn row_elements(&self, shape: &Shape) -> Option<u64> {
        self.rows(shape)?;
        self.outputs(shape)?.first()?.1.last().copied()
    }

    /// Rows that a comparison may sample from; `None` where it never does.
    pub fn rows(&self, shape: &Shape) -> Option<usize> {
        match self {
            Operator::Attention => {
                let sizes = attention::Sizes::of(shape);
                Some(sizes.batch_heads() * sizes.seq_q as usize)
            }
            Operator::Declared(_) => None,
        }
    }
}

/// An axis that tells failing problems from the others: a size that all of the first have and none of the others, or one
/// that is larger, or is no multiple of a power of two, in every one of the first alone.
fn pattern_of_axes(bad: &[&Problem], good: &[&Problem]) -> Option<String> {
    let axes = &bad.first()?.shape.axes;
    let size = |problem: &&Problem, axis: &str| problem.shape.axes.get(axis).copied().unwrap_or(0);
    for axis in axes.keys() {
        let tells = |is: &dyn Fn(i64) -> bool| {
            bad.iter().all(|p| is(size(p, axis))) && !good.is_empty() && !good.iter().any(|p| is(size(p, axis)))
        };
        if let Some(block) = [4, 8, 16, 32, 64, 128].into_iter().find(|block| tells(&|n| n % block != 0)) {
            return Some(format!("only where {axis} is no multiple of {block}: the tail is not masked"));
        }
        let least = bad.iter().map(|p| size(p, axis)).min()?;
        if tells(&|n| n >= least) {
            return Some(format!("only where {axis} is {least} or more: a loop, a size or an index that overflows"));
        }
        let most = bad.iter().map(|p| size(p, axis)).max()?;
        if tells(&|n| n <= most) {
            return Some(format!("only where {axis} is {most} or less: fewer elements than the kernel takes at once"));
        }
    }
    let usual = |p: &&Problem| p.distribution == Distribution::Normal;
    if !bad.iter().any(usual) && good.iter().any(usual) {
        return Some("only unusual inputs: overflow, a maximum that starts too high, or a division by zero".to_owned());
    }
    None
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// How the values of an input are drawn. Only `Normal` is gated on the absolute error limits;
/// the others are gated on finiteness and on error relative to the output's own magnitude.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Distribution {
    /// Standard normal.
    #[default]
    Normal,
    /// Normal, one element in 256 is 20 times larger.
    Outliers,
    /// Normal, Q and K 16 times larger: the softmax saturates.
    Large,
    /// Minus the magnitude of a normal number: a maximum that starts at zero, or a tail of zeros, shows.
    Negative,
    /// Every element of a tensor is the same value.
    Constant,
    /// Every element is zero: amax is 0.
    Zeros,
    /// Normal, and scores rise by thirty nats from the first key to the last, however many there are, so that the running
    /// maximum moves in every tile.
    MaximumLast,
    /// V is constant, Q and K are normal: the output is that constant, whatever the probabilities are.
    ConstantValues,
    /// Q is zero, K and V are normal: every output row is the mean of the keys it may see.
    ZeroQueries,
    /// Rows of Q and K are unit vectors with a sign, which numbers them modulo 2D; V is normal. Row i of the output is the
    /// mean of those rows of V with the number of i: one that stands in another's place shows as what it is.
    Permutation,
    /// Q is positive and K at most -1, so that every score is below zero: a key that is none, whose score is zero, outweighs
    /// all others, and so does a maximum that starts there.
    NegativeScores,
    /// The same with constants: every score is one number, far below zero, and every row the mean of the keys it may see.
    OppositeConstants,
    /// Normal, V so large that sums come close to what FP16 holds.
    LargeValues,
    /// Like a trained model's activations: a few columns of Q and K are several times larger than the others, and the first
    /// key, whose value is small, draws most of the weight. Timed, because kernels that test for a narrow range of scores
    /// leave their fast form; no stress of correctness.
    Trained,
    /// Normal, Q and K 1.7 times larger: scores have three times the usual deviation.
    Spread,
    /// Normal, K with a mean of twelve in four columns: scores have a part that all keys share.
    KeyMean,
    /// Normal, two columns of K ten times and one of Q six times larger.
    Channels,
    /// The first key draws most of the weight and has a small value, as [`Distribution::Trained`] without its columns.
    Sink,
    /// Student's t of three degrees of freedom: single values are a hundred times the usual.
    Heavy,
    /// Normal, one row of 64 of K and of V six times larger.
    Tokens,
}

impl Distribution {
    /// How many of [`Distribution::ALL`] there were when suites began to record which they were checked with.
    const BEFORE_THEY_WERE_RECORDED: usize = 9;

    /// Those of attention that correctness is checked on, the gated one first.
    pub const ALL: [Distribution; 12] = [
        Distribution::Normal,
        Distribution::Outliers,
        Distribution::Large,
        Distribution::Constant,
        Distribution::Zeros,
        Distribution::MaximumLast,
        Distribution::ConstantValues,
        Distribution::ZeroQueries,
        Distribution::Permutation,
        Distribution::NegativeScores,
        Distribution::OppositeConstants,
        Distribution::LargeValues,
    ];

    /// Whether it is the usual one, which records leave out.
    pub fn is_normal(&self) -> bool {
        *self == Distribution::Normal
    }

    /// A shape with these inputs in words: `mission`, or `mission, heavy inputs`.
    pub fn on(self, shape: &str) -> String {
        if self.is_normal() { shape.to_owned() } else { format!("{shape}, {} inputs", self.name()) }
    }

    /// The name used in JSON and reports.
    pub fn name(self) -> &'static str {
        match self {
            Distribution::Normal => "normal",
            Distribution::Outliers => "outliers",
            Distribution::Large => "large",
            Distribution::Negative => "negative",
            Distribution::Constant => "constant",
            Distribution::Zeros => "zeros",
            Distribution::MaximumLast => "maximum-last",
            Distribution::ConstantValues => "constant-values",
            Distribution::ZeroQueries => "zero-queries",
            Distribution::Permutation => "permutation",
            Distribution::NegativeScores => "negative-scores",
            Distribution::OppositeConstants => "opposite-constants",
            Distribution::LargeValues => "large-values",
            Distribution::Trained => "trained",
            Distribution::Spread => "spread",
            Distribution::KeyMean => "key-mean",
            Distribution::Channels => "channels",
            Distribution::Sink => "sink",
            Distribution::Heavy => "heavy",
            Distribution::Tokens => "tokens",
        }
    }

    /// Whether the output is a plain mean of rows of V, so that no rounding of a probability shows in it and what is left
    /// of an error is a value in the wrong place.
    pub fn is_exact(self) -> bool {
        use Distribution::{Constant, ConstantValues, OppositeConstants, Permutation, ZeroQueries, Zeros};
        matches!(self, Constant | Zeros | ConstantValues | ZeroQueries | Permutation | OppositeConstants)
    }

    /// Whether probabilities are those of the usual one: then the format of P says how far a row may be off in proportion.
    /// The others magnify what scores lose.
    pub fn has_usual_scores(self) -> bool {
        matches!(self, Distribution::Normal | Distribution::LargeValues)
    }

    /// Whether outputs are so large that only their relative error says anything.
    pub fn is_large(self) -> bool {
        self == Distribution::LargeValues
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
    /// A name that is also fit for a file: `mission.seed1.normal`.
    pub fn id(&self) -> String {
        format!("{}.seed{}.{}", self.shape.name, self.seed, self.distribution.name())
    }
}
