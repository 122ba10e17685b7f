//! Where things are. A checkout, a dist folder and an installed wheel have the same shape, found from the executable and never
//! through a path that was compiled in, so that a folder can be put anywhere. What is installed is only read: runs go to
//! the working directory, and what can be made again to the user's cache.

use std::env;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use anyhow::{Context, Result, bail};

/// The file that a dist folder or an installed wheel has and a checkout has not.
pub const DIST_FILE: &str = "DIST.json";

/// The program's name where a wheel installed it.
pub const INSTALLED: &str = "kernel-gate";

/// Where a wheel puts what the program reads, beside the folder `bin` that has the program.
pub const SHARE: &str = "share/kernel-gate";

/// Where an installed program leaves runs, in the working directory.
const INSTALLED_RUNS: &str = "kernel-gate-runs";

/// The folders of a checkout, a dist folder or an installation.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The checkout or dist folder, or what a wheel installed.
    pub root: PathBuf,
    /// Everything that can be made again: CUDA wheels, builds, scratch.
    pub target: PathBuf,
    /// Where runs go unless `--out` says otherwise.
    runs: PathBuf,
}

impl Layout {
    /// Looks beside the executable for what a wheel installed, else upwards from the executable, then from the working
    /// directory.
    pub fn find() -> Result<Layout> {
        let executable = env::current_exe().context("failed to find the running executable")?;
        if let Some(root) = installed_root(&executable) {
            let (target, runs) = (user_cache()?, PathBuf::from(INSTALLED_RUNS));
            return Ok(Layout { root, target, runs });
        }
        let here = env::current_dir().context("failed to find the working directory")?;
        for start in [executable.as_path(), here.as_path()] {
            if let Some(root) = start.ancestors().find(|dir| is_root(dir)) {
                return Ok(Layout::at(root.to_owned(), crate::toolchain::target_dir(root)));
            }
        }
        bail!("found neither a checkout nor a dist folder above `{}` or `{}`", executable.display(), here.display())
    }

    /// That of a checkout or dist folder.
    pub fn at(root: PathBuf, target: PathBuf) -> Layout {
        let runs = root.join("kbench/runs");
        Layout { root, target, runs }
    }

    /// Whether this is a dist folder or an installed wheel, which have binaries and no Rust sources.
    pub fn is_dist(&self) -> bool {
        self.root.join(DIST_FILE).is_file()
    }

    /// Whether a wheel put it there.
    pub fn is_installed(&self) -> bool {
        self.is_dist() && self.root.ends_with(SHARE)
    }

    pub fn cuda(&self) -> PathBuf {
        self.root.join("sdpa-kernel/cuda")
    }

    pub fn suites(&self) -> PathBuf {
        self.root.join("kbench/suites")
    }

    pub fn peers(&self) -> PathBuf {
        self.root.join("kbench/peers")
    }

    /// Where runs go unless `--out` says otherwise.
    pub fn runs(&self) -> PathBuf {
        self.runs.clone()
    }

    /// The content-keyed cache of kernel builds.
    pub fn build_cache(&self) -> PathBuf {
        self.target.join("sdpa-build")
    }
}

fn is_root(dir: &Path) -> bool {
    dir.join("sdpa-kernel/cuda/common/config.h").is_file() && dir.join("kbench/suites").is_dir()
}

/// What a wheel installed for this executable: `PREFIX/share/kernel-gate` for `PREFIX/bin/kernel-gate`.
fn installed_root(executable: &Path) -> Option<PathBuf> {
    let root = executable.parent()?.parent()?.join(SHARE);
    (is_root(&root) && root.join(DIST_FILE).is_file()).then_some(root)
}

/// The user's cache as the XDG base directory specification has it.
fn user_cache() -> Result<PathBuf> {
    let named = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let usual = || env::home_dir().filter(|home| home.is_absolute()).map(|home| home.join(".cache"));
    let cache = named.or_else(usual).context("there is no home directory for the cache; set XDG_CACHE_HOME")?;
    Ok(cache.join(INSTALLED))
}

/// What a user types to run this program, for messages that say what to run next.
pub fn program() -> &'static str {
    static NAME: LazyLock<&str> = LazyLock::new(|| {
        let executable = env::current_exe().unwrap_or_default();
        let is_dist = executable.with_file_name(DIST_FILE).is_file();
        match executable.file_name() {
            Some(name) if name == INSTALLED => INSTALLED,
            _ if is_dist => "./xtask",
            _ => "cargo xtask",
        }
    });
    &NAME
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_installed_is_found_beside_the_folder_of_programs_and_nowhere_else() {
        let prefix = tempfile::tempdir().unwrap();
        let (bin, root) = (prefix.path().join("bin/kernel-gate"), prefix.path().join(SHARE));
        assert_eq!(installed_root(&bin), None);
        std::fs::create_dir_all(root.join("sdpa-kernel/cuda/common")).unwrap();
        std::fs::create_dir_all(root.join("kbench/suites")).unwrap();
        std::fs::write(root.join("sdpa-kernel/cuda/common/config.h"), "").unwrap();
        assert_eq!(installed_root(&bin), None, "a checkout of that name is no installation");
        std::fs::write(root.join(DIST_FILE), "{}").unwrap();
        assert_eq!(installed_root(&bin), Some(root));
        assert_eq!(installed_root(&prefix.path().join("xtask")), None);
    }
}
