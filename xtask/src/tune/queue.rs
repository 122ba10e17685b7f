//! What is to be measured next, and who does it: jobs in their order, each of which whoever is free takes. Where a search has
//! several workers, each has all jobs in its queue, in an order of its own within a generation, and a job is whose who claims
//! it.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use kbench::tune::{Evaluation, Proposal};

use super::share::{Claim, LOOK, Share, evaluation_key};

/// After how long it is asked again whether somebody else's job has become nobody's: a shared folder answers many.
const AGAIN: Duration = Duration::from_secs(5);

/// What a GPU is to do next.
pub enum Job {
    /// Configurations that are measured together.
    Measure(Vec<Item>),
    /// One that was measured.
    Profile(Box<Evaluation>),
}

/// A configuration with its generation and slot.
pub type Item = (u32, u32, Proposal);

impl Job {
    /// Configurations of the job.
    pub fn count(&self) -> usize {
        match self {
            Job::Measure(items) => items.len(),
            Job::Profile(_) => 1,
        }
    }

    /// What it is claimed by: its first configuration, for with several workers it has no other.
    fn key(&self) -> Option<String> {
        match self {
            Job::Measure(items) => items.first().map(|(generation, slot, _)| evaluation_key(*generation, *slot)),
            Job::Profile(_) => None,
        }
    }
}

struct Open {
    job: Job,
    /// When it was seen to be somebody else's.
    others: Option<Instant>,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Open>,
    closed: bool,
}

/// The jobs that this process knows of and nobody has done.
pub struct Queue<'a> {
    share: Option<&'a Share>,
    state: Mutex<State>,
    changed: Condvar,
}

impl<'a> Queue<'a> {
    /// Empty; of one worker where nothing is shared.
    pub fn new(share: Option<&'a Share>) -> Queue<'a> {
        Queue { share, state: Mutex::default(), changed: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A thread that died while it held the lock left whole jobs behind.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a job at its end; with several workers, where this one is to come to it. What an older generation has goes first,
    /// for later ones wait for it; within one, workers begin at different ends, so that what each builds ahead is its own.
    pub fn add(&self, job: Job) {
        let mut state = self.state();
        state.jobs.push_back(Open { job, others: None });
        if let Some(share) = self.share {
            let order = |Open { job, .. }: &Open| {
                let Job::Measure(items) = job else { return (0, 0) };
                let mut hasher = DefaultHasher::new();
                (share.own(), job.key()).hash(&mut hasher);
                (items.first().map_or(0, |(generation, ..)| *generation), hasher.finish())
            };
            state.jobs.make_contiguous().sort_by_cached_key(order);
        }
        self.changed.notify_all();
    }

    /// The next job that is nobody else's; waits for one, and returns `None` when the queue is closed.
    pub fn next(&self) -> Result<Option<Job>> {
        let mut state = self.state();
        loop {
            if state.closed {
                return Ok(None);
            }
            if let Some(job) = self.take(&mut state)? {
                return Ok(Some(job));
            }
            state = match self.share {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                // Whose claim it is may have died.
                Some(_) => self.changed.wait_timeout(state, LOOK).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
    }

    /// The configurations that this worker will come to next, as far as can be said: nobody has claimed them.
    pub fn ahead(&self) -> Result<Vec<Item>> {
        let Some(share) = self.share else { return Ok(Vec::new()) };
        for Open { job, .. } in &self.state().jobs {
            if let (Job::Measure(items), Some(key)) = (job, job.key())
                && !share.is_claimed(&key)?
            {
                return Ok(items.clone());
            }
        }
        Ok(Vec::new())
    }

    fn take(&self, state: &mut State) -> Result<Option<Job>> {
        let mut number = 0;
        while let Some(Open { job, others }) = state.jobs.get_mut(number) {
            let claim = match (self.share, job.key()) {
                _ if others.is_some_and(|seen| seen.elapsed() < AGAIN) => Claim::Others,
                (Some(share), Some(key)) => share.claim(&key)?,
                _ => Claim::Own,
            };
            match claim {
                Claim::Own => return Ok(state.jobs.remove(number).map(|open| open.job)),
                Claim::Done => drop(state.jobs.remove(number)),
                Claim::Others => {
                    let seen = others.filter(|seen| seen.elapsed() < AGAIN);
                    *others = seen.or_else(|| Some(Instant::now()));
                    number += 1;
                }
            }
        }
        Ok(None)
    }

    /// Ends it, with what is left in it.
    pub fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        state.jobs.clear();
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tune::share::{WITNESS, make};
    use kbench::tune::Toggles;

    #[test]
    fn workers_do_each_job_once_older_generations_first_and_build_ahead_what_is_nobodys() {
        let folder = tempfile::tempdir().unwrap();
        make(folder.path()).unwrap();
        std::fs::write(folder.path().join(WITNESS), "{}").unwrap();
        let shares = ["a-0.0.1", "a-1.0.1", "a-2.0.1"].map(|own| Share::join(folder.path(), own).unwrap());
        let queues = [&shares[0], &shares[1], &shares[2]].map(|share| Queue::new(Some(share)));
        let item = |generation, slot| {
            let name = format!("{generation}-{slot}");
            (generation, slot, Proposal { name, toggles: Toggles::new(), origin: String::new() })
        };
        for queue in &queues {
            for generation in [1, 0] {
                (0..4).for_each(|slot| queue.add(Job::Measure(vec![item(generation, slot)])));
            }
        }
        let mut taken = Vec::new();
        for turn in 0..8 {
            let queue = &queues[turn % 3];
            let Some(Job::Measure(items)) = queue.next().unwrap() else { panic!("a job is open") };
            taken.push((items[0].0, items[0].1));
            for ahead in queues.iter().flat_map(|queue| queue.ahead().unwrap()) {
                assert!(!taken.contains(&(ahead.0, ahead.1)), "{ahead:?} was claimed");
            }
        }
        assert!(taken.is_sorted_by_key(|(generation, _)| *generation), "{taken:?}");
        taken.sort();
        assert_eq!(taken, (0..8).map(|n| (n / 4, n % 4)).collect::<Vec<_>>());
        assert!(queues.iter().all(|queue| queue.ahead().unwrap().is_empty()));
        queues[0].close();
        assert!(queues[0].next().unwrap().is_none());
    }
}
