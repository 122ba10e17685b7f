//! What the workers of one search share: a folder that all of them see. Whatever one of them writes there for all (a line of
//! the journal, a claim, the result) is a folder that is renamed into place: it appears whole, and of several who write the
//! same, one does. A worker is alive while its heart beats; what one that is dead has claimed, another claims after it. A
//! worker that was only taken for dead does no harm: a result that is there stays.
//!
//! ```text
//! SEARCH/suite.toml  tune-plan.json    what is searched
//!        terms/                        what all workers must agree on: the first worker's
//!        journal/<key>/line.jsonl      a line, see `kbench::tune::Line`
//!        claims/<key>.<n>/owner        who measures what; n is 0, and one more after each owner that died
//!        workers/<name>/beat           changes while the worker lives; gone when it has ended
//!        over/                         where the sealed run of the search lies
//! ```
//!
//! Leaves to others: what is written, and who does what.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use kbench::tune::{Line, Phase, parse_journal};

use crate::files::folders_below;
use crate::interrupt;
use crate::shared::{has, patiently};

/// How often whoever has nothing to do looks again.
pub const LOOK: Duration = Duration::from_secs(1);
/// The file that is there whenever the folder is.
pub const WITNESS: &str = super::record::PLAN_FILE;

/// The folders of a search's share; whoever makes one makes them, for workers make none above their own.
const SHELVES: [&str; 7] = ["terms", "journal", "claims", "workers", "over", "torn", "logs"];
const LINE: &str = "line.jsonl";
const OWNER: &str = "owner";
const BEAT: &str = "beat";
/// The one thing on the shelves of which there is only one.
const ONLY: &str = "first";
/// Tries of writing a line where what lies there is none.
const TRIES: u32 = 3;

/// How fast hearts beat, and how long one may be still before its worker is dead.
#[derive(Clone, Copy, Debug)]
struct Pace {
    beat: Duration,
    silence: Duration,
}

const PACE: Pace = Pace { beat: Duration::from_secs(5), silence: Duration::from_secs(60) };

/// What came of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    Own,
    /// Somebody who is alive has it.
    Others,
    /// Its line is in the journal.
    Done,
}

/// What was last heard of another worker's heart.
struct Heard {
    beat: Vec<u8>,
    at: Instant,
    /// For how long it was looked at and was the same. Time in which nobody could look is not silence.
    still: Duration,
}

/// A search's folder, and one worker of it.
pub struct Share {
    folder: PathBuf,
    own: String,
    pace: Pace,
    heard: Mutex<BTreeMap<String, Heard>>,
    /// The heart stops with it.
    _heart: Option<Heart>,
}

/// Makes the folders of a share in one that is there.
pub fn make(folder: &Path) -> Result<()> {
    SHELVES.iter().try_for_each(|shelf| folders_below(folder, Path::new(shelf)))
}

impl Share {
    /// Takes part under a name that nobody else ever has: letters, digits, `-` and `.`.
    pub fn join(folder: &Path, own: &str) -> Result<Share> {
        Share::at(folder, own, PACE, true)
    }

    /// Only reads.
    pub fn watch(folder: &Path) -> Result<Share> {
        Share::at(folder, "", PACE, false)
    }

    fn at(folder: &Path, own: &str, pace: Pace, takes_part: bool) -> Result<Share> {
        let folder = folder.to_owned();
        let heart = match takes_part {
            true => {
                patiently(&folder, || folders_below(&folder, &Path::new("workers").join(own)))?;
                Some(Heart::start(&folder.join("workers").join(own), pace.beat))
            }
            false => None,
        };
        Ok(Share { folder, own: own.to_owned(), pace, heard: Mutex::default(), _heart: heart })
    }

    /// What this worker is called.
    pub fn own(&self) -> &str {
        &self.own
    }

    fn has(&self, path: &Path) -> Result<bool> {
        has(path, &self.folder.join(WITNESS))
    }

    /// Puts a file into a folder of its own name on a shelf, unless one is there. Whether that file is there now.
    fn put(&self, shelf: &str, name: &str, file: &str, bytes: &[u8]) -> Result<bool> {
        let shelf = self.folder.join(shelf);
        let target = shelf.join(name);
        patiently(&self.folder, || {
            let cannot = || format!("failed to write `{}`", target.display());
            // Also where a rename was done and its answer was lost.
            if let Ok(there) = std::fs::read(target.join(file)) {
                return Ok(there == bytes);
            }
            let room = tempfile::Builder::new().prefix(".making-").tempdir_in(&shelf).with_context(cannot)?;
            let write = || -> std::io::Result<()> {
                let mut written = File::create(room.path().join(file))?;
                written.write_all(bytes)?;
                // Before it has its name: a machine that stops must not leave half of it under that.
                written.sync_all()?;
                std::fs::set_permissions(room.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
            };
            write().with_context(cannot)?;
            // A folder is never renamed over one that has something in it.
            match std::fs::rename(room.path(), &target) {
                Ok(()) => {
                    let _ = room.keep();
                    Ok(true)
                }
                Err(_) if target.is_dir() => Ok(std::fs::read(target.join(file)).is_ok_and(|there| there == bytes)),
                Err(error) => Err(error).with_context(cannot),
            }
        })
    }

    /// What lies on a shelf of which there is only one thing: the first that anybody put there.
    fn only(&self, shelf: &str, text: Option<&str>) -> Result<Option<String>> {
        if let Some(text) = text {
            self.put(shelf, ONLY, shelf, text.as_bytes())?;
        }
        let path = self.folder.join(shelf).join(ONLY).join(shelf);
        patiently(&self.folder, || match self.has(&path)? {
            true => Ok(Some(std::fs::read_to_string(&path)?)),
            false => Ok(None),
        })
    }

    /// What all workers must agree on: this, unless another was first.
    pub fn terms(&self, own: &str) -> Result<String> {
        self.only("terms", Some(own))?.context("what was written is there")
    }

    /// Says where the sealed run lies, from the folder that the search's lies in; where it does, another's where that was
    /// first.
    pub fn end(&self, run: &str) -> Result<String> {
        self.only("over", Some(run))?.context("what was written is there")
    }

    /// Where the sealed run lies, once the search is over.
    pub fn ended(&self) -> Result<Option<String>> {
        self.only("over", None)
    }

    /// Writes a line under its key, and returns what the journal has there: another's, where that was first.
    pub fn write(&self, key: &str, line: &Line) -> Result<Line> {
        let text = format!("{}\n", serde_json::to_string(line)?);
        for _ in 0..TRIES {
            self.put("journal", key, LINE, text.as_bytes())?;
            if let Some(there) = self.read(key)? {
                return Ok(there);
            }
        }
        bail!("`{}` does not keep what is written to it", self.folder.join("journal").join(key).display())
    }

    /// Keys of the journal, in the order in which a search has its lines.
    pub fn keys(&self) -> Result<Vec<String>> {
        let journal = self.folder.join("journal");
        patiently(&self.folder, || {
            let names = std::fs::read_dir(&journal)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
            let mut names = names.collect::<std::io::Result<Vec<_>>>()?;
            names.retain(|name| !name.starts_with('.'));
            names.sort();
            Ok(names)
        })
    }

    /// A line by its key. What is no line, because a machine stopped while it was stored, is put aside: it is as good as
    /// never written.
    pub fn read(&self, key: &str) -> Result<Option<Line>> {
        let path = self.folder.join("journal").join(key);
        patiently(&self.folder, || {
            if !self.has(&path)? {
                return Ok(None);
            }
            let text = std::fs::read_to_string(path.join(LINE)).unwrap_or_default();
            if let Ok([line]) = parse_journal(&text).as_deref() {
                return Ok(Some(line.clone()));
            }
            // Of two who put it aside one does; and it was not only away.
            if self.has(&path)? {
                let _ = std::fs::rename(&path, self.folder.join("torn").join(format!("{key}.{}", self.own)));
            }
            Ok(None)
        })
    }

    /// Under which name a line is written once: what is about one worker has its name. Where time went is nobody else's.
    pub fn key(&self, line: &Line) -> Option<String> {
        Some(match line {
            Line::Session { .. } => format!("begin-{}", self.own),
            Line::Generation(generation) => format!("generation-{:06}", generation.index),
            Line::Evaluation(evaluation) => evaluation_key(evaluation.generation, evaluation.slot),
            Line::End { phase: Phase::Search, .. } => "search-end".to_owned(),
            Line::End { phase: Phase::Sweep, .. } => "sweep-end".to_owned(),
            Line::Profiled(profiled) => format!("profile-{}", profiled.kernel.variant),
            Line::Spent { .. } => return None,
        })
    }

    /// Claims what a key of the journal names, or what a word does.
    pub fn claim(&self, what: &str) -> Result<Claim> {
        let claims = self.folder.join("claims");
        patiently(&self.folder, || {
            if self.read(what)?.is_some() {
                return Ok(Claim::Done);
            }
            let mut number = 0;
            while self.has(&claims.join(format!("{what}.{number}")))? {
                number += 1;
            }
            if number > 0 {
                let path = claims.join(format!("{what}.{}", number - 1)).join(OWNER);
                let owner = std::fs::read_to_string(path).unwrap_or_default();
                if owner == self.own {
                    return Ok(Claim::Own);
                }
                if !self.is_dead(&owner)? {
                    return Ok(Claim::Others);
                }
            }
            let is_own = self.put("claims", &format!("{what}.{number}"), OWNER, self.own.as_bytes())?;
            Ok(if is_own { Claim::Own } else { Claim::Others })
        })
    }

    /// Whether anybody has claimed it, dead or alive.
    pub fn is_claimed(&self, what: &str) -> Result<bool> {
        let first = self.folder.join("claims").join(format!("{what}.0"));
        patiently(&self.folder, || self.has(&first))
    }

    /// Whether a worker has ended, or its heart was seen still for too long.
    fn is_dead(&self, worker: &str) -> Result<bool> {
        let folder = self.folder.join("workers").join(worker);
        if worker.is_empty() || !self.has(&folder)? {
            return Ok(true);
        }
        let beat = std::fs::read(folder.join(BEAT)).unwrap_or_default();
        let now = Instant::now();
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let last = heard.entry(worker.to_owned()).or_insert_with(|| Heard {
            beat: beat.clone(),
            at: now,
            still: Duration::ZERO,
        });
        let passed = (now - last.at).min(self.pace.beat * 2);
        last.still = if last.beat == beat { last.still + passed } else { Duration::ZERO };
        (last.beat, last.at) = (beat, now);
        Ok(last.still > self.pace.silence)
    }
}

/// The key of a configuration's result.
pub fn evaluation_key(generation: u32, slot: u32) -> String {
    format!("generation-{generation:06}-{slot:06}")
}

/// A thread that says that a worker is alive; with it goes the worker's folder.
struct Heart {
    folder: PathBuf,
    stop: Option<Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
    _duty: interrupt::Duty,
}

impl Heart {
    fn start(folder: &Path, pause: Duration) -> Heart {
        let (stop, stopped) = channel::<()>();
        let path = folder.join(BEAT);
        let thread = std::thread::spawn(move || {
            for beat in 0u64.. {
                // In place, so that whoever has it open sees it. Where the folder is away, nobody listens.
                let _ = std::fs::write(&path, beat.to_string());
                if stopped.recv_timeout(pause) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
        });
        Heart { folder: folder.to_owned(), stop: Some(stop), thread: Some(thread), _duty: interrupt::folder(folder) }
    }
}

impl Drop for Heart {
    fn drop(&mut self) {
        self.stop = None;
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;

    use kbench::tune::{Evaluation, Outcome, Toggles};

    /// Hearts that beat fast enough for a test.
    const FAST: Pace = Pace { beat: Duration::from_millis(20), silence: Duration::from_millis(200) };

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        make(folder.path()).unwrap();
        std::fs::write(folder.path().join(WITNESS), "{}").unwrap();
        folder
    }

    fn join(folder: &tempfile::TempDir, own: &str) -> Share {
        patiently(folder.path(), || folders_below(folder.path(), &Path::new("workers").join(own))).unwrap();
        Share::at(folder.path(), own, FAST, true).unwrap()
    }

    /// A worker that was killed outright: its folder is there, and its heart is still.
    fn die(share: Share) {
        let folder = share.folder.join("workers").join(&share.own);
        drop(share);
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join(BEAT), "7").unwrap();
    }

    fn result(slot: u32, reason: &str) -> Line {
        Line::Evaluation(Box::new(Evaluation {
            generation: 3,
            slot,
            name: format!("v{slot}"),
            toggles: Toggles::new(),
            origin: String::new(),
            outcome: Outcome::Rejected { stage: "build".into(), reason: reason.into() },
        }))
    }

    #[test]
    fn of_workers_who_race_for_a_claim_one_has_it() {
        let folder = folder();
        let workers: Vec<Share> = (0..8).map(|n| join(&folder, &format!("w-{n}.0"))).collect();
        for unit in 0..20 {
            let (key, all) = (evaluation_key(3, unit), Barrier::new(workers.len()));
            let race = |share: &Share| {
                all.wait();
                share.claim(&key).unwrap()
            };
            let claims: Vec<Claim> = std::thread::scope(|scope| {
                let threads: Vec<_> = workers.iter().map(|share| scope.spawn(|| race(share))).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            assert_eq!(claims.iter().filter(|claim| **claim == Claim::Own).count(), 1, "{claims:?}");
            let winner = claims.iter().position(|claim| *claim == Claim::Own).unwrap();
            assert_eq!(workers[winner].claim(&key).unwrap(), Claim::Own, "and keeps it");
        }
        let left = std::fs::read_dir(folder.path().join("claims")).unwrap().count();
        assert_eq!(left, 20, "nothing of those who lost is left");
    }

    #[test]
    fn what_a_dead_worker_claimed_is_taken_over_once_and_nobodys_who_lives() {
        let folder = folder();
        let key = evaluation_key(3, 0);
        let [first, second, third] = ["a-0.0", "a-1.0", "a-2.0"].map(|own| join(&folder, own));
        assert_eq!(first.claim(&key).unwrap(), Claim::Own);
        let until = Instant::now() + FAST.silence * 3;
        while Instant::now() < until {
            assert_eq!(second.claim(&key).unwrap(), Claim::Others, "it lives");
            std::thread::sleep(FAST.beat / 2);
        }
        die(first);
        let mut taken = [Claim::Others; 2];
        let (begun, deadline) = (Instant::now(), Instant::now() + Duration::from_secs(20));
        while !taken.contains(&Claim::Own) {
            taken = [&second, &third].map(|share| share.claim(&key).unwrap());
            assert!(Instant::now() < deadline);
            std::thread::sleep(FAST.beat / 2);
        }
        assert!(begun.elapsed() > FAST.silence && taken.contains(&Claim::Others), "{taken:?}");
        // One that ends in order, or whose script says that it ended, is not waited for.
        let last = evaluation_key(3, 1);
        assert_eq!(second.claim(&last).unwrap(), Claim::Own);
        drop(second);
        assert_eq!(third.claim(&last).unwrap(), Claim::Own);
    }

    #[test]
    fn a_folder_that_was_away_makes_nobody_dead() {
        let room = tempfile::tempdir().unwrap();
        let (here, away) = (room.path().join("here"), room.path().join("away"));
        std::fs::create_dir(&here).unwrap();
        make(&here).unwrap();
        std::fs::write(here.join(WITNESS), "{}").unwrap();
        let key = evaluation_key(0, 0);
        let [owner, other] = ["a-0.0", "a-1.0"].map(|own| Share::at(&here, own, FAST, true).unwrap());
        assert_eq!(owner.claim(&key).unwrap(), Claim::Own);
        assert_eq!(other.claim(&key).unwrap(), Claim::Others);
        std::fs::rename(&here, &away).unwrap();
        let back = std::thread::spawn({
            let (here, away) = (here.clone(), away.clone());
            move || {
                std::thread::sleep(FAST.silence * 4);
                std::fs::rename(away, here).unwrap();
            }
        });
        assert_eq!(other.claim(&key).unwrap(), Claim::Others, "asked while it was away");
        back.join().unwrap();
        let until = Instant::now() + FAST.silence * 2;
        while Instant::now() < until {
            assert_eq!(other.claim(&key).unwrap(), Claim::Others);
            std::thread::sleep(FAST.beat);
        }
    }

    #[test]
    fn a_result_is_the_first_and_stays_it() {
        let folder = folder();
        let [slow, quick] = ["a-0.0", "a-1.0"].map(|own| join(&folder, own));
        let key = evaluation_key(3, 0);
        // Taken for dead, the slow one measures on, and comes second.
        assert_eq!(quick.write(&key, &result(0, "quick")).unwrap(), result(0, "quick"));
        assert_eq!(slow.write(&key, &result(0, "slow")).unwrap(), result(0, "quick"));
        assert_eq!(slow.claim(&key).unwrap(), Claim::Done);
        assert_eq!(quick.keys().unwrap(), [key]);
        let terms = [&slow, &quick].map(|share| share.terms(share.own()).unwrap());
        assert_eq!(terms, ["a-0.0", "a-0.0"]);
        assert_eq!(
            (slow.ended().unwrap(), slow.end("x").unwrap(), quick.end("y").unwrap()),
            (None, "x".into(), "x".into())
        );
    }

    #[test]
    fn a_torn_line_is_put_aside_and_measured_again() {
        let folder = folder();
        let [dead, other] = ["a-0.0", "a-1.0"].map(|own| join(&folder, own));
        let key = evaluation_key(3, 0);
        assert_eq!(dead.claim(&key).unwrap(), Claim::Own);
        dead.write(&key, &result(0, "torn")).unwrap();
        let path = folder.path().join("journal").join(&key).join(LINE);
        let text = std::fs::read_to_string(&path).unwrap();
        drop(dead);
        for torn in ["", &text[..text.len() - 1], &text[..20], "what\n"] {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, torn).unwrap();
            assert_eq!(other.claim(&key).unwrap(), Claim::Own, "`{torn}`");
            let _ = std::fs::remove_dir_all(folder.path().join("torn").join(format!("{key}.a-1.0")));
        }
        assert_eq!(other.write(&key, &result(0, "whole")).unwrap(), result(0, "whole"));
        assert_eq!(other.claim(&key).unwrap(), Claim::Done);
    }
}
