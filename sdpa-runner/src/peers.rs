//! Peers: other people's kernels in a process of their own, driven by JSON lines, timed in the same rounds as ours.
//! The peer gets the same FP16 tensors through a safetensors file. Leaves to others: when a block runs.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail};
use kbench::deferral::Deferral;
use kbench::evidence::{Mode, PeerBackend};
use kbench::job::{PeerCommand, output_file};
use kbench::operator::Problem;
use safetensors::SafeTensors;
use serde_json::{Value, json};

use crate::talk::{Silence, Talk};

/// A backend of a peer that is timed.
#[derive(Clone, Debug)]
pub struct PeerSubject {
    /// `torch/flash`.
    pub name: String,
    /// Launches of a block.
    pub launches: u32,
}

/// A running peer process.
pub struct Peer {
    name: String,
    talk: Option<Talk>,
    pid: u32,
    /// Versions that it told.
    pub versions: BTreeMap<String, String>,
}

impl Peer {
    /// Starts a peer; see [`deferral_of`] for the error.
    pub fn start(command: &PeerCommand) -> Result<Peer> {
        let (program, arguments) = command.argv.split_first().context("a peer needs a program")?;
        let talk = Talk::start(Command::new(program).args(arguments)).map_err(|e| {
            let why = format!("peer `{}`: failed to start `{program}`: {e}", command.name);
            Deferral::new(why, "install it or pass --peers none")
        })?;
        let pid = talk.pid();
        let mut peer = Peer { name: command.name.clone(), talk: Some(talk), pid, versions: BTreeMap::new() };
        let hello = peer.ask(&json!({"op": "hello"}))?;
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let told = ["torch", "cudnn", "cuda", "python", "cudnn_frontend", "flash_attn"].iter();
        peer.versions = told.filter_map(|key| Some(((*key).to_owned(), text(hello.get(*key)?)))).collect();
        Ok(peer)
    }

    /// Its name, e.g. `torch`.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// One question, one answer. An answer that is not ok becomes an error with its remedy.
    fn ask(&mut self, question: &Value) -> Result<Value> {
        let name = &self.name;
        let talk = self.talk.as_mut().context("it is talked to until it leaves")?;
        let answer = talk.ask(question, None).map_err(|why| match why {
            Silence::Nonsense(_) => anyhow!("peer `{name}` {why}"),
            why => Deferral::new(format!("peer `{name}` {why}"), "see the log").into(),
        })?;
        if answer["ok"] == json!(true) {
            return Ok(answer);
        }
        let error = answer["error"].as_str().unwrap_or("no reason given");
        let remedy = answer["remedy"].as_str().unwrap_or_default();
        bail!(Deferral::new(format!("peer `{name}`: {error}"), remedy))
    }

    /// Hands over the tensors of one shape and distribution by the operator's message; answers with every backend, available or not.
    pub fn load(&mut self, problem: &Problem, message: &Value) -> Result<Vec<PeerBackend>> {
        let (shape, distribution) = (&problem.shape.name, problem.distribution);
        let answer = self.ask(message)?;
        let backends =
            answer["backends"].as_array().with_context(|| format!("peer `{}` named no backends", self.name))?;
        let strings = |value: &Value| {
            let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
            items.iter().filter_map(|v| v.as_str().map(str::to_owned)).collect::<Vec<_>>()
        };
        Ok(backends
            .iter()
            .map(|b| PeerBackend {
                shape: shape.to_owned(),
                distribution,
                subject: format!("{}/{}", self.name, b["name"].as_str().unwrap_or("?")),
                kernels: strings(&b["kernels"]),
                resolved: b["resolved"].as_str().map(str::to_owned),
                unavailable: (b["available"] != json!(true))
                    .then(|| b["reason"].as_str().unwrap_or("no reason given").to_owned()),
                errors: None,
            })
            .collect())
    }

    fn backend<'a>(&self, subject: &'a str) -> &'a str {
        subject.split_once('/').map_or(subject, |(_, backend)| backend)
    }

    /// Runs a backend once on the first input set and leaves its raw FP16 output in `dir`.
    pub fn write_output(&mut self, subject: &str, problem: &Problem, dir: &Path) -> Result<()> {
        std::fs::create_dir_all(dir)?;
        let file = dir.join("output.safetensors");
        let backend = self.backend(subject);
        self.ask(&json!({"op": "output", "backend": backend, "set": 0, "file": file}))?;
        let bytes = std::fs::read(&file).with_context(|| format!("failed to read `{}`", file.display()))?;
        let tensors = SafeTensors::deserialize(&bytes)?;
        std::fs::write(dir.join(output_file(problem)), tensors.tensor("out")?.data())?;
        Ok(std::fs::remove_file(file)?)
    }

    /// Times one block; samples in microseconds per launch.
    pub fn block(&mut self, subject: &str, mode: Mode, launches: u32, warmup: u32, replays: u32) -> Result<Vec<f64>> {
        let backend = self.backend(subject);
        let question = match mode {
            Mode::Call => {
                json!({"op": "block", "backend": backend, "mode": "call", "launches": launches, "warmup": warmup})
            }
            Mode::Kernel => {
                json!({"op": "block", "backend": backend, "mode": "graph", "launches": launches, "replays": replays})
            }
        };
        let answer = self.ask(&question)?;
        let samples: Option<Vec<f64>> = answer["us"].as_array().map(|us| us.iter().filter_map(Value::as_f64).collect());
        samples.filter(|us| !us.is_empty()).with_context(|| format!("peer `{}` gave no samples", self.name))
    }
}

/// Why a peer is not measured: what it said itself, with its remedy, or whatever else went wrong.
pub fn deferral_of(error: &anyhow::Error) -> Deferral {
    error.downcast_ref::<Deferral>().cloned().unwrap_or_else(|| Deferral::because(format!("{error:#}")))
}

impl Drop for Peer {
    fn drop(&mut self) {
        if let Some(talk) = self.talk.take() {
            talk.leave(&json!({"op": "bye"}));
        }
    }
}
