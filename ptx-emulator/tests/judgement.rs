//! What counts as a fault and how bad it is: pairs of programs that differ in one thing, one silent or merely noted,
//! the other reported.

use ptx_emulator::{Finding, Kind, Launch, Memory, Module, Params, Schedule, Severity, run};

/// What is found when `body` runs with two buffers at `%d1` and `%d2`, the second undefined, 256 bytes of shared memory
/// at `%r2`, an 8-byte object at `%r3`, and the thread's number in `%r1`; and the first words of the first buffer.
fn execute(body: &str, threads: u32) -> (Vec<Finding>, Vec<u32>) {
    let source = format!(
        ".version 9.0\n.target sm_89\n.address_size 64\n.visible .entry k(.param .u64 k0, .param .u64 k1)\n{{\n\
         .reg .pred %p<8>;\n.reg .b16 %h<8>;\n.reg .b32 %r<32>;\n.reg .f32 %f<16>;\n.reg .b64 %d<16>;\n\
         .shared .align 16 .b8 tile[256];\n.shared .align 8 .b64 bar;\nld.param.u64 %d1, [k0];\n\
         ld.param.u64 %d2, [k1];\nmov.u32 %r1, %tid.x;\nmov.u32 %r2, tile;\nmov.u32 %r3, bar;\n{body}\nret;\n}}\n"
    );
    let module = Module::parse(&source).unwrap_or_else(|e| panic!("{body}: {e}"));
    let kernel = module.entry("k").unwrap_or_else(|e| panic!("{body}: {e}"));
    let mut memory = Memory::new(&module);
    let first = memory.alloc_from("a", &[0; 512]).expect("fits");
    let second = memory.alloc("b", 512).expect("fits");
    let mut launch = Launch::new([1, 1, 1], [threads, 1, 1], Params::new().pointer(first).pointer(second).finish());
    launch.schedule = Schedule::Greedy;
    let outcome = run(&kernel, &memory, &launch).expect("starts");
    let bytes = memory.read(first).expect("own");
    let words = bytes.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word)).collect();
    (outcome.findings, words)
}

fn kinds(body: &str, threads: u32) -> Vec<(Kind, Severity)> {
    execute(body, threads).0.iter().map(|f| (f.kind, f.severity)).collect()
}

/// A program that stores `%r4`, computed by `body` with the undefined `%r9`, `%d9`, `%h7`, `%f9` and `%p7`.
fn stored(body: &str) -> Vec<(Kind, Severity)> {
    kinds(&format!("{body}\nst.global.u32 [%d1], %r4;"), 1)
}

#[test]
fn values_that_do_not_depend_on_undefined_ones_are_defined() {
    for body in [
        "and.b32 %r4, %r9, 0;",
        "or.b32 %r4, %r9, -1;",
        "and.b32 %r5, %r9, 0xff00;\nand.b32 %r4, %r5, 0xff;",
        "mul.lo.u32 %r4, %r9, 0;",
        "mul.hi.u32 %r4, %r9, 0;",
        "mul.lo.u32 %r5, %r9, 0x10000;\nand.b32 %r4, %r5, 0xffff;",
        "mad.lo.u32 %r4, %r9, 0, 7;",
        "xor.b32 %r4, %r9, %r9;",
        "sub.u32 %r4, %r9, %r9;",
        "shl.b32 %r4, %r9, 32;",
        "shr.u32 %r5, %r9, 24;\nshr.u32 %r4, %r5, 8;",
        "shl.b32 %r5, %r9, 16;\nadd.u32 %r5, %r5, 3;\nand.b32 %r4, %r5, 0xffff;",
        "prmt.b32 %r5, %r1, %r9, 0x7610;\nprmt.b32 %r4, %r5, 0, 0x4410;",
        "bfi.b32 %r5, %r1, %r9, 0, 8;\nbfe.u32 %r4, %r5, 0, 8;",
        "lop3.b32 %r4, %r9, %r1, %r1, 0xcc;",
        "lop3.b32 %r4, %r9, %r9, %r1, 0x3c;",
        "mov.b64 %d3, {%r1, %r9};\nmov.b64 {%r4, %r5}, %d3;",
        "cvt.u64.u32 %d3, %r9;\nshr.u64 %d3, %d3, 32;\ncvt.u32.u64 %r4, %d3;",
        "setp.ne.u32 %p1, %r1, %r1;\nand.pred %p2, %p1, %p7;\nselp.u32 %r4, 1, 2, %p2;",
        "setp.eq.u32 %p1, %r1, %r1;\nor.pred %p2, %p7, %p1;\nselp.u32 %r4, 1, 2, %p2;",
        "setp.ne.u32 %p1, %r1, %r1;\nsetp.lt.and.s32 %p2, %r9, 5, %p1;\nselp.u32 %r4, 1, 2, %p2;",
        "setp.eq.u32 %p1, %r1, %r1;\nsetp.lt.or.s32 %p2|%p3, %r9, 5, %p1;\nselp.u32 %r4, 1, 2, %p2;",
        "or.b32 %r5, %r9, 1;\nsetp.eq.u32 %p1, %r5, 0;\nselp.u32 %r4, 1, 2, %p1;",
        "shr.u32 %r5, %r9, 16;\nsetp.lt.u32 %p1, %r5, 0x10000;\nselp.u32 %r4, 1, 2, %p1;",
        "selp.u32 %r4, 7, 7, %p7;",
        "mov.u32 %r4, 7;\n@%p7 mov.u32 %r4, 7;",
        "selp.u32 %r4, %r1, %r9, %p6;\nmov.u32 %r4, 1;",
        // Only the low byte is stored, by shared memory and by a shuffle.
        "bfi.b32 %r5, %r1, %r9, 0, 8;\nst.shared.u8 [%r2], %r5;\nld.shared.u8 %r4, [%r2];",
        "bfi.b32 %r5, %r1, %r9, 0, 8;\nst.shared.u32 [%r2], %r5;\nld.shared.u8 %r4, [%r2];",
        "bfi.b32 %r5, %r1, %r9, 0, 8;\nshfl.sync.idx.b32 %r6, %r5, 0, 31, 1;\nand.b32 %r4, %r6, 255;",
        "setp.eq.u32 %p1, %r1, 0;\nvote.sync.any.pred %p2, %p1, 1;\nselp.u32 %r4, 1, 2, %p2;",
    ] {
        assert_eq!(stored(body), [], "{body}");
    }
}

#[test]
fn values_that_depend_on_undefined_ones_are_reported() {
    const STORE: (Kind, Severity) = (Kind::UninitialisedStore, Severity::Error);
    for body in [
        "and.b32 %r4, %r9, 1;",
        "or.b32 %r4, %r9, 1;",
        "mul.lo.u32 %r4, %r9, 2;",
        "shl.b32 %r4, %r9, 31;",
        "add.u32 %r4, %r9, 1;",
        "sub.u32 %r4, %r9, %r8;",
        "xor.b32 %r4, %r9, %r8;",
        "prmt.b32 %r4, %r1, %r9, 0x4210;",
        "bfi.b32 %r4, %r1, %r9, 0, 8;",
        "lop3.b32 %r4, %r9, %r1, %r1, 0xf0;",
        "setp.eq.u32 %p1, %r1, %r1;\nand.pred %p2, %p1, %p7;\nselp.u32 %r4, 1, 2, %p2;",
        "setp.ne.u32 %p1, %r1, %r1;\nsetp.lt.or.s32 %p2, %r9, 5, %p1;\nselp.u32 %r4, 1, 2, %p2;",
        "and.b32 %r5, %r9, 1;\nsetp.eq.u32 %p1, %r5, 0;\nselp.u32 %r4, 1, 2, %p1;",
        "setp.lt.s32 %p1, %r9, 0;\nselp.u32 %r4, 1, 2, %p1;",
        "mov.u32 %r4, 7;\n@%p7 mov.u32 %r4, 6;",
        "bfi.b32 %r5, %r1, %r9, 0, 8;\nst.shared.u32 [%r2], %r5;\nld.shared.u16 %r4, [%r2];",
        "st.shared.u8 [%r2], %r1;\nld.shared.u32 %r4, [%r2];",
        "vote.sync.all.pred %p2, %p7, 1;\nselp.u32 %r4, 1, 2, %p2;",
        "setp.eq.u32 %p1, %r1, 0;\nselp.u32 %r5, %r9, %r1, %p1;\nshfl.sync.idx.b32 %r4, %r5, 0, 31, 1;",
    ] {
        assert_eq!(stored(body), [STORE], "{body}");
    }
}

#[test]
fn an_undefined_address_is_reported_and_used() {
    // The undefined bits are shifted out of the buffer's first 64 bytes, but for two.
    let body = "and.b32 %r5, %r9, 12;\ncvt.u64.u32 %d3, %r5;\nadd.u64 %d3, %d1, %d3;\nst.global.u32 [%d3], 77;";
    let (findings, words) = execute(body, 1);
    assert_eq!(findings.iter().map(|f| f.kind).collect::<Vec<_>>(), [Kind::UninitialisedAddress]);
    // Registers that were never written hold ones.
    assert_eq!(words[..5], [0, 0, 0, 77, 0]);
}

#[test]
fn lanes_of_one_store_may_write_equal_values() {
    const RACE: Kind = Kind::RaceWriteWrite;
    for (place, value, threads, severity) in [
        ("shared.u32 [%r2]", "7", 32, Severity::Info),
        ("global.u32 [%d1]", "7", 32, Severity::Info),
        ("shared.v2.u32 [%r2]", "{7, 8}", 32, Severity::Info),
        ("shared.u8 [%r2]", "7", 8, Severity::Info),
        ("shared.u32 [%r2]", "%r1", 2, Severity::Error),
        ("global.u32 [%d1]", "%r1", 2, Severity::Error),
        ("shared.v2.u32 [%r2]", "{7, %r1}", 2, Severity::Error),
        ("shared.u16 [%r2]", "%r1", 2, Severity::Error),
    ] {
        let value = if place.contains(".u16") { "%h1".into() } else { value.to_owned() };
        let body = format!("cvt.u16.u32 %h1, %r1;\nst.{place}, {value};");
        let found = kinds(&body, threads);
        assert_eq!(found, [(RACE, severity)], "{body}");
    }
    // The third lane restores what the first had written: not the value that was there.
    let found = kinds("and.b32 %r4, %r1, 1;\nst.shared.u32 [%r2], %r4;", 3);
    assert_eq!(found, [(RACE, Severity::Error)]);
    // Pairs of lanes that write equal values to places of their own.
    let pairs = "shr.u32 %r4, %r1, 1;\nshl.b32 %r5, %r4, 2;\nxor.b32 %r5, %r5, 20;\nadd.u32 %r5, %r2, %r5;\n";
    assert_eq!(kinds(&format!("{pairs}st.shared.u32 [%r5], %r4;"), 32), [(RACE, Severity::Info)]);
    assert_eq!(kinds(&format!("{pairs}st.shared.u32 [%r5], %r1;"), 32), [(RACE, Severity::Error)]);
    // Fours of lanes, as compilers leave them after a sum over lanes, at places that follow each other without a gap.
    let fours = "shr.u32 %r4, %r1, 2;\nshl.b32 %r5, %r4, 4;\nadd.u32 %r5, %r2, %r5;\n";
    let store = |last: &str| format!("{fours}st.shared.v4.u32 [%r5], {{%r4, %r4, %r4, {last}}};");
    assert_eq!(kinds(&store("%r4"), 32), [(RACE, Severity::Info)]);
    assert_eq!(kinds(&store("%r1"), 32), [(RACE, Severity::Error)]);
    // Two warps.
    assert_eq!(kinds("st.shared.u32 [%r2], 7;", 64), [(RACE, Severity::Info)]);
    // Rows of a matrix that two warps hold both, as Triton's compiler leaves them.
    let matrix = "stmatrix.sync.aligned.m8n8.x1.shared.b16 [%r5], {%r4};";
    let rows = "and.b32 %r4, %r1, 31;\nshl.b32 %r5, %r4, 4;\nadd.u32 %r5, %r2, %r5;\n";
    assert_eq!(kinds(&format!("{rows}{matrix}"), 64), [(RACE, Severity::Info)]);
    assert_eq!(kinds(&format!("{rows}mov.u32 %r4, %r1;\n{matrix}"), 64), [(RACE, Severity::Error)]);
    let apart = "setp.lt.u32 %p1, %r1, 32;\n@!%p1 mov.u32 %r4, 8;\n@%p1 mov.u32 %r4, 7;\n";
    let found = kinds(&format!("{apart}st.shared.u32 [%r2], %r4;"), 64);
    assert!(found.contains(&(RACE, Severity::Error)), "{found:?}");
}

#[test]
fn a_warp_may_arrive_and_then_wait_but_not_arrive_twice() {
    assert_eq!(kinds("bar.arrive 1, 64;\nbar.sync 1, 64;", 64), []);
    let twice = kinds("bar.arrive 1, 64;\nbar.arrive 1, 64;", 64);
    assert_eq!(twice, [(Kind::BarrierMisuse, Severity::Error)]);
}

/// Every lane in turn takes a lock, counts in shared memory at `%r2+64`, and gives the lock back.
fn lock(take: &str, give: &str) -> String {
    format!(
        "st.shared.u32 [%r2], 0;\nst.shared.u32 [%r2+64], 0;\nbar.sync 0;\n\
         again:\n{take}\nsetp.ne.u32 %p1, %r5, 0;\n@%p1 bra again;\n\
         ld.shared.u32 %r6, [%r2+64];\nadd.u32 %r6, %r6, 1;\nst.shared.u32 [%r2+64], %r6;\n{give}\n\
         bar.sync 0;\nld.shared.u32 %r7, [%r2+64];\nst.global.u32 [%d1], %r7;"
    )
}

#[test]
fn a_lock_orders_the_lanes_of_a_warp() {
    const SILENT: &[(Kind, Severity)] = &[(Kind::RaceWriteWrite, Severity::Info)];
    for threads in [32, 64] {
        for (take, give) in [
            ("atom.acquire.cta.shared.cas.b32 %r5, [%r2], 0, 1;", "st.release.cta.shared.u32 [%r2], 0;"),
            (
                "atom.relaxed.cta.shared.cas.b32 %r5, [%r2], 0, 1;\nfence.acq_rel.cta;",
                "fence.acq_rel.cta;\natom.relaxed.cta.shared.exch.b32 %r8, [%r2], 0;",
            ),
            ("atom.shared.cas.b32 %r5, [%r2], 0, 1;\nmembar.cta;", "membar.cta;\nst.volatile.shared.u32 [%r2], 0;"),
        ] {
            let (findings, words) = execute(&lock(take, give), threads);
            let found: Vec<_> = findings.iter().map(|f| (f.kind, f.severity)).collect();
            assert!(found.iter().all(|f| SILENT.contains(f)), "{take}: {findings:#?}");
            assert_eq!(words[0], threads, "{take}");
        }
        // Without order on one side, the lanes race.
        for (take, give) in [
            ("atom.relaxed.cta.shared.cas.b32 %r5, [%r2], 0, 1;", "st.release.cta.shared.u32 [%r2], 0;"),
            ("atom.acquire.cta.shared.cas.b32 %r5, [%r2], 0, 1;", "st.relaxed.cta.shared.u32 [%r2], 0;"),
        ] {
            let found = kinds(&lock(take, give), threads);
            assert!(found.iter().any(|f| f.1 > Severity::Info), "{take} {give}: {found:?}");
        }
    }
}

#[test]
fn an_exited_lane_is_not_waited_for() {
    // Lanes from 16 on leave without having executed the vote that names them, which stands above their exit.
    let body = "setp.ge.u32 %p1, %r1, 16;\n@%p1 bra leave;\nsetp.lt.u32 %p2, %r1, 8;\nvote.sync.any.pred %p3, %p2, -1;\n\
                selp.u32 %r4, 1, 0, %p3;\nst.global.u32 [%d1], %r4;\nleave: ret;";
    let (findings, words) = execute(body, 32);
    assert_eq!(words[0], 1);
    let found: Vec<_> = findings.iter().filter(|f| f.severity > Severity::Info).map(|f| (f.kind, f.severity)).collect();
    assert_eq!(found, [(Kind::SyncDivergence, Severity::Warning)]);
    assert!(findings.iter().any(|f| f.message.contains("0xffff0000 that have exited")), "{findings:#?}");
    // Lanes that are there but never come are another matter.
    let body = "setp.ge.u32 %p1, %r1, 16;\n@%p1 bra other;\nvote.sync.any.pred %p3, %p1, -1;\nbra leave;\n\
                other: bar.warp.sync 0xffff0000;\nbar.warp.sync -1;\nleave: ret;";
    let found = kinds(body, 32);
    assert!(found.contains(&(Kind::SyncDivergence, Severity::Error)), "{found:?}");
}

#[test]
fn volatile_orders_nothing() {
    let sum = |sync: &str| {
        format!(
            "shl.b32 %r4, %r1, 2;\nadd.u32 %r4, %r2, %r4;\nst.volatile.shared.u32 [%r4], %r1;\n{sync}\n\
             and.b32 %r5, %r1, 15;\nshl.b32 %r5, %r5, 2;\nadd.u32 %r5, %r2, %r5;\n\
             ld.volatile.shared.u32 %r6, [%r5+16];"
        )
    };
    assert_eq!(kinds(&sum(""), 32), [(Kind::RaceReadAfterWrite, Severity::Info)]);
    assert_eq!(kinds(&sum("bar.warp.sync -1;"), 32), []);
}

#[test]
fn a_copy_that_ends_does_not_end_another_to_the_same_place() {
    let copies = "cp.async.ca.shared.global [%r2], [%d1], 4;\ncp.async.commit_group;\n\
                  cp.async.ca.shared.global [%r2], [%d1+4], 4;\ncp.async.commit_group;\n";
    let (findings, _) =
        execute(&format!("{copies}cp.async.wait_group 1;\nld.shared.u32 %r4, [%r2];\ncp.async.wait_all;"), 1);
    let reads = findings.iter().filter(|f| f.kind == Kind::InFlight && f.sites[1].role == "read").count();
    assert_eq!(reads, 1, "{findings:#?}");
    let (findings, _) =
        execute(&format!("{copies}cp.async.wait_group 0;\nld.shared.u32 %r4, [%r2];\nst.global.u32 [%d1], %r4;"), 1);
    let reads = findings.iter().filter(|f| f.sites.last().is_some_and(|s| s.role == "read")).count();
    assert_eq!(reads, 0, "{findings:#?}");
}

#[test]
fn tiles_of_a_warp_meet_each_for_itself() {
    let halves = |other: &str| {
        let masks = format!("setp.lt.u32 %p1, %r1, 16;\nselp.b32 %r4, 0xffff, {other}, %p1;\n");
        kinds(&(masks + "bar.warp.sync %r4;"), 32)
    };
    assert_eq!(halves("0xffff0000"), []);
    let wrong = (Kind::SyncDivergence, Severity::Error);
    assert_eq!(halves("0xffff"), [wrong], "lanes that nobody names");
    assert!(halves("0xffff8000").contains(&wrong), "a lane that two tiles name");
}
