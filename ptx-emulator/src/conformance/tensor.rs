//! Probes of the tensor cores: which lane holds which element, and how sums are rounded. One warp a block.

use super::inputs::Random;
use super::{Agreement, ENTRY, Probe};

/// Products per probe, each with factors of its own.
const PRODUCTS: u32 = 64;

/// Every probe.
pub(super) fn probes() -> Vec<Probe> {
    let mut probes = Vec::new();
    for (form, a, b, c) in [
        ("m16n8k8.row.col.f32.f16.f16.f32", 'e', 'e', 'f'),
        ("m16n8k8.row.col.f16.f16.f16.f16", 'e', 'e', 'e'),
        ("m16n8k8.row.col.f32.bf16.bf16.f32", 'k', 'k', 'f'),
        ("m16n8k16.row.col.f32.f16.f16.f32", 'e', 'e', 'f'),
        ("m16n8k16.row.col.f16.f16.f16.f16", 'e', 'e', 'e'),
        ("m16n8k16.row.col.f32.bf16.bf16.f32", 'k', 'k', 'f'),
        ("m16n8k32.row.col.f32.e4m3.e4m3.f32", '4', '4', 'f'),
        ("m16n8k32.row.col.f32.e4m3.e5m2.f32", '4', '5', 'f'),
        ("m16n8k32.row.col.f32.e5m2.e4m3.f32", '5', '4', 'f'),
        ("m16n8k32.row.col.f32.e5m2.e5m2.f32", '5', '5', 'f'),
        ("m16n8k16.row.col.f32.e4m3.e4m3.f32", '4', '4', 'f'),
        ("m16n8k32.row.col.f16.e4m3.e4m3.f16", '4', '4', 'e'),
        ("m16n8k16.row.col.s32.s8.s8.s32", 'i', 'i', 'w'),
        ("m16n8k32.row.col.s32.s8.s8.s32", 'i', 'i', 'w'),
        ("m16n8k32.row.col.s32.u8.s8.s32", 'i', 'i', 'w'),
        ("m16n8k32.row.col.s32.s8.u8.s32", 'i', 'i', 'w'),
        ("m16n8k32.row.col.s32.u8.u8.s32", 'i', 'i', 'w'),
        ("m16n8k32.row.col.satfinite.s32.s8.s8.s32", 'i', 'i', 'w'),
    ] {
        let styles: &[Style] =
            if a == 'i' { &[Style::Any] } else { &[Style::Whole, Style::Near, Style::Spread, Style::Any] };
        probes.extend(styles.iter().map(|style| mma(form, [a, b, c], *style)));
    }
    for acc in ["f32.f32", "f16.f16", "f32.f16", "f16.f32"] {
        for style in [Style::Whole, Style::Near, Style::Spread] {
            probes.push(wmma(acc, style));
        }
    }
    for (fragment, ty, stride) in
        [("a", "f16", 16), ("a", "f16", 24), ("b", "f16", 16), ("c", "f32", 20), ("c", "f16", 16)]
    {
        for layout in ["row", "col"] {
            probes.push(wmma_load(fragment, ty, layout, stride));
        }
    }
    for count in [1, 2, 4] {
        for trans in ["", ".trans"] {
            probes.push(matrix(count, trans, false));
            probes.push(matrix(count, trans, true));
        }
    }
    probes.push(movmatrix());
    probes
}

/// What factors are drawn from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Style {
    /// Small whole numbers: every sum is exact, so only the layout matters.
    Whole,
    /// Numbers of about one size, as an attention kernel has them.
    Near,
    /// Exponents far apart, subnormals among them: what is cut while aligning shows.
    Spread,
    /// Any bits, infinities and NaN among them.
    Any,
}

/// Bits of one element of a kind: `e` f16, `k` bf16, `f` f32, `4` e4m3, `5` e5m2, `i` a byte, `w` a word.
fn element(kind: char, style: Style, random: &mut Random) -> u32 {
    let bits = random.next();
    // Sign, exponent field and fraction field.
    let (exponent_bits, fraction_bits) = match kind {
        'e' => (5, 10),
        'k' => (8, 7),
        'f' => (8, 23),
        '4' => (4, 3),
        '5' => (5, 2),
        'i' => return bits as u32 & 0xff,
        _ => return if bits & 3 == 0 { 0x7fff_ff00 ^ (bits >> 8) as u32 & 0x8000_00ff } else { (bits >> 40) as u32 },
    };
    let bias = (1u32 << (exponent_bits - 1)) - 1;
    let sign = (bits >> 63) as u32;
    let fraction = (bits as u32) & ((1 << fraction_bits) - 1);
    let exponent = match style {
        Style::Whole => {
            let value = random.below(4) as u32;
            let (exponent, fraction) = match value {
                0 => return sign << (exponent_bits + fraction_bits),
                1 => (bias, 0),
                2 => (bias + 1, 0),
                _ => (bias + 1, 1 << (fraction_bits - 1)),
            };
            return sign << (exponent_bits + fraction_bits) | exponent << fraction_bits | fraction;
        }
        Style::Near => bias - 3 + random.below(5) as u32,
        Style::Spread => match kind {
            // Products of f16 and FP8 span what an f32 near one can see.
            'f' | 'k' => bias - 12 + random.below(24) as u32,
            _ => random.below(u64::from((1u32 << exponent_bits) - 2)) as u32,
        },
        Style::Any => random.below(1 << exponent_bits) as u32,
    };
    sign << (exponent_bits + fraction_bits) | exponent << fraction_bits | fraction
}

/// Words of packed elements.
pub(super) fn words(kind: char, style: Style, count: usize, random: &mut Random) -> Vec<u32> {
    let width = match kind {
        'e' | 'k' => 16,
        'f' | 'w' => 32,
        _ => 8,
    };
    (0..count).map(|_| (0..32 / width).fold(0, |word, i| word | element(kind, style, random) << (width * i))).collect()
}

pub(super) fn bytes(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|w| w.to_le_bytes()).collect()
}

/// A module whose body loads `%a0…` from its lane's words of the input and stores `%d0…`, each in 8 bytes.
fn module(target: &str, inputs: usize, outputs: usize, body: &str) -> String {
    let mut text = format!(
        ".version 8.7\n.target {target}\n.address_size 64\n.visible .entry {ENTRY}(.param .u64 p0, .param .u64 p1)\n{{\n\
         .reg .b64 %in, %out, %at;\n.reg .b32 %lane, %warp, %i, %s, %r<8>, %a<{}>, %d<{}>;\n\
         .shared .align 128 .b8 tile[2048];\n\
         ld.param.u64 %in, [p0];\nld.param.u64 %out, [p1];\nmov.u32 %lane, %tid.x;\nmov.u32 %warp, %ctaid.x;\n\
         mov.u32 %s, tile;\nmad.lo.u32 %i, %warp, 32, %lane;\n\
         mul.wide.u32 %at, %i, {};\nadd.s64 %in, %in, %at;\nmul.wide.u32 %at, %i, {};\nadd.s64 %out, %out, %at;\n",
        inputs.max(1),
        outputs.max(1),
        4 * inputs,
        8 * outputs
    );
    for i in 0..inputs {
        text += &format!("ld.global.b32 %a{i}, [%in+{}];\n", 4 * i);
    }
    text += body;
    for i in 0..outputs {
        text += &format!("\nst.global.b32 [%out+{}], %d{i};", 8 * i);
    }
    text + "\nret;\n}\n"
}

fn probe(name: String, ptx: String, blocks: u32, inputs: Vec<u8>, outputs: usize) -> Probe {
    Probe {
        name,
        ptx,
        blocks,
        threads: 32,
        inputs: vec![inputs],
        output_bytes: blocks as usize * 32 * 8 * outputs,
        agreement: Agreement::Bits,
    }
}

pub(super) fn list(prefix: &str, range: std::ops::Range<usize>) -> String {
    format!("{{{}}}", range.map(|i| format!("%{prefix}{i}")).collect::<Vec<_>>().join(", "))
}

/// A product on fragments in registers.
fn mma(form: &str, [a, b, c]: [char; 3], style: Style) -> Probe {
    let depth: usize = match form.split('.').next() {
        Some("m16n8k8") => 8,
        Some("m16n8k16") => 16,
        _ => 32,
    };
    let per_word = if matches!(a, 'e' | 'k') { 2 } else { 4 };
    let (na, nb) = (16 * depth / 32 / per_word, 8 * depth / 32 / per_word);
    let nc = if c == 'e' { 2 } else { 4 };
    let inputs = na + nb + nc;
    let body = format!(
        "mma.sync.aligned.{form} {}, {}, {}, {};",
        list("d", 0..nc),
        list("a", 0..na),
        list("a", na..na + nb),
        list("a", na + nb..inputs)
    );
    let mut random = Random::new(form.len() as u64 * 31 + u64::from(a as u32 + b as u32));
    let data: Vec<u32> = (0..32 * PRODUCTS)
        .flat_map(|_| {
            let mut lane = words(a, style, na, &mut random);
            lane.extend(words(b, style, nb, &mut random));
            lane.extend(words(c, style, nc, &mut random));
            lane
        })
        .collect();
    let name = format!("mma.sync.aligned.{form} {style:?}").to_lowercase();
    probe(name, module("sm_89", inputs, nc, &body), PRODUCTS, bytes(&data), nc)
}

/// A product on whole tiles: loads in the four combinations of layouts by block, and a store.
fn wmma(acc: &str, style: Style) -> Probe {
    let (d, c) = acc.split_once('.').expect("two types");
    let registers = |ty: &str| if ty == "f32" { 8 } else { 4 };
    let (nc, nd) = (registers(c), registers(d));
    // A tile is 256 elements: words of A, of B, of C, then the result goes through shared memory.
    let wc = if c == "f32" { 256 } else { 128 };
    let block = 256 + wc;
    let mut body = format!(
        "mul.wide.u32 %at, %warp, {};\nadd.s64 %in, %in, %at;\n\
         .reg .b32 %x<32>;\n.reg .b64 %b, %c;\nadd.s64 %b, %in, 512;\nadd.s64 %c, %in, 1024;\n",
        4 * block
    );
    let xs = |range: std::ops::Range<usize>| list("x", range);
    body += &format!(
        "wmma.load.a.sync.aligned.row.m16n16k16.global.f16 {}, [%in], 16;\n\
         wmma.load.b.sync.aligned.col.m16n16k16.global.f16 {}, [%b], 16;\n\
         wmma.load.c.sync.aligned.row.m16n16k16.global.{c} {}, [%c], 16;\n\
         wmma.mma.sync.aligned.row.col.m16n16k16.{d}.{c} {}, {}, {}, {};\n\
         wmma.store.d.sync.aligned.col.m16n16k16.shared.{d} [%s], {}, 16;\nbar.warp.sync -1;\n",
        xs(0..8),
        xs(8..16),
        xs(16..16 + nc),
        list("d", 0..nd),
        xs(0..8),
        xs(8..16),
        xs(16..16 + nc),
        list("d", 0..nd),
    );
    // The registers themselves, then the stored tile.
    body += "shl.b32 %r0, %lane, 2;\nadd.u32 %s, %s, %r0;\n";
    for i in 0..nd {
        body += &format!("ld.shared.b32 %d{}, [%s+{}];\n", nd + i, 128 * i);
    }
    let mut random = Random::new(acc.len() as u64 + 77 + style as u64);
    let kind = if c == "f32" { 'f' } else { 'e' };
    let data: Vec<u32> = (0..PRODUCTS)
        .flat_map(|_| {
            let mut tile = words('e', style, 256, &mut random);
            tile.extend(words(kind, style, wc, &mut random));
            tile
        })
        .collect();
    let name = format!("wmma.mma.sync.aligned.row.col.m16n16k16.{acc} {style:?}").to_lowercase();
    probe(name, module("sm_89", 0, 2 * nd, &body), PRODUCTS, bytes(&data), 2 * nd)
}

/// Puts 2048 bytes of the input into the tile in shared memory, 64 bytes a lane.
fn fill_tile() -> String {
    let mut text = "shl.b32 %r0, %lane, 6;\nadd.u32 %r0, %r0, %s;\n".to_owned();
    for i in 0..16 {
        text += &format!("st.shared.b32 [%r0+{}], %a{i};\n", 4 * i);
    }
    text + "bar.warp.sync -1;\n"
}

/// Elements that say where they lie: f16 bits 0, 1, 2, …
fn numbered() -> Vec<u8> {
    bytes(&(0..512u32).map(|i| (2 * i) | ((2 * i + 1) << 16)).collect::<Vec<_>>())
}

/// The element-to-lane map of one fragment.
fn wmma_load(fragment: &str, ty: &str, layout: &str, stride: u32) -> Probe {
    let count = if fragment == "c" && ty == "f16" { 4 } else { 8 };
    let opcode = format!("wmma.load.{fragment}.sync.aligned.{layout}.m16n16k16.shared.{ty}");
    let body = format!("{}{opcode} {}, [%s], {stride};", fill_tile(), list("d", 0..count));
    probe(format!("{opcode} {stride}"), module("sm_89", 16, count, &body), 1, numbered(), count)
}

/// `ldmatrix`, or `stmatrix` read back. Lane l names row l % 16, column 8 * (l / 16) of a 16x16 tile.
fn matrix(count: usize, trans: &str, store: bool) -> Probe {
    let address = "and.b32 %r1, %lane, 15;\nshl.b32 %r1, %r1, 5;\nshr.u32 %r2, %lane, 4;\nshl.b32 %r2, %r2, 4;\n\
                   add.u32 %r1, %r1, %r2;\nadd.u32 %r1, %r1, %s;\n";
    let form = format!("sync.aligned.m8n8.x{count}{trans}.shared.b16");
    if !store {
        let body = format!("{}{address}ldmatrix.{form} {}, [%r1];", fill_tile(), list("d", 0..count));
        return probe(format!("ldmatrix.{form}"), module("sm_89", 16, count, &body), 1, numbered(), count);
    }
    let mut body =
        format!("{}{address}stmatrix.{form} [%r1], {};\nbar.warp.sync -1;\n", fill_tile(), list("a", 0..count));
    body += "shl.b32 %r0, %lane, 2;\nadd.u32 %s, %s, %r0;\n";
    for i in 0..4 {
        body += &format!("ld.shared.b32 %d{i}, [%s+{}];\n", 128 * i);
    }
    probe(format!("stmatrix.{form}"), module("sm_90", 16, 4, &body), 1, numbered(), 4)
}

fn movmatrix() -> Probe {
    let opcode = "movmatrix.sync.aligned.m8n8.trans.b16";
    let data: Vec<u32> = (0..32u32).map(|i| (2 * i) | ((2 * i + 1) << 16)).collect();
    probe(opcode.to_owned(), module("sm_89", 1, 1, &format!("{opcode} %d0, %a0;")), 1, bytes(&data), 1)
}
