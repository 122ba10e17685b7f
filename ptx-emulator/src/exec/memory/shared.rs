//! Shared memory of a block: bytes, which of them are defined, and the ranges that may be used.

use crate::check::shadow::Shadow;
use crate::exec::run::block::Context;
use crate::isa::space::RESERVED_BYTES;
use crate::machine::regs::LANES;

/// Bytes whose definedness is one word.
const PIECE: u32 = 16;

/// Bytes of a region whose undefined bytes are counted.
const REGION: u32 = 256;
/// Most bytes that are looked at one by one, when asked whether a range is whole.
const FEW: u32 = 1024;

/// Shared memory with its checks.
pub(crate) struct Shared {
    pub(crate) bytes: Vec<u8>,
    /// One bit per byte that was written, [`PIECE`] bytes a word; empty when that is not tracked.
    defined: Vec<u16>,
    /// Bytes of each region that were not.
    holes: Vec<u16>,
    /// Ranges that belong to a variable, sorted; gaps are red zones.
    ranges: Vec<(u32, u32)>,
    pub(crate) shadow: Option<Box<Shadow>>,
    /// Copies in flight to each word; empty when copies are immediate.
    in_flight: Vec<u16>,
}

impl Shared {
    pub(crate) fn new(context: &Context<'_>, total: usize, warps: usize) -> Shared {
        let program = &context.kernel.program;
        let checks = context.launch.checks;
        let mut ranges: Vec<(u32, u32)> =
            program.shared.iter().filter(|v| v.bytes > 0).map(|v| (v.offset, v.offset + v.bytes)).collect();
        let dynamic = context.launch.dynamic_shared_bytes;
        if dynamic > 0 {
            ranges.push((program.shared_static_bytes, program.shared_static_bytes + dynamic));
        }
        ranges.sort_unstable();
        let total = if ranges.is_empty() { 0 } else { total };
        let tracked = if checks.uninitialised { total } else { 0 };
        let mut shared = Shared {
            // 0xFF is NaN in every float format: zero-filled memory would hide missing stores.
            bytes: vec![0xff; total],
            defined: vec![0; tracked.div_ceil(PIECE as usize)],
            holes: (0..tracked).step_by(REGION as usize).map(|at| (tracked - at).min(REGION as usize) as u16).collect(),
            ranges,
            shadow: checks.races.then(|| Box::new(Shadow::new(total, warps))),
            in_flight: vec![0; if checks.in_flight { total.div_ceil(4) } else { 0 }],
        };
        if let Some(start) = program.reserved_shared {
            shared.bytes[start as usize..(start + RESERVED_BYTES) as usize].fill(0);
            shared.define(start, RESERVED_BYTES, true);
        }
        shared
    }

    /// Memory of one variable that starts at byte 64, without checks.
    #[cfg(test)]
    pub(crate) fn unchecked(bytes: Vec<u8>) -> Shared {
        let ranges = vec![(64, bytes.len() as u32)];
        Shared { bytes, defined: Vec::new(), holes: Vec::new(), ranges, shadow: None, in_flight: Vec::new() }
    }

    /// Start and end of the variable that `offset` lies in or behind.
    #[inline(always)]
    pub(crate) fn range(&self, offset: u32) -> Option<(u32, u32)> {
        let after = self.ranges.partition_point(|r| r.0 <= offset);
        after.checked_sub(1).map(|at| self.ranges[at])
    }

    /// Whether the bytes lie inside one variable.
    #[inline(always)]
    pub(crate) fn covers(&self, offset: u32, size: u32) -> bool {
        self.range(offset).is_some_and(|(_, end)| u64::from(offset) + u64::from(size) <= u64::from(end))
    }

    /// Whether accesses leave no trace but the bytes: nothing is checked but bounds and alignment.
    #[inline(always)]
    pub(crate) fn is_plain(&self) -> bool {
        self.defined.is_empty() && self.shadow.is_none()
    }

    /// A copy to whole words begins: they hold poison until it and all others to them have ended.
    pub(crate) fn begin_copy(&mut self, offset: u32, size: u32) {
        let at = offset as usize;
        self.bytes[at..at + size as usize].fill(0xff);
        self.define(offset, size, false);
        self.in_flight[at / 4..(at + size as usize) / 4].iter_mut().for_each(|count| *count += 1);
    }

    /// A copy to whole words ends; passes each run of words that no other copy is in flight to, as offset and size.
    pub(crate) fn end_copy(&mut self, offset: u32, size: u32, mut act: impl FnMut(&mut Shared, u32, u32)) {
        let mut from = offset;
        for at in (offset..offset + size).step_by(4) {
            let count = &mut self.in_flight[at as usize / 4];
            *count -= 1;
            if *count > 0 {
                if from < at {
                    act(self, from, at - from);
                }
                from = at + 4;
            }
        }
        if from < offset + size {
            act(self, from, offset + size - from);
        }
    }

    /// Reads 1, 2, 4 or 8 checked bytes.
    #[inline(always)]
    pub(crate) fn load(&self, offset: u32, size: u32) -> u64 {
        let at = offset as usize;
        match size {
            4 => u64::from(u32::from_le_bytes(self.array(at))),
            2 => u64::from(u16::from_le_bytes(self.array(at))),
            8 => u64::from_le_bytes(self.array(at)),
            _ => u64::from(self.bytes[at]),
        }
    }

    #[inline(always)]
    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut out = [0; N];
        out.copy_from_slice(&self.bytes[at..at + N]);
        out
    }

    /// Writes 1, 2, 4 or 8 checked bytes.
    #[inline(always)]
    pub(crate) fn store(&mut self, offset: u32, size: u32, value: u64) {
        let at = offset as usize;
        match size {
            4 => self.bytes[at..at + 4].copy_from_slice(&(value as u32).to_le_bytes()),
            2 => self.bytes[at..at + 2].copy_from_slice(&(value as u16).to_le_bytes()),
            8 => self.bytes[at..at + 8].copy_from_slice(&value.to_le_bytes()),
            _ => self.bytes[at] = value as u8,
        }
    }

    /// Whether all bytes were written; true when that is not tracked.
    #[inline(always)]
    pub(crate) fn is_defined(&self, offset: u32, size: u32) -> bool {
        if self.defined.is_empty() {
            return true;
        }
        let first = offset % PIECE;
        if first + size <= PIECE {
            let bits = (((1u32 << size) - 1) << first) as u16;
            return self.defined[(offset / PIECE) as usize] & bits == bits;
        }
        let mut all = true;
        pieces(offset, size, |at, bits| all &= self.defined[at] & bits == bits);
        all
    }

    /// Whether all bytes from the first to the last of an instruction were written, as far as that is seen quickly.
    #[inline(always)]
    pub(crate) fn is_whole(&self, offset: u32, size: u32) -> bool {
        let regions = (offset / REGION) as usize..((offset + size - 1) / REGION) as usize + 1;
        let whole = self.holes.get(regions).is_none_or(|holes| holes.iter().fold(0, |all, holes| all | holes) == 0);
        whole || size <= FEW && self.is_defined(offset, size)
    }

    /// Whether all bytes of the aligned elements at `offset` behind each place were written; none is larger than a
    /// [`PIECE`].
    #[inline(always)]
    pub(crate) fn are_defined(&self, at: &[u32; LANES], offset: u32, size: u32) -> bool {
        let bits = (1u32 << size) - 1;
        self.defined.is_empty()
            || at.iter().fold(true, |all, at| {
                let at = at + offset;
                all & (u32::from(self.defined[(at / PIECE) as usize]) >> (at % PIECE) & bits == bits)
            })
    }

    /// Marks the bytes of an element as written, but for those that hold one of the undefined bits `unknown`.
    #[inline(always)]
    pub(crate) fn define_bits(&mut self, offset: u32, size: u32, unknown: u64) {
        if unknown == 0 || self.defined.is_empty() {
            return self.define(offset, size, true);
        }
        for i in 0..size {
            self.define(offset + i, 1, unknown >> (8 * i) & 0xff == 0);
        }
    }

    /// Marks bytes as written, or as undefined again.
    #[inline(always)]
    pub(crate) fn define(&mut self, offset: u32, size: u32, defined: bool) {
        if self.defined.is_empty() {
            return;
        }
        let mut set = |at: usize, bits: u16| {
            let word = &mut self.defined[at];
            let changed = bits & if defined { !*word } else { *word };
            if changed != 0 {
                *word ^= changed;
                let holes = &mut self.holes[at / (REGION / PIECE) as usize];
                let count = changed.count_ones() as u16;
                *holes = if defined { *holes - count } else { *holes + count };
            }
        };
        let first = offset % PIECE;
        if first + size <= PIECE {
            return set((offset / PIECE) as usize, (((1u32 << size) - 1) << first) as u16);
        }
        pieces(offset, size, set);
    }
}

/// Calls `act` with each word of definedness that a range touches and the bits of the range in it.
#[inline(always)]
fn pieces(offset: u32, size: u32, mut act: impl FnMut(usize, u16)) {
    let (mut at, end) = (offset, offset + size);
    while at < end {
        let first = at % PIECE;
        let count = (end - at).min(PIECE - first);
        act((at / PIECE) as usize, (((1u32 << count) - 1) << first) as u16);
        at += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definedness_is_kept_byte_by_byte() {
        let mut shared = Shared {
            bytes: vec![0; 70],
            defined: vec![0; 5],
            holes: vec![REGION as u16; 1],
            ranges: vec![(0, 70)],
            shadow: None,
            in_flight: Vec::new(),
        };
        shared.define(13, 40, true);
        shared.define(20, 3, false);
        let wanted = |byte: u32| (13..53).contains(&byte) && !(20..23).contains(&byte);
        for at in 0..70 {
            for size in [1, 2, 4, 16, 32] {
                let inside = at + size <= 70;
                assert!(!inside || shared.is_defined(at, size) == (at..at + size).all(wanted), "{at} {size}");
            }
        }
    }
}
