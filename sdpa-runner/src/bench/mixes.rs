//! Which inputs each launch of a block reads. Pure: no device, no tensor.
//!
//! A launch whose answer an earlier one left somewhere could copy it. So all launches of a block solve different problems:
//! each group of inputs comes from one of a few sets, and no two launches have the same combination. Sets are independent of each other, so
//! that no answer follows from another's. Combinations of one set alone have verified answers; the answers of others are
//! what the same kernel gives where no answer lies in memory. Leaves to others: what a group is, and poisoning.

use std::collections::BTreeSet;

use rand_chacha::ChaCha8Rng;
use stats::shuffled;

/// The set that each group of inputs comes from.
pub type Mix = Vec<usize>;

/// Combinations that are looked through for more; fewer launches than that are ever asked for.
const MOST_LOOKED_AT: usize = 1 << 16;

/// Different combinations, at most `most` and as many as there are: every set by itself first, then others in random order.
pub fn mixes(groups: usize, sets: usize, most: usize, rng: &mut ChaCha8Rng) -> Vec<Mix> {
    let pure = (0..sets).map(|set| vec![set; groups]);
    let count = (0..groups).fold(1usize, |count, _| count.saturating_mul(sets)).min(MOST_LOOKED_AT);
    let digits = |number: usize| (0..groups).map(move |group| number / sets.saturating_pow(group as u32).max(1) % sets);
    let all = shuffled(rng, count).into_iter().map(|number| digits(number).collect::<Mix>());
    let mut seen = BTreeSet::new();
    pure.chain(all).filter(|mix| seen.insert(mix.clone())).take(most).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::rand_core::SeedableRng;

    fn of(groups: usize, sets: usize, most: usize) -> Vec<Mix> {
        mixes(groups, sets, most, &mut ChaCha8Rng::seed_from_u64(7))
    }

    #[test]
    fn no_two_launches_have_the_same_inputs_and_every_set_is_one() {
        for (groups, sets, most, wanted) in
            [(3, 4, 20, 20), (3, 2, 20, 8), (1, 4, 20, 4), (4, 1, 20, 1), (3, 4, 2, 2), (30, 4, 100, 100)]
        {
            let mixes = of(groups, sets, most);
            let different: BTreeSet<&Mix> = mixes.iter().collect();
            assert_eq!((mixes.len(), different.len()), (wanted, wanted), "{groups} {sets} {most}");
            let pure = |set: usize| mixes.contains(&vec![set; groups]);
            assert_eq!((0..sets).filter(|set| pure(*set)).count(), sets.min(most));
            assert!(mixes.iter().flatten().all(|set| *set < sets));
        }
    }

    #[test]
    fn which_ones_are_taken_is_drawn() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        assert_ne!(mixes(3, 4, 20, &mut rng), mixes(3, 4, 20, &mut rng));
    }
}
