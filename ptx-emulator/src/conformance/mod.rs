//! One small program per instruction form, with inputs, for whoever can run the same PTX on a GPU: the answers must
//! agree. Leaves to others: running a GPU, and storing what it said.
//!
//! ```
//! use ptx_emulator::conformance::{Agreement, probes};
//!
//! let probes = probes();
//! let fma = probes.iter().find(|p| p.name == "fma.rn.f32").expect("in the table");
//! assert_eq!(fma.agreement, Agreement::Bits);
//! assert_eq!(fma.emulate().expect("it runs").len(), fma.output_bytes);
//! ```

mod inputs;
mod rare;
mod table;
mod tensor;
mod warpgroup;

use std::collections::HashMap;

use crate::{Launch, Memory, MmaModel, Module, Params, run};

/// How closely two executions of a probe must agree.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Agreement {
    /// Every bit.
    Bits,
    /// An approximation: `|a - b| <= relative * |b| + absolute`, NaN and infinities in the same places.
    Within {
        /// What the values are.
        format: Format,
        /// Relative bound, the documented one plus the emulator's own.
        relative: f64,
        /// Absolute bound, for functions that are documented so.
        absolute: f64,
    },
}

/// What an approximate answer is made of. Every answer is the low bytes of a 64-bit word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One f32.
    F32,
    /// One f16, or two in a word.
    F16,
    /// One bf16, or two in a word.
    Bf16,
}

/// A program with its inputs. The entry is called `probe` and takes pointers: the inputs in order, then the output,
/// which starts as zeros.
#[derive(Clone, Debug)]
pub struct Probe {
    /// The instruction, as it stands in PTX; unique.
    pub name: String,
    /// The module.
    pub ptx: String,
    /// Blocks in the grid.
    pub blocks: u32,
    /// Threads of a block.
    pub threads: u32,
    /// Bytes of each input buffer.
    pub inputs: Vec<Vec<u8>>,
    /// Size of the output.
    pub output_bytes: usize,
    /// How closely answers must agree.
    pub agreement: Agreement,
}

/// Names of probes that no GPU has answered yet, each with the reason; a test holds this to what was recorded.
pub const UNANSWERED: &[(&str, &str)] = &[];

/// Name of every probe's entry function.
pub const ENTRY: &str = "probe";

/// Threads of a block where each thread computes one row.
const ROW_THREADS: u32 = 128;
/// Rows that each instruction is applied to.
const ROWS: u32 = 4096;

/// Every probe: arithmetic, conversions, warp-wide operations, atomics, memory, fragments, matrix products.
pub fn probes() -> Vec<Probe> {
    let mut probes: Vec<Probe> = Vec::new();
    let numbers: HashMap<&str, u64> = NUMBERED.lines().zip(0..).collect();
    for row in table::rows() {
        let seed = numbers.get(row.name.as_str()).copied().unwrap_or_else(|| hash(&row.name));
        probes.push(row_probe(&row, seed));
    }
    probes.extend(tensor::probes());
    probes.extend(warpgroup::probes());
    probes
}

/// The probes whose inputs were once drawn by their place in the table, in the order of those places: their answers are
/// recorded. All others draw by their name, so that a line may be added anywhere.
const NUMBERED: &str = include_str!("numbered.txt");

/// FNV-1a.
fn hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

impl Probe {
    /// The answer of the emulator, with the sums of Hopper's tensor cores; the error is one line.
    pub fn emulate(&self) -> Result<Vec<u8>, String> {
        let fail = |e: &dyn std::fmt::Display| format!("{}: {e}", self.name);
        let module = Module::parse(&self.ptx).map_err(|e| fail(&e))?;
        let kernel = module.entry(ENTRY).map_err(|e| fail(&e))?;
        let mut memory = Memory::new(&module);
        let mut params = Params::new();
        for input in &self.inputs {
            params = params.pointer(memory.alloc_from("in", input).map_err(|e| fail(&e))?);
        }
        let output = memory.alloc_from("out", &vec![0; self.output_bytes]).map_err(|e| fail(&e))?;
        let mut launch = Launch::new([self.blocks, 1, 1], [self.threads, 1, 1], params.pointer(output).finish());
        launch.mma_model = MmaModel::Sm90;
        let outcome = run(&kernel, &memory, &launch).map_err(|e| fail(&e))?;
        if let Some(finding) = outcome.findings.first() {
            return Err(fail(finding));
        }
        memory.read(output).map_err(|e| fail(&e))
    }

    /// A line of an answer file: name, hash of the PTX, hash of the answer, its first words in hex.
    pub fn answer_line(&self, answer: &[u8], ptx_sha256: &str, answer_sha256: &str, kept: usize) -> String {
        let first: Vec<String> = words(answer).take(kept).map(|word| format!("{word:x}")).collect();
        format!("{} | {ptx_sha256} | {answer_sha256} | {}", self.name, first.join(" "))
    }

    /// Where and how two answers differ, in one line.
    pub fn describe(&self, own: &[u8], other: &[u8], at: usize) -> String {
        let pick = |bytes| words(bytes).nth(at).unwrap_or_default();
        let count = words(own).zip(words(other)).filter(|(a, b)| !self.agreement.holds(*a, *b)).count();
        let operands: Vec<String> = match self.inputs.as_slice() {
            [rows] if self.output_bytes == 8 * ROWS as usize => {
                let each = rows.len() / ROWS as usize;
                words(&rows[at * each..(at + 1) * each]).map(|word| format!("{word:#x}")).collect()
            }
            _ => Vec::new(),
        };
        format!(
            "{}: {count} of {} differ; first answer {at} of [{}]: {:#x}, not {:#x}",
            self.name,
            self.output_bytes / 8,
            operands.join(", "),
            pick(own),
            pick(other)
        )
    }

    /// The first of the 64-bit words in which two answers disagree; the shorter answer decides how many are compared.
    pub fn disagreement(&self, a: &[u8], b: &[u8]) -> Option<usize> {
        words(a).zip(words(b)).position(|(a, b)| !self.agreement.holds(a, b))
    }
}

/// An answer as 64-bit words.
fn words(bytes: &[u8]) -> impl Iterator<Item = u64> {
    let (words, _) = bytes.as_chunks::<8>();
    words.iter().map(|word| u64::from_le_bytes(*word))
}

impl Agreement {
    /// Whether two 64-bit answers agree.
    pub fn holds(self, a: u64, b: u64) -> bool {
        match self {
            Agreement::Bits => a == b,
            Agreement::Within { format, relative, absolute } => {
                let (a, b) = (format.values(a), format.values(b));
                let close =
                    |a: f64, b: f64| a.is_finite() && b.is_finite() && (a - b).abs() <= relative * b.abs() + absolute;
                a.into_iter().zip(b).all(|(a, b)| a == b || a.is_nan() && b.is_nan() || close(a, b))
            }
        }
    }
}

impl Format {
    /// The values in an answer.
    pub fn values(self, word: u64) -> [f64; 2] {
        use crate::num::{float, small};
        match self {
            Format::F32 => [f64::from(float::f(word as u32)), 0.0],
            Format::F16 => [0, 16].map(|shift| f64::from(float::f(small::f16_to_f32((word >> shift) as u32 & 0xffff)))),
            Format::Bf16 => [0, 16].map(|shift| f64::from(float::f(((word >> shift) as u32) << 16))),
        }
    }
}

/// The program that applies one line of the table to one row of operands a thread.
fn row_probe(row: &table::Row, seed: u64) -> Probe {
    let kinds: Vec<char> = row.sources.chars().collect();
    let bits = |kind: char| 8 * inputs::bytes(kind);
    let mut text = format!(
        ".version 8.7\n.target {}\n.address_size 64\n.visible .entry {ENTRY}(.param .u64 p0, .param .u64 p1)\n{{\n\
         .reg .b64 %in, %out, %at, %t, %d0;\n.reg .b32 %i, %n, %s, %w0, %w1, %w2;\n.reg .b16 %h0, %h1;\n\
         .reg .pred %p, %q;\n.shared .align 16 .b8 pool[{}];\n",
        row.target,
        16 * ROW_THREADS
    );
    for (name, kind) in ["a", "b", "c"].iter().zip(&kinds) {
        text += &format!(".reg .b{} %{name};\n", bits(*kind));
    }
    let out = if row.result == 'p' { 'w' } else { row.result };
    text += &format!(
        ".reg .b{} %d;\nld.param.u64 %in, [p0];\nld.param.u64 %out, [p1];\nmov.u32 %i, %tid.x;\n\
         mov.u32 %n, %ctaid.x;\nmov.u32 %s, pool;\nmad.lo.u32 %s, %i, 16, %s;\nmad.lo.u32 %i, %n, {ROW_THREADS}, %i;\n\
         mul.wide.u32 %t, %i, {};\nadd.s64 %at, %in, %t;\nmul.wide.u32 %t, %i, 8;\nadd.s64 %out, %out, %t;\n",
        bits(out),
        8 * kinds.len()
    );
    for (i, (name, kind)) in ["a", "b", "c"].iter().zip(&kinds).enumerate() {
        text += &format!("ld.global.b{} %{name}, [%at+{}];\n", bits(*kind), 8 * i);
    }
    text += &row.text;
    if row.result == 'p' {
        text += "\nselp.b32 %d, 1, 0, %p;";
    }
    text += &format!("\nst.global.b{} [%out], %d;\nret;\n}}\n", bits(out));
    Probe {
        name: row.name.clone(),
        ptx: text,
        blocks: ROWS / ROW_THREADS,
        threads: ROW_THREADS,
        inputs: vec![inputs::rows(&kinds, ROWS as usize, seed)],
        output_bytes: 8 * ROWS as usize,
        agreement: row.agreement,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_a_changed_bit_is_a_disagreement() {
        let probes = probes();
        let names: std::collections::BTreeSet<&str> = probes.iter().map(|p| p.name.as_str()).collect();
        assert_eq!(names.len(), probes.len());
        let gone: Vec<&str> = NUMBERED.lines().filter(|name| !names.contains(name)).collect();
        assert!(gone.is_empty(), "numbered, but not in the table: {gone:?}");
        let probe = probes.iter().find(|p| p.name == "sub.sat.s32").expect("in the table");
        let answer = probe.emulate().expect("it runs");
        assert_eq!(answer.len(), probe.output_bytes);
        let mut other = answer.clone();
        other[8 * 77] ^= 1;
        assert_eq!((probe.disagreement(&answer, &answer), probe.disagreement(&other, &answer)), (None, Some(77)));
    }

    #[test]
    fn an_approximation_agrees_within_its_bound_and_not_beyond() {
        let bound = Agreement::Within { format: Format::F32, relative: 1e-6, absolute: 0.0 };
        let bits = |x: f32| u64::from(x.to_bits());
        assert!(bound.holds(bits(1.0), bits(1.0 + 1e-6 / 2.0)));
        assert!(!bound.holds(bits(1.0), bits(1.0 + 3e-6)));
        assert!(bound.holds(bits(f32::INFINITY), bits(f32::INFINITY)));
        assert!(!bound.holds(bits(f32::INFINITY), bits(f32::MAX)));
        assert!(!bound.holds(bits(f32::MAX), bits(f32::INFINITY)));
        assert!(bound.holds(bits(f32::NAN), bits(-f32::NAN)));
        assert!(!bound.holds(bits(f32::NAN), bits(0.0)));
        assert!(!Agreement::Bits.holds(bits(0.0), bits(-0.0)));
    }
}
