//! Conversions between integers and floats, saturating as PTX asks.

use super::float::{Round, narrow32};

/// Rounds to an integral value.
#[inline(always)]
pub(crate) fn to_integral(x: f64, round: Round) -> f64 {
    match round {
        Round::Nearest => x.round_ties_even(),
        Round::Zero => x.trunc(),
        Round::Down => x.floor(),
        Round::Up => x.ceil(),
    }
}

/// Float to integer of `bits` width: NaN gives 0 (the top bit alone for 64-bit results and for
/// sources of 64 bits), out of range saturates. The result is sign- or zero-extended to 64 bits.
#[inline(always)]
pub(crate) fn float_to_int(x: f64, bits: u32, signed: bool, round: Round, wide: bool) -> u64 {
    if x.is_nan() {
        return if bits == 64 || wide { 1 << (bits - 1) } else { 0 };
    }
    let whole = to_integral(x, round);
    // Rust's float casts saturate at the width of the target.
    match (signed, bits) {
        (true, 8) => whole as i8 as i64 as u64,
        (true, 16) => whole as i16 as i64 as u64,
        (true, 32) => whole as i32 as i64 as u64,
        (true, _) => whole as i64 as u64,
        (false, 8) => u64::from(whole as u8),
        (false, 16) => u64::from(whole as u16),
        (false, 32) => u64::from(whole as u32),
        (false, _) => whole as u64,
    }
}

/// 64-bit integer to f32 in any mode.
pub(crate) fn int_to_f32(value: i128, round: Round) -> f32 {
    // Exact in f64 up to 53 bits; the lost part is the error term.
    let wide = value as f64;
    let error = (value - wide as i128) as f64;
    if round == Round::Nearest {
        return value as f32;
    }
    narrow32(wide, error, round)
}

/// 64-bit integer to f64 in any mode.
pub(crate) fn int_to_f64(value: i128, round: Round) -> f64 {
    let nearest = value as f64;
    let error = value - nearest as i128;
    match round {
        Round::Down if error < 0 => nearest.next_down(),
        Round::Up if error > 0 => nearest.next_up(),
        Round::Zero if error < 0 && value > 0 => nearest.next_down(),
        Round::Zero if error > 0 && value < 0 => nearest.next_up(),
        _ => nearest,
    }
}
