//! The profile from end to end without a GPU: a script in ncu's place replays what a real one wrote on an H200, or meets
//! the obstacles that a real one meets. The kernels are built; a stand-in for the runner says what a sound one would.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use kbench::profile::{Figure, Profile};
use xtask::layout::Layout;

use crate::common::{CLAIMS_A_GPU, Dist, NO_GPU, files};

/// Every launch gives the same output, every output is close to float64.
const SOUND: &str = r#"
python3 - "$job" <<'PY'
import json, sys
job = json.loads(sys.argv[1])
say = lambda event, **rest: print(json.dumps({"event": event, **rest}), flush=True)
errors = dict(nan=0, inf=0, kernel_max=0.001, kernel_mean=0.0001, worst_at=[0,0,0,0], floor_max=0.05,
              end_to_end_max=0.05, end_to_end_mean=0.003, bad_share=0.0, reference_amax=1.0, from_control_max=0.0,
              proportion=dict(rows=1, slope=0.0, row_rms=0.0, magnitude=1.0))
problems = [job["problem"]] if job["job"] == "profile" else job["problems"]
for problem in problems:
    if job["job"] in ("launch", "profile"):
        say("launched", outcome=dict(problem=problem, failure=None, output_sha256="00", repeat_equal=True,
                                     inputs_unchanged=True, guards_intact=True))
    else:
        for subject in job["outputs"]:
            sizes = problem["shape"]["axes"]
            elements = sizes["B"] * sizes["H"] * sizes["S_q"] * sizes["D"]
            say("compared", subject=subject, problem=problem, errors=dict(errors, elements=elements))
say("done")
PY"#;

/// An ncu that answers and, around a program, writes a report; `$data` holds what it replays. It refuses options that the
/// real one would need and does not get.
pub const REPLAYS: &str = r#"
case "$1" in
--version) echo "Version 2025.3.1.0 (build 36398880) (public-release)"; exit 0;;
--query-metrics) cat "$data/query-h200.txt"; exit 0;;
--import) cat "$data/$(basename "$2" .ncu-rep).csv"; exit 0;;
esac
echo "$@" >> "$data/calls"
while [ $# -gt 0 ]; do
  case "$1" in
  --export) report=$2; shift 2;;
  --log-file) log=$2; shift 2;;
  --force-overwrite) shift;;
  --*) shift 2;;
  *) break;;
  esac
done
"#;

/// Runs the program and writes the report, as a real ncu does where nothing is in its way.
pub const WORKS: &str = "echo a report > \"$report\"; echo '==PROF== Connected' > \"$log\"; \"$@\"";

/// The folder of a stand-in for ncu, to be put first on PATH.
pub fn stand_in(dist: &Dist, body: &str) -> std::path::PathBuf {
    let folder = dist.path("bin");
    std::fs::create_dir_all(&folder).unwrap();
    let data = dist.path("ncu-data");
    std::fs::create_dir_all(&data).unwrap();
    let fixtures = Layout::find().unwrap().root.join("kbench/tests/data/ncu");
    for entry in std::fs::read_dir(fixtures).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            continue;
        }
        std::fs::copy(&path, data.join(path.file_name().unwrap())).unwrap();
    }
    dist.write("bin/ncu", &format!("#!/bin/sh\ndata='{}'\n{body}\n", data.display()));
    std::fs::set_permissions(dist.path("bin/ncu"), PermissionsExt::from_mode(0o755)).unwrap();
    folder
}

fn profile_of(run: &Path) -> Profile {
    serde_json::from_slice(&std::fs::read(run.join("profile.json")).unwrap()).unwrap()
}

#[test]
fn what_a_real_ncu_wrote_becomes_figures_a_gate_and_a_diagnosis() {
    let dist = Dist::new(&format!("{CLAIMS_A_GPU}{SOUND}"));
    let bin = stand_in(&dist, &format!("{REPLAYS}{WORKS}"));
    let ran = dist.run_with(&bin, &["ncu", "stage2", "ws-p1", "--shape", "mission"]).expect(0);
    for figure in Figure::all() {
        let row = ran.lines(&["│", figure.label()]);
        assert_eq!(row.len(), 1, "{}:\n{}", figure.label(), ran.stdout);
        assert!(!row[0].contains("missing"), "{}", row[0]);
    }
    assert!(!ran.lines(&["ws-p1 profile on mission:", "tensor", "DRAM", "PASS"]).is_empty(), "{}", ran.stdout);
    for variant in ["stage2", "ws-p1"] {
        assert_eq!(ran.lines(&[&format!("{variant} is "), "-bound, "]).len(), 1, "{}", ran.stdout);
    }
    assert!(!ran.lines(&["  - try: "]).is_empty() && !ran.lines(&["clock control none"]).is_empty());

    // Twenty launches pass by, one is looked at, with the clocks as they are.
    let calls = std::fs::read_to_string(dist.path("ncu-data/calls")).unwrap();
    assert_eq!(calls.lines().count(), 2);
    for words in [
        "--launch-skip 20 --launch-count 1",
        "--clock-control none",
        "--kernel-name regex:^(sdpa_fwd_d64)$",
        "sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_active,",
    ] {
        assert!(calls.lines().all(|call| call.contains(words)), "`{words}` is not in {calls}");
    }

    // The figures in the JSON are the cells of the CSV, and both lie in the run with the report.
    let run = &dist.runs()[0];
    let profile = profile_of(run);
    assert_eq!(profile.kernels.iter().map(|k| k.variant.as_str()).collect::<Vec<_>>(), ["stage2", "ws-p1"]);
    for kernel in &profile.kernels {
        let csv = std::fs::read_to_string(run.join(kernel.csv.as_ref().unwrap())).unwrap();
        for measured in kernel.reading.as_ref().unwrap().figures.values() {
            assert!(csv.contains(&format!("\"{}\"", measured.metric)) && csv.contains(&measured.raw), "{measured:?}");
        }
    }
    let found = files(run);
    for file in ["profile.json", "profile/ws-p1.mission.seed0.normal.ncu-rep", "profile/ws-p1.mission.seed0.normal.csv"]
    {
        assert!(found.iter().any(|f| f == file), "{file} is not in {found:?}");
    }

    // Verified from the files alone; a better figure does not survive, even where the manifest was made to fit.
    let path = run.display().to_string();
    dist.run(&["verify", &path]).expect(0);
    let text = std::fs::read_to_string(run.join("profile.json")).unwrap();
    let tensor = &profile.kernels[1].reading.as_ref().unwrap().figures[&Figure::TensorActive];
    let better = text.replace(&format!("\"value\": {}", tensor.value), "\"value\": 99.5");
    assert_ne!(better, text);
    std::fs::write(run.join("profile.json"), better).unwrap();
    std::fs::remove_file(run.join("manifest.json")).unwrap();
    xtask::run_dir::RunDir::open(run).unwrap().seal().unwrap();
    let faults = dist.run(&["verify", &path]).expect(1);
    for fault in ["its figures are not those of `profile/", "gate `profile on mission` of ws-p1: recorded PASS"] {
        assert!(faults.stdout.contains(fault), "{}", faults.stdout);
    }
    let page = dist.run(&["report", &path, "--format", "html"]).expect(0);
    assert!(page.stdout.contains("<section id=\"profile\">") && page.stdout.contains("99.5"));
}

#[test]
#[ignore = "takes longer; .ci/run runs it"]
fn every_obstacle_is_deferred_with_its_remedy() {
    let dist = Dist::new(&format!("{CLAIMS_A_GPU}{SOUND}"));
    let arguments = ["ncu", "ws-p1", "--shape", "mission"];
    let cases = [
        (
            "echo '==ERROR== ERR_NVGPUCTRPERM - The user does not have permission' > \"$log\"; \"$@\"",
            "DEFERRED (no permission to read the GPU's performance counters (ERR_NVGPUCTRPERM); run as root",
            "NVreg_RestrictProfilingToAdminUsers=0",
        ),
        (
            "echo '==ERROR== Failed to open/create lock file /tmp/nsight-compute-lock.' > \"$log\"; exit 9",
            "DEFERRED (ncu's lock file `nsight-compute-lock` in the shared temporary directory belongs to another user",
            "set TMPDIR to a directory of your own",
        ),
        (
            "echo '==ERROR== A thing nobody knows' > \"$log\"; \"$@\"",
            "DEFERRED (ncu: A thing nobody knows; see `logs/ncu-ws-p1.mission.seed0.normal.report.txt`)",
            "",
        ),
        ("exit 3", "DEFERRED (the launch under ncu broke off", "see `logs/ncu-ws-p1.mission.seed0.normal.report.txt`"),
        ("\"$@\"", "DEFERRED (ncu: it wrote no report", ""),
        (
            "echo x > \"$report\"; rm \"$data/ws-p1.mission.seed0.normal.csv\"; \"$@\"",
            "DEFERRED (ncu's CSV: it has no header with `Kernel Name`; see `profile/ws-p1.mission.seed0.normal.csv`)",
            "",
        ),
        (
            "echo x > \"$report\"; sed -i s/sdpa_fwd_d64/other/ \"$data\"/ws-p1*.csv; \"$@\"",
            "DEFERRED (ncu profiled `other` instead",
            "",
        ),
    ];
    for (how, why, remedy) in cases {
        let bin = stand_in(&dist, &format!("{REPLAYS}{how}"));
        let ran = dist.run_with(&bin, &arguments).expect(3);
        assert_eq!(ran.lines(&["ws-p1 profile on mission", why, remedy]).len(), 1, "{how}:\n{}", ran.stdout);
        assert!(!ran.stdout.contains("PASS"), "{how}:\n{}", ran.stdout);
        dist.run(&["verify", &dist.runs().last().unwrap().display().to_string()]).expect(0);
    }

    let missing = dist.run_without_ncu(&arguments).expect(3);
    let why = "DEFERRED (ncu is not on PATH; install Nsight Compute";
    assert!(!missing.lines(&["ws-p1 profile on mission", why]).is_empty(), "{}", missing.stdout);
    let broken = stand_in(&dist, "echo 'error while loading shared libraries'; exit 127");
    let broken = dist.run_with(&broken, &arguments).expect(3);
    let why = "DEFERRED (`ncu --version`: error while loading shared libraries";
    assert!(!broken.lines(&[why]).is_empty(), "{}", broken.stdout);
}

#[test]
#[ignore = "takes longer; .ci/run runs it"]
fn without_a_gpu_validate_defers_the_profile_and_without_the_flag_it_has_no_gate() {
    let dist = Dist::new(NO_GPU);
    let arguments = ["validate", "--stage5", "--peers", "none", "--full"];
    let ran = dist.run(&[&arguments[..], &["--ncu"]].concat()).expect(3);
    let gates = ran.lines(&["│", "profile on mission", "DEFERRED", "run on a machine with an NVIDIA GPU"]);
    assert_eq!(gates.len(), 5, "one a candidate:\n{}", ran.stdout);
    let ran = dist.run(&arguments).expect(3);
    assert!(ran.lines(&["profile on mission"]).is_empty(), "{}", ran.stdout);
    assert!(!ran.lines(&["not asked for; pass --ncu"]).is_empty(), "{}", ran.stdout);
}
