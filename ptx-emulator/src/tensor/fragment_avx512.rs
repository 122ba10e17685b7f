//! [`super::fragment`] for AVX-512: rows are put together in the registers of the host.

use std::arch::x86_64::*;

use super::fragment::{Form, blocks};
use crate::machine::regs::{FULL, LANES, Regs, w};

/// A row of 32-bit register values.
type Lanes = [u32; LANES];

/// Thirty-two bytes of memory.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn thirty_two(bytes: &[u8], at: usize) -> __m256i {
    let mut out = [0u8; 32];
    out.copy_from_slice(&bytes[at..at + 32]);
    bytemuck::must_cast(out)
}

/// Thirty-two bytes from each of two lines.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn two_lines(bytes: &[u8], at: usize, pitch: usize) -> __m512i {
    let low = _mm512_castsi256_si512(thirty_two(bytes, at));
    _mm512_inserti64x4::<1>(low, thirty_two(bytes, at + pitch))
}

/// The first sixteen bytes of four lines, and the second.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn four_lines(bytes: &[u8], at: usize, pitch: usize) -> [__m512i; 2] {
    let (low, high) = (two_lines(bytes, at, pitch), two_lines(bytes, at + 2 * pitch, pitch));
    [_mm512_shuffle_i64x2::<0b10_00_10_00>(low, high), _mm512_shuffle_i64x2::<0b11_01_11_01>(low, high)]
}

/// Halves of lines `2t` and `2t + 1` of eight lines of eight, for elements `g` from `first` on, as lane `4g + t`.
const fn pairs_of(first: u16) -> [u16; 32] {
    let mut index = [0; 32];
    let mut i = 0;
    while i < 32 {
        let (word, half) = (i as u16 / 2, i as u16 % 2);
        index[i] = 8 * (2 * (word % 4) + half) + first + word / 4;
        i += 1;
    }
    index
}

/// Every second word of two registers, from `first` on.
const fn every_second(first: u32) -> [u32; 16] {
    let mut index = [0; 16];
    let mut i = 0;
    while i < 16 {
        index[i] = 2 * i as u32 + first;
        i += 1;
    }
    index
}

/// Writes the registers of a fragment; see [`super::fragment::load`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(crate) fn load(regs: &mut Regs, to: &[u16], bytes: &[u8], pitch: usize, form: Form) {
    match form {
        Form::Words(lines_first) => {
            for line in 0..2 {
                let low = four_lines(bytes, 8 * line * pitch, pitch);
                let high = four_lines(bytes, (8 * line + 4) * pitch, pitch);
                for block in 0..2 {
                    set_copies(regs, to, register(line, block, lines_first), [low[block], high[block]]);
                }
            }
        }
        Form::Pairs(lines_first) => {
            let index: [__m512i; 2] = [bytemuck::must_cast(pairs_of(0)), bytemuck::must_cast(pairs_of(4))];
            for line in 0..2 {
                let low = four_lines(bytes, 8 * line * pitch, pitch);
                let high = four_lines(bytes, (8 * line + 4) * pitch, pitch);
                for block in 0..2 {
                    let row = [
                        _mm512_permutex2var_epi16(low[block], index[0], high[block]),
                        _mm512_permutex2var_epi16(low[block], index[1], high[block]),
                    ];
                    set_copies(regs, to, register(line, block, lines_first), row);
                }
            }
        }
        Form::Floats => {
            let index: [__m512i; 2] = [bytemuck::must_cast(every_second(0)), bytemuck::must_cast(every_second(1))];
            for pair in 0..4 {
                let at = 8 * (pair % 2) * pitch + 32 * (pair / 2);
                let lines = [
                    two_lines(bytes, at, pitch),
                    two_lines(bytes, at + 2 * pitch, pitch),
                    two_lines(bytes, at + 4 * pitch, pitch),
                    two_lines(bytes, at + 6 * pitch, pitch),
                ];
                for odd in 0..2 {
                    let row = [
                        _mm512_permutex2var_epi32(lines[0], index[odd], lines[1]),
                        _mm512_permutex2var_epi32(lines[2], index[odd], lines[3]),
                    ];
                    regs.set_w(to[2 * pair + odd], &bytemuck::must_cast(row), FULL);
                }
            }
        }
    }
}

/// Register of a line block and element block; the inverse of [`blocks`].
#[inline(always)]
fn register(line: usize, block: usize, lines_first: bool) -> usize {
    if lines_first { line + 2 * block } else { block + 2 * line }
}

/// Sets register `reg` and, of a factor, its copy four registers behind.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn set_copies(regs: &mut Regs, to: &[u16], reg: usize, row: [__m512i; 2]) {
    let row: Lanes = bytemuck::must_cast(row);
    regs.set_w(to[reg], &row, FULL);
    if let Some(&copy) = to.get(reg + 4) {
        regs.set_w(copy, &row, FULL);
    }
}

/// Writes a fragment to memory; see [`super::fragment::store`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(crate) fn store(regs: &Regs, from: &[u16], form: Form, pitch: usize, bytes: &mut [u8]) {
    match form {
        Form::Words(lines_first) => {
            for (reg, &row) in from.iter().take(4).enumerate() {
                let (line, block) = blocks(reg, lines_first);
                let quads: [[u8; 16]; 8] = bytemuck::must_cast(*w(regs, row));
                for (g, quad) in quads.iter().enumerate() {
                    bytes[(g + 8 * line) * pitch + 16 * block..][..16].copy_from_slice(quad);
                }
            }
        }
        Form::Pairs(lines_first) => {
            // The index of the inverse: element g of line k is half k % 2 of lane 4g + k / 2.
            let index: [__m512i; 2] = [bytemuck::must_cast(lines_of(0)), bytemuck::must_cast(lines_of(4))];
            for (reg, &row) in from.iter().take(4).enumerate() {
                let (line, block) = blocks(reg, lines_first);
                let [low, high]: [__m512i; 2] = bytemuck::must_cast(*w(regs, row));
                for (i, index) in index.into_iter().enumerate() {
                    let lines: [[u8; 16]; 4] = bytemuck::must_cast(_mm512_permutex2var_epi16(low, index, high));
                    for (k, quad) in lines.iter().enumerate() {
                        bytes[(k + 4 * i + 8 * line) * pitch + 16 * block..][..16].copy_from_slice(quad);
                    }
                }
            }
        }
        Form::Floats => {
            for pair in 0..4 {
                let at = 8 * (pair % 2) * pitch + 32 * (pair / 2);
                let even: [__m512i; 2] = bytemuck::must_cast(*w(regs, from[2 * pair]));
                let odd: [__m512i; 2] = bytemuck::must_cast(*w(regs, from[2 * pair + 1]));
                for i in 0..2 {
                    let low: [[u8; 16]; 4] = bytemuck::must_cast(_mm512_unpacklo_epi32(even[i], odd[i]));
                    let high: [[u8; 16]; 4] = bytemuck::must_cast(_mm512_unpackhi_epi32(even[i], odd[i]));
                    for g in 0..4 {
                        let line = &mut bytes[at + (g + 4 * i) * pitch..][..32];
                        line[..16].copy_from_slice(&low[g]);
                        line[16..].copy_from_slice(&high[g]);
                    }
                }
            }
        }
    }
}

/// Index of element `g` of lines `first` to `first + 3`, eight elements each; the inverse of [`pairs_of`].
const fn lines_of(first: u16) -> [u16; 32] {
    let mut index = [0; 32];
    let mut i = 0;
    while i < 32 {
        let (line, g) = (first + i as u16 / 8, i as u16 % 8);
        index[i] = 2 * (4 * g + line / 2) + line % 2;
        i += 1;
    }
    index
}
