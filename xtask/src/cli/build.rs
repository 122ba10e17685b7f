//! `build` and `dist`: what is made here to be used elsewhere.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use kbench::exit::Exit;
use sdpa_kernel::registry::{self, Variant};
use serde_json::json;

use super::print::{print, say, table};
use super::suite::{Choice, usage};
use crate::build::{BuildSet, build_all};
use crate::console;
use crate::dist::{self, Programs};
use crate::export::export;
use crate::layout::{Layout, program};
use crate::plan::{Changes, Plan};
use crate::toolchain;

#[derive(Args)]
#[command(override_usage = usage("build [VARIANT]... [--suite SUITE | --<SUITE>] [OPTIONS]"))]
pub struct BuildArgs {
    /// Variants; all of the registry, or of the suite, when none is named.
    #[arg(value_name = "VARIANT")]
    variants: Vec<String>,
    /// The architecture to build for, where a variant's family knows more than one.
    #[arg(long, default_value = "sm_89")]
    arch: String,
    /// Also write each cubin and its launch record to this folder, for sdpa_fp8.py and others.
    #[arg(long, value_name = "DIR")]
    export: Option<PathBuf>,
    /// Print what is known of each build as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    suite: Choice<false>,
}

#[derive(Args)]
pub struct InitArgs {
    /// A CUDA source.
    kernel: PathBuf,
}

/// Drafts a gate file beside a source.
pub fn init(args: &InitArgs) -> Result<Exit> {
    let gate = crate::foreign::init::init(&Layout::find()?, &args.kernel)?;
    say(&format!("{0}\nfill in what is marked, then: {1} validate {0}", gate.display(), program()))?;
    Ok(Exit::Good)
}

pub fn build(args: &BuildArgs) -> Result<Exit> {
    let layout = Layout::find()?;
    let variants = match (args.variants.as_slice(), args.suite.named()) {
        ([], Some(suite)) => Plan::read(&layout, suite, &Changes::default())?.variants,
        (names, _) => registered(names)?,
    };
    let toolchain = toolchain::find_or_install(&layout.target, &console::line)?;
    let set = build_all(&layout, &toolchain, &variants, std::slice::from_ref(&args.arch))?;
    if let Some(folder) = &args.export {
        for record in export(&set, folder)? {
            console::line(&format!("exported {}", record.display()));
        }
    }
    let evidence = set.evidence();
    print(args.json, &evidence, || render(&set))?;
    let ends = evidence.failures.iter().map(|f| if f.unclaimed.is_some() { Exit::Deferred } else { Exit::Fix });
    Ok(Exit::of_all(ends))
}

/// A row an entry function, then what is wrong.
fn render(set: &BuildSet) -> String {
    let header = ["variant", "arch", "entry", "registers", "shared bytes", "spilled bytes", "threads", "from"]
        .map(str::to_owned);
    let rows: Vec<Vec<String>> = set
        .built
        .iter()
        .flat_map(|built| built.record.entries.iter().map(move |entry| (built, entry)))
        .map(|(built, entry)| {
            let (r, l) = (&entry.resources, &entry.launch);
            vec![
                built.record.variant.clone(),
                built.record.arch.clone(),
                l.entry.clone(),
                r.registers.to_string(),
                format!("{} + {}", r.static_smem_bytes, l.dynamic_smem_bytes),
                (r.spill_store_bytes + r.spill_load_bytes).to_string(),
                l.threads.to_string(),
                if built.cached { "cache" } else { "compiler" }.to_owned(),
            ]
        })
        .collect();
    let built = if rows.is_empty() { String::new() } else { table(&header, &rows) };
    let mismatches = set.built.iter().flat_map(|b| {
        b.record.toggle_mismatches.iter().map(move |m| format!("{}: toggle echo: {m}", b.record.variant))
    });
    let failures = set.failures.iter().map(|f| match &f.unclaimed {
        Some(why) => format!("{} {}: DEFERRED ({why})", f.variant, f.arch),
        None => format!("{} {}: {}", f.variant, f.arch, f.error),
    });
    let lines: Vec<String> =
        std::iter::once(built).filter(|text| !text.is_empty()).chain(mismatches).chain(failures).collect();
    lines.join("\n")
}

/// The variants of these names, or all where there is none.
pub fn registered(names: &[String]) -> Result<Vec<Variant>> {
    match names {
        [] => registry::names().map(|name| Ok(registry::find(name)?)).collect(),
        names => names.iter().map(|name| Ok(registry::find(name)?)).collect(),
    }
}

#[derive(Args)]
pub struct DistArgs {
    /// One wheel for pip instead of a folder.
    #[arg(long)]
    wheel: bool,
    /// The folder to make, or to put the wheel into; target/dist or target/wheel when none is named.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print where it is as JSON.
    #[arg(long)]
    json: bool,
}

pub fn make_dist(args: &DistArgs) -> Result<Exit> {
    let layout = Layout::find()?;
    let (what, made) = if args.wheel {
        let contents = dist::contents(&layout, &Programs::release(&layout)?)?;
        let folder = args.out.clone().unwrap_or_else(|| layout.target.join("wheel"));
        ("wheel", dist::wheel::wheel(&contents, &folder)?)
    } else {
        ("dist", dist::dist(&layout, args.out.as_deref())?)
    };
    let made = made.display().to_string();
    print(args.json, &json!({what: made}), || made.clone())?;
    Ok(Exit::Good)
}
