//! Runs `sdpa-runner`: one process a job, in a process group of its own, with a limit on how long it may be silent.
//! Whatever happens to it becomes a value here; it never takes the pipeline with it.

use std::fs::File;
use std::io::{BufRead, BufReader, PipeReader, PipeWriter, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use kbench::job::{Event, Job};

use crate::interrupt;
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
    Lost {
        /// How.
        how: String,
        /// The same, and which log says more.
        why: String,
    },
}

impl End {
    fn lost(how: String, log: &Path) -> End {
        End::Lost { why: format!("{how}; see `{}`", log.display()), how }
    }
}

/// Where the runner is and where its logs go.
#[derive(Clone, Debug)]
pub struct Runner {
    /// The program and leading arguments: the runner itself, or a tool that wraps it.
    pub command: Vec<String>,
    /// Folder of the logs.
    pub logs: PathBuf,
    /// The only GPU that it sees, as CUDA names it; all that the environment shows where absent.
    pub gpu: Option<String>,
}

impl Runner {
    /// The runner of a dist folder, or the checkout's, built first if need be.
    pub fn locate(layout: &Layout, logs: &Path) -> Result<Runner> {
        let program = if layout.is_dist() {
            layout.root.join("sdpa-runner")
        } else {
            built(layout, "sdpa-runner", "sdpa-runner")?
        };
        std::fs::create_dir_all(logs).with_context(|| format!("failed to create `{}`", logs.display()))?;
        Ok(Runner { command: vec![program.display().to_string()], logs: logs.to_owned(), gpu: None })
    }

    /// The same where it is there already; nothing is built.
    pub fn present(layout: &Layout, logs: &Path) -> Option<Runner> {
        let folder = if layout.is_dist() { layout.root.clone() } else { layout.target.join(own_profile()) };
        let program = folder.join("sdpa-runner");
        let command = vec![program.display().to_string()];
        program.is_file().then(|| Runner { command, logs: logs.to_owned(), gpu: None })
    }

    /// The same runner, to which only one GPU is visible: an ordinal or unique id as CUDA takes them.
    pub fn on_gpu(&self, gpu: &str) -> Runner {
        Runner { gpu: Some(gpu.to_owned()), ..self.clone() }
    }

    /// The file of a log, in its folder.
    fn log(&self, name: &str) -> Result<PathBuf> {
        // Only itself: where the folder that it lies in is away for a while, another must not take its place.
        match std::fs::create_dir(&self.logs) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            other => other.with_context(|| format!("failed to create `{}`", self.logs.display()))?,
        }
        Ok(self.logs.join(format!("{name}.log")))
    }

    /// Runs a job. `on_event` sees every event; `silence` is how long the runner may say nothing.
    pub fn run(&self, name: &str, job: &Job, silence: Duration, mut on_event: impl FnMut(Event)) -> Result<End> {
        let log = self.log(name)?;
        let child = Child::start(self, &log)?;
        child.send(job.to_line()?);
        match child.hear(silence, &log, &mut on_event) {
            Heard::Done => child.ended(Some(End::Done), &log),
            Heard::Error(why) => child.ended(Some(End::Error(why)), &log),
            Heard::Silence(end) => Ok(end),
            Heard::Nothing => child.ended(None, &log),
        }
    }
}

/// A runner that stays and takes one job after another: started when it is first needed, and anew after a job that failed.
pub struct Resident {
    /// What it is asked first, by which it stays.
    job: Job,
    /// The name of its log.
    name: &'static str,
    child: Option<(Child, PathBuf)>,
}

impl Default for Resident {
    /// The one that keeps a context on its GPU.
    fn default() -> Resident {
        Resident::of(Job::Resident, "resident")
    }
}

impl Resident {
    /// One that this job makes stay, and the name of its log.
    pub fn of(job: Job, name: &'static str) -> Resident {
        Resident { job, name, child: None }
    }

    /// Ends it, where it runs, and waits until it is gone: its context takes a while.
    pub fn stop(&mut self) {
        self.child = None;
    }

    /// Starts it, where it does not run, so that it opens its GPU while nobody waits for it.
    pub fn start(&mut self, runner: &Runner) -> Result<()> {
        self.running(runner).map(|running| self.child = Some(running))
    }

    /// The process and its log, which is where it was when the process started.
    fn running(&mut self, runner: &Runner) -> Result<(Child, PathBuf)> {
        if let Some(running) = self.child.take() {
            return Ok(running);
        }
        let log = runner.log(self.name)?;
        let child = Child::start(runner, &log)?;
        child.send(self.job.to_line()?);
        Ok((child, log))
    }

    /// Runs a job on it; see [`Runner::run`].
    pub fn run(
        &mut self,
        runner: &Runner,
        job: &Job,
        silence: Duration,
        mut on_event: impl FnMut(Event),
    ) -> Result<End> {
        let (child, log) = self.running(runner)?;
        child.send(job.to_line()?);
        match child.hear(silence, &log, &mut on_event) {
            Heard::Done => {
                self.child = Some((child, log));
                Ok(End::Done)
            }
            Heard::Error(why) => child.ended(Some(End::Error(why)), &log),
            Heard::Silence(end) => Ok(end),
            Heard::Nothing => child.ended(None, &log),
        }
    }
}

/// How the talk about a job ended.
enum Heard {
    /// Its last word was `Done`.
    Done,
    /// Its last word was `Error`.
    Error(String),
    /// It said nothing for too long, or something that is no event.
    Silence(End),
    /// It closed its output.
    Nothing,
}

/// A file of a package, which cargo makes as it made this program: together with it, since cargo compiles a crate anew for
/// every set of features, and would put another program in this one's place if there were two.
pub fn built(layout: &Layout, package: &str, file: &str) -> Result<PathBuf> {
    let step = crate::console::Step::begin(file, 0);
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let profile = if own_profile() == "release" { "release" } else { "dev" };
    let packages = ["--package", "xtask", "--package", package];
    let arguments = ["build", "--quiet", "--locked", "--profile", profile].into_iter().chain(packages);
    let output = duct::cmd(&cargo, arguments).dir(&layout.root).stderr_capture().stdout_null().unchecked().run();
    let output = output.with_context(|| format!("failed to start `{}`", cargo.display()))?;
    if !output.status.success() {
        eprint!("{}", String::from_utf8_lossy(&output.stderr));
        bail!("failed to build {file}: cargo's own words are above");
    }
    step.end("ready");
    Ok(layout.target.join(own_profile()).join(file))
}

/// The folder under `target` of the profile that this program was built with; that of development where that is unknown.
fn own_profile() -> &'static str {
    let program = std::env::current_exe().unwrap_or_default();
    if program.components().any(|part| part.as_os_str() == "release") { "release" } else { "debug" }
}

/// A running runner; stopped, with all its children, when dropped.
struct Child {
    handle: duct::Handle,
    /// It goes with the program, however that ends.
    _duties: Vec<interrupt::Duty>,
    jobs: Sender<String>,
    events: Receiver<Result<Event, String>>,
}

impl Child {
    fn start(runner: &Runner, log: &Path) -> Result<Child> {
        let (program, arguments) = runner.command.split_first().context("the runner is a program")?;
        let (stdin_reader, stdin) = std::io::pipe().context("failed to make a pipe")?;
        let (stdout, stdout_writer) = std::io::pipe().context("failed to make a pipe")?;
        let log_file = File::options().create(true).append(true).open(log);
        let log_file = log_file.with_context(|| format!("failed to open `{}`", log.display()))?;
        let mut expression = duct::cmd(program, arguments);
        if let Some(gpu) = &runner.gpu {
            expression = expression.env(VISIBLE_DEVICES, gpu);
        }
        let expression = expression
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
        let _duties = handle.pids().into_iter().map(interrupt::group).collect();
        Ok(Child { handle, _duties, jobs: write_jobs(stdin), events: read_events(stdout) })
    }

    /// Listens until the talk about a job ends.
    fn hear(&self, silence: Duration, log: &Path, on_event: &mut dyn FnMut(Event)) -> Heard {
        loop {
            match self.events.recv_timeout(silence) {
                Ok(Ok(Event::Done)) => return Heard::Done,
                Ok(Ok(Event::Error { why })) => return Heard::Error(why),
                Ok(Ok(event)) => on_event(event),
                Ok(Err(line)) => {
                    return Heard::Silence(End::lost(format!("it wrote `{line}`, which is no event"), log));
                }
                Err(RecvTimeoutError::Disconnected) => return Heard::Nothing,
                Err(RecvTimeoutError::Timeout) => {
                    let seconds = silence.as_secs();
                    return Heard::Silence(End::lost(format!("it was silent for {seconds} s and was stopped"), log));
                }
            }
        }
    }

    /// Hands a job over, after those before it.
    fn send(&self, job: String) {
        // Whoever writes has ended only if the runner closed its end; how it died is told by `ended`.
        let _ = self.jobs.send(job);
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
        Ok(End::lost(how, log))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        for pid in self.handle.pids() {
            // The group holds the runner and the peers it started.
            interrupt::kill(pid);
        }
        let _ = self.handle.wait();
    }
}

/// Writes jobs on one thread, so that they keep their order: a runner that does not read would block us once the pipe is
/// full. The pipe closes with the sender.
fn write_jobs(mut stdin: PipeWriter) -> Sender<String> {
    let (sender, jobs) = channel::<String>();
    std::thread::spawn(move || {
        while let Ok(job) = jobs.recv() {
            if writeln!(stdin, "{job}").is_err() {
                break;
            }
        }
    });
    sender
}

/// Parses lines on a thread, so that waiting for them can have a limit.
fn read_events(stdout: PipeReader) -> Receiver<Result<Event, String>> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut reader = BufReader::new(stdout);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            let shown = || String::from_utf8_lossy(&line).trim_end().chars().take(200).collect();
            if sender.send(Event::from_line(&line).map_err(|_| shown())).is_err() {
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
        let runner = Runner { command, logs: logs.path().to_owned(), gpu: None };
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
            End::Lost { why, .. } => why,
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
    fn a_resident_takes_jobs_until_one_fails_and_a_new_one_takes_the_rest() {
        let logs = tempfile::tempdir().unwrap();
        let starts = logs.path().join("starts");
        // The third job of each process kills it.
        let script = format!(
            "echo x >> '{}'; read first; n=0; while read job; do n=$((n+1)); [ $n = 3 ] && kill -9 $$; \
             echo '{{\"event\":\"done\"}}'; done",
            starts.display()
        );
        let command = ["sh", "-c", &script].map(str::to_owned).to_vec();
        let runner = Runner { command, logs: logs.path().to_owned(), gpu: Some("7".to_owned()) };
        let mut resident = Resident::default();
        let mut run = || resident.run(&runner, &Job::Probe, LONG, |_| {}).unwrap();
        let ends: Vec<End> = (0..5).map(|_| run()).collect();
        let lost = |end: &End| matches!(end, End::Lost { why, .. } if why.contains("signal 9"));
        assert_eq!(ends.iter().map(lost).collect::<Vec<_>>(), [false, false, true, false, false]);
        assert_eq!(std::fs::read_to_string(starts).unwrap().lines().count(), 2);
    }

    #[test]
    fn what_makes_a_resident_stay_reaches_it_before_its_first_job() {
        let logs = tempfile::tempdir().unwrap();
        let script =
            "read first; case \"$first\" in *comparer*) ;; *) exit 7;; esac; read job; echo '{\"event\":\"done\"}'";
        let command = ["sh", "-c", script].map(str::to_owned).to_vec();
        let runner = Runner { command, logs: logs.path().to_owned(), gpu: None };
        for _ in 0..50 {
            let mut resident = Resident::of(Job::Comparer, "comparer");
            assert_eq!(resident.run(&runner, &Job::Probe, LONG, |_| {}).unwrap(), End::Done);
        }
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
