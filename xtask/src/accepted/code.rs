//! What a variant is, as one hash an architecture: the machine code and the constants of its builds, and for a variant of a
//! gate file what it is launched with. Names of files and folders are no part of it, so that a copy elsewhere is the same.
//! Leaves to others: what is built.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use kbench::evidence::BuildRecord;
use kbench::suite::Suite;
use kbench::variant::{VariantTable, chain};

use crate::build::{BuildSet, Built};
use crate::cubin::{Cubin, sha256_hex};

/// Hashes by architecture of what was built of a variant; none of one that was not built.
pub fn of_builds(suite: &Suite, builds: &BuildSet, variant: &str) -> Result<BTreeMap<String, String>> {
    of_cubins(suite, &builds.files, variant, &parts(builds, variant)?)
}

/// The same of cubins with their records; `files` are the hashes of what a gate file names.
pub fn of_cubins(
    suite: &Suite,
    files: &BTreeMap<String, String>,
    variant: &str,
    parts: &[(&BuildRecord, Vec<u8>)],
) -> Result<BTreeMap<String, String>> {
    let declaration = declaration(suite, files, variant)?;
    let hash = |lines: Vec<String>| sha256_hex(format!("{declaration}\n{}", lines.join("\n")).as_bytes());
    Ok(contents(parts)?.into_iter().map(|(arch, lines)| (arch, hash(lines))).collect())
}

/// Hashes of entries and of whole cubins by architecture, in an order of their own.
fn contents(parts: &[(&BuildRecord, Vec<u8>)]) -> Result<BTreeMap<String, Vec<String>>> {
    let mut lines: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (record, image) in parts {
        let own = lines.entry(record.arch.clone()).or_default();
        own.extend(record.entries.iter().map(|entry| format!("entry {}", entry.code_sha256)));
        own.push(match record.language.is_host_code() {
            true => format!("host code {}", record.key),
            false => format!("contents {}", Cubin::parse(image)?.contents_sha256()?),
        });
    }
    lines.values_mut().for_each(|lines| lines.sort());
    Ok(lines)
}

/// Whether two variants were built, and are the same machine code, launched alike on every shape.
pub fn are_one(builds: &BuildSet, [one, other]: [&str; 2]) -> Result<bool> {
    let of = |variant: &str| {
        let parts = parts(builds, variant)?;
        let launches = parts.iter().map(|(record, _)| (record.arch.clone(), record.plan_sha256.clone()));
        anyhow::Ok((contents(&parts)?, launches.collect::<BTreeSet<_>>()))
    };
    let (one, other) = (of(one)?, of(other)?);
    Ok(!one.0.is_empty() && one == other)
}

/// What was built of a variant: records, and cubins.
fn parts<'b>(builds: &'b BuildSet, variant: &str) -> Result<Vec<(&'b BuildRecord, Vec<u8>)>> {
    let own = builds.built.iter().filter(|built| built.record.variant == variant);
    let image =
        |path: &std::path::Path| std::fs::read(path).with_context(|| format!("failed to read `{}`", path.display()));
    let of = |built: &'b Built| match built.record.language.is_host_code() {
        true => Ok((&built.record, Vec::new())),
        false => Ok((&built.record, image(&built.dir.join("kernel.cubin"))?)),
    };
    own.map(of).collect()
}

/// What a gate file says of a variant and of those that it inherits from, and the script that plans its launches. Of a suite of
/// attention nothing: there a module says itself how it is launched.
fn declaration(suite: &Suite, files: &BTreeMap<String, String>, variant: &str) -> Result<String> {
    if suite.declared().is_none() {
        return Ok(String::new());
    }
    let chain: Vec<&VariantTable> = chain(variant, &suite.variants)?.into_iter().map(|(_, table)| table).collect();
    let plans = chain.iter().filter_map(|table| table.plan.as_ref());
    let plans: Vec<Option<&String>> = plans.map(|plan| files.get(plan)).collect();
    Ok(serde_json::to_string(&(chain, plans))?)
}
