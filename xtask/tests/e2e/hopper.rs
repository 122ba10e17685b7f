//! The Hopper family as the pipeline builds it, on any machine: ptxas' figures, and what its PTX must and must not hold.
//! Leaves to others: what the kernels compute, which takes the chip.

use sdpa_kernel::registry::{Operands, find};
use xtask::build::build_all;
use xtask::layout::Layout;
use xtask::toolchain;

/// The body of an entry function in PTX.
fn body<'a>(ptx: &'a str, entry: &str) -> &'a str {
    let start = ptx.find(&format!(".entry {entry}(")).unwrap_or_else(|| panic!("no entry `{entry}`"));
    let rest = &ptx[start..];
    // Behind the last body lists of source files follow, which name what they like.
    let ends = ["\n.entry", ".visible .entry", "\t.file"].into_iter().filter_map(|next| rest.find(next));
    &rest[..ends.min().unwrap_or(rest.len())]
}

#[test]
fn every_entry_is_built_for_hopper_without_spills_and_multiplies_with_wgmma() {
    let layout = Layout::find().expect("the tests run in a checkout");
    let tools = toolchain::find_or_install(&layout.target, &|line| eprintln!("{line}")).expect("a CUDA compiler");
    let hopper = find("hopper").unwrap();
    let set = build_all(&layout, &tools, std::slice::from_ref(&hopper), &["sm_89".to_owned()]).unwrap();
    assert_eq!(set.failures, []);
    let built = set.get("hopper", "sm_90a").expect("the family's own architecture, whatever was asked for");
    let record = &built.record;
    assert_eq!(record.toggle_mismatches, [""; 0]);
    assert_eq!(record.warnings, [""; 0], "C75xx: ptxas took the overlap out of wgmma");
    assert_eq!((record.spill_bytes(), record.global_bytes), (0, 0));
    let points = hopper.family.entry_points();
    assert_eq!(record.entries.len(), points.len());
    assert!(record.entries.iter().all(|e| e.resources.stack_frame_bytes == 0 && e.resources.local_bytes == 0));
    let ptx = std::fs::read_to_string(built.dir.join("kernel.ptx")).unwrap();
    assert!(ptx.contains(".target sm_90a"));
    for point in points {
        let body = body(&ptx, &point.name);
        assert!(!body.contains(".local"), "{}: local memory", point.name);
        if point.operands == Operands::Originals {
            assert!(body.contains("cvt.rn.satfinite.e4m3x2.f32") && !body.contains("wgmma"), "{}", point.name);
            continue;
        }
        // Scores in FP16 and, for rows with few keys, in FP32, so many at a time as there are registers for; P.V with
        // the row sums behind it.
        let exact = if point.name == "attention_d128_3x1" { "m64n32k32.f32" } else { "m64n64k32.f32" };
        let values = point.head_dim + 8;
        let forms = ["m64n128k32.f16", exact, &format!("m64n{values}k32.f32")].map(str::to_owned);
        for form in forms {
            assert!(body.contains(&format!("wgmma.mma_async.sync.aligned.{form}.e4m3.e4m3")), "{}: {form}", point.name);
        }
        for part in ["cp.async.bulk.shared::cluster.global.mbarrier", "griddepcontrol.wait"] {
            assert!(body.contains(part), "{}: no {part}", point.name);
        }
    }
}

#[test]
#[ignore = "takes longer; .ci/run runs it"]
fn a_patched_toggle_is_compiled() {
    let layout = Layout::find().expect("the tests run in a checkout");
    let tools = toolchain::find_or_install(&layout.target, &|line| eprintln!("{line}")).expect("a CUDA compiler");
    let two = find("hopper").unwrap().patched("two", &[("stages".to_owned(), 2)].into()).unwrap();
    let set = build_all(&layout, &tools, &[two], &["sm_90a".to_owned()]).unwrap();
    assert_eq!(set.failures, []);
    assert_eq!(set.built[0].record.toggle_mismatches, [""; 0]);
}
