//! Gate files through the binary: the examples are judged on the emulator, and every way to write one wrong is one line with
//! file and key, exit status 2, and nothing left behind.

use std::path::{Path, PathBuf};
use std::process::Command;

use xtask::layout::Layout;

/// What one call came to.
struct Ran {
    status: i32,
    said: String,
    errors: Vec<String>,
}

fn validate(gate: &Path, out: &Path) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.arg("validate").arg(gate).args(["--device", "emulator", "--out"]).arg(out);
    let output = command.output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    let first = stderr.lines().position(|line| line.starts_with("error")).unwrap_or(usize::MAX);
    Ran {
        status: output.status.code().expect("no signal"),
        said: String::from_utf8(output.stdout).unwrap(),
        errors: stderr.lines().skip(first).map(str::to_owned).collect(),
    }
}

fn example(name: &str) -> PathBuf {
    Layout::find().expect("the tests run in a checkout").root.join("examples").join(name)
}

fn the_only_run(out: &Path) -> PathBuf {
    let mut runs: Vec<PathBuf> = std::fs::read_dir(out).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(runs.len(), 1, "{runs:?}");
    runs.remove(0)
}

#[test]
#[ignore = "takes longer; .ci/run runs it"]
fn the_examples_are_judged_and_their_wrong_candidates_are_fixed_by_the_gate_that_sees_it() {
    let cases = [
        ("softmax", "DEFER online: seen on a GPU", &["FIX unrolled: correctness: finite output"][..]),
        ("rmsnorm", "DEFER registers: seen on a GPU", &["FIX unordered: correctness: emulator's checks"]),
        ("gemm", "DEFER tiled: seen on a GPU", &["FIX unfenced: correctness: emulator's checks"]),
        (
            "decode",
            "DEFER split: seen on a GPU",
            &[
                "FIX unmasked: correctness: out relative_rms error",
                "FIX unfenced: correctness: emulator's checks",
                "FIX unscaled: correctness: out relative_rms error",
            ],
        ),
    ];
    for (name, right, wrong) in cases {
        let out = tempfile::tempdir().unwrap();
        let ran = validate(&example(name).join("gate.toml"), out.path());
        assert_eq!((ran.status, &ran.errors), (1, &Vec::new()), "{}", ran.said);
        assert!(ran.said.contains(right), "{}", ran.said);
        assert!(wrong.iter().all(|line| ran.said.contains(line)), "{}", ran.said);
        // The other language is judged like the first; where Triton cannot be had, that is said in its stead.
        assert!(name != "rmsnorm" || ran.said.contains("DEFER triton: "), "{}", ran.said);
        // Host code runs on a GPU only.
        assert!(name != "rmsnorm" || ran.said.contains("DEFER torch: every case ran is DEFERRED"), "{}", ran.said);
        let run = the_only_run(out.path());
        assert!(run.join("operator").join(format!("{name}.py")).is_file(), "what was named is part of the run");
        let verified = Command::new(env!("CARGO_BIN_EXE_xtask")).arg("verify").arg(&run).status().unwrap();
        assert!(verified.success());
        let reference = run.join("operator").join(format!("{name}.py"));
        std::fs::write(&reference, "def reference(x):\n    return x\n").unwrap();
        let forged = Command::new(env!("CARGO_BIN_EXE_xtask")).arg("verify").arg(&run).output().unwrap();
        assert_eq!(forged.status.code(), Some(1), "who edits the reference edits the evidence");
    }
}

#[test]
fn machine_code_is_for_a_gpu_and_what_is_in_ptx_beside_it_is_judged_all_the_same() {
    let copy = copied("gemm");
    let gate = copy.path().join("gate.toml");
    let text = std::fs::read_to_string(&gate).unwrap().replace("name = \"gemm\"", "name = \"gemm\"\narch = \"sm_80\"");
    std::fs::write(&gate, &text).unwrap();
    let first = tempfile::tempdir().unwrap();
    assert_eq!(validate(&gate, first.path()).status, 1);
    let cubin = the_only_run(first.path()).join("builds/tiled/kernel.cubin");
    std::fs::copy(cubin, copy.path().join("yesterday.cubin")).unwrap();
    let as_candidate = text.replace("candidates = [\"tiled\"", "candidates = [\"yesterday\"")
        + "[variants.yesterday]\nbase = \"tiled\"\nsource = \"yesterday.cubin\"\n";
    std::fs::write(&gate, as_candidate).unwrap();
    let second = tempfile::tempdir().unwrap();
    let ran = validate(&gate, second.path());
    assert_eq!((ran.status, &ran.errors), (1, &Vec::new()), "{}", ran.said);
    for line in ["DEFER yesterday: ", "FIX unfenced: correctness: emulator's checks"] {
        assert!(ran.said.contains(line), "{line}: {}", ran.said);
    }
    let run = the_only_run(second.path());
    let gates = std::fs::read_to_string(run.join("gates.json")).unwrap();
    assert!(gates.contains("`yesterday` is machine code"), "{gates}");
    assert!(!run.join("builds/yesterday/kernel.ptx").exists());
    let verified = Command::new(env!("CARGO_BIN_EXE_xtask")).arg("verify").arg(&run).status().unwrap();
    assert!(verified.success(), "what machine code says of itself is asked again");
    // Machine code of another architecture says nothing here, and is named.
    std::fs::write(&gate, std::fs::read_to_string(&gate).unwrap().replace("sm_80", "sm_90a")).unwrap();
    let ran = validate(&gate, tempfile::tempdir().unwrap().path());
    assert!(ran.said.contains("yesterday.cubin is machine code for sm_80"), "{}", ran.said);
}

#[test]
fn what_a_gate_file_runs_is_confined_and_the_run_says_how_far() {
    let copy = copied("softmax");
    let (gate, out) = (copy.path().join("gate.toml"), tempfile::tempdir().unwrap());
    validate(&gate, out.path());
    let environment = std::fs::read_to_string(the_only_run(out.path()).join("ENV.json")).unwrap();
    let environment: serde_json::Value = serde_json::from_str(&environment).unwrap();
    let lines: Vec<&str> =
        environment["confinement"].as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect();
    let parts: Vec<&str> = lines.iter().map(|line| line.split(": ").next().unwrap()).collect();
    assert_eq!(parts, ["files", "network", "processes"], "{lines:?}");
    if lines[0].contains("not enforced") {
        eprintln!("left out: {}", lines[0]);
        return;
    }
    let room = tempfile::tempdir().unwrap();
    let target = room.path().join("left");
    let write = format!("open('{}', 'w')", target.display());
    let text = std::fs::read_to_string(&gate).unwrap();
    let plan = "def launches(axes, device, let, define):\n    WRITE\n    return []\n".replace("WRITE", &write);
    std::fs::write(copy.path().join("plan.py"), plan).unwrap();
    let planned = text.replace("[\"online\",", "[\"planned\", \"online\",")
        + "[variants.planned]\nbase = \"two-pass\"\nplan = \"plan.py\"\n";
    std::fs::write(&gate, planned).unwrap();
    let of_the_plan = validate(&gate, room.path().join("out").as_path());
    std::fs::write(&gate, &text).unwrap();
    let reference = copy.path().join("softmax.py");
    let body = std::fs::read_to_string(&reference).unwrap();
    std::fs::write(&reference, body.replace("    e =", &format!("    {write}\n    e ="))).unwrap();
    let of_the_reference = validate(&gate, room.path().join("out").as_path());
    for ran in [of_the_plan, of_the_reference] {
        assert_eq!((ran.status, ran.errors.len()), (2, 1), "{:?}\n{}", ran.errors, ran.said);
        assert!(ran.errors[0].contains("PermissionError: [Errno 13] Permission denied"), "{:?}", ran.errors);
        assert!(!target.exists(), "it left something behind");
    }
}

/// A wrong gate file: the file that is edited, what is replaced, by what, and what the line must say.
type Wrong = (&'static str, &'static str, &'static str, &'static str);

/// What the file alone shows.
const OF_THE_FILE: &[Wrong] = &[
    ("gate.toml", "name = \"softmax\"", "name = 3", "name: invalid type: integer `3`"),
    ("gate.toml", "name = \"softmax\"", "format = 2\nname = \"softmax\"", "format: is 2"),
    ("gate.toml", "control = \"two-pass\"", "control = \"one-pass\"", "variants.one-pass: is missing"),
    ("gate.toml", "candidates = [", "candidate = [", "unknown field `candidate`"),
    ("gate.toml", "[\"online\", \"unrolled\"]", "[]", "candidates: name at least one"),
    ("gate.toml", "axes = [\"rows\", \"cols\"]", "axes = [\"rows\", \"rows\"]", "operator.axes[1]: `rows` is already"),
    ("gate.toml", "inputs.x = { shape = [\"rows\", \"cols\"]", "inputs.x = { shape = [\"rows\", \"colls\"]", "colls"),
    (
        "gate.toml",
        "inputs.x = { shape = [\"rows\", \"cols\"]",
        "inputs.x = { shape = [\"rows - 3\", \"cols\"]",
        "shape[0]",
    ),
    (
        "gate.toml",
        "inputs.x = { shape = [\"rows\", \"cols\"]",
        "inputs.x = { shape = [\"rows / 2\", \"cols\"]",
        "shape[0]",
    ),
    ("gate.toml", "dtype = \"f16\" }\noutputs", "dtype = \"fp16\" }\noutputs", "operator.inputs.x.dtype: "),
    (
        "gate.toml",
        "dtype = \"f16\" }\noutputs",
        "dtype = \"i32\" }\noutputs",
        "operator.inputs.x.distribution: is missing",
    ),
    ("gate.toml", "reference = \"softmax.py\"", "reference = \"softmax.py\"\ncheck = \"softmax.py\"", "operator.check"),
    ("gate.toml", "reference = \"softmax.py\"", "", "operator.reference: is missing"),
    ("gate.toml", "reference = \"softmax.py\"", "reference = \"other.py\"", "there is no `other.py`"),
    ("gate.toml", "reference = \"softmax.py\"", "reference = \"../softmax.py\"", "operator.reference"),
    ("gate.toml", "reference = \"softmax.py\"", "reference = \"/etc/passwd\"", "operator.reference"),
    ("gate.toml", "[operator]", "[operator]\nconstraints = [\"cols % 2 == 0\"]", "is false"),
    ("gate.toml", "[operator]", "[operator]\nconstraints = [\"cols %% 2\"]", "operator.constraints"),
    ("gate.toml", "[operator]", "[operator]\nlet = { a = \"b\", b = \"a\" }", "operator.let"),
    ("gate.toml", "ragged = { rows = 3, cols = 77 }", "ragged = { rows = 3 }", "gives no `cols`"),
    ("gate.toml", "ragged = { rows = 3, cols = 77 }", "ragged = { rows = 3, cols = 77, deep = 1 }", "`deep`"),
    (
        "gate.toml",
        "ragged = { rows = 3, cols = 77 }",
        "\"a/b\" = { rows = 3, cols = 77 }",
        "shapes.a/b: is a name for files",
    ),
    ("gate.toml", "ragged = { rows = 3, cols = 77 }", "ragged = { rows = 0, cols = 77 }", "shape[0]"),
    ("gate.toml", "errors = { max = 1e-3,", "errors = { maximum = 1e-3,", "unknown field `maximum`"),
    ("gate.toml", "errors = { max = 1e-3,", "errors = { max = -1,", "operator.outputs.y.errors.max"),
    (
        "gate.toml",
        "cost = { bytes = \"4 * rows * cols\" }",
        "cost = { bytes = \"4 * rows * colls\" }",
        "operator.cost.bytes",
    ),
    ("gate.toml", "grid = [\"rows\"]", "grid = [\"rows - rows\"]", "variants.two-pass"),
    ("gate.toml", "grid = [\"rows\"]", "grid = [\"rows\", 1, 1, 1]", "grid"),
    ("gate.toml", "grid = [\"rows\"]", "grid = [\"lines\"]", "lines"),
    ("gate.toml", "block = [\"threads\"]", "block = [2048]", "block"),
    (
        "gate.toml",
        "base = \"two-pass\"\nentry = \"softmax_online",
        "base = \"online\"\nentry = \"softmax_online",
        "base",
    ),
    ("gate.toml", "\"rows: i32\", \"cols: i32\"", "\"rows: int\", \"cols: i32\"", "params"),
    ("gate.toml", "params = [\"x\",", "params = [\"z\",", "params[0]"),
    ("gate.toml", "source = \"softmax.cu\"", "source = \"../softmax.cu\"", "source"),
    ("gate.toml", "shape = \"logits\"", "shape = \"huge\"", "performance.shape: `huge` is gated"),
    ("gate.toml", "min_latency_reduction = 0.10", "min_latency_reduction = 10", "is a share"),
];

/// What only the compilers, or the reference, show.
const OF_WHAT_IT_NAMES: &[Wrong] = &[
    ("gate.toml", "source = \"softmax.cu\"", "source = \"missing.cu\"", "variants."),
    ("gate.toml", "entry = \"softmax_two_pass\"", "entry = \"softmax_one_pass\"", "softmax_one_pass"),
    ("gate.toml", "entry = \"softmax_online<{threads}>\"", "entry = \"softmax_online\"", "softmax_online"),
    ("gate.toml", "\"rows: i32\", \"cols: i32\"]", "\"rows: i32\"]", "entry takes 4 parameters, 3 are given"),
    ("gate.toml", "\"rows: i32\", \"cols: i32\"]", "\"rows: i64\", \"cols: i32\"]", "parameter 3 `rows: i64`"),
    ("gate.toml", "\"rows: i32\", \"cols: i32\"]", "\"rows: f32\", \"cols: i32\"]", "parameter 3 `rows: f32`"),
    ("softmax.cu", "#include <cuda_fp16.h>", "#include <cuda_fp16.h>\n#include \"/etc/hostname\"", "/etc/hostname"),
    ("softmax.py", "def reference(", "def referenz(", "reference"),
    ("softmax.py", "return", "raise ValueError(\"no\\nway\")\n    return", "ValueError"),
    ("softmax.py", "return", "return float(\"nan\") * x\n    return", "NaN"),
    ("softmax.py", "return", "return x[:, :1]\n    return", "shape"),
    ("softmax.py", "return", "return x + np.random.rand()\n    return", "differ"),
    ("softmax.py", "return", "return {\"z\": x}\n    return", "z"),
    ("softmax.py", "import numpy as np", "import nothing_of_this_name", "nothing_of_this_name"),
];

fn copied(name: &str) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(example(name)).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            std::fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
        }
    }
    copy
}

/// What is not as it should be with each case.
fn refused(cases: &[Wrong]) -> Vec<String> {
    let mut wrong = Vec::new();
    for (file, from, to, says) in cases {
        let copy = copied("softmax");
        let path = copy.path().join(file);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "`{from}` is not in {file}");
        std::fs::write(&path, text.replacen(from, to, 1)).unwrap();
        let out = copy.path().join("runs");
        let ran = validate(&copy.path().join("gate.toml"), &out);
        let left = std::fs::read_dir(&out).map_or(0, Iterator::count);
        let one_line = matches!(ran.errors.as_slice(), [line] if line.contains(says) && line.contains("gate.toml"));
        if ran.status != 2 || !one_line || left != 0 {
            wrong.push(format!("{to}: exit {}, {left} left behind, {:?}", ran.status, ran.errors));
        }
    }
    wrong
}

#[test]
fn a_wrong_gate_file_is_refused_in_one_line_and_leaves_nothing() {
    let wrong = refused(OF_THE_FILE);
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), OF_THE_FILE.len(), wrong.join("\n"));
}

#[test]
#[ignore = "takes longer; .ci/run runs it"]
fn a_gate_file_that_names_what_cannot_be_is_refused_in_one_line_and_leaves_nothing() {
    let wrong = refused(OF_WHAT_IT_NAMES);
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), OF_WHAT_IT_NAMES.len(), wrong.join("\n"));
}
