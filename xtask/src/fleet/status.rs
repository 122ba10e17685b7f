//! `fleet status`: where every task stands, from the queue, the accounting where there is one, and what the tasks' own folders
//! say. Leaves to others: which of those is believed (`kbench::fleet`), and whether a run holds.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use kbench::exit::Exit;
use kbench::fleet::{Attempt, Begin, Sighting, Standing, Task, TaskState, attempts_in_log, last_step};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::shared::patiently;
use super::slurm::{Seen, Slurm};
use super::{Fleet, Place, RECORD};
use crate::run_dir::RunDir;

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
    jobs: BTreeMap<String, u64>,
    queue: BTreeMap<(u64, usize), Sighting>,
    accounting: BTreeMap<(u64, usize), Sighting>,
    /// Why the scheduler could not be asked.
    pub silent: Option<String>,
}

impl Sightings {
    /// Asks it. Without an answer the folders alone speak, and that is said.
    pub fn of(fleet: &Fleet) -> Result<Sightings> {
        let mut jobs = BTreeMap::new();
        for kind in &fleet.record.kinds {
            if let Some(job) = fleet.job(&kind.name)? {
                jobs.insert(kind.name.clone(), job);
            }
        }
        let by_task = |seen: Vec<Seen>| seen.into_iter().map(|s| ((s.job, s.index), s.sighting)).collect();
        let names: Vec<String> = fleet.record.kinds.iter().map(|kind| fleet.job_name(&kind.name)).collect();
        let numbers: Vec<u64> = jobs.values().copied().collect();
        let (queue, accounting, silent) = match Slurm::find()? {
            Err(why) => (BTreeMap::new(), BTreeMap::new(), Some(why.to_string())),
            Ok(slurm) => match slurm.queue(&names) {
                Err(error) => (BTreeMap::new(), BTreeMap::new(), Some(format!("{error:#}"))),
                Ok(queue) => (by_task(queue), by_task(slurm.accounting(&numbers)), None),
            },
        };
        Ok(Sightings { jobs, queue, accounting, silent })
    }
}

/// Where every task stands, and why the scheduler was not asked, if so.
pub fn status(fleet: &Fleet) -> Result<(Vec<TaskStatus>, Option<String>)> {
    let seen = Sightings::of(fleet)?;
    let all = fleet.places().iter().map(|place| of_task(fleet, &seen, place)).collect::<Result<_>>()?;
    Ok((all, seen.silent))
}

fn of_task(fleet: &Fleet, seen: &Sightings, place: &Place) -> Result<TaskStatus> {
    let standing = standing(fleet, seen, place)?;
    let run = runs(fleet, place)?.pop();
    let decision = run.as_ref().filter(|run| run.is_whole()).map(|run| match run.judgement() {
        Ok((_, _, decision)) => decision.headline,
        Err(error) => format!("unreadable: {error:#}"),
    });
    let job = seen.jobs.get(&place.task.kind).map(|job| format!("{job}_{}", place.index));
    Ok(TaskStatus { task: place.task.clone(), job, standing, decision, run: run.map(|run| run.path) })
}

/// Where a task stands.
pub fn standing(fleet: &Fleet, seen: &Sightings, place: &Place) -> Result<Standing> {
    let job = seen.jobs.get(&place.task.kind).copied();
    let key = job.map(|job| (job, place.index));
    let of = |map: &BTreeMap<(u64, usize), Sighting>| key.and_then(|key| map.get(&key).cloned());
    patiently(&fleet.path, || {
        let log = tail(&place.log)?;
        let attempts = attempts(fleet, place, &log)?;
        let (queue, accounting) = (of(&seen.queue), of(&seen.accounting));
        let standing = Standing::of(job.is_some(), queue.as_ref(), accounting.as_ref(), &attempts, last_step(&log));
        // Without the scheduler nobody knows whether what has begun is still at work.
        Ok(match (&standing.state, &seen.silent) {
            (TaskState::Lost { .. }, Some(why)) => {
                Standing { state: TaskState::Lost { why: format!("Slurm does not answer ({why})") }, ..standing }
            }
            _ => standing,
        })
    })
}

/// The runs of a task, oldest first; what was put aside is not among them.
pub fn runs(fleet: &Fleet, place: &Place) -> Result<Vec<RunDir>> {
    patiently(&fleet.path, || {
        let names = listing(fleet, &place.folder.join("runs"))?;
        Ok(names.into_iter().map(RunDir::at).filter(|run| run.path.is_dir()).collect())
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
        let end = if end.is_file() { Some(read(&end)?) } else { None };
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
    let mut paths: Vec<PathBuf> = match std::fs::read_dir(folder) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?,
        Err(error) if error.kind() == ErrorKind::NotFound && fleet.path.join(RECORD).is_file() => Vec::new(),
        Err(error) => return Err(error).with_context(|| format!("failed to read `{}`", folder.display())),
    };
    paths.sort();
    Ok(paths)
}

/// The end of a log, from the beginning of a line; empty where there is none yet.
fn tail(path: &Path) -> Result<String> {
    let mut file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(String::new()),
        Err(error) => return Err(error).with_context(|| format!("failed to read `{}`", path.display())),
    };
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
        assert_eq!(tail(Path::new("/nowhere/at/all")).unwrap(), "");
    }
}
