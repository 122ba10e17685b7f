//! Events to the pipeline: one JSON line each on standard output, flushed, so that a runner that is killed has told
//! everything it did.

use std::io::Write;

use kbench::job::Event;

/// Writes one event. A closed pipe means that nobody listens any more: the process ends.
pub fn emit(event: &Event) {
    let written = serde_json::to_string(event).map_err(std::io::Error::other).and_then(|line| {
        let mut stdout = std::io::stdout().lock();
        writeln!(stdout, "{line}")?;
        stdout.flush()
    });
    if written.is_err() {
        std::process::exit(kbench::job::EXIT_ERROR);
    }
}

/// Writes a progress event.
pub fn progress(done: usize, total: usize, what: &str) {
    emit(&Event::Progress { done: done as u64, total: total as u64, what: what.to_owned() });
}
