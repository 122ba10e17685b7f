//! `build --export`: a cubin and its launch record as two files that need nothing else of this project.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use kbench::evidence::LaunchRecord;
use serde::{Deserialize, Serialize};

use crate::build::BuildSet;
use crate::files::write_whole;

/// What a caller must know to load and launch an exported cubin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exported {
    pub variant: String,
    /// Target, e.g. `sm_90a`.
    pub arch: String,
    /// The cubin's file name, beside the record.
    pub cubin: String,
    /// SHA-256 of the cubin, hex.
    pub cubin_sha256: String,
    pub launches: Vec<LaunchRecord>,
}

/// Writes `<variant>-<arch>.cubin` and `.json` of every build; returns the records' paths.
pub fn export(set: &BuildSet, folder: &Path) -> Result<Vec<PathBuf>> {
    std::fs::create_dir_all(folder).with_context(|| format!("failed to create `{}`", folder.display()))?;
    set.built
        .iter()
        .map(|built| {
            let record = &built.record;
            let name = format!("{}-{}", record.variant, record.arch);
            let cubin = format!("{name}.cubin");
            let image = built.dir.join("kernel.cubin");
            let bytes = std::fs::read(&image).with_context(|| format!("failed to read `{}`", image.display()))?;
            write_whole(&folder.join(&cubin), &bytes)?;
            let exported = Exported {
                variant: record.variant.clone(),
                arch: record.arch.clone(),
                cubin,
                cubin_sha256: record.cubin_sha256.clone(),
                launches: record.entries.iter().map(|e| e.launch.clone()).collect(),
            };
            let path = folder.join(format!("{name}.json"));
            write_whole(&path, serde_json::to_string_pretty(&exported)?.as_bytes())?;
            Ok(path)
        })
        .collect()
}
