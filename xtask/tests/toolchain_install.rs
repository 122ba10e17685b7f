//! The pinned CUDA compiler for real: installs it into cargo's own target directory, where the pipeline would look
//! for it anyway, and builds a kernel with it. The first run downloads 105 MB; later ones find it there.
//!
//! Where there is no network, no pip or no Linux on x86-64, there is nothing to test and the test says so.

use std::path::Path;
use std::process::Command;

use xtask::ptxas;
use xtask::toolchain::{Origin, Search, Toolchain, ToolchainError};

const KERNEL: &str = r#"#include <cuda_fp16.h>
#include <mma.h>
extern "C" __global__ void reverse(const half* in, half* out) {
  __shared__ half tile[256];
  tile[threadIdx.x] = in[threadIdx.x];
  __syncthreads();
  out[threadIdx.x] = __hmul(tile[255 - threadIdx.x], __float2half(0.5f));
}
"#;

fn install() -> Option<Toolchain> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("lies in the target directory");
    let nowhere = target.join("no-such-directory");
    let search = Search { cuda_home: None, path: Vec::new(), system: nowhere, ..Search::from_env(target) };
    match search.find_or_install(&|line| eprintln!("{line}")) {
        Ok(toolchain) => Some(toolchain),
        // Only what is truly not to be had here may excuse the test: pip is asked in another way than the
        // pipeline asks it.
        Err(error @ ToolchainError::PythonMissing { .. } | error @ ToolchainError::PipMissing { .. }) if has_pip() => {
            panic!("pip is here, and yet: {error}")
        }
        Err(
            error @ (ToolchainError::Platform { .. }
            | ToolchainError::PythonMissing { .. }
            | ToolchainError::PipMissing { .. }
            | ToolchainError::Network { .. }),
        ) => {
            eprintln!("nothing to test here: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn has_pip() -> bool {
    let answer = Command::new("python3").args(["-m", "pip", "--version"]).output();
    answer.is_ok_and(|output| output.status.success())
}

#[test]
fn the_pinned_wheels_build_a_kernel() {
    let Some(toolchain) = install() else { return };
    assert_eq!(toolchain.origin, Origin::Wheels);
    assert_eq!((toolchain.nvcc_version.as_str(), toolchain.ptxas_version.as_str()), ("13.0.88", "13.0.88"));

    let room = tempfile::tempdir().expect("a temporary directory");
    let file = |name: &str| room.path().join(name);
    std::fs::write(file("reverse.cu"), KERNEL).expect("writes");
    let mut nvcc = Command::new(&toolchain.nvcc);
    nvcc.args(["-ptx", "-arch=sm_89", "-o"]).args([file("reverse.ptx"), file("reverse.cu")]);
    let output = nvcc.output().expect("runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for arch in ["sm_89", "sm_90", "sm_90a"] {
        let mut assemble = Command::new(&toolchain.ptxas);
        assemble.args(["-v", &format!("-arch={arch}"), "-o"]).args([file("reverse.cubin"), file("reverse.ptx")]);
        let log = String::from_utf8(assemble.output().expect("runs").stderr).expect("is text");
        let module = ptxas::parse(&log).unwrap_or_else(|error| panic!("{error}\n{log}"));
        let [kernel] = &module.entries[..] else { panic!("{module:?}") };
        assert_eq!((kernel.entry.as_str(), kernel.arch.as_str()), ("reverse", arch));
        assert_eq!((kernel.static_smem_bytes, kernel.barriers), (512, Some(1)));
        assert!(kernel.registers > 0 && kernel.spill_store_bytes == 0, "{kernel:?}");
    }
}
