//! From the command line to a plan: the suite as it will be used and the variants it names, with everything that can
//! be wrong said before any work starts.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use kbench::deferral::Deferral;
use kbench::job::Task;
use kbench::suite::{Candidate, ProfileLimit, Suite};
use sdpa_kernel::registry::{self, Variant};

use crate::accepted::{self, Control};
use crate::entropy;
use crate::layout::Layout;
use crate::peers::{PeerChoice, left_out, unknown};
use crate::toolchain::python::Python;

/// Where cases run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum DeviceChoice {
    /// A GPU if there is one, else the emulator for what the suite allows it.
    Auto,
    /// A GPU, or nothing.
    Gpu,
    /// The emulator, even where there is a GPU.
    Emulator,
}

/// What the command line may change in a suite.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// Only these shapes, instead of the suite's.
    pub shapes: Option<Vec<String>>,
    /// Only these seeds.
    pub seeds: Option<Vec<u64>>,
    /// Launches of a timed block.
    pub iterations: Option<u32>,
    /// Untimed launches before a block.
    pub warmup: Option<u32>,
    /// 10 launches on `small`.
    pub smoke: bool,
    /// The peers that are measured.
    pub peers: PeerChoice,
}

/// Launches of a block with `--smoke`.
const SMOKE_LAUNCHES: u32 = 10;

/// A suite whose variants exist.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The suite as used.
    pub suite: Suite,
    /// Its variants, in the order of [`Suite::variant_names`].
    pub variants: Vec<Variant>,
    /// What is computed, as the runner is told.
    pub task: Task,
    /// The file that it was read from, where it is a gate file.
    pub file: Option<PathBuf>,
    /// What runs the scripts of a gate file, once it was looked for.
    pub python: Option<Python>,
    /// Why the scripts of a gate file cannot run here.
    pub no_python: Option<Deferral>,
    /// What was accepted, where the file calls that its control.
    pub control: Option<Control>,
    /// The control is the candidate as it was, and nothing is judged where both are the same code.
    pub is_of_a_change: bool,
}

impl Plan {
    /// Reads the suite `name` and applies changes.
    pub fn read(layout: &Layout, name: &str, changes: &Changes) -> Result<Plan> {
        let path = suite_file(layout, name)?;
        let meta = std::fs::metadata(&path).with_context(|| format!("failed to read `{}`", path.display()))?;
        ensure!(meta.is_file(), "`{}` is not a file: name a gate file, or a suite", path.display());
        let read = accepted::suite(layout, &path);
        let (mut suite, control) = read.with_context(|| format!("{} file `{}`", kind_of(name), path.display()))?;
        ensure!(
            suite.fresh_seed.is_none(),
            "{} file `{}`: fresh_seed: is drawn by each run; remove it",
            kind_of(name),
            path.display()
        );
        suite.narrowed.extend(under_another_name(layout, &suite, &path)?);
        let plan = Plan::of(suite, path.parent().unwrap_or(Path::new(".")), changes);
        let plan = plan.with_context(|| format!("{} file `{}`", kind_of(name), path.display()))?;
        let file = plan.suite.declared().is_some().then_some(path);
        Ok(Plan { file, control, ..plan })
    }

    /// Applies changes to a suite and finds its variants; the files that a gate file names lie in `folder`.
    pub fn of(mut suite: Suite, folder: &Path, changes: &Changes) -> Result<Plan> {
        suite.settle();
        apply(&mut suite, changes);
        suite.validate()?;
        if let Some(name) = unknown(&suite) {
            bail!("peers.also: unknown peer `{name}`: use cudnn or fa3");
        }
        if suite.declared().is_some() {
            let task = gate_file_task(&suite, folder)?;
            return Ok(Plan { task, ..Plan::with(suite, Vec::new()) });
        }
        let variants = suite.variant_names().map(|name| resolve(&suite, name)).collect::<Result<_>>()?;
        Ok(Plan::with(suite, variants))
    }

    /// A suite of attention whose variants are at hand.
    pub fn with(suite: Suite, variants: Vec<Variant>) -> Plan {
        let task = Task::default();
        Plan { suite, variants, task, file: None, python: None, no_python: None, control: None, is_of_a_change: false }
    }

    /// The files that a gate file names, relative to its folder; those that sources include are not known yet.
    pub fn named_files(&self) -> Vec<&str> {
        let scripts = self.suite.declared().into_iter().flat_map(|of| [&of.reference, &of.check, &of.generate]);
        let sources = self.suite.variants.iter().map(|(_, table)| &table.source);
        scripts.chain(sources).flatten().map(String::as_str).collect()
    }

    /// Draws one more seed from the system's entropy. Not larger than every format that it passes through can hold.
    pub fn draw_fresh_seed(&mut self) -> Result<()> {
        let seed = entropy::seed()? >> 16;
        self.suite.fresh_seed = Some(seed).filter(|seed| !self.suite.seeds.contains(seed));
        Ok(())
    }

    /// A suite without gates on time: candidates beside a control, on the usual timed shapes or on all that were asked for.
    pub fn comparison(control: &str, candidates: &[String], changes: &Changes) -> Result<Plan> {
        let of_one_arch = |name: &String| registry::find(name).ok().and_then(|v| v.family.arch());
        let arch = candidates.iter().chain([&control.to_owned()]).find_map(of_one_arch).unwrap_or("sm_89");
        let usual = || ["small", "mission", "long"].map(str::to_owned).to_vec();
        let shapes: Vec<String> = changes.shapes.clone().unwrap_or_else(usual);
        let text = format!(
            "name = \"bench\"\nabout = \"A comparison without a verdict\"\ncontrol = \"{control}\"\narch = \"{arch}\"\n\
             candidates = []\nseeds = [0, 1, 2]\ncheck_shapes = {shapes:?}\ntime_shapes = {shapes:?}\n\
             [resources]\nmax_registers = 255\nmax_shared_kib = 99\nmax_spill_bytes = 0\n\
             [emulation]\nshapes = {shapes:?}\nmax_ctas = 32\n"
        );
        let mut suite: Suite = toml::from_str(&text)?;
        suite.candidates = candidates.iter().map(|v| Candidate::of(v)).collect();
        suite.narrowed.push(Deferral::new("a comparison has no gates on time", "run a suite with validate"));
        Plan::of(suite, Path::new("."), changes)
    }

    /// A comparison on one shape that is profiled and not timed. It takes at least one variant beside the control.
    pub fn profiling(control: &str, candidates: Vec<String>, shape: &str) -> Result<Plan> {
        ensure!(!candidates.is_empty(), "name a variant other than the control `{control}`, or another --against");
        let changes = Changes { shapes: Some(vec![shape.to_owned()]), seeds: Some(vec![0]), ..Changes::default() };
        let mut plan = Plan::comparison(control, &candidates, &changes)?;
        let limit = ProfileLimit {
            shape: shape.to_owned(),
            candidate: None,
            min_tensor_percent: 50.0,
            or_dram_below_percent: Some(50.0),
        };
        plan.suite.profile.push(limit);
        (plan.suite.name, plan.suite.about) = ("ncu".to_owned(), "A profile, and nothing timed".to_owned());
        plan.suite.validate()?;
        Ok(plan)
    }
}

/// What the runner is told of an operator that a gate file declares. Files must be there before anything is compiled.
fn gate_file_task(suite: &Suite, folder: &Path) -> Result<Task> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let folder = folder.canonicalize().with_context(|| format!("failed to find `{}`", folder.display()))?;
    let declared = suite.declared().context("the suite declares its operator")?;
    let files = [
        ("operator.reference", &declared.reference),
        ("operator.check", &declared.check),
        ("operator.generate", &declared.generate),
    ];
    for (key, file) in files.into_iter().filter_map(|(key, file)| Some((key, file.as_ref()?))) {
        ensure!(folder.join(file).is_file(), "{key}: there is no `{file}` in `{}`", folder.display());
    }
    Ok(Task { operator: suite.operator.clone(), folder, ..Task::default() })
}

/// Any file may say that it is the project's suite of a name, with limits of its own; only what that suite asks may be
/// reported under its name.
fn under_another_name(layout: &Layout, suite: &Suite, path: &Path) -> Result<Option<Deferral>> {
    let shipped = layout.suites().join(format!("{}.toml", suite.name));
    let name = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    let is_in_place = path.parent().is_some_and(|folder| folder == layout.suites());
    if is_in_place {
        ensure!(suite.name == name, "name: is `{}` in a file of another name; call it `{name}`", suite.name);
        return Ok(None);
    }
    if !shipped.is_file() {
        return Ok(None);
    }
    // By what it asks, not by its bytes: comments and order are nobody's concern.
    let is_it = accepted::suite(layout, &shipped).is_ok_and(|(shipped, _)| shipped == *suite);
    let why = || format!("the file calls itself {} and asks other things than the suite of that name", suite.name);
    Ok((!is_it).then(|| Deferral::new(why(), "give it a name of its own")))
}

/// What a file is called: those that come with the project are suites, everybody else's are gate files.
fn kind_of(name: &str) -> &'static str {
    if name.ends_with(".toml") { "gate" } else { "suite" }
}

fn suite_file(layout: &Layout, name: &str) -> Result<PathBuf> {
    if name.ends_with(".toml") {
        return Ok(PathBuf::from(name));
    }
    let path = layout.suites().join(format!("{name}.toml"));
    if path.is_file() {
        return Ok(path);
    }
    bail!("unknown suite `{name}`: use one of {}, or a path that ends in .toml", suite_names(layout).join(", "))
}

/// The suites that come with the project.
pub fn suite_names(layout: &Layout) -> Vec<String> {
    let entries = std::fs::read_dir(layout.suites()).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.filter_map(|e| Some(e.path().file_name()?.to_str()?.strip_suffix(".toml")?.to_owned())).collect();
    names.sort();
    names
}

/// The suites that come with the project, and what each says it is about; of one that cannot be read, its file.
pub fn suites(layout: &Layout) -> Vec<(String, String)> {
    let about = |name: &str| {
        let path = layout.suites().join(format!("{name}.toml"));
        let table: Option<toml::Table> = std::fs::read_to_string(&path).ok().and_then(|text| text.parse().ok());
        let about = table.and_then(|table| Some(table.get("about")?.as_str()?.to_owned()));
        about.unwrap_or_else(|| format!("The suite of `{}`", path.display()))
    };
    suite_names(layout).into_iter().map(|name| (name.clone(), about(&name))).collect()
}

/// What is left out is written into the suite, so that the run can never be taken for a whole one.
fn apply(suite: &mut Suite, changes: &Changes) {
    if let Some((option, shapes)) = narrower_shapes(changes) {
        let why = format!("only {} was run", shapes.join(", "));
        suite.narrowed.push(Deferral::new(why, format!("run without {option}")));
        suite.time_shapes.retain(|s| shapes.contains(s));
        suite.stress_shapes.retain(|s| shapes.contains(s));
        suite.odd.iter_mut().for_each(|odd| odd.shapes.clear());
        if let Some(replays) = &mut suite.replays {
            replays.shapes.retain(|s| shapes.contains(s));
        }
        if suite.time_shapes.is_empty() {
            suite.time_shapes.clone_from(&shapes);
        }
        suite.check_shapes = shapes;
    }
    if changes.smoke {
        suite.timing.launches = SMOKE_LAUNCHES;
    }
    if let Some(seeds) = &changes.seeds {
        suite.narrowed.push(Deferral::new(format!("only seeds {seeds:?} were run"), "run without --seeds"));
        suite.seeds.clone_from(seeds);
    }
    let missed: Vec<String> = left_out(suite, &changes.peers).into_keys().collect();
    if !missed.is_empty() {
        let why = format!("gates on peers are judged without {}", missed.join(", "));
        let narrower = Deferral::new(why, "run with --peers auto");
        // A run that is resumed was narrowed when it began.
        if !suite.narrowed.contains(&narrower) {
            suite.narrowed.push(narrower);
        }
    }
    suite.timing.launches = changes.iterations.unwrap_or(suite.timing.launches);
    suite.timing.warmup = changes.warmup.unwrap_or(suite.timing.warmup);
}

/// The option that narrows the shapes, and to which.
fn narrower_shapes(changes: &Changes) -> Option<(&'static str, Vec<String>)> {
    match (&changes.shapes, changes.smoke) {
        (Some(shapes), _) => Some(("--shapes", shapes.clone())),
        (None, true) => Some(("--smoke", vec!["small".to_owned()])),
        (None, false) => None,
    }
}

fn resolve(suite: &Suite, name: &str) -> Result<Variant> {
    match suite.patch(name) {
        Some(patch) => Ok(registry::find(&patch.base)?.patched(name, &patch.toggles)?),
        None => Ok(registry::find(name)?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> Layout {
        Layout::find().unwrap()
    }

    #[test]
    fn every_suite_that_ships_parses_and_names_registered_variants() {
        let names = suite_names(&layout());
        assert!(names.contains(&"stage5".to_owned()), "{names:?}");
        for name in names {
            let plan = Plan::read(&layout(), &name, &Changes::default()).unwrap();
            assert_eq!(plan.suite.name, name);
        }
    }

    #[test]
    fn wrong_names_are_one_line_that_lists_the_right_ones() {
        let read = |suite: &str, changes: &Changes| format!("{:#}", Plan::read(&layout(), suite, changes).unwrap_err());
        assert!(read("stage9", &Changes::default()).contains("unknown suite `stage9`: use one of"));
        let shapes = Changes { shapes: Some(vec!["huge".into()]), ..Changes::default() };
        assert!(read("stage5", &shapes).contains("unknown shape `huge`"));
        let none = Changes { iterations: Some(0), ..Changes::default() };
        assert!(read("stage5", &none).contains("--iters"));
        let error = Plan::comparison("stage2", &["stage8".to_owned()], &Changes::default()).unwrap_err();
        assert!(format!("{error:#}").contains("unknown variant `stage8`"));
    }

    #[test]
    fn a_comparison_times_every_shape_that_it_is_asked_for() {
        let asked = vec!["mission".to_owned(), "mission-b1".to_owned()];
        let changes = Changes { shapes: Some(asked.clone()), ..Changes::default() };
        let plan = Plan::comparison("stage0", &["stage1".to_owned()], &changes).unwrap();
        assert_eq!((plan.suite.time_shapes, plan.suite.check_shapes), (asked.clone(), asked));
    }

    #[test]
    fn a_fresh_seed_is_another_each_time_and_no_file_may_name_it() {
        let mut plan = Plan::read(&layout(), "stage5", &Changes::default()).unwrap();
        let mut drawn = std::collections::BTreeSet::new();
        for _ in 0..8 {
            plan.draw_fresh_seed().unwrap();
            plan.suite.validate().unwrap();
            let seeds = plan.suite.seeds_on("mission");
            assert_eq!(seeds[..3], [0, 1, 2]);
            drawn.insert(seeds[3]);
        }
        assert_eq!(drawn.len(), 8);
        let read = kbench::suite::Suite::parse(&toml::to_string(&plan.suite).unwrap()).unwrap();
        assert_eq!(read.fresh_seed, plan.suite.fresh_seed, "a resumed run keeps it");
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("t.toml");
        std::fs::write(&file, toml::to_string(&plan.suite).unwrap()).unwrap();
        let error = Plan::read(&layout(), file.to_str().unwrap(), &Changes::default()).unwrap_err();
        assert!(format!("{error:#}").contains("fresh_seed: is drawn by each run"), "{error:#}");
    }

    #[test]
    fn narrowing_the_shapes_narrows_everything_that_depends_on_them() {
        let changes = Changes { shapes: Some(vec!["ragged".into()]), ..Changes::default() };
        let plan = Plan::read(&layout(), "stage5", &changes).unwrap();
        assert_eq!(
            (plan.suite.check_shapes, plan.suite.time_shapes),
            (vec!["ragged".to_owned()], vec!["ragged".to_owned()])
        );
        assert!(plan.suite.narrowed[0].remedy.contains("run without --shapes"));
        let smoke = Plan::read(&layout(), "stage5", &Changes { smoke: true, ..Changes::default() }).unwrap();
        assert_eq!((smoke.suite.time_shapes, smoke.suite.timing.launches), (vec!["small".to_owned()], 10));
    }
}
