//! The operator that comes with the project: softmax(Q K^T * scale) V. Its axes, the shapes that have names, the counts
//! that follow from sizes, and what its failures usually mean. Leaves to others: what data fills the tensors.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::key::BadKey;

use super::{Cost, Distribution, Problem, Shape, Unit};

/// Axes of a shape, in the order in which sizes are written: `2x8x1000x64` is B, H, S and D.
const AXES: [&str; 5] = ["B", "H", "S_q", "S_kv", "D"];
/// The axis that is 1 where row i sees only keys up to its own.
const CAUSAL: &str = "causal";
/// The axis of a softmax scale other than 1/sqrt(D), in millionths; without it the scale is that.
const SCALE: &str = "scale_millionths";
/// What stands before such a scale in a name, where it is written out: `1x1x17x67x64-scale0.05`.
const SCALED: &str = "-scale";
/// What a name ends in where that axis is 1.
pub const MASKED: &str = "-causal";
/// A small shape with a tail and a mask.
pub const RAGGED_MASKED: &str = "ragged-causal";
/// Small shapes with every kind of edge, for whoever names none.
pub const EDGES: [&str; 4] = ["small", "ragged", "small-causal", RAGGED_MASKED];
/// Small shapes of what the shapes with names have not: one query row, more than 16 heads, fewer keys than a tile has, one to
/// four keys more or fewer than whole tiles, more than 64 tiles of 64 keys, rows that see no key, another softmax scale.
pub const ODD: [&str; 8] = [
    "1x17x1x33x64",
    "1x1x33x31x64",
    "1x1x40x2x64-causal",
    "1x1x3x61x128",
    "1x1x5x30x64",
    "1x1x2x60x64-causal",
    "1x1x17x67x64-scale0.05",
    "1x1x16x4164x64",
];

/// The sizes of one attention call. Tensors are `[batch, heads, seq, head_dim]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
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
    /// The softmax scale in millionths, where it is not 1/sqrt(D).
    pub scale_millionths: Option<u32>,
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
#[error("unknown shape `{name}`: use one of {}, or sizes like 2x8x1000x64; each also with `-causal`", known_names())]
pub struct UnknownShape {
    name: String,
}

fn known_names() -> String {
    NAMED.iter().map(|row| row.0).collect::<Vec<_>>().join(", ")
}

/// Every named shape, plain and causal, in the order of DESIGN's table.
pub fn all_named() -> Vec<Shape> {
    ["", MASKED]
        .iter()
        .flat_map(|suffix| NAMED.iter().map(move |row| format!("{}{suffix}", row.0)))
        .filter_map(|name| name.parse().ok())
        .collect()
}

/// Every named shape and one more with D = 128 that is small; next to each is its causal twin, which has the same inputs.
pub fn recorded() -> Vec<Shape> {
    let d128 =
        Sizes { batch: 1, heads: 2, seq_q: 96, seq_kv: 96, head_dim: 128, causal: false, scale_millionths: None };
    let plain = NAMED.iter().filter_map(|row| row.0.parse().ok()).chain([d128.named("d128")]);
    let twins = plain.flat_map(|shape: Shape| {
        let causal = Sizes { causal: true, ..Sizes::of(&shape) }.named(&format!("{}{MASKED}", shape.name));
        [shape, causal]
    });
    twins.collect()
}

impl Sizes {
    /// What decides how a call is launched: B * H, query rows, keys and D, and whether rows see only keys up to their own.
    pub fn of_a_call(&self) -> ([u32; 4], bool) {
        ([self.batch * self.heads, self.seq_q, self.seq_kv, self.head_dim], self.causal)
    }

    /// Those of a shape. An axis that it lacks counts as 0: a shape of another operator has no elements here.
    pub fn of(shape: &Shape) -> Sizes {
        let given = |axis: &str| shape.axes.get(axis).and_then(|size| u32::try_from(*size).ok());
        let size = |axis: &str| given(axis).unwrap_or(0);
        let [batch, heads, seq_q, seq_kv, head_dim] = AXES.map(size);
        let (causal, scale_millionths) = (size(CAUSAL) == 1, given(SCALE));
        Sizes { batch, heads, seq_q, seq_kv, head_dim, causal, scale_millionths }
    }

    /// The shape of these sizes.
    pub fn named(&self, name: &str) -> Shape {
        let sizes = [self.batch, self.heads, self.seq_q, self.seq_kv, self.head_dim];
        let scale = self.scale_millionths.map(|scale| (SCALE, scale));
        let axes = AXES.into_iter().zip(sizes).chain([(CAUSAL, u32::from(self.causal))]).chain(scale);
        Shape { name: name.to_owned(), axes: axes.map(|(axis, size)| (axis.to_owned(), i64::from(size))).collect() }
    }

    /// Extents of the output, outermost first.
    pub fn output(&self) -> [u64; 4] {
        [self.batch, self.heads, self.seq_q, self.head_dim].map(u64::from)
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

    /// (row, key) pairs, masked ones too.
    pub fn scores(&self) -> u64 {
        self.batch_heads() as u64 * u64::from(self.seq_q) * u64::from(self.seq_kv)
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

    /// FP8 Q, K, V and the FP16 output, each once, and both products.
    pub fn cost(&self) -> Cost {
        let bytes = (self.q_len() + 2 * self.kv_len() + 2 * self.q_len()) as f64;
        Cost { flops: self.flops(), bytes, unit: Unit::F8Tensor }
    }

    /// `B 2, H 8, S 512, D 64, causal`; S is `45/173` where queries and keys differ in number.
    pub fn by_name(&self) -> String {
        let seq =
            if self.seq_q == self.seq_kv { self.seq_q.to_string() } else { format!("{}/{}", self.seq_q, self.seq_kv) };
        let causal = if self.causal { ", causal" } else { "" };
        let scale = self.scale_millionths.map_or(String::new(), |_| format!(", scale {}", self.softmax_scale()));
        format!("B {}, H {}, S {seq}, D {}{causal}{scale}", self.batch, self.heads, self.head_dim)
    }

    /// `2 x 8 x 512 x 64 causal`.
    pub fn as_product(&self) -> String {
        let causal = if self.causal { " causal" } else { "" };
        format!("{} x {} x {} x {}{causal}", self.batch, self.heads, self.seq_q, self.head_dim)
    }

    /// The softmax scale in the precision in which kernels receive it: 1/sqrt(D), if the shape does not say another.
    pub fn softmax_scale(&self) -> f32 {
        let usual = || 1.0 / (self.head_dim as f32).sqrt();
        self.scale_millionths.map_or_else(usual, |scale| (f64::from(scale) / 1e6) as f32)
    }
}

impl FromStr for Shape {
    type Err = UnknownShape;

    /// A name such as `mission-causal`, or sizes such as `2x8x1000x64-causal` or `2x8x1000x64-scale0.05`.
    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let unknown = || UnknownShape { name: name.to_owned() };
        let (base, causal) = match name.strip_suffix(MASKED) {
            Some(base) => (base, true),
            None => (name, false),
        };
        let (base, scale_millionths) = match base.split_once(SCALED) {
            Some((base, scale)) => (base, Some(millionths(scale).ok_or_else(unknown)?)),
            None => (base, None),
        };
        let known = NAMED.iter().find(|row| row.0 == base).map(|row| [row.1, row.2, row.3, row.4, row.5]);
        let [batch, heads, seq_q, seq_kv, head_dim] = known.or_else(|| written(base)).ok_or_else(unknown)?;
        Ok(Sizes { batch, heads, seq_q, seq_kv, head_dim, causal, scale_millionths }.named(name))
    }
}

/// S for both lengths, and no mask where none is said.
pub(super) fn completed(mut shape: Shape) -> Shape {
    if let Some(seq) = shape.axes.remove("S") {
        for axis in ["S_q", "S_kv"] {
            shape.axes.entry(axis.to_owned()).or_insert(seq);
        }
    }
    shape.axes.entry(CAUSAL.to_owned()).or_insert(0);
    shape
}

/// Every axis has a size that kernels can count.
pub(super) fn check(shape: &Shape) -> Result<(), BadKey> {
    let key = format!("shapes.{}", shape.name);
    let shape = completed(shape.clone());
    for axis in AXES {
        match shape.axes.get(axis) {
            Some(size) if (1..=i64::from(u32::MAX)).contains(size) => {}
            Some(size) => return BadKey::refuse(key, format!("{axis} is {size}, and must be a positive count")),
            None => return BadKey::refuse(key, format!("gives no {axis}: give B, H, S (or S_q and S_kv) and D")),
        }
    }
    let known = |axis: &str| [CAUSAL, SCALE].contains(&axis) || AXES.contains(&axis);
    if let Some(other) = shape.axes.keys().find(|axis| !known(axis)) {
        let axes = format!("B, H, S, S_q, S_kv, D, {CAUSAL}, {SCALE}");
        return BadKey::refuse(key, format!("`{other}` is no axis of attention: use {axes}"));
    }
    if shape.axes.get(SCALE).is_some_and(|scale| !(1..=MOST_SCALE).contains(scale)) {
        return BadKey::refuse(key, format!("{SCALE} is from 1 to {MOST_SCALE}"));
    }
    match shape.axes.get(CAUSAL) {
        Some(0 | 1) => Ok(()),
        _ => BadKey::refuse(key, format!("{CAUSAL} is 0 or 1")),
    }
}

/// The largest softmax scale, in millionths: 1000.
const MOST_SCALE: i64 = 1_000_000_000;

/// A scale as it is written, such as `0.05`, in millionths.
fn millionths(scale: &str) -> Option<u32> {
    let scale = (scale.parse::<f64>().ok()? * 1e6).round();
    (1.0..=MOST_SCALE as f64).contains(&scale).then_some(scale as u32)
}

/// `BxHxSxD`, or `BxHxS_qxS_kvxD`.
fn written(sizes: &str) -> Option<[u32; 5]> {
    let sizes: Vec<u32> =
        sizes.split('x').map(|size| size.parse().ok().filter(|size| *size > 0)).collect::<Option<_>>()?;
    match sizes[..] {
        [batch, heads, seq, head_dim] => Some([batch, heads, seq, seq, head_dim]),
        [batch, heads, seq_q, seq_kv, head_dim] => Some([batch, heads, seq_q, seq_kv, head_dim]),
        _ => None,
    }
}
/// Consecutive query rows of one head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rows {
    /// Batch times heads, flattened.
    pub head: u32,
    /// First row.
    pub first: u32,
    /// How many.
    pub count: u32,
}

impl Rows {
    /// Those of a query tile, given as its number within the head and the head; the last tile has what is left.
    pub fn of_tile([tile, head]: [u32; 2], tile_q: u32, sizes: &Sizes) -> Rows {
        let first = tile * tile_q;
        Rows { head, first, count: tile_q.min(sizes.seq_q - first) }
    }

    /// Their elements in an output of these sizes.
    pub fn elements(&self, sizes: &Sizes) -> std::ops::Range<usize> {
        let first = self.head as usize * sizes.seq_q as usize + self.first as usize;
        first * sizes.head_dim as usize..(first + self.count as usize) * sizes.head_dim as usize
    }
}

/// A causal problem has the inputs of its plain twin.
pub(super) fn inputs_key(problem: &Problem) -> String {
    let shape = &problem.shape;
    let plain = Sizes { causal: false, ..Sizes::of(shape) }.named(shape.name.trim_end_matches(MASKED));
    Problem { shape: plain, ..problem.clone() }.id()
}

/// What all failing problems have and not every other, and what usually causes that.
pub(super) fn failing_pattern(bad: &[&Problem], good: &[&Problem]) -> Option<&'static str> {
    type Trait = fn(&Problem, Sizes) -> bool;
    let patterns: [(Trait, &str); 5] = [
        (|_, s| s.head_dim == 128, "only D=128: a stride, a fragment loop or a shared-memory size that assumes D=64"),
        (|_, s| s.seq_q % 16 != 0, "only ragged: the tail is not masked, or rows past the end are written"),
        (|_, s| s.causal, "only causal: the mask, or tiles skipped beyond the diagonal"),
        (|_, s| s.seq_kv >= 2048, "only long S: the rescale of O or l, or a stage that is reused too early"),
        (|p, _| p.distribution != Distribution::Normal, "only unusual inputs: the running maximum, or a scale of zero"),
    ];
    for (has, words) in patterns {
        let has = |problem: &&Problem| has(problem, Sizes::of(&problem.shape));
        if bad.iter().all(has) && good.iter().any(|problem| !has(problem)) {
            return Some(words);
        }
    }
    Some(match bad.iter().any(|problem| problem.distribution == Distribution::Permutation) {
        true => "most shapes, permutation inputs too: rows, keys or columns of an operand stand in each other's place",
        false => "most shapes: the products, the scales or the softmax itself",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(name: &str) -> Sizes {
        Sizes::of(&name.parse().unwrap())
    }

    #[test]
    fn named_shapes_match_the_design_table() {
        let mission = sizes("mission");
        assert_eq!((mission.batch, mission.heads, mission.seq_q, mission.head_dim), (2, 8, 512, 64));
        assert_eq!(all_named().len(), 24);
        let wide = sizes("wide-causal");
        assert!(wide.causal && wide.head_dim == 128);
    }

    #[test]
    fn sizes_may_be_written_out() {
        assert_eq!(sizes("2x8x1000x64-causal"), Sizes { causal: true, seq_q: 1000, seq_kv: 1000, ..sizes("mission") });
        assert_eq!(sizes("1x3x45x173x64"), sizes("cross"));
        let scaled = sizes("1x1x17x67x64-scale0.05-causal");
        assert_eq!((scaled.softmax_scale(), scaled.causal, sizes("tiny").softmax_scale()), (0.05, true, 0.125));
        assert_eq!(scaled.by_name(), "B 1, H 1, S 17/67, D 64, causal, scale 0.05");
        let axes = sizes("tiny").named("tiny").axes;
        assert!(!axes.contains_key(SCALE), "shapes of older runs are those of today");
        for wrong in ["1x1x8x64-scale", "1x1x8x64-scale0", "1x1x8x64-scaleNaN", "1x1x8x64-scale-1", "tiny-scale1e9"] {
            assert!(wrong.parse::<Shape>().is_err(), "{wrong}");
        }
        for wrong in ["2x8x1000", "2x8x0x64", "2x8x-1x64", "axbxcxd", "", "2x8x1000x64x5x6"] {
            assert!(wrong.parse::<Shape>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn odd_shapes_are_small_and_have_what_the_others_lack() {
        let all: Vec<Sizes> = ODD.into_iter().map(sizes).collect();
        let any = |has: fn(&Sizes) -> bool| all.iter().any(has);
        let remainders: Vec<u32> = all.iter().map(|s| s.seq_kv % 32).collect();
        assert!([1, 2, 3, 4, 28, 29, 30, 31].iter().all(|n| remainders.contains(n)), "{remainders:?}");
        assert!(any(|s| s.seq_kv < 32) && any(|s| s.seq_q == 1) && any(|s| s.batch_heads() > 16));
        assert!(any(|s| s.seq_kv > 64 * 64) && any(|s| s.scale_millionths.is_some()));
        assert!(any(|s| s.causal && s.visible_keys(0) == 0) && any(|s| s.head_dim == 128));
        assert!(all.iter().all(|s| s.scores() < 100_000), "seconds on the emulator");
    }

    #[test]
    fn a_shape_of_another_operator_has_no_elements() {
        let shape = Shape { name: "s".into(), axes: [("rows".to_owned(), 7)].into() };
        assert_eq!(Sizes::of(&shape).q_len(), 0);
    }

    #[test]
    fn unknown_shape_names_the_known_ones() {
        let error = "missoin".parse::<Shape>().unwrap_err().to_string();
        assert!(error.contains("`missoin`") && error.contains("mission-b1"), "{error}");
    }

    #[test]
    fn the_last_tile_has_the_rows_that_are_left() {
        let sizes = sizes("ragged");
        let rows = Rows::of_tile([2, 1], 32, &sizes);
        assert_eq!(rows, Rows { head: 1, first: 64, count: 13 });
        assert_eq!(rows.elements(&sizes), (77 + 64) * 64..2 * 77 * 64);
    }

    #[test]
    fn visible_keys_count_the_triangle() {
        let mut sizes = sizes("tiny-causal");
        assert_eq!(sizes.visible_pairs(), 32 * 33 / 2);
        sizes.seq_kv = 16; // 16 first rows see nothing
        assert_eq!(sizes.visible_keys(15), 0);
        assert_eq!(sizes.visible_keys(31), 16);
    }
}
