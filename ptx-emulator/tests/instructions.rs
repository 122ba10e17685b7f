//! One tiny PTX program per instruction, over the cross product of edge values, against formulas
//! in i128 and f64.

mod rows;

use rows::*;

const DD: &[&str] = &["b64", "b64"];
const DW: &[&str] = &["b64", "b32"];
const HH: &[&str] = &["b16", "b16"];
const FFF: &[&str] = &["f32", "f32", "f32"];
fn s64(v: u64) -> i128 {
    i128::from(v as i64)
}
fn ftz(v: u64) -> f32 {
    let x = f(v);
    if x.is_subnormal() { 0f32.copysign(x) } else { x }
}
fn flush(x: f32) -> u64 {
    b32(ftz(b32(x)))
}

#[test]
fn integer_arithmetic() {
    check(&[
        ("add.s32 %d, %a, %b;", WW, "b32", |v| w(s(v[0]) + s(v[1]))),
        ("sub.u32 %d, %a, %b;", WW, "b32", |v| w(s(v[0]) - s(v[1]))),
        ("mul.lo.s32 %d, %a, %b;", WW, "b32", |v| w(s(v[0]) * s(v[1]))),
        ("mul.hi.s32 %d, %a, %b;", WW, "b32", |v| w((s(v[0]) * s(v[1])) >> 32)),
        ("mul.hi.u32 %d, %a, %b;", WW, "b32", |v| (v[0] * v[1]) >> 32),
        ("mul.wide.s32 %d, %a, %b;", WW, "b64", |v| (s(v[0]) * s(v[1])) as u64),
        ("mul.wide.u32 %d, %a, %b;", WW, "b64", |v| v[0] * v[1]),
        ("mad.lo.s32 %d, %a, %b, %c;", WWW, "b32", |v| w(s(v[0]) * s(v[1]) + s(v[2]))),
        ("mad.hi.s32 %d, %a, %b, %c;", WWW, "b32", |v| w(((s(v[0]) * s(v[1])) >> 32) + s(v[2]))),
        ("mad.wide.s32 %d, %a, %b, %c;", &["b32", "b32", "b64"], "b64", |v| ((s(v[0]) * s(v[1])) + s64(v[2])) as u64),
        ("mul.lo.s64 %d, %a, %b;", DD, "b64", |v| v[0].wrapping_mul(v[1])),
        ("mul.hi.u64 %d, %a, %b;", DD, "b64", |v| ((u128::from(v[0]) * u128::from(v[1])) >> 64) as u64),
        ("mul.hi.s64 %d, %a, %b;", DD, "b64", |v| ((s64(v[0]) * s64(v[1])) >> 64) as u64),
        ("add.s64 %d, %a, %b;", DD, "b64", |v| v[0].wrapping_add(v[1])),
        ("sub.s64 %d, %a, %b;", DD, "b64", |v| v[0].wrapping_sub(v[1])),
        ("mul.lo.u16 %d, %a, %b;", HH, "b16", |v| (v[0] * v[1]) & 0xffff),
        ("mul.wide.s16 %d, %a, %b;", HH, "b32", |v| w(s16(v[0]) * s16(v[1]))),
        ("mul.wide.u16 %d, %a, %b;", HH, "b32", |v| v[0] * v[1]),
        ("add.s16 %d, %a, %b;", HH, "b16", |v| (v[0] + v[1]) & 0xffff),
        ("sub.s16 %d, %a, %b;", HH, "b16", |v| v[0].wrapping_sub(v[1]) & 0xffff),
        ("min.s32 %d, %a, %b;", WW, "b32", |v| w(s(v[0]).min(s(v[1])))),
        ("max.u32 %d, %a, %b;", WW, "b32", |v| v[0].max(v[1])),
        ("max.s64 %d, %a, %b;", DD, "b64", |v| s64(v[0]).max(s64(v[1])) as u64),
        ("min.s16 %d, %a, %b;", HH, "b16", |v| s16(v[0]).min(s16(v[1])) as u64 & 0xffff),
        ("neg.s32 %d, %a;", W, "b32", |v| w(-s(v[0]))),
        ("abs.s32 %d, %a;", W, "b32", |v| w(s(v[0]).abs())),
        ("div.s32 %d, %a, %b;", WW, "b32", |v| if v[1] == 0 { 0xffff_ffff } else { w(s(v[0]) / s(v[1])) }),
        ("div.u32 %d, %a, %b;", WW, "b32", |v| v[0].checked_div(v[1]).unwrap_or(0xffff_ffff)),
        ("rem.s32 %d, %a, %b;", WW, "b32", |v| if v[1] == 0 { v[0] } else { w(s(v[0]) % s(v[1])) }),
        ("rem.u64 %d, %a, %b;", DD, "b64", |v| v[0].checked_rem(v[1]).unwrap_or(v[0])),
        ("div.s64 %d, %a, %b;", DD, "b64", |v| if v[1] == 0 { u64::MAX } else { (s64(v[0]) / s64(v[1])) as u64 }),
        ("add.cc.u32 %d, %a, %b;\naddc.u32 %d, %c, 0;", WWW, "b32", |v| w(s(v[2]) + i128::from((v[0] + v[1]) >> 32))),
        ("sub.cc.u32 %d, %a, %b;\nsubc.u32 %d, %c, 5;", WWW, "b32", |v| w(s(v[2]) - 5 - i128::from(v[0] < v[1]))),
        // One flag, as silicon has it: a subtraction leaves "no borrow" in it.
        ("sub.cc.u32 %d, %a, %b;\naddc.u32 %d, %c, 0;", WWW, "b32", |v| w(s(v[2]) + i128::from(v[0] >= v[1]))),
        ("add.cc.u32 %d, %a, %b;\nsubc.u32 %d, %c, 5;", WWW, "b32", |v| {
            w(s(v[2]) - 6 + i128::from((v[0] + v[1]) >> 32))
        }),
        ("sub.cc.u64 %d, %a, %b;\nsubc.cc.u64 %d, %b, %a;\naddc.u64 %d, 0, 0;", DD, "b64", |v| {
            let borrow = u128::from(v[0] < v[1]);
            u64::from(u128::from(v[1]) >= u128::from(v[0]) + borrow)
        }),
        ("add.cc.u64 %d, %a, %b;\naddc.cc.u64 %d, %b, %b;\naddc.u64 %d, 0, 0;", DD, "b64", |v| {
            let carry = (u128::from(v[0]) + u128::from(v[1])) >> 64;
            ((2 * u128::from(v[1]) + carry) >> 64) as u64
        }),
        ("mad.lo.cc.u32 %d, %a, %b, %c;\nmadc.hi.u32 %d, %a, %b, 1;", WWW, "b32", |v| {
            ((u128::from(v[0]) * u128::from(v[1]) + u128::from(v[2]) + (1 << 32)) >> 32) as u64 & 0xffff_ffff
        }),
        ("sad.u32 %d, %a, %b, %c;", WWW, "b32", |v| w(i128::from(v[0].abs_diff(v[1])) + i128::from(v[2]))),
        ("add.sat.s32 %d, %a, %b;", WW, "b32", |v| {
            w((s(v[0]) + s(v[1])).clamp(i128::from(i32::MIN), i128::from(i32::MAX)))
        }),
    ]);
}

#[test]
fn bits_and_shifts() {
    check(&[
        ("and.b32 %d, %a, %b;", WW, "b32", |v| v[0] & v[1]),
        ("or.b64 %d, %a, %b;", DD, "b64", |v| v[0] | v[1]),
        ("xor.b16 %d, %a, %b;", HH, "b16", |v| v[0] ^ v[1]),
        ("not.b32 %d, %a;", W, "b32", |v| u64::from(!(v[0] as u32))),
        ("not.b16 %d, %a;", &["b16"], "b16", |v| !v[0] & 0xffff),
        ("shl.b32 %d, %a, %b;", WW, "b32", |v| if v[1] < 32 { (v[0] << v[1]) & 0xffff_ffff } else { 0 }),
        ("shr.u32 %d, %a, %b;", WW, "b32", |v| if v[1] < 32 { v[0] >> v[1] } else { 0 }),
        ("shr.s32 %d, %a, %b;", WW, "b32", |v| w(s(v[0]) >> v[1].min(31))),
        ("shl.b64 %d, %a, %b;", DW, "b64", |v| if v[1] < 64 { v[0] << v[1] } else { 0 }),
        ("shr.s64 %d, %a, %b;", DW, "b64", |v| (s64(v[0]) >> v[1].min(63)) as u64),
        ("shr.u64 %d, %a, %b;", DW, "b64", |v| if v[1] < 64 { v[0] >> v[1] } else { 0 }),
        ("shl.b16 %d, %a, %b;", &["b16", "b32"], "b16", |v| if v[1] < 16 { (v[0] << v[1]) & 0xffff } else { 0 }),
        ("shr.s16 %d, %a, %b;", &["b16", "b32"], "b16", |v| (s16(v[0]) >> v[1].min(15)) as u64 & 0xffff),
        ("shf.l.wrap.b32 %d, %a, %b, %c;", WWW, "b32", |v| ((v[1] << 32 | v[0]) << (v[2] & 31) >> 32) & 0xffff_ffff),
        ("shf.r.wrap.b32 %d, %a, %b, %c;", WWW, "b32", |v| ((v[1] << 32 | v[0]) >> (v[2] & 31)) & 0xffff_ffff),
        ("shf.l.clamp.b32 %d, %a, %b, %c;", WWW, "b32", |v| ((v[1] << 32 | v[0]) << v[2].min(32) >> 32) & 0xffff_ffff),
        ("shf.r.clamp.b32 %d, %a, %b, %c;", WWW, "b32", |v| ((v[1] << 32 | v[0]) >> v[2].min(32)) & 0xffff_ffff),
        ("lop3.b32 %d, %a, %b, %c, 0xEA;", WWW, "b32", |v| (v[0] & v[1]) | v[2]),
        ("lop3.b32 %d, %a, %b, %c, 0x96;", WWW, "b32", |v| v[0] ^ v[1] ^ v[2]),
        ("brev.b32 %d, %a;", W, "b32", |v| u64::from((v[0] as u32).reverse_bits())),
        ("clz.b32 %d, %a;", W, "b32", |v| u64::from((v[0] as u32).leading_zeros())),
        ("popc.b64 %d, %a;", &["b64"], "b32", |v| u64::from(v[0].count_ones())),
        ("bfind.u32 %d, %a;", W, "b32", |v| if v[0] == 0 { 0xffff_ffff } else { 63 - u64::from(v[0].leading_zeros()) }),
        ("bfind.shiftamt.s32 %d, %a;", W, "b32", |v| {
            let x = if s(v[0]) < 0 { !s(v[0]) } else { s(v[0]) };
            if x == 0 { 0xffff_ffff } else { u64::from((x as u32).leading_zeros()) }
        }),
        ("bfe.u32 %d, %a, %b, %c;", WWW, "b32", |v| bit_field(v, false)),
        ("bfe.s32 %d, %a, %b, %c;", WWW, "b32", |v| bit_field(v, true)),
        ("bfi.b32 %d, %a, %b, %c, 5;", WWW, "b32", |v| {
            let at = v[2] & 0xff;
            (0..5).fold(v[1], |out, i| {
                if at + i >= 32 {
                    return out;
                }
                (out & !(1 << (at + i))) | ((v[0] >> i) & 1) << (at + i)
            })
        }),
        ("prmt.b32 %d, %a, %b, %c;", WWW, "b32", |v| {
            (0..4).fold(0, |out, i| {
                let pick = v[2] >> (4 * i) & 15;
                let byte = ((v[1] << 32 | v[0]) >> (8 * (pick & 7))) & 0xff;
                let byte = if pick < 8 {
                    byte
                } else if byte & 0x80 != 0 {
                    0xff
                } else {
                    0
                };
                out | byte << (8 * i)
            })
        }),
        (
            "mov.b64 {%i, %n}, %a;\nadd.u32 %d, %i, %n;\nmov.u32 %i, %tid.x;\nmov.u32 %n, %ctaid.x;\nmad.lo.u32 %i, %n, 256, %i;",
            &["b64"],
            "b32",
            |v| v[0].wrapping_add(v[0] >> 32) & 0xffff_ffff,
        ),
        ("mov.b64 %d, {%a, %b};", WW, "b64", |v| v[1] << 32 | v[0]),
        ("mov.b32 %d, {%a, %b};", HH, "b32", |v| v[1] << 16 | v[0]),
    ]);
}

/// The definition in the PTX manual, bit by bit.
fn bit_field(v: &[u64], signed: bool) -> u64 {
    let (a, pos, len) = (v[0], v[1] & 0xff, v[2] & 0xff);
    let sign = signed && len > 0 && a >> (pos + len - 1).min(31) & 1 == 1;
    (0..32).fold(0, |out, i| {
        let bit = if i < len && pos + i <= 31 { a >> (pos + i) & 1 } else { u64::from(sign) };
        out | bit << i
    })
}

#[test]
fn comparisons_and_selection() {
    check(&[
        ("setp.lt.s32 %p, %a, %b;", WW, "pred", |v| u64::from(s(v[0]) < s(v[1]))),
        ("setp.ge.u32 %p, %a, %b;", WW, "pred", |v| u64::from(v[0] >= v[1])),
        ("setp.hi.u32 %p, %a, %b;", WW, "pred", |v| u64::from(v[0] > v[1])),
        ("setp.ne.b32 %p, %a, %b;", WW, "pred", |v| u64::from(v[0] != v[1])),
        ("setp.le.s64 %p, %a, %b;", DD, "pred", |v| u64::from(s64(v[0]) <= s64(v[1]))),
        ("setp.gt.s16 %p, %a, %b;", HH, "pred", |v| u64::from(s16(v[0]) > s16(v[1]))),
        ("setp.eq.f32 %p, %a, %b;", FF, "pred", |v| u64::from(f(v[0]) == f(v[1]))),
        // Ordered "not equal" is false on NaN; the unordered one is true.
        ("setp.ne.f32 %p, %a, %b;", FF, "pred", |v| u64::from(f(v[0]) < f(v[1]) || f(v[0]) > f(v[1]))),
        ("setp.neu.f32 %p, %a, %b;", FF, "pred", |v| u64::from(f(v[0]) != f(v[1]))),
        ("setp.ltu.f32 %p, %a, %b;", FF, "pred", |v| {
            u64::from(f(v[0]) < f(v[1]) || f(v[0]).is_nan() || f(v[1]).is_nan())
        }),
        ("setp.nan.f32 %p, %a, %b;", FF, "pred", |v| u64::from(f(v[0]).is_nan() || f(v[1]).is_nan())),
        ("setp.gt.ftz.f32 %p, %a, %b;", FF, "pred", |v| u64::from(ftz(v[0]) > ftz(v[1]))),
        ("setp.lt.f64 %p, %a, %b;", &["f64", "f64"], "pred", |v| u64::from(d(v[0]) < d(v[1]))),
        ("setp.eq.u32 %q, %a, 0;\nsetp.lt.and.s32 %p|%q, %a, %b, %q;", WW, "pred", |v| {
            u64::from(s(v[0]) < s(v[1]) && v[0] == 0)
        }),
        ("setp.eq.u32 %q, %a, 0;\nsetp.lt.or.s32 %q|%p, %a, %b, %q;", WW, "pred", |v| {
            u64::from(s(v[0]) >= s(v[1]) || v[0] == 0)
        }),
        ("setp.lt.u32 %p, %a, %b;\nselp.b32 %d, %a, %b, %p;", WW, "b32", |v| v[0].min(v[1])),
        ("mov.u32 %d, 5;\nsetp.lt.u32 %p, %a, %b;\n@%p mov.u32 %d, 6;\n@!%p add.u32 %d, %d, 2;", WW, "b32", |v| {
            if v[0] < v[1] { 6 } else { 7 }
        }),
        ("set.gt.u32.s32 %d, %a, %b;", WW, "b32", |v| if s(v[0]) > s(v[1]) { 0xffff_ffff } else { 0 }),
        ("slct.b32.s32 %d, %a, %b, %c;", WWW, "b32", |v| if s(v[2]) >= 0 { v[0] } else { v[1] }),
    ]);
}

/// Minimum or maximum by the PTX rule: a number beats NaN and -0 is below +0.
fn extreme(a: f32, b: f32, max: bool) -> u64 {
    if a.is_nan() || b.is_nan() {
        return b32(if a.is_nan() { b } else { a });
    }
    let above = if a == b { a.is_sign_positive() } else { a > b };
    b32(if above == max { a } else { b })
}

#[test]
fn single_precision() {
    check(&[
        ("add.f32 %d, %a, %b;", FF, "f32", |v| b32(f(v[0]) + f(v[1]))),
        ("add.ftz.f32 %d, %a, %b;", FF, "f32", |v| flush(ftz(v[0]) + ftz(v[1]))),
        ("sub.rn.f32 %d, %a, %b;", FF, "f32", |v| b32(f(v[0]) - f(v[1]))),
        ("mul.f32 %d, %a, %b;", FF, "f32", |v| b32(f(v[0]) * f(v[1]))),
        ("mul.ftz.f32 %d, %a, %b;", FF, "f32", |v| flush(ftz(v[0]) * ftz(v[1]))),
        ("fma.rn.f32 %d, %a, %b, %c;", FFF, "f32", |v| b32(f(v[0]).mul_add(f(v[1]), f(v[2])))),
        ("fma.rn.ftz.f32 %d, %a, %b, %c;", FFF, "f32", |v| flush(ftz(v[0]).mul_add(ftz(v[1]), ftz(v[2])))),
        ("add.rz.f32 %d, %a, %b;", FF, "f32", |v| directed(v, |x, y| x + y, 'z')),
        ("add.rm.f32 %d, %a, %b;", FF, "f32", |v| directed(v, |x, y| x + y, 'm')),
        ("mul.rp.f32 %d, %a, %b;", FF, "f32", |v| directed(v, |x, y| x * y, 'p')),
        ("mul.rz.f32 %d, %a, %b;", FF, "f32", |v| directed(v, |x, y| x * y, 'z')),
        ("add.sat.f32 %d, %a, %b;", FF, "f32", |v| {
            let x = f(v[0]) + f(v[1]);
            b32(if x.is_nan() { 0.0 } else { x.clamp(0.0, 1.0) + 0.0 })
        }),
        ("min.f32 %d, %a, %b;", FF, "f32", |v| extreme(f(v[0]), f(v[1]), false)),
        ("max.f32 %d, %a, %b;", FF, "f32", |v| extreme(f(v[0]), f(v[1]), true)),
        ("max.ftz.f32 %d, %a, %b;", FF, "f32", |v| extreme(ftz(v[0]), ftz(v[1]), true)),
        ("max.NaN.f32 %d, %a, %b;", FF, "f32", |v| {
            if f(v[0]).is_nan() || f(v[1]).is_nan() { b32(f32::NAN) } else { extreme(f(v[0]), f(v[1]), true) }
        }),
        ("neg.f32 %d, %a;", F, "f32", |v| v[0] ^ 0x8000_0000),
        ("abs.ftz.f32 %d, %a;", F, "f32", |v| b32(ftz(v[0]).abs())),
        ("copysign.f32 %d, %a, %b;", FF, "f32", |v| (v[0] & 0x8000_0000) | (v[1] & 0x7fff_ffff)),
        ("div.rn.f32 %d, %a, %b;", FF, "f32", |v| b32(f(v[0]) / f(v[1]))),
        ("rcp.rn.f32 %d, %a;", F, "f32", |v| b32(1.0 / f(v[0]))),
        ("rcp.rn.ftz.f32 %d, %a;", F, "f32", |v| flush(1.0 / ftz(v[0]))),
        ("sqrt.rn.f32 %d, %a;", F, "f32", |v| b32(f(v[0]).sqrt())),
        ("add.f64 %d, %a, %b;", &["f64", "f64"], "f64", |v| (d(v[0]) + d(v[1])).to_bits()),
        ("fma.rn.f64 %d, %a, %b, %b;", &["f64", "f64"], "f64", |v| d(v[0]).mul_add(d(v[1]), d(v[1])).to_bits()),
    ]);
}

/// A directed rounding found from the nearest value and the exact one. The exact sum of two f32
/// may need more than f64, but its difference to the nearest f32 keeps its sign in f64.
fn directed(v: &[u64], op: fn(f64, f64) -> f64, mode: char) -> u64 {
    let (x, y) = (f64::from(f(v[0])), f64::from(f(v[1])));
    let exact = op(x, y);
    let nearest = exact as f32;
    if !exact.is_finite() || exact.is_nan() {
        return b32(nearest);
    }
    if exact == 0.0 && mode == 'm' && (x + y == 0.0) && x.is_sign_positive() != y.is_sign_positive() {
        return b32(-0.0);
    }
    // Exact difference through the two-sum error where f64 itself rounded.
    let from_y = exact - x;
    let lost = (x - (exact - from_y)) + (y - from_y);
    let lost = if op(2.0, 3.0) == 5.0 { lost } else { 0.0 };
    let above =
        if nearest.is_infinite() { exact < f64::from(nearest) } else { exact - f64::from(nearest) + lost < 0.0 };
    let below =
        if nearest.is_infinite() { exact > f64::from(nearest) } else { exact - f64::from(nearest) + lost > 0.0 };
    b32(match mode {
        'm' if above => nearest.next_down(),
        'p' if below => nearest.next_up(),
        'z' if above && exact > 0.0 => nearest.next_down(),
        'z' if below && exact < 0.0 => nearest.next_up(),
        _ => nearest,
    })
}
