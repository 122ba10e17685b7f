//! Launches: right and wrong kernels, tails, strides, outputs in place, CTAs that wait for each other.

use kbench::job::{Planned, Scratch};
use kbench::operator::Problem;
use serde_json::{Value, json};

use super::{Gate, bytes, floats, outcomes, planned, problem, run};
use kbench::job::output_file;
use kernel_spec::dtype::Dtype;
use kernel_spec::launch::Step;

/// y = factor * x on f32; `step` is the distance between elements in bytes.
fn scale(factor: f32, step: u32) -> String {
    format!(
        "
.version 8.0
.target sm_80
.address_size 64
.visible .entry scale(.param .u64 x, .param .u64 y, .param .u32 n)
{{
    .reg .pred %p<2>;
    .reg .f32 %f<3>;
    .reg .b32 %r<6>;
    .reg .b64 %rd<6>;
    ld.param.u64 %rd1, [x];
    ld.param.u64 %rd2, [y];
    ld.param.u32 %r1, [n];
    mov.u32 %r2, %ctaid.x;
    mov.u32 %r3, %ntid.x;
    mov.u32 %r4, %tid.x;
    mad.lo.s32 %r5, %r2, %r3, %r4;
    setp.ge.s32 %p1, %r5, %r1;
    @%p1 bra DONE;
    mul.wide.s32 %rd3, %r5, {step};
    add.s64 %rd4, %rd1, %rd3;
    add.s64 %rd5, %rd2, %rd3;
    ld.global.f32 %f1, [%rd4];
    mul.f32 %f2, %f1, 0f{:08X};
    st.global.f32 [%rd5], %f2;
DONE:
    ret;
}}",
        factor.to_bits()
    )
}

fn operator() -> Value {
    json!({
        "axes": ["n"],
        "reference": "twice.py",
        "inputs": {"x": {"shape": ["n"], "dtype": "f32"}},
        "outputs": {"y": {"shape": ["n"], "dtype": "f32"}},
    })
}

const TWICE: &str = "def reference(x):\n    return 2 * x\n";

/// All elements of the axis `n`, or so many of them fewer.
fn elements(problem: &Problem, fewer: i64, names: [&str; 2]) -> Planned {
    let n = problem.shape.axes["n"];
    let scalar = json!({"scalar": {"dtype": "i32", "value": n - fewer}});
    let params = json!([{"tensor": names[0]}, {"tensor": names[1]}, scalar]);
    planned((n as u32).div_ceil(64), 64, "scale", params)
}

#[test]
fn a_right_kernel_has_no_error_and_a_wrong_one_or_a_missing_tail_has() {
    let Some(gate) = Gate::with_python(operator()) else { return };
    gate.write("twice.py", TWICE);
    let problems = [problem("ragged", &[("n", 77)], 0), problem("even", &[("n", 128)], 1)];
    let all = |problem: &Problem| elements(problem, 0, ["x", "y"]);
    for (variant, factor) in [("right", 2.0), ("wrong", 2.5)] {
        for outcome in outcomes(&gate.launch(variant, &scale(factor, 4), &problems, &all)) {
            assert_eq!((outcome.failure, outcome.deferred, outcome.findings), (None, None, Vec::new()));
            assert!(outcome.repeat_equal && outcome.inputs_unchanged && outcome.guards_intact);
        }
    }
    let tail = |problem: &Problem| elements(problem, 1, ["x", "y"]);
    assert_eq!(outcomes(&gate.launch("tail", &scale(2.0, 4), &problems, &tail)).len(), 2);
    let errors = gate.errors(&["right", "wrong", "tail", "nobody"], &problems).unwrap();
    assert_eq!(errors.len(), 6);
    for problem in &problems {
        let of = |subject: &str| &errors[&(subject.to_owned(), problem.id())];
        let (right, wrong, tail) = (of("right"), of("wrong"), of("tail"));
        let y = &right.outputs[0];
        assert_eq!((y.wrong, y.max, right.nan, right.from_control_max), (0, 0.0, 0, Some(0.0)));
        let y = &wrong.outputs[0];
        assert!((y.relative - 0.25).abs() < 1e-6 && y.max == wrong.kernel_max && y.max > 0.5 && y.wrong == 0);
        assert!(wrong.from_control_max.unwrap() > 0.5);
        let y = &tail.outputs[0];
        assert_eq!((y.wrong, tail.nan, tail.inf, y.max), (1, 1, 0, 0.0));
        assert_eq!(i64::from(y.worst_at[0]), problem.shape.axes["n"] - 1);
        assert_eq!(tail.from_control_max, Some(f64::MAX));
    }
}

#[test]
fn an_output_in_place_has_one_memory_by_both_names() {
    let cases = [
        ("x", json!({"x": {"shape": ["n"], "dtype": "f32", "inplace": "x"}})),
        ("y", json!({"y": {"shape": ["n"], "dtype": "f32", "inplace": "x"}})),
    ];
    for (output, outputs) in cases {
        let mut operator = operator();
        operator["outputs"] = outputs;
        let Some(gate) = Gate::with_python(operator) else { return };
        gate.write("twice.py", TWICE);
        let problems = [problem("ragged", &[("n", 77)], 0)];
        for names in [["x", output], ["x", "x"]] {
            let plan = |problem: &Problem| elements(problem, 0, names);
            let outcome = &outcomes(&gate.launch("control", &scale(2.0, 4), &problems, &plan))[0];
            assert_eq!((&outcome.failure, outcome.findings.len()), (&None, 0));
            assert!(outcome.inputs_unchanged && outcome.repeat_equal);
            let errors = gate.errors(&["control"], &problems).unwrap();
            let y = &errors.values().next().unwrap().outputs[0];
            assert_eq!((y.output.as_str(), y.wrong, y.max), (output, 0, 0.0));
        }
    }
}

#[test]
fn strides_leave_gaps_that_must_stay_as_they_were() {
    let mut operator = operator();
    operator["inputs"]["x"]["strides"] = json!([2]);
    operator["outputs"]["y"]["strides"] = json!([2]);
    let Some(gate) = Gate::with_python(operator) else { return };
    gate.write("twice.py", TWICE);
    let problems = [problem("ragged", &[("n", 77)], 0)];
    let all = |problem: &Problem| elements(problem, 0, ["x", "y"]);
    assert_eq!(outcomes(&gate.launch("control", &scale(2.0, 8), &problems, &all))[0].failure, None);
    let mut written = std::fs::read(gate.path("control").join(output_file(&problems[0]))).unwrap();
    assert_eq!(written.len(), 153 * 4);
    assert_eq!(written[4..8], [0x5a, 0x5a, 0xfa, 0xff]);
    written[4] = 0;
    gate.leave("careless", &problems[0], &written);
    let errors = gate.errors(&["control", "careless"], &problems).unwrap();
    let of = |subject: &str| &errors[&(subject.to_owned(), problems[0].id())].outputs[0];
    assert_eq!((of("control").max, of("control").gaps_intact), (0.0, true));
    assert_eq!((of("careless").max, of("careless").gaps_intact), (0.0, false));
}

/// Every CTA waits for the flag of the one at `other`, then sets its own to one more.
fn chain(other: &str) -> String {
    format!(
        "
.version 8.0
.target sm_80
.address_size 64
.visible .entry chain(.param .u64 flags, .param .u64 y)
{{
    .reg .pred %p<3>;
    .reg .b32 %r<8>;
    .reg .b64 %rd<8>;
    ld.param.u64 %rd1, [flags];
    ld.param.u64 %rd2, [y];
    mov.u32 %r1, %ctaid.x;
    mov.u32 %r2, %nctaid.x;
    mul.wide.u32 %rd3, %r1, 4;
    add.s64 %rd4, %rd1, %rd3;
    add.s64 %rd5, %rd2, %rd3;
    mov.u32 %r5, 0;
    {other}
    @%p1 bra SET;
    mul.wide.s32 %rd6, %r4, 4;
    add.s64 %rd7, %rd1, %rd6;
WAIT:
    ld.acquire.gpu.global.u32 %r5, [%rd7];
    setp.eq.u32 %p2, %r5, 0;
    @%p2 bra WAIT;
SET:
    add.u32 %r6, %r5, 1;
    st.global.u32 [%rd5], %r6;
    st.release.gpu.global.u32 [%rd4], %r6;
    ret;
}}"
    )
}

fn chained(cooperative: bool) -> impl Fn(&Problem) -> Planned {
    move |problem: &Problem| {
        let n = problem.shape.axes["n"];
        let params = json!([{"tensor": "flags"}, {"tensor": "y"}]);
        let mut planned = planned(n as u32, 1, "chain", params);
        planned.scratch = vec![Scratch { name: "flags".into(), bytes: 4 * n as usize, zero_once: false }];
        if let Step::Launch(launch) = &mut planned.steps[0] {
            launch.cooperative = cooperative;
        }
        planned.steps.insert(0, Step::Memset { tensor: "flags".into(), byte: 0 });
        planned
    }
}

fn counting() -> Value {
    json!({
        "axes": ["n"],
        "reference": "count.py",
        "inputs": {},
        "outputs": {"y": {"shape": ["n"], "dtype": "i32"}},
    })
}

#[test]
#[ignore = "takes longer; .ci/run runs it"]
fn ctas_may_wait_for_earlier_ones_and_for_later_ones_where_all_run_at_once() {
    let Some(gate) = Gate::with_python(counting()) else { return };
    gate.write("count.py", "import numpy as np\ndef reference(n):\n    return np.arange(1, n + 1)\n");
    let earlier = "setp.eq.u32 %p1, %r1, 0; sub.s32 %r4, %r1, 1;";
    let problems = [problem("long", &[("n", 1000)], 0)];
    let outcome = &outcomes(&gate.launch("look-back", &chain(earlier), &problems, &chained(false)))[0];
    assert_eq!((&outcome.failure, &outcome.findings), (&None, &Vec::new()));
    let errors = gate.errors(&["look-back"], &problems).unwrap();
    let y = &errors.values().next().unwrap().outputs[0];
    assert_eq!((y.wrong, y.elements, y.reference_amax), (0, 1000, 1000.0));

    let later = "add.s32 %r4, %r1, 1; setp.eq.u32 %p1, %r4, %r2;";
    let problems = [problem("more-than-run-at-once", &[("n", 300)], 0)];
    let outcome = &outcomes(&gate.launch("together", &chain(later), &problems, &chained(true)))[0];
    assert_eq!((&outcome.failure, &outcome.findings), (&None, &Vec::new()));
    let outcome = &outcomes(&gate.launch("alone", &chain(later), &problems, &chained(false)))[0];
    assert!(outcome.findings.iter().any(|finding| finding.contains("no progress")), "{:?}", outcome.findings);
}

/// Adds 1 to a counter that it should leave at zero, and writes what it found.
const COUNTER: &str = "
.version 8.0
.target sm_80
.address_size 64
.visible .entry chain(.param .u64 flags, .param .u64 y)
{
    .reg .b32 %r<4>;
    .reg .b64 %rd<4>;
    ld.param.u64 %rd1, [flags];
    ld.param.u64 %rd2, [y];
    ld.global.u32 %r1, [%rd1];
    add.u32 %r2, %r1, 1;
    st.global.u32 [%rd1], %r2;
    st.global.u32 [%rd2], %r2;
    ret;
}";

#[test]
fn scratch_that_is_zeroed_once_keeps_what_a_launch_leaves() {
    let gate = Gate::new(counting());
    let plan = |problem: &Problem| {
        let mut planned = chained(false)(problem);
        planned.steps.remove(0);
        planned.scratch[0].zero_once = true;
        planned
    };
    let problems = [problem("one", &[("n", 1)], 0)];
    let outcome = &outcomes(&gate.launch("counter", COUNTER, &problems, &plan))[0];
    assert_eq!((&outcome.failure, outcome.repeat_equal), (&None, false));
    assert_eq!(floats(&gate.path("counter").join(output_file(&problems[0])))[0].to_bits(), 1);
}

#[test]
fn what_the_emulator_does_not_take_on_is_deferred_by_name() {
    let gate = Gate::new(operator());
    let small = problem("small", &[("n", 64)], 0);
    let deferred = |ptx: &str, problem: &Problem, plan: &dyn Fn(&Problem) -> Planned| {
        let outcome = outcomes(&gate.launch("v", ptx, std::slice::from_ref(problem), plan)).remove(0);
        let deferral = outcome.deferred.expect("it is deferred");
        assert_eq!(outcome.failure, Some(deferral.to_string()));
        assert!(deferral.remedy.contains("GPU"), "{deferral}");
        deferral.why
    };
    let wide = |problem: &Problem| planned(2_000_000_000, 1024, "scale", elements_params(problem));
    assert!(deferred(&scale(2.0, 4), &small, &wide).contains("grids of at most"));
    let large = problem("large", &[("n", 100_000_000)], 0);
    assert!(deferred(&scale(2.0, 4), &large, &|p| elements(p, 0, ["x", "y"])).contains("MiB"));
    let together = |problem: &Problem| {
        let mut planned = planned(4096, 1024, "scale", elements_params(problem));
        if let Step::Launch(launch) = &mut planned.steps[0] {
            launch.cooperative = true;
        }
        planned
    };
    assert!(deferred(&scale(2.0, 4), &small, &together).contains("cooperative grid"));
    let unknown = scale(2.0, 4).replace("mul.f32 %f2", "frobnicate.f32 %f2");
    assert!(deferred(&unknown, &small, &|p| elements(p, 0, ["x", "y"])).contains("cannot execute"));
    let map = |problem: &Problem| {
        let mut params = elements_params(problem);
        params[0] = json!({"map": {"tensor": "x", "box": [64], "swizzle": 0}});
        planned(1, 64, "scale", params)
    };
    assert!(deferred(&scale(2.0, 4), &small, &map).contains("tensor map"));
}

fn elements_params(problem: &Problem) -> Value {
    json!([{"tensor": "x"}, {"tensor": "y"}, {"scalar": {"dtype": "i32", "value": problem.shape.axes["n"]}}])
}

#[test]
fn what_nobody_can_be_launched_on_ends_the_job() {
    let mut generated = operator();
    generated["generate"] = json!("inputs.py");
    let gate = Gate::new(generated);
    let problems = [problem("small", &[("n", 64)], 0)];
    let plan = |problem: &Problem| elements(problem, 0, ["x", "y"]);
    let why = run(&gate.launch("v", &scale(2.0, 4), &problems, &plan)).unwrap_err();
    assert!(why.starts_with("input `x` of small.seed0.normal was not generated: no `"), "{why}");
    let gate = Gate::new(operator());
    let kbench::job::Job::Launch(mut job) = gate.launch("v", &scale(2.0, 4), &problems, &plan) else { panic!() };
    job.problems[0].shape.name = "other".to_owned();
    let why = run(&kbench::job::Job::Launch(job.clone())).unwrap_err();
    assert_eq!(why, "`v` has no plan for the shape `other`");
    job.problems[0].shape.name = "small".to_owned();
    job.problems[0].distribution = kbench::operator::Distribution::MaximumLast;
    let why = run(&kbench::job::Job::Launch(job)).unwrap_err();
    assert!(why.starts_with("the distribution `maximum-last` means something for attention alone"), "{why}");
}

#[test]
fn a_missing_entry_is_the_kernels_fault() {
    let gate = Gate::new(operator());
    let problems = [problem("small", &[("n", 64)], 0)];
    let plan = |problem: &Problem| planned(1, 64, "scales", elements_params(problem));
    let outcome = &outcomes(&gate.launch("v", &scale(2.0, 4), &problems, &plan))[0];
    assert_eq!(outcome.failure.as_deref(), Some("no entry function `scales`; there are: scale"));
    assert_eq!(outcome.deferred, None);
}

#[test]
fn an_integer_that_was_not_written_is_not_minus_one() {
    let Some(gate) = Gate::with_python(counting()) else { return };
    gate.write("count.py", "import numpy as np\ndef reference(n):\n    return np.full(n, -1)\n");
    let problems = [problem("two", &[("n", 2)], 0)];
    let plan = |problem: &Problem| Planned { steps: Vec::new(), ..chained(false)(problem) };
    assert_eq!(outcomes(&gate.launch("idle", COUNTER, &problems, &plan))[0].failure, None);
    gate.leave("right", &problems[0], &bytes(Dtype::I32, &[-1.0, -1.0]));
    let errors = gate.errors(&["right", "idle"], &problems).unwrap();
    let wrong = |subject: &str| errors[&(subject.to_owned(), problems[0].id())].outputs[0].wrong;
    assert_eq!((wrong("right"), wrong("idle")), (0, 2));
}
