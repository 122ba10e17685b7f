//! The Hopper family's operands as the CPU makes them: codes, scales and shared-memory images, byte for byte what its
//! quantiser must make. Written from the layout's description in `hopper/params.h` and `image.cuh`, not from the
//! quantiser's code.

use std::sync::Arc;

use half::f16;
use kbench::operator::attention::Sizes;
use rayon::prelude::*;
use sdpa_kernel::hopper::{self, Q_BLOCK_ROWS, ROTATED_CHANNELS, SCALE_TARGETS, SCALES_PER_HEAD, TILE_KEYS};

use super::e4m3;
use super::inputs::{Inputs, Tensor};
use crate::setup::NAN;

/// Bytes that the swizzles move together.
const CHUNK: usize = 16;

/// Q, K and V in the codes and scales of this family: a code is the rounded original times target / amax. Q and K are rotated
/// first, all rows alike, which leaves every product of two of them as it is; V has the mean of what rounding lost over the
/// keys of a column as its offset.
pub fn quantised(inputs: &Inputs, shape: &Sizes) -> Inputs {
    let head_dim = shape.head_dim as usize;
    let head = |seq: u32| seq as usize * head_dim;
    let [q, k, v] = SCALE_TARGETS;
    let rows = |tensor: &Tensor, seq: u32, target: f32| {
        let coded = rescaled(&rotated(&tensor.original), head(seq), target, ROTATION_NORM);
        Tensor { original: tensor.original.clone(), ..coded }
    };
    let values = rescaled(&inputs.v.original, head(shape.seq_kv), v, 1.0);
    let offsets = lost(&values, head_dim);
    Inputs { q: rows(&inputs.q, shape.seq_q, q), k: rows(&inputs.k, shape.seq_kv, k), v: Tensor { offsets, ..values } }
}

/// What values are multiplied by ahead of the rotation, against overflow.
const ROTATION_SCALE: f32 = 1.0 / 32.0;
/// What is left of that, and of the root of 64 by which Hadamard's matrix multiplies.
const ROTATION_NORM: f32 = 1.0 / (ROTATION_SCALE * 8.0);

/// Each 64 channels of a row times signs and Hadamard's matrix, in halves: additions in the order of the quantiser's, each
/// rounded.
fn rotated(original: &[f16]) -> Vec<f16> {
    let mut rotated = original.to_vec();
    rotated.par_chunks_mut(ROTATED_CHANNELS).with_min_len(64).for_each(|channels| {
        for (d, value) in channels.iter_mut().enumerate() {
            let factor = if hopper::is_negated(d) { -ROTATION_SCALE } else { ROTATION_SCALE };
            *value = f16::from_f32(value.to_f32() * factor);
        }
        for step in [1, 2, 4, 8, 16, 32] {
            for d in (0..ROTATED_CHANNELS).filter(|d| d & step == 0) {
                let (a, b) = (channels[d].to_f32(), channels[d + step].to_f32());
                (channels[d], channels[d + step]) = (f16::from_f32(a + b), f16::from_f32(a - b));
            }
        }
    });
    rotated
}

/// The mean over the keys of each column of what its codes lost, `[B * H][D]`: added up over the sixteen keys of a chunk in
/// f32, in the order in which they lie in the image, and over chunks in steps of 1/64 of a code's one.
fn lost(values: &Tensor, head_dim: usize) -> Vec<f32> {
    const STEPS: f32 = 64.0;
    let heads = values.scales.len();
    let size = values.original.len() / heads;
    let keys = size / head_dim;
    let of_head = |head: usize| {
        let scale = values.scales[head];
        let (originals, codes) = (&values.original[head * size..][..size], &values.codes[head * size..][..size]);
        let amax = e4m3::largest(originals);
        let factor = if amax > 0.0 { SCALE_TARGETS[2] / amax } else { 1.0 };
        (0..head_dim).map(move |d| {
            let of_chunk = |chunk: usize| {
                let of_position = |sum: f32, position: usize| match chunk * CHUNK + key_at(position) {
                    key if key < keys => {
                        let at = key * head_dim + d;
                        sum + originals[at].to_f32() * factor - e4m3::decode(codes[at])
                    }
                    _ => sum,
                };
                let sum = (0..CHUNK).fold(0f32, of_position);
                (sum * STEPS).round_ties_even() as i32
            };
            let sum: i32 = (0..keys.div_ceil(CHUNK)).map(of_chunk).sum();
            sum as f32 / (STEPS * keys as f32) * scale
        })
    };
    (0..heads).into_par_iter().flat_map_iter(of_head).collect()
}

/// The codes of halves, and scales that turn them back, times `norm`.
fn rescaled(original: &[f16], head_size: usize, target: f32, norm: f32) -> Tensor {
    let largest: Vec<f32> = original.par_chunks(head_size).map(e4m3::largest).collect();
    let encode = |(head, &amax): (&[f16], &f32)| {
        let factor = if amax > 0.0 { target / amax } else { 1.0 };
        // Plus zero: a zero has no sign.
        e4m3::encode_all(head, |x| x * factor + 0.0)
    };
    Tensor {
        original: original.to_vec(),
        codes: Arc::new(original.par_chunks(head_size).zip(&largest).flat_map_iter(encode).collect()),
        scales: largest.iter().map(|&amax| if amax > 0.0 { amax / target * norm } else { 1.0 }).collect(),
        offsets: Vec::new(),
    }
}

/// The images of Q, K and V, and the scales, as the device holds them. Words of the scales that are nobody's keep the poison
/// that lay there: who makes images writes what is theirs.
pub fn images(quantised: &Inputs, shape: &Sizes) -> [Vec<u8>; 4] {
    let head_dim = shape.head_dim as usize;
    let (seq_q, seq_kv) = (shape.seq_q as usize, shape.seq_kv as usize);
    let tensors = [&quantised.q, &quantised.k, &quantised.v];
    let words = SCALES_PER_HEAD + head_dim;
    let mut scales = vec![f32::from_bits(u32::from_le_bytes(NAN)); words * shape.batch_heads()];
    for (head, slot) in scales.chunks_exact_mut(words).enumerate() {
        for (scale, tensor) in slot.iter_mut().zip(tensors) {
            *scale = tensor.scales[head];
        }
        slot[SCALES_PER_HEAD..].copy_from_slice(&quantised.v.offsets[head * head_dim..][..head_dim]);
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

/// The key at a position.
fn key_at(position: usize) -> usize {
    (position >> 2) * 2 + (position & 1) + ((position >> 1) & 1) * 8
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
            assert_eq!(position_of_key(key_at(p)), p);
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
        assert_eq!((q.len(), k.len(), v.len(), scales.len()), (3 * 128 * 64, 3 * 128 * 64, 3 * 128 * 64, 3 * 4 * 68));
    }
}
