//! Events to the pipeline: one JSON line each, flushed, so that a runner that is killed has told everything it did.
//!
//! They go to what was standard output at the start. From then on standard output is the log: device code can print
//! there, and must not be able to speak to the pipeline.

use std::fs::File;
use std::io::Write;
use std::sync::{Mutex, OnceLock};

use kbench::job::Event;

static CHANNEL: OnceLock<Mutex<File>> = OnceLock::new();

/// Keeps standard output for events and points it at standard error. Call before anything else can print.
pub fn claim_standard_output() -> std::io::Result<()> {
    // The copy is closed in child processes, so that peers cannot speak to the pipeline either.
    let channel = rustix::io::fcntl_dupfd_cloexec(std::io::stdout(), 3)?;
    rustix::stdio::dup2_stdout(std::io::stderr())?;
    let _ = CHANNEL.set(Mutex::new(File::from(channel)));
    Ok(())
}

/// Writes one event. A closed pipe means that nobody listens any more: the process ends.
pub fn emit(event: &Event) {
    let written = event.to_line().map_err(std::io::Error::other).and_then(|line| {
        let channel = CHANNEL.get().ok_or_else(|| std::io::Error::other("no channel for events"))?;
        let mut channel = channel.lock().map_err(|_| std::io::Error::other("a thread died while it spoke"))?;
        channel.write_all(format!("{line}\n").as_bytes())
    });
    if written.is_err() {
        std::process::exit(kbench::job::EXIT_ERROR);
    }
}

/// Writes a progress event.
pub fn progress(done: usize, total: usize, what: &str) {
    emit(&Event::progress(done, total, what));
}
