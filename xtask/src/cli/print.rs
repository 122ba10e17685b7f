//! Results on standard output: as JSON where that is asked for, else in words.

use std::io::Write;

use anyhow::Result;
use serde::Serialize;

/// Prints a value or its words.
pub fn print(json: bool, value: &impl Serialize, text: impl FnOnce() -> String) -> Result<()> {
    say(&if json { serde_json::to_string_pretty(value)? } else { text() })
}

/// One line or more. A reader that has seen enough (`| head`) is no error of ours: the exit status stays the verdict.
pub fn say(text: &str) -> Result<()> {
    match writeln!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}
