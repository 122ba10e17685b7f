//! Accesses whose lanes are not neighbours in memory, of at most a line each: looked at together, and noted one after
//! another.

use super::clock::{Epoch, View, row};
use super::recent::{ALWAYS, Extent, Read, Used};
use super::runs::{Access, Run};
use super::shadow::{Conflict, LINE, REGION, SIZES, Shadow, WORD, begin_copies, span};
use crate::machine::regs::lane_numbers;

/// The size of the cells that an aligned access of a lane is noted in, as a power of two, and their number.
#[inline(always)]
fn parts(size: u32, me: Epoch) -> (u32, usize) {
    let largest = if me.is_in_flight() { WORD } else { LINE };
    let shift = size.trailing_zeros().min(largest);
    let shift = if shift == 3 { WORD } else { shift };
    (shift, (size >> shift) as usize)
}

impl Shadow {
    /// As [`Shadow::record_read`], for lanes that are runs of their own.
    #[inline(always)]
    pub(super) fn record_single_reads(&mut self, read: &Read, (lanes, several): (u32, u32)) {
        let Read { at, size, limit, .. } = *read;
        let (me, warp, era) = (read.me.with_lane(0), read.me.warp() as usize, self.recent.era());
        let (shift, parts) = parts(size, me);
        let count = self.count(shift);
        self.made(shift);
        let Shadow { cells, read: lines, latest, warps, .. } = self;
        let cells = &mut cells[shift as usize].reads[warp * count..][..count];
        for l in lane_numbers(lanes) {
            let mine = me.with_lane(l as u32);
            let mine = if several >> l & 1 == 1 { mine.several() } else { mine };
            let cell = (at[l] >> shift) as usize;
            row::read(&mut cells[cell..cell + parts], limit, mine, parts);
            lines[(at[l] >> LINE) as usize].add(era, shift);
            let latest = &mut latest[(at[l] >> REGION) as usize * *warps + warp];
            *latest = me.age().max(*latest);
        }
    }

    /// Of lanes that are runs of their own, those whose cells hold nothing that stands against them.
    #[inline(always)]
    pub(super) fn lanes_clear(
        &self,
        view: &View<'_>,
        access: &Access<'_>,
        (lanes, extent): (u32, Extent),
        used: Used,
    ) -> u32 {
        let Access { at, size, me, .. } = *access;
        let (past, me) = (view.past(), me.with_lane(0));
        let (mut written, mut read) = (0, 0);
        let era = self.recent.era();
        for l in lane_numbers(lanes) {
            written |= self.written[(at[l] >> LINE) as usize].in_era(era);
        }
        for l in lane_numbers(if used.read { lanes } else { 0 }) {
            read |= self.read[(at[l] >> LINE) as usize].in_era(era);
        }
        let pieces = |shift: u32| 0..(size >> shift).max(1);
        let mut clear = u32::MAX;
        for shift in SIZES.into_iter().filter(|shift| written >> shift & 1 == 1) {
            for i in pieces(shift) {
                let cells = &self.cells[shift as usize].writes;
                clear &= row::lanes_before(cells, (at, i << shift, shift), lanes, past, me);
            }
        }
        if read == 0 {
            return clear;
        }
        for (warp, &limit) in past.iter().enumerate().take(self.warps) {
            let latest = extent.span(REGION).map(|region| self.latest[region * self.warps + warp]);
            if latest.fold(0, u64::max) <= limit {
                continue;
            }
            for shift in SIZES.into_iter().filter(|shift| read >> shift & 1 == 1) {
                for i in pieces(shift) {
                    let cells = &self.cells[shift as usize].reads[warp * self.count(shift)..];
                    clear &= row::lanes_before(cells, (at, i << shift, shift), lanes, past, me);
                }
            }
        }
        clear
    }

    /// Judges a lane that is a run of its own, with `several` for others, too.
    #[cold]
    #[inline(never)]
    pub(super) fn judge_lane(
        &self,
        view: &View<'_>,
        access: &Access<'_>,
        (l, several): (usize, bool),
        found: &mut Vec<Conflict>,
    ) {
        let Access { at, size, same, write, me, .. } = *access;
        let me = me.with_lane(l as u32);
        let me = if several { me.several() } else { me };
        let run = Run { offset: at[l], size, lanes: 1, write, same, me };
        let (written, read) = self.sizes(span(LINE, run.offset, run.end()), Used { written: true, read: write });
        self.judge(view, &run, written, read, found);
    }

    /// Judges and records writes that are runs of their own.
    #[inline(always)]
    pub(super) fn write_single(
        &mut self,
        view: &View<'_>,
        access: &Access<'_>,
        (lanes, extent, apart): (u32, Extent, bool),
        used: Used,
        found: &mut Vec<Conflict>,
    ) {
        if lanes == 0 {
            return;
        }
        let Access { at, size, me, .. } = *access;
        let mut clear = u32::MAX;
        if used.written || used.read {
            clear = self.lanes_clear(view, access, (lanes, extent), used);
        }
        let (shift, parts) = parts(size, me);
        self.made(shift);
        let era = if me.is_in_flight() { ALWAYS } else { self.recent.era() };
        for l in lane_numbers(lanes) {
            let (mine, cell) = (me.with_lane(l as u32), (at[l] >> shift) as usize);
            let writes = &self.cells[shift as usize].writes;
            // A lane before it may have written to the same place.
            if clear >> l & 1 == 0 || !apart && row::is_of_twin(writes[cell], mine) {
                self.judge_lane(view, access, (l, false), found);
            }
            let Shadow { cells, written, recent, .. } = &mut *self;
            let cells = &mut cells[shift as usize].writes[cell..cell + parts];
            if me.is_in_flight() {
                begin_copies(recent, cells, cell);
            }
            cells.fill(mine.0);
            written[(at[l] >> LINE) as usize].add(era, shift);
        }
    }
}
