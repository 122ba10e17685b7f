//! What building any kernel has in common, whoever wrote it: calling nvcc and ptxas within limits, what ptxas and the cubin
//! say of an entry function, keys over content, and finished builds that appear whole.
//! Leaves to others: which sources there are and with which flags, and what a record says besides.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use kbench::evidence::{EntryBuild, LaunchRecord};
use kbench::resources::{AssemblerMessage, EntryResources, ModuleResources, Severity};
use kernel_spec::ptx::{self, Entry};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use confine::Confinement;

use crate::bounded::{self, End, Limits, Program};
use crate::cubin::{Cubin, hex, sha256_hex};
use crate::files::UNFINISHED;
use crate::ptx_text;
use crate::ptxas;
use crate::scratch::sweep;
use crate::toolchain::Toolchain;

/// The standard of C++ unless somebody wants another.
pub const STANDARD: &str = "-std=c++17";

/// What a compilation may use. The largest of the project's own takes a minute of a slow core.
pub const LIMITS: Limits = Limits { time: Duration::from_secs(600), memory_bytes: 16 << 30 };

/// A hash over everything that decides a build, each part preceded by its length so that no two lists of parts can run
/// into each other.
pub struct Key {
    hash: Sha256,
}

impl Key {
    /// Starts with the meaning of a cached build, the tools and the target.
    pub fn new(version: &str, toolchain: &Toolchain, arch: &str) -> Key {
        let mut key = Key { hash: Sha256::new() };
        for text in [version, &toolchain.nvcc_version, &toolchain.ptxas_version, arch] {
            key.part(text.as_bytes());
        }
        key
    }

    /// Adds a part.
    pub fn part(&mut self, bytes: &[u8]) {
        self.hash.update((bytes.len() as u64).to_le_bytes());
        self.hash.update(bytes);
    }

    /// 128 bits of it, hex.
    pub fn finish(self) -> String {
        hex(&self.hash.finalize())[..32].to_owned()
    }
}

/// What nvcc always gets: PTX is made for the virtual architecture of the same number.
pub fn base_flags(standard: &str, arch: &str) -> Result<Vec<String>> {
    let number =
        arch.strip_prefix("sm_").with_context(|| format!("unknown architecture `{arch}`: use one like sm_89"))?;
    let target = format!("-arch=compute_{number}");
    Ok(["-ptx", standard, "-O3", "-lineinfo", &target].map(str::to_owned).into())
}

/// Runs nvcc; the inner error is the first thing that it complains about.
pub fn nvcc(
    toolchain: &Toolchain,
    arguments: &[String],
    dir: &Path,
    limits: Limits,
    confinement: Option<Confinement>,
) -> Result<Result<String, String>> {
    call(&toolchain.nvcc, arguments, dir, limits, confinement).map(|(_, result)| result)
}

/// Assembles `kernel.ptx` of a folder to `kernel.cubin`, with the log in `ptxas.txt`.
pub fn assemble(
    toolchain: &Toolchain,
    arch: &str,
    flags: &[String],
    work: &Path,
    limits: Limits,
    confinement: Option<Confinement>,
) -> Result<Result<(), String>> {
    let target = format!("-arch={arch}");
    let fixed = ["-v", "-lineinfo", &target, "kernel.ptx", "-o", "kernel.cubin"].map(str::to_owned);
    let (log, result) = call(&toolchain.ptxas, &[&fixed, flags].concat(), work, limits, confinement)?;
    std::fs::write(work.join("ptxas.txt"), log)?;
    Ok(result.map(|_| ()))
}

/// Everything that a compiler wrote, and its output or its first complaint.
fn call(
    program: &Path,
    arguments: &[String],
    dir: &Path,
    limits: Limits,
    confinement: Option<Confinement>,
) -> Result<(String, Result<String, String>)> {
    let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let argv = std::iter::once(program.as_os_str().to_owned()).chain(arguments.iter().map(OsString::from)).collect();
    let run = bounded::run(&Program { argv, dir, environment: &[], input: Vec::new(), confinement }, limits);
    Ok(match run.with_context(|| format!("failed to start `{}`", program.display()))? {
        End::TimedOut => {
            let seconds = limits.time.as_secs_f64();
            (String::new(), Err(format!("{name}: still compiling after {seconds} s and was stopped: make it smaller")))
        }
        End::Exited { success, signal, output, errors } => {
            let log = errors + &output;
            let result = match signal {
                _ if success => Ok(output),
                _ if out_of_memory(&log) => {
                    let mib = limits.memory_bytes >> 20;
                    Err(format!("{name}: needs more than the {mib} MiB that a compilation may use: make it smaller"))
                }
                Some(signal) => Err(format!("{name}: ended by signal {signal}")),
                None => Err(first_error(&log, &name)),
            };
            (log, result)
        }
    })
}

/// The words of gcc, of nvcc's parts, and of the C++ library that all of them share.
fn out_of_memory(said: &str) -> bool {
    ["out of memory", "memory exhausted", "std::bad_alloc", "LLVM ERROR: out of", "Cannot allocate memory"]
        .iter()
        .any(|words| said.contains(words))
}

/// The first line that says `error`, else the last line.
pub fn first_error(output: &str, tool: &str) -> String {
    let lines: Vec<&str> = output.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let error = lines.iter().find(|line| line.contains("error")).or(lines.last());
    error.map_or_else(|| format!("{tool} failed without a word"), |line| format!("{tool}: {line}"))
}

/// From this architecture on copies can be made in bulk.
const BULK_SINCE: u32 = 90;

/// What the compilers made, or what was machine code already, read back.
pub struct Product {
    /// What ptxas said; of machine code alone, what that says.
    pub resources: ModuleResources,
    /// The PTX; empty of machine code alone.
    pub ptx: String,
    /// The cubin.
    pub image: Vec<u8>,
}

impl Product {
    /// Reads `kernel.ptx`, `kernel.cubin` and `ptxas.txt` of a folder.
    pub fn read(dir: &Path) -> Result<Product> {
        let read = |file: &str| {
            let path = dir.join(file);
            std::fs::read(&path).with_context(|| format!("failed to read `{}`", path.display()))
        };
        if !dir.join("kernel.ptx").is_file() {
            return Product::of_machine_code(read("kernel.cubin")?);
        }
        let log = String::from_utf8(read("ptxas.txt")?).context("the log of ptxas is not text")?;
        let ptx = String::from_utf8(read("kernel.ptx")?).context("the PTX is not text")?;
        Product::of(log, ptx, read("kernel.cubin")?)
    }

    /// Of the log of ptxas, the PTX and the cubin.
    pub fn of(log: String, ptx: String, image: Vec<u8>) -> Result<Product> {
        Ok(Product { resources: ptxas::parse(&log)?, ptx, image })
    }

    /// Of a cubin that nobody here assembled.
    pub fn of_machine_code(image: Vec<u8>) -> Result<Product> {
        Ok(Product { resources: Cubin::parse(&image)?.resources()?, ptx: String::new(), image })
    }

    /// The entry functions with what they are declared to take.
    pub fn declared(&self) -> Result<Vec<Entry>> {
        if self.ptx.is_empty() {
            return Cubin::parse(&self.image)?.entries();
        }
        ptx::entries(&self.ptx).context("failed to read the PTX")
    }

    /// Whether anything is copied in bulk, as far as that can be known: of machine code, whether it could be.
    pub fn copies_in_bulk(&self) -> Result<bool> {
        if self.ptx.is_empty() {
            return Ok(Cubin::parse(&self.image)?.sm() >= BULK_SINCE);
        }
        Ok(ptx_text::copies_in_bulk(&self.ptx))
    }

    /// The version of nvcc, where it says in the PTX that it wrote it.
    pub fn nvcc(&self) -> Option<&str> {
        let line = self.ptx.lines().take(20).find(|line| line.starts_with("// Cuda compilation tools, release"))?;
        line.rsplit_once(", V").map(|(_, version)| version.trim())
    }

    /// SHA-256 of the PTX, hex; empty where there is none.
    pub fn ptx_sha256(&self) -> String {
        if self.ptx.is_empty() { String::new() } else { sha256_hex(self.ptx.as_bytes()) }
    }

    /// SHA-256 of the cubin, hex.
    pub fn cubin_sha256(&self) -> String {
        sha256_hex(&self.image)
    }

    /// An entry function with its figures and its machine code.
    pub fn entry(&self, cubin: &Cubin<'_>, launch: LaunchRecord, gated: bool) -> Result<EntryBuild> {
        let name = &launch.entry;
        let Some(resources) = self.resources.entries.iter().find(|e| e.entry == *name) else {
            bail!("ptxas does not report an entry function `{name}`");
        };
        let code_sha256 = cubin.code_sha256(name)?;
        Ok(EntryBuild { resources: resources.clone(), code_sha256, gated, launch })
    }

    /// Entries of which the log of ptxas says otherwise than the cubin: one of the two is not of this build.
    pub fn contradictions(&self) -> Result<Vec<String>> {
        let cubin = Cubin::parse(&self.image)?;
        let of = |entry: &EntryResources| {
            let name = &entry.entry;
            let figures = [
                ("registers", entry.registers, cubin.registers(name)),
                ("bytes of stack frame", entry.stack_frame_bytes, cubin.stack_frame_bytes(name)),
            ];
            let differ =
                figures.into_iter().filter_map(|(what, said, own)| Some((what, said, own.filter(|o| *o != said)?)));
            let word = |(what, said, own)| format!("`{name}` has {said} {what} in ptxas.txt and {own} in kernel.cubin");
            differ.map(word).collect::<Vec<_>>()
        };
        Ok(self.resources.entries.iter().flat_map(of).collect())
    }

    /// Advisories and warnings that ptxas printed.
    pub fn warnings(&self) -> Vec<String> {
        let message = |m: &AssemblerMessage| match &m.code {
            Some(code) => format!("{code}: {}", m.text),
            None => m.text.clone(),
        };
        let told = |m: &&AssemblerMessage| m.severity == Severity::Warning || m.code.is_some();
        self.resources.messages.iter().filter(told).map(message).collect()
    }
}

/// Whether a finished build still has the files that it was recorded with.
pub fn intact(dir: &Path, ptx_sha256: &str, cubin_sha256: &str) -> bool {
    let same = |file: &str, sha256: &str| std::fs::read(dir.join(file)).is_ok_and(|b| sha256_hex(&b) == sha256);
    let has_ptx = || same("kernel.ptx", ptx_sha256) && dir.join("ptxas.txt").is_file();
    let is_machine_code = ptx_sha256.is_empty() && !dir.join("kernel.ptx").exists();
    same("kernel.cubin", cubin_sha256) && (is_machine_code || has_ptx())
}

/// What the name of a build's folder begins with that is not whole yet.
const UNFINISHED_BUILD: &str = "building-";

/// A folder in a cache for a build that is not finished.
pub fn workplace(cache: &Path) -> Result<TempDir> {
    std::fs::create_dir_all(cache).with_context(|| format!("failed to create `{}`", cache.display()))?;
    [UNFINISHED_BUILD, UNFINISHED].iter().for_each(|prefix| sweep(cache, prefix));
    Ok(tempfile::Builder::new().prefix(UNFINISHED_BUILD).tempdir_in(cache)?)
}

/// Moves a finished build into its place, and returns what is known of the one that lies there then.
pub fn keep<T>(work: &TempDir, dir: &Path, held: impl Fn() -> Option<T>) -> Result<T> {
    // What is there and does not hold is in the way: a cache entry that lost a file, or was cut short.
    if dir.exists() && held().is_none() {
        let _ = std::fs::remove_dir_all(dir);
    }
    // Two processes may build the same thing at once: whoever renames first wins, and the other takes the winner's.
    let moved = std::fs::rename(work.path(), dir);
    held().with_context(|| match moved {
        Ok(()) => format!("the build in `{}` is not the one that was moved there", dir.display()),
        Err(error) => format!("failed to move a build to `{}`: {error}", dir.display()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_error_is_shown_with_its_place() {
        let output =
            "ladder/x.cuh(3): warning #1: w\nladder/sdpa_ladder.cu(12): error: expected a \";\"\n1 error detected\n";
        assert_eq!(first_error(output, "nvcc"), "nvcc: ladder/sdpa_ladder.cu(12): error: expected a \";\"");
        assert_eq!(first_error("", "ptxas"), "ptxas failed without a word");
    }
}
