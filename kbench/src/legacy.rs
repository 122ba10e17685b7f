//! Reads runs of format 1, which have no `run.json`: each file's value becomes what the same file of today would hold.
//! The only place that knows how reasons, subjects, gates and shapes were once written.

use serde_json::{Map, Value, json};

use crate::gate::{Gate, GateId};
use crate::key::{BadKey, from_toml};
use crate::suite::Suite;

/// Between a reason and its remedy, which were one text.
const REMEDY: &str = "; ";
/// What a subject's name ended in, and the arm that it meant.
const ARMS: [(&str, &str); 2] = [("#aa", "again"), ("+quantise", "from-originals")];
/// What the headline said after the reason where no candidate could be judged.
const NO_CANDIDATE: &str = " (not a candidate, but the comparison rests on it)";
/// The head dimension whose entry functions were gated on registers and shared memory.
const GATED_HEAD_DIM: u64 = 64;

/// A file's value as today's schema has it.
pub fn upgrade(file: &str, mut value: Value) -> Value {
    walk(&mut value);
    match file {
        "peers.json" => {
            if let Some(missing) = value.get_mut("missing").and_then(Value::as_object_mut) {
                missing.values_mut().for_each(to_deferral);
            }
        }
        "gates.json" => value.as_array_mut().into_iter().flatten().for_each(name_gate),
        "decision.json" => name_broken(&mut value),
        _ => {}
    }
    value
}

/// The lines of a search's journal; a last one that was cut short stays as it is.
pub fn upgrade_lines(file: &str, text: &str) -> String {
    let line = |line: &str| match serde_json::from_str(line) {
        Ok(value) => upgrade(file, value).to_string(),
        Err(_) => line.to_owned(),
    };
    let lines: Vec<String> = text.split('\n').map(line).collect();
    lines.join("\n")
}

/// A suite as a run kept it.
pub fn suite(text: &str) -> Result<Suite, BadKey> {
    let mut table: toml::Table = from_toml(text)?;
    if let Some(narrowed) = table.get_mut("narrowed").and_then(toml::Value::as_array_mut) {
        for text in narrowed {
            let [why, remedy] = reason(text.as_str().unwrap_or_default());
            let deferral = [("why", why), ("remedy", remedy)].map(|(key, text)| (key.to_owned(), text.into()));
            *text = toml::Value::Table(toml::Table::from_iter(deferral));
        }
    }
    Suite::parse_recorded(&table.to_string())
}

/// Whether a gate says what an upgraded one recorded, which has no numbers.
pub fn says_the_same(again: &Gate, recorded: &Gate) -> bool {
    let words = |gate: &Gate| {
        let texts = [&gate.variant, &gate.figure, &gate.place, &gate.measured, &gate.threshold].map(String::clone);
        (gate.kind, gate.id, texts, gate.state.to_string())
    };
    words(again) == words(recorded)
}

/// Everything that is told by its form, wherever it stands.
fn walk(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(walk),
        Value::Object(object) => {
            object.values_mut().for_each(walk);
            mend(object);
        }
        _ => {}
    }
}

fn mend(object: &mut Map<String, Value>) {
    for key in ["deferred", "not_disassembled", "not_profiled"] {
        object.get_mut(key).into_iter().for_each(to_deferral);
    }
    object.get_mut("narrowed").and_then(Value::as_array_mut).into_iter().flatten().for_each(to_deferral);
    if object.get("state").is_some_and(|state| state == "untimed")
        && let Some([why, remedy]) = object.get("why").and_then(Value::as_str).map(reason)
    {
        object.extend([("why".to_owned(), why.into()), ("remedy".to_owned(), remedy.into())]);
    }
    let is_timed = object.contains_key("round") || object.contains_key("why");
    if let (true, Some(Value::String(name))) = (is_timed, object.get("subject")) {
        let subject = subject(name);
        object.insert("subject".to_owned(), subject);
    }
    if object.contains_key("seq_q") && object.contains_key("head_dim") {
        to_axes(object);
    }
    if object.contains_key("config_symbol")
        && let Some(head_dim) = object.remove("head_dim")
    {
        object.insert("serves".to_owned(), json!({"D": head_dim}));
    }
    if let (true, Some(launch)) = (object.contains_key("code_sha256"), object.get("launch")) {
        let gated = launch["serves"]["D"] == GATED_HEAD_DIM;
        object.insert("gated".to_owned(), gated.into());
    }
}

fn reason(text: &str) -> [String; 2] {
    let (why, remedy) = text.split_once(REMEDY).unwrap_or((text, ""));
    [why, remedy].map(str::to_owned)
}

fn to_deferral(value: &mut Value) {
    if let Value::String(text) = value {
        let [why, remedy] = reason(text);
        *value = json!({"why": why, "remedy": remedy});
    }
}

fn subject(name: &str) -> Value {
    let armed = |(suffix, arm): &(&str, &str)| Some(json!({"who": name.strip_suffix(suffix)?, "arm": arm}));
    ARMS.iter().find_map(armed).unwrap_or_else(|| json!({"who": name}))
}

/// A shape of attention by its sizes.
fn to_axes(shape: &mut Map<String, Value>) {
    let names = [("batch", "B"), ("heads", "H"), ("seq_q", "S_q"), ("seq_kv", "S_kv"), ("head_dim", "D")];
    let mut axes: Map<String, Value> =
        names.iter().filter_map(|(name, axis)| Some(((*axis).to_owned(), shape.remove(*name)?))).collect();
    let causal = shape.remove("causal").and_then(|causal| causal.as_bool()).unwrap_or(false);
    axes.insert("causal".to_owned(), u8::from(causal).into());
    shape.insert("axes".to_owned(), Value::Object(axes));
}

/// A gate's name, told by its figure. A figure that no gate has leaves it without one, which reading then refuses.
fn name_gate(gate: &mut Value) {
    let figure = gate["figure"].as_str().unwrap_or_default();
    let has = |id: &&GateId| match id.template().split_once("{}") {
        None => id.template() == figure,
        Some((before, after)) => figure.strip_prefix(before).is_some_and(|rest| rest.ends_with(after)),
    };
    // A whole figure before one that holds a name: "measured in this run" is also the end of another.
    let mut named: Vec<&GateId> = GateId::ALL.iter().filter(has).collect();
    named.sort_by_key(|id| id.template().contains("{}"));
    if let (Some(id), Some(object)) = (named.first().map(|id| id.name()), gate.as_object_mut()) {
        object.insert("id".to_owned(), id.into());
    }
}

/// The variant that is no candidate and was the headline.
fn name_broken(decision: &mut Value) {
    let headline = decision["headline"].as_str().unwrap_or_default();
    let told = headline.strip_prefix("FIX ").filter(|rest| rest.ends_with(NO_CANDIDATE));
    if let Some((variant, because)) = told.and_then(|rest| rest.split_once(": ")) {
        decision["broken"] = json!({"variant": variant, "verdict": "FIX", "because": because});
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::{Decision, decide};
    use crate::evidence::{Builds, Checks, Peers, Samples};
    use crate::judge::{judge, testing};
    use crate::profile::Profile;
    use crate::subject::Subject;
    use crate::tune::{Line, Outcome, parse_journal};

    fn read<T: serde::de::DeserializeOwned>(file: &str, value: Value) -> T {
        serde_json::from_value(upgrade(file, value)).unwrap_or_else(|error| panic!("{file}: {error}"))
    }

    #[test]
    fn reasons_become_two_fields_wherever_they_stood() {
        let text = "no GPU; run on one; or two";
        let is_two =
            |deferral: &crate::deferral::Deferral| deferral.why == "no GPU" && deferral.remedy == "run on one; or two";
        let builds: Builds =
            read("builds.json", json!({"records": [], "failures": [], "deferred": text, "not_disassembled": text}));
        assert!(is_two(&builds.deferred.unwrap()) && is_two(&builds.not_disassembled.unwrap()));
        let checks: Checks = read("check.json", json!({"device": null, "deferred": text, "cases": []}));
        assert!(is_two(&checks.deferred.unwrap()));
        let peers = json!({"wanted": true, "deferred": null, "missing": {"fa3": text}, "versions": {}, "backends": []});
        assert!(is_two(&read::<Peers>("peers.json", peers).missing["fa3"]));
        let shape = json!({"name": "tiny-causal", "batch": 1, "heads": 1, "seq_q": 32, "seq_kv": 32, "head_dim": 64,
                           "causal": true});
        let kernel = json!({"variant": "a", "problem": {"shape": shape, "seed": 0, "distribution": "normal"},
                            "deferred": text, "output_sha256": null, "report": null, "csv": null, "reading": null});
        let profile: Profile = read("profile.json", json!({"deferred": null, "settings": null, "kernels": [kernel]}));
        assert!(is_two(profile.kernels[0].deferred.as_ref().unwrap()));
        assert_eq!(profile.kernels[0].problem.shape, "tiny-causal".parse().unwrap());
        let suite = toml::to_string(&testing::suite()).unwrap();
        let narrowed = format!("narrowed = [{text:?}]\n{suite}");
        assert!(is_two(&super::suite(&narrowed).unwrap().narrowed[0]));
    }

    #[test]
    fn subjects_get_their_arms_and_a_peers_backend_keeps_its_name() {
        let state = json!({"sm_clock_mhz": null, "temperature_c": null, "power_w": null, "throttle": [],
                           "power_capped": false});
        let block = |subject: &str| {
            json!({"shape": "mission", "subject": subject, "mode": "kernel", "round": 0, "slot": 0, "us": [1.0],
                   "before": state, "after": state, "outputs_verified": true})
        };
        let blocks = ["old", "old#aa", "new+quantise", "torch/flash"].map(block);
        let failure = json!({"shape": "mission", "subject": "new+quantise", "why": "it fell over; badly"});
        let samples: Samples = read(
            "samples.json",
            json!({"device": null, "deferred": null, "cache_mode": "hot-l2", "input_sets": 1, "blocks": blocks,
                   "failures": [failure]}),
        );
        let found: Vec<&Subject> = samples.blocks.iter().map(|b| &b.subject).collect();
        let [old, again] = [Subject::plain("old"), Subject::again("old")];
        assert_eq!(found, [&old, &again, &Subject::from_originals("new"), &Subject::plain("torch/flash")]);
        assert_eq!(samples.failures[0].subject, Subject::from_originals("new"));
        assert_eq!(samples.failures[0].why, "it fell over; badly", "a failure has no remedy");
        let backend = json!({"shape": "mission", "subject": "torch/flash", "kernels": [], "resolved": null,
                             "unavailable": null, "errors": null});
        let peers: Peers =
            read("peers.json", json!({"wanted": true, "deferred": null, "versions": {}, "backends": [backend]}));
        assert_eq!(peers.backends[0].subject, "torch/flash");
    }

    #[test]
    fn every_gate_is_told_by_its_figure() {
        for id in GateId::ALL {
            let mut gate = json!({"figure": id.figure("mission")});
            name_gate(&mut gate);
            assert_eq!(gate["id"], id.name());
        }
        let mut unknown = json!({"figure": "elegance"});
        name_gate(&mut unknown);
        assert_eq!(unknown, json!({"figure": "elegance"}));
    }

    #[test]
    fn a_headline_that_no_candidate_had_names_who_was_broken() {
        let mut evidence = testing::evidence();
        evidence.checks.cases[0].errors.as_mut().unwrap().nan = 1;
        let suite = testing::suite();
        let today = decide(&suite, &judge(&suite, &evidence), &evidence.checks, &evidence.samples);
        let mut old = serde_json::to_value(&today).unwrap();
        assert!(old.as_object_mut().unwrap().remove("broken").is_some());
        assert_eq!(read::<Decision>("decision.json", old), today);
    }

    #[test]
    fn a_journal_keeps_its_cut_line() {
        let evaluation = json!({"line": "evaluation", "generation": 0, "slot": 0, "name": "a", "toggles": {},
                                "origin": "start", "outcome": {"state": "untimed", "why": "emulated; run on a GPU"}});
        let text = upgrade_lines("tune.jsonl", &format!("{evaluation}\n{{\"line\":\"sess"));
        let lines = parse_journal(&text).unwrap();
        let [Line::Evaluation(found)] = lines.as_slice() else { panic!("{lines:?}") };
        let Outcome::Untimed(deferral) = &found.outcome else { panic!("{found:?}") };
        assert_eq!((deferral.why.as_str(), deferral.remedy.as_str()), ("emulated", "run on a GPU"));
        assert!(text.ends_with("\n{\"line\":\"sess"));
    }
}
