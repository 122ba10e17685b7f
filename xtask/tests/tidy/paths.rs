//! Paths that documents and comments name are there: a reader who follows one finds it.

use std::path::{Path, PathBuf};

use xtask::layout::Layout;

use crate::{extension, tracked};

/// What a path's name may end in.
const EXTENSIONS: [&str; 11] = ["rs", "md", "toml", "py", "cu", "cuh", "h", "txt", "json", "sh", "lock"];

/// Folders that are made by running something, so that what is under them is nobody's to track.
const MADE: [&str; 4] = ["target/", "runs/", "builds/", "logs/"];

/// The paths that a text names between backticks or as a link, each with its line.
fn named(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (i, line) in text.lines().enumerate() {
        let quoted = line.split('`').skip(1).step_by(2);
        let linked = line.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
        for token in quoted.chain(linked).flat_map(alternatives) {
            let token = token.trim_start_matches("./").to_owned();
            let is_path = token.contains('/') && token.chars().all(|c| c.is_alphanumeric() || "_-./".contains(c));
            let is_named = token.ends_with('/') || EXTENSIONS.contains(&extension(Path::new(&token)));
            if is_path && is_named && !token.starts_with('/') && !MADE.iter().any(|made| token.contains(made)) {
                found.push((i + 1, token));
            }
        }
    }
    found
}

/// Braces with two names in them are two paths.
fn alternatives(token: &str) -> Vec<String> {
    match token.split_once('{').and_then(|(before, rest)| Some((before, rest.split_once('}')?))) {
        Some((before, (inside, after))) => inside.split(',').map(|part| format!("{before}{part}{after}")).collect(),
        None => vec![token.to_owned()],
    }
}

/// Whether a path is there, from the root, from the document's folder or as the end of a longer one.
fn is_there(root: &Path, document: &Path, files: &[PathBuf], path: &str) -> bool {
    let beside = document.parent().unwrap_or(Path::new("")).join(path);
    let ending = Path::new(path);
    let folders = files.iter().flat_map(|file| file.ancestors());
    root.join(path).exists() || root.join(beside).exists() || folders.into_iter().any(|there| there.ends_with(ending))
}

/// The comment lines of a source file; all of a document.
fn prose(path: &Path, text: &str) -> String {
    match extension(path) {
        "md" => text.to_owned(),
        _ => {
            // Lines of code stay as empty ones, so that the numbers of the others are right.
            let comment = |line| if str::trim_start(line).starts_with("//") { line } else { "" };
            text.lines().map(comment).collect::<Vec<_>>().join("\n")
        }
    }
}

#[test]
fn every_path_that_is_named_is_there() {
    let root = Layout::find().unwrap().root;
    let files = tracked(&root);
    let documents = files.iter().filter(|file| matches!(extension(file), "md" | "rs" | "cu" | "cuh" | "h"));
    let lost: Vec<String> = documents
        .flat_map(|document| {
            let text = prose(document, &std::fs::read_to_string(root.join(document)).unwrap());
            let lost = named(&text).into_iter().filter(|(_, path)| !is_there(&root, document, &files, path));
            lost.map(|(line, path)| format!("{}:{line}: no `{path}`", document.display())).collect::<Vec<_>>()
        })
        .collect();
    assert!(lost.is_empty(), "{} paths:\n{}", lost.len(), lost.join("\n"));
}

#[test]
fn paths_are_told_from_other_words() {
    let names = |text: &str| named(text).into_iter().map(|(_, path)| path).collect::<Vec<_>>();
    assert_eq!(
        names("see `a/b.rs`, [this](docs/c.md#x) and `d/{e,f}.rs`"),
        ["a/b.rs", "d/e.rs", "d/f.rs", "docs/c.md"]
    );
    assert_eq!(names("`us/launch`, `target/x.json`, `/etc/a.txt`, `kbench/suites/<name>.toml`, `b.rs`"), [""; 0]);
    let files = [PathBuf::from("crate/src/a/b.rs")];
    let there = |path: &str| is_there(Path::new("/nowhere"), Path::new("c.md"), &files, path);
    assert!(there("a/b.rs") && there("src/a/") && !there("a/c.rs") && !there("ate/src/"));
}
