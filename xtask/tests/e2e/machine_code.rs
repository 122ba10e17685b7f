//! The flagships' machine code as nvdisasm lists it, on any machine: the instructions that the suites require are in
//! every attention entry, local memory in none. Leaves to others: the gate itself (kbench), and what the code computes.

use kbench::evidence::Operands;
use kbench::judge::judge_builds;
use sdpa_kernel::registry::find;
use xtask::build::{build_all, disassemble};
use xtask::layout::Layout;
use xtask::plan::{Changes, Plan};
use xtask::toolchain;

#[test]
fn the_flagships_multiply_with_the_instructions_that_their_suites_require() {
    let layout = Layout::find().expect("the tests run in a checkout");
    let tools = toolchain::find_or_install(&layout.target, &|line| eprintln!("{line}")).expect("a CUDA compiler");
    for (suite, variant, arch, product) in [("flagship", "hopper", "sm_90a", "QGMMA"), ("ada", "ada", "sm_89", "QMMA")]
    {
        let variants = [find(variant).unwrap(), find("stage2").unwrap()];
        let mut set = build_all(&layout, &tools, &variants, &[arch.to_owned()]).unwrap();
        disassemble(&layout, &tools, &mut set).unwrap();
        assert_eq!((set.failures.len(), &set.not_disassembled), (0, &None));
        let record = &set.get(variant, arch).expect("it was built").record;
        let instructions = record.instructions.as_ref().expect("it was disassembled");
        for entry in record.entries.iter().filter(|e| e.launch.operands != Operands::Originals) {
            let count = |mnemonic: &str| instructions[&entry.launch.entry].get(mnemonic).copied().unwrap_or(0);
            assert!(count(product) >= 8, "{}: {} {product}", entry.launch.entry, count(product));
            assert_eq!((count("LDL"), count("STL")), (0, 0), "{}", entry.launch.entry);
        }
        let plan = Plan::read(&layout, suite, &Changes::default()).unwrap();
        let gates = judge_builds(&plan.suite, &set.evidence());
        let gate = gates.iter().find(|g| g.figure == "machine code" && g.variant == variant).expect("the suite asks");
        assert_eq!(gate.state.word(), "PASS", "{}", gate.measured);
    }
    // Where the chip has no FP8 product of a warp, the same source has none either: the gate can fail.
    let ada = [find("ada").unwrap()];
    let mut set = build_all(&layout, &tools, &ada, &["sm_90".to_owned()]).unwrap();
    disassemble(&layout, &tools, &mut set).unwrap();
    let instructions = set.built[0].record.instructions.as_ref().expect("it was disassembled");
    let d64 = &instructions["sdpa_fwd_d64"];
    assert!(!d64.contains_key("QMMA") && d64.contains_key("HMMA"), "{d64:?}");
}
