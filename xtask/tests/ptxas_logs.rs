//! The reader of `ptxas -v` on real logs of five versions, and on logs that are damaged on purpose.
//!
//! How each log was made, and how the expected figures were checked against the machine code that the same run
//! wrote, is in `data/ptxas/README.md`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use kbench::resources::{AssemblerMessage, EntryResources, FunctionFrame, ModuleResources, Severity};
use xtask::ptxas::{self, PtxasError};

/// All versions with logs, oldest first.
const VERSIONS: [&str; 5] = ["11.8.89", "12.4.131", "12.8.93", "13.0.88", "13.5.37"];

fn log(version: &str, name: &str) -> String {
    let path: PathBuf =
        [env!("CARGO_MANIFEST_DIR"), "tests/data/ptxas", version, &format!("{name}.log")].iter().collect();
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[track_caller]
fn read(version: &str, name: &str) -> ModuleResources {
    ptxas::parse(&log(version, name)).unwrap_or_else(|error| panic!("{version}/{name}: {error}"))
}

/// Barriers are printed from 12.5 on.
fn prints_barriers(version: &str) -> bool {
    !matches!(version, "11.8.89" | "12.4.131")
}

/// The cumulative stack is printed from 12 on.
fn prints_cumulative_stack(version: &str) -> bool {
    version != "11.8.89"
}

/// One expected kernel. What a version does not print is left out by [`Expected::resources`].
struct Expected {
    entry: &'static str,
    arch: &'static str,
    registers: u32,
    smem: u32,
    stack: u32,
    cumulative_stack: Option<u32>,
    spills: (u32, u32),
    barriers: u32,
    constant: &'static [(u32, u32)],
    callees: &'static [(&'static str, u32, u32, u32)],
}

/// A kernel for `sm_89` with neither shared memory nor stack nor calls.
const PLAIN: Expected = Expected {
    entry: "",
    arch: "sm_89",
    registers: 0,
    smem: 0,
    stack: 0,
    cumulative_stack: None,
    spills: (0, 0),
    barriers: 0,
    constant: &[],
    callees: &[],
};

impl Expected {
    fn resources(&self, version: &str) -> EntryResources {
        EntryResources {
            entry: self.entry.into(),
            arch: self.arch.into(),
            registers: self.registers,
            static_smem_bytes: self.smem,
            spill_store_bytes: self.spills.0,
            spill_load_bytes: self.spills.1,
            stack_frame_bytes: self.stack,
            cumulative_stack_bytes: self.cumulative_stack.filter(|_| prints_cumulative_stack(version)),
            barriers: prints_barriers(version).then_some(self.barriers),
            constant_bytes: self.constant.iter().copied().collect(),
            local_bytes: 0,
            bindings: BTreeMap::new(),
            callees: self.callees.iter().map(frame).collect(),
        }
    }
}

fn frame(&(function, stack, stores, loads): &(&str, u32, u32, u32)) -> FunctionFrame {
    FunctionFrame {
        function: function.into(),
        stack_frame_bytes: stack,
        spill_store_bytes: stores,
        spill_load_bytes: loads,
    }
}

#[track_caller]
fn check(name: &str, versions: &[&str], expected: &[Expected]) {
    for version in versions {
        let entries: Vec<_> = expected.iter().map(|entry| entry.resources(version)).collect();
        assert_eq!(read(version, name).entries, entries, "{version}/{name}");
    }
}

#[test]
fn one_kernel() {
    let scale_rows = Expected { entry: "scale_rows", registers: 10, constant: &[(0, 376)], ..PLAIN };
    check("one", &VERSIONS, &[scale_rows]);
}

#[test]
fn several_kernels_in_log_order() {
    let expected = [
        Expected { entry: "constants", registers: 12, constant: &[(0, 372)], ..PLAIN },
        // Barriers 1 and 2 are named, and 0 is counted with them.
        Expected { entry: "named_barriers", registers: 12, smem: 512, barriers: 3, constant: &[(0, 368)], ..PLAIN },
        // Dynamic shared memory is chosen at launch, so the log knows none of it.
        Expected { entry: "dynamic_smem", registers: 12, barriers: 1, constant: &[(0, 368)], ..PLAIN },
        Expected { entry: "static_smem", registers: 12, smem: 3072, barriers: 1, constant: &[(0, 368)], ..PLAIN },
    ];
    check("several", &VERSIONS, &expected);
}

#[test]
fn memory_of_the_module() {
    for version in VERSIONS {
        let module = read(version, "several");
        assert_eq!(module.global_bytes, 4, "{version}");
        let mut banks = BTreeMap::from([(3, 160)]);
        if version != "11.8.89" {
            banks.insert(4, 8);
        }
        assert_eq!((&module.constant_bytes, module.constant_variables()), (&banks, 160), "{version}");
        assert_eq!(read(version, "one").constant_bytes, BTreeMap::new(), "{version}");
    }
}

#[test]
fn spills() {
    let expected = [
        Expected { entry: "small", registers: 8, constant: &[(0, 360)], ..PLAIN },
        Expected {
            entry: "outer_product",
            registers: 24,
            stack: 280,
            cumulative_stack: Some(280),
            spills: (496, 492),
            constant: &[(0, 380)],
            ..PLAIN
        },
    ];
    check("spills", &VERSIONS, &expected);
}

/// `-warn-spills` repeats the figures in words of its own.
#[test]
fn spill_warning_agrees_with_the_figures() {
    for version in VERSIONS {
        let module = read(version, "spills");
        let warnings: Vec<_> = module.messages.iter().filter(|message| message.severity == Severity::Warning).collect();
        let [warning] = warnings[..] else { panic!("{version}: {warnings:?}") };
        assert_eq!(warning.function.as_deref(), Some("outer_product"), "{version}");
        let entry = module.entries.iter().find(|entry| entry.entry == "outer_product").expect("is in the log");
        let figures =
            format!("{} bytes spill stores, {} bytes spill loads", entry.spill_store_bytes, entry.spill_load_bytes);
        assert!(warning.text.ends_with(&figures), "{version}: {}", warning.text);
    }
}

/// The entry's own line says that nothing spills; the function that it calls does.
#[test]
fn spills_of_a_called_function_count() {
    let expected = [
        Expected {
            entry: "calls_recursive",
            registers: 24,
            spills: (28, 28),
            constant: &[(0, 368)],
            callees: &[("_Z7descendPKii", 32, 28, 28)],
            ..PLAIN
        },
        Expected {
            entry: "calls_local",
            registers: 40,
            stack: 80,
            cumulative_stack: Some(80),
            constant: &[(0, 368)],
            callees: &[("_Z11local_arrayPKfi", 0, 0, 0)],
            ..PLAIN
        },
    ];
    check("calls", &VERSIONS, &expected);
}

#[test]
fn a_shared_function_belongs_to_each_caller() {
    let caller = |entry| Expected {
        entry,
        registers: 40,
        stack: 80,
        cumulative_stack: Some(80),
        constant: &[(0, 368)],
        callees: &[("_Z13shared_calleePKfi", 0, 0, 0)],
        ..PLAIN
    };
    check("shared_callee", &VERSIONS, &[caller("second"), caller("first")]);
}

/// On `sm_90a` no constant memory is printed, though the parameters are there.
#[test]
fn hopper_kernels() {
    let kernel = |entry| Expected { entry, arch: "sm_90a", registers: 30, ..PLAIN };
    check("wgmma", &VERSIONS[1..], &[kernel("wgmma_pipelined"), kernel("wgmma_serialised")]);
}

#[test]
fn remarks_on_serialised_wgmma() {
    for (version, code) in [("12.4.131", "C7515"), ("12.8.93", "C7511"), ("13.0.88", "C7511"), ("13.5.37", "C7511")] {
        let messages = read(version, "wgmma").messages;
        assert!(messages.iter().all(|message| message.function.as_deref() == Some("wgmma_serialised")), "{version}");
        let serialised: Vec<_> = messages.iter().filter(|message| message.text.contains("serialized")).collect();
        let [remark] = serialised[..] else { panic!("{version}: {messages:?}") };
        assert_eq!((remark.code.as_deref(), remark.severity), (Some(code), Severity::Info), "{version}");
        assert!(remark.text.starts_with("Potential Performance Loss: "), "{version}: {}", remark.text);
    }
}

/// Messages about a line of the PTX come in a form of their own.
#[test]
fn advisories_name_their_line() {
    let sparse_mma = Expected { entry: "sparse_mma", registers: 18, constant: &[(0, 360)], ..PLAIN };
    check("advisory", &VERSIONS[2..], &[sparse_mma]);
    for version in &VERSIONS[2..] {
        let messages = read(version, "advisory").messages;
        let [advisory] = &messages[..] else { panic!("{version}: {messages:?}") };
        assert_eq!((advisory.ptx_line, advisory.severity), (Some(15), Severity::Info), "{version}");
        assert!(advisory.text.starts_with("Advisory: Modifier '.sp::ordered_metadata' should be"), "{version}");
    }
}

#[test]
fn unbounded_stack_is_a_warning() {
    let expected = AssemblerMessage {
        severity: Severity::Warning,
        code: None,
        ptx_line: None,
        function: Some("calls_recursive".into()),
        text: "Stack size for entry function 'calls_recursive' cannot be statically determined".into(),
    };
    for version in ["11.8.89", "12.4.131", "13.5.37"] {
        assert_eq!(read(version, "calls").messages, std::slice::from_ref(&expected), "{version}");
    }
    // These two do not print it by themselves.
    for version in ["12.8.93", "13.0.88"] {
        assert_eq!(read(version, "calls").messages, [], "{version}");
    }
}

#[test]
fn a_failed_assembly_is_an_error_with_its_first_complaint() {
    let undefined = "undefined.ptx, line 8; error   : Arguments mismatch for instruction 'mov'";
    let no_arch = "fatal   : Value 'sm_90a' is not defined for option 'gpu-name'";
    for (version, name, text) in
        [("11.8.89", "undefined", undefined), ("13.0.88", "undefined", undefined), ("11.8.89", "wgmma", no_arch)]
    {
        let expected = PtxasError::Failed { line: 1, text: text.into() };
        assert_eq!(ptxas::parse(&log(version, name)), Err(expected), "{version}/{name}");
    }
}

/// Damages one real log and expects an error that holds `complaint`.
#[track_caller]
fn check_damaged(damage: impl Fn(&str) -> String, complaint: &str) {
    let whole = log("13.0.88", "several");
    let damaged = damage(&whole);
    assert_ne!(damaged, whole, "the damage changed nothing");
    let error = ptxas::parse(&damaged).expect_err(&damaged).to_string();
    assert!(error.contains(complaint), "expected `{complaint}` in: {error}");
}

#[test]
fn damaged_logs_name_the_line() {
    let cases = [
        ("used 3 barriers, ", "used three barriers, ", "line 10 of the ptxas log: an unknown figure"),
        ("512 bytes smem", "512 bytes tmem", "line 10 of the ptxas log: an unknown figure"),
        ("512 bytes smem", "12+500 bytes smem", "line 10 of the ptxas log: an unknown figure"),
        ("512 bytes smem", "99999999999 bytes smem", "line 10 of the ptxas log: a figure too large"),
        ("512 bytes smem", "512 bytes smem, 8 bytes smem", "line 10 of the ptxas log: the same figure twice"),
        ("512 bytes smem, ", "512 bytes smem, 4 bytes cmem[0], ", "line 10 of the ptxas log: the same figure twice"),
        (
            "Used 12 registers, used 3",
            "Used registers, used 3",
            "line 10 of the ptxas log: figures in a form not known",
        ),
        ("Used 12 registers, used 3", "Uses 12 registers, used 3", "line 10 of the ptxas log: figures in a form"),
        ("160 bytes cmem[3]", "160 bytes cmem", "line 1 of the ptxas log: figures in a form not known"),
        ("for 'sm_89'", "for 'gfx90a'", "line 2 of the ptxas log: figures in a form not known"),
        ("    0 bytes stack frame, ", "    stack frame, ", "line 4 of the ptxas log: stack frame and spills were"),
        ("'named_barriers'", "'constants'", "line 7 of the ptxas log: an entry function that the log has named"),
        ("ptxas info    : Compile time", "nvlink info   : Compile time", "a line of no known form"),
    ];
    for (from, to, complaint) in cases {
        check_damaged(|log| log.replacen(from, to, 1), complaint);
    }
}

#[test]
fn missing_lines_are_missed() {
    let without = |needle: &'static str| {
        move |log: &str| {
            let cut = log.lines().position(|line| line.contains(needle)).expect("is in the log");
            let kept: Vec<_> = log.lines().enumerate().filter(|&(at, _)| at != cut).map(|(_, line)| line).collect();
            kept.join("\n") + "\n"
        }
    };
    check_damaged(without("gmem"), "no line states the module's global memory");
    check_damaged(without("used 3 barriers"), "entry `named_barriers`, announced on line 7, has no register count");
    check_damaged(without("Function properties for named"), "line 8 of the ptxas log: a frame of no named function");
    check_damaged(without("    0 bytes stack frame"), "line 4 of the ptxas log: stack frame and spills were expected");
    check_damaged(without("entry function 'constants'"), "a frame outside any entry function");
    check_damaged(without("entry function 'named_barriers'"), "a second register count for the same entry");
    check_damaged(|log| format!("{log}{log}"), "line 22 of the ptxas log: a second module in one log");
    check_damaged(|_| String::new(), "no line states the module's global memory");
    check_damaged(|_| "ptxas info    : 0 bytes gmem\n".into(), "names no entry function");
}

/// A log cut anywhere, as when the assembler is killed, is an error or holds whole kernels only.
#[test]
fn a_cut_log_yields_whole_kernels_or_an_error() {
    let whole_log = log("13.0.88", "several");
    let whole = read("13.0.88", "several");
    let mut readable = 0;
    for length in 0..whole_log.len() {
        if let Ok(module) = ptxas::parse(&whole_log[..length]) {
            let count = module.entries.len();
            assert_eq!(module.entries, whole.entries[..count], "cut at {length}");
            readable += 1;
        }
    }
    // After each of the four register lines, and after each compile time but the last, where nothing is cut.
    assert_eq!(readable, 7);
}
