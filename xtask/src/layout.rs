//! Where things are. A checkout and a dist folder have the same shape, found from the executable upwards and never
//! through a path that was compiled in, so that a dist folder can be put anywhere.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// The file that a dist folder has and a checkout has not.
pub const DIST_FILE: &str = "DIST.json";

/// The folders of a checkout or a dist.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The checkout or dist folder.
    pub root: PathBuf,
    /// Everything that can be made again: CUDA wheels, builds, scratch.
    pub target: PathBuf,
}

impl Layout {
    /// Looks upwards from the executable, then from the working directory.
    pub fn find() -> Result<Layout> {
        let executable = std::env::current_exe().context("failed to find the running executable")?;
        let here = std::env::current_dir().context("failed to find the working directory")?;
        for start in [executable.as_path(), here.as_path()] {
            if let Some(root) = start.ancestors().find(|dir| is_root(dir)) {
                return Ok(Layout { root: root.to_owned(), target: crate::toolchain::target_dir(root) });
            }
        }
        bail!("found neither a checkout nor a dist folder above `{}` or `{}`", executable.display(), here.display())
    }

    /// Whether this is a dist folder, which has binaries and no Rust sources.
    pub fn is_dist(&self) -> bool {
        self.root.join(DIST_FILE).is_file()
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
        self.root.join("kbench/runs")
    }

    /// The content-keyed cache of kernel builds.
    pub fn build_cache(&self) -> PathBuf {
        self.target.join("sdpa-build")
    }
}

fn is_root(dir: &Path) -> bool {
    dir.join("sdpa-kernel/cuda/common/config.h").is_file() && dir.join("kbench/suites").is_dir()
}
