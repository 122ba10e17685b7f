//! `init`: what a source and its PTX say of the kernels in it, as the draft of a gate file. Pointers become tensors, integers
//! axes, floats values; which of them belong together, and what is right, nobody but the author knows.
//! Leaves to others: how a draft is written down ([`super::draft_text`]), and reading gate files.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use kbench::key::BadKey;
use kbench::names::GIVEN;
use kernel_spec::dtype::Dtype;
use kernel_spec::ptx::{self, PtxParam};

use super::names::{self, Name};
use super::source_text::{self, Kernel, declared_name};
use super::{compile, draft_text, guess};
use crate::files::write_whole;
use crate::layout::Layout;
use crate::toolchain;

/// The target that a kernel is looked at for: it knows the most instructions.
const ARCH: &str = "sm_90a";
/// Names that authors give to what a kernel writes.
const OUTPUT_NAMES: [&str; 10] = ["y", "out", "output", "o", "c", "d", "dst", "result", "res", "z"];

/// A gate file with everything in it that could be found out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Draft {
    /// The source, beside the gate file.
    pub source: String,
    /// Its name without the extension.
    pub stem: String,
    /// Kernels that take the same parameters, the first of them for a control.
    pub kernels: Vec<Drafted>,
    /// The other kernels.
    pub others: Vec<String>,
    /// Pointers.
    pub tensors: Vec<Tensor>,
    /// Integers.
    pub axes: Vec<String>,
    /// Other numbers, each with a value to start from.
    pub values: Vec<(String, &'static str)>,
    /// Whether a kernel has shared memory whose size its launch decides.
    pub dynamic_shared: bool,
}

/// A kernel to launch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Drafted {
    /// The variant.
    pub name: String,
    /// The entry, with the values of a template's parameters to be inserted.
    pub entry: String,
    /// Parameters of the template.
    pub values: Vec<(String, &'static str)>,
    /// Parameters as a gate file writes them.
    pub params: Vec<String>,
    /// The block that it was compiled for.
    pub block: Option<[u32; 3]>,
}

/// A pointer.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Its name.
    pub name: String,
    /// Its element, where the source names one that is known.
    pub dtype: Option<Dtype>,
    /// Whether it is written, as far as can be told.
    pub output: bool,
}

/// Writes a gate file beside a source, `softmax.toml` beside `softmax.cu`. A [`BadKey`] says why there is none.
pub fn init(layout: &Layout, kernel: &Path) -> Result<PathBuf> {
    let refuse = |why: String| -> anyhow::Error { BadKey::new(kernel.display().to_string(), why).into() };
    let real = kernel.canonicalize().map_err(|_| refuse("there is no such file".to_owned()))?;
    let name = |part: Option<&std::ffi::OsStr>| part.and_then(|p| p.to_str()).map(str::to_owned);
    let (Some(file), Some(stem), Some(folder)) = (name(real.file_name()), name(real.file_stem()), real.parent()) else {
        return Err(refuse("its name is no text: rename it".to_owned()));
    };
    let gate = real.with_extension("toml");
    if gate.exists() {
        return Err(refuse(format!("`{}` is there already: edit it, or move it away", gate.display())));
    }
    let tools = toolchain::find_or_install(&layout.target, &crate::console::line)?;
    let entries = compile::inspect(&tools, folder, &file, ARCH)?
        .map_err(|error| refuse(format!("does not compile as it is: {error}")))?;
    let text = std::fs::read(&real).with_context(|| format!("failed to read `{}`", real.display()))?;
    let draft = draft(&file, &stem, &String::from_utf8_lossy(&text), &entries).map_err(refuse)?;
    write_whole(&gate, draft_text::render(&draft).as_bytes())?;
    Ok(gate)
}

/// A kernel before names are given.
struct Found<'a> {
    written: Option<&'a Kernel>,
    entry: Option<(&'a ptx::Entry, String)>,
}

/// What can be said of a source with these entry functions.
pub fn draft(file: &str, stem: &str, text: &str, entries: &[ptx::Entry]) -> Result<Draft, String> {
    let written = source_text::kernels(text);
    let found = pair(&written, entries);
    let Some(first) = found.first() else { return Err("has no kernel: nothing in it is `__global__`".to_owned()) };
    let signature = first.signature();
    let (same, others): (Vec<_>, Vec<_>) = found.iter().partition(|f| f.signature() == signature);
    let mut draft = Draft {
        source: file.to_owned(),
        stem: stem.to_owned(),
        others: others.iter().map(|f| f.shown()).collect(),
        dynamic_shared: text.contains("extern __shared__"),
        ..Draft::default()
    };
    let params = parameters(first, &mut draft);
    if draft.tensors.is_empty() {
        return Err(format!("`{}` takes no pointer, so it has no output to judge", first.shown()));
    }
    if draft.axes.is_empty() {
        let name = fresh("n", &draft.names());
        draft.axes.push(name);
    }
    for kernel in same {
        let drafted = kernel.drafted(params.clone(), &draft);
        draft.kernels.push(drafted);
    }
    Ok(draft)
}

/// Kernels in the order of the source: each with its instances, templates without one by themselves, then those that only the PTX
/// knows.
fn pair<'a>(written: &'a [Kernel], entries: &'a [ptx::Entry]) -> Vec<Found<'a>> {
    let names: Vec<Name> = entries.iter().map(|e| Name::of(&e.name)).collect();
    let mut left: Vec<usize> = (0..entries.len()).collect();
    let entry = |i: usize| {
        let id = names[i].id();
        // A name that means another kernel as well says less than the symbol.
        let unique = names::resolve(&id, &names) == Ok(i);
        (&entries[i], if unique { id } else { names[i].symbol.clone() })
    };
    let mut found = Vec::new();
    for kernel in written {
        let fits = |i: &usize| names[*i].is_of(&kernel.name) && entries[*i].params.len() == kernel.params.len();
        let own: Vec<usize> = left.iter().copied().filter(fits).collect();
        // Of overloads each takes one, in their order.
        let own = if kernel.template.is_empty() { own.into_iter().take(1).collect() } else { own };
        left.retain(|i| !own.contains(i));
        if own.is_empty() && !kernel.template.is_empty() {
            found.push(Found { written: Some(kernel), entry: None });
        }
        found.extend(own.into_iter().map(|i| Found { written: Some(kernel), entry: Some(entry(i)) }));
    }
    found.extend(left.into_iter().map(|i| Found { written: None, entry: Some(entry(i)) }));
    found
}

impl Found<'_> {
    /// What the parameters look like; kernels that agree in it can be launched alike.
    fn signature(&self) -> Vec<String> {
        let declared = |p: &PtxParam| p.declared.clone();
        match (self.written, &self.entry) {
            (Some(kernel), _) => kernel.params.clone(),
            (None, Some((entry, _))) => entry.params.iter().map(declared).collect(),
            (None, None) => Vec::new(),
        }
    }

    fn shown(&self) -> String {
        match (&self.entry, self.written) {
            (Some((_, id)), _) => id.clone(),
            (None, kernel) => kernel.map(Kernel::id).unwrap_or_default(),
        }
    }

    fn drafted(&self, params: Vec<String>, draft: &Draft) -> Drafted {
        let bare = self.written.map_or_else(|| self.shown(), |kernel| kernel.name.clone());
        let last = bare.rsplit("::").next().unwrap_or(&bare);
        let taken: Vec<&str> = draft.kernels.iter().map(|k| k.name.as_str()).collect();
        let name = fresh(&last.replace(|c: char| !c.is_ascii_alphanumeric(), "_"), &taken);
        let block = self.entry.as_ref().and_then(|(entry, _)| entry.required_block.or(entry.max_block));
        let mut drafted = Drafted { name, entry: self.shown(), values: Vec::new(), params, block };
        if let (None, Some(kernel)) = (&self.entry, self.written) {
            let arguments: Vec<String> =
                kernel.template.iter().map(|p| argument(p, draft, &mut drafted.values)).collect();
            drafted.entry = format!("{}<{}>", kernel.name, arguments.join(", "));
        }
        drafted
    }
}

/// An argument for a parameter of a template, with the value that it takes for an integer.
fn argument(parameter: &str, draft: &Draft, values: &mut Vec<(String, &'static str)>) -> String {
    let words: Vec<&str> = parameter.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
    if words.iter().any(|w| matches!(*w, "typename" | "class")) {
        return "float".to_owned();
    }
    if words.contains(&"bool") {
        return "false".to_owned();
    }
    let taken: Vec<&str> = draft.names().into_iter().chain(values.iter().map(|(name, _)| name.as_str())).collect();
    let name = fresh(declared_name(parameter), &taken);
    let upper = name.to_ascii_uppercase();
    let start = match &upper {
        n if n.contains("THREAD") || n.contains("BLOCK") => "256",
        n if n.contains("VEC") || n.contains("UNROLL") => "4",
        _ => "16",
    };
    values.push((name.clone(), start));
    format!("{{{name}}}")
}

/// The parameters of a kernel as a gate file writes them; the names in them go into the draft.
fn parameters(found: &Found<'_>, draft: &mut Draft) -> Vec<String> {
    let declared: Vec<Option<&str>> = match (found.written, &found.entry) {
        (Some(kernel), _) => kernel.params.iter().map(|p| Some(p.as_str())).collect(),
        (None, Some((entry, _))) => vec![None; entry.params.len()],
        (None, None) => Vec::new(),
    };
    let compiled = |i: usize| found.entry.as_ref().and_then(|(entry, _)| entry.params.get(i));
    let any_const = declared.iter().flatten().any(|text| guess::is_const_pointer(text));
    let mut params = Vec::new();
    for (i, text) in declared.into_iter().enumerate() {
        let written = text.map(declared_name).filter(|name| !name.is_empty());
        let name = fresh(&written.map_or_else(|| format!("p{i}"), str::to_owned), &draft.names());
        if guess::is_pointer(text, compiled(i)) {
            let by_name = OUTPUT_NAMES.contains(&name.to_ascii_lowercase().as_str());
            let output = text.is_some_and(|text| !guess::is_const_pointer(text) && (any_const || by_name));
            params.push(format!("\"{name}\""));
            draft.tensors.push(Tensor { name, dtype: text.and_then(guess::element), output });
            continue;
        }
        let Some(dtype) = guess::scalar(text, compiled(i)) else {
            params.push(guess::members(compiled(i)));
            continue;
        };
        params.push(format!("\"{name}: {dtype}\""));
        match dtype {
            Dtype::Bool => draft.values.push((name, "false")),
            _ if dtype.is_float() => draft.values.push((name, "1.0")),
            _ => draft.axes.push(name),
        }
    }
    // A kernel writes something, most often the last of what it is given.
    if !draft.tensors.iter().any(|t| t.output)
        && let Some(last) = draft.tensors.last_mut()
    {
        last.output = true;
    }
    params
}

/// A name that a gate file may use and that is not taken.
fn fresh(wanted: &str, taken: &[&str]) -> String {
    let mut name = wanted.to_owned();
    while kernel_spec::expr::check_name(&name).is_err() || GIVEN.contains(&name.as_str()) || taken.contains(&&*name) {
        // What no underscore mends is no word at all.
        name = if name.len() > wanted.len() + taken.len() + 1 { "k".to_owned() } else { name + "_" };
    }
    name
}

impl Draft {
    /// Every name of the operator.
    fn names(&self) -> Vec<&str> {
        let values = self.values.iter().map(|(name, _)| name.as_str());
        let tensors = self.tensors.iter().map(|t| t.name.as_str());
        tensors.chain(self.axes.iter().map(String::as_str)).chain(values).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = r#"
template <int THREADS, typename T> __global__ void fast(const half* x, T* y, float eps, int rows, int64_t cols);
extern "C" __global__ void slow(const half* x, half* y, float eps, int rows, int64_t cols) {}
__global__ void other(float* acc, Params p, bool flag, int seed) { extern __shared__ float s[]; }
"#;
    const PTX: &str = "
.visible .entry slow(.param .u64 a, .param .u64 b, .param .f32 c, .param .u32 d, .param .u64 e).maxntid 128 { }
.visible .entry _Z5otherPf6Paramsbi(.param .u64 a, .param .align 8 .b8 b[24], .param .u8 c, .param .u32 d) { }
.visible .entry hidden(.param .u64 a, .param .f32 b, .param .align 2 .b8 c[2], .param .u32 d) { }
";

    fn drafted(source: &str, ptx: &str) -> Draft {
        draft("k.cu", "k", source, &ptx::entries(ptx).unwrap()).unwrap()
    }

    #[test]
    fn kernels_of_the_same_parameters_are_drafted_together() {
        let source = SOURCE.replace("T* y", "half* y");
        let draft = drafted(&source, PTX);
        let kernels: Vec<_> = draft.kernels.iter().map(|k| (k.name.as_str(), k.entry.as_str(), k.block)).collect();
        assert_eq!(kernels, [("fast", "fast<{THREADS}, float>", None), ("slow", "slow", Some([128, 1, 1]))]);
        assert_eq!(draft.kernels[0].values, [("THREADS".to_owned(), "256")]);
        assert_eq!(draft.kernels[0].params, [r#""x""#, r#""y""#, r#""eps: f32""#, r#""rows: i32""#, r#""cols: i64""#]);
        assert_eq!(draft.others, ["other", "hidden"]);
        let tensors: Vec<_> = draft.tensors.iter().map(|t| (t.name.as_str(), t.dtype, t.output)).collect();
        assert_eq!(tensors, [("x", Some(Dtype::F16), false), ("y", Some(Dtype::F16), true)]);
        assert_eq!((draft.axes, draft.values), (vec!["rows".into(), "cols".into()], vec![("eps".into(), "1.0")]));
        assert!(draft.dynamic_shared);
        assert_eq!(drafted(SOURCE, PTX).tensors[1].dtype, None, "the type of a template's parameter");
    }

    #[test]
    fn structs_truths_and_names_that_are_taken_are_drafted() {
        let source = SOURCE.lines().last().unwrap();
        let draft = drafted(source, PTX.lines().nth(2).unwrap());
        let params =
            [r#""acc""#, r#"{ struct = ["0: u64", "0: u64", "0: u64"] }"#, r#""flag: bool""#, r#""seed_: i32""#];
        assert_eq!(draft.kernels[0].params, params);
        assert!(draft.tensors[0].output);
        assert_eq!(draft.values, [("flag".to_owned(), "false")]);
    }

    #[test]
    fn without_a_declaration_the_ptx_is_read() {
        let draft = drafted("KERNEL(hidden)", PTX.lines().nth(3).unwrap());
        assert_eq!(draft.kernels[0].params, [r#""p0""#, r#""p1: f32""#, r#""p2: f16""#, r#""p3: i32""#]);
        assert_eq!((draft.axes.len(), draft.tensors[0].dtype), (1, None));
        let nothing = super::draft("k.cu", "k", "", &[]).unwrap_err();
        assert_eq!(nothing, "has no kernel: nothing in it is `__global__`");
        let no_output = super::draft(
            "k.cu",
            "k",
            "__global__ void k(int n) {}",
            &ptx::entries(".entry _Z1ki(.param .u32 a) {}").unwrap(),
        );
        assert_eq!(no_output.unwrap_err(), "`k` takes no pointer, so it has no output to judge");
    }
}
