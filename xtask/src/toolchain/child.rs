//! Runs a child process to its end, with a deadline and its output in a file.
//!
//! A file, not a pipe: the output survives for a person to read, and nothing has to drain it.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use duct::Expression;

/// How often a running child is looked at.
const POLL: Duration = Duration::from_millis(100);

/// How a child ended.
pub(crate) enum End {
    Exited {
        success: bool,
        /// Standard output and standard error, in the order written.
        output: String,
    },
    /// It ran past the deadline and was killed.
    TimedOut,
}

/// Runs `command` until it ends or `limit` has passed. `watch` gets all that was written so far, now and then.
pub(crate) fn run(command: &Expression, log: &Path, limit: Duration, watch: &mut dyn FnMut(&str)) -> io::Result<End> {
    let deadline = Instant::now() + limit;
    let handle = command.stdin_null().stderr_to_stdout().stdout_path(log).unchecked().start()?;
    let read = || fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    loop {
        if let Some(end) = handle.wait_timeout(POLL)? {
            let output = read()?;
            watch(&output);
            return Ok(End::Exited { success: end.status.success(), output });
        }
        if Instant::now() >= deadline {
            handle.kill()?;
            return Ok(End::TimedOut);
        }
        watch(&read()?);
    }
}
