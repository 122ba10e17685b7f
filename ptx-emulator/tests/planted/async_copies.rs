//! Asynchronous copies and barrier objects.

use ptx_emulator::Kind;

use crate::{Bug, examine};

pub const BUGS: &[Bug] = &[
    (
        "a copy that is not waited for",
        Kind::InFlight,
        "cp.async.ca.shared.global [%r5], [%d3], 4;
        cp.async.commit_group;
        <<||cp.async.wait_group 0;>>
        ld.shared.u32 %r8, [%r5];
        cp.async.wait_group 0;
        st.global.u32 [%d4], %r8;",
    ),
    (
        "a copy that is in flight behind barriers still",
        Kind::InFlight,
        "cp.async.ca.shared.global [%r5], [%d3], 4;
        cp.async.commit_group;
        <<||cp.async.wait_group 0;>>
        bar.sync 0;
        bar.sync 0;
        xor.b32 %r8, %r7, 128;
        add.u32 %r8, %r8, %r6;
        ld.shared.u32 %r9, [%r8];
        cp.async.wait_group 0;
        st.global.u32 [%d4], %r9;",
    ),
    (
        "one group too many left open",
        Kind::InFlight,
        "cp.async.ca.shared.global [%r5], [%d3], 4;
        cp.async.commit_group;
        cp.async.ca.shared.global [%r5+256], [%d3], 4;
        cp.async.commit_group;
        cp.async.wait_group <<1||0>>;
        ld.shared.u32 %r8, [%r5+256];
        cp.async.wait_group 0;
        st.global.u32 [%d4], %r8;",
    ),
    (
        "a group that was never committed",
        Kind::InFlight,
        "cp.async.ca.shared.global [%r5], [%d3], 4;
        <<||cp.async.commit_group;>>
        cp.async.wait_group 0;
        ld.shared.u32 %r8, [%r5];
        cp.async.wait_all;
        st.global.u32 [%d4], %r8;",
    ),
    (
        "a wait without the barrier that others need",
        Kind::RaceReadAfterWrite,
        "cp.async.ca.shared.global [%r5], [%d3], 4;
        cp.async.wait_all;
        <<||bar.sync 0;>>
        xor.b32 %r8, %r7, 128;
        add.u32 %r8, %r8, %r6;
        ld.shared.u32 %r9, [%r8];
        st.global.u32 [%d4], %r9;",
    ),
    (
        "a store into the target of a copy",
        Kind::InFlight,
        "cp.async.ca.shared.global [%r5], [%d3], 4;
        <<st.shared.u32 [%r5], 5; cp.async.wait_all;||cp.async.wait_all; st.shared.u32 [%r5], 5;>>
        ld.shared.u32 %r8, [%r5];
        st.global.u32 [%d4], %r8;",
    ),
    (
        "a copy that outlives its thread",
        Kind::UnwaitedCopy,
        "cp.async.ca.shared.global [%r5], [%d3], 4;
        <<||cp.async.wait_all;>>
        st.global.u32 [%d4], %r4;",
    ),
    (
        "a source that changes under the copy",
        Kind::SourceChanged,
        "st.global.u32 [%d4], 1;
        cp.async.ca.shared.global [%r5], [%d4], 4;
        <<st.global.u32 [%d4], 2; cp.async.wait_all;||cp.async.wait_all; st.global.u32 [%d4], 2;>>
        ld.shared.u32 %r8, [%r5];",
    ),
    (
        "a copy behind the end of its source",
        Kind::OutOfBounds,
        "cp.async.ca.shared.global [%r5], [%d3+4096], 4, <<4||0>>;
        cp.async.wait_all;
        ld.shared.u32 %r8, [%r5];
        st.global.u32 [%d4], %r8;",
    ),
    (
        "a barrier object used before it exists",
        Kind::MbarrierMisuse,
        "setp.eq.u32 %p0, %r0, 0;
        <<||@%p0 mbarrier.init.shared.b64 [gate], 64;>>
        bar.sync 0;
        mbarrier.arrive.shared.b64 %d5, [gate];
        st.global.u32 [%d4], %r4;",
    ),
    (
        "a barrier object that every thread makes",
        Kind::MbarrierMisuse,
        "setp.eq.u32 %p0, %r0, 0;
        <<||@%p0>> mbarrier.init.shared.b64 [gate], 64;
        bar.sync 0;
        mbarrier.arrive.shared.b64 %d5, [gate];
        st.global.u32 [%d4], %r4;",
    ),
    (
        "a barrier object that waits for one arrival too many",
        Kind::NoProgress,
        "setp.eq.u32 %p0, %r0, 0;
        @%p0 mbarrier.init.shared.b64 [gate], <<65||64>>;
        bar.sync 0;
        mbarrier.arrive.shared.b64 %d5, [gate];
        AGAIN:
        mbarrier.test_wait.shared.b64 %p1, [gate], %d5;
        @!%p1 bra AGAIN;
        st.global.u32 [%d4], %r4;",
    ),
];

#[test]
fn copies_and_barrier_objects() {
    examine(BUGS);
}
