//! C++ names in the words of the emulator, as their author wrote them. Leaves to others: what the words say.

use cpp_demangle::{DemangleOptions, Symbol};

/// A text with every mangled name in it demangled, without parameters; what only looks like one stays.
pub fn demangled(text: &str) -> String {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '$' | '.');
    let mut said = String::with_capacity(text.len());
    let mut left = text;
    while let Some(at) = left.find("_Z") {
        let (before, rest) = left.split_at(at);
        said.push_str(before);
        let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        // A full stop at the end belongs to the sentence.
        let symbol = rest[..end].trim_end_matches('.');
        let begins = !before.chars().next_back().is_some_and(is_part);
        said.push_str(&name(symbol).filter(|_| begins).unwrap_or_else(|| symbol.to_owned()));
        left = &rest[symbol.len()..];
    }
    said + left
}

fn name(symbol: &str) -> Option<String> {
    let options = DemangleOptions::new().no_params().no_return_type();
    let name = Symbol::new(symbol).ok()?.demangle_with_options(&options).ok()?;
    let name = without_parameters(&name);
    // The text may be JSON: a name that would need an escape there stays mangled.
    (!name.contains(['"', '\\'])).then_some(name)
}

/// A name without what stands in parentheses: the parameters of the function around a local variable are named even where
/// those of a function are not.
fn without_parameters(name: &str) -> String {
    const NAMELESS: &str = "(anonymous namespace)";
    let mut depth = 0;
    let mut kept = String::with_capacity(name.len());
    for part in name.replace(NAMELESS, "{anonymous}").split_inclusive(['(', ')']) {
        let text = part.trim_end_matches(['(', ')']);
        if depth == 0 {
            kept.push_str(text);
        }
        depth += i32::from(part.ends_with('(')) - i32::from(part.ends_with(')'));
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_variable_has_the_name_that_its_author_gave_it() {
        let text = "ERROR race on shared `_ZZ17rmsnorm_unorderedPK6__halfS1_PS_iE4part` at 12.";
        assert_eq!(demangled(text), "ERROR race on shared `rmsnorm_unordered::part` at 12.");
        assert_eq!(demangled("_ZN3one5tableE, then _Z4nodeii."), "one::table, then node.");
    }

    #[test]
    fn what_is_no_mangled_name_stays_as_it_is() {
        for text in ["", "sK", "a_Z1f", "_Z", "_Zzz!", "shared_mem _ZN", "é_Z"] {
            assert_eq!(demangled(text), text);
        }
    }
}
