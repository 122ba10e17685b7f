//! Loads and stores of 32-bit words of shared memory for AVX-512, when nothing about them is to be recorded.
//!
//! Lanes are moved by four at a time where they are neighbours in memory, as they are in the fragments of matrices;
//! vectors of four words are turned into rows in the registers of the host.

use std::arch::x86_64::*;

use crate::exec::memory::shared::Shared;
use crate::isa::op::{Load, Store, WmmaMove};
use crate::isa::slot::{Class, Slot};
use crate::isa::space::{Addr, Space};
use crate::machine::regs::{FULL, LANES, Regs, d, each_lane, w};

/// A row of 32-bit register values.
type Lanes = [u32; LANES];
/// A row as two registers of the host.
type Halves = [__m512i; 2];

/// Shared offsets of the lanes, in bounds and aligned.
struct Places {
    /// Lanes that are not active repeat an active one.
    at: Lanes,
    /// In each group of four, a lane follows the one before without a gap.
    quads: bool,
}

/// Where an instruction of `bytes` per lane accesses shared memory, if nothing is wrong with it.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn places(regs: &Regs, shared: &Shared, addr: &Addr, active: u32, bytes: u32) -> Option<Places> {
    let lanes = [active as __mmask16, (active >> 16) as __mmask16];
    let mut at: Halves;
    if addr.base.class == Class::D {
        let wide: [__m512i; 4] = bytemuck::must_cast(*d(regs, addr.base.row));
        let offset = _mm512_set1_epi64(addr.offset);
        let mut beyond = 0;
        at = [_mm512_setzero_si512(); 2];
        for i in 0..2 {
            let low = _mm512_add_epi64(wide[2 * i], offset);
            let high = _mm512_add_epi64(wide[2 * i + 1], offset);
            let limit = _mm512_set1_epi64(i64::from(u32::MAX));
            let large = [_mm512_cmpgt_epu64_mask(low, limit), _mm512_cmpgt_epu64_mask(high, limit)];
            beyond |= (u16::from(large[0]) | u16::from(large[1]) << 8) & lanes[i];
            let low = _mm512_castsi256_si512(_mm512_cvtepi64_epi32(low));
            at[i] = _mm512_inserti64x4::<1>(low, _mm512_cvtepi64_epi32(high));
        }
        if beyond != 0 {
            return None;
        }
    } else {
        at = bytemuck::must_cast(*w(regs, addr.base.row));
        let offset = _mm512_set1_epi32(addr.offset as i32);
        at = [_mm512_add_epi32(at[0], offset), _mm512_add_epi32(at[1], offset)];
    }
    let mut offsets: Lanes = bytemuck::must_cast(at);
    let first = offsets[active.trailing_zeros() as usize & 31];
    if active != FULL {
        let stand_in = _mm512_set1_epi32(first as i32);
        at = [_mm512_mask_mov_epi32(stand_in, lanes[0], at[0]), _mm512_mask_mov_epi32(stand_in, lanes[1], at[1])];
        offsets = bytemuck::must_cast(at);
    }
    let (start, end) = shared.range(first)?;
    let room = _mm512_set1_epi32((end - start).checked_sub(bytes)? as i32);
    let start = _mm512_set1_epi32(start as i32);
    let align = _mm512_set1_epi32(bytes as i32 - 1);
    let gaps = _mm512_mullo_epi32(_mm512_set1_epi32(bytes as i32), bytemuck::must_cast([[0u32, 1, 2, 3]; 4]));
    let (mut valid, mut quads) = (u16::MAX, u16::MAX);
    for at in at {
        valid &= _mm512_cmple_epu32_mask(_mm512_sub_epi32(at, start), room) & _mm512_testn_epi32_mask(at, align);
        quads &= _mm512_cmpeq_epi32_mask(_mm512_sub_epi32(at, _mm512_shuffle_epi32::<0>(at)), gaps);
    }
    (valid == u16::MAX).then_some(Places { at: offsets, quads: quads == u16::MAX })
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn sixteen(bytes: &[u8], at: u32) -> __m128i {
    let mut out = [0u8; 16];
    out.copy_from_slice(&bytes[at as usize..][..16]);
    bytemuck::must_cast(out)
}

/// Sixteen bytes from each of four places.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn gather(bytes: &[u8], at: [u32; 4]) -> __m512i {
    let low = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(sixteen(bytes, at[0])), sixteen(bytes, at[1]));
    let out = _mm512_castsi256_si512(low);
    let out = _mm512_inserti32x4::<2>(out, sixteen(bytes, at[2]));
    _mm512_inserti32x4::<3>(out, sixteen(bytes, at[3]))
}

/// Word `i` of quad `q` of register `j` becomes word `j` of quad `q` of register `i`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn transposed(of: [__m512i; 4]) -> [__m512i; 4] {
    let low = [_mm512_unpacklo_epi32(of[0], of[1]), _mm512_unpacklo_epi32(of[2], of[3])];
    let high = [_mm512_unpackhi_epi32(of[0], of[1]), _mm512_unpackhi_epi32(of[2], of[3])];
    [
        _mm512_unpacklo_epi64(low[0], low[1]),
        _mm512_unpackhi_epi64(low[0], low[1]),
        _mm512_unpacklo_epi64(high[0], high[1]),
        _mm512_unpackhi_epi64(high[0], high[1]),
    ]
}

/// The value of all lanes, if it is one. Whole registers are compared: loads that straddle them would wait for the row
/// to reach the cache.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn uniform(row: &Lanes) -> Option<u32> {
    let [low, high]: Halves = bytemuck::must_cast(*row);
    let first = _mm512_set1_epi32(row[0] as i32);
    let differs = _mm512_cmpneq_epi32_mask(low, first) | _mm512_cmpneq_epi32_mask(high, first);
    (differs == 0).then_some(row[0])
}

/// Address and stride of a fragment, if they are the same for each lane and of 32 bits.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(crate) fn origin(regs: &Regs, op: &WmmaMove) -> Option<(u64, u32)> {
    if op.addr.base.class == Class::D {
        return None;
    }
    let stride = match op.stride {
        Some(row) => uniform(w(regs, row))?,
        None => 16,
    };
    Some((u64::from(uniform(w(regs, op.addr.base.row))?), stride))
}

/// Whether rows of words move, so that the functions below apply.
fn is_words(shared: &Shared, bytes: u32, addr: &Addr, slots: &[Slot]) -> bool {
    bytes == 4 && addr.space == Space::Shared && shared.is_plain() && slots.iter().all(|slot| slot.class == Class::W)
}

/// A load of words per lane; false, and nothing done, when it is for [`crate::exec::memory::access`] to do.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(crate) fn load(regs: &mut Regs, shared: &Shared, load: &Load, active: u32) -> bool {
    let dst = load.dst.as_slice();
    if load.order.strong || !is_words(shared, load.bytes, &load.addr, dst) {
        return false;
    }
    let Some(Places { at, quads }) = places(regs, shared, &load.addr, active, 4 * dst.len() as u32) else {
        return false;
    };
    let bytes = shared.bytes.as_slice();
    match dst {
        [slot] if quads => {
            let mut row = [_mm512_setzero_si512(); 2];
            for (i, row) in row.iter_mut().enumerate() {
                *row = gather(bytes, [at[16 * i], at[16 * i + 4], at[16 * i + 8], at[16 * i + 12]]);
            }
            regs.set_w(slot.row, &bytemuck::must_cast(row), active);
        }
        [slot] => {
            let mut row = [0; LANES];
            for l in 0..LANES {
                row[l] = word(bytes, at[l]);
            }
            regs.set_w(slot.row, &row, active);
        }
        [first, second] => {
            let mut pairs = [0u64; LANES];
            if quads {
                let mut groups = [[0u8; 32]; 8];
                for g in 0..8 {
                    groups[g].copy_from_slice(&bytes[at[4 * g] as usize..][..32]);
                }
                pairs = bytemuck::must_cast(groups);
            } else {
                for l in 0..LANES {
                    pairs[l] = u64::from(word(bytes, at[l])) | u64::from(word(bytes, at[l] + 4)) << 32;
                }
            }
            let pairs: [__m512i; 4] = bytemuck::must_cast(pairs);
            let even = bytemuck::must_cast(EVERY_SECOND[0]);
            let odd = bytemuck::must_cast(EVERY_SECOND[1]);
            let low = [
                _mm512_permutex2var_epi32(pairs[0], even, pairs[1]),
                _mm512_permutex2var_epi32(pairs[2], even, pairs[3]),
            ];
            let high = [
                _mm512_permutex2var_epi32(pairs[0], odd, pairs[1]),
                _mm512_permutex2var_epi32(pairs[2], odd, pairs[3]),
            ];
            regs.set_w(first.row, &bytemuck::must_cast(low), active);
            regs.set_w(second.row, &bytemuck::must_cast(high), active);
        }
        [a, b, c, e] => {
            let mut rows = [[_mm512_setzero_si512(); 2]; 4];
            for i in 0..2 {
                let mut quads = [_mm512_setzero_si512(); 4];
                for (j, quad) in quads.iter_mut().enumerate() {
                    let l = 16 * i + j;
                    *quad = gather(bytes, [at[l], at[l + 4], at[l + 8], at[l + 12]]);
                }
                for (row, words) in rows.iter_mut().zip(transposed(quads)) {
                    row[i] = words;
                }
            }
            regs.set_w(a.row, &bytemuck::must_cast(rows[0]), active);
            regs.set_w(b.row, &bytemuck::must_cast(rows[1]), active);
            regs.set_w(c.row, &bytemuck::must_cast(rows[2]), active);
            regs.set_w(e.row, &bytemuck::must_cast(rows[3]), active);
        }
        _ => return false,
    }
    true
}

/// Every second word of two registers: the even ones, and the odd ones.
const EVERY_SECOND: [[u32; 16]; 2] = {
    let mut index = [[0; 16]; 2];
    let mut i = 0;
    while i < 16 {
        index[0][i] = 2 * i as u32;
        index[1][i] = 2 * i as u32 + 1;
        i += 1;
    }
    index
};

#[inline(always)]
fn word(bytes: &[u8], at: u32) -> u32 {
    let mut out = [0; 4];
    out.copy_from_slice(&bytes[at as usize..][..4]);
    u32::from_le_bytes(out)
}

/// A store of words per lane, in the order of the lanes; false, and nothing done, when it is for [`crate::exec::memory::access`] to
/// do.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(crate) fn store(regs: &Regs, shared: &mut Shared, store: &Store, active: u32) -> bool {
    let src = store.src.as_slice();
    if store.order.strong || !is_words(shared, store.bytes, &store.addr, src) {
        return false;
    }
    let Some(Places { at, quads }) = places(regs, shared, &store.addr, active, 4 * src.len() as u32) else {
        return false;
    };
    let bytes = shared.bytes.as_mut_slice();
    match src {
        [slot] if quads && active == FULL => {
            let groups: [[u8; 16]; 8] = bytemuck::must_cast(*w(regs, slot.row));
            for (g, group) in groups.iter().enumerate() {
                bytes[at[4 * g] as usize..][..16].copy_from_slice(group);
            }
        }
        [a, b, c, e] if active == FULL => {
            let rows: [Halves; 4] = [
                bytemuck::must_cast(*w(regs, a.row)),
                bytemuck::must_cast(*w(regs, b.row)),
                bytemuck::must_cast(*w(regs, c.row)),
                bytemuck::must_cast(*w(regs, e.row)),
            ];
            for i in 0..2 {
                let lanes: [[[u8; 16]; 4]; 4] =
                    bytemuck::must_cast(transposed([rows[0][i], rows[1][i], rows[2][i], rows[3][i]]));
                for l in 0..16 {
                    bytes[at[16 * i + l] as usize..][..16].copy_from_slice(&lanes[l % 4][l / 4]);
                }
            }
        }
        _ => each_lane(active, |l| {
            for (i, slot) in src.iter().enumerate() {
                let value = w(regs, slot.row)[l];
                bytes[at[l] as usize + 4 * i..][..4].copy_from_slice(&value.to_le_bytes());
            }
        }),
    }
    true
}
