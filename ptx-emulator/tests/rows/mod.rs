//! Applies one instruction to rows of values and compares with a formula.

use ptx_emulator::{Launch, Memory, Module, Params, run};

/// Formula of an instruction on register bits.
pub type Oracle = fn(&[u64]) -> u64;

/// Instruction text with operands `%d %a %b %c`, source types, result type, formula.
pub type Case = (&'static str, &'static [&'static str], &'static str, Oracle);

pub const WORDS: &[u64] = &[
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
pub const LONGS: &[u64] = &[
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
pub const HALVES: &[u64] = &[0, 1, 2, 15, 16, 17, 0x7fff, 0x8000, 0x8001, 0x00ff, 0xff00, 0xfffe, 0xffff];
pub const FLOATS: &[u64] = &[
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
pub const DOUBLES: &[u64] = &[
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

pub fn edges(ty: &str) -> &'static [u64] {
    match ty {
        "f32" => FLOATS,
        "f64" => DOUBLES,
        "b64" | "u64" | "s64" => LONGS,
        "b16" | "u16" | "s16" => HALVES,
        _ => WORDS,
    }
}

pub fn bytes_of(ty: &str) -> usize {
    match ty {
        "b64" | "u64" | "s64" | "f64" => 8,
        "b16" | "u16" | "s16" => 2,
        _ => 4,
    }
}

/// Every combination of edge values, one list per source.
pub fn combinations(types: &[&str]) -> Vec<Vec<u64>> {
    types.iter().fold(vec![Vec::new()], |rows, ty| {
        rows.iter().flat_map(|row| edges(ty).iter().map(|v| [row.as_slice(), &[*v]].concat())).collect()
    })
}

/// Program that applies `inst` to one row of sources per thread.
pub fn program(inst: &str, types: &[&str], out: &str) -> String {
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
pub fn apply(inst: &str, types: &[&str], out: &str, rows: &[Vec<u64>]) -> Vec<u64> {
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
pub fn check(cases: &[Case]) {
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

pub fn f(bits: u64) -> f32 {
    f32::from_bits(bits as u32)
}
pub fn d(bits: u64) -> f64 {
    f64::from_bits(bits)
}
pub fn b32(x: f32) -> u64 {
    u64::from(x.to_bits())
}
/// Signed value of the low 32 bits.
pub fn s(v: u64) -> i128 {
    i128::from(v as u32 as i32)
}

pub fn s16(v: u64) -> i128 {
    i128::from(v as u16 as i16)
}
pub fn w(v: i128) -> u64 {
    u64::from(v as u32)
}

pub const W: &[&str] = &["b32"];
pub const WW: &[&str] = &["b32", "b32"];
pub const WWW: &[&str] = &["b32", "b32", "b32"];
pub const FF: &[&str] = &["f32", "f32"];
pub const F: &[&str] = &["f32"];
