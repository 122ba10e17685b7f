//! Whether kernels of a PTX text add floats atomically: then the order of sums, and the last bits, may differ between launches.
//! Leaves to others: what follows from it.

use std::sync::LazyLock;

use regex::Regex;

/// `atom.global.add.f32`, `red.global.gpu.add.noftz.f16x2` and so on, also of vectors.
static ADDS: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^\s*(?:@!?%\w+\s+)?(?:atom|red)\.[\w.:]*\badd\.(?:[\w.:]*\.)?b?f(?:16|32|64)")
        .expect("a fixed pattern")
});
/// The head of a function's definition.
static HEAD: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^(?:\.(?:visible|weak|extern) )?\.(?:func|entry (?<entry>[\w$]+))").expect("a fixed pattern")
});

/// Whether one of these entry functions does, or any function that an entry might call.
pub fn adds_floats<'a>(ptx: &str, entries: impl Iterator<Item = &'a str> + Clone) -> bool {
    let mut counts = false;
    ptx.lines().any(|line| {
        if let Some(head) = HEAD.captures(line) {
            counts = head.name("entry").is_none_or(|entry| entries.clone().any(|e| e == entry.as_str()));
        }
        counts && ADDS.is_match(line)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn float_additions_are_told_from_others_and_by_entry() {
        for (line, adds) in [
            ("\tatom.global.add.f32 \t%f3, [%rd4], %f2;", true),
            ("\tred.global.add.f64 \t[%rd4], %fd1;", true),
            ("\t@%p1 red.relaxed.gpu.global.add.noftz.f16x2 [%rd1], %r2;", true),
            ("\tatom.add.noftz.bf16 %rs1,[%rd1],%rs2;", true),
            ("\tred.global.add.v2.f32 [%rd1], {%f1, %f2};", true),
            ("\tatom.global.add.u32 \t%r3, [%rd4], 1;", false),
            ("\tatom.global.cas.b32 \t%r3, [%rd4], %r1, %r2;", false),
            ("\tadd.f32 \t%f3, %f1, %f2;", false),
            ("\tred.shared.max.f32 [%rd1], %f1;", false),
        ] {
            let ptx = format!(".visible .entry k(\n\t.param .u64 a\n)\n{{\n{line}\n}}\n.entry other(\n)\n{{\n}}\n");
            assert_eq!(adds_floats(&ptx, ["k"].into_iter()), adds, "{line}");
            assert!(!adds_floats(&ptx, ["other"].into_iter()), "{line}");
            assert_eq!(adds_floats(&ptx.replace(".entry k", ".func k"), ["other"].into_iter()), adds, "{line}");
        }
    }
}
