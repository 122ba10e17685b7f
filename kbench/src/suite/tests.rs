//! Suite files that are right, and every way to be wrong. Leaves to others: what a suite means.

use super::*;

const GOOD: &str = r#"
name = "t"
about = "a test"
control = "stage2"
arch = "sm_89"
seeds = [0]
check_shapes = ["tiny", "mission"]
time_shapes = ["mission"]
[[candidates]]
variant = "ws-p1"
[resources]
max_registers = 120
max_shared_kib = 64
max_spill_bytes = 0
[[performance]]
shape = "mission"
min_latency_reduction = 0.10
"#;

#[test]
fn a_good_file_parses_and_survives_a_round_trip() {
    let suite = Suite::parse(GOOD).unwrap();
    assert_eq!(suite.variant_names().collect::<Vec<_>>(), ["stage2", "ws-p1"]);
    assert_eq!(Suite::parse(&toml::to_string(&suite).unwrap()).unwrap(), suite);
}

#[test]
fn a_recorded_suite_that_says_no_sittings_was_measured_in_one() {
    assert_eq!(Suite::parse(GOOD).unwrap().timing.sittings, 16);
    assert!(Suite::parse_recorded(GOOD).unwrap().timing.is_of_one_sitting());
    let recorded = toml::to_string(&Suite::parse(GOOD).unwrap()).unwrap();
    assert_eq!(Suite::parse_recorded(&recorded).unwrap().timing.sittings, 16);
    let of_old = GOOD.to_owned() + "[timing]\nrounds = 16\nmax_rounds = 64\n";
    let timing = Suite::parse_recorded(&of_old).unwrap().timing;
    assert_eq!((timing.sittings, timing.rounds, timing.max_rounds), (1, 16, 64));
}

#[test]
fn a_control_that_is_called_accepted_is_what_was_accepted_last() {
    let ledger = r#"{"format": 1, "accepted": [{"suite": "t", "variant": "stage3b", "control": "stage2",
        "when": "2026-11-27T17:00:00Z", "run": "r", "root": "0", "device": "NVIDIA L4", "nvcc": "13.0.88", "code": {},
        "figures": []}]}"#;
    let ledger = Ledger::parse(ledger).unwrap();
    let asks = GOOD.replace("control = \"stage2\"", "control = \"accepted\"");
    assert_eq!(Suite::parse_with(&asks, &ledger).unwrap().control, "stage3b");
    assert_eq!(Suite::parse_with(GOOD, &ledger).unwrap().control, "stage2", "whoever names a variant means it");
    let refused = |text: &str, ledger: &Ledger| Suite::parse_with(text, ledger).unwrap_err().to_string();
    assert!(
        refused(&asks, &Ledger::default()).starts_with("control: nothing was accepted yet for `t`: name a variant")
    );
    let other = asks.replace("name = \"t\"", "name = \"u\"");
    assert!(refused(&other, &ledger).contains("nothing was accepted yet for `u`"), "of another suite");
    let again = asks.replace("\"ws-p1\"", "\"stage3b\"");
    assert!(refused(&again, &ledger).starts_with("candidates: `stage3b` was accepted and is the control now"));
    let named = DECLARED.replace("variants.old", "variants.accepted");
    assert!(refused(&named, &ledger).starts_with("variants.accepted: is what `control` calls"));
}

const DECLARED: &str = r#"
name = "t"
control = "old"
candidates = ["new"]
[operator]
axes = ["n"]
reference = "t.py"
inputs.x = { shape = ["n"], dtype = "f16" }
outputs.y = { shape = ["n"], dtype = "f16" }
[shapes]
a = { n = 64 }
[variants.old]
source = "t.cu"
entry = "f"
params = ["x", "y"]
grid = [1]
block = [32]
[variants.new]
base = "old"
entry = "g"
"#;

#[test]
fn a_gate_file_times_outliers_too_where_it_does_not_draw_its_own_and_a_recorded_run_what_it_timed() {
    let timed = |text: &str| Suite::parse(text).unwrap().time_distributions;
    let both = vec![Distribution::Normal, Distribution::Outliers];
    assert_eq!(timed(DECLARED), both);
    let said = DECLARED.replace("[operator]", "time_distributions = [\"normal\"]\n[operator]");
    assert_eq!(timed(&said), [Distribution::Normal]);
    let drawn = DECLARED.replace("inputs.x = { ", "inputs.x = { distribution = \"uniform\", ");
    assert_eq!(timed(&drawn), [Distribution::Normal]);
    let generated = DECLARED.replace("reference", "generate = \"t.py\"\nreference");
    assert_eq!(timed(&generated), [Distribution::Normal]);
    assert_eq!(timed(GOOD), [Distribution::Normal]);
    for text in [DECLARED, &said] {
        let written = toml::to_string(&Suite::parse(text).unwrap()).unwrap();
        assert_eq!(Suite::parse_recorded(&written).unwrap().time_distributions, timed(text), "as it was used");
    }
    assert_eq!(Suite::parse_recorded(DECLARED).unwrap().time_distributions, [Distribution::Normal], "as before");
}

#[test]
fn a_fresh_seed_is_one_more_on_every_shape() {
    let mut suite = Suite::parse(GOOD).unwrap();
    suite.fresh_seed = Some(77);
    suite.large = Some(LargeShapes { shapes: vec!["mission".into()], reference_rows: 8, rounds: 8 });
    assert_eq!([suite.seeds_on("tiny"), suite.seeds_on("mission")], [[0, 77], [0, 77]]);
    suite.fresh_seed = Some(0);
    assert!(suite.validate().unwrap_err().to_string().contains("named twice"));
}

#[test]
fn sittings_share_the_rounds_and_a_large_shape_has_one_each() {
    let mut suite = Suite::parse(GOOD).unwrap();
    assert_eq!((suite.rounds_of_sitting("mission"), suite.looks("mission")), (2, 3));
    suite.large = Some(LargeShapes { shapes: vec!["mission".into()], reference_rows: 8, rounds: 8 });
    assert_eq!((suite.rounds_of_sitting("mission"), suite.looks("mission")), (1, 3));
    suite.timing = Timing { sittings: 1, rounds: 16, max_rounds: 64, ..suite.timing };
    assert_eq!((suite.rounds_of_sitting("mission"), suite.looks("mission")), (8, 8));
}

#[test]
fn every_wrong_file_is_refused_in_one_line_that_names_the_key() {
    let cases = [
        ("name = \"t\"", "format = 2\nelegance = 1\nname = \"t\"", "format: is 2, and this program reads format 1"),
        ("name = \"t\"", "name = 3", "invalid type: integer `3`"),
        ("arch =", "archx =", "unknown field `archx`"),
        ("max_registers = 120", "max_registers = \"many\"", "invalid type: string"),
        ("max_registers = 120", "", "missing field `max_registers`"),
        ("[\"tiny\"", "[\"tinny\"", "check_shapes: unknown shape `tinny`"),
        ("[\"tiny\", \"mission\"]", "[\"tiny\"]", "`mission` is timed but not in check_shapes"),
        ("seeds = [0]", "seeds = []", "seeds: give at least one"),
        ("seeds = [0]", "seeds = [0, 0]", "seeds: a seed is named twice"),
        ("variant = \"ws-p1\"", "variant = \"ws-p1\"\nunless_spills = \"ws-p9\"", "`ws-p9` is no candidate"),
        ("variant = \"ws-p1\"", "variant = \"stage2\"", "`stage2` is named twice"),
        ("shape = \"mission\"", "shape = \"long\"", "`long` is gated but not in time_shapes"),
        ("= 0.10", "= 10", "is a share"),
        ("= 0.10", "= 0.10\ncandidate = \"stage2\"", "performance.candidate: `stage2` is no candidate"),
        ("= 0.10", "= 0.10\nagainst = \"ws-p9\"", "performance.against: `ws-p9` is no variant"),
        ("[resources]", "[peers]\nmax_ratio = 2.0\nbaseline = \"torch/default\"\n[resources]", "peers.max_ratio"),
        ("[[candidates]]", "[variants.x]\nbase=\"stage2\"\n[[candidates]]", "`x` is defined but neither"),
        ("[resources]", "[timing]\nlaunches = 0\n[resources]", "--iters"),
        (
            "[resources]",
            "[[profile]]\nshape = \"long\"\nmin_tensor_percent = 50.0\n[resources]",
            "profile.shape: `long` is gated but not in check_shapes",
        ),
        (
            "[resources]",
            "[[profile]]\nshape = \"tiny\"\nmin_tensor_percent = 500.0\n[resources]",
            "profile: limits are percentages",
        ),
        (
            "[resources]",
            "[[profile]]\nshape = \"tiny\"\nmin_tensor_percent = 50.0\ncandidate = \"x\"\n[resources]",
            "profile.candidate: `x` is no candidate",
        ),
        ("[resources]", "[machine_code]\nrequire = [\"QMMA.16832\"]\n[resources]", "`QMMA.16832` is no mnemonic"),
        (
            "[resources]",
            "[timing]\nmax_rounds = 4000000000\n[resources]",
            "timing.max_rounds: is 4000000000: a run could",
        ),
        ("[resources]", "[timing]\nlaunches = 20000\n[resources]", "timing.launches: is 20000"),
        ("[resources]", "[timing]\nsittings = 4\n[resources]", "timing.sittings: must be at least 8"),
        ("[resources]", "[correctness]\nkernel_max_f16 = inf\n[resources]", "correctness.kernel_max_f16: is inf"),
        ("[resources]", "[correctness]\nbad_share = nan\n[resources]", "correctness.bad_share: is NaN"),
        ("[resources]", "[regressions]\nmax_slowdown = -0.5\n[resources]", "regressions.max_slowdown: is -0.5"),
        ("seeds = [0]", "seeds = [0]\ntime_distributions = []", "time_distributions: give at least one"),
        (
            "seeds = [0]",
            "seeds = [0]\ntime_distributions = [\"normal\", \"normal\"]",
            "time_distributions: give at least one, and none twice",
        ),
        ("name = ", "name ", "line 2"),
    ];
    for (from, to, expected) in cases {
        assert!(GOOD.contains(from), "{from} is not in the template");
        let error = Suite::parse(&GOOD.replacen(from, to, 1)).unwrap_err().to_string();
        assert!(error.contains(expected), "{to}: {error}");
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn a_suite_that_is_used_says_what_is_asked_and_a_recorded_one_is_left_as_it_was() {
    let emulating = format!("{GOOD}[emulation]\nshapes = [\"tiny\"]\nmax_ctas = 8\n");
    let recorded = Suite::parse(&emulating).unwrap();
    assert_eq!((recorded.stress_distributions().len(), recorded.odd().len()), (8, 0), "those of before");
    assert!(!recorded.stress_distributions().contains(&Distribution::OppositeConstants));
    let mut used = recorded.clone();
    used.settle();
    assert_eq!(used.stress_distributions().len(), Distribution::ALL.len() - 1);
    assert_eq!(used.correctness.proportion, Some(ProportionLimits::default()));
    let odd: Vec<String> = used.odd().into_iter().map(|shape| shape.name).collect();
    assert_eq!(odd, attention::ODD);
    assert!(odd.iter().all(|shape| used.is_odd(shape) && used.emulation.as_ref().unwrap().shapes.contains(shape)));
    let mut again = Suite::parse(&toml::to_string(&used).unwrap()).unwrap();
    again.settle();
    assert_eq!(again, used, "what it says stays, however often it is read");
}

#[test]
fn a_suite_may_ask_for_less_where_it_says_so_and_for_nothing_twice() {
    let with = |lines: &str| Suite::parse(&GOOD.replacen("seeds = [0]", &format!("seeds = [0]\n{lines}"), 1));
    let mut none = with("odd = { shapes = [] }\ndistributions = [\"outliers\"]").unwrap();
    none.settle();
    assert_eq!((none.odd().len(), none.stress_distributions()), (0, vec![Distribution::Outliers]));
    let mut named = Suite::parse(&GOOD.replace("[\"tiny\", ", "[\"1x1x5x30x64\", ")).unwrap();
    named.settle();
    assert_eq!((named.validate(), named.odd().len()), (Ok(()), attention::ODD.len() - 1));
    for (lines, expected) in [
        ("odd = { shapes = [\"tiny\"], distributions = [\"normal\"] }", "odd.shapes: `tiny` is in check_shapes"),
        ("odd = { shapes = [\"small\"] }", "odd: are shapes of attention, each on the distributions"),
        ("odd = { shapes = [\"smal\"], distributions = [\"normal\"] }", "odd.shapes: unknown shape `smal`"),
        ("distributions = [\"normal\"]", "distributions: are those besides the usual one"),
    ] {
        let error = with(lines).unwrap_err().to_string();
        assert!(error.contains(expected), "{lines}: {error}");
    }
}
