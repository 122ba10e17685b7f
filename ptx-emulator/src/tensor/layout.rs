//! Which lane and register hold which matrix element, as on the hardware.
//!
//! Lane `l` is `g = l / 4`, `t = l % 4`. The same maps serve `mma`, `ldmatrix` and `wmma`
//! (m16n16k16 is two m16n8k16 that share the first factor).

/// Row and column of 16-bit element `half` of register `reg` of the first factor.
#[inline(always)]
pub(crate) fn a16(lane: usize, reg: usize, half: usize) -> (usize, usize) {
    (lane / 4 + 8 * (reg & 1), 2 * (lane % 4) + half + 8 * (reg >> 1))
}

/// k and n of 16-bit element `half` of register `reg` of the second factor.
#[inline(always)]
pub(crate) fn b16(lane: usize, reg: usize, half: usize) -> (usize, usize) {
    (2 * (lane % 4) + half + 8 * reg, lane / 4)
}

/// Row and k of byte `byte` of register `reg` of the first factor.
#[inline(always)]
pub(crate) fn a8(lane: usize, reg: usize, byte: usize) -> (usize, usize) {
    (lane / 4 + 8 * (reg & 1), 4 * (lane % 4) + byte + 16 * (reg >> 1))
}

/// k and n of byte `byte` of register `reg` of the second factor.
#[inline(always)]
pub(crate) fn b8(lane: usize, reg: usize, byte: usize) -> (usize, usize) {
    (4 * (lane % 4) + byte + 16 * reg, lane / 4)
}

/// Row and k of register `reg` of a first factor of 32-bit elements.
#[inline(always)]
pub(crate) fn a32(lane: usize, reg: usize) -> (usize, usize) {
    (lane / 4 + 8 * (reg & 1), lane % 4 + 4 * (reg >> 1))
}

/// k and n of register `reg` of a second factor of 32-bit elements.
#[inline(always)]
pub(crate) fn b32(lane: usize, reg: usize) -> (usize, usize) {
    (lane % 4 + 4 * reg, lane / 4)
}

/// Row and column of 32-bit accumulator register `reg`.
#[inline(always)]
pub(crate) fn c32(lane: usize, reg: usize) -> (usize, usize) {
    (lane / 4 + 8 * (reg >> 1), 2 * (lane % 4) + (reg & 1))
}

/// Row and column of 16-bit half `half` of accumulator register `reg`.
#[inline(always)]
pub(crate) fn c16(lane: usize, reg: usize, half: usize) -> (usize, usize) {
    (lane / 4 + 8 * reg, 2 * (lane % 4) + half)
}
