//! Warps and barriers: who takes part, how many, and what comes of it when somebody does not; order among the threads
//! of a block.

use ptx_emulator::Kind;

use crate::{Bug, examine};

pub const BUGS: &[Bug] = &[
    (
        "lanes that count on each other's pace",
        Kind::RaceReadAfterWrite,
        "st.shared.u32 [%r5], %r4;
        <<||bar.warp.sync 0xffffffff;>>
        xor.b32 %r8, %r7, 4;
        add.u32 %r8, %r8, %r6;
        ld.shared.u32 %r9, [%r8];
        st.global.u32 [%d4], %r9;",
    ),
    (
        "a shuffle instead of a barrier",
        Kind::RaceReadAfterWrite,
        "st.shared.u32 [%r5], %r4;
        <<shfl.sync.bfly.b32 %r10, %r4, 1, 31, 0xffffffff;||bar.warp.sync 0xffffffff;>>
        xor.b32 %r8, %r7, 4;
        add.u32 %r8, %r8, %r6;
        ld.shared.u32 %r9, [%r8];
        st.global.u32 [%d4], %r9;",
    ),
    (
        "a barrier that half a warp reaches",
        Kind::ExitedBeforeBarrier,
        "setp.lt.u32 %p0, %r0, <<16||64>>;
        @!%p0 bra PAST;
        bar.sync 0;
        PAST:
        st.global.u32 [%d4], %r4;",
    ),
    (
        "a return before the barrier",
        Kind::ExitedBeforeBarrier,
        "setp.lt.u32 %p0, %r0, 7;
        <<@%p0 exit; bar.sync 0;||bar.sync 0; @%p0 exit;>>
        st.global.u32 [%d4], %r4;",
    ),
    (
        "a mask that leaves out half the lanes",
        Kind::SyncDivergence,
        "shfl.sync.bfly.b32 %r8, %r4, 1, 31, <<0xffff||0xffffffff>>;
        st.global.u32 [%d4], %r8;",
    ),
    (
        "a mask of lanes that went elsewhere",
        Kind::SyncDivergence,
        "and.b32 %r9, %r0, 31;
        setp.ge.u32 %p0, %r9, 16;
        mov.u32 %r8, 0;
        @%p0 bra PAST;
        shfl.sync.bfly.b32 %r8, %r4, 1, 31, <<0xffffffff||0xffff>>;
        PAST:
        st.global.u32 [%d4], %r8;",
    ),
    (
        "a shuffle from a lane that is not there",
        Kind::SyncDivergence,
        "and.b32 %r9, %r0, 31;
        setp.ge.u32 %p0, %r9, 16;
        mov.u32 %r8, 0;
        @%p0 bra PAST;
        shfl.sync.idx.b32 %r8, %r4, <<20||4>>, 31, 0xffff;
        PAST:
        st.global.u32 [%d4], %r8;",
    ),
    (
        "a vote that names lanes which have returned",
        Kind::SyncDivergence,
        "and.b32 %r9, %r0, 31;
        setp.ge.u32 %p0, %r9, 16;
        @%p0 exit;
        setp.gt.u32 %p1, %r4, 10;
        vote.sync.ballot.b32 %r8, %p1, <<0xffffffff||0xffff>>;
        st.global.u32 [%d4], %r8;",
    ),
    (
        "a sum over lanes of which one has another mask",
        Kind::SyncDivergence,
        "mov.u32 %r9, 0xffffffff;
        and.b32 %r10, %r0, 31;
        setp.eq.u32 %p0, %r10, 5;
        @%p0 mov.u32 %r9, <<0xffdf||0xffffffff>>;
        redux.sync.add.s32 %r8, %r4, %r9;
        st.global.u32 [%d4], %r8;",
    ),
    (
        "two warps at two barriers",
        Kind::Deadlock,
        "setp.lt.u32 %p0, %r0, 32;
        @%p0 bra FIRST;
        bar.sync <<2||1>>, 64;
        bra JOIN;
        FIRST:
        bar.sync 1, 64;
        JOIN:
        st.global.u32 [%d4], %r4;",
    ),
    (
        "a barrier that waits for more threads than there are",
        Kind::BarrierMisuse,
        "bar.sync 1, <<96||64>>;
        st.global.u32 [%d4], %r4;",
    ),
    (
        "a producer that arrives before it has written",
        Kind::RaceReadAfterWrite,
        "setp.lt.u32 %p0, %r0, 32;
        @%p0 bra PRODUCE;
        bar.sync 1, 64;
        ld.shared.u32 %r9, [%r5+-128];
        st.global.u32 [%d4], %r9;
        bra JOIN;
        PRODUCE:
        <<bar.arrive 1, 64; st.shared.u32 [%r5], %r4;||st.shared.u32 [%r5], %r4; bar.arrive 1, 64;>>
        JOIN:",
    ),
    (
        "a loop that does not end",
        Kind::Runaway,
        "mov.u32 %r8, 0;
        AGAIN:
        add.u32 %r8, %r8, <<0||1>>;
        setp.lt.u32 %p0, %r8, 10;
        @%p0 bra AGAIN;
        st.global.u32 [%d4], %r8;",
    ),
    (
        "a flag that nobody sets",
        Kind::NoProgress,
        "setp.ne.u32 %p0, %r3, 0;
        <<||@!%p0 st.volatile.global.u32 [flag], 1;>>
        AGAIN:
        ld.volatile.global.u32 %r8, [flag];
        setp.eq.u32 %p1, %r8, 0;
        @%p1 bra AGAIN;
        st.global.u32 [%d4], %r8;",
    ),
    (
        "a failed assertion",
        Kind::Trap,
        "setp.gt.u32 %p0, %r4, <<3000||4000>>;
        @%p0 trap;
        st.global.u32 [%d4], %r4;",
    ),
    (
        "matrix rows that another warp has not yet written",
        Kind::RaceReadAfterWrite,
        "xor.b32 %r8, %r7, 128;
        add.u32 %r8, %r8, %r6;
        st.shared.u32 [%r8], %r4;
        <<||bar.sync 0;>>
        and.b32 %r9, %r0, 7;
        shl.b32 %r9, %r9, 4;
        and.b32 %r10, %r7, 128;
        add.u32 %r9, %r9, %r10;
        add.u32 %r9, %r9, %r6;
        ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r11}, [%r9];
        st.global.u32 [%d4], %r11;",
    ),
    (
        "a fragment that is read back without a barrier",
        Kind::RaceReadAfterWrite,
        "setp.ge.u32 %p0, %r0, 32;
        @%p0 bra END;
        mov.f32 %f0, 0f3F800000;
        wmma.store.d.sync.aligned.row.m16n16k16.shared.f32 [%r6], {%f0, %f0, %f0, %f0, %f0, %f0, %f0, %f0}, 16;
        <<||bar.warp.sync 0xffffffff;>>
        ld.shared.u32 %r8, [%r5];
        st.global.u32 [%d4], %r8;
        END:",
    ),
    (
        "no barrier between write and read",
        Kind::RaceReadAfterWrite,
        "st.shared.u32 [%r5], %r4;
        <<||bar.sync 0;>>
        xor.b32 %r8, %r7, 128;
        add.u32 %r8, %r8, %r6;
        ld.shared.u32 %r9, [%r8];
        st.global.u32 [%d4], %r9;",
    ),
    (
        "no barrier before the tile is used again",
        Kind::RaceWriteAfterRead,
        "st.shared.u32 [%r5], %r4;
        bar.sync 0;
        xor.b32 %r8, %r7, 128;
        add.u32 %r8, %r8, %r6;
        ld.shared.u32 %r9, [%r8];
        <<||bar.sync 0;>>
        st.shared.u32 [%r5], %r9;
        st.global.u32 [%d4], %r9;",
    ),
    (
        "a reduction without its last barrier",
        Kind::RaceReadAfterWrite,
        "st.shared.u32 [%r5], %r4;
        bar.sync 0;
        setp.lt.u32 %p0, %r0, 32;
        @!%p0 bra JOIN;
        ld.shared.u32 %r8, [%r5+128];
        add.u32 %r8, %r8, %r4;
        st.shared.u32 [%r5], %r8;
        JOIN:
        <<||bar.sync 0;>>
        ld.shared.u32 %r9, [%r6+4];
        st.global.u32 [%d4], %r9;",
    ),
    (
        "a double buffer that always uses the same half",
        Kind::RaceWriteAfterRead,
        "st.shared.u32 [%r5], %r4;
        mov.u32 %r10, 0;
        AGAIN:
        bar.sync 0;
        and.b32 %r11, %r10, 1;
        shl.b32 %r11, %r11, 8;
        xor.b32 %r12, %r11, <<0||256>>;
        xor.b32 %r8, %r7, 128;
        add.u32 %r8, %r8, %r6;
        add.u32 %r8, %r8, <<0||%r11>>;
        ld.shared.u32 %r9, [%r8];
        add.u32 %r13, %r5, <<0||%r12>>;
        st.shared.u32 [%r13], %r9;
        add.u32 %r10, %r10, 1;
        setp.lt.u32 %p0, %r10, 4;
        @%p0 bra AGAIN;
        st.global.u32 [%d4], %r9;",
    ),
    (
        "a histogram without atomics in shared memory",
        Kind::RaceWriteWrite,
        "setp.eq.u32 %p0, %r0, 0;
        @%p0 st.shared.u32 [%r6], 0;
        bar.sync 0;
        <<ld.shared.u32 %r8, [%r6]; add.u32 %r8, %r8, %r0; st.shared.u32 [%r6], %r8;||atom.shared.add.u32 %r8, [%r6], %r0;>>",
    ),
    (
        "a non-coherent load of what the launch writes",
        Kind::NonCoherentRead,
        "st.global.u32 [%d4], %r4;
        ld.global<<.nc||>>.u32 %r8, [%d4];
        add.u32 %r8, %r8, 1;
        st.global.u32 [%d4], %r8;",
    ),
];

#[test]
fn warps_and_barriers() {
    examine(BUGS);
}
