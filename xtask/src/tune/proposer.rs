//! An external proposer: a process that is told what is known and says what to try next, one JSON line each way. It is
//! never trusted: a wrong, slow or dead one is dropped with a warning in the record, and the built-in search goes on.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use anyhow::{Context, Result};
use kbench::tune::{Candidates, Proposal, Request, Search, Space};

use crate::interrupt;

/// Longer answers are not read.
const MOST_BYTES: usize = 1 << 20;

/// A running proposer; its process group ends with it.
pub struct Proposer {
    child: Child,
    _duty: interrupt::Duty,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    patience: Duration,
}

impl Proposer {
    /// Starts a shell command. What it writes to standard error goes to ours.
    pub fn start(command: &str, patience: Duration) -> Result<Proposer> {
        let mut child = Command::new("sh")
            .args(["-c", command])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .with_context(|| format!("failed to start the proposer `{command}`"))?;
        let stdout = child.stdout.take().context("the proposer has an output")?;
        let stdin = child.stdin.take();
        let _duty = interrupt::group(child.id());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            let mut reader = BufReader::new(stdout);
            loop {
                let mut line = Vec::new();
                let mut part = std::io::Read::take(&mut reader, MOST_BYTES as u64);
                match part.read_until(b'\n', &mut line) {
                    Ok(read) if read > 0 => {}
                    _ => break,
                }
                if sender.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
                    break;
                }
            }
        });
        Ok(Proposer { child, _duty, stdin, lines, patience })
    }

    /// What it wants tried, and what was wrong with its answer; an error ends it.
    pub fn ask(
        &mut self,
        request: &Request,
        space: &Space,
        search: &Search,
    ) -> Result<(Vec<Proposal>, Vec<String>), String> {
        let line = serde_json::to_string(request).map_err(|error| error.to_string())?;
        let Some(mut stdin) = self.stdin.take() else { return Err("the proposer does not read".to_owned()) };
        // On a thread: a proposer that does not read would block us once the pipe is full.
        let (sent, written) = channel();
        std::thread::spawn(move || {
            let outcome = writeln!(stdin, "{line}").and_then(|()| stdin.flush());
            let _ = sent.send(outcome.is_ok().then_some(stdin));
        });
        let answer = self.lines.recv_timeout(self.patience);
        self.stdin = written.recv_timeout(Duration::from_millis(100)).ok().flatten();
        match answer {
            Ok(answer) => Ok(Candidates::examine(&answer, space, search)),
            Err(RecvTimeoutError::Timeout) => {
                Err(format!("the proposer said nothing for {} s and was stopped", self.patience.as_secs_f64()))
            }
            Err(RecvTimeoutError::Disconnected) => Err(match self.ended() {
                Some(status) => format!("the proposer ended ({status})"),
                None => "the proposer closed its output".to_owned(),
            }),
        }
    }

    /// How the process ended. Its output closes a moment before its status can be had.
    fn ended(&mut self) -> Option<std::process::ExitStatus> {
        (0..50).find_map(|_| {
            let status = self.child.try_wait().ok().flatten();
            if status.is_none() {
                std::thread::sleep(Duration::from_millis(10));
            }
            status
        })
    }
}

impl Drop for Proposer {
    fn drop(&mut self) {
        self.stdin = None;
        interrupt::kill(self.child.id());
        let _ = self.child.wait();
    }
}
