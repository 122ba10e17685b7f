//! `sanitize` on the emulator: the shipped kernels are clean, and planted defects are named with their source lines.

use crate::common::Dist;

/// A defect that a test plants into a copy of the kernels.
struct Planted {
    file: String,
    from: String,
    to: String,
    variant: String,
}

/// Reads a planted defect: four fields of text, each between lines of dashes.
fn planted(text: &str) -> Planted {
    let fields: Vec<String> = text.split("----\n").map(|field| field.trim_matches('\n').to_owned()).collect();
    let [variant, file, from, to] = fields.try_into().expect("variant, file, text, replacement");
    Planted { file, from, to, variant }
}

const OUT_OF_BOUNDS: &str = include_str!("../data/planted/out-of-bounds.txt");
const RACE: &str = include_str!("../data/planted/race.txt");

/// Plants a defect and returns what `sanitize` says of it, its exit status first.
fn sanitize_planted(text: &str) -> (Dist, Planted, String) {
    let (dist, defect) = (Dist::emulating(), planted(text));
    dist.edit(&format!("sdpa-kernel/cuda/ladder/{}", defect.file), &defect.from, &defect.to);
    let ran = dist.run(&["sanitize", &defect.variant, "--device", "emulator", "--shapes", "ragged"]);
    let ran = ran.expect(1);
    let text = ran.stdout.clone();
    (dist, defect, text)
}

/// The line of a text in a file, counted from one.
fn line_of(dist: &Dist, file: &str, text: &str) -> usize {
    let source = std::fs::read_to_string(dist.path(&format!("sdpa-kernel/cuda/ladder/{file}"))).unwrap();
    1 + source.lines().position(|line| line.contains(text)).expect("the text is there")
}

#[test]
#[ignore = "takes longer; .ci/run runs it"]
fn a_planted_out_of_bounds_access_is_named_with_its_line() {
    let (dist, _, text) = sanitize_planted(OUT_OF_BOUNDS);
    assert!(text.contains("memcheck") && text.contains("out of bounds"), "{text}");
    let copy = line_of(&dist, "loader.cuh", "ptx::cp_async_cg_16(&ring.k[slot][chunk]");
    assert!(text.contains(&format!("loader.cuh:{copy}")), "loader.cuh:{copy} is not in\n{text}");
}

#[test]
fn a_planted_race_is_named_with_both_lines_and_replays() {
    let (dist, defect, text) = sanitize_planted(RACE);
    assert!(text.contains("racecheck") && text.contains("race ("), "{text}");
    let (write, read) = (
        line_of(&dist, "loader.cuh", "store_dequantised(tile.at"),
        line_of(&dist, "scores.cuh", "load_matrix_sync(keys"),
    );
    for place in [format!("loader.cuh:{write}"), format!("scores.cuh:{read}")] {
        assert!(text.contains(&place), "{place} is not in\n{text}");
    }
    let replay = text.split("replay: --schedule ").nth(1).expect("how to replay it");
    let schedule = replay.split(')').next().unwrap();
    let again = ["sanitize", &defect.variant, "--device", "emulator", "--shapes", "ragged", "--schedule", schedule];
    let (first, second) = (dist.run(&again), dist.run(&again));
    assert!(first.stdout.contains("race (") && first.stdout == second.stdout, "{}\n{}", first.stdout, second.stdout);
}

#[test]
#[ignore = "takes longer; .ci/run runs it"]
fn shipped_kernels_are_clean_under_five_schedules() {
    let dist = Dist::emulating();
    let ladder: Vec<&str> = sdpa_kernel::registry::VARIANTS.iter().map(|entry| entry.name).collect();
    let shapes = ["--device", "emulator", "--shapes", "ragged,ragged-causal"];
    let arguments: Vec<&str> = ["sanitize"].into_iter().chain(ladder.iter().copied()).chain(shapes).collect();
    let ran = dist.run(&arguments).expect(0);
    // Four tools a variant; two shapes under greedy and four seeds.
    assert_eq!(ran.stdout.matches("clean on 10 launches").count(), 4 * ladder.len(), "{}", ran.stdout);
}

#[test]
#[ignore = "takes longer; .ci/run runs it"]
fn the_flagship_is_clean_and_a_schedule_that_is_none_is_refused() {
    let dist = Dist::emulating();
    let ran = dist.run(&["sanitize", "hopper", "--device", "emulator", "--shapes", "tiny"]).expect(0);
    assert_eq!(ran.stdout.matches("clean on 5 launches").count(), 4, "{}", ran.stdout);
    let ran = dist.run(&["sanitize", "stage2", "--schedule", "backwards"]).expect(2);
    assert!(ran.stderr.contains("unknown schedule `backwards`: use greedy"), "{}", ran.stderr);
}
