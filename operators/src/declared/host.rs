//! A Python process that runs one function of a user's file, by `kbench/python/operator_host.py`: questions and answers
//! are JSON lines, arrays are raw files in a folder of its own. It has a deadline for each answer and a share of the
//! memory. Leaves to others: which arrays, and what is made of them.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use confine::{Confinement, memory_of_machine};
use kbench::job::Task;
use kbench::operator::declared::{Declared, Tensor};
use kernel_spec::dtype::Dtype;
use kernel_spec::words;
use serde_json::{Value, json};
use tempfile::TempDir;

/// What the process executes; it travels inside this program.
const PROGRAM: &str = include_str!("../../../kbench/python/operator_host.py");
/// How long its own start may take.
const START: Duration = Duration::from_secs(60);
/// How long it may stay after it closed its output, and how often that is looked at.
const LEAVE: Duration = Duration::from_secs(5);
const STEP: Duration = Duration::from_millis(20);
/// How long the file may take to be imported.
const IMPORT: Duration = Duration::from_secs(120);

/// Which of an operator's functions it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Computes the outputs.
    Reference,
    /// Judges outputs.
    Check,
    /// Makes inputs.
    Generate,
}

impl Kind {
    /// The key in the gate file, which is also the question.
    pub fn key(self) -> &'static str {
        match self {
            Kind::Reference => "reference",
            Kind::Check => "check",
            Kind::Generate => "generate",
        }
    }

    fn function(self) -> &'static str {
        match self {
            Kind::Reference => "reference",
            Kind::Check => "check",
            Kind::Generate => "inputs",
        }
    }
}

/// What a call may take.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Time for one answer.
    pub time: Duration,
    /// Address space in bytes.
    pub memory: u64,
}

impl Default for Bounds {
    /// 120 seconds, and half of what the machine has.
    fn default() -> Bounds {
        Bounds { time: Duration::from_secs(120), memory: (memory_of_machine() / 2).max(1 << 30) }
    }
}

/// The user's code was refused.
#[derive(Debug, thiserror::Error)]
#[error("{line}")]
pub struct Refused {
    /// One line that names its file.
    pub line: String,
    /// Whether it raised an exception.
    pub raised: bool,
}

impl Refused {
    /// For something else than an exception.
    pub fn because(line: String) -> anyhow::Error {
        Refused { line, raised: false }.into()
    }
}

/// An array on its way to the process or back.
pub struct Array<'a> {
    /// Name of the tensor.
    pub name: &'a str,
    /// Type of the tensor.
    pub dtype: Dtype,
    /// Extents.
    pub shape: &'a [u64],
}

impl Array<'_> {
    /// All of a tensor.
    pub fn whole(tensor: &Tensor) -> Array<'_> {
        Array { name: &tensor.name, dtype: tensor.dtype, shape: &tensor.layout.shape }
    }
}

/// The running process.
pub struct Host {
    /// How messages name it: ``reference `softmax.py` ``.
    pub name: String,
    kind: Kind,
    bounds: Bounds,
    child: Child,
    stdin: ChildStdin,
    lines: Receiver<String>,
    scratch: TempDir,
}

impl Host {
    /// Starts Python and has it load a file of the gate file's folder.
    pub fn start(task: &Task, kind: Kind, file: &str, bounds: Bounds) -> Result<Host> {
        let name = format!("{} `{}`", kind.key(), words::one_line(file));
        let path = task.folder.join(file);
        let Ok(path) = path.canonicalize() else {
            return Err(Refused::because(format!("{name}: there is no such file in `{}`", task.folder.display())));
        };
        let (program, arguments) = task.python.split_first().context("there is no Python to run references with")?;
        let scratch = tempfile::Builder::new().prefix("operator-").tempdir().context("no folder for arrays")?;
        let script = scratch.path().join("operator_host.py");
        std::fs::write(&script, PROGRAM).with_context(|| format!("failed to write `{}`", script.display()))?;
        ensure!(
            !program.contains('/') || Path::new(program).exists(),
            "{name}: failed to start `{program}`: there is no such file; install Python 3 with numpy"
        );
        let may = Confinement::of(&task.readable).reading(&task.folder).writing(scratch.path());
        let argv = [program].into_iter().chain(arguments).map(OsString::from).chain([script.into_os_string()]);
        let argv = may.around(argv.collect());
        let mut child = Command::new(&argv[0])
            .args(&argv[1..])
            .env("TMPDIR", scratch.path())
            .current_dir(scratch.path())
            .envs(&task.environment)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| anyhow!("{name}: failed to start `{program}`: {e}; install Python 3 with numpy"))?;
        let stdin = child.stdin.take().context("its standard input is piped")?;
        let stdout = child.stdout.take().context("its standard output is piped")?;
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let mut host = Host { name, kind, bounds, child, stdin, lines, scratch };
        host.ask(&json!({"op": "hello", "memory": bounds.memory}), START)?;
        host.ask(&json!({"op": "load", "file": path, "function": kind.function()}), IMPORT)?;
        Ok(host)
    }

    /// One question, one answer. What the user's code did wrong is [`Refused`].
    fn ask(&mut self, question: &Value, limit: Duration) -> Result<Value> {
        let asked = writeln!(self.stdin, "{question}").and_then(|()| self.stdin.flush());
        let heard = if asked.is_ok() { self.lines.recv_timeout(limit) } else { Err(RecvTimeoutError::Disconnected) };
        let mut raised = false;
        let why = match heard {
            Ok(line) => {
                let answer: Value = serde_json::from_str(&line).with_context(|| format!("it answered `{line}`"))?;
                if answer["ok"] == json!(true) {
                    return Ok(answer);
                }
                raised = answer["raised"] == json!(true);
                answer["error"].as_str().unwrap_or("gave no reason").to_owned()
            }
            Err(RecvTimeoutError::Timeout) => {
                let _ = self.child.kill();
                format!("took longer than {} s", limit.as_secs_f64())
            }
            Err(RecvTimeoutError::Disconnected) => format!("its process ended before it answered: {}", self.end()),
        };
        Err(Refused { line: format!("{} {why}", self.name), raised }.into())
    }

    /// How the process ended, which has closed its end of the line. It is not waited for if it stays all the same.
    fn end(&mut self) -> String {
        for _ in 0..LEAVE.as_millis() / STEP.as_millis() {
            match self.child.try_wait() {
                Ok(Some(status)) => return status.to_string(),
                Ok(None) => std::thread::sleep(STEP),
                Err(error) => return error.to_string(),
            }
        }
        "it closed its output".to_owned()
    }

    /// Calls the function. `arrays` are told as they were put, `more` by key.
    pub fn call(&mut self, arrays: &[(&str, &[Value])], more: Value) -> Result<Value> {
        let mut question = more;
        question["op"] = json!(self.kind.key());
        for (key, arrays) in arrays {
            question[*key] = json!(arrays);
        }
        self.ask(&question, self.bounds.time)
    }

    /// The file of an array; `set` keeps several of one name apart.
    pub fn file(&self, set: &str, name: &str) -> PathBuf {
        self.scratch.path().join(format!("{set}.{name}.bin"))
    }

    /// Leaves an array where the process finds it, and says where: floats as float64, others in their own type.
    pub fn put(&self, set: &str, array: &Array, elements: &[u8]) -> Result<Value> {
        let path = self.file(set, array.name);
        let bytes = widened(array.dtype, elements);
        std::fs::write(&path, bytes).with_context(|| format!("failed to write `{}`", path.display()))?;
        Ok(said(array, &path))
    }

    /// Where the process is to leave an array.
    pub fn expect(&self, set: &str, array: &Array) -> Value {
        said(array, &self.file(set, array.name))
    }

    /// The bytes of an array that the process left: float64, or elements of its own type.
    pub fn take(&self, set: &str, name: &str) -> Result<Vec<u8>> {
        let path = self.file(set, name);
        let bytes = std::fs::read(&path).with_context(|| format!("failed to read `{}`", path.display()))?;
        let _ = std::fs::remove_file(&path);
        Ok(bytes)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The type in which an array travels.
pub fn wide(dtype: Dtype) -> Dtype {
    if dtype.is_float() { Dtype::F64 } else { dtype }
}

fn said(array: &Array, path: &Path) -> Value {
    json!({"name": array.name, "dtype": wide(array.dtype), "shape": array.shape, "file": path})
}

/// Floats as float64, bools as 0 or 1, integers as they are.
pub fn widened(dtype: Dtype, elements: &[u8]) -> Vec<u8> {
    match dtype {
        Dtype::Bool => return elements.iter().map(|byte| u8::from(*byte != 0)).collect(),
        Dtype::F64 => return elements.to_vec(),
        _ if !dtype.is_float() => return elements.to_vec(),
        _ => {}
    }
    let mut bytes = Vec::with_capacity(elements.len() / dtype.bytes() * 8);
    for element in elements.chunks_exact(dtype.bytes()) {
        bytes.extend_from_slice(&dtype.decode(element).to_le_bytes());
    }
    bytes
}

/// Values of axes and `let`, by key, for a question.
pub fn values(operator: &Declared, axes: &BTreeMap<String, i64>) -> Result<Value> {
    let names = match operator.names(axes) {
        Ok(names) => names,
        Err(error) => bail!("{error}"),
    };
    let lets: BTreeMap<&str, _> = names.iter().filter(|(name, _)| !axes.contains_key(*name)).collect();
    Ok(json!({"axes": axes, "let": lets}))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::python;

    fn refused(text: &str, bounds: Bounds) -> Option<String> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("r.py"), text).unwrap();
        let python = python::python()?;
        let readable = python::paths(&python);
        let task = Task { folder: folder.path().to_owned(), python, readable, ..Task::default() };
        let mut host = Host::start(&task, Kind::Reference, "r.py", bounds).unwrap();
        let shape = [4];
        let y = host.expect("out", &Array { name: "y", dtype: Dtype::F32, shape: &shape });
        let question = json!({"axes": {}, "let": {}});
        Some(host.call(&[("inputs", &[]), ("outputs", &[y])], question).unwrap_err().to_string())
    }

    #[test]
    fn what_is_slow_or_takes_too_much_memory_is_refused() {
        let short = Bounds { time: Duration::from_secs(2), ..Bounds::default() };
        let Some(why) = refused("def reference():\n    while True: pass\n", short) else { return };
        assert_eq!(why, "reference `r.py` took longer than 2 s");
        let small = Bounds { memory: 2 << 30, ..Bounds::default() };
        let text = "import numpy as np\ndef reference():\n    return np.ones(1 << 30)\n";
        assert_eq!(refused(text, small).unwrap(), "reference `r.py` needs more than 2048 MiB of memory");
    }

    #[test]
    fn bools_and_floats_travel_as_what_they_mean() {
        assert_eq!(widened(Dtype::Bool, &[0, 1, 0xa5]), [0, 1, 1]);
        assert_eq!(widened(Dtype::F16, &[0x00, 0x3c]), 1.0_f64.to_le_bytes());
        assert_eq!(widened(Dtype::I16, &[1, 2]), [1, 2]);
    }
}
