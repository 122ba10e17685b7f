//! What adds to global memory more than one word at a time: bulk copies that reduce, and atomics on vectors.

use ptx_emulator::{
    Buffer, Finding, Kind, Launch, Memory, Module, Outcome, Params, Schedule, TensorElement, TensorMap, run,
};

const SCHEDULES: [Schedule; 4] = [Schedule::RoundRobin, Schedule::Greedy, Schedule::Reverse, Schedule::Seeded(1)];

/// Blocks of a launch, and bytes that each brings.
const BLOCKS: u32 = 4;
const TILE: usize = 256;

/// Each of 64 threads brings a word of its block's input to shared memory; then thread 0 does what stands for `COPY`.
const KERNEL: &str = ".version 8.7
.target sm_90a
.address_size 64
.visible .entry k(.param .align 64 .b8 k0[128], .param .u64 k1, .param .u64 k2)
{
.reg .pred %p<4>;
.reg .b32 %r<16>;
.reg .f32 %f<8>;
.reg .b64 %d<8>;
.shared .align 128 .b8 tile[256];
mov.b64 %d0, k0;
cvta.param.u64 %d0, %d0;
ld.param.u64 %d1, [k1];
ld.param.u64 %d2, [k2];
mov.u32 %r1, %tid.x;
mov.u32 %r2, tile;
mov.u32 %r3, %ctaid.x;
setp.eq.u32 %p1, %r1, 0;
mad.lo.u32 %r4, %r3, 64, %r1;
mul.wide.u32 %d3, %r4, 4;
add.s64 %d3, %d1, %d3;
ld.global.b32 %r5, [%d3];
shl.b32 %r6, %r1, 2;
add.u32 %r6, %r6, %r2;
st.shared.b32 [%r6], %r5;
fence.proxy.async.shared::cta;
bar.sync 0;
@!%p1 bra DONE;
mov.u32 %r7, 1;
mov.u32 %r8, 0;
COPY
cp.async.bulk.commit_group;
cp.async.bulk.wait_group 0;
DONE:
bar.sync 0;
st.shared.b32 [%r6], %r1;
ret;
}
";

/// What is at the output after a launch, and what was found; with `start` there before, or nothing.
fn launch(source: &str, input: &[u8], start: Option<&[u8]>, map: Option<TensorMap>) -> Vec<(Vec<u8>, Outcome)> {
    let module = Module::parse(source).expect("the kernel parses");
    let kernel = module.entry("k").unwrap_or_else(|error| panic!("{error}"));
    let one = |schedule, threads| {
        let mut memory = Memory::new(&module);
        let from = memory.alloc_from("in", input).expect("fits");
        let to: Buffer = match start {
            Some(start) => memory.alloc_from("out", start),
            None => memory.alloc("out", TILE),
        }
        .expect("fits");
        let map = map.clone().map(|map| TensorMap { address: to.address(), ..map }.to_bytes().expect("it can be one"));
        let params = Params::new().bytes(64, &map.unwrap_or([0; 128])).pointer(from).pointer(to).finish();
        let mut launch = Launch::new([BLOCKS, 1, 1], [64, 1, 1], params);
        (launch.schedule, launch.limits.threads) = (schedule, threads);
        let outcome = run(&kernel, &memory, &launch).expect("the launch is valid");
        (memory.read(to).expect("own buffer"), outcome)
    };
    SCHEDULES.into_iter().flat_map(|schedule| [1, 4].map(|threads| one(schedule, threads))).collect()
}

fn report(outcome: &Outcome) -> String {
    outcome.findings.iter().map(|finding| format!("{finding}\n")).collect()
}

fn kinds(runs: &[(Vec<u8>, Outcome)]) -> Vec<Kind> {
    runs.iter().flat_map(|(_, outcome)| &outcome.findings).map(|finding: &Finding| finding.kind).collect()
}

/// As so many bytes of each element, one after the other.
fn elements(bytes: usize, count: usize, of: impl Fn(u64) -> u64) -> Vec<u8> {
    (0..count as u64).flat_map(|i| of(i).to_le_bytes()[..bytes].to_vec()).collect()
}

/// An operation, bytes of an element, elements of block and place, what is there before, and after.
type Row = (&'static str, usize, fn(u64, u64) -> u64, u64, fn(u64) -> u64);

const ROWS: [Row; 14] = [
    ("add.u32", 4, |b, i| 10 * b + i, 7, |i| 67 + 4 * i),
    ("add.u64", 8, |b, i| (b << 40) + i, 7, |i| (6 << 40) + 7 + 4 * i),
    ("min.s32", 4, |b, i| i.wrapping_sub(20 * b), 5, |i| i.wrapping_sub(60)),
    ("max.u32", 4, |b, i| i + b, 30, |i| (i + 3).max(30)),
    ("inc.u32", 4, |_, _| 2, 0, |_| 1),
    ("dec.u32", 4, |_, _| 2, 0, |_| 2),
    ("and.b32", 4, |b, _| !(1 << b), 0xffff, |_| 0xfff0),
    ("or.b64", 8, |b, _| 1 << (40 + b), 1, |_| 0xf << 40 | 1),
    ("xor.b32", 4, |b, _| 1 << b, 3, |_| 12),
    ("add.f32", 4, |b, i| f32_bits(0.5 * b as f32 + i as f32), 0x3f80_0000, |i| f32_bits(4.0 + 4.0 * i as f32)),
    // Four times 2^-140: an H100 keeps subnormal numbers here.
    ("add.f32", 4, |_, _| 0x200, 0x200, |_| 0xa00),
    ("add.f64", 8, |b, i| (b as f64 + i as f64).to_bits(), 0, |i| (6.0 + 4.0 * i as f64).to_bits()),
    ("add.noftz.f16", 2, |_, _| 0x3c00, 0x3c00, |_| 0x4500),
    ("add.noftz.bf16", 2, |_, _| 0x3f80, 0x3f80, |_| 0x40a0),
];

fn f32_bits(value: f32) -> u64 {
    u64::from(value.to_bits())
}

fn bulk(operation: &str) -> String {
    KERNEL
        .replace("COPY", &format!("cp.reduce.async.bulk.global.shared::cta.bulk_group.{operation} [%d2], [%r2], 256;"))
}

#[test]
fn bulk_copies_of_blocks_reduce_into_one_place_whatever_the_order() {
    for (operation, bytes, element, start, wanted) in ROWS {
        let count = TILE / bytes;
        let input: Vec<u8> = (0..u64::from(BLOCKS)).flat_map(|b| elements(bytes, count, |i| element(b, i))).collect();
        let start = elements(bytes, count, |_| start);
        for (out, outcome) in launch(&bulk(operation), &input, Some(&start), None) {
            assert!(outcome.is_clean(), "{operation}: {}", report(&outcome));
            assert_eq!(out, elements(bytes, count, wanted), "{operation}");
        }
    }
}

#[test]
fn a_bulk_copy_that_reduces_is_held_to_fences_waits_and_defined_memory() {
    let input = elements(4, 256, |i| i);
    let zeros = [0; TILE];
    let found = |source: &str, start: Option<&[u8]>| kinds(&launch(source, &input, start, None));
    let sum = bulk("add.u32");
    assert!(found(&sum, None).contains(&Kind::UninitialisedStore));
    let unfenced = sum.replace("fence.proxy.async.shared::cta;", "");
    assert!(found(&unfenced, Some(&zeros)).contains(&Kind::MissingProxyFence));
    let early = sum.replace("cp.async.bulk.wait_group 0;", "");
    assert!(found(&early, Some(&zeros)).contains(&Kind::RaceWriteAfterRead));
    assert!(found(&sum.replace("[%d2], [%r2]", "[%d2+16], [%r2]"), Some(&zeros)).contains(&Kind::OutOfBounds));
    // Copies that only bring their bytes race, and so does who looks before it is told.
    let copy = sum.replace("cp.reduce", "cp").replace(".add.u32", "");
    assert!(found(&copy, Some(&zeros)).contains(&Kind::RaceWriteWrite));
    let looks = sum.replace("mov.u32 %r7, 1;", "ld.global.b32 %r7, [%d2];");
    let races = [Kind::RaceReadAfterWrite, Kind::RaceWriteAfterRead];
    assert!(found(&looks, Some(&zeros)).iter().any(|kind| races.contains(kind)));
}

#[test]
fn a_box_is_reduced_into_a_tensor_as_its_type_says() {
    let source = |operation: &str| {
        let copy = "cp.reduce.async.bulk.tensor.2d.global.shared::cta.OP.tile.bulk_group [%d0, {%r7, %r8}], [%r2];";
        KERNEL.replace("COPY", &copy.replace("OP", operation))
    };
    // Boxes of 8 by 8 words at column 1 of a tensor of 8 columns and 6 rows.
    let map = |element| TensorMap {
        address: 0,
        element,
        sizes: vec![8, 6],
        strides: vec![32],
        extents: vec![8, 8],
        swizzle: 32,
        nan_fill: false,
    };
    let inside = |i: u64| i % 8 >= 1 && i / 8 < 6;
    // Of 32-byte rows, the chunks of every second four are exchanged.
    let swizzled = |row: u64, column: u64| row * 8 + (column ^ (4 * ((row / 4) & 1)));
    let from = |i: u64| swizzled(i / 8, i % 8 - 1);
    let floats = elements(4, 256, |i| f32_bits((i % 64) as f32));
    let ones = elements(4, 64, |_| f32_bits(1.0));
    for (out, outcome) in launch(&source("add"), &floats, Some(&ones), Some(map(TensorElement::F32))) {
        assert!(outcome.is_clean(), "{}", report(&outcome));
        let wanted = |i| f32_bits(if inside(i) { 1.0 + 4.0 * from(i) as f32 } else { 1.0 });
        assert_eq!(out, elements(4, 64, wanted));
    }
    let negative = elements(4, 256, |i| (i % 64).wrapping_sub(40));
    for (element, largest) in [(TensorElement::S32, false), (TensorElement::U32, true)] {
        for (out, outcome) in launch(&source("max"), &negative, Some(&[0; TILE]), Some(map(element))) {
            assert!(outcome.is_clean(), "{}", report(&outcome));
            let value = |i| from(i).wrapping_sub(40) as u32;
            let one = |i| if largest { value(i) } else { (value(i) as i32).max(0) as u32 };
            assert_eq!(out, elements(4, 64, |i| if inside(i) { u64::from(one(i)) } else { 0 }));
        }
    }
    let of_floats = launch(&source("max"), &negative, Some(&[0; TILE]), Some(map(TensorElement::F32)));
    assert!(kinds(&of_floats).contains(&Kind::TensorMapMisuse));
    assert!(of_floats.iter().all(|(out, _)| *out == [0; TILE]));
}

/// Thread 0 of each block adds a vector; what was there goes to the output from byte 128 + 16 times the block's
/// number on.
fn vector(instruction: &str) -> String {
    let place = "mul.wide.u32 %d4, %r3, 16;\nadd.s64 %d4, %d2, %d4;\n";
    let values =
        "mov.f32 %f1, 0f3F800000;\nmov.f32 %f2, 0f40000000;\nmov.f32 %f3, 0f40400000;\nmov.f32 %f4, 0f40800000;\n";
    KERNEL.replace("COPY", &format!("{place}{values}{instruction}"))
}

#[test]
fn atomics_on_vectors_add_element_by_element() {
    let input = [0; 4 * TILE];
    let float = |bytes: &[u8], i: usize| f32::from_bits(u32::from_le_bytes(bytes[4 * i..][..4].try_into().unwrap()));
    let runs = launch(
        &vector("red.relaxed.gpu.global.add.v4.f32 [%d2], {%f1, %f2, %f3, %f4};"),
        &input,
        Some(&[0; TILE]),
        None,
    );
    for (out, outcome) in &runs {
        assert!(outcome.is_clean(), "{}", report(outcome));
        assert_eq!([0, 1, 2, 3, 4].map(|i| float(out, i)), [4.0, 8.0, 12.0, 16.0, 0.0]);
    }
    // What the first element returns is where the second's summand was.
    let crossed = "atom.global.add.v2.f32 {%f2, %f1}, [%d2+8], {%f1, %f2};\nst.global.v2.f32 [%d4+128], {%f2, %f1};";
    for (out, outcome) in launch(&vector(crossed), &input, Some(&[0; TILE]), None) {
        assert!(outcome.is_clean(), "{}", report(&outcome));
        assert_eq!([2, 3].map(|i| float(&out, i)), [4.0, 8.0]);
        let mut before: Vec<f32> = (0..4).map(|block| float(&out, 32 + 4 * block)).collect();
        before.sort_by(f32::total_cmp);
        assert_eq!(before, [0.0, 1.0, 2.0, 3.0]);
        assert!((0..4).all(|block| float(&out, 33 + 4 * block) == 2.0 * float(&out, 32 + 4 * block)));
    }
    let pairs = "mov.b32 %r9, 0x40003c00;\nred.global.add.noftz.v2.f16x2 [%d2], {%r9, %r9};";
    for (out, outcome) in launch(&vector(pairs), &input, Some(&[0; TILE]), None) {
        assert!(outcome.is_clean(), "{}", report(&outcome));
        assert_eq!(out[..8], [0x00, 0x44, 0x00, 0x48, 0x00, 0x44, 0x00, 0x48]);
    }
    let misplaced = vector("red.global.add.v4.f32 [%d2+8], {%f1, %f2, %f3, %f4};");
    assert!(kinds(&launch(&misplaced, &input, Some(&[0; TILE]), None)).contains(&Kind::Misaligned));
}
