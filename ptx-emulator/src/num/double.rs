//! f64 arithmetic in any rounding mode, and its approximations.
//!
//! A finite number is a whole significand times a power of two; a result is rounded once, from an exact significand
//! or from one whose lost part is known to be smaller than its last bit.

use super::float::{Round, d, nan64, quiet64};

/// Fraction bits of an f64.
const FRACTION: i32 = 52;
/// Exponent of the last bit of a subnormal.
const LOWEST: i32 = -1074;
/// The NaN of an invalid operation.
const NAN: u64 = 0xfff8_0000_0000_0000;

/// `significand * 2^exponent` of a finite number.
fn apart(bits: u64) -> (bool, u128, i32) {
    let biased = (bits >> FRACTION & 0x7ff) as i32;
    let fraction = u128::from(bits & ((1 << FRACTION) - 1));
    let (significand, exponent) =
        if biased == 0 { (fraction, LOWEST) } else { (fraction | 1 << FRACTION, biased - 1075) };
    (bits >> 63 == 1, significand, exponent)
}

/// Rounds `significand * 2^exponent`, to which less than one unit is missing if `inexact`.
fn round(negative: bool, significand: u128, exponent: i32, inexact: bool, mode: Round) -> u64 {
    let sign = u64::from(negative) << 63;
    if significand == 0 && !inexact {
        return sign;
    }
    let length = 128 - significand.leading_zeros() as i32;
    // The last bit that an f64 of this size keeps.
    let last = (exponent + length - 1 - FRACTION).max(LOWEST);
    let shift = last - exponent;
    let (kept, lost, half) = match shift {
        ..=0 => (significand << -shift, inexact, false),
        1..=127 => {
            let rest = significand & ((1 << shift) - 1);
            let middle = 1u128 << (shift - 1);
            let half = rest == middle && !inexact;
            (significand >> shift, rest != 0 || inexact, half || rest >= middle)
        }
        _ => (0, true, false),
    };
    let tie = half
        && !inexact
        && shift <= 127
        && significand & ((1u128 << shift.clamp(1, 127)) - 1) == 1u128 << (shift.clamp(1, 127) - 1);
    let up = match mode {
        Round::Nearest => half && (!tie || kept & 1 == 1),
        Round::Zero => false,
        Round::Down => lost && negative,
        Round::Up => lost && !negative,
    };
    let kept = kept as u64 + u64::from(up);
    if kept == 0 {
        return sign;
    }
    let carried = kept >> (FRACTION + 1) != 0;
    let (kept, last) = if carried { (kept >> 1, last + 1) } else { (kept, last) };
    let biased = if kept >> FRACTION == 0 { 0 } else { last + 1075 };
    if biased >= 0x7ff {
        let to_infinity = match mode {
            Round::Nearest => true,
            Round::Zero => false,
            Round::Down => negative,
            Round::Up => !negative,
        };
        return sign | if to_infinity { f64::INFINITY.to_bits() } else { f64::MAX.to_bits() };
    }
    sign | (biased as u64) << FRACTION | kept & ((1 << FRACTION) - 1)
}

/// `a * b + c`, rounded once.
pub(crate) fn fma(a: u64, b: u64, c: u64, mode: Round) -> u64 {
    let ordinary = d(a).mul_add(d(b), d(c));
    if mode == Round::Nearest || ![a, b, c].iter().all(|&v| d(v).is_finite()) {
        return nan64([b, c, a], ordinary);
    }
    let (sign_a, part_a, exponent_a) = apart(a);
    let (sign_b, part_b, exponent_b) = apart(b);
    let (sign_c, part_c, exponent_c) = apart(c);
    let product = (sign_a != sign_b, part_a * part_b, exponent_a + exponent_b);
    if product.1 == 0 && part_c == 0 && product.0 != sign_c {
        return u64::from(mode == Round::Down) << 63;
    }
    let (negative, sum, exponent, inexact) = add(product, (sign_c, part_c, exponent_c));
    if sum == 0 && !inexact {
        let negative = if product.1 == 0 && part_c == 0 { sign_c } else { mode == Round::Down };
        return u64::from(negative) << 63;
    }
    round(negative, sum, exponent, inexact, mode)
}

/// Sum of two signed numbers of at most 106 bits; exact but for less than one unit if the flag says so.
fn add(a: (bool, u128, i32), b: (bool, u128, i32)) -> (bool, u128, i32, bool) {
    if a.1 == 0 {
        return (b.0, b.1, b.2, false);
    }
    if b.1 == 0 {
        return (a.0, a.1, a.2, false);
    }
    let top = |v: (bool, u128, i32)| v.2 + 128 - v.1.leading_zeros() as i32;
    let (large, small) = if top(a) >= top(b) { (a, b) } else { (b, a) };
    // Two bits are left free: for the carry, and for the unit that a cut difference borrows.
    let up = large.1.leading_zeros() as i32 - 2;
    let (mut sum, exponent) = (large.1 << up, large.2 - up);
    let shift = exponent - small.2;
    let (part, inexact) = match shift {
        ..=0 => (small.1 << -shift, false),
        1..=127 => (small.1 >> shift, small.1 & ((1 << shift) - 1) != 0),
        _ => (0, true),
    };
    if large.0 == small.0 {
        return (large.0, sum + part, exponent, inexact);
    }
    // What was cut makes the difference smaller: one unit less, and something left over.
    let below = part + u128::from(inexact);
    let negative = if below > sum { small.0 } else { large.0 };
    sum = sum.abs_diff(below);
    (negative, sum, exponent, inexact)
}

/// `a / b`, rounded once.
pub(crate) fn div(a: u64, b: u64, mode: Round) -> u64 {
    let ordinary = d(a) / d(b);
    if mode == Round::Nearest || !d(a).is_finite() || !d(b).is_finite() || d(a) == 0.0 || d(b) == 0.0 {
        return nan64([a, b], ordinary);
    }
    let (sign_a, part_a, exponent_a) = apart(a);
    let (sign_b, part_b, exponent_b) = apart(b);
    let up = part_a.leading_zeros() as i32;
    let (numerator, down) = (part_a << up, part_b.trailing_zeros() as i32);
    let divisor = part_b >> down;
    let exponent = exponent_a - up - exponent_b - down;
    round(sign_a != sign_b, numerator / divisor, exponent, !numerator.is_multiple_of(divisor), mode)
}

/// `sqrt(a)`, rounded once.
pub(crate) fn sqrt(a: u64, mode: Round) -> u64 {
    let ordinary = d(a).sqrt();
    if mode == Round::Nearest || !d(a).is_finite() || d(a) <= 0.0 {
        return nan64([a], ordinary);
    }
    let (_, part, exponent) = apart(a);
    // An even exponent, and as many bits as fit.
    let up = part.leading_zeros() as i32;
    let up = up - (exponent - up).rem_euclid(2);
    let square = part << up;
    let root = square.isqrt();
    round(false, root, (exponent - up) / 2, root * root != square, mode)
}

/// Flushes a subnormal to zero with its sign.
fn flush(bits: u64) -> u64 {
    if bits & 0x7ff0_0000_0000_0000 == 0 { bits & 1 << 63 } else { bits }
}

/// The upper word of a number, which is all that an approximation delivers.
fn upper(bits: u64) -> u64 {
    if d(bits).is_nan() { quiet64(bits) & !0xffff_ffff } else { bits & !0xffff_ffff }
}

/// `rcp.approx.ftz.f64`: the upper word of the reciprocal.
pub(crate) fn rcp_approx(a: u64) -> u64 {
    flush(upper((1.0 / d(flush(a))).to_bits()))
}

/// `rsqrt.approx.f64`; with `ftz` the upper word alone.
pub(crate) fn rsqrt_approx(a: u64, ftz: bool) -> u64 {
    let a = if ftz { flush(a) } else { a };
    let root = d(a).sqrt();
    let result = if root.is_nan() { if d(a).is_nan() { quiet64(a) } else { NAN } } else { (1.0 / root).to_bits() };
    if ftz { flush(upper(result)) } else { result }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODES: [Round; 4] = [Round::Nearest, Round::Zero, Round::Down, Round::Up];

    /// Numbers of every size, close to one another now and then.
    fn numbers(seed: u64) -> impl Iterator<Item = f64> {
        let mut state = seed;
        std::iter::from_fn(move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let bits = state ^ state >> 31;
            Some(match bits % 6 {
                0 => {
                    [0.0, -0.0, 1.0, -1.0, f64::MIN_POSITIVE, f64::MAX, f64::EPSILON, 5e-324][(bits >> 8) as usize % 8]
                }
                1 => ((bits >> 8) % 2000) as f64 - 1000.0,
                2 => f64::from_bits(bits & 0x800f_ffff_ffff_ffff),
                3 => f64::from_bits(bits & 0xbfff_ffff_ffff_ffff | 0x3ff0_0000_0000_0000),
                _ => f64::from_bits(bits),
            })
        })
        .filter(|x| x.is_finite())
    }

    /// The directed results enclose the one to nearest, are neighbours, and meet where it is exact.
    fn enclosed(nearest: f64, exact: bool, of: impl Fn(Round) -> u64, what: &str) {
        let [_, zero, down, up] = MODES.map(|mode| d(of(mode)));
        if exact {
            assert!([zero, down, up].iter().all(|v| *v == nearest), "{what}: {nearest:e}, {zero:e} {down:e} {up:e}");
            return;
        }
        assert!(down < up && down.next_up() == up, "{what}: {down:e} to {up:e}");
        assert!(nearest == down || nearest == up, "{what}: {nearest:e} is not {down:e} or {up:e}");
        assert_eq!(zero, if down < 0.0 { up } else { down }, "{what}: toward zero");
    }

    #[test]
    fn directed_sums_enclose_the_nearest() {
        let all: Vec<f64> = numbers(1).take(3000).collect();
        for pair in all.windows(2) {
            let (a, b) = (pair[0], pair[1]);
            let nearest = a + b;
            // Knuth's error term is exact unless something overflows.
            let back = nearest - a;
            let error = (a - (nearest - back)) + (b - back);
            if nearest.is_finite() && error.is_finite() && nearest.abs() < f64::MAX {
                let of = |mode| fma(a.to_bits(), 1f64.to_bits(), b.to_bits(), mode);
                enclosed(nearest, error == 0.0, of, &format!("{a:e} + {b:e}"));
            }
        }
    }

    #[test]
    fn directed_products_quotients_and_roots_enclose_the_nearest() {
        let all: Vec<f64> = numbers(2).take(3000).collect();
        for pair in all.windows(2) {
            let (a, b) = (pair[0], pair[1]);
            let nearest = a * b;
            // The error term of a product must not be subnormal to be exact.
            if nearest.abs() > 1e-200 && nearest.abs() < 1e300 {
                let error = a.mul_add(b, -nearest);
                let of = |mode| fma(a.to_bits(), b.to_bits(), (-0f64).to_bits(), mode);
                enclosed(nearest, error == 0.0, of, &format!("{a:e} * {b:e}"));
            }
            let nearest = a / b;
            if a.abs() > 1e-200 && b != 0.0 && nearest.abs() > 1e-300 && nearest.abs() < 1e300 {
                let rest = (-nearest).mul_add(b, a);
                enclosed(nearest, rest == 0.0, |mode| div(a.to_bits(), b.to_bits(), mode), &format!("{a:e} / {b:e}"));
            }
            let (a, nearest) = (a.abs(), a.abs().sqrt());
            if a > 1e-200 {
                let rest = (-nearest).mul_add(nearest, a);
                enclosed(nearest, rest == 0.0, |mode| sqrt(a.to_bits(), mode), &format!("sqrt {a:e}"));
            }
        }
    }

    #[test]
    fn zeros_and_overflows_follow_the_mode() {
        let (one, minus) = (1f64.to_bits(), (-1f64).to_bits());
        assert_eq!(fma(one, one, minus, Round::Down), 1 << 63);
        assert_eq!(fma(one, one, minus, Round::Up), 0);
        let max = f64::MAX.to_bits();
        assert_eq!(fma(max, 2f64.to_bits(), 0, Round::Zero), max);
        assert_eq!(fma(max, 2f64.to_bits(), 0, Round::Up), f64::INFINITY.to_bits());
        let tiny = 5e-324f64.to_bits();
        assert_eq!(fma(tiny, tiny, 0, Round::Up), tiny);
        assert_eq!(fma(tiny, tiny, 0, Round::Down), 0);
        assert_eq!(rcp_approx(3f64.to_bits()), (1f64 / 3.0).to_bits() & !0xffff_ffff);
        assert_eq!(rsqrt_approx((-1f64).to_bits(), false), NAN);
    }
}
