//! Problem shapes: the sizes of one attention call, their names, and the counts that follow from them.
//! Leaves to others: what data fills the tensors (`Distribution` only names it) and where they live.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The sizes of one attention call. Tensors are `[batch, heads, seq, head_dim]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shape {
    /// The name used on the command line and in reports, e.g. `mission-causal`.
    pub name: String,
    /// B.
    pub batch: u32,
    /// H, query and key/value heads alike.
    pub heads: u32,
    /// Query rows per head.
    pub seq_q: u32,
    /// Keys per head.
    pub seq_kv: u32,
    /// D.
    pub head_dim: u32,
    /// Whether row i sees only keys j <= i + `causal_offset`.
    pub causal: bool,
}

/// name, batch, heads, seq_q, seq_kv, head_dim of every shape that has a name; each also exists with `-causal`.
const NAMED: &[(&str, u32, u32, u32, u32, u32)] = &[
    ("tiny", 1, 1, 32, 32, 64),
    ("small", 1, 8, 128, 128, 64),
    ("mission", 2, 8, 512, 512, 64),
    ("mission-b1", 1, 8, 512, 512, 64),
    ("long", 2, 8, 2048, 2048, 64),
    ("wide", 2, 8, 2048, 2048, 128),
    ("long-large", 8, 32, 2048, 2048, 64),
    ("wide-large", 8, 16, 2048, 2048, 128),
    ("wide-8k", 2, 16, 8192, 8192, 128),
    ("ragged", 1, 3, 77, 77, 64),
    // A kernel that takes one length for the other is right on every shape above.
    ("cross", 1, 3, 45, 173, 64),
    ("cross-wide", 2, 1, 150, 70, 128),
];

/// The shape has no such name.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("unknown shape `{name}`: use one of {}, each also with `-causal`", known_names())]
pub struct UnknownShape {
    name: String,
}

fn known_names() -> String {
    NAMED.iter().map(|row| row.0).collect::<Vec<_>>().join(", ")
}

impl Shape {
    /// Every named shape, plain and causal, in the order of DESIGN's table.
    pub fn all_named() -> Vec<Shape> {
        ["", "-causal"]
            .iter()
            .flat_map(|suffix| NAMED.iter().map(move |row| format!("{}{suffix}", row.0)))
            .filter_map(|name| name.parse().ok())
            .collect()
    }

    /// Batch times heads: how many independent attention problems there are.
    pub fn batch_heads(&self) -> usize {
        self.batch as usize * self.heads as usize
    }

    /// Elements of Q and of the output.
    pub fn q_len(&self) -> usize {
        self.batch_heads() * self.seq_q as usize * self.head_dim as usize
    }

    /// Elements of K, and of V.
    pub fn kv_len(&self) -> usize {
        self.batch_heads() * self.seq_kv as usize * self.head_dim as usize
    }

    /// Row i sees key j when `j <= i + causal_offset`; the last row is aligned with the last key.
    pub fn causal_offset(&self) -> i32 {
        self.seq_kv as i32 - self.seq_q as i32
    }

    /// How many keys row `row` may see.
    pub fn visible_keys(&self, row: usize) -> usize {
        if !self.causal {
            return self.seq_kv as usize;
        }
        let last = row as i64 + i64::from(self.causal_offset());
        (last + 1).clamp(0, i64::from(self.seq_kv)) as usize
    }

    /// (row, key) pairs that are computed, over the whole call.
    pub fn visible_pairs(&self) -> u64 {
        let per_head: u64 = (0..self.seq_q as usize).map(|row| self.visible_keys(row) as u64).sum();
        per_head * self.batch_heads() as u64
    }

    /// Floating-point operations of both products: 2 per multiply-add, masked pairs not counted.
    pub fn flops(&self) -> f64 {
        4.0 * self.visible_pairs() as f64 * f64::from(self.head_dim)
    }

    /// The softmax scale used everywhere: 1/sqrt(D), in the precision the kernels receive it.
    pub fn softmax_scale(&self) -> f32 {
        1.0 / (self.head_dim as f32).sqrt()
    }
}

impl FromStr for Shape {
    type Err = UnknownShape;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let (base, causal) = match name.strip_suffix("-causal") {
            Some(base) => (base, true),
            None => (name, false),
        };
        let row = NAMED.iter().find(|row| row.0 == base).ok_or_else(|| UnknownShape { name: name.to_owned() })?;
        Ok(Shape {
            name: name.to_owned(),
            batch: row.1,
            heads: row.2,
            seq_q: row.3,
            seq_kv: row.4,
            head_dim: row.5,
            causal,
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_shapes_match_the_design_table() {
        let mission: Shape = "mission".parse().unwrap();
        assert_eq!((mission.batch, mission.heads, mission.seq_q, mission.head_dim), (2, 8, 512, 64));
        assert_eq!(Shape::all_named().len(), 24);
        let wide: Shape = "wide-causal".parse().unwrap();
        assert!(wide.causal && wide.head_dim == 128);
    }

    #[test]
    fn unknown_shape_names_the_known_ones() {
        let error = "missoin".parse::<Shape>().unwrap_err().to_string();
        assert!(error.contains("`missoin`") && error.contains("mission-b1"), "{error}");
    }

    #[test]
    fn visible_keys_count_the_triangle() {
        let mut shape: Shape = "tiny-causal".parse().unwrap();
        assert_eq!(shape.visible_pairs(), 32 * 33 / 2);
        shape.seq_kv = 16; // 16 first rows see nothing
        assert_eq!(shape.visible_keys(15), 0);
        assert_eq!(shape.visible_keys(31), 16);
    }
}
