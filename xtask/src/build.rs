//! Builds variants: nvcc makes PTX, ptxas assembles that very PTX, and the module's own account of itself is read back.
//! Results are cached under a key over everything that went in: sources, flags, tools. Judging is left to kbench.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use kbench::deferral::Deferral;
use kbench::evidence::{BuildFailure, BuildRecord, Builds, EntryBuild, LaunchRecord, Operands};
use kbench::job::{Callable, Files, Module, Planned};
use kbench::variant::Language;
use rayon::prelude::*;
use sdpa_kernel::abi::Config;
use sdpa_kernel::registry::{EntryPoint, Family, Operands as Takes, Variant};

use crate::compiler::{self, Key, Product};
use crate::console::Step;
use crate::cubin::Cubin;
use crate::disassembly;
use crate::files::{all_files, write_whole};
use crate::layout::Layout;
use crate::ptx_text;
use crate::toolchain::Toolchain;

/// The folder of the headers that every family may include.
const COMMON: &str = "common";
/// Changes when the meaning of a cached build does.
const CACHE_VERSION: &str = "sdpa-build/5";

/// What both compilers would say again of the same sources: any other failure may be the machine's, and is tried again.
const ASSERTION: &str = "static assertion failed";
/// Extension of the file that keeps it.
const REFUSED: &str = "refused";

/// One build, and where its files are.
#[derive(Clone, Debug)]
pub struct Built {
    /// What is known of it.
    pub record: BuildRecord,
    /// The folder with `kernel.ptx`, `kernel.cubin`, `ptxas.txt` and `build.json`.
    pub dir: PathBuf,
    /// Whether it came from the cache.
    pub cached: bool,
}

/// What a build's folder has for whoever executes it.
pub fn files_in(dir: &Path) -> Files {
    Files { image: dir.join("kernel.cubin"), ptx: Some(dir.join("kernel.ptx")).filter(|ptx| ptx.is_file()) }
}

impl Built {
    /// The files that it consists of.
    pub fn files(&self) -> &'static [&'static str] {
        match self.record.language {
            Language::Cuda | Language::Ptx | Language::Triton => &["kernel.ptx", "kernel.cubin", "ptxas.txt"],
            Language::Cubin => &["kernel.cubin"],
            Language::Call => &[],
        }
    }

    /// For whoever executes it.
    pub fn module(&self) -> Module {
        Module {
            variant: self.record.variant.clone(),
            files: files_in(&self.dir),
            toggles: self.record.toggles.clone(),
            launches: self.record.entries.iter().map(|e| e.launch.clone()).collect(),
            planned: BTreeMap::new(),
            call: None,
            quantised_as: Operands::RowMajor,
        }
    }
}

/// All builds of a run.
#[derive(Clone, Debug, Default)]
pub struct BuildSet {
    /// What was built.
    pub built: Vec<Built>,
    /// What was not.
    pub failures: Vec<BuildFailure>,
    /// Why nothing was disassembled.
    pub not_disassembled: Option<Deferral>,
    /// What variants of a gate file do, by variant and architecture, then by shape.
    pub planned: BTreeMap<(String, String), BTreeMap<String, Planned>>,
    /// How variants that are host code are called.
    pub callables: BTreeMap<String, Callable>,
    /// What they were compiled from, by path from the gate file's folder, with SHA-256.
    pub files: BTreeMap<String, String>,
}

impl BuildSet {
    /// The build of a variant for an architecture.
    pub fn get(&self, variant: &str, arch: &str) -> Option<&Built> {
        self.built.iter().find(|b| b.record.variant == variant && b.record.arch == arch)
    }

    /// A variant of a gate file for whoever executes it.
    pub fn planned_module(&self, variant: &str, arch: &str) -> Option<Module> {
        let module = self.get(variant, arch)?.module();
        if let Some(call) = self.callables.get(variant) {
            return Some(Module { call: Some(call.clone()), ..module });
        }
        let planned = self.planned.get(&(variant.to_owned(), arch.to_owned()))?;
        Some(Module { launches: Vec::new(), planned: planned.clone(), ..module })
    }

    pub fn evidence(&self) -> Builds {
        Builds {
            records: self.built.iter().map(|b| b.record.clone()).collect(),
            failures: self.failures.clone(),
            deferred: None,
            not_disassembled: self.not_disassembled.clone(),
        }
    }
}

/// The architecture that a variant is built for where `arch` is asked for: its family may know only one.
pub fn target<'a>(variant: &Variant, arch: &'a str) -> &'a str {
    variant.family.arch().unwrap_or(arch)
}

/// Whether a variant has code for a device of this architecture.
pub fn runs_on(variant: &Variant, device_arch: &str) -> bool {
    match variant.family.arch() {
        Some(own) => own == device_arch || own.strip_suffix('a') == Some(device_arch),
        None => unclaimed(variant, device_arch).is_none(),
    }
}

/// Why a variant is not built for an architecture that it does not claim, if so.
pub fn unclaimed(variant: &Variant, arch: &str) -> Option<Deferral> {
    let (least, what) = variant.family.least_arch();
    if number(arch)? >= number(least)? {
        return None;
    }
    let why = format!("`{}` claims {least} and newer, and {arch} has no {what}", variant.name);
    Some(Deferral::new(why, format!("build for {least}, or run on a device of it")))
}

/// The number of an architecture, such as 90 of `sm_90a`.
fn number(arch: &str) -> Option<u32> {
    arch.strip_prefix("sm_")?.trim_end_matches(|c: char| c.is_ascii_lowercase()).parse().ok()
}

/// Builds every variant for every architecture that it can be built for, in parallel. A variant that does not compile is a failure in the
/// result; an error is one of ours (no space, no permission).
pub fn build_all(layout: &Layout, toolchain: &Toolchain, variants: &[Variant], arches: &[String]) -> Result<BuildSet> {
    build_with(layout, toolchain, variants, arches, &[])
}

/// The same with more flags for nvcc.
pub fn build_with(
    layout: &Layout,
    toolchain: &Toolchain,
    variants: &[Variant],
    arches: &[String],
    flags: &[&str],
) -> Result<BuildSet> {
    let mut jobs: Vec<(&Variant, &str)> =
        arches.iter().flat_map(|arch| variants.iter().map(move |v| (v, target(v, arch)))).collect();
    let mut seen = std::collections::BTreeSet::new();
    jobs.retain(|(variant, arch)| seen.insert((variant.name.as_str(), *arch)));
    let step = Step::begin("build", jobs.len() as u64);
    let results: Vec<Result<Result<Built, BuildFailure>>> = jobs
        .par_iter()
        .map(|(variant, arch)| {
            let result = build_one(layout, toolchain, variant, arch, flags);
            step.advance(&format!("{} {arch}", variant.name));
            result
        })
        .collect();
    let mut set = BuildSet::default();
    for result in results {
        match result? {
            Ok(built) => set.built.push(built),
            Err(failure) => set.failures.push(failure),
        }
    }
    let cached = set.built.iter().filter(|b| b.cached).count();
    let fresh = set.built.len() - cached;
    step.end(&format!("{fresh} compiled, {cached} from cache, {} failed", set.failures.len()));
    Ok(set)
}

/// Counts the instructions of every build; without a disassembler the set says why there are no counts. Apart from
/// building, because few suites ask for it and it may have to install one.
pub fn disassemble(layout: &Layout, toolchain: &Toolchain, set: &mut BuildSet) -> Result<()> {
    match disassembly::find(&layout.target, toolchain) {
        Err(why) => set.not_disassembled = Some(why),
        Ok(program) => {
            let mut kernels: Vec<&mut Built> =
                set.built.iter_mut().filter(|built| !built.record.language.is_host_code()).collect();
            let listed: Vec<Result<disassembly::Counts>> =
                kernels.par_iter().map(|built| disassembly::counts(&program, &built.dir)).collect();
            for (built, counts) in kernels.iter_mut().zip(listed) {
                built.record.instructions = Some(counts?);
            }
        }
    }
    Ok(())
}

/// Builds one variant, or takes it from the cache. The inner error is the compiler's.
pub fn build_one(
    layout: &Layout,
    toolchain: &Toolchain,
    variant: &Variant,
    arch: &str,
    flags: &[&str],
) -> Result<Result<Built, BuildFailure>> {
    let fail =
        |error: String| BuildFailure { variant: variant.name.clone(), arch: arch.to_owned(), error, unclaimed: None };
    if let Some(why) = unclaimed(variant, arch) {
        return Ok(Err(BuildFailure { unclaimed: Some(why.clone()), ..fail(why.to_string()) }));
    }
    let mut arguments = nvcc_arguments(variant, arch)?;
    arguments.extend(flags.iter().map(|flag| (*flag).to_owned()));
    let key = content_key(&layout.cuda(), toolchain, variant, arch, &arguments)?;
    let dir = layout.build_cache().join(&key);
    let cached = || cached_record(toolchain, variant, arch, &key, &dir);
    if let Some(record) = cached() {
        return Ok(Ok(Built { record, dir, cached: true }));
    }
    let refusal = layout.build_cache().join(format!("{key}.{REFUSED}"));
    if let Ok(error) = std::fs::read_to_string(&refusal) {
        return Ok(Err(fail(error)));
    }
    let work = compiler::workplace(&layout.build_cache())?;
    if let Err(error) = compile(layout, toolchain, &arguments, arch, work.path())? {
        if error.contains(ASSERTION) {
            write_whole(&refusal, error.as_bytes())?;
        }
        return Ok(Err(fail(error)));
    }
    let record = match describe(toolchain, variant, arch, &key, work.path()) {
        Ok(record) => record,
        Err(error) => return Ok(Err(fail(format!("{error:#}")))),
    };
    write_whole(&work.path().join("build.json"), serde_json::to_string_pretty(&record)?.as_bytes())?;
    let record = compiler::keep(&work, &dir, cached)?;
    Ok(Ok(Built { record, dir, cached: false }))
}

fn nvcc_arguments(variant: &Variant, arch: &str) -> Result<Vec<String>> {
    let mut arguments = compiler::base_flags(compiler::STANDARD, arch)?;
    arguments.extend(["-I".to_owned(), ".".to_owned()]);
    arguments.extend(variant.defines().into_iter().map(|define| format!("-D{define}")));
    arguments.push(variant.source.clone());
    Ok(arguments)
}

/// A hash over everything that decides the result.
fn content_key(
    cuda: &Path,
    toolchain: &Toolchain,
    variant: &Variant,
    arch: &str,
    arguments: &[String],
) -> Result<String> {
    let mut key = Key::new(CACHE_VERSION, toolchain, arch);
    arguments.iter().for_each(|argument| key.part(argument.as_bytes()));
    // A family includes what is common and what lies beside its own source, so that others' headers rebuild nothing of it.
    let family =
        cuda.join(&variant.source).parent().map(Path::to_owned).context("a source lies in its family's folder")?;
    for file in [all_files(&cuda.join(COMMON))?, all_files(&family)?].concat() {
        let bytes = std::fs::read(&file).with_context(|| format!("failed to read `{}`", file.display()))?;
        key.part(file.strip_prefix(cuda).unwrap_or(&file).as_os_str().as_encoded_bytes());
        key.part(&bytes);
    }
    Ok(key.finish())
}

/// The record of a finished build, if its files are still the ones it was written for, and say again what it says: a record
/// is not believed where ptxas' log and the cubin can be asked.
fn cached_record(toolchain: &Toolchain, variant: &Variant, arch: &str, key: &str, dir: &Path) -> Option<BuildRecord> {
    let mut kept: BuildRecord = serde_json::from_slice(&std::fs::read(dir.join("build.json")).ok()?).ok()?;
    // Two names may share one build; the name is not part of what was compiled.
    kept.variant.clone_from(&variant.name);
    let again = describe(toolchain, variant, arch, key, dir).ok()?;
    let is_one = Product::read(dir).and_then(|product| product.contradictions()).is_ok_and(|found| found.is_empty());
    (again == kept && is_one).then_some(kept)
}

/// Runs both compilers; the inner error is the first thing they complain about.
fn compile(
    layout: &Layout,
    toolchain: &Toolchain,
    arguments: &[String],
    arch: &str,
    work: &Path,
) -> Result<Result<(), String>> {
    let mut nvcc = arguments.to_vec();
    nvcc.extend(["-o".to_owned(), work.join("kernel.ptx").display().to_string()]);
    match compiler::nvcc(toolchain, &nvcc, &layout.cuda(), compiler::LIMITS, None)? {
        Ok(_) => compiler::assemble(toolchain, arch, &[], work, compiler::LIMITS, None),
        Err(error) => Ok(Err(error)),
    }
}

fn describe(toolchain: &Toolchain, variant: &Variant, arch: &str, key: &str, work: &Path) -> Result<BuildRecord> {
    let product = Product::read(work)?;
    let asked_for = BuildRecord {
        variant: variant.name.clone(),
        arch: arch.to_owned(),
        key: key.to_owned(),
        toggles: variant.toggles.clone(),
        nvcc: toolchain.nvcc_version.clone(),
        ptxas: toolchain.ptxas_version.clone(),
        ..BuildRecord::default()
    };
    described(&asked_for, &product, variant.family.entry_points())
}

/// What the module says of its entries, which of these toggles it contradicts, and how many bytes besides are constant.
fn entries_of(
    product: &Product,
    points: Vec<EntryPoint>,
    toggles: &BTreeMap<String, u32>,
) -> Result<(Vec<EntryBuild>, Vec<String>, u32)> {
    let cubin = Cubin::parse(&product.image)?;
    let mut mismatches = Vec::new();
    let mut entries = Vec::new();
    // What the module says of itself is all that may be constant.
    let mut said = 0;
    for point in points {
        let symbol = &point.config_symbol;
        let bytes = cubin.symbol(symbol)?;
        let config = Config::parse(&bytes).with_context(|| format!("`{symbol}`"))?;
        said += bytes.len() as u32;
        let asked = point.asked(toggles);
        mismatches.extend(config.mismatches(&asked).into_iter().map(|m| format!("{symbol}: {m}")));
        let gated = point.is_gated();
        entries.push(product.entry(&cubin, launch_record(&config, point)?, gated)?);
    }
    Ok((entries, mismatches, product.resources.constant_variables().saturating_sub(said)))
}

/// A record as its own files would have it: what only the compilation knew is left as it is.
pub fn described_again(record: &BuildRecord, product: &Product) -> Result<BuildRecord> {
    let named = |points: &Vec<EntryPoint>| {
        points.iter().any(|point| record.entries.iter().any(|entry| entry.launch.entry == point.name))
    };
    let points = Family::ALL.into_iter().map(Family::entry_points).find(named);
    let points = points.context("no family of kernels has the entries of the build")?;
    described(record, product, points)
}

/// What files say of a build, beside what was asked for.
fn described(record: &BuildRecord, product: &Product, points: Vec<EntryPoint>) -> Result<BuildRecord> {
    let (entries, toggle_mismatches, constant_bytes) = entries_of(product, points, &record.toggles)?;
    Ok(BuildRecord {
        ptx_sha256: product.ptx_sha256(),
        cubin_sha256: product.cubin_sha256(),
        global_bytes: product.resources.global_bytes,
        constant_bytes,
        entries,
        warnings: product.warnings(),
        toggle_mismatches,
        cache_hints: ptx_text::cache_hints(&product.ptx),
        copies_in_bulk: product.copies_in_bulk()?,
        adds_floats_atomically: false,
        ..record.clone()
    })
}

fn launch_record(config: &Config, point: EntryPoint) -> Result<LaunchRecord> {
    let serves = point.serves();
    let EntryPoint { name: entry, config_symbol, operands, .. } = point;
    let field = |name: &str| config.get(name).with_context(|| format!("`{config_symbol}` has no `{name}`"));
    let (tile_q, threads) = (field("tile_q")?, field("threads")?);
    ensure!(tile_q > 0 && (1..=1024).contains(&threads), "`{config_symbol}`: tile_q {tile_q}, threads {threads}");
    Ok(LaunchRecord {
        entry,
        serves,
        operands: match operands {
            Takes::RowMajor => Operands::RowMajor,
            Takes::HopperImages => Operands::HopperImages,
            Takes::Originals => Operands::Originals,
        },
        tile_q,
        threads,
        dynamic_smem_bytes: field("dynamic_smem")?,
        workspace_bytes: field("workspace_bytes")?,
        config_symbol,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use sdpa_kernel::registry::find;

    fn toolchain(version: &str) -> Toolchain {
        Toolchain {
            nvcc: "nvcc".into(),
            ptxas: "ptxas".into(),
            nvcc_version: version.to_owned(),
            ptxas_version: "13.0.88".to_owned(),
            origin: crate::toolchain::Origin::Path,
        }
    }

    fn sources() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["common/ptx", "ladder", "hopper"] {
            std::fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        std::fs::write(dir.path().join("ladder/a.cuh"), "int a;").unwrap();
        std::fs::write(dir.path().join("ladder/sdpa_ladder.cu"), "int b;").unwrap();
        dir
    }

    #[test]
    fn the_key_changes_with_each_thing_that_decides_and_with_nothing_else() {
        let dir = sources();
        let key = |toolchain: &Toolchain, variant: &Variant, arch: &str| {
            content_key(dir.path(), toolchain, variant, arch, &nvcc_arguments(variant, arch).unwrap()).unwrap()
        };
        let (tools, variant) = (toolchain("13.0.88"), find("stage2").unwrap());
        let base = key(&tools, &variant, "sm_89");
        assert_eq!(base, key(&tools, &variant, "sm_89"));
        let renamed = variant.patched("another name", &BTreeMap::new()).unwrap();
        assert_eq!(base, key(&tools, &renamed, "sm_89"), "the name is not compiled");
        std::fs::write(dir.path().join("hopper/a.cuh"), "int a;").unwrap();
        assert_eq!(base, key(&tools, &variant, "sm_89"), "another family's header is not compiled");
        let patched = variant.patched("x", &BTreeMap::from([("stages".to_owned(), 3)])).unwrap();
        let mut keys = vec![
            base,
            key(&toolchain("13.0.89"), &variant, "sm_89"),
            key(&tools, &variant, "sm_90"),
            key(&tools, &patched, "sm_89"),
        ];
        for (file, text) in [
            ("ladder/a.cuh", "int a ;"),
            ("common/ptx/new.cuh", ""),
            ("common/ptx/new.cuh", "int d;"),
            ("ladder/sdpa_ladder.cu", "int c;"),
        ] {
            std::fs::write(dir.path().join(file), text).unwrap();
            keys.push(key(&tools, &variant, "sm_89"));
        }
        let unique: std::collections::BTreeSet<_> = keys.iter().collect();
        assert_eq!(unique.len(), keys.len(), "{keys:?}");
    }

    #[test]
    fn a_failed_assertion_is_kept_and_any_other_failure_is_tried_again() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::at(dir.path().to_owned(), dir.path().join("target"));
        for folder in ["common", "ladder"] {
            std::fs::create_dir_all(layout.cuda().join(folder)).unwrap();
        }
        let variant = find("stage2").unwrap();
        std::fs::write(layout.cuda().join(&variant.source), "int b;").unwrap();
        let (program, calls) = (dir.path().join("nvcc"), dir.path().join("calls"));
        let build = |says: &str| {
            let script = format!("#!/bin/sh\necho x >> '{}'\necho '{says}'\nexit 1\n", calls.display());
            std::fs::write(&program, script).unwrap();
            std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
            let tools = Toolchain { nvcc: program.clone(), ..toolchain("13.0.88") };
            let failure = build_one(&layout, &tools, &variant, "sm_89", &[]).unwrap().err().unwrap();
            (failure.error, std::fs::read_to_string(&calls).unwrap().lines().count())
        };
        assert_eq!(build("error: no space left").1, 1);
        assert_eq!(build("error: no space left").1, 2);
        let first = build("a.cu(1): error: static assertion failed with too large");
        assert_eq!(first.1, 3);
        assert_eq!(build("never asked"), first);
        std::fs::write(layout.cuda().join(&variant.source), "int c;").unwrap();
        assert_eq!(build("error: another").1, 4, "other sources are compiled");
    }

    #[test]
    fn a_family_of_one_architecture_is_built_for_that_one_and_runs_only_there() {
        let (ladder, hopper) = (find("stage2").unwrap(), find("hopper").unwrap());
        assert_eq!((target(&ladder, "sm_89"), target(&hopper, "sm_89")), ("sm_89", "sm_90a"));
        let runs = |variant| ["sm_89", "sm_90", "sm_90a", "sm_100"].map(|arch| runs_on(variant, arch));
        assert_eq!((runs(&ladder), runs(&hopper)), ([true; 4], [false, true, true, false]));
    }
}
