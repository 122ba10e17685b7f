//! A Python function of a gate file as a candidate, through the binary with a runner that a test writes: who is not there is
//! deferred with the remedy, and where it ran it is judged beside kernels, with what was not seen in the report.

use crate::common::Dist;

const GATE: &str = r#"
name = "scale"
control = "kernel"
candidates = ["torch"]
[operator]
axes = ["n"]
reference = "scale.py"
inputs.x = { shape = ["n"], dtype = "f32" }
outputs.y = { shape = ["n"], dtype = "f32" }
[shapes]
small = { n = 1024 }
[variants.kernel]
source = "scale.cu"
entry = "scale"
params = ["x", "y", "n: i32"]
grid = ["ceil_div(n, 256)"]
block = [256]
[variants.torch]
source = "host.py"
call = "scale"
let = { factor = 2.0 }
[[performance]]
shape = "small"
min_latency_reduction = 0.10
[emulation]
shapes = ["small"]
"#;

const KERNEL: &str = "extern \"C\" __global__ void scale(const float* x, float* y, int n) {\n  \
                      int i = blockIdx.x * blockDim.x + threadIdx.x;\n  if (i < n) y[i] = 2.0f * x[i];\n}\n";

/// With a Python that has a module of the name `torch`, or with what the machine has.
fn dist(has_torch: bool) -> Dist {
    let dist = Dist::timing();
    for (file, text) in [
        ("gate.toml", GATE),
        ("scale.py", "def reference(x):\n    return 2 * x\n"),
        ("scale.cu", KERNEL),
        ("host.py", "import helper\n\ndef scale(x, y, factor):\n    y.copy_(x * factor)\n"),
        ("helper.py", ""),
    ] {
        dist.write(file, text);
    }
    if has_torch {
        std::fs::create_dir_all(dist.path("bin")).unwrap();
        std::fs::create_dir_all(dist.path("site/torch")).unwrap();
        dist.write("site/torch/__init__.py", "");
        let script = dist.path("bin/python3");
        let site = dist.path("site");
        let text =
            format!("#!/bin/sh\nPYTHONPATH='{}':\"$PYTHONPATH\" exec {} \"$@\"\n", site.display(), python().display());
        std::fs::write(&script, text).unwrap();
        std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    dist
}

fn python() -> std::path::PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|folder| folder.join("python3")).find(|file| file.is_file()).expect("a Python")
}

#[test]
#[ignore = "takes longer; .ci/run runs it"]
fn without_torch_it_is_deferred_with_the_remedy_and_the_others_are_judged() {
    let dist = dist(false);
    let ran = dist.run(&["validate", "gate.toml"]).expect(3);
    assert!(ran.stdout.contains("DEFER torch: "), "{}", ran.stdout);
    assert!(
        ran.stdout.contains("torch is not installed") && ran.stdout.contains("pip install torch"),
        "{}",
        ran.stdout
    );
    assert!(!ran.stdout.contains("host code ran"), "{}", ran.stdout);
}

#[test]
#[ignore = "takes longer; .ci/run runs it"]
fn on_a_gpu_it_is_judged_like_a_kernel_and_the_report_says_what_was_not_seen() {
    let dist = dist(true);
    let ran = dist.run_with(&dist.path("bin"), &["validate", "gate.toml"]);
    let line = "host code ran in torch: not seen are its registers, spills, races and uninitialised reads";
    assert!(ran.stdout.contains(line), "{}\n{}", ran.stdout, ran.stderr);
    let run = dist.runs().pop().expect("a run");
    let read = |file: &str| std::fs::read_to_string(run.join(file)).unwrap();
    let builds: serde_json::Value = serde_json::from_str(&read("builds.json")).unwrap();
    let own = builds["records"].as_array().unwrap().iter().find(|build| build["variant"] == "torch").unwrap();
    assert_eq!((own["language"].as_str(), own["entries"].as_array().map(Vec::len)), (Some("call"), Some(0)));
    // Its files are evidence, those that it imports too.
    assert!(run.join("operator/host.py").is_file() && run.join("operator/helper.py").is_file());
    let gates: serde_json::Value = serde_json::from_str(&read("gates.json")).unwrap();
    let of = |id: &str| {
        let gate = gates.as_array().unwrap().iter().find(|g| g["variant"] == "torch" && g["id"] == id);
        gate.map(|gate| gate["state"].as_str().unwrap().to_owned())
    };
    for (id, state) in [
        ("own-machine-code", Some("PASS")),
        ("every-case-ran", Some("PASS")),
        ("latency-reduction", Some("PASS")),
        ("own-clock", Some("PASS")),
        ("registers", None),
        ("memory-checks", None),
        ("no-memory-between-launches", None),
    ] {
        assert_eq!(of(id).as_deref(), state, "{id}: {gates}");
    }
    assert!(read("REPORT.md").split("## Gates").next().unwrap().contains("host code ran in torch"));
    dist.run(&["verify", run.to_str().unwrap()]).expect(0);
    // Another body is another variant, and the run says so.
    std::fs::write(run.join("operator/helper.py"), "x = 1\n").unwrap();
    dist.run(&["verify", run.to_str().unwrap()]).expect(1);
}

#[test]
#[ignore = "takes longer; .ci/run runs it"]
fn a_process_whose_times_do_not_hold_the_judges_clock_is_fixed_by_name() {
    let dist = dist(true);
    dist.write("lies", "torch");
    let ran = dist.run_with(&dist.path("bin"), &["validate", "gate.toml"]).expect(1);
    assert!(ran.stdout.contains("FIX torch: correctness: own clock"), "{}", ran.stdout);
}
