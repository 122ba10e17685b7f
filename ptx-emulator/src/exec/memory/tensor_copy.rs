//! `cp.async.bulk.tensor`: boxes of tensors that a map describes, to shared memory and back.

use crate::exec::memory::bulk::{Content, OpenFetch};
use crate::exec::memory::copy::read_source;
use crate::exec::memory::target::{Target, Use, space_of};
use crate::exec::run::block::{Block, Context};
use crate::exec::run::step::Flow;
use crate::exec::run::warp::Warp;
use crate::isa::engines::{TensorCopy, TensorWay};
use crate::isa::op::AtomOp;
use crate::isa::space::{PARAM_WINDOW, Space};
use crate::machine::regs::{LANES, each_lane};
use crate::report::{Kind, RawSite, Severity};
use crate::tensor_map::{MAP_BYTES, TensorMap};

/// Bytes that are looked at together.
const PIECE: usize = 16;

/// A piece of a row of a box: where it is in the box, and, if it is inside the tensor, in global memory.
struct Piece {
    offset: usize,
    bytes: usize,
    global: Option<u64>,
}

impl Block {
    pub(crate) fn tensor_copy(
        &mut self,
        context: &Context<'_>,
        warp: &mut Warp,
        pc: usize,
        active: u32,
        op: &TensorCopy,
    ) -> Flow {
        each_lane(active, |l| {
            let site = RawSite { role: "copies", pc: pc as u32, warp: warp.index as u32, lane: l as u32 };
            let Some(map) = self.tensor_map(context, site, Self::addresses(warp, &op.map)[l]) else { return };
            let at: Vec<i32> = op.coordinates.iter().map(|row| Self::word(warp, *row, l) as i32).collect();
            let shared = Self::addresses(warp, &op.shared)[l] as u32;
            if map.sizes.len() != at.len() {
                let rank = map.sizes.len();
                self.misuse(context, site, format!("{} coordinates for a map of {rank} dimensions", at.len()));
                return;
            }
            if !shared.is_multiple_of(map.shared_alignment()) {
                self.report(context, Kind::Misaligned, Severity::Error, &[site], || {
                    format!("a box at shared 0x{shared:x}, which is no multiple of {}", map.shared_alignment())
                });
                return;
            }
            match &op.way {
                TensorWay::Load { barrier, multicast } => {
                    let barrier = Self::addresses(warp, barrier)[l] as u32;
                    let mask = multicast.map(|row| Self::word(warp, row, l) & 0xffff);
                    let content = self.load_box(context, warp, site, &map, &at, shared);
                    let fetch = OpenFetch { site, dst: shared, barrier, content, src: None };
                    self.distribute(context, warp, fetch, mask);
                }
                TensorWay::Store { reduction: None } => self.store_box(context, warp, site, &map, (&at, shared), None),
                TensorWay::Store { reduction: Some(reduction) } => match reduction.on(map.element) {
                    Some(op) => self.store_box(context, warp, site, &map, (&at, shared), Some(op)),
                    None => {
                        let of = map.element;
                        self.misuse(
                            context,
                            site,
                            format!("{reduction:?} of elements that are {of:?} is not modelled"),
                        );
                    }
                },
            }
        });
        self.progressed();
        Flow::Next
    }

    fn misuse(&mut self, context: &Context<'_>, site: RawSite, text: String) {
        self.report(context, Kind::TensorMapMisuse, Severity::Error, &[site], || text);
    }

    /// The map at an address, in a parameter or in global memory.
    fn tensor_map(&mut self, context: &Context<'_>, site: RawSite, address: u64) -> Option<TensorMap> {
        let mut bytes = [0u8; MAP_BYTES];
        let found = match space_of(address) {
            Space::Param => {
                let at = (address - PARAM_WINDOW) as usize;
                context.launch.params.get(at..at + MAP_BYTES).map(|found| bytes.copy_from_slice(found))
            }
            _ => context.memory.find(address, MAP_BYTES as u64).map(|allocation| {
                for (i, byte) in bytes.iter_mut().enumerate() {
                    *byte = allocation.load(address - allocation.base + i as u64, 1) as u8;
                }
            }),
        };
        let map = found.and_then(|()| TensorMap::decode(&bytes));
        if map.is_none() {
            self.misuse(context, site, format!("no tensor map that the emulator has encoded is at 0x{address:x}"));
        }
        map
    }

    /// Calls `act` with every piece of a box, in the order of shared memory.
    fn pieces(map: &TensorMap, at: &[i32], mut act: impl FnMut(Piece)) {
        let (element, width) = (map.element.bytes() as usize, map.extents[0] as usize);
        let row_bytes = width * element;
        let per_piece = PIECE / element;
        for row in 0..map.rows() {
            let inside = map.row_address(at, row);
            for first in (0..width).step_by(per_piece) {
                let count = per_piece.min(width - first);
                let (offset, x) = (row * row_bytes + first * element, i64::from(at[0]) + first as i64);
                let whole = |n: usize| x >= 0 && x + n as i64 <= map.sizes[0] as i64;
                let global = |x: i64| inside.map(|base| base + x as u64 * element as u64);
                if inside.is_none() || whole(count) {
                    act(Piece { offset, bytes: count * element, global: global(x) });
                    continue;
                }
                for i in 0..count {
                    let x = x + i as i64;
                    let global = if x >= 0 && x < map.sizes[0] as i64 { global(x) } else { None };
                    act(Piece { offset: offset + i * element, bytes: element, global });
                }
            }
        }
    }

    /// The buffer that a piece lies in.
    fn find_global(
        &mut self,
        context: &Context<'_>,
        site: RawSite,
        (at, bytes): (u64, usize),
        write: bool,
    ) -> Option<usize> {
        let index = context.memory.index_of(at, bytes as u64);
        let Some(index) = index.filter(|&index| !(write && context.memory.at(index).read_only)) else {
            let what = if write { "write" } else { "read" };
            self.report(context, Kind::OutOfBounds, Severity::Error, &[RawSite { role: what, ..site }], || {
                format!(
                    "out of bounds: {what} of {bytes} bytes at 0x{at:x} by a tensor map that is larger than its buffer"
                )
            });
            return None;
        };
        Some(index)
    }

    /// Whether a piece lies in one buffer; notes the access.
    fn touch_global(
        &mut self,
        context: &Context<'_>,
        warp: &Warp,
        site: RawSite,
        (at, bytes): (u64, usize),
        write: bool,
    ) -> Option<usize> {
        let index = self.find_global(context, site, (at, bytes), write)?;
        let target = Target { space: Space::Global, at: [at; LANES], lanes: 1, allocation: [index as u32; LANES] };
        if write {
            self.before_write(context, &target, bytes as u32);
        }
        self.shadow_global(context, warp, &target, Use::weak(site.pc as usize, bytes as u32, write), 0);
        Some(index)
    }

    /// The bytes of a box as they come to lie in shared memory.
    fn load_box(
        &mut self,
        context: &Context<'_>,
        warp: &Warp,
        site: RawSite,
        map: &TensorMap,
        at: &[i32],
        shared: u32,
    ) -> Content {
        let mut bytes = vec![0u8; map.box_bytes()];
        let mut defined = vec![u16::MAX; bytes.len().div_ceil(PIECE)];
        let mut pieces = Vec::new();
        Self::pieces(map, at, |piece| pieces.push(piece));
        for Piece { offset, bytes: size, global } in pieces {
            let to = map.swizzled(shared, offset);
            let Some(global) = global else {
                bytes[to..to + size].fill(if map.nan_fill { 0xff } else { 0 });
                continue;
            };
            let Some(index) = self.touch_global(context, warp, site, (global, size), false) else { continue };
            let allocation = context.memory.at(index);
            let mut data = [0; PIECE];
            let known = read_source(allocation, global - allocation.base, size as u64, &mut data);
            bytes[to..to + size].copy_from_slice(&data[..size]);
            for i in (0..size).filter(|i| known >> i & 1 == 0) {
                defined[(to + i) / PIECE] &= !(1 << ((to + i) % PIECE));
            }
        }
        Content { bytes, defined }
    }

    fn store_box(
        &mut self,
        context: &Context<'_>,
        warp: &mut Warp,
        site: RawSite,
        map: &TensorMap,
        (at, shared): (&[i32], u32),
        reduction: Option<AtomOp>,
    ) {
        let size = map.box_bytes() as u32;
        if !self.has_room(context, site, shared, size, false) {
            return;
        }
        let content = self.shared_content(context, warp, site, (shared, size), warp.sent + 1);
        let mut pieces = Vec::new();
        Self::pieces(map, at, |piece| pieces.push(piece));
        let mut undefined = false;
        for Piece { offset, bytes: size, global } in pieces {
            let from = map.swizzled(shared, offset);
            let Some(global) = global else { continue };
            let known = |i: usize| content.defined[(from + i) / PIECE] >> ((from + i) % PIECE) & 1 == 1;
            undefined |= !(0..size).all(known);
            if let Some(op) = reduction {
                let Some(index) = self.find_global(context, site, (global, size), true) else { continue };
                let data = &content.bytes[from..from + size];
                self.reduce_elements(context, warp, site, (index, global), (op, map.element.bytes()), data);
                continue;
            }
            let Some(index) = self.touch_global(context, warp, site, (global, size), true) else { continue };
            let allocation = context.memory.at(index);
            let element = map.element.bytes() as usize;
            for (i, piece) in content.bytes[from..from + size].chunks_exact(element).enumerate() {
                let place = global - allocation.base + (i * element) as u64;
                let value = piece.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
                allocation.store(place, element as u32, value);
            }
            allocation.define(global - allocation.base, size as u32);
        }
        if undefined && context.launch.checks.uninitialised {
            self.report(context, Kind::UninitialisedStore, Severity::Error, &[site], || {
                "uninitialised bytes copied to global memory".into()
            });
        }
        self.note_sent(warp, site.lane);
    }
}
