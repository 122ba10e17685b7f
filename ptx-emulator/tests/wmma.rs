//! `wmma` of every shape and type that is not f16 in 16x16x16: loads, products and stores against sums on the host.

use std::fmt::Write as _;

use ptx_emulator::{Checks, Launch, Memory, MmaModel, Module, Params, run};

/// One product: shape, factor types, sum type, and the registers of each fragment.
struct Case {
    shape: &'static str,
    mnk: [usize; 3],
    a: &'static str,
    b: &'static str,
    sum: &'static str,
    registers: [usize; 3],
}

const CASES: [Case; 13] = [
    case("m16n16k16", [16, 16, 16], "bf16", "bf16", "f32", [4, 4, 8]),
    case("m32n8k16", [32, 8, 16], "bf16", "bf16", "f32", [8, 2, 8]),
    case("m8n32k16", [8, 32, 16], "bf16", "bf16", "f32", [2, 8, 8]),
    case("m32n8k16", [32, 8, 16], "f16", "f16", "f32", [8, 8, 8]),
    case("m8n32k16", [8, 32, 16], "f16", "f16", "f32", [8, 8, 8]),
    case("m32n8k16", [32, 8, 16], "f16", "f16", "f16", [8, 8, 4]),
    case("m8n32k16", [8, 32, 16], "f16", "f16", "f16", [8, 8, 4]),
    case("m16n16k16", [16, 16, 16], "s8", "s8", "s32", [2, 2, 8]),
    case("m32n8k16", [32, 8, 16], "u8", "u8", "s32", [4, 1, 8]),
    case("m8n32k16", [8, 32, 16], "s8", "s8", "s32", [1, 4, 8]),
    case("m8n32k16", [8, 32, 16], "u8", "u8", "s32", [1, 4, 8]),
    case("m16n16k8", [16, 16, 8], "tf32", "tf32", "f32", [4, 4, 8]),
    case("m8n8k4", [8, 8, 4], "f64", "f64", "f64", [1, 1, 2]),
];

const fn case(
    shape: &'static str,
    mnk: [usize; 3],
    a: &'static str,
    b: &'static str,
    sum: &'static str,
    registers: [usize; 3],
) -> Case {
    Case { shape, mnk, a, b, sum, registers }
}

fn bytes_of(word: &str) -> usize {
    match word {
        "s8" | "u8" => 1,
        "f16" | "bf16" => 2,
        "f64" => 8,
        _ => 4,
    }
}

/// Small whole numbers are exact in every format.
fn value(word: &str, at: usize) -> f64 {
    let raw = ((at * 7 + at / 5) % 15) as f64;
    if word == "u8" { raw } else { raw - 7.0 }
}

fn encode(word: &str, x: f64) -> Vec<u8> {
    match word {
        "s8" => vec![x as i8 as u8],
        "u8" => vec![x as u8],
        "f16" => half::f16::from_f64(x).to_bits().to_le_bytes().to_vec(),
        "bf16" => half::bf16::from_f64(x).to_bits().to_le_bytes().to_vec(),
        "s32" => (x as i32).to_le_bytes().to_vec(),
        "f64" => x.to_le_bytes().to_vec(),
        // The lowest bits of a tf32 are not read.
        "tf32" => ((x as f32).to_bits() | 0x1abc).to_le_bytes().to_vec(),
        _ => (x as f32).to_le_bytes().to_vec(),
    }
}

fn decode(word: &str, bytes: &[u8]) -> f64 {
    let word32 = || u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    match word {
        "f16" => half::f16::from_bits(u16::from_le_bytes([bytes[0], bytes[1]])).to_f64(),
        "s32" => f64::from(word32() as i32),
        "f64" => f64::from_le_bytes(bytes.try_into().expect("eight bytes")),
        _ => f64::from(f32::from_bits(word32())),
    }
}

/// A kernel that multiplies one tile; `layouts` are those of a, b and the sums.
fn source(case: &Case, layouts: [&str; 3], padding: usize) -> String {
    let [m, n, k] = case.mnk;
    let lead = |layout: &str, rows: usize, columns: usize| padding + if layout == "row" { columns } else { rows };
    let list = |prefix: &str, count: usize| {
        let names: Vec<String> = (0..count).map(|i| format!("{prefix}{i}")).collect();
        format!("{{{}}}", names.join(", "))
    };
    let [a_count, b_count, c_count] = case.registers;
    let (factor, sums) = match (case.a, case.sum) {
        ("f64", _) => ("f64", "f64"),
        (_, "f32") => ("b32", "f32"),
        _ => ("b32", "b32"),
    };
    let types = match case.a {
        "f16" => format!("{0}.{0}", case.sum),
        _ => format!("{0}.{1}.{2}.{0}", case.sum, case.a, case.b),
    };
    let mut text = String::from(".version 8.8\n.target sm_80\n.address_size 64\n");
    let _ = writeln!(text, ".visible .entry k(.param .u64 pa, .param .u64 pb, .param .u64 pc, .param .u64 pd)\n{{");
    let _ = writeln!(text, ".reg .b64 %ra, %rb, %rc, %rd;");
    let _ = writeln!(text, ".reg .{factor} a<{a_count}>, b<{b_count}>;\n.reg .{sums} c<{c_count}>, d<{c_count}>;");
    for (reg, param) in [("%ra", "pa"), ("%rb", "pb"), ("%rc", "pc"), ("%rd", "pd")] {
        let _ = writeln!(text, "ld.param.u64 {reg}, [{param}];");
    }
    let shape = case.shape;
    let (a, b, c) = (list("a", a_count), list("b", b_count), list("c", c_count));
    let [la, lb, lc] = layouts;
    let _ = writeln!(text, "wmma.load.a.sync.aligned.{la}.{shape}.global.{} {a}, [%ra], {};", case.a, lead(la, m, k));
    let _ = writeln!(text, "wmma.load.b.sync.aligned.{lb}.{shape}.global.{} {b}, [%rb], {};", case.b, lead(lb, k, n));
    let _ = writeln!(text, "wmma.load.c.sync.aligned.{lc}.{shape}.global.{} {c}, [%rc], {};", case.sum, lead(lc, m, n));
    let _ = writeln!(text, "wmma.mma.sync.aligned.{la}.{lb}.{shape}.{types} {}, {a}, {b}, {c};", list("d", c_count));
    let d = list("d", c_count);
    let _ =
        writeln!(text, "wmma.store.d.sync.aligned.{lc}.{shape}.global.{} [%rd], {d}, {};", case.sum, lead(lc, m, n));
    text.push_str("ret;\n}\n");
    text
}

/// A matrix in memory, padded, and the value at each place.
fn matrix(word: &str, layout: &str, rows: usize, columns: usize, padding: usize, seed: usize) -> (Vec<u8>, Vec<f64>) {
    let values: Vec<f64> = (0..rows * columns).map(|i| value(word, i + seed)).collect();
    let (lines, length) = if layout == "row" { (rows, columns) } else { (columns, rows) };
    let mut bytes = Vec::new();
    for line in 0..lines {
        for at in 0..length + padding {
            let x = match (at < length, layout) {
                (false, _) => 99.0,
                (_, "row") => values[line * columns + at],
                _ => values[at * columns + line],
            };
            bytes.extend(encode(word, x));
        }
    }
    (bytes, values)
}

fn multiply(case: &Case, layouts: [&str; 3], padding: usize, checks: Checks) {
    let [m, n, k] = case.mnk;
    let text = source(case, layouts, padding);
    let module = Module::parse(&text).unwrap_or_else(|e| panic!("{text}: {e}"));
    let kernel = module.entry("k").unwrap_or_else(|e| panic!("{text}: {e}"));
    let mut memory = Memory::new(&module);
    let (a_bytes, a) = matrix(case.a, layouts[0], m, k, padding, 1);
    let (b_bytes, b) = matrix(case.b, layouts[1], k, n, padding, 2);
    let (c_bytes, c) = matrix(case.sum, layouts[2], m, n, padding, 3);
    let mut put = |name: &str, bytes: &[u8]| memory.alloc_from(name, bytes).expect("fits");
    let params = Params::new().pointer(put("a", &a_bytes)).pointer(put("b", &b_bytes)).pointer(put("c", &c_bytes));
    let out = memory.alloc("d", c_bytes.len()).expect("fits");
    let mut launch = Launch::new([1, 1, 1], [32, 1, 1], params.pointer(out).finish());
    launch.checks = checks;
    launch.mma_model = MmaModel::Sm80;
    let outcome = run(&kernel, &memory, &launch).expect("valid launch");
    assert!(outcome.is_clean(), "{text}: {:?}", outcome.findings);
    let (bytes, got) = (bytes_of(case.sum), memory.read(out).expect("own buffer"));
    for row in 0..m {
        for column in 0..n {
            let wanted = c[row * n + column] + (0..k).map(|i| a[row * k + i] * b[i * n + column]).sum::<f64>();
            let at = match layouts[2] {
                "row" => row * (n + padding) + column,
                _ => column * (m + padding) + row,
            };
            let value = decode(case.sum, &got[at * bytes..(at + 1) * bytes]);
            assert_eq!(value, wanted, "{} {} at {row}, {column}, {layouts:?}", case.shape, case.a);
        }
    }
}

#[test]
fn fragments_of_every_shape_and_type_multiply() {
    for case in &CASES {
        for layouts in [["row", "col", "row"], ["col", "row", "col"], ["row", "row", "row"]] {
            for padding in [0, 16] {
                multiply(case, layouts, padding, Checks::all());
                multiply(case, layouts, padding, Checks::none());
            }
        }
    }
}

#[test]
fn products_of_tf32_and_f64_outside_of_wmma() {
    let text = "
        .version 8.8
        .target sm_80
        .address_size 64
        .visible .entry k(.param .u64 out)
        {
            .reg .b32 %r<8>;
            .reg .f32 %f<8>;
            .reg .f64 %fd<8>;
            .reg .b64 %rd<4>;
            ld.param.u64 %rd1, [out];
            mov.u32 %r1, %laneid;
            // Row r of the first factor is r, every column of the second is its number.
            shr.u32 %r2, %r1, 2;
            add.u32 %r3, %r2, 8;
            cvt.rn.f32.u32 %f1, %r2;
            cvt.rn.f32.u32 %f2, %r3;
            mov.b32 %r4, %f1;
            mov.b32 %r5, %f2;
            mov.f32 %f3, 0f3F800000;
            mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32
                {%f4, %f5, %f6, %f7}, {%r4, %r5, %r4, %r5}, {%r4, %r4}, {%f3, %f3, %f3, %f3};
            cvt.rn.f64.u32 %fd1, %r2;
            mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%fd2, %fd3}, {%fd1}, {%fd1}, {%fd1, %fd1};
            cvt.rzi.u32.f64 %r6, %fd2;
            cvt.rzi.u32.f64 %r7, %fd3;
            cvt.rzi.u32.f32 %r4, %f5;
            cvt.rzi.u32.f32 %r5, %f6;
            mul.wide.u32 %rd2, %r1, 16;
            add.s64 %rd3, %rd1, %rd2;
            st.global.v4.u32 [%rd3], {%r4, %r5, %r6, %r7};
            ret;
        }";
    let module = Module::parse(text).expect("parses");
    let kernel = module.entry("k").expect("loads");
    let mut memory = Memory::new(&module);
    let out = memory.alloc("out", 512).expect("fits");
    let launch = Launch::new([1, 1, 1], [32, 1, 1], Params::new().pointer(out).finish());
    let outcome = run(&kernel, &memory, &launch).expect("valid launch");
    assert!(outcome.is_clean(), "{:?}", outcome.findings);
    let bytes = memory.read(out).expect("own buffer");
    let words: Vec<u32> = bytes.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word)).collect();
    for lane in 0..32u32 {
        let (row, column) = (lane / 4, 2 * (lane % 4));
        let wanted = [
            8 * row * (column + 1) + 1,
            8 * (row + 8) * column + 1,
            4 * row * column + row,
            4 * row * (column + 1) + row,
        ];
        assert_eq!(words[lane as usize * 4..][..4], wanted, "lane {lane}");
    }
}
