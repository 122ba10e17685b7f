//! Tensor-core instructions on rows: matrix moves and products.

use super::alu::fp8_to_f32;
use super::block::{Block, Context};
use super::memory::{Target, Use};
use super::regs::{FULL, LANES, Regs, lane_word, w};
use super::simd::{Level, dispatch};
use super::step::Flow;
use super::warp::Warp;
use crate::launch::MmaModel;
use crate::num::small::{bf16_to_f32, f16_to_f32, f32_to_f16};
use crate::program::{Acc, Addr, Class, Elem, Frag, Matrix, Mma, MmaHalf, Space, WmmaMove};
use crate::report::Kind;
use crate::tensor::layout;
use crate::tensor::sum::{self, Aligned, FactorA, FactorB, K, M, N, Tile};

/// A row of 32-bit register values.
type Lanes = [u32; LANES];

impl Block {
    /// Common entry of the aligned instructions: all lanes, then time passes.
    fn aligned(
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

    pub(crate) fn matrix(
        &mut self,
        context: &Context<'_>,
        warp: &mut Warp,
        current: usize,
        pc: usize,
        active: u32,
        op: &Matrix,
    ) -> Flow {
        if let Some(flow) = self.aligned(context, warp, current, pc, active) {
            return flow;
        }
        // x1 and x2 ignore the addresses of the other lanes.
        let count = op.regs.len();
        let lanes = if count == 4 { FULL } else { (1 << (8 * count)) - 1 };
        let usage = Use { pc, bytes: 16, align: 16, write: op.store, strong: false, collective: false };
        let mut rows = [[u32::MAX; 4]; LANES];
        let mut undefined = [0xffu8; LANES];
        if op.store {
            collect_matrix(&warp.regs, op, &mut rows, &mut undefined);
        }
        self.for_each_target(context, warp, active & lanes, &op.addr, usage, |block, warp, target| {
            if target.space != Space::Shared {
                block.report_lane(context, warp, Kind::OutOfBounds, pc, "uses", target.lanes, || {
                    "matrix outside shared memory".into()
                });
                return;
            }
            block.shadow_shared(context, warp, target, usage, 0);
            block.move_rows(target, op.store, &mut rows, &mut undefined);
        });
        if !op.store {
            spread_matrix(&mut warp.regs, op, &rows, &undefined, active, context.launch.checks.uninitialised);
        }
        Flow::Next
    }

    /// Copies 16-byte rows between shared memory and `rows`; bit `i` of `undefined` is half `i`.
    fn move_rows(&mut self, target: &Target, store: bool, rows: &mut [[u32; 4]; LANES], undefined: &mut [u8; LANES]) {
        super::regs::each_lane(target.lanes, |l| {
            let at = target.at[l] as u32;
            for (i, word) in rows[l].iter_mut().enumerate() {
                let place = at + 4 * i as u32;
                if store {
                    self.shared.store(place, 4, u64::from(*word));
                } else {
                    *word = self.shared.load(place, 4) as u32;
                }
            }
            let mut flags = 0;
            for i in 0..8u32 {
                if store {
                    self.shared.define(at + 2 * i, 2, undefined[l] >> i & 1 == 0);
                } else {
                    flags |= u8::from(!self.shared.is_defined(at + 2 * i, 2)) << i;
                }
            }
            if !store {
                undefined[l] = flags;
            }
        });
    }

    #[expect(clippy::too_many_arguments, reason = "position of the instruction and its operands")]
    pub(crate) fn move_matrix(
        &mut self,
        context: &Context<'_>,
        warp: &mut Warp,
        current: usize,
        pc: usize,
        active: u32,
        dst: u16,
        src: u16,
    ) -> Flow {
        if let Some(flow) = self.aligned(context, warp, current, pc, active) {
            return flow;
        }
        let from = *w(&warp.regs, src);
        let half = |row: usize, column: usize| {
            let word = from[4 * row + column / 2];
            if column.is_multiple_of(2) { word & 0xffff } else { word >> 16 }
        };
        let out: Lanes = std::array::from_fn(|l| {
            let (g, t) = (l / 4, l % 4);
            half(2 * t, g) | half(2 * t + 1, g) << 16
        });
        let taint = if warp.regs.tw[usize::from(src)] == 0 { 0 } else { FULL };
        warp.regs.set_w(dst, &out, active);
        warp.regs.taint_w(dst, taint, active);
        Flow::Next
    }

    pub(crate) fn wmma(
        &mut self,
        context: &Context<'_>,
        warp: &mut Warp,
        current: usize,
        pc: usize,
        active: u32,
        op: &WmmaMove,
    ) -> Flow {
        if let Some(flow) = self.aligned(context, warp, current, pc, active) {
            return flow;
        }
        let bytes = if op.frag == Frag::AccF32 { 4 } else { 2 };
        let stride = op.stride.map_or(16, |row| lane_word(&warp.regs, row, active));
        if let Some(what) = self.wmma_misuse(warp, op, active, stride, bytes) {
            self.report_lane(context, warp, Kind::SyncDivergence, pc, "uses", active, || what.into());
        }
        let Some((scratch, saved)) = line_addresses(warp, &op.addr, active, u64::from(stride) * u64::from(bytes))
        else {
            return Flow::Next;
        };
        // One lane per line of 16 elements: the real assignment of bytes to lanes is open.
        let usage = Use { pc, bytes: 16 * bytes, align: 16, write: op.store, strong: false, collective: true };
        let mut lines = [[0u32; 16]; 16];
        let mut undefined = [FULL as u16; 16];
        if op.store {
            collect_fragment(&warp.regs, op, &mut lines, &mut undefined);
        }
        let addr = Addr { base: scratch, offset: 0, ..op.addr };
        self.for_each_target(context, warp, 0xffff, &addr, usage, |block, warp, target| {
            match target.space {
                Space::Shared => block.shadow_shared(context, warp, target, usage, 0),
                _ => block.shadow_global(context, warp, target, usage, 0),
            }
            if op.store && target.space == Space::Global {
                block.check_stored_lines(context, warp, pc, &undefined);
            }
            super::regs::each_lane(target.lanes, |i| {
                block.move_line(context, target, i, bytes, op.store, &mut lines[i], &mut undefined[i]);
            });
        });
        restore_scratch(warp, scratch, saved);
        if !op.store {
            spread_fragment(&mut warp.regs, op, &lines, &undefined, active);
        }
        Flow::Next
    }

    fn check_stored_lines(&mut self, context: &Context<'_>, warp: &Warp, pc: usize, undefined: &[u16; 16]) {
        if context.launch.checks.uninitialised && undefined.iter().any(|&u| u != 0) {
            self.report_lane(context, warp, Kind::UninitialisedStore, pc, "write", 1, || {
                "uninitialised value stored to global memory".into()
            });
        }
    }

    /// What is wrong with the operands of a fragment move, if anything.
    fn wmma_misuse(&self, warp: &Warp, op: &WmmaMove, active: u32, stride: u32, bytes: u32) -> Option<&'static str> {
        let at = Self::addresses(warp, &op.addr);
        let first = at[active.trailing_zeros() as usize];
        let strides = op.stride.map(|row| *w(&warp.regs, row));
        let uniform =
            (0..LANES).all(|l| (active >> l) & 1 == 0 || (at[l] == first && strides.is_none_or(|s| s[l] == stride)));
        if !uniform {
            return Some("fragment address or stride differs between lanes");
        }
        if !first.is_multiple_of(32) {
            return Some("fragment address is not a multiple of 32 bytes");
        }
        (!(stride * bytes).is_multiple_of(16)).then_some("fragment stride is not a multiple of 16 bytes")
    }

    /// Moves one line of 16 elements of 2 or 4 bytes.
    #[expect(clippy::too_many_arguments, reason = "one line with its state")]
    fn move_line(
        &mut self,
        context: &Context<'_>,
        target: &Target,
        i: usize,
        bytes: u32,
        store: bool,
        line: &mut [u32; 16],
        undefined: &mut u16,
    ) {
        let at = target.at[i];
        let mut flags = 0;
        for (j, value) in line.iter_mut().enumerate() {
            let place = at + j as u64 * u64::from(bytes);
            let open = *undefined >> j & 1 == 1;
            if target.space == Space::Shared {
                let place = place as u32;
                if store {
                    self.shared.store(place, bytes, u64::from(*value));
                    self.shared.define(place, bytes, !open);
                } else {
                    *value = self.shared.load(place, bytes) as u32;
                    flags |= u16::from(!self.shared.is_defined(place, bytes)) << j;
                }
                continue;
            }
            let allocation = context.memory.at(target.allocation[i] as usize);
            let offset = place - allocation.base;
            if store {
                allocation.store(offset, bytes, u64::from(*value));
                allocation.define(offset, bytes);
            } else {
                *value = allocation.load(offset, bytes) as u32;
                flags |= u16::from(!allocation.is_defined(offset, bytes)) << j;
            }
        }
        if !store {
            *undefined = flags;
        }
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

/// Writes the 16 line addresses into the address row's first lanes; the old row is returned to
/// be restored. `None` if no lane is active.
fn line_addresses(
    warp: &mut Warp,
    addr: &Addr,
    active: u32,
    step: u64,
) -> Option<(crate::program::Slot, [u64; LANES])> {
    if active == 0 {
        return None;
    }
    let first = Block::addresses(warp, addr)[active.trailing_zeros() as usize];
    let row = usize::from(addr.base.row);
    let line = |i: usize| first.wrapping_add((i as u64 % 16) * step);
    let saved = match addr.base.class {
        Class::D => {
            let saved = warp.regs.d[row].0;
            warp.regs.d[row].0 = std::array::from_fn(line);
            saved
        }
        _ => {
            let saved = warp.regs.w[row].0.map(u64::from);
            warp.regs.w[row].0 = std::array::from_fn(|i| line(i) as u32);
            saved
        }
    };
    Some((addr.base, saved))
}

fn restore_scratch(warp: &mut Warp, slot: crate::program::Slot, saved: [u64; LANES]) {
    let row = usize::from(slot.row);
    match slot.class {
        Class::D => warp.regs.d[row].0 = saved,
        _ => warp.regs.w[row].0 = saved.map(|v| v as u32),
    }
}

/// Registers of `stmatrix` as 16-byte rows by address lane.
fn collect_matrix(regs: &Regs, op: &Matrix, rows: &mut [[u32; 4]; LANES], undefined: &mut [u8; LANES]) {
    *undefined = [0; LANES];
    for (j, &reg) in op.regs.iter().enumerate() {
        let values = w(regs, reg);
        let taint = regs.tw[usize::from(reg)];
        for (l, &pair) in values.iter().enumerate() {
            let (g, t) = (l / 4, l % 4);
            for half in 0..2 {
                let (row, column) = if op.trans { (2 * t + half, g) } else { (g, 2 * t + half) };
                let value = pair >> (16 * half) & 0xffff;
                let word = &mut rows[8 * j + row][column / 2];
                let shift = 16 * (column % 2);
                *word = (*word & !(0xffff << shift)) | value << shift;
                undefined[8 * j + row] |= ((taint >> l & 1) as u8) << column;
            }
        }
    }
}

/// 16-byte rows to the registers of `ldmatrix`.
fn spread_matrix(
    regs: &mut Regs,
    op: &Matrix,
    rows: &[[u32; 4]; LANES],
    undefined: &[u8; LANES],
    active: u32,
    checked: bool,
) {
    for (j, &reg) in op.regs.iter().enumerate() {
        let rows = &rows[8 * j..8 * j + 8];
        let out: Lanes = if op.trans {
            std::array::from_fn(|l| {
                let (g, t) = (l / 4, l % 4);
                let half = |row: usize| rows[row][g / 2] >> (16 * (g % 2)) & 0xffff;
                half(2 * t) | half(2 * t + 1) << 16
            })
        } else {
            std::array::from_fn(|l| rows[l / 4][l % 4])
        };
        regs.set_w(reg, &out, active);
        if !checked {
            continue;
        }
        let flags = &undefined[8 * j..8 * j + 8];
        let taint = (0..LANES).fold(0, |taint, l| {
            let (g, t) = (l / 4, l % 4);
            let open = if op.trans {
                (flags[2 * t] | flags[2 * t + 1]) >> g & 1
            } else {
                u8::from(flags[g] >> (2 * t) & 3 != 0)
            };
            taint | u32::from(open) << l
        });
        regs.taint_w(reg, taint, active);
    }
}

/// Calls `f(register, lane, half, line, position)` for every element of a wmma fragment,
/// copies included. A line is a row of a row-major matrix or a column of a column-major one.
#[inline(always)]
fn each_element(op: &WmmaMove, mut f: impl FnMut(usize, usize, usize, usize, usize)) {
    let halves = if op.frag == Frag::AccF32 { 1 } else { 2 };
    for reg in 0..op.regs.len() {
        for lane in 0..LANES {
            for half in 0..halves {
                let (row, column) = match op.frag {
                    Frag::A => layout::a16(lane, reg % 4, half),
                    Frag::B => {
                        let (k, n) = layout::b16(lane, reg % 2, half);
                        (k, n + 8 * (reg / 2 % 2))
                    }
                    Frag::AccF32 => {
                        let (row, column) = layout::c32(lane, reg % 4);
                        (row, column + 8 * (reg / 4))
                    }
                    Frag::AccF16 => {
                        let (row, column) = layout::c16(lane, reg % 2, half);
                        (row, column + 8 * (reg / 2))
                    }
                };
                let (line, position) = if op.column_major { (column, row) } else { (row, column) };
                f(reg, lane, half, line, position);
            }
        }
    }
}

fn spread_fragment(regs: &mut Regs, op: &WmmaMove, lines: &[[u32; 16]; 16], undefined: &[u16; 16], active: u32) {
    let mut out = [[0u32; LANES]; 8];
    let mut taint = [0u32; 8];
    let open = undefined.iter().any(|&u| u != 0);
    each_element(op, |reg, lane, half, line, position| {
        out[reg][lane] |= lines[line][position] << (16 * half);
        if open {
            taint[reg] |= u32::from(undefined[line] >> position & 1) << lane;
        }
    });
    for (i, &reg) in op.regs.iter().enumerate() {
        regs.set_w(reg, &out[i], active);
        regs.taint_w(reg, taint[i], active);
    }
}

fn collect_fragment(regs: &Regs, op: &WmmaMove, lines: &mut [[u32; 16]; 16], undefined: &mut [u16; 16]) {
    *undefined = [0; 16];
    let mask = if op.frag == Frag::AccF32 { u32::MAX } else { 0xffff };
    each_element(op, |reg, lane, half, line, position| {
        let row = op.regs[reg];
        lines[line][position] = w(regs, row)[lane] >> (16 * half) & mask;
        let open = regs.tw[usize::from(row)] >> lane & 1;
        undefined[line] |= (open as u16) << position;
    });
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
        let (mut low, mut high) = ([0.0; LANES], [0.0; LANES]);
        widen(level, row, op.b_elem == Elem::Bf16, &mut low, &mut high);
        for lane in 0..LANES {
            let (k, n) = layout::b16(lane, reg, 0);
            b[k][n] = low[lane];
            b[k + 1][n] = high[lane];
        }
    }
}

/// The aligned model for an instruction, or none for the fast chain.
fn model_of(model: MmaModel, elem: Elem, k: usize) -> Option<Aligned> {
    let fp8 = elem.is_byte();
    let half = k.div_ceil(2).max(8);
    let ada8 = Aligned { fraction: 13, result: 13, chunk: half };
    match model {
        MmaModel::Fast => None,
        MmaModel::FastExceptFp8 => fp8.then_some(ada8),
        MmaModel::Sm89 if fp8 => Some(ada8),
        MmaModel::Sm80 | MmaModel::Sm89 => Some(Aligned { fraction: 24, result: 23, chunk: half.min(8) }),
        MmaModel::Sm90 => Some(Aligned { fraction: 25, result: 23, chunk: k }),
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
    match model_of(context.launch.mma_model, op.a_elem, op.k) {
        Some(model) => sum::exact(a, &b, op.k, &mut tile, model),
        None => sum::fast(context.level, a, &b, op.k, &mut tile),
    }
    for (reg, &row) in half.d.iter().enumerate() {
        let out: Lanes = std::array::from_fn(|lane| {
            if op.d_acc == Acc::F32 {
                let (m, n) = layout::c32(lane, reg);
                crate::num::float::canon(tile[m][n])
            } else {
                let (m, n) = layout::c16(lane, reg, 0);
                f32_to_f16(tile[m][n].to_bits()) | f32_to_f16(tile[m][n + 1].to_bits()) << 16
            }
        });
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
    let taint_of = |rows: &[u16]| rows.iter().fold(0, |t, &r| t | regs.tw[usize::from(r)]);
    if taint_of(&op.a) | taint_of(&half.b) | taint_of(&half.c) == 0 {
        for &row in &half.d {
            regs.taint_w(row, 0, active);
        }
        return;
    }
    let mut rows = 0u32;
    for (reg, &row) in op.a.iter().enumerate() {
        let taint = regs.tw[usize::from(row)];
        for lane in 0..LANES {
            rows |= (taint >> lane & 1) << (lane / 4 + 8 * (reg & 1));
        }
    }
    let column_taint = taint_of(&half.b);
    let columns = (0..LANES).fold(0u32, |c, lane| c | (column_taint >> lane & 1) << (lane / 4));
    let sums: Vec<u32> = half.c.iter().map(|&r| regs.tw[usize::from(r)]).collect();
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
