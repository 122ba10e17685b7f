//! One tiny PTX program per instruction, over the cross product of edge values, against formulas
//! in i128 and f64.

use ptx_emulator::{Launch, Memory, Module, Params, run};

/// Formula of an instruction on register bits.
type Oracle = fn(&[u64]) -> u64;

/// Instruction text with operands `%d %a %b %c`, source types, result type, formula.
type Case = (&'static str, &'static [&'static str], &'static str, Oracle);

const WORDS: &[u64] = &[
    0,
    1,
    2,
    7,
    31,
    32,
    33,
    0xff,
    0x8000,
    0xffff,
    0x1_0001,
    0x1234_5678,
    0x7fff_ffff,
    0x8000_0000,
    0x8000_0001,
    0xdead_beef,
    0xffff_fffe,
    0xffff_ffff,
];
const LONGS: &[u64] = &[
    0,
    1,
    3,
    63,
    64,
    0xffff_ffff,
    0x1_0000_0000,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    0x0123_4567_89ab_cdef,
    0xffff_ffff_ffff_fff0,
    u64::MAX,
];
const HALVES: &[u64] = &[0, 1, 2, 15, 16, 17, 0x7fff, 0x8000, 0x8001, 0x00ff, 0xff00, 0xfffe, 0xffff];
const FLOATS: &[u64] = &[
    0,
    0x8000_0000,
    1,
    0x8000_0001,
    0x007f_ffff,
    0x0080_0000,
    0x8080_0000,
    0x3f80_0000,
    0xbf80_0000,
    0x3fc0_0000,
    0x4020_0000,
    0xc060_0000,
    0x3eaa_aaab,
    0x4b00_0001,
    0x4effffff,
    0x4f00_0000,
    0xcf00_0000,
    0x4f80_0000,
    0x7f7f_ffff,
    0xff7f_ffff,
    0x7f80_0000,
    0xff80_0000,
    0x7fc0_0000,
    0xffc0_1234,
    0x3380_0000,
    0x477f_f000,
    0x3300_0000,
];
const DOUBLES: &[u64] = &[
    0,
    0x8000_0000_0000_0000,
    1,
    0x3ff0_0000_0000_0000,
    0xbff8_0000_0000_0000,
    0x4340_0000_0000_0001,
    0x7fef_ffff_ffff_ffff,
    0x7ff0_0000_0000_0000,
    0xfff0_0000_0000_0000,
    0x3690_0000_0000_0000,
    0x3810_0000_0000_0001,
    0x47ef_ffff_f000_0000,
];

fn edges(ty: &str) -> &'static [u64] {
    match ty {
        "f32" => FLOATS,
        "f64" => DOUBLES,
        "b64" | "u64" | "s64" => LONGS,
        "b16" | "u16" | "s16" => HALVES,
        _ => WORDS,
    }
}

fn bytes_of(ty: &str) -> usize {
    match ty {
        "b64" | "u64" | "s64" | "f64" => 8,
        "b16" | "u16" | "s16" => 2,
        _ => 4,
    }
}

/// Every combination of edge values, one list per source.
fn combinations(types: &[&str]) -> Vec<Vec<u64>> {
    types.iter().fold(vec![Vec::new()], |rows, ty| {
        rows.iter().flat_map(|row| edges(ty).iter().map(|v| [row.as_slice(), &[*v]].concat())).collect()
    })
}

/// Program that applies `inst` to one row of sources per thread.
fn program(inst: &str, types: &[&str], out: &str) -> String {
    let mut text = String::from(
        ".version 9.0\n.target sm_89\n.address_size 64\n.visible .entry t(.param .u64 t0, .param .u64 t1)\n{\n\
         .reg .b64 %in, %out, %at, %t;\n.reg .b32 %i, %n;\n.reg .pred %p, %q;\n",
    );
    for (name, ty) in ["a", "b", "c"].iter().zip(types) {
        text += &format!(".reg .{ty} %{name};\n");
    }
    let result = if out == "pred" { "b32" } else { out };
    text += &format!(".reg .{result} %d;\n");
    text += "ld.param.u64 %in, [t0];\nld.param.u64 %out, [t1];\nmov.u32 %i, %tid.x;\nmov.u32 %n, %ctaid.x;\n\
             mad.lo.u32 %i, %n, 256, %i;\n";
    text += &format!("mul.wide.u32 %t, %i, {};\nadd.s64 %at, %in, %t;\n", 8 * types.len());
    for (i, (name, ty)) in ["a", "b", "c"].iter().zip(types).enumerate() {
        let bits = 8 * bytes_of(ty);
        text += &format!("ld.global.b{bits} %{name}, [%at+{}];\n", 8 * i);
    }
    text += inst;
    if out == "pred" {
        text += "\nselp.b32 %d, 1, 0, %p;";
    }
    let bits = 8 * bytes_of(result);
    text += &format!("\nmul.wide.u32 %t, %i, 8;\nadd.s64 %at, %out, %t;\nst.global.b{bits} [%at], %d;\nret;\n}}\n");
    text
}

/// Results of an instruction, one per row of sources.
fn apply(inst: &str, types: &[&str], out: &str, rows: &[Vec<u64>]) -> Vec<u64> {
    let source = program(inst, types, out);
    let module = Module::parse(&source).unwrap_or_else(|e| panic!("{inst}: {e}"));
    let kernel = module.entry("t").unwrap_or_else(|e| panic!("{inst}: {e}"));
    let mut memory = Memory::new(&module);
    let blocks = rows.len().div_ceil(256);
    let mut input: Vec<u8> = rows.iter().flatten().flat_map(|v| v.to_le_bytes()).collect();
    input.resize(blocks * 256 * 8 * types.len(), 0);
    let input = memory.alloc_from("in", &input).expect("fits");
    let output = memory.alloc_from("out", &vec![0; blocks * 256 * 8]).expect("fits");
    let params = Params::new().pointer(input).pointer(output).finish();
    let launch = Launch::new([blocks as u32, 1, 1], [256, 1, 1], params);
    let outcome = run(&kernel, &memory, &launch).expect("valid launch");
    assert!(outcome.is_clean(), "{inst}: {:?}", outcome.findings);
    let bytes = memory.read(output).expect("own buffer");
    let values = bytes.chunks_exact(8).map(|b| u64::from_le_bytes(b.try_into().expect("eight")));
    values.take(rows.len()).collect()
}

/// Runs every case; floats may differ in the payload of a NaN only.
fn check(cases: &[Case]) {
    for (inst, types, out, oracle) in cases {
        let rows = combinations(types);
        for (row, got) in rows.iter().zip(apply(inst, types, out, &rows)) {
            let want = oracle(row);
            let nan = match *out {
                "f32" => f(want).is_nan() && f(got).is_nan(),
                "f64" => d(want).is_nan() && d(got).is_nan(),
                _ => false,
            };
            assert!(nan || got == want, "{inst} of {row:x?}: got {got:#x}, want {want:#x}");
        }
    }
}

fn f(bits: u64) -> f32 {
    f32::from_bits(bits as u32)
}
fn d(bits: u64) -> f64 {
    f64::from_bits(bits)
}
fn b32(x: f32) -> u64 {
    u64::from(x.to_bits())
}
/// Signed value of the low 32 bits.
fn s(v: u64) -> i128 {
    i128::from(v as u32 as i32)
}
fn s64(v: u64) -> i128 {
    i128::from(v as i64)
}
fn s16(v: u64) -> i128 {
    i128::from(v as u16 as i16)
}
fn w(v: i128) -> u64 {
    u64::from(v as u32)
}
fn ftz(v: u64) -> f32 {
    let x = f(v);
    if x.is_subnormal() { 0f32.copysign(x) } else { x }
}
fn flush(x: f32) -> u64 {
    b32(ftz(b32(x)))
}

const W: &[&str] = &["b32"];
const WW: &[&str] = &["b32", "b32"];
const WWW: &[&str] = &["b32", "b32", "b32"];
const DD: &[&str] = &["b64", "b64"];
const DW: &[&str] = &["b64", "b32"];
const HH: &[&str] = &["b16", "b16"];
const FF: &[&str] = &["f32", "f32"];
const FFF: &[&str] = &["f32", "f32", "f32"];
const F: &[&str] = &["f32"];

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
        ("cvt.sat.s8.s32 %d, %a;", W, "b32", |v| w(s(v[0]).clamp(-128, 127)) & 0xff),
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
