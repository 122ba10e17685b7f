//! The modules of a crate import each other in no circle: whoever reads one needs to know only those below it. A folder,
//! its parent module and its children, is one room and counts as one; so does the crate's root, which knows everybody.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use xtask::layout::Layout;

use crate::tracked;

/// One source file of a crate: its path under `src`, without the extension.
struct Source {
    path: Vec<String>,
    text: String,
}

/// Which modules import which, each with one place that does.
type Graph = BTreeMap<String, BTreeMap<String, String>>;

impl Source {
    fn new(file: &str, text: &str) -> Source {
        let mut path: Vec<String> = file.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
        if path.last().is_some_and(|last| last == "mod") {
            path.pop();
        }
        // A file's tests come last; what they borrow from elsewhere makes nobody depend on it.
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let uncommented = code.lines().map(|line| line.split("//").next().unwrap_or_default());
        Source { path, text: uncommented.collect::<Vec<_>>().join("\n") }
    }

    fn is_root(&self) -> bool {
        matches!(self.path.as_slice(), [root] if root == "lib" || root == "main")
    }

    /// Names that this file takes from the crate's root, each with its line.
    fn names_of_root(&self) -> Vec<(String, usize)> {
        let mut found = Vec::new();
        let mut at = 0;
        while let Some(start) = next_path(&self.text[at..]).map(|offset| at + offset) {
            let line = self.text[..start].matches('\n').count() + 1;
            let (rest, depth) = match self.text[start..].strip_prefix("crate::") {
                Some(rest) => (rest, self.path.len()),
                None => {
                    let mut rest = &self.text[start..];
                    let mut depth = 0;
                    while let Some(inner) = rest.strip_prefix("super::") {
                        (rest, depth) = (inner, depth + 1);
                    }
                    (rest, depth)
                }
            };
            at = self.text.len() - rest.len();
            if depth == self.path.len() {
                found.extend(first_names(rest).into_iter().map(|name| (name, line)));
            }
        }
        found
    }
}

/// Where the next `crate::` or `super::` begins.
fn next_path(text: &str) -> Option<usize> {
    let of = |word: &str| {
        let starts =
            |(at, _): &(usize, &str)| !text[..*at].ends_with(|c: char| c.is_alphanumeric() || "_:$".contains(c));
        text.match_indices(word).find(starts).map(|(at, _)| at)
    };
    of("crate::").into_iter().chain(of("super::")).min()
}

/// The first segment behind a prefix, or of each member of a group in braces.
fn first_names(text: &str) -> Vec<String> {
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let Some(group) = text.strip_prefix('{') else { return vec![word(text)] };
    let (mut names, mut depth, mut begins) = (Vec::new(), 0, true);
    for (i, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => begins = true,
            _ if begins && !c.is_whitespace() => {
                names.push(word(&group[i..]));
                begins = false;
            }
            _ => {}
        }
    }
    names
}

/// Which room stands behind each name of the root: a module, something that the root passes on, or an exported macro.
fn rooms(sources: &[Source]) -> BTreeMap<String, String> {
    let mut rooms = BTreeMap::new();
    let modules: BTreeSet<&String> = sources.iter().filter(|s| !s.is_root()).map(|s| &s.path[0]).collect();
    for root in sources.iter().filter(|s| s.is_root()) {
        for statement in root.text.split(';') {
            let Some((_, tree)) = statement.split_once("use ") else { continue };
            let tree = tree.trim().trim_start_matches("self::").trim_start_matches("crate::");
            let (first, rest) = tree.split_once("::").unwrap_or((tree, ""));
            if modules.iter().any(|module| *module == first) {
                let names = rest.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|name| !name.is_empty());
                rooms.extend(names.map(|name| (name.to_owned(), first.to_owned())));
            }
        }
    }
    for source in sources.iter().filter(|s| !s.is_root()) {
        let exported = source.text.split("#[macro_export]").skip(1);
        let name = |rest: &str| Some(rest.split("macro_rules! ").nth(1)?.split_whitespace().next()?.to_owned());
        rooms.extend(exported.filter_map(name).map(|name| (name, source.path[0].clone())));
    }
    rooms.extend(modules.into_iter().map(|module| (module.clone(), module.clone())));
    rooms
}

fn graph(sources: &[Source]) -> Graph {
    let rooms = rooms(sources);
    let mut graph = Graph::new();
    for source in sources.iter().filter(|s| !s.is_root()) {
        let own = &source.path[0];
        for (name, line) in source.names_of_root() {
            if let Some(room) = rooms.get(&name).filter(|room| *room != own) {
                let place = format!("{}.rs:{line}", source.path.join("/"));
                graph.entry(own.clone()).or_default().entry(room.clone()).or_insert(place);
            }
        }
    }
    graph
}

/// Every module that a module leads to.
fn reached<'g>(graph: &'g Graph, from: &'g str) -> BTreeSet<&'g str> {
    let mut reached = BTreeSet::new();
    let mut left = vec![from];
    while let Some(next) = left.pop() {
        let imports = graph.get(next).into_iter().flat_map(BTreeMap::keys).map(String::as_str);
        left.extend(imports.filter(|module| reached.insert(*module)));
    }
    reached
}

/// Every import that is part of a circle, with its place.
fn circles(graph: &Graph) -> Vec<String> {
    let reached: BTreeMap<&str, BTreeSet<&str>> =
        graph.keys().map(|name| (name.as_str(), reached(graph, name))).collect();
    let leads = |from: &str, to: &str| reached.get(from).is_some_and(|there| there.contains(to));
    let edges = graph.iter().flat_map(|(from, imports)| imports.iter().map(move |(to, place)| (from, to, place)));
    edges.filter(|(from, to, _)| leads(to, from)).map(|(from, to, place)| format!("{from} -> {to} ({place})")).collect()
}

/// The sources of a crate.
fn sources(root: &Path, files: &[std::path::PathBuf], name: &str) -> Vec<Source> {
    let of_crate = files.iter().filter_map(|file| {
        let inside = file.strip_prefix(name).ok()?.strip_prefix("src").ok()?.to_str()?;
        let text = inside.ends_with(".rs").then(|| std::fs::read_to_string(root.join(file)).unwrap())?;
        Some(Source::new(inside, &text))
    });
    of_crate.collect()
}

#[test]
fn the_modules_of_no_crate_import_each_other_in_a_circle() {
    let root = Layout::find().unwrap().root;
    let files = tracked(&root);
    let crates: BTreeSet<String> =
        files.iter().filter_map(|file| file.to_str()?.strip_suffix("/Cargo.toml").map(str::to_owned)).collect();
    assert!(["kbench", "sdpa-kernel", "sdpa-runner", "xtask"].iter().all(|name| crates.contains(*name)), "{crates:?}");
    let of_crate = |name: &String| {
        let circles = circles(&graph(&sources(&root, &files, name)));
        circles.into_iter().map(|circle| format!("{name}: {circle}")).collect::<Vec<_>>()
    };
    let found: Vec<String> = crates.iter().flat_map(of_crate).collect();
    assert!(found.is_empty(), "move what both need below both:\n{}", found.join("\n"));
}

#[test]
fn a_circle_is_found_however_it_is_written() {
    let of = |files: &[(&str, &str)]| {
        let sources: Vec<Source> = files.iter().map(|(file, text)| Source::new(file, text)).collect();
        circles(&graph(&sources))
    };
    let root = ("lib.rs", "mod a;\nmod b;\nmod c;\npub use b::{Passed, Other as Renamed};\n");
    let b = ("b.rs", "use crate::{c::X, d};\n");
    for back in ["use super::b;", "fn f() { crate::b::g() }", "use crate::Passed;", "use crate::{d, b::{X, Y}};"] {
        let found = of(&[root, ("a.rs", "use crate::b;\n"), b, ("c.rs", back)]);
        assert_eq!(found, ["b -> c (b.rs:1)", "c -> b (c.rs:1)"], "{back}");
    }
    let nested = of(&[root, b, ("c/inner.rs", "\nuse super::super::b;"), ("c/mod.rs", "mod inner;")]);
    assert_eq!(nested, ["b -> c (b.rs:1)", "c -> b (c/inner.rs:2)"]);
    for harmless in [
        "// crate::b\n",
        "use super::inner;",
        "use other_crate::b;",
        "pub(crate) fn b() {}",
        "#[cfg(test)]\nmod tests {\n    use crate::b;\n}\n",
    ] {
        assert_eq!(of(&[root, b, ("c.rs", harmless)]), [""; 0], "{harmless}");
    }
    assert_eq!(of(&[root, ("c/x.rs", "use super::y;"), ("c/y.rs", "use super::x;")]), [""; 0], "one room");
}
