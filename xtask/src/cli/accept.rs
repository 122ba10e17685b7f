//! `accept`: after the verdict. Leaves to others: what may be accepted.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use kbench::exit::Exit;

use super::print::print;
use super::runs::root;
use crate::accept::{Asked, Done, accept};
use crate::console;
use crate::layout::{Layout, program};

#[derive(Args)]
pub struct AcceptArgs {
    /// The run that says MERGE; it is verified first.
    run: PathBuf,
    /// The candidate that becomes the control; the only one that MERGEs when none is named.
    candidate: Option<String>,
    /// The root that the run must have, as `validate` printed it: finds every edit, whatever was computed anew.
    #[arg(long, value_name = "HASH", value_parser = root)]
    root: Option<String>,
    /// The gate file that it was judged by, beside which accepted.json lies; found by the run's command line when it lies
    /// below the working directory.
    #[arg(long, value_name = "GATE.toml")]
    gate: Option<PathBuf>,
    /// Print what was recorded as JSON.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &AcceptArgs) -> Result<Exit> {
    let asked = Asked { candidate: args.candidate.as_deref(), root: args.root.as_deref(), gate: args.gate.as_deref() };
    match accept(&Layout::find()?, &args.run, &asked)? {
        Ok(done) => print(args.json, &done, || words(&done)).map(|()| Exit::Good),
        Err(refused) => {
            console::error(&refused.why);
            Ok(refused.exit)
        }
    }
}

fn words(done: &Done) -> String {
    let accepted = &done.accepted;
    let mut lines = vec![
        format!("accepted {} over {} on {}", accepted.variant, accepted.control, accepted.device),
        format!("recorded in {}: commit it with the merge", done.file.display()),
        format!("control = \"accepted\" in {} means {} from now on", accepted.suite, accepted.variant),
    ];
    if accepted.dirty {
        lines.push("the run's sources had changes that were not committed: commit those as well".to_owned());
    }
    lines.extend(done.open.iter().map(|deferral| format!("not compared: {deferral}")));
    lines.push(String::new());
    lines.extend(done.message.lines().map(|line| format!("    {line}").trim_end().to_owned()));
    lines.push(String::new());
    lines.push(format!("tag: {}", done.tag));
    lines.push(format!("held to it later: {} verify RUN --root {}", program(), accepted.root));
    lines.join("\n")
}
