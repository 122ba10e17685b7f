//! What an accepted variant of a gate file is: everything that changes what it computes or how it is launched, and nothing else.

use std::collections::BTreeMap;
use std::path::Path;

use xtask::accepted::of_builds;
use xtask::declared::build_all;
use xtask::plan::{Changes, Plan};

use crate::compile::Room;

const GATE: &str = r#"
name = "scale"
control = "old"
candidates = ["new"]
arch = "sm_89"
[operator]
axes = ["n"]
reference = "scale.py"
inputs.x = { shape = ["n"], dtype = "f32" }
outputs.y = { shape = ["n"], dtype = "f32" }
[shapes]
a = { n = 64 }
[variants.old]
source = "scale.cu"
entry = "scale_old"
params = ["x", "y", "n: i32"]
grid = [1]
block = [64]
[variants.new]
base = "old"
entry = "scale_new"
"#;

const SOURCE: &str = r#"
__constant__ float factors[2] = {1.0f, 2.0f};
__device__ __noinline__ float twice(float x) { return x + x; }
extern "C" __global__ void scale_old(const float* x, float* y, int n) {
  if (threadIdx.x < n) y[threadIdx.x] = x[threadIdx.x] * factors[n & 1];
}
extern "C" __global__ void scale_new(const float* x, float* y, int n) {
  if (threadIdx.x < n) y[threadIdx.x] = twice(x[threadIdx.x]);
}
"#;

/// The hashes of `old` and `new` in a room of their own.
fn code(gate: &str, source: &str, folder: &Path) -> [BTreeMap<String, String>; 2] {
    let room = Room::new();
    std::fs::create_dir_all(folder).unwrap();
    for (file, text) in [("gate.toml", gate), ("scale.cu", source), ("scale.py", "def reference(x):\n    return x\n")] {
        std::fs::write(folder.join(file), text).unwrap();
    }
    let file = folder.join("gate.toml").display().to_string();
    let plan = Plan::read(&room.layout, &file, &Changes::default()).unwrap();
    let set = build_all(&room.layout, &room.tools, &plan, &["sm_89".to_owned()], None).unwrap();
    assert!(set.failures.is_empty(), "{:?}", set.failures);
    ["old", "new"].map(|variant| of_builds(&plan.suite, &set, variant).unwrap())
}

#[test]
#[ignore = "takes longer; .ci/run runs it"]
fn its_hash_is_of_code_constants_and_launches_wherever_it_lies() {
    let dir = tempfile::tempdir().unwrap();
    let of = |gate: &str, source: &str| code(gate, source, &dir.path().join("here"));
    let changed = |text: &str, from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        text.replace(from, to)
    };
    let first = of(GATE, SOURCE);
    assert_eq!(first[0].keys().collect::<Vec<_>>(), ["sm_89"]);
    assert_ne!(first[0], first[1]);
    assert_eq!(code(GATE, SOURCE, &dir.path().join("a/copy/elsewhere")), first);
    let words = changed(GATE, "[operator]", "# a comment\n[operator]");
    assert_eq!(of(&words, &format!("// a comment\n{SOURCE}")), first);

    // Nothing of these is in the entry's own machine code.
    let constants = of(GATE, &changed(SOURCE, "2.0f}", "3.0f}"));
    assert_ne!(constants[0], first[0], "a constant");
    let function = of(GATE, &changed(SOURCE, "return x + x", "return x + x + 1.0f"));
    assert_ne!(function[1], first[1], "a function that it calls");
    let launched = of(&changed(GATE, "block = [64]", "block = [128]"), SOURCE);
    assert_ne!(launched[1], first[1], "what its base is launched with");
    let own = of(&(GATE.to_owned() + "block = [96]\n"), SOURCE);
    assert!(own[0] == first[0] && own[1] != first[1], "each has its own");
}
