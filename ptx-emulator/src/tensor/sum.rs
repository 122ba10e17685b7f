//! Models of the sum `c + Σ a·b` of one tensor-core instruction.
//!
//! The exact models follow public bit-accurate studies: every product and the addend are aligned
//! to the largest exponent, cut (toward zero) to F fraction bits, summed exactly and cut to the
//! result. Those of Hopper's `mma.sync` and `wmma` are compared with an H200 bit for bit (`tests/golden.rs`); those of
//! Ampere and Ada were not compared with silicon by this crate.

use crate::machine::simd::{Level, dispatch};
use crate::num::float::Round;
use crate::num::small;

/// Precision of an aligned sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Aligned {
    /// Fraction bits kept while aligning.
    pub(crate) fraction: u32,
    /// Fraction bits of the f32 result.
    pub(crate) result: u32,
    /// Products summed at once; longer sums chain.
    pub(crate) chunk: usize,
    /// Whether the result is rounded to the nearest f16 instead, once, from the aligned sum.
    pub(crate) half: bool,
    /// The exponent that a number of the first and of the second factor has at least: a subnormal one that is not normalised
    /// has that of the smallest normal one.
    pub(crate) least: [i32; 2],
}

/// Every subnormal number is normalised.
pub(crate) const NORMALISED: [i32; 2] = [NOWHERE; 2];

/// Exponent of a zero: far below that of any number.
const NOWHERE: i32 = -1000;
/// The leading bit of every significand.
const LEADING: i32 = 23;

/// A finite number taken apart: `significand * 2^(lead - 23)`, so that the exponent of a product is the sum of exponents.
#[inline(always)]
fn apart(x: f32, least: i32) -> (i32, i32) {
    let bits = x.to_bits();
    let biased = (bits >> 23 & 0xff) as i32;
    let fraction = (bits & 0x7f_ffff) as i32;
    let up = fraction.leading_zeros() as i32 - 8;
    let (magnitude, lead) = match (biased, fraction) {
        (0, 0) => (0, NOWHERE),
        (0, _) => (fraction << up, -126 - up),
        _ => (fraction | 1 << LEADING, biased - 127),
    };
    // A zero stays out of the way.
    let below = if magnitude == 0 { 0 } else { (least - lead).clamp(0, LEADING) };
    let (magnitude, lead) = (magnitude >> below, lead + below);
    (if bits >> 31 == 1 { -magnitude } else { magnitude }, lead)
}

/// Numbers taken apart.
#[derive(Clone, Copy)]
struct Apart<const COUNT: usize> {
    significand: [i32; COUNT],
    lead: [i32; COUNT],
}

impl<const COUNT: usize> Apart<COUNT> {
    const ZERO: Self = Apart { significand: [0; COUNT], lead: [NOWHERE; COUNT] };

    #[inline(always)]
    fn of(values: &[f32; COUNT], least: i32) -> Self {
        let mut all = Self::ZERO;
        for (i, &value) in values.iter().enumerate() {
            (all.significand[i], all.lead[i]) = apart(value, least);
        }
        all
    }
}

/// Products of one row's factors with a line of the second factor each, and the addends, every one of them finite.
#[inline(always)]
fn chunk(a: &[(i32, i32)], b: &[Apart<N>], c: &[f32; N], model: Aligned) -> [f32; N] {
    let c = Apart::of(c, NOWHERE);
    let mut top = c.lead;
    for ((_, lead), line) in a.iter().zip(b) {
        for (top, own) in top.iter_mut().zip(&line.lead) {
            *top = (*top).max(lead + own);
        }
    }
    // One unit is 2^(top - fraction): a product, whose own is 2^(its lead - 46), is cut toward zero by a shift.
    let cut = |product: i64, below: i32| {
        let shift = (2 * LEADING - model.fraction as i32 + below).min(63);
        let sign = product >> 63;
        ((((product ^ sign) - sign) >> shift) ^ sign) - sign
    };
    let mut sum = [0i64; N];
    for n in 0..N {
        sum[n] = cut(i64::from(c.significand[n]) << LEADING, top[n] - c.lead[n]);
    }
    for ((significand, lead), line) in a.iter().zip(b) {
        for n in 0..N {
            let product = i64::from(*significand) * i64::from(line.significand[n]);
            sum[n] += cut(product, top[n] - lead - line.lead[n]);
        }
    }
    let mut out = [0.0; N];
    for n in 0..N {
        let unit = top[n] - model.fraction as i32;
        out[n] = match sum[n] {
            0 => 0.0,
            // At most 2^34 units: exact in f64.
            sum if model.half => nearest_half(sum as f64 * power_of_two(unit)),
            sum => truncate(sum, unit, model.result),
        };
    }
    out
}

/// 2^exponent, for what the exponents of two products' units may be.
#[inline(always)]
fn power_of_two(exponent: i32) -> f64 {
    f64::from_bits(((exponent + 1023) as u64) << 52)
}

/// The nearest f16, as f32.
fn nearest_half(x: f64) -> f32 {
    f32::from_bits(small::f16_to_f32(small::narrow(x, small::F16, Round::Nearest, false)))
}

/// `sum * 2^unit` cut toward zero to `fraction` bits; the sum is not zero.
#[inline(always)]
fn truncate(sum: i64, unit: i32, fraction: u32) -> f32 {
    let magnitude = sum.unsigned_abs();
    let top = 63 - magnitude.leading_zeros() as i32;
    let exponent = top + unit;
    // Below the normal range fewer bits are left.
    let kept = (fraction as i32).min(fraction as i32 + exponent + 126);
    let drop = (top - kept).clamp(0, 63);
    let value = ((magnitude >> drop) << drop) as f64 * power_of_two(unit);
    let value = if exponent > 127 { f64::INFINITY } else { value };
    (if sum < 0 { -value } else { value }) as f32
}

/// Infinities and NaN follow IEEE rules; the order of the sum does not matter for them. In f64, because a finite product
/// of bf16 factors must not overflow into an infinity of its own. `None` where there are none.
fn special(factors: impl Iterator<Item = (f32, f32)> + Clone, c: f32) -> Option<f32> {
    if c.is_finite() && factors.clone().all(|(x, y)| x.is_finite() && y.is_finite()) {
        return None;
    }
    let sum = factors.fold(f64::from(c), |sum, (x, y)| sum + f64::from(x) * f64::from(y));
    Some(if sum.is_nan() { f32::from_bits(0x7fff_ffff) } else { sum as f32 })
}

/// Rows and columns of one product.
pub(crate) const M: usize = 16;
/// Columns of one product.
pub(crate) const N: usize = 8;
/// Largest depth.
pub(crate) const K: usize = 32;

/// First factor, row by row.
pub(crate) type FactorA = [[f32; K]; M];
/// Second factor, k by k.
pub(crate) type FactorB = [[f32; N]; K];
/// Accumulator, row by row.
pub(crate) type Tile = [[f32; N]; M];

/// The fast model: a chain of fused multiply-adds in the order of k.
#[inline(always)]
fn chain(a: &FactorA, b: &FactorB, k: usize, tile: &mut Tile) {
    for (row, out) in a.iter().zip(tile.iter_mut()) {
        let mut sum = *out;
        for (x, line) in row[..k].iter().zip(&b[..k]) {
            for n in 0..N {
                sum[n] = x.mul_add(line[n], sum[n]);
            }
        }
        *out = sum;
    }
}

dispatch! {
    /// The fast model, compiled for `level`.
    pub(crate) fn fast(a: &FactorA, b: &FactorB, k: usize, tile: &mut Tile) = chain;
}

dispatch! {
    /// An aligned model for the whole tile, compiled for `level`.
    pub(crate) fn exact(a: &FactorA, b: &FactorB, k: usize, tile: &mut Tile, model: Aligned) = aligned;
}

#[inline(always)]
fn aligned(a: &FactorA, b: &FactorB, k: usize, tile: &mut Tile, model: Aligned) {
    let (lines, is_finite) = taken_apart(a, b, k, model.least[1]);
    for (row, out) in a.iter().zip(tile.iter_mut()) {
        let factors = row.map(|x| apart(x, model.least[0]));
        for first in (0..k).step_by(model.chunk) {
            let range = first..(first + model.chunk).min(k);
            let c = *out;
            *out = chunk(&factors[range.clone()], &lines[range.clone()], &c, model);
            if !is_finite || c.iter().any(|c| !c.is_finite()) {
                for (n, value) in out.iter_mut().enumerate() {
                    let pairs = range.clone().map(|i| (row[i], b[i][n]));
                    *value = special(pairs, c[n]).unwrap_or(*value);
                }
            }
        }
    }
}

/// The second factor taken apart, and whether both are finite.
#[inline(always)]
fn taken_apart(a: &FactorA, b: &FactorB, k: usize, least: i32) -> ([Apart<N>; K], bool) {
    let mut lines = [Apart::ZERO; K];
    let mut is_finite = a.iter().all(|row| row[..k].iter().all(|x| x.is_finite()));
    for (line, values) in lines.iter_mut().zip(&b[..k]) {
        *line = Apart::of(values, least);
        is_finite &= values.iter().all(|x| x.is_finite());
    }
    (lines, is_finite)
}

dispatch! {
    /// FP8 on Hopper's `mma.sync`, which has no such unit: both factors become f16, of each four neighbours in k the first
    /// two feed one product and the last two the next, the sum starts at zero, and the addend is added to it at the end.
    /// Compiled for `level`.
    pub(crate) fn hopper_fp8(a: &FactorA, b: &FactorB, k: usize, tile: &mut Tile, half: bool) = in_two_products;
}

#[inline(always)]
fn in_two_products(a: &FactorA, b: &FactorB, k: usize, tile: &mut Tile, half: bool) {
    let model = Aligned { fraction: 25, result: 23, chunk: k / 2, half, least: NORMALISED };
    // Where the i-th factor of the two products, one after the other, lies.
    let place = |i: usize| {
        let (product, i) = (i / (k / 2), i % (k / 2));
        4 * (i / 2) + 2 * product + i % 2
    };
    let (mut left, mut right): (FactorA, FactorB) = ([[0.0; K]; M], [[0.0; N]; K]);
    for i in 0..k {
        right[i] = b[place(i)];
        for (to, from) in left.iter_mut().zip(a) {
            to[i] = from[place(i)];
        }
    }
    let mut sums: Tile = [[0.0; N]; M];
    aligned(&left, &right, k, &mut sums, model);
    for (values, sums) in tile.iter_mut().zip(&sums) {
        for (value, sum) in values.iter_mut().zip(sums) {
            *value = if half { nearest_half(f64::from(*value) + f64::from(*sum)) } else { *value + sum };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADA8: Aligned = Aligned { fraction: 13, result: 13, chunk: 16, half: false, least: NORMALISED };
    const AMPERE: Aligned = Aligned { fraction: 24, result: 23, chunk: 8, half: false, least: NORMALISED };

    fn sum(pairs: &[(f32, f32)], c: f32, model: Aligned) -> f32 {
        let (mut a, mut b): (FactorA, FactorB) = ([[0.0; K]; M], [[0.0; N]; K]);
        for (i, &(x, y)) in pairs.iter().enumerate() {
            (a[M - 1][i], b[i][N - 1]) = (x, y);
        }
        let mut tile = [[c; N]; M];
        exact(Level::detect(), &a, &b, pairs.len(), &mut tile, model);
        tile[M - 1][N - 1]
    }

    #[test]
    fn terms_below_the_kept_bits_are_cut() {
        let tiny = 2f32.powi(-14);
        // Thirteen bits below the largest term are kept, and each term is cut on its own.
        assert_eq!(sum(&[(1.0, 1.0), (tiny, 1.0), (tiny, 1.0)], 0.0, ADA8), 1.0);
        assert_eq!(sum(&[(1.0, 1.0), (2.0 * tiny, 1.0)], 0.0, ADA8), 1.0 + 2.0 * tiny);
        assert_eq!(sum(&[(1.0, 1.0), (-tiny, 1.0)], 0.0, ADA8), 1.0, "cut toward zero, not down");
        assert_eq!(sum(&[(1.0, 1.0), (tiny, 1.0)], 0.0, AMPERE), 1.0 + tiny);
    }

    #[test]
    fn results_are_cut_toward_zero() {
        let ulp = 2f32.powi(-23);
        let almost = 0.75 * ulp;
        assert_eq!(sum(&[(1.0, 1.0), (almost, 1.0)], 0.0, AMPERE), 1.0);
        assert_eq!(sum(&[(-1.0, 1.0), (-almost, 1.0)], 0.0, AMPERE), -1.0);
        assert_eq!(sum(&[(0.5, ulp), (0.5, ulp)], 1.0, AMPERE), 1.0 + ulp, "24 bits while summing");
    }

    #[test]
    fn chunks_chain_through_the_result() {
        let ulp = 2f32.powi(-23);
        let mut pairs = vec![(1.0, 1.0)];
        pairs.extend([(0.0, 0.0); 7]);
        pairs.push((0.5, ulp));
        pairs.push((0.5, ulp));
        // Both halves of the last bit arrive in the second chunk and meet there.
        assert_eq!(sum(&pairs, 0.0, AMPERE), 1.0 + ulp);
    }

    /// Found on an H100: 392 as 7 * 2^14 / 4 times a subnormal 7 * 2^-9 has the exponent 14 - 6, not that of its value.
    #[test]
    fn a_subnormal_factor_that_is_not_normalised_raises_the_largest_exponent() {
        let wgmma = Aligned { least: [-14, -6], ..ADA8 };
        let (large, subnormal) = (7.0 * 2f32.powi(12), 7.0 * 2f32.powi(-9));
        let pairs = [(large, subnormal), (2f32.powi(-6), 1.0), (2f32.powi(-6), 1.0)];
        assert_eq!(sum(&pairs, 0.0, ADA8), 392.0 + 2f32.powi(-5));
        assert_eq!(sum(&pairs, 0.0, wgmma), 392.0);
        assert_eq!(sum(&[(0.0, large), (subnormal, 1.0)], 0.0, wgmma), subnormal, "zeroes have no exponent");
    }

    #[test]
    fn special_values_and_zero() {
        assert_eq!(sum(&[(0.0, 5.0)], 0.0, ADA8), 0.0);
        assert_eq!(sum(&[(f32::INFINITY, 1.0)], 1.0, AMPERE), f32::INFINITY);
        assert!(sum(&[(f32::INFINITY, 1.0), (f32::NEG_INFINITY, 1.0)], 0.0, AMPERE).is_nan());
        assert!(sum(&[(f32::NAN, 0.0)], 0.0, AMPERE).is_nan());
        let smallest = 2f32.powi(-24);
        assert_eq!(sum(&[(smallest, smallest)], 0.0, AMPERE), 2f32.powi(-48));
        assert_eq!(sum(&[(65504.0, 65504.0)], f32::MAX, AMPERE), f32::MAX);
    }

    /// One chunk in integers that hold every bit, term by term.
    fn plain(pairs: &[(f32, f32)], c: f32, model: Aligned) -> f32 {
        let product = |(x, y): ((i32, i32), (i32, i32))| (i128::from(x.0) * i128::from(y.0), x.1 + y.1);
        let mut terms: Vec<(i128, i32)> =
            pairs.iter().map(|&(x, y)| product((apart(x, NOWHERE), apart(y, NOWHERE)))).collect();
        terms.push(product((apart(c, NOWHERE), apart(1.0, NOWHERE))));
        let Some(top) = terms.iter().filter(|(significand, _)| *significand != 0).map(|(_, lead)| *lead).max() else {
            return 0.0;
        };
        // In units of 2^(top - fraction).
        let cut = |(significand, lead): &(i128, i32)| {
            let units = significand.abs() >> (46 - model.fraction as i32 + top - lead).min(127);
            units * significand.signum()
        };
        let sum: i128 = terms.iter().map(cut).sum();
        let exact = sum as f64 * 2f64.powi(top - model.fraction as i32);
        if model.half {
            return nearest_half(exact);
        }
        // Toward zero among numbers of `result` fraction bits, of which there are fewer below 2^-126.
        let unit = 2f64.powi((exact.abs().log2().floor() as i32).max(-126) - model.result as i32);
        let value = (exact / unit).trunc() * unit;
        if value.abs() >= 2f64.powi(128) { f32::INFINITY.copysign(value as f32) } else { value as f32 + 0.0 }
    }

    #[test]
    fn every_level_sums_as_plain_integers_do() {
        let mut state = 1u64;
        let mut next = |below: u32| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as u32 % below
        };
        // Eleven bits at any exponent of a bf16 or f16, subnormals among them, and many zeros.
        let mut draw = |exponents: (i32, i32)| {
            let significand = (next(1 << 11) as i32 - (1 << 10)) * i32::from(next(8) > 0);
            let span = (exponents.1 - exponents.0) as u32;
            (f64::from(significand) * 2f64.powi(exponents.0 + next(span) as i32)) as f32
        };
        let models = [ADA8, AMPERE, Aligned { fraction: 25, result: 23, chunk: 16, ..ADA8 }];
        let half = Aligned { fraction: 25, result: 23, chunk: 16, half: true, ..ADA8 };
        for (round, model) in (0..60).flat_map(|i| models.map(|m| (i, m)).into_iter().chain([(i, half)])) {
            let exponents = if round % 3 == 0 { (-140, 100) } else { (-14, 4) };
            let exponents = if model.half { (-14, -6) } else { exponents };
            let a: FactorA = std::array::from_fn(|_| std::array::from_fn(|_| draw(exponents)));
            let b: FactorB = std::array::from_fn(|_| std::array::from_fn(|_| draw((-14, 4))));
            let start: Tile = std::array::from_fn(|_| std::array::from_fn(|_| draw(exponents)));
            for level in Level::all() {
                let mut tile = start;
                exact(level, &a, &b, 16, &mut tile, model);
                for (m, n) in (0..M).flat_map(|m| (0..N).map(move |n| (m, n))) {
                    let pairs: Vec<(f32, f32)> = (0..16).map(|k| (a[m][k], b[k][n])).collect();
                    let wanted = pairs.chunks(model.chunk).fold(start[m][n], |c, pairs| plain(pairs, c, model));
                    assert_eq!(tile[m][n].to_bits(), wanted.to_bits(), "{model:?} {} {wanted}", tile[m][n]);
                }
            }
        }
    }

    #[test]
    fn the_instruction_set_does_not_change_results() {
        let value = |i: usize| ((i * 2_654_435_761) % 2001) as f32 / 77.0 - 13.0;
        let a = std::array::from_fn(|m| std::array::from_fn(|k| value(m * K + k)));
        let b = std::array::from_fn(|k| std::array::from_fn(|n| value(k * N + n + 7)));
        let mut base = [[0.5; N]; M];
        let mut best = base;
        fast(Level::base(), &a, &b, 16, &mut base);
        fast(Level::detect(), &a, &b, 16, &mut best);
        assert_eq!(base.map(|r| r.map(f32::to_bits)), best.map(|r| r.map(f32::to_bits)));
    }
}
