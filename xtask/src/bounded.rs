//! Runs a program that is not trusted to end: a compiler on somebody's source, somebody's script. It gets a process group, a
//! time, an address space and a size of files, and whatever it started goes with it.
//! Leaves to others: what is run, and what its output means.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::time::Duration;

use confine::Confinement;

use crate::interrupt;

/// What a program may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Until it is killed.
    pub time: Duration,
    /// Address space of each of its processes, where the system can limit that.
    pub memory_bytes: u64,
}

/// A program to run.
#[derive(Clone, Debug)]
pub struct Program<'a> {
    /// Program and arguments.
    pub argv: Vec<OsString>,
    /// Where it runs.
    pub dir: &'a Path,
    /// Variables besides the inherited ones.
    pub environment: &'a [(String, String)],
    /// Its standard input.
    pub input: Vec<u8>,
    /// What it may read and write besides a folder of its own for temporary files, and it has no network; whatever its caller may
    /// where absent.
    pub confinement: Option<Confinement>,
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// By itself, or by a signal.
    Exited {
        /// With status 0.
        success: bool,
        /// The signal that ended it.
        signal: Option<i32>,
        /// Standard output.
        output: String,
        /// Standard error.
        errors: String,
    },
    /// It ran past its time and was killed.
    TimedOut,
}

/// Largest file that it may write, in the shell's blocks of 512 bytes: output goes to files, and no disk is to fill up.
const MOST_BLOCKS: u64 = (4 << 30) / 512;
/// The shell sets the limits, because it can without unsafe code; one that it cannot set is left out.
const LIMITED: &str = r#"ulimit -v "$1" 2>/dev/null; ulimit -f "$2" 2>/dev/null; shift 2; exec "$@""#;

/// Runs a program to its end.
pub fn run(program: &Program<'_>, limits: Limits) -> io::Result<End> {
    let room = tempfile::tempdir()?;
    let (output, errors) = (room.path().join("output"), room.path().join("errors"));
    let kib = (limits.memory_bytes >> 10).to_string();
    let mut arguments: Vec<OsString> = ["-c", LIMITED, "sh", &kib, &MOST_BLOCKS.to_string()].map(Into::into).into();
    arguments.extend(program.argv.iter().cloned());
    let mut argv: Vec<OsString> = std::iter::once("sh".into()).chain(arguments).collect();
    if let Some(confinement) = &program.confinement {
        argv = confinement.clone().writing(room.path()).around(argv);
    }
    let mut expression = duct::cmd(&argv[0], &argv[1..])
        .dir(program.dir)
        .stdin_bytes(program.input.clone())
        .stdout_path(&output)
        .stderr_path(&errors)
        .before_spawn(|command| {
            command.process_group(0);
            Ok(())
        })
        .unchecked();
    if program.confinement.is_some() {
        expression = expression.env("TMPDIR", room.path());
    }
    for (name, value) in program.environment {
        expression = expression.env(name, value);
    }
    let handle = expression.start()?;
    let groups = handle.pids();
    let _duties: Vec<interrupt::Duty> = groups.iter().map(|pid| interrupt::group(*pid)).collect();
    let kill = || groups.iter().for_each(|group| interrupt::kill(*group));
    let ended = handle.wait_timeout(limits.time)?.map(|output| output.status);
    kill();
    let Some(status) = ended else {
        let _ = handle.wait();
        return Ok(End::TimedOut);
    };
    let read = |path: &Path| std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    Ok(End::Exited {
        success: status.success(),
        signal: status.signal(),
        output: read(&output)?,
        errors: read(&errors)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    const AMPLE: Limits = Limits { time: Duration::from_secs(60), memory_bytes: 8 << 30 };

    fn shell(script: &str, limits: Limits) -> End {
        let argv = ["sh", "-c", script].map(Into::into).into();
        let environment = [("WORD".to_owned(), "said".to_owned())];
        let program = Program {
            argv,
            dir: Path::new("/"),
            environment: &environment,
            input: b"heard\n".to_vec(),
            confinement: None,
        };
        run(&program, limits).unwrap()
    }

    #[test]
    fn what_ends_by_itself_is_told_with_what_it_wrote() {
        let end = shell("read line; echo $line $WORD; pwd >&2; exit 3", AMPLE);
        let (output, errors) = ("heard said\n".to_owned(), "/\n".to_owned());
        assert_eq!(end, End::Exited { success: false, signal: None, output, errors });
        assert!(matches!(shell("kill -SEGV $$", AMPLE), End::Exited { signal: Some(11), .. }));
    }

    #[test]
    fn what_does_not_end_is_killed_with_its_children() {
        let room = tempfile::tempdir().unwrap();
        let pid = room.path().join("pid");
        let start = Instant::now();
        let script = format!("sleep 300 & echo $! > '{}'; wait", pid.display());
        assert_eq!(shell(&script, Limits { time: Duration::from_millis(300), ..AMPLE }), End::TimedOut);
        assert!(start.elapsed() < Duration::from_secs(20));
        let pid: i32 = std::fs::read_to_string(pid).unwrap().trim().parse().unwrap();
        let gone = || rustix::process::test_kill_process(rustix::process::Pid::from_raw(pid).unwrap()).is_err();
        let zombie = || std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z"));
        assert!((0..100).any(|_| gone() || zombie() || {
            std::thread::sleep(Duration::from_millis(20));
            false
        }));
    }

    #[test]
    fn memory_is_limited() {
        let hungry = "head -c 400000000 /dev/zero | tail -c 400000000 | wc -c";
        let End::Exited { output, .. } = shell(hungry, Limits { memory_bytes: 100 << 20, ..AMPLE }) else { panic!() };
        assert_ne!(output.trim(), "400000000");
    }
}
