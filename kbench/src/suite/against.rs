//! The suites of a pull request's question: is a variant as a change leaves it to replace the same variant as it was at a
//! revision? Everything that judges is the revision's, so that a change cannot weaken its own judge.
//! Leaves to others: fetching the revision's files.

use super::{Candidate, PerformanceLimit, Suite};
use crate::key::BadKey;
use crate::ordered::Ordered;
use crate::variant::{VariantTable, chain};

/// Keys of a file that say which variants there are, or nothing that a run is judged by.
const NO_JUDGE: [&str; 7] = ["variants", "candidates", "control", "baselines", "tune", "fleet", "about"];
/// Letters of a value that are shown.
const SHOWN: usize = 40;

/// A change to the file at a revision.
pub struct Change<'a> {
    /// The file as it is now.
    pub now: &'a Suite,
    /// What the revision is called.
    pub revision: &'a str,
    /// Where a file or folder that the file names now lies, seen from the revision's file.
    pub moved: &'a dyn Fn(&str) -> String,
}

impl Change<'_> {
    /// The name of a variant as it was.
    pub fn before(&self, variant: &str) -> String {
        format!("{variant}@{}", self.revision)
    }
}

impl Suite {
    /// This file, which is the revision's, with one candidate: a variant as it is now. Its control is that variant as it was,
    /// or for a new one the control as it was.
    pub fn against(&self, change: &Change, variant: &str) -> Result<Suite, BadKey> {
        let was_there = self.variants.get(variant).is_some();
        let control = if was_there { variant } else { self.control.as_str() };
        let mut variants = Ordered::default();
        let mut take_before = |name: &str| {
            for (link, table) in chain(name, &self.variants)? {
                let base = table.base.as_deref().map(|base| change.before(base));
                variants.set(&change.before(link), VariantTable { base, ..table.clone() });
            }
            Ok(change.before(name))
        };
        let control = take_before(control)?;
        let (mut performance, mut baselines) = (Vec::new(), Vec::new());
        for limit in self.performance.iter().filter(|limit| limit.holds_for(variant)) {
            let rival = limit.against.as_ref().filter(|rival| self.variants.get(rival).is_some());
            let rival = rival.map(|rival| take_before(rival)).transpose()?;
            baselines.extend(rival.clone().filter(|rival| *rival != control && !baselines.contains(rival)));
            let against = rival.or(limit.against.clone()).filter(|rival| *rival != control);
            performance.push(PerformanceLimit { against, ..limit.clone() });
        }
        for (link, table) in chain(variant, &change.now.variants)? {
            variants.set(link, moved(table, change.moved));
        }
        let own = self.candidates.iter().find(|candidate| candidate.variant == variant);
        let own = own.map(|own| Candidate { unless_spills: None, ..own.clone() });
        let revision = change.revision;
        Ok(Suite {
            about: format!("{variant} as a change leaves it beside {control}; all that judges is of {revision}"),
            control,
            candidates: vec![own.unwrap_or_else(|| Candidate::of(variant))],
            baselines,
            variants,
            performance,
            profile: self.profile.iter().filter(|limit| limit.holds_for(variant)).cloned().collect(),
            tune: None,
            fleet: None,
            ..self.clone()
        })
    }

    /// Whether a file says the same of a variant now, bases included.
    pub fn says_the_same_of(&self, now: &Suite, variant: &str) -> bool {
        match (chain(variant, &self.variants), chain(variant, &now.variants)) {
            (Ok(before), Ok(now)) => before == now,
            _ => false,
        }
    }

    /// What this file, which is the revision's, asks and the file asks otherwise now, a line each; variants aside.
    pub fn asks_otherwise(&self, now: &Suite) -> Vec<String> {
        let judge = |suite: &Suite| {
            let mut table = toml::Table::try_from(suite).unwrap_or_default();
            NO_JUDGE.iter().for_each(|key| drop(table.remove(*key)));
            toml::Value::Table(table)
        };
        let mut lines = Vec::new();
        differences("", Some(&judge(self)), Some(&judge(now)), &mut lines);
        lines
    }
}

/// A table whose files lie elsewhere.
fn moved(table: &VariantTable, moved: &dyn Fn(&str) -> String) -> VariantTable {
    let one = |file: &Option<String>| file.as_deref().map(moved);
    let include = table.include.as_ref().map(|all| all.iter().map(|folder| moved(folder)).collect());
    VariantTable { source: one(&table.source), plan: one(&table.plan), include, ..table.clone() }
}

fn differences(key: &str, before: Option<&toml::Value>, now: Option<&toml::Value>, lines: &mut Vec<String>) {
    use toml::Value::Table;
    match (before, now) {
        (before, now) if before == now => {}
        (Some(Table(a)), Some(Table(b))) => {
            let added = b.keys().filter(|name| !a.contains_key(*name));
            for name in a.keys().chain(added) {
                let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                differences(&key, a.get(name), b.get(name), lines);
            }
        }
        (before, now) => {
            let shown = |value: Option<&toml::Value>| {
                let text = value.map_or("nothing".to_owned(), toml::Value::to_string);
                let text = kernel_spec::words::one_line(&text);
                match text.char_indices().nth(SHOWN) {
                    Some((end, _)) => format!("{}...", &text[..end]),
                    None => text,
                }
            };
            lines.push(format!("{key}: is {} now, was {}", shown(now), shown(before)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
name = "s"
control = "plain"
candidates = [{ variant = "fast", resources = { max_registers = 40 } }, "wide"]
[operator]
axes = ["n"]
reference = "s.py"
inputs.x = { shape = ["n"], dtype = "f32" }
outputs.y = { shape = ["n"], dtype = "f32", errors = { max = 1e-3 } }
[shapes]
small = { n = 32 }
[variants.plain]
source = "s.cu"
include = ["../common"]
entry = "plain"
params = ["x", "y", "n: i32"]
grid = [1]
block = [32]
[variants.fast]
base = "plain"
entry = "fast"
[variants.wide]
base = "fast"
entry = "wide"
[[performance]]
shape = "small"
min_latency_reduction = 0.1
[[performance]]
shape = "small"
min_latency_reduction = 0.2
candidate = "wide"
against = "fast"
"#;

    fn asked(now: &str, variant: &str) -> Suite {
        let (before, now) = (Suite::parse(FILE).unwrap(), Suite::parse(now).unwrap());
        let change = Change { now: &now, revision: "1a2b3c4", moved: &|name| format!("change/{name}") };
        let suite = before.against(&change, variant).unwrap();
        suite.validate().unwrap();
        suite
    }

    #[test]
    fn a_variant_meets_itself_as_it_was_under_the_limits_of_the_revision() {
        let now = FILE.replace("max_registers = 40", "max_registers = 255").replace("block = [32]", "block = [64]");
        let suite = asked(&now, "fast");
        assert_eq!((suite.control.as_str(), suite.candidates[0].variant.as_str()), ("fast@1a2b3c4", "fast"));
        assert_eq!(suite.resources_of("fast").max_registers, Some(40));
        assert_eq!(suite.performance.len(), 1, "the other limit is another candidate's");
        let names: Vec<&str> = suite.variants.keys().collect();
        assert_eq!(names, ["fast@1a2b3c4", "plain@1a2b3c4", "fast", "plain"]);
        let [was, is] = ["fast@1a2b3c4", "fast"].map(|name| crate::variant::resolve(name, &suite.variants).unwrap());
        assert_eq!((was.source.as_str(), is.source.as_str()), ("s.cu", "change/s.cu"));
        assert_eq!(
            (&was.include[..], &is.include[..]),
            (&["../common".to_owned()][..], &["change/../common".into()][..])
        );
    }

    #[test]
    fn a_rival_comes_from_the_revision_and_a_new_variant_meets_the_control_that_was() {
        let suite = asked(FILE, "wide");
        assert_eq!((suite.control.as_str(), &suite.baselines[..]), ("wide@1a2b3c4", &["fast@1a2b3c4".to_owned()][..]));
        assert_eq!(suite.performance[1].against.as_deref(), Some("fast@1a2b3c4"));
        let more =
            FILE.replace("\"wide\"]", "\"wide\", \"new\"]") + "[variants.new]\nbase = \"plain\"\nentry = \"new\"\n";
        let suite = asked(&more, "new");
        assert_eq!((suite.control.as_str(), suite.performance.len()), ("plain@1a2b3c4", 1));
    }

    #[test]
    fn what_judges_otherwise_is_named_by_key_and_variants_are_no_judge() {
        let before = Suite::parse(FILE).unwrap();
        let of = |from: &str, to: &str| before.asks_otherwise(&Suite::parse(&FILE.replacen(from, to, 1)).unwrap());
        assert_eq!(of("max = 1e-3", "max = 0.5"), ["operator.outputs.y.errors.max: is 0.5 now, was 0.001"]);
        assert_eq!(of("block = [32]", "block = [64]"), [""; 0]);
        assert_eq!(of("axes = [\"n\"]", "axes = [\"n\"]\nconstraints = [\"n > 1\"]").len(), 1, "a key came");
        assert!(before.says_the_same_of(&before, "wide"));
        let now = Suite::parse(&FILE.replacen("block = [32]", "block = [64]", 1)).unwrap();
        assert!(!before.says_the_same_of(&now, "wide"), "what it inherits is its own");
        assert!(!before.says_the_same_of(&now, "nobody"));
    }
}
