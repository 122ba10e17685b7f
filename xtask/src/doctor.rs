//! `doctor`: what is here, what is missing, and what each lack defers. Installs nothing.

use std::time::Duration;

use anyhow::Result;
use kbench::deferral::Deferral;
use kbench::job::{Event, Job};
use serde::Serialize;
use serde_json::{Value, json};
use xshell::{Shell, cmd};

use crate::layout::Layout;
use crate::ncu;
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

pub fn examine(layout: &Layout) -> Result<Vec<Finding>> {
    let mut findings = compilers(layout);
    findings.push(disassembler(layout));
    findings.extend(device(layout)?);
    findings.push(profiler());
    let lack =
        "`sanitize` on a GPU, and memory checks of what the emulator cannot run: DEFERRED; install the CUDA toolkit";
    let sanitizer = toolchain::sanitizer(&layout.target).unwrap_or_else(|| "compute-sanitizer".into());
    findings.push(Finding {
        what: "compute-sanitizer".to_owned(),
        ..program(&sanitizer.display().to_string(), &["--version"], lack)
    });
    findings.extend(PEERS.iter().map(|script| peer(layout, script)));
    Ok(findings)
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

fn device(layout: &Layout) -> Result<Vec<Finding>> {
    let logs = tempfile::tempdir()?;
    let runner = Runner::locate(layout, logs.path())?;
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
            findings.push(missing("GPU", &why, &format!("correctness and performance gates: DEFERRED; {remedy}")));
        }
        _ => {}
    })?;
    if let End::Error(why) | End::Lost { why, .. } = end {
        findings.push(missing("GPU", &why, "correctness and performance gates: DEFERRED; check `nvidia-smi`"));
    }
    Ok(findings)
}

fn program(name: &str, arguments: &[&str], lack: &str) -> Finding {
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
        program("ncu", &["--version"], "`ncu` and `validate --ncu`: profile gates DEFERRED; install Nsight Compute");
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
        lack: "peers: DEFERRED",
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
        versions: &[("flash_attn_interface ", "flash_attn"), ("PyTorch ", "torch")],
        lack: "the peer gate of suite flagship: DEFERRED",
        remedy: "build it from the hopper folder of github.com/Dao-AILab/flash-attention on a machine with a Hopper GPU",
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

/// The findings as lines.
pub fn render(findings: &[Finding]) -> String {
    let line = |f: &Finding| {
        let mark = if f.here { "ok     " } else { "MISSING" };
        let lack = if f.lack.is_empty() { String::new() } else { format!("\n          {}", f.lack) };
        format!("{mark} {:18} {}{lack}", f.what, f.detail)
    };
    findings.iter().map(line).collect::<Vec<_>>().join("\n")
}
