//! Memory checks of a run on a GPU, with stand-ins for the runner and for compute-sanitizer: without a finding a candidate
//! merges, and whatever was found, or not looked at, keeps it from that. Nothing here was measured.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use kbench::gate::{Gate, GateId};
use xtask::layout::Layout;
use xtask::toolchain;

use crate::common::{Dist, NO_GPU, Ran};

/// A suite of one candidate, which the stand-in for a runner makes a MERGE.
pub const SUITE: &str = r#"
name = "m"
about = "One candidate that is faster in the stand-in"
control = "stage2"
candidates = ["stage3b"]
arch = "sm_89"
seeds = [0]
check_shapes = ["small", "ragged"]
stress_shapes = ["ragged"]
time_shapes = ["small"]
[resources]
max_registers = 255
max_shared_kib = 99
max_spill_bytes = 0
[[performance]]
shape = "small"
min_latency_reduction = 0.10
[emulation]
shapes = ["small", "ragged"]
max_ctas = 8
"#;

/// Writes the report that a test left for its tool, or a clean one, and runs what it is given.
const SANITIZER: &str = r#"#!/bin/sh
tool="$2"; log="$6"; shift 6
if [ -f "$(dirname "$0")/$tool.txt" ]; then cp "$(dirname "$0")/$tool.txt" "$log"
else printf '========= COMPUTE-SANITIZER\n========= ERROR SUMMARY: 0 errors\n' > "$log"; fi
exec "$@"
"#;

const RACE: &str = include_str!("../data/planted/race.racecheck.txt");

/// A dist folder whose runner claims a GPU.
fn fake() -> Dist {
    let dist = Dist::new(NO_GPU);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/fake_runner.py");
    std::fs::copy(script, dist.path("fake_runner.py")).unwrap();
    let folder = dist.path("").display().to_string();
    dist.runner(&format!("exec env FAKE_DIR='{folder}' python3 '{folder}/fake_runner.py'"));
    dist.write("gpus", "1");
    dist.write("kbench/suites/m.toml", SUITE);
    dist
}

/// A folder with the stand-in for compute-sanitizer.
fn tools(dist: &Dist) -> PathBuf {
    let bin = dist.path("tools");
    std::fs::create_dir_all(&bin).unwrap();
    dist.write("tools/compute-sanitizer", SANITIZER);
    std::fs::set_permissions(bin.join("compute-sanitizer"), std::fs::Permissions::from_mode(0o755)).unwrap();
    bin
}

/// What the gate of the candidate in the newest run says.
fn gate(dist: &Dist) -> Gate {
    let run = dist.runs().pop().expect("a run");
    let gates: Vec<Gate> = serde_json::from_slice(&std::fs::read(run.join("gates.json")).unwrap()).unwrap();
    gates.into_iter().find(|g| g.variant == "stage3b" && g.id == GateId::MemoryChecks).expect("the gate")
}

/// The newest run's decision says this.
#[track_caller]
fn decided(dist: &Dist, headline: &str, ran: &Ran) {
    let run = dist.runs().pop().expect("a run");
    let decision = std::fs::read_to_string(run.join("decision.json")).unwrap();
    assert!(decision.contains(headline), "{headline}\n{decision}\n{}", ran.stdout);
}

#[track_caller]
fn judged(dist: &Dist, ran: Ran, status: i32, headline: &str) -> Gate {
    let ran = ran.expect(status);
    decided(dist, headline, &ran);
    let run = dist.runs().pop().unwrap().display().to_string();
    dist.run(&["verify", &run]).expect(0);
    std::thread::sleep(std::time::Duration::from_secs(1));
    gate(dist)
}

#[test]
#[ignore = "takes longer; .ci/run runs it"]
fn a_candidate_merges_only_after_memory_checks_that_found_nothing() {
    let dist = fake();
    let validate = ["validate", "m", "--peers", "none"];
    let clean = judged(&dist, dist.run(&validate), 0, "MERGE stage3b");
    assert_eq!(clean.measured, "nothing found: emulated 2 shapes");

    dist.write("finding", "stage3b");
    judged(&dist, dist.run(&validate), 1, "FIX stage3b: correctness: memory checks ERROR race");
    assert!(gate(&dist).measured.contains("write a.cuh:1, read b.cuh:2; replay: --schedule greedy"));
    std::fs::remove_file(dist.path("finding")).unwrap();

    // What the emulator does not run is left to the tool; a machine that has one cannot show how it is without.
    dist.write("not-emulated", "stage3b");
    if toolchain::sanitizer(&dist.path("target")).is_none() {
        let open = judged(&dist, dist.run(&validate), 3, "DEFER stage3b: memory checks DEFERRED");
        let why = open.state.to_string();
        assert!(
            why.contains("the emulator cannot execute it: line 7") && why.contains("install the CUDA toolkit"),
            "{why}"
        );
    }
    let bin = tools(&dist);
    let clean = judged(&dist, dist.run_with(&bin, &validate), 0, "MERGE stage3b");
    assert_eq!(clean.measured, "nothing found: emulated 0 shapes, compute-sanitizer 1 of 2 others");
    dist.write("tools/racecheck.txt", RACE);
    let found = judged(&dist, dist.run_with(&bin, &validate), 1, "FIX stage3b: correctness: memory checks racecheck");
    assert!(found.measured.contains("dequantise.cuh:24"), "{}", found.measured);
}

#[test]
fn an_architecture_that_a_variant_does_not_claim_is_deferred_with_the_reason() {
    let dist = fake();
    let ran = dist.run(&["build", "stage2", "--arch", "sm_80"]).expect(3);
    assert!(ran.stdout.contains("stage2 sm_80: DEFERRED (`stage2` claims sm_89 and newer"), "{}", ran.stdout);
    dist.write("capability", "[8, 0]");
    let ran = dist.run(&["validate", "m"]).expect(3);
    let says =
        "DEFER stage3b: compiles DEFERRED (`stage3b` claims sm_89 and newer, and sm_80 has no conversions of e4m3";
    decided(&dist, says, &ran);
    assert!(ran.lines(&["FAIL"]).iter().all(|line| line.contains("0 FAIL")), "{}", ran.stdout);
}

/// A gate file whose control does not compile, and whose operator has a checker.
const GATE: &str = r#"
name = "copy"
control = "simple"
candidates = ["other"]
[operator]
axes = ["n"]
check = "check.py"
errors = { bad = 0 }
inputs.x = { shape = ["n"], dtype = "f32" }
outputs.y = { shape = ["n"], dtype = "f32" }
[shapes]
small = { n = 256 }
[variants.simple]
source = "simple.cu"
entry = "copy"
params = ["x", "y"]
grid = [1]
block = [256]
[variants.other]
base = "simple"
source = "other.cu"
"#;

#[test]
fn a_control_that_does_not_compile_is_told_by_the_compilers_error() {
    let dist = fake();
    let kernel = "extern \"C\" __global__ void copy(const float* x, float* y) { y[threadIdx.x] = x[threadIdx.x]; }\n";
    dist.write("gate.toml", GATE);
    dist.write("other.cu", kernel);
    dist.write("simple.cu", &kernel.replace("threadIdx.x]; }", "nothing]; }"));
    dist.write("check.py", "def check(inputs, outputs, axes):\n    return {'bad': 0}\n");
    // The numpy that the checkout has, if it has one: no test installs another.
    let python = Layout::find().expect("the tests run in a checkout").target.join("python");
    std::fs::create_dir_all(dist.path("target")).unwrap();
    std::os::unix::fs::symlink(python, dist.path("target/python")).unwrap();
    let gate = dist.path("gate.toml").display().to_string();
    let ran = dist.run(&["validate", &gate]).expect(1);
    assert!(ran.stdout.contains("FIX simple: build: nvcc: simple.cu(1): error"), "{}", ran.stdout);
}
