//! Gates on builds: it compiles, it is what it says it is, it is not the control under another name, and ptxas' figures
//! are within limits.

use crate::evidence::{BuildRecord, Builds, EntryBuild};
use crate::gate::{Gate, Kind, Subject};
use crate::suite::Suite;

/// The head dimension whose entry function the register and memory limits gate; others are gated on spills alone.
const GATED_HEAD_DIM: u32 = 64;
/// Opt-in shared memory of a CTA by architecture, in bytes (CUDA C programming guide, compute capabilities).
const CHIP_SHARED_BYTES: &[(&str, u32)] =
    &[("sm_80", 166_912), ("sm_86", 101_376), ("sm_89", 101_376), ("sm_90", 232_448), ("sm_90a", 232_448)];

/// Build, identity and resource gates of every variant of the suite.
pub fn judge_builds(suite: &Suite, builds: &Builds) -> Vec<Gate> {
    suite.variant_names().flat_map(|variant| judge_variant(suite, builds, variant)).collect()
}

fn judge_variant(suite: &Suite, builds: &Builds, variant: &str) -> Vec<Gate> {
    let subject = |kind, figure| Subject { variant, kind, figure };
    let compiles = subject(Kind::Build, "compiles");
    if let Some(why) = super::left_out(suite, builds, variant) {
        return vec![compiles.deferred("built", &why, "")];
    }
    if let Some(text) = &builds.deferred {
        let (why, remedy) = super::split_remedy(text);
        return vec![compiles.deferred("no error", why, remedy)];
    }
    let failed = builds.failures.iter().find(|f| f.variant == variant);
    if let Some(failure) = failed {
        return vec![compiles.holds(&failure.arch, &failure.error, "no error", false)];
    }
    let Some(record) = builds.get(variant, &suite.arch) else {
        return vec![compiles.holds(&suite.arch, "no build record", "no error", false)];
    };
    let mut gates = vec![compiles.holds(&suite.arch, "yes", "no error", true)];
    gates.push(toggle_echo(&subject(Kind::Identity, "toggle echo"), builds, variant));
    if variant != suite.control {
        gates.push(distinct_code(&subject(Kind::Identity, "own machine code"), suite, builds, variant));
    }
    gates.push(stateless(&subject(Kind::Identity, "no memory between launches"), builds, variant));
    gates.extend(resource_gates(suite, record));
    gates.extend(other_arch_spills(suite, builds, variant));
    gates.extend(serialised_gate(&subject(Kind::Resources, "wgmma pipelining"), record));
    gates
}

/// ptxas says with a C75xx message that it took the overlap out of asynchronous matrix instructions.
fn serialised_gate(subject: &Subject, record: &BuildRecord) -> Option<Gate> {
    let message = record.warnings.iter().find(|w| w.starts_with("C75"))?;
    Some(subject.holds(&record.arch, message, "no C75xx message", false))
}

fn toggle_echo(subject: &Subject, builds: &Builds, variant: &str) -> Gate {
    let mismatches: Vec<&str> = builds
        .records
        .iter()
        .filter(|b| b.variant == variant)
        .flat_map(|b| b.toggle_mismatches.iter().map(String::as_str))
        .collect();
    let measured = if mismatches.is_empty() { "as asked".to_owned() } else { mismatches.join("; ") };
    subject.holds("", &measured, "module says what was asked", mismatches.is_empty())
}

/// Every entry must differ from the same entry of the control, on every architecture that both were built for.
fn distinct_code(subject: &Subject, suite: &Suite, builds: &Builds, variant: &str) -> Gate {
    let own = builds.records.iter().filter(|b| b.variant == variant);
    let same: Vec<String> = own
        .flat_map(|record| {
            let control = builds.get(&suite.control, &record.arch);
            let twin = move |e: &&EntryBuild| {
                let other = control.and_then(|c| c.entry(e.launch.head_dim));
                other.is_some_and(|c| c.code_sha256 == e.code_sha256)
            };
            record.entries.iter().filter(twin).map(|e| format!("{} {}", record.arch, e.launch.entry))
        })
        .collect();
    let measured = if same.is_empty() { "differs".to_owned() } else { "same code as control".to_owned() };
    subject.holds(&same.join(", "), &measured, &format!("differs from {}", suite.control), same.is_empty())
}

/// Scratch that a kernel may ask for: counters of a scheduler, not room to keep results in.
const MAX_WORKSPACE_BYTES: u32 = 4096;

/// A kernel with memory of its own could do the work once and remember it.
fn stateless(subject: &Subject, builds: &Builds, variant: &str) -> Gate {
    let own = builds.records.iter().filter(|b| b.variant == variant);
    let state =
        |b: &BuildRecord| b.global_bytes + b.entries.iter().map(|e| e.launch.workspace_bytes).max().unwrap_or(0);
    let worst = own.map(|b| (state(b), b.global_bytes, b.arch.as_str())).max().unwrap_or_default();
    let (bytes, global, arch) = worst;
    let holds = global == 0 && bytes <= MAX_WORKSPACE_BYTES;
    let rule = format!("no device variables, at most {MAX_WORKSPACE_BYTES} bytes of workspace");
    subject.holds(arch, &format!("{global} bytes of variables, {} of workspace", bytes - global), &rule, holds)
}

/// What the device really runs may spill although the suite's architecture does not.
fn other_arch_spills(suite: &Suite, builds: &Builds, variant: &str) -> Vec<Gate> {
    let others = builds.records.iter().filter(|b| b.variant == variant && b.arch != suite.arch);
    others
        .map(|record| {
            let subject = Subject { variant, kind: Kind::Resources, figure: "spills" };
            let limit = f64::from(suite.resources.max_spill_bytes);
            subject.at_most(&format!("{}, as timed", record.arch), record.spill_bytes() as f64, limit, "bytes")
        })
        .collect()
}

fn resource_gates(suite: &Suite, record: &BuildRecord) -> Vec<Gate> {
    let subject = |figure| Subject { variant: &record.variant, kind: Kind::Resources, figure };
    let limits = &suite.resources;
    let mut gates = Vec::new();
    if record.entry(GATED_HEAD_DIM).is_none() {
        gates.push(subject("entry functions").holds("", "no D=64 entry", "D=64 and D=128", false));
    }
    for entry in &record.entries {
        let place = format!("{} {}", suite.arch, entry.launch.entry);
        let shared = entry.resources.static_smem_bytes + entry.launch.dynamic_smem_bytes;
        if entry.launch.head_dim == GATED_HEAD_DIM {
            let registers = f64::from(entry.resources.registers);
            gates.push(subject("registers").at_most(&place, registers, f64::from(limits.max_registers), ""));
            let kib = f64::from(shared) / 1024.0;
            gates.push(subject("shared memory").at_most(&place, kib, f64::from(limits.max_shared_kib), "KiB"));
        } else if let Some((_, chip)) = CHIP_SHARED_BYTES.iter().find(|(arch, _)| *arch == suite.arch) {
            let (kib, limit) = (f64::from(shared) / 1024.0, f64::from(*chip) / 1024.0);
            gates.push(subject("fits the chip").at_most(&place, kib, limit, "KiB"));
        }
        let spills = f64::from(entry.resources.spill_store_bytes) + f64::from(entry.resources.spill_load_bytes);
        gates.push(subject("spills").at_most(&place, spills, f64::from(limits.max_spill_bytes), "bytes"));
    }
    gates
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::BuildFailure;
    use crate::gate::State;
    use crate::judge::testing;

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
    fn a_compiler_error_is_shown_and_nothing_else_is_claimed() {
        let mut builds = testing::evidence().builds;
        builds.records.pop();
        let error = "sdpa_ladder.cu(12): error: expected a `;`".to_owned();
        builds.failures.push(BuildFailure { variant: "new".into(), arch: "sm_89".into(), error: error.clone() });
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
