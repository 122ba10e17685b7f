//! Whose code is in the programs besides the project's own: every crate that is linked into them, with its licence's text.
//! Leaves to others: where the list goes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::cargo;
use crate::layout::Layout;

/// What the programs are built for.
const TARGET: &str = "x86_64-unknown-linux-gnu";
/// The crates that are the programs.
const PROGRAMS: [&str; 3] = ["xtask", "sdpa-runner", "cuda-shim"];
/// How the name of a file with a licence begins, in capitals.
const LICENCE_FILES: [&str; 6] = ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE"];

/// The text of the MIT licence, for a crate that names it and leaves it out.
const MIT: &str = "Permission is hereby granted, free of charge, to any person obtaining a copy of this software and \
associated documentation files (the \"Software\"), to deal in the Software without restriction, including without \
limitation the rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, \
and to permit persons to whom the Software is furnished to do so, subject to the following conditions:\n\n\
The above copyright notice and this permission notice shall be included in all copies or substantial portions of the \
Software.\n\n\
THE SOFTWARE IS PROVIDED \"AS IS\", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE \
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR \
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR \
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.\n";

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    authors: Vec<String>,
    repository: Option<String>,
    manifest_path: std::path::PathBuf,
    /// Absent for the project's own.
    source: Option<String>,
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Target {
    kind: Vec<String>,
}

impl Package {
    /// Whether it runs in the compiler and leaves none of its own code behind.
    fn is_macro(&self) -> bool {
        self.targets.iter().any(|target| target.kind.iter().any(|kind| kind == "proc-macro"))
    }
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<Kind>,
}

#[derive(Deserialize)]
struct Kind {
    /// Absent for what is linked; `dev` or `build` otherwise.
    kind: Option<String>,
}

/// The list as a text: which crates there are, then each licence's text once, under those that it covers.
pub fn notices(layout: &Layout) -> Result<String> {
    let arguments = ["metadata", "--format-version", "1", "--locked", "--filter-platform", TARGET];
    let output = duct::cmd(cargo(), arguments).dir(&layout.root).stdout_capture().stderr_capture().unchecked().run()?;
    if !output.status.success() {
        bail!("cargo lists no dependencies: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let metadata: Metadata = serde_json::from_slice(&output.stdout).context("failed to read what cargo lists")?;
    let mut rows = String::new();
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in linked(&metadata)? {
        let licence = package.license.as_deref().with_context(|| format!("{} names no licence", package.name))?;
        let named = format!("{} {}", package.name, package.version);
        let from = package.repository.as_deref().unwrap_or("crates.io");
        rows.push_str(&format!("{named}: {licence} ({from})\n"));
        for text in licences(package)? {
            texts.entry(text).or_default().push(named.clone());
        }
    }
    let apache =
        std::fs::read_to_string(layout.root.join("LICENSE-APACHE")).context("failed to read LICENSE-APACHE")?;
    texts.entry(normal(&apache)).or_default().push("the Rust standard library".to_owned());
    let mut sections: Vec<(String, String)> = texts.into_iter().map(|(text, of)| (of.join(", "), text)).collect();
    sections.sort();
    let sections = sections.iter().map(|(of, text)| format!("{}\n{of}:\n\n{text}\n", "=".repeat(80)));
    Ok(format!(
        "The programs contain code of others, besides the Rust standard library (MIT OR Apache-2.0, \
         https://github.com/rust-lang/rust):\n\n{rows}\n{}",
        sections.collect::<String>()
    ))
}

/// The crates of others that are linked into the programs, by name and version.
fn linked(metadata: &Metadata) -> Result<Vec<&Package>> {
    let packages: BTreeMap<&str, &Package> = metadata.packages.iter().map(|p| (p.id.as_str(), p)).collect();
    let nodes: BTreeMap<&str, &Node> = metadata.resolve.nodes.iter().map(|n| (n.id.as_str(), n)).collect();
    let own = metadata.packages.iter().filter(|p| p.source.is_none() && PROGRAMS.contains(&p.name.as_str()));
    let mut left: Vec<&str> = own.map(|package| package.id.as_str()).collect();
    ensure!(left.len() == PROGRAMS.len(), "cargo does not list the programs");
    let mut seen = BTreeSet::new();
    while let Some(id) = left.pop() {
        if packages[id].is_macro() || !seen.insert(id) {
            continue;
        }
        let node = nodes.get(id).with_context(|| format!("cargo lists no dependencies of {id}"))?;
        let linked = node.deps.iter().filter(|dep| dep.dep_kinds.iter().any(|kind| kind.kind.is_none()));
        left.extend(linked.map(|dependency| dependency.pkg.as_str()));
    }
    let mut found: Vec<&Package> = seen.into_iter().map(|id| packages[id]).filter(|p| p.source.is_some()).collect();
    found.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
    Ok(found)
}

/// The texts that come with a crate.
fn licences(package: &Package) -> Result<Vec<String>> {
    let folder = package.manifest_path.parent().unwrap_or(Path::new("."));
    let entries = std::fs::read_dir(folder).with_context(|| format!("failed to read `{}`", folder.display()))?;
    let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).filter(|path| is_licence(path)).collect();
    files.sort();
    let read = |path: &std::path::PathBuf| {
        let bytes = std::fs::read(path).with_context(|| format!("failed to read `{}`", path.display()))?;
        Ok(normal(&String::from_utf8_lossy(&bytes)))
    };
    let texts: Vec<String> = files.iter().map(read).collect::<Result<_>>()?;
    if !texts.is_empty() {
        return Ok(texts);
    }
    let terms = package.license.as_deref().unwrap_or_default();
    let says_mit = terms.split(|c: char| !c.is_alphanumeric() && !"-.".contains(c)).any(|word| word == "MIT");
    ensure!(says_mit, "{} comes without the text of its licence ({terms})", package.name);
    let authors = match package.authors.as_slice() {
        [] => format!("the authors of {}", package.name),
        authors => authors.join(", "),
    };
    Ok(vec![normal(&format!("MIT License\n\nCopyright (c) {authors}\n\n{MIT}"))])
}

fn is_licence(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_uppercase();
    path.is_file() && LICENCE_FILES.iter().any(|start| name.starts_with(start))
}

/// The same text whatever the ends of its lines, so that it is told once.
fn normal(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    format!("{}\n", lines.join("\n").trim_matches('\n'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_crate_that_is_linked_is_named_with_its_licence_and_no_other() {
        let text = notices(&Layout::find().unwrap()).unwrap();
        let (rows, texts) = text.split_once(&"=".repeat(80)).unwrap();
        // Linked by one program each; a licence of its own; a crate that leaves the text out.
        for name in ["clap ", "cudarc ", "unicode-width ", "sigchld "] {
            assert!(rows.lines().any(|row| row.starts_with(name)), "{name}\n{rows}");
            assert!(texts.contains(name), "{name} has no text");
        }
        assert!(texts.contains("Permission is hereby granted") && texts.contains("Apache License"), "{texts}");
        for name in ["proptest ", "serde_derive ", "windows-sys ", "kbench "] {
            assert!(!rows.lines().any(|row| row.starts_with(name)), "{name} is not linked\n{rows}");
        }
        for row in rows.lines().filter(|row| row.contains(": ")).skip(1) {
            let name = row.split(": ").next().unwrap();
            assert!(texts.contains(name), "{name} has no text");
        }
        assert!(!text.contains(&std::env::var("HOME").unwrap()), "no folder of this machine");
    }
}
