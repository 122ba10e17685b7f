//! Lies about the run: part of it told as the whole, and rivals that were not there.

use super::super::{CANDIDATE, Lie, beside_a_rival, compare_with_a_rival};
use crate::deferral::Deferral;
use crate::evidence::Mode;
use crate::gate::GateId;
use crate::judge::testing;
use crate::operator::Distribution;
use crate::subject::Subject;
use crate::suite::PeerAccuracy;

pub(in super::super) const LIES: &[Lie] = &[
    Lie {
        name: "a rival whose error was never measured",
        gate: GateId::PeerErrorMean,
        tell: |s, _| compare_with_a_rival(s),
    },
    Lie {
        name: "a rival's mean, and one element twice as far off as its worst",
        gate: GateId::PeerErrorMax,
        tell: |s, e| {
            compare_with_a_rival(s);
            let own = testing::errors();
            e.peers.backends.push(crate::evidence::PeerBackend {
                shape: "mission".into(),
                distribution: Distribution::Normal,
                subject: "cudnn/fp8".into(),
                kernels: vec![],
                resolved: None,
                unavailable: None,
                errors: Some(crate::evidence::Errors { end_to_end_max: own.end_to_end_max / 2.0, ..own }),
            });
        },
    },
    Lie {
        name: "a rival that is nearer the originals by a tenth, in the root of the mean square",
        gate: GateId::PeerErrorRms,
        tell: |s, e| {
            beside_a_rival(s, e);
            if let Some(limit) = &mut s.peers {
                limit.accuracy = Some(PeerAccuracy { peer: "cudnn/fp8".into(), max_ratio: 1.03 });
            }
            let errors = e.peers.backends.iter_mut().filter_map(|b| b.errors.as_mut());
            errors.for_each(|x| x.end_to_end_rms = x.end_to_end_rms.map(|rms| 0.9 * rms));
        },
    },
    Lie {
        name: "emulated results and a GPU's times",
        gate: GateId::SeenOnAGpu,
        tell: |_, e| e.checks.device = Some(crate::evidence::EMULATOR.into()),
    },
    Lie {
        name: "part of the suite",
        gate: GateId::WholeSuite,
        tell: |s, _| s.narrowed.push(Deferral::new("only small was run", "run without --shapes")),
    },
    Lie {
        name: "peers that were asked for and did not run",
        gate: GateId::PeersMeasured,
        tell: |_, e| e.peers.wanted = true,
    },
    Lie {
        name: "a rival that makes smaller errors on average",
        gate: GateId::PeerErrorMean,
        tell: |s, e| {
            beside_a_rival(s, e);
            e.peers.backends.iter_mut().filter_map(|b| b.errors.as_mut()).for_each(|x| x.end_to_end_mean *= 0.9);
        },
    },
    Lie {
        name: "a rival whose worst element is closer",
        gate: GateId::PeerErrorMax,
        tell: |s, e| {
            beside_a_rival(s, e);
            e.peers.backends.iter_mut().filter_map(|b| b.errors.as_mut()).for_each(|x| x.end_to_end_max *= 0.9);
        },
    },
    Lie {
        name: "a rival that is faster",
        gate: GateId::FasterThanPeers,
        tell: |s, e| {
            beside_a_rival(s, e);
            let peers = e.samples.blocks.iter_mut().filter(|b| b.subject.is_peer());
            peers.for_each(|b| b.us.iter_mut().for_each(|us| *us *= 0.5));
        },
    },
    Lie {
        name: "faster than a rival until its inputs must be quantised",
        gate: GateId::FromOriginals,
        tell: |s, e| {
            beside_a_rival(s, e);
            if let Some(limit) = &mut s.peers {
                limit.from_originals.push("mission".into());
            }
            let blocks = |round| testing::block(Subject::from_originals(CANDIDATE), round, Mode::Kernel, 140.0);
            e.samples.blocks.extend((0..16).map(blocks));
        },
    },
    Lie {
        name: "the one rival that would have won is not installed",
        gate: GateId::PeerMeasured,
        tell: |_, e| {
            e.peers.missing.insert("fa3".into(), Deferral::new("it is not installed", "install it"));
        },
    },
    Lie {
        name: "a profile that was asked for and not made",
        gate: GateId::Profile,
        tell: |s, e| {
            s.profile.push(crate::suite::ProfileLimit {
                shape: "mission".into(),
                candidate: None,
                min_tensor_percent: 50.0,
                or_dram_below_percent: None,
            });
            e.profile = Some(crate::profile::Profile { deferred: None, settings: None, kernels: vec![] });
        },
    },
];
