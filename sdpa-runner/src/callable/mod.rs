//! Host code of a gate file: a Python function that launches for itself, in a confined process that is asked by the protocol of
//! the peers (`kbench/peers/callable.py`). The process is the function's own as soon as that is imported, so nothing that it
//! says is believed: inputs are drawn here after it started, outputs, inputs and guard bands are read back as raw bytes and
//! compared here, and a clock runs here while it times itself.
//! Leaves to others: whose turn it is, and what errors and times are worth.

mod fresh;
mod guest;
mod launch;
mod parts;
mod tare;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use confine::Confinement;
use kbench::deferral::Deferral;
use kbench::evidence::{Mode, Outer};
use kbench::job::{Callable, Module, Task};
use kbench::operator::Problem;
use operators::Handed;
use operators::setup::Role;
use rustix::fs::OFlags;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::events::progress;
use crate::talk::{Patience, Silence, Talk};
use fresh::Fill;
pub use guest::{Guest, Processes, Timed, Wanted};
pub use launch::run;
use parts::Parts;
use tare::Tare;

/// Bytes of a guard band, and what it holds; the driver has the same.
const GUARD_BYTES: usize = 4096;
const GUARD: u8 = 0x7f;
/// What an answer of the driver's own work may take: it imports PyTorch, or moves bytes.
const OWN: Duration = Duration::from_secs(300);

/// The function did something wrong, or what it may not.
#[derive(Debug, thiserror::Error)]
#[error("{why}")]
pub struct Refused {
    why: String,
    /// Whether it took all the time or memory that it may: nobody waits for that again.
    at_its_limit: bool,
}

impl Refused {
    fn because(why: &str) -> Refused {
        Refused { why: why.to_owned(), at_its_limit: false }
    }
}

/// What one call left, as it lies on the device.
pub struct Left {
    /// All outputs as far as they were asked for, one after the other.
    pub outputs: Vec<u8>,
    /// Whether the inputs still hold there what they were filled with.
    pub inputs_unchanged: bool,
    /// Whether nothing around any tensor was written.
    pub guards_intact: bool,
}

/// The running process.
pub struct Host {
    call: Callable,
    /// The function's file.
    source: PathBuf,
    talk: Talk,
    /// What it reads, and what it writes: whatever it leaves in the latter is never followed.
    given: TempDir,
    scratch: TempDir,
    /// Versions that it told.
    pub versions: BTreeMap<String, String>,
    /// Whether the next call is the first on its shape, when compilers run.
    first: bool,
    /// What a block takes by itself; nothing is known of who is not timed.
    tare: Tare,
    /// What came of sealing it, once that was tried.
    sealed: Option<Option<String>>,
}

impl Host {
    /// Starts it and greets it. A [`Deferral`] says what is missing here.
    pub fn start(task: &Task, variant: &str, call: &Callable) -> Result<Host> {
        let folder = |prefix: &str| tempfile::Builder::new().prefix(prefix).tempdir().context("no folder for tensors");
        let (given, scratch) = (folder("callable-given-")?, folder("callable-")?);
        let may = Confinement::of(&call.readable).reading(&task.folder).reading(given.path());
        let argv = may.writing(scratch.path()).computing().around(call.argv.iter().map(Into::into).collect());
        let program = argv.first().context("a driver has a program")?;
        let mut command = Command::new(program);
        command.args(&argv[1..]).current_dir(scratch.path()).envs(&call.environment);
        for name in ["HOME", "TMPDIR", "XDG_CACHE_HOME"] {
            command.env(name, scratch.path());
        }
        let caches = ["TRITON_CACHE_DIR", "TORCH_EXTENSIONS_DIR", "TORCHINDUCTOR_CACHE_DIR", "CUDA_CACHE_PATH"];
        for name in caches {
            command.env(name, scratch.path().join(name.to_lowercase()));
        }
        command.env("PYTHONDONTWRITEBYTECODE", "1").env("TORCHINDUCTOR_COMPILE_THREADS", "1");
        let talk = Talk::start_apart(&mut command).map_err(|error| {
            let why = format!("`{variant}`: failed to start `{}`: {error}", program.display());
            Deferral::new(why, "install Python 3 with PyTorch")
        })?;
        let source = task.folder.join(&call.source);
        let versions = BTreeMap::new();
        let call = call.clone();
        let mut host =
            Host { call, source, talk, given, scratch, versions, first: true, tare: Tare::default(), sealed: None };
        match host.ask(&json!({"op": "hello"}), OWN) {
            Ok(hello) => {
                let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                let told = ["torch", "cuda", "cudnn", "python"].into_iter();
                host.versions = told.filter_map(|key| Some((key.to_owned(), text(hello.get(key)?)))).collect();
                Ok(host)
            }
            Err(error) => bail!(
                error
                    .downcast_ref::<Deferral>()
                    .cloned()
                    .unwrap_or_else(|| Deferral::new(format!("`{variant}`: {error}"), "see the log"))
            ),
        }
    }

    /// One question, one answer. What is not answered well is [`Refused`], but where something is to be installed.
    fn ask(&mut self, question: &Value, time: Duration) -> Result<Value> {
        let tick = || progress(0, 1, "waiting for host code");
        let patience = Patience { time, memory: self.call.limits.memory_bytes, tick };
        let answer = match self.talk.ask(question, Some(&patience)) {
            Ok(answer) => answer,
            Err(Silence::Ended) => bail!(self.refused("its process ended before it answered")),
            Err(silence) => {
                let at_its_limit = matches!(silence, Silence::Late(_) | Silence::Memory(_));
                bail!(Refused { at_its_limit, ..self.refused(&silence.to_string()) })
            }
        };
        if answer["ok"] == json!(true) {
            return Ok(answer);
        }
        let error = answer["error"].as_str().unwrap_or("gave no reason");
        match answer["remedy"].as_str() {
            Some(remedy) => bail!(Deferral::new(error, remedy)),
            None => bail!(self.refused(error)),
        }
    }

    fn refused(&self, why: &str) -> Refused {
        let why: String = why.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(600).collect();
        Refused::because(&format!("`{}` of {} {why}", self.call.function, self.call.source))
    }

    fn time_of_call(&mut self) -> Duration {
        let limits = self.call.limits;
        Duration::from_secs_f64(if std::mem::take(&mut self.first) { limits.first_s } else { limits.then_s })
    }

    /// Hands over the input sets of one shape; the function is imported before it sees the first.
    pub fn load(&mut self, problem: &Problem, sets: &[Vec<Handed>]) -> Result<()> {
        let tensors = sets.first().context("a case has an input set")?;
        let mut bytes = Vec::new();
        for (number, set) in sets.iter().enumerate() {
            bytes.extend(set.iter().filter_map(|tensor| Some((format!("{}.{number}", tensor.name), held(tensor)?))));
        }
        let views = bytes.iter().map(|(name, bytes)| Ok((name, TensorView::new(Dtype::U8, vec![bytes.len()], bytes)?)));
        let file = self.given.path().join("inputs.safetensors");
        safetensors::serialize_to_file(views.collect::<Result<Vec<_>>>()?, None, &file)
            .with_context(|| format!("failed to write `{}`", file.display()))?;
        let none = BTreeMap::new();
        let question = json!({
            "op": "load", "case": problem.id(), "file": file, "sets": sets.len(),
            "tensors": tensors.iter().map(described).collect::<Vec<_>>(),
            "source": self.source, "function": self.call.function,
            "values": self.call.values.get(&problem.shape.name).unwrap_or(&none),
        });
        self.first = true;
        self.ask(&question, OWN + Duration::from_secs_f64(self.call.limits.first_s))?;
        fs::remove_file(&file).with_context(|| format!("failed to remove `{}`", file.display()))
    }

    /// Memory for so many calls, behind as many bytes that nobody uses.
    pub fn place(&mut self, slots: usize, pad: usize) -> Result<()> {
        self.ask(&json!({"op": "place", "slots": slots, "pad": pad.max(1)}), OWN).map(drop)
    }

    /// Values of the inputs of the first slots; their outputs are poison again.
    pub fn fill(&mut self, fills: &[Fill]) -> Result<()> {
        let slots: Vec<Value> = fills.iter().map(Fill::told).collect();
        self.ask(&json!({"op": "fill", "slots": slots}), OWN).map(drop)
    }

    /// Calls once on each of the first slots.
    pub fn call(&mut self, slots: usize) -> Result<()> {
        let slots: Vec<usize> = (0..slots).collect();
        let time = self.time_of_call();
        self.ask(&json!({"op": "call", "slots": slots}), time).map(drop)
    }

    /// The kernels of a call, as the process has them from its profiler.
    pub fn kernels(&mut self) -> Result<Vec<String>> {
        let time = self.time_of_call();
        let answer = self.ask(&json!({"op": "kernels"}), time)?;
        let names = answer["kernels"].as_array().map(Vec::as_slice).unwrap_or_default();
        Ok(names.iter().filter_map(|name| Some(name.as_str()?.to_owned())).collect())
    }

    /// Has the kernel refuse it further processes; the inner value says why that cannot be. What the process says of it is
    /// held to what the system says.
    pub fn seal(&mut self) -> Result<Option<String>> {
        if let Some(known) = &self.sealed {
            return Ok(known.clone());
        }
        let came = self.try_to_seal()?;
        self.sealed = Some(came.clone());
        Ok(came)
    }

    fn try_to_seal(&mut self) -> Result<Option<String>> {
        let filters = |pid: u32| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let of = |key: &str| {
                status
                    .lines()
                    .find_map(|line| line.strip_prefix(key))
                    .and_then(|count| count.trim().parse::<u32>().ok())
            };
            of("Seccomp_filters:").or_else(|| of("Seccomp:"))
        };
        let before = filters(self.talk.pid());
        if let Err(error) = self.ask(&json!({"op": "seal"}), OWN) {
            return Ok(Some(error.to_string()));
        }
        let is_more = filters(self.talk.pid()) > before;
        Ok((!is_more).then(|| "the system shows no new filter of its calls".to_owned()))
    }

    /// Records a graph of a call on every slot; the inner value says why that cannot be.
    pub fn capture(&mut self) -> Result<Option<String>> {
        let time = self.time_of_call();
        let answer = self.ask(&json!({"op": "capture"}), time)?;
        let why = || answer["why"].as_str().unwrap_or("no reason given").chars().take(300).collect();
        Ok((answer["captured"] != json!(true)).then(why))
    }

    /// Measures what a block takes by itself. Afterwards the user's code may be loaded, and then never before.
    pub fn weigh(&mut self, flush: usize) -> Result<()> {
        self.tare = Tare::measure(flush, |mode, launches, flush| {
            let question = json!({"op": "tare", "mode": named(mode), "launches": launches, "flush": flush});
            let start = Instant::now();
            let answer = self.ask(&question, OWN)?;
            let wall_us = start.elapsed().as_secs_f64() * 1e6;
            let of = |key: &str| answer[key].as_f64().with_context(|| format!("the driver gave no `{key}`"));
            Ok(wall_us - of("us")? - of("hold_us")?)
        })?;
        Ok(())
    }

    /// Has it stand still until it is asked again, with whatever threads it has.
    pub fn pause(&mut self) {
        self.talk.pause();
    }

    /// One block of calls on the first slots: the samples that it gives, and what the clock here said meanwhile.
    pub fn block(&mut self, mode: Mode, launches: usize, flush: usize) -> Result<(Vec<f64>, Outer)> {
        let question = json!({"op": "block", "mode": named(mode), "launches": launches, "flush": flush});
        let (time, start) = (self.time_of_call(), Instant::now());
        let answer = self.ask(&question, time)?;
        let wall_us = start.elapsed().as_secs_f64() * 1e6;
        let us: Vec<f64> = answer["us"].as_array().into_iter().flatten().filter_map(Value::as_f64).collect();
        let wanted = if mode == Mode::Call { launches } else { 1 };
        if us.len() != wanted || us.iter().any(|us| !us.is_finite() || *us <= 0.0) {
            bail!(self.refused(&format!("gave {} times for {wanted} samples, or one that no clock gives", us.len())));
        }
        Ok((us, Outer { wall_us, beside_us: self.tare.beside_us(mode, launches, flush), launches: launches as u32 }))
    }

    /// What lies in a slot, which was filled so, in parts of its tensors.
    pub fn output(&mut self, slot: usize, fill: &Fill, sets: &[Vec<Handed>], parts: &Parts) -> Result<Left> {
        let file = self.scratch.path().join("output.safetensors");
        self.ask(&json!({"op": "output", "slot": slot, "file": file, "parts": parts.told()}), OWN)?;
        let bytes = self.read(&file, parts.bytes() as u64 + 4096 + 1024 * parts.count() as u64)?;
        let found =
            SafeTensors::deserialize(&bytes).map_err(|error| self.refused(&format!("left no tensors: {error}")))?;
        let mut left = Left { outputs: Vec::new(), inputs_unchanged: true, guards_intact: true };
        for tensor in &sets[fill.set] {
            let Some(wanted) = parts.of(&tensor.name) else { continue };
            let raw = found.tensor(&tensor.name);
            let raw = raw.map_err(|error| self.refused(&format!("left no `{}`: {error}", tensor.name)))?.data();
            let Some((guards, data)) = wanted.split(raw) else {
                bail!(self.refused(&format!("left {} bytes of `{}`", raw.len(), tensor.name)));
            };
            left.guards_intact &= guards.into_iter().flatten().all(|byte| *byte == GUARD);
            match &tensor.role {
                Role::Output(..) | Role::InPlace(_) => left.outputs.extend_from_slice(data),
                _ => left.inputs_unchanged &= wanted.matches(data, |piece| fill.bytes(tensor, piece)),
            }
        }
        Ok(left)
    }

    /// A file that the process left. Its folder is the process's own: what is no plain file is not opened.
    fn read(&self, file: &Path, most: u64) -> Result<Vec<u8>> {
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32;
        let opened = OpenOptions::new().read(true).custom_flags(flags).open(file);
        let opened = opened.map_err(|error| self.refused(&format!("left no output: {error}")))?;
        let meta = opened.metadata().context("a file that is open")?;
        ensure!(meta.is_file() && meta.len() <= most, self.refused("left something else than its output"));
        let mut bytes = Vec::new();
        opened.take(most).read_to_end(&mut bytes).context("failed to read an output")?;
        let _ = fs::remove_file(file);
        Ok(bytes)
    }
}

/// The bytes that a tensor holds before a call.
fn held(tensor: &Handed) -> Option<&[u8]> {
    match &tensor.role {
        Role::Input(bytes) | Role::Made(bytes) | Role::InPlace(bytes) => Some(bytes),
        Role::Output(..) | Role::Scratch(..) => None,
    }
}

/// A timer as the driver calls it.
fn named(mode: Mode) -> &'static str {
    match mode {
        Mode::Call => "call",
        Mode::Kernel => "graph",
    }
}

/// A tensor as the driver is told of it.
fn described(tensor: &Handed) -> Value {
    let (role, poison) = match &tensor.role {
        Role::Output(_, pattern) => ("output", i32::from_le_bytes(*pattern)),
        Role::InPlace(_) => ("inplace", 0),
        _ => ("input", 0),
    };
    json!({
        "name": tensor.name, "also": tensor.also, "dtype": tensor.dtype, "shape": tensor.layout.shape,
        "strides": tensor.layout.strides, "bytes": tensor.role.bytes(), "role": role, "poison": poison,
    })
}

/// Whether a variant is host code.
pub fn of(module: &Module) -> Option<&Callable> {
    module.call.as_ref()
}
