//! Everything that can be wrong with a declared operator, its shapes and its variants, each said in one line that names
//! the key. The table edits a good file in one place. Leaves to others: the rest of a gate file.

use kbench::key::{BadKey, from_toml};
use kbench::names::{Axes, Namespace};
use kbench::operator::declared::Declared;
use kbench::ordered::Ordered;
use kbench::variant::{DeviceFacts, VariantTable, resolve};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    operator: Declared,
    shapes: Ordered<Axes>,
    variants: Ordered<VariantTable>,
}

/// All that is asked before anything is compiled, in the order in which it is asked.
fn judge(text: &str) -> Result<(), BadKey> {
    let file: File = from_toml(text)?;
    let mut space = Namespace::default();
    file.operator.check(&mut space)?;
    for (shape, axes) in file.shapes.iter() {
        if let Some(why) = file.operator.refuse(axes) {
            return Err(BadKey::new(format!("shapes.{shape}"), why));
        }
        file.operator.tensors(axes)?;
        file.operator.work(axes)?;
        file.operator.limits(axes)?;
    }
    let device = DeviceFacts { sms: 132, max_shared: 100_000, max_active: None };
    for name in file.variants.keys() {
        let variant = resolve(name, &file.variants)?;
        variant.check(&file.operator, &space)?;
        for (_, axes) in file.shapes.iter() {
            variant.build(&file.operator, axes)?;
            variant.steps(&file.operator, axes, device, 0)?;
        }
    }
    Ok(())
}

const GOOD: &str = r#"
[operator]
axes = ["rows", "cols"]
let = { half = "cols // 2" }
constraints = ["cols >= 32"]
reference = "softmax.py"
inputs.x = { shape = ["rows", "cols"], dtype = "f16" }
inputs.index = { shape = ["rows"], dtype = "i32", distribution = "integers", low = 0, high = "cols" }
outputs.y = { shape = ["rows", "cols"], dtype = "f16", errors = { max = 1e-3 } }
cost = { bytes = "4 * rows * cols" }
[shapes]
ragged = { rows = 3, cols = 77 }
[variants.two-pass]
source = "softmax.cu"
define = { VEC = 8 }
let = { threads = 256 }
scratch.part = { shape = ["rows", 4], dtype = "f32" }
entry = "softmax_two_pass"
params = ["x", "index", "y", "part", "rows: i32", "cols: i32"]
grid = ["rows"]
block = ["threads"]
[variants.online]
base = "two-pass"
entry = "softmax_online<{threads}>"
[variants.steps]
source = "softmax.cu"
launches = [
  { memset = "y", byte = 0 },
  { entry = "softmax", params = ["x", "y"], grid = ["rows"], block = [128] },
]
"#;

/// One way to break the good file: what is replaced, by what, and the line that must come of it.
struct Case<'a> {
    from: String,
    to: String,
    line: &'a str,
}

/// Blocks of three lines, `-` what is replaced, `+` by what, `=` the refusal; `\n` is a line break.
fn cases() -> Vec<Case<'static>> {
    let text = include_str!("data/bad_declarations.txt");
    let blocks = text.split("\n\n").filter(|block| !block.trim_start().starts_with('#'));
    let case = |block: &'static str| {
        let lines: Vec<&str> = block.trim_end().lines().collect();
        let [from, to, line] = lines[..] else { panic!("not three lines: {block}") };
        let part = |line: &'static str, mark: &str| {
            line.strip_prefix(mark).unwrap_or_else(|| panic!("no `{mark}`: {line}")).trim_start_matches(' ')
        };
        Case {
            from: part(from, "-").replace("\\n", "\n"),
            to: part(to, "+").replace("\\n", "\n"),
            line: part(line, "="),
        }
    };
    blocks.map(case).collect()
}

#[test]
fn the_good_file_is_good() {
    assert_eq!(judge(GOOD), Ok(()));
}

#[test]
fn every_fault_is_one_line_with_its_key() {
    let cases = cases();
    let mut wrong = Vec::new();
    for Case { from, to, line } in &cases {
        assert_eq!(GOOD.matches(from.as_str()).count(), 1, "`{from}` is not in the good file once");
        match judge(&GOOD.replace(from.as_str(), to)) {
            Ok(()) => wrong.push(format!("accepted: {to}")),
            Err(error) if error.to_string() != *line => wrong.push(format!("{to}\n  is    {error}\n  wants {line}")),
            Err(_) => {}
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    assert!(cases.len() >= 60);
}
