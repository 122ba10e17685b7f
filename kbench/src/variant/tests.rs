//! Variants from the text of a gate file to what is launched on a shape.

use kernel_spec::dtype::Dtype;
use kernel_spec::expr::Value;
use kernel_spec::launch::{Argument, Step};
use serde::Deserialize;

use super::*;
use crate::key::from_toml;
use crate::names::Namespace;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    operator: Declared,
    shapes: Ordered<Axes>,
    variants: Ordered<VariantTable>,
}

const H200: DeviceFacts = DeviceFacts { sms: 132, max_shared: 232_448, max_active: Some(2) };

impl File {
    fn read(text: &str) -> File {
        from_toml(text).unwrap()
    }

    fn variant(&self, name: &str) -> Variant {
        let mut space = Namespace::default();
        self.operator.check(&mut space).unwrap();
        let variant = resolve(name, &self.variants).unwrap();
        variant.check(&self.operator, &space).unwrap();
        variant
    }

    fn steps(&self, name: &str, shape: &str) -> Vec<Step> {
        self.variant(name).steps(&self.operator, self.shapes.get(shape).unwrap(), H200, 7).unwrap()
    }

    fn builds(&self, name: &str) -> Vec<Build> {
        let variant = self.variant(name);
        Build::distinct(self.shapes.iter().map(|(_, axes)| variant.build(&self.operator, axes).unwrap()))
    }
}

const SOFTMAX: &str = r#"
[operator]
axes = ["rows", "cols"]
reference = "softmax.py"
inputs.x = { shape = ["rows", "cols"], dtype = "f16" }
outputs.y = { shape = ["rows", "cols"], dtype = "f16", errors = { max = 1e-3 } }
cost = { bytes = "4 * rows * cols" }
[shapes]
ragged = { rows = 3, cols = 77 }
logits = { rows = 4096, cols = 32000 }
[variants.two-pass]
source = "softmax.cu"
let = { threads = 256 }
entry = "softmax_two_pass"
params = ["x", "y", "rows: i32", "cols: i32"]
grid = ["rows"]
block = ["threads"]
[variants.online]
base = "two-pass"
entry = "softmax_online<{threads}>"
define = { VEC = 8 }
[variants.wide]
base = "online"
define = { VEC = "2 if cols < 1024 else 16", NAME = "'f<' + NAME2 + '>'", NAME2 = "'half'", FAST = true, EPS = "1 / 8" }
let = { threads = 512 }
"#;

fn scalar(dtype: Dtype, value: impl Into<Value>, text: &str) -> Argument {
    Argument::Scalar { dtype, value: value.into(), text: text.into() }
}

#[test]
fn a_variant_inherits_what_it_does_not_say() {
    let file = File::read(SOFTMAX);
    let steps = file.steps("online", "ragged");
    let [Step::Launch(launch)] = &steps[..] else { panic!("{steps:?}") };
    assert_eq!(launch.entry, "softmax_online<256>");
    assert_eq!((launch.grid, launch.block), ([3, 1, 1], [256, 1, 1]));
    let params = [
        Argument::Tensor("x".into()),
        Argument::Tensor("y".into()),
        scalar(Dtype::I32, 3, "rows"),
        scalar(Dtype::I32, 77, "cols"),
    ];
    assert_eq!(launch.params, params);
    let wide = file.variant("wide");
    assert_eq!(wide.define.keys().collect::<Vec<_>>(), ["VEC", "NAME", "NAME2", "FAST", "EPS"]);
    assert_eq!((wide.source.as_str(), wide.flags.as_slice()), ("softmax.cu", [STANDARD.to_owned()].as_slice()));
}

#[test]
fn shapes_share_a_build_where_their_definitions_agree() {
    let file = File::read(SOFTMAX);
    let two_pass = file.builds("two-pass");
    assert_eq!(two_pass, [Build { defines: Vec::new(), entries: vec!["softmax_two_pass".into()], triton: None }]);
    let wide = file.builds("wide");
    let texts = |build: &Build| build.defines.iter().map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>();
    assert_eq!(texts(&wide[0]), ["VEC=2", "NAME=f<half>", "NAME2=half", "FAST=1", "EPS=0.125"]);
    assert_eq!(texts(&wide[1])[0], "VEC=16");
    assert_eq!((wide.len(), wide[0].entries.as_slice()), (2, ["softmax_online<512>".to_owned()].as_slice()));
    let defines = file.variant("wide").defines(&file.operator, file.shapes.get("logits").unwrap()).unwrap();
    assert_eq!(defines, wide[1].defines);
}

const DECODE: &str = r#"
[operator]
axes = ["batch", "heads", "d"]
let = { scale = "1 / sqrt(d)" }
reference = "decode.py"
inputs.q = { shape = ["batch", "heads", "d"], dtype = "bf16" }
inputs.table = { shape = ["d"], dtype = "f32" }
outputs.out = { shape = ["batch", "heads", "d"], dtype = "bf16" }
outputs.q = { shape = ["batch", "heads", "d"], dtype = "bf16", inplace = "q" }
[shapes]
a = { batch = 7, heads = 32, d = 64 }
b = { batch = 7, heads = 32, d = 128 }
[variants.split]
source = "decode.cu"
let = { splits = 8, random = "seed % 3 == 1" }
include = ["../include"]
flags = ["-std=c++20", "--use_fast_math"]
scratch.part = { shape = ["batch", "heads", "splits", "d + 1"], dtype = "f32" }
scratch.ticket = { shape = ["sms * max_active"], dtype = "u32", zero = "once" }
scratch.copy = { shape = ["batch * heads", "d"], dtype = "bf16" }
symbols = { lookup = "table" }
[[variants.split.launches]]
memset = "part"
byte = 255
[[variants.split.launches]]
copy = ["q", "copy"]
[[variants.split.launches]]
entry = "split<{d}, {splits}>"
params = ["q", "part", "scale: f32", "random: bool", "null"]
grid = [2, "sms"]
block = [32, "splits / 2 if False else 4"]
shared = "2 * 64 * d * 2"
cluster = [1, 2]
cooperative = true
[[variants.split.launches]]
entry = "merge<{d}>"
params = [{ struct = ["part", "splits: i32", { struct = ["ticket"] }], align = 16 }, "out"]
grid = ["batch", "heads"]
block = [128]
pdl = true
[variants.alone]
base = "split"
entry = "alone"
params = ["q", "out", "seed: u64"]
grid = ["batch"]
block = [128]
[variants.planned]
base = "split"
plan = "plan.py"
[variants.assembled]
source = "decode.ptx"
entry = "_Z5aloneP"
params = ["q", "out"]
grid = [1]
block = [1]
"#;

#[test]
fn several_launches_come_with_scratch_and_device_facts() {
    let file = File::read(DECODE);
    let steps = file.steps("split", "a");
    assert_eq!(steps[0], Step::Memset { tensor: "part".into(), byte: 255 });
    assert_eq!(steps[1], Step::Copy { from: "q".into(), to: "copy".into() });
    let (Step::Launch(split), Step::Launch(merge)) = (&steps[2], &steps[3]) else { panic!("{steps:?}") };
    assert_eq!(split.entry, "split<64, 8>");
    assert_eq!((split.grid, split.block, split.cluster), ([2, 132, 1], [32, 4, 1], Some([1, 2, 1])));
    assert_eq!((split.shared_bytes, split.cooperative, split.pdl), (2 * 64 * 64 * 2, true, false));
    assert_eq!(
        split.params[2..],
        [scalar(Dtype::F32, 0.125, "scale"), scalar(Dtype::Bool, true, "random"), Argument::Null]
    );
    let inner = Argument::Struct { align: None, fields: vec![Argument::Tensor("ticket".into())] };
    let fields = vec![Argument::Tensor("part".into()), scalar(Dtype::I32, 8, "splits"), inner];
    assert_eq!(merge.params[0], Argument::Struct { align: Some(16), fields });
    assert!(merge.pdl);

    let scratch = file.variant("split").scratch(&file.operator, file.shapes.get("a").unwrap(), H200).unwrap();
    let sizes: Vec<_> = scratch.iter().map(|s| (s.name.as_str(), s.layout.bytes, s.zero_once)).collect();
    assert_eq!(
        sizes,
        [("part", 7 * 32 * 8 * 65 * 4, false), ("ticket", 4 * 264, true), ("copy", 2 * 7 * 32 * 64, false)]
    );
    assert_eq!(file.builds("split")[0].entries, ["split<64, 8>", "merge<64>", "split<128, 8>", "merge<128>"]);
}

#[test]
fn another_kind_of_launch_drops_the_old_one() {
    let file = File::read(DECODE);
    let alone = file.variant("alone");
    assert!(matches!(&alone.kind, Kind::Entry(launch) if launch.shared.is_none()));
    assert_eq!((alone.symbols.len(), alone.scratch.len()), (1, 3));
    let steps = file.steps("alone", "a");
    let [Step::Launch(launch)] = &steps[..] else { panic!("{steps:?}") };
    assert_eq!(launch.params[2], scalar(Dtype::U64, 7, "seed"));
    assert_eq!(file.steps("assembled", "a").len(), 1);
}

#[test]
fn a_plan_answers_with_the_same_records() {
    let file = File::read(DECODE);
    let (planned, axes) = (file.variant("planned"), file.shapes.get("a").unwrap());
    let line = planned.steps(&file.operator, axes, H200, 0).unwrap_err().to_string();
    assert_eq!(line, "variants.planned.plan: `plan.py` has not answered for this shape: run it first");
    assert_eq!(planned.defines(&file.operator, axes).unwrap(), []);
    let answer = r#"[{"entry": "split<64>", "params": ["q", "out", "0.5: f32"],
                      "grid": [7, 0], "block": [128], "cluster": null}]"#;
    let planned = planned.planned(serde_json::from_str(answer).unwrap());
    let line = planned.steps(&file.operator, axes, H200, 0).unwrap_err().to_string();
    assert_eq!(line, "variants.planned.plan[0].grid[1]: is 0, and must be at least 1");
    let planned = planned.planned(serde_json::from_str(&answer.replace("[7, 0]", "[7, 2]")).unwrap());
    let steps = planned.steps(&file.operator, axes, H200, 0).unwrap();
    assert!(matches!(&steps[..], [Step::Launch(launch)] if launch.grid == [7, 2, 1]));
}

#[test]
fn tables_survive_toml_and_json() {
    for text in [SOFTMAX, DECODE] {
        for (_, table) in File::read(text).variants.iter() {
            let json = serde_json::to_string(table).unwrap();
            assert_eq!(serde_json::from_str::<VariantTable>(&json).unwrap(), *table, "{json}");
            assert_eq!(from_toml::<VariantTable>(&toml::to_string(table).unwrap()).unwrap(), *table);
        }
    }
}
