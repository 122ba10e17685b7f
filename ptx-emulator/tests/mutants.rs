//! Mutants of the fixtures: each must be rejected by the check named for it.
//!
//! A mutant is the fixture with one instruction dropped or changed. The table says which kinds
//! of finding count as detection; an empty list means that only the values can show it.

mod attention;
mod common;

use attention::{Attention, flash, max_error};
use common::{SCHEDULES, report};
use ptx_emulator::{Kind, Launch, Memory, Module, Outcome, Params, Schedule, run};

const WMMA: &str = include_str!("data/wmma_flash.ptx");
const MMA: &str = include_str!("data/mma_flash.ptx");
const SYNC: &str = include_str!("data/sync.ptx");

const RACES: &[Kind] = &[Kind::RaceReadAfterWrite, Kind::RaceWriteAfterRead, Kind::RaceWriteWrite];

/// What to do to the `n`th line of a kernel that contains a text.
enum Change<'a> {
    Drop(&'a str, usize),
    Replace(&'a str, usize, &'a str, &'a str),
}

/// The source with one line of `kernel` changed; panics if nothing changes.
fn mutate(source: &str, kernel: &str, change: &Change) -> String {
    let start = source.find(&format!(".entry {kernel}(")).expect("the kernel exists");
    let (needle, wanted) = match change {
        Change::Drop(needle, n) | Change::Replace(needle, n, ..) => (*needle, *n),
    };
    let mut seen = 0;
    let mut out = source[..start].to_owned();
    for line in source[start..].split_inclusive('\n') {
        let code = !line.trim_start().starts_with("//") && line.contains(needle);
        seen += usize::from(code);
        match change {
            Change::Drop(..) if code && seen == wanted + 1 => {}
            Change::Replace(_, _, from, to) if code && seen == wanted + 1 => {
                assert!(line.contains(from), "{line:?} has no {from:?}");
                out.push_str(&line.replacen(from, to, 1));
            }
            _ => out.push_str(line),
        }
    }
    assert_ne!(out, source, "the mutant changes nothing");
    out
}

/// Whether any schedule yields one of the kinds.
fn detected(outcomes: &[Outcome], kinds: &[Kind]) -> bool {
    outcomes.iter().flat_map(|o| &o.findings).any(|f| kinds.contains(&f.kind))
}

fn flash_outcomes(name: &str, source: &str) -> (Vec<Outcome>, f64) {
    let data = Attention::new(1, 128, 9);
    let reference = data.reference();
    let mut worst = 0f64;
    let mut outcomes = Vec::new();
    for schedule in SCHEDULES {
        let (out, outcome) = flash(name, source, &data, schedule);
        worst = worst.max(max_error(&out, &reference));
        outcomes.push(outcome);
    }
    (outcomes, worst)
}

#[track_caller]
fn check_flash(name: &str, source: &str, change: &Change, kinds: &[Kind]) {
    let (outcomes, error) = flash_outcomes(name, &mutate(source, name, change));
    let text = outcomes.iter().map(report).collect::<String>();
    if kinds.is_empty() {
        assert!(error > 1e-2, "error {error}\n{text}");
    } else {
        assert!(detected(&outcomes, kinds), "not detected, error {error}\n{text}");
    }
}

#[test]
fn wmma_flash_without_a_barrier_races() {
    for n in 0..4 {
        check_flash("wmma_flash", WMMA, &Change::Drop("bar.sync", n), RACES);
    }
}

#[test]
fn wmma_flash_without_the_warp_barrier_is_warned_about() {
    check_flash("wmma_flash", WMMA, &Change::Drop("bar.warp.sync", 0), RACES);
}

#[test]
fn wmma_flash_with_wrong_values_is_wrong() {
    let ldm = Change::Replace("wmma.load.b.sync.aligned.col", 1, "col", "row");
    check_flash("wmma_flash", WMMA, &ldm, &[]);
}

#[test]
fn mma_flash_without_a_barrier_races() {
    for n in 0..2 {
        check_flash("mma_flash", MMA, &Change::Drop("bar.sync", n), RACES);
    }
}

#[test]
fn mma_flash_with_wrong_groups_reads_bytes_in_flight() {
    let wait = "cp.async.wait_group";
    check_flash("mma_flash", MMA, &Change::Drop(wait, 0), &[Kind::InFlight]);
    check_flash("mma_flash", MMA, &Change::Replace(wait, 0, "1", "2"), &[Kind::InFlight]);
    check_flash("mma_flash", MMA, &Change::Drop("cp.async.commit_group", 0), &[Kind::InFlight]);
}

#[test]
fn mma_flash_with_a_wrong_operand_is_wrong() {
    let trans = Change::Replace("x2.trans", 3, ".trans", "");
    check_flash("mma_flash", MMA, &trans, &[]);
}

#[test]
fn mma_flash_with_a_missing_copy_reads_undefined_memory() {
    check_flash("mma_flash", MMA, &Change::Drop("cp.async.cg", 1), &[Kind::UninitialisedStore]);
}

#[test]
fn mma_flash_past_the_end_is_out_of_bounds() {
    // The offset of one copy grows by the size of the tensor.
    let past = Change::Replace("cp.async.cg", 1, "], 16", "+16384], 16");
    check_flash("mma_flash", MMA, &past, &[Kind::OutOfBounds]);
    let crooked = Change::Replace("cp.async.cg", 1, "], 16", "+8], 16");
    check_flash("mma_flash", MMA, &crooked, &[Kind::Misaligned]);
}

/// Runs a mutant of a pipeline kernel under every schedule.
fn pipeline_outcomes(name: &str, change: &Change) -> Vec<Outcome> {
    let source = mutate(SYNC, name, change);
    let module = Module::parse(&source).expect("the mutant parses");
    let kernel = module.entry(name).expect("the mutant loads");
    let input: Vec<u8> = (0..7 * 64i32).flat_map(i32::to_le_bytes).collect();
    let mut outcomes = Vec::new();
    for schedule in SCHEDULES {
        let mut memory = Memory::new(&module);
        let source = memory.alloc_from("in", &input).expect("fits");
        let output = memory.alloc("out", input.len()).expect("fits");
        let params = Params::new().pointer(source).pointer(output).i32(7).finish();
        let mut launch = Launch::new([1, 1, 1], [96, 1, 1], params);
        launch.schedule = schedule;
        launch.limits.warp_instructions = 1_000_000;
        outcomes.push(run(&kernel, &memory, &launch).expect("the launch is valid"));
    }
    outcomes
}

#[track_caller]
fn check_pipeline(name: &str, change: &Change, kinds: &[Kind]) {
    let outcomes = pipeline_outcomes(name, change);
    let text = outcomes.iter().map(report).collect::<String>();
    assert!(detected(&outcomes, kinds), "not detected\n{text}");
}

#[test]
fn named_barrier_mutants_are_rejected() {
    let name = "named_pipeline";
    let stuck: &[Kind] = &[Kind::Deadlock, Kind::BarrierMisuse];
    for n in 0..4 {
        check_pipeline(name, &Change::Drop("bar.arrive", n), stuck);
    }
    let waits =
        [Kind::InFlight, Kind::RaceReadAfterWrite, Kind::Deadlock, Kind::BarrierMisuse, Kind::RaceWriteAfterRead];
    for n in 0..3 {
        check_pipeline(name, &Change::Drop("bar.sync", n), &waits);
    }
    check_pipeline(name, &Change::Replace("wait_group 0", 0, "0", "1"), &[Kind::InFlight]);
}

#[test]
fn mbarrier_mutants_are_rejected() {
    let name = "mbarrier_pipeline";
    let hangs: &[Kind] = &[Kind::NoProgress, Kind::Deadlock, Kind::Runaway];
    check_pipeline(name, &Change::Drop("mbarrier.init", 0), &[Kind::MbarrierMisuse]);
    check_pipeline(name, &Change::Drop("cp.async.mbarrier.arrive", 0), hangs);
    check_pipeline(name, &Change::Drop("bar.sync", 0), &[Kind::MbarrierMisuse, Kind::RaceReadAfterWrite]);
    check_pipeline(name, &Change::Replace("cp.async.mbarrier.arrive", 0, ".noinc", ""), hangs);
}

#[test]
fn a_flag_without_fences_is_a_race_between_blocks() {
    for n in 0..2 {
        let source = mutate(SYNC, "flag_across_blocks", &Change::Drop("membar.gl", n));
        let module = Module::parse(&source).expect("the mutant parses");
        let kernel = module.entry("flag_across_blocks").expect("the mutant loads");
        let mut memory = Memory::new(&module);
        let data = memory.alloc_from("data", &[0; 256]).expect("fits");
        let flag = memory.alloc_from("flag", &[0; 4]).expect("fits");
        let out = memory.alloc("out", 256).expect("fits");
        let params = Params::new().pointer(data).pointer(flag).pointer(out).finish();
        let launch = Launch::new([2, 1, 1], [64, 1, 1], params);
        let outcome = run(&kernel, &memory, &launch).expect("the launch is valid");
        assert!(detected(std::slice::from_ref(&outcome), RACES), "{}", report(&outcome));
    }
}

#[test]
fn a_flag_that_nobody_sets_is_no_progress() {
    let module = Module::parse(SYNC).expect("parses");
    let kernel = module.entry("flag_across_blocks").expect("loads");
    let mut memory = Memory::new(&module);
    let data = memory.alloc_from("data", &[0; 256]).expect("fits");
    let flag = memory.alloc_from("flag", &[0; 4]).expect("fits");
    let out = memory.alloc("out", 256).expect("fits");
    let params = Params::new().pointer(data).pointer(flag).pointer(out).finish();
    let mut launch = Launch::new([2, 1, 1], [64, 1, 1], params);
    launch.blocks = ptx_emulator::BlockFilter::Only(vec![[1, 0, 0]]);
    let outcome = run(&kernel, &memory, &launch).expect("the launch is valid");
    assert!(detected(std::slice::from_ref(&outcome), &[Kind::NoProgress]), "{}", report(&outcome));
    // With room for one block only, the waiting one keeps the other out.
    launch.blocks = ptx_emulator::BlockFilter::Only(vec![[1, 0, 0], [0, 0, 0]]);
    launch.limits.resident_blocks = 1;
    let outcome = run(&kernel, &memory, &launch).expect("the launch is valid");
    assert!(detected(std::slice::from_ref(&outcome), &[Kind::NoProgress]), "{}", report(&outcome));
    memory.write(flag, 0, &[0; 4]).expect("own buffer");
    launch.limits.resident_blocks = 2;
    launch.schedule = Schedule::Greedy;
    let outcome = run(&kernel, &memory, &launch).expect("the launch is valid");
    assert!(outcome.is_clean(), "{}", report(&outcome));
}
