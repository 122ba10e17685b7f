//! A declared operator from its text to the numbers of a shape.

use super::*;
use crate::key::from_toml;
use crate::names::Namespace;
use kernel_spec::expr::Value;

const DECODE: &str = r#"
axes = ["batch", "heads", "kv_heads", "d", "page", "pages", "used"]
let = { half = "scale / 2", scale = "1 / sqrt(d)" }
constraints = ["heads % kv_heads == 0", "used <= pages"]
reference = "decode.py"
inputs.q = { shape = ["batch", "heads", "d"], dtype = "bf16" }
inputs.k.shape = ["pages", "page", "kv_heads", "d"]
inputs.k.strides = ["page * kv_heads * d", "d", "page * d", 1]
inputs.k.dtype = "bf16"
inputs.indptr = { shape = ["batch + 1"], dtype = "i32", distribution = "offsets", total = "used" }
inputs.indices = { shape = ["used"], dtype = "i32", distribution = "permutation", of = "pages" }
inputs.last = { shape = ["batch"], dtype = "i32", distribution = "integers", low = 1, high = "page + 1" }
inputs.alive = { shape = [], dtype = "bool", distribution = "constant", value = true }
outputs.q = { shape = ["batch", "heads", "d"], dtype = "bf16", inplace = "q", errors = { max = 2e-2 } }
outputs.lse = { shape = ["batch", "heads"], dtype = "f32" }
outputs.count = { shape = [], dtype = "i32" }
cost = { flops = "4 * batch * heads * d * used * page", unit = "f16-tensor" }
"#;

fn declared(text: &str) -> Declared {
    let declared: Declared = from_toml(text).unwrap();
    declared.check(&mut Namespace::default()).unwrap();
    declared
}

fn axes(values: &[(&str, i64)]) -> Axes {
    values.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
}

fn ragged() -> Axes {
    axes(&[("batch", 7), ("heads", 32), ("kv_heads", 8), ("d", 64), ("page", 16), ("pages", 300), ("used", 211)])
}

#[test]
fn a_shape_has_names_tensors_limits_and_work() {
    let operator = declared(DECODE);
    let names = operator.names(&ragged()).unwrap();
    let last: Vec<_> = names.iter().skip(7).map(|(n, v)| format!("{n} = {v}")).collect();
    assert_eq!(last, ["scale = 0.125", "half = 0.0625"]);
    assert_eq!(operator.refuse(&ragged()), None);

    let tensors = operator.tensors(&ragged()).unwrap();
    let order: Vec<_> = tensors.iter().map(|t| t.name.as_str()).collect();
    assert_eq!(order, ["q", "k", "indptr", "indices", "last", "alive", "q", "lse", "count"]);
    let k = &tensors[1].layout;
    assert_eq!((k.elements, k.bytes), (300 * 16 * 8 * 64, 2 * 300 * 16 * 8 * 64));
    assert_eq!(k.strides, [8192, 64, 1024, 1]);
    assert_eq!(tensors[0].layout.strides, [2048, 64, 1]);
    let draws = tensors.iter().filter_map(|t| match &t.role {
        Role::Input { draw } => draw.clone(),
        Role::Output { .. } => None,
    });
    let draws: Vec<_> = draws.collect();
    assert_eq!(
        draws[..],
        [
            Draw::Normal,
            Draw::Normal,
            Draw::Offsets { total: 211 },
            Draw::Permutation { of: 300 },
            Draw::Integers { low: 1, high: 17 },
            Draw::Constant { value: Value::Bool(true) },
        ]
    );
    assert_eq!((tensors[5].layout.elements, tensors[5].layout.bytes), (1, 1));
    assert_eq!(tensors[6].role, Role::Output { inplace: Some("q".into()) });

    let limits = operator.limits(&ragged()).unwrap();
    assert_eq!(limits[0].1, Limits::Declared(ErrorLimits { max: Some(2e-2), ..ErrorLimits::default() }));
    assert!(matches!(limits[1], ("lse", Limits::Default { reduction, .. }) if reduction == 300 * 16 * 8 * 64));
    assert_eq!(limits[2], ("count", Limits::Exact));
    let work = operator.work(&ragged()).unwrap().unwrap();
    assert_eq!(
        work,
        crate::operator::Cost {
            flops: 4.0 * 7.0 * 32.0 * 64.0 * 211.0 * 16.0,
            bytes: 0.0,
            unit: crate::operator::Unit::F16Tensor
        }
    );
}

#[test]
fn default_bounds_follow_type_and_reduction() {
    let bound = |dtype: &str, k: i64| {
        let text = format!(
            "axes = [\"M\", \"N\", \"K\"]\nreference = \"m.py\"\n\
             inputs.a = {{ shape = [\"M\", \"K\"], dtype = \"f16\" }}\n\
             inputs.b = {{ shape = [\"K\", \"N\"], dtype = \"f16\" }}\n\
             outputs.c = {{ shape = [\"M\", \"N\"], dtype = \"{dtype}\" }}"
        );
        match declared(&text).limits(&axes(&[("M", 4), ("N", 8), ("K", k)])).unwrap()[0].1 {
            Limits::Default { bound, reduction, .. } => (bound, reduction),
            other => panic!("{other:?}"),
        }
    };
    let ulp = |bits: i32| 2f64.powi(-bits);
    assert_eq!(bound("f16", 1024), (ulp(10) + 8.0 * 32.0 * ulp(24), 1024));
    assert_eq!(bound("f16", 2), (ulp(10) + 8.0 * 8f64.sqrt() * ulp(24), 8));
    assert_eq!(bound("f64", 1024), (ulp(52) + 8.0 * 32.0 * ulp(53), 1024));
    assert_eq!(bound("e4m3", 1 << 40).0, ulp(3) + 1.0 / 128.0);
    assert!(bound("f32", 1).0 >= ulp(23));
}

#[test]
fn it_survives_toml_and_json_with_its_order() {
    let operator = declared(DECODE);
    let json = serde_json::to_string(&operator).unwrap();
    assert_eq!(serde_json::from_str::<Declared>(&json).unwrap(), operator);
    assert_eq!(from_toml::<Declared>(&toml::to_string(&operator).unwrap()).unwrap(), operator);
    let tensors = operator.tensors(&ragged()).unwrap();
    let json = serde_json::to_string(&tensors).unwrap();
    assert_eq!(serde_json::from_str::<Vec<Tensor>>(&json).unwrap(), tensors);
}

#[test]
fn shapes_are_refused_with_the_values_that_refuse_them() {
    let operator = declared(DECODE);
    let with = |name: &str, value: i64| {
        let mut axes = ragged();
        axes.insert(name.to_owned(), value);
        axes
    };
    assert_eq!(
        operator.refuse(&with("heads", 30)).unwrap(),
        "operator.constraints[0]: `heads % kv_heads == 0` is false for heads = 30, kv_heads = 8"
    );
    assert!(operator.refuse(&with("kv_heads", 0)).unwrap().ends_with("division by zero"));
    let line = |axes: &Axes| operator.tensors(axes).unwrap_err().to_string();
    assert_eq!(line(&with("batch", -1)), "operator.inputs.q.shape[0]: `batch` is -1, and must be at least 1");
    assert_eq!(
        line(&with("batches", 1)),
        "operator.axes: the shape gives `batches`, which is no axis: did you mean `batch`?"
    );
    let mut missing = ragged();
    missing.remove("page");
    assert_eq!(line(&missing), "operator.axes: the shape gives no `page`");
    assert_eq!(
        line(&with("pages", 100)),
        "operator.inputs.indices.of: is 100, and 211 distinct elements are asked for"
    );
    assert!(line(&with("page", 1 << 60)).contains("operator.inputs.k.shape: overflow"));
}
