//! A launch as the last heads of a problem so large that places within its tensors are beyond what 32 bits count: the same
//! query tiles, of other CTAs, at the same memory, behind addresses that lie so much lower. What they compute may not differ.
//! Leaves to others: executing it.

use std::collections::{BTreeMap, BTreeSet};

use kbench::evidence::LaunchRecord;
use kbench::operator::attention::Sizes;
use kernel_spec::launch::{Launch, Step};
use sdpa_kernel::sample::{Sample, block_of_tile, one_tile_each};

use super::{launches, part};
use crate::setup::{Part, Role, Setup};

/// What numbers of 32 bits do not count, without a sign and with one.
const BEYOND: [u64; 2] = [1 << 32, 1 << 31];
/// CTAs of a grid along y.
const MAX_HEADS: u64 = 65_535;

/// The query tiles of a launch, as (number within the head, head): those of its sample, or all of the grid
/// `[query tiles of a head, heads]`.
pub fn tiles(sample: Option<Sample>, [width, heads]: [u32; 2]) -> Vec<[u32; 2]> {
    let all = || (0..heads).flat_map(|head| (0..width).map(move |tile| [tile, head])).collect();
    sample.map_or_else(all, |sample| sample.tiles)
}

/// An entry that takes codes and scales as they lie, each tensor of more elements than one of [`BEYOND`]. `None` where the grid does
/// not reach so far, or nobody knows which CTA computes what.
pub fn row_major(
    near: &Setup,
    record: &LaunchRecord,
    sizes: &Sizes,
    scheduler: Option<u32>,
    tiles: &[[u32; 2]],
) -> Option<Setup> {
    let shortest = u64::from(sizes.seq_q.min(sizes.seq_kv)) * u64::from(sizes.head_dim);
    let width = sizes.seq_q.div_ceil(record.tile_q);
    let batches = |beyond: &u64| {
        let ahead = beyond.div_ceil(shortest * u64::from(sizes.heads)) as u32;
        (ahead + sizes.batch..).take_while(|batch| u64::from(*batch) * u64::from(sizes.heads) <= MAX_HEADS)
    };
    let chip = |batch| Some((batch, one_tile_each(scheduler?, [width, batch * sizes.heads])?));
    let (batch, sm_count) = BEYOND.iter().flat_map(batches).find_map(chip)?;
    let large = Sizes { batch, ..*sizes };
    let ahead = (batch - sizes.batch) * sizes.heads;
    let launch = launches::row_major(record, &large);
    let of_tile =
        |[tile, head]: [u32; 2]| block_of_tile(scheduler?, [width, batch * sizes.heads], [tile, ahead + head]);
    let blocks = tiles.iter().map(|tile| of_tile(*tile)).collect::<Option<Vec<_>>>()?;
    let sample = Sample { tiles: tiles.to_vec(), of: blocks.len() as u32, blocks, sm_count };
    Some(moved(near, part(&sample, record, sizes), vec![launch], Vec::new(), sizes, ahead))
}

/// An entry that takes images, and the quantiser that makes them, as far as the family goes: it counts elements in 32 bits, of which
/// outputs have two bytes each.
pub fn from_images(
    near: &Setup,
    [record, quantiser]: [&LaunchRecord; 2],
    sizes: &Sizes,
    tiles: &[[u32; 2]],
) -> Option<Setup> {
    let of = |heads: u32| sdpa_kernel::hopper::Sizes { heads, ..launches::of_hopper(sizes) };
    let heads = sizes.batch * sizes.heads;
    let large = (heads..=MAX_HEADS as u32).rev().find(|heads| of(*heads).fits(record.tile_q))?;
    let ahead = large - heads;
    if u64::from(ahead) * u64::from(sizes.seq_q) * u64::from(sizes.head_dim) * 2 < BEYOND[1] {
        return None;
    }
    let width = sizes.seq_q.div_ceil(record.tile_q);
    let ctas = large * width;
    let wanted: BTreeSet<[u32; 2]> = tiles.iter().map(|[tile, head]| [*tile, ahead + head]).collect();
    let works = |cta: &u32| of(large).items_of(*cta, ctas, record.tile_q).iter().any(|item| wanted.contains(item));
    let blocks: Vec<[u32; 3]> = (0..ctas).filter(works).map(|cta| [cta, 0, 0]).collect();
    let sample = Sample { tiles: tiles.to_vec(), of: blocks.len() as u32, blocks, sm_count: ctas };
    let as_one_batch = Sizes { batch: large, heads: 1, ..*sizes };
    let attend = launches::from_images(record, &as_one_batch, ctas, false);
    let quantise = launches::quantise(quantiser, &as_one_batch);
    let mut part = part(&sample, record, sizes);
    let [width, _, operands] = quantise.grid;
    let of_head = |head| (0..operands).flat_map(move |z| (0..width).map(move |x| [x, ahead + head, z]));
    part.blocks.insert(quantise.entry.clone(), (0..heads).flat_map(of_head).collect());
    Some(moved(near, part, vec![attend], vec![quantise], sizes, ahead))
}

/// A setup whose tensors begin so many heads ahead of its memory. Scratch is nobody's head's.
fn moved(near: &Setup, part: Part, steps: Vec<Launch>, making: Vec<Launch>, sizes: &Sizes, ahead: u32) -> Setup {
    let heads = u64::from(sizes.batch) * u64::from(sizes.heads);
    let of_heads = near.tensors.iter().filter(|tensor| !matches!(tensor.role, Role::Scratch(..)));
    let bytes_ahead = of_heads.map(|t| (t.name.clone(), t.role.bytes() as u64 / heads * u64::from(ahead)));
    let ahead: BTreeMap<String, u64> = bytes_ahead.collect();
    let steps_of = |launches: Vec<Launch>| launches.into_iter().map(Step::Launch).collect();
    Setup { steps: steps_of(steps), making: steps_of(making), part: Some(Part { ahead, ..part }), ..near.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::Attention;
    use crate::{Executor, Operator};
    use kbench::evidence::Operands;
    use kbench::job::{Files, Module};
    use kbench::operator::attention::Rows;
    use kbench::operator::{Distribution, Problem};
    use std::path::Path;

    fn record(entry: &str, operands: Operands, tile_q: u32) -> LaunchRecord {
        LaunchRecord {
            entry: entry.into(),
            config_symbol: String::new(),
            serves: BTreeMap::new(),
            operands,
            tile_q,
            threads: 128,
            dynamic_smem_bytes: 0,
            workspace_bytes: 16,
        }
    }

    /// A launch of a shape, and the same far from where its tensors begin.
    fn both(shape: &str, scheduler: u32, launches: Vec<LaunchRecord>) -> [Setup; 2] {
        let module = Module {
            variant: "v".into(),
            files: Files { image: "none".into(), ptx: None },
            toggles: BTreeMap::from([("scheduler".to_owned(), scheduler)]),
            launches,
            planned: BTreeMap::new(),
            call: None,
            quantised_as: Operands::RowMajor,
        };
        let problem = Problem { shape: shape.parse().unwrap(), seed: 0, distribution: Distribution::Normal };
        let near = Executor { sm_count: 132, max_ctas: Some(4), far: false };
        let mut attention = Attention::of(Path::new(""));
        [near, Executor { far: true, ..near }].map(|executor| attention.setup(&module, &problem, &executor).unwrap())
    }

    fn ahead(setup: &Setup) -> &BTreeMap<String, u64> {
        &setup.part.as_ref().expect("a part of a grid").ahead
    }

    #[test]
    fn the_same_tiles_are_the_last_heads_of_tensors_that_32_bits_do_not_count() {
        for scheduler in [0, 1] {
            let [near, far] = both("1x2x520x128", scheduler, vec![record("e", Operands::RowMajor, 64)]);
            let heads = ahead(&far)["out"] / (520 * 128 * 2);
            assert!(heads * 520 * 128 >= 1 << 32 && heads + 2 <= MAX_HEADS, "{heads} heads ahead");
            assert_eq!((ahead(&far)["q"], ahead(&far)["k_scale"]), (heads * 520 * 128, heads * 4));
            assert_eq!((ahead(&far).get("workspace"), ahead(&near).len()), (None, 0), "counters are no head's");
            let [near, far] = [&near, &far].map(|setup| setup.part.as_ref().unwrap());
            assert_eq!(near.ranges, far.ranges);
            let (width, all) = (9, heads as u32 + 2);
            let tile_of = |[x, y, _]: [u32; 3]| match scheduler {
                0 => [x, y],
                _ => [width - 1 - (y * width + x) / all, (y * width + x) % all],
            };
            let tiles: Vec<[u32; 2]> = far.blocks["e"].iter().map(|block| tile_of(*block)).collect();
            let rows: Vec<Rows> = serde_json::from_value(far.rows.clone()).unwrap();
            let wanted: Vec<[u32; 2]> = rows.iter().map(|r| [r.first / 64, r.head + heads as u32]).collect();
            assert_eq!(tiles, wanted);
        }
    }

    #[test]
    fn where_a_grid_does_not_reach_so_far_the_launch_is_what_it_was() {
        let [near, far] = both("tiny", 0, vec![record("e", Operands::RowMajor, 64)]);
        assert!(far.part.is_none() && near.part.is_none());
        let [near, far] = both("1x2x520x128", 2, vec![record("e", Operands::RowMajor, 64)]);
        assert!(far.part.is_none() && near.part.is_none(), "nobody knows which CTA computes what");
    }

    #[test]
    fn the_family_goes_as_far_as_it_counts_and_its_quantiser_makes_those_heads_alone() {
        let launches = ["attention_d128_1x2", "attention_d128_2x1", "attention_d128_3x1"]
            .map(|name| record(name, Operands::HopperImages, 128))
            .into_iter()
            .chain([record("quantise_d128", Operands::Originals, 0)]);
        let [near, far] = both("wide", 0, launches.collect());
        let heads = (ahead(&far)["out"] / (2048 * 128 * 2)) as u32;
        assert!((1 << 31..1u64 << 32).contains(&ahead(&far)["out"]), "bytes of the output, {heads} heads");
        let part = far.part.as_ref().unwrap();
        let made = &part.blocks["quantise_d128"];
        assert!(made.iter().all(|[_, head, _]| (heads..heads + 16).contains(head)) && made.len() >= 16 * 3);
        assert_eq!(part.ranges, near.part.as_ref().unwrap().ranges);
        let sizes =
            sdpa_kernel::hopper::Sizes { heads: heads + 16, seq_q: 2048, seq_kv: 2048, head_dim: 128, causal: false };
        let entry = far.entry.as_ref().unwrap();
        for [cta, ..] in &part.blocks[entry] {
            assert!(sizes.items_of(*cta, part.sm_count, 128).iter().all(|[_, head]| *head >= heads), "CTA {cta}");
        }
    }
}
