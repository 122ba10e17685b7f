//! `fleet status`: where every task stands, from the queue, the accounting where there is one, and what the tasks' own folders
//! say. Leaves to others: which of those is believed (`kbench::fleet`), and whether a run holds.

use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use kbench::exit::Exit;
use kbench::fleet::{Attempt, Begin, Sighting, Standing, Task, TaskState, attempts_in_log, last_step};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::jobs::{Submission, submissions};
use super::slurm::{Seen, Slurm};
use super::{Fleet, Place};
use crate::run_dir::{MANIFEST, RunDir};
use crate::shared::patiently;

/// How much of the end of a log is read.
const TAIL_BYTES: u64 = 64 << 10;

/// A task and where it stands.
#[derive(Clone, Debug, Serialize)]
pub struct TaskStatus {
    #[serde(flatten)]
    pub task: Task,
    /// The number under which Slurm knows it.
    pub job: Option<String>,
    #[serde(flatten)]
    pub standing: Standing,
    /// Of a whole run: its decision in one line, not yet verified.
    pub decision: Option<String>,
    /// The last of its runs.
    pub run: Option<PathBuf>,
}

/// What the scheduler says of the tasks of a fleet.
pub struct Sightings {
    submissions: Vec<Submission>,
    queue: BTreeMap<(u64, usize), Sighting>,
    accounting: BTreeMap<(u64, usize), Sighting>,
    /// Why the scheduler could not be asked.
    pub silent: Option<String>,
}

impl Sightings {
    /// Asks it. Without an answer the folders alone speak, and that is said.
    pub fn of(fleet: &Fleet) -> Result<Sightings> {
        let submissions = submissions(fleet)?;
        let by_task = |seen: Vec<Seen>| seen.into_iter().map(|s| ((s.job, s.index), s.sighting)).collect();
        let names: Vec<String> = submissions.iter().map(|submission| submission.name(fleet)).collect();
        let numbers: Vec<u64> = submissions.iter().filter_map(|submission| submission.job).collect();
        let (queue, accounting, silent) = match Slurm::find()? {
            Err(why) => (BTreeMap::new(), BTreeMap::new(), Some(why.to_string())),
            Ok(slurm) => match slurm.queue(&names) {
                Err(error) => (BTreeMap::new(), BTreeMap::new(), Some(format!("{error:#}"))),
                Ok(queue) => (by_task(queue), by_task(slurm.accounting(&numbers)), None),
            },
        };
        Ok(Sightings { submissions, queue, accounting, silent })
    }

    /// The latest job that has a task, from its submissions and its tries.
    fn job(&self, place: &Place, attempts: &[Attempt]) -> Option<u64> {
        let known = |job: u64| self.submissions.iter().any(|submission| submission.job == Some(job));
        // Whoever submitted may have ended before it could write the number down, which the script knows too.
        if let Some(begun) = attempts.last().map(|attempt| attempt.begin.job)
            && !known(begun)
        {
            return Some(begun);
        }
        let of_task = |submission: &&Submission| {
            submission.kind == place.task.kind && submission.tasks.contains(&place.index) && submission.job.is_some()
        };
        self.submissions.iter().rfind(of_task)?.job
    }
}

/// Where every task stands, and why the scheduler was not asked, if so.
pub fn status(fleet: &Fleet) -> Result<(Vec<TaskStatus>, Option<String>)> {
    let seen = Sightings::of(fleet)?;
    let all = fleet.places().iter().map(|place| of_task(fleet, &seen, place)).collect::<Result<_>>()?;
    Ok((all, seen.silent))
}

fn of_task(fleet: &Fleet, seen: &Sightings, place: &Place) -> Result<TaskStatus> {
    let (standing, job) = standing(fleet, seen, place)?;
    let job = job.map(|job| format!("{job}_{}", place.index));
    let run = runs(fleet, place)?.pop();
    let decision = match run.as_ref().filter(|(_, is_whole)| *is_whole) {
        Some((run, _)) => Some(headline(fleet, run)?),
        None => None,
    };
    Ok(TaskStatus { task: place.task.clone(), job, standing, decision, run: run.map(|(run, _)| run.path) })
}

/// Where a task stands, and the number of its latest job.
pub fn standing(fleet: &Fleet, seen: &Sightings, place: &Place) -> Result<(Standing, Option<u64>)> {
    patiently(&fleet.path, || {
        let log = if fleet.has(&place.log)? { tail(&place.log)? } else { String::new() };
        let attempts = attempts(fleet, place, &log)?;
        let job = seen.job(place, &attempts);
        let of = |map: &BTreeMap<(u64, usize), Sighting>| map.get(&(job?, place.index)).cloned();
        let (queue, accounting) = (of(&seen.queue), of(&seen.accounting));
        let standing = Standing::of(job, queue.as_ref(), accounting.as_ref(), &attempts, last_step(&log));
        // Without the scheduler nobody knows whether what has begun is still at work.
        let state = match (standing.state, &seen.silent) {
            (TaskState::Lost { .. }, Some(why)) => TaskState::Lost { why: format!("Slurm does not answer ({why})") },
            (state, _) => state,
        };
        Ok((Standing { state, ..standing }, job))
    })
}

/// What a whole run came to, in one line.
fn headline(fleet: &Fleet, run: &RunDir) -> Result<String> {
    let read = patiently(&fleet.path, || run.judgement());
    match read {
        Ok((_, _, decision)) => Ok(decision.headline),
        // It is there and cannot be read, or the folder is not there.
        Err(error) if fleet.has(&run.path)? => Ok(format!("unreadable: {error:#}")),
        Err(error) => Err(error),
    }
}

/// The runs of a task, oldest first, and whether each is whole; what was put aside is not among them.
pub fn runs(fleet: &Fleet, place: &Place) -> Result<Vec<(RunDir, bool)>> {
    patiently(&fleet.path, || {
        let mut found = Vec::new();
        for path in listing(fleet, &place.folder.join("runs"))?.into_iter().filter(|path| path.is_dir()) {
            let is_whole = fleet.has(&path.join(MANIFEST))?;
            found.push((RunDir::at(path), is_whole));
        }
        Ok(found)
    })
}

/// The tries of a task, oldest first.
fn attempts(fleet: &Fleet, place: &Place, log: &str) -> Result<Vec<Attempt>> {
    let notices: BTreeMap<u32, Option<String>> = attempts_in_log(log).into_iter().collect();
    let is_begin = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("begin-"));
    let begun = listing(fleet, &place.folder)?.into_iter().filter(is_begin).map(|path| read::<Begin>(&path));
    let mut begun: Vec<Begin> = begun.collect::<Result<_>>()?;
    begun.sort_by_key(|begin| begin.attempt);
    let attempt = |begin: Begin| {
        let end = place.folder.join(format!("end-{}.json", begin.attempt));
        let end = if fleet.has(&end)? { Some(read(&end)?) } else { None };
        Ok(Attempt { notice: notices.get(&begin.attempt).cloned().flatten(), begin, end })
    };
    begun.into_iter().map(attempt).collect()
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let bytes = std::fs::read(path).with_context(|| format!("failed to read `{}`", path.display()))?;
    serde_json::from_slice(&bytes).with_context(|| format!("`{}` is not what it should be", path.display()))
}

/// What lies in a folder, by name; nothing where it is not there and the fleet's own folder is.
fn listing(fleet: &Fleet, folder: &Path) -> Result<Vec<PathBuf>> {
    if !fleet.has(folder)? {
        return Ok(Vec::new());
    }
    let read = || std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>();
    let mut paths = read().with_context(|| format!("failed to read `{}`", folder.display()))?;
    paths.sort();
    Ok(paths)
}

/// The end of a log, from the beginning of a line.
fn tail(path: &Path) -> Result<String> {
    let mut file = std::fs::File::open(path).with_context(|| format!("failed to read `{}`", path.display()))?;
    let length = file.metadata()?.len();
    let from = length.saturating_sub(TAIL_BYTES);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    Ok(if from == 0 { text.into_owned() } else { text.split_once('\n').map_or("", |(_, rest)| rest).to_owned() })
}

/// A line for every task, and how many are in which state.
pub fn render(all: &[TaskStatus]) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let lines = all.iter().map(|status| {
        let state = status.standing.to_string();
        let word = state.split([':', ';', ',', '(']).next().unwrap_or_default();
        *counts.entry(word.split(" on ").next().unwrap_or_default().trim().to_owned()).or_default() += 1;
        let Task { kind, gate, repeat } = &status.task;
        let decision = status.decision.as_ref().map(|decision| format!("; {decision}")).unwrap_or_default();
        format!("{kind} {gate} #{repeat}  {state}{decision}")
    });
    let lines: Vec<String> = lines.collect();
    let counted: Vec<String> = counts.iter().map(|(word, count)| format!("{count} {word}")).collect();
    format!("{}\n{} tasks: {}", lines.join("\n"), all.len(), counted.join(", "))
}

/// Good where every task came to a verdict; which, the report says.
pub fn exit(all: &[TaskStatus]) -> Exit {
    let is_done = |status: &TaskStatus| status.standing.state == TaskState::Finished;
    if all.iter().all(is_done) { Exit::Good } else { Exit::Deferred }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_log_is_read_from_the_beginning_of_a_line() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let line = format!("{}\n", "x".repeat(99));
        std::fs::write(file.path(), line.repeat(1000) + "last\n").unwrap();
        let text = tail(file.path()).unwrap();
        assert!(
            text.len() < 64 << 10 && text.ends_with("\nlast\n") && text.lines().all(|l| l.len() == 99 || l == "last")
        );
    }
}
