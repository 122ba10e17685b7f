//! Probes of `wgmma`: where its operands lie in shared memory, who holds what of its sums, and how these are rounded.
//! One warpgroup a block. What fills shared memory is drawn as elements one beside another: whichever way a layout goes
//! through them, each place is an element of its own.

use super::inputs::Random;
use super::tensor::{Style, bytes, list, words};
use super::{Agreement, ENTRY, Probe};

/// Threads of a warpgroup.
const THREADS: usize = 128;
/// Bytes of k of each row of a factor.
const ROW_BYTES: usize = 32;

/// Types of a product: of the sums and both factors, with what elements are drawn from.
#[derive(Clone, Copy)]
struct Types {
    words: &'static str,
    /// Kinds of the first factor, the second, and the sums.
    kinds: [char; 3],
    /// Bytes of an element of a factor.
    width: usize,
    /// More modifiers.
    more: &'static str,
}

const fn types(words: &'static str, kinds: [char; 3], width: usize) -> Types {
    Types { words, kinds, width, more: "" }
}

const HALF: Types = types("f32.f16.f16", ['e', 'e', 'f'], 2);
const HALF_SUMS: Types = types("f16.f16.f16", ['e', 'e', 'e'], 2);
const BRAIN: Types = types("f32.bf16.bf16", ['k', 'k', 'f'], 2);
const TF32: Types = types("f32.tf32.tf32", ['f', 'f', 'f'], 4);
const FP8: Types = types("f32.e4m3.e4m3", ['4', '4', 'f'], 1);

/// Float types and integer ones.
const FLOATS: [Types; 12] = [
    HALF,
    HALF_SUMS,
    BRAIN,
    TF32,
    FP8,
    types("f32.e4m3.e5m2", ['4', '5', 'f'], 1),
    types("f32.e5m2.e4m3", ['5', '4', 'f'], 1),
    types("f32.e5m2.e5m2", ['5', '5', 'f'], 1),
    types("f16.e4m3.e4m3", ['4', '4', 'e'], 1),
    types("f16.e4m3.e5m2", ['4', '5', 'e'], 1),
    types("f16.e5m2.e4m3", ['5', '4', 'e'], 1),
    types("f16.e5m2.e5m2", ['5', '5', 'e'], 1),
];
const INTEGERS: [Types; 5] = [
    types("s32.s8.s8", ['i', 'i', 'w'], 1),
    types("s32.s8.u8", ['i', 'i', 'w'], 1),
    types("s32.u8.s8", ['i', 'i', 'w'], 1),
    types("s32.u8.u8", ['i', 'i', 'w'], 1),
    Types { more: ".satfinite", ..types("s32.s8.s8", ['i', 'i', 'w'], 1) },
];

/// How a factor lies in shared memory.
#[derive(Clone, Copy)]
struct Place {
    /// Bytes over which chunks are permuted; 16 for none.
    span: usize,
    /// m or n innermost.
    transposed: bool,
    /// Bytes behind the beginning of the matrix along k.
    step: usize,
}

const PLAIN: Place = Place { span: 128, transposed: false, step: 0 };

impl Place {
    /// Bytes that a factor of so many rows takes, and what its descriptor says but for the start.
    fn layout(self, rows: usize) -> (usize, u64) {
        let Place { span, transposed, .. } = self;
        let (leading, stride, size) = match (span, transposed) {
            // Cores of eight rows by 16 bytes, those of one group of rows side by side.
            (16, false) => (128, 256, rows / 8 * 256),
            // Cores of eight k by eight rows, all of eight k side by side.
            (16, true) => (rows / 8 * 128, 128, 2 * rows / 8 * 128),
            (_, false) => (16, 8 * span, rows / 8 * 8 * span),
            (_, true) => {
                let spans = rows.div_ceil(span / 2);
                (8 * span, spans * 8 * span, 2 * spans * 8 * span)
            }
        };
        let mode = match span {
            16 => 0,
            128 => 1,
            64 => 2,
            _ => 3u64,
        };
        (size.next_multiple_of(1024), (leading as u64 >> 4) << 16 | (stride as u64 >> 4) << 32 | mode << 62)
    }

    fn name(self) -> String {
        let step = if self.step == 0 { String::new() } else { format!("+{}", self.step) };
        format!("{}{}{step}", self.span, if self.transposed { "t" } else { "" })
    }
}

/// One probe: the first factor in registers where it has no place.
struct Form {
    types: Types,
    n: usize,
    a: Option<Place>,
    b: Place,
    style: Style,
    negates: [bool; 2],
    blocks: usize,
}

/// Every probe.
pub(super) fn probes() -> Vec<Probe> {
    let base =
        Form { types: FP8, n: 16, a: Some(PLAIN), b: PLAIN, style: Style::Whole, negates: [false; 2], blocks: 4 };
    let mut forms = Vec::new();
    for a in [None, Some(PLAIN)] {
        for types in FLOATS {
            let styles = [Style::Whole, Style::Near, Style::Spread, Style::Any];
            forms.extend(styles.map(|style| Form { types, a, style, blocks: 8, ..base }));
        }
        forms.extend(INTEGERS.map(|types| Form { types, a, style: Style::Any, ..base }));
    }
    for types in [HALF, TF32, FP8] {
        for place in [16, 32, 64, 128].map(|span| Place { span, ..PLAIN }) {
            forms.push(Form { types, n: 24, a: Some(place), b: place, ..base });
        }
    }
    for (span, step) in [(64, 32), (128, 32), (128, 64), (128, 96)] {
        let place = Place { span, step, ..PLAIN };
        forms.push(Form { types: HALF, n: 40, a: Some(place), b: place, ..base });
    }
    for types in [HALF, BRAIN] {
        for (span, turns) in [16, 32, 64, 128].into_iter().flat_map(|s| [1, 2, 3].map(|turns| (s, turns))) {
            let place = |transposed| Place { span, transposed, step: 0 };
            forms.push(Form { types, n: 72, a: Some(place(turns & 1 == 1)), b: place(turns & 2 == 2), ..base });
        }
    }
    for span in [16, 32, 64, 128] {
        let b = Place { span, transposed: true, step: 0 };
        forms.push(Form { types: HALF, n: 136, a: None, b, ..base });
    }
    for negates in [[true, false], [false, true], [true, true]] {
        forms.push(Form { types: HALF, negates, style: Style::Near, ..base });
        forms.push(Form { types: FP8, negates, style: Style::Near, ..base });
    }
    // Of 16 and 24 columns there are forms above.
    for n in (8..=256).step_by(8).filter(|n| !matches!(n, 16 | 24)) {
        forms.push(Form { n, blocks: 1, ..base });
        forms.push(Form { types: HALF_SUMS, n, a: None, blocks: 1, ..base });
    }
    forms.iter().map(Form::probe).collect()
}

impl Form {
    fn opcode(&self) -> String {
        let k = ROW_BYTES / self.types.width;
        format!("wgmma.mma_async.sync.aligned.m64n{}k{k}{}.{}", self.n, self.types.more, self.types.words)
    }

    /// Registers of the sums of a thread.
    fn sums(&self) -> usize {
        if self.types.kinds[2] == 'e' { self.n / 4 } else { self.n / 2 }
    }

    /// The bytes of both factors in shared memory, the first 0 if it is in registers.
    fn sizes(&self) -> [usize; 2] {
        let a = self.a.map_or(0, |place| place.layout(64).0 + place.step.next_multiple_of(1024));
        [a, self.b.layout(self.n).0 + self.b.step.next_multiple_of(1024)]
    }

    fn name(&self) -> String {
        let a = self.a.map_or_else(|| "registers".to_owned(), Place::name);
        let sign = |negates: bool| if negates { "-" } else { "" };
        let [x, y] = self.negates.map(sign);
        format!("{} {x}{a} {y}{} {:?}", self.opcode(), self.b.name(), self.style).to_lowercase()
    }

    /// Behind the factors in the input of a block: words of each thread, four of a first factor in registers, then sums.
    fn thread_words(&self) -> usize {
        self.sums() + if self.a.is_none() { 4 } else { 0 }
    }

    fn probe(&self) -> Probe {
        let mut random = Random::new(super::hash(&self.name()));
        let [a_kind, b_kind, c_kind] = self.types.kinds;
        let [a_bytes, b_bytes] = self.sizes();
        let mut data = Vec::new();
        for _ in 0..self.blocks {
            data.extend(words(a_kind, self.style, a_bytes / 4, &mut random));
            data.extend(words(b_kind, self.style, b_bytes / 4, &mut random));
            for _ in 0..THREADS {
                if self.a.is_none() {
                    data.extend(words(a_kind, self.style, 4, &mut random));
                }
                data.extend(words(c_kind, self.style, self.sums(), &mut random));
            }
        }
        Probe {
            name: self.name(),
            ptx: self.module(),
            blocks: self.blocks as u32,
            threads: THREADS as u32,
            inputs: vec![bytes(&data)],
            output_bytes: self.blocks * THREADS * self.sums() * 8,
            agreement: Agreement::Bits,
        }
    }

    fn module(&self) -> String {
        let ([a_bytes, b_bytes], sums, own) = (self.sizes(), self.sums(), self.thread_words());
        let shared = a_bytes + b_bytes;
        let block = shared + THREADS * own * 4;
        let mut text = format!(
            ".version 8.7\n.target sm_90a\n.address_size 64\n.visible .entry {ENTRY}(.param .u64 p0, .param .u64 p1)\n{{\n\
             .reg .b64 %in, %out, %at, %da, %db;\n.reg .b32 %lane, %warp, %i, %s, %to, %x<4>, %a<4>, %d<{sums}>;\n\
             .reg .pred %p;\n.shared .align 1024 .b8 tile[{shared}];\n\
             ld.param.u64 %in, [p0];\nld.param.u64 %out, [p1];\nmov.u32 %lane, %tid.x;\nmov.u32 %warp, %ctaid.x;\n\
             mul.wide.u32 %at, %warp, {block};\nadd.s64 %in, %in, %at;\n\
             mov.u32 %s, tile;\nshl.b32 %i, %lane, 4;\nmul.wide.u32 %at, %lane, 16;\nadd.s64 %at, %in, %at;\n\
             add.u32 %to, %s, %i;\n"
        );
        // All bytes of both factors, 16 a thread at a time; sizes are multiples of 1024.
        for first in (0..shared).step_by(16 * THREADS) {
            let guard = if shared - first < 16 * THREADS { "@%p " } else { "" };
            if !guard.is_empty() {
                text += &format!("setp.lt.u32 %p, %lane, {};\n", (shared - first) / 16);
            }
            text += &format!(
                "{guard}ld.global.v4.b32 {}, [%at+{first}];\n{guard}st.shared.v4.b32 [%to+{first}], {};\n",
                list("x", 0..4),
                list("x", 0..4)
            );
        }
        text += &format!("mul.wide.u32 %at, %lane, {};\nadd.s64 %at, %in, %at;\n", 4 * own);
        let names = if self.a.is_none() { 4 } else { 0 };
        for i in 0..own {
            let register = if i < names { format!("%a{i}") } else { format!("%d{}", i - names) };
            text += &format!("ld.global.b32 {register}, [%at+{}];\n", shared + 4 * i);
        }
        text += "fence.proxy.async.shared::cta;\nbar.sync 0;\n";
        text += &descriptor("db", self.b, self.n, a_bytes);
        if let Some(place) = self.a {
            text += &descriptor("da", place, 64, 0);
        }
        text += &self.product();
        text += &format!(
            "mad.lo.u32 %i, %warp, {THREADS}, %lane;\nmul.wide.u32 %at, %i, {};\nadd.s64 %out, %out, %at;\n",
            8 * sums
        );
        for i in 0..sums {
            text += &format!("st.global.b32 [%out+{}], %d{i};\n", 8 * i);
        }
        text + "ret;\n}\n"
    }

    fn product(&self) -> String {
        let a = if self.a.is_none() { list("a", 0..4) } else { "%da".to_owned() };
        let sign = |negates: bool| if negates { ", -1" } else { ", 1" };
        let turn = |place: Place| if place.transposed { ", 1" } else { ", 0" };
        let mut options = String::new();
        if self.types.kinds[0] != 'i' {
            options += &self.negates.map(sign).concat();
        }
        if self.types.width == 2 {
            options += self.a.map_or("", turn);
            options += turn(self.b);
        }
        format!(
            "setp.eq.u32 %p, 0, 0;\nwgmma.fence.sync.aligned;\n{} {}, {a}, %db, %p{options};\n\
             wgmma.commit_group.sync.aligned;\nwgmma.wait_group.sync.aligned 0;\n",
            self.opcode(),
            list("d", 0..self.sums())
        )
    }
}

/// Makes a descriptor in a register.
fn descriptor(register: &str, place: Place, rows: usize, offset: usize) -> String {
    let (_, fixed) = place.layout(rows);
    format!(
        "add.u32 %to, %s, {};\nand.b32 %to, %to, 0x3ffff;\nshr.u32 %to, %to, 4;\ncvt.u64.u32 %{register}, %to;\n\
         or.b64 %{register}, %{register}, 0x{fixed:x};\n",
        offset + place.step
    )
}
