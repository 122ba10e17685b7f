//! Accesses to shared memory by the engines that work for warps, and by other blocks of a cluster.

use super::clock::{EngineView, Epoch, Relation, View, row};
use super::recent::{ALWAYS, Extent};
use super::runs::Run;
use super::shadow::{Clash, Conflict, LINE, SIZES, Shadow, WORD, span};

impl Shadow {
    /// Judges and records an access by an engine: writes before it must be visible to its proxy; reads before it, and what
    /// `cp.async` wrote, need only be ordered.
    pub(crate) fn engine_access(
        &mut self,
        view: &EngineView,
        (offset, size): (u32, u32),
        write: bool,
        me: Epoch,
        found: &mut Vec<Conflict>,
    ) {
        let run = Run { offset, size, lanes: 1, write, same: 0, me: me.collective() };
        let extent = Extent::of_bytes(offset, run.end());
        let lines = span(LINE, offset, run.end());
        // What is ordered before all warps need not be visible to an engine.
        let written = self.written[lines.clone()].iter().fold(0, |all, sizes| all | sizes.ever());
        let mut read = 0;
        if write {
            self.note_waiting(extent);
            read = self.read[lines].iter().fold(0, |all, sizes| all | sizes.ever());
        }
        let (visible, ordered) = (view.visible(), view.ordered());
        let noted = SIZES.into_iter().filter(|shift| written >> shift & 1 == 1);
        let mut writes = noted.map(|shift| &self.cells[shift as usize].writes[span(shift, run.offset, run.end())]);
        if !writes.all(|cells| row::are_visible(cells, visible.past(), ordered.past())) {
            let mut unseen = Vec::new();
            self.judge(&visible, &run, written, 0, &mut unseen);
            found.extend(unseen.into_iter().filter(|conflict| !is_seen(conflict, &ordered)));
        }
        if read != 0 && !self.is_ordered(&ordered, &run, 0, read) {
            self.judge(&ordered, &run, 0, read, found);
        }
        if write {
            self.record_write(&run);
        } else {
            self.record_read(&run, 0, None);
        }
        self.recent.note(extent, write, run.me);
    }

    /// Forgets what was written to aligned bytes, in cells of the given sizes: something else says that all know it.
    pub(crate) fn forget_writes(&mut self, offset: u32, size: u32, shifts: &[u32]) {
        for &shift in shifts.iter().filter(|shift| size >> **shift != 0) {
            let covered = (offset >> shift) as usize..((offset + size) >> shift) as usize;
            if let Some(cells) = self.cells[shift as usize].writes.get_mut(covered) {
                cells.fill(0);
            }
        }
    }

    /// Marks the words of a finished asynchronous copy as written by `me`. What was written there before is forgotten, in
    /// cells of every size: no engine needs to see it.
    pub(crate) fn complete(&mut self, offset: u32, size: u32, me: Epoch) {
        self.forget_writes(offset, size, &[LINE, 1, 0]);
        self.made(WORD);
        let Shadow { cells, written, recent, .. } = self;
        let cells = &mut cells[WORD as usize].writes;
        for word in span(WORD, offset, offset + size) {
            if Epoch(cells[word]).is_in_flight() {
                recent.end_copy(word, me);
            }
            cells[word] = me.0;
        }
        for line in span(LINE, offset, offset + size) {
            let open =
                cells[line << (LINE - WORD)..][..1 << (LINE - WORD)].iter().any(|cell| Epoch(*cell).is_in_flight());
            written[line].end(if open { ALWAYS } else { recent.era() });
        }
    }
}

/// Whether a copy was waited for and is ordered before an engine's access.
fn is_seen(conflict: &Conflict, ordered: &View<'_>) -> bool {
    let Conflict { clash, earlier, .. } = *conflict;
    clash != Clash::InFlight && earlier.is_copied() && ordered.relation(earlier, u32::MAX) == Relation::Ordered
}
