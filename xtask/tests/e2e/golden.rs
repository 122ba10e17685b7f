//! The emulated kernels against a GPU's answers to the same PTX and inputs, `data/golden/{ladder,hopper}.json`, made by
//! `cargo xtask golden`: within 2e-3 as the variants ship, and in every bit where every operation has one result.

use std::collections::BTreeMap;

use sdpa_kernel::hopper;
use sdpa_kernel::registry::{Unanswered, VARIANTS};
use xtask::golden::{
    Answer, Answers, Form, LIMIT, build, compared, emulator, instructions_sha256, largest_difference, launch,
};
use xtask::golden::{parse_sample, problems, rows, rows_in_words, sample, sha256_of, variants};
use xtask::layout::Layout;
use xtask::runner::Runner;
use xtask::toolchain;

/// Of the ladder and of the Hopper family, which were asked at different times.
const RECORDED: [&str; 2] = [include_str!("../data/golden/ladder.json"), include_str!("../data/golden/hopper.json")];

/// Compares every recorded variant in one form; `judge` says what is wrong with an output. Answers with the variants whose PTX is
/// not the one that was recorded.
fn compare(form: Form, judge: impl Fn(&Answer, &str, &[u16]) -> Option<String>) -> Vec<String> {
    let recorded = RECORDED.map(|text| serde_json::from_str::<Answers>(text).expect("recorded answers").answers);
    let mut answers: BTreeMap<String, Vec<Answer>> = BTreeMap::new();
    for answer in recorded.into_iter().flatten().filter(|a| a.form == form) {
        answers.entry(answer.variant.clone()).or_default().push(answer);
    }
    let asked = variants(form).expect("known variants");
    let asked: Vec<&str> = asked.iter().map(|variant| variant.name.as_str()).collect();
    let lacking: Vec<&str> =
        sdpa_kernel::registry::names().filter(|name| asked.contains(name) && !answers.contains_key(*name)).collect();
    let mut said = deferred(|why| matches!(why, Unanswered::Wholly(_)));
    said.retain(|name| asked.contains(name));
    assert_eq!(lacking, said, "the registry names the variants that no GPU has answered for, and no other");
    let layout = Layout::find().expect("the tests run in a checkout");
    let tools = toolchain::find_or_install(&layout.target, &|line| eprintln!("{line}")).expect("a CUDA compiler");
    let scratch = tempfile::tempdir().unwrap();
    let runner = Runner::locate(&layout, &scratch.path().join("logs")).expect("the runner builds");
    let known: Vec<_> = answers.keys().map(|name| sdpa_kernel::registry::find(name).unwrap()).collect();
    let mut wrong = Vec::new();
    let builds = build(&layout, &tools, &known, form).expect("every variant compiles");
    launch(&runner, &builds, &[], scratch.path(), |built| emulator(form, built)).expect("every problem is solved");
    for built in &builds {
        let variant = &built.record.variant;
        let ptx_sha256 = instructions_sha256(built).expect("the PTX is there");
        for problem in problems(built).iter().flatten() {
            let answer =
                answers[variant].iter().find(|a| a.problem == problem.id()).expect("every problem was recorded");
            let part = rows(built, &problem.shape).expect("rows").as_deref().map(rows_in_words);
            assert_eq!(part, answer.rows, "{variant} on {}: another part was recorded", problem.id());
            let output = compared(built, &scratch.path().join(variant), problem).expect("an output");
            let fault = judge(answer, &ptx_sha256, &output);
            wrong.extend(fault.map(|fault| format!("{variant} on {}: {fault}", problem.id())));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    builds
        .iter()
        .filter(|built| {
            let answer = answers[&built.record.variant].first().expect("a variant has answers");
            answer.ptx_sha256 != instructions_sha256(built).expect("the PTX is there")
        })
        .map(|built| built.record.variant.clone())
        .collect()
}

/// Variants that say so of themselves in the registry.
fn deferred(which: fn(Unanswered) -> bool) -> Vec<&'static str> {
    let ladder = VARIANTS.iter().map(|entry| (entry.name, entry.unanswered));
    let all = ladder.chain([(hopper::NAME, hopper::UNANSWERED)]);
    all.filter(|(_, unanswered)| unanswered.is_some_and(which)).map(|(name, _)| name).collect()
}

/// What differs from the recorded sample by more than allowed.
fn far(answer: &Answer, output: &[u16]) -> Option<String> {
    let difference = largest_difference(&sample(output), &parse_sample(&answer.sample).expect("a sample"));
    (difference > LIMIT).then(|| format!("differs by {difference}"))
}

#[test]
#[ignore = "slow: .ci/run runs it by name"]
fn shipped_variants_answer_as_the_gpu_does() {
    compare(Form::Shipped, |answer, _, output| far(answer, output));
}

#[test]
#[ignore = "slow: .ci/run runs it by name"]
fn variants_without_approximations_answer_as_the_gpu_does_bit_for_bit() {
    let by_less_than_bits = compare(Form::Exact, |answer, ptx_sha256, output| {
        if answer.ptx_sha256 == ptx_sha256 {
            return (answer.output_sha256 != sha256_of(output)).then(|| "not bit for bit".to_owned());
        }
        // Its source has changed since; a machine with a GPU can record it again.
        far(answer, output)
    });
    // Another compiler, or another source, must not turn exact answers into near ones without anybody noticing.
    let said = deferred(|why| matches!(why, Unanswered::Bits(_)));
    assert_eq!(by_less_than_bits, said, "the registry names the variants that are not compared by bits");
}
