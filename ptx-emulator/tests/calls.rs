//! Calls of every kind, what functions may declare, and what device code prints.

use ptx_emulator::{Checks, Kind, Launch, Memory, Module, Outcome, Params, run};

const SOURCE: &str = include_str!("data/calls.ptx");

/// Runs 32 threads of a kernel; returns its output and what else came of it.
fn words_of(source: &str, name: &str, per_thread: usize) -> (Vec<u32>, Outcome) {
    let module = Module::parse(source).unwrap_or_else(|e| panic!("{e}"));
    let kernel = module.entry(name).unwrap_or_else(|e| panic!("{e}"));
    let mut memory = Memory::new(&module);
    let out = memory.alloc("out", 128 * per_thread).expect("fits");
    let launch = Launch::new([1, 1, 1], [32, 1, 1], Params::new().pointer(out).finish());
    let outcome = run(&kernel, &memory, &launch).expect("valid launch");
    let bytes = memory.read(out).expect("own buffer");
    (bytes.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word)).collect(), outcome)
}

fn clean(name: &str, per_thread: usize) -> Vec<u32> {
    let (words, outcome) = words_of(SOURCE, name, per_thread);
    assert!(outcome.is_clean(), "{:?}", outcome.findings);
    words
}

#[test]
fn a_call_through_a_register_reaches_the_function_of_each_lane() {
    let words = clean("indirect", 1);
    for (lane, word) in (0..32).zip(words) {
        assert_eq!(word, if lane % 2 == 0 { 1000 + lane } else { 1000 - lane });
    }
}

#[test]
fn a_call_through_a_register_that_holds_no_function_traps() {
    let source = SOURCE.replace("ld.global.u64 %rd5, [%rd4];", "mov.u64 %rd5, 4096;");
    let (_, outcome) = words_of(&source, "indirect", 1);
    assert!(outcome.findings.iter().any(|f| f.kind == Kind::Trap), "{:?}", outcome.findings);
}

#[test]
fn registers_and_vectors_are_passed_and_returned() {
    let words = clean("registers", 4);
    for (lane, four) in (0..32).zip(words.as_chunks::<4>().0) {
        assert_eq!(*four, [lane + 107, (lane + 107) % 2, 7, lane]);
    }
}

#[test]
fn what_is_printed_is_in_the_outcome_lane_after_lane() {
    let (words, outcome) = words_of(SOURCE, "prints", 1);
    assert!(outcome.is_clean(), "{:?}", outcome.findings);
    assert_eq!(words, [5; 32], "values printed");
    let wanted: String = (0..32).map(|lane| format!("{lane} {:5.2}|hi|00ab|Z  ", f64::from(lane))).collect();
    assert_eq!(outcome.printed, wanted);
}

#[test]
fn an_undefined_value_is_found_when_it_is_printed() {
    let source = SOURCE.replace("st.local.u32 [%rd2+24], 171;", "");
    let (_, outcome) = words_of(&source, "prints", 1);
    let kinds: Vec<Kind> = outcome.findings.iter().map(|f| f.kind).collect();
    assert_eq!(kinds, [Kind::UninitialisedStore]);
}

#[test]
fn a_branch_by_index_goes_to_the_label_of_each_lane() {
    let words = clean("chooses", 1);
    assert!((0..32).zip(words).all(|(lane, word)| word == 5 + lane % 3));
}

#[test]
fn variables_of_every_place_are_found() {
    let words = clean("places", 1);
    for (lane, word) in (0..32).zip(words) {
        assert_eq!(word, 4 + 30 + lane + 0b11111 * 1000 + 32 + 1);
    }
}

#[test]
fn vectors_of_32_bytes_are_moved_whole() {
    let words = clean("wide", 8);
    for (lane, eight) in (0..32).zip(words.as_chunks::<8>().0) {
        let wanted = [2 * lane, 2 * lane + 2];
        assert!(eight.chunks(2).all(|pair| pair == wanted), "{eight:?}");
    }
    let source = SOURCE.replace("mul.wide.u32 %rd2, %r1, 32;", "mul.wide.u32 %rd2, %r1, 16;");
    let (_, outcome) = words_of(&source, "wide", 8);
    assert!(outcome.findings.iter().any(|f| f.kind == Kind::Misaligned), "{:?}", outcome.findings);
}

#[test]
fn families_of_vector_registers_are_declared() {
    let text = "
        .version 8.0
        .target sm_80
        .address_size 64
        .visible .entry k(.param .u64 out)
        {
            .reg .v2 .b32 pair_<2>;
            .reg .b64 %rd<4>;
            ld.param.u64 %rd1, [out];
            mov.u32 pair_1.y, %tid.x;
            mov.u32 pair_1.x, 3;
            mov.v2.u32 pair_0, {pair_1.y, pair_1.x};
            mul.wide.u32 %rd2, pair_0.x, 8;
            add.s64 %rd3, %rd1, %rd2;
            st.global.v2.u32 [%rd3], pair_0;
            ret;
        }
    ";
    let (words, outcome) = words_of(text, "k", 2);
    assert!(outcome.is_clean(), "{:?}", outcome.findings);
    assert!((0..32).zip(words.as_chunks::<2>().0).all(|(lane, pair)| *pair == [lane, 3]), "{words:?}");
    for wrong in ["pair_<4097>", "pair_<1>"] {
        assert!(Module::parse(&text.replace("pair_<2>", wrong)).is_err(), "{wrong}");
    }
}

#[test]
fn the_reserved_shared_memory_starts_as_zeros() {
    let words = clean("lends", 1);
    assert_eq!(words, [32; 32]);
}

#[test]
fn declarations_of_old_compilers_need_no_semicolon() {
    let text = "
        .version 8.0
        .target sm_80
        .address_size 64
        .visible .func (.param .b32 result) later(.param .b32 value)
        .file 1 \"a.cu\"
        .visible .entry k(.param .u64 out)
        {
            .file 2 \"b.cu\"
            .reg .b32 %r<4>;
            .reg .b64 %rd<4>;
            ld.param.u64 %rd1, [out];
            mov.u32 %r1, %tid.x;
            mul.wide.u32 %rd2, %r1, 4;
            add.s64 %rd3, %rd1, %rd2;
            st.global.u32 [%rd3], %r1;
            ret;
        }
        .visible .func (.param .b32 result) later(.param .b32 value)
    ";
    let (words, outcome) = words_of(text, "k", 1);
    assert!(outcome.is_clean());
    assert!((0..32).eq(words));
}

#[test]
fn printing_is_the_same_without_checks() {
    let module = Module::parse(SOURCE).expect("parses");
    let kernel = module.entry("prints").expect("loads");
    let printed = |checks| {
        let mut memory = Memory::new(&module);
        let out = memory.alloc("out", 128).expect("fits");
        let mut launch = Launch::new([4, 1, 1], [32, 1, 1], Params::new().pointer(out).finish());
        launch.checks = checks;
        run(&kernel, &memory, &launch).expect("valid launch").printed
    };
    let text = printed(Checks::none());
    assert_eq!(text, printed(Checks::all()));
    assert_eq!(text.matches("hi").count(), 128);
}
