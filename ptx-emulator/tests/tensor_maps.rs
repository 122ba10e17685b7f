//! Tensor maps that a kernel makes, from nothing in shared memory or of one that a host encoded.

use ptx_emulator::{Kind, Launch, Memory, Module, Outcome, Params, TensorElement, TensorMap, run};

/// A warp makes a map in shared memory and copies it to global memory; then thread 0 loads a box by it, and everybody
/// stores a word. `MAKE` is in place of what makes it.
const KERNEL: &str = ".version 8.7
.target sm_90a
.address_size 64
.visible .entry k(.param .u64 k0, .param .u64 k1, .param .u64 k2, .param .align 64 .b8 k3[128])
{
.reg .pred %p<4>;
.reg .b32 %r<16>;
.reg .b64 %d<12>;
.shared .align 1024 .b8 tile[128];
.shared .align 128 .b8 map[128];
.shared .align 8 .b64 full;
ld.param.u64 %d1, [k0];
ld.param.u64 %d2, [k1];
ld.param.u64 %d3, [k2];
mov.u32 %r1, %tid.x;
mov.u32 %r2, tile;
mov.u32 %r3, full;
mov.u32 %r4, map;
shl.b32 %r5, %r1, 2;
add.u32 %r6, %r4, %r5;
setp.eq.u32 %p1, %r1, 0;
MAKE
bar.warp.sync -1;
tensormap.cp_fenceproxy.global.shared::cta.tensormap::generic.release.gpu.sync.aligned [%d2], [%r4], 128;
fence.proxy.tensormap::generic.acquire.gpu [%d2], 128;
@!%p1 bra READY;
mbarrier.init.shared.b64 [%r3], 1;
fence.mbarrier_init.release.cluster;
READY:
bar.sync 0;
mov.u32 %r7, 16;
mov.u32 %r8, 4;
@!%p1 bra WAIT;
mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r3], 128;
cp.async.bulk.tensor.2d.shared::cta.global.mbarrier::complete_tx::bytes [%r2], [%d2, {%r7, %r8}], [%r3];
WAIT:
mbarrier.try_wait.parity.shared::cta.b64 %p2, [%r3], 0;
@!%p2 bra WAIT;
add.u32 %r9, %r2, %r5;
ld.shared.b32 %r10, [%r9];
cvt.u64.u32 %d4, %r5;
add.s64 %d4, %d3, %d4;
st.global.b32 [%d4], %r10;
ret;
}
";

/// Of 20 by 6 words, 24 a row, boxes of 8 by 4, from zeros.
const WHOLE: &str = "mov.u32 %r11, 0;
st.shared.b32 [%r6], %r11;
bar.warp.sync -1;
mov.u32 %r11, 20;
mov.u32 %r12, 6;
mov.u64 %d5, 96;
@!%p1 bra MADE;
tensormap.replace.tile.global_address.shared::cta.b1024.b64 [%r4], %d1;
tensormap.replace.tile.rank.shared::cta.b1024.b32 [%r4], 1;
tensormap.replace.tile.box_dim.shared::cta.b1024.b32 [%r4], 0, 8;
tensormap.replace.tile.box_dim.shared::cta.b1024.b32 [%r4], 1, 4;
tensormap.replace.tile.global_dim.shared::cta.b1024.b32 [%r4], 0, %r11;
tensormap.replace.tile.global_dim.shared::cta.b1024.b32 [%r4], 1, %r12;
tensormap.replace.tile.global_stride.shared::cta.b1024.b64 [%r4], 0, %d5;
tensormap.replace.tile.element_stride.shared::cta.b1024.b32 [%r4], 0, 1;
tensormap.replace.tile.element_stride.shared::cta.b1024.b32 [%r4], 1, 1;
tensormap.replace.tile.elemtype.shared::cta.b1024.b32 [%r4], 7;
tensormap.replace.tile.interleave_layout.shared::cta.b1024.b32 [%r4], 0;
tensormap.replace.tile.swizzle_mode.shared::cta.b1024.b32 [%r4], 1;
tensormap.replace.tile.fill_mode.shared::cta.b1024.b32 [%r4], 0;
MADE:";

/// Of the host's, which is of another tensor: where it is, how wide, how high.
const PARTS: &str = "mov.b64 %d6, k3;
cvt.u64.u32 %d7, %r5;
add.s64 %d6, %d6, %d7;
ld.param.b32 %r11, [%d6];
st.shared.b32 [%r6], %r11;
bar.warp.sync -1;
@!%p1 bra MADE;
tensormap.replace.tile.global_address.shared::cta.b1024.b64 [%r4], %d1;
tensormap.replace.tile.global_dim.shared::cta.b1024.b32 [%r4], 0, 20;
tensormap.replace.tile.global_dim.shared::cta.b1024.b32 [%r4], 1, 6;
tensormap.replace.tile.global_stride.shared::cta.b1024.b64 [%r4], 0, 96;
MADE:";

fn launch(make: &str) -> (Vec<u32>, Outcome) {
    let module = Module::parse(&KERNEL.replace("MAKE", make)).expect("the kernel parses");
    let kernel = module.entry("k").unwrap_or_else(|error| panic!("{error}"));
    let mut memory = Memory::new(&module);
    let words: Vec<u8> = (0..24 * 6u32).flat_map(u32::to_le_bytes).collect();
    let tensor = memory.alloc_from("tensor", &words).expect("fits");
    let made = memory.alloc("made", 128).expect("fits");
    let out = memory.alloc("out", 128).expect("fits");
    let other = TensorMap {
        address: made.address(),
        element: TensorElement::F32,
        sizes: vec![1 << 32, 1],
        strides: vec![32],
        extents: vec![8, 4],
        swizzle: 32,
        nan_fill: false,
    };
    let other = other.to_bytes().expect("it can be one");
    let params = Params::new().pointer(tensor).pointer(made).pointer(out).bytes(64, &other).finish();
    let mut launch = Launch::new([1, 1, 1], [32, 1, 1], params);
    launch.limits.idle_turns = 50;
    let outcome = run(&kernel, &memory, &launch).expect("the launch is valid");
    let bytes = memory.read(out).expect("own buffer");
    (bytes.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word)).collect(), outcome)
}

#[test]
fn a_kernel_makes_a_map_whole_or_in_part() {
    for make in [WHOLE, PARTS] {
        let (out, outcome) = launch(make);
        assert!(outcome.is_clean(), "{:?}", outcome.findings);
        for (i, word) in (0u32..).zip(&out) {
            let (row, column) = (i / 8, i % 8);
            let inside = row < 2 && column < 4;
            assert_eq!(*word, if inside { (4 + row) * 24 + 16 + column } else { 0 }, "{i}");
        }
    }
}

#[test]
fn what_is_made_of_a_map_is_held_to_what_one_can_be() {
    let kinds = |make: &str| launch(make).1.findings.iter().map(|finding| finding.kind).collect::<Vec<Kind>>();
    let extent = "tensormap.replace.tile.box_dim.shared::cta.b1024.b32 [%r4], 0, 8;\n";
    let wrong = [
        (extent, ""),
        ("[%r4], 1, 1;", "[%r4], 1, 2;"),
        ("elemtype.shared::cta.b1024.b32 [%r4], 7", "elemtype.shared::cta.b1024.b32 [%r4], 13"),
        ("mov.u64 %d5, 96;", "mov.u64 %d5, 90;"),
        ("rank.shared::cta.b1024.b32 [%r4], 1", "rank.shared::cta.b1024.b32 [%r4], 2"),
    ];
    for (from, to) in wrong {
        assert!(WHOLE.contains(from), "{from}");
        assert!(kinds(&WHOLE.replace(from, to)).contains(&Kind::TensorMapMisuse), "{from} {to}");
    }
    // What no field is of was never written.
    let torn = WHOLE.replace("st.shared.b32 [%r6], %r11;\n", "");
    assert!(kinds(&torn).contains(&Kind::UninitialisedStore));
    assert!(!kinds(&WHOLE.replace("[%r4], 0, 8;", "[%r4], 0, 4;")).is_empty(), "the barrier expects more");
}
