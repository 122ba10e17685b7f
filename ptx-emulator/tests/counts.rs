//! What a launch is counted to do: small kernels whose counts a person works out, and that counting changes nothing.

mod common;

use common::{MMA_SHARED, Random, SCHEDULES, load, report};
use ptx_emulator::{Checks, Counts, Launch, Memory, Outcome, Params, Schedule, Tally, run};

/// One warp; `%t` is its lane, `%a` the address of 64 KiB of zeros, `%s` of as much in shared memory.
fn counts_of(body: &str, checks: Checks) -> Counts {
    let source = format!(
        ".version 8.0\n.target sm_80\n.address_size 64
.visible .entry small(.param .u64 from)
{{
    .reg .b32 %t, %o, %s, %r<8>;
    .reg .b64 %a, %w;
    .reg .pred %p;
    .reg .f32 %f<4>;
    .shared .align 16 .b8 tile[16384];
    ld.param.u64 %a, [from];
    mov.u32 %t, %tid.x;
    mov.u32 %s, tile;
    {body}
    ret;
}}"
    );
    let (module, kernel) = load(&source, "small");
    let mut memory = Memory::new(&module);
    let from = memory.alloc_from("from", &[0; 1 << 16]).expect("fits");
    let mut launch = Launch::new([1; 3], [32, 1, 1], Params::new().pointer(from).finish());
    (launch.checks, launch.counts) = (checks, true);
    run(&kernel, &memory, &launch).expect("the launch is valid").counts.expect("was asked for")
}

/// Checks that what is counted of a body is what its differences to nothing say, with checks and without.
#[track_caller]
fn check(body: &str, of: impl Fn(&Tally) -> Vec<u64>, expected: &[u64]) {
    for checks in [Checks::all(), Checks::none()] {
        assert_eq!(of(&counts_of(body, checks).total), expected, "{body}");
    }
}

/// An address that is so many bytes from lane to lane, then an instruction.
fn strided(stride: u32, of: &str, instruction: &str) -> String {
    let (to, base) =
        if of == "global" { ("cvt.u64.u32 %w, %o; add.s64 %a, %a, %w;", "") } else { ("", "add.u32 %s, %s, %o;") };
    format!("mul.lo.u32 %o, %t, {stride};\n{to}{base}\n{instruction}")
}

#[test]
fn sectors_are_those_that_lanes_touch() {
    // Stride in bytes, load, sectors, and the fewest that would do.
    let loads = [
        (4, "ld.global.b32 %r1, [%a];", 4, 4),
        (4, "ld.global.b32 %r1, [%a+4];", 5, 4),
        (128, "ld.global.b32 %r1, [%a];", 32, 4),
        (0, "ld.global.b32 %r1, [%a];", 1, 1),
        (1, "ld.global.u8 %r1, [%a];", 1, 1),
        (8, "ld.global.v2.b32 {%r1, %r2}, [%a];", 8, 8),
        (16, "ld.global.v4.b32 {%r1, %r2, %r3, %r4}, [%a];", 16, 16),
        (32, "ld.global.v4.b32 {%r1, %r2, %r3, %r4}, [%a];", 32, 16),
        (4, "ld.b32 %r1, [%a];", 4, 4),
    ];
    for (stride, load, touched, ideal) in loads {
        let of = |t: &Tally| vec![t.global_load_requests, t.global_load_sectors, t.global_load_sectors_ideal];
        check(&strided(stride, "global", load), of, &[1, touched, ideal]);
    }
    let stores = |t: &Tally| vec![t.global_store_requests, t.global_store_sectors, t.global_load_sectors];
    check(&strided(4, "global", "st.global.b32 [%a], %t;"), stores, &[1, 4, 0]);
    check(&strided(64, "global", "st.global.b32 [%a], %t;"), stores, &[1, 32, 0]);
    // A guard leaves a quarter of the lanes, and then none.
    check(&strided(4, "global", "setp.lt.u32 %p, %t, 8; @%p st.global.b32 [%a], %t;"), stores, &[1, 1, 0]);
    check(&strided(4, "global", "setp.lt.u32 %p, %t, 0; @%p st.global.b32 [%a], %t;"), stores, &[0, 0, 0]);
    check(&strided(4, "global", "red.global.add.u32 [%a], %t;"), |t| vec![t.global_atomic_sectors], &[4]);
    // The address is overwritten by what is loaded.
    check("ld.global.b64 %a, [%a];", |t| vec![t.global_load_sectors], &[1]);
}

#[test]
fn conflicts_are_passes_beyond_the_ideal() {
    // Stride in bytes, access, passes, and those of them that conflicts cost.
    let accesses = [
        (4, "st.shared.b32 [%s], %t;", 1, 0),
        (8, "st.shared.b32 [%s], %t;", 2, 1),
        (16, "st.shared.b32 [%s], %t;", 4, 3),
        (128, "st.shared.b32 [%s], %t;", 32, 31),
        (132, "st.shared.b32 [%s], %t;", 1, 0),
        (0, "st.shared.b32 [%s], %t;", 1, 0),
        (2, "st.shared.u16 [%s], 1;", 1, 0),
        (8, "st.shared.v2.b32 [%s], {%t, %t};", 2, 0),
        (16, "st.shared.v4.b32 [%s], {%t, %t, %t, %t};", 4, 0),
        (32, "st.shared.v4.b32 [%s], {%t, %t, %t, %t};", 8, 4),
        (4, "ld.shared.b32 %r1, [%s];", 1, 0),
        (128, "ld.shared.b32 %r1, [%s];", 32, 31),
        (16, "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r1, %r2, %r3, %r4}, [%s];", 4, 0),
        (128, "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r1, %r2, %r3, %r4}, [%s];", 32, 28),
        (144, "ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%r1, %r2}, [%s];", 2, 0),
        (16, "cp.async.cg.shared.global [%s], [%a], 16; cp.async.wait_all;", 4, 0),
    ];
    for (stride, access, passes, conflicts) in accesses {
        check(
            &strided(stride, "shared", access),
            |t| vec![t.shared_wavefronts, t.bank_conflicts],
            &[passes, conflicts],
        );
    }
}

#[test]
fn conflicts_of_a_copy_are_more_sectors() {
    let of = |t: &Tally| vec![t.shared_wavefronts, t.bank_conflicts, t.async_copy_conflicts, t.l1_sectors()];
    let copy = "cp.async.cg.shared.global [%s], [%a], 16; cp.async.wait_all;";
    check(&strided(16, "shared", copy), of, &[4, 0, 0, 1]);
    check(&strided(32, "shared", copy), of, &[4, 0, 4, 5]);
}

#[test]
fn fragments_are_matrices_of_eight_rows() {
    let load = |stride: u32| {
        format!(
            "wmma.load.a.sync.aligned.row.m16n16k16.shared.f16 {{%r0, %r1, %r2, %r3, %r4, %r5, %r6, %r7}}, [%s], {stride};"
        )
    };
    for (stride, passes, conflicts) in [(8 + 64, 4, 0), (64, 32, 28)] {
        check(&load(stride), |t| vec![t.shared_wavefronts, t.bank_conflicts], &[passes, conflicts]);
    }
}

#[test]
fn a_branch_that_lanes_take_apart_is_divergent() {
    let of = |t: &Tally| vec![t.branches, t.divergent_branches, t.partial_instructions];
    let branch = |limit: u32| {
        format!(
            "setp.lt.u32 %p, %t, {limit};\n@%p bra there;\nadd.u32 %r1, %t, 1;\nadd.u32 %r2, %t, 1;\nthere:\nmov.u32 %r3, %t;"
        )
    };
    check(&branch(16), of, &[1, 1, 2]);
    check(&branch(32), of, &[1, 0, 0]);
    check(&branch(0), of, &[1, 0, 0]);
}

#[test]
fn instructions_are_those_of_the_text() {
    let nothing = counts_of("", Checks::none());
    assert_eq!((nothing.total.instructions, nothing.total.thread_instructions), (4, 128));
    let counts = counts_of(
        "fma.rn.f32 %f1, 0f00000000, 0f00000000, 0f00000000;
        ex2.approx.f32 %f2, %f1;
        shfl.sync.bfly.b32 %r1, %t, 1, 31, -1;
        bar.sync 0;
        mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%f0, %f1, %f2, %f3}, {%t, %t}, {%t}, {%f1, %f1, %f1, %f1};",
        Checks::all(),
    );
    assert_eq!(counts.total.tensor_instructions, 1);
    assert_eq!(counts.total.instructions, 9);
    let class = |name: &str| counts.classes.iter().find(|one| one.class == name).map(|one| one.instructions);
    let found = ["tensor", "floating point", "special functions", "lanes of a warp", "synchronisation", "control"];
    assert_eq!(found.map(class), [Some(1); 6]);
    assert_eq!(counts.classes.iter().map(|one| one.instructions).sum::<u64>(), counts.total.instructions);
}

/// Attention of 128 rows: shared memory, copies, matrices, products; what it left and what came out.
fn attention(schedule: Schedule, checks: Checks, counts: bool, threads: usize) -> (Vec<u8>, Outcome) {
    let (module, kernel) = load(include_str!("data/mma_flash.ptx"), "mma_flash");
    let mut memory = Memory::new(&module);
    let mut random = Random(5);
    let mut params = Params::new();
    for name in ["Q", "K", "V"] {
        let values: Vec<u8> = (0..128 * 64).flat_map(|_| half::f16::from_f32(random.normal()).to_le_bytes()).collect();
        params = params.pointer(memory.alloc_from(name, &values).expect("fits"));
    }
    let out = memory.alloc("O", 128 * 64 * 4).expect("fits");
    let params = params.pointer(out).i32(128).f32(0.18).finish();
    let mut launch = Launch::new([2, 1, 1], [128, 1, 1], params);
    launch.dynamic_shared_bytes = MMA_SHARED;
    (launch.schedule, launch.checks, launch.counts, launch.limits.threads) = (schedule, checks, counts, threads);
    let outcome = run(&kernel, &memory, &launch).expect("the launch is valid");
    assert!(outcome.is_clean(), "{}", report(&outcome));
    (memory.read(out).expect("own buffer"), outcome)
}

#[test]
fn counting_changes_nothing_and_depends_on_nothing() {
    let (_, first) = attention(Schedule::Greedy, Checks::none(), true, 1);
    let first = first.counts.expect("was asked for");
    assert!(first.total.tensor_instructions > 0 && first.total.shared_wavefronts > 0);
    for schedule in SCHEDULES {
        for checks in [Checks::none(), Checks::all()] {
            let (plain, without) = attention(schedule, checks, false, 2);
            let (counted, with) = attention(schedule, checks, true, 2);
            assert!(plain == counted, "{schedule:?} {checks:?}");
            assert_eq!((without.counts, without.findings), (None, with.findings));
            assert_eq!((without.instructions, without.lane_instructions), (with.instructions, with.lane_instructions));
            assert_eq!(with.counts.as_ref(), Some(&first), "{schedule:?} {checks:?}");
        }
    }
}

#[test]
fn lines_add_up_to_the_total() {
    let counts = attention(Schedule::Greedy, Checks::none(), true, 1).1.counts.expect("was asked for");
    let mut sum = Tally::default();
    counts.lines.iter().for_each(|line| sum.add(&line.tally));
    assert_eq!(sum, counts.total);
}
