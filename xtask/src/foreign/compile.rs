//! Compiles one source of a gate file: nvcc makes PTX, or the source is PTX, ptxas assembles that very PTX, and each entry that the gate file names
//! is found in it. Results are cached under a key over everything that went in.
//! Leaves to others: what the entries are launched with, and judging them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use kbench::evidence::{BuildFailure, BuildRecord, EntryBuild, LaunchRecord, Operands};
use kbench::key::BadKey;
use kernel_spec::ptx;
use serde::{Deserialize, Serialize};

use super::names::{self, Name};
use super::{atomics, source_text, sources, wrapper};
use crate::bounded::Limits;
use crate::compiler::{self, Key, Product};
use crate::cubin::{Cubin, sha256_hex};
use crate::files::write_whole;
use crate::layout::Layout;
use crate::ptx_text;
use crate::toolchain::Toolchain;

/// Changes when the meaning of a cached build does.
const CACHE_VERSION: &str = "gate-build/1";
/// The extension of a source that is compiled already.
const PTX: &str = "ptx";
/// What a compilation may use. The largest libraries of templates take a minute or two.
pub const LIMITS: Limits = Limits { time: Duration::from_secs(300), memory_bytes: 12 << 30 };

/// What to compile.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// The gate file's folder.
    pub folder: &'a Path,
    /// The source, as a path from there.
    pub file: &'a str,
    /// Macros with their values.
    pub defines: &'a [(String, String)],
    /// Flags of the gate file, all of them ones that kbench allows.
    pub flags: &'a [String],
    /// Folders to include from, as paths from the gate file's.
    pub include: &'a [String],
    /// The entries that the variant launches.
    pub entries: &'a [Named],
}

/// An entry that a gate file names, and what its launches ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// PTX symbol, C++ name or template-id.
    pub text: String,
    /// Threads of the largest block, 0 where that is not known.
    pub threads: u32,
    /// Most dynamic shared memory of a launch, in bytes.
    pub dynamic_smem_bytes: u32,
}

/// A finished build.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// What is known of it; its entries are those that were named.
    pub record: BuildRecord,
    /// The folder with `kernel.ptx`, `kernel.cubin` and `ptxas.txt`.
    pub dir: PathBuf,
    /// The symbols of the entries that were named.
    pub symbols: BTreeMap<String, String>,
    /// Every entry function of the PTX.
    pub entries: Vec<ptx::Entry>,
    /// What it was compiled from, by path from the gate file's folder, with SHA-256.
    pub files: BTreeMap<String, String>,
    /// Whether it came from the cache.
    pub cached: bool,
}

/// What is kept beside the products: that they are whole, and what only the compiler knew.
#[derive(Serialize, Deserialize)]
struct Kept {
    ptx_sha256: String,
    cubin_sha256: String,
    /// The kernel that each template-id is, as C++ writes it.
    instances: BTreeMap<String, String>,
}

/// Compiles a source, or takes it from the cache. The inner error is a kernel that does not compile; a [`BadKey`] is a
/// gate file that asks for what cannot be; any other error is one of ours.
pub fn compile(
    layout: &Layout,
    toolchain: &Toolchain,
    variant: &str,
    source: &Source<'_>,
    arch: &str,
) -> Result<Result<Compiled, BuildFailure>> {
    compile_within(layout, toolchain, variant, source, arch, LIMITS)
}

/// The same with limits of the caller's.
pub fn compile_within(
    layout: &Layout,
    toolchain: &Toolchain,
    variant: &str,
    source: &Source<'_>,
    arch: &str,
    limits: Limits,
) -> Result<Result<Compiled, BuildFailure>> {
    let fail = |error: String| {
        Ok(Err(BuildFailure { variant: variant.to_owned(), arch: arch.to_owned(), error, unclaimed: None }))
    };
    let job = Job::of(toolchain, variant, source, arch, limits)?;
    let files = match job.files()? {
        Ok(files) => files,
        Err(error) => return fail(error),
    };
    let key = job.key(&files);
    let dir = layout.build_cache().join(&key);
    let kept = kept(&dir);
    let cached = kept.is_some();
    let kept = match kept {
        Some(kept) => kept,
        None => match job.build(&layout.build_cache(), &key, &dir)? {
            Ok(kept) => kept,
            Err(error) => return fail(error),
        },
    };
    let product = Product::read(&dir)?;
    let entries = ptx::entries(&product.ptx).context("failed to read the PTX")?;
    let symbols = job.symbols(&entries, &kept.instances)?;
    let record = BuildRecord {
        variant: variant.to_owned(),
        arch: arch.to_owned(),
        key,
        toggles: BTreeMap::new(),
        nvcc: toolchain.nvcc_version.clone(),
        ptxas: toolchain.ptxas_version.clone(),
        plan_sha256: String::new(),
        adds_floats_atomically: atomics::adds_floats(&product.ptx, symbols.values().map(String::as_str)),
        ptx_sha256: kept.ptx_sha256,
        cubin_sha256: kept.cubin_sha256,
        global_bytes: variables(&product),
        constant_bytes: product.resources.constant_variables(),
        entries: entry_builds(&product, source.entries, &symbols)?,
        warnings: product.warnings(),
        toggle_mismatches: Vec::new(),
        cache_hints: ptx_text::cache_hints(&product.ptx),
        copies_in_bulk: ptx_text::copies_in_bulk(&product.ptx),
        instructions: None,
    };
    Ok(Ok(Compiled { record, dir, symbols, entries, files, cached }))
}

/// The entry functions of a source as it is, without any that it would have to be told of. The inner error is nvcc's.
pub fn inspect(
    toolchain: &Toolchain,
    folder: &Path,
    file: &str,
    arch: &str,
) -> Result<Result<Vec<ptx::Entry>, String>> {
    let source = Source { folder, file, defines: &[], flags: &[], include: &[], entries: &[] };
    let job = Job::of(toolchain, file, &source, arch, LIMITS)?;
    let work = tempfile::tempdir().context("failed to make a temporary folder")?;
    let product = work.path().join("kernel.ptx");
    if let Err(error) = job.nvcc(file.to_owned(), &product)? {
        return Ok(Err(error));
    }
    let text = std::fs::read_to_string(&product).context("failed to read the PTX that nvcc made")?;
    Ok(Ok(ptx::entries(&text).context("failed to read the PTX that nvcc made")?))
}

/// A record as its own files would have it: what only the compilation and the gate file knew is left as it is.
pub fn described_again(record: &BuildRecord, product: &Product) -> Result<BuildRecord> {
    let cubin = Cubin::parse(&product.image)?;
    let entry = |entry: &EntryBuild| product.entry(&cubin, entry.launch.clone(), entry.gated);
    let entries = record.entries.iter().map(entry).collect::<Result<Vec<_>>>()?;
    Ok(BuildRecord {
        adds_floats_atomically: atomics::adds_floats(
            &product.ptx,
            record.entries.iter().map(|e| e.launch.entry.as_str()),
        ),
        ptx_sha256: product.ptx_sha256(),
        cubin_sha256: product.cubin_sha256(),
        global_bytes: variables(product),
        constant_bytes: product.resources.constant_variables(),
        cache_hints: ptx_text::cache_hints(&product.ptx),
        copies_in_bulk: ptx_text::copies_in_bulk(&product.ptx),
        entries,
        warnings: product.warnings(),
        toggle_mismatches: Vec::new(),
        ..record.clone()
    })
}

/// Bytes of the module's own variables.
fn variables(product: &Product) -> u32 {
    product.resources.global_bytes.saturating_sub(tables_of_the_library(&product.ptx))
}

fn kept(dir: &Path) -> Option<Kept> {
    let kept: Kept = serde_json::from_slice(&std::fs::read(dir.join("build.json")).ok()?).ok()?;
    let is_one = || Product::read(dir).and_then(|p| p.contradictions()).is_ok_and(|found| found.is_empty());
    (compiler::intact(dir, &kept.ptx_sha256, &kept.cubin_sha256) && is_one()).then_some(kept)
}

/// One record an entry function, with the largest of what its names ask for.
fn entry_builds(product: &Product, named: &[Named], symbols: &BTreeMap<String, String>) -> Result<Vec<EntryBuild>> {
    let cubin = Cubin::parse(&product.image)?;
    let mut launches: Vec<LaunchRecord> = Vec::new();
    for Named { text, threads, dynamic_smem_bytes } in named {
        let entry = &symbols[text];
        let at = launches.iter().position(|launch| launch.entry == *entry).unwrap_or_else(|| {
            launches.push(LaunchRecord {
                entry: entry.clone(),
                config_symbol: String::new(),
                serves: BTreeMap::new(),
                operands: Operands::RowMajor,
                tile_q: 0,
                threads: 0,
                dynamic_smem_bytes: 0,
                workspace_bytes: 0,
            });
            launches.len() - 1
        });
        let launch = &mut launches[at];
        launch.threads = launch.threads.max(*threads);
        launch.dynamic_smem_bytes = launch.dynamic_smem_bytes.max(*dynamic_smem_bytes);
    }
    launches.into_iter().map(|launch| product.entry(&cubin, launch, true)).collect()
}

/// A compilation with everything checked that can be before it starts.
struct Job<'a> {
    toolchain: &'a Toolchain,
    variant: &'a str,
    source: &'a Source<'a>,
    arch: &'a str,
    limits: Limits,
    /// Where the source really is.
    path: PathBuf,
    roots: sources::Roots,
    /// Arguments of nvcc that the preprocessor gets as well.
    arguments: Vec<String>,
    /// Template-ids among the entries, each once.
    templates: Vec<&'a str>,
}

impl<'a> Job<'a> {
    fn of(
        toolchain: &'a Toolchain,
        variant: &'a str,
        source: &'a Source<'a>,
        arch: &'a str,
        limits: Limits,
    ) -> Result<Job<'a>> {
        let at = |part: &str| format!("variants.{variant}.{part}");
        let path = sources::below(source.folder, &at("source"), source.file)?;
        if !path.extension().is_some_and(|extension| extension == "cu" || extension == PTX) {
            let why = format!("`{}` is neither .cu nor .ptx: other kinds cannot be built yet", source.file);
            return Err(BadKey::new(at("source"), why).into());
        }
        let declared = sources::declared(source.folder, &at("include"), source.include)?;
        let is_standard = |flag: &&String| flag.trim_start_matches('-').starts_with("std=");
        let standard = source.flags.iter().rev().find(is_standard).map_or(compiler::STANDARD, String::as_str);
        let templates: BTreeSet<&str> =
            source.entries.iter().map(|e| e.text.as_str()).filter(|e| wrapper::is_template_id(e)).collect();
        if let Some(entry) = templates.first().filter(|_| standard.ends_with("c++14")) {
            let why = format!("`{entry}` needs C++17 or newer: take {standard} out of `flags`");
            return Err(BadKey::new(at("entry"), why).into());
        }
        let mut arguments = compiler::base_flags(standard, arch)?.split_off(1);
        arguments.extend(source.flags.iter().filter(|flag| !is_standard(flag)).cloned());
        arguments.extend(source.defines.iter().map(|(name, value)| format!("-D{name}={value}")));
        for (_, folder) in &declared {
            arguments.extend(["-I".to_owned(), folder.display().to_string()]);
        }
        let roots = sources::Roots::of(source.folder, &declared, toolchain)?;
        let templates = templates.into_iter().collect();
        Ok(Job { toolchain, variant, source, arch, limits, path, roots, arguments, templates })
    }

    fn is_ptx(&self) -> bool {
        self.path.extension().is_some_and(|extension| extension == PTX)
    }

    /// What it is made of, by name, with hashes. The inner error is the preprocessor's.
    fn files(&self) -> Result<Result<BTreeMap<String, String>, String>> {
        if self.is_ptx() {
            let bytes =
                std::fs::read(&self.path).with_context(|| format!("failed to read `{}`", self.path.display()))?;
            return Ok(Ok(BTreeMap::from([(self.source.file.to_owned(), sha256_hex(&bytes))])));
        }
        let key = self.at("source");
        sources::read(self.toolchain, &self.roots, &key, self.source.file, &self.arguments, self.limits)
    }

    /// The key of a part of the variant.
    fn at(&self, part: &str) -> String {
        format!("variants.{}.{part}", self.variant)
    }

    /// Paths are left out, so that a copy of the gate file elsewhere is the same build.
    fn key(&self, files: &BTreeMap<String, String>) -> String {
        let mut key = Key::new(CACHE_VERSION, self.toolchain, self.arch);
        let defines = self.source.defines.iter().flat_map(|(name, value)| [name, value]);
        let groups: [Vec<&str>; 5] = [
            vec![self.source.file],
            self.source.flags.iter().map(String::as_str).collect(),
            defines.map(String::as_str).collect(),
            self.source.include.iter().map(String::as_str).collect(),
            self.templates.clone(),
        ];
        for group in groups {
            key.part(&group.len().to_le_bytes());
            group.iter().for_each(|text| key.part(text.as_bytes()));
        }
        for (name, sha256) in files {
            key.part(name.as_bytes());
            key.part(sha256.as_bytes());
        }
        key.finish()
    }

    fn nvcc(&self, input: String, product: &Path) -> Result<Result<String, String>> {
        let mut arguments = vec!["-ptx".to_owned()];
        arguments.extend(self.arguments.iter().cloned());
        arguments.extend([input, "-o".to_owned(), product.display().to_string()]);
        compiler::nvcc(self.toolchain, &arguments, self.source.folder, self.limits)
    }

    /// The PTX as it comes out of nvcc, or as the source has it. The inner error is nvcc's.
    fn ptx(&self, cache: &Path, key: &str, product: &Path) -> Result<Result<String, String>> {
        if self.is_ptx() {
            let bytes =
                std::fs::read(&self.path).with_context(|| format!("failed to read `{}`", self.path.display()))?;
            let text = String::from_utf8(bytes);
            return Ok(text.map_err(|_| format!("{} is not text, which PTX is", self.source.file)));
        }
        let mut input = self.source.file.to_owned();
        if !self.templates.is_empty() {
            // In a place that depends on the content alone: the compiler puts a hash of it into the names of static kernels.
            let wrapped = cache.join(format!("{key}.cu"));
            write_whole(&wrapped, wrapper::text(&self.path, &self.templates).as_bytes())?;
            input = wrapped.display().to_string();
        }
        if let Err(error) = self.nvcc(input, product)? {
            return Ok(Err(error));
        }
        std::fs::read_to_string(product).map(Ok).context("failed to read the PTX that nvcc made")
    }

    fn build(&self, cache: &Path, key: &str, dir: &Path) -> Result<Result<Kept, String>> {
        let work = compiler::workplace(cache)?;
        let product = work.path().join("kernel.ptx");
        let made = match self.ptx(cache, key, &product)? {
            Ok(made) => made,
            Err(error) => return self.complaint(error).map(Err),
        };
        let (ptx, instances) = wrapper::unwrap(&made, &self.templates);
        std::fs::write(&product, &ptx).with_context(|| format!("failed to write `{}`", product.display()))?;
        if ptx::entries(&ptx).is_ok_and(|entries| entries.is_empty()) {
            let why = format!("{} has no kernel: {}", self.source.file, self.known_kernels());
            return Err(BadKey::new(self.at("source"), why).into());
        }
        let assembled = compiler::assemble(self.toolchain, self.arch, &[], work.path(), self.limits)?;
        if let Err(error) = assembled {
            return Ok(Err(error));
        }
        let product = Product::read(work.path())?;
        let kept = Kept { ptx_sha256: product.ptx_sha256(), cubin_sha256: product.cubin_sha256(), instances };
        write_whole(&work.path().join("build.json"), serde_json::to_string_pretty(&kept)?.as_bytes())?;
        // A copy of the gate file elsewhere may have been faster, and its PTX names its own folder: what lies there counts.
        Ok(Ok(compiler::keep(&work, dir, || self::kept(dir))?))
    }

    /// A complaint about an entry that the gate file names is the gate file's fault, any other the kernel's.
    fn complaint(&self, error: String) -> Result<String> {
        let Some((index, said)) = wrapper::complaint(&error) else {
            return Ok(error.replace(&format!("{}/", self.source.folder.display()), ""));
        };
        let entry = self.templates.get(index).context("nvcc complains about an entry that there is not")?;
        Err(BadKey::new(self.at("entry"), format!("`{entry}`: {said}: {}", self.known_kernels())).into())
    }

    /// What the source's text says that there is.
    fn known_kernels(&self) -> String {
        let text = std::fs::read(&self.path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let kernels = source_text::kernels(&text.unwrap_or_default());
        let ids: Vec<String> = kernels.iter().map(|k| format!("`{}`", k.id())).collect();
        if ids.is_empty() {
            return "no kernel is declared in it".to_owned();
        }
        format!("{} declares {}", self.source.file, ids.join(", "))
    }

    /// The symbol of every entry that the gate file names.
    fn symbols(
        &self,
        entries: &[ptx::Entry],
        instances: &BTreeMap<String, String>,
    ) -> Result<BTreeMap<String, String>, BadKey> {
        let names: Vec<Name> = entries.iter().map(|e| Name::of(&e.name)).collect();
        let symbol = |text: &String| {
            // What the compiler took a template-id for is exact; without its word the text is read.
            let instance = instances.get(text).and_then(|full| names.iter().position(|n| n.full == *full));
            let found = instance.map_or_else(|| names::resolve(text, &names), Ok);
            let index = found.map_err(|why| BadKey::new(self.at("entry"), format!("{}: {why}", self.source.file)))?;
            Ok((text.clone(), names[index].symbol.clone()))
        };
        self.source.entries.iter().map(|named| symbol(&named.text)).collect()
    }
}

/// Bytes of the tables that the compiler's own mathematics brings along, such as that of `sincosf`: constants, which no kernel
/// can keep anything in.
fn tables_of_the_library(ptx: &str) -> u32 {
    let bytes = |line: &str| {
        let (declared, _) = line.strip_prefix(".global ")?.split_once('=')?;
        let (before, rest) = declared.split_once("__cudart_")?;
        let count: u32 = rest.split_once('[')?.1.split_once(']')?.0.trim().parse().ok()?;
        let width = [(".b64", 8), (".b32", 4), (".b16", 2), (".b8", 1)];
        width.iter().find(|(kind, _)| before.contains(kind)).map(|(_, bytes)| count * bytes)
    };
    ptx.lines().filter_map(bytes).sum()
}
