//! Which bits of a row operation's result depend on undefined bits of its sources.
//!
//! The rules are those of MemorySanitizer, with carries: a bit is defined where no choice of the undefined bits changes
//! it, as far as a cheap rule can tell. Compilers count on that: they mask undefined values away, select between them,
//! and compare them under a condition that is false. A result may be called undefined although it is not, never the
//! other way round; a test tries choices.

use crate::isa::alu_table::{AluInst, AluOp, visit_rows};
use crate::isa::slot::{Class, Role, Slot};
use crate::machine::regs::{LANES, Regs};
use crate::num::int;

/// Comparison classes as row operations take them.
const LESS: u64 = 1;
const EQUAL: u64 = 2;
const GREATER: u64 = 4;

/// Values and undefined bits of one lane's sources, in the order of the table.
struct Lane {
    value: [u64; 4],
    unknown: [u64; 4],
    /// The first two sources are the same register.
    twins: bool,
    x: u16,
}

/// What is not defined of the result of an operation that is about to be executed, and what its row held.
pub(crate) struct Pending {
    unknown: [u64; LANES],
    old: [u64; LANES],
    old_unknown: [u64; LANES],
}

fn result_slot(inst: &AluInst) -> Slot {
    Slot { class: inst.op.result(), row: inst.d }
}

fn values(regs: &Regs, slot: Slot) -> [u64; LANES] {
    let row = usize::from(slot.row);
    match slot.class {
        Class::W => regs.w[row].0.map(u64::from),
        Class::D => regs.d[row].0,
        Class::P => std::array::from_fn(|l| u64::from(regs.p[row] >> l & 1)),
    }
}

/// Looks at an operation with a source or a guard that is not wholly defined.
#[cold]
#[inline(never)]
pub(crate) fn before(regs: &Regs, inst: &AluInst) -> Pending {
    let (mut sources, mut count) = ([Slot { class: Class::W, row: 0 }; 4], 0);
    visit_rows(&mut inst.clone(), &mut |class, row, role| {
        if role != Role::Write {
            sources[count] = Slot { class, row: *row };
            count += 1;
        }
    });
    let sources = &sources[..count];
    let result = result_slot(inst);
    let mut pending = Pending { unknown: [0; LANES], old: values(regs, result), old_unknown: regs.unknown(result) };
    let read: Vec<([u64; LANES], [u64; LANES])> =
        sources.iter().map(|s| (values(regs, *s), regs.unknown(*s))).collect();
    let twins = matches!(sources, [a, b, ..] if a == b);
    for (l, out) in pending.unknown.iter_mut().enumerate() {
        let mut lane = Lane { value: [0; 4], unknown: [0; 4], twins, x: inst.x };
        for (i, (value, unknown)) in read.iter().enumerate() {
            (lane.value[i], lane.unknown[i]) = (value[l], unknown[l]);
        }
        if lane.unknown != [0; 4] {
            *out = undefined(inst.op, &lane) & width(result.class);
        }
    }
    pending
}

/// Notes what is not defined of the result, which every lane now holds, for the lanes of `mask`. Those of `doubt` have
/// either it or what the row held before.
#[cold]
#[inline(never)]
pub(crate) fn after(regs: &mut Regs, inst: &AluInst, pending: &Pending, mask: u32, doubt: u32) {
    let result = result_slot(inst);
    let mut unknown = pending.unknown;
    if doubt != 0 {
        let new = values(regs, result);
        for (l, unknown) in unknown.iter_mut().enumerate().filter(|(l, _)| doubt >> l & 1 == 1) {
            *unknown |= pending.old_unknown[l] | (pending.old[l] ^ new[l]);
        }
    }
    regs.set_unknown(result, &unknown, mask | doubt);
}

fn width(class: Class) -> u64 {
    match class {
        Class::W => u64::from(u32::MAX),
        Class::D => u64::MAX,
        Class::P => 1,
    }
}

/// Every bit from the lowest of `bits` on: what a carry out of an undefined bit may reach.
fn upward(bits: u64) -> u64 {
    bits | bits.wrapping_neg()
}

/// All or nothing.
fn any(bits: u64) -> u64 {
    if bits == 0 { 0 } else { u64::MAX }
}

/// Undefined bits of a product, when no more than 64 bits of it are kept: below the lowest undefined bit of a factor all
/// are defined, and a factor that is a multiple of a power of two moves that bit up.
fn product(a: u64, ua: u64, b: u64, ub: u64) -> u64 {
    let moved = |unknown: u64, by: u64| if by == 0 { 0 } else { int::shl64(upward(unknown), by.trailing_zeros()) };
    match (ua, ub) {
        (0, 0) => 0,
        (0, _) => moved(ub, a),
        (_, 0) => moved(ua, b),
        _ => upward(ua | ub),
    }
}

/// As [`product`], of the upper half of a product.
fn high_product(a: u64, ua: u64, b: u64, ub: u64) -> u64 {
    if ua == 0 && a == 0 || ub == 0 && b == 0 { 0 } else { any(ua | ub) }
}

fn sign32(v: u64) -> u64 {
    i64::from(v as i32) as u64
}

fn sign16(v: u64) -> u64 {
    i64::from(v as i16) as u64
}

/// Halves of a word that have an undefined bit.
fn halves(bits: u64) -> u64 {
    let half = |bits: u64| if bits & 0xffff == 0 { 0 } else { 0xffff };
    half(bits) | half(bits >> 16) << 16
}

/// A comparison of integers whose undefined bits may be anything: undefined if two outcomes are possible. `top` is the
/// sign bit of a signed comparison, which orders as an unsigned one with that bit turned over.
fn comparison(lane: &Lane, top: u64) -> u64 {
    if lane.twins {
        return 0;
    }
    let ([mut a, mut b, ..], [ua, ub, ..]) = (lane.value, lane.unknown);
    (a, b) = (a ^ top, b ^ top);
    let mut possible = 0;
    if a & !ua < b | ub {
        possible |= LESS;
    }
    if a | ua > b & !ub {
        possible |= GREATER;
    }
    if (a ^ b) & !(ua | ub) == 0 {
        possible |= EQUAL;
    }
    let wanted = possible & u64::from(lane.x);
    u64::from(wanted != 0 && wanted != possible)
}

/// A selection between `a` and `b`, the first if `first` holds, which may be undefined.
fn selection(lane: &Lane, first: bool, in_doubt: bool) -> u64 {
    let ([a, b, ..], [ua, ub, ..]) = (lane.value, lane.unknown);
    match (in_doubt, first) {
        (true, _) => ua | ub | (a ^ b),
        (false, true) => ua,
        (false, false) => ub,
    }
}

/// A bitwise function of three: a bit is undefined if some choice of the undefined bits at its place changes it.
fn bitwise(lane: &Lane) -> u64 {
    let f = |v: [u64; 4]| u64::from(int::lop3(v[0] as u32, v[1] as u32, v[2] as u32, u32::from(lane.x)));
    let base = f(lane.value);
    (1..8u32).fold(0, |out, choice| {
        let turned = |i: usize| {
            let chosen = if i == 1 && lane.twins { 0 } else { i };
            if choice >> chosen & 1 == 1 { lane.unknown[i] } else { 0 }
        };
        out | (base ^ f(std::array::from_fn(|i| lane.value[i] ^ if i < 3 { turned(i) } else { 0 })))
    })
}

/// The rule of an operation, for a lane with an undefined source bit. Bits above the result's width are ignored.
fn undefined(op: AluOp, lane: &Lane) -> u64 {
    use AluOp::*;
    let ([a, b, c, e], [ua, ub, uc, ue]) = (lane.value, lane.unknown);
    let all = any(ua | ub | uc | ue);
    match op {
        MovW | MovD | MovP | NotW | NotD | NotP => ua,
        Not16 | ExtU16 => ua & 0xffff,
        AndW | AndD | AndP => (ua & ub) | (ua & b) | (a & ub),
        AndNotP => (ua & ub) | (ua & b) | (!a & ub),
        OrW | OrD | OrP => (ua & ub) | (ua & !b) | (!a & ub),
        OrNotP => (ua & ub) | (ua & !b) | (a & ub),
        XorW | XorD | XorP | XnorP => {
            if lane.twins {
                0
            } else {
                ua | ub
            }
        }
        Lop3 => bitwise(lane),
        ShlW | Shl16 | ShrU32 | ShrS32 | ShrS16 | ShlD | ShrU64 | ShrS64 => shift(op, lane),
        ShfLWrap | ShfLClamp | ShfRWrap | ShfRClamp | Prmt | PrmtMode if uc != 0 => all,
        ShfLWrap => u64::from(int::shf_l(ua as u32, ub as u32, c as u32 & 31)),
        ShfLClamp => u64::from(int::shf_l(ua as u32, ub as u32, (c as u32).min(32))),
        ShfRWrap => u64::from(int::shf_r(ua as u32, ub as u32, c as u32 & 31)),
        ShfRClamp => u64::from(int::shf_r(ua as u32, ub as u32, (c as u32).min(32))),
        Prmt => u64::from(int::prmt(ua as u32, ub as u32, c as u32)),
        PrmtMode => u64::from(int::prmt_mode(ua as u32, ub as u32, c as u32, lane.x)),
        Brev => u64::from((ua as u32).reverse_bits()),
        BrevD => ua.reverse_bits(),
        BfeW | BfeD if ub | uc != 0 => all,
        BfeW => int::bfe(ua, b as u32, c as u32, 32, lane.x != 0),
        BfeD => int::bfe(ua, b as u32, c as u32, 64, lane.x != 0),
        // The base comes first, then the field, its position and its length.
        BfiW | BfiD if uc | ue != 0 => all,
        BfiW => int::bfi(ub, ua, c as u32, e as u32, 32),
        BfiD => int::bfi(ub, ua, c as u32, e as u32, 64),
        Cnot => u64::from(a & !ua == 0),
        SubW | SubD | Sub16 if lane.twins => 0,
        AddW | SubW | AddD | SubD | NegW | NegD => upward(ua | ub),
        Add16 | Sub16 | Neg16 => upward(ua | ub) & 0xffff,
        MulW | MulD | MulWideU16 | MulWideU32 => product(a, ua, b, ub),
        MulWideS16 => product(sign16(a), sign16(ua), sign16(b), sign16(ub)),
        MulWideS32 => product(sign32(a), sign32(ua), sign32(b), sign32(ub)),
        Mul16 => product(a, ua, b, ub) & 0xffff,
        MadW | MadD | MadWideU32 => upward(product(a, ua, b, ub) | uc),
        MadWideS32 => upward(product(sign32(a), sign32(ua), sign32(b), sign32(ub)) | uc),
        Mad16 => upward(product(a, ua, b, ub) | uc) & 0xffff,
        MulHiU16 | MulHiS16 | MulHiU32 | MulHiS32 | MulHiU64 | MulHiS64 => high_product(a, ua, b, ub),
        SelW | SelD => selection(lane, c != 0, uc != 0),
        SlctW => selection(lane, c as i32 >= 0, uc >> 31 & 1 == 1),
        SetpU32 | SetpU64 => comparison(lane, 0),
        SetpS32 => comparison(lane, 1 << 31),
        SetpS64 => comparison(lane, 1 << 63),
        SetpS16 => {
            let low = |v: [u64; 4]| v.map(|v| v & 0xffff);
            comparison(&Lane { value: low(lane.value), unknown: low(lane.unknown), ..*lane }, 1 << 15)
        }
        SetpF16 | SetpBf16 => u64::from((ua | ub) & 0xffff != 0),
        CopysignF32 => (ua & 0x8000_0000) | (ub & 0x7fff_ffff),
        AddF16 | SubF16 | MulF16 | FmaF16 | FmaReluF16 | AddBf16 | SubBf16 | MulBf16 | FmaBf16 | FmaReluBf16
        | MinMaxF16 | MinMaxBf16 | Neg16x2 | Abs16x2 | Ex2F16 | Ex2Bf16 | TanhF16 | TanhBf16 | ReluF16 | ReluBf16 => {
            halves(ua | ub | uc)
        }
        ExtU8 => ua & 0xff,
        ExtS8 => i64::from(ua as i8) as u64,
        ExtS16 => sign16(ua),
        ZextD | TruncD => ua,
        SextD => sign32(ua),
        HighD => ua >> 32,
        PackD => ua | ub << 32,
        Pack16 => (ua & 0xffff) | ub << 16,
        High16 => ua >> 16,
        F16ToF32 => any(ua & 0xffff),
        Bf16ToF32 => ua << 16,
        F32x2ToF16x2 | F32x2ToBf16x2 => (any(ua) & 0xffff_0000) | (any(ub) & 0xffff),
        F32x2ToE4m3x2 | F32x2ToE5m2x2 => (any(ua) & 0xff00) | (any(ub) & 0xff),
        F16x2ToE4m3x2 | F16x2ToE5m2x2 => (any(ua >> 16) & 0xff00) | (any(ua & 0xffff) & 0xff),
        E4m3x2ToF16x2 | E5m2x2ToF16x2 => (any(ua & 0xff) & 0xffff) | (any(ua & 0xff00) & 0xffff_0000),
        _ => all,
    }
}

/// Shifts: bits move with the value, and a sign that is undefined fills with undefined bits.
fn shift(op: AluOp, lane: &Lane) -> u64 {
    let ([a, b, ..], [ua, ub, ..]) = (lane.value, lane.unknown);
    if ub != 0 {
        // Whatever the amount, zero stays zero.
        return any(a | ua);
    }
    let (u, n) = (ua as u32, b as u32);
    match op {
        AluOp::ShlW => u64::from(int::shl32(u, n)),
        AluOp::Shl16 => u64::from(int::shl32(u, n) & 0xffff),
        AluOp::ShrU32 => u64::from(int::shr_u32(u, n)),
        AluOp::ShrS32 => u64::from(int::shr_s32(u, n)),
        AluOp::ShrS16 => u64::from(int::shr_s32(sign16(ua) as u32, n) & 0xffff),
        AluOp::ShlD => int::shl64(ua, n),
        AluOp::ShrU64 => int::shr_u64(ua, n),
        _ => int::shr_s64(ua, n),
    }
}
