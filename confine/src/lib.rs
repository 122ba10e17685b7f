//! Runs what is not trusted, somebody's source in a compiler or somebody's script, with less than this process may: it reads
//! what it is given and what the system is made of, writes where it is told to, reaches no network, signals nobody outside
//! and starts only so many processes. The program starts itself anew for that, gives up what it may, and becomes the other
//! program; what a machine cannot enforce is left out, and said by [`enforced`].
//! Leaves to others: time, memory, sizes of files, and what is run.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use landlock::{
    ABI, Access, AccessFs, AccessNet, LandlockStatus, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError,
    RulesetStatus, Scope, path_beneath_rules,
};
use rustix::process::{Resource, Rlimit, getgid, getuid, setrlimit};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use serde::{Deserialize, Serialize};

/// The first argument of this program where it is to become another.
const ASKED: &str = "__confined";
/// What a system is made of: programs, libraries, their settings, and what it says of itself.
const SYSTEM: [&str; 11] =
    ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc", "/opt", "/nix", "/proc", "/sys"];
/// Devices without a memory.
const DEVICES: [&str; 6] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/tty", "/dev/random", "/dev/urandom"];
/// The rules of files, sockets and signals that are asked for; an older kernel enforces those that it has.
const RULES: ABI = ABI::V6;
/// Processes and threads that may be alive at once: a compiler has a dozen.
const PROCESSES: u64 = 512;
/// What a shell answers where it cannot start a program.
const NOT_STARTED: u8 = 127;

/// Whether this program begins with [`enter`], without which it cannot become another.
static CAN_BECOME: AtomicBool = AtomicBool::new(false);

/// What a program may read and write besides what every program may.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    read: Vec<PathBuf>,
    write: Vec<PathBuf>,
}

/// One part of it on this machine: by what it is enforced, or why it is not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// By this.
    By(String),
    /// Not, and why.
    Not(String),
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Part::By(what) => f.write_str(what),
            Part::Not(why) => write!(f, "not enforced: {why}"),
        }
    }
}

/// What this machine enforces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enforced {
    /// Which files are read and written, and who is signalled.
    pub files: Part,
    /// That there is no network.
    pub network: Part,
    /// How many processes there are.
    pub processes: Part,
}

impl Enforced {
    fn not_at_all(why: &str) -> Enforced {
        let not = || Part::Not(why.to_owned());
        Enforced { files: not(), network: not(), processes: not() }
    }

    /// Each part in a line.
    pub fn lines(&self) -> Vec<String> {
        self.parts().map(|(name, part)| format!("{name}: {part}")).collect()
    }

    /// Those that are not enforced.
    pub fn lacks(&self) -> Vec<String> {
        let lacking = self.parts().filter(|(_, part)| matches!(part, Part::Not(_)));
        lacking.map(|(name, part)| format!("{name}: {part}")).collect()
    }

    fn parts(&self) -> impl Iterator<Item = (&'static str, &Part)> {
        [("files", &self.files), ("network", &self.network), ("processes", &self.processes)].into_iter()
    }
}

impl Confinement {
    /// May read all of these.
    pub fn of(paths: impl IntoIterator<Item = impl AsRef<Path>>) -> Confinement {
        paths.into_iter().fold(Confinement::default(), Confinement::reading)
    }

    /// May also read a file or whatever is in a folder, and run programs from there. What is not there is no fault.
    pub fn reading(mut self, path: impl AsRef<Path>) -> Confinement {
        self.read.push(path.as_ref().to_owned());
        self
    }

    /// May also write there.
    pub fn writing(mut self, path: impl AsRef<Path>) -> Confinement {
        self.write.push(path.as_ref().to_owned());
        self
    }

    /// May also compute on NVIDIA GPUs: by their devices, whose memory no rule of files reaches. CUDA writes to what the
    /// system says of its own process, or does not begin ("OS call failed").
    pub fn computing(self) -> Confinement {
        let folders = ["/dev", "/dev/nvidia-caps"].into_iter().flat_map(std::fs::read_dir).flatten().flatten();
        let devices = folders.filter(|entry| entry.file_name().to_string_lossy().starts_with("nvidia"));
        devices
            .filter(|entry| !entry.path().is_dir())
            .fold(self.writing("/proc/self"), |may, entry| may.writing(entry.path()))
    }

    /// The command that runs another one so. In a program that does not begin with [`enter`] it is that one itself.
    pub fn around(&self, argv: Vec<OsString>) -> Vec<OsString> {
        let own = std::env::current_exe().ok().filter(|_| CAN_BECOME.load(Ordering::Relaxed));
        let (Some(own), Ok(asked)) = (own, serde_json::to_string(self)) else { return argv };
        [own.into_os_string(), ASKED.into(), asked.into()].into_iter().chain(argv).collect()
    }
}

/// The first thing that a program does. Where it was started to become another it does not return, but with why not.
pub fn enter() -> Option<ExitCode> {
    CAN_BECOME.store(true, Ordering::Relaxed);
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next()? != ASKED {
        return None;
    }
    let asked = arguments.next().and_then(|text| serde_json::from_str::<Confinement>(text.to_str()?).ok());
    let Some(asked) = asked else {
        eprintln!("{ASKED} is followed by what is allowed, as JSON");
        return Some(NOT_STARTED.into());
    };
    let enforced = restrict(&asked);
    let Some(program) = arguments.next() else {
        println!("{}", serde_json::to_string(&enforced).unwrap_or_default());
        return Some(ExitCode::SUCCESS);
    };
    let error = Command::new(&program).args(arguments).exec();
    eprintln!("failed to start `{}`: {error}", program.display());
    Some(NOT_STARTED.into())
}

/// Bytes of memory that this machine has, as Linux says; 16 GiB where it does not. Whoever sets limits takes a share of it.
pub fn memory_of_machine() -> u64 {
    let kib = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    });
    kib.unwrap_or(16 << 20) << 10
}

/// What this machine enforces, as a process that was confined found it.
pub fn enforced() -> Enforced {
    let argv = Confinement::default().around(Vec::new());
    let Some((program, arguments)) = argv.split_first() else {
        return Enforced::not_at_all("this program cannot start itself anew");
    };
    let asked = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let answer = asked.ok().and_then(|output| serde_json::from_slice(&output.stdout).ok());
    answer.unwrap_or_else(|| Enforced::not_at_all("it could not be tried"))
}

/// Gives up everything else. Only of use while the process has one thread.
fn restrict(to: &Confinement) -> Enforced {
    // Without privileges of the system, a limit on processes counts those of this name space alone.
    let alone = name_spaces();
    let limit = Rlimit { current: Some(PROCESSES), maximum: Some(PROCESSES) };
    let is_root = getuid().is_root();
    let processes = match (&alone, setrlimit(Resource::Nproc, limit)) {
        (Ok(()), Ok(())) if is_root => Part::Not("the user is root, whom no limit on processes binds".to_owned()),
        (Ok(()), Ok(())) => Part::By(format!("at most {PROCESSES} at once")),
        (Ok(()), Err(error)) => Part::Not(error.to_string()),
        (Err(why), _) => Part::Not(why.clone()),
    };
    let network = match &alone {
        Ok(()) => Part::By("a network of its own, without a device".to_owned()),
        Err(why) => Part::Not(why.clone()),
    };
    let files = match landlock(to) {
        Ok(status) => {
            let version = match status.landlock {
                LandlockStatus::Available { effective_abi, .. } => format!("Landlock {}", effective_abi as i32),
                other => return Enforced { files: Part::Not(format!("Landlock is {other:?}")), network, processes },
            };
            match status.ruleset {
                RulesetStatus::NotEnforced => Part::Not(format!("{version} enforces nothing")),
                RulesetStatus::FullyEnforced => Part::By(version),
                RulesetStatus::PartiallyEnforced => Part::By(format!("{version}, in part")),
            }
        }
        Err(error) => Part::Not(error.to_string()),
    };
    Enforced { files, network, processes }
}

/// A user who is nobody else, and a network without a device.
fn name_spaces() -> Result<(), String> {
    let (user, group) = (getuid(), getgid());
    // SAFETY: what must not be unshared is the table of file descriptors; it is not.
    let unshared = unsafe { unshare_unsafe(UnshareFlags::NEWUSER | UnshareFlags::NEWNET) };
    unshared.map_err(|error| format!("name spaces are refused here ({error})"))?;
    // Under the name that it had: whoever has none cannot tell whose files it sees.
    let own = [("setgroups", "deny".to_owned())];
    let maps =
        [("uid_map", user.as_raw()), ("gid_map", group.as_raw())].map(|(file, id)| (file, format!("{id} {id} 1")));
    for (file, text) in own.into_iter().chain(maps) {
        let _ = std::fs::write(format!("/proc/self/{file}"), text);
    }
    Ok(())
}

fn landlock(to: &Confinement) -> Result<landlock::RestrictionStatus, RulesetError> {
    let read = SYSTEM.iter().chain(&DEVICES).map(Path::new).chain(to.read.iter().map(PathBuf::as_path));
    let devices = AccessFs::from_file(RULES) & !AccessFs::Execute;
    Ruleset::default()
        .handle_access(AccessFs::from_all(RULES))?
        .handle_access(AccessNet::from_all(RULES))?
        .scope(Scope::from_all(RULES))?
        .create()?
        .add_rules(path_beneath_rules(read, AccessFs::from_read(RULES)))?
        .add_rules(path_beneath_rules(DEVICES, devices))?
        .add_rules(path_beneath_rules(&to.write, AccessFs::from_all(RULES)))?
        .restrict_self()
}
