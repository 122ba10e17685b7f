//! What the emulator takes on: how long a launch may be, how many CTAs may wait for each other, how much memory it may
//! need. Beyond that nothing is known of a kernel, and it is deferred by name. Leaves to others: running it.

use kernel_spec::launch::{Argument, Launch};
use operators::setup::Setup;
use ptx_emulator::{EmuError, Limits, LoadError, MemoryError, ParseError};

/// Warp instructions of one launch: some fifteen seconds of two cores, with every check.
const INSTRUCTIONS: u64 = 500_000_000;
/// Turns of a block, each some dozens of polls, in which nothing changes anywhere. All resident blocks take as many before
/// the launch ends.
const IDLE_TURNS: u32 = 100;
/// Every warp executes at least this many.
const LEAST_OF_A_WARP: u64 = 8;
/// Bytes of all tensors; the checks remember a dozen times as much.
const BYTES: usize = 256 << 20;
/// Threads of a grid that synchronises, all of them alive at once: more than any chip holds.
const RESIDENT_THREADS: u64 = 1 << 19;
/// CTAs that are alive at once where none asks for more.
const RESIDENT_CTAS: u64 = 256;

/// A launch is more than the emulator takes on, or something that it does not do.
#[derive(Debug, thiserror::Error)]
#[error("the emulator {0}")]
struct Beyond(String);

/// Of a variant that is machine code alone.
pub fn without_ptx(variant: &str) -> anyhow::Error {
    Beyond(format!("executes PTX, and `{variant}` is machine code")).into()
}

/// Whether it was refused before anything ran.
pub fn is_beyond(error: &anyhow::Error) -> bool {
    error.is::<Beyond>()
}

/// Bounds on the run of a launch.
pub fn of(launch: &Launch, bounded: bool) -> Limits {
    let together = if launch.cooperative { launch.ctas().max(RESIDENT_CTAS) } else { RESIDENT_CTAS };
    let limits = Limits { resident_blocks: together as usize, ..Limits::default() };
    if bounded { Limits { instructions: INSTRUCTIONS, idle_turns: IDLE_TURNS, ..limits } } else { limits }
}

/// Refuses what would not come to its end, before anything runs.
pub fn check(setup: &Setup) -> anyhow::Result<()> {
    if !setup.bounded {
        return Ok(());
    }
    let refuse = |why: String| Err(Beyond(why).into());
    let bytes: usize = setup.tensors.iter().map(|tensor| tensor.role.bytes()).sum();
    if bytes > BYTES {
        return refuse(format!("takes tensors of {} MiB together, these have {} MiB", BYTES >> 20, bytes >> 20));
    }
    for launch in setup.launches() {
        let entry = &launch.entry;
        let warps = launch.ctas().saturating_mul(launch.threads().div_ceil(32));
        if warps.saturating_mul(LEAST_OF_A_WARP) > INSTRUCTIONS {
            let most = INSTRUCTIONS / LEAST_OF_A_WARP;
            return refuse(format!("runs grids of at most {most} warps, `{entry}` has {warps}"));
        }
        let threads = launch.ctas().saturating_mul(launch.threads());
        if launch.cooperative && threads > RESIDENT_THREADS {
            let text = format!("keeps at most {RESIDENT_THREADS} threads of a cooperative grid alive");
            return refuse(format!("{text}, `{entry}` has {threads}"));
        }
        if launch.params.iter().any(has_map) {
            return refuse(format!("has no driver that could encode the tensor map of `{entry}`"));
        }
    }
    Ok(())
}

fn has_map(argument: &Argument) -> bool {
    match argument {
        Argument::Map { .. } => true,
        Argument::Struct { fields, .. } => fields.iter().any(has_map),
        Argument::Tensor(_) | Argument::Null | Argument::Scalar { .. } => false,
    }
}

/// Why an error says nothing of the kernel, if so.
pub fn beyond(error: &anyhow::Error) -> Option<String> {
    if let Some(refused) = error.downcast_ref::<Beyond>() {
        return Some(refused.to_string());
    }
    if let Some(EmuError::Budget { kernel, limit }) = error.downcast_ref::<EmuError>() {
        return Some(format!("the emulator gave `{kernel}` up after {limit} warp instructions"));
    }
    if let Some(EmuError::ClockExhausted { .. } | EmuError::Threads(_)) = error.downcast_ref::<EmuError>() {
        return Some(format!("{error:#}"));
    }
    let too_large = matches!(error.downcast_ref::<MemoryError>(), Some(MemoryError::TooLarge { .. }));
    let unknown = too_large || error.is::<LoadError>() || error.is::<ParseError>();
    unknown.then(|| format!("the emulator cannot execute it: {error:#}"))
}
