//! A run that was recorded in format 1, before runs said their format: it still verifies, its gates are what they were,
//! and what was forged in it is still found. Recorded on an H100, without its kernels and most blocks of call time.

use std::path::{Path, PathBuf};
use std::process::Command;

use kbench::decision::Verdict;
use kbench::gate::{GateId, State};
use kbench::judge::judge;
use xtask::inspect::{ReportFormat, Screen, report, verify};
use xtask::run_dir::RunDir;

/// Unpacks the run and seals it as it is.
fn recorded(parent: &Path) -> PathBuf {
    let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/run-format-1.tar.gz");
    let status = Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(parent).status();
    assert!(status.is_ok_and(|status| status.success()), "tar unpacks the run");
    let path = parent.join("run-format-1");
    RunDir::open(&path).unwrap().seal().unwrap();
    path
}

#[test]
fn its_evidence_gives_the_gates_and_the_decision_that_it_recorded() {
    let parent = tempfile::tempdir().unwrap();
    let path = recorded(parent.path());
    assert_eq!(verify(&path).unwrap(), [""; 0]);
    let run = RunDir::open(&path).unwrap();
    let (_, gates, decision) = run.judgement().unwrap();
    let deferred = gates.iter().filter(|g| matches!(g.state, State::Deferred { .. }));
    let deferred: Vec<(GateId, &str)> = deferred.map(|g| (g.id, g.figure.as_str())).collect();
    assert_eq!(
        deferred,
        [
            (GateId::PeerErrorMean, "end-to-end mean against cudnn/fp8"),
            (GateId::PeerErrorMax, "end-to-end max against cudnn/fp8"),
            (GateId::PeerMeasured, "cudnn measured in this run"),
            (GateId::PeerMeasured, "fa3 measured in this run"),
        ]
    );
    assert_eq!((gates.len(), decision.counts.pass, decision.candidates[0].verdict), (95, 91, Verdict::Defer));
    // Judged again, they have the numbers that were not recorded.
    let again = judge(&run.suite().unwrap(), &run.evidence().unwrap());
    let from_originals = again.iter().find(|g| g.id == GateId::FromOriginals).unwrap();
    assert!(from_originals.value.is_some_and(|ratio| ratio < 1.0), "{from_originals:?}");
    assert!(from_originals.interval.is_some() && from_originals.shape.is_some(), "{from_originals:?}");
}

#[test]
fn its_report_is_written_and_a_forged_gate_is_found() {
    let parent = tempfile::tempdir().unwrap();
    let path = recorded(parent.path());
    let run = RunDir::open(&path).unwrap();
    for (width, most) in [(80, usize::MAX), (100, 22)] {
        let text = report(&run, ReportFormat::Table, Screen { width, full: false }).unwrap();
        assert!(text.contains("DEFER hopper: end-to-end mean against cudnn/fp8 is DEFERRED"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= width), "{text}");
        assert!(text.lines().count() <= most, "above it are eight steps: {text}");
    }
    let wide = Screen { width: 100, full: true };
    let whole = report(&run, ReportFormat::Table, wide).unwrap();
    assert!(whole.contains("┆ kernel error max") && whole.contains("DEFER hopper"), "{whole}");
    let of = |format| report(&run, format, wide).unwrap().len();
    assert!(of(ReportFormat::Md) <= 60_000 && of(ReportFormat::Html) < 500_000);
    let junit = report(&run, ReportFormat::Junit, wide).unwrap();
    assert_eq!((junit.matches("<testcase ").count(), junit.matches("<skipped ").count()), (95, 4));
    let gates = path.join("gates.json");
    let recorded = std::fs::read_to_string(&gates).unwrap();
    let forged = recorded.replacen("\"DEFERRED\"", "\"PASS\"", 1);
    std::fs::write(&gates, forged).unwrap();
    RunDir::open(&path).unwrap().seal().unwrap();
    let faults = verify(&path).unwrap();
    assert!(faults.iter().any(|fault| fault.contains("cudnn/fp8") && fault.contains("PASS")), "{faults:?}");
}
