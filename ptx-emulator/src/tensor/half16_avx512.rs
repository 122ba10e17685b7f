//! [`super::half16`] for AVX-512: the same chain of fused multiply-adds in the order of k, with the sums in the
//! layout of the accumulator registers, so that no sum changes its place.
//!
//! Lane `4g + t` of an accumulator register needs, for each k, element (g, k) of the first factor and (k, 2t) or
//! (k, 2t + 1) of the second. The first is an in-lane broadcast of a widened register, the second a broadcast of four
//! neighbours in memory.

use std::arch::x86_64::*;

use super::half16::Operands;
use crate::machine::regs::{LANES, Regs, w};

/// A row of 32-bit register values.
type Lanes = [u32; LANES];
/// A row as two registers of the host.
type Halves = [__m512i; 2];

/// Sixteen f16 or bf16 values as f32.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn widen(halves: __m256i, brain: bool) -> __m512 {
    if brain {
        _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(halves)))
    } else {
        // Subnormals are exact and a NaN becomes quiet, as in `f16_to_f32`.
        _mm512_cvtph_ps(halves)
    }
}

/// Both halves of a register of the host.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn widen_both(halves: __m512i, brain: bool) -> [__m512; 2] {
    let (low, high) = (_mm512_castsi512_si256(halves), _mm512_extracti64x4_epi64::<1>(halves));
    [widen(low, brain), widen(high, brain)]
}

/// Index of a 16-bit half, by register of the first factor: low halves of all lanes, then high ones.
const BY_PARITY: [u16; 32] = {
    let mut index = [0; 32];
    let mut i = 0;
    while i < 32 {
        index[i] = (2 * (i % 16) + i / 16) as u16;
        i += 1;
    }
    index
};

/// A register of the first factor widened, by half of the lanes and parity of k.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn first_factor(row: &Lanes, brain: bool) -> [[__m512; 2]; 2] {
    let index = bytemuck::must_cast(BY_PARITY);
    let [low, high]: Halves = bytemuck::must_cast(*row);
    [widen_both(_mm512_permutexvar_epi16(index, low), brain), widen_both(_mm512_permutexvar_epi16(index, high), brain)]
}

/// Lanes that hold k of `2 * t` and `2 * t + 1`, then those of the next `t`: even columns and odd columns.
const fn columns_of(t: u32) -> [u32; 16] {
    let mut index = [0; 16];
    let mut i = 0;
    while i < 16 {
        let (quad, column) = (i as u32 / 4, i as u32 % 4);
        index[i] = 4 * (2 * column + quad % 2) + t + quad / 2;
        i += 1;
    }
    index
}

/// Bytes of a quad of words: low halves, then high ones.
const SPLIT: [[u8; 16]; 4] = [[0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15]; 4];

/// Four columns of one k, by parity of the columns and of k.
type Quads = [[[f32; 4]; 2]; 2];

/// Writes a register of the second factor widened, by pair of k. Not inline, so that it is broadcast from memory: the
/// unit that would do it from a register has the first factor and half of the sums to do.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw")]
fn second_factor(row: &Lanes, brain: bool, out: &mut [Quads; 4]) {
    let split = bytemuck::must_cast(SPLIT);
    let [low, high]: Halves = bytemuck::must_cast(*row);
    let words = _mm512_permutex2var_epi32(low, bytemuck::must_cast(columns_of(0)), high);
    let first = widen_both(_mm512_shuffle_epi8(words, split), brain);
    let words = _mm512_permutex2var_epi32(low, bytemuck::must_cast(columns_of(2)), high);
    let second = widen_both(_mm512_shuffle_epi8(words, split), brain);
    *out = bytemuck::must_cast([first, second]);
}

/// Sums by half of the columns, accumulator register and half of the lanes.
type Sums<const HALVES: usize> = [[[__m512; 2]; 4]; HALVES];

/// Adds the products of `k = 2 * T` and the next, of the eight k that `a` holds in two registers; `IMM` is `T` for each
/// lane of a group.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn add_pair<const T: usize, const IMM: i32, const HALVES: usize>(
    a: [&[[__m512; 2]; 2]; 2],
    b: &[[Quads; 4]; HALVES],
    sums: &mut Sums<HALVES>,
) {
    for odd in 0..2 {
        for below in 0..2 {
            for i in 0..2 {
                let x = _mm512_permute_ps::<IMM>(a[below][i][odd]);
                for half in 0..HALVES {
                    for column in 0..2 {
                        let y = _mm512_broadcast_f32x4(bytemuck::must_cast(b[half][T][column][odd]));
                        let sum = &mut sums[half][2 * below + column][i];
                        *sum = _mm512_fmadd_ps(x, y, *sum);
                    }
                }
            }
        }
    }
}

/// `c + a * b` for each half, NaN as f32 instructions produce it.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn multiply<const HALVES: usize>(regs: &Regs, operands: &Operands<HALVES>) -> [[Halves; 4]; HALVES] {
    let Operands { a, b, c, brain, .. } = operands;
    // Loops and not `map`: a closure would not be compiled for AVX-512.
    let mut sums: Sums<HALVES> = [[[_mm512_setzero_ps(); 2]; 4]; HALVES];
    for (sums, &at) in sums.as_flattened_mut().iter_mut().zip(c.as_flattened()) {
        *sums = bytemuck::must_cast(*w(regs, at));
    }
    for block in 0..2 {
        let above = first_factor(w(regs, a[2 * block]), *brain);
        let below = first_factor(w(regs, a[2 * block + 1]), *brain);
        let first = [&above, &below];
        let mut second: [[Quads; 4]; HALVES] = [[[[[0.0; 4]; 2]; 2]; 4]; HALVES];
        for (second, b) in second.iter_mut().zip(b) {
            second_factor(w(regs, b[block]), *brain, second);
        }
        add_pair::<0, 0b00_00_00_00, HALVES>(first, &second, &mut sums);
        add_pair::<1, 0b01_01_01_01, HALVES>(first, &second, &mut sums);
        add_pair::<2, 0b10_10_10_10, HALVES>(first, &second, &mut sums);
        add_pair::<3, 0b11_11_11_11, HALVES>(first, &second, &mut sums);
    }
    let nan = _mm512_set1_epi32(0x7fff_ffff);
    let mut out = [[[_mm512_setzero_si512(); 2]; 4]; HALVES];
    let all = out.as_flattened_mut().as_flattened_mut();
    for (out, &sum) in all.iter_mut().zip(sums.as_flattened().as_flattened()) {
        let undefined = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(sum, sum);
        *out = _mm512_mask_mov_epi32(_mm512_castps_si512(sum), undefined, nan);
    }
    out
}
