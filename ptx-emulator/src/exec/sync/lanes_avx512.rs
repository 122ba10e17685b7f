//! The shuffle for AVX-512: a lane's source is one permutation of two registers of the host.

use std::arch::x86_64::*;

use crate::exec::sync::lanes::Shuffled;
use crate::isa::op::{Shuffle, ShuffleMode};
use crate::machine::regs::{LANES, Regs, w};

/// A row as two registers of the host.
type Halves = [__m512i; 2];

const NUMBERS: [u32; LANES] = {
    let mut numbers = [0; LANES];
    let mut l = 0;
    while l < LANES {
        numbers[l] = l as u32;
        l += 1;
    }
    numbers
};

/// Moves the values for the lanes of `group`; lane by lane this is [`crate::exec::sync::lanes::shuffle_source`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(crate) fn shuffle(regs: &mut Regs, op: &Shuffle, group: u32) -> Shuffled {
    let src: Halves = bytemuck::must_cast(*w(regs, op.src));
    let offsets: Halves = bytemuck::must_cast(*w(regs, op.lane));
    let clamps: Halves = bytemuck::must_cast(*w(regs, op.clamp));
    let numbers: Halves = bytemuck::must_cast(NUMBERS);
    let (low, one) = (_mm512_set1_epi32(31), _mm512_set1_epi32(1));
    let members = _mm512_set1_epi32(group as i32);
    let (mut out, mut from) = ([_mm512_setzero_si512(); 2], [_mm512_setzero_si512(); 2]);
    let (mut valid, mut stray) = ([0u16; 2], [0u16; 2]);
    for i in 0..2 {
        let lane = numbers[i];
        let by = _mm512_and_si512(offsets[i], low);
        let segment = _mm512_and_si512(_mm512_srli_epi32::<8>(clamps[i]), low);
        let own = _mm512_and_si512(lane, segment);
        let limit = _mm512_or_si512(own, _mm512_andnot_si512(segment, _mm512_and_si512(clamps[i], low)));
        let wanted = match op.mode {
            ShuffleMode::Up => _mm512_sub_epi32(lane, by),
            ShuffleMode::Down => _mm512_add_epi32(lane, by),
            ShuffleMode::Xor => _mm512_xor_si512(lane, by),
            ShuffleMode::Index => _mm512_or_si512(own, _mm512_andnot_si512(segment, by)),
        };
        valid[i] = match op.mode {
            ShuffleMode::Up => _mm512_cmpge_epi32_mask(wanted, limit),
            _ => _mm512_cmple_epi32_mask(wanted, limit),
        };
        from[i] = _mm512_mask_mov_epi32(lane, valid[i], wanted);
        out[i] = _mm512_permutex2var_epi32(src[0], from[i], src[1]);
        stray[i] = _mm512_testn_epi32_mask(_mm512_srlv_epi32(members, from[i]), one);
    }
    regs.set_w(op.dst, &bytemuck::must_cast(out), group);
    let both = |of: [u16; 2]| u32::from(of[0]) | u32::from(of[1]) << 16;
    Shuffled { from: bytemuck::must_cast(from), valid: both(valid), stray: both(stray) & group }
}
