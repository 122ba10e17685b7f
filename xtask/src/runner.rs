//! Runs `sdpa-runner`: one process a job, in a process group of its own, with a limit on how long it may be silent.
//! Whatever happens to it becomes a value here; it never takes the pipeline with it.

use std::fs::File;
use std::io::{BufRead, BufReader, PipeReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use kbench::job::{Event, Job};

use crate::layout::Layout;

/// How long a process may stay after its last word, or after it closed its output without one.
const LEAVE: Duration = Duration::from_secs(10);

/// The variable by which CUDA shows a process some of the GPUs.
pub const VISIBLE_DEVICES: &str = "CUDA_VISIBLE_DEVICES";

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// `Done` was its last word.
    Done,
    /// It said why it could not go on.
    Error(String),
    /// It died without a last word: a signal, a silent exit, or silence past the limit.
    Lost(String),
}

/// Where the runner is and where its logs go.
#[derive(Clone, Debug)]
pub struct Runner {
    /// The program and leading arguments: the runner itself, or a tool that wraps it.
    pub command: Vec<String>,
    /// Folder of the logs.
    pub logs: PathBuf,
}

impl Runner {
    /// The runner of a dist folder, or the checkout's, built first if need be.
    pub fn locate(layout: &Layout, logs: &Path) -> Result<Runner> {
        let program = if layout.is_dist() { layout.root.join("sdpa-runner") } else { build(layout)? };
        Ok(Runner { command: vec![program.display().to_string()], logs: logs.to_owned() })
    }

    /// The same runner, to which only one GPU is visible: an ordinal or unique id as CUDA takes them.
    pub fn on_gpu(&self, gpu: &str) -> Runner {
        let mut command = vec!["env".to_owned(), format!("{VISIBLE_DEVICES}={gpu}")];
        command.extend(self.command.clone());
        Runner { command, logs: self.logs.clone() }
    }

    /// Runs a job. `on_event` sees every event; `silence` is how long the runner may say nothing.
    pub fn run(&self, name: &str, job: &Job, silence: Duration, mut on_event: impl FnMut(Event)) -> Result<End> {
        std::fs::create_dir_all(&self.logs).with_context(|| format!("failed to create `{}`", self.logs.display()))?;
        let log = self.logs.join(format!("{name}.log"));
        let child = Child::start(&self.command, &log)?;
        child.send(serde_json::to_string(job)?)?;
        loop {
            match child.events.recv_timeout(silence) {
                Ok(Ok(Event::Done)) => return child.ended(Some(End::Done), &log),
                Ok(Ok(Event::Error { why })) => return child.ended(Some(End::Error(why)), &log),
                Ok(Ok(event)) => on_event(event),
                Ok(Err(line)) => {
                    return Ok(End::Lost(format!("it wrote `{line}`, which is no event; see `{}`", log.display())));
                }
                Err(RecvTimeoutError::Disconnected) => return child.ended(None, &log),
                Err(RecvTimeoutError::Timeout) => {
                    let seconds = silence.as_secs();
                    return Ok(End::Lost(format!(
                        "it was silent for {seconds} s and was stopped; see `{}`",
                        log.display()
                    )));
                }
            }
        }
    }
}

/// Builds the runner with optimisation: its reference is float64 arithmetic over millions of elements.
fn build(layout: &Layout) -> Result<PathBuf> {
    let step = crate::console::Step::begin("runner", 0);
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let arguments = ["build", "--quiet", "--release", "--locked", "--package", "sdpa-runner"];
    let output = duct::cmd(&cargo, arguments).dir(&layout.root).stderr_capture().stdout_null().unchecked().run();
    let output = output.with_context(|| format!("failed to start `{}`", cargo.display()))?;
    if !output.status.success() {
        bail!("failed to build sdpa-runner:\n{}", String::from_utf8_lossy(&output.stderr).trim_end());
    }
    step.end("ready");
    Ok(layout.target.join("release/sdpa-runner"))
}

/// A running runner; stopped, with all its children, when dropped.
struct Child {
    handle: duct::Handle,
    stdin: std::io::PipeWriter,
    events: Receiver<Result<Event, String>>,
}

impl Child {
    fn start(command: &[String], log: &Path) -> Result<Child> {
        let (program, arguments) = command.split_first().context("the runner is a program")?;
        let (stdin_reader, stdin) = std::io::pipe().context("failed to make a pipe")?;
        let (stdout, stdout_writer) = std::io::pipe().context("failed to make a pipe")?;
        let log_file = File::options().create(true).append(true).open(log);
        let log_file = log_file.with_context(|| format!("failed to open `{}`", log.display()))?;
        let expression = duct::cmd(program, arguments)
            .stdin_file(stdin_reader)
            .stdout_file(stdout_writer)
            .stderr_file(log_file)
            .before_spawn(|command| {
                command.process_group(0);
                Ok(())
            })
            .unchecked();
        let handle = expression.start().with_context(|| format!("failed to start `{program}`"))?;
        // The expression holds our copies of the child's ends; they must close for the child's exit to be seen.
        drop(expression);
        Ok(Child { handle, stdin, events: read_events(stdout) })
    }

    /// Hands the job over on a thread of its own: a runner that does not read would block us once the pipe is full.
    fn send(&self, job: String) -> Result<()> {
        let mut stdin = self.stdin.try_clone().context("failed to share a pipe")?;
        std::thread::spawn(move || {
            // A runner that died at once has closed its end; how it died is told by `ended`.
            let _ = writeln!(stdin, "{job}");
        });
        Ok(())
    }

    /// Lets the process leave and explains an end without a last word. After its last word it may still have to write:
    /// a sanitizer sums up when what it watched is gone.
    fn ended(self, last_word: Option<End>, log: &Path) -> Result<End> {
        use std::os::unix::process::ExitStatusExt;
        let start = Instant::now();
        let status = loop {
            if let Some(output) = self.handle.try_wait().context("failed to wait for the runner")? {
                break Some(output.status);
            }
            if start.elapsed() > LEAVE {
                break None;
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        if let Some(end) = last_word {
            return Ok(end);
        }
        let how = match status.map(|s| (s.signal(), s.code())) {
            None => "it closed its output, stayed, and was stopped".to_owned(),
            Some((Some(9), _)) => "it was killed (signal 9; out of memory, or by hand)".to_owned(),
            Some((Some(signal), _)) => format!("it was ended by signal {signal}"),
            Some((None, code)) => format!("it exited with status {} and no last word", code.unwrap_or(-1)),
        };
        Ok(End::Lost(format!("{how}; see `{}`", log.display())))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        for pid in self.handle.pids() {
            if let Some(pid) = rustix::process::Pid::from_raw(pid as i32) {
                // The group holds the runner and the peers it started.
                let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
            }
        }
        let _ = self.handle.wait();
    }
}

/// Parses lines on a thread, so that waiting for them can have a limit.
fn read_events(stdout: PipeReader) -> Receiver<Result<Event, String>> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut reader = BufReader::new(stdout);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            let shown = || String::from_utf8_lossy(&line).trim_end().chars().take(200).collect();
            if sender.send(serde_json::from_slice(&line).map_err(|_| shown())).is_err() {
                break;
            }
            line.clear();
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A shell script in the runner's place.
    fn run(script: &str, silence: Duration) -> (End, Vec<Event>, tempfile::TempDir) {
        let logs = tempfile::tempdir().unwrap();
        let command = vec!["sh".to_owned(), "-c".to_owned(), script.to_owned()];
        let runner = Runner { command, logs: logs.path().to_owned() };
        let mut events = Vec::new();
        let end = runner.run("test", &Job::Probe, silence, |event| events.push(event)).unwrap();
        (end, events, logs)
    }

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn events_arrive_and_done_ends_the_job() {
        let progress = r#"{"event":"progress","done":1,"total":2,"what":"x"}"#;
        let (end, events, logs) = run(
            &format!(
                "read job; echo \"$job\" >&2; echo '{progress}'; echo '{{\"event\":\"done\"}}'; sleep 0.1; echo late >&2"
            ),
            LONG,
        );
        assert_eq!(end, End::Done);
        assert_eq!(events.len(), 1);
        let log = std::fs::read_to_string(logs.path().join("test.log")).unwrap();
        assert_eq!(log.trim(), "{\"job\":\"probe\"}\nlate", "what is said after the last word is waited for");
    }

    #[test]
    fn every_other_end_is_told_apart() {
        let lost = |script: &str, silence| match run(script, silence).0 {
            End::Lost(why) => why,
            other => panic!("{other:?}"),
        };
        assert!(lost("exit 7", LONG).contains("exited with status 7"));
        assert!(lost("kill -9 $$", LONG).contains("signal 9"));
        assert!(lost("kill -SEGV $$", LONG).contains("signal 11"));
        assert!(lost("echo hello; sleep 60", LONG).contains("`hello`, which is no event"));
        assert!(lost("printf '\\377\\n'; sleep 60", LONG).contains("which is no event"));
        assert!(lost("sleep 60", Duration::from_millis(200)).contains("silent"));
        assert_eq!(run(r#"echo '{"event":"error","why":"no room"}'"#, LONG).0, End::Error("no room".into()));
    }

    #[test]
    fn children_of_the_runner_die_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("alive");
        let script = format!("(while true; do date >> '{}'; sleep 0.05; done) & sleep 60", file.display());
        run(&script, Duration::from_millis(400));
        assert!(file.exists(), "the grandchild ran");
        let size = || std::fs::metadata(&file).unwrap().len();
        let before = size();
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(before, size(), "the grandchild is still writing");
    }
}
