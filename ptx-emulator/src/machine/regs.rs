//! Register rows of a warp: one value per lane, with a taint mask beside each row.

/// Lanes of a warp.
pub(crate) const LANES: usize = 32;
/// Every lane.
pub(crate) const FULL: u32 = u32::MAX;

/// 32 values of one register; also holds 8- and 16-bit values zero-extended.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(crate) struct Row(pub(crate) [u32; LANES]);

/// 32 values of one 64-bit register.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(crate) struct Row64(pub(crate) [u64; LANES]);

/// The register file of one warp. Taint bit `l` says that lane `l` of the row was never defined.
#[derive(Clone, Debug)]
pub(crate) struct Regs {
    /// 32-bit rows.
    pub(crate) w: Vec<Row>,
    /// 64-bit rows.
    pub(crate) d: Vec<Row64>,
    /// Predicates, one bit per lane.
    pub(crate) p: Vec<u32>,
    pub(crate) tw: Vec<u32>,
    pub(crate) td: Vec<u32>,
    pub(crate) tp: Vec<u32>,
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

    /// Sets or clears the taint of the lanes of `mask`.
    #[inline(always)]
    pub(crate) fn taint_w(&mut self, at: u16, taint: u32, mask: u32) {
        let row = &mut self.tw[usize::from(at)];
        *row = (*row & !mask) | (taint & mask);
    }

    /// Sets or clears the taint of the lanes of `mask`.
    #[inline(always)]
    pub(crate) fn taint_d(&mut self, at: u16, taint: u32, mask: u32) {
        let row = &mut self.td[usize::from(at)];
        *row = (*row & !mask) | (taint & mask);
    }

    /// Sets or clears the taint of the lanes of `mask`.
    #[inline(always)]
    pub(crate) fn taint_p(&mut self, at: u16, taint: u32, mask: u32) {
        let row = &mut self.tp[usize::from(at)];
        *row = (*row & !mask) | (taint & mask);
    }
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

/// Value of a row that is uniform by rule: that of the first active lane.
pub(crate) fn lane_word(regs: &Regs, row: u16, active: u32) -> u32 {
    w(regs, row)[active.trailing_zeros() as usize & 31]
}
