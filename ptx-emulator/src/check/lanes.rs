//! Lanes of one warp: order among them that is not that of the whole warp, and which of them read the same.

use crate::machine::regs::{FULL, LANES};

/// A time of each lane of a warp.
pub(super) type LaneTimes = [u32; LANES];

/// The later of both, lane by lane.
pub(super) fn join(into: &mut LaneTimes, from: &LaneTimes) {
    into.iter_mut().zip(from).for_each(|(to, from)| *to = (*to).max(*from));
}

/// What the lanes of a warp know of each other.
#[derive(Clone, Debug)]
pub(crate) struct LaneOrder {
    /// `known[a][b]`: accesses of lane `b` up to this time are ordered before lane `a`.
    pub(super) known: [LaneTimes; LANES],
    /// Learnt from strong loads, in force from the next fence of the lane on.
    pub(super) pending: [LaneTimes; LANES],
    /// State at the last fence of each lane, for its next strong store.
    pub(super) fenced: [LaneTimes; LANES],
}

impl LaneOrder {
    /// Nobody knows of anybody.
    pub(super) fn new() -> Box<LaneOrder> {
        let none = [[0; LANES]; LANES];
        Box::new(LaneOrder { known: none, pending: none, fenced: none })
    }

    /// Whether an access at time `t` of `earlier`, or of no lane in particular, is ordered before `lane`.
    pub(crate) fn is_ordered(&self, earlier: Option<u32>, t: u32, lane: u32) -> bool {
        let Some(known) = self.known.get(lane as usize) else { return false };
        match earlier {
            Some(earlier) => known[earlier as usize % LANES] >= t,
            None => known.iter().enumerate().all(|(l, time)| l == lane as usize || *time >= t),
        }
    }
}

/// One lane per address of a read that several lanes share, and which of those stand for others.
/// Sharing is looked for only at the distances at which lane 0 has a twin.
#[inline]
pub(crate) fn distinct_reads<T: Copy + PartialEq>(at: &[T; LANES], lanes: u32) -> (u32, u32) {
    if lanes == FULL && at.iter().fold(true, |same, a| same & (*a == at[0])) {
        return (1, 1);
    }
    let distances = [1, 2, 4, 8, 16].map(|d| (d, at[d] == at[0]));
    if lanes != FULL || distances.iter().all(|(_, twin)| !twin) {
        return (lanes, 0);
    }
    let mut first: [usize; LANES] = [0; LANES];
    let (mut kept, mut several) = (0u32, 0u32);
    for l in 0..LANES {
        let twin = distances.iter().find(|(d, twin)| *twin && l >= *d && at[l] == at[l - d]);
        match twin {
            Some((d, _)) => {
                first[l] = first[l - d];
                several |= 1 << first[l];
            }
            None => {
                first[l] = l;
                kept |= 1 << l;
            }
        }
    }
    (kept, several)
}
