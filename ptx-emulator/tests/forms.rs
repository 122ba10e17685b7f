//! Forms that code of other compilers uses, against formulas: one tiny program each over the edge values.

mod rows;

use rows::*;

const DDD: &[&str] = &["b64", "b64", "b64"];
const HHH: &[&str] = &["b16", "b16", "b16"];
const FF64: &[&str] = &["f64", "f64"];

fn s64(v: u64) -> i128 {
    i128::from(v as i64)
}
/// The low 24 bits, sign-extended.
fn s24(v: u64) -> i128 {
    i128::from((v as i32) << 8 >> 8)
}
fn byte(v: u64, at: u32) -> u64 {
    v >> (8 * at) & 0xff
}
fn clamp32(v: i128) -> i128 {
    v.clamp(i128::from(i32::MIN), i128::from(i32::MAX))
}

#[test]
fn products_and_differences() {
    check(&[
        ("mul24.lo.u32 %d, %a, %b;", WW, "b32", |v| ((v[0] & 0xff_ffff) * (v[1] & 0xff_ffff)) & 0xffff_ffff),
        ("mul24.hi.u32 %d, %a, %b;", WW, "b32", |v| ((v[0] & 0xff_ffff) * (v[1] & 0xff_ffff)) >> 16 & 0xffff_ffff),
        ("mul24.lo.s32 %d, %a, %b;", WW, "b32", |v| w(s24(v[0]) * s24(v[1]))),
        ("mul24.hi.s32 %d, %a, %b;", WW, "b32", |v| w((s24(v[0]) * s24(v[1])) >> 16)),
        ("mad24.lo.s32 %d, %a, %b, %c;", WWW, "b32", |v| w(s24(v[0]) * s24(v[1]) + s(v[2]))),
        ("mad24.hi.sat.s32 %d, %a, %b, %c;", WWW, "b32", |v| w(clamp32(((s24(v[0]) * s24(v[1])) >> 16) + s(v[2])))),
        ("mad.hi.sat.s32 %d, %a, %b, %c;", WWW, "b32", |v| w(clamp32(((s(v[0]) * s(v[1])) >> 32) + s(v[2])))),
        ("sad.u16 %d, %a, %b, %c;", HHH, "b16", |v| (v[0].abs_diff(v[1]) + v[2]) & 0xffff),
        ("sad.s16 %d, %a, %b, %c;", HHH, "b16", |v| ((s16(v[0]) - s16(v[1])).unsigned_abs() as u64 + v[2]) & 0xffff),
        ("sad.u64 %d, %a, %b, %c;", DDD, "b64", |v| v[0].abs_diff(v[1]).wrapping_add(v[2])),
        ("sad.s64 %d, %a, %b, %c;", DDD, "b64", |v| ((s64(v[0]) - s64(v[1])).unsigned_abs() as u64).wrapping_add(v[2])),
        ("dp2a.lo.u32.u32 %d, %a, %b, %c;", WWW, "b32", |v| {
            ((v[0] & 0xffff) * byte(v[1], 0) + (v[0] >> 16) * byte(v[1], 1) + v[2]) & 0xffff_ffff
        }),
        ("dp2a.hi.s32.u32 %d, %a, %b, %c;", WWW, "b32", |v| {
            let byte = |at| i128::from(byte(v[1], at));
            w(s16(v[0] & 0xffff) * byte(2) + s16(v[0] >> 16) * byte(3) + s(v[2]))
        }),
        ("dp2a.lo.s32.s32 %d, %a, %b, %c;", WWW, "b32", |v| {
            let byte = |at| i128::from(byte(v[1], at) as u8 as i8);
            w(s16(v[0] & 0xffff) * byte(0) + s16(v[0] >> 16) * byte(1) + s(v[2]))
        }),
    ]);
}

#[test]
fn masks_and_packs() {
    fn saturated(v: u64, low: i128, high: i128, mask: u64) -> u64 {
        s(v).clamp(low, high) as u64 & mask
    }
    check(&[
        ("bmsk.clamp.b32 %d, %a, %b;", WW, "b32", |v| {
            let (at, count) = (v[0].min(32), v[1].min(32));
            (((1u128 << count) - 1) << at) as u64 & 0xffff_ffff
        }),
        ("bmsk.wrap.b32 %d, %a, %b;", WW, "b32", |v| (((1u64 << (v[1] & 31)) - 1) << (v[0] & 31)) & 0xffff_ffff),
        ("cvt.pack.sat.u8.s32.b32 %d, %a, %b, %c;", WWW, "b32", |v| {
            (v[2] << 16 & 0xffff_0000) | saturated(v[0], 0, 255, 0xff) << 8 | saturated(v[1], 0, 255, 0xff)
        }),
        ("cvt.pack.sat.s8.s32.b32 %d, %a, %b, %c;", WWW, "b32", |v| {
            (v[2] << 16 & 0xffff_0000) | saturated(v[0], -128, 127, 0xff) << 8 | saturated(v[1], -128, 127, 0xff)
        }),
        ("cvt.pack.sat.s16.s32 %d, %a, %b;", WW, "b32", |v| {
            saturated(v[0], -0x8000, 0x7fff, 0xffff) << 16 | saturated(v[1], -0x8000, 0x7fff, 0xffff)
        }),
        ("cvt.pack.sat.u16.s32 %d, %a, %b;", WW, "b32", |v| {
            saturated(v[0], 0, 0xffff, 0xffff) << 16 | saturated(v[1], 0, 0xffff, 0xffff)
        }),
    ]);
}

#[test]
fn video_instructions() {
    check(&[
        ("vadd.s32.u32.s32.sat %d, %a, %b;", WW, "b32", |v| w(clamp32(i128::from(v[0]) + s(v[1])))),
        ("vadd.u32.u32.u32 %d, %a, %b;", WW, "b32", |v| (v[0] + v[1]) & 0xffff_ffff),
        ("vsub.u32.u32.u32.sat %d, %a, %b;", WW, "b32", |v| v[0].saturating_sub(v[1])),
        ("vabsdiff.u32.s32.s32.add %d, %a, %b, %c;", WWW, "b32", |v| w((s(v[0]) - s(v[1])).abs() + i128::from(v[2]))),
        ("vmin.s32.s32.u32 %d, %a, %b;", WW, "b32", |v| w(s(v[0]).min(i128::from(v[1])))),
        ("vmax.s32.s32.s32.min %d, %a, %b, %c;", WWW, "b32", |v| w(s(w(s(v[0]).max(s(v[1])))).min(s(v[2])))),
        ("vadd.s32.s32.s32 %d, %a.b1, %b.h1;", WW, "b32", |v| {
            w(i128::from(byte(v[0], 1) as u8 as i8) + s16(v[1] >> 16))
        }),
        ("vadd.u32.u32.u32.sat %d.b2, %a.b0, %b.b3, %c;", WWW, "b32", |v| {
            (v[2] & 0xff00_ffff) | (byte(v[0], 0) + byte(v[1], 3)).min(255) << 16
        }),
        ("vshr.u32.u32.u32.clamp %d, %a, %b;", WW, "b32", |v| v[0] >> v[1].min(32)),
        ("vshr.s32.s32.u32.wrap.add %d, %a, %b, %c;", WWW, "b32", |v| w((s(v[0]) >> (v[1] & 31)) + s(v[2]))),
        ("vshl.u32.u32.u32.clamp %d, %a, %b;", WW, "b32", |v| (v[0] << v[1].min(32)) & 0xffff_ffff),
    ]);
}

#[test]
fn comparisons_combined_with_a_predicate() {
    // The third operand is whether the first is odd.
    fn odd(v: &[u64]) -> bool {
        v[0] & 1 == 1
    }
    fn ones(on: bool) -> u64 {
        if on { 0xffff_ffff } else { 0 }
    }
    let cases: [(&str, Oracle); 4] = [
        ("set.lt.and.u32.s32 %d, %a, %b, %p;", |v| ones(s(v[0]) < s(v[1]) && odd(v))),
        ("set.eq.or.u32.u32 %d, %a, %b, !%p;", |v| ones(v[0] == v[1] || !odd(v))),
        ("set.hs.xor.f32.u32 %d, %a, %b, %p;", |v| if (v[0] >= v[1]) != odd(v) { 0x3f80_0000 } else { 0 }),
        ("set.neu.and.ftz.u32.f32 %d, %a, %b, %p;", |v| {
            let flush = |v: u64| if f(v).is_subnormal() { 0.0 } else { f(v) };
            ones(flush(v[0]) != flush(v[1]) && odd(v))
        }),
    ];
    for (inst, formula) in cases {
        let types: &[&str] = if inst.contains("u32.f32") { FF } else { WW };
        let text =
            format!("{{\n.reg .b32 low;\nmov.b32 low, %a;\nand.b32 low, low, 1;\nsetp.ne.u32 %p, low, 0;\n{inst}\n}}");
        let rows = combinations(types);
        let got = apply(&text, types, "b32", &rows);
        for (row, got) in rows.iter().zip(got) {
            assert_eq!(got, formula(row), "{inst} of {row:x?}");
        }
    }
}

#[test]
fn halves_flushed_before_they_are_compared() {
    fn flush(v: u64) -> u64 {
        if v & 0x7c00 == 0 { v & 0x8000 } else { v }
    }
    fn value(v: u64) -> f64 {
        half::f16::from_bits(flush(v) as u16).to_f64()
    }
    fn bits(x: f64) -> u64 {
        u64::from(half::f16::from_f64(x).to_bits())
    }
    fn pick(v: &[u64], max: bool) -> u64 {
        let (a, b) = (value(v[0]), value(v[1]));
        match (a.is_nan(), b.is_nan()) {
            (true, true) => 0x7fff,
            (true, false) => bits(b),
            (false, true) => bits(a),
            _ if a == b && a == 0.0 => {
                let signs = [v[0] & 0x8000, v[1] & 0x8000];
                if max { signs[0] & signs[1] } else { signs[0] | signs[1] }
            }
            _ => bits(if max { a.max(b) } else { a.min(b) }),
        }
    }
    check(&[
        ("min.ftz.f16 %d, %a, %b;", &["b16", "b16"], "b16", |v| pick(v, false)),
        ("max.ftz.f16 %d, %a, %b;", &["b16", "b16"], "b16", |v| pick(v, true)),
        ("max.ftz.NaN.f16 %d, %a, %b;", &["b16", "b16"], "b16", |v| {
            if value(v[0]).is_nan() || value(v[1]).is_nan() { 0x7fff } else { pick(v, true) }
        }),
        ("set.lt.ftz.u32.f16 %d, %a, %b;", &["b16", "b16"], "b32", |v| {
            if value(v[0]) < value(v[1]) { 0xffff_ffff } else { 0 }
        }),
    ]);
}

#[test]
fn doubles_in_directed_modes() {
    fn same(x: f64) -> u64 {
        x.to_bits()
    }
    // Where the sum is exact, every mode gives it; elsewhere the neighbour on the side of the error.
    fn sum(a: f64, b: f64, up: bool) -> u64 {
        let nearest = a + b;
        let back = nearest - a;
        let error = (a - (nearest - back)) + (b - back);
        match (up, nearest.is_finite() && error.is_finite()) {
            (_, false) => same(nearest),
            (true, _) if error > 0.0 => same(nearest.next_up()),
            (false, _) if error < 0.0 => same(nearest.next_down()),
            (false, _) if nearest == 0.0 && (a.is_sign_negative() || b.is_sign_negative()) => same(-0.0),
            _ => same(nearest),
        }
    }
    let finite = |rows: Vec<Vec<u64>>| -> Vec<Vec<u64>> {
        // Sums that overflow are the unit tests' business.
        rows.into_iter().filter(|row| row.iter().all(|v| d(*v).abs() < 1e300)).collect()
    };
    for (inst, up) in [("add.rp.f64 %d, %a, %b;", true), ("add.rm.f64 %d, %a, %b;", false)] {
        let rows = finite(combinations(FF64));
        for (row, got) in rows.iter().zip(apply(inst, FF64, "f64", &rows)) {
            assert_eq!(got, sum(d(row[0]), d(row[1]), up), "{inst} of {row:x?}");
        }
    }
    check(&[
        ("rsqrt.approx.f64 %d, %a;", &["f64"], "f64", |v| {
            let x = d(v[0]);
            if x < 0.0 { 0xfff8_0000_0000_0000 } else { (1.0 / x.sqrt()).to_bits() }
        }),
        ("rcp.approx.ftz.f64 %d, %a;", &["f64"], "f64", |v| {
            let x = if d(v[0]).is_subnormal() { 0f64.copysign(d(v[0])) } else { d(v[0]) };
            let upper = f64::from_bits((1.0 / x).to_bits() & !0xffff_ffff);
            if upper.is_subnormal() { 0f64.copysign(upper).to_bits() } else { upper.to_bits() }
        }),
    ]);
    let one_third =
        apply("div.rz.f64 %d, %a, %b;", FF64, "f64", &[vec![same(1.0), same(3.0)], vec![same(2.0), same(3.0)]]);
    assert_eq!(one_third, [0x3fd5_5555_5555_5555, 0x3fe5_5555_5555_5555]);
    let root = apply("sqrt.rp.f64 %d, %a;", &["f64"], "f64", &[vec![same(2.0)], vec![same(4.0)]]);
    assert_eq!(root, [0x3ff6_a09e_667f_3bcd, same(2.0)]);
}

#[test]
fn integers_saturated_as_floats() {
    fn unit(x: f64) -> f64 {
        x.clamp(0.0, 1.0)
    }
    check(&[
        ("cvt.rn.sat.f32.s32 %d, %a;", W, "f32", |v| b32(unit(s(v[0]) as f64) as f32)),
        ("cvt.rz.sat.f32.u32 %d, %a;", W, "f32", |v| b32(unit(v[0] as f64) as f32)),
        ("cvt.rn.sat.f64.s32 %d, %a;", W, "f64", |v| unit(s(v[0]) as f64).to_bits()),
        ("cvt.rm.sat.f64.u64 %d, %a;", &["b64"], "f64", |v| unit(v[0] as f64).to_bits()),
        ("cvt.rn.sat.f16.s16 %d, %a;", &["b16"], "b16", |v| if s16(v[0]) > 0 { 0x3c00 } else { 0 }),
        ("cvt.rna.tf32.f32 %d, %a;", F, "b32", |v| {
            // What is no number loses its low bits, unrounded: a NaN whose payload was there becomes an infinity.
            (if f(v[0]).is_finite() { v[0] + 0x1000 } else { v[0] }) & 0xffff_e000
        }),
    ]);
}
