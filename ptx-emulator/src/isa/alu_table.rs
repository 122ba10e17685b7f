//! Register-to-register operations: one table of name, operand classes and lane formula.
//!
//! The table yields the op enum and a function per operation. Classes are `W` (32-bit row, also 8 and
//! 16 bits zero-extended), `D` (64-bit row) and `P` (predicate). `x` is the small immediate
//! (rounding, comparison mask, byte-permute mode). The functions are compiled for several
//! instruction sets and chosen at run time; results do not depend on the choice. They are many and
//! small, where one that holds all of them takes a compiler minutes.

use crate::isa::slot::{Class, Role};
use crate::machine::regs::{Bits, DEFINED, FULL, LANES, Regs, Source, d as drow, w as wrow};
use crate::machine::simd::{Level, Versions, versions};
use crate::num::convert::{float_to_int, int_to_f32, int_to_f64, to_integral};
use crate::num::float::{self as fl, Round, canon, d, f, ftz, order};
use crate::num::small::{self, Bfloat, E4M3, E5M2, Fp16, halves1, halves2, halves3, narrow, widen};
use crate::num::{double, int};

/// One operation on rows. Unused operand slots are 0 and never read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AluInst {
    pub(crate) op: AluOp,
    pub(crate) d: u16,
    pub(crate) a: u16,
    pub(crate) b: u16,
    pub(crate) c: u16,
    pub(crate) x: u16,
}

macro_rules! class_value {
    (W) => {
        u32
    };
    (D) => {
        u64
    };
    (P) => {
        bool
    };
}

macro_rules! class_source {
    (W, $regs:ident, $at:expr) => {
        wrow($regs, $at)
    };
    (D, $regs:ident, $at:expr) => {
        drow($regs, $at)
    };
    (P, $regs:ident, $at:expr) => {
        Bits($regs.p[usize::from($at)])
    };
}

macro_rules! class_store {
    (W, $regs:ident, $at:expr, $lane:expr) => {{
        let mut out = [0u32; LANES];
        for l in 0..LANES {
            let l = number::<SMALL>(l);
            out[l] = $lane(l);
        }
        $regs.w[usize::from($at)].0 = out;
    }};
    (D, $regs:ident, $at:expr, $lane:expr) => {{
        let mut out = [0u64; LANES];
        for l in 0..LANES {
            let l = number::<SMALL>(l);
            out[l] = $lane(l);
        }
        $regs.d[usize::from($at)].0 = out;
    }};
    (P, $regs:ident, $at:expr, $lane:expr) => {{
        let mut out = 0u32;
        for l in 0..LANES {
            let l = number::<SMALL>(l);
            out |= u32::from($lane(l)) << l;
        }
        $regs.p[usize::from($at)] = out;
    }};
}

/// The number of a lane. In `SMALL` code the compiler does not know it, and leaves a loop over lanes a loop.
#[inline(always)]
fn number<const SMALL: bool>(l: usize) -> usize {
    if SMALL { std::hint::black_box(l) } else { l }
}

macro_rules! alu_table {
    ($($name:ident: $out:ident ($($arg:ident $slot:ident $class:ident),*) $x:ident => $formula:expr;)*) => {
        /// Every row operation.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub(crate) enum AluOp { $($name),* }

        #[cfg(test)]
        impl AluOp {
            /// The whole table.
            pub(crate) const ALL: &[AluOp] = &[$(AluOp::$name),*];
        }

        /// Calls `visit` with the rows of an operation: what it reads, then what it writes.
        pub(crate) fn visit_rows(inst: &mut AluInst, visit: &mut impl FnMut(Class, &mut u16, Role)) {
            match inst.op {
                $(AluOp::$name => {
                    $(visit(Class::$class, &mut inst.$slot, role_of(stringify!($slot)));)*
                    visit(Class::$out, &mut inst.d, Role::Write);
                })*
            }
        }

        impl AluOp {
            /// Class of the result.
            #[inline(always)]
            pub(crate) fn result(self) -> Class {
                self.rows().result
            }

            /// Classes of the rows that the operation reads and writes.
            #[inline(always)]
            pub(crate) fn rows(self) -> &'static OpRows {
                const ROWS: &[OpRows] = &[$(OpRows::of(Class::$out, &[$((stringify!($slot), Class::$class)),*])),*];
                &ROWS[self as usize]
            }
        }

        /// The lane formulas, each as a function over all lanes.
        #[expect(non_snake_case, reason = "named after the operations")]
        mod formula {
            use super::*;

            $(#[inline(always)]
            pub(super) fn $name<const SMALL: bool>(regs: &mut Regs, inst: &AluInst) {
                let $x = inst.x;
                $(let $arg = class_source!($class, regs, inst.$slot);)*
                class_store!($out, regs, inst.d, |l: usize| {
                    $(let $arg: class_value!($class) = $arg.lane(l);)*
                    $formula
                });
            })*
        }

        /// The operations by their numbers, compiled for each instruction set.
        static COMPILED: &[Versions<Compute>] =
            &[$(versions!(fn(regs: &mut Regs, inst: &AluInst) = formula::$name)),*];
    };
}

/// Computes one operation for all lanes. Unsafe where it is compiled for an instruction set that not every machine has.
type Compute = unsafe fn(&mut Regs, &AluInst);

/// Executes one operation for all lanes.
#[inline(always)]
pub(crate) fn execute(level: Level, regs: &mut Regs, inst: &AluInst) {
    let compute = COMPILED[inst.op as usize].of(level);
    // SAFETY: the versions of a `Level` need no instruction that this machine lacks.
    unsafe { compute(regs, inst) }
}

/// Classes of the rows that an operation names.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OpRows {
    pub(crate) result: Class,
    /// Numbers of those of the slots `a`, `b` and `c`; [`DEFINED`] where there is none.
    pub(crate) sources: [u8; 3],
    /// All lanes if the result is a source, too, or none.
    pub(crate) reads_result: u32,
}

impl OpRows {
    const fn of(result: Class, named: &[(&str, Class)]) -> OpRows {
        let mut rows = OpRows { result, sources: [DEFINED; 3], reads_result: 0 };
        let mut i = 0;
        while i < named.len() {
            let (slot, class) = named[i];
            match slot.as_bytes()[0] {
                b'd' => rows.reads_result = FULL,
                letter => rows.sources[(letter - b'a') as usize] = class as u8,
            }
            i += 1;
        }
        rows
    }
}

/// What becomes of a source slot; some operations read what they replace.
fn role_of(slot: &str) -> Role {
    if slot == "d" { Role::ReadResult } else { Role::Read }
}

fn rnd(x: u16) -> Round {
    Round::from_code(x)
}

/// Sign-extends the low 16 bits.
#[inline(always)]
fn s16(v: u32) -> i32 {
    i32::from(v as i16)
}

#[inline(always)]
fn hf(v: u32) -> f32 {
    f(small::f16_to_f32(v & 0xffff))
}

#[inline(always)]
fn bf(v: u32) -> f32 {
    f(small::bf16_to_f32(v & 0xffff))
}

/// Result of a comparison class against the wanted classes.
#[inline(always)]
fn wanted(class: u32, x: u16) -> bool {
    class & u32::from(x) != 0
}

/// Flag of the conversion immediate: flush subnormal input and output.
pub(crate) const X_FTZ: u16 = 1 << 2;
/// Flag: saturate to [0, 1] or to finite.
pub(crate) const X_SAT: u16 = 1 << 3;
/// Flag: result is signed.
pub(crate) const X_SIGNED: u16 = 1 << 4;
/// Flag: source is signed.
pub(crate) const X_SRC_SIGNED: u16 = 1 << 5;
/// Flag: a NaN keeps its payload.
pub(crate) const X_PAYLOAD: u16 = 1 << 6;
/// Where the result width in bits (8..64) starts.
pub(crate) const X_BITS_AT: u16 = 8;

#[inline(always)]
fn bits_of(x: u16) -> u32 {
    u32::from(x >> X_BITS_AT)
}

#[inline(always)]
fn flush_if(v: u32, x: u16) -> u32 {
    if x & X_FTZ != 0 { ftz(v) } else { v }
}

/// Flushing makes the usual NaN of any other.
#[inline(always)]
fn flush_canon(v: u32, x: u16) -> u32 {
    if x & X_FTZ != 0 { canon(f(ftz(v))) } else { v }
}

/// Each half with the usual NaN for any other; `x` is 1 for bf16.
#[inline(always)]
fn canon_halves(v: u32, x: u16) -> u32 {
    let infinity = if x == 1 { 0x7f80 } else { 0x7c00 };
    halves1(v, |h| if h & 0x7fff > infinity { 0x7fff } else { h })
}

#[inline(always)]
fn sat_if(v: u32, x: u16) -> u32 {
    if x & X_SAT != 0 { fl::sat(v) } else { v }
}

#[inline(always)]
fn sat64_if(v: u64, x: u16) -> u64 {
    if x & X_SAT != 0 { fl::sat64(v) } else { v }
}

/// An f16 cut to [0, 1]; NaN becomes 0.
#[inline(always)]
fn sat16(v: u32) -> u32 {
    let x = hf(v);
    if x > 1.0 {
        0x3c00
    } else if x > 0.0 {
        v
    } else {
        0
    }
}

/// The wide integer behind a source of the given signedness.
#[inline(always)]
fn wide(v: u64, x: u16) -> i128 {
    if x & X_SRC_SIGNED != 0 { i128::from(v as i64) } else { i128::from(v) }
}

#[inline(always)]
fn f32_to_int(v: u32, x: u16) -> u64 {
    float_to_int(f64::from(f(flush_if(v, x))), bits_of(x), x & X_SIGNED != 0, rnd(x), false)
}

/// Saturates an integer to the width and signedness in `x`.
#[inline(always)]
fn clamp_int(v: u64, x: u16) -> u64 {
    let value = wide(v, x);
    let bits = bits_of(x);
    let (low, high) =
        if x & X_SIGNED != 0 { (-(1i128 << (bits - 1)), (1i128 << (bits - 1)) - 1) } else { (0, (1i128 << bits) - 1) };
    let out = value.clamp(low, high) as u64;
    if bits < 32 { out & ((1 << bits) - 1) } else { out }
}

/// Rounds an f32 to an integral f32.
#[inline(always)]
fn integral32(v: u32, x: u16) -> u32 {
    let whole = to_integral(f64::from(f(flush_if(v, x))), rnd(x)) as f32;
    sat_if(canon(whole), x)
}

alu_table! {
    // Moves and bit operations.
    MovW: W (a a W) _x => a;
    MovD: D (a a D) _x => a;
    MovP: P (a a P) _x => a;
    AndW: W (a a W, b b W) _x => a & b;
    OrW: W (a a W, b b W) _x => a | b;
    XorW: W (a a W, b b W) _x => a ^ b;
    NotW: W (a a W) _x => !a;
    Not16: W (a a W) _x => !a & 0xffff;
    Cnot: W (a a W) _x => u32::from(a == 0);
    AndD: D (a a D, b b D) _x => a & b;
    OrD: D (a a D, b b D) _x => a | b;
    XorD: D (a a D, b b D) _x => a ^ b;
    NotD: D (a a D) _x => !a;
    AndP: P (a a P, b b P) _x => a & b;
    AndNotP: P (a a P, b b P) _x => !a & b;
    OrP: P (a a P, b b P) _x => a | b;
    OrNotP: P (a a P, b b P) _x => !a | b;
    XorP: P (a a P, b b P) _x => a ^ b;
    XnorP: P (a a P, b b P) _x => a == b;
    NotP: P (a a P) _x => !a;
    ShlW: W (a a W, b b W) _x => int::shl32(a, b);
    Shl16: W (a a W, b b W) _x => int::shl32(a, b) & 0xffff;
    ShrU32: W (a a W, b b W) _x => int::shr_u32(a, b);
    ShrS32: W (a a W, b b W) _x => int::shr_s32(a, b);
    ShrS16: W (a a W, b b W) _x => int::shr_s32(s16(a) as u32, b) & 0xffff;
    ShlD: D (a a D, b b W) _x => int::shl64(a, b);
    ShrU64: D (a a D, b b W) _x => int::shr_u64(a, b);
    ShrS64: D (a a D, b b W) _x => int::shr_s64(a, b);
    ShfLWrap: W (a a W, b b W, c c W) _x => int::shf_l(a, b, c & 31);
    ShfLClamp: W (a a W, b b W, c c W) _x => int::shf_l(a, b, c.min(32));
    ShfRWrap: W (a a W, b b W, c c W) _x => int::shf_r(a, b, c & 31);
    ShfRClamp: W (a a W, b b W, c c W) _x => int::shf_r(a, b, c.min(32));
    Lop3: W (a a W, b b W, c c W) x => int::lop3(a, b, c, u32::from(x));
    Prmt: W (a a W, b b W, c c W) _x => int::prmt(a, b, c);
    PrmtMode: W (a a W, b b W, c c W) x => int::prmt_mode(a, b, c, x);
    Brev: W (a a W) _x => a.reverse_bits();
    BrevD: D (a a D) _x => a.reverse_bits();
    Clz: W (a a W) _x => a.leading_zeros();
    ClzD: W (a a D) _x => a.leading_zeros();
    Popc: W (a a W) _x => a.count_ones();
    PopcD: W (a a D) _x => a.count_ones();
    // x: bit 0 signed, bit 1 shift amount.
    Bfind: W (a a W) x => int::bfind(u64::from(a), 32, x & 1 != 0, x & 2 != 0);
    BfindD: W (a a D) x => int::bfind(a, 64, x & 1 != 0, x & 2 != 0);
    BfeW: W (a a W, b b W, c c W) x => int::bfe(u64::from(a), b, c, 32, x != 0) as u32;
    BfeD: D (a a D, b b W, c c W) x => int::bfe(a, b, c, 64, x != 0);
    // The insertion base is the destination itself, copied there before by a move.
    BfiW: W (s d W, a a W, b b W, c c W) _x => int::bfi(u64::from(a), u64::from(s), b, c, 32) as u32;
    BfiD: D (s d D, a a D, b b W, c c W) _x => int::bfi(a, s, b, c, 64);
    // Integer arithmetic.
    AddW: W (a a W, b b W) _x => a.wrapping_add(b);
    SubW: W (a a W, b b W) _x => a.wrapping_sub(b);
    MulW: W (a a W, b b W) _x => a.wrapping_mul(b);
    MadW: W (a a W, b b W, c c W) _x => a.wrapping_mul(b).wrapping_add(c);
    Add16: W (a a W, b b W) _x => a.wrapping_add(b) & 0xffff;
    Sub16: W (a a W, b b W) _x => a.wrapping_sub(b) & 0xffff;
    Mul16: W (a a W, b b W) _x => a.wrapping_mul(b) & 0xffff;
    Mad16: W (a a W, b b W, c c W) _x => a.wrapping_mul(b).wrapping_add(c) & 0xffff;
    MulHiU16: W (a a W, b b W) _x => a.wrapping_mul(b) >> 16;
    MulHiS16: W (a a W, b b W) _x => ((s16(a) * s16(b)) >> 16) as u32 & 0xffff;
    MulWideU16: W (a a W, b b W) _x => a.wrapping_mul(b);
    MulWideS16: W (a a W, b b W) _x => (s16(a) * s16(b)) as u32;
    MulHiU32: W (a a W, b b W) _x => ((u64::from(a) * u64::from(b)) >> 32) as u32;
    MulHiS32: W (a a W, b b W) _x => ((i64::from(a as i32) * i64::from(b as i32)) >> 32) as u32;
    MulWideU32: D (a a W, b b W) _x => u64::from(a) * u64::from(b);
    MulWideS32: D (a a W, b b W) _x => (i64::from(a as i32) * i64::from(b as i32)) as u64;
    MadWideU32: D (a a W, b b W, c c D) _x => (u64::from(a) * u64::from(b)).wrapping_add(c);
    MadWideS32: D (a a W, b b W, c c D) _x => ((i64::from(a as i32) * i64::from(b as i32)) as u64).wrapping_add(c);
    AddD: D (a a D, b b D) _x => a.wrapping_add(b);
    SubD: D (a a D, b b D) _x => a.wrapping_sub(b);
    MulD: D (a a D, b b D) _x => a.wrapping_mul(b);
    MadD: D (a a D, b b D, c c D) _x => a.wrapping_mul(b).wrapping_add(c);
    MulHiU64: D (a a D, b b D) _x => int::mul_hi_u64(a, b);
    MulHiS64: D (a a D, b b D) _x => int::mul_hi_s64(a, b);
    DivU32: W (a a W, b b W) _x => a.checked_div(b).unwrap_or(u32::MAX);
    DivS32: W (a a W, b b W) _x => int::div_s64(i64::from(a as i32), i64::from(b as i32)) as u32;
    DivU16: W (a a W, b b W) _x => a.checked_div(b).unwrap_or(0xffff);
    DivS16: W (a a W, b b W) _x => int::div_s64(i64::from(s16(a)), i64::from(s16(b))) as u32 & 0xffff;
    DivU64: D (a a D, b b D) _x => int::div_u64(a, b);
    DivS64: D (a a D, b b D) _x => int::div_s64(a as i64, b as i64) as u64;
    RemU32: W (a a W, b b W) _x => a.checked_rem(b).unwrap_or(a);
    RemS32: W (a a W, b b W) _x => int::rem_s64(i64::from(a as i32), i64::from(b as i32)) as u32;
    RemS16: W (a a W, b b W) _x => int::rem_s64(i64::from(s16(a)), i64::from(s16(b))) as u32 & 0xffff;
    RemU64: D (a a D, b b D) _x => int::rem_u64(a, b);
    RemS64: D (a a D, b b D) _x => int::rem_s64(a as i64, b as i64) as u64;
    MinU32: W (a a W, b b W) _x => a.min(b);
    MaxU32: W (a a W, b b W) _x => a.max(b);
    MinS32: W (a a W, b b W) _x => (a as i32).min(b as i32) as u32;
    MaxS32: W (a a W, b b W) _x => (a as i32).max(b as i32) as u32;
    MinS16: W (a a W, b b W) _x => s16(a).min(s16(b)) as u32 & 0xffff;
    MaxS16: W (a a W, b b W) _x => s16(a).max(s16(b)) as u32 & 0xffff;
    MinU64: D (a a D, b b D) _x => a.min(b);
    MaxU64: D (a a D, b b D) _x => a.max(b);
    MinS64: D (a a D, b b D) _x => (a as i64).min(b as i64) as u64;
    MaxS64: D (a a D, b b D) _x => (a as i64).max(b as i64) as u64;
    NegW: W (a a W) _x => a.wrapping_neg();
    Neg16: W (a a W) _x => a.wrapping_neg() & 0xffff;
    NegD: D (a a D) _x => a.wrapping_neg();
    AbsS32: W (a a W) _x => (a as i32).wrapping_abs() as u32;
    AbsS16: W (a a W) _x => s16(a).wrapping_abs() as u32 & 0xffff;
    AbsS64: D (a a D) _x => (a as i64).wrapping_abs() as u64;
    AddSatS32: W (a a W, b b W) _x => (a as i32).saturating_add(b as i32) as u32;
    SubSatS32: W (a a W, b b W) _x => (a as i32).saturating_sub(b as i32) as u32;
    SadU32: W (a a W, b b W, c c W) _x => a.abs_diff(b).wrapping_add(c);
    SadS32: W (a a W, b b W, c c W) _x => (a as i32).abs_diff(b as i32).wrapping_add(c);
    // x: bit 0 the first factor is signed, bit 1 the second, bit 2 the upper bytes of it.
    Dp2a: W (a a W, b b W, c c W) x => int::dp2a(a, b, c, x);
    // x: bit 0 signed, bit 1 the upper half.
    Mul24: W (a a W, b b W) x => int::mul24(a, b, x & 1 != 0, x & 2 != 0);
    // x: 1 wraps position and width, 0 clamps them.
    Bmsk: W (a a W, b b W) x => int::bmsk(a, b, x != 0);
    // x: bit 0 wraps the width instead of clamping it, bit 1 signed.
    Szext: W (a a W, b b W) x => {
        let width = if x & 1 != 0 { b & 31 } else { b.min(32) };
        let high = a.unbounded_shl(32 - width);
        if x & 2 != 0 { (high as i32).unbounded_shr(32 - width) as u32 } else { high.unbounded_shr(32 - width) }
    };
    Dp4a: W (a a W, b b W, c c W) x => int::dp4a(a, b, c, x & 1 != 0, x & 2 != 0);
    // Selection and comparison; x holds the accepted comparison classes.
    SelW: W (a a W, b b W, c c P) _x => if c { a } else { b };
    SelD: D (a a D, b b D, c c P) _x => if c { a } else { b };
    SetpU32: P (a a W, b b W) x => wanted(order(a, b), x);
    SetpS32: P (a a W, b b W) x => wanted(order(a as i32, b as i32), x);
    SetpS16: P (a a W, b b W) x => wanted(order(s16(a), s16(b)), x);
    SetpU64: P (a a D, b b D) x => wanted(order(a, b), x);
    SetpS64: P (a a D, b b D) x => wanted(order(a as i64, b as i64), x);
    SetpF32: P (a a W, b b W) x => wanted(order(f(a), f(b)), x);
    SetpF32Ftz: P (a a W, b b W) x => wanted(order(f(ftz(a)), f(ftz(b))), x);
    SetpF64: P (a a D, b b D) x => wanted(order(d(a), d(b)), x);
    SetpF16: P (a a W, b b W) x => wanted(order(hf(a), hf(b)), x);
    SetpBf16: P (a a W, b b W) x => wanted(order(bf(a), bf(b)), x);
    TestpF32: P (a a W) x => fl::testp(a, x);
    SlctW: W (a a W, b b W, c c W) _x => if (c as i32) >= 0 { a } else { b };
    // f32 arithmetic.
    AddF32: W (a a W, b b W) _x => canon(f(a) + f(b));
    SubF32: W (a a W, b b W) _x => canon(f(a) - f(b));
    MulF32: W (a a W, b b W) _x => canon(f(a) * f(b));
    FmaF32: W (a a W, b b W, c c W) _x => canon(f(a).mul_add(f(b), f(c)));
    AddF32Ftz: W (a a W, b b W) _x => ftz(canon(f(ftz(a)) + f(ftz(b))));
    SubF32Ftz: W (a a W, b b W) _x => ftz(canon(f(ftz(a)) - f(ftz(b))));
    MulF32Ftz: W (a a W, b b W) _x => ftz(canon(f(ftz(a)) * f(ftz(b))));
    FmaF32Ftz: W (a a W, b b W, c c W) _x => ftz(canon(f(ftz(a)).mul_add(f(ftz(b)), f(ftz(c)))));
    // Directed rounding or saturation; multiplications and additions are forms of it.
    FmaF32Round: W (a a W, b b W, c c W) x => sat_if(flush_if(fl::fma_round(flush_if(a, x), flush_if(b, x), flush_if(c, x), rnd(x)), x), x);
    MinF32: W (a a W, b b W) _x => fl::min_max(a, b, false);
    MaxF32: W (a a W, b b W) _x => fl::min_max(a, b, true);
    MinF32Ftz: W (a a W, b b W) _x => fl::min_max(ftz(a), ftz(b), false);
    MaxF32Ftz: W (a a W, b b W) _x => fl::min_max(ftz(a), ftz(b), true);
    MinF32Nan: W (a a W, b b W) x => fl::min_max_nan(flush_if(a, x), flush_if(b, x), false);
    MaxF32Nan: W (a a W, b b W) x => fl::min_max_nan(flush_if(a, x), flush_if(b, x), true);
    NegF32: W (a a W) x => canon(f(flush_if(a, x) ^ 0x8000_0000));
    AbsF32: W (a a W) x => canon(f(flush_if(a, x) & 0x7fff_ffff));
    CopysignF32: W (a a W, b b W) _x => (a & 0x8000_0000) | (b & 0x7fff_ffff);
    DivF32: W (a a W, b b W) x => flush_if(fl::div_round(flush_if(a, x), flush_if(b, x), rnd(x)), x);
    DivF32Approx: W (a a W, b b W) x => flush_if(fl::div_approx(flush_if(a, x), flush_if(b, x)), x);
    DivF32Full: W (a a W, b b W) x => flush_if(canon(f(flush_if(a, x)) / f(flush_if(b, x))), x);
    RcpF32: W (a a W) x => flush_if(fl::div_round(0x3f80_0000, flush_if(a, x), rnd(x)), x);
    RcpF32Approx: W (a a W) x => flush_if(canon(1.0 / f(flush_if(a, x))), x);
    SqrtF32: W (a a W) x => flush_if(fl::sqrt_round(flush_if(a, x), rnd(x)), x);
    RsqrtF32: W (a a W) x => flush_if(fl::rsqrt(flush_if(a, x)), x);
    Ex2F32: W (a a W) _x => fl::ex2(a);
    Ex2F32Ftz: W (a a W) _x => ftz(fl::ex2(ftz(a)));
    Lg2F32: W (a a W) x => flush_if(fl::lg2(flush_if(a, x)), x);
    SinF32: W (a a W) x => flush_if(canon(f64::from(f(flush_if(a, x))).sin() as f32), x);
    CosF32: W (a a W) x => flush_if(canon(f64::from(f(flush_if(a, x))).cos() as f32), x);
    TanhF32: W (a a W) _x => canon(f64::from(f(a)).tanh() as f32);
    // f64 arithmetic, to nearest.
    AddF64: D (a a D, b b D) _x => fl::nan64([b, a], d(a) + d(b));
    SubF64: D (a a D, b b D) _x => fl::nan64([b, a], d(a) - d(b));
    MulF64: D (a a D, b b D) _x => fl::nan64([b, a], d(a) * d(b));
    DivF64: D (a a D, b b D) _x => fl::nan64([a, b], d(a) / d(b));
    FmaF64: D (a a D, b b D, c c D) _x => fl::nan64([b, c, a], d(a).mul_add(d(b), d(c)));
    SqrtF64: D (a a D) _x => fl::nan64([a], d(a).sqrt());
    // Directed rounding; multiplications and additions are forms of the first.
    FmaF64Round: D (a a D, b b D, c c D) x => double::fma(a, b, c, rnd(x));
    DivF64Round: D (a a D, b b D) x => double::div(a, b, rnd(x));
    SqrtF64Round: D (a a D) x => double::sqrt(a, rnd(x));
    // x: flushing, which these forms also use for a result of 20 bits.
    RcpF64Approx: D (a a D) _x => double::rcp_approx(a);
    RsqrtF64Approx: D (a a D) x => double::rsqrt_approx(a, x & X_FTZ != 0);
    MinF64: D (a a D, b b D) _x => fl::min_max64(a, b, false);
    MaxF64: D (a a D, b b D) _x => fl::min_max64(a, b, true);
    NegF64: D (a a D) _x => if d(a).is_nan() { fl::quiet64(a) } else { a ^ (1 << 63) };
    AbsF64: D (a a D) _x => if d(a).is_nan() { fl::quiet64(a) } else { a & !(1 << 63) };
    // 16-bit floats, scalar (upper half zero) and packed.
    AddF16: W (a a W, b b W) _x => halves2(a, b, small::add::<Fp16>);
    SubF16: W (a a W, b b W) _x => halves2(a, b, |a, b| small::add::<Fp16>(a, b ^ 0x8000)) ;
    MulF16: W (a a W, b b W) _x => halves2(a, b, small::mul::<Fp16>);
    FmaF16: W (a a W, b b W, c c W) _x => halves3(a, b, c, small::fma::<Fp16>);
    FmaReluF16: W (a a W, b b W, c c W) _x => halves1(halves3(a, b, c, small::fma::<Fp16>), |v| small::min_max::<Fp16>(v, 0, true, true));
    AddBf16: W (a a W, b b W) _x => halves2(a, b, small::add::<Bfloat>);
    SubBf16: W (a a W, b b W) _x => halves2(a, b, |a, b| small::add::<Bfloat>(a, b ^ 0x8000));
    MulBf16: W (a a W, b b W) _x => halves2(a, b, small::mul::<Bfloat>);
    FmaBf16: W (a a W, b b W, c c W) _x => halves3(a, b, c, small::fma::<Bfloat>);
    FmaReluBf16: W (a a W, b b W, c c W) _x => halves1(halves3(a, b, c, small::fma::<Bfloat>), |v| small::min_max::<Bfloat>(v, 0, true, true));
    // x: bit 0 maximum, bit 1 NaN propagates.
    MinMaxF16: W (a a W, b b W) x => halves2(a, b, |a, b| small::min_max::<Fp16>(a, b, x & 1 != 0, x & 2 != 0));
    MinMaxBf16: W (a a W, b b W) x => halves2(a, b, |a, b| small::min_max::<Bfloat>(a, b, x & 1 != 0, x & 2 != 0));
    // x: 1 for bf16.
    Flush16x2: W (a a W) x => halves1(a, |h| if h & if x == 1 { 0x7f80 } else { 0x7c00 } == 0 { h & 0x8000 } else { h });
    Neg16x2: W (a a W, b b W) x => canon_halves(a ^ b, x);
    Abs16x2: W (a a W) x => canon_halves(a & 0x7fff_7fff, x);
    // ex2 of both halves, in f32 and rounded.
    Ex2F16: W (a a W) _x => halves1(a, |v| small::f32_to_f16(fl::ex2(small::f16_to_f32(v))));
    Ex2Bf16: W (a a W) _x => halves1(a, |v| small::f32_to_bf16(ftz(fl::ex2(ftz(small::bf16_to_f32(v))))));
    TanhF16: W (a a W) _x => halves1(a, |v| small::f32_to_f16(canon(f(small::f16_to_f32(v)).tanh())));
    TanhBf16: W (a a W) _x => halves1(a, |v| small::f32_to_bf16(canon(f(small::bf16_to_f32(v)).tanh())));
    // Width changes.
    ExtU8: W (a a W) _x => a & 0xff;
    ExtU16: W (a a W) _x => a & 0xffff;
    ExtS8: W (a a W) _x => a as i8 as i32 as u32;
    ExtS16: W (a a W) _x => s16(a) as u32;
    ZextD: D (a a W) _x => u64::from(a);
    SextD: D (a a W) _x => i64::from(a as i32) as u64;
    TruncD: W (a a D) _x => a as u32;
    HighD: W (a a D) _x => (a >> 32) as u32;
    PackD: D (a a W, b b W) _x => u64::from(a) | u64::from(b) << 32;
    Pack16: W (a a W, b b W) _x => (a & 0xffff) | b << 16;
    High16: W (a a W) _x => a >> 16;
    ClampIntW: W (a a D) x => clamp_int(a, x) as u32;
    ClampIntD: D (a a D) x => clamp_int(a, x);
    // Conversions.
    F32ToIntW: W (a a W) x => f32_to_int(a, x) as u32;
    F32ToIntD: D (a a W) x => f32_to_int(a, x);
    F32ToS32Rz: W (a a W) _x => (f(a) as i32) as u32;
    F64ToIntW: W (a a D) x => float_to_int(d(a), bits_of(x), x & X_SIGNED != 0, rnd(x), true) as u32;
    F64ToIntD: D (a a D) x => float_to_int(d(a), bits_of(x), x & X_SIGNED != 0, rnd(x), true);
    S32ToF32: W (a a W) _x => ((a as i32) as f32).to_bits();
    U32ToF32: W (a a W) _x => (a as f32).to_bits();
    IntToF32: W (a a D) x => int_to_f32(wide(a, x), rnd(x)).to_bits();
    IntToF64: D (a a D) x => int_to_f64(wide(a, x), rnd(x)).to_bits();
    IntToF16: W (a a D) x => narrow(wide(a, x) as f64, small::F16, rnd(x), false);
    IntToBf16: W (a a D) x => narrow(wide(a, x) as f64, small::BF16, rnd(x), false);
    F32ToF64: D (a a W) x => sat64_if(f64::from(f(flush_canon(a, x))).to_bits(), x);
    F64ToF32: W (a a D) x => sat_if(flush_if(fl::f64_to_f32(a, rnd(x)), x), x);
    F64ToF16: W (a a D) x => small::f64_to_f16(a, rnd(x));
    F64Integral: D (a a D) x => sat64_if(fl::nan64([a], to_integral(d(a), rnd(x))), x);
    F32Integral: W (a a W) x => integral32(a, x);
    F16Integral: W (a a W) x => narrow(to_integral(f64::from(hf(a)), rnd(x)), small::F16, Round::Nearest, false);
    // To the nearest number of 10 fraction bits, ties away from zero.
    F32ToTf32: W (a a W) _x => if f(a).is_finite() { a.wrapping_add(0x1000) } else { a } & !0x1fff;
    F32Flush: W (a a W) x => sat_if(flush_canon(a, x), x);
    F16ToF32: W (a a W) x => if x & X_PAYLOAD != 0 { small::f16_to_f32(a & 0xffff) } else { canon(f(small::f16_to_f32(a & 0xffff))) };
    Bf16ToF32: W (a a W) _x => a << 16;
    F32ToF16: W (a a W) _x => small::f32_to_f16(a);
    F32ToBf16: W (a a W) _x => small::f32_to_bf16(a);
    // The first source goes to the upper half.
    F32x2ToF16x2: W (a a W, b b W) _x => small::f32_to_f16(a) << 16 | small::f32_to_f16(b);
    F32x2ToBf16x2: W (a a W, b b W) _x => small::f32_to_bf16(a) << 16 | small::f32_to_bf16(b);
    F32ToF16Round: W (a a W) x => narrow(f64::from(f(a)), small::F16, rnd(x), x & X_SAT != 0);
    F32ToBf16Round: W (a a W) x => narrow(f64::from(f(a)), small::BF16, rnd(x), x & X_SAT != 0);
    F32x2ToE4m3x2: W (a a W, b b W) _x => narrow(f64::from(f(a)), E4M3, Round::Nearest, true) << 8 | narrow(f64::from(f(b)), E4M3, Round::Nearest, true);
    F32x2ToE5m2x2: W (a a W, b b W) _x => narrow(f64::from(f(a)), E5M2, Round::Nearest, true) << 8 | narrow(f64::from(f(b)), E5M2, Round::Nearest, true);
    F16x2ToE4m3x2: W (a a W) _x => narrow(f64::from(hf(a >> 16)), E4M3, Round::Nearest, true) << 8 | narrow(f64::from(hf(a)), E4M3, Round::Nearest, true);
    F16x2ToE5m2x2: W (a a W) _x => narrow(f64::from(hf(a >> 16)), E5M2, Round::Nearest, true) << 8 | narrow(f64::from(hf(a)), E5M2, Round::Nearest, true);
    E4m3x2ToF16x2: W (a a W) _x => e4m3_to_f16(a & 0xff) | e4m3_to_f16((a >> 8) & 0xff) << 16;
    E5m2x2ToF16x2: W (a a W) _x => e5m2_to_f16(a & 0xff) | e5m2_to_f16((a >> 8) & 0xff) << 16;
    ReluF16: W (a a W) _x => halves1(a, |v| small::min_max::<Fp16>(v, 0, true, true));
    SatF16: W (a a W) _x => sat16(a);
    ReluBf16: W (a a W) _x => halves1(a, |v| small::min_max::<Bfloat>(v, 0, true, true));
}

/// e4m3 bits to f16 bits; exact, NaN to 0x7FFF. Integers only: a product with a subnormal f32
/// costs the processor a hundred cycles.
#[inline(always)]
fn e4m3_to_f16(v: u32) -> u32 {
    let magnitude = v & 0x7f;
    // The exponent is 8 more in f16, whose fraction is 7 bits longer.
    let normal = (magnitude << 7) + (8 << 10);
    // A subnormal is a multiple of 2^-9: a whole number whose exponent is 9 less, and 112 less
    // again from f32 to f16.
    let tiny = ((magnitude as i32 as f32).to_bits().wrapping_sub(121 << 23)) >> 13;
    let half = if magnitude >= 8 { normal } else { tiny };
    let half = if magnitude == 0 { 0 } else { half };
    if magnitude == 0x7f { 0x7fff } else { (v & 0x80) << 8 | half }
}

/// e5m2 bits to f16 bits: the same exponent field, two fraction bits.
#[inline(always)]
fn e5m2_to_f16(v: u32) -> u32 {
    if v & 0x7f > 0x7c { 0x7fff } else { v << 8 }
}

/// Exact value of one FP8 code.
pub(crate) fn fp8_to_f32(code: u32, e5m2: bool) -> f32 {
    widen(code & 0xff, if e5m2 { E5M2 } else { E4M3 }) as f32
}
