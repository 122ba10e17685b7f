//! The instruction forms that work on a row of operands a thread: `%d` from `%a`, `%b`, `%c`. Kinds of operands are
//! letters, see `inputs::bytes`; `p` is a predicate result.

use super::{Agreement, Format};

/// One line of the table.
pub(super) struct Row {
    /// Unique name: the opcode, and what tells it from others with the same one.
    pub(super) name: String,
    /// Instructions.
    pub(super) text: String,
    /// Kinds of the sources.
    pub(super) sources: &'static str,
    /// Kind of the result.
    pub(super) result: char,
    /// Architecture that has it.
    pub(super) target: &'static str,
    /// How closely answers must agree.
    pub(super) agreement: Agreement,
}

/// Collects lines.
#[derive(Default)]
pub(super) struct Table(Vec<Row>);

impl Table {
    /// A form with plain operands: `opcode %d, %a, …`; the name is the opcode.
    pub(super) fn plain(&mut self, opcode: &str, sources: &'static str, result: char) {
        let operands: String = ["%a", "%b", "%c"].iter().take(sources.len()).map(|o| format!(", {o}")).collect();
        let d = if result == 'p' { "%p" } else { "%d" };
        self.text(opcode, &format!("{opcode} {d}{operands};"), sources, result);
    }

    /// Any instructions under a name.
    pub(super) fn text(&mut self, name: &str, text: &str, sources: &'static str, result: char) {
        let target = "sm_89";
        let (name, text) = (name.to_owned(), text.to_owned());
        self.0.push(Row { name, text, sources, result, target, agreement: Agreement::Bits });
    }

    /// The last line exists since Hopper only.
    fn hopper(&mut self) {
        self.0.last_mut().expect("a line").target = "sm_90";
    }

    /// An approximation.
    fn approximate(
        &mut self,
        opcode: &str,
        sources: &'static str,
        result: char,
        format: Format,
        relative: f64,
        absolute: f64,
    ) {
        self.plain(opcode, sources, result);
        self.0.last_mut().expect("a line").agreement = Agreement::Within { format, relative, absolute };
    }
}

/// Every line.
pub(super) fn rows() -> Vec<Row> {
    let mut table = Table::default();
    integers(&mut table);
    bits(&mut table);
    comparisons(&mut table);
    singles(&mut table);
    halves(&mut table);
    conversions(&mut table);
    approximations(&mut table);
    warps(&mut table);
    memory(&mut table);
    registers(&mut table);
    saturation(&mut table);
    carries(&mut table);
    super::rare::rows(&mut table);
    table.0
}

/// Integer types with the kinds of one, two and three operands.
const INTEGERS: [(&str, [&str; 3]); 6] = [
    ("u16", ["h", "hh", "hhh"]),
    ("s16", ["h", "hh", "hhh"]),
    ("u32", ["w", "ww", "www"]),
    ("s32", ["w", "ww", "www"]),
    ("u64", ["d", "dd", "ddd"]),
    ("s64", ["d", "dd", "ddd"]),
];

fn first(kinds: &str) -> char {
    kinds.chars().next().expect("a kind")
}

fn integers(t: &mut Table) {
    for (ty, [one, two, three]) in INTEGERS {
        let d = first(one);
        for opcode in ["add", "sub", "min", "max", "mul.lo", "mul.hi"] {
            t.plain(&format!("{opcode}.{ty}"), two, d);
        }
        // A divisor of zero has no defined quotient.
        for opcode in ["div", "rem"] {
            let bits = ty.trim_start_matches(['u', 's']);
            let text = format!("setp.eq.u{bits} %p, %b, 0;\n@%p mov.b{bits} %b, 3;\n{opcode}.{ty} %d, %a, %b;");
            t.text(&format!("{opcode}.{ty}"), &text, two, d);
        }
        for half in ["lo", "hi"] {
            t.plain(&format!("mad.{half}.{ty}"), three, d);
        }
        if ty.starts_with('s') {
            t.plain(&format!("neg.{ty}"), one, d);
            t.plain(&format!("abs.{ty}"), one, d);
        }
    }
    for sign in ["u", "s"] {
        t.plain(&format!("mul.wide.{sign}16"), "hh", 'w');
        t.plain(&format!("mul.wide.{sign}32"), "ww", 'd');
        t.plain(&format!("mad.wide.{sign}16"), "hhw", 'w');
        t.plain(&format!("mad.wide.{sign}32"), "wwd", 'd');
        t.plain(&format!("sad.{sign}32"), "www", 'w');
        for other in ["u", "s"] {
            t.plain(&format!("dp4a.{sign}32.{other}32"), "www", 'w');
        }
    }
    t.plain("add.sat.s32", "ww", 'w');
    t.plain("sub.sat.s32", "ww", 'w');
    t.text("addc.u32", "add.cc.u32 %d, %a, %b;\naddc.u32 %d, %c, 0;", "www", 'w');
    t.text("subc.u32", "sub.cc.u32 %d, %a, %b;\nsubc.u32 %d, %c, 5;", "www", 'w');
    t.text("addc.cc.u64", "add.cc.u64 %d, %a, %b;\naddc.cc.u64 %d, %b, %b;\naddc.u64 %d, 0, 0;", "dd", 'd');
    t.text("subc.cc.u64", "sub.cc.u64 %d, %a, %b;\nsubc.cc.u64 %d, %b, %a;\nsubc.u64 %d, %a, 0;", "dd", 'd');
    t.text("madc.hi.u32", "mad.lo.cc.u32 %d, %a, %b, %c;\nmadc.hi.u32 %d, %a, %b, 1;", "www", 'w');
}

fn bits(t: &mut Table) {
    for (bits, [one, two]) in [("b16", ["h", "hh"]), ("b32", ["w", "ww"]), ("b64", ["d", "dd"])] {
        for opcode in ["and", "or", "xor"] {
            t.plain(&format!("{opcode}.{bits}"), two, first(one));
        }
        t.plain(&format!("not.{bits}"), one, first(one));
    }
    t.plain("cnot.b32", "w", 'w');
    for (width, kinds) in [("16", "hs"), ("32", "ws"), ("64", "ds")] {
        t.plain(&format!("shl.b{width}"), kinds, first(kinds));
        t.plain(&format!("shr.u{width}"), kinds, first(kinds));
        t.plain(&format!("shr.s{width}"), kinds, first(kinds));
    }
    for mode in ["l.wrap", "l.clamp", "r.wrap", "r.clamp"] {
        t.plain(&format!("shf.{mode}.b32"), "wws", 'w');
    }
    for form in ["clamp.u32", "clamp.s32", "wrap.u32", "wrap.s32"] {
        t.plain(&format!("szext.{form}"), "ws", 'w');
    }
    for lut in ["0x01", "0x80", "0x96", "0xCA", "0xE8", "0xEA"] {
        t.text(&format!("lop3.b32 {lut}"), &format!("lop3.b32 %d, %a, %b, %c, {lut};"), "www", 'w');
    }
    for (width, kind) in [("32", "w"), ("64", "d")] {
        t.plain(&format!("brev.b{width}"), kind, first(kind));
        t.plain(&format!("clz.b{width}"), kind, 'w');
        t.plain(&format!("popc.b{width}"), kind, 'w');
        for sign in ["u", "s"] {
            t.plain(&format!("bfind.{sign}{width}"), kind, 'w');
            t.plain(&format!("bfind.shiftamt.{sign}{width}"), kind, 'w');
            let kinds = if width == "32" { "wss" } else { "dss" };
            t.plain(&format!("bfe.{sign}{width}"), kinds, first(kind));
        }
    }
    for (len, name) in [("0", "len 0"), ("5", "len 5"), ("31", "len 31"), ("64", "len 64"), ("255", "len 255")] {
        t.text(&format!("bfi.b32 {name}"), &format!("bfi.b32 %d, %a, %b, %c, {len};"), "wws", 'w');
        t.text(&format!("bfi.b64 {name}"), &format!("bfi.b64 %d, %a, %b, %c, {len};"), "dds", 'd');
    }
    t.plain("prmt.b32", "www", 'w');
    for mode in ["f4e", "b4e", "rc8", "ecl", "ecr", "rc16"] {
        t.plain(&format!("prmt.b32.{mode}"), "www", 'w');
    }
    t.text("mov.b64 unpack", "mov.b64 {%w0, %w1}, %a;\nsub.u32 %d, %w0, %w1;", "d", 'w');
    t.text("mov.b64 pack", "mov.b64 %d, {%a, %b};", "ww", 'd');
    t.text("mov.b32 pack", "mov.b32 %d, {%a, %b};", "hh", 'w');
    t.text("mov.b32 unpack", "mov.b32 {%h0, %h1}, %a;\nsub.u16 %d, %h0, %h1;", "w", 'h');
}

fn comparisons(t: &mut Table) {
    for (ty, [_, two, _]) in INTEGERS {
        for word in ["eq", "ne", "lt", "le", "gt", "ge"] {
            t.plain(&format!("setp.{word}.{ty}"), two, 'p');
        }
    }
    for word in ["lo", "ls", "hi", "hs"] {
        t.plain(&format!("setp.{word}.u32"), "ww", 'p');
        t.plain(&format!("setp.{word}.u64"), "dd", 'p');
    }
    let floats = ["eq", "ne", "lt", "le", "gt", "ge", "equ", "neu", "ltu", "leu", "gtu", "geu", "num", "nan"];
    for word in floats {
        t.plain(&format!("setp.{word}.f32"), "ff", 'p');
        t.plain(&format!("setp.{word}.ftz.f32"), "ff", 'p');
        t.plain(&format!("setp.{word}.f64"), "gg", 'p');
        t.plain(&format!("setp.{word}.f16"), "ee", 'p');
        t.plain(&format!("setp.{word}.bf16"), "kk", 'p');
        t.hopper();
        t.plain(&format!("set.{word}.u32.f16x2"), "xx", 'w');
    }
    for combine in ["and", "or", "xor"] {
        let text = |pair: &str| format!("setp.eq.u32 %q, %a, 0;\nsetp.lt.{combine}.f32 {pair}, %a, %b, %q;");
        t.text(&format!("setp.lt.{combine}.f32 p"), &text("%p|%q"), "ff", 'p');
        t.text(&format!("setp.lt.{combine}.f32 q"), &text("%q|%p"), "ff", 'p');
    }
    t.plain("set.lt.u32.s32", "ww", 'w');
    t.plain("set.neu.f32.f32", "ff", 'f');
    t.plain("set.ge.ftz.u32.f32", "ff", 'w');
    t.plain("set.gt.f16x2.f16x2", "xx", 'x');
    t.plain("set.gtu.bf16x2.bf16x2", "yy", 'y');
    t.hopper();
    t.plain("slct.b32.s32", "www", 'w');
    for (bits, kinds) in [("b16", "hhw"), ("b32", "www"), ("b64", "ddw")] {
        let text = format!("setp.gt.s32 %p, %c, 5;\nselp.{bits} %d, %a, %b, %p;");
        t.text(&format!("selp.{bits}"), &text, kinds, first(kinds));
    }
    let text = "mov.u32 %d, 5;\nsetp.lt.u32 %p, %a, %b;\n@%p mov.u32 %d, 6;\n@!%p add.u32 %d, %d, %a;";
    t.text("guards", text, "ww", 'w');
}

fn singles(t: &mut Table) {
    for opcode in ["add", "sub", "mul"] {
        for mode in ["rn", "rz", "rm", "rp", "ftz", "rn.ftz", "rz.ftz", "rm.ftz", "rp.ftz", "sat", "rz.sat", "ftz.sat"]
        {
            t.plain(&format!("{opcode}.{mode}.f32"), "ff", 'f');
        }
    }
    for mode in ["rn", "rz", "rm", "rp"] {
        for after in ["", ".ftz"] {
            t.plain(&format!("fma.{mode}{after}.f32"), "fff", 'f');
            t.plain(&format!("div.{mode}{after}.f32"), "ff", 'f');
            t.plain(&format!("rcp.{mode}{after}.f32"), "f", 'f');
            t.plain(&format!("sqrt.{mode}{after}.f32"), "f", 'f');
        }
    }
    t.plain("fma.rn.sat.f32", "fff", 'f');
    for opcode in ["min", "max"] {
        for after in ["", ".ftz", ".NaN", ".ftz.NaN"] {
            t.plain(&format!("{opcode}{after}.f32"), "ff", 'f');
        }
        t.plain(&format!("{opcode}.f64"), "gg", 'g');
    }
    for opcode in ["neg.f32", "neg.ftz.f32", "abs.f32", "abs.ftz.f32"] {
        t.plain(opcode, "f", 'f');
    }
    t.plain("neg.f64", "g", 'g');
    t.plain("abs.f64", "g", 'g');
    t.plain("copysign.f32", "ff", 'f');
    for property in ["finite", "infinite", "number", "notanumber", "normal", "subnormal"] {
        t.plain(&format!("testp.{property}.f32"), "f", 'p');
    }
    for opcode in ["add.rn", "sub.rn", "mul.rn", "div.rn"] {
        t.plain(&format!("{opcode}.f64"), "gg", 'g');
    }
    t.plain("fma.rn.f64", "ggg", 'g');
    t.plain("rcp.rn.f64", "g", 'g');
    t.plain("sqrt.rn.f64", "g", 'g');
    // Which NaN comes out where several go in.
    for (opcode, kinds) in [
        ("add.rn.f64", "nn"),
        ("sub.rn.f64", "nn"),
        ("mul.rn.f64", "nn"),
        ("div.rn.f64", "nn"),
        ("fma.rn.f64", "nnn"),
        ("rcp.rn.f64", "n"),
        ("sqrt.rn.f64", "n"),
        ("cvt.rni.f64.f64", "n"),
        ("min.f64", "nn"),
        ("max.f64", "nn"),
    ] {
        let operands: String = ["%a", "%b", "%c"].iter().take(kinds.len()).map(|o| format!(", {o}")).collect();
        t.text(&format!("{opcode} NaN"), &format!("{opcode} %d{operands};"), kinds, 'g');
    }
}

fn halves(t: &mut Table) {
    let forms = [("f16", ["e", "ee", "eee"]), ("f16x2", ["x", "xx", "xxx"])];
    let brains = [("bf16", ["k", "kk", "kkk"]), ("bf16x2", ["y", "yy", "yyy"])];
    for (ty, [one, two, three]) in forms.into_iter().chain(brains) {
        let d = first(one);
        for opcode in ["add", "sub", "mul"] {
            // Without `.rn` ptxas may fuse; alone there is nothing to fuse with.
            t.plain(&format!("{opcode}.rn.{ty}"), two, d);
            if ty.starts_with('b') {
                t.hopper();
            }
        }
        t.plain(&format!("fma.rn.{ty}"), three, d);
        t.plain(&format!("fma.rn.relu.{ty}"), three, d);
        for opcode in ["min", "max", "min.NaN", "max.NaN"] {
            t.plain(&format!("{opcode}.{ty}"), two, d);
        }
        t.plain(&format!("neg.{ty}"), one, d);
        t.plain(&format!("abs.{ty}"), one, d);
    }
}

fn conversions(t: &mut Table) {
    for (to, [d, ..]) in INTEGERS {
        for (from, [a, ..]) in INTEGERS {
            if to != from {
                t.plain(&format!("cvt.{to}.{from}"), a, first(d));
                // Saturation exists where a value may not fit.
                let width = |ty: &str| ty[1..].parse::<u32>().expect("a width");
                if width(to) < width(from) || width(to) == width(from) || to.starts_with('u') && from.starts_with('s') {
                    t.plain(&format!("cvt.sat.{to}.{from}"), a, first(d));
                }
            }
        }
        for round in ["rn", "rz", "rm", "rp"] {
            for (ty, kind) in [("f32", 'f'), ("f64", 'g'), ("f16", 'e')] {
                t.plain(&format!("cvt.{round}.{ty}.{to}"), d, kind);
            }
        }
        for round in ["rni", "rzi", "rmi", "rpi"] {
            for (ty, kind) in [("f32", "f"), ("ftz.f32", "f"), ("f64", "g"), ("f16", "e")] {
                let (ftz, ty) = ty.split_once('.').map_or(("", ty), |(_, ty)| (".ftz", ty));
                t.plain(&format!("cvt.{round}{ftz}.{to}.{ty}"), kind, first(d));
            }
        }
    }
    t.plain("cvt.s32.s8", "w", 'w');
    t.plain("cvt.u32.u8", "w", 'w');
    t.plain("cvt.sat.s8.s32", "w", 'w');
    t.plain("cvt.sat.u8.s32", "w", 'w');
    for round in ["rn", "rz", "rm", "rp"] {
        t.plain(&format!("cvt.{round}.f32.f64"), "g", 'f');
        t.plain(&format!("cvt.{round}.ftz.f32.f64"), "g", 'f');
        t.plain(&format!("cvt.{round}.f16.f32"), "f", 'e');
    }
    for round in ["rni", "rzi", "rmi", "rpi"] {
        t.plain(&format!("cvt.{round}.f32.f32"), "f", 'f');
        t.plain(&format!("cvt.{round}.ftz.f32.f32"), "f", 'f');
        t.plain(&format!("cvt.{round}.f64.f64"), "g", 'g');
        t.plain(&format!("cvt.{round}.f16.f16"), "e", 'e');
    }
    t.plain("cvt.sat.f32.f32", "f", 'f');
    t.plain("cvt.ftz.f32.f32", "f", 'f');
    t.plain("cvt.f64.f32", "f", 'g');
    t.plain("cvt.ftz.f64.f32", "f", 'g');
    t.plain("cvt.f32.f16", "e", 'f');
    t.plain("cvt.sat.f32.f16", "e", 'f');
    t.plain("cvt.f64.f16", "e", 'g');
    t.plain("cvt.rn.f16.f64", "g", 'e');
    t.plain("cvt.rn.bf16.f32", "f", 'k');
    t.plain("cvt.rz.bf16.f32", "f", 'k');
    t.plain("cvt.rn.relu.bf16.f32", "f", 'k');
    t.plain("cvt.rn.relu.f16.f32", "f", 'e');
    t.plain("cvt.f32.bf16", "k", 'f');
    t.hopper();
    for (ty, kind) in [("f16x2", 'x'), ("bf16x2", 'y')] {
        for mode in ["rn", "rz", "rn.relu", "rz.relu"] {
            t.plain(&format!("cvt.{mode}.{ty}.f32"), "ff", kind);
        }
    }
    for ty in ["e4m3x2", "e5m2x2"] {
        t.plain(&format!("cvt.rn.satfinite.{ty}.f32"), "ff", 'q');
        t.plain(&format!("cvt.rn.satfinite.{ty}.f16x2"), "x", 'q');
        t.plain(&format!("cvt.rn.f16x2.{ty}"), "q", 'x');
    }
}

/// Documented bounds plus the emulator's own unit in the last place.
fn approximations(t: &mut Table) {
    let ulp = 2f64.powi(-23);
    let least = 2f64.powi(-149);
    for ftz in ["", ".ftz"] {
        // A flushed result is off by a subnormal.
        let floor = if ftz.is_empty() { 3.0 * least } else { 2f64.powi(-126) };
        t.approximate(&format!("ex2.approx{ftz}.f32"), "f", 'f', Format::F32, 3.0 * ulp, floor);
        t.approximate(&format!("rcp.approx{ftz}.f32"), "f", 'f', Format::F32, 2.0 * ulp, floor);
        t.approximate(&format!("sqrt.approx{ftz}.f32"), "f", 'f', Format::F32, 2.0 * ulp, floor);
        t.approximate(&format!("rsqrt.approx{ftz}.f32"), "f", 'f', Format::F32, 2f64.powf(-22.9) + ulp, floor);
        // Absolute between one half and two, relative elsewhere.
        t.approximate(&format!("lg2.approx{ftz}.f32"), "f", 'f', Format::F32, 2f64.powi(-22) + ulp, 2f64.powi(-22));
        t.approximate(&format!("sin.approx{ftz}.f32"), "r", 'f', Format::F32, 0.0, 2f64.powf(-20.5) + ulp);
        t.approximate(&format!("cos.approx{ftz}.f32"), "r", 'f', Format::F32, 0.0, 2f64.powf(-20.5) + ulp);
        t.approximate(&format!("div.approx{ftz}.f32"), "ff", 'f', Format::F32, 3.0 * ulp, floor);
        t.approximate(&format!("div.full{ftz}.f32"), "ff", 'f', Format::F32, 3.0 * ulp, floor);
    }
    t.approximate("tanh.approx.f32", "f", 'f', Format::F32, 2f64.powi(-11) + ulp, least);
    let (half, brain) = (2f64.powi(-10), 2f64.powi(-7));
    for (ty, kinds) in [("f16", "e"), ("f16x2", "x")] {
        let least = 2f64.powi(-24);
        t.approximate(&format!("ex2.approx.{ty}"), kinds, first(kinds), Format::F16, 2f64.powf(-9.9) + half, least);
        t.approximate(&format!("tanh.approx.{ty}"), kinds, first(kinds), Format::F16, half, 2f64.powf(-10.987));
    }
    for (ty, kinds) in [("bf16", "k"), ("bf16x2", "y")] {
        let least = 2f64.powi(-126);
        t.approximate(&format!("ex2.approx.ftz.{ty}"), kinds, first(kinds), Format::Bf16, 2.0 * brain, least);
        t.hopper();
        t.approximate(&format!("tanh.approx.{ty}"), kinds, first(kinds), Format::Bf16, brain, 2f64.powi(-8));
        t.hopper();
    }
}

/// All 32 lanes take part in each.
fn warps(t: &mut Table) {
    for mode in ["idx", "up", "down", "bfly"] {
        for (lane, clamp) in [("1", "0x1f"), ("5", "0x1f"), ("3", "0x0"), ("2", "0x1807"), ("9", "0x0f0f")] {
            let text = format!("shfl.sync.{mode}.b32 %d, %a, {lane}, {clamp}, -1;");
            t.text(&format!("shfl.sync.{mode}.b32 {lane} {clamp}"), &text, "w", 'w');
            let text = format!("shfl.sync.{mode}.b32 %w0|%p, %a, {lane}, {clamp}, -1;");
            t.text(&format!("shfl.sync.{mode}.b32 {lane} {clamp} p"), &text, "w", 'p');
        }
        // Every lane asks for its own.
        let text = format!("shfl.sync.{mode}.b32 %d, %a, %b, 0x1f, -1;");
        t.text(&format!("shfl.sync.{mode}.b32 own"), &text, "ww", 'w');
    }
    for mode in ["all", "any", "uni"] {
        for limit in ["0x100", "0xff000000"] {
            let text = format!("setp.gt.u32 %q, %a, {limit};\nvote.sync.{mode}.pred %p, %q, -1;");
            t.text(&format!("vote.sync.{mode}.pred {limit}"), &text, "w", 'p');
        }
    }
    let text = "setp.gt.u32 %q, %a, 0x1000;\nvote.sync.ballot.b32 %d, !%q, -1;";
    t.text("vote.sync.ballot.b32", text, "w", 'w');
    for word in ["add.u32", "add.s32", "min.u32", "min.s32", "max.u32", "max.s32", "and.b32", "or.b32", "xor.b32"] {
        t.text(&format!("redux.sync.{word}"), &format!("redux.sync.{word} %d, %a, -1;"), "w", 'w');
    }
    t.text("match.any.sync.b32", "and.b32 %a, %a, 7;\nmatch.any.sync.b32 %d, %a, -1;", "w", 'w');
    t.text("match.any.sync.b64", "match.any.sync.b64 %d, %a, -1;", "d", 'w');
    t.text("match.all.sync.b32", "shr.u32 %a, %a, 31;\nmatch.all.sync.b32 %d|%p, %a, -1;", "w", 'w');
    t.text("activemask.b32", "activemask.b32 %w0;\nadd.u32 %d, %w0, %a;", "w", 'w');
    for (word, limit) in [("and", "0x10"), ("and", "0xfffffff0"), ("or", "0xfffffff0"), ("or", "0x10")] {
        let text = format!("setp.lt.u32 %q, %a, {limit};\nbar.red.{word}.pred %p, 0, %q;");
        t.text(&format!("bar.red.{word}.pred {limit}"), &text, "w", 'p');
    }
    t.text("bar.red.popc.u32", "setp.gt.u32 %q, %a, 0x1000;\nbar.red.popc.u32 %d, 0, %q;", "w", 'w');
}

/// Each thread has 16 bytes of shared memory at %s.
fn memory(t: &mut Table) {
    for (space, slot) in [("shared", "%s"), ("global", "%out")] {
        let mut atomic = |word: &str, bits: &str, kinds: &'static str| {
            let start = format!("st.{space}.{bits} [{slot}], %b;\n");
            let operands = if kinds.len() == 3 { "%a, %c" } else { "%a" };
            let old = format!("{start}atom.{space}.{word} %d, [{slot}], {operands};");
            let new = format!("{old}\nld.{space}.{bits} %d, [{slot}];");
            t.text(&format!("atom.{space}.{word} old"), &old, kinds, first(kinds));
            t.text(&format!("atom.{space}.{word} new"), &new, kinds, first(kinds));
        };
        for word in ["add.u32", "add.s32", "min.u32", "min.s32", "max.u32", "max.s32", "inc.u32", "dec.u32"] {
            atomic(word, "b32", "ww");
        }
        for word in ["and.b32", "or.b32", "xor.b32", "exch.b32"] {
            atomic(word, "b32", "ww");
        }
        for word in ["add.u64", "min.u64", "min.s64", "max.u64", "max.s64", "and.b64", "or.b64", "xor.b64", "exch.b64"]
        {
            atomic(word, "b64", "dd");
        }
        atomic("cas.b32", "b32", "www");
        atomic("cas.b64", "b64", "ddd");
        atomic("add.f32", "b32", "ff");
        atomic("add.f64", "b64", "gg");
        atomic("add.noftz.f16x2", "b32", "xx");
    }
    for (ty, kind) in [("u8", 'w'), ("s8", 'w'), ("u16", 'w'), ("s16", 'w'), ("s8", 'd'), ("s32", 'd'), ("u16", 'd')] {
        let name = if kind == 'd' { format!("ld.shared.{ty} wide") } else { format!("ld.shared.{ty}") };
        t.text(&name, &format!("st.shared.b64 [%s], %a;\nld.shared.{ty} %d, [%s];"), "d", kind);
    }
    t.text("st.shared.b8", "st.shared.b64 [%s], %a;\nst.shared.b8 [%s+3], %b;\nld.shared.b64 %d, [%s];", "dw", 'd');
    t.text("st.shared.b16", "st.shared.b64 [%s], %a;\nst.shared.b16 [%s+2], %b;\nld.shared.b64 %d, [%s];", "dh", 'd');
    let text = "st.shared.v2.b64 [%s], {%a, %b};\nld.shared.v2.b64 {%d0, %d}, [%s];\nsub.u64 %d, %d, %d0;";
    t.text("ld.shared.v2.b64", text, "dd", 'd');
    let text = "st.shared.v4.b32 [%s], {%a, %b, %c, %a};\nld.shared.v2.b32 {%w0, %d}, [%s+8];\nsub.u32 %d, %d, %w0;";
    t.text("st.shared.v4.b32", text, "www", 'w');
    t.text("ld.global.nc.v2.b64", "ld.global.nc.v2.b64 {%d0, %d}, [%at];\nsub.u64 %d, %d0, %d;", "dd", 'd');
    for size in ["0", "3", "8", "13", "16"] {
        let text = format!(
            "cp.async.cg.shared.global [%s], [%at], 16, {size};\ncp.async.wait_all;\n\
             ld.shared.v2.b64 {{%d0, %d}}, [%s];\nmad.lo.u64 %d, %d0, 3, %d;"
        );
        t.text(&format!("cp.async.cg.shared.global 16 {size}"), &text, "dd", 'd');
    }
}

/// Results in registers that are wider than their type.
fn registers(t: &mut Table) {
    for (width, d) in [("16", 'h'), ("32", 'w'), ("64", 'd')] {
        let mut wider = |opcode: &str, source: &'static str| {
            t.text(&format!("{opcode} to {width} bits"), &format!("{opcode} %d, %a;"), source, d);
        };
        for ty in ["s8", "u8"] {
            for (from, kind) in [("s16", "h"), ("s32", "w"), ("s64", "d")] {
                wider(&format!("cvt.{ty}.{from}"), kind);
                wider(&format!("cvt.sat.{ty}.{from}"), kind);
            }
            wider(&format!("cvt.rni.{ty}.f32"), "f");
        }
        if width == "16" {
            continue;
        }
        for ty in ["s16", "u16"] {
            wider(&format!("cvt.{ty}.s8"), "w");
            for (from, kind) in [("s32", "w"), ("u32", "w"), ("s64", "d")] {
                wider(&format!("cvt.{ty}.{from}"), kind);
                wider(&format!("cvt.sat.{ty}.{from}"), kind);
            }
            for (from, kind) in [("f16", "e"), ("f32", "f"), ("f64", "g")] {
                wider(&format!("cvt.rni.{ty}.{from}"), kind);
                wider(&format!("cvt.rpi.{ty}.{from}"), kind);
            }
        }
    }
    let text = "st.shared.b64 [%s], %a;\nld.shared.s8 %h0, [%s];\nsetp.gt.u16 %p, %h0, 0xffc0;";
    t.text("ld.shared.s8 to 16 bits", text, "d", 'p');
    for ty in ["u8", "s16", "u32"] {
        let text = format!("st.shared.b64 [%s], %a;\nld.shared.{ty} %d, [%s];");
        t.text(&format!("ld.shared.{ty} wide"), &text, "d", 'd');
    }
}

/// `.sat` beside every other modifier that it may stand with.
fn saturation(t: &mut Table) {
    t.plain("cvt.sat.f64.f32", "f", 'g');
    t.plain("cvt.ftz.sat.f64.f32", "f", 'g');
    t.plain("cvt.sat.f64.f16", "e", 'g');
    t.plain("cvt.ftz.sat.f32.f32", "f", 'f');
    for round in ["rni", "rzi", "rmi", "rpi"] {
        for (ty, kinds) in [("f16", "e"), ("f32", "f"), ("f64", "g")] {
            t.plain(&format!("cvt.{round}.sat.{ty}.{ty}"), kinds, first(kinds));
        }
        t.plain(&format!("cvt.{round}.ftz.sat.f32.f32"), "f", 'f');
    }
    for round in ["rn", "rz", "rm", "rp"] {
        t.plain(&format!("cvt.{round}.sat.f16.f32"), "f", 'e');
        t.plain(&format!("cvt.{round}.sat.f32.f64"), "g", 'f');
        t.plain(&format!("cvt.{round}.ftz.sat.f32.f64"), "g", 'f');
        t.plain(&format!("add.{round}.ftz.sat.f32"), "ff", 'f');
        t.plain(&format!("mul.{round}.ftz.sat.f32"), "ff", 'f');
        t.plain(&format!("fma.{round}.ftz.sat.f32"), "fff", 'f');
    }
    t.plain("cvt.rn.sat.f16.f64", "g", 'e');
}

/// The carry flag between additions and subtractions in every pair.
fn carries(t: &mut Table) {
    for (ty, kinds) in [("u32", "www"), ("u64", "ddd")] {
        let sets = [
            ("add.cc", format!("add.cc.{ty} %d, %a, %b;")),
            ("sub.cc", format!("sub.cc.{ty} %d, %a, %b;")),
            ("mad.lo.cc", format!("mad.lo.cc.{ty} %d, %a, %b, %c;")),
            ("addc.cc", format!("sub.cc.{ty} %d, %b, %c;\naddc.cc.{ty} %d, %a, %b;")),
            ("subc.cc", format!("add.cc.{ty} %d, %b, %c;\nsubc.cc.{ty} %d, %a, %b;")),
        ];
        for (set, before) in sets {
            for (take, after) in [
                ("addc", format!("addc.{ty} %d, %c, %d;")),
                ("subc", format!("subc.{ty} %d, %c, %d;")),
                ("madc.hi", format!("madc.hi.{ty} %d, %a, %c, %d;")),
            ] {
                t.text(&format!("{set} {take} {ty}"), &format!("{before}\n{after}"), kinds, first(kinds));
            }
        }
    }
}
