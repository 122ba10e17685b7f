//! Deliberately broken kernels: each is one edit of a shipped source, must change the machine code, and must be rejected
//! on the emulator by the gate named for it. A mutant that applies and survives is a hole in the judge.
//! Leaves to others: the mutants, by family, those that a GPU alone can run, and which distribution rejects which.

mod matrix;
mod on_a_gpu;
mod order;
mod places;
mod softmax;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::common::{Dist, Ran};
use kbench::evidence::Builds;
use kbench::gate::{Gate, GateId, State};
use serde::de::DeserializeOwned;

/// What a mutant is launched on: no more than what it takes to reject it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Cases {
    /// Shapes, on normal inputs.
    check: &'static [&'static str],
    /// A distribution besides, on the first of them.
    stress: Option<&'static str>,
}

const fn on(check: &'static [&'static str]) -> Cases {
    Cases { check, stress: None }
}

const USUAL: Cases = on(&["ragged", "ragged-causal"]);
const RISING: Cases = Cases { check: &["ragged"], stress: Some("maximum-last") };
const NEGATIVE: Cases = Cases { check: &["ragged"], stress: Some("opposite-constants") };
const LARGE: Cases = Cases { check: &["ragged"], stress: Some("large-values") };
const LONG: Cases = on(&["1x1x16x4164x64"]);
const LONG_RISING: Cases = Cases { check: &["1x1x16x4164x64"], stress: Some("maximum-last") };
const SINGLE_ROW: Cases = on(&["1x17x1x33x64"]);
const FEW_KEYS: Cases = on(&["1x1x5x30x64"]);
const SCALED: Cases = on(&["1x1x17x67x64-scale0.05"]);
const WIDE: Cases = on(&["1x1x3x61x128"]);
const CROSS: Cases = on(&["cross-causal"]);
/// The emulator moves them to the end of tensors with 2^31 and 2^32 elements: smaller heads are too many for a grid.
const FAR: Cases = on(&["1x1x264x128"]);
const FARTHER: Cases = on(&["1x1x520x128"]);
const UNSEEN: Cases = on(&["1x1x40x2x64-causal"]);

/// One edit and what must come of it.
struct Mutant {
    /// What is broken.
    name: &'static str,
    /// The file under `sdpa-kernel/cuda/ladder/`.
    file: &'static str,
    /// The text to replace; it must be there.
    from: &'static str,
    /// What replaces it.
    to: &'static str,
    /// The variant that must be rejected.
    variant: &'static str,
    /// The gate that must fail.
    gate: GateId,
    /// What it must say.
    says: &'static str,
    /// What it is launched on.
    cases: Cases,
}

const ERRORS: GateId = GateId::KernelErrorMax;
const CHECKS: GateId = GateId::EmulatorChecks;
const FINITE: GateId = GateId::FiniteOutput;
const SLOPE: GateId = GateId::Slope;
const ROWS: GateId = GateId::RowError;
const STRESS: GateId = GateId::StressErrorRelative;

const fn mutant(
    name: &'static str,
    variant: &'static str,
    edit: [&'static str; 3],
    gate: GateId,
    says: &'static str,
) -> Mutant {
    let [file, from, to] = edit;
    Mutant { name, file, from, to, variant, gate, says, cases: USUAL }
}

impl Mutant {
    const fn on(self, cases: Cases) -> Mutant {
        Mutant { cases, ..self }
    }

    /// Edits the source, does what is asked, and mends it again.
    fn applied<T>(&self, dist: &Dist, work: impl FnOnce() -> T) -> T {
        edited(dist, [self.file, self.from, self.to], work)
    }
}

fn edited<T>(dist: &Dist, [file, from, to]: [&str; 3], work: impl FnOnce() -> T) -> T {
    let file = format!("sdpa-kernel/cuda/ladder/{file}");
    let text = std::fs::read_to_string(dist.path(&file)).unwrap();
    dist.edit(&file, from, to);
    let done = work();
    dist.write(&file, &text);
    done
}

/// All of them.
fn all() -> impl Iterator<Item = &'static Mutant> {
    order::MUTANTS.iter().chain(softmax::MUTANTS).chain(places::MUTANTS)
}

/// Edits that change the machine code and nothing that a caller can see, and why: no check may reject them.
const EQUIVALENT: &[(&str, &str, [&str; 3])] = &[
    (
        "every tile is masked: a tile that no limit crosses has nothing to mask, so only time is lost",
        "stage2",
        ["softmax.cuh", "if (mask.crosses(first_key)) {", "{"],
    ),
    (
        "P is scaled by another power of two: the factor cancels between O and the sum",
        "stage2",
        ["softmax.cuh", "kBits = 8.0f", "kBits = 6.0f"],
    ),
    (
        "every copy is waited for: the next tile's too, which is earlier than it has to be",
        "stage1",
        ["loader.cuh", "wait_group<kStages - 1>", "wait_group<0>"],
    ),
    (
        "a barrier more: it orders what is ordered already",
        "stage2",
        [
            "kernel_cta.cuh",
            "      computing.multiply_scores(shared.q, tile.k);",
            "      __syncthreads();\n      computing.multiply_scores(shared.q, tile.k);",
        ],
    ),
    (
        "the sum takes P before it is rounded: the roundings of its parts cancel",
        "v2b",
        [
            "consumer_streaming.cuh",
            "      s[r] = P::widen(p).x;\n      sum[r] = sum[r] * alpha + s[r];",
            "      sum[r] = sum[r] * alpha + Exponential::apply(fmaf(s[r], factor, P::kBits - factor * raised));\n      s[r] = P::widen(p).x;",
        ],
    ),
    (
        "a CTA's tiles in another order: each is its own work",
        "persistent",
        ["scheduler.cuh", "i % heads, gridDim.x - 1 - i / heads", "i / gridDim.x, i % gridDim.x"],
    ),
];

/// The control is another variant, chosen so that it costs little. `[odd]` is given, so that the usual ones are not added.
fn suite(variant: &str, cases: &Cases, distributions: &str) -> String {
    let control = if variant == "stage0" { "stage1" } else { "stage0" };
    let (check, stress) = (cases.check, if distributions == "[]" { &[][..] } else { &cases.check[..1] });
    let distributions =
        if distributions == "[]" { String::new() } else { format!("distributions = {distributions}\n") };
    format!(
        r#"name = "mutant"
about = "one broken source"
control = "{control}"
arch = "sm_89"
seeds = [0]
check_shapes = {check:?}
stress_shapes = {stress:?}
{distributions}time_shapes = ["{}"]
odd = {{ shapes = [] }}
[[candidates]]
variant = "{variant}"
[resources]
max_registers = 255
max_shared_kib = 99
max_spill_bytes = 1000
[emulation]
shapes = {check:?}
max_ctas = 1000
"#,
        check[0]
    )
}

/// A validation that ended, and where its files are.
struct Validated {
    ran: Ran,
    run: PathBuf,
}

impl Validated {
    fn of(dist: &Dist, suite: &str) -> Validated {
        dist.write("mutant.toml", suite);
        Validated::by(dist, "emulator")
    }

    fn on_the_gpu(dist: &Dist, suite: &str) -> Validated {
        dist.write("mutant.toml", suite);
        Validated::by(dist, "gpu")
    }

    fn by(dist: &Dist, device: &str) -> Validated {
        let before = dist.runs();
        let ran = dist.run(&["validate", "--suite", "mutant.toml", "--device", device, "--peers", "none", "--full"]);
        let run = dist.runs().into_iter().find(|run| !before.contains(run));
        let run = run.unwrap_or_else(|| panic!("a run directory: {}", ran.stderr));
        Validated { ran, run }
    }

    fn usual(dist: &Dist, variant: &str, cases: &Cases) -> Validated {
        let distributions = cases.stress.map_or("[]".to_owned(), |stress| format!("[{stress:?}]"));
        Validated::of(dist, &suite(variant, cases, &distributions))
    }

    fn read<T: DeserializeOwned>(&self, file: &str) -> T {
        read(&self.run, file)
    }
}

fn read<T: DeserializeOwned>(run: &Path, file: &str) -> T {
    let text = std::fs::read(run.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
    serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// Hashes of the PTX and of the machine code of a variant's entry functions.
fn hashes(builds: &Builds, variant: &str) -> (String, Vec<String>) {
    let record = builds.get(variant, "sm_89").expect("the mutant compiles");
    (record.ptx_sha256.clone(), record.entries.iter().map(|e| e.code_sha256.clone()).collect())
}

/// Mutants of what PTX asks and ptxas throws away for today's chips: the member mask of a shuffle.
const SAME_MACHINE_CODE: [&str; 1] = ["a shuffle that names half of its lanes"];

/// Does the work for every item in folders of their own, one for each processor of a small machine.
fn in_two_folders<T: Sync>(items: &[T], work: impl Fn(&Dist, &T) + Sync) {
    let next = Mutex::new(items.iter());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let dist = Dist::emulating();
                loop {
                    let item = next.lock().expect("no thread panicked").next();
                    match item {
                        Some(item) => work(&dist, item),
                        None => break,
                    }
                }
            });
        }
    });
}

#[test]
#[ignore = "slow: .ci/run runs it by name"]
fn equivalent_mutants_apply_and_pass() {
    in_two_folders(EQUIVALENT, |dist, (why, variant, edit)| {
        let healthy = Validated::usual(dist, variant, &USUAL).read("builds.json");
        let validated = edited(dist, *edit, || Validated::usual(dist, variant, &USUAL));
        let (_, code) = hashes(&validated.read("builds.json"), variant);
        assert_ne!(code, hashes(&healthy, variant).1, "{why}: no machine code changes");
        validated.ran.expect(3);
    });
}

#[test]
fn there_are_many_and_none_is_named_like_another() {
    let names: std::collections::BTreeSet<&str> = all().map(|mutant| mutant.name).collect();
    assert_eq!(names.len(), all().count());
    assert!(names.len() + on_a_gpu::MUTANTS.len() >= 90, "{}", names.len());
}

#[test]
#[ignore = "slow: .ci/run runs it by name"]
fn every_mutant_applies_and_is_rejected_by_the_gate_named_for_it() {
    // What is not broken passes on the same cases, or a rejection would say nothing.
    let healthy = Mutex::new(BTreeMap::new());
    let wanted: std::collections::BTreeSet<(&str, Cases)> = all().map(|m| (m.variant, m.cases)).collect();
    let wanted: Vec<(&str, Cases)> = wanted.into_iter().collect();
    in_two_folders(&wanted, |dist, (variant, cases)| {
        let validated = Validated::usual(dist, variant, cases);
        let of_variant = hashes(&validated.read("builds.json"), variant);
        validated.ran.expect(3);
        healthy.lock().unwrap().insert(*variant, of_variant);
    });
    let (healthy, survivors) = (healthy.into_inner().unwrap(), Mutex::new(Vec::new()));
    let mutants: Vec<&Mutant> = all().collect();
    in_two_folders(&mutants, |dist, mutant| {
        let validated = mutant.applied(dist, || Validated::usual(dist, mutant.variant, &mutant.cases));
        if let Some(why) = survives(mutant, &validated, &healthy[mutant.variant]) {
            survivors.lock().unwrap().push(why);
        }
    });
    let survivors = survivors.into_inner().unwrap();
    assert!(survivors.is_empty(), "{} of {} survive:\n{}", survivors.len(), mutants.len(), survivors.join("\n"));
}

/// Why a mutant was not rejected as it should be, if so.
fn survives(mutant: &Mutant, validated: &Validated, healthy: &(String, Vec<String>)) -> Option<String> {
    let Mutant { name, variant, .. } = mutant;
    let (ptx, code) = hashes(&validated.read("builds.json"), variant);
    if ptx == healthy.0 {
        return Some(format!("{name} ({variant}): no PTX changes"));
    }
    if (code == healthy.1) != SAME_MACHINE_CODE.contains(name) {
        return Some(format!("{name} ({variant}): machine code changed: {}", code != healthy.1));
    }
    let gates: Vec<Gate> = validated.read("gates.json");
    let failed: Vec<&Gate> = gates.iter().filter(|g| g.variant == *variant && g.state == State::Fail).collect();
    // What the emulator's checks find, they find in a line of the source.
    let place = if mutant.gate == CHECKS { ".cuh:" } else { "" };
    let text = |gate: &Gate| format!("{}: {} at {}", gate.figure, gate.measured, gate.place);
    let named = |gate: &&&Gate| [mutant.says, place].iter().all(|words| text(gate).contains(words));
    let rejected = failed.iter().filter(|gate| gate.id == mutant.gate).find(named).is_some();
    if validated.ran.status == 1 && rejected {
        return None;
    }
    let fails = failed.iter().map(|gate| text(gate)).collect::<Vec<_>>().join("\n  ");
    Some(format!("{name} ({variant}), exit {}:\n  {fails}\n{}", validated.ran.status, validated.ran.stderr))
}
