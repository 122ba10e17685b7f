//! Checkers: they are judged before they judge.

use kbench::operator::Problem;
use kernel_spec::dtype::Dtype;
use serde_json::{Value, json};

use super::{Gate, bytes, problem};

/// The indices of the two largest of each row, in any order.
fn operator() -> Value {
    json!({
        "axes": ["rows", "cols"],
        "check": "c.py",
        "errors": {"bad": 0},
        "inputs": {"x": {"shape": ["rows", "cols"], "dtype": "f32"}},
        "outputs": {"i": {"shape": ["rows", 2], "dtype": "i32"}, "v": {"shape": ["rows", 2], "dtype": "f32"}},
    })
}

const GOOD: &str = "
import numpy as np

def check(inputs, outputs, axes):
    x, i, v = inputs['x'], outputs['i'], outputs['v']
    assert axes == {'rows': len(x), 'cols': x.shape[1]} and i.dtype == np.int32 and v.dtype == np.float64
    wanted = np.sort(x, axis=1)[:, -2:]
    found = np.sort(np.take_along_axis(x, i, axis=1), axis=1)
    same = np.array_equal(wanted, found) and np.array_equal(np.sort(v, axis=1), wanted)
    distinct = (i[:, 0] != i[:, 1]).all()
    return {'bad': 0 if same and distinct else 1}
";

fn problems() -> [Problem; 2] {
    [0, 1].map(|seed| problem("small", &[("rows", 3), ("cols", 8)], seed))
}

/// A right answer, computed by a reference of the same gate in another guise: the inputs are those of the problem.
fn leave_right_answers(gate: &Gate, subject: &str) {
    let mut twin = operator();
    twin.as_object_mut().unwrap().remove("check");
    twin.as_object_mut().unwrap().remove("errors");
    twin["reference"] = json!("answers.py");
    let mut other = Gate::new(twin);
    other.task.python.clone_from(&gate.task.python);
    other.task.readable.clone_from(&gate.task.readable);
    let text = "
import numpy as np

def reference(x):
    i = np.argsort(x, axis=1)[:, -2:]
    v = np.take_along_axis(x, i, axis=1)
    raise ValueError('<' + (i.astype('<i4').tobytes() + v.astype('<f4').tobytes()).hex() + '>')
";
    other.write("answers.py", text);
    for problem in problems() {
        other.leave("any", &problem, &[0; 3 * 2 * 8]);
        // It may write nowhere; what it says in its last words reaches us.
        let words = other.errors(&["any"], std::slice::from_ref(&problem)).unwrap_err();
        let hex = words.split(['<', '>']).nth(1).unwrap_or_else(|| panic!("{words}"));
        let byte = |i: usize| u8::from_str_radix(&hex[i..i + 2], 16).unwrap();
        gate.leave(subject, &problem, &(0..hex.len()).step_by(2).map(byte).collect::<Vec<u8>>());
    }
}

#[test]
fn a_good_checker_accepts_what_is_right_and_rejects_the_rest() {
    let Some(gate) = Gate::with_python(operator()) else { return };
    gate.write("c.py", GOOD);
    leave_right_answers(&gate, "control");
    for problem in problems() {
        gate.leave("raises", &problem, &bytes(Dtype::I32, &[99.0; 12]));
        gate.leave("zeroes", &problem, &[0; 3 * 2 * 8]);
    }
    let errors = gate.errors(&["control", "raises", "zeroes"], &problems()).unwrap();
    let of = |subject: &str| &errors[&(subject.to_owned(), problems()[1].id())];
    assert_eq!((of("control").figures["bad"], of("control").outputs.len()), (0.0, 2));
    assert!(of("control").outputs.iter().all(|output| output.gaps_intact && output.wrong == 0));
    assert_eq!(of("zeroes").figures["bad"], 1.0);
    // An index that is out of range makes it raise: that is the candidate's fault once the control passed.
    assert_eq!(of("raises").figures["bad"], f64::MAX);
}

#[test]
fn a_checker_that_accepts_what_is_wrong_is_refused_by_name() {
    let body = |body: &str| {
        format!(
            "import numpy as np\ndef check(inputs, outputs, axes):\n    x, i, v = inputs['x'], outputs['i'], outputs['v']\n    {body}\n"
        )
    };
    let good_values = "np.array_equal(np.sort(v, axis=1), np.sort(x, axis=1)[:, -2:])";
    let table = [
        (body("return {'bad': 0}"), "accepts an output that was never written, on small.seed0.normal"),
        (body("return {'bad': 0 if np.isfinite(v).all() else 1}"), "accepts an output of zeroes"),
        (body("return {'bad': 0 if np.isfinite(v).all() and v.any() else 1}"), "accepts the output of another seed"),
        (body(&format!("return {{'bad': 0 if {good_values} else 1}}")), "accepts one destroyed element of `i`"),
        (
            body(
                "return {'bad': 0 if np.array_equal(np.sort(np.take_along_axis(x, i, 1), 1), np.sort(x, 1)[:, -2:]) else 1}",
            ),
            "accepts one destroyed element of `v`",
        ),
        (body("return {'bad': 1}"), "rejects the control's own output, on small.seed0.normal: `bad` is 1, at most 0"),
        (
            body("return {'bad': float('nan')}"),
            "`bad` is no finite number, at most 0 is allowed: the checker or the control",
        ),
        (body("return {'bad': 0, 'more': 1}"), "returns `more`, which has no limit in operator.errors"),
        (body("return {}"), "returns no `bad`, which operator.errors limits"),
        (body("return 1"), "returns int: return a dict of figures"),
        (body("return {'bad': 'much'}"), "figure `bad` is no number: much"),
        (body("return {'bad': 1 / 0}"), "raises ZeroDivisionError: division by zero (c.py:4), on small.seed0.normal"),
    ];
    let Some(gate) = Gate::with_python(operator()) else { return };
    leave_right_answers(&gate, "control");
    for (text, line) in table {
        gate.write("c.py", &text);
        let why = gate.errors(&["control"], &problems()).unwrap_err();
        assert!(why.starts_with("check `c.py` ") && why.contains(line), "{why}\nwanted {line}");
    }
}

#[test]
fn nan_passes_no_limit() {
    let Some(gate) = Gate::with_python(operator()) else { return };
    gate.write("c.py", &GOOD.replace("else 1}", "else float('nan')}"));
    leave_right_answers(&gate, "control");
    let values = bytes(Dtype::F32, &[0.0, 0.0, 0.0, f64::NAN, 0.0, f64::NAN]);
    for problem in problems() {
        gate.leave("wrong", &problem, &[&[0; 3 * 2 * 4][..], &values].concat());
    }
    let errors = gate.errors(&["control", "wrong"], &problems()).unwrap();
    let wrong = &errors[&("wrong".to_owned(), problems()[0].id())];
    assert_eq!((wrong.figures["bad"], wrong.nan, wrong.inf), (f64::MAX, 2, 0));
    assert_eq!(wrong.worst_at, [1, 1], "the first NaN has a place although no reference says what should be there");
}

#[test]
fn a_checker_is_not_judged_without_the_controls_output() {
    let Some(gate) = Gate::with_python(operator()) else { return };
    gate.write("c.py", GOOD);
    let why = gate.errors(&["control"], &problems()).unwrap_err();
    assert_eq!(why, "check `c.py` cannot be judged: the control left no output");
}
