//! Register rows of a warp: one value per lane, with a taint mask beside each row.

use crate::machine::slot::{Class, Slot};

/// Lanes of a warp.
pub(crate) const LANES: usize = 32;
/// Every lane.
pub(crate) const FULL: u32 = u32::MAX;
/// The number of a class of one row that is always defined, for [`Regs::taint_of`].
pub(crate) const DEFINED: u8 = 3;

/// 32 values of one register; also holds 8- and 16-bit values zero-extended.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(crate) struct Row(pub(crate) [u32; LANES]);

/// 32 values of one 64-bit register.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(crate) struct Row64(pub(crate) [u64; LANES]);

/// The register file of one warp. Taint bit `l` says that lane `l` of the row is not, or not wholly, defined; which of
/// its bits are not is kept beside it, as MemorySanitizer does, where that is tracked at all.
#[derive(Clone, Debug, Default)]
pub(crate) struct Regs {
    /// 32-bit rows.
    pub(crate) w: Vec<Row>,
    /// 64-bit rows.
    pub(crate) d: Vec<Row64>,
    /// Predicates, one bit per lane.
    pub(crate) p: Vec<u32>,
    /// Lanes of each row that are not wholly defined, by its class; then one that is, [`DEFINED`].
    taints: [Vec<u32>; 4],
    /// Undefined bits of each tainted lane of `w`; meaningless for the others. Empty when not tracked.
    unknown_w: Vec<Row>,
    unknown_d: Vec<Row64>,
}

/// A source row that can be read lane by lane.
pub(crate) trait Source: Copy {
    type Value;
    fn lane(self, lane: usize) -> Self::Value;
}

impl Source for &[u32; LANES] {
    type Value = u32;
    #[inline(always)]
    fn lane(self, lane: usize) -> u32 {
        self[lane]
    }
}

impl Source for &[u64; LANES] {
    type Value = u64;
    #[inline(always)]
    fn lane(self, lane: usize) -> u64 {
        self[lane]
    }
}

/// A predicate register.
#[derive(Clone, Copy)]
pub(crate) struct Bits(pub(crate) u32);

impl Source for Bits {
    type Value = bool;
    #[inline(always)]
    fn lane(self, lane: usize) -> bool {
        (self.0 >> lane) & 1 == 1
    }
}

impl Regs {
    /// Rows of undefined values; with `tracked`, their undefined bits are remembered.
    pub(crate) fn undefined(w: usize, d: usize, p: usize, tracked: bool) -> Regs {
        let kept = |rows: usize| if tracked { rows } else { 0 };
        Regs {
            w: vec![Row([u32::MAX; LANES]); w],
            d: vec![Row64([u64::MAX; LANES]); d],
            p: vec![0; p],
            taints: [vec![FULL; w], vec![FULL; d], vec![FULL; p], vec![0]],
            unknown_w: vec![Row([u32::MAX; LANES]); kept(w)],
            unknown_d: vec![Row64([u64::MAX; LANES]); kept(d)],
        }
    }

    /// Rows of these values, without any tracking.
    #[cfg(test)]
    pub(crate) fn plain(w: Vec<Row>, d: Vec<Row64>) -> Regs {
        Regs { w, d, ..Regs::default() }
    }

    /// Lanes of a row that are not wholly defined.
    #[inline(always)]
    pub(crate) fn taint(&self, slot: Slot) -> u32 {
        self.taint_of(slot.class as u8, slot.row)
    }

    /// Lanes of a row of the class of this number that are not wholly defined; what is needed for each instruction is
    /// found without a branch on the class.
    #[inline(always)]
    pub(crate) fn taint_of(&self, class: u8, row: u16) -> u32 {
        self.taints[usize::from(class) % 4][usize::from(row)]
    }

    /// Lanes of a 32-bit row that are not wholly defined.
    #[inline(always)]
    pub(crate) fn tw(&self, row: u16) -> u32 {
        self.taint_of(Class::W as u8, row)
    }

    /// As [`Regs::tw`], of a 64-bit row.
    #[inline(always)]
    pub(crate) fn td(&self, row: u16) -> u32 {
        self.taint_of(Class::D as u8, row)
    }

    /// As [`Regs::tw`], of a predicate.
    #[inline(always)]
    pub(crate) fn tp(&self, row: u16) -> u32 {
        self.taint_of(Class::P as u8, row)
    }

    #[inline(always)]
    fn taint_mut(&mut self, slot: Slot) -> &mut u32 {
        &mut self.taints[slot.class as usize][usize::from(slot.row)]
    }

    /// Undefined bits of every lane of a row.
    pub(crate) fn unknown(&self, slot: Slot) -> [u64; LANES] {
        let (row, taint) = (usize::from(slot.row), self.taint(slot));
        let all = |bits: u64| std::array::from_fn(|l| if taint >> l & 1 == 1 { bits } else { 0 });
        let mut out = match slot.class {
            Class::W => all(u64::from(u32::MAX)),
            Class::D => all(u64::MAX),
            Class::P => all(1),
        };
        match slot.class {
            Class::W => {
                let bits = self.unknown_w.get(row).into_iter().flat_map(|bits| &bits.0);
                out.iter_mut().zip(bits).for_each(|(out, bits)| *out &= u64::from(*bits));
            }
            Class::D => {
                let bits = self.unknown_d.get(row).into_iter().flat_map(|bits| &bits.0);
                out.iter_mut().zip(bits).for_each(|(out, bits)| *out &= bits);
            }
            Class::P => {}
        }
        out
    }

    /// Lanes that have an undefined bit among those of `bits`.
    #[inline(always)]
    pub(crate) fn taint_within(&self, slot: Slot, bits: u64) -> u32 {
        let taint = self.taint(slot);
        if taint == 0 { 0 } else { lanes_with(&self.unknown(slot), bits) }
    }

    /// Sets the undefined bits of the lanes of `mask`.
    pub(crate) fn set_unknown(&mut self, slot: Slot, bits: &[u64; LANES], mask: u32) {
        let row = usize::from(slot.row);
        let width = match slot.class {
            Class::W => u64::from(u32::MAX),
            Class::D => u64::MAX,
            Class::P => 1,
        };
        let taint = self.taint_mut(slot);
        *taint = (*taint & !mask) | (lanes_with(bits, width) & mask);
        match slot.class {
            Class::W => {
                if let Some(row) = self.unknown_w.get_mut(row) {
                    each_lane(mask, |l| row.0[l] = bits[l] as u32);
                }
            }
            Class::D => {
                if let Some(row) = self.unknown_d.get_mut(row) {
                    each_lane(mask, |l| row.0[l] = bits[l]);
                }
            }
            Class::P => {}
        }
    }

    /// Writes the lanes of `mask`.
    #[inline(always)]
    pub(crate) fn set_w(&mut self, at: u16, value: &[u32; LANES], mask: u32) {
        let row = &mut self.w[usize::from(at)].0;
        if mask == FULL {
            *row = *value;
        } else {
            for l in 0..LANES {
                row[l] = if (mask >> l) & 1 == 1 { value[l] } else { row[l] };
            }
        }
    }

    /// Writes the lanes of `mask`.
    #[inline(always)]
    pub(crate) fn set_d(&mut self, at: u16, value: &[u64; LANES], mask: u32) {
        let row = &mut self.d[usize::from(at)].0;
        if mask == FULL {
            *row = *value;
        } else {
            for l in 0..LANES {
                row[l] = if (mask >> l) & 1 == 1 { value[l] } else { row[l] };
            }
        }
    }

    /// Writes the lanes of `mask`.
    #[inline(always)]
    pub(crate) fn set_p(&mut self, at: u16, value: u32, mask: u32) {
        let row = &mut self.p[usize::from(at)];
        *row = (*row & !mask) | (value & mask);
    }

    /// Makes the lanes of `mask` wholly undefined where `taint` says so, and defined elsewhere.
    #[inline(always)]
    pub(crate) fn taint_w(&mut self, at: u16, taint: u32, mask: u32) {
        let row = self.taint_mut(Slot { class: Class::W, row: at });
        *row = (*row & !mask) | (taint & mask);
        if taint & mask != 0 {
            self.fill_unknown(Slot { class: Class::W, row: at }, taint & mask);
        }
    }

    /// As [`Regs::taint_w`].
    #[inline(always)]
    pub(crate) fn taint_d(&mut self, at: u16, taint: u32, mask: u32) {
        let row = self.taint_mut(Slot { class: Class::D, row: at });
        *row = (*row & !mask) | (taint & mask);
        if taint & mask != 0 {
            self.fill_unknown(Slot { class: Class::D, row: at }, taint & mask);
        }
    }

    /// As [`Regs::taint_w`].
    #[inline(always)]
    pub(crate) fn taint_p(&mut self, at: u16, taint: u32, mask: u32) {
        let row = self.taint_mut(Slot { class: Class::P, row: at });
        *row = (*row & !mask) | (taint & mask);
    }

    /// Makes the lanes of `mask` defined.
    #[cold]
    pub(crate) fn define(&mut self, slot: Slot, mask: u32) {
        *self.taint_mut(slot) &= !mask;
    }

    #[cold]
    fn fill_unknown(&mut self, slot: Slot, lanes: u32) {
        self.set_unknown(slot, &[u64::MAX; LANES], lanes);
    }
}

/// Lanes that have one of `bits`.
pub(crate) fn lanes_with(values: &[u64; LANES], bits: u64) -> u32 {
    values.iter().enumerate().fold(0, |lanes, (l, value)| lanes | u32::from(value & bits != 0) << l)
}

/// A 32-bit row.
#[inline(always)]
pub(crate) fn w(regs: &Regs, at: u16) -> &[u32; LANES] {
    &regs.w[usize::from(at)].0
}

/// A 64-bit row.
#[inline(always)]
pub(crate) fn d(regs: &Regs, at: u16) -> &[u64; LANES] {
    &regs.d[usize::from(at)].0
}

/// Calls `f` for every lane of `mask`, lowest first.
#[inline(always)]
pub(crate) fn each_lane(mask: u32, mut f: impl FnMut(usize)) {
    let mut rest = mask;
    while rest != 0 {
        f(rest.trailing_zeros() as usize);
        rest &= rest - 1;
    }
}

/// The lanes of `mask`, lowest first. Unlike the closure of [`each_lane`], the body of a loop over them is compiled for
/// the instruction set of the function that it stands in.
#[inline(always)]
pub(crate) fn lane_numbers(mask: u32) -> impl Iterator<Item = usize> {
    LaneNumbers(mask)
}

struct LaneNumbers(u32);

impl Iterator for LaneNumbers {
    type Item = usize;

    #[inline(always)]
    fn next(&mut self) -> Option<usize> {
        let lane = self.0.trailing_zeros() as usize;
        let any = self.0 != 0;
        self.0 &= self.0.wrapping_sub(1);
        any.then_some(lane)
    }
}

/// Value of a row that is uniform by rule: that of the first active lane.
pub(crate) fn lane_word(regs: &Regs, row: u16, active: u32) -> u32 {
    w(regs, row)[active.trailing_zeros() as usize & 31]
}
