//! `emulate --counts`: what each launch does, counted on the emulator and not timed. In the profiler's words, so that the
//! figures can be held beside a profile. Leaves to others: counting (`ptx-emulator`), and how a profile is read.

use std::fmt::Write as _;

use anyhow::{Context, Result, bail};
use kbench::deferral::Deferral;
use kbench::job::{Event, Executor, Job, LaunchJob, counts_file};
use kbench::occupancy::{Cta, Occupancy};
use kbench::operator::Problem;
use kernel_spec::demangle::demangled;
use kernel_spec::schedule::Schedule;
use ptx_emulator::{Counts, LineCounts, Tally};
use serde::{Deserialize, Serialize};

use super::{EMULATED_ARCH, Options, Prepared, SILENCE, Whose, prepare};
use crate::build::Built;
use crate::layout::Layout;
use crate::runner::{End, Runner};
use crate::work::Found;

/// Lines that are shown of a launch.
const SHOWN_LINES: usize = 5;
/// Frames that are shown of a line: where the code is, and who inlined it.
const SHOWN_FRAMES: usize = 2;

/// A launch as the runner writes it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Counted {
    /// Entry function.
    pub entry: String,
    /// CTAs, and threads of one.
    pub grid: [u32; 3],
    /// See `grid`.
    pub block: [u32; 3],
    /// Dynamic shared memory of a CTA in bytes.
    pub dynamic_shared_bytes: u32,
    /// CTAs that were counted, of those in the grid.
    pub blocks_run: u64,
    /// See `blocks_run`.
    pub blocks_in_grid: u64,
    /// What they did.
    #[serde(flatten)]
    pub counts: Counts,
    /// How many CTAs an SM holds; absent where nobody says what they occupy.
    #[serde(default)]
    pub occupancy: Option<Occupancy>,
}

/// What a variant does on a problem.
#[derive(Debug, Serialize)]
pub struct CountedCase {
    pub variant: String,
    /// What the PTX was compiled for.
    pub arch: String,
    pub problem: String,
    /// In order.
    pub launches: Vec<Counted>,
    /// Why there are none.
    pub deferred: Option<Deferral>,
}

/// Counts every launch of every variant, of all CTAs.
pub fn count(layout: &Layout, whose: &Whose, options: &Options) -> Result<Result<Vec<CountedCase>, Deferral>> {
    let runner = Runner::locate(layout, &layout.target.join("sanitize"))?;
    let nobody = Found { device: None, why_not: Some(Deferral::because("the emulator was asked for")) };
    let target = (Executor::Emulator, EMULATED_ARCH);
    let prepared = match prepare(layout, whose, (&runner, &nobody), options, target)? {
        Ok(prepared) => prepared,
        Err(why) => return Ok(Err(why)),
    };
    let mut cases = Vec::new();
    for (module, _) in &prepared.modules {
        let job = prepared.job(module, Executor::Emulator);
        let job = LaunchJob { schedules: vec![Schedule::Greedy], unchecked: true, counts: true, ..job };
        cases.extend(of_variant(&runner, &prepared, job)?);
    }
    Ok(Ok(cases))
}

fn of_variant(runner: &Runner, prepared: &Prepared, job: LaunchJob) -> Result<Vec<CountedCase>> {
    let variant = &job.module.variant;
    let mut ended = Vec::new();
    let end = runner.run(&format!("counted-{variant}"), &Job::Launch(job.clone()), SILENCE, |event| {
        if let Event::Launched { outcome } = event {
            ended.push(outcome);
        }
    })?;
    match end {
        End::Done if ended.len() == job.problems.len() => {}
        End::Done => bail!("a launch of `{variant}` gave no outcome"),
        End::Error(why) | End::Lost { why, .. } => bail!("`{variant}` could not be emulated: {why}"),
    }
    let mut cases = Vec::new();
    for outcome in ended {
        let problem = &outcome.problem;
        let built = build_of(prepared, &job, problem);
        let arch = built.map_or_else(String::new, |built| built.record.arch.clone());
        let mut launches: Vec<Counted> = Vec::new();
        if let (Some(why), None) = (&outcome.failure, &outcome.deferred) {
            bail!("`{variant}` failed on {}: {why}", problem.id());
        }
        if outcome.deferred.is_none() {
            let path = job.out_dir.join(counts_file(problem));
            let bytes = std::fs::read(&path).with_context(|| format!("failed to read `{}`", path.display()))?;
            launches = serde_json::from_slice(&bytes).with_context(|| format!("in `{}`", path.display()))?;
        }
        for launch in &mut launches {
            launch.occupancy = built.and_then(|built| occupancy(built, launch));
        }
        let (variant, problem) = (variant.clone(), problem.id());
        cases.push(CountedCase { variant, arch, problem, launches, deferred: outcome.deferred });
    }
    Ok(cases)
}

/// The build that ran on a problem.
fn build_of<'a>(prepared: &'a Prepared, job: &LaunchJob, problem: &Problem) -> Option<&'a Built> {
    let (variant, image) = (&job.module.variant, &job.module.files(problem).image);
    prepared.built.iter().find(|built| built.record.variant == *variant && image.starts_with(&built.dir))
}

fn occupancy(built: &Built, launch: &Counted) -> Option<Occupancy> {
    let entry = built.record.entries.iter().find(|entry| entry.resources.entry == launch.entry)?;
    let cta = Cta {
        threads: launch.block.iter().product(),
        registers: entry.resources.registers,
        shared_bytes: entry.resources.static_smem_bytes + launch.dynamic_shared_bytes,
    };
    Occupancy::of(&built.record.arch, cta)
}

/// Every launch in words.
pub fn render(cases: &[CountedCase]) -> String {
    let mut text = "counted, not timed: PTX on the emulator\n".to_owned();
    for case in cases {
        let _ = writeln!(text, "\n{} on {}, compiled for {}", case.variant, case.problem, case.arch);
        if let Some(why) = &case.deferred {
            let _ = writeln!(text, "  not counted: {why}");
        }
        for launch in &case.launches {
            let ([x, y, z], [a, b, c]) = (launch.grid, launch.block);
            let _ = writeln!(text, "{}, grid ({x}, {y}, {z}), block ({a}, {b}, {c})", demangled(&launch.entry));
            if launch.blocks_run < launch.blocks_in_grid {
                let _ =
                    writeln!(text, "  a sample: {} of {} CTAs, not scaled", launch.blocks_run, launch.blocks_in_grid);
            }
            figures(&mut text, launch);
            lines(&mut text, &launch.counts);
        }
    }
    text
}

fn figures(text: &mut String, launch: &Counted) {
    let t = &launch.counts.total;
    let share = |part: u64, whole: u64| if whole == 0 { 0.0 } else { 100.0 * part as f64 / whole as f64 };
    let sectors = |touched: u64, ideal: u64, requests: u64| {
        let each = if requests == 0 { 0.0 } else { touched as f64 / requests as f64 };
        format!("{touched} in {requests} requests, {each:.1} each; ideal {ideal}")
    };
    let classes = launch.counts.classes.iter().map(|one| format!("{} {}", one.class, one.instructions));
    let threads = if t.instructions == 0 { 0.0 } else { t.thread_instructions as f64 / t.instructions as f64 };
    let (loads, stores) = (
        sectors(t.global_load_sectors, t.global_load_sectors_ideal, t.global_load_requests),
        sectors(t.global_store_sectors, t.global_store_sectors_ideal, t.global_store_requests),
    );
    let mut rows = vec![
        ("PTX instructions of warps", t.instructions.to_string()),
        ("  by class", classes.collect::<Vec<_>>().join(", ")),
        ("tensor instructions", t.tensor_instructions.to_string()),
        ("L1 sectors of loads and stores", t.l1_sectors().to_string()),
        ("L1 sectors of global loads", loads),
        ("L1 sectors of global stores", stores),
        ("L1 sectors of global atomics", t.global_atomic_sectors.to_string()),
        ("shared-memory wavefronts", t.shared_wavefronts.to_string()),
        ("shared-memory bank conflicts", t.bank_conflicts.to_string()),
        ("bank conflicts of cp.async", format!("{}, each one more L1 sector", t.async_copy_conflicts)),
        ("active threads per warp", format!("{threads:.2}")),
        (
            "instructions of part of a warp",
            format!("{} ({:.2} %)", t.partial_instructions, share(t.partial_instructions, t.instructions)),
        ),
        ("divergent branches", format!("{} of {}", t.divergent_branches, t.branches)),
        ("branch efficiency, %", format!("{:.2}", 100.0 - share(t.divergent_branches, t.branches))),
    ];
    if let Some(found) = &launch.occupancy {
        let (ctas, percent, by) = (found.ctas, found.percent, found.limited_by.join(" and "));
        let why = format!("{percent:.1}: {ctas} CTAs an SM, limited by {by} ({} registers)", found.registers);
        rows.push(("theoretical occupancy, %", why));
    }
    for (label, value) in rows {
        let _ = writeln!(text, "  {label:32} {value}");
    }
}

/// The costliest lines: first by what memory does beyond the ideal, then by instructions.
fn lines(text: &mut String, counts: &Counts) {
    let beyond = |t: &Tally| {
        let loads = t.global_load_sectors - t.global_load_sectors_ideal;
        t.bank_conflicts + t.async_copy_conflicts + loads + t.global_store_sectors - t.global_store_sectors_ideal
    };
    let mut costly: Vec<&LineCounts> = counts.lines.iter().collect();
    costly.sort_by_key(|line| std::cmp::Reverse((beyond(&line.tally), line.tally.instructions)));
    let _ = writeln!(
        text,
        "  the costliest lines: instructions, sectors (ideal), wavefronts, bank conflicts, divergent branches"
    );
    for LineCounts { source, tally: t } in costly.into_iter().take(SHOWN_LINES) {
        let frames = source[source.len().saturating_sub(SHOWN_FRAMES)..].iter();
        let place: Vec<&str> = frames.rev().map(|frame| frame.rsplit('/').next().unwrap_or(frame)).collect();
        let sectors = t.global_load_sectors + t.global_store_sectors;
        let ideal = t.global_load_sectors_ideal + t.global_store_sectors_ideal;
        let _ = writeln!(
            text,
            "    {:10} {sectors:9} ({ideal}) {:9} {:9} {:7}  {}",
            t.instructions,
            t.shared_wavefronts,
            t.bank_conflicts + t.async_copy_conflicts,
            t.divergent_branches,
            place.join(" in ")
        );
    }
}
