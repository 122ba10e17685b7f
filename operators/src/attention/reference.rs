//! Attention in float64: the truth that every output is compared with. Plain two-pass softmax, parallel over rows of
//! heads; nothing here is shared with a kernel, not even the order of summation.

use kbench::operator::attention::Sizes;
use rayon::prelude::*;

/// Rows of one parallel task.
const ROWS: usize = 32;

/// The values of an operand's head, `[S][D]`. All heads of a large problem at once would be gigabytes.
pub type Head<'a> = &'a (dyn Fn(usize) -> Vec<f64> + Sync);

/// softmax(scale * Q K^T + mask) V in float64, `[B*H][S_q][D]`. A row that sees no key is zero; so is a row that is not
/// `wanted`, one flag per head and row.
pub fn attention(shape: &Sizes, [q, k, v]: [Head; 3], wanted: &[bool]) -> Vec<f64> {
    let (d, seq_q, seq_kv) = (shape.head_dim as usize, shape.seq_q as usize, shape.seq_kv as usize);
    let mut out = vec![0.0; shape.q_len()];
    out.par_chunks_mut(seq_q * d).enumerate().for_each(|(head, out)| {
        let wanted = &wanted[head * seq_q..][..seq_q];
        if !wanted.contains(&true) {
            return;
        }
        let (queries, keys, values) = (q(head), transpose(&k(head), seq_kv, d), v(head));
        out.par_chunks_mut(ROWS * d).enumerate().for_each(|(block, rows)| {
            let mut scores = vec![0.0; seq_kv];
            for (i, out) in rows.chunks_exact_mut(d).enumerate() {
                let row = block * ROWS + i;
                if !wanted[row] {
                    continue;
                }
                let visible = shape.visible_keys(row);
                let query = &queries[row * d..][..d];
                attend(query, &keys, &values, seq_kv, f64::from(shape.softmax_scale()), &mut scores[..visible], out);
            }
        });
    });
    out
}

/// `[rows][columns]` to `[columns][rows]`, so that the loop over keys is contiguous.
fn transpose(source: &[f64], rows: usize, columns: usize) -> Vec<f64> {
    let mut target = vec![0.0; source.len()];
    for (row, values) in source.chunks_exact(columns).enumerate() {
        for (column, value) in values.iter().enumerate() {
            target[column * rows + row] = *value;
        }
    }
    target
}

/// One row of the output; `scores` has one slot per visible key.
fn attend(query: &[f64], keys: &[f64], values: &[f64], seq_kv: usize, scale: f64, scores: &mut [f64], out: &mut [f64]) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        // SAFETY: both features were just detected on this processor.
        return unsafe { attend_avx2(query, keys, values, seq_kv, scale, scores, out) };
    }
    attend_generic(query, keys, values, seq_kv, scale, scores, out);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn attend_avx2(
    query: &[f64],
    keys: &[f64],
    values: &[f64],
    seq_kv: usize,
    scale: f64,
    scores: &mut [f64],
    out: &mut [f64],
) {
    attend_generic(query, keys, values, seq_kv, scale, scores, out);
}

#[inline(always)]
fn attend_generic(
    query: &[f64],
    keys: &[f64],
    values: &[f64],
    seq_kv: usize,
    scale: f64,
    scores: &mut [f64],
    out: &mut [f64],
) {
    scores.fill(0.0);
    for (q, key_column) in query.iter().zip(keys.chunks_exact(seq_kv)) {
        for (score, key) in scores.iter_mut().zip(key_column) {
            *score += q * key;
        }
    }
    let max = scores.iter().fold(f64::NEG_INFINITY, |m, s| m.max(s * scale));
    let mut sum = 0.0;
    for score in scores.iter_mut() {
        *score = (*score * scale - max).exp();
        sum += *score;
    }
    out.fill(0.0);
    for (p, value) in scores.iter().zip(values.chunks_exact(out.len())) {
        for (o, v) in out.iter_mut().zip(value) {
            *o += p * v;
        }
    }
    if sum > 0.0 {
        out.iter_mut().for_each(|o| *o /= sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(seq_q: u32, seq_kv: u32, causal: bool) -> Sizes {
        Sizes { batch: 1, heads: 2, seq_q, seq_kv, head_dim: 64, causal, scale_millionths: None }
    }

    /// Of whole operands.
    fn attention(shape: &Sizes, q: &[f64], k: &[f64], v: &[f64], wanted: &[bool]) -> Vec<f64> {
        let head = |values: &[f64], head: usize| values.chunks_exact(values.len() / 2).nth(head).unwrap().to_vec();
        super::attention(shape, [&|at| head(q, at), &|at| head(k, at), &|at| head(v, at)], wanted)
    }

    fn all(shape: &Sizes) -> Vec<bool> {
        vec![true; shape.batch_heads() * shape.seq_q as usize]
    }

    #[test]
    fn only_wanted_rows_are_computed() {
        let shape = shape(5, 7, false);
        let (q, k, v) = (ramp(shape.q_len(), 0.3), ramp(shape.kv_len(), 0.2), ramp(shape.kv_len(), 0.7));
        let whole = attention(&shape, &q, &k, &v, &all(&shape));
        let mut wanted = vec![false; 10];
        wanted[7] = true;
        let part = attention(&shape, &q, &k, &v, &wanted);
        assert_eq!(part[7 * 64..8 * 64], whole[7 * 64..8 * 64]);
        assert!(part[..7 * 64].iter().chain(&part[8 * 64..]).all(|o| *o == 0.0));
    }

    fn ramp(len: usize, step: f64) -> Vec<f64> {
        (0..len).map(|i| ((i as f64 * step).sin() * 3.0).rem_euclid(2.0) - 1.0).collect()
    }

    #[test]
    fn equal_keys_average_the_values() {
        let shape = shape(5, 7, false);
        let (q, k, v) = (ramp(shape.q_len(), 0.3), vec![0.25; shape.kv_len()], ramp(shape.kv_len(), 0.7));
        let out = attention(&shape, &q, &k, &v, &all(&shape));
        let mean = (0..7).map(|key| v[key * 64 + 3]).sum::<f64>() / 7.0;
        assert!((out[2 * 64 + 3] - mean).abs() < 1e-14);
    }

    #[test]
    fn a_constant_value_survives_any_weights() {
        let shape = shape(9, 33, true);
        let out = attention(
            &shape,
            &ramp(shape.q_len(), 0.1),
            &ramp(shape.kv_len(), 0.2),
            &vec![1.5; shape.kv_len()],
            &all(&shape),
        );
        assert!(out.iter().all(|o| (o - 1.5).abs() < 1e-14));
    }

    #[test]
    fn causal_rows_see_their_prefix_and_rows_without_keys_are_zero() {
        let (q, k) = (ramp(2 * 4 * 64, 0.1), ramp(2 * 4 * 64, 0.2));
        let square = shape(4, 4, true);
        let v = ramp(square.kv_len(), 0.4);
        let out = attention(&square, &q, &k, &v, &all(&square));
        assert!((0..64).all(|d| (out[d] - v[d]).abs() < 1e-15), "row 0 sees key 0 alone");
        let short = shape(4, 2, true);
        let out = attention(&short, &q, &k[..short.kv_len()], &v[..short.kv_len()], &all(&short));
        assert!(out[..2 * 64].iter().all(|o| *o == 0.0), "rows 0 and 1 see nothing");
        assert!(out[2 * 64..4 * 64].iter().all(|o| *o != 0.0));
    }

    #[test]
    fn huge_logits_neither_overflow_nor_lose_the_maximum() {
        let shape = shape(1, 3, false);
        let mut k = vec![0.0; shape.kv_len()];
        k[64..128].fill(1e6);
        let v = ramp(shape.kv_len(), 0.9);
        let out = attention(&shape, &vec![1.0; shape.q_len()], &k, &v, &all(&shape));
        assert!((0..64).all(|d| (out[d] - v[64 + d]).abs() < 1e-12));
    }
}
