//! Bugs of every kind that the checks know, each beside its fixed twin: the bug is found, the twin is clean.
//!
//! A body names both where they differ, as `<<bug||fix>>`. Registers 0 to 7 hold the thread, the block, the threads of
//! a block, the global thread, an input value of it, its place in `tile`, `tile` and four times the thread; 64-bit
//! registers 0 to 4 hold both buffers, the thread's offset and its places in them.

#[path = "planted/async_copies.rs"]
mod async_copies;
#[path = "planted/blocks.rs"]
mod blocks;
#[path = "planted/bounds.rs"]
mod bounds;
#[path = "planted/warps.rs"]
mod warps;

use ptx_emulator::{Kind, Launch, Memory, Module, Outcome, Params, Schedule, run};

/// Name, the kind that must be found, and the body.
pub type Bug = (&'static str, Kind, &'static str);

const SCHEDULES: [Schedule; 5] =
    [Schedule::Greedy, Schedule::RoundRobin, Schedule::Reverse, Schedule::Seeded(3), Schedule::Seeded(99)];

/// One of the two programs of a body.
fn program(body: &str, fixed: bool) -> String {
    let mut text = String::new();
    let mut rest = body;
    while let Some((before, after)) = rest.split_once("<<") {
        let (choice, after) = after.split_once(">>").expect("every choice ends");
        let (bug, fix) = choice.split_once("||").expect("every choice has two sides");
        text.push_str(before);
        text.push_str(if fixed { fix } else { bug });
        rest = after;
    }
    text.push_str(rest);
    format!(
        ".version 8.8
        .target sm_80
        .address_size 64
        .global .align 4 .u32 flag;
        .global .align 4 .u32 counter;
        .global .align 16 .u32 shelf[1024];
        .const .align 4 .u32 fixed_value = 7;
        .visible .entry k(.param .u64 in, .param .u64 out)
        {{
            .reg .b16 %h<4>;
            .reg .b32 %r<24>;
            .reg .f32 %f<20>;
            .reg .b64 %d<12>;
            .reg .pred %p<6>;
            .shared .align 128 .u32 tile[256];
            .shared .align 8 .b64 gate;
            ld.param.u64 %d0, [in];
            ld.param.u64 %d1, [out];
            mov.u32 %r0, %tid.x;
            mov.u32 %r1, %ctaid.x;
            mov.u32 %r2, %ntid.x;
            mad.lo.u32 %r3, %r1, %r2, %r0;
            mul.wide.u32 %d2, %r3, 4;
            add.u64 %d3, %d0, %d2;
            add.u64 %d4, %d1, %d2;
            ld.global.u32 %r4, [%d3];
            mov.u32 %r6, tile;
            shl.b32 %r7, %r0, 2;
            add.u32 %r5, %r6, %r7;
            {text}
            ret;
        }}"
    )
}

/// 16 blocks of 64 threads over two buffers of 1024 words, the first of them filled; with what is in the second and on
/// the shelf in the end.
fn execute(source: &str, schedule: Schedule, threads: usize) -> (Outcome, Vec<Vec<u8>>) {
    let module = Module::parse(source).unwrap_or_else(|e| panic!("{e}\n{source}"));
    let kernel = module.entry("k").unwrap_or_else(|e| panic!("{e}\n{source}"));
    let mut memory = Memory::new(&module);
    let input: Vec<u8> = (0..1024u32).flat_map(|i| (i * 3 + 1).to_le_bytes()).collect();
    let input = memory.alloc_from("in", &input).expect("fits");
    let out = memory.alloc("out", 4096).expect("fits");
    let mut launch = Launch::new([16, 1, 1], [64, 1, 1], Params::new().pointer(input).pointer(out).finish());
    launch.schedule = schedule;
    launch.limits.threads = threads;
    launch.limits.warp_instructions = 20_000;
    launch.limits.idle_turns = 50;
    let outcome = run(&kernel, &memory, &launch).expect("valid launch");
    let left = [Some(out), module.symbol("shelf")].into_iter().flatten();
    (outcome, left.map(|buffer| memory.read(buffer).expect("own buffer")).collect())
}

/// Every bug is found on at least one schedule, every twin is clean on all.
pub fn examine(bugs: &[Bug]) {
    for (name, kind, body) in bugs {
        assert_ne!(program(body, false), program(body, true), "{name} has no bug");
        let found = SCHEDULES.map(|schedule| execute(&program(body, false), schedule, 1).0);
        let kinds: Vec<Vec<Kind>> =
            found.iter().map(|outcome| outcome.findings.iter().map(|f| f.kind).collect()).collect();
        assert!(kinds.iter().flatten().any(|k| k == kind), "{name}: {kinds:?}");
        assert!(found.iter().any(|outcome| !outcome.is_clean()), "{name}: INFO only");
        for schedule in SCHEDULES {
            let outcome = execute(&program(body, true), schedule, 1).0;
            assert!(outcome.is_clean(), "the twin of {name}, {schedule:?}: {:#?}", outcome.findings);
        }
    }
}

#[test]
fn there_are_at_least_forty() {
    let all = [blocks::BUGS, bounds::BUGS, warps::BUGS, async_copies::BUGS];
    assert!(all.iter().map(|bugs| bugs.len()).sum::<usize>() >= 40);
}
