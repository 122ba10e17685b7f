//! A draft as the text of a gate file. It is valid as it stands, so that each `fill in` can be tried by itself.
//! Leaves to others: what is in the draft.

use std::fmt::Write;

use super::init::{Draft, Drafted, Tensor};

/// Sizes for the axes of a ragged shape, in turn: primes, so that every tail is met.
const RAGGED: [u32; 4] = [3, 77, 13, 29];
/// Threads of a block that nothing decides.
const THREADS: u32 = 256;

/// The text of the gate file.
pub fn render(draft: &Draft) -> String {
    let mut out = String::new();
    // Writing to a text does not fail.
    let _ = write(draft, &mut out);
    out
}

fn write(draft: &Draft, out: &mut String) -> std::fmt::Result {
    let [control, others @ ..] = draft.kernels.as_slice() else { return Ok(()) };
    let stem = &draft.stem;
    writeln!(
        out,
        "# Drafted from {} by `init`. What a compiler cannot know is marked with \"fill in\".",
        draft.source
    )?;
    if !draft.others.is_empty() {
        let others = draft.others.iter().map(|id| format!("`{id}`")).collect::<Vec<_>>().join(", ");
        writeln!(out, "# Kernels of other parameters in it: {others}.")?;
    }
    writeln!(out, "name = \"{stem}\"")?;
    writeln!(out, "control = \"{}\" # fill in: the kernel that is accepted today", control.name)?;
    let names: Vec<String> = others.iter().map(|k| format!("\"{}\"", k.name)).collect();
    let names = if names.is_empty() { "\"candidate\"".to_owned() } else { names.join(", ") };
    writeln!(out, "candidates = [{names}] # fill in: the kernels that want to replace it")?;
    operator(draft, out)?;
    let shape = |size: &dyn Fn(usize) -> u32| {
        draft.axes.iter().enumerate().map(|(i, axis)| format!("{axis} = {}", size(i))).collect::<Vec<_>>().join(", ")
    };
    let large = match draft.axes.len() {
        1 => 1 << 20,
        2 => 1024,
        _ => 64,
    };
    writeln!(out, "\n[shapes]")?;
    writeln!(out, "ragged = {{ {} }} # fill in: small, and not a multiple of anything", shape(&|i| RAGGED[i % 4]))?;
    writeln!(out, "large = {{ {} }} # fill in: what the kernel is for; it is timed", shape(&|_| large))?;
    writeln!(out, "\n[variants.{}]", control.name)?;
    writeln!(out, "source = \"{}\"", draft.source)?;
    launched(control, draft, out)?;
    for kernel in others {
        writeln!(out, "\n[variants.{}]\nbase = \"{}\"", kernel.name, control.name)?;
        launched(kernel, draft, out)?;
    }
    if others.is_empty() {
        writeln!(out, "\n[variants.candidate]\nbase = \"{}\"", control.name)?;
        writeln!(out, "define = {{ CANDIDATE = 1 }} # fill in: what is different: another source, entry or macro")?;
    }
    writeln!(out, "\n[[performance]]\nshape = \"large\"")?;
    writeln!(out, "min_latency_reduction = 0.10 # fill in: how much faster a candidate must be, 0.10 is 10%")
}

fn operator(draft: &Draft, out: &mut String) -> std::fmt::Result {
    let list = |names: &mut dyn Iterator<Item = &str>| names.map(|n| format!("\"{n}\"")).collect::<Vec<_>>().join(", ");
    let axes = list(&mut draft.axes.iter().map(String::as_str));
    writeln!(out, "\n[operator]")?;
    writeln!(out, "axes = [{axes}] # fill in: sizes alone; other integers go to `let`")?;
    if !draft.values.is_empty() {
        let values: Vec<String> = draft.values.iter().map(|(name, value)| format!("{name} = {value}")).collect();
        writeln!(
            out,
            "let = {{ {} }} # fill in: their values, or expressions of the axes in quotes",
            values.join(", ")
        )?;
    }
    let (outputs, inputs): (Vec<&Tensor>, Vec<&Tensor>) = draft.tensors.iter().partition(|t| t.output);
    let takes = inputs.iter().map(|t| t.name.as_str()).chain(draft.values.iter().map(|(name, _)| name.as_str()));
    let takes = takes.collect::<Vec<_>>().join(", ");
    let returns = outputs.iter().map(|t| t.name.as_str()).collect::<Vec<_>>().join(" and ");
    let file = format!("reference = \"{}.py\"", draft.stem);
    writeln!(out, "{file} # fill in: write it, `def reference({takes})` in numpy; it returns {returns}")?;
    for (kind, tensors) in [("inputs", inputs), ("outputs", outputs)] {
        for tensor in tensors {
            let (dtype, also) = match tensor.dtype {
                Some(dtype) => (dtype.to_string(), ""),
                None => ("f32".to_owned(), " and dtype"),
            };
            let name = &tensor.name;
            // Integers are drawn between bounds that only the author knows.
            let integers = kind == "inputs" && tensor.dtype.is_some_and(|dtype| !dtype.is_float());
            let (drawn, range) = if integers {
                (", distribution = \"integers\", low = 0, high = 2", ", what it may hold (below high)")
            } else {
                ("", "")
            };
            let table = format!("{{ shape = [{axes}], dtype = \"{dtype}\"{drawn} }}");
            writeln!(out, "{kind}.{name} = {table} # fill in: shape{also}{range}; {}", role(kind))?;
        }
    }
    Ok(())
}

fn role(kind: &str) -> &'static str {
    if kind == "inputs" { "is it only read?" } else { "is it only written?" }
}

fn launched(kernel: &Drafted, draft: &Draft, out: &mut String) -> std::fmt::Result {
    if kernel.values.is_empty() {
        writeln!(out, "entry = \"{}\"", kernel.entry)?;
    } else {
        let values: Vec<String> = kernel.values.iter().map(|(name, value)| format!("{name} = {value}")).collect();
        writeln!(out, "let = {{ {} }} # fill in: values for the template", values.join(", "))?;
        writeln!(out, "entry = \"{}\" # fill in: its other arguments", kernel.entry)?;
    }
    writeln!(out, "params = [{}]{}", kernel.params.join(", "), structs(kernel))?;
    let threads = kernel.values.iter().find(|(name, _)| name.to_ascii_uppercase().contains("THREAD"));
    let (block, one) = match (kernel.block, threads) {
        (Some(block), _) => (extents(block), block[0].to_string()),
        (None, Some((name, _))) => (format!("\"{name}\""), name.clone()),
        (None, None) => (THREADS.to_string(), THREADS.to_string()),
    };
    let first = &draft.axes[0];
    let grid = if draft.axes.len() == 1 { format!("ceil_div({first}, {one})") } else { first.clone() };
    writeln!(out, "grid = [\"{grid}\"] # fill in: blocks, from the axes")?;
    writeln!(out, "block = [{block}] # fill in: threads")?;
    if draft.dynamic_shared {
        writeln!(out, "shared = 0 # fill in: bytes of dynamic shared memory")?;
    }
    Ok(())
}

fn structs(kernel: &Drafted) -> &'static str {
    if kernel.params.iter().any(|p| p.starts_with('{')) { " # fill in: the members of each struct" } else { "" }
}

/// Without the last ones where they are 1.
fn extents(block: [u32; 3]) -> String {
    let used = block.iter().rposition(|extent| *extent != 1).map_or(1, |last| last + 1);
    block[..used].iter().map(u32::to_string).collect::<Vec<_>>().join(", ")
}
