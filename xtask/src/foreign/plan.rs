//! Asks a variant's `plan.py` what is launched on one shape, in a process of its own with limits on time and memory. What
//! the file answers is described in `kbench/python/plan_host.py`; here it becomes data, or one line that names the part at fault.
//! Leaves to others: whether the launches fit the operator and the device, which is kbench's.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use kbench::key::{BadKey, from_toml};
use kbench::names::Axes;
use kbench::variant::{DeclaredStep, DeviceFacts};
use kernel_spec::expr::Value;
use kernel_spec::words;
use serde::{Deserialize, Serialize};

use super::sources;
use crate::bounded::{self, End, Limits, Program};
use crate::toolchain::python::Python;

/// The program that asks; it travels inside this one.
const HOST: &str = include_str!("../../../kbench/python/plan_host.py");
/// What a plan may use: it computes a few numbers.
pub const LIMITS: Limits = Limits { time: Duration::from_secs(60), memory_bytes: 4 << 30 };
/// Most steps of a plan.
const MOST_STEPS: usize = 4096;

/// What a plan is told.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The gate file's folder.
    pub folder: &'a Path,
    /// The variant.
    pub variant: &'a str,
    /// The plan, as a path from the folder.
    pub file: &'a str,
    /// The shape.
    pub axes: &'a Axes,
    /// Where it is launched.
    pub device: DeviceFacts,
    /// The variant's `let`.
    pub values: &'a [(String, Value)],
    /// The variant's `define`.
    pub define: &'a [(String, Value)],
}

/// The question as the host reads it.
#[derive(Serialize)]
struct Asked<'a> {
    file: &'a Path,
    axes: &'a Axes,
    device: DeviceFacts,
    #[serde(rename = "let")]
    values: Table<'a>,
    define: Table<'a>,
}

/// Pairs that JSON writes as an object.
struct Table<'a>(&'a [(String, Value)]);

impl Serialize for Table<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Said {
    Refused { error: String, at: String },
    Launches { launches: Vec<serde_json::Value> },
}

/// The steps in a form that knows where each part stands.
#[derive(Serialize)]
struct Answer {
    plan: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct Steps {
    plan: Vec<DeclaredStep>,
}

/// What a plan answers for one shape. A [`BadKey`] is the plan's fault, any other error ours.
pub fn ask(python: &Python, question: &Question<'_>) -> Result<Vec<DeclaredStep>> {
    ask_within(python, question, LIMITS)
}

/// The same with limits of the caller's.
pub fn ask_within(python: &Python, question: &Question<'_>, limits: Limits) -> Result<Vec<DeclaredStep>> {
    let key = format!("variants.{}.plan", question.variant);
    let refused = |at: &str, why: String| -> anyhow::Error {
        BadKey::new(format!("{key}{at}"), format!("`{}` {why}", question.file)).into()
    };
    let file = sources::below(question.folder, &key, question.file)?;
    let asked = Asked {
        file: &file,
        axes: question.axes,
        device: question.device,
        values: Table(question.values),
        define: Table(question.define),
    };
    let environment: Vec<(String, String)> = python.environment.clone().into_iter().collect();
    let program = Program {
        argv: python.argv.iter().map(String::as_str).chain(["-c", HOST]).map(Into::into).collect(),
        dir: question.folder,
        environment: &environment,
        input: serde_json::to_vec(&asked)?,
        confinement: Some(python.confinement().reading(question.folder)),
    };
    let run = bounded::run(&program, limits).with_context(|| format!("failed to start `{}`", python.argv.join(" ")))?;
    let output = match run {
        End::TimedOut => return Err(refused("", format!("took longer than {} s", limits.time.as_secs_f64()))),
        End::Exited { success: true, output, .. } => output,
        End::Exited { errors, .. } => {
            let last = errors.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("without a word");
            return Err(refused("", format!("ended its process: {}", words::one_line(last.trim()))));
        }
    };
    match serde_json::from_str(&output) {
        Ok(Said::Refused { error, at }) => Err(refused(&at, error)),
        Ok(Said::Launches { launches }) if launches.is_empty() || launches.len() > MOST_STEPS => {
            Err(refused("", format!("returns {} launches, and may return 1 to {MOST_STEPS}", launches.len())))
        }
        Ok(Said::Launches { launches }) => Ok(steps(question.variant, launches)?),
        Err(_) => Err(refused("", "ended its process before it answered".to_owned())),
    }
}

/// By way of TOML, whose reader says which key is at fault: a plan's answer is held to the words of a gate file.
fn steps(variant: &str, launches: Vec<serde_json::Value>) -> Result<Vec<DeclaredStep>, BadKey> {
    let at = |key: &str| format!("variants.{variant}.{key}");
    let text =
        toml::to_string(&Answer { plan: launches }).map_err(|error| BadKey::new(at("plan"), error.to_string()))?;
    let steps: Steps = from_toml(&text).map_err(|error| BadKey::new(at(&error.key), error.why))?;
    Ok(steps.plan)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn answers_are_read_like_a_gate_file() {
        let launch = json!({"entry": "k<1>", "params": ["x", "n: i32", "null", {"struct": ["1: u8"], "align": 8}],
            "grid": [4, "ceil_div(n, 2)"], "block": [256], "shared": "threads * 4", "cooperative": true});
        let read = steps("v", vec![json!({"memset": "x", "byte": 255}), launch, json!({"copy": ["x", "y"]})]).unwrap();
        assert!(matches!(&read[0], DeclaredStep::Memset { byte: 255, .. }));
        let DeclaredStep::Launch(launch) = &read[1] else { panic!() };
        assert_eq!((launch.grid.len(), launch.params.len(), launch.cooperative, launch.pdl), (2, 4, true, false));
        assert!(matches!(&read[2], DeclaredStep::Copy { from, .. } if from == "x"));
    }

    #[test]
    fn faults_are_one_line_with_their_key() {
        let launch = |key: &str, value: serde_json::Value| {
            let mut launch = json!({"entry": "k", "params": ["x"], "grid": [1], "block": [32]});
            launch[key] = value;
            vec![json!({"memset": "x"}), launch]
        };
        let table = [
            (launch("grid", json!([[1]])), "variants.v.plan[1].grid[0]: "),
            (launch("grid", json!(["1 +"])), "variants.v.plan[1].grid[0]: `1 +` at "),
            (launch("grid", json!(3)), "variants.v.plan[1].grid: "),
            (launch("params", json!(["n: i33"])), "variants.v.plan[1].params[0]: parameter `n: i33`: unknown dtype"),
            (launch("shard", json!(1)), "variants.v.plan[1].shard: unknown field `shard`"),
            (launch("pdl", json!("yes")), "variants.v.plan[1].pdl: "),
            (vec![json!({"entry": "k"})], "variants.v.plan[0]: missing field `params`"),
            (vec![json!(7)], "variants.v.plan[0]: "),
            (vec![json!({"memset": "x", "byte": 256})], "variants.v.plan[0].byte: "),
        ];
        for (answer, start) in table {
            let line = steps("v", answer).unwrap_err().to_string();
            assert!(line.starts_with(start) && line.lines().count() == 1, "{line} | {start}");
        }
    }
}
