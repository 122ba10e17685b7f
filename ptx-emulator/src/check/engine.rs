//! Accesses to shared memory by the engines that work for warps, and by other blocks of a cluster.

use super::clock::{EngineView, Epoch};
use super::recent::Extent;
use super::runs::Run;
use super::shadow::{Conflict, LINE, Shadow, span};

impl Shadow {
    /// Judges and records an access by an engine: writes before it must be visible to its proxy, reads before it need only
    /// be ordered.
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
        if !self.is_ordered(&visible, &run, written, 0) {
            self.judge(&visible, &run, written, 0, found);
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
}
