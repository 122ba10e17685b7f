//! Conversions, exhaustive where the format is small, packed halves, and the error bounds of
//! approximations.

mod rows;

use rows::*;

#[test]
fn half_conversions_are_exhaustive() {
    let rows: Vec<Vec<u64>> = (0..=0xffffu64).map(|v| vec![v]).collect();
    for (row, got) in rows.iter().zip(apply("cvt.f32.f16 %d, %a;", &["b16"], "f32", &rows)) {
        let want = half::f16::from_bits(row[0] as u16).to_f32();
        assert!(f(got).to_bits() == want.to_bits() || f(got).is_nan() && want.is_nan(), "{row:x?}");
    }
    // Every f32 next to a f16 or halfway between two.
    let near: Vec<Vec<u64>> = (0..0x7c00u64)
        .flat_map(|h| {
            let (low, high) = (half::f16::from_bits(h as u16), half::f16::from_bits(h as u16 + 1));
            let middle = (low.to_f64() + high.to_f64().min(65536.0)) / 2.0;
            let middle = b32(middle as f32);
            [b32(low.to_f32()), middle - 1, middle, middle + 1, (middle + 1) | 0x8000_0000].map(|v| vec![v])
        })
        .collect();
    for (row, got) in near.iter().zip(apply("cvt.rn.f16.f32 %d, %a;", F, "b16", &near)) {
        assert_eq!(got, u64::from(half::f16::from_f32(f(row[0])).to_bits()), "{:e}", f(row[0]));
    }
    let nan = apply("cvt.rn.f16.f32 %d, %a;", F, "b16", &[vec![b32(f32::NAN)]]);
    assert_eq!(nan, [0x7fff]);
    for (row, got) in near.iter().zip(apply("cvt.rn.bf16.f32 %d, %a;", F, "b16", &near)) {
        assert_eq!(got, u64::from(half::bf16::from_f32(f(row[0])).to_bits()), "{:e}", f(row[0]));
    }
}

/// Value of an e4m3 or e5m2 code.
fn fp8(code: u64, fraction: u32, bias: i32) -> f64 {
    let sign = if code & 0x80 != 0 { -1.0 } else { 1.0 };
    let exponent = ((code & 0x7f) >> fraction) as i32;
    let part = (code & ((1 << fraction) - 1)) as f64 / f64::from(1u32 << fraction);
    let value = if exponent == 0 { part * 2f64.powi(1 - bias) } else { (1.0 + part) * 2f64.powi(exponent - bias) };
    sign * value
}

#[test]
fn fp8_conversions_are_exhaustive() {
    for (name, fraction, bias, last) in [("e4m3x2", 3, 7, 0x7eu64), ("e5m2x2", 2, 15, 0x7b)] {
        let value = |code: u64| fp8(code, fraction, bias);
        // Decoding: both bytes of every pair that has a finite value.
        let rows: Vec<Vec<u64>> = (0..=0xffffu64).map(|v| vec![v]).collect();
        let decode = format!("cvt.rn.f16x2.{name} %d, %a;");
        for (row, got) in rows.iter().zip(apply(&decode, &["b16"], "b32", &rows)) {
            for byte in 0..2 {
                let code = row[0] >> (8 * byte) & 0xff;
                let out = half::f16::from_bits((got >> (16 * byte)) as u16);
                if code & 0x7f <= last {
                    assert_eq!(out.to_f64(), value(code), "{name} {code:#x}");
                } else if code & 0x7f == 0x7c && fraction == 2 {
                    assert!(out.is_infinite());
                } else {
                    assert!(out.is_nan(), "{name} {code:#x}");
                }
            }
        }
        // Encoding: the nearest code, ties to even, saturating; first source in the upper byte.
        let encode = format!("cvt.rn.satfinite.{name}.f32 %d, %a, %b;");
        let mut rows = Vec::new();
        let mut wants = Vec::new();
        for code in 0..last {
            let (low, high) = (value(code), value(code + 1));
            let middle = (low + high) / 2.0;
            let even = code + (code & 1);
            let up = f64::from((middle as f32).next_up());
            let down = f64::from((middle as f32).next_down());
            for (x, want) in [(low, code), (down, code), (middle, even), (up, code + 1)] {
                rows.push(vec![b32(-(x as f32)), b32(x as f32)]);
                wants.push((0x80 | want) << 8 | want);
            }
        }
        for (x, want) in [(1e30f32, last), (f32::INFINITY, last)] {
            rows.push(vec![b32(-x), b32(x)]);
            wants.push((0x80 | want) << 8 | want);
        }
        for ((row, got), want) in rows.iter().zip(apply(&encode, FF, "b16", &rows)).zip(&wants) {
            assert_eq!(got, *want, "{name} of {:e}", f(row[1]));
        }
        let nan = apply(&encode, FF, "b16", &[vec![b32(f32::NAN), 0]]);
        assert_eq!(nan[0] >> 8 & 0x7f, 0x7f);
    }
}

#[test]
fn packed_halves() {
    let values: Vec<u64> =
        [0u16, 0x8000, 1, 0x83ff, 0x0400, 0x3c00, 0xbc01, 0x3555, 0x7bff, 0xfbff, 0x7c00, 0xfc00, 0x4248]
            .into_iter()
            .map(u64::from)
            .collect();
    let rows: Vec<Vec<u64>> =
        values.iter().flat_map(|&a| values.iter().map(move |&b| vec![a << 16 | b, b << 16 | a, 0x3c00_b800])).collect();
    type Exact = fn(f64, f64, f64) -> f64;
    let cases: [(&str, Exact); 4] = [
        ("add.f16x2 %d, %a, %b;", |a, b, _| a + b),
        ("sub.f16x2 %d, %a, %b;", |a, b, _| a - b),
        ("mul.f16x2 %d, %a, %b;", |a, b, _| a * b),
        ("fma.rn.f16x2 %d, %a, %b, %c;", |a, b, c| a * b + c),
    ];
    for (inst, exact) in cases {
        for (row, got) in rows.iter().zip(apply(inst, WWW, "b32", &rows)) {
            for shift in [0, 16] {
                let x = |i: usize| half::f16::from_bits((row[i] >> shift) as u16).to_f64();
                // Sums and products of halves are exact in f64, so one rounding is left; going
                // through f32 first would round twice.
                let want = round_to_half(exact(x(0), x(1), x(2)));
                let out = half::f16::from_bits((got >> shift) as u16);
                assert!(out.to_f64() == want || out.is_nan() && want.is_nan(), "{inst} {row:x?}: {out} want {want}");
            }
        }
    }
    let ones = apply("neg.f16x2 %d, %a;", W, "b32", &[vec![0x3c00_bc00]]);
    assert_eq!(ones, [0xbc00_3c00]);
    let both = apply("max.f16x2 %d, %a, %b;", WW, "b32", &[vec![0x7e00_3c00, 0x4000_bc00]]);
    assert_eq!(both, [0x4000_3c00]);
}

/// Nearest half, found among the neighbours of a first guess.
fn round_to_half(x: f64) -> f64 {
    if x.is_nan() || x.abs() >= 65520.0 {
        return if x.is_nan() { x } else { f64::INFINITY.copysign(x) };
    }
    let guess = half::f16::from_f32(x as f32).to_bits();
    let around = [guess.wrapping_sub(1), guess, guess.wrapping_add(1)];
    let finite = around.into_iter().filter(|&b| half::f16::from_bits(b).is_finite());
    let best = finite.min_by(|&a, &b| {
        let distance = |bits: u16| (half::f16::from_bits(bits).to_f64() - x).abs();
        distance(a).total_cmp(&distance(b)).then((a & 1).cmp(&(b & 1)))
    });
    best.map_or(f64::NAN, |bits| half::f16::from_bits(bits).to_f64())
}

#[test]
fn conversions_of_numbers() {
    check(&[
        ("cvt.s64.s32 %d, %a;", W, "b64", |v| s(v[0]) as u64),
        ("cvt.u64.u32 %d, %a;", W, "b64", |v| v[0]),
        ("cvt.u32.u64 %d, %a;", &["b64"], "b32", |v| v[0] & 0xffff_ffff),
        ("cvt.s32.s8 %d, %a;", W, "b32", |v| w(i128::from(v[0] as i8))),
        ("cvt.u32.u16 %d, %a;", &["b16"], "b32", |v| v[0]),
        ("cvt.s32.s16 %d, %a;", &["b16"], "b32", |v| w(s16(v[0]))),
        ("cvt.u16.u32 %d, %a;", W, "b16", |v| v[0] & 0xffff),
        ("cvt.sat.s8.s32 %d, %a;", W, "b32", |v| w(s(v[0]).clamp(-128, 127))),
        ("cvt.rn.f32.s32 %d, %a;", W, "f32", |v| b32(v[0] as u32 as i32 as f32)),
        ("cvt.rn.f32.u32 %d, %a;", W, "f32", |v| b32(v[0] as u32 as f32)),
        ("cvt.rn.f32.s64 %d, %a;", &["b64"], "f32", |v| b32(v[0] as i64 as f32)),
        ("cvt.rn.f64.s64 %d, %a;", &["b64"], "f64", |v| (v[0] as i64 as f64).to_bits()),
        ("cvt.rzi.s32.f32 %d, %a;", F, "b32", |v| u64::from(f(v[0]) as i32 as u32)),
        ("cvt.rzi.ftz.s32.f32 %d, %a;", F, "b32", |v| u64::from(f(v[0]) as i32 as u32)),
        ("cvt.rzi.u32.f32 %d, %a;", F, "b32", |v| u64::from(f(v[0]) as u32)),
        ("cvt.rni.s32.f32 %d, %a;", F, "b32", |v| u64::from(f(v[0]).round_ties_even() as i32 as u32)),
        ("cvt.rmi.s32.f32 %d, %a;", F, "b32", |v| u64::from(f(v[0]).floor() as i32 as u32)),
        ("cvt.rpi.f32.f32 %d, %a;", F, "f32", |v| b32(f(v[0]).ceil())),
        ("cvt.f64.f32 %d, %a;", F, "f64", |v| f64::from(f(v[0])).to_bits()),
        ("cvt.rn.f32.f64 %d, %a;", &["f64"], "f32", |v| b32(d(v[0]) as f32)),
        ("cvt.sat.f32.f32 %d, %a;", F, "f32", |v| {
            b32(if f(v[0]).is_nan() { 0.0 } else { f(v[0]).clamp(0.0, 1.0) + 0.0 })
        }),
    ]);
}

/// What a GPU gives: a signed result fills its register by its sign, whatever the register's width.
#[test]
fn narrow_results_are_extended_to_the_register() {
    check(&[
        ("cvt.s16.s8 %d, %a;", W, "b32", |v| w(i128::from(v[0] as i8))),
        ("cvt.s16.s32 %d, %a;", W, "b32", |v| w(s16(v[0] & 0xffff))),
        ("cvt.s16.s64 %d, %a;", &["b64"], "b64", |v| i64::from(v[0] as i16) as u64),
        ("cvt.u16.s32 %d, %a;", W, "b32", |v| v[0] & 0xffff),
        ("cvt.s8.s32 %d, %a;", W, "b16", |v| u64::from(i16::from(v[0] as i8) as u16)),
        ("cvt.u8.s32 %d, %a;", W, "b16", |v| v[0] & 0xff),
        ("cvt.rni.s16.f32 %d, %a;", F, "b32", |v| w(i128::from(f(v[0]).round_ties_even() as i16))),
        ("cvt.rzi.s8.f32 %d, %a;", F, "b16", |v| u64::from(i16::from(f(v[0]) as i8) as u16)),
        ("cvt.rzi.u16.f32 %d, %a;", F, "b32", |v| u64::from(f(v[0]) as u16)),
        ("cvt.sat.s16.s32 %d, %a;", W, "b32", |v| w(s(v[0]).clamp(-32768, 32767))),
        ("cvt.sat.s8.s16 %d, %a;", &["b16"], "b16", |v| w(s16(v[0]).clamp(-128, 127)) & 0xffff),
    ]);
}

/// In [0, 1], with 0 for NaN.
fn unit(x: f64) -> f64 {
    if x > 0.0 { x.min(1.0) } else { 0.0 }
}

#[test]
fn saturation_is_obeyed_by_every_float_type() {
    const H: &[&str] = &["b16"];
    let half = |bits: u64| half::f16::from_bits(bits as u16).to_f64();
    check(&[
        ("cvt.sat.f64.f32 %d, %a;", F, "f64", |v| unit(f64::from(f(v[0]))).to_bits()),
        ("cvt.ftz.sat.f64.f32 %d, %a;", F, "f64", |v| {
            unit(f64::from(if f(v[0]).is_subnormal() { 0.0 } else { f(v[0]) })).to_bits()
        }),
        ("cvt.rzi.sat.f64.f64 %d, %a;", &["f64"], "f64", |v| unit(d(v[0]).trunc()).to_bits()),
    ]);
    let rows: Vec<Vec<u64>> = (0..=0xffff).map(|bits| vec![bits]).collect();
    for (row, got) in rows.iter().zip(apply("cvt.sat.f64.f16 %d, %a;", H, "f64", &rows)) {
        assert_eq!(d(got), unit(half(row[0])), "{:#x}", row[0]);
    }
    type Rounding = fn(f64) -> f64;
    let rounds = [f64::round_ties_even as Rounding, f64::trunc, f64::floor, f64::ceil];
    for (word, round) in ["rni", "rzi", "rmi", "rpi"].into_iter().zip(rounds) {
        for (row, got) in rows.iter().zip(apply(&format!("cvt.{word}.sat.f16.f16 %d, %a;"), H, "b16", &rows)) {
            assert_eq!(half(got), unit(round(half(row[0]))), "{word} {:#x}", row[0]);
        }
    }
}

/// Bound of an approximation in units of the last place of the result.
fn within_ulps(inst: &str, bound: f64, reference: fn(f64) -> f64) {
    let mut rows: Vec<Vec<u64>> = Vec::new();
    let mut state = 1u64;
    for _ in 0..20_000 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let exponent = 100 + (state >> 40) % 33;
        rows.push(vec![(state >> 20 & 0x7f_ffff) | exponent << 23 | (state >> 63) << 31]);
    }
    for (row, got) in rows.iter().zip(apply(inst, F, "f32", &rows)) {
        let want = reference(f64::from(f(row[0])));
        if !want.is_finite() || want.abs() < f64::from(f32::MIN_POSITIVE) || want.abs() > f64::from(f32::MAX) {
            continue;
        }
        let ulp = f64::from((want as f32).abs().next_up() - (want as f32).abs());
        let error = (f64::from(f(got)) - want).abs() / ulp;
        assert!(error <= bound, "{inst} of {:e}: {:e}, want {want:e}, {error} ulp", f(row[0]), f(got));
    }
}

#[test]
fn approximations_stay_within_their_bounds() {
    within_ulps("ex2.approx.f32 %d, %a;", 1.0, f64::exp2);
    within_ulps("ex2.approx.ftz.f32 %d, %a;", 1.0, f64::exp2);
    within_ulps("rcp.approx.f32 %d, %a;", 1.0, |x| 1.0 / x);
    within_ulps("sqrt.approx.f32 %d, %a;", 1.0, f64::sqrt);
    within_ulps("rsqrt.approx.f32 %d, %a;", 1.0, |x| 1.0 / x.sqrt());
    within_ulps("lg2.approx.f32 %d, %a;", 1.0, f64::log2);
    within_ulps("tanh.approx.f32 %d, %a;", 1.0, f64::tanh);
    let whole: Vec<Vec<u64>> = (-160..130).map(|i| vec![b32(i as f32)]).collect();
    for (row, got) in whole.iter().zip(apply("ex2.approx.f32 %d, %a;", F, "f32", &whole)) {
        assert_eq!(f(got), f64::from(f(row[0])).exp2() as f32);
    }
    let special = [f32::NEG_INFINITY, f32::INFINITY, f32::NAN].map(|x| vec![b32(x)]);
    let got = apply("ex2.approx.ftz.f32 %d, %a;", F, "f32", &special);
    assert_eq!((f(got[0]), f(got[1]), f(got[2]).is_nan()), (0.0, f32::INFINITY, true));
}
