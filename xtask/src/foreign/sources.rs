//! The files that a source is made of, as the compiler's own preprocessor lists them, with their hashes: those below the
//! gate file's folder and in the folders that it declares. The toolkit's and the system's go by the compiler's version.
//! Leaves to others: compiling.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result};
use confine::Confinement;
use kbench::key::BadKey;

use crate::bounded::Limits;
use crate::compiler;
use crate::cubin::sha256_hex;
use crate::toolchain::Toolchain;

/// A file or folder that the gate file names, as a path from its folder.
pub fn below(folder: &Path, key: &str, named: &str) -> Result<PathBuf, BadKey> {
    let odd = |c: char| c.is_control() || matches!(c, '"' | '\\' | '\'');
    if named.is_empty() || named.contains(odd) || named.starts_with('-') {
        return Err(BadKey::new(key, format!("`{}` is no file name", kernel_spec::words::one_line(named))));
    }
    let outside = || BadKey::new(key, format!("`{named}` is outside the gate file's folder: move it there"));
    if Path::new(named).components().any(|part| !matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Err(outside());
    }
    let missing = |_| BadKey::new(key, format!("there is no file `{named}` in `{}`", folder.display()));
    let (root, real) = (folder.canonicalize().map_err(missing)?, folder.join(named).canonicalize().map_err(missing)?);
    // A link may lead out.
    if real.starts_with(root) { Ok(real) } else { Err(outside()) }
}

/// The folders that a gate file declares at `key`, with their names there.
pub fn declared(folder: &Path, key: &str, include: &[String]) -> Result<Vec<(String, PathBuf)>, BadKey> {
    let real = |(i, named): (usize, &String)| {
        let found = folder.join(named).canonicalize().ok().filter(|path| path.is_dir() && !named.starts_with('-'));
        let no = || BadKey::new(format!("{key}[{i}]"), format!("there is no folder `{named}` beside the gate file"));
        found.map(|path| (named.clone(), path)).ok_or_else(no)
    };
    include.iter().enumerate().map(real).collect()
}

/// Where a source may include from.
pub struct Roots {
    folder: PathBuf,
    declared: Vec<(String, PathBuf)>,
    toolkits: Vec<PathBuf>,
}

impl Roots {
    /// Of a gate file's folder.
    pub fn of(folder: &Path, declared: &[(String, PathBuf)], toolchain: &Toolchain) -> Result<Roots> {
        let real = |path: &Path| path.canonicalize().with_context(|| format!("failed to find `{}`", path.display()));
        // A link to nvcc and what it points to may each be what nvcc takes for its home.
        Ok(Roots { folder: real(folder)?, declared: declared.to_vec(), toolkits: toolchain.homes() })
    }

    /// What a compiler of it may read.
    pub fn readable(&self) -> Confinement {
        let declared = self.declared.iter().map(|(_, folder)| folder);
        Confinement::of([&self.folder].into_iter().chain(&self.toolkits).chain(declared))
    }

    /// The name of a file that is the user's, none for the toolkit's; an error for any other.
    fn name(&self, file: &Path) -> Result<Option<String>, ()> {
        if self.toolkits.iter().any(|home| file.starts_with(home)) {
            return Ok(None);
        }
        if let Ok(relative) = file.strip_prefix(&self.folder) {
            return Ok(Some(relative.display().to_string()));
        }
        let inside = |(named, root): &(String, PathBuf)| Some(Path::new(named).join(file.strip_prefix(root).ok()?));
        self.declared.iter().find_map(inside).map(|path| Some(path.display().to_string())).ok_or(())
    }
}

/// Every file that the source at `key` is compiled from, by name, with its hash. The inner error is the preprocessor's.
pub fn read(
    toolchain: &Toolchain,
    roots: &Roots,
    key: &str,
    source: &str,
    arguments: &[String],
    limits: Limits,
) -> Result<Result<BTreeMap<String, String>, String>> {
    let listing = [&["-MM".to_owned()], arguments, &[source.to_owned()]].concat();
    // So that a file outside is named and not merely missing; whatever is read here is not kept.
    let anywhere = Confinement::default().reading("/");
    let listed = match compiler::nvcc(toolchain, &listing, &roots.folder, limits, Some(anywhere))? {
        Ok(listed) => listed,
        Err(error) => return Ok(Err(error)),
    };
    let mut files = BTreeMap::new();
    for path in prerequisites(&listed) {
        let file = roots.folder.join(&path);
        let file = file.canonicalize().with_context(|| format!("failed to find `{}`", file.display()))?;
        let Ok(name) = roots.name(&file) else {
            let why = "which is outside the gate file's folder and the folders that `include` declares";
            return Err(BadKey::new(key, format!("{source} includes {}, {why}", file.display())).into());
        };
        if let Some(name) = name {
            let bytes = std::fs::read(&file).with_context(|| format!("failed to read `{}`", file.display()))?;
            files.insert(name, sha256_hex(&bytes));
        }
    }
    Ok(Ok(files))
}

/// The files of a rule for make: `a.o : a.cu \` and so on, with blanks escaped.
fn prerequisites(rule: &str) -> Vec<PathBuf> {
    let rule = rule.replace("\\\n", " ");
    let Some((_, list)) = rule.split_once(" : ").or_else(|| rule.split_once(": ")) else { return Vec::new() };
    let (mut files, mut word) = (Vec::new(), String::new());
    let mut characters = list.chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            '\\' if characters.peek().is_some_and(|next| matches!(next, ' ' | '#' | '\\')) => {
                word.extend(characters.next());
            }
            '$' if characters.peek() == Some(&'$') => word.extend(characters.next()),
            c if c.is_whitespace() => files.push(std::mem::take(&mut word)),
            c => word.push(c),
        }
    }
    files.push(word);
    files.into_iter().filter(|file| !file.is_empty()).map(PathBuf::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_for_make_are_read() {
        let rule = "a.o : a.cu \\\n    my\\ dir/b.h \\\n    c$$\\#d.h\n";
        assert_eq!(prerequisites(rule), ["a.cu", "my dir/b.h", "c$#d.h"].map(PathBuf::from));
        assert!(prerequisites("").is_empty());
    }

    #[test]
    fn named_files_lie_below_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("gate");
        std::fs::create_dir_all(folder.join("sub")).unwrap();
        std::fs::write(folder.join("sub/a.cu"), "").unwrap();
        std::fs::write(dir.path().join("b.cu"), "").unwrap();
        std::os::unix::fs::symlink(dir.path().join("b.cu"), folder.join("link.cu")).unwrap();
        let of = |named: &str| below(&folder, "source", named).map_err(|e| e.to_string());
        assert!(of("sub/a.cu").unwrap().ends_with("gate/sub/a.cu"));
        for (named, words) in [
            ("../b.cu", "source: `../b.cu` is outside"),
            ("/etc/passwd", "is outside"),
            ("link.cu", "is outside"),
            ("none.cu", "there is no file `none.cu`"),
            ("-x", "is no file name"),
            ("a\".cu", "is no file name"),
        ] {
            assert!(of(named).unwrap_err().contains(words), "{named}");
        }
        assert_eq!(declared(&folder, "include", &["sub".into(), "..".into()]).unwrap().len(), 2);
        let refused = declared(&folder, "include", &["sub".into(), "none".into()]).unwrap_err().to_string();
        assert_eq!(refused, "include[1]: there is no folder `none` beside the gate file");
    }
}
