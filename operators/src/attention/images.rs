//! The Hopper family's operands as the CPU makes them: codes, scales and shared-memory images, byte for byte what its
//! quantiser must make. Written from the layout's description in `hopper/params.h` and `image.cuh`, not from the
//! quantiser's code.

use std::sync::Arc;

use half::f16;
use kbench::operator::attention::Sizes;
use rayon::prelude::*;
use sdpa_kernel::hopper::{Q_BLOCK_ROWS, SCALE_TARGETS, SCALES_PER_HEAD, TILE_KEYS};

use super::e4m3;
use super::inputs::{Inputs, Tensor};
use crate::setup::NAN;

/// Bytes that the swizzles move together.
const CHUNK: usize = 16;

/// Q, K and V in the codes and scales of this family: a code is the rounded original times target / amax.
pub fn quantised(inputs: &Inputs, shape: &Sizes) -> Inputs {
    let head = |seq: u32| seq as usize * shape.head_dim as usize;
    let [q, k, v] = SCALE_TARGETS;
    Inputs {
        q: rescaled(&inputs.q.original, head(shape.seq_q), q),
        k: rescaled(&inputs.k.original, head(shape.seq_kv), k),
        v: rescaled(&inputs.v.original, head(shape.seq_kv), v),
    }
}

fn rescaled(original: &[f16], head_size: usize, target: f32) -> Tensor {
    let largest: Vec<f32> = original.par_chunks(head_size).map(e4m3::largest).collect();
    let encode = |(head, &amax): (&[f16], &f32)| {
        let factor = if amax > 0.0 { target / amax } else { 1.0 };
        e4m3::encode_all(head, |x| x * factor)
    };
    Tensor {
        original: original.to_vec(),
        codes: Arc::new(original.par_chunks(head_size).zip(&largest).flat_map_iter(encode).collect()),
        scales: largest.iter().map(|&amax| if amax > 0.0 { amax / target } else { 1.0 }).collect(),
    }
}

/// The images of Q, K and V, and the scales, as the device holds them. Words of the scales that are nobody's keep the poison
/// that lay there: who makes images writes what is theirs.
pub fn images(quantised: &Inputs, shape: &Sizes) -> [Vec<u8>; 4] {
    let head_dim = shape.head_dim as usize;
    let (seq_q, seq_kv) = (shape.seq_q as usize, shape.seq_kv as usize);
    let tensors = [&quantised.q, &quantised.k, &quantised.v];
    let mut scales = vec![f32::from_bits(u32::from_le_bytes(NAN)); SCALES_PER_HEAD * shape.batch_heads()];
    for (head, slot) in scales.chunks_exact_mut(SCALES_PER_HEAD).enumerate() {
        for (scale, tensor) in slot.iter_mut().zip(tensors) {
            *scale = tensor.scales[head];
        }
    }
    [
        by_head(tensors[0], seq_q * head_dim, |head| row_image(head, head_dim, Q_BLOCK_ROWS as usize)),
        by_head(tensors[1], seq_kv * head_dim, |head| row_image(head, head_dim, TILE_KEYS as usize)),
        by_head(tensors[2], seq_kv * head_dim, |head| value_image(head, head_dim)),
        scales.iter().flat_map(|s| s.to_le_bytes()).collect(),
    ]
}

fn by_head(tensor: &Tensor, head_size: usize, image: impl Fn(&[u8]) -> Vec<u8> + Send + Sync) -> Vec<u8> {
    tensor.codes.par_chunks(head_size).flat_map_iter(image).collect()
}

/// Rows of D bytes, their chunks swizzled; rows up to the next whole block are zero.
fn row_image(codes: &[u8], head_dim: usize, granule: usize) -> Vec<u8> {
    let rows = codes.len() / head_dim;
    let mut image = vec![0; rows.next_multiple_of(granule) * head_dim];
    for (row, values) in codes.chunks_exact(head_dim).enumerate() {
        for (chunk, bytes) in values.chunks_exact(CHUNK).enumerate() {
            let swizzled = if head_dim == 128 { chunk ^ (row & 7) } else { chunk ^ (row >> 1 & 3) };
            let at = row * head_dim + swizzled * CHUNK;
            image[at..at + CHUNK].copy_from_slice(bytes);
        }
    }
    image
}

/// Tiles of D rows of 128 keys: transposed, with keys permuted within sixteen and d within 32.
fn value_image(codes: &[u8], head_dim: usize) -> Vec<u8> {
    let tile_keys = TILE_KEYS as usize;
    let keys = codes.len() / head_dim;
    let mut image = vec![0; keys.next_multiple_of(tile_keys) * head_dim];
    for (key, values) in codes.chunks_exact(head_dim).enumerate() {
        let (tile, chunk) = (key / tile_keys, key % tile_keys / CHUNK);
        for (d, &code) in values.iter().enumerate() {
            let row = row_of_d(d);
            let place = (chunk ^ (row & 7)) * CHUNK + position_of_key(key % CHUNK);
            image[tile * tile_keys * head_dim + row * tile_keys + place] = code;
        }
    }
    image
}

/// Position p of sixteen holds key `(p >> 2) * 2 + (p & 1) + ((p >> 1) & 1) * 8`; this is the way back.
fn position_of_key(key: usize) -> usize {
    (key >> 1 & 3) * 4 + (key >> 3) * 2 + (key & 1)
}

/// Of each 32 rows, row 8j + 2t + e holds d = 8t + 2j + e; this is the way back.
fn row_of_d(d: usize) -> usize {
    (d & !31) + (d >> 1 & 3) * 8 + (d >> 3 & 3) * 2 + (d & 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kbench::operator::{Distribution, Problem};

    #[test]
    fn permutations_are_those_of_the_header() {
        for p in 0..16 {
            assert_eq!(position_of_key((p >> 2) * 2 + (p & 1) + ((p >> 1) & 1) * 8), p);
        }
        for (block, j, t, e) in (0..256).map(|i| (i / 64, i / 16 % 4, i / 4 % 4, i % 2)) {
            assert_eq!(row_of_d(32 * block + 8 * t + 2 * j + e), 32 * block + 8 * j + 2 * t + e);
        }
    }

    #[test]
    fn an_image_holds_every_code_once_and_zeros_beyond_the_sequence() {
        for head_dim in [64, 128] {
            // One nonzero row at a time: where its bytes land, and that nothing else does.
            for key in [0, 1, 15, 16, 76] {
                let mut codes = vec![0u8; 77 * head_dim];
                codes[key * head_dim..(key + 1) * head_dim].iter_mut().enumerate().for_each(|(d, c)| *c = d as u8 + 1);
                for image in [row_image(&codes, head_dim, 128), value_image(&codes, head_dim)] {
                    assert_eq!(image.len(), 128 * head_dim);
                    let mut found: Vec<u8> = image.into_iter().filter(|c| *c != 0).collect();
                    found.sort_unstable();
                    assert_eq!(found, (1..=head_dim as u8).collect::<Vec<_>>());
                }
            }
        }
        // Row 2 of D=64 swaps neighbouring chunks; key 9 of V lies in byte 3 of its chunk.
        let codes: Vec<u8> = (0..4 * 64).map(|i| (i / 16) as u8).collect();
        assert_eq!(
            row_image(&codes, 64, 64)[2 * 64..3 * 64].iter().step_by(16).copied().collect::<Vec<_>>(),
            [9, 8, 11, 10]
        );
        let mut codes = vec![0u8; 16 * 64];
        codes[9 * 64] = 7;
        assert_eq!(value_image(&codes, 64)[3], 7);
    }

    #[test]
    fn scales_fill_their_targets_and_zeros_have_scale_one() {
        let problem = |distribution| Problem { shape: "ragged".parse().unwrap(), seed: 0, distribution };
        let normal = problem(Distribution::Normal);
        let inputs = quantised(&Inputs::of(&normal), &Sizes::of(&normal.shape));
        for (tensor, top) in [(&inputs.q, 0x58), (&inputs.k, 0x58), (&inputs.v, 0x78)] {
            assert_eq!(tensor.codes.iter().map(|c| c & 0x7f).max(), Some(top));
        }
        let zeros = problem(Distribution::Zeros);
        assert_eq!(quantised(&Inputs::of(&zeros), &Sizes::of(&zeros.shape)).q.scales, [1.0; 3]);
        let [q, k, v, scales] = images(&inputs, &Sizes::of(&normal.shape));
        assert_eq!((q.len(), k.len(), v.len(), scales.len()), (3 * 128 * 64, 3 * 128 * 64, 3 * 128 * 64, 3 * 16));
    }
}
