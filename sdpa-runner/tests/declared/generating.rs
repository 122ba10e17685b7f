//! Inputs that a gate file's `generate` makes.

use kbench::job::{GenerateJob, Job};
use kernel_spec::dtype::Dtype;
use serde_json::{Value, json};

use super::{Gate, bytes, problem, run};

fn operator() -> Value {
    json!({
        "axes": ["n"],
        "let": {"half": "n // 2"},
        "reference": "r.py",
        "generate": "g.py",
        "inputs": {
            "b": {"shape": ["n"], "dtype": "bf16"},
            "h": {"shape": ["n"], "dtype": "f16"},
            "i": {"shape": ["n"], "dtype": "u8"},
            "x": {"shape": ["n"], "dtype": "f32"},
        },
        "outputs": {"y": {"shape": ["n"], "dtype": "f32"}},
    })
}

const GOOD: &str = "
import numpy as np

def inputs(axes, seed, half):
    n = axes['n']
    rng = np.random.default_rng(seed)
    assert half == n // 2
    return {'i': rng.permutation(n), 'h': rng.standard_normal(n).astype(np.float16), 'b': np.full(n, 1 / 3)}
";

fn generate(gate: &Gate) -> Result<(), String> {
    let problems = vec![problem("small", &[("n", 6)], 0), problem("small", &[("n", 6)], 1)];
    run(&Job::Generate(GenerateJob { task: gate.task.clone(), problems })).map(drop)
}

#[test]
fn inputs_are_made_by_seed_written_dense_and_reach_the_reference() {
    let Some(gate) = Gate::with_python(operator()) else { return };
    gate.write("g.py", GOOD);
    generate(&gate).unwrap();
    let read = |seed: u64, name: &str| {
        std::fs::read(gate.path("generated").join(format!("small.seed{seed}.normal/{name}.bin"))).unwrap()
    };
    let mut order = read(0, "i");
    assert_ne!(order, read(1, "i"));
    order.sort_unstable();
    assert_eq!(order, [0, 1, 2, 3, 4, 5]);
    assert_eq!(read(0, "b"), bytes(Dtype::Bf16, &[1.0 / 3.0; 6]));
    assert_eq!((read(0, "h").len(), gate.path("generated/small.seed0.normal/x.bin").exists()), (12, false));

    gate.write(
        "r.py",
        "def reference(b, h, i, x):\n    assert sorted(i) == [0, 1, 2, 3, 4, 5] and x.std() > 0\n    return b\n",
    );
    let problem = problem("small", &[("n", 6)], 0);
    gate.leave("control", &problem, &[0; 24]);
    let errors = gate.errors(&["control"], std::slice::from_ref(&problem)).unwrap();
    let third = Dtype::Bf16.decode(&bytes(Dtype::Bf16, &[1.0 / 3.0]));
    assert_eq!(errors.values().next().unwrap().outputs[0].max, third);
}

#[test]
fn what_is_not_as_declared_is_refused_and_leaves_nothing() {
    let body = |body: &str| {
        format!("import numpy as np\ndef inputs(axes, seed):\n    n = axes['n']\n    i = np.arange(n)\n    {body}\n")
    };
    let table = [
        ("import numpy\n".to_owned(), "has no function `inputs`"),
        (body("return i"), "returns ndarray: return a dict of inputs"),
        (body("return {'i': i, 'z': i}"), "makes `z`, which is no input: there are b, h, i, x"),
        (body("return {'h': i}"), "does not make `i`, which has no distribution"),
        (body("return {'i': i[:-1]}"), "input `i` has the shape [5], and [6] is declared"),
        (body("return {'i': i - 1}"), "input `i` holds -1, which u8 cannot hold"),
        (body("return {'i': i / 2}"), "input `i` holds 0.5, which u8 cannot hold"),
        (body("return {'i': i, 'h': np.full(n, 0.1)}"), "input `h` holds 0.1, which f16 cannot hold"),
        (body("return {'i': i, 'x': np.full(n, np.nan)}"), "has NaN in `x` at [0]"),
        (
            body("return {'i': np.random.permutation(n), 'x': np.random.rand(n).astype('f4')}"),
            "differs between two calls with one seed",
        ),
        (body("raise KeyError(seed)"), "raises KeyError: 0 (g.py:5), on small.seed0.normal"),
    ];
    for (text, line) in table {
        let Some(gate) = Gate::with_python(operator()) else { return };
        gate.write("g.py", &text);
        let why = generate(&gate).unwrap_err();
        assert!(why.starts_with("generate `g.py` ") && why.contains(line), "{why}\nwanted {line}");
        assert!(!gate.path("generated/small.seed0.normal/i.bin").exists());
    }
}
