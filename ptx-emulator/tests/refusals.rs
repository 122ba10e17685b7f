//! Bad input of every kind ends in a typed error or a finding: never a panic, never a hang.

use proptest::prelude::*;
use ptx_emulator::{BlockFilter, EmuError, Kind, Launch, LoadError, Memory, Module, Params, Schedule, run};

const FIXTURES: [&str; 4] = [
    include_str!("data/wmma_flash.ptx"),
    include_str!("data/mma_flash.ptx"),
    include_str!("data/sync.ptx"),
    include_str!("data/fp8_mma.ptx"),
];

/// A kernel `k` with two pointer parameters around `body`.
fn kernel(body: &str) -> String {
    format!(
        ".version 9.0\n.target sm_89\n.address_size 64\n.visible .entry k(.param .u64 k0, .param .u64 k1)\n{{\n\
         .reg .pred %p<8>;\n.reg .b16 %h<8>;\n.reg .b32 %r<32>;\n.reg .f32 %f<16>;\n.reg .b64 %d<8>;\n\
         .shared .align 16 .b8 tile[256];\n.shared .align 8 .b64 bar;\n{body}\nret;\n}}\n"
    )
}

fn refusal(body: &str) -> LoadError {
    let module = Module::parse(&kernel(body)).unwrap_or_else(|e| panic!("{body}: {e}"));
    match module.entry("k") {
        Ok(_) => panic!("{body} was accepted"),
        Err(error) => error,
    }
}

#[test]
fn what_cannot_run_is_refused_by_name_and_line() {
    // Bodies start at line 13 of the text.
    for (body, words) in [
        ("frobnicate.s32 %r1, %r2;", "instruction `frobnicate` is not supported"),
        ("add.weird.s32 %r1, %r2, %r3;", "modifier `.weird` is not supported"),
        ("wgmma.mma_async.sp.sync.aligned.m64n8k32.f32.f16.f16 {%f1}, %d1, %d2, %r1, 0, %p1, 1, 1;", "sparse"),
        (
            "wgmma.mma_async.sync.aligned.m64n8k16.f32.e4m3.e4m3 {%f1,%f2,%f3,%f4}, %d1, %d2, %p1, 1, 1;",
            "does not exist",
        ),
        ("wgmma.mma_async.sync.aligned.m64n8k8.f32.tf32.tf32 {%f1}, %d1, %d2, %p1, 1, 1;", "1 registers given"),
        ("wgmma.wait_group.sync.aligned %r1;", "immediate"),
        ("cp.reduce.async.bulk.global.shared::cta.bulk_group.min.f32 [%d1], [%r2], 16;", "min of .f32"),
        ("cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f16 [%d1], [%r2], 16;", "of .f16"),
        (
            "cp.reduce.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes.add.u32 [%r1], [%r2], 16, [%r3];",
            "reduce into shared memory",
        ),
        ("atom.shared.add.v2.f32 {%f1, %f2}, [%r1], {%f1, %f2};", "vectors work on global memory"),
        ("red.global.add.v2.u32 [%d1], {%r1, %r2};", "2 elements of .u32"),
        ("cp.async.bulk.global.global.bulk_group [%d1], [%d2], 16;", "no bulk copy goes this way"),
        ("setmaxnreg.inc.sync.aligned.u32 20;", "registers are 24 to 256"),
        (
            "cp.async.bulk.tensor.3d.shared::cluster.global.im2col.mbarrier::complete_tx::bytes [%r1], [%d1, {%r2, %r3, %r4}], [%r4];",
            "`.im2col` is not supported",
        ),
        ("barrier.cluster.sync;", "`.arrive` or `.wait` is missing"),
        ("fence.proxy.tensormap::generic.sys;", "acquires or releases"),
        ("tensormap.replace.tile.rank.global.b1024.b64 [%d1], %d1;", "has 32 bits"),
        ("shfl.bfly.b32 %r1, %r2, 1, 31;", "`.sync` form"),
        ("mma.sync.aligned.m8n8k4.row.col.f32.f16.f16.f32 {%f1}, {%r1}, {%r2}, {%f1};", "only .f64 is supported"),
        ("mma.sync.aligned.m16n8k64.row.col.s32.s4.s4.s32 {%r1}, {%r1}, {%r2}, {%r1};", "shapes"),
        (
            "wmma.load.a.sync.aligned.row.m16n16k8.shared.f16 {%r1,%r2,%r3,%r4,%r5,%r6,%r7,%r8}, [%r9], %r10;",
            "a fragment of .f16 is not supported in this shape",
        ),
        ("add.s32 %r1, %r2;", "2 operands given"),
        ("add.s32 %r1, %d2, %r3;", "is .b64"),
        ("add.f32 %f1, %f2, 1;", "integer cannot stand for a float"),
        ("mov.u32 %r1, %pm0;", "special register"),
        ("bra NOWHERE;", "label `NOWHERE`"),
        ("call.uni other, ();", "external function `other`"),
        ("mov.u64 %d1, missing;", "`missing` is not declared"),
        ("ld.global.v8.f64 {%d1,%d2,%d3,%d4,%d1,%d2,%d3,%d4}, [%d5];", "vector"),
        ("wmma.load.a.sync.aligned.row.m8n8k32.shared.s4 {%r1}, [%r9], %r10;", "only shapes"),
        ("vshl.u32.u32.u32.sat.clamp %r1, %r2, %r3;", "`.sat` is not supported"),
        ("mul24.lo.sat.u32 %r1, %r2, %r3;", "`.sat` is not supported"),
        ("brx.idx %r1, NOWHERE;", "`NOWHERE` has no `.branchtargets`"),
        ("cvt.rn.f32.f16 %f1, %h1;", "does not round"),
        ("st.const.u32 [%d1], %r1;", "constant memory"),
        ("cvt.f32.s32 %f1, %r1;", "rounding mode is missing"),
        ("cvt.sat.s16.s16 %h1, %h2;", "`.sat` does not fit"),
        ("cvt.sat.s32.u16 %r1, %h2;", "`.sat` does not fit"),
        ("cvt.ftz.f64.f16 %d1, %h2;", "`.ftz` needs an .f32"),
        ("setp.lt.ftz.bf16 %p1, %h1, %h2;", "flushing of .bf16"),
        ("abs.NaN.f32 %f1, %f2;", "`.NaN` is not supported"),
        ("tex.2d.v4.f32.f32 {%f1,%f2,%f3,%f4}, [%d1, {%f5,%f6}];", "`tex` is not supported"),
        ("ld.global.L2::cache_hint.f32 %f1, [%d1];", "L2::cache_hint"),
    ] {
        let error = refusal(body);
        assert!(error.message.contains(words), "{body}: {error}");
        assert_eq!(error.line, 13, "{body}: {error}");
        let opcode = body.split([' ', ';']).next().expect("not empty");
        assert_eq!(error.instruction, opcode);
    }
}

#[test]
fn syntax_errors_name_token_and_line() {
    for (source, line, words) in [
        ("", 1, "no `.version`"),
        ("hello", 1, "expected a directive, found `hello`"),
        (".version 9.0\n.target sm_89\n.address_size 32\n", 4, "64-bit"),
        (".version 9.0\n.visible .entry k(\n", 3, "end of the text"),
        (".version 9.0\n.global .b8 x[99999999999];\n", 2, "impossible size"),
        (".version 9.0\n.global .b4 x;\n", 2, "unknown directive `.b4`"),
        (".version 9.0\n.entry k()\n{\nadd.s32 \"x\";\n}", 4, "expected an operand"),
        (".version 9.0\n.entry k()\n{\n@%p1 ret;\n}", 4, "not a predicate"),
        (".version 9.0\n/* open\n", 2, "not closed"),
        (".version 9.0\n.global .u32 x = 0x1g;\n", 2, "is not a number"),
    ] {
        let error = Module::parse(source).expect_err(source);
        assert!(error.message.contains(words), "{source:?}: {error}");
        assert_eq!(error.line, line, "{source:?}: {error}");
    }
}

#[test]
fn recursion_is_refused() {
    let source = ".version 9.0\n.target sm_89\n.address_size 64\n\
        .func f() { call.uni g, (); ret; }\n.func g() { call.uni f, (); ret; }\n\
        .entry k() { call.uni f, (); ret; }";
    let error = Module::parse(source).expect("parses").entry("k").expect_err("recursive");
    assert!(error.message.contains("recursive"), "{error}");
}

#[test]
fn impossible_launches_are_errors() {
    let module = Module::parse(&kernel("")).expect("parses");
    let k = module.entry("k").expect("loads");
    let memory = Memory::new(&module);
    let good = || Params::new().u64(0).u64(0).finish();
    let launch = |grid, block, params| Launch::new(grid, block, params);
    let fails = |launch: &Launch| run(&k, &memory, launch).expect_err("must not start");
    let params = fails(&launch([1, 1, 1], [32, 1, 1], vec![0; 12]));
    assert!(matches!(params, EmuError::Parameters { given: 12, wanted: 16, .. }), "{params}");
    for (grid, block) in [
        ([0, 1, 1], [32, 1, 1]),
        ([1, 70_000, 1], [32, 1, 1]),
        ([1, 1, 1], [0, 1, 1]),
        ([1, 1, 1], [1025, 1, 1]),
        ([1, 1, 1], [32, 32, 2]),
        ([1, 1, 1], [u32::MAX, u32::MAX, u32::MAX]),
        ([i32::MAX as u32, 65_535, 65_535], [32, 1, 1]),
    ] {
        let error = fails(&launch(grid, block, good()));
        assert!(matches!(error, EmuError::Shape { .. }), "{error}");
    }
    let mut large = launch([1, 1, 1], [32, 1, 1], good());
    large.dynamic_shared_bytes = u32::MAX;
    assert!(matches!(fails(&large), EmuError::Shape { .. }));
    let mut outside = launch([1, 1, 1], [32, 1, 1], good());
    outside.blocks = BlockFilter::Only(vec![[1, 0, 0]]);
    assert!(matches!(fails(&outside), EmuError::NoSuchBlock { block: [1, 0, 0], .. }));
    let missing = module.entry("other").expect_err("no such kernel");
    assert!(missing.to_string().contains("there are: k"));
}

/// Kinds found when `body` runs on one buffer of 64 defined and one of 64 undefined bytes.
fn kinds(body: &str, threads: u32) -> Vec<Kind> {
    let start = "ld.param.u64 %d1, [k0];\nld.param.u64 %d2, [k1];\nmov.u32 %r1, %tid.x;\n\
                 mov.u32 %r2, tile;\nmov.u32 %r3, bar;\n";
    let module = Module::parse(&kernel(&format!("{start}{body}"))).expect("parses");
    let k = module.entry("k").unwrap_or_else(|e| panic!("{e}"));
    let mut memory = Memory::new(&module);
    let a = memory.alloc_from("a", &[1; 64]).expect("fits");
    let b = memory.alloc("b", 64).expect("fits");
    let mut launch = Launch::new([1, 1, 1], [threads, 1, 1], Params::new().pointer(a).pointer(b).finish());
    launch.limits.warp_instructions = 100_000;
    launch.schedule = Schedule::Greedy;
    let outcome = run(&k, &memory, &launch).expect("starts");
    outcome.findings.iter().map(|f| f.kind).collect()
}

#[test]
fn faults_are_findings() {
    for (body, threads, kind) in [
        ("ld.global.u32 %r4, [%d1+64];", 1, Kind::OutOfBounds),
        ("ld.global.u32 %r4, [%d1+-4];", 1, Kind::OutOfBounds),
        ("ld.global.u32 %r4, [%d1+2];", 1, Kind::Misaligned),
        ("ld.global.v4.u32 {%r4,%r5,%r6,%r7}, [%d1+8];", 1, Kind::Misaligned),
        ("mov.u64 %d3, 0;\nst.global.u32 [%d3], %r1;", 1, Kind::OutOfBounds),
        ("st.shared.u32 [%r2+256], %r1;", 1, Kind::OutOfBounds),
        ("ld.local.u32 %r4, [%d1];", 1, Kind::OutOfBounds),
        ("ld.global.u32 %r4, [%d7];", 1, Kind::UninitialisedAddress),
        ("@%p1 bra L;\nL:", 1, Kind::UninitialisedBranch),
        ("@%p1 st.global.u32 [%d1], %r1;", 1, Kind::UninitialisedBranch),
        ("mov.u32 %r4, 1;\n@%p1 mov.u32 %r4, 2;\nst.global.u32 [%d1], %r4;", 1, Kind::UninitialisedStore),
        (
            "setp.eq.u32 %p1, %r1, %r1;\nselp.u32 %r4, %r9, %r1, %p1;\nst.global.u32 [%d1], %r4;",
            1,
            Kind::UninitialisedStore,
        ),
        ("st.global.u32 [%d1], %r9;", 1, Kind::UninitialisedStore),
        ("ld.shared.u32 %r4, [%r2];\nadd.u32 %r4, %r4, 1;\nst.global.u32 [%d1], %r4;", 1, Kind::UninitialisedStore),
        ("ld.global.u32 %r4, [%d2];\nst.global.u32 [%d1], %r4;", 1, Kind::UninitialisedStore),
        ("bar.sync 16;", 32, Kind::BarrierMisuse),
        ("bar.sync 1, 33;", 32, Kind::BarrierMisuse),
        ("bar.sync 1, 64;", 32, Kind::BarrierMisuse),
        ("setp.lt.u32 %p1, %r1, 32;\n@%p1 bar.sync 1, 64;\n@!%p1 bar.sync 2, 64;", 64, Kind::Deadlock),
        ("setp.lt.u32 %p1, %r1, 32;\n@%p1 ret;\nbar.sync 0;", 64, Kind::ExitedBeforeBarrier),
        ("setp.lt.u32 %p1, %r1, 16;\n@%p1 ret;\nbar.sync 0;", 32, Kind::ExitedBeforeBarrier),
        ("setp.lt.u32 %p1, %r1, 16;\n@%p1 shfl.sync.bfly.b32 %r4, %r1, 1, 31, -1;", 32, Kind::SyncDivergence),
        ("setp.lt.u32 %p1, %r1, 16;\n@%p1 bra A;\nbar.sync 0;\nbra B;\nA: bar.sync 0;\nB:", 32, Kind::BarrierMisuse),
        ("L: bra L;", 1, Kind::Runaway),
        ("trap;", 1, Kind::Trap),
        ("mbarrier.arrive.shared.b64 %d3, [%r3];", 1, Kind::MbarrierMisuse),
        ("mbarrier.init.shared.b64 [%r3], 1;\nmbarrier.init.shared.b64 [%r3], 1;", 1, Kind::MbarrierMisuse),
        ("st.shared.u32 [%r2], %r1;", 2, Kind::RaceWriteWrite),
        (
            "cp.async.ca.shared.global [%r2], [%d1], 4;\nld.shared.u32 %r4, [%r2];\ncp.async.wait_all;",
            1,
            Kind::InFlight,
        ),
        (
            "cp.async.ca.shared.global [%r2], [%d1], 4;\nst.global.u32 [%d1], %r1;\ncp.async.wait_all;",
            1,
            Kind::SourceChanged,
        ),
        ("cp.async.ca.shared.global [%r2], [%d1], 4;", 1, Kind::UnwaitedCopy),
        ("st.global.u32 [%d1], %r1;\nld.global.nc.u32 %r4, [%d1];", 1, Kind::NonCoherentRead),
    ] {
        let found = kinds(body, threads);
        assert!(found.contains(&kind), "{body}: {found:?}");
    }
}

#[test]
fn what_is_allowed_is_silent() {
    for (body, threads) in [
        // A copy of size 0 may name any source.
        (
            "mov.u32 %r4, 0;\ncp.async.cg.shared.global [%r2], [%d1+4096], 16, %r4;\ncp.async.wait_all;\n\
          ld.shared.u32 %r5, [%r2];\nst.global.u32 [%d1], %r5;",
            1,
        ),
        // Undefined values may be copied and selected away.
        ("setp.eq.u32 %p1, %r1, %r1;\nmov.u32 %r5, %r9;\nselp.u32 %r4, 1, 2, %p1;\nst.global.u32 [%d1], %r4;", 1),
        ("setp.eq.u32 %p1, %r1, %r1;\nselp.u32 %r4, %r1, %r9, %p1;\nst.global.u32 [%d1], %r4;", 1),
        // Lanes that are not named may be elsewhere.
        ("setp.lt.u32 %p1, %r1, 16;\n@!%p1 bra L;\nshfl.sync.bfly.b32 %r4, %r1, 1, 31, 0xffff;\nL:", 32),
        // A warp barrier orders the lanes.
        (
            "shl.b32 %r4, %r1, 2;\nadd.u32 %r5, %r2, %r4;\nst.shared.u32 [%r5], %r1;\nbar.warp.sync -1;\n\
          xor.b32 %r4, %r4, 4;\nadd.u32 %r5, %r2, %r4;\nld.shared.u32 %r6, [%r5];",
            32,
        ),
    ] {
        let found = kinds(body, threads);
        assert!(found.is_empty(), "{body}: {found:?}");
    }
}

/// Loads everything and runs what loads on tiny inputs under small limits.
fn survive(source: &str) {
    let Ok(module) = Module::parse(source) else {
        return;
    };
    for name in module.entries() {
        let Ok(kernel) = module.entry(name) else {
            continue;
        };
        let mut memory = Memory::new(&module);
        let Ok(buffer) = memory.alloc_from("any", &[0; 4096]) else {
            continue;
        };
        let mut params = Params::new();
        for (_, bytes) in kernel.parameters() {
            params = match bytes {
                8 => params.pointer(buffer),
                4 => params.i32(1),
                other => params.bytes(1, &vec![0; other]),
            };
        }
        let mut launch = Launch::new([1, 1, 1], [64, 1, 1], params.finish());
        launch.limits.warp_instructions = 2000;
        launch.limits.idle_turns = 20;
        launch.limits.threads = 1;
        launch.dynamic_shared_bytes = 1024;
        let _ = run(&kernel, &memory, &launch);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn mutated_bytes_never_panic(which in 0..4usize, edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12)) {
        let mut bytes = FIXTURES[which].as_bytes().to_vec();
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        survive(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn truncated_text_never_panics(which in 0..4usize, at in any::<prop::sample::Index>()) {
        let source = FIXTURES[which];
        survive(source.get(..at.index(source.len())).unwrap_or_default());
    }

    #[test]
    fn swapped_tokens_never_panic(which in 0..4usize, swaps in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..6)) {
        let mut words: Vec<&str> = FIXTURES[which].split_inclusive([' ', ',', ';', '\t']).collect();
        let count = words.len();
        for (a, b) in swaps {
            words.swap(a.index(count), b.index(count));
        }
        survive(&words.concat());
    }

    #[test]
    fn arbitrary_text_never_panics(text in ".{0,200}") {
        survive(&text);
        survive(&format!(".version 9.0\n{text}"));
        survive(&format!(".version 9.0\n.entry k() {{ {text} }}"));
    }
}
