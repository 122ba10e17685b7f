//! `wmma.load` and `wmma.store` of m16n16k16 fragments.

use super::block::{Block, Context};
use super::regs::{FULL, LANES, Regs, lane_word, w};
use super::step::Flow;
use super::target::{Target, Use};
use super::warp::Warp;
use crate::program::{Addr, Class, Frag, Slot, Space, WmmaMove};
use crate::report::Kind;
use crate::tensor::layout;

impl Block {
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
}

/// Writes the 16 line addresses into the address row's first lanes; the old row is returned to
/// be restored. `None` if no lane is active.
fn line_addresses(warp: &mut Warp, addr: &Addr, active: u32, step: u64) -> Option<(Slot, [u64; LANES])> {
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

fn restore_scratch(warp: &mut Warp, slot: Slot, saved: [u64; LANES]) {
    let row = usize::from(slot.row);
    match slot.class {
        Class::D => warp.regs.d[row].0 = saved,
        _ => warp.regs.w[row].0 = saved.map(|v| v as u32),
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
