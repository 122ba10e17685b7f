//! Work that several GPUs share: parts that whoever is free takes, launches cut into such parts, and times that were taken in
//! parts. What is compared with each other is never in two parts. Leaves to others: what is done with a part.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, anyhow, bail};
use kbench::evidence::{Peers, Samples};
use kbench::operator::{Operator, Problem};
use kbench::suite::Suite;

/// Parts for each GPU that a variant's launches are cut into: the last one to end makes the others wait for one of these.
const PARTS_EACH: usize = 2;

/// Does every part once, on whichever worker is free, and returns what came of them in their order. After an error no other
/// part is begun.
pub fn spread<P: Send, T: Send>(
    workers: usize,
    parts: Vec<P>,
    run: impl Fn(usize, P) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let count = parts.len();
    let left = Mutex::new(parts.into_iter().enumerate().collect::<VecDeque<_>>());
    let next = || left.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let stop = || left.lock().unwrap_or_else(PoisonError::into_inner).clear();
    let (next, stop, run) = (&next, &stop, &run);
    let work = move |worker: usize| {
        let mut done = Vec::new();
        while let Some((number, part)) = next() {
            let one = run(worker, part);
            if one.is_err() {
                stop();
            }
            done.push((number, one?));
        }
        Ok(done)
    };
    let done: Vec<Result<Vec<(usize, T)>>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers.min(count)).map(|worker| scope.spawn(move || work(worker))).collect();
        threads.into_iter().map(|t| t.join().unwrap_or_else(|_| Err(anyhow!("a thread of a GPU died")))).collect()
    });
    let mut done: Vec<(usize, T)> = done.into_iter().collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
    done.sort_by_key(|(number, _)| *number);
    Ok(done.into_iter().map(|(_, one)| one).collect())
}

/// Elements of the tensors of problems.
pub fn size(operator: &Operator, problems: &[Problem]) -> usize {
    problems.iter().map(|p| operator.elements(&p.shape)).sum()
}

/// Problems by their inputs, which are drawn once for all that have the same; the largest first, so that none waits long for
/// another in the end.
pub fn twins(operator: &Operator, problems: &[Problem]) -> Vec<Vec<Problem>> {
    let mut twins: BTreeMap<String, Vec<Problem>> = BTreeMap::new();
    for problem in problems {
        twins.entry(operator.inputs_key(problem)).or_default().push(problem.clone());
    }
    let mut twins: Vec<Vec<Problem>> = twins.into_values().collect();
    twins.sort_by_key(|problems| std::cmp::Reverse(size(operator, problems)));
    twins
}

/// Problems in parts of about one size, the largest first; those with the same inputs go together. One worker does all.
pub fn shares(operator: &Operator, problems: &[Problem], workers: usize) -> Vec<Vec<Problem>> {
    if workers < 2 || problems.is_empty() {
        return vec![problems.to_vec()];
    }
    let mut parts: Vec<(usize, Vec<Problem>)> = vec![Default::default(); workers * PARTS_EACH];
    for problems in twins(operator, problems) {
        if let Some(smallest) = parts.iter_mut().min_by_key(|(size, _)| *size) {
            smallest.0 += size(operator, &problems);
            smallest.1.extend(problems);
        }
    }
    parts.sort_by_key(|(size, _)| std::cmp::Reverse(*size));
    parts.into_iter().map(|(_, problems)| problems).filter(|problems| !problems.is_empty()).collect()
}

/// Times of a suite's shapes that several GPUs took, as one GPU would have left them, with who timed what.
pub fn merged(suite: &Suite, parts: Vec<(Samples, Peers)>) -> Result<(Samples, Peers)> {
    let mut gpus: BTreeMap<String, String> = BTreeMap::new();
    for (part, _) in &parts {
        for block in &part.blocks {
            let own = &part.device.as_ref().context("times are of a device")?.uuid;
            let who = gpus.entry(block.shape.clone()).or_insert_with(|| own.clone());
            if who != own {
                bail!("`{}` was timed on two GPUs, {who} and {own}", block.shape);
            }
        }
    }
    let place = |shape: &str| suite.time_shapes.iter().position(|name| name == shape);
    let mut parts = parts.into_iter();
    let (mut samples, mut peers) = parts.next().context("somebody timed")?;
    for (part, of_peers) in parts {
        samples.deferred = samples.deferred.or(part.deferred);
        samples.blocks.extend(part.blocks);
        samples.failures.extend(
            part.failures.into_iter().filter(|failure| !samples.failures.contains(failure)).collect::<Vec<_>>(),
        );
        for (variant, part) in part.host_code {
            samples.host_code.entry(variant).or_default().join(part);
        }
        peers.wanted |= of_peers.wanted;
        peers.deferred = peers.deferred.or(of_peers.deferred);
        peers.missing.extend(of_peers.missing);
        peers.versions.extend(of_peers.versions);
        peers.backends.extend(of_peers.backends);
    }
    samples.blocks.sort_by_key(|block| place(&block.shape));
    samples.failures.sort_by_key(|failure| place(&failure.shape));
    peers.backends.sort_by_key(|backend| place(&backend.shape));
    samples.gpus = gpus;
    // Part of the shapes would look like a suite of these.
    if samples.deferred.is_some() {
        (samples.blocks, samples.gpus) = Default::default();
    }
    Ok((samples, peers))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use kbench::operator::Distribution;
    use kbench::operator::attention::MASKED;

    #[test]
    fn every_part_is_done_once_and_what_came_of_them_is_in_their_order() {
        let (both, begun) = (Barrier::new(2), AtomicUsize::new(0));
        let done = spread(2, (0..20).collect(), |worker, part: usize| {
            // Neither has all of them.
            if begun.fetch_add(1, Ordering::Relaxed) < 2 {
                both.wait();
            }
            Ok((worker, part))
        });
        let done = done.unwrap();
        assert_eq!(done.iter().map(|(_, part)| *part).collect::<Vec<_>>(), (0..20).collect::<Vec<_>>());
        assert_eq!(done.iter().map(|(worker, _)| *worker).collect::<BTreeSet<_>>().len(), 2);
        assert_eq!(spread(4, Vec::<usize>::new(), |_, part| Ok(part)).unwrap(), [0; 0]);
    }

    #[test]
    fn after_an_error_no_other_part_is_begun_and_a_worker_that_dies_is_an_error() {
        let begun = AtomicUsize::new(0);
        let failed = spread(1, (0..20).collect(), |_, part: usize| {
            begun.fetch_add(1, Ordering::Relaxed);
            if part == 3 { bail!("part {part}") } else { Ok(part) }
        });
        assert_eq!((failed.unwrap_err().to_string().as_str(), begun.into_inner()), ("part 3", 4));
        let died = spread(2, vec![0, 1], |_, part: usize| if part == 1 { panic!("dies") } else { Ok(part) });
        assert_eq!(died.unwrap_err().to_string(), "a thread of a GPU died");
    }

    #[test]
    fn every_problem_is_in_one_part_beside_those_with_its_inputs() {
        let masked = format!("mission{MASKED}");
        let names = ["tiny", "small", "mission", masked.as_str(), "wide", "ragged"];
        let of = |name: &str, seed| {
            [Distribution::Normal, Distribution::Trained].map(|distribution| Problem {
                shape: name.parse().unwrap(),
                seed,
                distribution,
            })
        };
        let all: Vec<Problem> = names.iter().flat_map(|name| (0..3).flat_map(|seed| of(name, seed))).collect();
        for (count, workers) in [(all.len(), 1), (all.len(), 2), (all.len(), 4), (5, 4), (1, 2)] {
            let parts = shares(&Operator::Attention, &all[..count], workers);
            let most = if workers == 1 { 1 } else { workers * PARTS_EACH };
            assert!(parts.len() <= most.min(count), "{count} problems for {workers}: {} parts", parts.len());
            let mut ids: Vec<String> = parts.iter().flatten().map(Problem::id).collect();
            let mut wanted: Vec<String> = all[..count].iter().map(Problem::id).collect();
            ids.sort();
            wanted.sort();
            assert_eq!(ids, wanted);
            let keys = |part: &Vec<Problem>| part.iter().map(|p| Operator::Attention.inputs_key(p)).collect();
            let keys: Vec<BTreeSet<String>> = parts.iter().map(keys).collect();
            for (i, part) in keys.iter().enumerate() {
                assert!(keys[i + 1..].iter().all(|other| part.is_disjoint(other)), "inputs are drawn twice");
            }
        }
    }
}
