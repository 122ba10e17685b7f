//! f32 and f64 arithmetic on bits: flushing, NaN rules, directed rounding and approximations.

/// Rounding mode of an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Round {
    Nearest,
    Zero,
    Down,
    Up,
}

impl Round {
    /// The mode behind the small integer that instructions carry.
    #[inline(always)]
    pub(crate) fn from_code(code: u16) -> Round {
        match code & 3 {
            0 => Round::Nearest,
            1 => Round::Zero,
            2 => Round::Down,
            _ => Round::Up,
        }
    }

    /// Inverse of [`Round::from_code`].
    pub(crate) fn code(self) -> u16 {
        match self {
            Round::Nearest => 0,
            Round::Zero => 1,
            Round::Down => 2,
            Round::Up => 3,
        }
    }
}

/// The NaN that f32 instructions produce.
const NAN32: u32 = 0x7fff_ffff;

/// Bits as a float.
#[inline(always)]
pub(crate) fn f(bits: u32) -> f32 {
    f32::from_bits(bits)
}

/// Bits as a double.
#[inline(always)]
pub(crate) fn d(bits: u64) -> f64 {
    f64::from_bits(bits)
}

/// Replaces any NaN by the one the hardware generates.
#[inline(always)]
pub(crate) fn canon(x: f32) -> u32 {
    if x.is_nan() { NAN32 } else { x.to_bits() }
}

/// Flushes a subnormal to zero with its sign.
#[inline(always)]
pub(crate) fn ftz(bits: u32) -> u32 {
    if bits & 0x7f80_0000 == 0 { bits & 0x8000_0000 } else { bits }
}

/// As [`sat`], for f64.
#[inline(always)]
pub(crate) fn sat64(bits: u64) -> u64 {
    let x = d(bits);
    if x > 1.0 {
        1f64.to_bits()
    } else if x > 0.0 {
        bits
    } else {
        0
    }
}

/// Clamps to [0, 1]; NaN gives +0.
#[inline(always)]
pub(crate) fn sat(bits: u32) -> u32 {
    let x = f(bits);
    if x > 1.0 {
        0x3f80_0000
    } else if x > 0.0 {
        bits
    } else {
        0
    }
}

/// Minimum or maximum of f32: a number beats NaN, and -0 is below +0.
#[inline(always)]
pub(crate) fn min_max(a: u32, b: u32, max: bool) -> u32 {
    let key = |v: u32| {
        let v = v as i32;
        v ^ (((v >> 31) as u32) >> 1) as i32
    };
    let pick = if (key(a) > key(b)) == max { a } else { b };
    let a_nan = a & 0x7fff_ffff > 0x7f80_0000;
    let b_nan = b & 0x7fff_ffff > 0x7f80_0000;
    let number = if a_nan { b } else { pick };
    let number = if b_nan { a } else { number };
    if a_nan && b_nan { NAN32 } else { number }
}

/// [`min_max`] where any NaN gives NaN.
#[inline(always)]
pub(crate) fn min_max_nan(a: u32, b: u32, max: bool) -> u32 {
    if f(a).is_nan() || f(b).is_nan() { NAN32 } else { min_max(a, b, max) }
}

/// Minimum or maximum of f64 with the same rules.
#[inline(always)]
pub(crate) fn min_max64(a: u64, b: u64, max: bool) -> u64 {
    let key = |v: u64| {
        let v = v as i64;
        v ^ (((v >> 63) as u64) >> 1) as i64
    };
    let pick = if (key(a) > key(b)) == max { a } else { b };
    match (d(a).is_nan(), d(b).is_nan()) {
        (true, true) => quiet64(b),
        (true, false) => b,
        (false, true) => a,
        (false, false) => pick,
    }
}

/// A NaN of f64 made quiet, with sign and payload; everything else as it is.
#[inline(always)]
pub(crate) fn quiet64(bits: u64) -> u64 {
    if d(bits).is_nan() { bits | 1 << 51 } else { bits }
}

/// A result of f64 arithmetic as bits: of `operands` that are NaN the first, made quiet, else what was computed. The
/// order is the instruction's: an H100 takes the second operand before the first, in `fma` the third before the first,
/// and only in a division the first. What the host takes depends on its instruction set and on its compiler's order.
#[inline(always)]
pub(crate) fn nan64<const N: usize>(operands: [u64; N], result: f64) -> u64 {
    /// The NaN of an invalid operation.
    const INVALID: u64 = 0xfff8_0000_0000_0000;
    let own = if result.is_nan() { INVALID } else { result.to_bits() };
    operands.iter().rev().fold(own, |out, &v| if d(v).is_nan() { quiet64(v) } else { out })
}

/// An f64 in f32, rounded once; a NaN keeps its sign and the top of its payload, as no other conversion does.
pub(crate) fn f64_to_f32(bits: u64, round: Round) -> u32 {
    if d(bits).is_nan() {
        return (bits >> 32) as u32 & 0x8000_0000 | 0x7fc0_0000 | (bits >> 29) as u32 & 0x7f_ffff;
    }
    narrow32(d(bits), 0.0, round).to_bits()
}

/// Comparison class: 1 less, 2 equal, 4 greater, 8 unordered.
#[inline(always)]
pub(crate) fn order<T: PartialOrd>(a: T, b: T) -> u32 {
    let (less, equal, greater) = (u32::from(a < b), u32::from(a == b), u32::from(a > b));
    let ordered = less | equal << 1 | greater << 2;
    if ordered == 0 { 8 } else { ordered }
}

/// Rounds an f64 to f32 in the given mode. `exact_error` is the sign of (true value - x).
pub(crate) fn narrow32(x: f64, exact_error: f64, round: Round) -> f32 {
    let nearest = x as f32;
    if !x.is_finite() || x.is_nan() {
        return nearest;
    }
    // The error matters only where x is an f32: elsewhere it is smaller than the difference, which has the sign.
    let difference = x - f64::from(nearest);
    let residual = if difference == 0.0 { exact_error } else { difference };
    let overshoot = if nearest.is_infinite() { -x.signum() } else { residual };
    match round {
        Round::Nearest => nearest,
        Round::Down if overshoot < 0.0 => nearest.next_down(),
        Round::Up if overshoot > 0.0 => nearest.next_up(),
        Round::Zero if overshoot < 0.0 && x > 0.0 => nearest.next_down(),
        Round::Zero if overshoot > 0.0 && x < 0.0 => nearest.next_up(),
        _ => nearest,
    }
}

/// `a * b + c` in a directed mode, for the rare `.rz`, `.rm` and `.rp` forms.
pub(crate) fn fma_round(a: u32, b: u32, c: u32, round: Round) -> u32 {
    let (a, b, c) = (f(a), f(b), f(c));
    if round == Round::Nearest {
        return canon(a.mul_add(b, c));
    }
    let product = f64::from(a) * f64::from(b);
    let c = f64::from(c);
    let sum = product + c;
    let from_c = sum - product;
    let error = (product - (sum - from_c)) + (c - from_c);
    if sum == 0.0 && error == 0.0 {
        // An exact zero of opposite terms is -0 only when rounding down.
        let negative = if product.is_sign_negative() == c.is_sign_negative() {
            product.is_sign_negative()
        } else {
            round == Round::Down
        };
        return if negative { 0x8000_0000 } else { 0 };
    }
    let error = if error.is_finite() { error } else { 0.0 };
    canon(narrow32(sum, error, round))
}

/// `a / b`, correctly rounded in any mode.
pub(crate) fn div_round(a: u32, b: u32, round: Round) -> u32 {
    let (a, b) = (f64::from(f(a)), f64::from(f(b)));
    let quotient = a / b;
    let remainder = if quotient.is_finite() && b.is_finite() { (-quotient).mul_add(b, a) } else { 0.0 };
    if round == Round::Nearest {
        // Two roundings are safe: 53 bits are more than twice 24 plus 2.
        return canon(quotient as f32);
    }
    canon(narrow32(quotient, remainder * b.signum(), round))
}

/// `sqrt(a)`, correctly rounded in any mode.
pub(crate) fn sqrt_round(a: u32, round: Round) -> u32 {
    let a = f64::from(f(a));
    let root = a.sqrt();
    let remainder = if root.is_finite() { (-root).mul_add(root, a) } else { 0.0 };
    canon(narrow32(root, remainder, round))
}

/// `div.approx`: zero for divisors whose reciprocal would be subnormal.
#[inline(always)]
pub(crate) fn div_approx(a: u32, b: u32) -> u32 {
    let large = f(b).abs() > f32::from_bits(0x7e80_0000) && f(b).abs() < f32::INFINITY;
    let sign = (a ^ b) & 0x8000_0000;
    let quotient = canon(f(a) / f(b));
    let flushed = if f(a).is_infinite() || f(a).is_nan() { NAN32 } else { sign };
    if large { flushed } else { quotient }
}

/// `2^x` to 1 ulp: exact at integers, subnormal results kept.
#[inline(always)]
pub(crate) fn ex2(bits: u32) -> u32 {
    let x = f(bits);
    let bounded = x.clamp(-160.0, 160.0);
    // Adding 1.5 * 2^23 leaves the nearest integer in the low bits.
    let magic = 12_582_912.0f32;
    let shifted = bounded + magic;
    let whole = shifted - magic;
    let r = bounded - whole;
    // Taylor terms of 2^r on [-0.5, 0.5]; the first neglected one is below 2^-27.
    let mut p = 1.525_273_4e-5f32;
    p = p.mul_add(r, 1.540_353e-4);
    p = p.mul_add(r, 1.333_355_8e-3);
    p = p.mul_add(r, 9.618_129e-3);
    p = p.mul_add(r, 5.550_411e-2);
    p = p.mul_add(r, 0.240_226_5);
    p = p.mul_add(r, 6.931_472e-1);
    p = p.mul_add(r, 1.0);
    let n = shifted.to_bits().wrapping_sub(magic.to_bits()) as i32;
    // Two factors keep each exponent in range, down to subnormal results.
    let half = n >> 1;
    let scale = |e: i32| f32::from_bits((e.wrapping_add(127) as u32) << 23);
    let out = p * scale(half) * scale(n.wrapping_sub(half));
    if x.is_nan() { NAN32 } else { out.to_bits() }
}

/// `log2(x)`, rounded from f64.
#[inline(always)]
pub(crate) fn lg2(bits: u32) -> u32 {
    canon(f64::from(f(bits)).log2() as f32)
}

/// `1/sqrt(x)`, rounded from f64.
#[inline(always)]
pub(crate) fn rsqrt(bits: u32) -> u32 {
    canon((1.0 / f64::from(f(bits)).sqrt()) as f32)
}

/// `testp` property of an f32: 0 finite, 1 infinite, 2 number, 3 not a number, 4 normal or
/// zero, 5 subnormal.
#[inline(always)]
pub(crate) fn testp(bits: u32, property: u16) -> bool {
    let x = f(bits);
    match property {
        0 => x.is_finite(),
        1 => x.is_infinite(),
        2 => !x.is_nan(),
        3 => x.is_nan(),
        4 => x.is_normal() || x == 0.0,
        _ => x.is_subnormal(),
    }
}
