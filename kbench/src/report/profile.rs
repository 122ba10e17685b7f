//! The profile in a report: figures of control and candidates side by side, the stall reasons, and the diagnosis in words.
//! What was not measured says so. Leaves to others: the gate on it.

use std::fmt::Write;

use super::{Format, table};
use crate::deferral::Deferral;
use crate::gate::significant;
use crate::profile::{Diagnosis, Figure, KernelProfile, Profile, Reading, Unit, diagnose};

/// Stall reasons of each kernel that are shown.
const STALLS_SHOWN: usize = 6;

/// The whole section; empty where a profile was neither asked for nor wanted by the suite.
pub fn section(profile: Option<&Profile>, suite_gates_it: bool, format: Format) -> String {
    let Some(profile) = profile else {
        return if suite_gates_it { "not asked for; pass --ncu\n".to_owned() } else { String::new() };
    };
    let mut text = String::new();
    if let Some(line) = how(profile) {
        let _ = writeln!(text, "{line}\n");
    }
    for shape in shapes(profile) {
        let rows = figures(profile, &shape);
        if rows.len() > 1 {
            let _ = writeln!(text, "{}\n", table(format, rows));
        }
        for kernel in profile.kernels.iter().filter(|k| k.problem.shape.name == shape) {
            text.push_str(&words(kernel));
        }
    }
    text
}

/// How ncu was run, or why it was not.
pub(super) fn how(profile: &Profile) -> Option<String> {
    if let Some(why) = &profile.deferred {
        return Some(format!("DEFERRED ({why})"));
    }
    let settings = profile.settings.as_ref()?;
    Some(format!(
        "ncu {}, clock control {}, cache control {}, {} replay, after {} launches. Its time is not a measurement of speed.",
        settings.version,
        settings.clock_control,
        settings.cache_control,
        settings.replay_mode,
        settings.warmup_launches
    ))
}

/// Shapes that were profiled, in order.
pub(super) fn shapes(profile: &Profile) -> Vec<String> {
    let mut shapes: Vec<String> = Vec::new();
    for kernel in &profile.kernels {
        if !shapes.contains(&kernel.problem.shape.name) {
            shapes.push(kernel.problem.shape.name.clone());
        }
    }
    shapes
}

/// One row for each figure and stall reason, one column for each kernel that was profiled on the shape.
pub(super) fn figures(profile: &Profile, shape: &str) -> Vec<Vec<String>> {
    let kernels: Vec<(&KernelProfile, &Reading)> = profile
        .kernels
        .iter()
        .filter(|k| k.problem.shape.name == shape)
        .filter_map(|k| Some((k, k.reading.as_ref()?)))
        .collect();
    if kernels.is_empty() {
        return Vec::new();
    }
    let mut header = vec![format!("on {shape}")];
    header.extend(kernels.iter().map(|(kernel, _)| kernel.variant.clone()));
    let mut rows = vec![header];
    for figure in Figure::all() {
        let cell = |(_, reading): &(&KernelProfile, &Reading)| {
            reading.value(figure).map_or("missing".to_owned(), |value| shown(figure, value))
        };
        rows.push(std::iter::once(figure.label().to_owned()).chain(kernels.iter().map(cell)).collect());
    }
    for reason in reasons(&kernels) {
        let cell = |(_, reading): &(&KernelProfile, &Reading)| match reading.stalls.iter().find(|s| s.reason == reason)
        {
            Some(stall) => format!("{:.1}%", 100.0 * stall.share),
            None => "missing".to_owned(),
        };
        rows.push(std::iter::once(format!("stalled: {reason}")).chain(kernels.iter().map(cell)).collect());
    }
    rows
}

/// Percentages with two decimals, counts as they are, everything else with four digits.
fn shown(figure: Figure, value: f64) -> String {
    match figure.unit() {
        Unit::Percent => format!("{value:.2}"),
        Unit::Count => value.to_string(),
        Unit::Microseconds | Unit::Megahertz | Unit::Bytes => significant(value),
    }
}

/// The largest stall reasons of every kernel, those of the first kernel first.
fn reasons(kernels: &[(&KernelProfile, &Reading)]) -> Vec<String> {
    let mut reasons: Vec<String> = Vec::new();
    for (_, reading) in kernels {
        for stall in reading.stalls.iter().take(STALLS_SHOWN) {
            if !reasons.contains(&stall.reason) {
                reasons.push(stall.reason.clone());
            }
        }
    }
    reasons
}

/// What is said of one kernel below the table.
pub(super) fn words(kernel: &KernelProfile) -> String {
    let mut text = String::new();
    let Some(reading) = &kernel.reading else {
        let why = kernel.deferred.as_ref().map_or("no figures".to_owned(), Deferral::to_string);
        return format!("{}: DEFERRED ({why})\n", kernel.variant);
    };
    for line in lines(&diagnose(reading)) {
        let _ = writeln!(text, "{line}");
    }
    for (figure, why) in &reading.missing {
        let _ = writeln!(text, "- missing: {} ({why})", figure.label());
    }
    format!("{} is {}\n{text}\n", kernel.variant, diagnose(reading).headline())
}

/// A diagnosis as a list: each finding with its evidence, then what to try.
fn lines(diagnosis: &Diagnosis) -> Vec<String> {
    let mut lines = Vec::new();
    for finding in &diagnosis.findings {
        let evidence = finding.evidence.join(", ");
        lines.push(format!("- {}, {} [{evidence}]: {}", finding.bound.words(), finding.what, finding.because));
        lines.extend(finding.next.iter().map(|next| format!("  - try: {next}")));
    }
    lines.extend(diagnosis.not_asked.iter().map(|rule| format!("- could not be asked: {rule}")));
    lines
}
