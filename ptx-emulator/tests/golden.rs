//! The emulator against a GPU: its answers to the conformance probes are `data/golden/instructions.txt`, made by
//! `cargo xtask golden`. Exact instructions agree in every bit of every answer, approximations within their bound.

use std::collections::BTreeMap;

use ptx_emulator::conformance::{Agreement, Probe, UNANSWERED, probes};
use sha2::{Digest, Sha256};

const RECORDED: &str = include_str!("data/golden/instructions.txt");

/// One line of the file.
struct Line {
    ptx_sha256: &'static str,
    sha256: &'static str,
    first: Vec<u64>,
}

fn recorded() -> BTreeMap<&'static str, Line> {
    let lines = RECORDED.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let fields: Vec<&str> = line.split(" | ").collect();
            let [name, ptx_sha256, sha256, first] = fields[..] else { panic!("four fields are expected: {line}") };
            let first = first.split(' ').map(|word| u64::from_str_radix(word, 16).expect("hex")).collect();
            (name, Line { ptx_sha256, sha256, first })
        })
        .collect()
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// Why the emulator disagrees with the GPU on a probe, or nothing.
fn disagreement(probe: &Probe, line: &Line) -> Option<String> {
    if sha256(probe.ptx.as_bytes()) != line.ptx_sha256 {
        return Some(format!(
            "{}: the PTX is not the one that was recorded; run `cargo xtask golden` again",
            probe.name
        ));
    }
    let answer = match probe.emulate() {
        Ok(answer) => answer,
        Err(why) => return Some(why),
    };
    let first: Vec<u8> = line.first.iter().flat_map(|word| word.to_le_bytes()).collect();
    if let Some(at) = probe.disagreement(&answer, &first) {
        return Some(probe.describe(&answer, &first, at));
    }
    let all = probe.agreement != Agreement::Bits || sha256(&answer) == line.sha256;
    (!all).then(|| format!("{}: some answer after the first {} differs", probe.name, line.first.len()))
}

#[test]
fn every_probe_answers_as_the_gpu_does() {
    let recorded = recorded();
    let probes: Vec<Probe> = probes().into_iter().filter(|p| recorded.contains_key(p.name.as_str())).collect();
    assert_eq!(recorded.len(), probes.len(), "a recorded probe is not in the table any more");
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..count)
            .map(|worker| {
                let mine = probes.iter().skip(worker).step_by(count);
                let recorded = &recorded;
                scope
                    .spawn(move || mine.filter_map(|p| disagreement(p, &recorded[p.name.as_str()])).collect::<Vec<_>>())
            })
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("a worker ends")).collect()
    });
    assert!(wrong.is_empty(), "{} of {} probes:\n{}", wrong.len(), probes.len(), wrong.join("\n"));
}

#[test]
fn what_is_not_answered_is_deferred_by_name_and_with_a_reason() {
    let recorded = recorded();
    let probes = probes();
    let (lacking, answered): (Vec<&Probe>, Vec<&Probe>) =
        probes.iter().partition(|p| !recorded.contains_key(p.name.as_str()));
    let is_said = |probe: &Probe| UNANSWERED.iter().any(|(name, why)| *name == probe.name && !why.trim().is_empty());
    let names = |probes: &[&Probe], said: bool| -> Vec<String> {
        probes.iter().filter(|p| is_said(p) == said).map(|p| p.name.clone()).collect()
    };
    let (unsaid, needless) = (names(&lacking, false), names(&answered, true));
    assert_eq!(lacking.len(), UNANSWERED.len(), "it names each of them once, and nothing else");
    assert!(unsaid.is_empty() && needless.is_empty(), "not `unanswered`: {unsaid:#?}, without need: {needless:#?}");
    // Whether a GPU agrees is deferred; that the emulator has an answer is not.
    let failed: Vec<String> = lacking.iter().filter_map(|p| p.emulate().err()).collect();
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn a_changed_answer_is_noticed() {
    let probes = probes();
    let probe = probes.iter().find(|p| p.name == "fma.rn.f32").expect("in the table");
    let line = recorded().remove("fma.rn.f32").expect("it was recorded");
    assert_eq!(disagreement(probe, &line), None);
    let mut first = line.first.clone();
    first[3] ^= 1;
    let changed = Line { first, ..line };
    assert!(disagreement(probe, &changed).expect("it differs").contains("1 of"));
    let later = Line { sha256: "another", ..recorded().remove("fma.rn.f32").expect("it was recorded") };
    assert!(disagreement(probe, &later).expect("it differs").contains("after the first"));
}
