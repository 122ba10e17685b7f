//! What a variant is, as one hash an architecture: the machine code and the constants of its builds, and for a variant of a
//! gate file what it is launched with. Names of files and folders are no part of it, so that a copy elsewhere is the same.
//! Leaves to others: what is built.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use kbench::evidence::BuildRecord;
use kbench::suite::Suite;
use kbench::variant::VariantTable;

use crate::build::BuildSet;
use crate::cubin::{Cubin, sha256_hex};

/// Hashes by architecture of what was built of a variant; none of one that was not built.
pub fn of_builds(suite: &Suite, builds: &BuildSet, variant: &str) -> Result<BTreeMap<String, String>> {
    let own = builds.built.iter().filter(|built| built.record.variant == variant);
    let image =
        |path: &std::path::Path| std::fs::read(path).with_context(|| format!("failed to read `{}`", path.display()));
    let parts = own.map(|built| Ok((&built.record, image(&built.dir.join("kernel.cubin"))?)));
    of_cubins(suite, &builds.files, variant, &parts.collect::<Result<Vec<_>>>()?)
}

/// The same of cubins with their records; `files` are the hashes of what a gate file names.
pub fn of_cubins(
    suite: &Suite,
    files: &BTreeMap<String, String>,
    variant: &str,
    parts: &[(&BuildRecord, Vec<u8>)],
) -> Result<BTreeMap<String, String>> {
    let declaration = declaration(suite, files, variant)?;
    let mut lines: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (record, image) in parts {
        let own = lines.entry(record.arch.clone()).or_default();
        own.extend(record.entries.iter().map(|entry| format!("entry {}", entry.code_sha256)));
        own.push(format!("contents {}", Cubin::parse(image)?.contents_sha256()?));
    }
    let hash = |mut lines: Vec<String>| {
        lines.sort();
        sha256_hex(format!("{declaration}\n{}", lines.join("\n")).as_bytes())
    };
    Ok(lines.into_iter().map(|(arch, lines)| (arch, hash(lines))).collect())
}

/// What a gate file says of a variant and of those that it inherits from, and the script that plans its launches. Of a suite of
/// attention nothing: there a module says itself how it is launched.
fn declaration(suite: &Suite, files: &BTreeMap<String, String>, variant: &str) -> Result<String> {
    if suite.declared().is_none() {
        return Ok(String::new());
    }
    let mut chain: Vec<&VariantTable> = Vec::new();
    let mut next = suite.variants.get(variant);
    // Nobody inherits from himself: that was refused when the file was read.
    while let Some(table) = next.filter(|_| chain.len() <= suite.variants.len()) {
        chain.push(table);
        next = table.base.as_ref().and_then(|base| suite.variants.get(base));
    }
    let plans = chain.iter().filter_map(|table| table.plan.as_ref());
    let plans: Vec<Option<&String>> = plans.map(|plan| files.get(plan)).collect();
    Ok(serde_json::to_string(&(chain, plans))?)
}
