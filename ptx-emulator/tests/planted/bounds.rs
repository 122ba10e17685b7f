//! Addresses and values: bounds, alignment, what was never written.

use ptx_emulator::Kind;

use crate::{Bug, examine};

pub const BUGS: &[Bug] = &[
    (
        "a read far behind the buffer",
        Kind::OutOfBounds,
        "ld.global.u32 %r8, [%d3<<+4096||>>]; st.global.u32 [%d4], %r8;",
    ),
    ("a write far behind the buffer", Kind::OutOfBounds, "st.global.u32 [%d4<<+4096||>>], %r4;"),
    (
        "the last thread's neighbour",
        Kind::OutOfBounds,
        "setp.lt.u32 %p0, %r3, <<1024||1023>>;
        @%p0 ld.global.u32 %r4, [%d3+4];
        st.global.u32 [%d4], %r4;",
    ),
    (
        "a read before the buffer",
        Kind::OutOfBounds,
        "setp.ge.u32 %p0, %r3, <<0||1>>;
        @%p0 ld.global.u32 %r4, [%d3+-4];
        st.global.u32 [%d4], %r4;",
    ),
    ("an overrun of shared memory", Kind::OutOfBounds, "st.shared.u32 [%r5+<<1024||0>>], %r4;"),
    (
        "an overrun of a local array",
        Kind::OutOfBounds,
        ".local .align 4 .b8 own[16];
        st.local.u32 [own+<<16||12>>], %r4;
        ld.local.u32 %r8, [own+<<16||12>>];
        st.global.u32 [%d4], %r8;",
    ),
    (
        "an index scaled twice",
        Kind::OutOfBounds,
        "shl.b32 %r8, %r3, <<4||2>>;
        cvt.u64.u32 %d5, %r8;
        add.u64 %d6, %d1, %d5;
        st.global.u32 [%d6], %r4;",
    ),
    (
        "a pointer of another space",
        Kind::OutOfBounds,
        "cvt.u64.u32 %d5, %r5;
        <<mov.u64 %d6, %d5;||cvta.shared.u64 %d6, %d5;>>
        st.u32 [%d6], %r4;",
    ),
    (
        "a vector at the address of a word",
        Kind::Misaligned,
        "ld.global.<<v2.u32 {%r8, %r9}||u32 %r8>>, [%d3];
        st.global.u32 [%d4], %r8;",
    ),
    (
        "eight bytes at the address of four in shared memory",
        Kind::Misaligned,
        "st.shared.u32 [%r5], %r4;
        bar.sync 0;
        <<ld.shared.u64 %d5, [%r5];||ld.shared.u32 %r8, [%r5]; cvt.u64.u32 %d5, %r8;>>
        cvt.u32.u64 %r9, %d5;
        st.global.u32 [%d4], %r9;",
    ),
    (
        "shared memory that nobody wrote",
        Kind::UninitialisedStore,
        "<<||st.shared.u32 [%r5], %r4;>>
        ld.shared.u32 %r8, [%r5];
        st.global.u32 [%d4], %r8;",
    ),
    (
        "shared memory that only the first warp wrote",
        Kind::UninitialisedStore,
        "setp.lt.u32 %p0, %r0, <<32||64>>;
        @%p0 st.shared.u32 [%r5], %r4;
        bar.sync 0;
        ld.shared.u32 %r8, [%r5];
        st.global.u32 [%d4], %r8;",
    ),
    (
        "the halo of the last thread",
        Kind::UninitialisedStore,
        "st.shared.u32 [%r5], %r4;
        setp.eq.u32 %p0, %r0, 63;
        <<||@%p0 st.shared.u32 [%r5+4], 0;>>
        bar.sync 0;
        ld.shared.u32 %r8, [%r5+4];
        st.global.u32 [%d4], %r8;",
    ),
    (
        "a sum that starts nowhere",
        Kind::UninitialisedStore,
        "<<||mov.u32 %r15, 0;>>
        add.u32 %r15, %r15, %r4;
        st.global.u32 [%d4], %r15;",
    ),
    (
        "a branch on a register that was never set",
        Kind::UninitialisedBranch,
        "<<||mov.u32 %r15, 3;>>
        setp.gt.s32 %p0, %r15, 2;
        @%p0 bra LATER;
        add.u32 %r4, %r4, 1;
        LATER:
        st.global.u32 [%d4], %r4;",
    ),
    (
        "an address from a register that was never set",
        Kind::UninitialisedAddress,
        "<<||mov.u64 %d7, 0;>>
        add.u64 %d8, %d7, %d4;
        st.global.u32 [%d8], %r4;",
    ),
    (
        "a local array that was never filled",
        Kind::UninitialisedStore,
        ".local .align 4 .b8 own[16];
        <<||st.local.u32 [own+4], %r4;>>
        ld.local.u32 %r8, [own+4];
        st.global.u32 [%d4], %r8;",
    ),
    (
        "an output that was read before it was written",
        Kind::UninitialisedStore,
        "<<||st.global.u32 [%d4], 1;>>
        ld.global.u32 %r8, [%d4];
        add.u32 %r8, %r8, %r4;
        st.global.u32 [%d4], %r8;",
    ),
    (
        "a write to constant memory",
        Kind::ReadOnlyStore,
        "mov.u64 %d5, fixed_value;
        cvta.const.u64 %d6, %d5;
        <<st.u32 [%d6], 8;||>>
        ld.u32 %r8, [%d6];
        st.global.u32 [%d4], %r8;",
    ),
];

#[test]
fn addresses_and_values() {
    examine(BUGS);
}
