//! Honest states of affairs, and the verdict that each deserves: a judge that refuses everybody catches every lie.

use super::{CANDIDATE, Honest, beside_a_rival, everywhere, hint, host_code, made_of, one_case, own_build, slow_where};
use crate::decision::Verdict;
use crate::deferral::Deferral;
use crate::evidence::{BuildFailure, Checks, Mode, Samples};
use crate::judge::testing;
use crate::subject::Subject;
use crate::suite::MachineCode;

pub(super) const HONEST: &[Honest] = &[
    Honest { name: "right, and 20% faster", verdict: Verdict::Merge, set: |_, _| {} },
    Honest {
        name: "right, and 3% faster where 10% is asked",
        verdict: Verdict::ValidNegative,
        set: |_, e| e.samples = testing::samples(100.0, 97.0),
    },
    Honest {
        name: "right, and slower",
        verdict: Verdict::ValidNegative,
        set: |_, e| e.samples = testing::samples(100.0, 130.0),
    },
    Honest {
        name: "right, on a machine without a GPU",
        verdict: Verdict::Defer,
        set: |_, e| e.samples = Samples { deferred: Some(Deferral::new("no GPU", "run on one")), ..Samples::default() },
    },
    Honest {
        name: "right, on a chip that has another product than the one that the suite is about",
        verdict: Verdict::Defer,
        set: |suite, e| {
            suite.machine_code = Some(MachineCode { require: vec!["QMMA".into()], forbid: vec![] });
            let other = own_build(e).map(|build| {
                made_of(build, "QMMA");
                let mut other = build.clone();
                other.arch = "sm_90".into();
                made_of(&mut other, "HMMA");
                other
            });
            e.builds.records.extend(other);
        },
    },
    Honest { name: "right, 20% faster, and host code", verdict: Verdict::Merge, set: |_, e| host_code(e, 1.005) },
    Honest {
        name: "right, 20% faster, and host code whose clock leaves a twentieth unexplained",
        verdict: Verdict::Merge,
        set: |_, e| host_code(e, 1.05),
    },
    Honest {
        name: "right, faster, and host code of which no graph can be made",
        verdict: Verdict::Defer,
        set: |_, e| {
            host_code(e, 1.0);
            e.samples.blocks.retain(|b| !b.subject.is_plain(CANDIDATE) || b.mode == Mode::Call);
            let code = e.samples.host_code.entry(CANDIDATE.to_owned()).or_default();
            code.not_captured.insert("mission".into(), "it waits for the device".into());
        },
    },
    Honest {
        name: "wrong, and fast",
        verdict: Verdict::Fix,
        set: |_, e| one_case(e, |errors| errors.kernel_max = 2.4),
    },
    Honest {
        name: "right, and 8% faster where 10% is asked",
        verdict: Verdict::ValidNegative,
        set: |_, e| e.samples = testing::samples(100.0, 92.0),
    },
    Honest {
        name: "right, and faster in every distribution, by both timers, hot and cold",
        verdict: Verdict::Merge,
        set: everywhere,
    },
    Honest {
        name: "right, faster where it is asked, and 1% slower on another shape",
        verdict: Verdict::Merge,
        set: |s, e| {
            everywhere(s, e);
            slow_where(e, 1.01 / 0.8, |b| b.shape == "small");
        },
    },
    Honest {
        name: "right, in a run whose control differs from itself by half a percent",
        verdict: Verdict::Merge,
        set: |_, e| {
            let again = e.samples.blocks.iter_mut().filter(|b| b.subject == Subject::again("old"));
            again.for_each(|b| b.us.iter_mut().for_each(|us| *us *= 1.005));
        },
    },
    Honest {
        name: "right, in places that change its time by 3%",
        verdict: Verdict::Merge,
        set: |_, e| slow_where(e, 1.03, |b| b.sitting % 2 == 0),
    },
    Honest {
        name: "right, with two rounds in which the clock was held down",
        verdict: Verdict::Merge,
        set: |_, e| {
            let held = e.samples.blocks.iter_mut().filter(|b| b.round < 2);
            held.for_each(|b| b.before.throttle.push("thermal slowdown".into()));
        },
    },
    Honest {
        name: "right, on a chip that the control does not claim",
        verdict: Verdict::Defer,
        set: |_, e| {
            let why = Deferral::new("`old` claims sm_89 and newer", "run on a newer GPU");
            e.builds.failures.push(BuildFailure {
                variant: "old".into(),
                arch: "sm_80".into(),
                error: why.to_string(),
                unclaimed: Some(why.clone()),
            });
            e.checks = Checks { deferred: Some(why.clone()), ..Checks::default() };
            e.samples = Samples { deferred: Some(why), ..Samples::default() };
        },
    },
    Honest {
        name: "right, with a hint that data may leave the L2",
        verdict: Verdict::Merge,
        set: |_, e| hint(e, "ld L2::evict_first"),
    },
    Honest { name: "right, and faster than a rival", verdict: Verdict::Merge, set: beside_a_rival },
    Honest {
        name: "right, measured in one sitting, as runs were before",
        verdict: Verdict::Merge,
        set: |s, e| {
            (s.timing.sittings, s.timing.max_rounds) = (1, 64);
            e.samples.blocks.iter_mut().for_each(|b| b.sitting = 0);
        },
    },
];
