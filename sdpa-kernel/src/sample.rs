//! A few CTAs of a grid that stand for all of them where a launch is executed slowly, and the query tiles that they compute.
//! Leaves to others: executing them, and which rows a tile has.

use std::collections::BTreeSet;

use crate::abi::PERSISTENT_CTAS_PER_SM;
use crate::hopper::Sizes;
use crate::toggles::Scheduler;

/// The value of the `scheduler` toggle with which CTA (x, y) computes query tile x of head y.
const SCHEDULER_ONE_TILE: u32 = Scheduler::OneTile as u32;
/// The value with which as many CTAs as the chip is meant to hold share all tiles.
const SCHEDULER_PERSISTENT: u32 = Scheduler::Persistent as u32;
/// Query tiles of each CTA in the sample of a persistent kernel: it must take one after another.
const TILES_PER_CTA: u32 = 2;

/// Part of a grid, and what it computes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// CTAs.
    pub blocks: Vec<[u32; 3]>,
    /// Query tiles as (number within the head, head). Were one of them not computed after all, its rows would be NaN.
    pub tiles: Vec<[u32; 2]>,
    /// CTAs that have work, of which these are some.
    pub of: u32,
    /// The chip's size as the kernel sees it.
    pub sm_count: u32,
}

impl Sample {
    /// CTAs whose query tiles are spread evenly over the problem, first and last among them; `None` when all of the grid,
    /// `[query tiles of a head, heads]`, is within the limit or nobody knows which CTA computes what.
    pub fn of(scheduler: Option<u32>, grid: [u32; 2], limit: u32) -> Option<Sample> {
        let [width, heads] = grid;
        let total = width * heads;
        if total <= limit {
            return None;
        }
        let block = |cta: u32| [cta % width, cta / width, 0];
        match scheduler? {
            SCHEDULER_ONE_TILE => {
                let picked = spread(total, limit);
                let tiles = picked.iter().map(|&flat| [flat % width, flat / width]).collect();
                Some(Sample { blocks: picked.into_iter().map(block).collect(), tiles, of: total, sm_count: 1 })
            }
            SCHEDULER_PERSISTENT => {
                let sm_count = (total / (TILES_PER_CTA * PERSISTENT_CTAS_PER_SM)).max(1);
                let ctas = (sm_count * PERSISTENT_CTAS_PER_SM).min(total);
                // CTA c takes tiles c, c + ctas, ... in an order that begins with the last tile of every head.
                let owner = |flat: u32| ((width - 1 - flat % width) * heads + flat / width) % ctas;
                let picked: BTreeSet<u32> = spread(total, limit / TILES_PER_CTA).into_iter().map(owner).collect();
                let taken = picked.iter().flat_map(|&cta| (cta..total).step_by(ctas as usize));
                let tiles = taken.map(|i| [width - 1 - i / heads, i % heads]).collect();
                Some(Sample { blocks: picked.iter().map(|&cta| block(cta)).collect(), tiles, of: ctas, sm_count })
            }
            _ => None,
        }
    }

    /// The same of the Hopper family, on a chip of so many multiprocessors.
    pub fn of_hopper(sizes: &Sizes, tile_q: u32, sm_count: u32, limit: u32) -> Option<Sample> {
        let ctas = sizes.row_tiles(tile_q).min(sm_count);
        if ctas <= limit {
            return None;
        }
        let picked = spread(ctas, limit);
        let tiles = picked.iter().flat_map(|&cta| sizes.items_of(cta, ctas, tile_q)).collect();
        Some(Sample { blocks: picked.into_iter().map(|cta| [cta, 0, 0]).collect(), tiles, of: ctas, sm_count })
    }
}

/// The chip on which every CTA of a grid, `[query tiles of a head, heads]`, has one query tile at most; `None` where there is none, or nobody
/// knows which CTA computes what.
pub fn one_tile_each(scheduler: u32, [width, heads]: [u32; 2]) -> Option<u32> {
    let total = width * heads;
    match scheduler {
        SCHEDULER_ONE_TILE => Some(1),
        SCHEDULER_PERSISTENT if total.is_multiple_of(PERSISTENT_CTAS_PER_SM) => Some(total / PERSISTENT_CTAS_PER_SM),
        _ => None,
    }
}

/// The CTA that computes a query tile, as (number within the head, head), on that chip.
pub fn block_of_tile(scheduler: u32, [width, heads]: [u32; 2], [tile, head]: [u32; 2]) -> Option<[u32; 3]> {
    match scheduler {
        SCHEDULER_ONE_TILE => Some([tile, head, 0]),
        SCHEDULER_PERSISTENT => {
            let cta = (width - 1 - tile) * heads + head;
            Some([cta % width, cta / width, 0])
        }
        _ => None,
    }
}

/// `count` numbers below `total`, evenly spread, both ends among them.
fn spread(total: u32, count: u32) -> Vec<u32> {
    let (last, count) = (u64::from(total - 1), u64::from(count.clamp(1, total)));
    (0..count).map(|i| (i * last / (count - 1).max(1)) as u32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_spread_and_holds_both_ends() {
        assert_eq!(Sample::of(Some(0), [4, 4], 16), None);
        assert_eq!(Sample::of(None, [16, 16], 24), None, "nobody knows which rows it would be");
        let sample = Sample::of(Some(0), [16, 16], 24).unwrap();
        assert_eq!((sample.blocks.len(), sample.blocks[0], sample.blocks[23]), (24, [0, 0, 0], [15, 15, 0]));
        assert_eq!((sample.tiles[0], sample.tiles[23], sample.of), ([0, 0], [15, 15], 256));
        let unique: BTreeSet<_> = sample.tiles.iter().collect();
        assert_eq!(unique.len(), 24);
        assert_eq!(Sample::of(Some(0), [2, 2], 1).unwrap().blocks, [[0, 0, 0]]);
    }

    #[test]
    fn a_sample_of_the_hopper_family_has_all_tiles_of_its_ctas() {
        let sizes = Sizes { heads: 16, seq_q: 4096, seq_kv: 4096, head_dim: 64, causal: true };
        let sample = Sample::of_hopper(&sizes, 256, 132, 8).unwrap();
        assert_eq!((sample.blocks.len(), sample.of, sample.blocks[7]), (8, 132, [131, 0, 0]));
        let items = |cta: &[u32; 3]| sizes.items_of(cta[0], 132, 256).len();
        assert_eq!(sample.tiles.len(), sample.blocks.iter().map(items).sum::<usize>());
        assert_eq!(Sample::of_hopper(&sizes, 256, 8, 8), None);
    }

    #[test]
    fn sampled_persistent_ctas_take_several_tiles_each_and_both_ends_are_among_them() {
        for (grid, limit) in [([32, 16], 32), ([8, 16], 32), ([5, 7], 8), ([3, 3], 8)] {
            let sample = Sample::of(Some(1), grid, limit).unwrap();
            let unique: BTreeSet<_> = sample.tiles.iter().collect();
            assert_eq!(unique.len(), sample.tiles.len());
            assert!(unique.contains(&[0, 0]) && unique.contains(&[grid[0] - 1, grid[1] - 1]), "{grid:?}");
            assert!(sample.tiles.iter().all(|[tile, head]| *tile < grid[0] && *head < grid[1]));
            assert!(sample.tiles.len() >= 2 * sample.blocks.len(), "{grid:?}");
            assert!(sample.of <= grid[0] * grid[1] && sample.sm_count * PERSISTENT_CTAS_PER_SM == sample.of);
        }
        let sample = Sample::of(Some(1), [32, 16], 32).unwrap();
        assert_eq!((sample.of, sample.sm_count, sample.tiles.len()), (256, 64, 2 * sample.blocks.len()));
    }
}
