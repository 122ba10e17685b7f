//! Asking a `plan.py`: what it is told, and what becomes of one that does not do as it should.

use std::time::Duration;

use kbench::key::BadKey;
use kbench::names::Axes;
use kbench::variant::{DeclaredStep, DeviceFacts};
use kernel_spec::expr::Value;
use xtask::bounded::Limits;
use xtask::foreign::plan::{LIMITS, Question, ask_within};
use xtask::toolchain::python::Python;

/// Any Python will do: a plan needs no numpy.
fn python() -> Python {
    let environment = [("PYTHONDONTWRITEBYTECODE".to_owned(), "1".to_owned())].into();
    let (version, numpy) = (String::new(), String::new());
    Python { argv: vec!["python3".to_owned()], environment, paths: Vec::new(), version, numpy, pinned: false }
}

fn ask(plan: &str, limits: Limits) -> Result<Vec<DeclaredStep>, String> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("plan.py"), plan).unwrap();
    std::fs::write(dir.path().join("helper.py"), "def twice(n):\n    return 2 * n\n").unwrap();
    let question = Question {
        folder: dir.path(),
        variant: "split",
        file: "plan.py",
        axes: &Axes::from([("rows".to_owned(), 7), ("cols".to_owned(), 300)]),
        device: DeviceFacts { sms: 132, max_shared: 232_448, max_active: None },
        values: &[("threads".to_owned(), Value::Int(128)), ("scale".to_owned(), Value::Float(0.5))],
        define: &[("VEC".to_owned(), Value::Int(8)), ("KIND".to_owned(), "fast".into())],
    };
    ask_within(&python(), &question, limits).map_err(|error| match error.downcast::<BadKey>() {
        Ok(bad) => bad.to_string(),
        Err(error) => panic!("{error:#}"),
    })
}

#[test]
fn a_plan_is_told_the_shape_and_answers_with_launches() {
    let plan = "
import helper
def launches(axes, device, let, define):
    print('heard')
    assert device == {'sms': 132, 'max_shared': 232448, 'max_active': None} and let['scale'] == 0.5
    assert define == {'VEC': 8, 'KIND': 'fast'}
    return [
        {'memset': 'counter'},
        {'entry': f\"reduce<{let['threads']}>\", 'params': ('x', 'cols: i32', f\"{axes['rows']}: i32\"),
         'grid': [helper.twice(axes['rows']), 'ceil_div(cols, 128)'], 'block': (let['threads'],), 'shared': None},
    ]
";
    let steps = ask(plan, LIMITS).unwrap();
    let DeclaredStep::Launch(launch) = &steps[1] else { panic!() };
    let grid: Vec<String> = launch.grid.iter().map(ToString::to_string).collect();
    assert_eq!((launch.entry.as_str(), grid), ("reduce<128>", vec!["14".to_owned(), "ceil_div(cols, 128)".to_owned()]));
    assert_eq!((launch.params.len(), &launch.shared), (3, &None));
    assert_eq!(ask("def launches(device):\n    return [{'copy': ['a', 'b']}]", LIMITS).unwrap().len(), 1);
}

#[test]
fn what_a_plan_does_wrong_is_one_line() {
    let table = [
        ("def launches(axes)", "variants.split.plan: `plan.py` raises SyntaxError: "),
        ("x = 1 / 0", "variants.split.plan: `plan.py` raises ZeroDivisionError: division by zero (plan.py:1)"),
        ("def lunches(axes): pass", "variants.split.plan: `plan.py` has no function `launches`"),
        (
            "def launches(shape): pass",
            "variants.split.plan: `plan.py` `launches` has the parameter `shape`, and gets axes",
        ),
        (
            "def launches(axes):\n    return axes['heads']",
            "variants.split.plan: `plan.py` raises KeyError: 'heads' (plan.py:2)",
        ),
        ("def launches(axes): return None", "variants.split.plan: `plan.py` returns None: return a list"),
        ("def launches(axes): return []", "variants.split.plan: `plan.py` returns 0 launches"),
        (
            "def launches(axes): return [{'memset': 'x'}, {'memset': object}]",
            "variants.split.plan[1].memset: `plan.py` is <class",
        ),
        (
            "def launches(axes): return [{'entry': 'k', 'params': [None]}]",
            "variants.split.plan[0].params[0]: `plan.py` is None",
        ),
        (
            "def launches(axes): return [{'entry': 'k', 'params': [], 'grid': [float('nan')]}]",
            "variants.split.plan[0].grid[0]: `plan.py` is nan",
        ),
        (
            "def launches(axes): return [{'entry': 'k', 'params': ['x'], 'grid': [1], 'block': 'x y'}]",
            "variants.split.plan[0].block: ",
        ),
        ("import os\nos._exit(0)", "variants.split.plan: `plan.py` ended its process before it answered"),
        ("import os, signal\nos.kill(os.getpid(), 11)", "variants.split.plan: `plan.py` ended its process"),
        (
            "import random\ndef launches(axes): return [{'memset': 'x', 'byte': random.randrange(100)} for _ in range(99)]",
            "variants.split.plan: `plan.py` answers differently when it is asked again",
        ),
        ("big = bytearray(1 << 40)", "variants.split.plan: `plan.py` needs more memory than a plan may use"),
    ];
    for (plan, start) in table {
        let line = ask(plan, LIMITS).unwrap_err();
        assert!(line.starts_with(start) && line.lines().count() == 1, "{line} | {start}");
    }
    let quick = Limits { time: Duration::from_millis(500), ..LIMITS };
    let line = ask("while True: pass", quick).unwrap_err();
    assert_eq!(line, "variants.split.plan: `plan.py` took longer than 0.5 s");
}
