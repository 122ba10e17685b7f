//! Models of the sum `c + Σ a·b` of one tensor-core instruction.
//!
//! The exact models follow public bit-accurate studies: every product and the addend are aligned
//! to the largest exponent, cut (toward zero) to F fraction bits, summed exactly and cut to the
//! result. Those of Hopper's `mma.sync` and `wmma` are compared with an H200 bit for bit (`tests/golden.rs`); those of
//! Ampere and Ada were not compared with silicon by this crate.

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
}

/// A nonzero finite number as `significand * 2^exponent` with 24 significant bits at most.
fn split(x: f32) -> (i64, i32) {
    let bits = x.to_bits();
    let biased = (bits >> 23 & 0xff) as i32;
    let fraction = i64::from(bits & 0x7f_ffff);
    let (significand, exponent) = if biased == 0 { (fraction, -149) } else { (fraction | 1 << 23, biased - 150) };
    (if bits >> 31 == 1 { -significand } else { significand }, exponent)
}

/// Exponent of the leading bit of a number that is not zero, as the hardware sees it: subnormal
/// f16 operands are normalised, so the product exponent is the sum of true exponents.
fn leading(x: f32) -> i32 {
    let (significand, exponent) = split(x);
    exponent + 63 - significand.unsigned_abs().leading_zeros() as i32
}

/// One chunk of an aligned sum.
fn chunk(a: &[f32], b: &[f32], c: f32, model: Aligned) -> f32 {
    let special = |x: f32| !x.is_finite();
    if special(c) || a.iter().chain(b).any(|&x| special(x)) {
        // Infinities and NaN follow IEEE rules; the order of the sum does not matter for them. In f64, because a finite
        // product of bf16 factors must not overflow into an infinity of its own.
        let sum = a.iter().zip(b).fold(f64::from(c), |sum, (x, y)| sum + f64::from(*x) * f64::from(*y));
        return if sum.is_nan() { f32::from_bits(0x7fff_ffff) } else { sum as f32 };
    }
    let product_exponent = |x: f32, y: f32| (x != 0.0 && y != 0.0).then(|| leading(x) + leading(y));
    let products = a.iter().zip(b).filter_map(|(&x, &y)| product_exponent(x, y));
    let own = (c != 0.0).then(|| leading(c));
    let Some(top) = products.chain(own).max() else {
        return c + 0.0;
    };
    // One unit is 2^(top - fraction).
    let unit = top - model.fraction as i32;
    let cut = |significand: i128, exponent: i32| {
        let shift = exponent - unit;
        if shift >= 0 {
            significand << shift.min(100)
        } else if shift <= -127 {
            0
        } else {
            (significand.abs() >> -shift) * significand.signum()
        }
    };
    let mut sum = 0i128;
    for (&x, &y) in a.iter().zip(b) {
        let ((sx, ex), (sy, ey)) = (split(x), split(y));
        sum += cut(i128::from(sx) * i128::from(sy), ex + ey);
    }
    let (sc, ec) = split(c);
    sum += cut(i128::from(sc), ec);
    if model.half {
        // At most 2^31 units: exact in f64.
        return nearest_half(sum as f64 * 2f64.powi(unit));
    }
    truncate(sum, unit, model.result)
}

/// The nearest f16, as f32.
fn nearest_half(x: f64) -> f32 {
    f32::from_bits(small::f16_to_f32(small::narrow(x, small::F16, Round::Nearest, false)))
}

/// `sum * 2^unit` cut toward zero to `fraction` bits.
fn truncate(sum: i128, unit: i32, fraction: u32) -> f32 {
    if sum == 0 {
        return 0.0;
    }
    let magnitude = sum.unsigned_abs();
    let top = 127 - magnitude.leading_zeros() as i32;
    let mut exponent = top + unit;
    // Below the normal range fewer bits are left.
    let kept = (fraction as i32).min(fraction as i32 + exponent + 126);
    let drop = top - kept;
    let significand = if drop > 0 { (magnitude >> drop.min(127)) << drop.min(127) } else { magnitude };
    if significand == 0 {
        return 0.0;
    }
    exponent = exponent.min(128);
    let value = if exponent > 127 { f64::INFINITY } else { significand as f64 * 2f64.powi(unit) };
    (if sum < 0 { -value } else { value }) as f32
}

/// `c + Σ a·b` in an aligned model.
pub(crate) fn aligned(a: &[f32], b: &[f32], c: f32, model: Aligned) -> f32 {
    a.chunks(model.chunk).zip(b.chunks(model.chunk)).fold(c, |sum, (a, b)| chunk(a, b, sum, model))
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

use crate::exec::simd::Level;

crate::exec::simd::dispatch! {
    /// The fast model, compiled for `level`.
    pub(crate) fn fast(a: &FactorA, b: &FactorB, k: usize, tile: &mut Tile) = chain;
}

/// An aligned model for the whole tile.
pub(crate) fn exact(a: &FactorA, b: &FactorB, k: usize, tile: &mut Tile, model: Aligned) {
    let mut columns = [[0f32; K]; N];
    for (n, column) in columns.iter_mut().enumerate() {
        for (i, value) in column.iter_mut().enumerate().take(k) {
            *value = b[i][n];
        }
    }
    for (row, out) in a.iter().zip(tile.iter_mut()) {
        for (column, value) in columns.iter().zip(out.iter_mut()) {
            *value = aligned(&row[..k], &column[..k], *value, model);
        }
    }
}

/// FP8 on Hopper's `mma.sync`, which has no such unit: both factors become f16, of each four neighbours in k the first
/// two feed one product and the last two the next, the sum starts at zero, and the addend is added to it at the end.
pub(crate) fn hopper_fp8(a: &FactorA, b: &FactorB, k: usize, tile: &mut Tile, half: bool) {
    let model = Aligned { fraction: 25, result: 23, chunk: K, half };
    for (row, out) in a.iter().zip(tile.iter_mut()) {
        for (n, value) in out.iter_mut().enumerate() {
            let mut sum = 0.0;
            for pair in [0, 2] {
                let order = (0..k).filter(|i| i & 2 == pair);
                let (left, right): (Vec<f32>, Vec<f32>) = order.map(|i| (row[i], b[i][n])).unzip();
                sum = chunk(&left, &right, sum, model);
            }
            *value = if half { nearest_half(f64::from(*value) + f64::from(sum)) } else { *value + sum };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADA8: Aligned = Aligned { fraction: 13, result: 13, chunk: 16, half: false };
    const AMPERE: Aligned = Aligned { fraction: 24, result: 23, chunk: 8, half: false };

    fn sum(pairs: &[(f32, f32)], c: f32, model: Aligned) -> f32 {
        let (a, b): (Vec<f32>, Vec<f32>) = pairs.iter().copied().unzip();
        aligned(&a, &b, c, model)
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
}
