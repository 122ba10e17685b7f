//! `ldmatrix`, `stmatrix` and `movmatrix`.

use crate::exec::memory::shared::Shared;
use crate::exec::memory::shared_access::places;
use crate::exec::memory::target::{Target, Use};
use crate::exec::run::block::{Block, Context};
use crate::exec::run::step::Flow;
use crate::exec::run::warp::Warp;
use crate::isa::op::Matrix;
use crate::isa::slot::{Class, Slot};
use crate::isa::space::Space;
use crate::machine::regs::{FULL, LANES, Regs, w};
use crate::machine::simd::Level;
use crate::report::Kind;

/// A row of 32-bit register values.
type Lanes = [u32; LANES];

impl Block {
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
        let usage = Use::weak(pc, 16, op.store);
        if active == FULL && !op.store && self.load_whole(context, warp, lanes, op, usage) {
            return Flow::Next;
        }
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
            let same = block.move_rows(target, op.store, &mut rows, &mut undefined);
            block.shadow_shared(context, warp, target, usage, same);
        });
        if !op.store {
            spread_matrix(&mut warp.regs, op, &rows, &undefined, active, context.launch.checks.uninitialised);
        }
        Flow::Next
    }

    /// A load by all lanes, when nothing about it needs a report and all of it is defined; otherwise does nothing and
    /// returns false.
    fn load_whole(&mut self, context: &Context<'_>, warp: &mut Warp, lanes: u32, op: &Matrix, usage: Use) -> bool {
        let Some(at) = self.places(context, warp, lanes, &op.addr, 16) else { return false };
        let rows = 8 * op.regs.len();
        let tracked = context.launch.checks.uninitialised;
        if tracked && !at[..rows].iter().fold(true, |all, at| all & self.shared.is_defined(*at, 16)) {
            return false;
        }
        self.shadow_offsets(context, warp, &at, lanes, usage, 0);
        load_rows(&mut warp.regs, &self.shared, op, &at[..rows]);
        if tracked {
            op.regs.iter().for_each(|&reg| warp.regs.taint_w(reg, 0, FULL));
        }
        true
    }

    /// Copies 16-byte rows between shared memory and `rows`; bit `i` of `undefined` is half `i`. Returns the lanes whose
    /// store changes nothing there.
    fn move_rows(
        &mut self,
        target: &Target,
        store: bool,
        rows: &mut [[u32; 4]; LANES],
        undefined: &mut [u8; LANES],
    ) -> u32 {
        let mut same = 0;
        crate::machine::regs::each_lane(target.lanes, |l| {
            let at = target.at[l] as u32;
            let mut kept = store && undefined[l] == 0 && self.shared.is_defined(at, 16);
            for (i, word) in rows[l].iter_mut().enumerate() {
                let place = at + 4 * i as u32;
                if store {
                    kept &= self.shared.load(place, 4) == u64::from(*word);
                    self.shared.store(place, 4, u64::from(*word));
                } else {
                    *word = self.shared.load(place, 4) as u32;
                }
            }
            same |= u32::from(kept) << l;
            if store && undefined[l] == 0 {
                self.shared.define(at, 16, true);
                return;
            }
            if !store && self.shared.is_defined(at, 16) {
                undefined[l] = 0;
                return;
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
        same
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
        let slot = |row| Slot { class: Class::W, row };
        let out = transposed(w(&warp.regs, src));
        let unknown = transposed(&warp.regs.unknown(slot(src)).map(|bits| bits as u32)).map(u64::from);
        warp.regs.set_w(dst, &out, active);
        warp.regs.set_unknown(slot(dst), &unknown, active);
        Flow::Next
    }
}

/// A load by all lanes that leaves no trace but the values; false, and nothing done, for another.
pub(crate) fn plain(level: Level, regs: &mut Regs, shared: &Shared, op: &Matrix) -> bool {
    if op.store || !shared.is_plain() {
        return false;
    }
    let lanes = if op.regs.len() == 4 { FULL } else { (1 << (8 * op.regs.len())) - 1 };
    let Some(at) = places(level, regs, shared, lanes, &op.addr, 16) else { return false };
    load_rows(regs, shared, op, &at[..8 * op.regs.len()]);
    true
}

/// Loads 8x8 matrices whose rows of 16 bytes are at `at`: a register holds its rows one after the other.
#[inline]
fn load_rows(regs: &mut Regs, shared: &Shared, op: &Matrix, at: &[u32]) {
    for (&reg, at) in op.regs.iter().zip(at.as_chunks::<8>().0) {
        let mut rows = [[0u8; 16]; 8];
        for (row, at) in rows.iter_mut().zip(at) {
            row.copy_from_slice(&shared.bytes[*at as usize..][..16]);
        }
        let words: Lanes = bytemuck::must_cast(rows);
        let words = if cfg!(target_endian = "big") { words.map(u32::from_le) } else { words };
        regs.set_w(reg, &if op.trans { transposed(&words) } else { words }, FULL);
    }
}

/// The 8x8 matrix of halves in one register, transposed.
fn transposed(from: &Lanes) -> Lanes {
    let mut out = [0; LANES];
    for row in 0..4 {
        for column in 0..4 {
            // Two by two halves, of two rows and two columns.
            let (above, below) = (from[8 * row + column], from[8 * row + 4 + column]);
            out[8 * column + row] = above & 0xffff | below << 16;
            out[8 * column + 4 + row] = above >> 16 | below & 0xffff_0000;
        }
    }
    out
}

/// Registers of `stmatrix` as 16-byte rows by address lane.
fn collect_matrix(regs: &Regs, op: &Matrix, rows: &mut [[u32; 4]; LANES], undefined: &mut [u8; LANES]) {
    *undefined = [0; LANES];
    for (j, &reg) in op.regs.iter().enumerate() {
        let values = w(regs, reg);
        let unknown = regs.unknown(Slot { class: Class::W, row: reg });
        for (l, &pair) in values.iter().enumerate() {
            let (g, t) = (l / 4, l % 4);
            for half in 0..2 {
                let (row, column) = if op.trans { (2 * t + half, g) } else { (g, 2 * t + half) };
                let value = pair >> (16 * half) & 0xffff;
                let word = &mut rows[8 * j + row][column / 2];
                let shift = 16 * (column % 2);
                *word = (*word & !(0xffff << shift)) | value << shift;
                undefined[8 * j + row] |= u8::from(unknown[l] >> (16 * half) & 0xffff != 0) << column;
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
        if flags.iter().all(|&flags| flags == 0) {
            regs.taint_w(reg, 0, active);
            continue;
        }
        let unknown = std::array::from_fn(|l| {
            let (g, t) = (l / 4, l % 4);
            let open = |half: usize| {
                let (row, column) = if op.trans { (2 * t + half, g) } else { (g, 2 * t + half) };
                if flags[row] >> column & 1 == 1 { 0xffff << (16 * half) } else { 0 }
            };
            open(0) | open(1)
        });
        regs.set_unknown(Slot { class: Class::W, row: reg }, &unknown, active);
    }
}
