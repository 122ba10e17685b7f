//! Variants of a gate file: compiled once for each set of values that reaches the compiler, and what each does on every
//! shape. Leaves to others: compiling (`foreign`), what the file says (kbench), and running anything.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use kbench::deferral::Deferral;
use kbench::evidence::{BuildFailure, Device};
use kbench::job::{Planned, Scratch};
use kbench::key::BadKey;
use kbench::operator::Shape;
use kbench::operator::declared::Declared;
use kbench::suite::Suite;
use kbench::variant::{Build, DeviceFacts, Variant, resolve};
use kernel_spec::launch::{Launch, Step};
use kernel_spec::params;

use crate::accepted::Control;
use crate::build::{BuildSet, Built, files_in};
use crate::console;
use crate::cubin::sha256_hex;
use crate::foreign::compile::triton::{Function, SCRATCH};
use crate::foreign::compile::{Compiled, Named, Source, compile};
use crate::foreign::plan::{Question, ask};
use crate::hosted;
use crate::layout::Layout;
use crate::plan::Plan;
use crate::toolchain::Toolchain;
use crate::toolchain::python::{self, Python};
use crate::toolchain::torch;
use crate::toolchain::triton::{self, Triton};
use crate::work::Found;

/// Multiprocessors that a kernel is told of where there is no device: few, so that a persistent kernel's CTAs take turns.
const EMULATED_SMS: u32 = 4;

/// A plan with what only this machine can say: the architecture where the file names none, and a Python for its scripts.
pub fn on_this_machine(layout: &Layout, plan: &Plan, found: &Found) -> Plan {
    let mut plan = plan.clone();
    if plan.suite.arch.is_empty() {
        let usual = plan.control.as_ref().and_then(Control::arch).unwrap_or(USUAL_ARCH);
        plan.suite.arch = found.device.as_ref().map_or_else(|| usual.to_owned(), |(device, _)| device.arch());
    }
    if plan.suite.declared().is_some() {
        let step = console::Step::begin("python", 0);
        match python::find_or_install(&layout.target, &|line| step.note(line)) {
            Ok(python) => {
                step.end(&format!("{} with numpy {}", python.version, python.numpy));
                (plan.task.python, plan.task.environment) = (python.argv.clone(), python.environment.clone());
                plan.task.readable.clone_from(&python.paths);
                plan.python = Some(python);
            }
            Err(deferral) => {
                step.end("none");
                plan.no_python = Some(deferral);
            }
        }
    }
    plan
}

/// Builds every variant for every architecture. A kernel that does not compile is a failure in the result; a file that asks
/// for what cannot be is an error.
pub fn build_all(
    layout: &Layout,
    toolchain: &Toolchain,
    plan: &Plan,
    arches: &[String],
    device: Option<&Device>,
) -> Result<BuildSet> {
    let suite = &plan.suite;
    let operator = suite.declared().context("the suite declares its operator")?;
    let step = console::Step::begin("build", (suite.variant_names().count() * arches.len()) as u64);
    let mut set = BuildSet::default();
    let triton = OnceCell::new();
    for (arch, name) in arches.iter().flat_map(|arch| suite.variant_names().map(move |name| (arch, name))) {
        let facts = facts_of(arch, device);
        let (folder, python) = (plan.task.folder.as_path(), plan.python.as_ref());
        let is_here = device.is_some();
        let work = Work { layout, toolchain, folder, suite, operator, arch, facts, is_here, python, triton: &triton };
        work.build(name, &mut set, &|line| step.note(line))?;
        step.advance(&format!("{name} {arch}"));
    }
    let cached = set.built.iter().filter(|b| b.cached).count();
    let fresh = set.built.len() - cached;
    step.end(&format!("{fresh} compiled, {cached} from cache, {} failed", set.failures.len()));
    Ok(set)
}

/// What expressions may ask of the device that runs an architecture's build; without one, a small chip of that kind.
fn facts_of(arch: &str, device: Option<&Device>) -> DeviceFacts {
    match device.filter(|device| device.arch() == arch) {
        Some(device) => DeviceFacts { sms: device.sm_count, max_shared: device.max_shared_bytes, max_active: None },
        None => {
            let max_shared = kbench::judge::chip_shared_bytes(arch).unwrap_or(48 << 10);
            DeviceFacts { sms: EMULATED_SMS, max_shared, max_active: Some(1) }
        }
    }
}

/// What a file that names no architecture is built for where there is no device.
const USUAL_ARCH: &str = "sm_90a";

/// One architecture's share of the work.
struct Work<'a> {
    layout: &'a Layout,
    toolchain: &'a Toolchain,
    folder: &'a Path,
    suite: &'a Suite,
    operator: &'a Declared,
    arch: &'a str,
    facts: DeviceFacts,
    /// Whether a device is here.
    is_here: bool,
    python: Option<&'a Python>,
    /// Looked for when the first variant asks for it.
    triton: &'a OnceCell<Result<Triton, Deferral>>,
}

/// What is done on a shape, by its key, with the build for it.
type Asked<'a> = (&'a Shape, String, Build, Vec<Step>);

impl Work<'_> {
    fn build(&self, name: &str, set: &mut BuildSet, note: &dyn Fn(&str)) -> Result<()> {
        let variant = resolve(name, &self.suite.variants)?;
        let shapes = self.suite.check();
        if !variant.symbols.is_empty() {
            bail!("variants.{name}.symbols: not yet: give the kernel the input as a parameter");
        }
        if let Some(function) = variant.call() {
            return self.host_code((&variant, function), set);
        }
        let asked = self.asked(&variant, &shapes)?;
        let mut planned = BTreeMap::new();
        let mut products = Vec::new();
        for build in Build::distinct(asked.iter().map(|(_, _, build, _)| build.clone())) {
            let own = asked.iter().filter(|(_, _, other, _)| other.is_one_with(&build));
            let launches = own.clone().flat_map(|(_, _, _, steps)| steps);
            let product = match self.compile(&variant, &build, launches.filter_map(launch_of), note)? {
                Ok(product) => product,
                Err(failure) => {
                    set.failures.push(self.claimed(failure));
                    return Ok(());
                }
            };
            for (shape, key, _, steps) in own {
                let planned_here = self.planned(&variant, shape, steps, &product);
                planned.insert(key.clone(), planned_here.with_context(|| format!("on shape {}", shape.name))?);
            }
            products.push(product);
        }
        let plan_sha256 = sha256_hex(&serde_json::to_vec(&without_files(&planned))?);
        if let Some(file) = variant.plan_file() {
            let path = self.folder.join(file);
            let bytes = std::fs::read(&path).with_context(|| format!("failed to read `{}`", path.display()))?;
            set.files.insert(file.to_owned(), sha256_hex(&bytes));
        }
        for mut product in products {
            product.record.plan_sha256.clone_from(&plan_sha256);
            set.files.extend(product.files);
            set.built.push(Built { record: product.record, dir: product.dir, cached: product.cached });
        }
        set.planned.insert((name.to_owned(), self.arch.to_owned()), planned);
        Ok(())
    }

    /// A function that launches for itself; without PyTorch it cannot be called on the device that is here.
    fn host_code(&self, what: (&Variant, &str), set: &mut BuildSet) -> Result<()> {
        let mut shapes = self.suite.check();
        let timed = self.suite.time().into_iter().filter(|shape| !shapes.contains(shape)).collect::<Vec<_>>();
        shapes.extend(timed);
        let torch = self.is_here.then(|| torch::find(&self.layout.target)).transpose();
        let (variant, arch) = (what.0.name.clone(), self.arch.to_owned());
        let torch = match torch {
            Ok(torch) => torch,
            Err(why) => {
                let error = why.why.clone();
                set.failures.push(BuildFailure { variant, arch, error, unclaimed: Some(why) });
                return Ok(());
            }
        };
        let place = (self.layout, self.toolchain, self.folder);
        let found = hosted::find(place, what, self.operator, &shapes, torch.as_ref(), self.arch)?;
        set.files.extend(found.files);
        set.built.push(Built { record: found.record, dir: PathBuf::new(), cached: true });
        set.callables.insert(variant, found.call);
        Ok(())
    }

    /// What is done on every shape, and what is compiled for that.
    fn asked<'s>(&self, variant: &Variant, shapes: &'s [Shape]) -> Result<Vec<Asked<'s>>> {
        let mut asked = Vec::new();
        for shape in shapes {
            let variant = self.answered(variant, shape)?;
            let build = variant.build(self.operator, &shape.axes).map_err(|error| on_shape(error, shape))?;
            let steps = self.steps(&variant, shape)?;
            asked.extend(steps.into_iter().map(|(key, steps)| (shape, key, build.by(&steps), steps)));
        }
        Ok(asked)
    }

    /// What is done on a shape, as the built kernels want it.
    fn planned(&self, variant: &Variant, shape: &Shape, steps: &[Step], product: &Compiled) -> Result<Planned> {
        let mut scratch = self.scratch(variant, shape)?;
        if let Some(made) = &product.triton {
            let bytes = steps.iter().filter_map(launch_of).map(|launch| made.scratch(launch)).max().unwrap_or(0);
            let own = Scratch { name: SCRATCH.to_owned(), bytes, zero_once: false };
            scratch.extend(Some(own).filter(|own| own.bytes > 0));
        }
        let steps = with_symbols(&variant.name, steps, product)?;
        Ok(Planned { files: files_in(&product.dir), steps, scratch })
    }

    /// A gate file claims the architecture that it is for: of another one, which the device here has, a failure to compile
    /// says nothing.
    fn claimed(&self, failure: BuildFailure) -> BuildFailure {
        let (own, BuildFailure { variant, arch, error, .. }) = (&self.suite.arch, &failure);
        let why = || format!("`{variant}` does not compile for {arch}, and the gate file is for {own}: {error}");
        let unclaimed = failure
            .unclaimed
            .clone()
            .or_else(|| (arch != own).then(|| Deferral::new(why(), format!("run on a device of {own}"))));
        BuildFailure { unclaimed, ..failure }
    }

    /// The variant with what its plan answers for a shape, where it has one.
    fn answered(&self, variant: &Variant, shape: &Shape) -> Result<Variant> {
        let Some(file) = variant.plan_file() else { return Ok(variant.clone()) };
        let python = self.python.context("there is no Python with numpy to ask a plan with; see `doctor`")?;
        let [values, define] = variant.plan_values(self.operator, &shape.axes)?;
        let question = Question {
            folder: self.folder,
            variant: &variant.name,
            file,
            axes: &shape.axes,
            device: self.facts,
            values: &values,
            define: &define,
        };
        let answer = ask(python, &question).with_context(|| format!("on shape {}", shape.name))?;
        Ok(variant.planned(answer))
    }

    /// What is done on a shape, by the key under which a module has it: the shape's name, or a problem's where its seed
    /// is asked for.
    fn steps(&self, variant: &Variant, shape: &Shape) -> Result<Vec<(String, Vec<Step>)>, BadKey> {
        let of_seed = |seed: u64| {
            let steps = variant.steps(self.operator, &shape.axes, self.facts, seed);
            steps.map_err(|error| on_shape(error, shape))
        };
        let each = self.suite.all_seeds().map(|seed| Ok((seed, of_seed(seed)?))).collect::<Result<Vec<_>, _>>()?;
        let (_, first) = &each[0];
        if each.iter().all(|(_, steps)| steps == first) {
            return Ok(vec![(shape.name.clone(), first.clone())]);
        }
        Ok(each.into_iter().map(|(seed, steps)| (Planned::key_of_seed(&shape.name, seed), steps)).collect())
    }

    fn scratch(&self, variant: &Variant, shape: &Shape) -> Result<Vec<Scratch>, BadKey> {
        let scratch = variant.scratch(self.operator, &shape.axes, self.facts)?;
        let of = |s: kbench::variant::Scratch| Scratch {
            name: s.name,
            bytes: s.layout.bytes as usize,
            zero_once: s.zero_once,
        };
        Ok(scratch.into_iter().map(of).collect())
    }

    fn compile<'s>(
        &self,
        variant: &Variant,
        build: &Build,
        launches: impl Iterator<Item = &'s Launch>,
        note: &dyn Fn(&str),
    ) -> Result<Result<Compiled, BuildFailure>> {
        let mut entries: Vec<Named> = Vec::new();
        for launch in launches {
            let threads = launch.threads() as u32;
            match entries.iter_mut().find(|named| named.text == launch.entry) {
                Some(named) => {
                    named.threads = named.threads.max(threads);
                    named.dynamic_smem_bytes = named.dynamic_smem_bytes.max(launch.shared_bytes);
                }
                None => {
                    let (text, dynamic_smem_bytes) = (launch.entry.clone(), launch.shared_bytes);
                    entries.push(Named { text, threads, dynamic_smem_bytes });
                }
            }
        }
        let triton = match &build.triton {
            None => None,
            Some(told) => match self.triton(note) {
                Ok(by) => Some(Function { told, by }),
                Err(why) => {
                    let (variant, arch, error) = (variant.name.clone(), self.arch.to_owned(), why.why.clone());
                    return Ok(Err(BuildFailure { variant, arch, error, unclaimed: Some(why.clone()) }));
                }
            },
        };
        // To Triton definitions are values, with their types.
        let defines: &[_] = if triton.is_some() { &[] } else { &build.defines };
        let source = Source {
            folder: self.folder,
            file: &variant.source,
            language: variant.language(),
            defines,
            flags: &variant.flags,
            include: &variant.include,
            entries: &entries,
            triton,
        };
        compile(self.layout, self.toolchain, &variant.name, &source, self.arch)
    }

    fn triton(&self, note: &dyn Fn(&str)) -> Result<&Triton, &Deferral> {
        let found = self.triton.get_or_init(|| match self.python {
            Some(python) => triton::find_or_install(&self.layout.target, python, note),
            None => Err(Deferral::new("there is no Python to run Triton with", "see `doctor`")),
        });
        found.as_ref()
    }
}

fn on_shape(error: BadKey, shape: &Shape) -> BadKey {
    BadKey::new(error.key, format!("{} (on shape {})", error.why, shape.name))
}

fn launch_of(step: &Step) -> Option<&Launch> {
    match step {
        Step::Launch(launch) => Some(launch),
        Step::Memset { .. } | Step::Copy { .. } => None,
    }
}

/// Entries by the symbols that the PTX has for them, each held to what it declares.
fn with_symbols(variant: &str, steps: &[Step], product: &Compiled) -> Result<Vec<Step>> {
    let mut steps = steps.to_vec();
    for step in &mut steps {
        let Step::Launch(launch) = step else { continue };
        let Some(symbol) = product.symbols.get(&launch.entry) else {
            bail!("variants.{variant}.entry: `{}` was not built", launch.entry);
        };
        let entry = product.entries.iter().find(|entry| entry.name == *symbol).context("the build has its symbols")?;
        if let Some(made) = &product.triton {
            *launch = made.launched(launch, entry.params.len())?;
        }
        if let Err(why) = params::fits(launch, entry) {
            bail!("variants.{variant}.{why}");
        }
        launch.entry.clone_from(symbol);
    }
    Ok(steps)
}

/// What is done, without where builds lie: the same on every machine.
fn without_files(planned: &BTreeMap<String, Planned>) -> Vec<(&String, &Vec<Step>, &Vec<Scratch>)> {
    planned.iter().map(|(key, planned)| (key, &planned.steps, &planned.scratch)).collect()
}
