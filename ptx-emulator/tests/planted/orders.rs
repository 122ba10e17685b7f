//! Order between threads: barriers, fences, atomics, messages.

use ptx_emulator::Kind;

use crate::{Bug, examine};

pub const BUGS: &[Bug] = &[
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
        "a counter without atomics in global memory",
        Kind::RaceWriteWrite,
        "<<ld.global.u32 %r8, [counter]; add.u32 %r8, %r8, %r3; st.global.u32 [counter], %r8;||red.global.add.u32 [counter], %r3;>>",
    ),
    (
        "blocks that write the same places",
        Kind::RaceWriteWrite,
        "cvt.u64.u32 %d5, %r7;
        add.u64 %d6, %d1, %d5;
        st.global.u32 <<[%d6]||[%d4]>>, %r3;",
    ),
    (
        "a stencil in place",
        Kind::RaceWriteAfterRead,
        "mov.u64 %d5, shelf;
        add.u64 %d6, %d5, %d2;
        setp.lt.u32 %p0, %r3, 1023;
        @!%p0 bra LAST;
        ld.global.u32 %r8, [%d6+4];
        add.u32 %r8, %r8, %r3;
        st.global.u32 <<[%d6]||[%d4]>>, %r8;
        LAST:",
    ),
    (
        "two phases of a grid without a barrier between them",
        Kind::RaceReadAfterWrite,
        "mov.u64 %d5, shelf;
        add.u64 %d6, %d5, %d2;
        st.global.u32 [%d6], %r3;
        <<xor.b32 %r8, %r3, 1023;||mov.u32 %r8, %r3;>>
        mul.wide.u32 %d7, %r8, 4;
        add.u64 %d8, %d5, %d7;
        ld.global.u32 %r9, [%d8];
        st.global.u32 [%d4], %r9;",
    ),
    (
        "a message without a fence",
        Kind::RaceReadAfterWrite,
        "setp.ne.u32 %p0, %r0, 0;
        @%p0 bra END;
        setp.gt.u32 %p1, %r1, 1;
        @%p1 bra END;
        setp.eq.u32 %p2, %r1, 1;
        @%p2 bra WAIT;
        st.global.u32 [shelf], 17;
        <<||membar.gl;>>
        st.volatile.global.u32 [flag], 1;
        bra END;
        WAIT:
        ld.volatile.global.u32 %r8, [flag];
        setp.eq.u32 %p3, %r8, 0;
        @%p3 bra WAIT;
        <<||membar.gl;>>
        ld.global.u32 %r9, [shelf];
        st.global.u32 [%d4], %r9;
        END:",
    ),
    (
        "a message of volatile words without a fence",
        Kind::UninitialisedRead,
        "setp.ne.u32 %p0, %r0, 0;
        @%p0 bra END;
        setp.gt.u32 %p1, %r1, 1;
        @%p1 bra END;
        setp.eq.u32 %p2, %r1, 1;
        @%p2 bra WAIT;
        st.volatile.global.u32 [%d1+2048], 17;
        <<||membar.gl;>>
        st.volatile.global.u32 [flag], 1;
        bra END;
        WAIT:
        ld.volatile.global.u32 %r8, [flag];
        setp.eq.u32 %p3, %r8, 0;
        @%p3 bra WAIT;
        <<||membar.gl;>>
        ld.volatile.global.u32 %r9, [%d1+2048];
        st.global.u32 [%d4], %r9;
        END:",
    ),
    (
        "a flag that nobody clears",
        Kind::UninitialisedRead,
        "setp.ne.u32 %p0, %r0, 0;
        @%p0 bra END;
        setp.gt.u32 %p1, %r1, 1;
        @%p1 bra END;
        setp.eq.u32 %p2, %r1, 1;
        @%p2 bra WAIT;
        st.global.u32 [shelf], 17;
        st.release.gpu.global.u32 [<<%d1+2048||flag>>], 1;
        st.volatile.global.u32 [counter], 1;
        bra END;
        WAIT:
        ld.volatile.global.u32 %r8, [counter];
        setp.eq.u32 %p3, %r8, 0;
        @%p3 bra WAIT;
        POLL:
        ld.acquire.gpu.global.u32 %r8, [<<%d1+2048||flag>>];
        setp.eq.u32 %p3, %r8, 0;
        @%p3 bra POLL;
        ld.global.u32 %r9, [shelf];
        st.global.u32 [%d4], %r9;
        END:",
    ),
    (
        "the last block sums what it may not see",
        Kind::RaceReadAfterWrite,
        "setp.ne.u32 %p0, %r0, 0;
        @%p0 bra END;
        mov.u64 %d5, shelf;
        mul.wide.u32 %d6, %r1, 4;
        add.u64 %d7, %d5, %d6;
        st.global.u32 [%d7], %r4;
        <<||membar.gl;>>
        atom.global.add.u32 %r8, [counter], 1;
        setp.ne.u32 %p1, %r8, 15;
        @%p1 bra END;
        <<||membar.gl;>>
        ld.global.u32 %r9, [shelf];
        ld.global.u32 %r10, [shelf+60];
        add.u32 %r9, %r9, %r10;
        st.global.u32 [%d4], %r9;
        END:",
    ),
    (
        "a lock without fences",
        Kind::RaceReadAfterWrite,
        "setp.ne.u32 %p0, %r0, 0;
        @%p0 bra END;
        TRY:
        atom.global.cas.b32 %r8, [flag], 0, 1;
        setp.ne.u32 %p1, %r8, 0;
        @%p1 bra TRY;
        <<||membar.gl;>>
        ld.global.u32 %r9, [shelf];
        add.u32 %r9, %r9, %r4;
        st.global.u32 [shelf], %r9;
        <<||membar.gl;>>
        atom.global.exch.b32 %r10, [flag], 0;
        END:",
    ),
    (
        "a release that nobody acquires",
        Kind::RaceReadAfterWrite,
        "setp.ne.u32 %p0, %r0, 0;
        @%p0 bra END;
        setp.gt.u32 %p1, %r1, 1;
        @%p1 bra END;
        setp.eq.u32 %p2, %r1, 1;
        @%p2 bra WAIT;
        st.global.u32 [shelf], 17;
        st.release.gpu.global.u32 [flag], 1;
        bra END;
        WAIT:
        ld.<<relaxed||acquire>>.gpu.global.u32 %r8, [flag];
        setp.eq.u32 %p3, %r8, 0;
        @%p3 bra WAIT;
        ld.global.u32 %r9, [shelf];
        st.global.u32 [%d4], %r9;
        END:",
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
fn order_between_threads() {
    examine(BUGS);
}
