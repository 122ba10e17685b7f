//! What happens when somebody stops the program (Ctrl-C, or a polite kill): what it started is ended, what only this process
//! needs is removed, what is kept is said with how to go on, and the exit status is that of the signal.
//! Leaves to others: what is kept, which whoever keeps it says.

use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process_group};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// What a shell adds to the number of the signal that ended a program.
const ENDED_BY_SIGNAL: i32 = 128;

type Words = Box<dyn Fn() -> String + Send>;

/// What there is to be done, oldest first.
#[derive(Default)]
struct Duties {
    groups: Vec<u32>,
    folders: Vec<PathBuf>,
    words: Vec<(u64, Words)>,
    next: u64,
}

static DUTIES: LazyLock<Mutex<Duties>> = LazyLock::new(Mutex::default);

fn duties() -> MutexGuard<'static, Duties> {
    DUTIES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on the program ends in order.
pub fn listen() -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM]).context("failed to listen for Ctrl-C")?;
    std::thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            end(signal);
        }
    });
    Ok(())
}

fn end(signal: i32) -> ! {
    // Held to the end: nothing is started while the rest is ended.
    let duties = duties();
    for group in &duties.groups {
        kill(*group);
    }
    for folder in &duties.folders {
        // What is left is only space on the disk, and the next run's to clear.
        let _ = std::fs::remove_dir_all(folder);
    }
    let kept = duties.words.last().map_or("nothing was kept".to_owned(), |(_, words)| words());
    crate::console::line(&format!("interrupted: {kept}"));
    std::process::exit(ENDED_BY_SIGNAL + signal);
}

/// Ends a process group, if any of it is left.
pub fn kill(group: u32) {
    if let Some(pid) = i32::try_from(group).ok().and_then(Pid::from_raw) {
        let _ = kill_process_group(pid, Signal::KILL);
    }
}

/// A duty that ends with the value.
#[must_use = "it is given up at once"]
pub struct Duty(Kind);

enum Kind {
    Group(u32),
    Folder(PathBuf),
    Words(u64),
}

/// A process group that goes with the program.
pub fn group(pid: u32) -> Duty {
    duties().groups.push(pid);
    Duty(Kind::Group(pid))
}

/// A folder that is of no use to anybody else.
pub fn folder(path: &Path) -> Duty {
    duties().folders.push(path.to_owned());
    Duty(Kind::Folder(path.to_owned()))
}

/// What is said: what was kept, and how to go on. The newest words are said alone.
pub fn words(words: impl Fn() -> String + Send + 'static) -> Duty {
    let mut duties = duties();
    duties.next += 1;
    let number = duties.next;
    duties.words.push((number, Box::new(words)));
    Duty(Kind::Words(number))
}

impl Drop for Duty {
    fn drop(&mut self) {
        let mut duties = duties();
        match &self.0 {
            Kind::Group(pid) => duties.groups.retain(|own| own != pid),
            Kind::Folder(path) => duties.folders.retain(|own| own != path),
            Kind::Words(number) => duties.words.retain(|(own, _)| own != number),
        }
    }
}
