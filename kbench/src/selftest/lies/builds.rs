//! Lies about builds: what was compiled, under which name, and what it takes of the chip.

use super::super::{CANDIDATE, Lie, made_of, own_build, own_entries};
use crate::evidence::BuildFailure;
use crate::gate::GateId;
use crate::suite::MachineCode;

pub(in super::super) const LIES: &[Lie] = &[
    Lie {
        name: "the control under another name",
        gate: GateId::OwnMachineCode,
        tell: |_, e| {
            let control: Vec<String> = e.builds.records[0].entries.iter().map(|x| x.code_sha256.clone()).collect();
            if let Some(build) = own_build(e) {
                build.entries.iter_mut().zip(control).for_each(|(entry, code)| entry.code_sha256 = code);
            }
        },
    },
    Lie {
        name: "one entry function of the control under another name",
        gate: GateId::OwnMachineCode,
        tell: |_, e| {
            let control = e.builds.records[0].entries[1].code_sha256.clone();
            if let Some(build) = own_build(e) {
                build.entries[1].code_sha256 = control;
            }
        },
    },
    Lie {
        name: "an FP8 kernel that multiplies halves",
        gate: GateId::MachineCode,
        tell: |suite, e| {
            suite.machine_code = Some(MachineCode { require: vec!["QMMA".into()], forbid: vec![] });
            if let Some(build) = own_build(e) {
                made_of(build, "HMMA");
            }
        },
    },
    Lie {
        name: "a toggle that the sources ignore",
        gate: GateId::ToggleEcho,
        tell: |_, e| {
            if let Some(build) = own_build(e) {
                build.toggle_mismatches.push("stages: asked 3, compiled 2".into());
            }
        },
    },
    Lie {
        name: "results remembered in a device variable",
        gate: GateId::NoMemoryBetweenLaunches,
        tell: |_, e| {
            if let Some(build) = own_build(e) {
                build.global_bytes = 1 << 20;
            }
        },
    },
    Lie {
        name: "results remembered in the workspace",
        gate: GateId::NoMemoryBetweenLaunches,
        tell: |_, e| {
            if let Some(build) = own_build(e) {
                build.entries[0].launch.workspace_bytes = 1 << 20;
            }
        },
    },
    Lie {
        name: "spills in the entry that is not timed",
        gate: GateId::Spills,
        tell: |_, e| {
            if let Some(build) = own_build(e) {
                build.entries[1].resources.spill_load_bytes = 8;
            }
        },
    },
    Lie {
        name: "registers over the limit",
        gate: GateId::Registers,
        tell: |_, e| {
            if let Some(build) = own_build(e) {
                build.entries[0].resources.registers = 121;
            }
        },
    },
    Lie {
        name: "shared memory over the limit, all of it dynamic",
        gate: GateId::SharedMemory,
        tell: |_, e| {
            if let Some(build) = own_build(e) {
                build.entries[0].launch.dynamic_smem_bytes = 64 * 1024;
            }
        },
    },
    Lie {
        name: "a build that failed, beside the record of an earlier one",
        gate: GateId::Compiles,
        tell: |_, e| {
            e.builds.failures.push(BuildFailure {
                variant: CANDIDATE.into(),
                arch: "sm_89".into(),
                error: "ptxas: Entry function uses too much shared data".into(),
                unclaimed: None,
            });
        },
    },
    Lie {
        name: "no entry function that limits gate",
        gate: GateId::EntryFunctions,
        tell: |_, e| own_entries(e).for_each(|entry| entry.gated = false),
    },
    Lie {
        name: "more shared memory than the chip has, in the entry that no limit gates",
        gate: GateId::FitsTheChip,
        tell: |_, e| own_entries(e).skip(1).for_each(|entry| entry.launch.dynamic_smem_bytes = 200 * 1024),
    },
    Lie {
        name: "asynchronous products that the assembler serialised",
        gate: GateId::WgmmaPipelining,
        tell: |_, e| {
            if let Some(build) = own_build(e) {
                build
                    .warnings
                    .push("C7510: Potential Performance Loss: wgmma.mma_async instructions are serialized".into());
            }
        },
    },
    Lie {
        name: "an FP8 kernel, run as a build that multiplies halves",
        gate: GateId::MachineCodeAsRun,
        tell: |suite, e| {
            suite.machine_code = Some(MachineCode { require: vec!["QMMA".into()], forbid: vec![] });
            let other = own_build(e).map(|build| {
                made_of(build, "QMMA");
                let mut other = build.clone();
                other.arch = "sm_90".into();
                made_of(&mut other, "HMMA");
                other
            });
            e.builds.records.extend(other);
        },
    },
    Lie {
        name: "instructions that nobody listed",
        gate: GateId::MachineCode,
        tell: |suite, _| suite.machine_code = Some(MachineCode { require: vec!["QMMA".into()], forbid: vec![] }),
    },
    Lie {
        name: "spills in the build that ran, and none in the one that is gated",
        gate: GateId::Spills,
        tell: |_, e| {
            let other = own_build(e).map(|build| {
                let mut other = build.clone();
                other.arch = "sm_90".into();
                other.entries[0].resources.spill_store_bytes = 16;
                other
            });
            e.builds.records.extend(other);
        },
    },
];
