//! What is to be measured next, and who does it: jobs in their order, each of which whoever is free takes. Where a search has
//! several workers, each has all jobs in its queue, and a job is whose who claims it.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use kbench::tune::{Evaluation, Proposal};

use super::share::{Claim, LOOK, Share, evaluation_key};

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

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
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

    /// Puts a job at its end.
    pub fn add(&self, job: Job) {
        self.state().jobs.push_back(job);
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

    fn take(&self, state: &mut State) -> Result<Option<Job>> {
        let mut number = 0;
        while let Some(job) = state.jobs.get(number) {
            let claim = match (self.share, job.key()) {
                (Some(share), Some(key)) => share.claim(&key)?,
                _ => Claim::Own,
            };
            match claim {
                Claim::Own => return Ok(state.jobs.remove(number)),
                Claim::Done => drop(state.jobs.remove(number)),
                Claim::Others => number += 1,
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
