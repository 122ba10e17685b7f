//! The accesses of one instruction, as runs of lanes that follow each other without a gap.

use super::clock::Epoch;
use super::lanes::distinct_reads;
use crate::machine::regs::{LANES, lane_numbers};

/// The accesses of one instruction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Access<'a> {
    pub(crate) at: &'a [u32; LANES],
    pub(crate) lanes: u32,
    /// Lanes that wrote the value that was there.
    pub(crate) same: u32,
    /// Bytes of each lane.
    pub(crate) size: u32,
    pub(crate) write: bool,
    /// The epoch of all but for the lane.
    pub(crate) me: Epoch,
}

/// Accesses of neighbouring lanes to neighbouring bytes, or one access.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    pub(super) offset: u32,
    pub(super) size: u32,
    /// Lanes, from that of `me` on.
    pub(super) lanes: u32,
    pub(super) write: bool,
    pub(super) same: u32,
    pub(super) me: Epoch,
}

impl Run {
    /// One past its last byte.
    #[inline(always)]
    pub(super) fn end(&self) -> u32 {
        self.offset + self.size * self.lanes
    }
}

/// Lanes of an instruction, in runs that follow each other without a gap.
#[derive(Clone, Copy)]
pub(super) struct Lanes<'a> {
    at: &'a [u32; LANES],
    /// Bytes of each lane.
    size: u32,
    /// Lanes that stand for others which read the same.
    pub(super) several: u32,
    /// Lanes that go on where the one before them ends.
    joined: u32,
    /// The first lane of each run.
    pub(super) starts: u32,
    /// No two lanes touch the same byte; false if that is not seen at once.
    pub(super) apart: bool,
}

impl<'a> Lanes<'a> {
    #[inline(always)]
    pub(super) fn of(at: &'a [u32; LANES], lanes: u32, size: u32, write: bool, me: Epoch) -> Lanes<'a> {
        let (lanes, several) = if write || me.is_collective() { (lanes, 0) } else { distinct_reads(at, lanes) };
        let follows = (1..LANES).fold(0u32, |set, l| set | u32::from(at[l].wrapping_sub(at[l - 1]) == size) << l);
        let alone = if me.is_collective() { u32::MAX } else { several | several << 1 };
        let joined = follows & lanes & lanes << 1 & !alone;
        let ascends = (1..LANES).fold(1u32, |set, l| set | u32::from(at[l] >= at[l - 1].saturating_add(size)) << l);
        let lowest = lanes & lanes.wrapping_neg();
        let neighbours = lanes & lanes.wrapping_add(lowest) == 0;
        let apart = neighbours && (ascends | lowest) & lanes == lanes;
        Lanes { at, size, several, joined, starts: lanes & !joined, apart }
    }

    /// Whether lanes that are runs of their own may be looked at before all others.
    #[inline(always)]
    pub(super) fn may_be_parted(&self) -> bool {
        self.apart || self.joined == 0
    }

    /// Takes out the lanes that are runs of their own.
    #[inline(always)]
    pub(super) fn take_single(&mut self) -> u32 {
        let single = self.starts & !(self.joined >> 1);
        self.starts &= !single;
        single
    }

    /// Every run, of the epoch `me` but for the lane.
    #[inline(always)]
    pub(super) fn runs(self, write: bool, same: u32, me: Epoch) -> impl Iterator<Item = Run> {
        lane_numbers(self.starts).map(move |first| {
            let lanes = 1 + (!(self.joined >> first >> 1)).trailing_zeros().min(31);
            let me = me.with_lane(first as u32);
            let me = if self.several >> first & 1 == 1 { me.several() } else { me };
            Run { offset: self.at[first], size: self.size, lanes, write, same, me }
        })
    }
}
