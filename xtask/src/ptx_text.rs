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

/// Bytes of global variables in which no kernel can keep anything: the tables that the compiler's own mathematics brings
/// along, such as that of `sincosf`, and what is named nowhere but where it is declared, as a compiler leaves it behind.
pub fn inert_bytes(ptx: &str) -> u32 {
    let name_of = |line: &str| -> Option<(String, u32)> {
        let declared = line.split('=').next()?.trim().trim_start_matches(".visible ").strip_prefix(".global ")?;
        let (before, count) = declared.split_once('[')?;
        let count: u32 = count.split_once(']')?.0.trim().parse().ok()?;
        let (kind, name) = before.trim().rsplit_once(char::is_whitespace)?;
        let width = [(".b64", 8), (".b32", 4), (".b16", 2), (".b8", 1)];
        let width = width.iter().find(|(word, _)| kind.split_whitespace().any(|own| own == *word))?.1;
        Some((name.to_owned(), count.checked_mul(width)?))
    };
    let is_inert = |line: &str, name: &str| {
        let is_table = name.contains("__cudart_") && line.contains('=');
        is_table || occurrences(ptx, name) == 1
    };
    let of = |line: &str| name_of(line).filter(|(name, _)| is_inert(line, name)).map(|(_, bytes)| bytes);
    ptx.lines().map(code).filter_map(of).fold(0, u32::saturating_add)
}

/// How often a name stands in a text as a word of its own.
fn occurrences(text: &str, name: &str) -> usize {
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '$' | '%');
    let alone = |at: usize| {
        let (before, after) = (text[..at].chars().next_back(), text[at + name.len()..].chars().next());
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    };
    text.match_indices(name).filter(|(at, _)| alone(*at)).count()
}

/// The architecture that a text is assembled for where a device's is asked for: one that uses what is particular to an
/// architecture (`sm_90a`) is for that, and runs there.
pub fn target_for(ptx: &str, arch: &str) -> String {
    let target = ptx.lines().map(code).find_map(|line| line.trim().strip_prefix(".target "));
    let target = target.and_then(|line| line.split(',').next()).map(str::trim);
    target.filter(|target| target.strip_suffix('a') == Some(arch)).unwrap_or(arch).to_owned()
}

/// A line without its comment.
fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nothing_names_and_tables_of_the_library_are_inert() {
        let left_behind = ".global .align 1 .b8 _$_str[11] = {95, 95, 67, 85, 68, 65, 95, 70, 84, 90};";
        let longer = format!("{left_behind}\n.entry k() {{ ld.global.u8 %rs1, [_$_str2]; }}");
        let used = format!("{left_behind}\n.entry k() {{ mov.u64 %rd1, _$_str; }}");
        let table = ".global .align 4 .b32 __cudart_i2opi_f[6] = {1, 2, 3, 4, 5, 6};\nmov.u64 %rd1, __cudart_i2opi_f;";
        let not_one = ".global .align 4 .b32 __cudart_mine[6];\nmov.u64 %rd1, __cudart_mine;";
        let cases =
            [(left_behind, 11), (&longer, 11), (&used, 0), (table, 24), (not_one, 0), (".global .u32 state;", 0)];
        for (ptx, bytes) in cases {
            assert_eq!(inert_bytes(ptx), bytes, "{ptx}");
        }
    }

    #[test]
    fn what_is_particular_to_an_architecture_is_assembled_for_it() {
        for (ptx, arch, target) in [
            (".version 9.0\n.target sm_90a\n", "sm_90", "sm_90a"),
            (".target sm_90a, debug // x\n", "sm_90", "sm_90a"),
            (".target sm_80\n", "sm_90", "sm_90"),
            (".target sm_90a\n", "sm_89", "sm_89"),
            ("", "sm_80", "sm_80"),
        ] {
            assert_eq!(target_for(ptx, arch), target, "{ptx}");
        }
    }

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
