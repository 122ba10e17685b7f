//! Makes machine code of one source of a gate file, whatever it is written in, and finds each entry that the gate file
//! names. What a compiler makes PTX of is assembled like PTX that somebody wrote; a cubin is taken as it is. Results are cached
//! under a key over everything that went in.
//! Leaves to others: what the entries are launched with, and judging them.

mod cuda;
pub mod triton;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use confine::Confinement;
use kbench::deferral::Deferral;
use kbench::evidence::{BuildFailure, BuildRecord, EntryBuild, LaunchRecord, Operands};
use kbench::key::BadKey;
use kbench::variant::Language;
use kernel_spec::ptx;
use serde::{Deserialize, Serialize};

use self::triton::{Function, Made};
use super::names::{self, Name};
use super::{atomics, source_text, sources};
use crate::bounded::Limits;
use crate::compiler::{self, Key, Product};
use crate::cubin::{Cubin, sha256_hex};
use crate::files::write_whole;
use crate::layout::Layout;
use crate::ptx_text;
use crate::toolchain::Toolchain;

/// Changes when the meaning of a cached build does.
const CACHE_VERSION: &str = "gate-build/2";
/// What a compilation may use. The largest libraries of templates take a minute or two.
pub const LIMITS: Limits = Limits { time: Duration::from_secs(300), memory_bytes: 12 << 30 };

/// What to compile.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// The gate file's folder.
    pub folder: &'a Path,
    /// The source, as a path from there.
    pub file: &'a str,
    /// What it is written in.
    pub language: Language,
    /// Macros with their values.
    pub defines: &'a [(String, String)],
    /// Flags of the gate file, all of them ones that kbench allows.
    pub flags: &'a [String],
    /// Folders to include from, as paths from the gate file's.
    pub include: &'a [String],
    /// The entries that the variant launches.
    pub entries: &'a [Named],
    /// What Triton is told, where it is the compiler.
    pub triton: Option<Function<'a>>,
}

/// An entry that a gate file names, and what its launches ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// PTX symbol, C++ name or template-id; the function of Triton.
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
    /// The folder with `kernel.cubin` and, but of machine code, `kernel.ptx` and `ptxas.txt`.
    pub dir: PathBuf,
    /// The symbols of the entries that were named.
    pub symbols: BTreeMap<String, String>,
    /// Every entry function.
    pub entries: Vec<ptx::Entry>,
    /// What it was compiled from, by path from the gate file's folder, with SHA-256.
    pub files: BTreeMap<String, String>,
    /// What Triton decided of the launch.
    pub triton: Option<Made>,
    /// Whether it came from the cache.
    pub cached: bool,
}

/// What is kept beside the products: that they are whole, and what only the compiler knew.
#[derive(Clone, Serialize, Deserialize)]
struct Kept {
    ptx_sha256: String,
    cubin_sha256: String,
    /// The kernel that each template-id is, as C++ writes it.
    instances: BTreeMap<String, String>,
    /// What Triton decided of the launch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    triton: Option<Made>,
}

/// PTX, or nothing where there is machine code already, with what only its maker knew.
#[derive(Default)]
struct Making {
    ptx: Option<String>,
    instances: BTreeMap<String, String>,
    triton: Option<Made>,
    /// What it was made of, where only its maker knows.
    files: Option<BTreeMap<String, String>>,
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
    let fail = |error: String, unclaimed: Option<Deferral>| {
        Ok(Err(BuildFailure { variant: variant.to_owned(), arch: arch.to_owned(), error, unclaimed }))
    };
    let cache = layout.build_cache();
    let job = Job::of(toolchain, variant, source, arch, limits)?;
    let files = match job.files(&cache)? {
        Ok(files) => files,
        Err(error) => return fail(error, None),
    };
    let (Stored { key, dir, kept, files }, cached) = match job.held(&cache, &files)? {
        Some(stored) => (stored, true),
        None => match job.build(&cache, files)? {
            Ok(stored) => (stored, false),
            Err(error) => return fail(error, None),
        },
    };
    let product = Product::read(&dir)?;
    if let Some(other) = job.other_device(&product)? {
        return fail(other.why.clone(), Some(other));
    }
    let entries = product.declared()?;
    let symbols = job.symbols(&entries, &kept)?;
    let record = job.record(key, &product, &kept, &symbols)?;
    Ok(Ok(Compiled { record, dir, symbols, entries, files, triton: kept.triton, cached }))
}

/// The entry functions of a CUDA source as it is, without any that it would have to be told of. The inner error is nvcc's.
pub fn inspect(
    toolchain: &Toolchain,
    folder: &Path,
    file: &str,
    arch: &str,
) -> Result<Result<Vec<ptx::Entry>, String>> {
    let source = Source {
        folder,
        file,
        language: Language::Cuda,
        defines: &[],
        flags: &[],
        include: &[],
        entries: &[],
        triton: None,
    };
    let job = Job::of(toolchain, file, &source, arch, LIMITS)?;
    let work = tempfile::tempdir().context("failed to make a temporary folder")?;
    let made = cuda::Nvcc::of(&job)?.ptx(work.path(), "inspected", &work.path().join("kernel.ptx"))?;
    Ok(match made {
        Ok(making) => {
            Ok(ptx::entries(&making.ptx.unwrap_or_default()).context("failed to read the PTX that nvcc made")?)
        }
        Err(error) => Err(error),
    })
}

/// A record as its own files would have it: what only the compilation and the gate file knew is left as it is.
pub fn described_again(record: &BuildRecord, product: &Product) -> Result<BuildRecord> {
    let cubin = Cubin::parse(&product.image)?;
    let entry = |entry: &EntryBuild| product.entry(&cubin, entry.launch.clone(), entry.gated);
    let entries = record.entries.iter().map(entry).collect::<Result<Vec<_>>>()?;
    Ok(BuildRecord { entries, ..described(record.clone(), product)? })
}

/// A record of named entries with what the product says besides.
fn described(record: BuildRecord, product: &Product) -> Result<BuildRecord> {
    let names = record.entries.iter().map(|e| e.launch.entry.as_str());
    Ok(BuildRecord {
        adds_floats_atomically: atomics::adds_floats(&product.ptx, names),
        ptx_sha256: product.ptx_sha256(),
        cubin_sha256: product.cubin_sha256(),
        global_bytes: variables(product),
        constant_bytes: product.resources.constant_variables(),
        cache_hints: ptx_text::cache_hints(&product.ptx),
        copies_in_bulk: product.copies_in_bulk()?,
        warnings: product.warnings(),
        toggle_mismatches: Vec::new(),
        ..record
    })
}

/// Bytes of the module's own variables.
fn variables(product: &Product) -> u32 {
    product.resources.global_bytes.saturating_sub(ptx_text::inert_bytes(&product.ptx))
}

fn kept(dir: &Path) -> Option<Kept> {
    let kept: Kept = serde_json::from_slice(&std::fs::read(dir.join("build.json")).ok()?).ok()?;
    let is_one = || Product::read(dir).and_then(|p| p.contradictions()).is_ok_and(|found| found.is_empty());
    (compiler::intact(dir, &kept.ptx_sha256, &kept.cubin_sha256) && is_one()).then_some(kept)
}

/// One record an entry function, with the largest of what its names ask for, or with what its compiler decided.
fn entry_builds(
    product: &Product,
    named: &[Named],
    decided: Option<(u32, u32)>,
    symbols: &BTreeMap<String, String>,
) -> Result<Vec<EntryBuild>> {
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
        let (threads, shared) = decided.unwrap_or((*threads, *dynamic_smem_bytes));
        launch.threads = launch.threads.max(threads);
        launch.dynamic_smem_bytes = launch.dynamic_smem_bytes.max(shared);
    }
    launches.into_iter().map(|launch| product.entry(&cubin, launch, true)).collect()
}

/// A compilation with what can be checked before it starts.
struct Job<'a> {
    toolchain: &'a Toolchain,
    variant: &'a str,
    source: &'a Source<'a>,
    arch: &'a str,
    limits: Limits,
    /// Where the source really is.
    path: PathBuf,
}

/// A build in the cache: its key, its folder, what only its compiler knew and what it was made of.
struct Stored {
    key: String,
    dir: PathBuf,
    kept: Kept,
    files: BTreeMap<String, String>,
}

impl<'a> Job<'a> {
    fn of(
        toolchain: &'a Toolchain,
        variant: &'a str,
        source: &'a Source<'a>,
        arch: &'a str,
        limits: Limits,
    ) -> Result<Job<'a>> {
        let path = sources::below(source.folder, &format!("variants.{variant}.source"), source.file)?;
        Ok(Job { toolchain, variant, source, arch, limits, path })
    }

    /// The key of a part of the variant.
    fn at(&self, part: &str) -> String {
        format!("variants.{}.{part}", self.variant)
    }

    fn bytes(&self) -> Result<Vec<u8>> {
        std::fs::read(&self.path).with_context(|| format!("failed to read `{}`", self.path.display()))
    }

    fn own_file(&self) -> Result<BTreeMap<String, String>> {
        Ok(BTreeMap::from([(self.source.file.to_owned(), sha256_hex(&self.bytes()?))]))
    }

    /// What it is made of as far as that is known before it is, by name, with hashes. The inner error is a preprocessor's.
    fn files(&self, cache: &Path) -> Result<Result<BTreeMap<String, String>, String>> {
        match self.source.language {
            Language::Cuda => cuda::Nvcc::of(self)?.files(),
            Language::Triton => Ok(Ok(self.imported(cache)?)),
            Language::Ptx | Language::Cubin | Language::Call => Ok(Ok(self.own_file()?)),
        }
    }

    /// Where the names of the files are that a source of Python imported when it was compiled last: only then are they known.
    fn imports(&self, cache: &Path) -> Result<PathBuf> {
        Ok(cache.join(format!("{}.imports.json", self.key(&self.own_file()?)?)))
    }

    fn imported(&self, cache: &Path) -> Result<BTreeMap<String, String>> {
        let mut files = self.own_file()?;
        let known = std::fs::read(self.imports(cache)?).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        for name in known.unwrap_or_else(Vec::<String>::new) {
            let hash = std::fs::read(self.source.folder.join(&name)).map(|bytes| sha256_hex(&bytes));
            files.insert(name, hash.unwrap_or_default());
        }
        Ok(files)
    }

    /// Paths are left out, so that a copy of the gate file elsewhere is the same build.
    fn key(&self, files: &BTreeMap<String, String>) -> Result<String> {
        let mut key = Key::new(CACHE_VERSION, self.toolchain, self.arch);
        let defines = self.source.defines.iter().flat_map(|(name, value)| [name, value]);
        let function = self.source.entries.first().map(|named| named.text.clone()).unwrap_or_default();
        let triton = self.source.triton.as_ref().map(|told| told.key(function)).transpose()?.unwrap_or_default();
        let groups: [Vec<&str>; 6] = [
            vec![self.source.file],
            self.source.flags.iter().map(String::as_str).collect(),
            defines.map(String::as_str).collect(),
            self.source.include.iter().map(String::as_str).collect(),
            cuda::templates(self.source.entries),
            triton.iter().map(String::as_str).collect(),
        ];
        for group in groups {
            key.part(&group.len().to_le_bytes());
            group.iter().for_each(|text| key.part(text.as_bytes()));
        }
        for (name, sha256) in files {
            key.part(name.as_bytes());
            key.part(sha256.as_bytes());
        }
        Ok(key.finish())
    }

    /// The build of these files, where the cache has it.
    fn held(&self, cache: &Path, files: &BTreeMap<String, String>) -> Result<Option<Stored>> {
        let key = self.key(files)?;
        let dir = cache.join(&key);
        Ok(kept(&dir).map(|kept| Stored { key, dir, kept, files: files.clone() }))
    }

    /// PTX, by whoever makes it of such a source. The inner error is the compiler's.
    fn make(&self, cache: &Path, key: &str, product: &Path) -> Result<Result<Making, String>> {
        match (self.source.language, &self.source.triton) {
            (Language::Cuda, _) => cuda::Nvcc::of(self)?.ptx(cache, key, product),
            (Language::Triton, Some(function)) => {
                let named = self.source.entries.first().context("a function of Triton has a name")?;
                let place = (self.source.folder, self.source.file, named.text.as_str());
                let made = function.compile(place, self.arch, &|part| self.at(part), self.limits)?;
                Ok(made.map(|made| Making {
                    ptx: Some(made.ptx),
                    instances: BTreeMap::from([(named.text.clone(), made.made.symbol.clone())]),
                    triton: Some(made.made),
                    files: Some(made.files),
                }))
            }
            (Language::Ptx, _) => {
                let text = String::from_utf8(self.bytes()?);
                let text = text.map_err(|_| format!("{} is not text, which PTX is", self.source.file));
                Ok(text.map(|text| Making { ptx: Some(text), ..Making::default() }))
            }
            (Language::Cubin, _) => Ok(Ok(Making::default())),
            (Language::Triton | Language::Call, _) => anyhow::bail!("nothing compiles `{}`", self.source.file),
        }
    }

    /// Makes it and assembles it. The inner error is the compiler's or the assembler's.
    fn build(&self, cache: &Path, files: BTreeMap<String, String>) -> Result<Result<Stored, String>> {
        let work = compiler::workplace(cache)?;
        let path = work.path().join("kernel.ptx");
        let making = match self.make(cache, &self.key(&files)?, &path)? {
            Ok(making) => making,
            Err(error) => return Ok(Err(error)),
        };
        let assembled = match &making.ptx {
            Some(ptx) => self.assembled(ptx, work.path())?,
            None => self.machine_code(work.path())?,
        };
        if let Err(error) = assembled {
            return Ok(Err(error));
        }
        let files = match making.files {
            Some(imported) => {
                let names: Vec<&String> = imported.keys().collect();
                write_whole(&self.imports(cache)?, &serde_json::to_vec(&names)?)?;
                imported
            }
            None => files,
        };
        let key = self.key(&files)?;
        let product = Product::read(work.path())?;
        let kept = Kept {
            ptx_sha256: product.ptx_sha256(),
            cubin_sha256: product.cubin_sha256(),
            instances: making.instances,
            triton: making.triton,
        };
        write_whole(&work.path().join("build.json"), serde_json::to_string_pretty(&kept)?.as_bytes())?;
        let dir = cache.join(&key);
        // A copy of the gate file elsewhere may have been faster, and its PTX names its own folder: what lies there counts.
        let kept = compiler::keep(&work, &dir, || self::kept(&dir))?;
        Ok(Ok(Stored { key, dir, kept, files }))
    }

    fn assembled(&self, ptx: &str, work: &Path) -> Result<Result<(), String>> {
        let path = work.join("kernel.ptx");
        std::fs::write(&path, ptx).with_context(|| format!("failed to write `{}`", path.display()))?;
        if ptx::entries(ptx).is_ok_and(|entries| entries.is_empty()) {
            let why = format!("{} has no kernel: {}", self.source.file, self.known_kernels());
            return Err(BadKey::new(self.at("source"), why).into());
        }
        let flags = self.source.triton.map_or(Vec::new(), |_| triton::PTXAS_FLAGS.map(str::to_owned).to_vec());
        let may = Confinement::of(self.toolchain.homes()).writing(work);
        compiler::assemble(self.toolchain, &ptx_text::target_for(ptx, self.arch), &flags, work, self.limits, Some(may))
    }

    fn machine_code(&self, work: &Path) -> Result<Result<(), String>> {
        let image = self.bytes()?;
        if let Err(error) = Cubin::parse(&image).and_then(|cubin| cubin.resources().map(drop)) {
            let why = format!("{}: {error:#}", self.source.file);
            return Err(BadKey::new(self.at("source"), why).into());
        }
        std::fs::write(work.join("kernel.cubin"), image)?;
        Ok(Ok(()))
    }

    /// Why machine code that is there already says nothing of this device.
    fn other_device(&self, product: &Product) -> Result<Option<Deferral>> {
        let cubin = Cubin::parse(&product.image)?;
        Ok((self.source.language == Language::Cubin && !cubin.runs_on(self.arch)).then(|| {
            let (file, own) = (self.source.file, cubin.sm());
            let why = format!("{file} is machine code for sm_{own}, which {} does not execute", self.arch);
            Deferral::new(why, format!("run on a device of sm_{own}, or give the kernel's PTX"))
        }))
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
    fn symbols(&self, entries: &[ptx::Entry], kept: &Kept) -> Result<BTreeMap<String, String>, BadKey> {
        let names: Vec<Name> = entries.iter().map(|e| Name::of(&e.name)).collect();
        let symbol = |text: &String| {
            // What the compiler took a template-id for is exact; without its word the text is read.
            let instance = kept.instances.get(text);
            let instance = instance.and_then(|full| names.iter().position(|n| n.full == *full));
            let found = instance.map_or_else(|| names::resolve(text, &names), Ok);
            let index = found.map_err(|why| BadKey::new(self.at("entry"), format!("{}: {why}", self.source.file)))?;
            Ok((text.clone(), names[index].symbol.clone()))
        };
        self.source.entries.iter().map(|named| symbol(&named.text)).collect()
    }

    fn record(
        &self,
        key: String,
        product: &Product,
        kept: &Kept,
        symbols: &BTreeMap<String, String>,
    ) -> Result<BuildRecord> {
        let language = self.source.language;
        let nvcc = match (language, &kept.triton) {
            (Language::Cuda, _) => self.toolchain.nvcc_version.clone(),
            (_, Some(made)) => format!("triton {}", made.version),
            _ => product.nvcc().unwrap_or_default().to_owned(),
        };
        let decided = kept.triton.as_ref().map(|made| (made.threads, made.shared));
        let record = BuildRecord {
            variant: self.variant.to_owned(),
            arch: self.arch.to_owned(),
            key,
            language,
            nvcc,
            ptxas: if language.has_ptx() { self.toolchain.ptxas_version.clone() } else { String::new() },
            entries: entry_builds(product, self.source.entries, decided, symbols)?,
            taken_off: kept.triton.as_ref().map(|made| made.removed.clone()).unwrap_or_default(),
            ..BuildRecord::default()
        };
        described(record, product)
    }
}
