//! Triton functions: PTX of them, as Triton's JIT would make it for the arguments of a launch, in a process of its own and
//! without a GPU. What the JIT would decide of the launch comes with it.
//! Leaves to others: finding Triton, and assembling.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use confine::Confinement;
use kbench::key::BadKey;
use kbench::variant::{Specialised, Told};
use kernel_spec::expr::Value;
use kernel_spec::launch::{Argument, Launch};
use kernel_spec::words;
use serde::{Deserialize, Serialize};

use super::super::sources;
use crate::bounded::{self, End, Limits, Program};
use crate::cubin::sha256_hex;
use crate::toolchain::triton::Triton;

/// The program that asks; it travels inside this one.
const HOST: &str = include_str!("../../../../kbench/python/triton_host.py");
/// The PTX that the pinned ptxas takes, in Triton's form, by the least architecture that needs it.
const PTX_VERSIONS: [(u32, u32); 2] = [(90, 90), (0, 88)];
/// What Triton gives ptxas, for an allocation of registers like its own.
pub const PTXAS_FLAGS: [&str; 1] = ["--regAllocOptLevel=2"];
/// The memory of a launch that Triton's own code asks for; no gate file can give anything this name.
pub const SCRATCH: &str = "triton's scratch";

/// What to compile, and by what.
#[derive(Clone, Copy, Debug)]
pub struct Function<'a> {
    /// What the compiler is told.
    pub told: &'a Specialised,
    /// The compiler.
    pub by: &'a Triton,
}

/// What Triton decided of a launch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// Its version.
    pub version: String,
    /// The symbol of the kernel.
    pub symbol: String,
    /// Indices of the arguments that it is launched with.
    pub kept: Vec<usize>,
    /// Decorators that were taken off.
    pub removed: Vec<String>,
    /// Shared memory, in bytes.
    pub shared: u32,
    /// Threads of a CTA.
    pub threads: u32,
    /// Bytes of memory that each CTA wants.
    pub global_scratch: usize,
    /// The same for Triton's profiler, which is off.
    pub profile_scratch: usize,
    /// All CTAs must be resident at once.
    pub cooperative: bool,
    /// May start before the launch before it has ended.
    pub pdl: bool,
}

impl Made {
    /// The launch of a function as the kernel wants it: without arguments that became constants, and with the pointers to
    /// scratch that Triton appends to the parameters, of which `declared` is the number.
    pub fn launched(&self, launch: &Launch, declared: usize) -> Result<Launch> {
        let kept = self.kept.iter().map(|i| launch.params.get(*i).cloned());
        let mut params = kept.collect::<Option<Vec<_>>>().context("Triton keeps an argument that there is not")?;
        let appended =
            declared.checked_sub(params.len()).context("the kernel takes fewer parameters than were kept")?;
        for i in 0..appended {
            let has_bytes = i == 0 && self.global_scratch > 0;
            params.push(if has_bytes { Argument::Tensor(SCRATCH.to_owned()) } else { Argument::Null });
        }
        Ok(Launch {
            entry: self.symbol.clone(),
            block: [self.threads, 1, 1],
            shared_bytes: self.shared,
            cooperative: self.cooperative,
            pdl: self.pdl,
            params,
            ..launch.clone()
        })
    }

    /// Bytes of scratch that a launch needs.
    pub fn scratch(&self, launch: &Launch) -> usize {
        self.global_scratch * launch.ctas() as usize
    }
}

/// The question as the host reads it.
#[derive(Serialize)]
struct Asked<'a> {
    file: &'a Path,
    function: &'a str,
    arch: u32,
    ptx_version: u32,
    num_warps: u32,
    num_stages: u32,
    constants: &'a [(String, Value)],
    arguments: &'a [Told],
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Said {
    Refused {
        refused: String,
        part: String,
    },
    Failed {
        failed: String,
    },
    Made {
        ptx: String,
        files: Vec<PathBuf>,
        #[serde(flatten)]
        made: Made,
    },
}

/// What came out: the PTX, what it was made of, and the launch.
pub struct Output {
    /// The PTX.
    pub ptx: String,
    /// By path from the folder, with SHA-256.
    pub files: BTreeMap<String, String>,
    /// Of the launch.
    pub made: Made,
}

impl Function<'_> {
    /// What decides the PTX besides the files.
    pub fn key(&self, function: String) -> Result<Vec<String>> {
        Ok(vec![self.by.version.clone(), function, serde_json::to_string(self.told)?])
    }

    /// Compiles; the inner error is the compiler's, a [`BadKey`] the gate file's.
    pub fn compile(
        &self,
        (folder, file, function): (&Path, &str, &str),
        arch: &str,
        at: &dyn Fn(&str) -> String,
        limits: Limits,
    ) -> Result<Result<Output, String>> {
        let digits = arch.trim_start_matches("sm_").trim_end_matches(['a', 'f']);
        let arch: u32 = digits.parse().with_context(|| format!("unknown architecture `{arch}`: use one like sm_89"))?;
        let ptx_version = PTX_VERSIONS.iter().find(|(least, _)| arch >= *least).map_or(0, |(_, version)| *version);
        let path = sources::below(folder, &at("source"), file)?;
        let Specialised { constants, num_warps, num_stages, arguments } = self.told;
        let (num_warps, num_stages) = (*num_warps, *num_stages);
        let asked = Asked { file: &path, function, arch, ptx_version, num_warps, num_stages, constants, arguments };
        let room = tempfile::tempdir().context("failed to make a temporary folder")?;
        let cache = room.path().display().to_string();
        let own = ["TRITON_CACHE_DIR", "TRITON_HOME"].map(|name| (name.to_owned(), cache.clone()));
        let environment: Vec<(String, String)> = self.by.environment.clone().into_iter().chain(own).collect();
        let may = Confinement::of(&self.by.paths).reading(folder).writing(room.path());
        let program = Program {
            argv: self.by.argv.iter().map(String::as_str).chain(["-c", HOST]).map(Into::into).collect(),
            dir: folder,
            environment: &environment,
            input: serde_json::to_vec(&asked)?,
            confinement: Some(may),
        };
        let end =
            bounded::run(&program, limits).with_context(|| format!("failed to start `{}`", self.by.argv.join(" ")))?;
        let output = match end {
            End::TimedOut => {
                let seconds = limits.time.as_secs_f64();
                return Ok(Err(format!("triton: still compiling after {seconds} s and was stopped: make it smaller")));
            }
            End::Exited { success: true, output, .. } => output,
            End::Exited { errors, .. } => {
                let last = errors.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("without a word");
                return Ok(Err(format!("triton: ended its process: {}", words::one_line(last.trim()))));
            }
        };
        let Ok(said) = serde_json::from_str(&output) else {
            return Ok(Err(format!("triton: `{file}` ended its process before it was compiled")));
        };
        match said {
            Said::Refused { refused, part } => Err(BadKey::new(at(&part), format!("{file}: {refused}")).into()),
            Said::Failed { failed } => Ok(Err(format!("triton: {failed}"))),
            Said::Made { made, .. } if made.profile_scratch > 0 => {
                bail!("Triton made a kernel for its profiler: unset the variables that switch that on")
            }
            Said::Made { ptx, files, made } => {
                let folder = folder.canonicalize().context("failed to find the gate file's folder")?;
                Ok(Ok(Output { ptx, files: hashed(&folder, &files)?, made }))
            }
        }
    }
}

fn hashed(folder: &Path, files: &[PathBuf]) -> Result<BTreeMap<String, String>> {
    let hash = |path: &PathBuf| {
        let bytes = std::fs::read(path).with_context(|| format!("failed to read `{}`", path.display()))?;
        Ok((path.strip_prefix(folder)?.display().to_string(), sha256_hex(&bytes)))
    };
    files.iter().filter(|path| path.starts_with(folder)).map(hash).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kernel_spec::dtype::Dtype;

    #[test]
    fn constants_go_and_pointers_to_scratch_come() {
        let tensor = |name: &str| Argument::Tensor(name.into());
        let number = |n: i64| Argument::Scalar { dtype: Dtype::I32, value: Value::Int(n), text: String::new() };
        let launch = Launch {
            entry: "f".into(),
            grid: [3, 2, 1],
            block: [128, 1, 1],
            shared_bytes: 0,
            cluster: None,
            cooperative: false,
            pdl: false,
            params: vec![tensor("x"), number(1), number(7), Argument::Null],
        };
        let made = Made {
            version: "3.9.0".into(),
            symbol: "f".into(),
            kept: vec![0, 2],
            removed: vec![],
            shared: 512,
            threads: 256,
            global_scratch: 0,
            profile_scratch: 0,
            cooperative: false,
            pdl: false,
        };
        let launched = made.launched(&launch, 4).unwrap();
        assert_eq!(launched.params, [tensor("x"), number(7), Argument::Null, Argument::Null]);
        assert_eq!((launched.block, launched.shared_bytes, launched.grid), ([256, 1, 1], 512, [3, 2, 1]));
        let greedy = Made { global_scratch: 128, ..made.clone() };
        assert_eq!(greedy.launched(&launch, 4).unwrap().params[2], tensor(SCRATCH));
        assert_eq!((greedy.scratch(&launch), made.scratch(&launch)), (768, 0));
        assert!(made.launched(&launch, 1).is_err());
    }
}
