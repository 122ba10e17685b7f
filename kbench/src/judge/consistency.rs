//! Evidence that contradicts itself, or that no run can have: it is named before anything is judged, since a gate on a
//! figure believes the figure. Recorded honestly it is never so. Leaves to others: the gates on what the figures are worth,
//! and blocks of times.

use std::collections::BTreeMap;

use super::correctness::problems;
use super::resources::work;
use super::{Evidence, left_out};
use crate::evidence::{BuildRecord, CheckedCase, EMULATOR, Errors, LaunchOutcome, OutputErrors};
use crate::gate::{Draft, Gate, GateId};
use crate::operator::{Problem, Shape};
use crate::suite::Suite;

/// Room for the rounding of sums in double precision.
const ROUNDING: f64 = 1e-6;

/// A gate for each variant whose evidence contradicts itself. What contradicts itself in the run as a whole is the control's:
/// every verdict rests on that.
pub fn judge_consistency(suite: &Suite, evidence: &Evidence) -> Vec<Gate> {
    let of = |variant: &str| {
        let mut faults = if variant == suite.control { of_the_run(suite, evidence) } else { Vec::new() };
        faults.extend(of_builds(suite, evidence, variant));
        faults.extend(of_cases(suite, evidence, variant));
        let more = faults.len().saturating_sub(1);
        let first = faults.into_iter().next()?;
        let measured = if more == 0 { first } else { format!("{first} (+{more} more)") };
        let draft = Draft::new(variant, GateId::ConsistentEvidence);
        Some(draft.holds("", measured, "evidence that a run can have", false))
    };
    suite.variant_names().filter_map(of).collect()
}

fn of_the_run(suite: &Suite, evidence: &Evidence) -> Vec<String> {
    let Evidence { builds, checks, samples, peers, .. } = evidence;
    let mut faults = Vec::new();
    let known = |variant: &str| suite.variant_names().any(|own| own == variant);
    let strangers = checks.cases.iter().filter(|case| !known(&case.variant));
    faults.extend(strangers.map(|case| format!("a case of `{}`, which is no variant of the suite", case.variant)));
    let strangers = builds.records.iter().filter(|build| !known(&build.variant));
    faults.extend(strangers.map(|build| format!("a build of `{}`, which is no variant of the suite", build.variant)));
    let states = [
        (builds.deferred.is_some() && !builds.records.is_empty(), "builds that were not built"),
        (checks.deferred.is_some() && !checks.cases.is_empty(), "cases that were not checked"),
        (checks.device.is_none() && !checks.cases.is_empty(), "cases that ran on no device"),
        (samples.deferred.is_some() && !samples.blocks.is_empty(), "times that were not taken"),
        (samples.device.is_none() && !samples.blocks.is_empty(), "times of no device"),
    ];
    faults.extend(states.iter().filter(|(holds, _)| *holds).map(|(_, what)| (*what).to_owned()));
    if let (Some(device), false) = (&samples.device, samples.blocks.is_empty())
        && checks.device.as_ref().is_some_and(|ran| ran != EMULATOR && *ran != format!("gpu: {}", device.name))
    {
        let checked = checks.device.as_deref().unwrap_or_default();
        faults.push(format!("times of {}, and cases of {checked}", device.name));
    }
    let mut seen = Vec::new();
    for backend in &peers.backends {
        let of = format!("{} on {}", backend.subject, backend.distribution.on(&backend.shape));
        let Ok(shape) = suite.shape(&backend.shape) else {
            faults.push(format!("{of}: there is no such shape"));
            continue;
        };
        if let Some(errors) = &backend.errors {
            faults.extend(of_errors(suite, &shape, errors, None).into_iter().map(|fault| format!("{of}: {fault}")));
        }
        let which = (&backend.subject, &backend.shape, backend.distribution);
        if seen.contains(&which) {
            faults.push(format!("{of} twice"));
        }
        seen.push(which);
    }
    faults
}

fn of_builds(suite: &Suite, evidence: &Evidence, variant: &str) -> Vec<String> {
    let builds = &evidence.builds;
    let own: Vec<&BuildRecord> = builds.records.iter().filter(|build| build.variant == variant).collect();
    let mut faults = Vec::new();
    // Of a gate file's variant there is a build for each set of values that reaches the compiler.
    let id =
        |b: &BuildRecord| (b.arch.clone(), if suite.operator.is_attention() { String::new() } else { b.key.clone() });
    let twice = own.iter().enumerate().find(|(i, build)| own[..*i].iter().any(|other| id(other) == id(build)));
    faults.extend(twice.map(|(_, build)| format!("two builds for {}", build.arch)));
    for build in &own {
        let name = |entry: &crate::evidence::EntryBuild| entry.launch.entry.clone();
        let names: Vec<String> = build.entries.iter().map(name).collect();
        if names.is_empty() != build.language.is_host_code() {
            let has = if names.is_empty() { "without an" } else { "of host code with an" };
            faults.push(format!("a build for {} {has} entry function", build.arch));
        }
        if let Some(name) = names.iter().enumerate().find_map(|(i, name)| names[..i].contains(name).then_some(name)) {
            faults.push(format!("entry `{name}` twice in the build for {}", build.arch));
        }
        for entry in &build.entries {
            let (said, own) = (&entry.resources, &entry.launch.entry);
            if said.entry != *own {
                faults.push(format!("resources of `{}` stand for `{own}` of the build for {}", said.entry, build.arch));
            }
        }
        if suite.operator.is_attention()
            && !build.language.is_host_code()
            && let Some(shape) = suite.check().into_iter().find(|shape| build.entry(shape).is_none())
        {
            faults.push(format!("no entry function for {} in the build for {}", shape.name, build.arch));
        }
    }
    faults.extend(build_that_ran(evidence, &own));
    faults.extend(twin(suite, evidence, variant));
    faults
}

/// What ran on a GPU was built for it.
fn build_that_ran(evidence: &Evidence, own: &[&BuildRecord]) -> Option<String> {
    let device = evidence.samples.device.as_ref()?;
    let ran = evidence.checks.device.as_deref().is_some_and(|checked| checked != EMULATOR);
    let arch = device.arch();
    // Code for sm_90a runs on sm_90.
    let is_for_it = |build: &&&BuildRecord| build.arch == arch || build.arch.strip_suffix('a') == Some(&arch);
    let lacks = ran && !own.is_empty() && own.iter().find(is_for_it).is_none();
    lacks.then(|| format!("no build for {arch}, on which it ran"))
}

/// A candidate whose every entry is an earlier candidate's: one binary under two names is measured as two.
fn twin(suite: &Suite, evidence: &Evidence, variant: &str) -> Option<String> {
    let code = |name: &str| work(&evidence.builds, name);
    let own = code(variant);
    let place = suite.candidates.iter().position(|candidate| candidate.variant == variant)?;
    let earlier = suite.candidates[..place].iter().find(|other| !own.is_empty() && code(&other.variant) == own)?;
    Some(format!("the same machine code as `{}`, which is another candidate", earlier.variant))
}

fn of_cases(suite: &Suite, evidence: &Evidence, variant: &str) -> Vec<String> {
    let checks = &evidence.checks;
    if left_out(suite, &evidence.builds, variant).is_some() {
        return Vec::new();
    }
    let is_emulated = checks.device.as_deref() == Some(EMULATOR);
    let planned = problems(suite);
    let mut seen: BTreeMap<&Problem, ()> = BTreeMap::new();
    let mut faults = Vec::new();
    for case in checks.cases.iter().filter(|case| case.variant == variant) {
        let problem = &case.launch.problem;
        let mut fault = |what: String| faults.push(format!("{}: {what}", problem.id()));
        if seen.insert(problem, ()).is_some() {
            fault("twice".to_owned());
        }
        if !planned.contains(problem) {
            fault("no problem of the plan".to_owned());
        }
        of_launch(&case.launch, is_emulated).into_iter().for_each(&mut fault);
        of_comparison(suite, case).into_iter().for_each(&mut fault);
    }
    faults
}

fn of_launch(launch: &LaunchOutcome, is_emulated: bool) -> Vec<String> {
    let part = launch.sampled_ctas;
    let states = [
        (launch.failure.is_some() && launch.output_sha256.is_some(), "an output of a launch that failed"),
        (launch.failure.is_none() && launch.output_sha256.is_none(), "neither an output nor a failure"),
        (launch.output_sha256.as_ref().is_some_and(String::is_empty), "an output without a hash"),
        (launch.deferred.is_some() && launch.failure.is_none(), "deferred, and run"),
        (launch.replays.is_some_and(|r| r.different > r.count), "more replays that differ than there were"),
        (part.is_some_and(|(ran, of)| ran == 0 || ran > of), "a part of the CTAs that cannot be"),
        (part.is_some() && !is_emulated, "a part of the CTAs, on a GPU that runs all"),
    ];
    states.into_iter().filter(|(holds, _)| *holds).map(|(_, what)| what.to_owned()).collect()
}

fn of_comparison(suite: &Suite, case: &CheckedCase) -> Vec<String> {
    let Some(errors) = &case.errors else { return Vec::new() };
    let mut faults = of_errors(suite, &case.launch.problem.shape, errors, case.launch.sampled_ctas);
    if case.launch.output_sha256.is_none() {
        faults.push("errors without an output".to_owned());
    }
    if case.variant == suite.control && errors.from_control_max.is_some_and(|difference| difference != 0.0) {
        faults.push("the control differs from itself".to_owned());
    }
    faults
}

/// What is wrong with errors, whatever they are errors of; of how many CTAs of the grid, where the emulator ran a part.
fn of_errors(suite: &Suite, shape: &Shape, errors: &Errors, ctas: Option<(u32, u32)>) -> Vec<String> {
    let mut faults = elements(suite, shape, errors, ctas);
    let not_finite = errors.nan + errors.inf;
    if not_finite > errors.elements {
        faults.push(format!("{not_finite} of {} elements are not finite", errors.elements));
    }
    let figures = [
        ("kernel error max", errors.kernel_max),
        ("kernel error mean", errors.kernel_mean),
        ("floor max", errors.floor_max),
        ("floor mean", errors.floor.map_or(0.0, |floor| floor.mean)),
        ("floor's share of bad elements", errors.floor.map_or(0.0, |floor| floor.bad_share)),
        ("end-to-end max", errors.end_to_end_max),
        ("end-to-end mean", errors.end_to_end_mean),
        ("end-to-end rms", errors.end_to_end_rms.unwrap_or(0.0)),
        ("share of bad elements", errors.bad_share),
        ("largest reference", errors.reference_amax),
        ("difference from the control", errors.from_control_max.unwrap_or(0.0)),
    ];
    faults.extend(figures.iter().filter(|(_, value)| *value < 0.0).map(|(what, value)| format!("{what} is {value}")));
    if errors.bad_share > 1.0 {
        faults.push(format!("share of bad elements is {}", errors.bad_share));
    }
    // Figures are over finite elements, and of none of them where there is none.
    if let Some(floor) = &errors.floor {
        faults.extend(mean_and_max("floor", floor.mean, errors.floor_max, errors.elements));
        if floor.bad_share * suite.correctness.bad_element > floor.mean * (1.0 + ROUNDING) {
            faults.push(format!("floor: a mean of {} leaves no share of {} bad elements", floor.mean, floor.bad_share));
        }
    }
    if not_finite == 0 {
        faults.extend(mean_and_max("kernel error", errors.kernel_mean, errors.kernel_max, errors.elements));
        faults.extend(mean_and_max("end-to-end error", errors.end_to_end_mean, errors.end_to_end_max, errors.elements));
    }
    faults.extend(errors.outputs.iter().flat_map(of_output));
    faults
}

/// As many elements as the shape has, or as the rows that were compared; the worst of them among them.
fn elements(suite: &Suite, shape: &Shape, errors: &Errors, ctas: Option<(u32, u32)>) -> Vec<String> {
    let Some(outputs) = suite.operator.outputs(shape) else { return vec!["a shape without outputs".to_owned()] };
    let count = |extents: &[u64]| extents.iter().product::<u64>();
    let whole: u64 = outputs.iter().map(|(_, extents)| count(extents)).sum();
    let mut faults = Vec::new();
    match &errors.sampled_rows {
        None if ctas.is_some_and(|part| is_part(suite, shape, errors.elements, whole, part)) => {}
        None if errors.elements != whole => {
            faults.push(format!("{} elements were compared, the shape has {whole}", errors.elements));
        }
        None => {}
        Some(rows) => faults.extend(sampled(suite, shape, errors, rows)),
    }
    if !suite.operator.is_attention() {
        let named = errors.outputs.iter().map(|o| (o.output.clone(), o.elements));
        let wanted = outputs.iter().map(|(name, extents)| (name.clone(), count(extents)));
        // A checker has figures of its own instead.
        if !errors.outputs.is_empty() && named.ne(wanted) {
            faults.push("other outputs were compared than the operator has".to_owned());
        }
    } else if !errors.worst_at.iter().map(|at| u64::from(*at)).zip(&outputs[0].1).all(|(at, extent)| at < *extent)
        || errors.worst_at.len() != outputs[0].1.len()
    {
        faults.push(format!("the worst element is at {:?}, which is nowhere", errors.worst_at));
    }
    faults
}

/// Whether so many elements can be what a part of the grid computes, which is that part of the output, to within as much again:
/// tiles at an edge are smaller, and a CTA may take several. Rows are whole. Only the emulator runs a part (`of_launch`).
fn is_part(suite: &Suite, shape: &Shape, elements: u64, whole: u64, (ran, all): (u32, u32)) -> bool {
    let wanted = whole as f64 / f64::from(all.max(1)) * f64::from(ran);
    let is_near = (elements as f64 - wanted).abs() <= wanted;
    let width = suite.operator.row_elements(shape).unwrap_or(1);
    elements > 0 && elements <= whole && elements.is_multiple_of(width.max(1)) && is_near
}

/// A part of the rows, where the suite has only a part of them compared: enough of them, each once.
fn sampled(suite: &Suite, shape: &Shape, errors: &Errors, rows: &[[u32; 2]]) -> Vec<String> {
    let (Some(large), Some(all), Some(width)) =
        (suite.large(&shape.name), suite.operator.rows(shape), suite.operator.row_elements(shape))
    else {
        return vec![format!("{} rows were compared, and all are wanted", rows.len())];
    };
    let mut faults = Vec::new();
    let mut sorted = rows.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    let per_head = suite.operator.outputs(shape).and_then(|o| o[0].1.iter().rev().nth(1).copied()).unwrap_or(0);
    let outside = |[head, row]: &[u32; 2]| u64::from(*row) >= per_head || u64::from(*head) * per_head >= all as u64;
    if sorted.len() != rows.len() || rows.is_empty() || rows.iter().any(outside) {
        faults.push("rows that are none, or named twice, or that the shape does not have".to_owned());
    }
    let compared = errors.elements / width.max(1);
    // They are drawn, so that a few of them may be the same one.
    let wanted = u64::from(large.reference_rows).min(all as u64) / 2;
    if !errors.elements.is_multiple_of(width.max(1))
        || compared < wanted.max(rows.len() as u64)
        || compared > all as u64
    {
        let count = errors.elements;
        faults.push(format!("{count} elements were compared: not the rows that the suite wants of this shape"));
    }
    faults
}

/// The mean of so many numbers that are not negative lies between the largest over their count and the largest.
fn mean_and_max(what: &str, mean: f64, max: f64, elements: u64) -> Option<String> {
    let least = max / elements.max(1) as f64;
    // What is no number passes no gate, which is said there.
    let is_between = mean <= max * (1.0 + ROUNDING) && mean >= least * (1.0 - ROUNDING);
    (mean.is_finite() && max.is_finite() && !is_between)
        .then(|| format!("{what}: a mean of {mean} with a largest of {max} cannot be"))
}

/// What of the errors of one output against two references was changed without the rest: the three are sides of a triangle,
/// element by element. No gate: it tells of an edit, and not of a kernel.
pub fn edited_errors(suite: &Suite, errors: &Errors) -> Vec<String> {
    if !suite.operator.is_attention() || errors.nan + errors.inf > 0 {
        return Vec::new();
    }
    let Errors { kernel_max: kernel, floor_max: floor, end_to_end_max: end_to_end, .. } = *errors;
    let room = ROUNDING * (kernel + floor + end_to_end);
    let mut faults = Vec::new();
    let sides = [kernel, floor, end_to_end];
    if sides.iter().any(|side| 2.0 * side > sides.iter().sum::<f64>() + room) {
        faults.push(format!(
            "kernel error {kernel}, floor {floor} and end-to-end error {end_to_end} contradict each other"
        ));
    }
    if (end_to_end > suite.correctness.bad_element) != (errors.bad_share > 0.0) {
        faults.push(format!("a share of bad elements of {} with a largest error of {end_to_end}", errors.bad_share));
    }
    faults
}

fn of_output(errors: &OutputErrors) -> Vec<String> {
    let name = &errors.output;
    let figures = [
        ("max", errors.max),
        ("mean", errors.mean),
        ("relative", errors.relative),
        ("relative_rms", errors.relative_rms),
        ("row_relative", errors.row_relative),
        ("reference_amax", errors.reference_amax),
    ];
    let mut faults: Vec<String> = figures
        .iter()
        .filter(|(_, value)| *value < 0.0)
        .map(|(what, value)| format!("{name}: {what} is {value}"))
        .collect();
    if errors.wrong > errors.elements {
        faults.push(format!("{name}: {} of {} elements are wrong", errors.wrong, errors.elements));
    }
    if errors.wrong == 0 {
        faults.extend(mean_and_max(name, errors.mean, errors.max, errors.elements));
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::{Verdict, decide};
    use crate::evidence::PeerBackend;
    use crate::judge::{judge, testing};
    use crate::suite::Candidate;

    fn own_case(evidence: &mut Evidence) -> &mut CheckedCase {
        evidence.checks.cases.iter_mut().find(|case| case.variant == "new").unwrap()
    }

    fn own_errors(evidence: &mut Evidence) -> &mut Errors {
        own_case(evidence).errors.as_mut().unwrap()
    }

    fn own_build(evidence: &mut Evidence) -> &mut BuildRecord {
        evidence.builds.records.iter_mut().find(|build| build.variant == "new").unwrap()
    }

    #[test]
    fn a_part_of_the_grid_computes_that_part_of_the_output() {
        let suite = testing::suite();
        let shape = suite.shape("mission").unwrap();
        let whole: u64 = suite.operator.outputs(&shape).unwrap()[0].1.iter().product();
        let is = |elements| is_part(&suite, &shape, elements, whole, (32, 128));
        assert!(is(whole / 4) && is(whole / 4 - 64) && is(whole / 4 + 64));
        for elements in [0, 1, whole / 4 + 1, whole, 2 * whole] {
            assert!(!is(elements), "{elements} of {whole}");
        }
    }

    /// What is said of evidence with one thing changed, of the variant that it is said of.
    fn said(change: impl FnOnce(&mut Suite, &mut Evidence)) -> Vec<(String, String)> {
        let (mut suite, mut evidence) = (testing::suite(), testing::evidence());
        change(&mut suite, &mut evidence);
        let gates = judge_consistency(&suite, &evidence);
        // Whatever is found, nothing is merged.
        let all = judge(&suite, &evidence);
        let decision = decide(&suite, &all, &evidence.checks, &evidence.samples);
        let merged = decision.candidates.iter().any(|c| c.variant == "new" && c.verdict == Verdict::Merge);
        assert!(gates.is_empty() || !merged || gates.iter().all(|gate| gate.variant == "newer"), "{gates:?}");
        gates.into_iter().map(|gate| (gate.variant, gate.measured)).collect()
    }

    #[test]
    fn honest_evidence_contradicts_nothing() {
        assert_eq!(said(|_, _| {}), []);
        assert_eq!(said(|_, e| own_errors(e).kernel_max = f64::NAN), [], "that is a gate's to say");
        assert_eq!(said(|_, e| own_errors(e).nan = 5), []);
    }

    #[test]
    fn figures_that_cannot_be_are_named() {
        type Change = fn(&mut Errors);
        let cases: [(Change, &str); 12] = [
            (|e| e.elements = 0, "0 elements were compared, the shape has 524288"),
            (|e| e.elements = 1, "1 elements were compared, the shape has 524288"),
            (|e| e.kernel_max = -1.0, "kernel error max is -1"),
            (|e| e.end_to_end_mean = -0.5, "end-to-end mean is -0.5"),
            (|e| e.from_control_max = Some(-1.0), "difference from the control is -1"),
            (|e| e.kernel_mean = 0.5, "kernel error: a mean of 0.5 with a largest of 0.002 cannot be"),
            (|e| e.kernel_mean = 0.0, "kernel error: a mean of 0 with a largest of 0.002 cannot be"),
            (|e| e.bad_share = 1.5, "share of bad elements is 1.5"),
            (|e| e.nan = 1 << 40, "1099511627776 of 524288 elements are not finite"),
            (|e| e.worst_at = vec![2, 0, 0, 0], "the worst element is at [2, 0, 0, 0], which is nowhere"),
            (|e| e.worst_at = vec![], "the worst element is at [], which is nowhere"),
            (|e| e.sampled_rows = Some(vec![[0, 0]]), "1 rows were compared, and all are wanted"),
        ];
        for (change, wanted) in cases {
            let found = said(|_, e| change(own_errors(e)));
            assert!(
                matches!(found.as_slice(), [(who, what)] if who == "new" && what.contains(wanted)),
                "{wanted}: {found:?}"
            );
        }
    }

    #[test]
    fn cases_are_those_of_the_plan_each_once_and_ended_in_one_way() {
        let twice = said(|_, e| {
            let case = own_case(e).clone();
            e.checks.cases.push(case);
        });
        assert_eq!(twice, [("new".to_owned(), "mission.seed0.normal: twice".to_owned())]);
        let unplanned = said(|_, e| own_case(e).launch.problem.seed = 77);
        assert!(unplanned[0].1.contains("mission.seed77.normal: no problem of the plan"), "{unplanned:?}");
        let stranger = said(|_, e| own_case(e).variant = "who".into());
        assert_eq!(stranger[0].0, "old", "the run's faults are the control's: {stranger:?}");
        assert!(stranger[0].1.contains("a case of `who`, which is no variant of the suite"));
        let both = said(|_, e| own_case(e).launch.failure = Some("lost".into()));
        assert!(both[0].1.contains("an output of a launch that failed"), "{both:?}");
        let neither = said(|_, e| own_case(e).launch.output_sha256 = None);
        assert!(neither[0].1.contains("neither an output nor a failure (+1 more)"), "{neither:?}");
        let part = said(|_, e| own_case(e).launch.sampled_ctas = Some((1, 9)));
        assert!(part[0].1.contains("on a GPU that runs all"), "{part:?}");
        let itself = said(|_, e| e.checks.cases[0].errors.as_mut().unwrap().from_control_max = Some(0.1));
        assert!(itself[0].1.contains("the control differs from itself"), "{itself:?}");
    }

    #[test]
    fn builds_are_one_for_a_chip_with_every_entry_and_no_two_candidates_are_one() {
        let twice = said(|_, e| {
            let build = own_build(e).clone();
            e.builds.records.push(build);
        });
        assert_eq!(twice, [("new".to_owned(), "two builds for sm_89".to_owned())]);
        let lacks = said(|_, e| drop(own_build(e).entries.pop()));
        assert_eq!(lacks[0].1, "no entry function for wide in the build for sm_89");
        let none = said(|_, e| own_build(e).entries.clear());
        assert!(none[0].1.contains("a build for sm_89 without an entry function"), "{none:?}");
        let foreign = said(|_, e| own_build(e).entries[0].resources.entry = "other".into());
        assert!(foreign[0].1.contains("resources of `other` stand for `sdpa_fwd_d64`"), "{foreign:?}");
        let elsewhere = said(|_, e| e.samples.device.as_mut().unwrap().capability = (9, 0));
        assert_eq!(elsewhere.len(), 2, "control and candidate: {elsewhere:?}");
        assert!(elsewhere[1].1.contains("no build for sm_90, on which it ran"));
        let twins = said(|suite, e| {
            suite.candidates.push(Candidate::of("newer"));
            let twin = BuildRecord { variant: "newer".into(), ..own_build(e).clone() };
            e.builds.records.push(twin);
        });
        assert_eq!(
            twins,
            [("newer".to_owned(), "the same machine code as `new`, which is another candidate".to_owned())]
        );
    }

    #[test]
    fn what_was_not_done_has_no_results_and_peers_are_held_to_the_same() {
        use crate::deferral::Deferral;
        let unchecked = said(|_, e| e.checks.deferred = Some(Deferral::because("no")));
        assert_eq!(unchecked[0], ("old".to_owned(), "cases that were not checked".to_owned()));
        let untimed = said(|_, e| e.samples.deferred = Some(Deferral::because("no")));
        assert_eq!(untimed[0].1, "times that were not taken");
        let nowhere = said(|_, e| e.checks.device = None);
        assert!(nowhere[0].1.contains("cases that ran on no device"), "{nowhere:?}");
        let emulated = said(|_, e| e.checks.device = Some("gpu: NVIDIA B200".into()));
        assert!(emulated[0].1.contains("times of NVIDIA L4, and cases of gpu: NVIDIA B200"), "{emulated:?}");
        let peer = said(|_, e| {
            let errors = Some(Errors { elements: 1, ..testing::errors() });
            e.peers.backends.push(PeerBackend {
                shape: "mission".into(),
                distribution: crate::operator::Distribution::Normal,
                subject: "torch/flash".into(),
                kernels: vec![],
                resolved: None,
                unavailable: None,
                errors,
            });
        });
        assert!(peer[0].1.contains("torch/flash on mission: 1 elements were compared"), "{peer:?}");
    }

    #[test]
    fn a_part_of_the_rows_is_enough_of_them_each_once() {
        let with_rows = |rows: Vec<[u32; 2]>, elements: u64| {
            said(move |suite, e| {
                suite.large =
                    Some(crate::suite::LargeShapes { shapes: vec!["mission".into()], reference_rows: 8, rounds: 8 });
                e.checks
                    .cases
                    .retain(|case| case.launch.problem.shape.name == "mission" && case.launch.problem.seed == 0);
                suite.check_shapes = vec!["mission".into()];
                suite.stress_shapes.clear();
                let errors = own_errors(e);
                (errors.sampled_rows, errors.elements) = (Some(rows), elements);
            })
        };
        let rows: Vec<[u32; 2]> = (0..8).map(|i| [i, 100 + i]).collect();
        assert_eq!(with_rows(rows.clone(), 8 * 64), []);
        assert!(with_rows(rows[..1].to_vec(), 64)[0].1.contains("not the rows that the suite wants"));
        assert!(with_rows([&rows[..], &rows[..1]].concat(), 9 * 64)[0].1.contains("named twice"));
        assert!(with_rows(vec![[16, 0]; 1], 8 * 64)[0].1.contains("that the shape does not have"));
        assert!(with_rows(rows, 1)[0].1.contains("not the rows that the suite wants"));
    }
}
