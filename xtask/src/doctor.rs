//! `doctor`: what is missing, in the order in which one would get it, what each lack defers, what is here, and what to run
//! next. Installs nothing.

use std::time::Duration;

use anyhow::Result;
use kbench::deferral::Deferral;
use kbench::job::{Event, Job};
use kbench::report::hanging;
use serde::Serialize;
use serde_json::{Value, json};
use xshell::{Shell, cmd};

use crate::accepted;
use crate::layout::{Layout, program};
use crate::ncu;
use crate::plan::suite_names;
use crate::runner::{End, Runner};
use crate::toolchain;

/// One thing that the pipeline can use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub what: String,
    /// Whether it is here.
    pub here: bool,
    /// What was found, or why it was not.
    pub detail: String,
    /// What its lack defers, and the remedy; empty when it is here.
    pub lack: String,
}

fn here(what: &str, detail: String) -> Finding {
    Finding { what: what.to_owned(), here: true, detail, lack: String::new() }
}

fn missing(what: &str, detail: &str, lack: &str) -> Finding {
    Finding { what: what.to_owned(), here: false, detail: detail.to_owned(), lack: lack.to_owned() }
}

/// Everything, in the order of what it is worth: without the first nothing runs, and the last is a luxury.
pub fn examine(layout: &Layout) -> Result<Vec<Finding>> {
    let mut findings = compilers(layout);
    findings.push(emulator(layout));
    findings.extend(device(layout)?);
    findings.push(python());
    findings.push(disassembler(layout));
    let lack =
        "`sanitize` on a GPU, and memory checks of what the emulator cannot run: DEFERRED; install the CUDA toolkit";
    let sanitizer = toolchain::sanitizer(&layout.target).unwrap_or_else(|| "compute-sanitizer".into());
    findings.push(Finding {
        what: "compute-sanitizer".to_owned(),
        ..versioned(&sanitizer.display().to_string(), &["--version"], lack)
    });
    findings.push(profiler());
    findings.extend(PEERS.iter().map(|script| peer(layout, script)));
    Ok(findings)
}

/// What checks correctness where there is no GPU, and what it does not.
fn emulator(layout: &Layout) -> Finding {
    let (emulated, others) = suites(layout);
    let others = if others.is_empty() {
        String::new()
    } else {
        format!("; of {} it runs no kernel, they are DEFERRED without a GPU", others.join(", "))
    };
    here(
        "emulator",
        format!(
            "runs PTX on the CPU: errors, races, bounds, uninitialised values of the shapes that a suite allows ({}), and \
             `sanitize`; never time{others}",
            emulated.join(", ")
        ),
    )
}

/// Names of the suites that allow emulation, and of the others.
fn suites(layout: &Layout) -> (Vec<String>, Vec<String>) {
    let emulates = |name: &String| {
        let suite = accepted::suite(layout, &layout.suites().join(format!("{name}.toml")));
        suite.is_ok_and(|(suite, _)| suite.emulation.is_some())
    };
    suite_names(layout).into_iter().partition(emulates)
}

/// What a gate file's reference, checker and generator run on.
fn python() -> Finding {
    const WHAT: &str = "Python";
    match Shell::new().and_then(|shell| cmd!(shell, "python3 --version").ignore_stderr().read()) {
        Ok(version) => here(WHAT, format!("{version}; a pinned numpy is installed when a gate file needs one")),
        Err(_) => {
            missing(WHAT, "no `python3`", "gate files (their references) and peers: DEFERRED; install python3 with pip")
        }
    }
}

fn compilers(layout: &Layout) -> Vec<Finding> {
    let probe = toolchain::probe(&layout.target);
    let mut findings: Vec<Finding> = probe
        .rejected
        .iter()
        .map(|rejected| missing("CUDA compiler", &rejected.to_string(), "passed over; the next one is used"))
        .collect();
    findings.push(match (probe.toolchain, probe.installer) {
        (Some(found), _) => here(
            "CUDA compiler",
            format!(
                "nvcc {} and ptxas {} from {} (`{}`)",
                found.nvcc_version,
                found.ptxas_version,
                found.origin,
                found.nvcc.display()
            ),
        ),
        (None, Some(Ok(installer))) => missing(
            "CUDA compiler",
            "none yet",
            &format!("nothing: `build` and `validate` install pinned wheels with {installer}"),
        ),
        (None, Some(Err(error))) => {
            missing("CUDA compiler", &error.to_string(), "builds, and with them everything: DEFERRED")
        }
        (None, None) => missing("CUDA compiler", "none", "builds, and with them everything: DEFERRED"),
    });
    findings
}

/// What lists machine code, for suites that require instructions in it.
fn disassembler(layout: &Layout) -> Finding {
    const LACK: &str = "gates on machine code (`[machine_code]` of a suite): DEFERRED";
    let Some(compilers) = toolchain::find(&layout.target) else {
        return missing("nvdisasm", "looked for beside a CUDA compiler, and there is none yet", LACK);
    };
    match toolchain::probe_disassembler(&layout.target, &compilers) {
        Ok(program) => here("nvdisasm", format!("`{}`", program.display())),
        Err(Ok(installer)) => {
            let lack = format!("nothing: suites that need it install a pinned wheel with {installer}");
            missing("nvdisasm", "none yet", &lack)
        }
        Err(Err(error)) => missing("nvdisasm", "neither beside ptxas nor on PATH", &format!("{LACK}; {error}")),
    }
}

/// Correctness is not in it: the emulator checks that.
const WITHOUT_GPU: &str =
    "every gate on time, on peers and on the profile, and `seen on a GPU`: DEFERRED, so nothing MERGEs";

fn device(layout: &Layout) -> Result<Vec<Finding>> {
    let logs = tempfile::tempdir()?;
    let Some(runner) = Runner::present(layout, logs.path()) else { return Ok(vec![unopened()]) };
    let mut findings = Vec::new();
    let end = runner.run("probe", &Job::Probe, Duration::from_secs(60), |event| match event {
        Event::Device { device, others, .. } => {
            let gib = device.memory_bytes as f64 / f64::from(1 << 30);
            let driver = device.nvml.as_ref().map_or("unknown (no NVML)", |n| n.driver.as_str());
            findings.push(here(
                "GPU",
                format!(
                    "{} ({}), sm_{}{}, {} SMs, {gib:.0} GiB, driver {driver}, CUDA {}",
                    device.name,
                    device.uuid,
                    device.capability.0,
                    device.capability.1,
                    device.sm_count,
                    device.cuda_driver
                ),
            ));
            if device.nvml.is_none() {
                findings.push(missing("NVML", "not found", "clocks and throttling are not recorded"));
            }
            if !others.is_empty() {
                let lack = "performance gates: DEFERRED while they run; stop them";
                findings.push(missing("an idle GPU", &format!("busy: {}", others.join(", ")), lack));
            }
        }
        Event::NoDevice(Deferral { why, remedy }) => {
            findings.push(missing("GPU", &why, &format!("{WITHOUT_GPU}; {remedy}")));
        }
        _ => {}
    })?;
    if let End::Error(why) | End::Lost { why, .. } = end {
        findings.push(missing("GPU", &why, &format!("{WITHOUT_GPU}; check `nvidia-smi`")));
    }
    Ok(findings)
}

/// The GPU as its driver's own tool sees it, where the program that opens devices is not built yet.
fn unopened() -> Finding {
    let fields = "--query-gpu=name,uuid,driver_version";
    let answer = Shell::new()
        .and_then(|shell| cmd!(shell, "nvidia-smi {fields} --format=csv,noheader").quiet().ignore_stderr().read());
    match answer.ok().as_deref().and_then(|text| text.lines().next()).filter(|line| line.contains("GPU-")) {
        Some(line) => here("GPU", format!("{} (nvidia-smi; it is opened when something is built)", line.trim())),
        None => missing("GPU", "nvidia-smi finds none", &format!("{WITHOUT_GPU}; run on a machine with an NVIDIA GPU")),
    }
}

fn versioned(name: &str, arguments: &[&str], lack: &str) -> Finding {
    let answer = Shell::new().and_then(|shell| cmd!(shell, "{name} {arguments...}").ignore_stderr().read());
    match answer {
        Ok(text) => {
            let version = text.lines().rev().find(|line| line.contains("ersion")).unwrap_or_default().trim().to_owned();
            here(name, version)
        }
        Err(error) => missing(name, &error.to_string(), lack),
    }
}

/// Nsight Compute, and whether it may read counters.
fn profiler() -> Finding {
    let found =
        versioned("ncu", &["--version"], "`ncu` and `validate --ncu`: profile gates DEFERRED; install Nsight Compute");
    match (found.here, ncu::obstacle_ahead()) {
        (true, Some(Deferral { why, remedy })) => {
            missing("ncu", &format!("{}, but {why}", found.detail), &format!("profile gates: DEFERRED; {remedy}"))
        }
        _ => found,
    }
}

/// A peer: its name here, its script, the keys of its answer that tell versions, and what its lack defers.
struct PeerScript {
    what: &'static str,
    script: &'static str,
    versions: &'static [(&'static str, &'static str)],
    lack: &'static str,
    /// Where the script itself names none.
    remedy: &'static str,
}

const PEERS: [PeerScript; 3] = [
    PeerScript {
        what: "PyTorch",
        script: "torch_sdpa.py",
        versions: &[("", "torch"), ("cuDNN ", "cudnn"), ("Python ", "python")],
        lack: "gates on peers, ratios to PyTorch, and host code (`call`) of gate files: DEFERRED",
        remedy: "install PyTorch with CUDA, or pass --peers none",
    },
    PeerScript {
        what: "cuDNN FP8",
        script: "cudnn_fp8.py",
        versions: &[("nvidia-cudnn-frontend ", "cudnn_frontend"), ("cuDNN ", "cudnn")],
        lack: "the peer gate of suite flagship: DEFERRED",
        remedy: "pip install torch nvidia-cudnn-frontend on a machine with a Hopper GPU",
    },
    PeerScript {
        what: "FlashAttention-3",
        script: "fa3_fp8.py",
        versions: &[("", "flash_attn"), ("PyTorch ", "torch")],
        lack: "the peer gate of suite flagship: DEFERRED",
        remedy: "pip install fa3-fwd on a machine with PyTorch and a Hopper GPU",
    },
];

/// Asks the peer script itself, so that doctor and validate agree.
fn peer(layout: &Layout, peer: &PeerScript) -> Finding {
    let script = layout.peers().join(peer.script);
    let hello = "{\"op\":\"hello\"}\n";
    let ask = |shell: Shell| cmd!(shell, "python3 {script}").stdin(hello).ignore_stderr().ignore_status().read();
    let answer = Shell::new().and_then(ask).ok();
    let answer: Option<Value> = answer.and_then(|text| serde_json::from_str(text.lines().next()?).ok());
    let lack = |remedy: &str| format!("{}; {remedy}", peer.lack);
    match answer {
        None => missing(peer.what, "python3 or the peer script does not run", &lack(peer.remedy)),
        Some(answer) if answer["ok"] == json!(true) => {
            let text = |key: &str| answer[key].as_str().map_or_else(|| answer[key].to_string(), str::to_owned);
            let versions = peer.versions.iter().map(|(name, key)| format!("{name}{}", text(key)));
            here(peer.what, versions.collect::<Vec<_>>().join(", "))
        }
        Some(answer) => {
            let remedy = answer["remedy"].as_str().unwrap_or(peer.remedy);
            missing(peer.what, answer["error"].as_str().unwrap_or("no reason given"), &lack(remedy))
        }
    }
}

/// What is missing, then what is here, and last what to do next. What does not fit into `width` columns goes on below, where it
/// began.
pub fn render(findings: &[Finding], width: usize) -> String {
    let (here, missing): (Vec<&Finding>, Vec<&Finding>) = findings.iter().partition(|f| f.here);
    let mut lines = Vec::new();
    for f in &missing {
        lines.extend(hanging(&format!("MISSING {:18} ", f.what), &f.detail, width));
        lines.extend(hanging("        defers: ", &f.lack, width));
    }
    for f in &here {
        lines.extend(hanging(&format!("ok      {:18} ", f.what), &f.detail, width));
    }
    lines.push(String::new());
    lines.extend(hanging("next: ", &next(&missing), width));
    // A path that fits nowhere stands below its name.
    lines.iter().map(|line| line.trim_end()).collect::<Vec<_>>().join("\n")
}

/// What is best done now. Some lacks mend themselves: then what is lacking is said to defer nothing.
fn next(missing: &[&Finding]) -> String {
    let validate = format!("{} validate --stage5", program());
    let lacks = |what: &str| missing.iter().find(|f| f.what == what && !f.lack.starts_with("nothing"));
    if let Some(f) = lacks("CUDA compiler").filter(|f| !f.lack.starts_with("passed over")) {
        return format!("get a CUDA compiler ({}): without one nothing is built", f.detail);
    }
    if lacks("an idle GPU").is_some() {
        return format!("stop what keeps the GPU busy, then {validate}");
    }
    match lacks("GPU") {
        Some(_) => {
            let elsewhere = match program() {
                "cargo xtask" => "cargo xtask dist and run the folder",
                _ => "run this program",
            };
            format!("{validate} checks all but speed here; for a verdict, {elsewhere} on a machine with an NVIDIA GPU")
        }
        None => validate,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_is_looked_for_without_building_anything() {
        let target = tempfile::tempdir().unwrap();
        let checkout = Layout::find().unwrap();
        let found = device(&Layout::at(checkout.root, target.path().to_owned())).unwrap();
        assert_eq!(found.iter().map(|f| f.what.as_str()).collect::<Vec<_>>(), ["GPU"]);
        assert_eq!(std::fs::read_dir(target.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_is_missing_stands_first_in_its_order_and_the_last_line_says_what_to_do() {
        let findings = [
            here("CUDA compiler", "nvcc 13.0.88".into()),
            missing("GPU", "no CUDA driver library", "every gate on time: DEFERRED; run elsewhere"),
            here("Python", "3.11".into()),
            missing("ncu", "not found", "profile gates: DEFERRED"),
        ];
        let text = render(&findings, 200);
        let at = |words: &str| text.find(words).unwrap_or_else(|| panic!("`{words}`: {text}"));
        assert!(
            [at("MISSING GPU"), at("MISSING ncu"), at("ok      CUDA"), at("ok      Python"), at("next:")].is_sorted()
        );
        assert!(text.ends_with("run the folder on a machine with an NVIDIA GPU"), "{text}");
        assert!(render(&findings[..1], 200).ends_with("next: cargo xtask validate --stage5"));
        let narrow = render(&findings, 54);
        let under = format!("        defers: every gate on time: DEFERRED; run\n{:16}elsewhere", "");
        assert!(narrow.contains(&under), "{narrow}");
        assert!(narrow.lines().all(|line| line.chars().count() <= 54), "{narrow}");
        let installs = missing("CUDA compiler", "none yet", "nothing: `build` installs pinned wheels");
        assert!(render(&[installs], 200).ends_with("next: cargo xtask validate --stage5"));
        let none = missing("CUDA compiler", "no pip", "builds, and with them everything: DEFERRED");
        assert!(render(&[none, findings[1].clone()], 200).contains("next: get a CUDA compiler (no pip)"));
    }
}
