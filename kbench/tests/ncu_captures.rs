//! The profile's readers on what a real Nsight Compute printed: reports of an H200, and the metrics of four chips.

use std::path::PathBuf;

use kbench::occupancy::{Cta, Occupancy};
use kbench::profile::{Bound, Figure, Reading, Unit, available, choose, diagnose, read};

fn text(file: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/ncu").join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn reading(folder: &str, variant: &str) -> Reading {
    read(&text(&format!("{folder}{variant}.mission.seed0.normal.csv"))).unwrap()
}

const VARIANTS: [&str; 3] = ["stage2", "ws-p1", "persistent"];

#[test]
fn every_figure_of_three_kernels_is_read_as_printed() {
    use Figure::*;
    // In the order of VARIANTS, as a person reads them in the files.
    let rows = [
        (Time, [15.232, 14.144, 10.976]),
        (SmClock, [1750.747, 1744.102, 1737.493]),
        (SmActive, [86.187556, 84.773353, 81.672768]),
        (TensorActive, [12.960816, 14.244717, 19.125496]),
        (TensorElapsed, [11.170611, 12.075724, 15.620322]),
        (TensorInstructions, [262144.0, 262144.0, 262144.0]),
        (XuPipe, [9.855621, 10.831920, 14.692764]),
        (FmaPipe, [13.138015, 16.422925, 12.457721]),
        (AluPipe, [17.618610, 19.785874, 31.689055]),
        (IssueActive, [33.711406, 39.693172, 36.946972]),
        (DramThroughput, [0.102369, 0.097021, 0.139564]),
        (DramBytes, [74752.0, 65792.0, 73472.0]),
        (L1LsuSectors, [576512.0, 314368.0, 382464.0]),
        (L2Sectors, [342897.0, 226672.0, 479281.0]),
        (L2Throughput, [5.795783, 3.665575, 18.543775]),
        (SharedWavefronts, [2007667.0, 1661662.0, 331904.0]),
        (BankConflicts, [229975.0, 144681.0, 0.0]),
        (AchievedOccupancy, [12.085105, 13.822849, 6.243799]),
        (TheoreticalOccupancy, [25.0, 28.125, 25.0]),
        (Waves, [0.48, 0.48, 0.24]),
    ];
    assert_eq!(rows.len(), Figure::all().count());
    for (i, variant) in VARIANTS.into_iter().enumerate() {
        let reading = reading("", variant);
        assert!(reading.missing.is_empty(), "{variant}: {:?}", reading.missing);
        assert_eq!(reading.kernel, "sdpa_fwd_d64");
        for (figure, values) in rows {
            let read = reading.value(figure).unwrap();
            assert!((read - values[i]).abs() <= 1e-12 * values[i], "{variant} {figure:?}: {read}");
        }
        // The cell and its unit give the figure by hand, too.
        let time = &reading.figures[&Time];
        assert_eq!((time.raw.parse::<f64>().unwrap(), time.raw_unit.as_str()), (time.value, "us"));
        let clock = &reading.figures[&SmClock];
        assert_eq!((clock.raw.parse::<f64>().unwrap() * 1000.0, clock.raw_unit.as_str()), (clock.value, "Ghz"));
    }
    let control = reading("", "stage2");
    assert_eq!((control.grid.as_str(), control.block.as_str()), ("(16, 16, 1)", "(128, 1, 1)"));
}

#[test]
fn theoretical_occupancy_is_what_resources_allow() {
    // Threads, registers (`launch__registers_per_thread` of the same files) and shared memory, in the order of VARIANTS.
    let ctas = [(128, 101, 41_984), (288, 90, 57_472), (128, 121, 20_608)];
    for (variant, (threads, registers, shared_bytes)) in VARIANTS.into_iter().zip(ctas) {
        let found = Occupancy::of("sm_90", Cta { threads, registers, shared_bytes }).unwrap();
        assert_eq!(Some(found.percent), reading("", variant).value(Figure::TheoreticalOccupancy), "{variant}");
        assert_eq!(found.limited_by, ["registers"], "{variant}");
    }
}

#[test]
fn the_same_report_in_other_units_gives_the_same_figures() {
    for variant in VARIANTS {
        let (picked, base) = (reading("", variant), reading("base/", variant));
        assert!(base.missing.is_empty(), "{:?}", base.missing);
        for figure in Figure::all() {
            let [a, b] = [&picked, &base].map(|r| r.value(figure).unwrap());
            // Base units are printed with two decimals.
            let rounding = if figure.unit() == Unit::Percent { 0.005_001 } else { 1e-6 * a };
            assert!((a - b).abs() <= rounding, "{variant} {figure:?}: {a} and {b}");
        }
    }
}

#[test]
fn stalls_are_all_reasons_and_add_up() {
    let largest = [("short_scoreboard", 0.363), ("wait", 0.277), ("selected", 0.369)];
    for (variant, (reason, share)) in VARIANTS.into_iter().zip(largest) {
        let stalls = reading("", variant).stalls;
        assert_eq!(stalls.len(), 19, "{variant}");
        assert_eq!(stalls[0].reason, reason, "{variant}");
        assert!((stalls[0].share - share).abs() < 0.001, "{variant}: {}", stalls[0].share);
        assert!((stalls.iter().map(|s| s.share).sum::<f64>() - 1.0).abs() < 1e-9);
        assert!(stalls.windows(2).all(|w| w[0].warps_per_issue >= w[1].warps_per_issue));
    }
}

#[test]
fn each_chip_is_asked_for_what_it_has() {
    // Chip, its tensor metric, its stall reasons. Ada has the plain name too, but calls it deprecated.
    let chips = [
        ("h200", "sm__pipe_tensor_cycles_active", 19),
        ("ad104", "sm__pipe_tensor_cycles_active_v2", 18),
        ("ga100", "sm__pipe_tensor_cycles_active", 18),
        ("gb100", "sm__pipe_tensor_cycles_active", 17),
    ];
    for (chip, tensor, reasons) in chips {
        let has = available(&text(&format!("query-{chip}.txt")));
        let chosen = choose(&has);
        for figure in Figure::all().filter(|f| !matches!(f, Figure::TheoreticalOccupancy | Figure::Waves)) {
            let asked = figure.metrics().iter().filter(|metric| chosen.iter().any(|c| c == *metric)).count();
            assert_eq!(asked, 1, "{chip} {figure:?}");
        }
        assert!(chosen.contains(&format!("{tensor}.avg.pct_of_peak_sustained_active")), "{chip}: {chosen:?}");
        assert_eq!(chosen.iter().filter(|metric| metric.contains("issue_stalled")).count(), reasons, "{chip}");
        assert!(chosen.iter().all(|metric| has.contains(metric.split('.').next().unwrap())), "{chip}");
    }
}

#[test]
fn the_diagnosis_of_real_kernels_names_what_is_known_of_them() {
    let said = |variant: &str| {
        let diagnosis = diagnose(&reading("", variant));
        assert!(diagnosis.not_asked.is_empty(), "{variant}: {:?}", diagnosis.not_asked);
        diagnosis.findings.into_iter().map(|f| (f.bound, f.what)).collect::<Vec<_>>()
    };
    let finding = |bound, what: &str| (bound, what.to_owned());
    // stage2 sends scores through shared memory; ws-p1 waits on itself; all of them are a few CTAs on a large chip.
    let (chains, ctas) = (finding(Bound::Latency, "chains of instructions"), finding(Bound::Occupancy, "too few CTAs"));
    assert_eq!(said("stage2"), [finding(Bound::Latency, "shared memory"), chains.clone(), ctas.clone()]);
    assert_eq!(said("ws-p1"), [chains.clone(), ctas.clone()]);
    assert_eq!(said("persistent"), [chains, ctas]);
}

#[test]
fn a_rule_whose_figure_is_missing_is_named_and_not_taken_for_false() {
    let mut reading = reading("", "ws-p1");
    reading.figures.remove(&Figure::DramThroughput);
    let diagnosis = diagnose(&reading);
    assert!(
        diagnosis.not_asked.iter().any(|rule| rule.starts_with("memory-bound, device memory: DRAM")),
        "{diagnosis:?}"
    );
    reading.figures.clear();
    reading.stalls.clear();
    let nothing = diagnose(&reading);
    assert_eq!(nothing.findings, []);
    assert!(nothing.headline().contains("could not be asked"), "{}", nothing.headline());
}
