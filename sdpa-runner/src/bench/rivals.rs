//! Peers in the rounds of one shape and distribution: started once a job, handed their tensors once a distribution. A
//! peer's trouble is its own: it drops out, the rounds go on. Leaves to others: how one talks to a peer.

use std::collections::BTreeSet;

use anyhow::{Result, anyhow};
use kbench::evidence::{Mode, PeerBackend, Peers, TimingFailure};
use kbench::job::BenchJob;
use kbench::operator::Problem;
use kbench::subject::Subject;
use operators::Operator;
use stats::median;

use super::Taken;
use super::contestant::{LEAST_LAUNCHES, launches_within_target};
use crate::peers::{Peer, PeerSubject, deferral_of};

/// Timed graph replays of a block.
const REPLAYS: u32 = 1;
/// A peer whose call takes longer than this is not timed.
const MOST_US: f64 = 10_000.0;

/// Starts every peer of a job, all at once: each loads libraries for seconds. Who does not start is missing.
pub(super) fn start_peers(job: &BenchJob, peers: &mut Peers) -> Vec<Peer> {
    let started: Vec<Result<Peer>> = std::thread::scope(|scope| {
        let starting: Vec<_> = job.peers.iter().map(|command| scope.spawn(|| Peer::start(command))).collect();
        starting.into_iter().map(|thread| thread.join().expect("starting a peer does not panic")).collect()
    });
    let mut running = Vec::new();
    for (command, peer) in job.peers.iter().zip(started) {
        match peer {
            Ok(peer) => {
                peers.versions.extend(peer.versions.clone());
                running.push(peer);
            }
            Err(error) => {
                peers.missing.insert(command.name.clone(), deferral_of(&error));
            }
        }
    }
    running
}

/// Backends that are timed, each with the index of its process.
pub(super) struct Rivals {
    pub(super) subjects: Vec<(usize, PeerSubject)>,
    silent: BTreeSet<String>,
}

impl Rivals {
    /// Hands the inputs over. A peer that cannot take those of the first distribution is missing; of another one that is a failure.
    pub(super) fn load(job: &BenchJob, operator: &mut dyn Operator, problems: &[Problem], taken: &mut Taken) -> Rivals {
        let Taken { samples, peers, running } = taken;
        let distribution = problems[0].distribution;
        let is_first = job.suite.time_distributions.first() == Some(&distribution);
        let mut subjects = Vec::new();
        let answers = if running.is_empty() { Vec::new() } else { load_all(job, running, problems, operator) };
        for (index, (peer, answer)) in running.iter_mut().zip(answers).enumerate() {
            match answer.map(|backends| prepared(job, peer, problems, backends)) {
                Ok((backends, timed)) => {
                    subjects.extend(timed.into_iter().map(|subject| (index, subject)));
                    peers.backends.extend(backends);
                }
                Err(error) if is_first => {
                    peers.missing.insert(peer.name().to_owned(), deferral_of(&error));
                }
                Err(error) => samples.failures.push(TimingFailure {
                    shape: problems[0].shape.name.clone(),
                    subject: peer.name().into(),
                    why: format!("on {} inputs: {error:#}", distribution.name()),
                }),
            }
        }
        Rivals { subjects, silent: BTreeSet::new() }
    }

    /// Whether a backend still takes part.
    pub(super) fn is_there(&self, name: &str) -> bool {
        !self.silent.contains(name)
    }

    /// Times a block of a backend. An error is its last word.
    pub(super) fn block(
        &mut self,
        job: &BenchJob,
        running: &mut [Peer],
        (index, subject): (usize, &PeerSubject),
        mode: Mode,
    ) -> Result<Vec<f64>> {
        let block = running[index].block(&subject.name, mode, subject.launches, job.suite.timing.warmup, REPLAYS);
        if block.is_err() {
            self.silent.insert(subject.name.clone());
        }
        block
    }
}

/// What each peer answers to the inputs of a shape, which they read at the same time: every backend, available or not.
fn load_all(
    job: &BenchJob,
    running: &mut [Peer],
    problems: &[Problem],
    operator: &mut dyn Operator,
) -> Vec<Result<Vec<PeerBackend>>> {
    let message = match operator.hand_to_peers(problems, &job.work_dir) {
        Ok(message) => message,
        Err(error) => return running.iter().map(|_| Err(anyhow!("{error:#}"))).collect(),
    };
    let (problem, message) = (&problems[0], &message);
    std::thread::scope(|scope| {
        let loading: Vec<_> = running.iter_mut().map(|peer| scope.spawn(move || peer.load(problem, message))).collect();
        loading.into_iter().map(|thread| thread.join().expect("asking a peer does not panic")).collect()
    })
}

/// Every backend of a peer, and those that are timed, one after another: nobody else is on the device.
fn prepared(
    job: &BenchJob,
    peer: &mut Peer,
    problems: &[Problem],
    mut backends: Vec<PeerBackend>,
) -> (Vec<PeerBackend>, Vec<PeerSubject>) {
    let mut timed = Vec::new();
    for backend in backends.iter_mut().filter(|b| b.unavailable.is_none()) {
        match prepare_peer(job, peer, &backend.subject, &problems[0]) {
            Ok(subject) => timed.push(subject),
            Err(error) => backend.unavailable = Some(format!("{error:#}")),
        }
    }
    (backends, timed)
}

/// Leaves the backend's output where the comparison finds it, and sizes its blocks.
fn prepare_peer(job: &BenchJob, peer: &mut Peer, name: &str, problem: &Problem) -> Result<PeerSubject> {
    let once = median(&peer.block(name, Mode::Call, LEAST_LAUNCHES as u32, 1, REPLAYS)?).unwrap_or(f64::NAN);
    anyhow::ensure!(
        once <= MOST_US,
        "not timed: one call takes {:.1} ms, longer than a whole block of the others",
        once / 1000.0
    );
    peer.write_output(name, problem, &BenchJob::output_dir(&job.work_dir, name))?;
    let launches = job.suite.timing.launches.min(launches_within_target(once) as u32);
    Ok(PeerSubject { name: name.to_owned(), launches })
}

/// The subject of a backend's blocks.
pub(super) fn subject_of(subject: &PeerSubject) -> Subject {
    Subject::plain(&subject.name)
}
