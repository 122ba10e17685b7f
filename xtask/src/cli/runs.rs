//! `report`, `verify`, `compare`, `history`: reading finished runs, anywhere.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use kbench::exit::Exit;
use serde_json::json;

use super::history;
use super::print::{print, raw, say};
use crate::console;
use crate::inspect::{self, Comparison, ReportFormat, Screen};
use crate::layout::Layout;
use crate::run_dir::RunDir;
use crate::runs;
use crate::signature;

/// A part of a report that can be printed by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Section {
    /// Its variants' speedups over the control and over PyTorch, in Markdown.
    Speedups,
}

#[derive(Args)]
pub struct ReportArgs {
    /// The run directory.
    run: PathBuf,
    /// The form in which the whole report is printed.
    #[arg(long, value_enum, default_value = "table")]
    format: ReportFormat,
    /// Print this section alone.
    #[arg(long, value_enum, conflicts_with_all = ["format", "json"])]
    section: Option<Section>,
    /// Every table and every gate, in their own width.
    #[arg(long, conflicts_with_all = ["section", "json"])]
    full: bool,
    /// Short for --format json.
    #[arg(long, conflicts_with = "format")]
    json: bool,
}

/// The variable that names the file of a job's summary.
const STEP_SUMMARY: &str = "GITHUB_STEP_SUMMARY";

pub fn report(args: &ReportArgs) -> Result<Exit> {
    let run = RunDir::open_sealed(&args.run)?;
    let format = if args.json { ReportFormat::Json } else { args.format };
    if args.section == Some(Section::Speedups) {
        let times = runs::speedups_of(&run)?;
        raw(&times.with_context(|| format!("`{}` has no times; run it on a GPU", run.path.display()))?)?;
        return Ok(Exit::Good);
    }
    let screen = Screen { width: console::width(), full: args.full };
    match (format, std::env::var_os(STEP_SUMMARY).filter(|path| !path.is_empty())) {
        (ReportFormat::Github, Some(path)) if !runs::is_search(&run) => {
            let (annotations, summary) = inspect::github(&run)?;
            let file = std::fs::File::options().create(true).append(true).open(&path);
            let written = file.and_then(|mut file| writeln!(file, "{summary}"));
            written.with_context(|| format!("failed to write `{}`, which {STEP_SUMMARY} names", path.display()))?;
            raw(&annotations)?;
        }
        (ReportFormat::Table, _) => say(&inspect::report(&run, format, screen)?)?,
        _ => raw(&inspect::report(&run, format, screen)?)?,
    }
    Ok(Exit::Good)
}

#[derive(Args)]
pub struct VerifyArgs {
    /// The run directory.
    run: PathBuf,
    /// The root that the run must have, as `validate` printed it: finds every edit, whatever was computed anew.
    #[arg(long, value_name = "HASH", value_parser = root)]
    root: Option<String>,
    /// A file of allowed signers, as ssh-keygen reads it: the run must be signed by the one named with --signer.
    #[arg(long, value_name = "FILE", requires = "signer")]
    signers: Option<PathBuf>,
    /// Who must have signed it.
    #[arg(long, value_name = "NAME", requires = "signers")]
    signer: Option<String>,
    /// Print what does not hold as JSON.
    #[arg(long)]
    json: bool,
}

/// SHA-256 in hexadecimal digits.
pub(super) fn root(text: &str) -> Result<String, String> {
    let is_hash = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hash.then(|| text.to_ascii_lowercase()).ok_or_else(|| "a root has 64 hexadecimal digits".to_owned())
}

pub fn verify(args: &VerifyArgs) -> Result<Exit> {
    let mut found = inspect::verify_against(&args.run, args.root.as_deref())?;
    if let (Some(signers), Some(signer)) = (&args.signers, &args.signer) {
        match signature::examine(&RunDir::open(&args.run)?, signers, signer) {
            Ok(fault) => found.faults.extend(fault),
            Err(deferral) => found.open.push(deferral),
        }
    }
    print(args.json, &found, || {
        let holds = "every file is as it was sealed, and the evidence gives the recorded gates, decision and reports";
        let mut lines: Vec<String> = found.faults.clone();
        lines.extend(found.open.iter().map(|deferral| format!("not compared: {deferral}")));
        if lines.is_empty() {
            lines.push(holds.to_owned());
        }
        lines.push(match &args.root {
            Some(_) if found.faults.is_empty() => format!("root {}, as it must be", found.root),
            _ => format!("root {}", found.root),
        });
        lines.join("\n")
    })?;
    Ok(found.exit())
}

#[derive(Args)]
pub struct CompareArgs {
    /// The run that was first.
    run_a: PathBuf,
    /// The run that is compared with it.
    run_b: PathBuf,
    /// Exit 1 when a gate that passes in the first run fails in the second, 3 when it is open or missing there.
    #[arg(long)]
    fail_on_regression: bool,
    /// Print the differences as JSON.
    #[arg(long)]
    json: bool,
}

pub fn compare(args: &CompareArgs) -> Result<Exit> {
    let Comparison { differences, text, regressions } = inspect::compare(&args.run_a, &args.run_b, console::width())?;
    print(args.json, &json!({"differences": differences, "regressions": regressions}), || text)?;
    if !args.fail_on_regression {
        return Ok(Exit::Good);
    }
    for gate in regressions.failed.iter().chain(&regressions.open) {
        console::line(&format!("regression: {gate}"));
    }
    let failed = regressions.failed.iter().map(|_| Exit::Fix);
    Ok(Exit::of_all(failed.chain(regressions.open.iter().map(|_| Exit::Deferred))))
}

#[derive(Args)]
pub struct HistoryArgs {
    /// The folder of runs; that of this checkout or dist folder when none is named.
    #[arg(long, value_name = "DIR")]
    runs: Option<PathBuf>,
    /// Write one page of trends instead, to this file; history.html in the folder of runs when none is named.
    #[arg(long, value_name = "FILE", num_args = 0..=1, conflicts_with = "json")]
    html: Option<Option<PathBuf>>,
    /// Print what each run came to as JSON.
    #[arg(long)]
    json: bool,
}

/// The page of trends, in the folder of runs.
const TRENDS: &str = "history.html";

pub fn history(args: &HistoryArgs) -> Result<Exit> {
    let folder = match &args.runs {
        Some(folder) => folder.clone(),
        None => Layout::find().context("name the folder of runs with --runs")?.runs(),
    };
    if let Some(file) = &args.html {
        let file = file.clone().unwrap_or_else(|| folder.join(TRENDS));
        let page = runs::trends(&folder, &file)?;
        std::fs::write(&file, &page).with_context(|| format!("failed to write `{}`", file.display()))?;
        say(&format!("{}: {} KiB", file.display(), page.len().div_ceil(1024)))?;
        return Ok(Exit::Good);
    }
    let past = runs::history(&folder)?;
    print(args.json, &past, || history::render(&past))?;
    Ok(Exit::Good)
}
