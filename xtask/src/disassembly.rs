//! What a cubin's machine code is made of: nvdisasm's listing, counted by mnemonic for each entry function. The cubin's
//! own section sizes say how many instructions there must be, so a line that this reader does not know is an error and
//! not a count too low. Judging is left to kbench.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use anyhow::{Context, Result, bail, ensure};
use kbench::deferral::Deferral;
use regex::Regex;
use xshell::{Shell, cmd};

use crate::cubin::Cubin;

/// Bytes of an instruction since Volta.
const INSTRUCTION_BYTES: usize = 16;

/// Instructions by entry function and mnemonic, without modifiers: `QGMMA`, not `QGMMA.64x128x32.F32.E4M3.E4M3`.
pub type Counts = BTreeMap<String, BTreeMap<String, u32>>;

static SECTION: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"^\.text\.(?<entry>\S+):$").expect("a fixed pattern"));
static INSTRUCTION: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?(?<mnemonic>[A-Z][A-Z0-9_]*)").expect("a fixed pattern")
});

/// Counts what is in the folder of a build; each time, since a gate rests on it and only the cubin can say it.
pub fn counts(disassembler: &Path, build: &Path) -> Result<Counts> {
    let cubin = build.join("kernel.cubin");
    let image = std::fs::read(&cubin).with_context(|| format!("failed to read `{}`", cubin.display()))?;
    let output = Shell::new().and_then(|shell| cmd!(shell, "{disassembler} -c {cubin}").ignore_status().output());
    let output = output.with_context(|| format!("failed to start `{}`", disassembler.display()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("nvdisasm refused `{}`: {}", cubin.display(), said.lines().next().unwrap_or("without a word"));
    }
    let counts = parse(&String::from_utf8_lossy(&output.stdout));
    check(&counts, &image)?;
    Ok(counts)
}

/// Counts a listing.
fn parse(listing: &str) -> Counts {
    let mut counts = Counts::new();
    let mut entry = None;
    for line in listing.lines() {
        if let Some(found) = SECTION.captures(line) {
            entry = Some(counts.entry(found["entry"].to_owned()).or_default());
        } else if let (Some(entry), Some(found)) = (entry.as_mut(), INSTRUCTION.captures(line)) {
            *entry.entry(found["mnemonic"].to_owned()).or_default() += 1;
        }
    }
    counts
}

/// Every code section must have been listed whole.
pub fn check(counts: &Counts, cubin: &[u8]) -> Result<()> {
    let sections = Cubin::parse(cubin)?.code_bytes()?;
    ensure!(!sections.is_empty(), "the cubin has no code");
    for (entry, bytes) in sections {
        let listed = counts.get(&entry).map_or(0, |c| c.values().sum::<u32>()) as usize;
        let there = bytes / INSTRUCTION_BYTES;
        ensure!(listed == there, "nvdisasm lists {listed} instructions of `{entry}`, the cubin has {there}");
    }
    Ok(())
}

/// The disassembler of a toolchain, or why there is none.
pub fn find(target: &Path, toolchain: &crate::toolchain::Toolchain) -> Result<PathBuf, Deferral> {
    crate::toolchain::disassembler(target, toolchain, &crate::console::line).map_err(|error| {
        let Deferral { why, remedy } = error.deferral();
        let why =
            format!("no nvdisasm beside ptxas or on PATH, and its pinned wheel was not installed ({why}, {remedy})");
        Deferral::new(why, "connect to a network, or install the CUDA toolkit")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: &str = "\
//--------------------- .text.a --------------------------
\t.section\t.text.a,\"ax\",@progbits
a:
.text.a:
        /*0000*/                   IMAD.MOV.U32 R1, RZ, RZ, c[0x0][0x28] ;
.L_x_1:
        /*0010*/              @!P0 QMMA.16832.F32.E4M3.E4M3 R4, R8.ROW, R2.reuse.COL, RZ ;
        /*0020*/              @UP1 UIADD3 UR4, UR4, 0x1, URZ ;
        /*0030*/                   STL [R1+0x14], R14                     (*\"SpillRefill\"*);
.text.b:
        /*0000*/                   QMMA.16832.F32.E4M3.E4M3 R4, R8.ROW, R2.COL, R4 ;
";

    #[test]
    fn mnemonics_are_counted_by_entry() {
        let counts = parse(LISTING);
        let of = |entry: &str| counts[entry].iter().map(|(m, n)| format!("{m} {n}")).collect::<Vec<_>>();
        assert_eq!(of("a"), ["IMAD 1", "QMMA 1", "STL 1", "UIADD3 1"]);
        assert_eq!(of("b"), ["QMMA 1"]);
    }
}
