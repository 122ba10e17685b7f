//! Two runs side by side: what changed in verdicts, gates, code and ratios. Times of one run are never divided by times
//! of the other; what is compared is each run's own paired ratio to its own control.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;

use super::{Format, RunView, headline, strings, table};
use crate::deferral::Deferral;
use crate::evidence::Mode;
use crate::gate::{Gate, State, significant};
use crate::judge::compare;
use stats::Interval;

/// What differs between two runs, A and B.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Differences {
    /// Why the two are not one experiment repeated, in words: another device, driver, compiler, suite or control.
    pub circumstances: Vec<String>,
    /// Gates whose state differs, and gates that only one run has.
    pub gates: Vec<GatePair>,
    /// Entry functions whose machine code or resources differ.
    pub code: Vec<CodePair>,
    /// Ratios to the control, kernel time.
    pub ratios: Vec<RatioPair>,
    /// By how much the ratio of a variant whose code is the same in both runs differs at most, as a fraction: an
    /// interval holds within its run and says nothing of this. `None` where no code is the same.
    pub drift: Option<f64>,
}

/// One gate in both runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GatePair {
    /// Variant.
    pub variant: String,
    /// Figure.
    pub figure: String,
    /// State and figure in A; `None` where A has no such gate.
    pub a: Option<String>,
    /// The same in B.
    pub b: Option<String>,
}

/// One entry function in both runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CodePair {
    /// Variant.
    pub variant: String,
    /// Architecture and entry function.
    pub entry: String,
    /// Registers, shared memory, spills in A.
    pub a: String,
    /// The same in B.
    pub b: String,
}

/// One variant's ratio to the control in both runs; below 1 is faster than the control.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RatioPair {
    /// Shape.
    pub shape: String,
    /// Variant or peer.
    pub subject: String,
    /// Time over control in A.
    pub a: Interval,
    /// The same in B.
    pub b: Interval,
    /// Whether the 95% intervals have nothing in common and lie further apart than variants whose code is the same.
    pub moved: bool,
}

/// Compares two runs.
pub fn differences(a: &RunView, b: &RunView) -> Differences {
    let (ratios, drift) = ratios(a, b);
    Differences { circumstances: circumstances(a, b), gates: gates(a, b), code: code(a, b), ratios, drift }
}

fn circumstances(a: &RunView, b: &RunView) -> Vec<String> {
    let device = |v: &RunView| v.environment.device.as_ref().map(|d| format!("{} ({})", d.name, d.uuid));
    let driver = |v: &RunView| v.environment.device.as_ref().map(|d| d.cuda_driver.clone());
    let control = |v: &RunView| Some(v.suite.control.clone());
    let suite = |v: &RunView| Some(v.suite.name.clone());
    let narrowed = |v: &RunView| {
        let parts: Vec<String> = v.suite.narrowed.iter().map(Deferral::to_string).collect();
        Some(parts.join("; ")).filter(|n| !n.is_empty())
    };
    let rows: [(&str, Option<String>, Option<String>); 7] = [
        ("device", device(a), device(b)),
        ("CUDA version of the driver", driver(a), driver(b)),
        ("nvcc", a.environment.nvcc.clone(), b.environment.nvcc.clone()),
        ("commit", a.environment.commit.clone(), b.environment.commit.clone()),
        ("suite", suite(a), suite(b)),
        ("control", control(a), control(b)),
        ("left out", narrowed(a), narrowed(b)),
    ];
    let differing = rows.into_iter().filter(|(_, a, b)| a != b);
    let word = |value: Option<String>| value.unwrap_or_else(|| "none".to_owned());
    let mut lines: Vec<String> =
        differing.map(|(what, a, b)| format!("{what}: {} in A, {} in B", word(a), word(b))).collect();
    if a.suite.name == b.suite.name && a.suite.narrowed == b.suite.narrowed && a.suite != b.suite {
        lines.push("the suite's own text: limits, shapes or variants differ".to_owned());
    }
    lines
}

/// What passes in A and not in B.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Regressions {
    /// Gates that fail in B.
    pub failed: Vec<String>,
    /// Gates that B did not measure, did not settle, or does not have.
    pub open: Vec<String>,
}

/// Gates that pass in A and not in B.
pub fn regressions(a: &RunView, b: &RunView) -> Regressions {
    let (in_a, in_b) = (keyed(a), keyed(b));
    let mut found = Regressions::default();
    for (key, _) in in_a.iter().filter(|(_, gate)| gate.state == State::Pass) {
        let (variant, figure, _) = key;
        match in_b.get(key) {
            Some(gate) if gate.state == State::Pass => {}
            Some(gate) if gate.state == State::Fail => {
                found.failed.push(format!("{variant}: {figure} is {}, wanted {}", gate.measured, gate.threshold));
            }
            Some(gate) => found.open.push(format!("{variant}: {figure}: {}", gate.state)),
            None => found.open.push(format!("{variant}: {figure}: no such gate")),
        }
    }
    found
}

/// Gates by variant and figure. One figure can be gated more than once (for each entry function, say); within a figure the
/// order is the judge's.
fn keyed<'a>(view: &RunView<'a>) -> BTreeMap<(&'a str, &'a str, usize), &'a Gate> {
    let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    let mut gates = BTreeMap::new();
    for gate in view.gates {
        let nth = counts.entry((&gate.variant, &gate.figure)).or_default();
        *nth += 1;
        gates.insert((gate.variant.as_str(), gate.figure.as_str(), *nth), gate);
    }
    gates
}

fn gates(a: &RunView, b: &RunView) -> Vec<GatePair> {
    let (in_a, in_b) = (keyed(a), keyed(b));
    let keys: std::collections::BTreeSet<_> = in_a.keys().chain(in_b.keys()).collect();
    let show = |gate: Option<&&Gate>| gate.map(|g| format!("{} {}", g.state.word(), g.measured).trim_end().to_owned());
    keys.into_iter()
        .filter(|key| in_a.get(*key).map(|g| g.state.word()) != in_b.get(*key).map(|g| g.state.word()))
        .map(|key| GatePair {
            variant: key.0.to_owned(),
            figure: key.1.to_owned(),
            a: show(in_a.get(key)),
            b: show(in_b.get(key)),
        })
        .collect()
}

fn code(a: &RunView, b: &RunView) -> Vec<CodePair> {
    let entries = |view: &RunView| -> BTreeMap<(String, String), (String, String)> {
        let records = view.evidence.builds.records.iter();
        let all = records.flat_map(|r| r.entries.iter().map(move |e| (r, e)));
        all.map(|(record, entry)| {
            let resources = &entry.resources;
            let shared = f64::from(resources.static_smem_bytes + entry.launch.dynamic_smem_bytes) / 1024.0;
            let spills = resources.spill_store_bytes + resources.spill_load_bytes;
            let words = format!(
                "{} registers, {} KiB, {spills} spilled, code {}",
                resources.registers,
                significant(shared),
                entry.code_sha256.get(..8).unwrap_or(&entry.code_sha256)
            );
            let key = (record.variant.clone(), format!("{} {}", record.arch, entry.launch.entry));
            (key, (entry.code_sha256.clone(), words))
        })
        .collect()
    };
    let (in_a, in_b) = (entries(a), entries(b));
    in_a.iter()
        .filter_map(|(key, (hash, words))| Some((key, hash, words, in_b.get(key)?)))
        .filter(|(_, hash, words, other)| **hash != other.0 || **words != other.1)
        .map(|(key, _, words, other)| CodePair {
            variant: key.0.clone(),
            entry: key.1.clone(),
            a: words.clone(),
            b: other.1.clone(),
        })
        .collect()
}

fn ratios(a: &RunView, b: &RunView) -> (Vec<RatioPair>, Option<f64>) {
    if a.suite.control != b.suite.control {
        return (Vec::new(), None);
    }
    let of_b = compare(b.suite, &b.evidence.samples);
    let mut pairs: Vec<RatioPair> = compare(a.suite, &a.evidence.samples)
        .into_iter()
        .filter(|c| c.mode == Mode::Kernel)
        .filter_map(|in_a| {
            let same = |c: &&crate::judge::Comparison| {
                c.mode == Mode::Kernel && c.shape == in_a.shape && c.subject == in_a.subject
            };
            let (a, b) = (in_a.over_control?, of_b.iter().find(same)?.over_control?);
            let moved = a.high < b.low || b.high < a.low;
            Some(RatioPair { shape: in_a.shape, subject: in_a.subject.to_string(), a, b, moved })
        })
        .collect();
    let apart = |pair: &RatioPair| (pair.b.estimate / pair.a.estimate - 1.0).abs();
    let unchanged = |pair: &&RatioPair| same_code(a, b, &pair.subject) && same_code(a, b, &a.suite.control);
    let drift =
        pairs.iter().filter(unchanged).map(apart).fold(None, |most: Option<f64>, d| Some(most.map_or(d, |m| m.max(d))));
    for pair in &mut pairs {
        pair.moved &= drift.is_none_or(|drift| apart(pair) > drift);
    }
    (pairs, drift)
}

/// Whether both runs built a variant, and every build that both have is the same machine code.
fn same_code(a: &RunView, b: &RunView, variant: &str) -> bool {
    let cubins = |view: &RunView| -> BTreeMap<String, String> {
        let records = view.evidence.builds.records.iter().filter(|r| r.variant == variant);
        records.map(|r| (r.arch.clone(), r.cubin_sha256.clone())).collect()
    };
    let (in_a, in_b) = (cubins(a), cubins(b));
    !in_a.is_empty() && in_a == in_b
}

/// The comparison as text.
pub fn two_runs(a: &RunView, b: &RunView, format: Format) -> String {
    let found = differences(a, b);
    let mut text = format!("A  {}\n\nB  {}\n", headline(a), headline(b));
    for line in &found.circumstances {
        let _ = write!(text, "\n{line}");
    }
    let mut section = |title: &str, header: [&str; 4], rows: Vec<[String; 4]>, none: &str| {
        let _ = write!(text, "\n\n{title}\n\n");
        if rows.is_empty() {
            text.push_str(none);
        } else {
            let rows = rows.into_iter().map(|r| r.to_vec());
            text.push_str(&table(format, std::iter::once(strings(&header)).chain(rows).collect()));
        }
    };
    let side = |state: &Option<String>| state.clone().unwrap_or_else(|| "no such gate".to_owned());
    let rows = found.gates.iter().map(|g| [g.variant.clone(), g.figure.clone(), side(&g.a), side(&g.b)]).collect();
    section("Gates that changed", ["variant", "gate", "A", "B"], rows, "none: every gate is in the state it was in");
    let rows = found.code.iter().map(|c| [c.variant.clone(), c.entry.clone(), c.a.clone(), c.b.clone()]).collect();
    let same = "none: every entry function that both runs built is the same machine code";
    section("Code that changed", ["variant", "entry", "A", "B"], rows, same);
    let cell = |r: &Interval| format!("{} [{}, {}]", significant(r.estimate), significant(r.low), significant(r.high));
    let name = |r: &RatioPair| format!("{}{}", r.subject, if r.moved { " (moved)" } else { "" });
    let rows = found.ratios.iter().map(|r| [r.shape.clone(), name(r), cell(&r.a), cell(&r.b)]).collect();
    let control = &a.suite.control;
    let title = format!("Kernel time over {control}'s, each in its own run");
    section(&title, ["shape", "subject", "A", "B"], rows, "none: the runs have no times against the same control");
    let _ = match found.drift {
        _ if found.ratios.is_empty() => Ok(()),
        Some(drift) => write!(
            text,
            "\n\nAn interval holds within its run. Between the two, the ratio of unchanged code differs by up to {}%; only \
             what differs by more is marked as moved.",
            significant(100.0 * drift)
        ),
        None => write!(text, "\n\nNo code is the same in both, so what merely another run changes is not known."),
    };
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::{Evidence, testing};
    use crate::report::testing::with_view;

    fn between(a: &Evidence, b: &Evidence) -> (Differences, String) {
        with_view(a, |a| with_view(b, |b| (differences(a, b), two_runs(a, b, Format::Markdown))))
    }

    #[test]
    fn a_run_and_itself_have_nothing_between_them() {
        let evidence = testing::evidence();
        let (found, text) = between(&evidence, &evidence);
        assert!(found.circumstances.is_empty() && found.gates.is_empty() && found.code.is_empty(), "{found:?}");
        assert!(!found.ratios.is_empty() && found.ratios.iter().all(|r| !r.moved && r.a == r.b));
        assert!(text.contains("none: every gate is in the state it was in"), "{text}");
    }

    #[test]
    fn a_slower_candidate_is_a_changed_gate_and_a_ratio_that_moved() {
        let (a, mut b) = (testing::evidence(), testing::evidence());
        b.samples = testing::samples(100.0, 99.0);
        b.builds.records[1].cubin_sha256 = "another".into();
        let (found, text) = between(&a, &b);
        let gate = found.gates.iter().find(|g| g.variant == "new").unwrap();
        assert!(gate.a.as_ref().unwrap().starts_with("PASS") && gate.b.as_ref().unwrap().starts_with("FAIL"));
        let moved: Vec<&str> = found.ratios.iter().filter(|r| r.moved).map(|r| r.subject.as_str()).collect();
        assert_eq!(moved, ["new"]);
        assert!(text.contains("new (moved)") && text.contains("No code is the same"), "{text}");
    }

    #[test]
    fn what_passed_and_fails_or_is_open_or_gone_is_a_regression_and_nothing_else_is() {
        let (a, mut b) = (testing::evidence(), testing::evidence());
        let between = |a: &Evidence, b: &Evidence| with_view(a, |a| with_view(b, |b| regressions(a, b)));
        assert_eq!(between(&a, &b), Regressions::default());
        // The second entry of two: the first one's gate still passes.
        b.builds.records[1].entries[1].resources.spill_store_bytes = 8;
        let found = between(&a, &b);
        assert!(found.open.is_empty() && found.failed == ["new: spills is 8 bytes, wanted <= 0 bytes"], "{found:?}");
        assert_eq!(between(&b, &a), Regressions::default(), "what is mended is no regression");
        b.builds = a.builds.clone();
        b.samples =
            crate::evidence::Samples { deferred: Some(Deferral::new("no GPU", "get one")), ..Default::default() };
        let found = between(&a, &b);
        assert!(
            found.failed.is_empty() && found.open.iter().any(|gate| gate.contains("DEFERRED (no GPU")),
            "{found:?}"
        );
    }

    #[test]
    fn what_moves_with_unchanged_code_is_drift() {
        let (a, mut b) = (testing::evidence(), testing::evidence());
        b.samples = testing::samples(100.0, 82.0);
        let (found, text) = between(&a, &b);
        assert!(found.ratios.iter().all(|r| !r.moved), "{found:?}");
        assert!(found.drift.is_some_and(|drift| (0.02..0.03).contains(&drift)), "{found:?}");
        assert!(text.contains("unchanged code differs by up to 2.5"), "{text}");
    }

    #[test]
    fn other_code_and_another_device_are_named() {
        let (a, mut b) = (testing::evidence(), testing::evidence());
        b.builds.records[1].entries[0].code_sha256 = "ffffffffff".into();
        b.builds.records[1].entries[0].resources.registers = 111;
        let mut device = testing::device();
        device.uuid = "GPU-other".into();
        b.samples.device = Some(device);
        let (found, _) = between(&a, &b);
        assert_eq!(found.code.len(), 1);
        assert!(found.code[0].b.starts_with("111 registers") && found.code[0].b.ends_with("code ffffffff"));
        assert!(found.circumstances.iter().any(|c| c.starts_with("device: ") && c.contains("GPU-other")), "{found:?}");
    }

    #[test]
    fn what_only_one_run_measured_is_a_gate_that_changed() {
        let (a, mut b) = (testing::evidence(), testing::evidence());
        b.samples =
            crate::evidence::Samples { deferred: Some(Deferral::new("no GPU", "get one")), ..Default::default() };
        let (found, _) = between(&a, &b);
        assert!(found.gates.iter().any(|g| g.b.as_ref().is_some_and(|b| b.starts_with("DEFERRED"))), "{found:?}");
        assert!(found.ratios.is_empty());
    }
}
