//! CUDA C++: PTX of it by nvcc, with the instances of templates that a gate file names.
//! Leaves to others: assembling, and which symbol an entry has.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result};
use kbench::key::BadKey;

use super::super::{sources, wrapper};
use super::{Job, Making, Named};
use crate::compiler;
use crate::files::write_whole;

/// A source with everything checked that can be before nvcc starts.
pub(super) struct Nvcc<'a> {
    job: &'a Job<'a>,
    roots: sources::Roots,
    /// Arguments that the preprocessor gets as well.
    arguments: Vec<String>,
    /// Template-ids among the entries, each once.
    templates: Vec<&'a str>,
}

/// Template-ids among entries, each once.
pub(super) fn templates(entries: &[Named]) -> Vec<&str> {
    let ids: BTreeSet<&str> = entries.iter().map(|e| e.text.as_str()).filter(|e| wrapper::is_template_id(e)).collect();
    ids.into_iter().collect()
}

impl<'a> Nvcc<'a> {
    pub(super) fn of(job: &'a Job<'a>) -> Result<Nvcc<'a>> {
        let source = job.source;
        let declared = sources::declared(source.folder, &job.at("include"), source.include)?;
        let is_standard = |flag: &&String| flag.trim_start_matches('-').starts_with("std=");
        let standard = source.flags.iter().rev().find(is_standard).map_or(compiler::STANDARD, String::as_str);
        let templates = templates(source.entries);
        if let Some(entry) = templates.first().filter(|_| standard.ends_with("c++14")) {
            let why = format!("`{entry}` needs C++17 or newer: take {standard} out of `flags`");
            return Err(BadKey::new(job.at("entry"), why).into());
        }
        let mut arguments = compiler::base_flags(standard, job.arch)?.split_off(1);
        arguments.extend(source.flags.iter().filter(|flag| !is_standard(flag)).cloned());
        arguments.extend(source.defines.iter().map(|(name, value)| format!("-D{name}={value}")));
        for (_, folder) in &declared {
            arguments.extend(["-I".to_owned(), folder.display().to_string()]);
        }
        let roots = sources::Roots::of(source.folder, &declared, job.toolchain)?;
        Ok(Nvcc { job, roots, arguments, templates })
    }

    /// What it is made of, by name, with hashes. The inner error is the preprocessor's.
    pub(super) fn files(&self) -> Result<Result<BTreeMap<String, String>, String>> {
        let Job { toolchain, source, limits, .. } = self.job;
        sources::read(toolchain, &self.roots, &self.job.at("source"), source.file, &self.arguments, *limits)
    }

    fn nvcc(&self, input: String, wrapped: &Path, product: &Path) -> Result<Result<String, String>> {
        let mut arguments = vec!["-ptx".to_owned()];
        arguments.extend(self.arguments.iter().cloned());
        arguments.extend([input, "-o".to_owned(), product.display().to_string()]);
        let folder = product.parent().context("a product lies in a folder")?;
        let may = self.roots.readable().reading(wrapped).writing(folder);
        compiler::nvcc(self.job.toolchain, &arguments, self.job.source.folder, self.job.limits, Some(may))
    }

    /// The PTX without what was added to make it. The inner error is nvcc's.
    pub(super) fn ptx(&self, cache: &Path, key: &str, product: &Path) -> Result<Result<Making, String>> {
        let mut input = self.job.source.file.to_owned();
        // In a place that depends on the content alone: the compiler puts a hash of it into the names of static kernels.
        let wrapped = cache.join(format!("{key}.cu"));
        if !self.templates.is_empty() {
            write_whole(&wrapped, wrapper::text(&self.job.path, &self.templates).as_bytes())?;
            input = wrapped.display().to_string();
        }
        if let Err(error) = self.nvcc(input, &wrapped, product)? {
            return self.complaint(error).map(Err);
        }
        let made = std::fs::read_to_string(product).context("failed to read the PTX that nvcc made")?;
        let (ptx, instances) = wrapper::unwrap(&made, &self.templates);
        Ok(Ok(Making { ptx: Some(ptx), instances, ..Making::default() }))
    }

    /// A complaint about an entry that the gate file names is the gate file's fault, any other the kernel's.
    fn complaint(&self, error: String) -> Result<String> {
        let Some((index, said)) = wrapper::complaint(&error) else {
            return Ok(error.replace(&format!("{}/", self.job.source.folder.display()), ""));
        };
        let entry = self.templates.get(index).context("nvcc complains about an entry that there is not")?;
        let why = format!("`{entry}`: {said}: {}", self.job.known_kernels());
        Err(BadKey::new(self.job.at("entry"), why).into())
    }
}
