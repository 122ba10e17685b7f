//! Tensor-core instructions: layouts that must agree with each other, products against f64, and
//! the models of the sum.

use ptx_emulator::{Launch, Memory, MmaModel, Module, Params, run};

const FP8: &str = include_str!("data/fp8_mma.ptx");
const SYNC: &str = include_str!("data/sync.ptx");

/// Runs a one-warp kernel on byte buffers; the last buffer is returned.
fn warp(source: &str, name: &str, inputs: &[Vec<u8>], out: usize, model: MmaModel) -> Vec<u8> {
    let module = Module::parse(source).unwrap_or_else(|e| panic!("{e}"));
    let kernel = module.entry(name).unwrap_or_else(|e| panic!("{e}"));
    let mut memory = Memory::new(&module);
    let mut params = Params::new();
    for input in inputs {
        params = params.pointer(memory.alloc_from("in", input).expect("fits"));
    }
    let output = memory.alloc("out", out).expect("fits");
    let mut launch = Launch::new([1, 1, 1], [32, 1, 1], params.pointer(output).finish());
    launch.mma_model = model;
    let outcome = run(&kernel, &memory, &launch).expect("valid launch");
    assert!(outcome.is_clean(), "{:?}", outcome.findings);
    assert_eq!(memory.undefined(output, 0..output.bytes()).expect("own buffer"), []);
    memory.read(output).expect("own buffer")
}

fn floats(bytes: &[u8]) -> Vec<f64> {
    bytes.chunks_exact(4).map(|b| f64::from(f32::from_le_bytes(b.try_into().expect("four")))).collect()
}

fn words(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks_exact(4).map(|b| u32::from_le_bytes(b.try_into().expect("four"))).collect()
}

/// Finite FP8 codes of moderate size, signs mixed.
fn codes(count: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    (0..count)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (32 + (state >> 33) % 40) as u8 | ((state >> 60) as u8 & 1) << 7
        })
        .collect()
}

fn e4m3(code: u8) -> f64 {
    decode(code, 3, 7)
}

fn e5m2(code: u8) -> f64 {
    decode(code, 2, 15)
}

fn decode(code: u8, fraction: u32, bias: i32) -> f64 {
    let exponent = i32::from((code & 0x7f) >> fraction);
    let part = f64::from(code & ((1 << fraction) - 1)) / f64::from(1u32 << fraction);
    let value = if exponent == 0 { part * 2f64.powi(1 - bias) } else { (1.0 + part) * 2f64.powi(exponent - bias) };
    if code & 0x80 != 0 { -value } else { value }
}

/// Exact product of 16 x k by k x 8; the second factor is stored column by column.
fn product(a: &[f64], b: &[f64], k: usize) -> Vec<f64> {
    let dot = |i: usize| (0..k).map(|t| a[i / 8 * k + t] * b[i % 8 * k + t]).sum();
    (0..128).map(dot).collect()
}

#[test]
fn fp8_products_match_f64_and_the_model_decides_how_well() {
    let (a, b) = (codes(512, 1), codes(256, 2));
    let left: Vec<f64> = a.iter().map(|&c| e4m3(c)).collect();
    for (name, second) in [("mma_e4m3", e4m3 as fn(u8) -> f64), ("mma_mixed", e5m2)] {
        let right: Vec<f64> = b.iter().map(|&c| second(c)).collect();
        let exact = product(&left, &right, 32);
        let size: Vec<f64> = product(
            &left.iter().map(|x| x.abs()).collect::<Vec<_>>(),
            &right.iter().map(|x| x.abs()).collect::<Vec<_>>(),
            32,
        );
        let error = |model: MmaModel| {
            let out = floats(&warp(FP8, name, &[a.clone(), b.clone()], 512, model));
            let relative = out.iter().zip(&exact).zip(&size).map(|((o, e), s)| (o - e).abs() / s);
            relative.fold(0.0, |worst: f64, e| if e.is_nan() { f64::INFINITY } else { worst.max(e) })
        };
        assert!(error(MmaModel::Fast) < 1e-6, "{name}");
        assert!(error(MmaModel::Sm90) < 1e-6, "{name}");
        // 13 fraction bits: visibly worse, but bounded.
        let ada = error(MmaModel::Sm89);
        assert!(ada > 1e-6 && ada < 2f64.powi(-11), "{name}: {ada}");
        assert_eq!(error(MmaModel::FastExceptFp8), ada);
    }
}

#[test]
fn bf16_and_integer_products() {
    let raw = codes(512, 5);
    let brains = |bytes: &[u8]| -> Vec<f64> {
        bytes.iter().map(|&c| f64::from(half::bf16::from_f64(e4m3(c)).to_f32())).collect()
    };
    let store = |values: &[f64]| -> Vec<u8> {
        values.iter().flat_map(|&v| half::bf16::from_f64(v).to_bits().to_le_bytes()).collect()
    };
    let (a, b) = (brains(&raw[..256]), brains(&raw[256..384]));
    let exact = product(&a, &b, 16);
    for model in [MmaModel::Fast, MmaModel::Sm80, MmaModel::Sm89, MmaModel::Sm90] {
        let out = floats(&warp(FP8, "mma_bf16", &[store(&a), store(&b)], 512, model));
        for (o, e) in out.iter().zip(&exact) {
            assert!((o - e - 1.0).abs() < 1e-4, "{model:?}: {o} {e}");
        }
    }
    let bytes = |n: usize| -> Vec<u8> { (0..n).map(|i| (i * 89 + 3) as u8).collect() };
    let (a, b) = (bytes(512), bytes(256));
    let signed = |v: &[u8]| -> Vec<f64> { v.iter().map(|&x| f64::from(x as i8)).collect() };
    let exact = product(&signed(&a), &signed(&b), 32);
    let out = words(&warp(FP8, "mma_s8", &[a, b], 512, MmaModel::Fast));
    assert!(out.iter().zip(&exact).all(|(&o, &e)| f64::from(o as i32) == e));
}

/// A kernel that fills `tile` (16 rows of 16 halves, value = index) and runs `body`.
fn tile_kernel(body: &str, outputs: usize) -> String {
    let mut text = String::from(
        ".version 9.0\n.target sm_90\n.address_size 64\n.visible .entry k(.param .u64 k0)\n{\n\
         .reg .b32 %r<64>;\n.reg .b16 %h<4>;\n.reg .b64 %d<8>;\n.shared .align 32 .b8 tile[512];\n\
         .shared .align 32 .b8 back[512];\n\
         ld.param.u64 %d1, [k0];\nmov.u32 %r1, %laneid;\nmov.u32 %r2, tile;\nmov.u32 %r3, back;\n",
    );
    for i in 0..4 {
        // Lane l writes words l, l + 32, …: halves 2w and 2w + 1.
        text += &format!(
            "add.u32 %r4, %r1, {};\nshl.b32 %r5, %r4, 1;\nadd.u32 %r6, %r5, 1;\nshl.b32 %r6, %r6, 16;\n\
             or.b32 %r5, %r5, %r6;\nshl.b32 %r4, %r4, 2;\nadd.u32 %r4, %r4, %r2;\nst.shared.u32 [%r4], %r5;\n",
            32 * i
        );
    }
    text += "bar.warp.sync -1;\n";
    text += body;
    for i in 0..outputs {
        text += &format!(
            "\nmad.lo.u32 %r4, %r1, {outputs}, {i};\nmul.wide.u32 %d2, %r4, 4;\nadd.s64 %d3, %d1, %d2;\n\
             st.global.u32 [%d3], %r{};",
            20 + i
        );
    }
    text + "\nret;\n}\n"
}

/// Address of row `l % 16`, column 8 * (l / 16), for `ldmatrix.x4` of a row-major 16x16 tile.
const ROW_ADDRESS: &str = "and.b32 %r7, %r1, 15;\nshl.b32 %r7, %r7, 5;\nshr.u32 %r8, %r1, 4;\n\
    shl.b32 %r8, %r8, 4;\nadd.u32 %r7, %r7, %r8;\nadd.u32 %r9, %r7, %r2;\nadd.u32 %r10, %r7, %r3;\n";

fn tile_words(body: &str, outputs: usize) -> Vec<u32> {
    let source = tile_kernel(body, outputs);
    words(&warp(&source, "k", &[], 128 * outputs, MmaModel::Fast))
}

#[test]
fn ldmatrix_wmma_and_stmatrix_agree() {
    let load = "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r20,%r21,%r22,%r23}, [%r9];";
    let by_ldmatrix = tile_words(&format!("{ROW_ADDRESS}{load}"), 4);
    // The documented map of the first factor of m16n8k16.
    for lane in 0..32 {
        for i in 0..8 {
            let row = lane / 4 + 8 * ((i >> 1) & 1);
            let k = 2 * (lane % 4) + (i & 1) + 8 * (i >> 2);
            let got = by_ldmatrix[lane * 4 + i / 2] >> (16 * (i & 1)) & 0xffff;
            assert_eq!(got as usize, row * 16 + k, "lane {lane} element {i}");
        }
    }
    let wmma =
        "wmma.load.a.sync.aligned.row.m16n16k16.shared.f16 {%r20,%r21,%r22,%r23,%r24,%r25,%r26,%r27}, [%r2], 16;";
    let by_wmma = tile_words(&wmma.replace(", 16;", ", %r11;").replace("wmma", "mov.u32 %r11, 16;\nwmma"), 8);
    for lane in 0..32 {
        assert_eq!(by_wmma[lane * 8..lane * 8 + 4], by_ldmatrix[lane * 4..lane * 4 + 4]);
        assert_eq!(by_wmma[lane * 8 + 4..lane * 8 + 8], by_ldmatrix[lane * 4..lane * 4 + 4], "copies");
    }
    // The column-major load of the transposed view gives the same map.
    let trans = load.replace(".x4", ".x4.trans");
    let column = "and.b32 %r7, %r1, 7;\nshr.u32 %r8, %r1, 4;\nshl.b32 %r8, %r8, 3;\nadd.u32 %r7, %r7, %r8;\n\
        shl.b32 %r7, %r7, 5;\nshr.u32 %r8, %r1, 3;\nand.b32 %r8, %r8, 1;\nshl.b32 %r8, %r8, 4;\n\
        add.u32 %r7, %r7, %r8;\nadd.u32 %r9, %r7, %r2;\n";
    let by_trans = tile_words(&format!("{column}{trans}"), 4);
    let by_column = tile_words(
        &wmma.replace("row", "col").replace(", 16;", ", %r11;").replace("wmma", "mov.u32 %r11, 16;\nwmma"),
        8,
    );
    for lane in 0..32 {
        assert_eq!(by_column[lane * 8..lane * 8 + 4], by_trans[lane * 4..lane * 4 + 4], "lane {lane}");
    }
    // stmatrix is the inverse, and movmatrix one transposition.
    for form in ["", ".trans"] {
        let store = format!(
            "stmatrix.sync.aligned.m8n8.x4{form}.shared.b16 [%r10], {{%r20,%r21,%r22,%r23}};\nbar.warp.sync -1;\n"
        );
        let load = load.replace(".x4", &format!(".x4{form}"));
        let again = load
            .replace("[%r9]", "[%r10]")
            .replace("%r2", "%r3")
            .replace("%r30", "%r20")
            .replace("%r31", "%r21")
            .replace("%r32", "%r22")
            .replace("%r33", "%r23");
        let round_trip = tile_words(&format!("{ROW_ADDRESS}{load}\n{store}mov.u32 %r20, 0;\n{again}"), 4);
        let plain = tile_words(&format!("{ROW_ADDRESS}{load}"), 4);
        assert_eq!(round_trip, plain, "{form}");
    }
    let moved = tile_words(&format!("{ROW_ADDRESS}{load}\nmovmatrix.sync.aligned.m8n8.trans.b16 %r20, %r20;"), 1);
    let transposed = tile_words(&format!("{ROW_ADDRESS}{}", load.replace(".x4", ".x4.trans")), 4);
    for lane in 0..32 {
        assert_eq!(moved[lane], transposed[lane * 4]);
    }
}

#[test]
fn small_float_kernel_follows_the_host() {
    let values: Vec<f32> = (0..64).map(|i| (i as f32 - 31.0) * 0.37).collect();
    let input = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let out = words(&warp(SYNC, "small_floats", &[input], 4 * 256, MmaModel::Fast));
    for l in 0..32 {
        let (x, y) = (values[2 * l], values[2 * l + 1]);
        let h = |v: f32| u32::from(half::f16::from_f32(v).to_bits());
        let b = |v: f32| u32::from(half::bf16::from_f32(v).to_bits());
        assert_eq!(out[l], h(x) | h(y) << 16);
        assert_eq!(out[32 + l], b(x) | b(y) << 16);
        let codes = out[64 + l];
        assert!((e4m3(codes as u8) - f64::from(x)).abs() <= f64::from(x.abs()) / 16.0 + 1e-3);
        assert!((e5m2((codes >> 16) as u8) - f64::from(x)).abs() <= f64::from(x.abs()) / 8.0 + 1e-3);
        let sum = half::f16::from_f32(x).to_f32() + half::bf16::from_f32(y).to_f32();
        assert_eq!(f32::from_bits(out[128 + l]), sum);
        let ints = (x.round_ties_even() as i32).wrapping_add(y as i32).wrapping_add(x as u32 as i32);
        assert_eq!(out[160 + l] as i32, ints);
        let power = half::f16::from_bits(out[224 + l] as u16).to_f64();
        let want = half::f16::from_f32(x).to_f64().exp2();
        assert!((power - want).abs() <= want / 512.0 + 1e-6, "{x}: {power} {want}");
    }
}

#[test]
fn calls_use_constants_locals_and_globals() {
    let module = Module::parse(SYNC).expect("parses");
    let kernel = module.entry("calls").expect("loads");
    assert_eq!(module.global_symbol("table").map(<[u8]>::len), Some(16));
    assert_eq!(module.global_symbol("counter_init"), Some(&41i32.to_le_bytes()[..]));
    let mut memory = Memory::new(&module);
    let values: Vec<f32> = (0..128).map(|i| i as f32).collect();
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let (input, output) = (memory.alloc_from("in", &bytes).expect("fits"), memory.alloc("out", 512).expect("fits"));
    let params = |at: i32| Params::new().pointer(input).pointer(output).i32(at).finish();
    let outcome = run(&kernel, &memory, &Launch::new([1, 1, 1], [32, 1, 1], params(3))).expect("valid");
    assert!(outcome.is_clean(), "{:?}", outcome.findings);
    let table = [1.5f32, -2.0, 0.25, 8.0];
    let out = memory.read_f32(output).expect("own buffer");
    for l in 0..32 {
        let v = &values[4 * l..4 * l + 4];
        let w = [v[2], v[3], v[0] + table[l % 4], v[1] + 1.0];
        let stack = w[0] * ((l + 8 - 3) % 8) as f32;
        let third = if l == 0 { 41.0 } else { w[2] };
        assert_eq!(out[4 * l..4 * l + 4], [w[0], stack, third, w[3]], "lane {l}");
    }
    let counter = module.symbol("counter_init").expect("a module variable");
    assert_eq!(memory.read(counter).expect("mapped"), 42i32.to_le_bytes());
    let failed = run(&kernel, &memory, &Launch::new([1, 1, 1], [32, 1, 1], params(-1))).expect("valid");
    let text = failed.findings[0].to_string();
    assert!(text.contains("device assertion `at >= 0` failed at sync.cu:"), "{text}");
}

#[test]
fn atomics_count_every_lane() {
    let module = Module::parse(SYNC).expect("parses");
    let kernel = module.entry("atomics").expect("loads");
    let mut memory = Memory::new(&module);
    let mut buffer = |words: &[u32]| {
        let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        memory.alloc_from("data", &bytes).expect("fits")
    };
    let (u, w, f, s) = (buffer(&[0, 99, 0, 0]), buffer(&[0, 0]), buffer(&[0, 0]), buffer(&[0, 0, 0]));
    let params = Params::new().pointer(u).pointer(w).pointer(f).pointer(s).finish();
    let outcome = run(&kernel, &memory, &Launch::new([3, 1, 1], [64, 1, 1], params)).expect("valid");
    // The last block to finish wins f[1] and s[2]: a race of equal values between blocks.
    assert_eq!(outcome.errors().count(), 0, "{:?}", outcome.findings);
    assert_eq!(words(&memory.read(u).expect("own")), [384, 3, u32::MAX, 192 % 10]);
    assert_eq!(words(&memory.read(w).expect("own")), [192, 192]);
    assert_eq!(memory.read_f32(f).expect("own"), [96.0, 64.0]);
    assert_eq!(words(&memory.read(s).expect("own")), [5, 17, 63]);
}
