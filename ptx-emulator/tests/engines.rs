//! What works beside the warps: bulk copies, the tensor core of a warpgroup, blocks of a cluster. Each kernel is right as
//! it stands, and wrong in one known way with one of its lines changed.

use ptx_emulator::{
    Buffer, Finding, Kind, Launch, Memory, MmaModel, Module, Outcome, Params, Schedule, TensorElement, TensorMap, run,
};

const SCHEDULES: [Schedule; 5] =
    [Schedule::RoundRobin, Schedule::Greedy, Schedule::Reverse, Schedule::Seeded(1), Schedule::Seeded(77)];

fn report(outcome: &Outcome) -> String {
    outcome.findings.iter().map(|finding| format!("{finding}\n")).collect()
}

/// A kernel and how it is launched on an input of words and an output as long.
struct Case {
    source: String,
    blocks: u32,
    threads: u32,
    cluster: u32,
    words: usize,
}

impl Case {
    fn new(body: &str, threads: u32, words: usize) -> Case {
        let source = format!(
            ".version 8.7\n.target sm_90a\n.address_size 64\n.visible .entry k(.param .u64 k0, .param .u64 k1)\n{{\n\
             .reg .pred %p<8>;\n.reg .b32 %r<32>;\n.reg .f32 %f<16>;\n.reg .b64 %d<16>;\n\
             .shared .align 1024 .b8 tile[4096];\n.shared .align 8 .b64 full;\n.shared .align 8 .b64 empty;\n\
             ld.param.u64 %d1, [k0];\nld.param.u64 %d2, [k1];\nmov.u32 %r1, %tid.x;\nmov.u32 %r2, tile;\n\
             mov.u32 %r3, full;\nmov.u32 %r4, empty;\nsetp.eq.u32 %p1, %r1, 0;\n{body}\nret;\n}}\n"
        );
        Case { source, blocks: 1, threads, cluster: 1, words }
    }

    /// With a line that contains `from` as it is with `to` instead.
    fn with(&self, from: &str, to: &str) -> Case {
        assert!(self.source.contains(from), "no {from:?}");
        Case { source: self.source.replacen(from, to, 1), ..*self }
    }

    /// Output and outcome under every schedule; outputs are the same for all where nothing is wrong.
    fn run(&self) -> Vec<(Vec<u32>, Outcome)> {
        let module = Module::parse(&self.source).expect("the kernel parses");
        let kernel = module.entry("k").unwrap_or_else(|error| panic!("{error}"));
        let input: Vec<u8> = (0..self.words as u32).flat_map(|i| (1000 + i).to_le_bytes()).collect();
        let one = |schedule| {
            let mut memory = Memory::new(&module);
            let from = memory.alloc_from("in", &input).expect("fits");
            let to: Buffer = memory.alloc("out", input.len()).expect("fits");
            let params = Params::new().pointer(from).pointer(to).finish();
            let mut launch = Launch::new([self.blocks, 1, 1], [self.threads, 1, 1], params);
            (launch.schedule, launch.cluster, launch.mma_model) = (schedule, [self.cluster, 1, 1], MmaModel::Sm90);
            launch.limits.idle_turns = 50;
            let outcome = run(&kernel, &memory, &launch).expect("the launch is valid");
            let out = memory.read(to).expect("own buffer");
            (out.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word)).collect(), outcome)
        };
        SCHEDULES.map(one).into()
    }

    #[track_caller]
    fn is_clean(&self, wanted: impl Fn(usize) -> u32) {
        for (out, outcome) in self.run() {
            assert!(outcome.is_clean(), "{}", report(&outcome));
            let wrong = out.iter().enumerate().find(|(i, word)| **word != wanted(*i));
            assert_eq!(wrong, None, "{:?}", &out[..16.min(out.len())]);
        }
    }

    /// Under some schedule one of the kinds is found, at an instruction whose text begins so.
    #[track_caller]
    fn is_found(&self, kind: Kind, instruction: &str) {
        let runs = self.run();
        let found = runs.iter().flat_map(|(_, outcome)| &outcome.findings);
        let hit = |f: &Finding| f.kind == kind && f.sites.iter().any(|site| site.instruction.starts_with(instruction));
        let text: String = runs.iter().map(|(_, outcome)| report(outcome)).collect();
        assert!(found.into_iter().any(hit), "no {kind:?} at {instruction}:\n{text}");
    }
}

/// Thread 0 fetches four tiles of 256 bytes through two slots; 64 threads copy them out.
fn ring() -> Case {
    Case::new(
        "@!%p1 bra READY;
        mbarrier.init.shared.b64 [%r3], 1;
        mbarrier.init.shared.b64 [%r4], 64;
        fence.mbarrier_init.release.cluster;
        READY:
        bar.sync 0;
        mov.u32 %r5, 0;
        TILE:
        and.b32 %r6, %r5, 1;
        @!%p1 bra WAIT;
        setp.eq.u32 %p2, %r5, 0;
        @%p2 bra FETCH;
        xor.b32 %r7, %r6, 1;
        FREE:
        mbarrier.try_wait.parity.shared::cta.b64 %p3, [%r4], %r7;
        @!%p3 bra FREE;
        FETCH:
        mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r3], 256;
        mul.wide.u32 %d3, %r5, 256;
        add.s64 %d3, %d1, %d3;
        cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r2], [%d3], 256, [%r3];
        WAIT:
        mbarrier.try_wait.parity.shared::cta.b64 %p4, [%r3], %r6;
        @!%p4 bra WAIT;
        shl.b32 %r8, %r1, 2;
        add.u32 %r9, %r2, %r8;
        ld.shared.b32 %r10, [%r9];
        mbarrier.arrive.shared.b64 _, [%r4];
        shl.b32 %r11, %r5, 8;
        add.u32 %r11, %r11, %r8;
        cvt.u64.u32 %d4, %r11;
        add.s64 %d4, %d2, %d4;
        st.global.b32 [%d4], %r10;
        add.u32 %r5, %r5, 1;
        setp.lt.u32 %p5, %r5, 4;
        @%p5 bra TILE;",
        64,
        256,
    )
}

#[test]
fn a_ring_of_bulk_copies_is_right_under_every_schedule() {
    ring().is_clean(|i| 1000 + i as u32);
}

#[test]
fn a_bulk_copy_without_its_waits_is_found() {
    let copy = "cp.async.bulk";
    ring().with("@!%p4 bra WAIT;", "").is_found(Kind::InFlight, "ld.shared");
    ring().with("@!%p3 bra FREE;", "").is_found(Kind::RaceWriteAfterRead, copy);
    ring().with("mbarrier.arrive.shared.b64 _, [%r4];\n        shl", "shl").is_found(Kind::NoProgress, "mbarrier.try");
    ring().with("fence.mbarrier_init.release.cluster;", "").is_found(Kind::MissingProxyFence, copy);
    ring()
        .with("mov.u32 %r5, 0;", "mov.u32 %r5, 0;\nmbarrier.inval.shared.b64 [%r4];")
        .is_found(Kind::MbarrierMisuse, "mb");
}

#[test]
fn transactions_must_come_to_nothing() {
    for bytes in ["[%r3], 240;", "[%r3], 272;"] {
        let wrong = ring().with("[%r3], 256;", bytes);
        wrong.is_found(Kind::NoProgress, "mbarrier.try_wait");
        let (_, outcome) = &wrong.run()[0];
        assert!(report(outcome).contains("bytes expected"), "{}", report(outcome));
    }
    // What was announced may be taken back.
    let taken = ring().with("[%r3], 256;", "[%r3], 272;\nmbarrier.complete_tx.relaxed.cta.shared::cta.b64 [%r3], 16;");
    taken.is_clean(|i| 1000 + i as u32);
}

#[test]
fn bulk_copies_are_aligned_and_inside() {
    ring().with("[%r2], [%d3], 256,", "[%r2], [%d3], 260,").is_found(Kind::Misaligned, "cp.async.bulk");
    ring().with("[%r2], [%d3], 256,", "[%r2+8], [%d3], 256,").is_found(Kind::Misaligned, "cp.async.bulk");
    ring().with("[%r2], [%d3], 256,", "[%r2+4000], [%d3], 256,").is_found(Kind::OutOfBounds, "cp.async.bulk");
    ring().with("[%r2], [%d3], 256,", "[%r2], [%d3+512], 256,").is_found(Kind::OutOfBounds, "cp.async.bulk");
}

/// 64 threads write a tile, thread 0 sends it to global memory, and the tile is written again.
fn send() -> Case {
    Case::new(
        "shl.b32 %r5, %r1, 2;
        add.u32 %r6, %r2, %r5;
        add.u32 %r7, %r1, 5;
        st.shared.b32 [%r6], %r7;
        fence.proxy.async.shared::cta;
        bar.sync 0;
        @!%p1 bra SENT;
        cp.async.bulk.global.shared::cta.bulk_group [%d2], [%r2], 256;
        cp.async.bulk.commit_group;
        cp.async.bulk.wait_group.read 0;
        SENT:
        bar.sync 0;
        st.shared.b32 [%r6], %r1;",
        64,
        64,
    )
}

#[test]
fn what_is_sent_is_fenced_before_and_left_alone_until_it_is_read() {
    send().is_clean(|i| 5 + i as u32);
    send().with("fence.proxy.async.shared::cta;", "").is_found(Kind::MissingProxyFence, "cp.async.bulk");
    send().with("cp.async.bulk.wait_group.read 0;", "").is_found(Kind::RaceWriteAfterRead, "st.shared");
    send().with("wait_group.read 0;", "wait_group.read 1;").is_found(Kind::RaceWriteAfterRead, "st.shared");
    send().with("cp.async.bulk.commit_group;", "").is_found(Kind::RaceWriteAfterRead, "st.shared");
    send().with("bar.sync 0;\n        @!%p1", "@!%p1").is_found(Kind::RaceReadAfterWrite, "cp.async.bulk");
    // The fence may also come after the barrier, where the copy is.
    let late = send().with("fence.proxy.async.shared::cta;", "");
    late.with("@!%p1 bra SENT;", "@!%p1 bra SENT;\nfence.proxy.async;").is_clean(|i| 5 + i as u32);
}

/// A warpgroup multiplies 64 rows of ones, 32 deep, with eight columns of column number's powers of two; each thread
/// stores the sum of its four values.
fn product() -> Case {
    Case::new(
        "mov.u32 %r5, 0x38383838;
        shl.b32 %r6, %r1, 4;
        add.u32 %r6, %r6, %r2;
        st.shared.v4.b32 [%r6], {%r5, %r5, %r5, %r5};
        setp.lt.u32 %p2, %r1, 16;
        @%p2 st.shared.v4.b32 [%r6+2048], {%r5, %r5, %r5, %r5};
        fence.proxy.async.shared::cta;
        bar.sync 0;
        shr.u32 %r7, %r2, 4;
        cvt.u64.u32 %d3, %r7;
        or.b64 %d3, %d3, 0x0000001000080000;
        add.s64 %d4, %d3, 128;
        setp.ne.u32 %p3, %r1, %r1;
        setp.eq.u32 %p4, %r1, %r1;
        wgmma.fence.sync.aligned;
        wgmma.mma_async.sync.aligned.m64n8k32.f32.e4m3.e4m3 {%f1,%f2,%f3,%f4}, %d3, %d4, %p3, 1, 1;
        wgmma.mma_async.sync.aligned.m64n8k32.f32.e4m3.e4m3 {%f1,%f2,%f3,%f4}, %d3, %d4, %p4, 1, 1;
        wgmma.commit_group.sync.aligned;
        wgmma.wait_group.sync.aligned 0;
        add.f32 %f5, %f1, %f2;
        add.f32 %f6, %f3, %f4;
        add.f32 %f5, %f5, %f6;
        cvt.rzi.u32.f32 %r8, %f5;
        shl.b32 %r9, %r1, 2;
        cvt.u64.u32 %d5, %r9;
        add.s64 %d5, %d2, %d5;
        st.global.b32 [%d5], %r8;
        st.shared.b32 [%r6], %r8;",
        128,
        128,
    )
}

#[test]
fn a_product_of_a_warpgroup_is_the_sum_of_both_halves() {
    product().is_clean(|_| 4 * 2 * 32);
}

#[test]
fn a_product_without_fence_group_or_wait_is_found() {
    let product = product();
    product.with("fence.proxy.async.shared::cta;", "").is_found(Kind::MissingProxyFence, "wgmma.mma_async");
    product.with("bar.sync 0;", "").is_found(Kind::RaceReadAfterWrite, "wgmma.mma_async");
    product.with("wgmma.fence.sync.aligned;", "").is_found(Kind::MissingFence, "wgmma.mma_async");
    product.with("wgmma.wait_group.sync.aligned 0;", "").is_found(Kind::RegisterInFlight, "add.f32");
    product
        .with("wait_group.sync.aligned 0;", "wait_group.sync.aligned 1;")
        .is_found(Kind::RegisterInFlight, "add.f32");
    product.with("wgmma.commit_group.sync.aligned;", "").is_found(Kind::UninitialisedStore, "st.global");
    let early =
        product.with("wgmma.commit_group.sync.aligned;", "wgmma.commit_group.sync.aligned;\nst.shared.b32 [%r6], %r5;");
    early.is_found(Kind::RaceWriteAfterRead, "st.shared");
    let touched =
        product.with("wgmma.commit_group.sync.aligned;", "add.f32 %f1, %f1, %f1;\nwgmma.commit_group.sync.aligned;");
    touched.is_found(Kind::RegisterInFlight, "add.f32");
}

#[test]
fn what_one_warp_waited_for_is_read_for_the_whole_warpgroup() {
    // Thread 0 writes where the last warp's rows were.
    let over = |wait: &str| {
        let late = format!("{wait}\n@%p1 st.shared.b32 [%r2+1988], %r5;");
        product().with("wgmma.wait_group.sync.aligned 0;", &late)
    };
    over("wgmma.wait_group.sync.aligned 0;").is_clean(|_| 4 * 2 * 32);
    over("wgmma.wait_group.sync.aligned 1;").is_found(Kind::RaceWriteAfterRead, "st.shared");
    // A warp of the four that never begins its part holds up the others.
    let held = "setp.lt.u32 %p5, %r1, 96;\n@%p5 bra ON;\nbar.sync 3, 64;\nON:\nwgmma.fence";
    let runs = product().with("wgmma.fence", held).run();
    assert!(runs.iter().all(|(_, outcome)| outcome.findings.iter().any(|f| f.kind == Kind::NoProgress)));
}

#[test]
fn a_product_in_flight_may_be_moved_and_arrives_where_it_was_moved_to() {
    let wait = "wgmma.wait_group.sync.aligned 0;";
    // As nvcc ends a loop whose next round begins with the wait.
    let away = "mov.b32 %r12, %f1;\nmov.b32 %r13, %f2;\nmov.b32 %r14, %f3;\nmov.b32 %r15, %f4;";
    let back = "mov.b32 %f1, %r12;\nmov.b32 %f2, %r13;\nmov.b32 %f3, %r14;\nmov.b32 %f4, %r15;";
    let around = |between: &str| product().with(wait, &format!("{away}\n{between}\n{wait}\n{back}"));
    around("").is_clean(|_| 4 * 2 * 32);
    // Back where it still is to arrive.
    product().with(wait, &format!("{away}\n{back}\n{wait}")).is_clean(|_| 4 * 2 * 32);
    // Elsewhere, whatever was moved there before.
    around("mov.b32 %r12, %r13;\nmov.b32 %r13, %f1;").is_clean(|_| 4 * 2 * 32);
    around("mov.u32 %r12, 0x42800000;").is_clean(|_| 4 * 2 * 32);
    around("add.u32 %r16, %r12, 1;").is_found(Kind::RegisterInFlight, "add.u32");
    around("@%p2 mov.b32 %r12, %f2;").is_found(Kind::RegisterInFlight, "mov.b32");
    around("mov.b32 %f1, %f2;").is_found(Kind::RegisterInFlight, "mov.b32");
    // The next product adds to what was moved, and what stays behind is the first alone.
    let mma = "wgmma.mma_async.sync.aligned.m64n8k32.f32.e4m3.e4m3";
    let second = format!("{mma} {{%f1,%f2,%f3,%f4}}, %d3, %d4, %p4, 1, 1;");
    let moves = "mov.f32 %f5, %f1;\nmov.f32 %f6, %f2;\nmov.f32 %f7, %f3;\nmov.f32 %f8, %f4;";
    let on = format!("wgmma.commit_group.sync.aligned;\n{moves}\nwgmma.fence.sync.aligned;\n{mma} {{%f5,%f6,%f7,%f8}}");
    let taken = product()
        .with(&second, &format!("{on}, %d3, %d4, %p4, 1, 1;"))
        .with("add.f32 %f5, %f1, %f2;", "add.f32 %f5, %f5, %f1;")
        .with("add.f32 %f6, %f3, %f4;", "add.f32 %f6, %f6, %f7;");
    taken.is_clean(|_| 3 * 2 * 32 + 32);
}

#[test]
fn what_is_moved_to_a_product_after_its_fence_was_there_before() {
    let fence = "wgmma.fence.sync.aligned;";
    let zero = "mov.u32 %r12, 0;\nadd.u32 %r12, %r12, %r12;\nsetp.ne.u32 %p3";
    let after = |moves: &str| product().with("setp.ne.u32 %p3", zero).with(fence, &format!("{fence}\n{moves}"));
    after("mov.b32 %f1, %r12;\nmov.f32 %f9, %f1;\nmov.f32 %f2, %f9;").is_clean(|_| 4 * 2 * 32);
    for touched in ["add.u32 %r12, %r12, 1;\nmov.b32 %f1, %r12;", "mov.f32 %f1, 0f00000000;", "add.f32 %f1, %f1, %f1;"]
    {
        after(touched).is_found(Kind::MissingFence, "wgmma.mma_async");
    }
}

/// As [`product`], with its factors copied from global memory, which holds words of 1000 and so on.
fn copied_product() -> Case {
    let stores = "st.shared.v4.b32 [%r6], {%r5, %r5, %r5, %r5};";
    let more = "@%p2 st.shared.v4.b32 [%r6+2048], {%r5, %r5, %r5, %r5};\n        fence.proxy.async.shared::cta;";
    let sum = "cvt.rzi.u32.f32 %r8, %f5;";
    let copy = "and.b32 %r9, %r1, 31;
        mul.wide.u32 %d6, %r9, 16;
        add.s64 %d6, %d1, %d6;
        cp.async.cg.shared.global [%r6], [%d6], 16;";
    let rest = "@%p2 cp.async.cg.shared.global [%r6+2048], [%d6], 16;\n        cp.async.wait_all;";
    // What the values are does not matter here.
    product().with(stores, copy).with(more, rest).with(sum, "mov.u32 %r8, 7;")
}

#[test]
fn what_cp_async_wrote_needs_a_wait_and_an_order_but_no_proxy_fence_before_a_product() {
    let product = copied_product();
    product.is_clean(|_| 7);
    product.with("cp.async.wait_all;", "").is_found(Kind::InFlight, "wgmma.mma_async");
    product.with("bar.sync 0;", "").is_found(Kind::RaceReadAfterWrite, "wgmma.mma_async");
    // Nor does what lay there before; what is written over it by a plain store does.
    let stored = "st.shared.v4.b32 [%r6], {%r5, %r5, %r5, %r5};\n";
    let and = format!("{stored}and.b32 %r9, %r1, 31;");
    product.with("and.b32 %r9, %r1, 31;", &and).is_clean(|_| 7);
    for late in [stored, "st.shared.b8 [%r6+5], %r5;\n"] {
        let late = format!("cp.async.wait_all;\n{late}");
        product.with("cp.async.wait_all;", &late).is_found(Kind::MissingProxyFence, "wgmma.mma_async");
    }
}

#[test]
fn what_cp_async_wrote_may_be_waited_for_by_mbarrier_before_a_product() {
    let begun = "mbarrier.init.shared.b64 [%r3], 128;\nBEGUN:\nbar.sync 0;\nand.b32 %r9, %r1, 31;";
    let begin = format!("@!%p1 bra BEGUN;\n{begun}");
    let wait = "mbarrier.try_wait.parity.shared::cta.b64 %p5, [%r3], 0;\n@!%p5 bra WAIT;";
    let arrive = "cp.async.mbarrier.arrive.noinc.shared.b64 [%r3];\nWAIT:\n";
    let product = copied_product().with("and.b32 %r9, %r1, 31;", &begin).with("bar.sync 0;\n        shr", "shr");
    product.with("cp.async.wait_all;", &format!("{arrive}{wait}")).is_clean(|_| 7);
    product.with("cp.async.wait_all;", arrive).is_found(Kind::InFlight, "wgmma.mma_async");
}

#[test]
fn what_cp_async_wrote_is_sent_without_a_proxy_fence() {
    let copied = send()
        .with("st.shared.b32 [%r6], %r7;", "cvt.u64.u32 %d3, %r5;\nadd.s64 %d3, %d1, %d3;\nCOPY")
        .with("COPY", "cp.async.ca.shared.global [%r6], [%d3], 4;\ncp.async.commit_group;")
        .with("fence.proxy.async.shared::cta;", "cp.async.wait_group 0;");
    copied.is_clean(|i| 1000 + i as u32);
    copied.with("cp.async.wait_group 0;", "cp.async.wait_group 1;").is_found(Kind::InFlight, "cp.async.bulk");
}

#[test]
fn a_descriptor_that_leads_elsewhere_is_found() {
    product().with("add.s64 %d4, %d3, 128;", "add.s64 %d4, %d3, 250;").is_found(Kind::OutOfBounds, "wgmma.mma_async");
    let undefined = product().with("add.s64 %d4, %d3, 128;", "add.s64 %d4, %d3, 160;");
    undefined.is_found(Kind::UninitialisedStore, "st.global");
    product()
        .with("setp.ne.u32 %p3, %r1, %r1;", "setp.eq.u32 %p3, %r1, %r1;")
        .is_found(Kind::UninitialisedStore, "st.global");
}

/// Two blocks; each stores its threads' numbers into the other's memory, which stores them out.
fn exchange() -> Case {
    let case = Case::new(
        "barrier.cluster.arrive.relaxed.aligned;
        barrier.cluster.wait.aligned;
        mov.u32 %r5, %cluster_ctarank;
        xor.b32 %r6, %r5, 1;
        shl.b32 %r7, %r1, 2;
        add.u32 %r8, %r2, %r7;
        mapa.shared::cluster.u32 %r9, %r8, %r6;
        mad.lo.u32 %r10, %r5, 100, %r1;
        st.shared::cluster.b32 [%r9], %r10;
        barrier.cluster.arrive.aligned;
        barrier.cluster.wait.aligned;
        ld.shared.b32 %r11, [%r8];
        mul.wide.u32 %d3, %r5, 256;
        cvt.u64.u32 %d4, %r7;
        add.s64 %d3, %d3, %d4;
        add.s64 %d3, %d2, %d3;
        st.global.b32 [%d3], %r11;",
        64,
        128,
    );
    Case { blocks: 2, cluster: 2, ..case }
}

#[test]
fn blocks_of_a_cluster_reach_each_others_memory() {
    exchange().is_clean(|i| if i < 64 { 100 + i as u32 } else { i as u32 - 64 });
}

#[test]
fn blocks_of_a_cluster_that_do_not_wait_for_each_other_are_found() {
    let first = "barrier.cluster.arrive.relaxed.aligned;\n        barrier.cluster.wait.aligned;";
    exchange().with(first, "").is_found(Kind::ClusterMisuse, "st.shared::cluster");
    let second = "barrier.cluster.arrive.aligned;\n        barrier.cluster.wait.aligned;";
    exchange().with(second, "").is_found(Kind::UninitialisedStore, "st.global");
    exchange()
        .with("barrier.cluster.arrive.aligned;", "barrier.cluster.arrive.relaxed.aligned;")
        .is_found(Kind::RaceReadAfterWrite, "ld.shared");
    let alone = Case { cluster: 1, ..exchange() };
    alone.is_found(Kind::ClusterMisuse, "st.shared::cluster");
    let lonely = exchange().with("barrier.cluster.arrive.aligned;", "@%p1 bra GONE;\nbarrier.cluster.arrive.aligned;");
    lonely.with("st.global.b32 [%d3], %r11;", "st.global.b32 [%d3], %r11;\nGONE:").run();
}

/// Two blocks of two warps; thread 0 initialises an mbarrier at which all threads of the other block arrive.
fn meeting() -> Case {
    let case = Case::new(
        "@!%p1 bra READY;
        mbarrier.init.shared.b64 [%r3], 64;
        fence.mbarrier_init.release.cluster;
        READY:
        barrier.cluster.arrive.relaxed.aligned;
        barrier.cluster.wait.acquire.aligned;
        mov.u32 %r5, %cluster_ctarank;
        xor.b32 %r6, %r5, 1;
        mapa.shared::cluster.u32 %r7, %r3, %r6;
        mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%r7];
        WAIT:
        mbarrier.try_wait.parity.shared::cta.b64 %p2, [%r3], 0;
        @!%p2 bra WAIT;
        barrier.cluster.arrive.aligned;
        barrier.cluster.wait.aligned;
        mad.lo.u32 %r8, %r5, 64, %r1;
        mul.wide.u32 %d3, %r8, 4;
        add.s64 %d3, %d2, %d3;
        st.global.b32 [%d3], %r8;",
        64,
        128,
    );
    Case { blocks: 2, cluster: 2, ..case }
}

#[test]
fn what_a_fence_of_mbarriers_released_is_known_after_a_relaxed_meeting_of_the_cluster() {
    meeting().is_clean(|i| i as u32);
    let unfenced = meeting().with("fence.mbarrier_init.release.cluster;", "");
    unfenced.is_found(Kind::RaceReadAfterWrite, "mbarrier.try_wait");
    // The fence is of mbarriers alone.
    let stored = meeting().with("mbarrier.init", "st.shared.b32 [%r2], %r1;\nmbarrier.init");
    stored.with("WAIT:", "ld.shared.b32 %r9, [%r2];\nWAIT:").is_found(Kind::RaceReadAfterWrite, "ld.shared");
}

/// A box of a tensor of words is loaded from where it ends, and stored, one more each, to the corner of another.
const BOXES: &str = ".version 8.7
.target sm_90a
.address_size 64
.visible .entry k(.param .align 64 .b8 k0[128], .param .align 64 .b8 k1[128], .param .u64 k2)
{
.reg .pred %p<8>;
.reg .b32 %r<32>;
.reg .b64 %d<16>;
.shared .align 1024 .b8 tile[128];
.shared .align 8 .b64 full;
mov.b64 %d1, k0;
cvta.param.u64 %d1, %d1;
mov.b64 %d2, k1;
cvta.param.u64 %d2, %d2;
ld.param.u64 %d3, [k2];
mov.u32 %r1, %tid.x;
mov.u32 %r2, tile;
mov.u32 %r3, full;
setp.eq.u32 %p1, %r1, 0;
@!%p1 bra READY;
mbarrier.init.shared.b64 [%r3], 1;
fence.mbarrier_init.release.cluster;
READY:
bar.sync 0;
mov.u32 %r4, 16;
mov.u32 %r5, 4;
mov.u32 %r6, 0;
@!%p1 bra WAIT;
mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r3], 128;
cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%r2], [%d1, {%r4, %r5}], [%r3];
WAIT:
mbarrier.try_wait.parity.shared::cta.b64 %p2, [%r3], 0;
@!%p2 bra WAIT;
shl.b32 %r7, %r1, 2;
add.u32 %r8, %r2, %r7;
ld.shared.b32 %r9, [%r8];
cvt.u64.u32 %d4, %r7;
add.s64 %d4, %d3, %d4;
st.global.b32 [%d4], %r9;
add.u32 %r9, %r9, 1;
st.shared.b32 [%r8], %r9;
fence.proxy.async.shared::cta;
bar.sync 0;
@!%p1 bra DONE;
cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%d2, {%r6, %r6}], [%r2];
cp.async.bulk.commit_group;
cp.async.bulk.wait_group 0;
DONE:
ret;
}
";

/// What threads read of shared memory, what the other tensor holds then, and what was found.
fn boxes(source: &str, map: impl Fn(TensorMap) -> TensorMap) -> (Vec<u32>, Vec<u32>, Outcome) {
    let module = Module::parse(source).expect("the kernel parses");
    let kernel = module.entry("k").unwrap_or_else(|error| panic!("{error}"));
    let mut memory = Memory::new(&module);
    let words: Vec<u8> = (0..24 * 6u32).flat_map(u32::to_le_bytes).collect();
    let from = memory.alloc_from("from", &words).expect("fits");
    let to = memory.alloc_from("to", &vec![0; words.len()]).expect("fits");
    let out = memory.alloc("out", 128).expect("fits");
    let of = |buffer: Buffer| TensorMap {
        address: buffer.address(),
        element: TensorElement::F32,
        sizes: vec![20, 6],
        strides: vec![96],
        extents: vec![8, 4],
        swizzle: 32,
        nan_fill: false,
    };
    let bytes = |map: TensorMap| map.to_bytes().expect("it can be one");
    let params = Params::new().bytes(64, &bytes(map(of(from)))).bytes(64, &bytes(of(to))).pointer(out).finish();
    let mut launch = Launch::new([1, 1, 1], [32, 1, 1], params);
    launch.limits.idle_turns = 50;
    let outcome = run(&kernel, &memory, &launch).expect("the launch is valid");
    let words = |buffer| {
        let bytes = memory.read(buffer).expect("own buffer");
        bytes.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word)).collect()
    };
    (words(out), words(to), outcome)
}

#[test]
fn boxes_of_tensors_are_cut_at_the_border_and_swizzled() {
    let (out, to, outcome) = boxes(BOXES, |map| map);
    assert!(outcome.is_clean(), "{}", report(&outcome));
    // Columns 16 to 19 and rows 4 and 5 are there; the rest reads as zero.
    let inside = |row: u32, column: u32| if row < 2 && column < 4 { (4 + row) * 24 + 16 + column } else { 0 };
    for (i, word) in (0u32..).zip(&out) {
        let (row, chunk, rest) = (i / 8, i / 4 % 2, i % 4);
        // Of 32-byte rows, the chunks of every second four are exchanged: of these four, none.
        assert_eq!(*word, inside(row, chunk * 4 + rest), "{i}");
    }
    for (i, word) in (0u32..).zip(&to) {
        let (row, column) = (i / 24, i % 24);
        let wanted = if row < 4 && column < 8 { inside(row, column) + 1 } else { 0 };
        assert_eq!(*word, wanted, "{row} {column}");
    }
    let (filled, ..) = boxes(BOXES, |map| TensorMap { nan_fill: true, ..map });
    assert_eq!((filled[0], filled[4], filled[31]), (112, u32::MAX, u32::MAX));
}

#[test]
fn copies_of_boxes_are_held_to_their_maps_counts_and_fences() {
    let kinds = |source: &str, map: &dyn Fn(TensorMap) -> TensorMap| {
        let (_, _, outcome) = boxes(source, map);
        outcome.findings.iter().map(|f| f.kind).collect::<Vec<Kind>>()
    };
    let same = |map: TensorMap| map;
    assert!(kinds(&BOXES.replace("[%r3], 128;", "[%r3], 64;"), &same).contains(&Kind::NoProgress));
    assert!(kinds(&BOXES.replace("fence.proxy.async.shared::cta;", ""), &same).contains(&Kind::MissingProxyFence));
    assert!(kinds(&BOXES.replace("@!%p2 bra WAIT;", ""), &same).contains(&Kind::InFlight));
    let three =
        |map: TensorMap| TensorMap { sizes: vec![20, 6, 1], strides: vec![96, 576], extents: vec![8, 4, 1], ..map };
    assert!(kinds(BOXES, &three).contains(&Kind::TensorMapMisuse));
    let larger = |map: TensorMap| TensorMap { sizes: vec![20, 60], ..map };
    assert!(kinds(BOXES, &larger).contains(&Kind::OutOfBounds));
    assert!(
        kinds(&BOXES.replace("cvta.param.u64 %d1, %d1;", "mov.u64 %d1, %d3;"), &same).contains(&Kind::TensorMapMisuse)
    );
}
