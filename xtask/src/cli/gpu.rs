//! `--gpu`: the one GPU that a command uses, where a machine has several. Nothing that the command starts sees another one:
//! neither the runner, nor a profiler, nor a peer.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::plan::DeviceChoice;
use crate::runner::VISIBLE_DEVICES;

/// The variable by which CUDA numbers GPUs as nvidia-smi does; by speed without it.
const DEVICE_ORDER: (&str, &str) = ("CUDA_DEVICE_ORDER", "PCI_BUS_ID");

#[derive(Args, Clone, Debug, Default)]
pub struct GpuArgs {
    /// The GPU to use: its number as nvidia-smi shows it, or its UUID; the first one without.
    #[arg(long, value_name = "INDEX|UUID", value_parser = named)]
    gpu: Option<String>,
}

/// `0`, or `GPU-...` and `MIG-...` as nvidia-smi -L prints them.
fn named(text: &str) -> Result<String, String> {
    let is_index = !text.is_empty() && text.len() <= 3 && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_uuid = ["GPU-", "MIG-"].iter().any(|start| text.starts_with(start))
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-/".contains(&byte));
    (is_index || is_uuid)
        .then(|| text.to_owned())
        .ok_or_else(|| "a GPU is a number or a UUID; see nvidia-smi -L".to_owned())
}

impl GpuArgs {
    /// Where cases run: whoever names a GPU wants no emulator in its place.
    pub fn device(&self, choice: DeviceChoice) -> Result<DeviceChoice> {
        match (&self.gpu, choice) {
            (Some(_), DeviceChoice::Emulator) => bail!("--gpu names a GPU, and --device emulator uses none"),
            (Some(_), _) => Ok(DeviceChoice::Gpu),
            (None, choice) => Ok(choice),
        }
    }

    /// Hides the other GPUs. What a process shows its children is set when it starts, so it starts again.
    pub fn alone(&self) -> Result<()> {
        let Some(gpu) = &self.gpu else { return Ok(()) };
        let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|found| found == value);
        if is(VISIBLE_DEVICES, gpu) && is(DEVICE_ORDER.0, DEVICE_ORDER.1) {
            return Ok(());
        }
        let mut arguments = std::env::args_os();
        let mut command = Command::new(std::env::current_exe().context("failed to find the running executable")?);
        if let Some(name) = arguments.next() {
            command.arg0(name);
        }
        command.args(arguments).env(VISIBLE_DEVICES, gpu).env(DEVICE_ORDER.0, DEVICE_ORDER.1);
        Err(command.exec()).context("failed to start again with one GPU")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_is_a_number_or_a_uuid_and_takes_the_emulators_place() {
        for name in ["0", "15", "GPU-3f7c9a52-1b2c-4d5e-8f90-123456789abc", "MIG-GPU-1/2/0"] {
            assert_eq!(named(name).as_deref(), Ok(name));
        }
        for name in ["", "-1", "1,2", "0x1", "GPU 1", "H100"] {
            assert!(named(name).is_err(), "{name}");
        }
        let one = GpuArgs { gpu: Some("1".to_owned()) };
        assert_eq!(one.device(DeviceChoice::Auto).unwrap(), DeviceChoice::Gpu);
        assert!(one.device(DeviceChoice::Emulator).is_err());
        let any = GpuArgs { gpu: None };
        assert_eq!(any.device(DeviceChoice::Emulator).unwrap(), DeviceChoice::Emulator);
    }
}
