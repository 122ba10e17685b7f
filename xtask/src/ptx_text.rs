//! What the text of a PTX module says of how it moves data: cache hints, and copies that no thread makes.
//! Leaves to others: what follows from it.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use regex::Regex;

/// Instructions that are hints by themselves.
static INSTRUCTIONS: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r"(?:^|[\s;{}])((?:createpolicy|applypriority|prefetchu?|discard)\.[\w.:]+|cp\.async\.bulk\.prefetch\.[\w.:]+)",
    )
    .expect("a fixed pattern")
});
/// Hints on other instructions. How much is fetched at once, and what an L1 keeps, are none: both end with the launch.
static MODIFIERS: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?:^|[\s;{}])(\w+)\.[\w.:]*?L2::(evict_\w+|cache_hint)(?:\.[\w.:]*?L2::(cache_hint))?")
        .expect("a fixed pattern")
});

/// Hints on what stays in the L2, each with how often it stands there.
pub fn cache_hints(ptx: &str) -> BTreeMap<String, u32> {
    let mut hints = BTreeMap::new();
    let mut add = |hint: String| *hints.entry(hint).or_default() += 1;
    for line in ptx.lines().map(code) {
        for found in INSTRUCTIONS.captures_iter(line).filter(|found| found[1].contains("L2")) {
            add(found[1].to_owned());
        }
        for found in MODIFIERS.captures_iter(line).filter(|found| !is_a_hint_itself(&found[1])) {
            let [what, second] = [&found[2], found.get(3).map_or("", |m| m.as_str())];
            add(format!("{} L2::{what}", &found[1]));
            if !second.is_empty() {
                add(format!("{} L2::{second}", &found[1]));
            }
        }
    }
    hints
}

fn is_a_hint_itself(instruction: &str) -> bool {
    ["createpolicy", "applypriority", "prefetch", "prefetchu", "discard"].contains(&instruction)
}

/// Whether anything is copied in bulk.
pub fn copies_in_bulk(ptx: &str) -> bool {
    ptx.lines().map(code).any(|line| line.contains("cp.async.bulk") || line.contains("cp.reduce.async.bulk"))
}

/// A line without its comment.
fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_hint_is_found_once_and_what_is_none_is_not() {
        let cases: &[(&str, &[&str])] = &[
            ("createpolicy.fractional.L2::evict_last.b64 %rd1, 1.0;", &["createpolicy.fractional.L2::evict_last.b64"]),
            ("\t@%p1 createpolicy.cvt.L2.b64 %rd1, %rd2;", &["createpolicy.cvt.L2.b64"]),
            ("applypriority.global.L2::evict_normal [%rd1], 128;", &["applypriority.global.L2::evict_normal"]),
            ("{prefetch.global.L2::evict_last [%rd1];}", &["prefetch.global.L2::evict_last"]),
            ("prefetch.global.L2 [%rd1];", &["prefetch.global.L2"]),
            ("discard.global.L2 [%rd1], 128;", &["discard.global.L2"]),
            ("cp.async.bulk.prefetch.L2.global [%rd1], 64;", &["cp.async.bulk.prefetch.L2.global"]),
            ("ld.global.L1::no_allocate.L2::evict_last.L2::256B.b32 %r1, [%rd1];", &["ld L2::evict_last"]),
            ("ld.global.L2::cache_hint.b32 %r1, [%rd1], %rd2;", &["ld L2::cache_hint"]),
            (
                "st.global.L2::evict_first.L2::cache_hint.b32 [%rd1], %r1, %rd2;",
                &["st L2::cache_hint", "st L2::evict_first"],
            ),
            ("mov.b32 %r1, %r2; red.global.add.L2::cache_hint.u32 [%rd1], %r1, %rd2;", &["red L2::cache_hint"]),
            (
                "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%r1], [%rd1], %r2, [%r3], %rd2;",
                &["cp L2::cache_hint"],
            ),
            ("prefetch.global.L1 [%rd1];", &[]),
            ("ld.global.L1::evict_last.b32 %r1, [%rd1];", &[]),
            ("cp.async.cg.shared.global.L2::128B [%r1], [%rd1], 16;", &[]),
            ("mov.b32 %r1, %r2; // createpolicy.fractional.L2::evict_last", &[]),
        ];
        for (line, wanted) in cases {
            let found = cache_hints(line);
            assert_eq!(found.keys().map(String::as_str).collect::<Vec<_>>(), *wanted, "{line}");
            assert!(found.values().all(|count| *count == 1), "{line}");
        }
    }

    #[test]
    fn bulk_copies_are_told_from_others() {
        assert!(copies_in_bulk("\tcp.async.bulk.tensor.2d.shared::cluster.global [%r1], [%rd1], [%r2];"));
        assert!(!copies_in_bulk("\tcp.async.cg.shared.global [%r1], [%rd1], 16;\n// cp.async.bulk\n"));
    }
}
