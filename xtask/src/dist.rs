//! `dist`: everything that `validate` needs on a machine without Rust, as a folder or as a wheel: the programs, what they
//! read, the flagship's cubin with its Python, and the licences of all of it. Leaves to others: how a wheel is written
//! (`wheel`), on which systems it runs (`platform`), and whose code is in it (`notices`).

pub mod notices;
pub mod platform;
pub mod wheel;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use sdpa_kernel::registry;

use crate::build::build_all;
use crate::console::Step;
use crate::environment::SourceState;
use crate::export::export;
use crate::files::{all_files, write_whole};
use crate::layout::{DIST_FILE, Layout};
use crate::toolchain;

/// Folders that travel as they are.
pub const FOLDERS: [&str; 4] = ["sdpa-kernel/cuda", "kbench/suites", "kbench/peers", "examples"];

/// Files beside them without which nothing runs.
pub const FILES: [&str; 3] = [PIPELINE, RUNNER, DIST_FILE];

/// The pipeline: the program that a user calls.
const PIPELINE: &str = "xtask";
/// The program that it starts.
const RUNNER: &str = "sdpa-runner";
/// The library that stands for CUDA's where a program is emulated.
pub const LIBRARY: &str = "libcuda_shim.so";
/// The folder of what is called from Python.
const PYTHON: &str = "python";
/// What is called from Python, as the checkout has it.
const PYTHON_FILES: [&str; 2] = ["__init__.py", "sdpa_fp8.py"];
/// The variant whose cubin goes with it, and its architecture.
const FLAGSHIP: (&str, &str) = ("hopper", "sm_90a");
/// What a reader wants, as it lies in the checkout; licences are those that begin so.
const PAPERS: [&str; 5] = ["README.md", "CHANGELOG.md", "LICENSE", "LICENSE-APACHE", "LICENSE-MIT"];
/// Whose code is in the programs, and under which licences.
const NOTICES: &str = "THIRD-PARTY.txt";

/// The programs and the library, once they are built.
#[derive(Clone, Debug)]
pub struct Programs {
    pub pipeline: PathBuf,
    pub runner: PathBuf,
    pub library: PathBuf,
}

impl Programs {
    /// Those of a release build, made now. They name no folder of the machine that they are built on.
    pub fn release(layout: &Layout) -> Result<Programs> {
        let step = Step::begin("programs", 0);
        let packages = ["xtask", "sdpa-runner", "cuda-shim"].into_iter().flat_map(|package| ["--package", package]);
        let arguments = ["build", "--quiet", "--release", "--locked"].into_iter().chain(packages);
        let remapped = [(cargo_home()?, "/cargo"), (layout.root.clone(), "/source")];
        let flags = remapped.map(|(folder, name)| format!("--remap-path-prefix={}={name}", folder.display()));
        let command = duct::cmd(cargo(), arguments).env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
        let output = command.dir(&layout.root).stderr_capture().unchecked().run()?;
        if !output.status.success() {
            eprint!("{}", String::from_utf8_lossy(&output.stderr));
            bail!("failed to build the release binaries: cargo's own words are above");
        }
        step.end("ready");
        let folder = layout.target.join("release");
        Ok(Programs { pipeline: folder.join(PIPELINE), runner: folder.join(RUNNER), library: folder.join(LIBRARY) })
    }
}

fn cargo() -> std::ffi::OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// Where cargo keeps the sources of dependencies.
fn cargo_home() -> Result<PathBuf> {
    let usual = || std::env::home_dir().map(|home| home.join(".cargo"));
    std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(usual)
        .context("there is no home directory; set CARGO_HOME")
}

/// A file that travels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    pub bytes: Vec<u8>,
    pub executable: bool,
}

/// Everything that travels, by its path in the dist folder.
pub type Contents = BTreeMap<String, Item>;

/// Collects what travels with these programs from a checkout.
pub fn contents(layout: &Layout, programs: &Programs) -> Result<Contents> {
    if layout.is_dist() {
        bail!("`{}` is a dist folder or an installation already; run this in a checkout", layout.root.display());
    }
    let mut contents = Contents::new();
    for folder in FOLDERS {
        let files = all_files(&layout.root.join(folder))?;
        for file in files.iter().filter(|file| !file.components().any(|part| part.as_os_str() == "__pycache__")) {
            let name = file.strip_prefix(&layout.root)?.to_str().context("a source's name is text")?;
            add(&mut contents, name, file, false)?;
        }
    }
    add(&mut contents, PIPELINE, &programs.pipeline, true)?;
    add(&mut contents, RUNNER, &programs.runner, true)?;
    add(&mut contents, LIBRARY, &programs.library, false)?;
    for paper in PAPERS {
        add(&mut contents, paper, &layout.root.join(paper), false)?;
    }
    for file in PYTHON_FILES {
        add(&mut contents, &format!("{PYTHON}/{file}"), &layout.root.join("sdpa-kernel/python").join(file), false)?;
    }
    let room = tempfile::tempdir()?;
    flagship(layout, room.path())?;
    for file in all_files(room.path())? {
        let name = file.file_name().and_then(|name| name.to_str()).context("an exported file has a name")?;
        add(&mut contents, &format!("{PYTHON}/{name}"), &file, false)?;
    }
    let written = |text: String| Item { bytes: text.into_bytes(), executable: false };
    contents.insert(NOTICES.to_owned(), written(notices::notices(layout)?));
    contents.insert(DIST_FILE.to_owned(), written(serde_json::to_string_pretty(&SourceState::of(layout))?));
    Ok(contents)
}

fn add(contents: &mut Contents, name: &str, file: &Path, executable: bool) -> Result<()> {
    let bytes = std::fs::read(file).with_context(|| format!("failed to read `{}`", file.display()))?;
    contents.insert(name.to_owned(), Item { bytes, executable });
    Ok(())
}

/// Leaves the flagship's cubin and launch record in a folder.
fn flagship(layout: &Layout, folder: &Path) -> Result<()> {
    let (name, arch) = FLAGSHIP;
    let toolchain = toolchain::find_or_install(&layout.target, &crate::console::line)?;
    let set = build_all(layout, &toolchain, &[registry::find(name)?], &[arch.to_owned()])?;
    if let Some(failure) = set.failures.first() {
        bail!("{name} does not build for {arch}: {}", failure.error);
    }
    export(&set, folder)?;
    Ok(())
}

/// Builds the folder anew and returns where it is.
pub fn dist(layout: &Layout, out: Option<&Path>) -> Result<PathBuf> {
    let contents = contents(layout, &Programs::release(layout)?)?;
    let step = Step::begin("dist", 0);
    let target = out.map_or_else(|| layout.target.join("dist"), Path::to_owned);
    if target.exists() && !target.join(DIST_FILE).is_file() {
        bail!("`{}` is there and is no dist folder; choose another with --out", target.display());
    }
    let _ = std::fs::remove_dir_all(&target);
    for (name, item) in &contents {
        place(&target.join(name), item)?;
    }
    step.end(&format!("`{}`; on the other machine: ./xtask validate --stage5", target.display()));
    Ok(target)
}

fn place(path: &Path, item: &Item) -> Result<()> {
    let folder = path.parent().context("a file has a folder")?;
    std::fs::create_dir_all(folder).with_context(|| format!("failed to create `{}`", folder.display()))?;
    write_whole(path, &item.bytes)?;
    if item.executable {
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(path, permissions).with_context(|| format!("failed to write `{}`", path.display()))?;
    }
    Ok(())
}

/// What a fleet's jobs run, as a dist folder: of a checkout, made now; of an installation, the same files in that shape.
pub fn portable(layout: &Layout) -> Result<PathBuf> {
    if !layout.is_dist() {
        return dist(layout, None);
    }
    if !layout.is_installed() {
        return Ok(layout.root.clone());
    }
    let target = layout.target.join("dist");
    let _ = std::fs::remove_dir_all(&target);
    let mut contents = Contents::new();
    for folder in FOLDERS {
        for file in all_files(&layout.root.join(folder))? {
            let name = file.strip_prefix(&layout.root)?.to_str().context("a source's name is text")?.to_owned();
            add(&mut contents, &name, &file, false)?;
        }
    }
    add(&mut contents, PIPELINE, &std::env::current_exe()?, true)?;
    add(&mut contents, RUNNER, &layout.root.join(RUNNER), true)?;
    add(&mut contents, DIST_FILE, &layout.root.join(DIST_FILE), false)?;
    for (name, item) in &contents {
        place(&target.join(name), item)?;
    }
    Ok(target)
}
