//! Drafting a gate file: what it says of real sources, and that it is valid before anything is filled in.

use std::path::Path;

use kbench::key::BadKey;
use kbench::suite::Suite;
use xtask::foreign::init::init;

use super::compile::Room;

fn drafted(room: &Room, file: &str, source: &str) -> Result<(String, Suite), String> {
    let path = room.dir.path().join("gate").join(file);
    room.write(file, source);
    // The checkout's own layout, so that no compiler is installed for the test.
    let layout = xtask::layout::Layout::find().unwrap();
    let gate = init(&layout, &path).map_err(|error| match error.downcast::<BadKey>() {
        Ok(bad) => bad.to_string(),
        Err(error) => panic!("{error:#}"),
    })?;
    let text = std::fs::read_to_string(gate).unwrap();
    let suite = Suite::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    Ok((text, suite))
}

#[test]
fn drafts_are_valid_and_say_what_to_fill_in() {
    let room = Room::new();
    let softmax = std::fs::read_to_string(room.layout.root.join("examples/softmax/softmax.cu")).unwrap();
    let (text, suite) = drafted(&room, "softmax.cu", &softmax).unwrap();
    assert_eq!((suite.control.as_str(), suite.candidates.len()), ("softmax_two_pass", 2));
    for line in [
        r#"axes = ["rows", "cols"] # fill in: "#,
        r#"reference = "softmax.py" # fill in: write it, `def reference(x)` in numpy; it returns y"#,
        r#"inputs.x = { shape = ["rows", "cols"], dtype = "f16" } # fill in: shape; "#,
        r#"let = { THREADS = 256 } # fill in: "#,
        r#"entry = "softmax_online<{THREADS}>""#,
        r#"params = ["x", "y", "rows: i32", "cols: i32"]"#,
        r#"block = ["THREADS"]"#,
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    let again = init(&xtask::layout::Layout::find().unwrap(), &room.dir.path().join("gate/softmax.cu")).unwrap_err();
    assert!(again.to_string().contains("softmax.toml` is there already"), "{again}");
    let rmsnorm = std::fs::read_to_string(room.layout.root.join("examples/rmsnorm/rmsnorm.cu")).unwrap();
    let (text, _) = drafted(&room, "rmsnorm.cu", &rmsnorm).unwrap();
    assert!(text.contains("`def reference(x, weight, eps)`"), "{text}");
}

#[test]
fn structs_instances_and_single_kernels_are_drafted() {
    let room = Room::new();
    let source = r#"
#include <cuda_bf16.h>
struct Params { const float* bias; int n; float scale; };
namespace lib {
enum class Mode { A, B };
template <typename T, int N, Mode M> __global__ void __launch_bounds__(N) add(const T* x, const int* index, T* y, Params p, bool flip) {
  extern __shared__ float tile[];
  tile[threadIdx.x] = index[threadIdx.x];
  if (threadIdx.x < p.n) y[threadIdx.x] = x[index[threadIdx.x]];
}
template __global__ void add<__nv_bfloat16, 128, Mode::B>(const __nv_bfloat16*, const int*, __nv_bfloat16*, Params, bool);
}
"#;
    let (text, suite) = drafted(&room, "add.cu", source).unwrap();
    assert_eq!(suite.candidates[0].variant, "candidate");
    for line in [
        "entry = \"lib::add<__nv_bfloat16, 128, (lib::Mode)1>\"\n",
        r#"params = ["x", "index", "y", { struct = ["0: u64", "0: u64"] }, "flip: bool"] # fill in: the members"#,
        "block = [128] # fill in: threads",
        "shared = 0 # fill in",
        r#"inputs.index = { shape = ["n"], dtype = "i32", distribution = "integers", low = 0, high = 2 }"#,
        r#"outputs.y = { shape = ["n"], dtype = "f32" } # fill in: shape and dtype"#,
        "let = { flip = false }",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}

#[test]
fn what_cannot_be_drafted_is_one_line_and_leaves_nothing() {
    let room = Room::new();
    let refused = |file: &str, source: &str| {
        let line = drafted(&room, file, source).unwrap_err();
        assert!(!room.dir.path().join("gate").join(file).with_extension("toml").exists());
        assert_eq!(line.lines().count(), 1, "{line}");
        line
    };
    let line = refused("broken.cu", "__global__ void k(float* p) { *p = 1 }");
    assert!(line.contains("broken.cu: does not compile as it is: nvcc: broken.cu(1): error: "), "{line}");
    assert!(refused("host.cu", "int main() { }").ends_with("has no kernel: nothing in it is `__global__`"));
    assert!(refused("none.cu", "__global__ void k(int n) { }").contains("`k` takes no pointer"));
    let missing = init(&room.layout, Path::new("/none/kernel.cu")).unwrap_err();
    assert_eq!(missing.to_string(), "/none/kernel.cu: there is no such file");
}

#[test]
fn the_examples_are_valid_gate_files() {
    let root = xtask::layout::Layout::find().unwrap().root;
    for (name, candidates) in [("softmax", 2), ("rmsnorm", 4), ("gemm", 2)] {
        let text = std::fs::read_to_string(root.join("examples").join(name).join("gate.toml")).unwrap();
        let suite = Suite::parse(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!((suite.name.as_str(), suite.candidates.len()), (name, candidates));
    }
}
