//! References: what reaches them, what they may return, and every way in which they are refused.

use kernel_spec::dtype::Dtype;
use serde_json::{Value, json};

use super::{Gate, bytes, problem};

fn operator() -> Value {
    json!({
        "axes": ["rows", "cols"],
        "let": {"scale": "1 / sqrt(cols)"},
        "reference": "r.py",
        "inputs": {
            "i": {"shape": ["rows"], "dtype": "i32", "distribution": "integers", "low": 0, "high": "cols"},
            "m": {"shape": ["rows"], "dtype": "bool", "distribution": "constant", "value": true},
            "x": {"shape": ["rows", "cols"], "dtype": "bf16"},
        },
        "outputs": {
            "k": {"shape": ["rows"], "dtype": "i32"},
            "y": {"shape": ["rows", "cols"], "dtype": "f32"},
        },
    })
}

const GOOD: &str = "
import numpy as np

def reference(x, i, m, scale, rows):
    print('this goes to the log')
    assert x.dtype == np.float64 and i.dtype == np.int32 and m.dtype == np.bool_ and m.all()
    assert x.shape == (rows, 4) and scale == 0.5 and (i >= 0).all() and (i < 4).all()
    return {'y': x * scale, 'k': i}
";

/// What the runner says of a reference, with outputs of zeroes to compare.
fn said(operator: Value, text: &str) -> Option<Result<kbench::evidence::Errors, String>> {
    let gate = Gate::with_python(operator)?;
    gate.write("r.py", text);
    let problem = problem("small", &[("rows", 6), ("cols", 4)], 0);
    gate.leave("control", &problem, &[0; 6 * 4 + 24 * 4]);
    let compared = gate.errors(&["control"], std::slice::from_ref(&problem));
    // Whatever it did, it left nothing behind.
    let left: Vec<_> = std::fs::read_dir(gate.folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
    Some(compared.map(|errors| errors.into_values().next().unwrap()))
}

#[test]
fn inputs_arrive_in_their_types_and_outputs_come_back_as_dict_or_tuple() {
    let Some(good) = said(operator(), GOOD) else { return };
    let errors = good.unwrap();
    let [k, y] = &errors.outputs[..] else { panic!() };
    assert_eq!((k.output.as_str(), y.output.as_str()), ("k", "y"));
    assert!(k.wrong > 0 && y.wrong == 0 && y.max > 0.0 && y.max == y.reference_amax && errors.kernel_max == y.max);
    let tuple = GOOD.replace("{'y': x * scale, 'k': i}", "i, x * scale");
    assert_eq!(said(operator(), &tuple).unwrap().unwrap(), errors);
    let defaults = GOOD.replace("scale, rows", "rows, scale=7, other=3");
    assert_eq!(said(operator(), &defaults).unwrap().unwrap(), errors);
    let all = "def reference(**given):\n    return given['i'], given['x'] * given['scale']\n";
    assert_eq!(said(operator(), all).unwrap().unwrap(), errors);
}

#[test]
fn every_refusal_is_one_line_that_names_the_file() {
    let with = |result: &str| format!("import numpy as np\nimport os\ndef reference(x, i, m):\n    {result}\n");
    let table = [
        ("reference = 3\n".to_owned(), "has no function `reference`"),
        (
            "import nothing_like_it\n".to_owned(),
            "raises ModuleNotFoundError: No module named 'nothing_like_it' (r.py:1)",
        ),
        ("def reference(:\n".to_owned(), "raises SyntaxError: invalid syntax"),
        (with("raise ValueError('first\\nsecond')"), "raises ValueError: first second (r.py:4), on small.seed0.normal"),
        (with("raise SystemExit(0)"), "raises SystemExit: 0 (r.py:4)"),
        (with("os._exit(3)"), "its process ended before it answered: exit status: 3"),
        (with("pass"), "returns nothing: return an array"),
        (with("return x"), "returns one array, and the outputs are `k`, `y`: return a dict"),
        (with("return i, x, x"), "returns 3 arrays, and the outputs are `k`, `y`"),
        (with("return {'k': i, 'z': x}"), "returns `k`, `z`, and the outputs are `k`, `y`"),
        (with("return i, x.T"), "output `y` has the shape [4, 6], and [6, 4] is declared"),
        (with("return i[:, None], x"), "output `k` has the shape [6, 1], and [6] is declared"),
        (with("return i + 0.5, x"), ", which i32 cannot hold"),
        (with("return i.astype(np.int64) + 2**40, x"), ", which i32 cannot hold"),
        (with("return i, x * 1j"), "output `y` is no array of numbers: its dtype is complex128"),
        (with("return i, 'text'"), "output `y` is no array of numbers"),
        (with("x[2, 3] = np.nan; return i, x"), "has NaN in output `y` at [2, 3], on small.seed0.normal"),
        (
            with("return i, x + np.random.rand()"),
            "differs between two calls on the same inputs, in `y`, on small.seed0.normal",
        ),
        (
            "def reference(x, i):\n    return i, x\n".to_owned(),
            "`reference` has no parameter for the input `m`: it has x, i",
        ),
        (
            "def reference(x, i, m, eps):\n    return i, x\n".to_owned(),
            "`reference` has the parameter `eps`, which is no input, axis or let",
        ),
    ];
    for (text, line) in table {
        let Some(said) = said(operator(), &text) else { return };
        let why = said.unwrap_err();
        assert!(why.starts_with("reference `r.py` ") && why.contains(line), "{why}\nwanted {line}");
    }
}

#[test]
fn a_file_that_is_not_there_is_named_and_so_is_python() {
    let Some(mut gate) = Gate::with_python(operator()) else { return };
    let problem = problem("small", &[("rows", 6), ("cols", 4)], 0);
    gate.leave("control", &problem, &[0; 6 * 4 + 24 * 4]);
    let why = gate.errors(&["control"], std::slice::from_ref(&problem)).unwrap_err();
    assert!(why.starts_with("reference `r.py`: there is no such file in `"), "{why}");
    gate.write("r.py", GOOD);
    gate.task.python = vec!["/nowhere/python".to_owned()];
    let why = gate.errors(&["control"], std::slice::from_ref(&problem)).unwrap_err();
    assert!(why.starts_with("reference `r.py`: failed to start `/nowhere/python`: "), "{why}");
}

#[test]
fn infinity_equal_to_the_references_is_right() {
    let operator = json!({
        "axes": ["n"],
        "reference": "r.py",
        "inputs": {},
        "outputs": {"y": {"shape": ["n"], "dtype": "f16"}},
    });
    let Some(gate) = Gate::with_python(operator) else { return };
    gate.write("r.py", "import numpy as np\ndef reference(n):\n    return np.array([np.inf, -np.inf, 1.0, 1e6])\n");
    let problem = problem("four", &[("n", 4)], 0);
    let inf = f64::INFINITY;
    gate.leave("control", &problem, &bytes(Dtype::F16, &[inf, -inf, 1.0, inf]));
    gate.leave("wrong", &problem, &bytes(Dtype::F16, &[inf, inf, f64::NAN, 1.0]));
    let errors = gate.errors(&["control", "wrong"], std::slice::from_ref(&problem)).unwrap();
    let of = |subject: &str| &errors[&(subject.to_owned(), problem.id())];
    let (control, wrong) = (of("control"), of("wrong"));
    assert_eq!((control.outputs[0].wrong, control.nan, control.inf, control.kernel_max), (0, 0, 0, 0.0));
    assert_eq!((wrong.outputs[0].wrong, wrong.nan, wrong.inf, &wrong.worst_at[..]), (2, 1, 1, &[1][..]));
}

#[test]
fn slices_of_an_axis_must_be_what_the_whole_is() {
    let operator = |independent: &str| {
        json!({
            "axes": ["rows", "cols"],
            "reference": "r.py",
            "independent": independent,
            "inputs": {
                "w": {"shape": ["cols"], "dtype": "f32"},
                "x": {"shape": ["rows", "cols"], "dtype": "f32"},
            },
            "outputs": {"y": {"shape": ["rows", "cols"], "dtype": "f32"}},
        })
    };
    let text = "def reference(x, w, rows, cols):\n    assert x.shape == (rows, cols) and w.shape == (cols,)\n    \
                return w * (x - x.mean(axis=1, keepdims=True))\n";
    let problem = problem("small", &[("rows", 7), ("cols", 5)], 0);
    for (axis, refused) in [("rows", false), ("cols", true)] {
        let Some(gate) = Gate::with_python(operator(axis)) else { return };
        gate.write("r.py", text);
        gate.leave("control", &problem, &[0; 35 * 4]);
        let compared = gate.errors(&["control"], std::slice::from_ref(&problem));
        match compared {
            Ok(_) => assert!(!refused),
            Err(why) => {
                let line = "reference `r.py` gives other values of `y` in slices of `cols` than as a whole, on \
                            small.seed0.normal: remove operator.independent";
                assert!(refused && why == line, "{why}");
            }
        }
    }
}
