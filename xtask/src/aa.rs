//! `self-test --gpu-aa`: one kernel under two names, validated again and again on a real GPU. Whatever the clocks and places
//! of that GPU do, the gates on time may not find one faster than the other. Leaves to others: the kernel
//! (`examples/aa`), and the same question by simulation (`self-test --full`).

use anyhow::Result;
use kbench::decision::Verdict;
use kbench::gate::{Gate, GateId, State};
use serde::Serialize;

use crate::gpus::GpuChoice;
use crate::layout::Layout;
use crate::peers::PeerChoice;
use crate::plan::{Changes, DeviceChoice, Plan};
use crate::timing::Timing;
use crate::validate::{Options, validate};

/// One validation.
#[derive(Clone, Debug, Serialize)]
pub struct Again {
    /// Its run directory.
    pub run: String,
    /// The verdict on the twin.
    pub verdict: Verdict,
    /// Whether every gate on time passes, which is wrong, whatever else kept it from a merge.
    pub believed: bool,
    /// The gates that compare the two: where, what was measured, and the state.
    pub gates: Vec<String>,
}

/// Validates so many times; each run stays, for `verify`.
pub fn gpu_aa(layout: &Layout, count: u32, heard: &dyn Fn(&Again)) -> Result<Vec<Again>> {
    let file = layout.root.join("examples/aa/gate.toml");
    let plan = Plan::read(layout, &file.display().to_string(), &Changes::default())?;
    let options = Options {
        device: DeviceChoice::Gpu,
        gpus: GpuChoice::First,
        out: Some(layout.target.join("aa")),
        resume: None,
        fresh_seed: true,
        timing: Timing { wanted: true, peers: PeerChoice::none(), draw: None },
        ncu: false,
        attachments: Vec::new(),
    };
    let mut all = Vec::new();
    for _ in 0..count {
        let outcome = validate(layout, &plan, &options)?;
        let (_, gates, decision) = outcome.run.judgement()?;
        let verdict = decision.candidates.first().map_or(Verdict::Defer, |candidate| candidate.verdict);
        let again = summed_up(outcome.run.shown(), verdict, &gates);
        heard(&again);
        all.push(again);
    }
    Ok(all)
}

fn summed_up(run: String, verdict: Verdict, gates: &[Gate]) -> Again {
    let compared: Vec<&Gate> = gates.iter().filter(|gate| gate.id == GateId::LatencyReduction).collect();
    let line = |gate: &&Gate| {
        let on = gate.shape.as_deref().unwrap_or_default();
        format!("{on} {}: {} {}", gate.distribution.name(), gate.measured, gate.state)
    };
    let believed = !compared.is_empty() && compared.iter().all(|gate| gate.state == State::Pass);
    Again { run, verdict, believed, gates: compared.iter().map(line).collect() }
}

impl Again {
    /// Whether the two were taken for different.
    pub fn is_wrong(&self) -> bool {
        self.believed || self.verdict == Verdict::Merge
    }

    /// One line.
    pub fn line(&self) -> String {
        format!(
            "{} {:?}; {}; {}",
            if self.is_wrong() { "WRONG" } else { "ok   " },
            self.verdict,
            self.gates.join("; "),
            self.run
        )
    }
}

/// How many were wrong.
pub fn sum(all: &[Again]) -> String {
    let wrong = all.iter().filter(|again| again.is_wrong()).count();
    let merged = all.iter().filter(|again| again.verdict == Verdict::Merge).count();
    format!(
        "{} runs of one kernel against itself: {merged} MERGEd, {wrong} passed every gate on time; 0 and 0 wanted",
        all.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use kbench::gate::Draft;

    #[test]
    fn a_run_is_wrong_where_every_gate_on_time_passes_even_without_a_merge() {
        let gate =
            |passes: bool| Draft::new("twin", GateId::LatencyReduction).on("timed").holds("", "2 %", ">= 1 %", passes);
        let of = |gates: &[Gate], verdict| summed_up("run".into(), verdict, gates);
        assert!(of(&[gate(true), gate(true)], Verdict::Defer).is_wrong());
        assert!(of(&[], Verdict::Merge).is_wrong());
        let right = [of(&[gate(true), gate(false)], Verdict::ValidNegative), of(&[], Verdict::Defer)];
        assert!(right.iter().all(|again| !again.is_wrong()));
        assert!(sum(&right).starts_with("2 runs of one kernel against itself: 0 MERGEd, 0 passed"));
    }

    #[test]
    fn the_two_kernels_are_one_gate_file() {
        let layout = Layout::find().unwrap();
        let file = layout.root.join("examples/aa/gate.toml").display().to_string();
        let plan = Plan::read(&layout, &file, &Changes::default()).unwrap();
        assert_eq!((plan.suite.time_shapes.len(), plan.suite.time_distributions.len()), (1, 2));
        assert!(plan.suite.narrowed.is_empty());
    }
}
