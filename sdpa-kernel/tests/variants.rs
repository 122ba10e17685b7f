//! What the variants that runs were made of are compiled with, in full: the registry says only what each adds to another,
//! so that a changed base would change those that rest on it unseen. A new variant needs no line here.

use std::collections::BTreeMap;

use sdpa_kernel::registry::find;
use sdpa_kernel::toggles::TOGGLES;

const TABLE: &str = "\
stage0: ladder/sdpa_ladder.cu exp=0 loader=0 math=0 p_format=0 producer_warps=0 scheduler=0 softmax=0 stages=1 swizzle=0 threads=128 tile_k=32 tile_q=32
stage1: ladder/sdpa_ladder.cu exp=0 loader=1 math=0 p_format=0 producer_warps=0 scheduler=0 softmax=0 stages=2 swizzle=0 threads=128 tile_k=32 tile_q=32
stage2: ladder/sdpa_ladder.cu exp=0 loader=1 math=1 p_format=0 producer_warps=0 scheduler=0 softmax=0 stages=2 swizzle=0 threads=128 tile_k=32 tile_q=32
stage3a: ladder/sdpa_ladder.cu exp=0 loader=1 math=1 p_format=0 producer_warps=0 scheduler=0 softmax=1 stages=2 swizzle=0 threads=128 tile_k=32 tile_q=32
stage3b: ladder/sdpa_ladder.cu exp=0 loader=1 math=1 p_format=0 producer_warps=0 scheduler=0 softmax=2 stages=2 swizzle=0 threads=128 tile_k=32 tile_q=64
stage4: ladder/sdpa_ladder.cu exp=0 loader=2 math=1 p_format=0 producer_warps=0 scheduler=0 softmax=2 stages=3 swizzle=0 threads=128 tile_k=32 tile_q=64
ws-p1: ladder/sdpa_ladder.cu exp=0 loader=1 math=1 p_format=0 producer_warps=1 scheduler=0 softmax=0 stages=2 swizzle=0 threads=288 tile_k=32 tile_q=64
ws-p2: ladder/sdpa_ladder.cu exp=0 loader=1 math=1 p_format=0 producer_warps=2 scheduler=0 softmax=0 stages=2 swizzle=0 threads=320 tile_k=32 tile_q=64
xor-swizzle: ladder/sdpa_ladder.cu exp=0 loader=2 math=1 p_format=0 producer_warps=0 scheduler=0 softmax=2 stages=3 swizzle=1 threads=128 tile_k=32 tile_q=64
fast-exp: ladder/sdpa_ladder.cu exp=2 loader=1 math=1 p_format=0 producer_warps=0 scheduler=0 softmax=2 stages=2 swizzle=0 threads=128 tile_k=32 tile_q=64
persistent: ladder/sdpa_ladder.cu exp=0 loader=2 math=1 p_format=0 producer_warps=0 scheduler=1 softmax=2 stages=3 swizzle=0 threads=128 tile_k=32 tile_q=64
ws-persistent: ladder/sdpa_ladder.cu exp=0 loader=1 math=1 p_format=0 producer_warps=2 scheduler=1 softmax=0 stages=2 swizzle=0 threads=320 tile_k=32 tile_q=64
v1: ladder/sdpa_ladder.cu exp=0 loader=0 math=0 p_format=0 producer_warps=0 scheduler=0 softmax=0 stages=1 swizzle=0 threads=128 tile_k=64 tile_q=32
v2b: ladder/sdpa_ladder.cu exp=0 loader=1 math=0 p_format=0 producer_warps=0 scheduler=0 softmax=3 stages=2 swizzle=0 threads=128 tile_k=32 tile_q=16
v2c: ladder/sdpa_ladder.cu exp=0 loader=1 math=1 p_format=0 producer_warps=0 scheduler=0 softmax=2 stages=2 swizzle=0 threads=64 tile_k=32 tile_q=32
v2d: ladder/sdpa_ladder.cu exp=0 loader=2 math=1 p_format=0 producer_warps=0 scheduler=0 softmax=2 stages=3 swizzle=1 threads=128 tile_k=64 tile_q=64
ada: ladder/sdpa_ladder.cu exp=0 loader=2 math=2 p_format=1 producer_warps=0 scheduler=0 softmax=2 stages=3 swizzle=1 threads=128 tile_k=64 tile_q=64
hopper: hopper/sdpa_hopper.cu p_format=1 stages=4
";

#[test]
fn no_variant_is_compiled_with_anything_but_what_it_always_was() {
    for line in TABLE.lines() {
        let mut words = line.split(' ');
        let name = words.next().and_then(|word| word.strip_suffix(':')).unwrap();
        let variant = find(name).unwrap();
        assert_eq!(Some(variant.source.as_str()), words.next(), "{name}");
        let recorded: BTreeMap<&str, u32> = words.map(|word| word.split_once('=').unwrap()).map(number).collect();
        for (toggle, value) in &variant.toggles {
            // A toggle that is younger than the line is plain.
            let plain = || TOGGLES.iter().find(|known| known.name == toggle).map(|known| known.plain);
            assert_eq!(recorded.get(toggle.as_str()).copied().or_else(plain), Some(*value), "{name} {toggle}");
        }
        assert!(recorded.keys().all(|toggle| variant.toggles.contains_key(*toggle)), "{name}");
    }
    assert!(TABLE.lines().count() >= 18);
}

fn number<'a>((toggle, value): (&'a str, &str)) -> (&'a str, u32) {
    (toggle, value.parse().unwrap())
}
