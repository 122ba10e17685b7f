//! How launches end that would not end by themselves: by the caller's limit, or because nobody can go on.

use ptx_emulator::{BlockFilter, Checks, EmuError, Kind, Launch, Memory, Module, Outcome, Params, run};

/// Runs one thread a block on two words that are zero.
fn launch(body: &str, blocks: u32, change: impl Fn(&mut Launch)) -> Result<Outcome, EmuError> {
    let source = format!(
        ".version 9.0\n.target sm_89\n.address_size 64\n.visible .entry k(.param .u64 words)\n{{\n\
         .reg .pred %p<4>;\n.reg .b32 %r<8>;\n.reg .b64 %rd<4>;\nld.param.u64 %rd1, [words];\nmov.u32 %r1, %ctaid.x;\n\
         {body}\nDONE:\nret;\n}}"
    );
    let module = Module::parse(&source).expect("parses");
    let kernel = module.entry("k").expect("loads");
    let mut memory = Memory::new(&module);
    let words = memory.alloc_from("words", &[0; 8]).expect("fits");
    let mut launch = Launch::new([blocks, 1, 1], [1, 1, 1], Params::new().pointer(words).finish());
    launch.checks = Checks::none();
    change(&mut launch);
    run(&kernel, &memory, &launch)
}

/// Counts to a million.
const LONG: &str = "mov.u32 %r2, 0;\nL:\nadd.u32 %r2, %r2, 1;\nsetp.lt.u32 %p1, %r2, 1000000;\n@%p1 bra L;";

#[test]
fn a_launch_that_takes_too_long_is_given_up() {
    let limit = 4_000_000;
    let error = launch(LONG, 16, |launch| launch.limits.instructions = limit).unwrap_err();
    assert_eq!(error, EmuError::Budget { kernel: "k".into(), limit });
    assert!(error.to_string().contains("more than 4000000 warp instructions"), "{error}");
    assert!(launch(LONG, 2, |launch| launch.limits.instructions = 10_000_000).unwrap().is_clean());
}

#[test]
fn what_was_found_until_then_is_told() {
    let outcome = launch("L:\nbra L;", 64, |launch| {
        launch.limits.warp_instructions = 2_000_000;
        launch.limits.instructions = 5_000_000;
    });
    assert_eq!(outcome.unwrap().findings[0].kind, Kind::Runaway);
}

/// Waits until the second word is set.
const WAIT: &str = "L:\nld.volatile.global.u32 %r2, [%rd1+4];\nsetp.eq.u32 %p1, %r2, 0;\n@%p1 bra L;";

#[test]
fn blocks_that_all_wait_end_the_launch_whatever_the_threads_of_the_host() {
    for threads in [1, 2, 3] {
        let outcome = launch(WAIT, 600, |launch| {
            launch.limits.threads = threads;
            launch.limits.idle_turns = 20;
        });
        let kinds: Vec<Kind> = outcome.unwrap().findings.iter().map(|finding| finding.kind).collect();
        assert_eq!(kinds, [Kind::NoProgress], "{threads} threads");
    }
}

#[test]
fn a_block_that_waits_while_others_make_headway_is_not_given_up() {
    // Blocks 0 and 1 take turns at the first word, 600 times each; then block 1 sets what block 2 waits for.
    let turns = format!(
        "setp.eq.u32 %p2, %r1, 2;\n@%p2 bra L;\nmov.u32 %r3, 0;\nTURN:\nld.volatile.global.u32 %r4, [%rd1];\n\
         and.b32 %r5, %r4, 1;\nsetp.ne.u32 %p1, %r5, %r1;\n@%p1 bra TURN;\nadd.u32 %r4, %r4, 1;\n\
         st.volatile.global.u32 [%rd1], %r4;\nadd.u32 %r3, %r3, 1;\nsetp.lt.u32 %p1, %r3, 600;\n@%p1 bra TURN;\n\
         st.volatile.global.u32 [%rd1+4], %r1;\nbra DONE;\n{WAIT}"
    );
    for threads in [1, 2] {
        let outcome = launch(&turns, 3, |launch| {
            launch.limits.threads = threads;
            launch.limits.idle_turns = 100;
            launch.blocks = BlockFilter::Only(vec![[2, 0, 0], [0, 0, 0], [1, 0, 0]]);
        });
        assert!(outcome.unwrap().is_clean(), "{threads} threads");
    }
}
