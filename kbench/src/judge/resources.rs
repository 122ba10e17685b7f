//! Gates on builds: it compiles, it is what it says it is, it is not the control under another name, and ptxas' figures
//! are within limits.

use crate::deferral::Deferral;
use crate::evidence::{BuildRecord, Builds, EntryBuild, Operands};
use crate::gate::{Draft, Gate, GateId, Unit};
use crate::suite::Suite;

/// Opt-in shared memory of a CTA by architecture, in bytes (CUDA C programming guide, compute capabilities).
const CHIP_SHARED_BYTES: &[(&str, u32)] =
    &[("sm_80", 166_912), ("sm_86", 101_376), ("sm_89", 101_376), ("sm_90", 232_448), ("sm_90a", 232_448)];

/// The most shared memory that a CTA may have on chips of an architecture, in bytes, where that is known.
pub fn chip_shared_bytes(arch: &str) -> Option<u32> {
    CHIP_SHARED_BYTES.iter().find(|(known, _)| *known == arch).map(|(_, bytes)| *bytes)
}

/// Build, identity and resource gates of every variant of the suite.
pub fn judge_builds(suite: &Suite, builds: &Builds) -> Vec<Gate> {
    suite.variant_names().flat_map(|variant| judge_variant(suite, builds, variant)).collect()
}

fn judge_variant(suite: &Suite, builds: &Builds, variant: &str) -> Vec<Gate> {
    let draft = |id| Draft::new(variant, id);
    let compiles = draft(GateId::Compiles);
    if let Some(why) = super::not_tried(suite, builds, variant) {
        return vec![compiles.deferred("built", Deferral::because(why))];
    }
    if let Some(deferral) = &builds.deferred {
        return vec![compiles.deferred("no error", deferral.clone())];
    }
    let unclaimed = builds.unclaimed(variant).and_then(|f| Some((&f.arch, f.unclaimed.clone()?)));
    if let Some((arch, why)) = &unclaimed
        && **arch == suite.arch
    {
        return vec![compiles.deferred("no error", why.clone())];
    }
    let failed = builds.failures.iter().find(|f| f.variant == variant && f.unclaimed.is_none());
    if let Some(failure) = failed {
        return vec![compiles.holds(&failure.arch, failure.error.as_str(), "no error", false)];
    }
    let Some(record) = builds.get(variant, &suite.arch) else {
        return vec![compiles.holds(&suite.arch, "no build record", "no error", false)];
    };
    if record.language.is_host_code() {
        // Nothing was compiled of it here, and what it launches is not looked into: it is only not the control itself.
        let own = || distinct_work(&draft(GateId::OwnMachineCode), suite, builds, variant);
        return (variant != suite.control).then(own).into_iter().collect();
    }
    let mut gates = vec![compiles.holds(&suite.arch, "yes", "no error", true)];
    gates.extend(unclaimed.map(|(_, why)| compiles.deferred("no error for the device", why)));
    // A kernel of a gate file says nothing of itself, so there is no echo to ask for.
    if suite.operator.is_attention() {
        gates.push(toggle_echo(&draft(GateId::ToggleEcho), builds, variant));
    }
    if variant != suite.control {
        let draft = draft(GateId::OwnMachineCode);
        gates.push(match suite.operator.is_attention() {
            true => distinct_code(&draft, suite, builds, variant),
            false => distinct_work(&draft, suite, builds, variant),
        });
    }
    gates.push(stateless(&draft(GateId::NoMemoryBetweenLaunches), builds, variant));
    // A variant of a gate file has a build for each set of values that reaches its compiler.
    for record in builds.all(variant, &suite.arch) {
        gates.extend(resource_gates(suite, record));
    }
    gates.extend(other_arch_spills(suite, builds, variant));
    gates.extend(serialised_gate(&draft(GateId::WgmmaPipelining), record));
    if suite.candidates.iter().any(|c| c.variant == variant) {
        gates.extend(machine_code_gate(&draft(GateId::MachineCode), suite, builds, record));
        gates.extend(other_machine_code_gate(&draft(GateId::MachineCodeAsRun), suite, builds));
    }
    gates
}

/// The instructions that make the kernel what it says it is, counted in what really runs, and none of those that give
/// away what ptxas does not report.
fn machine_code_gate(draft: &Draft, suite: &Suite, builds: &Builds, record: &BuildRecord) -> Option<Gate> {
    let wanted = suite.machine_code.as_ref()?;
    let mut rule = format!("{} in every attention entry", wanted.require.join(", "));
    if !wanted.forbid.is_empty() {
        rule = format!("{rule}; no {}", wanted.forbid.join(", "));
    }
    let Some(instructions) = &record.instructions else {
        let unknown = || Deferral::new("the build was not disassembled", "build it again");
        return Some(draft.deferred(&rule, builds.not_disassembled.clone().unwrap_or_else(unknown)));
    };
    let count = |entry: &EntryBuild, mnemonic: &String| {
        instructions.get(&entry.launch.entry).map(|of| of.get(mnemonic).copied().unwrap_or(0))
    };
    let mut least = Vec::new();
    for mnemonic in &wanted.require {
        let attention = record.entries.iter().filter(|e| e.launch.operands != Operands::Originals);
        // An entry that was not listed has none.
        let counts = attention.map(|entry| (count(entry, mnemonic).unwrap_or(0), entry.launch.entry.as_str()));
        match counts.min() {
            Some((n, _)) if n > 0 => least.push(format!("{mnemonic} {n} times or more")),
            Some((_, entry)) => return Some(draft.holds(entry, format!("no {mnemonic}"), &rule, false)),
            None => return Some(draft.holds("", "no attention entry", &rule, false)),
        }
    }
    for (entry, mnemonic) in record.entries.iter().flat_map(|e| wanted.forbid.iter().map(move |m| (e, m))) {
        let found = match count(entry, mnemonic) {
            None => "not disassembled".to_owned(),
            Some(0) => continue,
            Some(n) => format!("{mnemonic} {n} times"),
        };
        return Some(draft.holds(&entry.launch.entry, found, &rule, false));
    }
    Some(draft.holds(&record.arch, least.join(", "), &rule, true))
}

/// A device of another architecture runs another build. If that one does not multiply as required, neither its results
/// nor its times are those of the kernel that the suite is about.
fn other_machine_code_gate(draft: &Draft, suite: &Suite, builds: &Builds) -> Option<Gate> {
    let wanted = suite.machine_code.as_ref()?;
    let others = builds.records.iter().filter(|b| b.variant == draft.variant() && b.arch != suite.arch);
    for record in others {
        let listed = record.instructions.iter().flat_map(|of| of.values());
        let missing = wanted.require.iter().find(|m| !listed.clone().any(|counts| counts.contains_key(*m)));
        if let Some(mnemonic) = missing {
            let lacks = if record.instructions.is_some() {
                format!("has no {mnemonic}")
            } else {
                "was not disassembled".to_owned()
            };
            let why = format!("the build for {}, which ran here, {lacks}", record.arch);
            let rule = format!("{} in what runs", wanted.require.join(", "));
            return Some(draft.deferred(&rule, Deferral::new(why, format!("run on a device of {}", suite.arch))));
        }
    }
    None
}

/// ptxas says with a C75xx message that it took the overlap out of asynchronous matrix instructions.
fn serialised_gate(draft: &Draft, record: &BuildRecord) -> Option<Gate> {
    let message = record.warnings.iter().find(|w| w.starts_with("C75"))?;
    Some(draft.holds(&record.arch, message.as_str(), "no C75xx message", false))
}

fn toggle_echo(draft: &Draft, builds: &Builds, variant: &str) -> Gate {
    let mismatches: Vec<&str> = builds
        .records
        .iter()
        .filter(|b| b.variant == variant)
        .flat_map(|b| b.toggle_mismatches.iter().map(String::as_str))
        .collect();
    let measured = if mismatches.is_empty() { "as asked".to_owned() } else { mismatches.join("; ") };
    draft.holds("", measured, "module says what was asked", mismatches.is_empty())
}

/// Every entry must differ from the same entry of the control, on every architecture that both were built for.
fn distinct_code(draft: &Draft, suite: &Suite, builds: &Builds, variant: &str) -> Gate {
    let own = builds.records.iter().filter(|b| b.variant == variant);
    let same: Vec<String> = own
        .flat_map(|record| {
            let control = builds.get(&suite.control, &record.arch);
            let twin = move |e: &&EntryBuild| {
                let mut others = control.into_iter().flat_map(|c| &c.entries);
                let other = others.find(|c| c.launch.serves == e.launch.serves);
                other.is_some_and(|c| c.code_sha256 == e.code_sha256)
            };
            record.entries.iter().filter(twin).map(|e| format!("{} {}", record.arch, e.launch.entry))
        })
        .collect();
    let measured = if same.is_empty() { "differs".to_owned() } else { "same code as control".to_owned() };
    draft.holds(&same.join(", "), measured, &format!("differs from {}", suite.control), same.is_empty())
}

/// What a variant of a gate file launches, and how: by architecture, with the plan, each entry's code; of host code, all of it.
pub(super) fn work<'b>(builds: &'b Builds, variant: &str) -> Vec<(&'b str, &'b str, &'b str)> {
    let own = builds.records.iter().filter(|b| b.variant == variant);
    own.flat_map(|b| {
        let all = b.language.is_host_code().then_some(b.key.as_str());
        let codes = b.entries.iter().map(|entry| entry.code_sha256.as_str()).chain(all);
        codes.map(|code| (b.arch.as_str(), b.plan_sha256.as_str(), code))
    })
    .collect()
}

/// A variant of a gate file may launch the control's code in another way; the same code in the same way is the control.
fn distinct_work(draft: &Draft, suite: &Suite, builds: &Builds, variant: &str) -> Gate {
    let (own, control) = (work(builds, variant), work(builds, &suite.control));
    let is_other = own.iter().any(|part| !control.contains(part));
    let measured = if is_other { "differs" } else { "the control's code, launched as the control launches it" };
    draft.holds("", measured, &format!("differs from {}", suite.control), is_other)
}

/// Scratch that a kernel may ask for: counters of a scheduler, not room to keep results in.
const MAX_WORKSPACE_BYTES: u32 = 4096;

/// Bytes of a module's variables. What is declared constant lies in device memory too, and its address can be had.
fn variables(build: &BuildRecord) -> u32 {
    build.global_bytes + build.constant_bytes
}

/// A kernel with memory of its own could do the work once and remember it.
fn stateless(draft: &Draft, builds: &Builds, variant: &str) -> Gate {
    let own = builds.records.iter().filter(|b| b.variant == variant);
    let state = |b: &BuildRecord| variables(b) + b.entries.iter().map(|e| e.launch.workspace_bytes).max().unwrap_or(0);
    // Variables first: none are allowed, however much workspace another build has.
    let worst = own.map(|b| (variables(b), state(b), b.arch.as_str())).max().unwrap_or_default();
    let (global, bytes, arch) = worst;
    let holds = global == 0 && bytes <= MAX_WORKSPACE_BYTES;
    let rule = format!("no device variables, at most {MAX_WORKSPACE_BYTES} bytes of workspace");
    draft.holds(arch, format!("{global} bytes of variables, {} of workspace", bytes - global), &rule, holds)
}

/// What the device really runs may spill although the suite's architecture does not.
fn other_arch_spills(suite: &Suite, builds: &Builds, variant: &str) -> Vec<Gate> {
    let others = builds.records.iter().filter(|b| b.variant == variant && b.arch != suite.arch);
    others
        .filter_map(|record| {
            let limit = f64::from(suite.resources.max_spill_bytes?);
            let place = format!("{}, as timed", record.arch);
            if let Some(unknown) = record.entries.iter().find_map(|entry| record.unknown_spills(entry)) {
                return Some(Draft::new(variant, GateId::Spills).deferred(&spill_rule(limit), unknown));
            }
            Some(Draft::new(variant, GateId::Spills).at_most(&place, record.spill_bytes() as f64, limit, Unit::Bytes))
        })
        .collect()
}

fn spill_rule(limit: f64) -> String {
    format!("at most {limit} bytes of spills")
}

fn resource_gates(suite: &Suite, record: &BuildRecord) -> Vec<Gate> {
    let draft = |id| Draft::new(&record.variant, id);
    let limits = suite.resources_of(&record.variant);
    let mut gates = Vec::new();
    if !record.entries.iter().any(|e| e.gated) {
        gates.push(draft(GateId::EntryFunctions).holds("", "none that limits gate", "at least one", false));
    }
    for entry in &record.entries {
        let place = format!("{} {}", suite.arch, entry.launch.entry);
        let shared = entry.resources.static_smem_bytes + entry.launch.dynamic_smem_bytes;
        let kib = f64::from(shared) / 1024.0;
        if let Some(limit) = limits.max_registers.filter(|_| entry.gated) {
            let registers = f64::from(entry.resources.registers);
            gates.push(draft(GateId::Registers).at_most(&place, registers, f64::from(limit), Unit::One));
        }
        if let Some(limit) = limits.max_shared_kib.filter(|_| entry.gated) {
            gates.push(draft(GateId::SharedMemory).at_most(&place, kib, f64::from(limit), Unit::Kib));
        } else if let Some(chip) = chip_shared_bytes(&suite.arch) {
            let limit = f64::from(chip) / 1024.0;
            gates.push(draft(GateId::FitsTheChip).at_most(&place, kib, limit, Unit::Kib));
        }
        if let Some(limit) = limits.max_spill_bytes {
            let spills = f64::from(entry.resources.spill_store_bytes) + f64::from(entry.resources.spill_load_bytes);
            let (draft, limit) = (draft(GateId::Spills), f64::from(limit));
            gates.push(match record.unknown_spills(entry) {
                Some(unknown) => draft.deferred(&spill_rule(limit), unknown),
                None => draft.at_most(&place, spills, limit, Unit::Bytes),
            });
        }
        if let Some(limit) = limits.max_stack_bytes {
            let stack = entry.resources.cumulative_stack_bytes.unwrap_or(entry.resources.stack_frame_bytes);
            gates.push(draft(GateId::Stack).at_most(&place, f64::from(stack), f64::from(limit), Unit::Bytes));
        }
    }
    gates
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::BuildFailure;
    use crate::gate::State;
    use crate::judge::testing;
    use crate::suite::MachineCode;
    use std::collections::BTreeMap;

    fn failed(builds: &Builds) -> Vec<(String, String, String)> {
        judge_builds(&testing::suite(), builds)
            .into_iter()
            .filter(|g| g.state == State::Fail)
            .map(|g| (g.variant, g.figure, g.measured))
            .collect()
    }

    #[test]
    fn good_builds_pass_every_gate() {
        let gates = judge_builds(&testing::suite(), &testing::evidence().builds);
        assert!(gates.len() >= 14 && gates.iter().all(|g| g.state == State::Pass), "{gates:#?}");
    }

    #[test]
    fn each_fault_fails_its_own_gate() {
        type Break = fn(&mut Builds);
        let cases: &[(&str, Break)] = &[
            ("registers", |b| b.records[1].entries[0].resources.registers = 121),
            ("shared memory", |b| b.records[1].entries[0].launch.dynamic_smem_bytes = 48 * 1024),
            ("spills", |b| b.records[1].entries[1].resources.spill_load_bytes = 4),
            ("fits the chip", |b| b.records[1].entries[1].launch.dynamic_smem_bytes = 101_376),
            ("wgmma pipelining", |b| b.records[1].warnings.push("C7510 serialized".into())),
            ("no memory between launches", |b| b.records[1].global_bytes = 4),
            ("no memory between launches", |b| b.records[1].constant_bytes = 4),
            ("no memory between launches", |b| b.records[1].entries[0].launch.workspace_bytes = 1 << 20),
            ("toggle echo", |b| b.records[1].toggle_mismatches.push("stages: asked 3, compiled 2".into())),
            ("own machine code", |b| b.records[1].entries[0].code_sha256 = "old64".into()),
            ("entry functions", |b| drop(b.records[1].entries.remove(0))),
            ("compiles", |b| drop(b.records.remove(1))),
        ];
        for (figure, break_it) in cases {
            let mut builds = testing::evidence().builds;
            break_it(&mut builds);
            let failed = failed(&builds);
            assert_eq!(failed.len(), 1, "{figure}: {failed:?}");
            assert_eq!((failed[0].0.as_str(), failed[0].1.as_str()), ("new", *figure));
        }
    }

    #[test]
    fn machine_code_with_a_stack_leaves_its_spills_open_and_without_one_has_none() {
        let spills = |stack: u32| {
            let mut builds = testing::evidence().builds;
            builds.records[1].language = crate::variant::Language::Cubin;
            builds.records[1].entries[0].resources.stack_frame_bytes = stack;
            let gates = judge_builds(&testing::suite(), &builds).into_iter();
            gates.filter(|g| g.variant == "new" && g.id == GateId::Spills).map(|g| g.state).collect::<Vec<_>>()
        };
        assert_eq!(spills(0), [State::Pass, State::Pass]);
        assert!(
            matches!(&spills(8)[..], [State::Deferred(why), State::Pass] if why.why.contains("8 bytes of its stack"))
        );
    }

    #[test]
    fn a_stack_is_limited_where_the_suite_says_so() {
        let mut suite = testing::suite();
        suite.resources.max_stack_bytes = Some(64);
        let mut builds = testing::evidence().builds;
        let stacks = |builds: &Builds| -> Vec<(String, State)> {
            let gates = judge_builds(&suite, builds).into_iter();
            gates.filter(|g| g.id == GateId::Stack).map(|g| (g.variant, g.state)).collect()
        };
        let all_pass = stacks(&builds);
        assert!(all_pass.len() == 4 && all_pass.iter().all(|(_, state)| *state == State::Pass), "{all_pass:?}");
        builds.records[1].entries[1].resources.cumulative_stack_bytes = Some(65);
        assert_eq!(stacks(&builds)[3], ("new".to_owned(), State::Fail));
        assert!(stacks(&builds)[..3].iter().all(|(_, state)| *state == State::Pass));
    }

    #[test]
    fn the_build_that_runs_is_judged_beside_the_one_that_is_gated() {
        let mut builds = testing::evidence().builds;
        for variant in ["old", "new"] {
            let mut record = testing::build(variant);
            record.arch = "sm_90".into();
            builds.records.push(record);
        }
        assert_eq!(failed(&builds), []);
        builds.records[3].entries[0].resources.spill_store_bytes = 64;
        builds.records[3].entries[1].code_sha256 = "old128".into();
        let figures: Vec<String> = failed(&builds).into_iter().map(|f| f.1).collect();
        assert_eq!(figures, ["own machine code", "spills"]);
    }

    #[test]
    fn machine_code_is_judged_where_it_was_read_and_deferred_where_it_was_not() {
        let mut suite = testing::suite();
        suite.machine_code = Some(MachineCode { require: vec!["QMMA".into()], forbid: vec!["LDL".into()] });
        let counts = |list: &[(&str, u32)]| -> BTreeMap<String, u32> {
            list.iter().map(|(mnemonic, n)| ((*mnemonic).to_owned(), *n)).collect()
        };
        let good = [("QMMA", 80), ("FFMA", 158)];
        let judged = |d64: Option<&[(&str, u32)]>, listed: bool| {
            let mut builds = testing::evidence().builds;
            let mut instructions = BTreeMap::from([("sdpa_fwd_d128".to_owned(), counts(&good))]);
            if let Some(d64) = d64 {
                instructions.insert("sdpa_fwd_d64".to_owned(), counts(d64));
            }
            builds.records[1].instructions = listed.then_some(instructions);
            builds.not_disassembled = Some(Deferral::new("no nvdisasm", "connect to a network"));
            let gates: Vec<Gate> =
                judge_builds(&suite, &builds).into_iter().filter(|g| g.figure == "machine code").collect();
            assert_eq!((gates.len(), gates[0].variant.as_str()), (1, "new"), "candidates only");
            (gates[0].state.word().to_owned(), gates[0].measured.clone())
        };
        assert_eq!(judged(Some(&good), true), ("PASS".to_owned(), "QMMA 80 times or more".to_owned()));
        assert_eq!(judged(Some(&[("HMMA", 160)]), true), ("FAIL".to_owned(), "no QMMA".to_owned()));
        assert_eq!(judged(Some(&[("QMMA", 1), ("LDL", 3)]), true), ("FAIL".to_owned(), "LDL 3 times".to_owned()));
        assert_eq!(judged(None, true).0, "FAIL");
        assert_eq!(judged(None, false).0, "DEFERRED");
        // What ran was built for another chip and multiplies otherwise.
        let mut builds = testing::evidence().builds;
        let mut other = testing::build("new");
        other.arch = "sm_90".into();
        let as_run = |builds: &Builds| {
            let gates = judge_builds(&suite, builds);
            gates.into_iter().find(|g| g.figure == "machine code, as run").map(|g| g.state.word().to_owned())
        };
        assert_eq!(as_run(&builds), None);
        for (product, state) in [("HMMA", Some("DEFERRED")), ("QMMA", None)] {
            let entries = ["sdpa_fwd_d64", "sdpa_fwd_d128"].map(|e| (e.to_owned(), counts(&[(product, 80)])));
            other.instructions = Some(BTreeMap::from(entries));
            builds.records.truncate(2);
            builds.records.push(other.clone());
            assert_eq!(as_run(&builds).as_deref(), state);
        }
    }

    #[test]
    fn a_compiler_error_is_shown_and_nothing_else_is_claimed() {
        let mut builds = testing::evidence().builds;
        builds.records.pop();
        let error = "sdpa_ladder.cu(12): error: expected a `;`".to_owned();
        builds.failures.push(BuildFailure {
            variant: "new".into(),
            arch: "sm_89".into(),
            error: error.clone(),
            unclaimed: None,
        });
        assert_eq!(failed(&builds), [("new".to_owned(), "compiles".to_owned(), error)]);
        assert_eq!(judge_builds(&testing::suite(), &builds).iter().filter(|g| g.variant == "new").count(), 1);
    }

    #[test]
    fn a_conditional_candidate_is_deferred_when_the_other_spills() {
        let mut suite = testing::suite();
        suite.baselines.push("other".into());
        suite.candidates[0].unless_spills = Some("other".into());
        let mut builds = testing::evidence().builds;
        let mut other = testing::build("other");
        other.entries[0].resources.spill_store_bytes = 8;
        builds.records.push(other);
        let gates = judge_builds(&suite, &builds);
        let new: Vec<_> = gates.iter().filter(|g| g.variant == "new").collect();
        assert!(matches!(new.as_slice(), [Gate { state: State::Deferred { .. }, .. }]), "{new:?}");
    }
}
