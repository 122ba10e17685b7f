//! Order between blocks: every bug is found under every schedule, every twin is clean, and both leave the same outputs
//! and findings on one, two and four threads of the host.

use ptx_emulator::{Kind, Schedule};

use crate::{Bug, execute, program};

/// The first thread of each of the first two blocks goes on, block 1 to `WAIT`.
macro_rules! message {
    ($body:literal) => {
        concat!(
            "setp.ne.u32 %p0, %r0, 0;
            @%p0 bra END;
            setp.gt.u32 %p1, %r1, 1;
            @%p1 bra END;
            setp.eq.u32 %p2, %r1, 1;
            @%p2 bra WAIT;",
            $body,
            "END:"
        )
    };
}

/// All threads of the grid meet, when `$before` and `$after` are fences: as cooperative groups do it.
macro_rules! grid_barrier {
    ($before:literal, $arrive:literal, $poll:literal, $after:literal) => {
        concat!(
            "bar.sync 0;
            setp.ne.u32 %p0, %r0, 0;
            @%p0 bra MET;",
            $before,
            $arrive,
            " GRID: ",
            $poll,
            "setp.lt.u32 %p1, %r16, 16;
            @%p1 bra GRID;",
            $after,
            "MET: bar.sync 0;"
        )
    };
}

pub const BUGS: &[Bug] = &[
    (
        "a sum in place with the right neighbour",
        Kind::RaceWriteAfterRead,
        "mov.u64 %d5, shelf;
        add.u64 %d6, %d5, %d2;
        setp.eq.u32 %p0, %r3, 1023;
        @%p0 bra LAST;
        ld.global.u32 %r8, [%d6];
        ld.global.u32 %r9, [%d6+4];
        add.u32 %r8, %r8, %r9;
        st.global.u32 <<[%d6]||[%d4]>>, %r8;
        LAST:",
    ),
    (
        "what many blocks read and the first one writes",
        Kind::RaceWriteAfterRead,
        "ld.global.u32 %r8, [shelf+128];
        setp.eq.u32 %p0, %r3, 0;
        @%p0 st.global.u32 [<<shelf+128||shelf>>], %r4;
        st.global.u32 [%d4], %r8;",
    ),
    (
        "a block that writes one byte beyond its own",
        Kind::RaceWriteWrite,
        "mov.u64 %d5, shelf;
        cvt.u64.u32 %d6, %r3;
        add.u64 %d6, %d5, %d6;
        st.global.u8 [%d6], %r3;
        <<add.u32 %r8, %r3, 7; st.global.u8 [%d6+1], %r8;||st.global.u32 [%d4], %r3;>>",
    ),
    (
        "a counter of blocks without an atomic",
        Kind::RaceWriteWrite,
        "setp.ne.u32 %p0, %r0, 0;
        @%p0 bra END;
        <<ld.global.u32 %r8, [counter]; add.u32 %r8, %r8, 1; st.global.u32 [counter], %r8;||atom.global.add.u32 %r8, [counter], 1;>>
        END:",
    ),
    (
        "a flag raised before its data",
        Kind::RaceReadAfterWrite,
        message!(
            "<<st.volatile.global.u32 [flag], 1;||>>
            st.global.u32 [shelf], 17;
            membar.gl;
            <<||st.volatile.global.u32 [flag], 1;>>
            bra END;
            WAIT:
            ld.volatile.global.u32 %r8, [flag];
            setp.eq.u32 %p3, %r8, 0;
            @%p3 bra WAIT;
            membar.gl;
            ld.global.u32 %r9, [shelf];
            st.global.u32 [%d4], %r9;"
        ),
    ),
    (
        "a flag raised before its volatile data",
        Kind::UninitialisedRead,
        message!(
            "<<st.volatile.global.u32 [flag], 1;||>>
            membar.gl;
            st.volatile.global.u32 [%d1+2048], 17;
            membar.gl;
            <<||st.volatile.global.u32 [flag], 1;>>
            bra END;
            WAIT:
            ld.volatile.global.u32 %r8, [flag];
            setp.eq.u32 %p3, %r8, 0;
            @%p3 bra WAIT;
            membar.gl;
            ld.volatile.global.u32 %r9, [%d1+2048];
            st.global.u32 [%d4], %r9;"
        ),
    ),
    (
        "a reader of volatile data without a fence",
        Kind::UninitialisedRead,
        message!(
            "st.volatile.global.u32 [%d1+2048], 17;
            membar.gl;
            st.volatile.global.u32 [flag], 1;
            bra END;
            WAIT:
            ld.volatile.global.u32 %r8, [flag];
            setp.eq.u32 %p3, %r8, 0;
            @%p3 bra WAIT;
            <<||membar.gl;>>
            ld.volatile.global.u32 %r9, [%d1+2048];
            st.global.u32 [%d4], %r9;"
        ),
    ),
    (
        "a writer of volatile data without a fence",
        Kind::UninitialisedRead,
        message!(
            "st.volatile.global.u32 [%d1+2048], 17;
            <<||membar.gl;>>
            st.volatile.global.u32 [flag], 1;
            bra END;
            WAIT:
            ld.volatile.global.u32 %r8, [flag];
            setp.eq.u32 %p3, %r8, 0;
            @%p3 bra WAIT;
            membar.gl;
            ld.volatile.global.u32 %r9, [%d1+2048];
            st.global.u32 [%d4], %r9;"
        ),
    ),
    (
        "a message that is not released",
        Kind::RaceReadAfterWrite,
        message!(
            "st.global.u32 [shelf], 17;
            st.<<relaxed||release>>.gpu.global.u32 [flag], 1;
            bra END;
            WAIT:
            ld.acquire.gpu.global.u32 %r8, [flag];
            setp.eq.u32 %p3, %r8, 0;
            @%p3 bra WAIT;
            ld.global.u32 %r9, [shelf];
            st.global.u32 [%d4], %r9;"
        ),
    ),
    (
        "two phases of a grid that do not meet",
        Kind::RaceReadAfterWrite,
        concat!(
            "mov.u64 %d5, shelf;
            add.u64 %d6, %d5, %d2;
            st.global.u32 [%d6], %r3;
            <<||",
            grid_barrier!(
                "membar.gl;",
                "atom.global.add.u32 %r16, [counter], 1;",
                "ld.volatile.global.u32 %r16, [counter];",
                "membar.gl;"
            ),
            ">>
            xor.b32 %r8, %r3, 1023;
            mul.wide.u32 %d7, %r8, 4;
            add.u64 %d8, %d5, %d7;
            ld.global.u32 %r9, [%d8];
            st.global.u32 [%d4], %r9;"
        ),
    ),
    (
        "a grid that meets without a fence before",
        Kind::RaceReadAfterWrite,
        concat!(
            "mov.u64 %d5, shelf;
            add.u64 %d6, %d5, %d2;
            st.global.u32 [%d6], %r3;",
            grid_barrier!(
                "<<||membar.gl;>>",
                "atom.global.add.u32 %r16, [counter], 1;",
                "ld.volatile.global.u32 %r16, [counter];",
                "membar.gl;"
            ),
            "xor.b32 %r8, %r3, 1023;
            mul.wide.u32 %d7, %r8, 4;
            add.u64 %d8, %d5, %d7;
            ld.global.u32 %r9, [%d8];
            st.global.u32 [%d4], %r9;"
        ),
    ),
    (
        "a grid that meets by what is not acquired",
        Kind::RaceReadAfterWrite,
        concat!(
            "mov.u64 %d5, shelf;
            add.u64 %d6, %d5, %d2;
            st.global.u32 [%d6], %r3;",
            grid_barrier!(
                "",
                "red.release.gpu.global.add.u32 [counter], 1;",
                "ld.<<relaxed||acquire>>.gpu.global.u32 %r16, [counter];",
                ""
            ),
            "xor.b32 %r8, %r3, 1023;
            mul.wide.u32 %d7, %r8, 4;
            add.u64 %d8, %d5, %d7;
            ld.global.u32 %r9, [%d8];
            st.global.u32 [%d4], %r9;"
        ),
    ),
    (
        "the last block sums without a fence of its own",
        Kind::RaceReadAfterWrite,
        "setp.ne.u32 %p0, %r0, 0;
        @%p0 bra END;
        mov.u64 %d5, shelf;
        mul.wide.u32 %d6, %r1, 4;
        add.u64 %d7, %d5, %d6;
        st.global.u32 [%d7], %r4;
        membar.gl;
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
        "the last block sums what the others did not fence",
        Kind::RaceReadAfterWrite,
        "mov.u64 %d5, shelf;
        add.u64 %d7, %d5, %d2;
        st.global.u32 [%d7], %r4;
        bar.sync 0;
        setp.ne.u32 %p0, %r0, 0;
        @%p0 bra END;
        <<||membar.gl;>>
        atom.global.inc.u32 %r8, [counter], 15;
        setp.ne.u32 %p1, %r8, 15;
        @%p1 bra END;
        membar.gl;
        ld.global.u32 %r9, [shelf+400];
        ld.global.u32 %r10, [shelf+3600];
        add.u32 %r9, %r9, %r10;
        st.global.u32 [%d4], %r9;
        END:",
    ),
    (
        "a scan that looks back at what is not fenced",
        Kind::RaceReadAfterWrite,
        // Each block waits for the sum of the block before it, adds its own, and passes it on.
        "setp.ne.u32 %p0, %r0, 0;
        @%p0 bra END;
        mov.u64 %d5, shelf;
        mul.wide.u32 %d6, %r1, 8;
        add.u64 %d7, %d5, %d6;
        mov.u32 %r8, 0;
        setp.eq.u32 %p1, %r1, 0;
        @%p1 bra FIRST;
        LOOK:
        ld.volatile.global.u32 %r9, [%d7+-4];
        setp.eq.u32 %p2, %r9, 0;
        @%p2 bra LOOK;
        membar.gl;
        ld.global.u32 %r8, [%d7+-8];
        FIRST:
        add.u32 %r8, %r8, %r4;
        st.global.u32 [%d7], %r8;
        <<||membar.gl;>>
        st.volatile.global.u32 [%d7+4], 1;
        st.global.u32 [%d4], %r8;
        END:",
    ),
    (
        "a queue that two blocks take the same work from",
        Kind::RaceWriteWrite,
        "NEXT:
        setp.ne.u32 %p0, %r0, 0;
        @%p0 bra SHARE;
        <<ld.global.u32 %r8, [counter]; add.u32 %r9, %r8, 1; st.global.u32 [counter], %r9;||atom.global.add.u32 %r8, [counter], 1;>>
        st.shared.u32 [%r6], %r8;
        SHARE:
        bar.sync 0;
        ld.shared.u32 %r10, [%r6];
        bar.sync 0;
        setp.ge.u32 %p1, %r10, 40;
        @%p1 bra END;
        mov.u64 %d5, shelf;
        mul.wide.u32 %d6, %r10, 64;
        add.u64 %d7, %d5, %d6;
        setp.gt.u32 %p2, %r0, 15;
        @%p2 bra NEXT;
        cvt.u64.u32 %d8, %r7;
        add.u64 %d7, %d7, %d8;
        add.u32 %r11, %r1, 1;
        st.global.u32 [%d7], %r11;
        bra NEXT;
        END:",
    ),
    (
        "a lock that is taken without a fence",
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
        membar.gl;
        atom.global.exch.b32 %r10, [flag], 0;
        END:",
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
];

/// Kinds that one bug shows as: which of two blocks came first is the schedule's, and of what nobody has written yet only
/// what becomes of the value is seen.
fn counts_as(kind: Kind, wanted: Kind) -> bool {
    let race = |kind| matches!(kind, Kind::RaceWriteWrite | Kind::RaceReadAfterWrite | Kind::RaceWriteAfterRead);
    let undefined = |kind| matches!(kind, Kind::UninitialisedRead | Kind::UninitialisedStore);
    race(kind) && race(wanted) || undefined(kind) && undefined(wanted)
}

#[test]
fn blocks_in_any_order_on_any_threads() {
    let named = [Schedule::Greedy, Schedule::Reverse, Schedule::RoundRobin];
    let schedules: Vec<Schedule> = named.into_iter().chain((0..20).map(Schedule::Seeded)).collect();
    for (name, kind, body) in BUGS {
        for fixed in [false, true] {
            let source = program(body, fixed);
            assert_ne!(source, program(body, !fixed), "{name} has no bug");
            for &schedule in &schedules {
                let first = execute(&source, schedule, 1);
                let findings = &first.0.findings;
                let found = findings.iter().any(|f| f.is_error() && counts_as(f.kind, *kind));
                assert!(fixed || found, "{name}, {schedule:?}: {findings:#?}");
                assert!(!fixed || first.0.is_clean(), "the twin of {name}, {schedule:?}: {findings:#?}");
                for threads in [1, 2, 4] {
                    let (outcome, output) = execute(&source, schedule, threads);
                    let told = |outcome: &ptx_emulator::Outcome| {
                        (outcome.findings.iter().map(ToString::to_string).collect::<Vec<_>>(), outcome.instructions)
                    };
                    assert_eq!(
                        told(&outcome),
                        told(&first.0),
                        "{name}, fixed {fixed}, {schedule:?}, {threads} threads"
                    );
                    assert!(output == first.1, "{name}, fixed {fixed}, {schedule:?}, {threads} threads");
                }
            }
        }
    }
}

/// Reads of what nobody has written yet are not recorded; the first write there begins the launch anew.
#[test]
fn what_is_computed_in_place_is_computed_once() {
    let source = program(
        "mov.u64 %d5, shelf;
        add.u64 %d6, %d5, %d2;
        ld.global.u32 %r8, [%d6];
        add.u32 %r8, %r8, %r4;
        st.global.u32 [%d6], %r8;",
        false,
    );
    let wanted: Vec<u8> = (0..1024u32).flat_map(|i| (3 * i + 1).to_le_bytes()).collect();
    for threads in [1, 2, 4] {
        let (outcome, left) = execute(&source, Schedule::Seeded(threads as u64), threads);
        assert!(outcome.is_clean() && left[1] == wanted, "{threads} threads: {:?}", outcome.findings);
    }
}
