//! Every fact that stands in two places of a run, and whether both say the same. Somebody who edits one place has to find
//! the other. Leaves to others: the facts of builds (`builds`) and of what is derived (`derived`), which are listed here too.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Result;
use kbench::deferral::Deferral;
use kbench::evidence::{Device, EMULATOR, Environment};
use kbench::judge::{Evidence, edited_errors};
use kbench::suite::Suite;

use super::verify::Verified;
use crate::basis::{self, Basis};
use crate::cubin::sha256_hex;
use crate::run_dir::{RunDir, kept_as};

/// A fact that stands in two places.
pub struct Fact {
    /// What it is.
    pub what: &'static str,
    /// The two files that say it.
    pub sides: [&'static str; 2],
    /// What says otherwise; absent where another module compares the two.
    contradictions: Option<Contradictions>,
}

/// What the second side says otherwise, a line each.
type Contradictions = fn(&Seen) -> Result<Vec<String>>;

/// What the facts of a run are read from.
struct Seen<'a> {
    run: &'a RunDir,
    suite: &'a Suite,
    evidence: &'a Evidence,
    environment: &'a Environment,
}

const fn fact(what: &'static str, a: &'static str, b: &'static str) -> Fact {
    Fact { what, sides: [a, b], contradictions: None }
}

impl Fact {
    const fn by(self, contradictions: fn(&Seen) -> Result<Vec<String>>) -> Fact {
        Fact { contradictions: Some(contradictions), ..self }
    }
}

/// All of them.
pub const FACTS: &[Fact] = &[
    // `basis`.
    fact("suite", "suite.toml", basis::FILE).by(rests_on),
    fact("sources", "ENV.json", basis::FILE),
    fact("device that it rests on", "ENV.json", basis::FILE),
    fact("kernels", "builds.json", basis::FILE),
    fact("files that a gate file names", "operator/", basis::FILE).by(operator_files),
    // `builds`.
    fact("build", "builds.json", "builds/*/build.json"),
    fact("PTX", "builds.json", "builds/*/kernel.ptx"),
    fact("cubin", "builds.json", "builds/*/kernel.cubin"),
    fact("registers, memory and spills", "builds.json", "builds/*/ptxas.txt"),
    fact("machine code", "builds.json", "builds/*/kernel.cubin"),
    fact("registers and stack frame", "builds/*/ptxas.txt", "builds/*/kernel.cubin"),
    fact("compilers", "ENV.json", "builds.json").by(compilers),
    // What was measured where.
    fact("device that was timed", "ENV.json", "samples.json").by(timed_device),
    fact("GPU that timed each shape", "ENV.json", "samples.json").by(timed_gpus),
    fact("device that was checked", "ENV.json", "check.json").by(checked_device),
    fact("device of the ceilings", "ENV.json", "ceilings.json").by(ceilings_device),
    fact("versions of peers", "ENV.json", "peers.json").by(peer_versions),
    fact("peers that were timed", "peers.json", "samples.json").by(timed_peers),
    fact("entries that ran", "check.json", "builds.json").by(entries_that_ran),
    fact("rows that were compared", "check.json elements", "check.json sampled_rows").by(compared_rows),
    fact("errors", "check.json kernel_max", "check.json end_to_end_max").by(errors),
    fact("name", "run.json", "ENV.json").by(name_of_the_run),
    fact("suite's name", "run.json", "suite.toml"),
    // `derived`, `profile`, `tune`, and the seal.
    fact("gates", "gates.json", "the evidence"),
    fact("decision", "decision.json", "the evidence"),
    fact("report", "REPORT.md", "the evidence"),
    fact("page", "report.html", "the evidence"),
    fact("earlier runs", "history.json", "report.html"),
    fact("profile", "profile.json", "profile/*.csv"),
    fact("result of a search", "elite.json", "tune.jsonl"),
    fact("root", "REPORT.md", "manifest.json"),
];

/// Compares the two sides of every fact.
pub fn examine(
    run: &RunDir,
    suite: &Suite,
    evidence: &Evidence,
    environment: &Environment,
    found: &mut Verified,
) -> Result<()> {
    if !run.has(basis::FILE) {
        found.open.push(Deferral::new(
            format!("{} is not there, so suite, sources and kernels are compared with nothing", basis::FILE),
            "verify the run as it was sealed",
        ));
    }
    let seen = Seen { run, suite, evidence, environment };
    for contradictions in FACTS.iter().filter_map(|fact| fact.contradictions) {
        found.faults.extend(contradictions(&seen)?);
    }
    Ok(())
}

fn rests_on(seen: &Seen) -> Result<Vec<String>> {
    match seen.run.read_if_there::<Basis>(basis::FILE)? {
        None => Ok(Vec::new()),
        Some(basis) => basis.contradictions(seen.suite, seen.environment, &seen.evidence.builds.records),
    }
}

/// Those that are there are those that the run rests on, byte for byte.
fn operator_files(seen: &Seen) -> Result<Vec<String>> {
    const FOLDER: &str = "operator";
    let Some(basis) = seen.run.read_if_there::<Basis>(basis::FILE)? else { return Ok(Vec::new()) };
    let mut faults = Vec::new();
    let mut expected = BTreeSet::new();
    for (name, sha256) in basis.files() {
        let path = Path::new(FOLDER).join(kept_as(name));
        match seen.run.bytes(&path.to_string_lossy()) {
            Ok(bytes) if sha256_hex(&bytes) == *sha256 => {}
            Ok(_) => faults.push(format!("{} is not the file that the run rests on", path.display())),
            Err(error) => faults.push(format!("{error:#}")),
        }
        expected.insert(path);
    }
    let folder = seen.run.operator_folder();
    let there = if folder.is_dir() { crate::files::all_files(&folder)? } else { Vec::new() };
    let others = there.iter().filter_map(|path| path.strip_prefix(&seen.run.path).ok());
    let others = others.filter(|path| !expected.contains(*path));
    faults.extend(others.map(|path| format!("{} is no file that the run rests on", path.display())));
    Ok(faults)
}

fn compilers(seen: &Seen) -> Result<Vec<String>> {
    let (nvcc, ptxas) = (&seen.environment.nvcc, &seen.environment.ptxas);
    let other = |b: &&kbench::evidence::BuildRecord| {
        let by_nvcc = b.language.is_cuda() && nvcc.as_ref() != Some(&b.nvcc);
        by_nvcc || (b.language.has_ptx() && ptxas.as_ref() != Some(&b.ptxas))
    };
    let builds = seen.evidence.builds.records.iter().filter(other);
    Ok(builds.map(|b| format!("{} {}: other compilers built it than ENV.json names", b.variant, b.arch)).collect())
}

/// What a device is; not its state, which changes.
fn is_same_device(a: &Device, b: &Device) -> bool {
    let settled = |device: &Device| Device { nvml: None, ..device.clone() };
    settled(a) == settled(b)
}

fn timed_device(seen: &Seen) -> Result<Vec<String>> {
    Ok(match (&seen.evidence.samples.device, &seen.environment.device) {
        (Some(timed), Some(here)) if !is_same_device(timed, here) => {
            vec![format!(
                "samples.json is of {} ({}), ENV.json of {} ({})",
                timed.name, timed.uuid, here.name, here.uuid
            )]
        }
        (Some(timed), None) => vec![format!("samples.json is of {}, ENV.json of no device", timed.name)],
        _ => Vec::new(),
    })
}

/// Where several GPUs shared the shapes, each shape was timed on one of those that the run had, and they are one model.
fn timed_gpus(seen: &Seen) -> Result<Vec<String>> {
    let (environment, samples) = (seen.environment, &seen.evidence.samples);
    let alike = |a: &Device, b: &Device| is_same_device(&Device { uuid: b.uuid.clone(), ..a.clone() }, b);
    let first = environment.device.as_ref();
    let others = environment.other_devices.iter();
    let stranger = others.filter(|other| first.is_none_or(|first| !alike(first, other) || first.uuid == other.uuid));
    let mut faults: Vec<String> =
        stranger.map(|other| format!("ENV.json has {}, which is no further GPU of its model", other.uuid)).collect();
    let known = |uuid: &String| first.iter().copied().chain(&environment.other_devices).any(|gpu| gpu.uuid == *uuid);
    let elsewhere = samples.gpus.iter().filter(|(_, uuid)| !known(uuid));
    faults.extend(elsewhere.map(|(shape, uuid)| format!("samples.json has {shape} of {uuid}, which ENV.json has not")));
    let timed: BTreeSet<&str> = samples.blocks.iter().map(|block| block.shape.as_str()).collect();
    let said: BTreeSet<&str> = samples.gpus.keys().map(String::as_str).collect();
    if (!environment.other_devices.is_empty() || !said.is_empty()) && timed != said {
        faults.push("samples.json does not say of each timed shape, and of no other, which GPU timed it".to_owned());
    }
    Ok(faults)
}

fn checked_device(seen: &Seen) -> Result<Vec<String>> {
    let here = seen.environment.device.as_ref().map(|device| format!("gpu: {}", device.name));
    let checked = seen.evidence.checks.device.as_ref().filter(|checked| *checked != EMULATOR);
    let differs = checked.filter(|checked| here.as_ref() != Some(checked));
    let here = here.as_deref().unwrap_or("no device");
    Ok(differs.map(|checked| format!("check.json is of {checked}, ENV.json of {here}")).into_iter().collect())
}

fn ceilings_device(seen: &Seen) -> Result<Vec<String>> {
    let (measured, here) = (seen.evidence.ceilings.as_ref(), seen.environment.device.as_ref());
    let differs = measured.filter(|measured| here.is_none_or(|here| here.name != measured.device.name));
    Ok(differs.map(|m| format!("ceilings.json is of {}, and ENV.json is not", m.device.name)).into_iter().collect())
}

fn peer_versions(seen: &Seen) -> Result<Vec<String>> {
    let same = seen.environment.peers == seen.evidence.peers.versions;
    Ok(if same { Vec::new() } else { vec!["ENV.json has other versions of peers than peers.json".to_owned()] })
}

/// A backend is in peers.json and available exactly where it has times, but for one whose failure says why it has none.
fn timed_peers(seen: &Seen) -> Result<Vec<String>> {
    let (peers, samples) = (&seen.evidence.peers, &seen.evidence.samples);
    let timed =
        samples.blocks.iter().filter(|b| b.subject.is_peer()).map(|b| (b.shape.as_str(), b.subject.who.as_str()));
    let timed: BTreeSet<_> = timed.collect();
    let available = peers.backends.iter().filter(|b| b.unavailable.is_none());
    let available: BTreeSet<_> = available.map(|b| (b.shape.as_str(), b.subject.as_str())).collect();
    let failed =
        |(shape, who): &(&str, &str)| samples.failures.iter().any(|f| f.shape == *shape && f.subject.who == *who);
    let unknown = timed.difference(&available).map(|(shape, who)| {
        format!("samples.json has times of {who} on {shape}, which peers.json does not have as available")
    });
    let untimed = available.difference(&timed).filter(|case| samples.deferred.is_none() && !failed(case));
    let untimed = untimed.map(|(shape, who)| {
        format!("peers.json has {who} on {shape} as available, and samples.json has no time of it")
    });
    Ok(unknown.chain(untimed).collect())
}

fn entries_that_ran(seen: &Seen) -> Result<Vec<String>> {
    let mut entries: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for build in &seen.evidence.builds.records {
        let own = entries.entry(&build.variant).or_default();
        own.extend(build.entries.iter().map(|e| e.launch.entry.as_str()));
    }
    let unknown = seen.evidence.checks.cases.iter().filter_map(|case| {
        let entry = case.launch.entry.as_deref()?;
        let known = entries.get(case.variant.as_str()).is_some_and(|own| own.contains(entry));
        (!known).then(|| format!("check.json: `{entry}` ran for {}, whose build has no such entry", case.variant))
    });
    Ok(unknown.collect())
}

/// Whoever compares part of the rows says which, and how many elements these have.
fn compared_rows(seen: &Seen) -> Result<Vec<String>> {
    if seen.run.is_old()? {
        return Ok(Vec::new());
    }
    let mut faults = Vec::new();
    for case in &seen.evidence.checks.cases {
        let problem = &case.launch.problem;
        let Some((errors, rows)) = case.errors.as_ref().and_then(|e| Some((e, e.sampled_rows.as_ref()?))) else {
            continue;
        };
        let width = seen.suite.operator.row_elements(&problem.shape).unwrap_or_default();
        if errors.elements != rows.len() as u64 * width {
            faults.push(format!(
                "check.json: {} on {}: {} elements were compared, and the {} rows that it names have {}",
                case.variant,
                problem.id(),
                errors.elements,
                rows.len(),
                rows.len() as u64 * width
            ));
        }
    }
    Ok(faults)
}

fn errors(seen: &Seen) -> Result<Vec<String>> {
    let mut faults = Vec::new();
    for case in &seen.evidence.checks.cases {
        let found = case.errors.iter().flat_map(|errors| edited_errors(seen.suite, errors));
        let of = format!("check.json: {} on {}", case.variant, case.launch.problem.id());
        faults.extend(found.map(|fault| format!("{of}: {fault}")));
    }
    Ok(faults)
}

/// A run is called by when it began, by its commit and its suite.
fn name_of_the_run(seen: &Seen) -> Result<Vec<String>> {
    let name = seen.run.head()?.name;
    if name.is_empty() {
        return Ok(Vec::new());
    }
    let commit = seen.environment.commit.as_deref().map_or("nocommit", |c| &c[..c.len().min(7)]);
    let middle = format!("-{commit}-{}", seen.suite.name);
    // A second run of one second has a number behind its name.
    let rest = name.split_once('Z').and_then(|(_, rest)| rest.strip_prefix(&middle));
    let holds =
        rest.is_some_and(|rest| rest.is_empty() || rest.strip_prefix('-').is_some_and(|n| n.parse::<u32>().is_ok()));
    Ok(if holds {
        Vec::new()
    } else {
        vec![format!("run.json: `{name}` is no run of commit {commit} and suite {}", seen.suite.name)]
    })
}
