//! Kernels of a few instructions that together reach every room of the crate, small enough for an interpreter:
//!
//!     rustup component add --toolchain nightly miri rust-src
//!     MIRIFLAGS=-Zmiri-disable-isolation cargo +nightly miri test -p ptx-emulator --test small

use ptx_emulator::{Checks, Kind, Launch, Memory, Module, Outcome, Params, Schedule, run};

const HEAD: &str = ".version 9.0\n.target sm_89\n.address_size 64\n.visible .entry k(.param .u64 in, .param .u64 out)\n{\n\
    .reg .pred %p<4>;\n.reg .b16 %h<8>;\n.reg .b32 %r<32>;\n.reg .f32 %f<16>;\n.reg .b64 %rd<12>;\n\
    .shared .align 16 .b8 tile[512];\nld.param.u64 %rd1, [in];\nld.param.u64 %rd2, [out];\n\
    mov.u32 %r1, %tid.x;\nmov.u32 %r2, %ctaid.x;\nmul.wide.u32 %rd3, %r1, 4;\nadd.s64 %rd4, %rd2, %rd3;\n";

/// Runs a body on one buffer of words in and one out, on two threads of the host.
fn launch(body: &str, block: u32, input: &[u32], out: usize, checks: Checks) -> (Outcome, Vec<u32>) {
    let module = Module::parse(&format!("{HEAD}{body}\nret;\n}}")).expect("parses");
    let kernel = module.entry("k").expect("loads");
    let mut memory = Memory::new(&module);
    let bytes: Vec<u8> = input.iter().flat_map(|w| w.to_le_bytes()).collect();
    let input = memory.alloc_from("in", &bytes).expect("fits");
    let output = memory.alloc_from("out", &vec![0; 4 * out]).expect("fits");
    let mut launch = Launch::new([2, 1, 1], [block, 1, 1], Params::new().pointer(input).pointer(output).finish());
    launch.checks = checks;
    launch.schedule = Schedule::Seeded(7);
    launch.limits.threads = 2;
    let outcome = run(&kernel, &memory, &launch).expect("within limits");
    let found = memory.read(output).expect("its own buffer");
    (outcome, found.chunks_exact(4).map(|w| u32::from_le_bytes([w[0], w[1], w[2], w[3]])).collect())
}

/// The same with every check and with none; clean, and equal.
fn clean(body: &str, block: u32, input: &[u32], out: usize) -> Vec<u32> {
    let [all, none] = [Checks::all(), Checks::none()].map(|checks| {
        let (outcome, found) = launch(body, block, input, out, checks);
        assert!(outcome.is_clean(), "{:?}", outcome.findings);
        found
    });
    assert_eq!(all, none);
    all
}

fn kinds(body: &str) -> Vec<Kind> {
    let (outcome, _) = launch(body, 64, &[1; 64], 64, Checks::all());
    outcome.findings.iter().map(|finding| finding.kind).collect()
}

#[test]
fn lanes_diverge_and_blocks_add_up() {
    let body = "and.b32 %r3, %r1, 1;\nsetp.eq.u32 %p1, %r3, 0;\nmov.u32 %r4, %r1;\n@!%p1 bra ADD;\nmov.u32 %r4, 1;\n\
                ADD:\nred.global.add.u32 [%rd2], %r4;";
    let odd: u32 = (0..40).filter(|t| t % 2 == 1).sum();
    assert_eq!(clean(body, 40, &[0], 1), [2 * (odd + 20)]);
}

#[test]
fn warps_exchange_words_through_shared_memory_and_shuffles() {
    let body = "shl.b32 %r3, %r1, 2;\nmov.u32 %r4, tile;\nadd.u32 %r5, %r4, %r3;\nst.shared.u32 [%r5], %r1;\n\
                bar.sync 0;\nxor.b32 %r6, %r3, 128;\nadd.u32 %r6, %r4, %r6;\nld.shared.u32 %r7, [%r6];\n\
                shfl.sync.bfly.b32 %r8, %r7, 1, 31, -1;\nsetp.gt.u32 %p1, %r8, 40;\n\
                vote.sync.ballot.b32 %r9, %p1, -1;\npopc.b32 %r9, %r9;\nadd.u32 %r8, %r8, %r9;\n\
                setp.ne.u32 %p2, %r2, 0;\n@!%p2 st.global.u32 [%rd4], %r8;";
    let other = |t: u32| (t ^ 32) ^ 1;
    let ballot = |t: u32| (t / 32 * 32..t / 32 * 32 + 32).filter(|&u| other(u) > 40).count() as u32;
    assert_eq!(clean(body, 64, &[0], 64), (0..64).map(|t| other(t) + ballot(t)).collect::<Vec<_>>());
}

#[test]
fn a_tile_is_copied_while_nobody_looks_and_multiplied() {
    // A's row m holds m, B holds ones: every element of row m of the product is 16 m.
    let body = "shl.b32 %r3, %r1, 4;\nmov.u32 %r4, tile;\nadd.u32 %r5, %r4, %r3;\nmul.wide.u32 %rd5, %r1, 16;\n\
                add.s64 %rd5, %rd1, %rd5;\ncp.async.cg.shared.global [%r5], [%rd5], 16;\ncp.async.commit_group;\n\
                cp.async.wait_group 0;\nbar.sync 0;\nand.b32 %r6, %r1, 15;\nshr.u32 %r7, %r1, 4;\nshl.b32 %r6, %r6, 5;\n\
                shl.b32 %r7, %r7, 4;\nadd.u32 %r6, %r6, %r7;\nadd.u32 %r6, %r6, %r4;\n\
                ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r10, %r11, %r12, %r13}, [%r6];\nmov.b32 %r14, 0x3c003c00;\n\
                mov.f32 %f1, 0f00000000;\nmma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%f2, %f3, %f4, %f5}, \
                {%r10, %r11, %r12, %r13}, {%r14, %r14}, {%f1, %f1, %f1, %f1};\nadd.f32 %f6, %f3, %f4;\n\
                setp.ne.u32 %p2, %r2, 0;\n@!%p2 st.global.f32 [%rd4], %f6;";
    let half = |m: usize| u32::from(half::f16::from_f32(m as f32).to_bits());
    let input: Vec<u32> = (0..128).map(|word| half(word / 8) * 0x1_0001).collect();
    let wanted: Vec<u32> = (0..32).map(|lane| (16.0 * (2 * (lane / 4) + 8) as f32).to_bits()).collect();
    assert_eq!(clean(body, 32, &input, 32), wanted);
}

#[test]
fn values_go_through_eight_bits_and_back() {
    let body = "add.s64 %rd5, %rd1, %rd3;\nld.global.f32 %f1, [%rd5];\nmul.f32 %f2, %f1, 0f40400000;\n\
                cvt.rn.satfinite.e4m3x2.f32 %h1, %f2, %f1;\ncvt.rn.f16x2.e4m3x2 %r3, %h1;\n\
                setp.ne.u32 %p2, %r2, 0;\n@!%p2 st.global.u32 [%rd4], %r3;";
    let input: Vec<u32> = [0.0f32, 1.0, -2.25, 300.0].map(f32::to_bits).to_vec();
    // 300 lies between 288 and 320; -6.75 halfway between -6.5 and -7, whose code is even; 3 * 300 saturates.
    let wanted = [(0.0, 0.0), (1.0, 3.0), (-2.25, -7.0), (288.0, 448.0)].map(|(low, high)| {
        let bits = |x: f32| u32::from(half::f16::from_f32(x).to_bits());
        bits(low) | bits(high) << 16
    });
    assert_eq!(clean(body, 4, &input, 4), wanted);
}

#[test]
fn faults_are_reported_and_end_the_run() {
    let outside = "add.s64 %rd5, %rd1, 256;\nld.global.u32 %r3, [%rd5];\nst.global.u32 [%rd4], %r3;";
    assert!(kinds(outside).contains(&Kind::OutOfBounds));
    let race = "mov.u32 %r4, tile;\nst.shared.u32 [%r4], %r1;\nld.shared.u32 %r5, [%r4];\nst.global.u32 [%rd4], %r5;";
    assert!(kinds(race).contains(&Kind::RaceWriteWrite), "{:?}", kinds(race));
    let unknown = "st.global.u32 [%rd4], %r20;";
    assert!(kinds(unknown).contains(&Kind::UninitialisedStore), "{:?}", kinds(unknown));
}

#[test]
fn parts_and_contents_are_those_of_the_whole() {
    let module = Module::parse(".version 8.0\n.target sm_80\n.address_size 64\n").expect("an empty module");
    let mut memory = Memory::new(&module);
    for size in [0, 1, 4, 7, 16] {
        let content: Vec<u8> = (1..=size as u8).collect();
        let buffer = memory.alloc_from("bytes", &content).expect("fits");
        for (start, end) in (0..=size).flat_map(|start| (start..=size).map(move |end| (start, end))) {
            assert_eq!(memory.read_part(buffer, start, end - start).expect("within"), content[start..end]);
        }
        assert!(memory.read_part(buffer, 0, size + 1).is_err());
        assert!(memory.holds(buffer, &content).expect("own buffer"));
        assert!(!memory.holds(buffer, &[&content[..], &[0]].concat()).expect("own buffer"), "another length");
        for at in 0..size {
            let mut other = content.clone();
            other[at] ^= 1;
            assert!(!memory.holds(buffer, &other).expect("own buffer"), "byte {at} of {size}");
        }
    }
}
