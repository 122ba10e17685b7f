//! Operands of a warpgroup's product in shared memory, and the product of one warp's rows.
//!
//! A factor is rows along m or n, each of 32 bytes along k, whatever the element. The layouts are those of the matrix
//! descriptor: chunks of 16 bytes, whose address is permuted by its own higher bits where a swizzle is asked for.

use std::sync::LazyLock;

use crate::machine::simd::Level;
use crate::num::small::{self, bf16_to_f32, f16_to_f32};
use crate::tensor::sum::{self, Aligned, FactorA, FactorB, K, M, N, Tile};

/// Bytes along k of one row of a factor.
pub(crate) const ROW_BYTES: usize = 32;
/// Bytes of a chunk, which no layout takes apart.
pub(crate) const CHUNK: u32 = 16;

/// One row of a factor, k innermost.
pub(crate) type FactorRow = [u8; ROW_BYTES];

/// What a matrix descriptor says, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Descriptor {
    start: u32,
    leading: u32,
    stride: u32,
    /// Bytes over which chunks are permuted: 16 for none, 32, 64 or 128.
    span: u32,
    /// Offset of the pattern, which is 0 for matrices that start where it repeats.
    pub(crate) base_offset: u32,
}

impl Descriptor {
    pub(crate) fn of(word: u64) -> Descriptor {
        let field = |at: u32| ((word >> at) as u32 & 0x3fff) << 4;
        let span = match word >> 62 {
            0 => 16,
            1 => 128,
            2 => 64,
            _ => 32,
        };
        let base_offset = (word >> 49) as u32 & 7;
        Descriptor { start: field(0), leading: field(16), stride: field(32), span, base_offset }
    }

    fn swizzled(&self, at: u32) -> u32 {
        at ^ (at >> 7 & (self.span / CHUNK - 1)) << 4
    }

    /// Where chunk `chunk` of row `row` lies, of a matrix with k innermost.
    pub(crate) fn along_k(&self, row: u32, chunk: u32) -> u32 {
        let group = self.start + row / 8 * self.stride;
        match self.span {
            CHUNK => group + row % 8 * CHUNK + chunk * self.leading,
            span => self.swizzled(group + row % 8 * span + chunk * CHUNK),
        }
    }

    /// Where the eight elements from row `8 * chunk` on lie at depth `k`, of a matrix with m or n innermost.
    pub(crate) fn along_rows(&self, k: u32, chunk: u32) -> u32 {
        let chunks = self.span / CHUNK;
        match self.span {
            CHUNK => self.start + chunk * self.stride + k / 8 * self.leading + k % 8 * CHUNK,
            span => {
                let group = self.start + chunk / chunks * self.leading + k / 8 * self.stride;
                self.swizzled(group + k % 8 * span + chunk % chunks * CHUNK)
            }
        }
    }
}

/// How the elements of a factor are encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    F16,
    Bf16,
    Tf32,
    E4m3,
    E5m2,
}

/// The value of every code of an 8-bit float.
fn table(format: small::Format) -> [f32; 256] {
    std::array::from_fn(|code| small::widen(code as u32, format) as f32)
}

static E4M3: LazyLock<[f32; 256]> = LazyLock::new(|| table(small::E4M3));
static E5M2: LazyLock<[f32; 256]> = LazyLock::new(|| table(small::E5M2));

/// The values of a row.
pub(crate) fn decode(row: &FactorRow, encoding: Encoding, negated: bool) -> [f32; K] {
    let mut out = [0.0; K];
    let half = |bytes: &[u8; 2]| u32::from(u16::from_le_bytes(*bytes));
    match encoding {
        Encoding::E4m3 | Encoding::E5m2 => {
            let table = if encoding == Encoding::E4m3 { &*E4M3 } else { &*E5M2 };
            out.iter_mut().zip(row).for_each(|(out, code)| *out = table[usize::from(*code)]);
        }
        Encoding::F16 => {
            let halves = row.as_chunks::<2>().0;
            out.iter_mut().zip(halves).for_each(|(out, bytes)| *out = f32::from_bits(f16_to_f32(half(bytes))));
        }
        Encoding::Bf16 => {
            let halves = row.as_chunks::<2>().0;
            out.iter_mut().zip(halves).for_each(|(out, bytes)| *out = f32::from_bits(bf16_to_f32(half(bytes))));
        }
        Encoding::Tf32 => {
            let words = row.as_chunks::<4>().0;
            // The lowest 13 bits are not read.
            let value = |bytes: &[u8; 4]| f32::from_bits(u32::from_le_bytes(*bytes) & !0x1fff);
            out.iter_mut().zip(words).for_each(|(out, bytes)| *out = value(bytes));
        }
    }
    if negated {
        out.iter_mut().for_each(|value| *value = -*value);
    }
    out
}

/// Adds the product of 16 rows and as many columns as `b` has rows to `tiles`, eight columns each.
pub(crate) fn product(level: Level, a: &FactorA, b: &[[f32; K]], k: usize, tiles: &mut [Tile], model: Option<Aligned>) {
    for (columns, tile) in b.chunks_exact(N).zip(tiles) {
        let mut factor: FactorB = [[0.0; N]; K];
        for (n, column) in columns.iter().enumerate() {
            factor.iter_mut().zip(column).take(k).for_each(|(line, value)| line[n] = *value);
        }
        match model {
            Some(model) => sum::exact(level, a, &factor, k, tile, model),
            None => sum::fast(level, a, &factor, k, tile),
        }
    }
}

/// The product of bytes as integers, added to `tiles`; clamped if `saturates`, otherwise wrapping.
pub(crate) fn integer_product(
    a: &[FactorRow; M],
    b: &[FactorRow],
    (a_signed, b_signed): (bool, bool),
    tiles: &mut [[[u32; N]; M]],
    saturates: bool,
) {
    let value = |byte: u8, signed: bool| if signed { i64::from(byte as i8) } else { i64::from(byte) };
    for (columns, tile) in b.chunks_exact(N).zip(tiles) {
        for (row, out) in a.iter().zip(tile.iter_mut()) {
            for (column, out) in columns.iter().zip(out.iter_mut()) {
                let product = row.iter().zip(column).map(|(x, y)| value(*x, a_signed) * value(*y, b_signed));
                let sum = i64::from(*out as i32) + product.sum::<i64>();
                let clamped = sum.clamp(i64::from(i32::MIN), i64::from(i32::MAX));
                *out = if saturates { clamped as u32 } else { sum as u32 };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(start: u64, leading: u64, stride: u64, mode: u64) -> Descriptor {
        Descriptor::of(start >> 4 | leading >> 4 << 16 | stride >> 4 << 32 | mode << 62)
    }

    #[test]
    fn rows_of_a_swizzled_matrix_permute_their_chunks() {
        // 128-byte rows: chunk c of row r is stored at c ^ (r mod 8); 64-byte rows: c ^ (r / 2 mod 4).
        let wide = descriptor(4096, 16, 1024, 1);
        let narrow = descriptor(4096, 16, 512, 2);
        for row in 0..64 {
            for chunk in 0..2 {
                assert_eq!(wide.along_k(row, chunk), 4096 + row * 128 + (chunk ^ (row & 7)) * 16);
                assert_eq!(narrow.along_k(row, chunk), 4096 + row * 64 + (chunk ^ ((row / 2) & 3)) * 16);
            }
        }
        // A step of 32 bytes along k is one of the start.
        let next = descriptor(4096 + 32, 16, 1024, 1);
        assert_eq!(next.along_k(5, 1), 4096 + 5 * 128 + (3 ^ 5) * 16);
    }

    #[test]
    fn no_two_elements_of_a_matrix_share_a_place() {
        for (mode, span) in [(0u64, 16u32), (1, 128), (2, 64), (3, 32)] {
            // m or n innermost, 128 rows, 16 deep: spans of `span / 2` rows side by side, groups of eight k below.
            let groups = 256 / span;
            let (leading, stride) = match mode {
                0 => (128 * 16, 128),
                _ => (8 * span, groups * 8 * span),
            };
            let matrix = descriptor(1024, u64::from(leading), u64::from(stride), mode);
            let mut seen = std::collections::BTreeSet::new();
            for k in 0..16 {
                for chunk in 0..16 {
                    let at = matrix.along_rows(k, chunk);
                    assert!((1024..1024 + 128 * 32).contains(&at) && seen.insert(at), "{mode} {k} {chunk}: {at}");
                }
            }
        }
    }
}
