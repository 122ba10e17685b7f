//! House rules that a compiler does not check. Every fault is listed as `path:line: rule, what to do instead`.

mod modules;
mod paths;

use std::path::{Path, PathBuf};
use std::process::Command;

use xtask::layout::Layout;

/// A file is one room; above this it is probably several.
const MAX_LINES: usize = 620;

/// Words that say that something is unfinished, split so that this file does not hold them.
const UNFINISHED: [(&str, &str); 5] =
    [("TO", "DO"), ("FIX", "ME"), ("XX", "X"), ("todo", "!("), ("unimplemented", "!(")];

fn tracked(root: &Path) -> Vec<PathBuf> {
    let output =
        Command::new("git").args(["ls-files", "--cached", "--others", "--exclude-standard"]).current_dir(root).output();
    let output = output.expect("git lists the files of a checkout");
    String::from_utf8(output.stdout).unwrap().lines().map(PathBuf::from).filter(|p| root.join(p).is_file()).collect()
}

fn extension(path: &Path) -> &str {
    path.extension().and_then(|e| e.to_str()).unwrap_or_default()
}

/// The faults of one source file.
fn faults(path: &Path, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let mut fault = |line: usize, rule: &str| faults.push(format!("{}:{line}: {rule}", path.display()));
    let lines: Vec<&str> = text.lines().collect();
    let rust = extension(path) == "rs";
    let header = if rust { "//! " } else { "// " };
    if !lines.first().is_some_and(|line| line.starts_with(header)) {
        fault(1, "no header, say what the file is for and what it leaves to others");
    }
    if lines.len() > MAX_LINES {
        fault(lines.len(), "too long, split it by what it does");
    }
    for (i, line) in lines.iter().enumerate() {
        if UNFINISHED.iter().any(|(a, b)| line.contains(&format!("{a}{b}"))) {
            fault(i + 1, "unfinished, finish it or write an issue");
        }
        if rust && line.trim_start().starts_with(&format!("#[{}(", "allow")) {
            fault(i + 1, "a lint is silenced for good, use #[expect(..., reason = \"...\")]");
        }
        if line.trim_end() != *line {
            fault(i + 1, "white space at the end of the line, remove it");
        }
    }
    faults
}

#[test]
fn every_source_file_keeps_the_house_rules() {
    let layout = Layout::find().unwrap();
    let sources = tracked(&layout.root).into_iter().filter(|p| matches!(extension(p), "rs" | "cu" | "cuh" | "h"));
    let found: Vec<String> = sources
        .filter(|p| !p.components().any(|c| c.as_os_str() == "data"))
        .flat_map(|path| {
            let text = std::fs::read_to_string(layout.root.join(&path)).unwrap();
            faults(&path, &text)
        })
        .collect();
    assert!(found.is_empty(), "{} faults:\n{}", found.len(), found.join("\n"));
}

/// Words of attention, and the places that may know them.
const WORDS: [&str; 3] = ["head_dim", "causal", "seq_kv"];
const PLACES: [&str; 4] =
    ["sdpa-kernel/", "kbench/src/operator/attention.rs", "operators/src/attention/", "kbench/src/legacy.rs"];

#[test]
fn attention_is_known_in_its_own_places_and_nowhere_else() {
    let root = Layout::find().unwrap().root;
    let is_elsewhere = |path: &PathBuf| {
        let name = path.to_string_lossy();
        name.contains("/src/") && name.ends_with(".rs") && !PLACES.iter().any(|place| name.starts_with(place))
    };
    let mut found = Vec::new();
    let mut searched = 0;
    for path in tracked(&root).into_iter().filter(is_elsewhere) {
        let text = std::fs::read_to_string(root.join(&path)).unwrap();
        let lines = text.lines().enumerate().filter(|(_, line)| WORDS.iter().any(|word| line.contains(word)));
        found.extend(lines.map(|(i, line)| format!("{}:{}: {}", path.display(), i + 1, line.trim())));
        searched += 1;
    }
    assert!(searched > 100, "{searched} files were searched");
    assert!(found.is_empty(), "{}", found.join("\n"));
    let own = std::fs::read_to_string(root.join(PLACES[1])).unwrap();
    assert!(WORDS.iter().all(|word| own.contains(word)), "the words are those that are used");
}

#[test]
fn the_rules_find_what_they_are_for() {
    let bad = format!("fn a() {{}} \n// {}{}: later\n#[{}(dead_code)]\n", "TO", "DO", "allow");
    let found = faults(Path::new("a.rs"), &bad);
    let rules = ["no header", "white space", "unfinished", "lint is silenced"];
    assert_eq!(found.len(), rules.len(), "{found:?}");
    for rule in rules {
        assert!(found.iter().any(|f| f.contains(rule)), "{rule}: {found:?}");
    }
    assert!(faults(Path::new("a.cuh"), "// Purpose: none.\n").is_empty());
    assert!(faults(Path::new("a.rs"), &format!("//! x\n{}", "\n".repeat(MAX_LINES)))[0].contains("too long"));
}

#[test]
fn the_readme_names_the_commands_that_ci_runs() {
    let layout = Layout::find().unwrap();
    let read = |file: &str| std::fs::read_to_string(layout.root.join(file)).unwrap();
    let (readme, ci) = (read("README.md"), read(".ci/run"));
    for command in ["cargo test --workspace", "cargo xtask validate --stage5"] {
        assert!(readme.contains(command) && ci.contains(command), "`{command}` is not in both README.md and .ci/run");
    }
}

/// Tests that are left to `.ci/run`, by their full names: those of e2e, and the others.
fn left_to_ci(root: &Path) -> [Vec<String>; 2] {
    let (e2e, mut names) = (Path::new("xtask/tests/e2e"), [Vec::new(), Vec::new()]);
    for path in tracked(root).into_iter().filter(|path| extension(path) == "rs") {
        let text = std::fs::read_to_string(root.join(&path)).unwrap();
        let below = path.strip_prefix(e2e).unwrap_or(&path).with_extension("");
        let module = below.display().to_string().replace('/', "::").replace("::mod", "");
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        for two in lines.windows(2).filter(|two| two[0].starts_with("#[ignore") && two[0].contains(".ci/run")) {
            let name = two[1].trim_start_matches("fn ").split('(').next().unwrap_or_default();
            names[usize::from(!path.starts_with(e2e))].push(format!("{module}::{name}"));
        }
    }
    names
}

#[test]
fn ci_runs_by_name_what_it_is_said_to_run() {
    let layout = Layout::find().unwrap();
    let ci = std::fs::read_to_string(layout.root.join(".ci/run")).unwrap().replace("\\\n", " ");
    let commands = ["--test e2e --locked -- --ignored ", "--workspace --locked -- --ignored "];
    for (command, names) in commands.into_iter().zip(left_to_ci(&layout.root)) {
        let steps = ci.lines().filter_map(|line| line.split_once(command));
        let filters: Vec<&str> = steps.flat_map(|(_, filters)| filters.split_whitespace()).collect();
        assert!(names.len() > 8, "{names:?}");
        let missed: Vec<&String> = names.iter().filter(|name| !filters.iter().any(|f| name.contains(f))).collect();
        assert!(missed.is_empty(), "`.ci/run` runs none of {missed:?}");
        let idle: Vec<&&str> = filters.iter().filter(|f| !names.iter().any(|name| name.contains(**f))).collect();
        assert!(idle.is_empty(), "nothing is called {idle:?}");
    }
}
