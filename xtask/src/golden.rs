//! `golden`: asks a GPU what the emulator must answer, and keeps its answers as test data. Recording needs the GPU;
//! comparing with the emulator and writing the files does not, and can be done elsewhere from what was recorded.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use kbench::deferral::Deferral;
use kbench::evidence::{Device, Operands};
use kbench::job::{Event, Executor, Job, LaunchJob, Module, Task, output_file};
use kbench::operator::attention::{self, Rows, Sizes};
use kbench::operator::{Distribution, Problem, Shape};
use kernel_spec::schedule::Schedule;
use ptx_emulator::conformance::{Agreement, probes};
use rayon::prelude::*;
use sdpa_kernel::hopper;
use sdpa_kernel::registry::{self, Variant};
use sdpa_kernel::sample::Sample;
use sdpa_kernel::toggles::Math;
use serde::{Deserialize, Serialize};

use crate::build::{Built, build_with};
use crate::console::Step;
use crate::cubin::{hex, sha256_hex};
use crate::files::write_whole;
use crate::layout::Layout;
use crate::runner::{End, Runner};
use crate::toolchain::{self, Toolchain};

/// The architecture of the ladder's PTX; the GPU may be a later one. The Hopper family has its own.
const ARCH: &str = "sm_89";
/// What the Hopper family is asked, each with the mask as well.
const HOPPER_SHAPES: [&str; 6] = ["tiny", "small", "mission", "wide", "ragged", "cross"];
/// Multiprocessors of the GPU that is asked, which decide the family's entry and its grid: every H100 and H200 of this shape.
const MULTIPROCESSORS: u32 = 132;
/// Named shapes of at most so many scores are executed whole by the emulator, others by a few CTAs.
const MOST_SCORES: u64 = 8 * 128 * 128;
/// CTAs of the others, the first and the last among them: first and last query tiles, of several heads.
const SAMPLED_CTAS: u32 = 4;
/// The value of the `math` toggle with FP8 tensor cores.
const MATH_FP8: u32 = Math::TensorFp8 as u32;
/// Elements of each output that are kept.
const SAMPLE: usize = 64;
/// Answers of an exact instruction that are kept beside the hash of all.
const EXACT_ANSWERS: usize = 16;
/// Answers of an approximation that are kept; a hash of those would say nothing.
const APPROXIMATE_ANSWERS: usize = 192;
/// A launch is short; the driver compiles a few hundred small modules.
const SILENCE: Duration = Duration::from_secs(120);

/// How a variant is compiled for the comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// As it ships.
    Shipped,
    /// No fused multiply-add but those in the source, and exponentials by polynomial: every operation has one result.
    Exact,
}

impl Form {
    pub const ALL: [Form; 2] = [Form::Shipped, Form::Exact];

    /// Flags of nvcc besides the usual ones.
    pub fn flags(self) -> &'static [&'static str] {
        match self {
            Form::Shipped => &[],
            Form::Exact => &["-fmad=false"],
        }
    }

    /// The variant in this form.
    pub fn of(self, variant: &Variant) -> Result<Variant> {
        let changes = match self {
            Form::Shipped => BTreeMap::new(),
            Form::Exact => BTreeMap::from([("exp".to_owned(), 1)]),
        };
        Ok(variant.patched(&variant.name, &changes)?)
    }
}

/// What a GPU made of one variant on one problem.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    pub variant: String,
    /// How it was compiled.
    pub form: Form,
    /// Of the PTX that was assembled, see [`instructions_sha256`].
    pub ptx_sha256: String,
    pub problem: String,
    /// Rows of the output that are compared, as `head:first+count`, see [`rows`]; absent where all are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<String>,
    /// Of what is compared of the output, raw little-endian FP16.
    pub output_sha256: String,
    /// FP16 bits of elements spread over that, see [`sample`], four hex digits each.
    pub sample: String,
}

/// The committed answers of the ladder or of the Hopper family.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answers {
    /// Who answered, with what.
    pub recorded: Recorded,
    /// One a variant, form and problem.
    pub answers: Vec<Answer>,
}

/// Who answered, with what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    pub device: String,
    pub arch: String,
    /// CUDA version of the driver, which compiled the probes.
    pub cuda_driver: String,
    /// Version of the display driver.
    pub driver: Option<String>,
    /// nvcc that made the ladder's PTX.
    pub nvcc: String,
    /// ptxas that assembled it for the device.
    pub ptxas: String,
}

/// What a recording leaves for the comparison.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Recording {
    recorded: Recorded,
    /// Variant, form, PTX hash.
    modules: Vec<(String, Form, String)>,
}

/// What `golden` came to.
pub enum Outcome {
    /// What was found, for people, and whether emulator and GPU agree throughout.
    Compared(String, bool),
    Recorded,
    /// There is no GPU.
    Deferred(Deferral),
}

/// A module whose cubin is another.
fn with_image(mut module: Module, image: Option<&PathBuf>) -> Module {
    module.files.image = image.cloned().unwrap_or_default();
    module
}

/// What a build is asked. The first list is executed whole.
pub fn problems(built: &Built) -> [Vec<Problem>; 2] {
    let problem = |shape| Problem { shape, seed: 0, distribution: Distribution::Normal };
    let all = attention::recorded().into_iter().map(problem);
    if is_hopper(built) {
        let plain = |p: &Problem| HOPPER_SHAPES.contains(&p.shape.name.trim_end_matches(attention::MASKED));
        return [Vec::new(), all.filter(plain).collect()];
    }
    let (whole, sampled) = all.partition(|problem| is_whole(&problem.shape));
    [whole, sampled]
}

fn is_hopper(built: &Built) -> bool {
    built.record.entries.iter().any(|entry| entry.launch.operands == Operands::HopperImages)
}

fn is_whole(shape: &Shape) -> bool {
    Sizes::of(shape).scores() <= MOST_SCORES
}

/// Rows of an output that the emulator computes; `None` where that is all of them.
pub fn rows(built: &Built, shape: &Shape) -> Result<Option<Vec<Rows>>> {
    if is_hopper(built) {
        return rows_of_hopper(built, shape);
    }
    if is_whole(shape) {
        return Ok(None);
    }
    let record = &built.record;
    let entry = record.entry(shape).with_context(|| format!("no entry for `{shape}`"))?;
    let (tile_q, sizes) = (entry.launch.tile_q, Sizes::of(shape));
    let grid = [sizes.seq_q.div_ceil(tile_q), sizes.batch * sizes.heads];
    let sample = Sample::of(record.toggles.get("scheduler").copied(), grid, SAMPLED_CTAS)
        .with_context(|| format!("`{}` cannot be sampled on `{shape}`", record.variant))?;
    Ok(Some(sample.tiles.into_iter().map(|tile| Rows::of_tile(tile, tile_q, &sizes)).collect()))
}

fn rows_of_hopper(built: &Built, shape: &Shape) -> Result<Option<Vec<Rows>>> {
    let sizes = Sizes::of(shape);
    let own = hopper::Sizes::from(sizes.of_a_call());
    let name = own.entry(MULTIPROCESSORS).with_context(|| format!("no entry for `{shape}`"))?;
    let entry = built.record.entry_named(Some(name), shape).with_context(|| format!("`{name}` was not built"))?;
    let tile_q = entry.launch.tile_q;
    let sample = Sample::of_hopper(&own, tile_q, MULTIPROCESSORS, SAMPLED_CTAS);
    let of_tile = |tile: &[u32; 2]| Rows::of_tile(*tile, tile_q, &sizes);
    Ok(sample.map(|sample| sample.tiles.iter().map(of_tile).collect()))
}

/// As an [`Answer`] has them.
pub fn rows_in_words(rows: &[Rows]) -> String {
    let words: Vec<String> = rows.iter().map(|r| format!("{}:{}+{}", r.head, r.first, r.count)).collect();
    words.join(" ")
}

/// Builds variants in a form, for the PTX that both sides execute.
pub fn build(layout: &Layout, toolchain: &Toolchain, variants: &[Variant], form: Form) -> Result<Vec<Built>> {
    let variants = variants.iter().map(|v| form.of(v)).collect::<Result<Vec<_>>>()?;
    let set = build_with(layout, toolchain, &variants, &[ARCH.to_owned()], form.flags())?;
    match set.failures.first() {
        Some(failure) => bail!("`{}` does not compile: {}", failure.variant, failure.error),
        None => Ok(set.built),
    }
}

/// A hash over a build's PTX without what differs from machine to machine: comments, line information, and the names of
/// files that it refers to.
pub fn instructions_sha256(built: &Built) -> Result<String> {
    let path = built.dir.join("kernel.ptx");
    let text = std::fs::read_to_string(&path).with_context(|| format!("failed to read `{}`", path.display()))?;
    Ok(sha256_hex(instructions(&text).as_bytes()))
}

fn instructions(ptx: &str) -> String {
    let code = ptx.lines().take_while(|line| {
        let line = line.trim_start();
        !line.starts_with(".file") && !line.starts_with(".section")
    });
    let kept = code.filter(|line| {
        let line = line.trim_start();
        !line.starts_with("//") && !line.starts_with(".loc")
    });
    kept.fold(String::new(), |text, line| text + line + "\n")
}

/// What of the emulator is compared with the GPU that was asked, one of sm_90: its model of that chip where bits are compared,
/// and where products are the FP8 unit's, which sm_89 sums with fewer bits; elsewhere what `validate` uses.
pub fn emulator(form: Form, built: &Built) -> Executor {
    let is_fp8 = built.record.toggles.get("math") == Some(&MATH_FP8) || is_hopper(built);
    if form == Form::Exact || is_fp8 { Executor::EmulatedHopper } else { Executor::Emulator }
}

/// Launches builds on every problem; outputs of each go to the folder of its name in `out_dir`. `images` is what a GPU
/// loads, one a build; the emulator executes the PTX, under one schedule and without its checks, which change no result.
pub fn launch(
    runner: &Runner,
    builds: &[Built],
    images: &[PathBuf],
    out_dir: &Path,
    executor: impl Fn(&Built) -> Executor,
) -> Result<()> {
    let numbered = || builds.iter().enumerate();
    let families = [false, true].map(|family| numbered().filter(|(_, b)| is_hopper(b) == family).collect::<Vec<_>>());
    let batches = families.iter().filter_map(|builds| Some((builds, problems(builds.first()?.1))));
    let batches =
        batches.flat_map(|(builds, both)| both.into_iter().zip([None, Some(SAMPLED_CTAS)]).map(move |b| (builds, b)));
    for (builds, (problems, max_ctas)) in batches.filter(|(_, (problems, _))| !problems.is_empty()) {
        let job = |(i, built): &(usize, &Built)| LaunchJob {
            threads: 0,
            task: Task::default(),
            module: with_image(built.module(), images.get(*i)),
            problems: problems.clone(),
            out_dir: out_dir.join(&built.record.variant),
            executor: executor(built),
            replays: BTreeMap::new(),
            max_ctas,
            schedules: vec![Schedule::Greedy],
            unchecked: true,
            counts: false,
        };
        let jobs: Vec<LaunchJob> = builds.iter().map(job).collect();
        let wanted = jobs.len() * problems.len();
        let mut outcomes = Vec::new();
        let end = runner.run("golden", &Job::LaunchBatch { jobs }, SILENCE, |event| {
            if let Event::LaunchedOf { variant, outcome } = event {
                outcomes.push((variant, outcome));
            }
        })?;
        if let End::Error(why) | End::Lost { why, .. } = end {
            bail!("{why}");
        }
        if let Some((variant, failed)) = outcomes.iter().find(|(_, outcome)| outcome.failure.is_some()) {
            bail!("{variant} on {}: {}", failed.problem.id(), failed.failure.as_deref().unwrap_or_default());
        }
        ensure!(outcomes.len() == wanted, "{} of {wanted} launches were answered", outcomes.len());
    }
    Ok(())
}

/// Records in `raw` if there is a GPU, or takes what is there; compares with the emulator; writes `out`.
pub fn golden(layout: &Layout, raw: &Path, out: &Path, record_only: bool) -> Result<Outcome> {
    let logs = layout.target.join("golden/logs");
    let runner = Runner::locate(layout, &logs)?;
    let device = if raw.join("recording.json").is_file() { None } else { Some(probe(&runner)?) };
    if let Some(Err(why)) = device {
        return Ok(Outcome::Deferred(why));
    }
    let toolchain = toolchain::find_or_install(&layout.target, &crate::console::line)?;
    if let Some(Ok(device)) = device {
        record(layout, &toolchain, &runner, &device, raw)?;
    }
    if record_only {
        return Ok(Outcome::Recorded);
    }
    let path = raw.join("recording.json");
    let recording: Recording = serde_json::from_slice(&std::fs::read(&path)?)
        .with_context(|| format!("`{}` is not what this version records", path.display()))?;
    std::fs::create_dir_all(out).with_context(|| format!("failed to create `{}`", out.display()))?;
    let (mut text, mut agree) = probes_compared(&recording, raw, out)?;
    let (ladder, also) = ladder(layout, &toolchain, &runner, &recording, raw, out)?;
    text += &ladder;
    agree &= also;
    Ok(Outcome::Compared(text, agree))
}

fn probe(runner: &Runner) -> Result<Result<Device, Deferral>> {
    let mut found = Err(Deferral::because("no device"));
    runner.run("probe", &Job::Probe, SILENCE, |event| match event {
        Event::Device { device, .. } => found = Ok(device),
        Event::NoDevice(deferral) => found = Err(deferral),
        _ => {}
    })?;
    Ok(found)
}

fn record(layout: &Layout, toolchain: &Toolchain, runner: &Runner, device: &Device, raw: &Path) -> Result<()> {
    let job = Job::Conformance { out_dir: raw.join("probes") };
    let step = Step::begin("probes", 0);
    match runner.run("conformance", &job, SILENCE, |_| {})? {
        End::Done => step.end("answered"),
        End::Error(why) | End::Lost { why, .. } => bail!("the probes were not answered: {why}"),
    }
    let mut modules = Vec::new();
    for form in Form::ALL {
        let builds = build(layout, toolchain, &variants(form)?, form)?;
        let dir = raw.join(name_of(form));
        std::fs::create_dir_all(&dir).with_context(|| format!("failed to create `{}`", dir.display()))?;
        // What is compiled for one architecture alone is assembled for that one.
        let arch = |built: &Built| if is_hopper(built) { built.record.arch.clone() } else { device.arch() };
        let images = builds.par_iter().map(|b| assemble(toolchain, b, &arch(b), &dir)).collect::<Result<Vec<_>>>()?;
        let step = Step::begin(name_of(form), 0);
        launch(runner, &builds, &images, &dir, |_| Executor::Gpu)?;
        step.end("launched");
        for image in images {
            std::fs::remove_file(&image).with_context(|| format!("failed to remove `{}`", image.display()))?;
        }
        for built in &builds {
            let variant = &built.record.variant;
            for problem in problems(built).iter().flatten() {
                keep_compared(built, &dir.join(variant), problem)?;
            }
            modules.push((variant.clone(), form, instructions_sha256(built)?));
        }
    }
    let recorded = Recorded {
        device: device.name.clone(),
        arch: device.arch(),
        cuda_driver: device.cuda_driver.clone(),
        driver: device.nvml.as_ref().map(|n| n.driver.clone()),
        nvcc: toolchain.nvcc_version.clone(),
        ptxas: toolchain.ptxas_version.clone(),
    };
    let recording = serde_json::to_string_pretty(&Recording { recorded, modules })?;
    write_whole(&raw.join("recording.json"), recording.as_bytes())
}

/// Who is asked in a form. The Hopper family's exponentials are approximations, whatever it is compiled with.
pub fn variants(form: Form) -> Result<Vec<Variant>> {
    let ladder = registry::VARIANTS.iter().map(|entry| entry.name);
    let also = (form == Form::Shipped).then_some(hopper::NAME);
    ladder.chain(also).map(|name| Ok(registry::find(name)?)).collect()
}

fn name_of(form: Form) -> &'static str {
    match form {
        Form::Shipped => "shipped",
        Form::Exact => "exact",
    }
}

/// Assembles a build's PTX for the device.
fn assemble(toolchain: &Toolchain, built: &Built, arch: &str, dir: &Path) -> Result<PathBuf> {
    let image = dir.join(format!("{}.cubin", built.record.variant));
    let target = format!("-arch={arch}");
    let ptx = built.dir.join("kernel.ptx");
    let output = duct::cmd!(&toolchain.ptxas, target, &ptx, "-o", &image).stderr_to_stdout().stdout_capture();
    let output =
        output.unchecked().run().with_context(|| format!("failed to start `{}`", toolchain.ptxas.display()))?;
    ensure!(output.status.success(), "ptxas: {}", String::from_utf8_lossy(&output.stdout).trim_end());
    Ok(image)
}

/// Shortens an output to what is compared of it.
fn keep_compared(built: &Built, dir: &Path, problem: &Problem) -> Result<()> {
    if let Some(rows) = rows(built, &problem.shape)? {
        let kept = of_rows(&read_output(dir, problem)?, &problem.shape, &rows)?;
        let path = dir.join(output_file(problem));
        let bytes: Vec<u8> = kept.iter().flat_map(|v| v.to_le_bytes()).collect();
        std::fs::write(&path, bytes).with_context(|| format!("failed to write `{}`", path.display()))?;
    }
    Ok(())
}

/// Elements of rows of an output.
fn of_rows(output: &[u16], shape: &Shape, rows: &[Rows]) -> Result<Vec<u16>> {
    let sizes = Sizes::of(shape);
    ensure!(output.len() == sizes.q_len(), "an output of {} elements, not {}", output.len(), sizes.q_len());
    let elements = |rows: &Rows| output.get(rows.elements(&sizes)).context("rows beyond the output");
    Ok(rows.iter().map(elements).collect::<Result<Vec<_>>>()?.concat())
}

/// Compares the probes and writes `instructions.txt`.
fn probes_compared(recording: &Recording, raw: &Path, out: &Path) -> Result<(String, bool)> {
    let probes = probes();
    let step = Step::begin("compare probes", probes.len() as u64);
    let compared: Vec<(String, Option<String>)> = probes
        .par_iter()
        .enumerate()
        .map(|(i, probe)| {
            let path = raw.join(format!("probes/{i}.bin"));
            let gpu = std::fs::read(&path).with_context(|| format!("failed to read `{}`", path.display()))?;
            ensure!(gpu.len() == probe.output_bytes, "`{}` has another size than `{}`", path.display(), probe.name);
            step.advance(&probe.name);
            let kept = if probe.agreement == Agreement::Bits { EXACT_ANSWERS } else { APPROXIMATE_ANSWERS };
            let line = probe.answer_line(&gpu, &sha256_hex(probe.ptx.as_bytes()), &sha256_hex(&gpu), kept);
            let difference = match probe.emulate() {
                Err(why) => Some(why),
                Ok(own) => probe.disagreement(&own, &gpu).map(|at| probe.describe(&own, &gpu, at)),
            };
            Ok((line, difference))
        })
        .collect::<Result<_>>()?;
    let recorded = &recording.recorded;
    let mut file = format!(
        "# What a GPU answers to ptx_emulator::conformance::probes(); made by `cargo xtask golden`.\n\
         # device {}, {}, CUDA driver {} ({}), which compiled the PTX\n\
         # name | PTX sha256 | sha256 of all answers | first answers as 64-bit words in hex\n",
        recorded.device,
        recorded.arch,
        recorded.cuda_driver,
        recorded.driver.as_deref().unwrap_or("version unknown")
    );
    let mut differences = String::new();
    for (line, difference) in &compared {
        file += line;
        file.push('\n');
        if let Some(difference) = difference {
            let _ = writeln!(differences, "{difference}");
        }
    }
    write_whole(&out.join("instructions.txt"), file.as_bytes())?;
    let count = compared.iter().filter(|(_, d)| d.is_some()).count();
    step.end(&format!("{count} of {} disagree", compared.len()));
    Ok((format!("{differences}probes: {} of {} agree\n", compared.len() - count, compared.len()), count == 0))
}

/// Compares the kernels and writes `ladder.json` and `hopper.json`.
fn ladder(
    layout: &Layout,
    toolchain: &Toolchain,
    runner: &Runner,
    recording: &Recording,
    raw: &Path,
    out: &Path,
) -> Result<(String, bool)> {
    let scratch = tempfile::tempdir()?;
    let mut answers = Vec::new();
    let (mut text, mut agree) = (String::new(), true);
    for form in Form::ALL {
        let builds = build(layout, toolchain, &variants(form)?, form)?;
        for built in &builds {
            let variant = &built.record.variant;
            let asked = recording.modules.iter().find(|(name, of, _)| name == variant && *of == form);
            let (.., ptx_sha256) = asked.with_context(|| format!("`{variant}` was not recorded"))?;
            ensure!(*ptx_sha256 == instructions_sha256(built)?, "`{variant}` has changed since it was recorded");
        }
        let own_dir = scratch.path().join(name_of(form));
        let step = Step::begin(&format!("compare {}", name_of(form)), 0);
        launch(runner, &builds, &[], &own_dir, |built| emulator(form, built))?;
        step.end("emulated");
        for built in &builds {
            let variant = &built.record.variant;
            let ptx_sha256 = instructions_sha256(built)?;
            for problem in problems(built).iter().flatten() {
                let gpu = read_output(&raw.join(name_of(form)).join(variant), problem)?;
                let own = compared(built, &own_dir.join(variant), problem)?;
                ensure!(gpu.len() == own.len(), "{variant} on {}: another part was recorded", problem.id());
                let different = gpu.iter().zip(&own).filter(|(a, b)| a != b).count();
                let largest = largest_difference(&gpu, &own);
                agree &= if form == Form::Exact { different == 0 } else { largest <= LIMIT };
                let _ = writeln!(
                    text,
                    "{variant} {} {}: {different} of {} differ, by {largest:.2e} at most",
                    name_of(form),
                    problem.id(),
                    gpu.len()
                );
                answers.push(Answer {
                    variant: variant.clone(),
                    form,
                    ptx_sha256: ptx_sha256.clone(),
                    problem: problem.id(),
                    rows: rows(built, &problem.shape)?.as_deref().map(rows_in_words),
                    output_sha256: sha256_of(&gpu),
                    sample: sample_hex(&gpu),
                });
            }
        }
    }
    let (family, ladder) = answers.into_iter().partition(|answer| answer.variant == hopper::NAME);
    for (name, answers) in [("ladder.json", ladder), ("hopper.json", family)] {
        let file = Answers { recorded: recording.recorded.clone(), answers };
        write_whole(&out.join(name), serde_json::to_string_pretty(&file)?.as_bytes())?;
    }
    Ok((text, agree))
}

/// The largest difference that an emulated output of a shipped build may have.
pub const LIMIT: f32 = 2e-3;

/// What is compared of a build's output: FP16 bits.
pub fn compared(built: &Built, dir: &Path, problem: &Problem) -> Result<Vec<u16>> {
    let output = read_output(dir, problem)?;
    match rows(built, &problem.shape)? {
        None => Ok(output),
        Some(rows) => of_rows(&output, &problem.shape, &rows),
    }
}

fn read_output(dir: &Path, problem: &Problem) -> Result<Vec<u16>> {
    let path = dir.join(output_file(problem));
    let bytes = std::fs::read(&path).with_context(|| format!("failed to read `{}`", path.display()))?;
    // In one copy: outputs are large, and this is not optimised in a development build.
    let mut output = vec![0; bytes.len() / 2];
    bytemuck::cast_slice_mut(&mut output).copy_from_slice(&bytes[..bytes.len() & !1]);
    Ok(output)
}

/// Of the bytes of an output.
pub fn sha256_of(output: &[u16]) -> String {
    sha256_hex(bytemuck::cast_slice(output))
}

/// Elements spread evenly over an output, both ends among them.
pub fn sample(output: &[u16]) -> Vec<u16> {
    let last = output.len().saturating_sub(1);
    (0..SAMPLE).map(|i| output[i * last / (SAMPLE - 1)]).collect()
}

fn sample_hex(output: &[u16]) -> String {
    hex(&sample(output).iter().flat_map(|v| v.to_be_bytes()).collect::<Vec<u8>>())
}

/// Bits of a stored sample.
pub fn parse_sample(text: &str) -> Result<Vec<u16>> {
    let digits = |i: usize| text.get(4 * i..4 * i + 4).context("a sample has four digits an element");
    (0..text.len() / 4).map(|i| Ok(u16::from_str_radix(digits(i)?, 16)?)).collect()
}

/// NaN anywhere makes it infinite.
pub fn largest_difference(a: &[u16], b: &[u16]) -> f32 {
    let difference = |(a, b): (&u16, &u16)| {
        let difference = (half_value(*a) - half_value(*b)).abs();
        if difference.is_nan() { f32::INFINITY } else { difference }
    };
    a.iter().zip(b).map(difference).fold(0.0, f32::max)
}

/// Value of FP16 bits.
fn half_value(bits: u16) -> f32 {
    half::f16::from_bits(bits).to_f32()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_survive_their_text_and_hold_both_ends() {
        let output: Vec<u16> = (0..1000).collect();
        let kept = parse_sample(&sample_hex(&output)).unwrap();
        assert_eq!((kept.len(), kept[0], kept[SAMPLE - 1]), (SAMPLE, 0, 999));
        assert!(parse_sample("00zz").is_err());
    }

    #[test]
    fn only_what_is_executed_is_hashed() {
        let ptx = "// made there\n.version 9.0\n\t.loc 1 2 3\nret;\n\t.file 1 \"/there/a.cu\"\n.section x\n";
        assert_eq!(instructions(ptx), ".version 9.0\nret;\n");
    }

    #[test]
    fn halves_have_their_values() {
        let cases = [(0x3c00, 1.0), (0xc000, -2.0), (0x0001, 5.960_464_5e-8), (0x7bff, 65504.0)];
        cases.iter().for_each(|(bits, value)| assert_eq!(half_value(*bits), *value));
        assert_eq!(largest_difference(&[0x3c00, 0x4000], &[0x3c00, 0x4200]), 1.0);
        assert_eq!(largest_difference(&[0x7e00], &[0x7e00]), f32::INFINITY, "NaN is no agreement");
    }
}
