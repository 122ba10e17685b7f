//! The modules of the crate stand on each other without a circle; a folder counts as one with what lies in it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Rust files below a folder.
fn files(folder: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("the sources are here") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Which top-level module names which others, tests apart.
fn imports() -> BTreeMap<String, BTreeSet<String>> {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src"));
    let mut found = Vec::new();
    files(root, &mut found);
    let top = |path: &Path| {
        let first = path.strip_prefix(root).expect("below the root").components().next().expect("a name");
        first.as_os_str().to_string_lossy().trim_end_matches(".rs").to_owned()
    };
    let modules: BTreeSet<String> = found.iter().map(|path| top(path)).collect();
    let mut imports: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for path in &found {
        let text = std::fs::read_to_string(path).expect("a source file");
        let code = text.split("#[cfg(test)]\nmod tests").next().expect("a first part");
        let own = top(path);
        for (at, word) in code.match_indices("crate::") {
            let name: String =
                code[at + word.len()..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            if name != own && modules.contains(&name) {
                imports.entry(own.clone()).or_default().insert(name);
            }
        }
    }
    imports
}

#[test]
fn no_two_modules_import_each_other_in_a_circle() {
    let mut left = imports();
    assert!(left.len() > 5, "the modules were not found: {left:?}");
    // Whoever imports nobody that is left stands on firm ground.
    loop {
        let names: BTreeSet<String> = left.keys().cloned().collect();
        let before = left.len();
        left.retain(|_, needs| needs.iter().any(|name| names.contains(name)));
        if left.len() == before {
            break;
        }
    }
    assert!(left.is_empty(), "a circle among {left:#?}");
}
