//! `emulate run`: programs with their own `main`, compiled as a user compiles them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use kbench::profile::Figure;
use ptx_emulator::Tally;
use serde_json::Value;
use xtask::layout::Layout;
use xtask::toolchain;

use crate::common::Dist;

/// What the program prints that asks the runtime for most things; a GPU prints the same.
const CALLS: &str = "host: before
device: 100 values, scaled
host: after
values[99] = 396, counter 100, managed 6
symbol of 16 bytes, memset -1 -1 6
managed 63, pinned 0, registered 63, type 3
lines aaaaaccczz aabaaccczz zzzzzzzzzz
cube dddddddddddddddddddddddd
stream: called back
time passed: yes, query cudaSuccess
warp 32, threads 1024, cooperative 1, sum 6, bound 1024, fits yes
too many threads: invalid configuration argument
afterwards: no error
argument: hello
";

/// A folder with a program in it.
struct Program {
    dir: tempfile::TempDir,
}

impl Program {
    /// Compiles a source of the tests, with the runtime outside and PTX inside that is packed in a way.
    fn compile(source: &str, compression: &str) -> Program {
        Program::linked(source, compression, "shared")
    }

    fn linked(source: &str, compression: &str, runtime: &str) -> Program {
        let layout = Layout::find().expect("the tests run in a checkout");
        let tools = toolchain::find_or_install(&layout.target, &|line| eprintln!("{line}")).expect("a CUDA compiler");
        let dir = tempfile::tempdir().unwrap();
        let source = layout.root.join("xtask/tests/data/programs").join(source);
        std::fs::copy(&source, dir.path().join("app.cu")).unwrap();
        // A toolkit has the library under the name that is linked; its wheels have the other one only.
        let lib = tools.nvcc.ancestors().nth(2).unwrap().join("lib");
        for name in ["libcudart.so", "libcudart_static.a", "libcudadevrt.a"] {
            let file = if name == "libcudart.so" { "libcudart.so.13" } else { name };
            std::os::unix::fs::symlink(lib.join(file), dir.path().join(name)).unwrap();
        }
        let arguments = ["-cudart", runtime, "-gencode", "arch=compute_80,code=compute_80", "-g", "-lineinfo", "-L."];
        let compiled = Command::new(&tools.nvcc)
            .args(arguments)
            .args(["--compress-mode", compression, "-o", "app", "app.cu"])
            .current_dir(dir.path())
            .output()
            .unwrap();
        assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
        Program { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs it with options of `emulate run`, and its own arguments.
    fn run(&self, options: &[&str], arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command.args(["emulate", "run"]).args(options).arg("./app").args(arguments);
        command.current_dir(self.dir.path()).output().unwrap()
    }
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
#[ignore = "takes longer; .ci/run runs it"]
fn a_program_prints_what_a_gpu_prints_however_its_ptx_is_packed() {
    for compression in ["default", "speed", "none"] {
        let ran = Program::compile("calls.cu", compression).run(&[], &["hello"]);
        assert_eq!(text(&ran.stdout), CALLS, "{compression}: {}", text(&ran.stderr));
        let told = text(&ran.stderr);
        assert!(told.contains("0 errors, 1 warning"), "{compression}: {told}");
        assert_eq!(ran.status.code(), Some(0), "{compression}: {told}");
    }
}

#[test]
#[ignore = "takes longer; .ci/run runs it"]
fn defects_are_found_at_their_lines_and_counted_as_the_project_says() {
    let program = Program::compile("defects.cu", "default");
    let files =
        ["--json", "found.json", "--sarif", "found.sarif", "--junit", "found.xml", "--write-baseline", "known.json"];
    let ran = program.run(&[&files[..], &["--github"]].concat(), &[]);
    assert_eq!(ran.status.code(), Some(1), "{}", text(&ran.stderr));
    let printed = text(&ran.stdout);
    let own = "racy: no error\nbeyond: an illegal memory access was encountered\n";
    assert!(printed.starts_with(own), "{printed}");
    let found = json(&program.path("found.json"));
    let of = |kernel: &str| -> Vec<(String, Vec<String>)> {
        let findings = found["findings"].as_array().unwrap().iter().filter(|f| f["kernel"] == kernel);
        let lines = |f: &Value| {
            f["sites"].as_array().unwrap().iter().map(|s| s["source"][0].as_str().unwrap().to_owned()).collect()
        };
        findings.map(|f| (f["kind"].as_str().unwrap().to_owned(), lines(f))).collect()
    };
    let has = |kernel: &str, kind: &str, lines: &[&str]| {
        let is = |(k, l): &(String, Vec<String>)| k == kind && l.iter().map(String::as_str).eq(lines.iter().copied());
        assert!(of(kernel).iter().any(is), "{kernel} {kind}: {:?}", of(kernel));
    };
    has("racy", "race-read-after-write", &["app.cu:7", "app.cu:8"]);
    has("beyond", "out-of-bounds", &["app.cu:13"]);
    assert!(
        text(&ran.stderr).contains("cudaMalloc#2 (256 bytes) was allocated at app.cu:25 (main)"),
        "{}",
        text(&ran.stderr)
    );
    assert!(text(&ran.stderr).contains("launched at app.cu:34 (main)"), "{}", text(&ran.stderr));
    assert!(printed.contains("::error file=app.cu,line=13,title=out-of-bounds::"), "{printed}");
    let results = json(&program.path("found.sarif"))["runs"][0]["results"].clone();
    assert!(results.as_array().unwrap().iter().all(|result| result["baselineState"] == "new"), "{results}");
    assert!(std::fs::read_to_string(program.path("found.xml")).unwrap().contains("<failure "));
    // What is known does not fail; what is new does, and what is suppressed does not.
    let known = ["--baseline", "known.json"];
    assert_eq!(program.run(&known, &[]).status.code(), Some(0));
    std::fs::write(
        program.path("policy.toml"),
        "[[suppress]]\nreason = \"shows what initcheck finds\"\nkernel = \"undefined\"\nfile = \"app.cu\"\n",
    )
    .unwrap();
    let more = program.run(&known, &["more"]);
    assert_eq!(more.status.code(), Some(1), "{}", text(&more.stderr));
    let suppressed =
        program.run(&[&known[..], &["--policy", "policy.toml", "--sarif", "rest.sarif"]].concat(), &["more"]);
    let told = text(&suppressed.stderr);
    assert!(told.contains("NOT EMULATED `cudaCreateTextureObject`"), "{told}");
    assert_eq!(suppressed.status.code(), Some(3), "only what is not emulated is left: {told}");
    let results = json(&program.path("rest.sarif"))["runs"][0]["results"].clone();
    let results = results.as_array().unwrap();
    let hidden =
        results.iter().find(|result| result["suppressions"][0]["justification"] == "shows what initcheck finds");
    assert!(hidden.is_some() && results.iter().any(|result| result["baselineState"] == "unchanged"), "{results:?}");
}

#[test]
#[ignore = "takes longer; .ci/run runs it"]
fn a_program_with_the_runtime_inside_is_told_how_to_be_compiled() {
    let ran = Program::linked("defects.cu", "default", "static").run(&[], &[]);
    assert_eq!(ran.status.code(), Some(2));
    assert!(text(&ran.stderr).contains("nvcc -cudart shared"), "{}", text(&ran.stderr));
}

/// What `emulate --counts` says of one launch of a variant on `mission`.
fn counted(dist: &Dist, variant: &str) -> Value {
    let ran = dist.run(&["emulate", variant, "--counts", "--shapes", "mission", "--json"]).expect(0);
    serde_json::from_str::<Value>(&ran.stdout).unwrap()[0]["launches"][0].clone()
}

/// A figure that Nsight Compute read on a GPU, of a variant on `mission`.
fn on_a_gpu(variant: &str, figure: Figure) -> f64 {
    let layout = Layout::find().expect("the tests run in a checkout");
    let path = layout.root.join(format!("kbench/tests/data/ncu/{variant}.mission.seed0.normal.csv"));
    kbench::profile::read(&std::fs::read_to_string(path).unwrap()).unwrap().value(figure).unwrap()
}

#[test]
#[ignore = "takes longer; .ci/run runs it"]
fn the_ladder_is_counted_as_a_gpu_counts_it() {
    let dist = Dist::emulating();
    for variant in ["stage2", "ws-p1", "persistent"] {
        let launch = counted(&dist, variant);
        assert_eq!(launch["blocks_run"], launch["blocks_in_grid"], "all CTAs are counted");
        let total: Tally = serde_json::from_value(launch["total"].clone()).unwrap();
        let gpu = |figure| on_a_gpu(variant, figure);
        assert_eq!(total.tensor_instructions as f64, gpu(Figure::TensorInstructions), "{variant}");
        assert_eq!(total.l1_sectors() as f64, gpu(Figure::L1LsuSectors), "{variant}");
        // Wavefronts without conflicts: machine code has some of its own around `cp.async`.
        let ideal = (total.shared_wavefronts - total.bank_conflicts) as f64;
        let on_gpu = gpu(Figure::SharedWavefronts) - gpu(Figure::BankConflicts);
        assert!((ideal / on_gpu - 1.0).abs() < 0.013, "{variant}: {ideal} wavefronts, {on_gpu} on a GPU");
        // The GPU's counter has conflicts between instructions as well, which differ from SM to SM.
        let conflicts = total.bank_conflicts as f64;
        assert!(conflicts <= gpu(Figure::BankConflicts), "{variant}: {conflicts}");
        assert_eq!(conflicts == 0.0, gpu(Figure::BankConflicts) == 0.0, "{variant}: {conflicts}");
    }
}

#[test]
#[ignore = "takes longer; .ci/run runs it"]
fn counts_are_told_in_words_with_their_lines() {
    let text = Dist::emulating().run(&["emulate", "stage2", "--counts", "--shapes", "tiny"]).expect(0).stdout;
    for words in ["counted, not timed", "shared-memory bank conflicts", "theoretical occupancy, %", "pv.cuh:"] {
        assert!(text.contains(words), "`{words}` is not in\n{text}");
    }
}
