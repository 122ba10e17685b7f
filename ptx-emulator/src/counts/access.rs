//! What one memory instruction of a warp costs, by the addresses of its lanes: sectors of global memory, passes through the
//! banks of shared memory.
//!
//! Shared memory has 32 banks of one word each. A pass (a wavefront) serves any lanes that want no two words of one bank.
//! Lanes go through together as far as their bytes fit into one pass: all 32 of up to 4 bytes, halves of 8, quarters of
//! 16. More passes than that are conflicts. A matrix of eight rows of 16 bytes is one pass.

use crate::counts::Tally;

const LANES: usize = 32;
const SECTOR_BYTES: u64 = 32;
const BANKS: usize = 32;
const WORD_BYTES: u64 = 4;

/// Sectors of a request, and the fewest that hold as many bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sectors {
    requests: u64,
    touched: u64,
    ideal: u64,
}

impl Sectors {
    /// Those that some lanes of one request touch, `bytes` by each.
    pub(crate) fn of(at: &[u64; LANES], lanes: u32, bytes: impl Fn(usize) -> u32) -> Sectors {
        if lanes == 0 {
            return Sectors::default();
        }
        let mut touched: Vec<u64> = Vec::with_capacity(2 * LANES);
        let mut all = 0;
        for l in lanes_of(lanes) {
            let bytes = bytes(l);
            all += u64::from(bytes);
            touched.extend(at[l] / SECTOR_BYTES..=last(at[l], bytes) / SECTOR_BYTES);
        }
        touched.sort_unstable();
        touched.dedup();
        let count = touched.len() as u64;
        // Lanes may share bytes, so that fewer may do than all of them would take.
        Sectors { requests: 1, touched: count, ideal: count.min(all.div_ceil(SECTOR_BYTES)) }
    }
}

/// What an instruction does to memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Access {
    pub(crate) loads: Sectors,
    pub(crate) stores: Sectors,
    pub(crate) atomics: Sectors,
    wavefronts: u64,
    conflicts: u64,
    copy_conflicts: u64,
}

impl Access {
    /// Some lanes access shared memory, `bytes` each, in as many passes as that takes.
    pub(crate) fn shared(&mut self, at: &[u64; LANES], lanes: u32, bytes: u32) {
        let together = LANES as u32 / bytes.div_ceil(WORD_BYTES as u32).next_power_of_two();
        let first = ((1u64 << together) - 1) as u32;
        for group in 0..LANES as u32 / together {
            self.pass(at, first << (group * together) & lanes, bytes);
        }
    }

    /// As [`Access::shared`], of `cp.async`: the profiler has its conflicts among the sectors, not among the wavefronts.
    pub(crate) fn copied(&mut self, at: &[u64; LANES], lanes: u32, bytes: u32) {
        let mut plain = Access::default();
        plain.shared(at, lanes, bytes);
        self.wavefronts += plain.wavefronts - plain.conflicts;
        self.copy_conflicts += plain.conflicts;
    }

    /// Lanes whose bytes fit into one pass.
    pub(crate) fn pass(&mut self, at: &[u64; LANES], lanes: u32, bytes: u32) {
        if lanes == 0 {
            return;
        }
        let mut words: Vec<u64> = Vec::with_capacity(2 * LANES);
        lanes_of(lanes).for_each(|l| words.extend(at[l] / WORD_BYTES..=last(at[l], bytes) / WORD_BYTES));
        words.sort_unstable();
        words.dedup();
        let mut wanted = [0; BANKS];
        words.iter().for_each(|word| wanted[*word as usize % BANKS] += 1);
        let passes = wanted.into_iter().max().unwrap_or(1);
        self.wavefronts += passes;
        self.conflicts += passes - 1;
    }

    /// Adds it to a tally.
    pub(super) fn book(&self, tally: &mut Tally) {
        tally.global_load_requests += self.loads.requests;
        tally.global_load_sectors += self.loads.touched;
        tally.global_load_sectors_ideal += self.loads.ideal;
        tally.global_store_requests += self.stores.requests;
        tally.global_store_sectors += self.stores.touched;
        tally.global_store_sectors_ideal += self.stores.ideal;
        tally.global_atomic_sectors += self.atomics.touched;
        tally.shared_wavefronts += self.wavefronts;
        tally.bank_conflicts += self.conflicts;
        tally.async_copy_conflicts += self.copy_conflicts;
    }
}

/// The last of some bytes; where an address is wrong, that is a finding and not for here to judge.
fn last(at: u64, bytes: u32) -> u64 {
    at.saturating_add(u64::from(bytes).saturating_sub(1))
}

fn lanes_of(lanes: u32) -> impl Iterator<Item = usize> {
    (0..LANES).filter(move |l| lanes >> l & 1 == 1)
}
