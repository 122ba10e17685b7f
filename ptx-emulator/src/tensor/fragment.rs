//! Whole m16n16k16 fragments between 16 lines of memory and register rows, without a table of
//! elements: registers hold neighbours of a line, so they are moved by four or eight at a time.
//!
//! What is left to the table in `exec::matrix::wmma`: fragments with undefined parts, and column-major
//! f32 accumulators.

use crate::isa::op::Frag;
use crate::machine::regs::{FULL, LANES, Regs, w};
use crate::machine::simd::Level;

/// A row of 32-bit register values.
type Lanes = [u32; LANES];

/// How the registers of a fragment lie in its 16 lines of 16 elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// A register is two neighbours of one line; `true` when register 1 is eight lines below
    /// register 0, `false` when it is eight elements to the right.
    Words(bool),
    /// A register is two elements of neighbouring lines; the flag as in [`Form::Words`].
    Pairs(bool),
    /// A register is one f32.
    Floats,
}

/// The form of a fragment in memory, if there is one.
pub(crate) fn form(frag: Frag, column_major: bool) -> Option<Form> {
    match (frag, column_major) {
        (Frag::A | Frag::AccF16, false) => Some(Form::Words(true)),
        (Frag::B, true) => Some(Form::Words(false)),
        (Frag::A | Frag::AccF16, true) => Some(Form::Pairs(false)),
        (Frag::B, false) => Some(Form::Pairs(true)),
        (Frag::AccF32, false) => Some(Form::Floats),
        (Frag::AccF32, true) => None,
    }
}

/// Line block (of eight) and element block (of eight) that register `reg` of a 16-bit fragment
/// lies in.
#[inline(always)]
pub(super) fn blocks(reg: usize, lines_first: bool) -> (usize, usize) {
    if lines_first { (reg & 1, reg >> 1) } else { (reg >> 1, reg & 1) }
}

/// The 16 bytes of element block `block` of line `line`; `bytes` starts at line 0.
#[inline(always)]
fn eight(bytes: &[u8], pitch: usize, line: usize, block: usize) -> [u8; 16] {
    let mut out = [0; 16];
    out.copy_from_slice(&bytes[line * pitch + 16 * block..][..16]);
    out
}

#[inline(always)]
fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[4 * at], bytes[4 * at + 1], bytes[4 * at + 2], bytes[4 * at + 3]])
}

#[inline(always)]
fn load_rows(bytes: &[u8], pitch: usize, form: Form, out: &mut [Lanes; 8]) {
    match form {
        Form::Words(lines_first) => {
            for (reg, out) in out.iter_mut().take(4).enumerate() {
                let (line, block) = blocks(reg, lines_first);
                for (g, four) in out.as_chunks_mut::<4>().0.iter_mut().enumerate() {
                    let from = eight(bytes, pitch, g + 8 * line, block);
                    *four = [word(&from, 0), word(&from, 1), word(&from, 2), word(&from, 3)];
                }
            }
        }
        Form::Pairs(lines_first) => {
            for (reg, out) in out.iter_mut().take(4).enumerate() {
                let (line, block) = blocks(reg, lines_first);
                for t in 0..4 {
                    let low = eight(bytes, pitch, 2 * t + 8 * line, block);
                    let high = eight(bytes, pitch, 2 * t + 1 + 8 * line, block);
                    for g in 0..8 {
                        out[4 * g + t] = u32::from_le_bytes([low[2 * g], low[2 * g + 1], high[2 * g], high[2 * g + 1]]);
                    }
                }
            }
        }
        Form::Floats => {
            for line in 0..16 {
                for block in 0..2 {
                    let reg = 2 * (line / 8) + 4 * block;
                    let from = &bytes[line * pitch + 32 * block..][..32];
                    for t in 0..4 {
                        out[reg][4 * (line % 8) + t] = word(from, 2 * t);
                        out[reg + 1][4 * (line % 8) + t] = word(from, 2 * t + 1);
                    }
                }
            }
        }
    }
}

#[inline(always)]
fn store_rows(rows: &[&Lanes; 8], form: Form, pitch: usize, bytes: &mut [u8]) {
    match form {
        Form::Words(lines_first) => {
            for (reg, row) in rows.iter().take(4).enumerate() {
                let (line, block) = blocks(reg, lines_first);
                for (g, four) in row.as_chunks::<4>().0.iter().enumerate() {
                    let to = &mut bytes[(g + 8 * line) * pitch + 16 * block..][..16];
                    for (to, value) in to.as_chunks_mut::<4>().0.iter_mut().zip(four) {
                        *to = value.to_le_bytes();
                    }
                }
            }
        }
        Form::Floats => {
            for line in 0..16 {
                for block in 0..2 {
                    let reg = 2 * (line / 8) + 4 * block;
                    let to = &mut bytes[line * pitch + 32 * block..][..32];
                    for (t, pair) in to.as_chunks_mut::<8>().0.iter_mut().enumerate() {
                        let value = |reg: usize| u64::from(rows[reg][4 * (line % 8) + t]);
                        *pair = (value(reg) | value(reg + 1) << 32).to_le_bytes();
                    }
                }
            }
        }
        Form::Pairs(lines_first) => {
            for (reg, row) in rows.iter().take(4).enumerate() {
                let (line, block) = blocks(reg, lines_first);
                for t in 0..4 {
                    for (half, shift) in [0, 16].into_iter().enumerate() {
                        let to = &mut bytes[(2 * t + half + 8 * line) * pitch + 16 * block..][..16];
                        for (g, to) in to.as_chunks_mut::<2>().0.iter_mut().enumerate() {
                            *to = ((row[4 * g + t] >> shift) as u16).to_le_bytes();
                        }
                    }
                }
            }
        }
    }
}

/// Distinct registers of a fragment; the rest are copies of them.
fn distinct(form: Form) -> usize {
    if form == Form::Floats { 8 } else { 4 }
}

#[inline(always)]
pub(crate) fn load_registers(regs: &mut Regs, to: &[u16], bytes: &[u8], pitch: usize, form: Form) {
    let mut rows = [[0; LANES]; 8];
    load_rows(bytes, pitch, form, &mut rows);
    for (i, &reg) in to.iter().enumerate() {
        regs.set_w(reg, &rows[i % distinct(form)], FULL);
    }
}

#[inline(always)]
pub(crate) fn store_registers(regs: &Regs, from: &[u16], form: Form, pitch: usize, bytes: &mut [u8]) {
    let rows = std::array::from_fn(|i| w(regs, from[i % distinct(form)]));
    store_rows(&rows, form, pitch, bytes);
}

#[cfg(target_arch = "x86_64")]
use super::fragment_avx512::{load as load_avx512, store as store_avx512};

crate::machine::simd::dispatch! {
    /// Reads a fragment into the registers `to`, all lanes: four distinct ones of 16-bit elements and eight of f32.
    /// `bytes` starts at line 0, lines are `pitch` bytes apart; panics if they do not hold the last line.
    pub(crate) fn load(regs: &mut Regs, to: &[u16], bytes: &[u8], pitch: usize, form: Form) = load_registers, avx512: load_avx512;
}

crate::machine::simd::dispatch! {
    /// Writes a fragment; the inverse of [`load`].
    pub(crate) fn store(regs: &Regs, from: &[u16], form: Form, pitch: usize, bytes: &mut [u8]) = store_registers, avx512: store_avx512;
}
