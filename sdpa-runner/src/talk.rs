//! Talking to another process: one JSON question a line on its standard input, one JSON answer a line on its standard output.
//! Who is not trusted to answer has a time and a share of the host's memory, and whatever it started goes with it.
//! Leaves to others: what is asked, and what an answer is worth.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;

/// The longest answer: whoever says more without an end says nothing.
const MOST_BYTES: u64 = 16 << 20;
/// How often memory is looked at while nothing is said.
const LOOK: Duration = Duration::from_millis(100);
/// How often whoever waits says so.
const TICK: Duration = Duration::from_secs(10);

/// What an answer may take.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Until it is there.
    pub time: Duration,
    /// Memory of the process and of what it started, in bytes.
    pub memory: u64,
    /// What is called while nothing is said, every ten seconds.
    pub tick: fn(),
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Silence {
    /// The process is gone, or has closed its end.
    #[error("ended before it answered")]
    Ended,
    /// It took too long, and was killed.
    #[error("took longer than {} s", .0.as_secs_f64())]
    Late(Duration),
    /// It took too much, and was killed.
    #[error("took more than {} MiB of memory", .0 >> 20)]
    Memory(u64),
    /// It is no JSON.
    #[error("said `{0}`")]
    Nonsense(String),
}

/// A process that is talked to, and ended with the talk.
pub struct Talk {
    child: Child,
    /// Whether it leads a process group of its own, which is ended with it.
    apart: bool,
    /// Whether it stands still until it is asked again.
    paused: bool,
    stdin: ChildStdin,
    lines: Receiver<String>,
}

impl Talk {
    /// Starts it.
    pub fn start(command: &mut Command) -> io::Result<Talk> {
        Talk::start_in(command, false)
    }

    /// Starts it in a process group of its own. It outlives this process where that is killed, unless it sees to that.
    pub fn start_apart(command: &mut Command) -> io::Result<Talk> {
        Talk::start_in(command.process_group(0), true)
    }

    fn start_in(command: &mut Command, apart: bool) -> io::Result<Talk> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let piped = || io::Error::other("its standard streams are piped");
        let stdin = child.stdin.take().ok_or_else(piped)?;
        let mut stdout = BufReader::new(child.stdout.take().ok_or_else(piped)?);
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            let mut line = Vec::new();
            while stdout.by_ref().take(MOST_BYTES).read_until(b'\n', &mut line).is_ok() && line.ends_with(b"\n") {
                if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                    break;
                }
                line.clear();
            }
        });
        Ok(Talk { child, apart, paused: false, stdin, lines })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// One question, one answer; for as long as it takes without a limit.
    pub fn ask(&mut self, question: &Value, patience: Option<&Patience>) -> Result<Value, Silence> {
        if std::mem::take(&mut self.paused) {
            self.signal(Signal::CONT);
        }
        let asked = writeln!(self.stdin, "{question}").and_then(|()| self.stdin.flush());
        asked.map_err(|_| Silence::Ended)?;
        let line = match patience {
            None => self.lines.recv().map_err(|_| Silence::Ended)?,
            Some(patience) => self.wait(patience)?,
        };
        serde_json::from_str(&line).map_err(|_| Silence::Nonsense(line.trim().chars().take(200).collect()))
    }

    fn wait(&mut self, patience: &Patience) -> Result<String, Silence> {
        let (start, mut ticked) = (Instant::now(), Instant::now());
        loop {
            let left = patience.time.saturating_sub(start.elapsed());
            match self.lines.recv_timeout(left.min(LOOK)) {
                Ok(line) => return Ok(line),
                Err(RecvTimeoutError::Disconnected) => return Err(Silence::Ended),
                Err(RecvTimeoutError::Timeout) => {}
            }
            let silence = if left.is_zero() {
                Silence::Late(patience.time)
            } else if self.memory() > patience.memory {
                Silence::Memory(patience.memory)
            } else {
                if ticked.elapsed() > TICK {
                    (patience.tick)();
                    ticked = Instant::now();
                }
                continue;
            };
            self.kill();
            return Err(silence);
        }
    }

    /// Memory that is nobody else's, of every process of the group.
    fn memory(&self) -> u64 {
        let own = self.child.id().to_string();
        let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let of_group = processes.filter(|process| {
            let stat = std::fs::read_to_string(process.path().join("stat")).unwrap_or_default();
            // Behind the name, which may hold anything: state, parent, group.
            stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(2)) == Some(&own)
        });
        of_group.map(|process| held(&std::fs::read_to_string(process.path().join("status")).unwrap_or_default())).sum()
    }

    /// Has it and what it started stand still, with all threads, until it is asked again. Only who is apart can be.
    pub fn pause(&mut self) {
        self.paused = self.signal(Signal::STOP);
    }

    /// To all of its group, where it has one of its own.
    fn signal(&self, signal: Signal) -> bool {
        let group = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).filter(|_| self.apart);
        group.is_some_and(|group| kill_process_group(group, signal).is_ok())
    }

    fn kill(&mut self) {
        self.signal(Signal::KILL);
        let _ = self.child.kill();
    }

    /// Says a last word, and waits until it has left by itself.
    pub fn leave(mut self, word: &Value) {
        if writeln!(self.stdin, "{word}").is_ok() {
            let _ = self.child.wait();
        }
    }
}

/// Bytes that a process holds besides files that are mapped.
fn held(status: &str) -> u64 {
    let of = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    (of("RssAnon:").unwrap_or(0) + of("RssShmem:").unwrap_or(0)) << 10
}

impl Drop for Talk {
    fn drop(&mut self) {
        self.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn shell(script: &str) -> Talk {
        Talk::start_apart(Command::new("sh").args(["-c", script])).unwrap()
    }

    fn asked(script: &str, patience: Patience) -> Result<Value, Silence> {
        shell(script).ask(&json!({"op": "hello"}), Some(&patience))
    }

    const AMPLE: Patience = Patience { time: Duration::from_secs(60), memory: 1 << 40, tick: || () };

    #[test]
    fn an_answer_is_heard_and_every_silence_has_its_reason() {
        assert_eq!(asked(r#"read q; echo "{\"ok\":true}""#, AMPLE), Ok(json!({"ok": true})));
        assert_eq!(asked("read q", AMPLE), Err(Silence::Ended));
        assert_eq!(asked("read q; echo so", AMPLE), Err(Silence::Nonsense("so".to_owned())));
        let short = Patience { time: Duration::from_millis(200), ..AMPLE };
        assert_eq!(asked("read q; sleep 60", short), Err(Silence::Late(short.time)));
        let small = Patience { memory: 100 << 20, ..AMPLE };
        let hungry = "read q; head -c 300000000 /dev/zero | tail -c 250000000 | sleep 60";
        assert_eq!(asked(hungry, small), Err(Silence::Memory(small.memory)));
    }

    #[test]
    fn who_is_paused_does_nothing_until_it_is_asked() {
        let room = tempfile::tempdir().unwrap();
        let file = room.path().join("ticks");
        let script = "(while echo >> \"$0\"; do sleep 0.01; done) & \
                      read q; until [ -s \"$0\" ]; do sleep 0.01; done; echo 1; read q; echo 2; wait";
        let mut talk = Talk::start_apart(Command::new("sh").args(["-c", script]).arg(&file)).unwrap();
        assert_eq!(talk.ask(&json!(0), Some(&AMPLE)), Ok(json!(1)));
        let ticks = || std::fs::read(&file).unwrap().len();
        let pause = || std::thread::sleep(Duration::from_millis(150));
        talk.pause();
        pause();
        let before = ticks();
        pause();
        assert_eq!(ticks(), before);
        assert_eq!(talk.ask(&json!(0), Some(&AMPLE)), Ok(json!(2)));
        assert!((0..100).any(|_| {
            pause();
            ticks() > before
        }));
    }

    #[test]
    fn who_never_ends_a_line_is_not_listened_to_for_ever() {
        let endless = "read q; head -c 40000000 /dev/zero | tr '\\0' x; sleep 60";
        assert_eq!(asked(endless, AMPLE), Err(Silence::Ended));
    }

    #[test]
    fn what_it_started_goes_with_it() {
        let room = tempfile::tempdir().unwrap();
        let file = room.path().join("pid");
        let mut talk = shell(&format!("sleep 300 & echo $! > '{}'; read q; echo 1; wait", file.display()));
        assert_eq!(talk.ask(&json!(1), Some(&AMPLE)), Ok(json!(1)));
        drop(talk);
        let pid = std::fs::read_to_string(file).unwrap();
        let gone = || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
            stat.map_or(true, |stat| stat.contains(") Z"))
        };
        assert!((0..100).any(|_| gone() || {
            std::thread::sleep(Duration::from_millis(20));
            false
        }));
    }
}
