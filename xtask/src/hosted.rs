//! Host code of a gate file, a Python function on tensors: what identifies it, and how the runner starts its process. Nothing
//! is compiled. Leaves to others: calling it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use confine::memory_of_machine;
use kbench::evidence::BuildRecord;
use kbench::job::{CallLimits, Callable};
use kbench::operator::Shape;
use kbench::operator::declared::Declared;
use kbench::variant::{Language, Variant};

use crate::cubin::sha256_hex;
use crate::foreign::sources;
use crate::layout::Layout;
use crate::toolchain::Toolchain;
use crate::toolchain::torch::Torch;

/// The driver, among the peers.
const DRIVER: &str = "callable.py";
/// Seconds for an import and a first call, when compilers run, and for what comes then.
const FIRST_S: f64 = 300.0;
const THEN_S: f64 = 60.0;
/// Memory of the host: half of what the machine has, and no more than this.
const MOST_MEMORY: u64 = 32 << 30;

/// Changes when the meaning of a key does.
const VERSION: &str = "host-code/1";

/// Host code as it was found, which is what a build is of a kernel.
pub struct Found {
    pub record: BuildRecord,
    /// Its files, by path from the gate file's folder, with SHA-256.
    pub files: BTreeMap<String, String>,
    pub call: Callable,
}

/// Finds a variant's function on these shapes. Without PyTorch it can be judged nowhere but where nothing is called.
pub fn find(
    (layout, toolchain, folder): (&Layout, &Toolchain, &Path),
    (variant, function): (&Variant, &str),
    operator: &Declared,
    shapes: &[Shape],
    torch: Option<&Torch>,
    arch: &str,
) -> Result<Found> {
    sources::below(folder, &format!("variants.{}.source", variant.name), &variant.source)?;
    let files = files(folder, &variant.source)?;
    let of = |shape: &Shape| {
        let values = variant.call_values(operator, &shape.axes).with_context(|| format!("on shape {}", shape.name))?;
        Ok((shape.name.clone(), values))
    };
    let values: BTreeMap<_, _> = shapes.iter().map(of).collect::<Result<_>>()?;
    let key = sha256_hex(&serde_json::to_vec(&(VERSION, function, &variant.source, &files, &values))?);
    let record = BuildRecord {
        variant: variant.name.clone(),
        arch: arch.to_owned(),
        key,
        language: Language::Call,
        ..BuildRecord::default()
    };
    let driver = layout.peers().join(DRIVER).display().to_string();
    let readable = torch.iter().flat_map(|torch| &torch.paths).cloned();
    let call = Callable {
        argv: torch.iter().flat_map(|torch| [torch.python.clone(), "-u".to_owned(), driver.clone()]).collect(),
        environment: torch.map(|torch| torch.environment.clone()).unwrap_or_default(),
        readable: readable.chain([layout.peers()]).chain(toolchain.homes()).collect(),
        source: variant.source.clone(),
        function: function.to_owned(),
        values,
        limits: CallLimits {
            first_s: FIRST_S,
            then_s: THEN_S,
            memory_bytes: (memory_of_machine() / 2).min(MOST_MEMORY),
        },
    };
    Ok(Found { record, files, call })
}

/// Its file and those beside it that it imports, and so on.
fn files(folder: &Path, source: &str) -> Result<BTreeMap<String, String>> {
    let mut left = vec![PathBuf::from(source)];
    let mut found = BTreeMap::new();
    while let Some(name) = left.pop() {
        let path = folder.join(&name);
        let bytes = std::fs::read(&path).with_context(|| format!("failed to read `{}`", path.display()))?;
        let text = String::from_utf8_lossy(&bytes);
        let beside = imported(&text).into_iter().map(|module| name.with_file_name(format!("{module}.py")));
        left.extend(beside.filter(|other| folder.join(other).is_file() && !found.contains_key(&shown(other))));
        found.insert(shown(&name), sha256_hex(&bytes));
    }
    Ok(found)
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// The first words of what a source imports, wherever that stands.
fn imported(text: &str) -> BTreeSet<&str> {
    let of = |line| {
        let line = str::trim_start(line);
        let names = line.strip_prefix("import ").map(|names| names.split(',').collect::<Vec<_>>());
        names.or_else(|| Some(vec![line.strip_prefix("from ")?]))
    };
    let word = |name: &'_ str| name.trim_start().trim_start_matches('.').len();
    let all = text.lines().filter_map(of).flatten();
    all.map(|name| &name[name.len() - word(name)..])
        .filter_map(|name| name.split(|c: char| !c.is_alphanumeric() && c != '_').next())
        .filter(|name| !name.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_its_file_and_what_that_imports_from_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("a.py", "import torch, helper as h\ndef f():\n    from .deep import x\n");
        write("helper.py", "import a\n");
        write("deep.py", "x = 1\n");
        write("other.py", "import a\n");
        let names = |files: &BTreeMap<String, String>| files.keys().cloned().collect::<Vec<_>>();
        let before = files(folder.path(), "a.py").unwrap();
        assert_eq!(names(&before), ["a.py", "deep.py", "helper.py"]);
        write("deep.py", "x = 2\n");
        assert_ne!(files(folder.path(), "a.py").unwrap(), before);
    }
}
