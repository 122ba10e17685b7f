//! What a compiled kernel occupies on the chip, as the assembler states it.
//!
//! These are the figures that the resource gate judges and that a run keeps as evidence. Reading them
//! out of an assembler's log is the pipeline's work; dynamic shared memory, which is chosen at launch and
//! which no assembler knows, belongs to a variant's launch record.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// All that one run of the assembler says of one module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModuleResources {
    /// Global memory that the module's own variables take, in bytes.
    pub global_bytes: u32,
    /// Constant memory that the module's entries share, in bytes, by bank. Banks that hold nothing are absent.
    pub constant_bytes: BTreeMap<u32, u32>,
    /// The kernels, in the order of the log.
    pub entries: Vec<EntryResources>,
    /// Warnings and remarks, in the order of the log.
    pub messages: Vec<AssemblerMessage>,
}

impl ModuleResources {
    /// The bank in which the compiler keeps addresses that it needs itself.
    const BANK_OF_ADDRESSES: u32 = 4;

    /// Constant memory of the module's own variables, in bytes.
    pub fn constant_variables(&self) -> u32 {
        let own = self.constant_bytes.iter().filter(|(bank, _)| **bank != Self::BANK_OF_ADDRESSES);
        own.map(|(_, bytes)| *bytes).fold(0, u32::saturating_add)
    }
}

/// What one entry function (one kernel) occupies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EntryResources {
    /// Symbol of the entry function in the module.
    pub entry: String,
    /// Architecture it was assembled for: `sm_89`, `sm_90a`.
    pub arch: String,
    /// Registers of 32 bits, per thread.
    pub registers: u32,
    /// Shared memory whose size the code fixes, in bytes per thread block.
    pub static_smem_bytes: u32,
    /// Bytes that all spill stores write, per thread, in the entry *and* in the functions it calls.
    /// A spill moved into a function that is not inlined costs the same, so it counts the same.
    pub spill_store_bytes: u32,
    /// Bytes that all spill loads read, per thread, counted as the stores are.
    pub spill_load_bytes: u32,
    /// Stack frame of the entry itself, in bytes per thread.
    pub stack_frame_bytes: u32,
    /// Stack of the entry and its deepest chain of calls, in bytes per thread. `None` where the assembler does
    /// not print it: before CUDA 12, where there is no stack, and where recursion leaves it unbounded.
    pub cumulative_stack_bytes: Option<u32>,
    /// Named barriers of the thread block, counted up to the highest one used. `None` where the assembler does
    /// not print them (CUDA 12.4 and before), which does not mean that there are none.
    pub barriers: Option<u32>,
    /// Constant memory, in bytes, by bank: kernel parameters are in bank 0. Banks that hold nothing are absent,
    /// and the assembler names none for some kernels on `sm_90`.
    pub constant_bytes: BTreeMap<u32, u32>,
    /// Local memory that the assembler reports apart from the stack, in bytes per thread.
    pub local_bytes: u32,
    /// Bound objects by kind (`textures`, `surfaces`, `samplers`). Kinds without any are absent.
    pub bindings: BTreeMap<String, u32>,
    /// The functions that the entry calls and that were not inlined. One that two entries share is in both.
    pub callees: Vec<FunctionFrame>,
}

/// The stack and spills of one device function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FunctionFrame {
    /// Symbol of the function, mangled as in the module.
    pub function: String,
    /// Stack frame, in bytes per thread.
    pub stack_frame_bytes: u32,
    /// Bytes that spill stores write, per thread.
    pub spill_store_bytes: u32,
    /// Bytes that spill loads read, per thread.
    pub spill_load_bytes: u32,
}

/// How much a message of the assembler weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// A remark. Not harmless for that: wgmma instructions losing their overlap are reported so.
    Info,
    /// A warning.
    Warning,
}

/// A line of the assembler that states no figure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AssemblerMessage {
    /// What the assembler calls it.
    pub severity: Severity,
    /// Its number, where it has one: `C7510`.
    pub code: Option<String>,
    /// The line of the PTX that it is about, from 1, where it names one.
    pub ptx_line: Option<u32>,
    /// The function it names, where it names one.
    pub function: Option<String>,
    /// The text, without severity and number.
    pub text: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_the_way_through_json() {
        let module = ModuleResources {
            global_bytes: 4,
            constant_bytes: BTreeMap::from([(3, 160)]),
            entries: vec![EntryResources {
                entry: "attention".into(),
                arch: "sm_90a".into(),
                registers: 120,
                static_smem_bytes: 1024,
                spill_store_bytes: 28,
                spill_load_bytes: 32,
                stack_frame_bytes: 0,
                cumulative_stack_bytes: None,
                barriers: Some(3),
                constant_bytes: BTreeMap::from([(0, 372), (4, 8)]),
                local_bytes: 0,
                bindings: BTreeMap::from([("textures".into(), 1)]),
                callees: vec![FunctionFrame {
                    function: "_Z7descendPKii".into(),
                    stack_frame_bytes: 32,
                    spill_store_bytes: 28,
                    spill_load_bytes: 32,
                }],
            }],
            messages: vec![AssemblerMessage {
                severity: Severity::Info,
                code: Some("C7510".into()),
                ptx_line: Some(64),
                function: Some("attention".into()),
                text: "serialized in the function 'attention'".into(),
            }],
        };
        let text = serde_json::to_string(&module).expect("serialises");
        let back: ModuleResources = serde_json::from_str(&text).expect("reads back");
        assert_eq!(back, module);
    }

    #[test]
    fn a_missing_figure_is_not_zero() {
        let error =
            serde_json::from_str::<FunctionFrame>(r#"{"function":"f","stack_frame_bytes":0,"spill_load_bytes":0}"#)
                .expect_err("spill stores are missing");
        assert!(error.to_string().contains("spill_store_bytes"), "{error}");
    }
}
