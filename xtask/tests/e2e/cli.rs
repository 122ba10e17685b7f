//! End to end: the `xtask` binary with the real compilers and kernels. Only the runner is a stand-in where a test needs
//! a machine that this one is not: one without a GPU, or one whose GPU process dies.

use std::time::{Duration, Instant};

use crate::common::{CLAIMS_A_GPU, Dist, NO_GPU, files};

#[test]
fn without_a_gpu_resources_are_gated_and_the_rest_is_deferred_with_a_remedy() {
    let dist = Dist::new(NO_GPU);
    let ran = dist.run(&["validate", "--stage5", "--full"]).expect(3);
    let variants = ["stage2", "ws-p1", "ws-p2", "ws-persistent", "persistent", "fast-exp", "stage0", "stage1"];
    for variant in variants {
        for gate in ["registers", "shared memory", "spills", "fits the chip"] {
            let lines = ran.lines(&[variant, gate, "PASS"]);
            assert!(!lines.is_empty(), "{variant} {gate}:\n{}", ran.stdout);
        }
        let row = format!("│ {variant} ");
        let deferred = ran.lines(&[&row, "errors against float64", "DEFERRED", "run on a machine with an NVIDIA GPU"]);
        assert_eq!(deferred.len(), 1, "{variant}");
    }
    assert_eq!(ran.lines(&["latency reduction on mission", "DEFERRED"]).len(), 10, "one a candidate and distribution");
    assert_eq!(ran.lines(&["DEFER ws-p1: "]).len(), 1, "{}", ran.stdout);

    let run = &dist.runs()[0];
    let found = files(run);
    let expected = [
        "ENV.json",
        "REPORT.md",
        "builds.json",
        "check.json",
        "decision.json",
        "gates.json",
        "manifest.json",
        "peers.json",
        "report.html",
        "samples.json",
        "suite.toml",
        "logs/probe.log",
        "builds/ws-p1/kernel.ptx",
        "builds/ws-p1/kernel.cubin",
        "builds/ws-p1/ptxas.txt",
        "builds/ws-p1/build.json",
    ];
    for file in expected {
        assert!(found.iter().any(|f| f == file), "{file} is not in {found:?}");
    }
    let environment = std::fs::read_to_string(run.join("ENV.json")).unwrap();
    for fact in ["0123456789abcdef", "\"dirty\": true", "\"nvcc\": \"13", "\"--stage5\"", "Linux"] {
        assert!(environment.contains(fact), "{fact} is not in {environment}");
    }

    // The page is made again from the files alone, byte for byte.
    let sealed = std::fs::read_to_string(run.join("report.html")).unwrap();
    let printed = dist.run(&["report", &run.display().to_string(), "--format", "html"]).expect(0);
    assert_eq!(printed.stdout.trim_end(), sealed.trim_end());
    assert!(sealed.contains("first whole run of the suite") && !sealed.contains("<svg"));

    // Sealed evidence verifies; a changed byte does not.
    let path = run.display().to_string();
    dist.run(&["verify", &path]).expect(0);
    let gates = run.join("gates.json");
    let text = std::fs::read_to_string(&gates).unwrap();
    std::fs::write(&gates, text.replacen("DEFERRED", "PASS", 1)).unwrap();
    let faults = dist.run(&["verify", &path]).expect(1);
    assert!(faults.stdout.contains("gates.json was changed") && faults.stdout.contains("the evidence gives DEFERRED"));

    // The second time nothing is compiled, and a deferral can be allowed.
    let begin = Instant::now();
    let again = dist.run(&["validate", "--stage5", "--allow-deferred"]).expect(0);
    assert!(again.stderr.contains("0 compiled, 8 from cache, 0 failed"), "{}", again.stderr);
    assert!(begin.elapsed() < Duration::from_secs(10));
    let history = dist.run(&["history"]).expect(0);
    assert_eq!(history.lines(&["no GPU", "DEFER ws-p1"]).len(), 1, "{}", history.stdout);
    assert_eq!(history.lines(&["not as it was sealed"]).len(), 1, "{}", history.stdout);
    let second = std::fs::read_to_string(dist.runs()[1].join("report.html")).unwrap();
    assert!(second.contains(run.file_name().unwrap().to_str().unwrap()), "the first run is not in its history");
}

#[test]
#[ignore = "takes longer; .ci/run runs it"]
fn one_changed_toggle_rebuilds_one_variant() {
    let dist = Dist::new(NO_GPU);
    let suite = "kbench/suites/stage5.toml";
    dist.edit(suite, "variant = \"ws-p1\"", "variant = \"mine\"");
    dist.edit(suite, "unless_spills = \"ws-p1\"", "");
    dist.edit(suite, "[resources]", "[variants.mine]\nbase = \"stage1\"\ntoggles = { stages = 3 }\n\n[resources]");
    let first = dist.run(&["validate", "--stage5", "--allow-deferred"]).expect(0);
    assert!(first.stderr.contains("8 compiled, 0 from cache"), "{}", first.stderr);
    dist.edit(suite, "toggles = { stages = 3 }", "toggles = { stages = 4 }");
    let second = dist.run(&["validate", "--stage5", "--allow-deferred"]).expect(0);
    assert!(second.stderr.contains("1 compiled, 7 from cache"), "{}", second.stderr);
}

#[test]
#[ignore = "takes longer; .ci/run runs it"]
fn a_kernel_that_ignores_a_toggle_is_refused_by_the_echo() {
    let dist = Dist::new(NO_GPU);
    let source = "sdpa-kernel/cuda/ladder/config.cuh";
    dist.edit(source, "kStages = SDPA_STAGES;", "kStages = SDPA_STAGES > 2 ? 2 : SDPA_STAGES;");
    let suite = "kbench/suites/stage2.toml";
    dist.edit(suite, "variant = \"stage2\"", "variant = \"deaf\"");
    dist.edit(suite, "[resources]", "[variants.deaf]\nbase = \"stage2\"\ntoggles = { stages = 3 }\n\n[resources]");
    let ran = dist.run(&["validate", "--stage2", "--full"]).expect(1);
    assert!(!ran.lines(&["deaf", "toggle echo", "stages: asked 3, compiled 2", "FAIL"]).is_empty(), "{}", ran.stdout);
    assert!(!ran.lines(&["FIX deaf: identity"]).is_empty(), "{}", ran.stdout);
}

#[test]
#[ignore = "takes longer; .ci/run runs it"]
fn the_control_under_another_name_fails_as_the_same_code() {
    let dist = Dist::new(NO_GPU);
    let suite = "kbench/suites/stage2.toml";
    dist.edit(suite, "variant = \"stage2\"", "variant = \"impostor\"");
    dist.edit(suite, "[resources]", "[variants.impostor]\nbase = \"stage1\"\n\n[resources]");
    let ran = dist.run(&["validate", "--stage2", "--full"]).expect(1);
    assert!(!ran.lines(&["impostor", "own machine code", "same code as control", "FAIL"]).is_empty(), "{}", ran.stdout);
    assert!(!ran.lines(&["FIX impostor: identity: same code as control"]).is_empty());
}

#[test]
fn a_syntax_error_is_shown_with_file_and_line_and_fails_the_build() {
    let dist = Dist::new(NO_GPU);
    dist.write("sdpa-kernel/cuda/ladder/broken.cuh", "#pragma once\nint broken = ;\n");
    dist.edit(
        "sdpa-kernel/cuda/ladder/sdpa_ladder.cu",
        "#include \"ladder/params.h\"",
        "#include \"ladder/params.h\"\n#include \"ladder/broken.cuh\"",
    );
    let ran = dist.run(&["build", "stage0"]).expect(1);
    assert!(ran.stdout.contains("broken.cuh(") && ran.stdout.contains("error"), "{}", ran.stdout);
    let ran = dist.run(&["validate", "--stage5", "--full"]).expect(1);
    assert!(!ran.lines(&["ws-p1", "compiles", "broken.cuh(", "FAIL"]).is_empty(), "{}", ran.stdout);
    assert!(!ran.lines(&["FIX"]).is_empty());
}

#[test]
#[ignore = "takes longer; .ci/run runs it"]
fn wrong_usage_is_one_clear_line_and_status_2() {
    let dist = Dist::new(NO_GPU);
    dist.write("kbench/suites/wrong.toml", "name = 3\n");
    dist.write(
        "unknown.toml",
        &std::fs::read_to_string(dist.path("kbench/suites/stage5.toml")).unwrap().replace("about", "abut"),
    );
    let cases: &[(&[&str], &str)] = &[
        (
            &["validate", "--suite", "stage9"],
            "unknown suite `stage9`: use one of ada, flagship, flagship-regimes, softmax-place, stage1, stage2, stage3, stage4, stage5, v2",
        ),
        (&["validate", "--stage5", "--shapes", "huge"], "unknown shape `huge`: use one of tiny, small"),
        (&["build", "stage7"], "unknown variant `stage7`: use one of stage0"),
        (&["bench", "stage7"], "unknown variant `stage7`"),
        (&["validate", "--suite", "wrong"], "invalid type: integer `3`, expected a string"),
        (&["validate", "--suite", "unknown.toml"], "unknown field `abut`"),
        (&["validate", "--stage5", "--iters", "0"], "--iters"),
        (
            &["validate", "--stage5", "--out", "/proc/nowhere"],
            "cannot write to `/proc/nowhere`; choose another folder with --out",
        ),
        (&["validate", "--stage5", "--device", "gpu"], "--device gpu: no CUDA driver library"),
        (&["build", "--arch", "avx2"], "unknown architecture `avx2`"),
        (&["report", "/nowhere"], "is not a run directory"),
        (&["validate", "stage9"], "unknown suite `stage9`: use one of"),
        (&["tune", "stage9"], "unknown suite `stage9`: use one of"),
        (&["validate", "--resume", "/nowhere"], "is not a run directory"),
    ];
    for (arguments, message) in cases {
        let ran = dist.run(arguments).expect(2);
        let errors: Vec<&str> = ran.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
        assert!(matches!(errors.as_slice(), [line] if line.contains(message)), "{arguments:?}: {}", ran.stderr);
        assert!(ran.stderr.lines().last().is_some_and(|line| line == errors[0]), "one line: {}", ran.stderr);
        assert!(!ran.stdout.contains("PASS"), "{arguments:?}");
    }
    assert!(dist.runs().iter().all(|run| !run.join("manifest.json").exists()), "no refused run looks whole");
}

/// Who times nothing says so: a runner that ends without samples is lost.
const NOTHING_TIMED: &str = r#"case "$job" in *'"job":"bench"'*) echo '{"event":"timed","samples":{"device":null,"deferred":null,
"cache_mode":"hot-l2","input_sets":1,"blocks":[],"failures":[]},"peers":{"wanted":false,"deferred":null,"versions":{},
"backends":[]}}' | tr -d '\n'; echo;; esac"#;

#[test]
#[ignore = "takes longer; .ci/run runs it"]
fn a_runner_that_dies_on_every_launch_is_a_fail_that_names_the_signal() {
    let dist = Dist::new(&format!(
        "{CLAIMS_A_GPU}\ncase \"$job\" in *'\"job\":\"launch\"'*) kill -9 $$;; esac\n{NOTHING_TIMED}\necho '{{\"event\":\"done\"}}'"
    ));
    let ran = dist.run(&["validate", "--stage5", "--smoke", "--peers", "none", "--full"]).expect(1);
    assert!(!ran.lines(&["ws-p1", "every case ran", "signal 9", "FAIL"]).is_empty(), "{}", ran.stdout);
    assert!(!ran.lines(&["FIX"]).is_empty());
    assert!(!ran.stdout.contains("MERGE"), "{}", ran.stdout);
}

#[test]
#[ignore = "takes longer; .ci/run runs it"]
fn an_interrupted_run_is_not_whole_and_can_be_resumed() {
    let dist = Dist::new(&format!("{CLAIMS_A_GPU}\nread until_the_pipeline_is_gone"));
    let mut child = dist.start(&["validate", "--stage5", "--peers", "none"]);
    let deadline = Instant::now() + Duration::from_secs(300);
    let launched = |dist: &Dist| dist.runs().first().is_some_and(|run| run.join("logs/launch-stage2.log").exists());
    while !launched(&dist) {
        assert!(Instant::now() < deadline, "the first launch never began");
        std::thread::sleep(Duration::from_millis(50));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let run = dist.runs()[0].display().to_string();
    assert!(
        dist.run(&["verify", &run]).expect(2).stderr.contains("the run was interrupted; continue it with --resume")
    );
    assert!(dist.run(&["history"]).expect(0).stdout.contains("interrupted"));

    // It goes on with the kernels and the device that it began with, and with no others.
    let header = std::fs::read_to_string(dist.path("sdpa-kernel/cuda/ladder/mask.cuh")).unwrap();
    dist.write("sdpa-kernel/cuda/ladder/mask.cuh", &format!("{header}// another\n"));
    let refused = dist.run(&["validate", "--resume", &run]).expect(2);
    assert!(refused.stderr.contains("cannot be resumed: suite, sources, kernels or device"), "{}", refused.stderr);
    dist.write("sdpa-kernel/cuda/ladder/mask.cuh", &header);
    let no_room =
        "case \"$job\" in *'\"job\":\"launch\"'*) echo '{\"event\":\"error\",\"why\":\"no room\"}'; exit 1;; esac";
    dist.runner(&format!("{CLAIMS_A_GPU}\n{no_room}\n{NOTHING_TIMED}\necho '{{\"event\":\"done\"}}'"));
    let resumed = dist.run(&["validate", "--resume", &run, "--full"]).expect(1);
    assert!(!resumed.lines(&["every case ran", "no room", "FAIL"]).is_empty(), "{}", resumed.stdout);
    dist.run(&["verify", &run]).expect(0);
    assert_eq!(dist.runs().len(), 1);
    assert!(dist.run(&["validate", "--resume", &run]).expect(2).stderr.contains("is whole"));
}

#[test]
fn ctrl_c_ends_everything_that_was_started_and_says_what_is_left() {
    // The first launch never ends, and what it started does not listen to anybody.
    let dist = Dist::new(&format!("{CLAIMS_A_GPU}\nsleep 300 < /dev/null & echo $! > child; wait"));
    let child = dist.start(&["validate", "--stage2", "--peers", "none"]);
    let deadline = Instant::now() + Duration::from_secs(300);
    let started = || std::fs::read_to_string(dist.path("child")).ok()?.trim().parse::<i32>().ok();
    while started().is_none() {
        assert!(Instant::now() < deadline, "the first launch never began");
        std::thread::sleep(Duration::from_millis(50));
    }
    let pid = |raw| rustix::process::Pid::from_raw(raw).unwrap();
    rustix::process::kill_process(pid(child.id() as i32), rustix::process::Signal::INT).unwrap();
    let ended = child.wait_with_output().unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(130), "{said}");
    assert!(said.contains("interrupted: nothing was measured yet, and no run is left behind"), "{said}");
    assert!(dist.runs().is_empty(), "{:?}", dist.runs());
    let left = std::fs::read_dir(dist.path("target")).unwrap().flatten().map(|e| e.file_name());
    assert!(!left.into_iter().any(|name| name.to_string_lossy().starts_with("sdpa-work-")));
    let (raw, alive) = (started().unwrap(), |raw: i32| {
        std::fs::read_to_string(format!("/proc/{raw}/stat")).is_ok_and(|stat| !stat.contains(") Z"))
    });
    let gone = (0..100).any(|_| {
        std::thread::sleep(Duration::from_millis(20));
        !alive(raw)
    });
    assert!(gone, "what the runner had started is still there");
}

#[test]
#[ignore = "takes longer; .ci/run runs it"]
fn all_suites_run_in_order_and_end_in_one_summary() {
    let dist = Dist::new(NO_GPU);
    let ran = dist.run(&["validate", "--all", "--smoke", "--peers", "none"]).expect(3);
    let suites: Vec<&str> =
        ran.stdout.lines().filter(|line| line.contains(" PASS, ")).filter_map(|line| line.split(':').next()).collect();
    assert!(suites.contains(&"stage1") && suites.contains(&"v2") && suites.is_sorted(), "{}", ran.stdout);
    assert_eq!(dist.runs().len(), suites.len());
    dist.run(&["validate", "--all", "--smoke", "--peers", "none", "--allow-deferred"]).expect(0);
}

#[test]
fn doctor_lists_everything_that_a_gate_may_lack_with_its_remedy() {
    let dist = Dist::new(NO_GPU);
    let found = dist.run(&["doctor"]).expect(0);
    for what in
        ["CUDA compiler", "nvdisasm", "GPU", "ncu", "compute-sanitizer", "PyTorch", "cuDNN FP8", "FlashAttention-3"]
    {
        let lines: Vec<&str> = found.stdout.lines().collect();
        let at = lines.iter().position(|line| line.get(8..).is_some_and(|rest| rest.starts_with(what)));
        let at = at.unwrap_or_else(|| panic!("{what}: {}", found.stdout));
        let lacking = lines[at].starts_with("MISSING");
        assert!(lacking || lines[at].starts_with("ok "), "{}", lines[at]);
        if lacking {
            let lack = lines[at + 1];
            let mends_itself = lack.contains("defers: nothing");
            assert!((lack.contains("DEFERRED") || mends_itself) && lack.contains("; "), "{what}: {lack}");
        }
    }
}
