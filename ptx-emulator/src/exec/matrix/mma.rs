//! `mma.sync` and `wmma.mma`: fragments to tiles, the product, and back.

use crate::exec::run::block::{Block, Context};
use crate::exec::run::step::Flow;
use crate::exec::run::warp::Warp;
use crate::isa::alu_table::fp8_to_f32;
use crate::isa::op::{Acc, Elem, Mma, MmaHalf};
use crate::launch::MmaModel;
use crate::machine::regs::{FULL, LANES, Regs, w};
use crate::machine::simd::{Level, dispatch};
use crate::num::small::{bf16_to_f32, f16_to_f32, f32_to_f16};
use crate::tensor::half16::{self, Operands};
use crate::tensor::layout;
use crate::tensor::sum::{self, Aligned, FactorA, FactorB, K, M, N, Tile};

/// A row of 32-bit register values.
type Lanes = [u32; LANES];

impl Block {
    /// Common entry of the aligned instructions: all lanes, then time passes.
    pub(crate) fn aligned(
        &mut self,
        context: &Context<'_>,
        warp: &mut Warp,
        current: usize,
        pc: usize,
        active: u32,
    ) -> Option<Flow> {
        let flow = self.converge(context, warp, current, pc, active, FULL);
        if flow.is_none() {
            self.clocks.tick(warp.index);
        }
        flow
    }

    pub(crate) fn mma(
        &mut self,
        context: &Context<'_>,
        warp: &mut Warp,
        current: usize,
        pc: usize,
        active: u32,
        op: &Mma,
    ) -> Flow {
        if let Some(flow) = self.aligned(context, warp, current, pc, active) {
            return flow;
        }
        if op.d_acc == Acc::S32 {
            for half in &op.halves {
                integer_product(&mut warp.regs, op, half, active);
            }
        } else if is_common(context.launch.mma_model, op) {
            common_product(context.level, &mut warp.regs, op, active);
        } else {
            let mut a: FactorA = [[0.0; K]; M];
            decode_a(context.level, &warp.regs, op, &mut a);
            for half in &op.halves {
                float_product(context, &mut warp.regs, op, half, &a, active);
            }
        }
        if context.launch.checks.uninitialised {
            for half in &op.halves {
                taint_product(&mut warp.regs, op, half, active);
            }
        }
        Flow::Next
    }
}

/// Both halves of each lane as f32.
#[inline(always)]
fn widen16(row: &Lanes, brain: bool, low: &mut [f32; LANES], high: &mut [f32; LANES]) {
    for (l, &word) in row.iter().enumerate() {
        let (a, b) = (word & 0xffff, word >> 16);
        let (a, b) = if brain { (bf16_to_f32(a), bf16_to_f32(b)) } else { (f16_to_f32(a), f16_to_f32(b)) };
        low[l] = f32::from_bits(a);
        high[l] = f32::from_bits(b);
    }
}

dispatch! {
    /// [`widen16`] compiled for `level`.
    fn widen(row: &Lanes, brain: bool, low: &mut [f32; LANES], high: &mut [f32; LANES]) = widen16;
}

/// What a tensor core reads of an f32: not its lowest 13 bits.
fn tf32(word: u32) -> f32 {
    f32::from_bits(word & !0x1fff)
}

fn decode_a(level: Level, regs: &Regs, op: &Mma, a: &mut FactorA) {
    for (reg, &row) in op.a.iter().enumerate() {
        let row = w(regs, row);
        if op.a_elem.is_byte() {
            for (lane, &word) in row.iter().enumerate() {
                for byte in 0..4 {
                    let (m, k) = layout::a8(lane, reg, byte);
                    a[m][k] = fp8_to_f32(word >> (8 * byte), op.a_elem == Elem::E5m2);
                }
            }
            continue;
        }
        if op.a_elem == Elem::Tf32 {
            for (lane, &word) in row.iter().enumerate() {
                let (m, k) = layout::a32(lane, reg);
                a[m][k] = tf32(word);
            }
            continue;
        }
        let (mut low, mut high) = ([0.0; LANES], [0.0; LANES]);
        widen(level, row, op.a_elem == Elem::Bf16, &mut low, &mut high);
        for lane in 0..LANES {
            let (m, k) = layout::a16(lane, reg, 0);
            a[m][k] = low[lane];
            a[m][k + 1] = high[lane];
        }
    }
}

fn decode_b(level: Level, regs: &Regs, op: &Mma, rows: &[u16], b: &mut FactorB) {
    for (reg, &row) in rows.iter().enumerate() {
        let row = w(regs, row);
        if op.b_elem.is_byte() {
            for (lane, &word) in row.iter().enumerate() {
                for byte in 0..4 {
                    let (k, n) = layout::b8(lane, reg, byte);
                    b[k][n] = fp8_to_f32(word >> (8 * byte), op.b_elem == Elem::E5m2);
                }
            }
            continue;
        }
        if op.b_elem == Elem::Tf32 {
            for (lane, &word) in row.iter().enumerate() {
                let (k, n) = layout::b32(lane, reg);
                b[k][n] = tf32(word);
            }
            continue;
        }
        let (mut low, mut high) = ([0.0; LANES], [0.0; LANES]);
        widen(level, row, op.b_elem == Elem::Bf16, &mut low, &mut high);
        for lane in 0..LANES {
            let (k, n) = layout::b16(lane, reg, 0);
            b[k][n] = low[lane];
            b[k + 1][n] = high[lane];
        }
    }
}

/// Whether the row-to-row product applies: 16-bit factors of depth 16, f32 sums, fast model.
fn is_common(model: MmaModel, op: &Mma) -> bool {
    op.k == 16
        && matches!(op.halves.len(), 1 | 2)
        && !op.a_elem.is_byte()
        && (op.c_acc, op.d_acc) == (Acc::F32, Acc::F32)
        && model_of(model, op).is_none()
}

/// The common product of all lanes, without taint; false, and nothing done, for another.
pub(crate) fn plain(level: Level, model: MmaModel, regs: &mut Regs, op: &Mma) -> bool {
    let common = is_common(model, op);
    if common {
        common_product(level, regs, op, FULL);
    }
    common
}

fn common_product(level: Level, regs: &mut Regs, op: &Mma, active: u32) {
    match op.halves.as_slice() {
        [half] => half16::product(level, regs, &operands(op, [half]), active),
        [left, right] => half16::product_pair(level, regs, &operands(op, [left, right]), active),
        _ => {}
    }
}

fn operands<const HALVES: usize>(op: &Mma, halves: [&MmaHalf; HALVES]) -> Operands<HALVES> {
    Operands {
        a: four(&op.a),
        b: halves.map(|half| [half.b[0], half.b[1]]),
        c: halves.map(|half| four(&half.c)),
        d: halves.map(|half| four(&half.d)),
        brain: op.a_elem == Elem::Bf16,
    }
}

fn four(rows: &[u16]) -> [u16; 4] {
    [rows[0], rows[1], rows[2], rows[3]]
}

/// The aligned model for an instruction, or none for the fast chain.
fn model_of(model: MmaModel, op: &Mma) -> Option<Aligned> {
    let (fp8, k) = (op.a_elem.is_byte(), op.k);
    let half = k.div_ceil(2).max(8);
    let ada8 = Aligned { fraction: 13, result: 13, chunk: half, half: false, least: sum::NORMALISED };
    match model {
        MmaModel::Fast => None,
        MmaModel::FastExceptFp8 => fp8.then_some(ada8),
        MmaModel::Sm89 if fp8 => Some(ada8),
        MmaModel::Sm80 | MmaModel::Sm89 => {
            Some(Aligned { fraction: 24, result: 23, chunk: half.min(8), half: false, least: sum::NORMALISED })
        }
        MmaModel::Sm90 => Some(Aligned {
            fraction: 25,
            result: 23,
            chunk: k,
            half: (op.c_acc, op.d_acc) == (Acc::F16, Acc::F16),
            least: sum::NORMALISED,
        }),
    }
}

fn float_product(context: &Context<'_>, regs: &mut Regs, op: &Mma, half: &MmaHalf, a: &FactorA, active: u32) {
    let mut b: FactorB = [[0.0; N]; K];
    decode_b(context.level, regs, op, &half.b, &mut b);
    let mut tile: Tile = [[0.0; N]; M];
    for (reg, &row) in half.c.iter().enumerate() {
        let row = w(regs, row);
        for (lane, &word) in row.iter().enumerate() {
            if op.c_acc == Acc::F32 {
                let (m, n) = layout::c32(lane, reg);
                tile[m][n] = f32::from_bits(word);
            } else {
                let (m, n) = layout::c16(lane, reg, 0);
                tile[m][n] = f32::from_bits(f16_to_f32(word & 0xffff));
                tile[m][n + 1] = f32::from_bits(f16_to_f32(word >> 16));
            }
        }
    }
    match model_of(context.launch.mma_model, op) {
        Some(model) if context.launch.mma_model == MmaModel::Sm90 && op.a_elem.is_byte() => {
            sum::hopper_fp8(context.level, a, &b, op.k, &mut tile, model.half);
        }
        Some(model) => sum::exact(context.level, a, &b, op.k, &mut tile, model),
        None => sum::fast(context.level, a, &b, op.k, &mut tile),
    }
    for (reg, &row) in half.d.iter().enumerate() {
        let mut out: Lanes = [0; LANES];
        for (lane, value) in out.iter_mut().enumerate() {
            *value = if op.d_acc == Acc::F32 {
                let (m, n) = layout::c32(lane, reg);
                crate::num::float::canon(tile[m][n])
            } else {
                let (m, n) = layout::c16(lane, reg, 0);
                f32_to_f16(tile[m][n].to_bits()) | f32_to_f16(tile[m][n + 1].to_bits()) << 16
            };
        }
        regs.set_w(row, &out, active);
    }
}

fn integer_product(regs: &mut Regs, op: &Mma, half: &MmaHalf, active: u32) {
    let value = |word: u32, byte: usize, elem: Elem| {
        let byte = (word >> (8 * byte)) as u8;
        if elem == Elem::S8 { i64::from(byte as i8) } else { i64::from(byte) }
    };
    let mut a = [[0i64; K]; M];
    let mut b = [[0i64; N]; K];
    for lane in 0..LANES {
        for byte in 0..4 {
            for (reg, &row) in op.a.iter().enumerate() {
                let (m, k) = layout::a8(lane, reg, byte);
                a[m][k] = value(w(regs, row)[lane], byte, op.a_elem);
            }
            for (reg, &row) in half.b.iter().enumerate() {
                let (k, n) = layout::b8(lane, reg, byte);
                b[k][n] = value(w(regs, row)[lane], byte, op.b_elem);
            }
        }
    }
    let mut out = [[0u32; LANES]; 4];
    for (reg, (&row, out)) in half.c.iter().zip(&mut out).enumerate() {
        for (lane, (out, &start)) in out.iter_mut().zip(w(regs, row)).enumerate() {
            let (m, n) = layout::c32(lane, reg);
            let product = |k: usize| a[m][k] * b[k][n];
            let sum = i64::from(start as i32) + (0..op.k).map(product).sum::<i64>();
            let clamped = sum.clamp(i64::from(i32::MIN), i64::from(i32::MAX));
            *out = if op.satfinite { clamped as u32 } else { sum as u32 };
        }
    }
    for (row, out) in half.d.iter().zip(&out) {
        regs.set_w(*row, out, active);
    }
}

/// An undefined factor element taints its row or column of the result.
fn taint_product(regs: &mut Regs, op: &Mma, half: &MmaHalf, active: u32) {
    let taint_of = |rows: &[u16]| rows.iter().fold(0, |t, &r| t | regs.tw(r));
    if taint_of(&op.a) | taint_of(&half.b) | taint_of(&half.c) == 0 {
        for &row in &half.d {
            regs.taint_w(row, 0, active);
        }
        return;
    }
    let mut rows = 0u32;
    for (reg, &row) in op.a.iter().enumerate() {
        let taint = regs.tw(row);
        for lane in 0..LANES {
            rows |= (taint >> lane & 1) << (lane / 4 + 8 * (reg & 1));
        }
    }
    let column_taint = taint_of(&half.b);
    let columns = (0..LANES).fold(0u32, |c, lane| c | (column_taint >> lane & 1) << (lane / 4));
    let sums: Vec<u32> = half.c.iter().map(|&r| regs.tw(r)).collect();
    for (reg, &row) in half.d.iter().enumerate() {
        let mut taint = if op.c_acc == op.d_acc { sums[reg] } else { sums.iter().fold(0, |t, s| t | s) };
        for lane in 0..LANES {
            let (m, n) = if op.d_acc == Acc::F16 { layout::c16(lane, reg, 0) } else { layout::c32(lane, reg) };
            let pair = if op.d_acc == Acc::F16 { columns >> n & 3 != 0 } else { columns >> n & 1 == 1 };
            taint |= u32::from(rows >> m & 1 == 1 || pair) << lane;
        }
        regs.taint_w(row, taint, active);
    }
}
