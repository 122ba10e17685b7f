//! Lies about time: of some rounds, some inputs, some callers, or none.

use super::super::{CANDIDATE, Lie, everywhere, host_code, limit_on, own_blocks, slow_where};
use crate::evidence::Mode;
use crate::gate::GateId;
use crate::judge::testing;
use crate::operator::Distribution;
use crate::subject::{Arm, Subject};

pub(in super::super) const LIES: &[Lie] = &[
    Lie {
        name: "another output while it was timed",
        gate: GateId::TimedOutputs,
        tell: |_, e| {
            if let Some(block) = own_blocks(&mut e.samples).last() {
                block.outputs_verified = false;
            }
        },
    },
    Lie {
        name: "a time that the tensor cores cannot reach",
        gate: GateId::PhysicallyPossible,
        tell: |_, e| e.samples = testing::samples(100.0, 0.01),
    },
    Lie {
        name: "a process that times itself with a clock of its own making",
        gate: GateId::OwnClock,
        tell: |_, e| host_code(e, 3.0),
    },
    Lie {
        name: "a process that leaves a seventh of its work out of its own times",
        gate: GateId::LatencyReduction,
        tell: |_, e| host_code(e, 1.16),
    },
    Lie { name: "times without a device", gate: GateId::PhysicallyPossible, tell: |_, e| e.samples.device = None },
    Lie {
        name: "no kernel times, only call times",
        gate: GateId::TimedEverywhere,
        tell: |_, e| e.samples.blocks.retain(|b| !b.subject.is_plain(CANDIDATE) || b.mode == Mode::Call),
    },
    Lie {
        name: "timing that broke off",
        gate: GateId::TimedEverywhere,
        tell: |_, e| {
            e.samples.failures.push(crate::evidence::TimingFailure {
                shape: "mission".into(),
                subject: CANDIDATE.into(),
                why: "an illegal memory access was encountered".into(),
            });
        },
    },
    Lie {
        name: "three lucky rounds",
        gate: GateId::LatencyReduction,
        tell: |_, e| e.samples.blocks.retain(|b| b.round < 3),
    },
    Lie {
        name: "the candidate's slow rounds dropped as throttled",
        gate: GateId::LatencyReduction,
        tell: |_, e| {
            let slow = own_blocks(&mut e.samples).filter(|b| b.round % 2 == 1);
            slow.for_each(|b| b.before.throttle.push("thermal slowdown".into()));
        },
    },
    Lie {
        name: "the candidate in its own rounds, on a cooler chip",
        gate: GateId::LatencyReduction,
        tell: |_, e| own_blocks(&mut e.samples).for_each(|b| b.round += 1000),
    },
    Lie {
        name: "a control that differs from itself",
        gate: GateId::LatencyReduction,
        tell: |_, e| {
            let again = Subject::again("old");
            for block in e.samples.blocks.iter_mut().filter(|b| b.subject == again) {
                block.us.iter_mut().for_each(|us| *us *= 1.3);
            }
        },
    },
    Lie {
        name: "no second measurement of the control",
        gate: GateId::LatencyReduction,
        tell: |_, e| e.samples.blocks.retain(|b| b.subject.arm != Arm::Again),
    },
    Lie {
        name: "noise that straddles the threshold",
        gate: GateId::LatencyReduction,
        tell: |_, e| {
            for block in own_blocks(&mut e.samples) {
                let factor = if block.round % 2 == 0 { 0.8 } else { 1.2 };
                block.us.iter_mut().for_each(|us| *us = 90.0 * factor);
            }
        },
    },
    Lie {
        name: "times of zero",
        gate: GateId::LatencyReduction,
        tell: |_, e| own_blocks(&mut e.samples).for_each(|b| b.us.fill(0.0)),
    },
    Lie {
        name: "times that are NaN",
        gate: GateId::LatencyReduction,
        tell: |_, e| own_blocks(&mut e.samples).for_each(|b| b.us.fill(f64::NAN)),
    },
    Lie {
        name: "faster on inputs that are drawn like the benchmark's, and on no others",
        gate: GateId::LatencyReduction,
        tell: |s, e| {
            everywhere(s, e);
            slow_where(e, 1.25, |b| b.distribution == Distribution::Outliers);
        },
    },
    Lie {
        name: "one distribution left untimed",
        gate: GateId::TimedEverywhere,
        tell: |s, e| {
            everywhere(s, e);
            e.samples
                .blocks
                .retain(|b| !b.subject.is_plain(CANDIDATE) || b.distribution.is_normal() || b.mode == Mode::Kernel);
        },
    },
    Lie {
        name: "no call times, where no gate asks for them",
        gate: GateId::TimedEverywhere,
        tell: |_, e| e.samples.blocks.retain(|b| !b.subject.is_plain(CANDIDATE) || b.mode == Mode::Kernel),
    },
    Lie {
        name: "half again as slow on another shape",
        gate: GateId::Slowdown,
        tell: |s, e| {
            everywhere(s, e);
            slow_where(e, 1.9, |b| b.shape == "small");
        },
    },
    Lie {
        name: "slow for a caller, by the time that launching takes",
        gate: GateId::Slowdown,
        tell: |s, e| {
            everywhere(s, e);
            slow_where(e, 1.5, |b| b.mode == Mode::Call && b.cache.is_hot());
        },
    },
    Lie {
        name: "slow wherever its inputs are not in the L2",
        gate: GateId::Slowdown,
        tell: |s, e| {
            everywhere(s, e);
            slow_where(e, 1.5, |b| !b.cache.is_hot());
        },
    },
    Lie {
        name: "slow with a cold L2, and left out of those blocks",
        gate: GateId::Slowdown,
        tell: |s, e| {
            everywhere(s, e);
            e.samples.blocks.retain(|b| !b.subject.is_plain(CANDIDATE) || b.cache.is_hot());
        },
    },
    Lie {
        name: "cold blocks of the control among the hot ones",
        gate: GateId::ConsistentBlocks,
        tell: |s, e| {
            everywhere(s, e);
            let cold = e.samples.blocks.iter_mut().filter(|b| b.subject.is_plain("old"));
            cold.for_each(|b| b.cache = Default::default());
        },
    },
    Lie {
        name: "a round measured twice, the better one kept",
        gate: GateId::ConsistentBlocks,
        tell: |_, e| {
            let again = own_blocks(&mut e.samples).last().map(|b| b.clone());
            e.samples.blocks.extend(again);
        },
    },
    Lie {
        name: "rounds beyond those that the suite has, until it was lucky",
        gate: GateId::ConsistentBlocks,
        tell: |_, e| {
            let more = e.samples.blocks.to_vec();
            e.samples.blocks.extend(more.into_iter().map(|b| crate::evidence::Block {
                round: b.round + 64,
                sitting: b.sitting + 64,
                ..b
            }));
        },
    },
    Lie {
        name: "a round told as two sittings'",
        gate: GateId::ConsistentBlocks,
        tell: |_, e| {
            let calls = e.samples.blocks.iter_mut().filter(|b| b.mode == Mode::Call);
            calls.for_each(|b| b.sitting += 1);
        },
    },
    Lie {
        name: "times of somebody whom the suite does not know",
        gate: GateId::ConsistentBlocks,
        tell: |_, e| e.samples.blocks.push(testing::block("ghost", 3, Mode::Kernel, 1.0)),
    },
    Lie {
        name: "blocks without a time",
        gate: GateId::ConsistentBlocks,
        tell: |_, e| own_blocks(&mut e.samples).filter(|b| b.round == 5).for_each(|b| b.us.clear()),
    },
    Lie {
        name: "some times that are NaN: the slow ones",
        gate: GateId::ConsistentBlocks,
        tell: |_, e| own_blocks(&mut e.samples).filter(|b| b.round == 5).for_each(|b| b.us.fill(f64::NAN)),
    },
    Lie {
        name: "one lucky place told as sixteen rounds",
        gate: GateId::LatencyReduction,
        tell: |_, e| e.samples.blocks.iter_mut().for_each(|b| b.sitting = 0),
    },
    Lie {
        name: "faster in most places, slower in every third",
        gate: GateId::LatencyReduction,
        tell: |_, e| slow_where(e, 1.5, |b| b.round % 3 == 0),
    },
    Lie {
        name: "longer than the time that the suite allows on this device",
        gate: GateId::P50,
        tell: |s, _| s.absolute.push(limit_on("NVIDIA L4", 50.0)),
    },
    Lie {
        name: "timed on another device than the one whose time is asked for",
        gate: GateId::P50,
        tell: |s, _| s.absolute.push(limit_on("NVIDIA H200", 500.0)),
    },
    Lie { name: "a suite that asks nothing of its time", gate: GateId::GateOnTime, tell: |s, _| s.performance.clear() },
];
