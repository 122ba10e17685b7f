//! What a run says of its builds, held to the files that were built: the hashes, what ptxas said, and what the cubin says
//! of itself. Leaves to others: whether these are the kernels that the run rests on.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use kbench::deferral::Deferral;
use kbench::evidence::{BuildRecord, Builds};
use kbench::suite::Suite;
use kbench::variant::Language;

use super::verify::Verified;
use crate::build;
use crate::compiler::Product;
use crate::disassembly;
use crate::foreign::compile::described_again as foreign_again;
use crate::run_dir::{MEMORY, RunDir, build_folders};

/// Compares the records of a run with the builds that lie in it.
pub fn examine(run: &RunDir, suite: &Suite, builds: &Builds, found: &mut Verified) -> Result<()> {
    if !run.has("builds") {
        if !builds.records.is_empty() {
            found.open.push(Deferral::new(
                "its builds are not there, so what builds.json says of them is not compared with what ptxas said",
                "verify the run with its builds folder",
            ));
        }
        return Ok(());
    }
    let mut folders = BTreeSet::new();
    for (record, folder) in build_folders(&builds.records, &suite.arch) {
        let faults = of_record(run, suite, record, &folder).unwrap_or_else(|error| vec![format!("{error:#}")]);
        found.faults.extend(faults.into_iter().map(|fault| format!("{folder}: {fault}")));
        folders.insert(folder);
    }
    let listed = std::fs::read_dir(run.path.join("builds")).context("failed to list the builds of the run")?;
    for entry in listed {
        let folder = format!("builds/{}", entry.context("failed to list the builds of the run")?.file_name().display());
        if !folders.contains(&folder) {
            found.faults.push(format!("{folder}: no record in builds.json is of it"));
        }
    }
    Ok(())
}

/// Whether code for an architecture is what a record is about: what was machine code already may be for an earlier one, and
/// PTX for what is particular to one.
fn is_for(record: &BuildRecord, arch: &str) -> bool {
    match record.language {
        Language::Cuda => arch == record.arch,
        Language::Cubin => true,
        Language::Ptx | Language::Triton | Language::Call => {
            arch.trim_end_matches('a') == record.arch.trim_end_matches('a')
        }
    }
}

fn of_record(run: &RunDir, suite: &Suite, record: &BuildRecord, folder: &str) -> Result<Vec<String>> {
    let kept: BuildRecord = run.read_json(&format!("{folder}/build.json"))?;
    let mut faults = Vec::new();
    if kept != *record {
        faults.push("build.json is not the record in builds.json".to_owned());
    }
    if record.language.is_host_code() {
        // Nothing was built of it; its files are held to what the run rests on.
        return Ok(faults);
    }
    let image = run.bytes(&format!("{folder}/kernel.cubin"))?;
    let product = match record.language.has_ptx() {
        true => Product::of(
            run.raw_text(&format!("{folder}/ptxas.txt"))?,
            run.raw_text(&format!("{folder}/kernel.ptx"))?,
            image,
        )?,
        false => Product::of_machine_code(image)?,
    };
    let again = if suite.operator.is_attention() {
        build::described_again(record, &product)?
    } else {
        foreign_again(record, &product)?
    };
    // Runs from before these were asked for say nothing of them.
    let is_asked =
        run.has(MEMORY) || record.constant_bytes > 0 || record.copies_in_bulk || !record.cache_hints.is_empty();
    let hints = |build: &BuildRecord| (build.copies_in_bulk, build.cache_hints.clone());
    let facts = [
        ("the hash of kernel.ptx", again.ptx_sha256 == record.ptx_sha256),
        ("the hash of kernel.cubin", again.cubin_sha256 == record.cubin_sha256),
        ("entry functions, with what ptxas and the cubin say of them", again.entries == record.entries),
        ("the module's variables", again.global_bytes == record.global_bytes),
        ("the module's constants", !is_asked || again.constant_bytes == record.constant_bytes),
        ("hints to caches and bulk copies", !is_asked || hints(&again) == hints(record)),
        ("ptxas' warnings", again.warnings == record.warnings),
        ("toggles that the module contradicts", again.toggle_mismatches == record.toggle_mismatches),
        ("whether floats are added atomically", again.adds_floats_atomically == record.adds_floats_atomically),
    ];
    faults.extend(
        facts
            .into_iter()
            .filter(|(_, same)| !same)
            .map(|(what, _)| format!("builds.json is not what was built: {what}")),
    );
    faults.extend(product.contradictions()?);
    if let Some(wrong) = product.resources.entries.iter().find(|entry| !is_for(record, &entry.arch)) {
        faults.push(format!("ptxas.txt is of a build for {}, builds.json for {}", wrong.arch, record.arch));
    }
    if let Some(version) = product.nvcc().filter(|version| *version != record.nvcc) {
        faults.push(format!("kernel.ptx is nvcc {version}'s, builds.json says {}", record.nvcc));
    }
    if let Some(counts) = &record.instructions
        && let Err(error) = disassembly::check(counts, &product.image)
    {
        faults.push(format!("instructions in builds.json: {error:#}"));
    }
    Ok(faults)
}
