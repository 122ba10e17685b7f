//! Small float formats: f16, bf16, e4m3 and e5m2, encoded and decoded bit by bit.
//!
//! The fast f16 paths are written without branches for the row loops; everything else goes
//! through [`narrow`], which rounds once from f64.

use super::float::Round;

/// A small binary format.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Format {
    /// Stored fraction bits.
    pub(crate) fraction: u32,
    /// Exponent of the smallest normal number.
    pub(crate) min_exp: i32,
    /// Bits of the largest finite value, without sign.
    pub(crate) max_finite: u32,
    /// Bits of infinity, or of NaN where there is none.
    pub(crate) overflow: u32,
    /// Canonical NaN.
    pub(crate) nan: u32,
    /// Position of the sign bit.
    pub(crate) sign_at: u32,
}

pub(crate) const F16: Format =
    Format { fraction: 10, min_exp: -14, max_finite: 0x7bff, overflow: 0x7c00, nan: 0x7fff, sign_at: 15 };
pub(crate) const BF16: Format =
    Format { fraction: 7, min_exp: -126, max_finite: 0x7f7f, overflow: 0x7f80, nan: 0x7fff, sign_at: 15 };
pub(crate) const E4M3: Format =
    Format { fraction: 3, min_exp: -6, max_finite: 0x7e, overflow: 0x7f, nan: 0x7f, sign_at: 7 };
pub(crate) const E5M2: Format =
    Format { fraction: 2, min_exp: -14, max_finite: 0x7b, overflow: 0x7c, nan: 0x7f, sign_at: 7 };

/// Rounds `x` once into `format`. With `satfinite`, overflow and infinity give the largest
/// finite value.
pub(crate) fn narrow(x: f64, format: Format, round: Round, satfinite: bool) -> u32 {
    let sign = if x.is_sign_negative() { 1 << format.sign_at } else { 0 };
    if x.is_nan() {
        return format.nan;
    }
    let toward_infinity = match round {
        Round::Up => sign == 0,
        Round::Down => sign != 0,
        Round::Nearest => true,
        Round::Zero => false,
    };
    let overflowed = if satfinite || (!toward_infinity && x.is_finite()) { format.max_finite } else { format.overflow };
    if x.is_infinite() {
        return sign | overflowed;
    }
    let magnitude = x.abs();
    let exponent =
        if magnitude == 0.0 { format.min_exp } else { ((magnitude.to_bits() >> 52) as i32 - 1023).max(format.min_exp) };
    // In units of the last place at this exponent; the scaling is exact.
    let units = magnitude * exp2i(format.fraction as i32 - exponent);
    let rounded = match round {
        Round::Nearest => units.round_ties_even(),
        Round::Zero => units.trunc(),
        Round::Up => {
            if sign == 0 {
                units.ceil()
            } else {
                units.floor()
            }
        }
        Round::Down => {
            if sign == 0 {
                units.floor()
            } else {
                units.ceil()
            }
        }
    } as u32;
    // Adding instead of or-ing lets a carry step into the next exponent.
    let bits = rounded + (((exponent - format.min_exp) as u32) << format.fraction);
    sign | if bits > format.max_finite { overflowed } else { bits }
}

/// `2^e` for the exponents that occur here (-1000..1000).
fn exp2i(e: i32) -> f64 {
    f64::from_bits(((1023 + e) as u64) << 52)
}

/// Exact value of the bits of a small format.
pub(crate) fn widen(bits: u32, format: Format) -> f64 {
    let sign = if (bits >> format.sign_at) & 1 == 1 { -1.0 } else { 1.0 };
    let magnitude = bits & ((1 << format.sign_at) - 1);
    if magnitude > format.max_finite {
        // E4M3 has no infinity: its overflow code is NaN.
        let infinite = magnitude == format.overflow && format.overflow != format.nan;
        return if infinite { sign * f64::INFINITY } else { f64::NAN };
    }
    let biased = magnitude >> format.fraction;
    let fraction = magnitude & ((1 << format.fraction) - 1);
    let (significand, exponent) = if biased == 0 {
        (fraction, format.min_exp)
    } else {
        (fraction | 1 << format.fraction, format.min_exp + biased as i32 - 1)
    };
    sign * f64::from(significand) * exp2i(exponent - format.fraction as i32)
}

/// f64 bits to f16 bits, rounded once; a NaN keeps its sign and the top of its payload.
pub(crate) fn f64_to_f16(bits: u64, round: Round) -> u32 {
    let x = f64::from_bits(bits);
    if x.is_nan() {
        return (bits >> 48) as u32 & 0x8000 | 0x7e00 | (bits >> 42) as u32 & 0x3ff;
    }
    narrow(x, F16, round, false)
}

/// f16 bits to f32 bits, exact, without branches. A NaN keeps its payload and becomes quiet.
#[inline(always)]
pub(crate) fn f16_to_f32(h: u32) -> u32 {
    let sign = (h & 0x8000) << 16;
    let magnitude = (h & 0x7fff) << 13;
    let normal = magnitude + (112 << 23);
    // A subnormal is what is above the smallest normal number when the implicit bit is set. A
    // product would do for both, but one with a subnormal f32 costs a hundred cycles.
    let tiny = (f32::from_bits(magnitude + (113 << 23)) - f32::from_bits(113 << 23)).to_bits();
    let finite = if h & 0x7c00 == 0 { tiny } else { normal };
    let special = magnitude | 0x7f80_0000;
    let quiet = if h & 0x3ff != 0 { 0x0040_0000 } else { 0 };
    sign | if h & 0x7c00 == 0x7c00 { special | quiet } else { finite }
}

/// f32 bits to f16 bits, round to nearest even; overflow gives infinity, NaN gives 0x7FFF.
#[inline(always)]
pub(crate) fn f32_to_f16(x: u32) -> u32 {
    let sign = (x >> 16) & 0x8000;
    let magnitude = x & 0x7fff_ffff;
    // Adding 0.5 aligns a subnormal result to the last place of f16: the addition rounds.
    let tiny = (f32::from_bits(magnitude) + 0.5).to_bits().wrapping_sub(0x3f00_0000);
    let normal = magnitude.wrapping_sub(0x3800_0000).wrapping_add(0xfff + ((magnitude >> 13) & 1)) >> 13;
    let finite = if magnitude < 0x3880_0000 { tiny } else { normal };
    let bounded = if magnitude >= 0x4780_0000 { 0x7c00 } else { finite };
    if magnitude > 0x7f80_0000 { 0x7fff } else { sign | bounded }
}

/// bf16 bits to f32 bits.
#[inline(always)]
pub(crate) fn bf16_to_f32(h: u32) -> u32 {
    h << 16
}

/// f32 bits to bf16 bits, round to nearest even; NaN gives 0x7FFF.
#[inline(always)]
pub(crate) fn f32_to_bf16(x: u32) -> u32 {
    let rounded = x.wrapping_add(0x7fff + ((x >> 16) & 1)) >> 16;
    if x & 0x7fff_ffff > 0x7f80_0000 { 0x7fff } else { rounded }
}

/// Applies a two-operand f32 function to both halves of packed f16.
#[inline(always)]
pub(crate) fn halves2(a: u32, b: u32, f: impl Fn(u32, u32) -> u32) -> u32 {
    f(a & 0xffff, b & 0xffff) | f(a >> 16, b >> 16) << 16
}

/// Applies a three-operand function to both halves.
#[inline(always)]
pub(crate) fn halves3(a: u32, b: u32, c: u32, f: impl Fn(u32, u32, u32) -> u32) -> u32 {
    f(a & 0xffff, b & 0xffff, c & 0xffff) | f(a >> 16, b >> 16, c >> 16) << 16
}

/// Applies a one-operand function to both halves.
#[inline(always)]
pub(crate) fn halves1(a: u32, f: impl Fn(u32) -> u32) -> u32 {
    f(a & 0xffff) | f(a >> 16) << 16
}

/// The 16-bit formats that have arithmetic of their own.
pub(crate) trait Half {
    const FORMAT: Format;
    /// Exact value as f32 bits.
    fn to_f32(bits: u32) -> u32;
}

/// IEEE half precision.
pub(crate) struct Fp16;
/// bfloat16.
pub(crate) struct Bfloat;

impl Half for Fp16 {
    const FORMAT: Format = F16;
    #[inline(always)]
    fn to_f32(bits: u32) -> u32 {
        f16_to_f32(bits)
    }
}

impl Half for Bfloat {
    const FORMAT: Format = BF16;
    #[inline(always)]
    fn to_f32(bits: u32) -> u32 {
        bf16_to_f32(bits)
    }
}

#[inline(always)]
fn value<H: Half>(bits: u32) -> f64 {
    f64::from(f32::from_bits(H::to_f32(bits)))
}

/// `a + b`, rounded once.
#[inline(always)]
pub(crate) fn add<H: Half>(a: u32, b: u32) -> u32 {
    narrow(sum_to_odd(value::<H>(a), value::<H>(b)), H::FORMAT, Round::Nearest, false)
}

/// `a * b`, rounded once.
#[inline(always)]
pub(crate) fn mul<H: Half>(a: u32, b: u32) -> u32 {
    narrow(value::<H>(a) * value::<H>(b), H::FORMAT, Round::Nearest, false)
}

/// `a * b + c`, rounded once.
#[inline(always)]
pub(crate) fn fma<H: Half>(a: u32, b: u32, c: u32) -> u32 {
    let product = value::<H>(a) * value::<H>(b);
    narrow(sum_to_odd(product, value::<H>(c)), H::FORMAT, Round::Nearest, false)
}

/// `a + b` in f64 rounded to odd, so that rounding again to a narrow format is single rounding.
fn sum_to_odd(a: f64, b: f64) -> f64 {
    let sum = a + b;
    if !sum.is_finite() {
        return sum;
    }
    let from_b = sum - a;
    let error = (a - (sum - from_b)) + (b - from_b);
    if error == 0.0 || sum.to_bits() & 1 == 1 {
        return sum;
    }
    // The neighbour on the side of the lost part has an odd last bit.
    if (error > 0.0) == (sum > 0.0) { f64::from_bits(sum.to_bits() + 1) } else { f64::from_bits(sum.to_bits() - 1) }
}

/// Minimum or maximum: a number beats NaN unless `propagate`; -0 is below +0.
#[inline(always)]
pub(crate) fn min_max<H: Half>(a: u32, b: u32, max: bool, propagate: bool) -> u32 {
    let is_nan = |v: u32| v & 0x7fff > H::FORMAT.overflow;
    // Order-preserving integer of a sign-magnitude value.
    let key = |v: u32| {
        let magnitude = (v & 0x7fff) as i32;
        if v & 0x8000 != 0 { -1 - magnitude } else { magnitude }
    };
    let pick = if (key(a) > key(b)) == max { a } else { b };
    let number = if is_nan(a) {
        b
    } else if is_nan(b) {
        a
    } else {
        pick
    };
    if (is_nan(a) && is_nan(b)) || (propagate && (is_nan(a) || is_nan(b))) { H::FORMAT.nan } else { number }
}
