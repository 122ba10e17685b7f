//! Made evidence of the suites that come with the project, for tests of what is printed of them: a verdict of each kind,
//! with times like those that an H200 gave. Leaves to others: what must be true of the print.

use super::*;
use crate::decision::decide;
use crate::evidence::{Block, Device, Errors, LaunchOutcome, PeerBackend, Replays};
use crate::gate::GateId;
use crate::judge::{judge, testing};
use crate::suite::Suite;

/// The suites: the ladder's last step, the flagship, and an operator from a gate file.
pub fn suites() -> [(&'static str, Suite); 3] {
    let parse = |text| Suite::parse(text).unwrap();
    [
        ("stage5", parse(include_str!("../../suites/stage5.toml"))),
        ("flagship", parse(include_str!("../../suites/flagship.toml"))),
        ("softmax", parse(include_str!("../../../examples/softmax/gate.toml"))),
    ]
}

/// What a suite would be judged on: everything ran, one candidate of several is wrong, some are slow somewhere.
pub fn with_made<T>(name: &str, suite: &Suite, look: impl FnOnce(&RunView) -> T) -> T {
    let mut evidence = testing::evidence();
    evidence.builds.records = suite.variant_names().map(|variant| build(suite, variant)).collect();
    let problems = crate::judge::problems(suite);
    let like = evidence.checks.cases[0].clone();
    let case = |variant: &str, problem: &crate::operator::Problem| {
        let replays = suite.replays_of(problem).map(|count| Replays { count, different: 0 });
        let launch = LaunchOutcome { problem: problem.clone(), replays, ..like.launch.clone() };
        let wrong = name == "softmax" && variant == "unrolled" && problem.shape.name == "ragged";
        let errors = Errors { nan: if wrong { 3 } else { 0 }, worst_at: vec![0, 76], ..like.errors.clone().unwrap() };
        CheckedCase { variant: variant.to_owned(), launch, errors: Some(errors) }
    };
    evidence.checks.cases = suite.variant_names().flat_map(|v| problems.iter().map(move |p| case(v, p))).collect();
    let device = Device { name: "NVIDIA H200".into(), capability: (9, 0), sm_count: 132, ..testing::device() };
    evidence.checks.device = Some(format!("gpu: {}", device.name));
    evidence.samples.device = Some(device);
    let peers: &[&str] = if name == "softmax" { &[] } else { &["torch/default", "torch/flash", "cudnn/fp8"] };
    evidence.samples.blocks.clear();
    for (number, shape) in suite.time_shapes.iter().enumerate() {
        let rounds = suite.rounds_on(shape).max(16);
        let settings = suite.time_distributions.iter().flat_map(|d| Mode::ALL.map(|mode| (*d, mode)));
        for (distribution, mode) in settings {
            for (round, subject) in (0..rounds).flat_map(|r| subjects(suite, peers).into_iter().map(move |s| (r, s))) {
                let us = microseconds(name, number, &subject);
                let block = Block { shape: shape.clone(), distribution, ..testing::block(subject, round, mode, us) };
                evidence.samples.blocks.push(block);
            }
        }
        // Whose errors the suite asks for besides.
        let accurate = suite.peers.iter().filter_map(|limit| limit.accuracy.as_ref()).map(|limit| limit.peer.as_str());
        let all: Vec<&str> = peers.iter().copied().chain(accurate).collect();
        let everywhere = suite.time_distributions.iter().flat_map(|d| all.iter().map(move |peer| (*d, peer)));
        evidence.peers.backends.extend(everywhere.map(|(distribution, peer)| PeerBackend {
            shape: shape.clone(),
            distribution,
            subject: (*peer).to_owned(),
            kernels: vec![format!("a_long_mangled_name_of_the_kernel_that_{peer}_ran_on_this_shape")],
            resolved: None,
            unavailable: None,
            errors: like.errors.clone(),
        }));
    }
    let mut gates = judge(suite, &evidence);
    // What a run must have to be taken for one is not what is tested here.
    gates.retain(|gate| !matches!(gate.id, GateId::ConsistentEvidence | GateId::MemoryChecks));
    let decision = decide(suite, &gates, &evidence.checks, &evidence.samples);
    let environment = Environment { started: "2026-11-21T00:00:00Z".into(), ..Environment::default() };
    let (evidence, gates, decision, environment) = (&evidence, gates.as_slice(), &decision, &environment);
    look(&RunView { name: "run", suite, evidence, gates, decision, environment })
}

fn build(suite: &Suite, variant: &str) -> crate::evidence::BuildRecord {
    let mut record = testing::build(variant);
    record.arch = suite.arch.clone();
    record.entries[0].resources.registers = if variant == "persistent" { 124 } else { 93 };
    let products = BTreeMap::from([("QGMMA".to_owned(), 80)]);
    record.instructions =
        Some(record.entries.iter().map(|entry| (entry.launch.entry.clone(), products.clone())).collect());
    record
}

fn subjects(suite: &Suite, peers: &[&str]) -> Vec<Subject> {
    let again = Subject::again(&suite.control);
    let quantised =
        suite.peers.iter().flat_map(|_| suite.candidates.iter().map(|c| Subject::from_originals(&c.variant)));
    let plain = suite.variant_names().chain(peers.iter().copied()).map(Subject::plain);
    plain.chain([again]).chain(quantised).collect()
}

/// The control's times on the shapes of the flagship's suite, the candidate's, and those of the best peer.
const FLAGSHIP: [[f64; 12]; 3] = [
    [4.077, 14.01, 157.8, 98.0, 330.0, 190.0, 2400.0, 1350.0, 2600.0, 1400.0, 9800.0, 5100.0],
    [3.160, 3.842, 17.77, 14.26, 32.62, 22.18, 259.7, 162.3, 224.9, 140.4, 811.0, 428.7],
    [5.072, 8.958, 37.99, 25.74, 42.33, 28.35, 532.7, 344.1, 326.4, 202.6, 1189.0, 611.8],
];

/// By the shape's number and the subject.
fn microseconds(name: &str, shape: usize, subject: &Subject) -> f64 {
    let who = subject.who.as_str();
    if name == "flagship" {
        let (row, factor) = match (who, subject.arm) {
            ("hopper", crate::subject::Arm::FromOriginals) => (1, 1.4),
            ("hopper", _) => (1, 1.0),
            ("cudnn/fp8", _) => (2, 1.0),
            ("torch/flash", _) => (2, 1.2),
            ("torch/default", _) => (2, 1.5),
            _ => (0, 1.0),
        };
        return factor * FLAGSHIP[row][shape];
    }
    let over = match who {
        "ws-p1" => [1.21, 0.9295, 0.91],
        "ws-p2" => [1.182, 0.8872, 0.8377],
        "ws-persistent" => [1.25, 0.9426, 0.9],
        "persistent" => [0.95, 0.7216, 0.7],
        "fast-exp" => [1.02, 0.8113, 0.8],
        "stage0" => [4.1, 4.05, 4.2],
        "stage1" => [3.5, 3.463, 3.6],
        "online" => [1.3, 1.0, 0.396],
        "torch/default" => [1.35, 0.6399, 0.31],
        "torch/flash" => [1.244, 0.8968, 0.5],
        "cudnn/fp8" => [1.5, 0.65, 0.24],
        _ => [1.0; 3],
    };
    let control = if name == "softmax" { [4.1, 4.2, 157.8] } else { [4.077, 14.01, 157.8] };
    control[shape] * over[shape]
}
