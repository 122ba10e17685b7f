//! Integer and bit-field operations whose PTX rules differ from Rust's operators.

/// High half of the 128-bit unsigned product.
#[inline(always)]
pub(crate) fn mul_hi_u64(a: u64, b: u64) -> u64 {
    ((u128::from(a) * u128::from(b)) >> 64) as u64
}

/// High half of the 128-bit signed product.
#[inline(always)]
pub(crate) fn mul_hi_s64(a: u64, b: u64) -> u64 {
    ((i128::from(a as i64) * i128::from(b as i64)) >> 64) as u64
}

/// Division by zero does not trap on the hardware; it yields all ones.
#[inline(always)]
pub(crate) fn div_u64(a: u64, b: u64) -> u64 {
    a.checked_div(b).unwrap_or(u64::MAX)
}

/// Signed division; by zero all ones, and the overflowing case wraps.
#[inline(always)]
pub(crate) fn div_s64(a: i64, b: i64) -> i64 {
    if b == 0 { -1 } else { a.wrapping_div(b) }
}

/// Remainder; by zero the dividend.
#[inline(always)]
pub(crate) fn rem_u64(a: u64, b: u64) -> u64 {
    a.checked_rem(b).unwrap_or(a)
}

/// Signed remainder; by zero the dividend.
#[inline(always)]
pub(crate) fn rem_s64(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { a.wrapping_rem(b) }
}

/// Shift left; amounts of the width or more give 0. By a mask, here and below: a branch keeps the compiler from working on
/// a row of lanes at once.
#[inline(always)]
pub(crate) fn shl32(a: u32, n: u32) -> u32 {
    a.wrapping_shl(n) & u32::from(n < 32).wrapping_neg()
}

/// Logical shift right with clamping.
#[inline(always)]
pub(crate) fn shr_u32(a: u32, n: u32) -> u32 {
    a.wrapping_shr(n) & u32::from(n < 32).wrapping_neg()
}

/// Arithmetic shift right; large amounts leave the sign.
#[inline(always)]
pub(crate) fn shr_s32(a: u32, n: u32) -> u32 {
    ((a as i32) >> n.min(31)) as u32
}

/// 64-bit shift left with clamping.
#[inline(always)]
pub(crate) fn shl64(a: u64, n: u32) -> u64 {
    a.wrapping_shl(n) & u64::from(n < 64).wrapping_neg()
}

/// 64-bit logical shift right with clamping.
#[inline(always)]
pub(crate) fn shr_u64(a: u64, n: u32) -> u64 {
    a.wrapping_shr(n) & u64::from(n < 64).wrapping_neg()
}

/// 64-bit arithmetic shift right with clamping.
#[inline(always)]
pub(crate) fn shr_s64(a: u64, n: u32) -> u64 {
    ((a as i64) >> n.min(63)) as u64
}

/// Funnel shift left of `hi:lo`; `n` is already wrapped or clamped to 0..=32.
#[inline(always)]
pub(crate) fn shf_l(lo: u32, hi: u32, n: u32) -> u32 {
    let wide = u64::from(hi) << 32 | u64::from(lo);
    ((wide << (n & 63)) >> 32) as u32
}

/// Funnel shift right of `hi:lo`; `n` is already wrapped or clamped to 0..=32.
#[inline(always)]
pub(crate) fn shf_r(lo: u32, hi: u32, n: u32) -> u32 {
    let wide = u64::from(hi) << 32 | u64::from(lo);
    (wide >> (n & 63)) as u32
}

/// Bit field extract of a `width`-bit value held in 64 bits, optionally sign-extended.
#[inline(always)]
pub(crate) fn bfe(a: u64, pos: u32, len: u32, width: u32, signed: bool) -> u64 {
    let (pos, len) = (field_operand(pos, width), field_operand(len, width));
    let top = (pos + len).min(width);
    let sign_at = if len == 0 { None } else { Some(top.saturating_sub(1).min(width - 1)) };
    let sign = signed && sign_at.is_some_and(|at| (a >> at) & 1 == 1);
    let field = shr_u64(a, pos);
    let kept = len.min(width.saturating_sub(pos));
    let mask = shl64(1, kept).wrapping_sub(1);
    let low = if kept >= 64 { field } else { field & mask };
    // Bits of the field that lie past the top of the value repeat the sign.
    let fill = if sign && kept < 64 { !mask } else { 0 };
    let out = low | fill;
    if width == 32 { out & 0xffff_ffff } else { out }
}

/// Position or length of a bit field: eight bits count; beyond them the 64-bit forms, which are sequences on the
/// hardware, saturate where the 32-bit forms wrap.
#[inline(always)]
fn field_operand(value: u32, width: u32) -> u32 {
    if width == 32 { value & 0xff } else { value.min(0xff) }
}

/// Bit field insert: `len` bits of `a` at `pos` of `b`.
#[inline(always)]
pub(crate) fn bfi(a: u64, b: u64, pos: u32, len: u32, width: u32) -> u64 {
    let (pos, len) = (field_operand(pos, width), field_operand(len, width));
    let len = len.min(width.saturating_sub(pos));
    let ones = if len >= 64 { u64::MAX } else { shl64(1, len) - 1 };
    let mask = shl64(ones, pos);
    (b & !mask) | (shl64(a, pos) & mask)
}

/// Position of the most significant non-sign bit, or all ones.
#[inline(always)]
pub(crate) fn bfind(a: u64, width: u32, signed: bool, shift_amount: bool) -> u32 {
    let value = if signed {
        let extended = if width == 32 { i64::from(a as i32) } else { a as i64 };
        (extended ^ (extended >> 63)) as u64
    } else {
        a
    };
    if value == 0 {
        return u32::MAX;
    }
    let position = 63 - value.leading_zeros();
    if shift_amount { width - 1 - position } else { position }
}

/// Byte permute in the default mode: nibble bit 3 replicates the sign of the byte.
#[inline(always)]
pub(crate) fn prmt(a: u32, b: u32, selector: u32) -> u32 {
    let wide = u64::from(b) << 32 | u64::from(a);
    let mut out = 0;
    for i in 0..4 {
        let nibble = (selector >> (4 * i)) & 0xf;
        let byte = (wide >> (8 * (nibble & 7))) as u32 & 0xff;
        let sign = ((byte as i8) >> 7) as u8;
        let value = if nibble & 8 != 0 { u32::from(sign) } else { byte };
        out |= value << (8 * i);
    }
    out
}

/// Byte permute with a mode: 1 f4e, 2 b4e, 3 rc8, 4 ecl, 5 ecr, 6 rc16.
pub(crate) fn prmt_mode(a: u32, b: u32, selector: u32, mode: u16) -> u32 {
    let n = selector & 3;
    let picks: [u32; 4] = match mode {
        1 => [n, n + 1, n + 2, n + 3],
        2 => [n, n + 7, n + 6, n + 5].map(|v| v & 7),
        3 => [n; 4],
        4 => [n, n.max(1), n.max(2), 3],
        5 => [0, n.min(1), n.min(2), n],
        _ => {
            let low = 2 * (n & 1);
            [low, low + 1, low, low + 1]
        }
    };
    let wide = u64::from(b) << 32 | u64::from(a);
    picks.iter().rev().fold(0, |out, &p| out << 8 | ((wide >> (8 * p)) as u32 & 0xff))
}

/// Any three-input bit function; bit `4a+2b+c` of the table is the result.
#[inline(always)]
pub(crate) fn lop3(a: u32, b: u32, c: u32, table: u32) -> u32 {
    let mut out = 0;
    for row in 0..8u32 {
        let wanted = 0u32.wrapping_sub((table >> row) & 1);
        let ma = if row & 4 != 0 { a } else { !a };
        let mb = if row & 2 != 0 { b } else { !b };
        let mc = if row & 1 != 0 { c } else { !c };
        out |= ma & mb & mc & wanted;
    }
    out
}

/// Four-way byte dot product with accumulate; signedness per operand.
#[inline(always)]
pub(crate) fn dp4a(a: u32, b: u32, c: u32, a_signed: bool, b_signed: bool) -> u32 {
    let pick = |v: u32, i: u32, signed: bool| {
        let byte = (v >> (8 * i)) as u8;
        if signed { i32::from(byte as i8) } else { i32::from(byte) }
    };
    (0..4).fold(c, |sum, i| sum.wrapping_add((pick(a, i, a_signed) * pick(b, i, b_signed)) as u32))
}
/// Two 16-bit times 8-bit products and a sum; `x` as the instruction table has it.
pub(crate) fn dp2a(a: u32, b: u32, c: u32, x: u16) -> u32 {
    let bytes = if x & 4 != 0 { b >> 16 } else { b };
    let half = |at: u32| {
        let value = a >> (16 * at) & 0xffff;
        if x & 1 != 0 { i32::from(value as i16) } else { value as i32 }
    };
    let byte = |at: u32| {
        let value = bytes >> (8 * at) & 0xff;
        if x & 2 != 0 { i32::from(value as i8) } else { value as i32 }
    };
    let product = |at: u32| half(at).wrapping_mul(byte(at)) as u32;
    c.wrapping_add(product(0)).wrapping_add(product(1))
}

/// Product of the low 24 bits: its low word, or its bits from 16 on.
pub(crate) fn mul24(a: u32, b: u32, signed: bool, high: bool) -> u32 {
    let factor = |v: u32| if signed { i64::from((v << 8) as i32 >> 8) } else { i64::from(v & 0xff_ffff) };
    let product = factor(a) * factor(b);
    if high { (product >> 16) as u32 } else { product as u32 }
}

/// `b` ones from bit `a` on, cut at bit 31.
pub(crate) fn bmsk(a: u32, b: u32, wrap: bool) -> u32 {
    let (a, b) = if wrap { (a & 31, b & 31) } else { (a.min(32), b.min(32)) };
    let ones = (1u64 << b) - 1;
    (ones << a) as u32
}
