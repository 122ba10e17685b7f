//! `list`: what there is to name on the command line and in a suite file.

use anyhow::Result;
use clap::{Args, ValueEnum};
use kbench::exit::Exit;
use kbench::gate::GateId;
use kbench::operator::attention::all_named;
use sdpa_kernel::registry::{self, VARIANTS};
use sdpa_kernel::toggles::TOGGLES;
use serde_json::{Map, Value, json};

use super::print::{print, table};
use crate::accepted;
use crate::layout::Layout;
use crate::plan::suites;

/// What can be listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    /// Kernels, and which toggles each changes of which other.
    Variants,
    /// Suites that come with the project.
    Suites,
    /// Shapes that have a name.
    Shapes,
    /// Toggles of a variant, and what their values mean.
    Toggles,
    /// Gates, by the ids that they have in files, and what each asks.
    Gates,
}

impl What {
    const ALL: [What; 5] = [What::Variants, What::Suites, What::Shapes, What::Toggles, What::Gates];

    fn name(self) -> &'static str {
        match self {
            What::Variants => "variants",
            What::Suites => "suites",
            What::Shapes => "shapes",
            What::Toggles => "toggles",
            What::Gates => "gates",
        }
    }

    fn list(self) -> Result<List> {
        match self {
            What::Variants => variants(),
            What::Suites => of_suites(),
            What::Shapes => shapes(),
            What::Toggles => Ok(toggles()),
            What::Gates => gates(),
        }
    }
}

#[derive(Args)]
pub struct ListArgs {
    /// What to list; everything when nothing is named.
    #[arg(value_enum)]
    what: Option<What>,
    /// Print the list as JSON.
    #[arg(long)]
    json: bool,
}

/// The same list for programs and for people.
struct List {
    json: Vec<Value>,
    header: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl List {
    fn render(&self) -> String {
        table(&self.header, &self.rows)
    }
}

pub fn list(args: &ListArgs) -> Result<Exit> {
    if let Some(what) = args.what {
        let list = what.list()?;
        print(args.json, &list.json, || list.render())?;
        return Ok(Exit::Good);
    }
    let lists = What::ALL.into_iter().map(|what| Ok((what.name(), what.list()?))).collect::<Result<Vec<_>>>()?;
    let json: Map<String, Value> =
        lists.iter().map(|(name, list)| ((*name).to_owned(), Value::from(list.json.clone()))).collect();
    let text = |(name, list): &(&str, List)| format!("{}\n\n{}", name.to_uppercase(), list.render());
    print(args.json, &json, || lists.iter().map(text).collect::<Vec<_>>().join("\n\n"))?;
    Ok(Exit::Good)
}

fn columns(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn variants() -> Result<List> {
    let mut list = List { json: Vec::new(), header: columns(&["name", "changes", "about"]), rows: Vec::new() };
    for name in registry::names() {
        let variant = registry::find(name)?;
        let entry = VARIANTS.iter().find(|entry| entry.name == name);
        let base = entry.and_then(|entry| entry.base);
        let settings = entry.iter().flat_map(|entry| &entry.settings);
        let settings: Vec<String> = settings.map(|s| format!("{}={}", s.toggle, s.value)).collect();
        let about = registry::about(name);
        let changes = match base {
            Some(base) => format!("{base}: {}", settings.join(" ")),
            None => {
                variant.family.arch().map_or("every toggle is plain".to_owned(), |arch| format!("for {arch} alone"))
            }
        };
        list.rows.push(vec![name.to_owned(), changes, about.to_owned()]);
        list.json.push(json!({
            "name": name, "about": about, "source": variant.source, "arch": variant.family.arch(),
            "base": base, "toggles": variant.toggles,
        }));
    }
    Ok(list)
}

fn of_suites() -> Result<List> {
    let layout = Layout::find()?;
    let header = columns(&["name", "control", "candidates", "about"]);
    let mut list = List { json: Vec::new(), header, rows: Vec::new() };
    for (name, about) in suites(&layout) {
        // One that is wrong is listed, and says why when it is run.
        let (control, candidates) = match accepted::suite(&layout, &layout.suites().join(format!("{name}.toml"))) {
            Ok((suite, _)) => (suite.control, suite.candidates.into_iter().map(|c| c.variant).collect::<Vec<_>>()),
            Err(_) => ("?".to_owned(), Vec::new()),
        };
        list.rows.push(vec![name.clone(), control.clone(), candidates.join(" "), about.clone()]);
        list.json.push(json!({"name": name, "about": about, "control": control, "candidates": candidates}));
    }
    Ok(list)
}

fn shapes() -> Result<List> {
    let mut list = List { json: Vec::new(), header: Vec::new(), rows: Vec::new() };
    for shape in all_named() {
        list.header = columns(&["name"]);
        list.header.extend(shape.axes.keys().cloned());
        list.rows.push([vec![shape.name.clone()], shape.axes.values().map(i64::to_string).collect()].concat());
        list.json.push(serde_json::to_value(&shape)?);
    }
    Ok(list)
}

fn toggles() -> List {
    let mut list = List { json: Vec::new(), header: columns(&["name", "values", "about"]), rows: Vec::new() };
    for toggle in TOGGLES {
        let values: Vec<String> = toggle.values.iter().map(|(value, words)| format!("{value} {words}")).collect();
        let shown = if values.is_empty() { "a number".to_owned() } else { values.join("\n") };
        list.rows.push(vec![toggle.name.to_owned(), shown, toggle.about.to_owned()]);
        let values: Vec<Value> =
            toggle.values.iter().map(|(value, words)| json!({"value": value, "about": words})).collect();
        let searched = toggle.search.map(|search| search.values);
        list.json.push(json!({"name": toggle.name, "about": toggle.about, "values": values, "searched": searched}));
    }
    list
}

fn gates() -> Result<List> {
    let mut list = List { json: Vec::new(), header: columns(&["name", "kind", "about"]), rows: Vec::new() };
    for id in GateId::ALL {
        let kind = serde_json::to_value(id.kind())?;
        let shown = kind.as_str().unwrap_or_default().to_owned();
        list.rows.push(vec![id.name().to_owned(), shown, id.about().to_owned()]);
        list.json.push(json!({"name": id.name(), "kind": kind, "about": id.about(), "figure": id.template()}));
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_list_names_everything_in_lines_that_fit() {
        for what in What::ALL {
            let list = what.list().unwrap();
            let text = list.render();
            assert!(text.lines().all(|line| line.chars().count() <= crate::console::width()), "{text}");
            assert_eq!(list.json.len(), list.rows.len());
            for item in &list.json {
                let name = item["name"].as_str().unwrap();
                assert!(text.lines().any(|line| line.split_whitespace().next() == Some(name)), "{name}:\n{text}");
            }
        }
        assert!(What::Shapes.list().unwrap().header.len() > 3);
    }
}
