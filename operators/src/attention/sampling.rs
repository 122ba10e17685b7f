//! Which rows of an output are compared with float64 where the reference of all of them would take too long.
//! Leaves to others: the seed that they are drawn by, comparing.

use std::collections::BTreeSet;

use kbench::operator::Problem;
use kbench::operator::attention::Sizes;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use sha2::{Digest, Sha256};

/// Query rows of the smallest tile: one is drawn of each, so that of larger tiles several are.
const TILE: u32 = 32;

/// How many rows an output has, over all heads.
pub fn row_count(shape: &Sizes) -> usize {
    shape.batch_heads() * shape.seq_q as usize
}

/// One flag per head and row: whether it is of the sample.
pub fn only(shape: &Sizes, sample: &[[u32; 2]]) -> Vec<bool> {
    let mut flags = vec![false; row_count(shape)];
    for [head, row] in sample {
        flags[*head as usize * shape.seq_q as usize + *row as usize] = true;
    }
    flags
}

/// The rows of a problem that are compared, as head and row: the last of every head and the first of one; of some heads, a
/// row of every tile; what is left of `rows`, anywhere. Heads and rows are drawn by `seed`. At least one head has all its
/// tiles, so a sample may be larger than what was asked for.
pub fn sampled_rows(problem: &Problem, rows: u32, seed: u64) -> Vec<[u32; 2]> {
    let shape = &Sizes::of(&problem.shape);
    let heads = shape.batch_heads() as u32;
    let name = format!("sdpa-sample/2 {seed} {}", problem.id());
    let mut stream = ChaCha8Rng::from_seed(Sha256::digest(name.as_bytes()).into());
    // The high word of a product: every number as likely as the others, to one part in 2^32.
    let mut below = |limit: u32| ((u64::from(stream.next_u32()) * u64::from(limit)) >> 32) as u32;
    let mut sample: BTreeSet<[u32; 2]> = (0..heads).map(|head| [head, shape.seq_q - 1]).collect();
    sample.insert([below(heads), 0]);
    let tiles = shape.seq_q.div_ceil(TILE);
    let mut order: Vec<u32> = (0..heads).collect();
    for i in (1..order.len()).rev() {
        order.swap(i, below(i as u32 + 1) as usize);
    }
    let whole = (rows.saturating_sub(heads) / tiles).clamp(1, heads);
    for head in &order[..whole as usize] {
        for first in (0..tiles).map(|tile| tile * TILE) {
            sample.insert([*head, first + below(TILE.min(shape.seq_q - first))]);
        }
    }
    let wanted = (rows as usize).min(row_count(shape));
    while sample.len() < wanted {
        sample.insert([below(heads), below(shape.seq_q)]);
    }
    sample.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kbench::operator::Distribution;

    fn problem(shape: &str) -> Problem {
        Problem { shape: shape.parse().unwrap(), seed: 0, distribution: Distribution::Normal }
    }

    #[test]
    fn a_sample_is_that_of_its_seed_and_of_no_other() {
        let problem = problem("long-large");
        let sample = sampled_rows(&problem, 1024, 7);
        assert_eq!(sample, sampled_rows(&problem, 1024, 7));
        let other: BTreeSet<[u32; 2]> = sampled_rows(&problem, 1024, 8).into_iter().collect();
        // Last rows are in both; of the others, hardly one.
        let both = sample.iter().filter(|row| other.contains(*row)).count();
        assert!((256..300).contains(&both), "{both}");
    }

    #[test]
    fn every_head_has_its_last_row_and_some_have_a_row_of_every_tile() {
        for (shape, rows, least) in
            [("long-large", 1024, 12), ("wide-large", 1024, 14), ("wide-8k", 1024, 3), ("long", 64, 1)]
        {
            let problem = problem(shape);
            let sizes = Sizes::of(&problem.shape);
            let sample = sampled_rows(&problem, rows, 99);
            let heads = 0..sizes.batch_heads() as u32;
            assert!(heads.clone().all(|head| sample.contains(&[head, sizes.seq_q - 1])), "{shape}");
            let has = |head: u32, tile: u32| sample.iter().any(|[h, row]| *h == head && row / TILE == tile);
            let covered = heads.filter(|head| (0..sizes.seq_q / TILE).all(|tile| has(*head, tile))).count();
            assert!(covered >= least, "{shape}: {covered} heads");
            assert!(sample.iter().all(|[_, row]| *row < sizes.seq_q) && sample.iter().any(|[_, row]| *row == 0));
            assert!(sample.len() <= rows as usize + 128, "{shape}: {}", sample.len());
        }
    }

    #[test]
    fn a_sample_of_everything_is_everything() {
        let problem = problem("tiny");
        assert_eq!(sampled_rows(&problem, 1000, 1).len(), 32);
        assert!(only(&Sizes::of(&problem.shape), &sampled_rows(&problem, 1000, 1)).iter().all(|is| *is));
    }
}
