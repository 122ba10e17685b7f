//! The common product m16n8k16 with 16-bit factors and f32 sums, straight on register rows.
//!
//! One function from rows to rows, compiled for each instruction set, in the fast model; a
//! `wmma.mma` does both of its eight-column halves at once. The result is that of the general
//! path, which the tests compare it with.

#[cfg(target_arch = "x86_64")]
use super::half16_avx512;
use super::sum::M;
use crate::machine::regs::{LANES, Regs, w};
use crate::machine::simd::Level;
use crate::num::float::canon;
use crate::num::small::{bf16_to_f32, f16_to_f32};

/// A row of 32-bit register values.
type Lanes = [u32; LANES];
/// Depth of the product.
const K: usize = 16;
/// Rows summed side by side.
const ROWS: usize = 8;
/// Columns of a half in the order in which the accumulator registers of one row hold them: the
/// even ones in the first register, the odd ones in the second. Sums are kept in this order, so
/// that registers are moved in and out by four words at a time.
const ORDER: [usize; 8] = [0, 2, 4, 6, 1, 3, 5, 7];

/// One 16-bit value as f32.
#[inline(always)]
fn widen(bits: u32, brain: bool) -> f32 {
    f32::from_bits(if brain { bf16_to_f32(bits) } else { f16_to_f32(bits) })
}

/// Both halves of every lane.
#[inline(always)]
fn widen_row(row: &Lanes, brain: bool, out: &mut [[f32; LANES]; 2]) {
    for (l, &word) in row.iter().enumerate() {
        out[0][l] = widen(word & 0xffff, brain);
        out[1][l] = widen(word >> 16, brain);
    }
}

/// Second factor: even k, then odd k; the columns of each half stand in [`ORDER`].
#[inline(always)]
fn decode_b<const HALVES: usize, const COLUMNS: usize>(
    b: [[&Lanes; 2]; HALVES],
    brain: bool,
) -> [[[f32; COLUMNS]; K / 2]; 2] {
    let mut words = [[0u32; COLUMNS]; K / 2];
    for (half, rows) in b.into_iter().enumerate() {
        for (reg, row) in rows.into_iter().enumerate() {
            let columns = transposed(row);
            for (words, columns) in words[4 * reg..4 * reg + 4].iter_mut().zip(&columns) {
                words[8 * half..8 * half + 8].copy_from_slice(columns);
            }
        }
    }
    // One flat loop: nested ones are vectorised across rows, with gathers and scatters.
    let mut out = [[[0f32; COLUMNS]; K / 2]; 2];
    let [even, odd] = &mut out;
    let pairs = even.as_flattened_mut().iter_mut().zip(odd.as_flattened_mut());
    for ((even, odd), &word) in pairs.zip(words.as_flattened()) {
        *even = widen(word & 0xffff, brain);
        *odd = widen(word >> 16, brain);
    }
    out
}

/// The words of each of the four lanes of a group, by group in [`ORDER`].
#[inline(always)]
fn transposed(row: &Lanes) -> [[u32; 8]; 4] {
    let mut out = [[0; 8]; 4];
    for (t, out) in out.iter_mut().enumerate() {
        for (to, column) in out.iter_mut().zip(ORDER) {
            *to = row[4 * column + t];
        }
    }
    out
}

/// `c + a * b` for each half; `COLUMNS` is eight times `HALVES`.
#[inline(always)]
fn multiply<const HALVES: usize, const COLUMNS: usize>(
    a: [&Lanes; 4],
    b: [[&Lanes; 2]; HALVES],
    brain: bool,
    c: [[&Lanes; 4]; HALVES],
) -> [[Lanes; 4]; HALVES] {
    let mut wide = [[[0f32; LANES]; 2]; 4];
    for (wide, row) in wide.iter_mut().zip(a) {
        widen_row(row, brain, wide);
    }
    let factor = decode_b::<HALVES, COLUMNS>(b, brain);
    let mut out = [[[0u32; LANES]; 4]; HALVES];
    // Several rows at a time: their chains do not wait for one another.
    for m in (0..M).step_by(ROWS) {
        let (first, lane) = (2 * (m / 8), 4 * (m % 8));
        let mut sums = [[0f32; COLUMNS]; ROWS];
        for (r, sum) in sums.iter_mut().enumerate() {
            let mut start = [0u32; COLUMNS];
            for (start, c) in start.as_chunks_mut::<8>().0.iter_mut().zip(&c) {
                start[..4].copy_from_slice(&c[first][lane + 4 * r..][..4]);
                start[4..].copy_from_slice(&c[first + 1][lane + 4 * r..][..4]);
            }
            for (sum, start) in sum.iter_mut().zip(start) {
                *sum = f32::from_bits(start);
            }
        }
        for k in 0..K {
            let values = &factor[k % 2][k / 2];
            let group = &wide[m / 8 + 2 * (k / 8)][k % 2];
            for (r, sum) in sums.iter_mut().enumerate() {
                let x = group[lane + 4 * r + k % 8 / 2];
                for (sum, value) in sum.iter_mut().zip(values) {
                    *sum = x.mul_add(*value, *sum);
                }
            }
        }
        for (r, sum) in sums.iter().enumerate() {
            let mut end = [0u32; COLUMNS];
            for (end, sum) in end.iter_mut().zip(sum) {
                *end = canon(*sum);
            }
            for (out, end) in out.iter_mut().zip(end.as_chunks::<8>().0) {
                out[first][lane + 4 * r..][..4].copy_from_slice(&end[..4]);
                out[first + 1][lane + 4 * r..][..4].copy_from_slice(&end[4..]);
            }
        }
    }
    out
}

/// Registers of a product: `HALVES` results of 16x8 that share their first factor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Operands<const HALVES: usize> {
    pub(crate) a: [u16; 4],
    pub(crate) b: [[u16; 2]; HALVES],
    pub(crate) c: [[u16; 4]; HALVES],
    pub(crate) d: [[u16; 4]; HALVES],
    /// The factors are bf16, not f16.
    pub(crate) brain: bool,
}

/// Multiplies and writes the lanes of `active`. Every source is read before a result is written: registers may be both.
#[inline(always)]
fn multiply_rows<const HALVES: usize, const COLUMNS: usize>(regs: &mut Regs, operands: &Operands<HALVES>, active: u32) {
    let Operands { a, b, c, d, brain } = operands;
    let row = |at: u16| w(regs, at);
    let out = multiply::<HALVES, COLUMNS>(a.map(row), b.map(|b| b.map(row)), *brain, c.map(|c| c.map(row)));
    for (&at, sums) in d.as_flattened().iter().zip(out.as_flattened()) {
        regs.set_w(at, sums, active);
    }
}

#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn multiply_rows_avx512<const HALVES: usize>(regs: &mut Regs, operands: &Operands<HALVES>, active: u32) {
    let out = half16_avx512::multiply(regs, operands);
    for (&at, sums) in operands.d.as_flattened().iter().zip(out.as_flattened()) {
        regs.set_w(at, &bytemuck::must_cast(*sums), active);
    }
}

crate::machine::simd::dispatch! {
    /// The product of `mma.sync`.
    pub(crate) fn product(regs: &mut Regs, operands: &Operands<1>, active: u32) = multiply_rows::<1, 8>, avx512: multiply_rows_avx512;
}

crate::machine::simd::dispatch! {
    /// The product of `wmma.mma`, which shares its first factor between two halves.
    pub(crate) fn product_pair(regs: &mut Regs, operands: &Operands<2>, active: u32) = multiply_rows::<2, 16>, avx512: multiply_rows_avx512;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::regs::Row;
    use crate::tensor::sum::N;
    use crate::tensor::{layout, sum};

    /// Element `i` of register row `seed`: exponents around one, signs mixed, and for `special` also zeros,
    /// subnormals, infinities and NaN.
    fn half(seed: u32, i: u32, special: bool) -> u32 {
        const SPECIAL: [u32; 8] = [0x0000, 0x8000, 0x0001, 0x83ff, 0x7c00, 0xfc00, 0x7c01, 0xfe55];
        if special && (i + seed).is_multiple_of(29) {
            return SPECIAL[((i / 29 + seed) % 8) as usize];
        }
        0x3400 + (seed * 977 + i * 613) % 0x0c00 + ((i * seed) % 2) * 0x8000
    }

    fn row(seed: u32, special: bool) -> Lanes {
        std::array::from_fn(|l| half(seed, 2 * l as u32, special) | half(seed, 2 * l as u32 + 1, special) << 16)
    }

    /// The general path on one half.
    fn general(a: &[Lanes; 4], b: &[Lanes; 2], brain: bool, c: &[Lanes; 4]) -> [Lanes; 4] {
        let mut left = [[0.0; sum::K]; M];
        let mut right = [[0.0; N]; sum::K];
        let mut tile = [[0.0; N]; M];
        for lane in 0..LANES {
            for half in 0..2 {
                for (reg, row) in a.iter().enumerate() {
                    let (m, k) = layout::a16(lane, reg, half);
                    left[m][k] = widen(row[lane] >> (16 * half) & 0xffff, brain);
                }
                for (reg, row) in b.iter().enumerate() {
                    let (k, n) = layout::b16(lane, reg, half);
                    right[k][n] = widen(row[lane] >> (16 * half) & 0xffff, brain);
                }
            }
            for (reg, row) in c.iter().enumerate() {
                let (m, n) = layout::c32(lane, reg);
                tile[m][n] = f32::from_bits(row[lane]);
            }
        }
        sum::fast(Level::base(), &left, &right, 16, &mut tile);
        let mut out = [[0; LANES]; 4];
        for (reg, row) in out.iter_mut().enumerate() {
            for (lane, value) in row.iter_mut().enumerate() {
                let (m, n) = layout::c32(lane, reg);
                *value = canon(tile[m][n]);
            }
        }
        out
    }

    #[test]
    fn rows_to_rows_equals_the_general_path() {
        for (brain, special) in [(false, false), (true, false), (false, true), (true, true)] {
            let a = [1, 2, 3, 4].map(|s| row(s, special));
            let b = [[5, 6], [7, 8]].map(|h| h.map(|s| row(s, special)));
            let c = [[9u32, 10, 11, 12], [13, 14, 15, 16]]
                .map(|h| h.map(|s| std::array::from_fn(|l| (s as f32 - l as f32 * 0.25).to_bits())));
            let wanted = [0, 1].map(|h| general(&a, &b[h], brain, &c[h]));
            // Rows 0 to 3 are a, then b and c by half; the results overwrite c.
            let sources = a.iter().chain(b.as_flattened()).chain(c.as_flattened());
            let rows: Vec<Row> = sources.map(|row| Row(*row)).collect();
            let b_at = |h: u16| [4 + 2 * h, 5 + 2 * h];
            let c_at = |h: u16| [8 + 4 * h, 9 + 4 * h, 10 + 4 * h, 11 + 4 * h];
            let registers = || Regs::plain(rows.clone(), vec![]);
            let result = |regs: &Regs, h: usize| c_at(h as u16).map(|at| *w(regs, at));
            let (first, pairs) = ([0, 1, 2, 3], [c_at(0), c_at(1)]);
            for level in Level::all() {
                let mut regs = registers();
                let both = Operands { a: first, b: [b_at(0), b_at(1)], c: pairs, d: pairs, brain };
                product_pair(level, &mut regs, &both, u32::MAX);
                assert_eq!([0, 1].map(|h| result(&regs, h)), wanted);
                for h in [0, 1] {
                    let mut regs = registers();
                    let one = [c_at(h)];
                    product(level, &mut regs, &Operands { a: first, b: [b_at(h)], c: one, d: one, brain }, u32::MAX);
                    assert_eq!(result(&regs, h.into()), wanted[usize::from(h)]);
                }
            }
        }
    }
}
