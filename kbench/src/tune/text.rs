//! The result of a search as tables, for a terminal and for `REPORT.md`.

use std::collections::BTreeMap;

use comfy_table::{ContentArrangement, Table, presets};

use super::outcome::{Finalist, Tuned};
use super::profiled::ProfileInsight;
use super::record::{Activity, Outcome, Phase, Stage};
use super::spent::Spent;
use crate::gate::significant;
use stats::Interval;

/// Rejections of one reason are shown once, with how many there are; all of them are in `elite.json`.
const SHOWN_NAMES: usize = 3;

/// The result in words and tables: in Markdown, or with long cells on several lines where there are only so many columns.
pub fn render(tuned: &Tuned, columns: Option<u16>) -> String {
    let plan = &tuned.plan;
    let (valid, control, shape) = (plan.valid, &plan.control, &plan.shape);
    let device = tuned.device.as_deref().unwrap_or("no GPU");
    let mut parts = vec![format!(
        "{}: {} of {valid} configurations searched, {} timed, {} rejected; {shape} against {control} on {device} ({} GPU)",
        plan.suite,
        tuned.evaluated,
        tuned.timed,
        tuned.rejected.len(),
        tuned.gpus.len().max(usize::from(tuned.device.is_some())),
    )];
    let words = tuned.stopped.map_or("interrupted", |s| s.words());
    let times = tuned.seconds.iter().map(|(phase, s)| format!("{} until {s:.1} s", phase_word(*phase)));
    parts.push(std::iter::once(words.to_owned()).chain(times).collect::<Vec<_>>().join(", "));
    if !tuned.finalists.is_empty() {
        parts.push(table(columns, finalist_rows(tuned)));
    }
    if !tuned.rejected.is_empty() {
        parts.push(table(columns, rejection_rows(tuned)));
    }
    let profile = |(name, insight): (&String, &ProfileInsight)| {
        let toggles = insight.toggles.join(", ");
        let advice = if toggles.is_empty() { String::new() } else { format!("; what to try speaks of {toggles}") };
        format!("profile of `{name}`: {}{advice}", insight.headline)
    };
    parts.extend(tuned.profiles.iter().map(profile));
    parts.extend(tuned.not_profiled.iter().map(|why| format!("profiles: DEFERRED ({why})")));
    parts.extend(tuned.warnings.iter().map(|w| format!("warning: {w}")));
    if let Some(sweep) = &tuned.sweep {
        parts.push(format!(
            "sweep: all {} evaluated; `{}` of the search takes {} of the time of `{}`, the best of all ({})",
            sweep.evaluated,
            sweep.search_pick,
            significant(sweep.search_over_best),
            sweep.best,
            if sweep.within_margin { "within 3%" } else { "more than 3% slower" },
        ));
    }
    if !tuned.spent.is_empty() {
        parts.push(table(columns, spent_rows(tuned)));
    }
    let mut sittings: BTreeMap<&str, usize> = BTreeMap::new();
    for sitting in &tuned.rounds {
        *sittings.entry(&sitting.gpu).or_default() += 1;
    }
    if sittings.len() > 1 {
        let each: Vec<String> = sittings.iter().map(|(gpu, count)| format!("{count} on {gpu}")).collect();
        parts.push(format!("finals: sittings {}; every ratio is within a round of one", each.join(", ")));
    }
    parts.push(verdict(tuned));
    parts.join("\n")
}

fn phase_word(phase: Phase) -> &'static str {
    match phase {
        Phase::Search => "search",
        Phase::Sweep => "sweep",
    }
}

fn verdict(tuned: &Tuned) -> String {
    let Some(winner) = &tuned.winner else {
        return match &tuned.deferred {
            Some(why) => format!("DEFERRED ({why})"),
            None => "no winner: no configuration holds every gate and was timed twice".to_owned(),
        };
    };
    let figures = &winner.figures;
    let mut text = format!(
        "winner `{}`: {} us p50, {} of {}'s {} us; winner's curse {:+.1}%",
        winner.name,
        significant(figures.p50_us),
        interval(&figures.over_control),
        tuned.plan.control,
        significant(figures.control_p50_us),
        100.0 * winner.curse,
    );
    if let Some((next, ratio)) = &winner.over_next {
        let apart = if ratio.high < 1.0 { "" } else { ", which cannot be told apart" };
        text.push_str(&format!("; {} of `{next}`{apart}", interval(ratio)));
    }
    let toggles: Vec<String> = winner.patch.toggles.iter().map(|(name, value)| format!("{name} = {value}")).collect();
    text.push_str(&format!("\n  base = \"{}\", toggles = {{ {} }}", winner.patch.base, toggles.join(", ")));
    match &tuned.inconclusive {
        Some(why) => format!("INCONCLUSIVE ({why})\n{text}"),
        None => format!("{text}\n  not a verdict: `validate --tune` judges it by the whole suite"),
    }
}

fn interval(ratio: &Interval) -> String {
    format!("{} [{}, {}]", significant(ratio.estimate), significant(ratio.low), significant(ratio.high))
}

fn finalist_rows(tuned: &Tuned) -> Vec<Vec<String>> {
    let header =
        ["finalist", "registers", "smem KiB", "search us", "search / control", "again us", "again / control", "curse"];
    let row = |f: &Finalist| {
        let (us, over) = match &f.remeasured {
            Outcome::Timed(again) => (significant(again.p50_us), interval(&again.over_control)),
            Outcome::Rejected { stage, reason } => ("rejected".to_owned(), format!("{stage}: {reason}")),
            Outcome::Untimed(deferral) => ("-".to_owned(), deferral.to_string()),
        };
        vec![
            f.name.clone(),
            f.searched.registers.to_string(),
            significant(f64::from(f.searched.shared_bytes) / 1024.0),
            significant(f.searched.p50_us),
            interval(&f.searched.over_control),
            us,
            over,
            f.curse.map_or("-".to_owned(), |c| format!("{:+.1}%", 100.0 * c)),
        ]
    };
    std::iter::once(header.map(str::to_owned).to_vec()).chain(tuned.finalists.iter().map(row)).collect()
}

/// A row for each part of the session and device, in seconds.
fn spent_rows(tuned: &Tuned) -> Vec<Vec<String>> {
    let shown = Activity::OF_A_DEVICE.iter().filter(|a| tuned.spent.iter().any(|s| s.seconds.contains_key(a)));
    let shown: Vec<Activity> = shown.copied().collect();
    let words = shown.iter().map(|a| a.words());
    let header = ["where the time went, s", "until", "batches"].into_iter().chain(words).chain(["idle"]);
    let row = |spent: &Spent| {
        let stage = match spent.stage {
            Stage::SetUp => "set-up",
            Stage::Search => "search",
            Stage::Finals => "finals",
        };
        let who = spent.gpu.as_ref().map_or(stage.to_owned(), |gpu| format!("{stage}, {gpu}"));
        let of_device = spent.stage != Stage::SetUp;
        let or_dash = |value: f64| if of_device { format!("{value:.2}") } else { "-".to_owned() };
        let batches = if of_device { spent.batches.to_string() } else { "-".to_owned() };
        let seconds = shown.iter().map(|a| or_dash(spent.seconds.get(a).copied().unwrap_or_default()));
        let start = [who, format!("{:.2}", spent.until), batches];
        start.into_iter().chain(seconds).chain([or_dash(spent.idle)]).collect()
    };
    std::iter::once(header.map(str::to_owned).collect()).chain(tuned.spent.iter().map(row)).collect()
}

/// One row a gate, with its first reason: a rule that rejects fifty configurations is one line.
fn rejection_rows(tuned: &Tuned) -> Vec<Vec<String>> {
    let mut groups: Vec<(&str, &str, &str, Vec<&str>)> = Vec::new();
    for rejected in &tuned.rejected {
        let gate = rejected.reason.split([':', '(']).next().unwrap_or_default().trim();
        match groups.iter_mut().find(|g| (g.0, g.1) == (rejected.stage.as_str(), gate)) {
            Some(group) => group.3.push(&rejected.name),
            None => groups.push((&rejected.stage, gate, &rejected.reason, vec![&rejected.name])),
        }
    }
    let row = |(stage, _, reason, names): &(&str, &str, &str, Vec<&str>)| {
        let more = names.len().saturating_sub(SHOWN_NAMES);
        let shown = names[..names.len() - more].join(", ");
        let names = if more > 0 { format!("{shown}, and {more} more") } else { shown };
        vec![(*stage).to_owned(), (*reason).to_owned(), names]
    };
    let header = ["rejected by", "first reason", "configurations"].map(str::to_owned).to_vec();
    std::iter::once(header).chain(groups.iter().map(row)).collect()
}

fn table(columns: Option<u16>, rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    match columns {
        None => table.load_style(presets::ASCII_MARKDOWN).set_content_arrangement(ContentArrangement::Disabled),
        Some(width) => {
            table.load_style(presets::UTF8_FULL_CONDENSED).set_width(width);
            table.set_content_arrangement(ContentArrangement::Dynamic)
        }
    };
    let mut rows = rows.into_iter();
    table.set_header(rows.next().unwrap_or_default());
    table.add_rows(rows);
    let text = table.to_string();
    if columns.is_none() { format!("\n{text}\n") } else { text }
}
