//! `wmma.load` and `wmma.store` of m16n16k16 fragments.
//!
//! A fragment is moved as 16 lines of 16 elements (rows of a row-major matrix, columns of a
//! column-major one); tables say which element goes to which register half.

use std::ops::Range;
use std::sync::LazyLock;

use crate::exec::memory::shared::Shared;
use crate::exec::memory::target::{Target, Use};
#[cfg(target_arch = "x86_64")]
use crate::exec::memory::words_avx512;
use crate::exec::run::block::{Block, Context};
use crate::exec::run::step::Flow;
use crate::exec::run::warp::Warp;
use crate::isa::op::{Frag, WmmaMove};
use crate::isa::slot::{Class, Slot};
use crate::isa::space::Space;
use crate::machine::regs::{FULL, LANES, Regs, each_lane, lane_word, w};
use crate::machine::simd::{Level, dispatch};
use crate::report::Kind;
use crate::tensor::fragment::{self, Form};
#[cfg(target_arch = "x86_64")]
use crate::tensor::fragment_avx512;
use crate::tensor::layout;

/// The 256 elements of a fragment, line by line.
type Elements = [u32; 256];

/// Element index of both halves of each lane, per register.
type Map = [[[u8; 2]; LANES]; 8];

/// Maps of every fragment kind, row-major then column-major.
static MAPS: LazyLock<[[Map; 2]; 4]> =
    LazyLock::new(|| [Frag::A, Frag::B, Frag::AccF32, Frag::AccF16].map(|frag| [false, true].map(|c| map(frag, c))));

fn map(frag: Frag, column_major: bool) -> Map {
    let mut map = [[[0; 2]; LANES]; 8];
    for (reg, lanes) in map.iter_mut().enumerate() {
        for (lane, halves) in lanes.iter_mut().enumerate() {
            for (half, index) in halves.iter_mut().enumerate() {
                let (row, column) = place(frag, reg, lane, half);
                let (line, position) = if column_major { (column, row) } else { (row, column) };
                *index = (line * 16 + position) as u8;
            }
        }
    }
    map
}

/// Row and column of a register half; registers 4 to 7 of the factors are copies of 0 to 3.
fn place(frag: Frag, reg: usize, lane: usize, half: usize) -> (usize, usize) {
    match frag {
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
            (row, column + 8 * (reg / 2 % 2))
        }
    }
}

fn map_of(op: &WmmaMove) -> &'static Map {
    &MAPS[op.frag as usize][usize::from(op.column_major)]
}

/// Registers that differ; the rest are copies.
fn distinct(op: &WmmaMove) -> usize {
    if op.frag == Frag::AccF32 { 8 } else { 4 }
}

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
        if active == FULL && self.wmma_whole(context, warp, pc, op) {
            return Flow::Next;
        }
        let at = Self::addresses(warp, &op.addr);
        if let Some(what) = wmma_misuse(warp, op, &at, active, stride, bytes) {
            self.report_lane(context, warp, Kind::SyncDivergence, pc, "uses", active, || what.into());
        }
        let first = at[active.trailing_zeros() as usize & 31];
        let mut lines = [0; LANES];
        for (i, line) in lines.iter_mut().enumerate() {
            *line = first.wrapping_add((i as u64 % 16) * u64::from(stride) * u64::from(bytes));
        }
        // One lane per line: the real assignment of bytes to lanes is open.
        let usage = Use { align: 16, collective: true, ..Use::weak(pc, 16 * bytes, op.store) };
        let mut elements: Elements = [0; 256];
        let mut undefined = [FULL as u16; 16];
        if op.store {
            collect(&warp.regs, op, &mut elements, &mut undefined);
        }
        self.check_addresses(context, warp, active, &op.addr, usage);
        self.for_each_address(context, warp, 0xffff, op.addr.space, lines, usage, |block, warp, target| {
            match target.space {
                Space::Shared => block.shadow_shared(context, warp, target, usage, 0),
                _ => block.shadow_global(context, warp, target, usage, 0),
            }
            if op.store && target.space == Space::Global {
                block.before_write(context, target, 16 * bytes);
                block.check_stored_lines(context, warp, pc, &undefined);
            }
            each_lane(target.lanes, |i| {
                let line = &mut elements[16 * i..16 * i + 16];
                match (target.space, op.store) {
                    (Space::Shared, false) => undefined[i] = block.load_line(target.at[i] as u32, bytes, line),
                    (Space::Shared, true) => block.store_line(target.at[i] as u32, bytes, line, undefined[i]),
                    _ => global_line(context, target, i, bytes, op.store, line, &mut undefined[i]),
                }
            });
        });
        if !op.store {
            spread(&mut warp.regs, op, &elements, &undefined, active);
        }
        Flow::Next
    }

    /// Moves a fragment of shared memory at once when nothing about it needs a report; otherwise
    /// does nothing and returns false.
    fn wmma_whole(&mut self, context: &Context<'_>, warp: &mut Warp, pc: usize, op: &WmmaMove) -> bool {
        let tracked = context.launch.checks.uninitialised;
        let place = origin(&warp.regs, op).and_then(|origin| placed(&self.shared, op, origin));
        let Some(place) = place else { return false };
        if tracked && warp.regs.taint(op.addr.base) != 0 {
            return false;
        }
        let Place { form, first, pitch, bytes, .. } = place;
        if tracked && op.store && op.regs.iter().any(|&r| warp.regs.tw(r) != 0) {
            return false;
        }
        let whole = self.shared.is_whole(first, 15 * pitch + 16 * bytes);
        let defined = |shared: &Shared| whole || (0..16).all(|i| shared.is_defined(first + i * pitch, 16 * bytes));
        if tracked && !op.store && !defined(&self.shared) {
            return false;
        }
        let usage = Use { align: 16, collective: true, ..Use::weak(pc, 16 * bytes, op.store) };
        let lines = std::array::from_fn(|i| first + (i as u32 % 16) * pitch);
        self.shadow_offsets(context, warp, &lines, 0xffff, usage, 0);
        let range = place.range();
        if op.store {
            fragment::store(context.level, &warp.regs, &op.regs, form, pitch as usize, &mut self.shared.bytes[range]);
            for line in lines[..16].iter().filter(|_| !whole) {
                self.shared.define(*line, 16 * bytes, true);
            }
            return true;
        }
        fragment::load(context.level, &mut warp.regs, &op.regs, &self.shared.bytes[range], pitch as usize, form);
        if tracked {
            for &reg in &op.regs {
                warp.regs.taint_w(reg, 0, FULL);
            }
        }
        true
    }

    fn check_stored_lines(&mut self, context: &Context<'_>, warp: &Warp, pc: usize, undefined: &[u16; 16]) {
        if context.launch.checks.uninitialised && undefined.iter().any(|&u| u != 0) {
            self.report_lane(context, warp, Kind::UninitialisedStore, pc, "write", 1, || {
                "uninitialised value stored to global memory".into()
            });
        }
    }

    /// Reads 16 elements; returns a bit per undefined one.
    fn load_line(&self, at: u32, bytes: u32, line: &mut [u32]) -> u16 {
        let start = at as usize;
        let source = &self.shared.bytes[start..start + 16 * bytes as usize];
        if bytes == 2 {
            for (value, pair) in line.iter_mut().zip(source.chunks_exact(2)) {
                *value = u32::from(u16::from_le_bytes([pair[0], pair[1]]));
            }
        } else {
            for (value, word) in line.iter_mut().zip(source.chunks_exact(4)) {
                *value = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
            }
        }
        if self.shared.is_defined(at, 16 * bytes) {
            return 0;
        }
        (0..16).fold(0, |flags, i| flags | u16::from(!self.shared.is_defined(at + i * bytes, bytes)) << i)
    }

    fn store_line(&mut self, at: u32, bytes: u32, line: &[u32], undefined: u16) {
        for (i, &value) in line.iter().enumerate() {
            self.shared.store(at + i as u32 * bytes, bytes, u64::from(value));
        }
        self.shared.define(at, 16 * bytes, true);
        each_lane(u32::from(undefined), |i| self.shared.define(at + i as u32 * bytes, bytes, false));
    }
}

/// Moves one line of 16 elements from or to global memory.
fn global_line(
    context: &Context<'_>,
    target: &Target,
    i: usize,
    bytes: u32,
    store: bool,
    line: &mut [u32],
    undefined: &mut u16,
) {
    let allocation = context.memory.at(target.allocation[i] as usize);
    let mut flags = 0;
    for (j, value) in line.iter_mut().enumerate() {
        let offset = target.at[i] + j as u64 * u64::from(bytes) - allocation.base;
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

/// A fragment in shared memory that can be moved at once.
#[derive(Clone, Copy)]
struct Place {
    form: Form,
    /// Offset of the first line.
    first: u32,
    /// Bytes from one line to the next.
    pitch: u32,
    /// Bytes of an element.
    bytes: u32,
}

impl Place {
    /// From the first line to the end of the last.
    #[inline(always)]
    fn range(self) -> Range<usize> {
        let first = self.first as usize;
        first..first + 15 * self.pitch as usize + 16 * self.bytes as usize
    }
}

/// Address and stride of a move by all lanes, if they are the same for each.
#[inline(always)]
fn origin(regs: &Regs, op: &WmmaMove) -> Option<(u64, u32)> {
    let base = match op.addr.base.class {
        Class::D => uniform(&regs.d[usize::from(op.addr.base.row)].0)?,
        _ => u64::from(uniform(w(regs, op.addr.base.row))?),
    };
    let stride = match op.stride {
        Some(row) => uniform(w(regs, row))?,
        None => 16,
    };
    Some((base, stride))
}

/// Where a move by all lanes finds its fragment, if nothing about that needs a report.
#[inline(always)]
fn placed(shared: &Shared, op: &WmmaMove, (base, stride): (u64, u32)) -> Option<Place> {
    let form = fragment::form(op.frag, op.column_major)?;
    let bytes = if op.frag == Frag::AccF32 { 4 } else { 2 };
    let first = u32::try_from(base.wrapping_add(op.addr.offset as u64)).ok()?;
    let pitch = u64::from(stride) * u64::from(bytes);
    let span = 15 * pitch + 16 * u64::from(bytes);
    let well_formed = op.addr.space == Space::Shared
        && first.is_multiple_of(32)
        && pitch.is_multiple_of(16)
        && u32::try_from(span).is_ok_and(|span| shared.covers(first, span))
        // Lines that overlap are written one after the other.
        && !(op.store && pitch < 16 * u64::from(bytes));
    well_formed.then_some(Place { form, first, pitch: pitch as u32, bytes })
}

#[inline(always)]
fn move_registers(regs: &mut Regs, shared: &mut Shared, op: &WmmaMove) -> bool {
    let Some(origin) = origin(regs, op) else { return false };
    let Some(place) = placed(shared, op, origin) else { return false };
    let memory = &mut shared.bytes[place.range()];
    if op.store {
        fragment::store_registers(regs, &op.regs, place.form, place.pitch as usize, memory);
    } else {
        fragment::load_registers(regs, &op.regs, memory, place.pitch as usize, place.form);
    }
    true
}

#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn move_avx512(regs: &mut Regs, shared: &mut Shared, op: &WmmaMove) -> bool {
    let Some(origin) = words_avx512::origin(regs, op) else { return false };
    let Some(place) = placed(shared, op, origin) else { return false };
    let memory = &mut shared.bytes[place.range()];
    if op.store {
        fragment_avx512::store(regs, &op.regs, place.form, place.pitch as usize, memory);
    } else {
        fragment_avx512::load(regs, &op.regs, memory, place.pitch as usize, place.form);
    }
    true
}

dispatch! {
    fn move_whole(regs: &mut Regs, shared: &mut Shared, op: &WmmaMove) -> bool = move_registers, avx512: move_avx512;
}

/// A move by all lanes that leaves no trace but the values; false, and nothing done, for another.
pub(crate) fn plain(level: Level, regs: &mut Regs, shared: &mut Shared, op: &WmmaMove) -> bool {
    shared.is_plain() && move_whole(level, regs, shared, op)
}

/// The value of all lanes, if it is one.
#[inline(always)]
fn uniform<T: Copy + PartialEq>(row: &[T; LANES]) -> Option<T> {
    row.iter().fold(true, |same, value| same & (*value == row[0])).then_some(row[0])
}

/// What is wrong with the operands of a fragment move, if anything.
fn wmma_misuse(
    warp: &Warp,
    op: &WmmaMove,
    at: &[u64; LANES],
    active: u32,
    stride: u32,
    bytes: u32,
) -> Option<&'static str> {
    let first = at[active.trailing_zeros() as usize & 31];
    let strides = op.stride.map(|row| w(&warp.regs, row));
    let mut uniform = true;
    each_lane(active, |l| uniform &= at[l] == first && strides.is_none_or(|s| s[l] == stride));
    if !uniform {
        return Some("fragment address or stride differs between lanes");
    }
    if !first.is_multiple_of(32) {
        return Some("fragment address is not a multiple of 32 bytes");
    }
    (!(u64::from(stride) * u64::from(bytes)).is_multiple_of(16))
        .then_some("fragment stride is not a multiple of 16 bytes")
}

fn spread(regs: &mut Regs, op: &WmmaMove, elements: &Elements, undefined: &[u16; 16], active: u32) {
    let (map, distinct) = (map_of(op), distinct(op));
    let wide = op.frag == Frag::AccF32;
    let open = undefined.iter().any(|&u| u != 0);
    for (i, &reg) in op.regs.iter().enumerate() {
        if i >= distinct {
            let original = op.regs[i % distinct];
            let (value, unknown) = (*w(regs, original), regs.unknown(word(original)));
            regs.set_w(reg, &value, active);
            regs.set_unknown(word(reg), &unknown, active);
            continue;
        }
        let mut out = [0; LANES];
        for (value, [low, high]) in out.iter_mut().zip(&map[i]) {
            let upper = if wide { 0 } else { elements[usize::from(*high)] << 16 };
            *value = elements[usize::from(*low)] | upper;
        }
        regs.set_w(reg, &out, active);
        if !open {
            regs.taint_w(reg, 0, active);
            continue;
        }
        let unknown = map[i].map(|[low, high]| {
            let is_open = |index: u8| u64::from(undefined[usize::from(index / 16)] >> (index % 16) & 1);
            if wide { is_open(low) * 0xffff_ffff } else { (is_open(low) * 0xffff) | (is_open(high) * 0xffff_0000) }
        });
        regs.set_unknown(word(reg), &unknown, active);
    }
}

fn word(row: u16) -> Slot {
    Slot { class: Class::W, row }
}

fn collect(regs: &Regs, op: &WmmaMove, elements: &mut Elements, undefined: &mut [u16; 16]) {
    let map = map_of(op);
    *undefined = [0; 16];
    for (i, &reg) in op.regs.iter().enumerate() {
        let (values, unknown) = (w(regs, reg), regs.unknown(word(reg)));
        let wide = op.frag == Frag::AccF32;
        for ((&value, unknown), [low, high]) in values.iter().zip(unknown).zip(&map[i]) {
            if wide {
                elements[usize::from(*low)] = value;
            } else {
                elements[usize::from(*low)] = value & 0xffff;
                elements[usize::from(*high)] = value >> 16;
            }
            let mut note = |index: u8, bits: u64| {
                undefined[usize::from(index / 16)] |= u16::from(unknown & bits != 0) << (index % 16);
            };
            note(*low, if wide { 0xffff_ffff } else { 0xffff });
            note(*high, if wide { 0 } else { 0xffff_0000 });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::regs::Row;
    use crate::machine::simd::Level;

    #[test]
    fn fragments_move_whole_as_they_do_element_by_element() {
        let kinds = [(Frag::A, 4), (Frag::B, 4), (Frag::AccF16, 4), (Frag::AccF32, 8)];
        for (frag, registers) in kinds {
            for column_major in [false, true] {
                let Some(form) = fragment::form(frag, column_major) else {
                    assert_eq!((frag, column_major), (Frag::AccF32, true));
                    continue;
                };
                let bytes = if frag == Frag::AccF32 { 4 } else { 2 };
                let pitch = 16 * bytes + 16;
                let memory: Vec<u8> = (0..16 * pitch).map(|i| (i * 167 + i / 251) as u8).collect();
                let element = |index: u8| {
                    let at = usize::from(index / 16) * pitch + usize::from(index % 16) * bytes;
                    memory[at..at + bytes].iter().rev().fold(0u32, |v, &b| v << 8 | u32::from(b))
                };
                let map = &MAPS[frag as usize][usize::from(column_major)];
                for level in Level::all() {
                    let rows = vec![Row([0; LANES]); 8];
                    let mut regs = Regs::plain(rows, vec![]);
                    let numbers = [0, 1, 2, 3, 4, 5, 6, 7];
                    fragment::load(level, &mut regs, &numbers, &memory, pitch, form);
                    for (Row(row), lanes) in regs.w.iter().zip(map).take(registers) {
                        for (value, [low, high]) in row.iter().zip(lanes) {
                            let upper = if bytes == 4 { 0 } else { element(*high) << 16 };
                            assert_eq!(*value, element(*low) | upper, "{frag:?} {form:?}");
                        }
                    }
                    let mut written = vec![0; memory.len()];
                    fragment::store(level, &regs, &numbers, form, pitch, &mut written);
                    for (i, (now, before)) in written.iter().zip(&memory).enumerate() {
                        let padding = i % pitch >= 16 * bytes;
                        assert_eq!(*now, if padding { 0 } else { *before }, "{frag:?} {form:?}");
                    }
                }
            }
        }
    }
}
