//! The common product m16n8k16 with 16-bit factors and f32 sums, straight on register rows.
//!
//! One function from rows to rows, compiled for each instruction set, in the fast model. The
//! result is that of the general path, which the tests compare it with.

use super::sum::{M, N};
use crate::exec::regs::LANES;
use crate::exec::simd::Level;
use crate::num::float::canon;
use crate::num::small::{bf16_to_f32, f16_to_f32};

/// A row of 32-bit register values.
type Lanes = [u32; LANES];
/// First factor, row by row.
pub(crate) type Rows16 = [[f32; 16]; M];

/// Both halves of each lane as f32.
#[inline(always)]
fn widen(row: &Lanes, brain: bool) -> ([f32; LANES], [f32; LANES]) {
    let (mut low, mut high) = ([0.0; LANES], [0.0; LANES]);
    for (l, &word) in row.iter().enumerate() {
        let (a, b) = (word & 0xffff, word >> 16);
        let (a, b) = if brain { (bf16_to_f32(a), bf16_to_f32(b)) } else { (f16_to_f32(a), f16_to_f32(b)) };
        low[l] = f32::from_bits(a);
        high[l] = f32::from_bits(b);
    }
    (low, high)
}

#[inline(always)]
fn decode_rows(a: [&Lanes; 4], brain: bool, out: &mut Rows16) {
    for (reg, row) in a.into_iter().enumerate() {
        let (low, high) = widen(row, brain);
        for g in 0..8 {
            let line = &mut out[g + 8 * (reg & 1)];
            for t in 0..4 {
                line[8 * (reg >> 1) + 2 * t] = low[4 * g + t];
                line[8 * (reg >> 1) + 2 * t + 1] = high[4 * g + t];
            }
        }
    }
}

/// `c + a * b`: accumulator register `r` of lane `l` is element `2 l + (r & 1)` of the upper or
/// lower eight rows.
#[inline(always)]
fn multiply(a: &Rows16, b: [&Lanes; 2], brain: bool, c: [&Lanes; 4]) -> [Lanes; 4] {
    let mut factor = [[0f32; N]; 16];
    for (reg, row) in b.into_iter().enumerate() {
        let (low, high) = widen(row, brain);
        for t in 0..4 {
            for g in 0..8 {
                factor[8 * reg + 2 * t][g] = low[4 * g + t];
                factor[8 * reg + 2 * t + 1][g] = high[4 * g + t];
            }
        }
    }
    let mut tile = [[0f32; N]; M];
    for (m, line) in tile.iter_mut().enumerate() {
        for (n, value) in line.iter_mut().enumerate() {
            *value = f32::from_bits(c[2 * (m / 8) + n % 2][4 * (m % 8) + n / 2]);
        }
    }
    for (line, row) in tile.iter_mut().zip(a) {
        let mut sum = *line;
        for (x, values) in row.iter().zip(&factor) {
            for n in 0..N {
                sum[n] = x.mul_add(values[n], sum[n]);
            }
        }
        *line = sum;
    }
    let mut out = [[0u32; LANES]; 4];
    for (m, line) in tile.iter().enumerate() {
        for (n, &value) in line.iter().enumerate() {
            out[2 * (m / 8) + n % 2][4 * (m % 8) + n / 2] = canon(value);
        }
    }
    out
}

crate::exec::simd::dispatch! {
    /// First factor of the product.
    pub(crate) fn decode(a: [&Lanes; 4], brain: bool, out: &mut Rows16) = decode_rows;
}

crate::exec::simd::dispatch! {
    /// The product, from rows to rows.
    pub(crate) fn product(a: &Rows16, b: [&Lanes; 2], brain: bool, c: [&Lanes; 4]) -> [Lanes; 4] = multiply;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::{layout, sum};

    #[test]
    fn rows_to_rows_equals_the_general_path() {
        let row = |seed: u32| -> Lanes {
            std::array::from_fn(|l| {
                let half = |i: u32| 0x3400 + (seed * 977 + i * 613) % 0x0c00 + ((i * seed) % 2) * 0x8000;
                half(2 * l as u32) | half(2 * l as u32 + 1) << 16
            })
        };
        let (a, b) = ([1, 2, 3, 4].map(row), [5, 6].map(row));
        let c: [Lanes; 4] = [7u32, 8, 9, 10].map(|s| std::array::from_fn(|l| (s as f32 - l as f32 * 0.25).to_bits()));
        for brain in [false, true] {
            let widen = |h: u32| f32::from_bits(if brain { bf16_to_f32(h) } else { f16_to_f32(h) });
            let mut left = [[0.0; sum::K]; M];
            let mut right = [[0.0; N]; sum::K];
            let mut tile = [[0.0; N]; M];
            for lane in 0..LANES {
                for half in 0..2 {
                    for (reg, row) in a.iter().enumerate() {
                        let (m, k) = layout::a16(lane, reg, half);
                        left[m][k] = widen(row[lane] >> (16 * half) & 0xffff);
                    }
                    for (reg, row) in b.iter().enumerate() {
                        let (k, n) = layout::b16(lane, reg, half);
                        right[k][n] = widen(row[lane] >> (16 * half) & 0xffff);
                    }
                }
                for (reg, row) in c.iter().enumerate() {
                    let (m, n) = layout::c32(lane, reg);
                    tile[m][n] = f32::from_bits(row[lane]);
                }
            }
            for level in [Level::base(), Level::detect()] {
                let mut general = tile;
                sum::fast(level, &left, &right, 16, &mut general);
                let mut rows = [[0.0; 16]; M];
                decode(level, a.each_ref(), brain, &mut rows);
                let out = product(level, &rows, b.each_ref(), brain, c.each_ref());
                for (reg, row) in out.iter().enumerate() {
                    for (lane, &value) in row.iter().enumerate() {
                        let (m, n) = layout::c32(lane, reg);
                        assert_eq!(value, general[m][n].to_bits());
                    }
                }
            }
        }
    }
}
