//! `ceilings`: builds the microbenchmarks for the device that is here, has the runner time them, and keeps the result
//! where `validate` finds it. Without a GPU it is deferred.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use kbench::ceilings::Ceilings;
use kbench::deferral::Deferral;
use kbench::evidence::Device;
use kbench::job::{CeilingsJob, Event, Job};

use crate::console::Step;
use crate::files::write_whole;
use crate::layout::Layout;
use crate::runner::{End, Runner};
use crate::toolchain;

/// Opening a device, or one rate: a tenth of a second each.
const SILENCE: Duration = Duration::from_secs(60);

/// What `ceilings` came to.
pub enum Measuring {
    /// It ran; the file is where it was kept.
    Ran(Box<Ceilings>, PathBuf),
    Deferred(Deferral),
}

/// Where the ceilings of a device are kept: of that very card, since no two clock alike.
pub fn kept_at(layout: &Layout, device: &Device) -> PathBuf {
    layout.target.join("ceilings").join(format!("{}.json", device.uuid))
}

/// The ceilings that were measured on this very card, if any.
pub fn kept(layout: &Layout, device: &Device) -> Option<Ceilings> {
    let text = std::fs::read(kept_at(layout, device)).ok()?;
    let ceilings: Ceilings = serde_json::from_slice(&text).ok()?;
    (ceilings.device.uuid == device.uuid).then_some(ceilings)
}

pub fn measure(layout: &Layout) -> Result<Measuring> {
    let folder = layout.target.join("ceilings");
    std::fs::create_dir_all(&folder).with_context(|| format!("failed to create `{}`", folder.display()))?;
    let runner = Runner::locate(layout, &folder)?;
    let mut device = None;
    let mut why_not = Deferral::new("no device", "run on a machine with an NVIDIA GPU");
    let end = runner.run("probe", &Job::Probe, SILENCE, |event| match event {
        Event::Device { device: found, .. } => device = Some(found),
        Event::NoDevice(deferral) => why_not = deferral,
        _ => {}
    })?;
    let Some(device) = device else {
        return Ok(Measuring::Deferred(match end {
            End::Done => why_not,
            End::Error(why) | End::Lost { why, .. } => Deferral::new(why, "check `nvidia-smi`"),
        }));
    };
    let toolchain = toolchain::find_or_install(&layout.target, &crate::console::line)?;
    let image = folder.join("ceilings.cubin");
    compile(layout, &toolchain, &target(&device), &image)?;
    let step = Step::begin("ceilings", 0);
    let mut ceilings = None;
    let end = runner.run("ceilings", &Job::Ceilings(CeilingsJob { image }), SILENCE, |event| match event {
        Event::Progress { done, total, what } => step.at(done, total, &what),
        Event::Ceilings { ceilings: found } => ceilings = Some(*found),
        _ => {}
    })?;
    let ceilings = match (ceilings, end) {
        (Some(ceilings), End::Done) => ceilings,
        (_, End::Error(why) | End::Lost { why, .. }) => bail!("measuring broke off: {why}"),
        (None, End::Done) => bail!("the runner ended without a result"),
    };
    step.end(&format!("{} rates", ceilings.rows.len()));
    let path = kept_at(layout, &ceilings.device);
    write_whole(&path, serde_json::to_string_pretty(&ceilings)?.as_bytes())?;
    Ok(Measuring::Ran(Box::new(ceilings), path))
}

/// The warpgroup products exist for `sm_90a` only.
fn target(device: &Device) -> String {
    let arch = device.arch();
    if arch == "sm_90" { "sm_90a".to_owned() } else { arch }
}

fn compile(layout: &Layout, toolchain: &toolchain::Toolchain, arch: &str, image: &std::path::Path) -> Result<()> {
    let ptx = image.with_extension("ptx");
    let number = arch.trim_start_matches("sm_");
    let nvcc = duct::cmd!(
        &toolchain.nvcc,
        "-ptx",
        "-std=c++17",
        "-O3",
        format!("-arch=compute_{number}"),
        "-I",
        ".",
        "ceilings.cu",
        "-o",
        &ptx
    );
    let ptxas = duct::cmd!(&toolchain.ptxas, format!("-arch={arch}"), &ptx, "-o", image);
    for (tool, command) in [("nvcc", nvcc), ("ptxas", ptxas)] {
        let output = command.dir(layout.cuda()).stderr_to_stdout().stdout_capture().unchecked().run()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stdout);
            bail!("{tool} refused ceilings.cu: {}", said.lines().find(|l| l.contains("error")).unwrap_or(said.trim()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_source_compiles_for_both_generations() {
        let layout = Layout::find().expect("the tests run in a checkout");
        let tools = toolchain::find_or_install(&layout.target, &crate::console::line).expect("a CUDA compiler");
        let scratch = tempfile::tempdir().unwrap();
        for (arch, present, absent) in
            [("sm_89", "ceiling_mma_e4m3", "ceiling_wgmma_e4m3"), ("sm_90a", "ceiling_wgmma_e4m3", "ceiling_mma_e4m3")]
        {
            let image = scratch.path().join(format!("{arch}.cubin"));
            compile(&layout, &tools, arch, &image).unwrap();
            let bytes = std::fs::read(&image).unwrap();
            let cubin = crate::cubin::Cubin::parse(&bytes).unwrap();
            assert!(cubin.code_sha256(present).is_ok() && cubin.code_sha256(absent).is_err(), "{arch}");
        }
    }
}
