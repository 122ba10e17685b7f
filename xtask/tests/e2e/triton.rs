//! Kernels in Triton through the binary, for three architectures and without a GPU: ten that are right are right on the
//! emulator, with every check and no false alarm, and what goes wrong with such kernels is rejected by the gate that sees it.

use std::path::Path;
use std::process::Command;

use xtask::layout::Layout;

/// Gate files of `tests/data/triton`, with what each plants.
const KERNELS: [(&str, &[&str]); 10] = [
    ("softmax", &["FIX unmasked: correctness: emulator's checks"]),
    ("layernorm", &[]),
    ("matmul", &["FIX unmasked-k: correctness: emulator's checks", "FIX spilling: resources: spills"]),
    ("attention", &[]),
    ("dropout", &[]),
    ("sort", &[]),
    ("cumsum", &[]),
    ("histogram", &["FIX racing: correctness: emulator's checks"]),
    ("quantise", &[]),
    ("grouped", &[]),
];

fn data() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/triton")
}

/// The folder's files elsewhere, for another architecture than they name.
fn copied(arch: &str) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(data()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            let text = std::fs::read_to_string(&path).unwrap().replace("\"sm_80\"", &format!("\"{arch}\""));
            std::fs::write(copy.path().join(path.file_name().unwrap()), text).unwrap();
        }
    }
    copy
}

fn validate(gate: &Path) -> (i32, String) {
    let out = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.arg("validate").arg(gate).args(["--device", "emulator", "--out"]).arg(out.path());
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    (output.status.code().expect("no signal"), said)
}

/// Two at a time: the compiler takes one processor.
fn kernels_for(arch: &str, wanted: &[(&str, &[&str])]) {
    let gates = copied(arch);
    let judge = |(name, planted): &(&str, &[&str])| {
        let (status, said) = validate(&gates.path().join(format!("{name}.toml")));
        assert_eq!(status, if planted.is_empty() { 3 } else { 1 }, "{name} {arch}: {said}");
        assert!(said.contains("DEFER wide: seen on a GPU is DEFERRED"), "{name} {arch}: {said}");
        planted.iter().for_each(|line| assert!(said.contains(line), "{name} {arch}: {line}: {said}"));
        assert_eq!(said.matches("FIX ").count(), planted.len(), "{name} {arch}: {said}");
    };
    std::thread::scope(|scope| {
        for first in 0..2 {
            scope.spawn(move || wanted.iter().skip(first).step_by(2).for_each(judge));
        }
    });
}

#[test]
#[ignore = "minutes of Triton's compiler; run by name"]
fn ten_kernels_for_sm_80() {
    kernels_for("sm_80", &KERNELS);
}

#[test]
#[ignore = "minutes of Triton's compiler; .ci/run runs it by name"]
fn ten_kernels_for_sm_89() {
    kernels_for("sm_89", &KERNELS);
}

#[test]
#[ignore = "minutes of Triton's compiler; run by name"]
fn ten_kernels_for_sm_90() {
    kernels_for("sm_90", &KERNELS);
}

#[test]
#[ignore = "half a minute of Triton's compiler; .ci/run runs it by name"]
fn kernels_for_sm_90_whose_products_are_of_warpgroups_and_whose_rows_two_warps_store() {
    kernels_for("sm_90", &[KERNELS[3], KERNELS[9]]);
}

#[test]
#[ignore = "wants Triton installed, for the sake of one line each; .ci/run runs it by name"]
fn what_triton_cannot_be_asked_is_one_line_and_what_it_cannot_compile_fixes_the_variant() {
    assert!(Layout::find().is_ok(), "the tests run in a checkout");
    let gates = copied("sm_80");
    let gate = std::fs::read_to_string(gates.path().join("cumsum.toml")).unwrap();
    let source = std::fs::read_to_string(gates.path().join("kernels.py")).unwrap();
    let path = gates.path().join("wrong.toml");
    for (from, to, says) in [
        (
            "triton = \"cumsum\"",
            "triton = \"cumsun\"",
            "variants.usual.triton: kernels.py: there is no function `cumsun`",
        ),
        (
            ", \"cols: i32\"]",
            "]",
            "variants.usual.params: kernels.py: `cumsum` takes 3 parameters besides its constants (x, y, cols), 2 are given",
        ),
        (
            "BLOCK = ",
            "BLOK = ",
            "variants.usual.define.BLOK: kernels.py: `cumsum` has no tl.constexpr `BLOK`: it has BLOCK",
        ),
    ] {
        std::fs::write(&path, gate.replace(from, to)).unwrap();
        let (status, said) = validate(&path);
        assert!(status == 2 && said.contains(says), "{to}: {status} {said}");
    }
    std::fs::write(&path, &gate).unwrap();
    let tuned = "@triton.autotune(configs=[triton.Config({}, num_warps=2)], key=['cols'])\n@triton.jit\ndef cumsum(";
    let decorated = source.replace("@triton.jit\ndef cumsum(", tuned);
    assert_ne!(decorated, source);
    std::fs::write(gates.path().join("kernels.py"), decorated).unwrap();
    let (status, said) = validate(&path);
    let line = "compiled without triton.autotune, by the gate file's values: usual, wide";
    assert!(status == 3 && said.contains(line), "{status} {said}");
    std::fs::write(gates.path().join("kernels.py"), source.replace("tl.cumsum(values", "tl.cumsum(nothing")).unwrap();
    let (status, said) = validate(&path);
    assert!(status == 1 && said.contains("kernels.py:") && said.contains("nothing is not defined"), "{status} {said}");
}
