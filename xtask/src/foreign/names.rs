//! Which entry function of a PTX text somebody means: by its symbol, by its C++ name, or by a template-id. Names are compared
//! as the compiler's own symbols say them, in a form in which `k<256u, true>` and `k< 256, 1 >` are one.
//! Leaves to others: compiling, and finding out which symbol a template-id has ([`super::wrapper`]).

use cpp_demangle::{DemangleOptions, Symbol};

/// What stands for a namespace without a name.
const ANONYMOUS: &str = "(anonymous namespace)::";

/// A symbol as C++ writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// In the PTX.
    pub symbol: String,
    /// With parameters, without the type that is returned; the symbol itself where it is not mangled.
    pub full: String,
}

impl Name {
    /// Reads a symbol.
    pub fn of(symbol: &str) -> Name {
        let options = DemangleOptions::new().no_return_type();
        let parsed = Symbol::new(symbol).ok().and_then(|s| s.demangle_with_options(&options).ok());
        Name { symbol: symbol.to_owned(), full: parsed.unwrap_or_else(|| symbol.to_owned()) }
    }

    /// As a gate file would give it: without parameters, and without namespaces that have no name.
    pub fn id(&self) -> String {
        without_parameters(&self.full).replace(ANONYMOUS, "")
    }

    /// Whether it is the function of this name, or an instance of the template.
    pub fn is_of(&self, function: &str) -> bool {
        let bare = self.bare();
        template(&bare).unwrap_or(&bare) == function
    }

    /// Without parameters, in the normal form.
    fn bare(&self) -> String {
        normal(without_parameters(&self.full))
    }
}

/// The entry function that `text` means, as an index into `names`; else why there is none, with what there is.
pub fn resolve(text: &str, names: &[Name]) -> Result<usize, String> {
    if let Some(exact) = names.iter().position(|n| n.symbol == text) {
        return Ok(exact);
    }
    let wanted = normal(text);
    let found = |matches: &dyn Fn(&str) -> bool| -> Vec<usize> {
        (0..names.len()).filter(|i| matches(&names[*i].bare())).collect()
    };
    // The name as given, then inside namespaces, then that of a template of which there is one instance.
    let inside = format!("::{wanted}");
    let steps: [&dyn Fn(&str) -> bool; 4] =
        [&|name| name == wanted, &|name| name.ends_with(&inside), &|name| template(name) == Some(&wanted), &|name| {
            template(name).is_some_and(|name| name.ends_with(&inside))
        }];
    for step in steps {
        match found(step).as_slice() {
            [] => {}
            [one] => return Ok(*one),
            many => {
                let those = listed(many.iter().map(|i| &names[*i]));
                return Err(format!("`{text}` may be any of {those}: give a symbol"));
            }
        }
    }
    if names.is_empty() {
        return Err(format!("there is no `{text}`, nor any other kernel"));
    }
    Err(format!("there is no `{text}`: there are {}", listed(names.iter())))
}

fn listed<'a>(names: impl Iterator<Item = &'a Name>) -> String {
    const MOST: usize = 8;
    let one =
        |n: &Name| if n.full == n.symbol { format!("`{}`", n.symbol) } else { format!("`{}` ({})", n.symbol, n.full) };
    let mut shown: Vec<String> = names.map(one).collect();
    let more = shown.len().saturating_sub(MOST);
    shown.truncate(MOST);
    if more > 0 {
        shown.push(format!("{more} more"));
    }
    shown.join(", ")
}

/// The name before its template arguments, if it ends with some.
fn template(name: &str) -> Option<&str> {
    let mut depth = 0_usize;
    for (at, c) in name.char_indices().rev() {
        match c {
            '>' => depth += 1,
            '<' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return (c == '<').then(|| &name[..at]);
        }
    }
    None
}

/// A name up to its parameters: the last parenthesis that is outside all template arguments.
fn without_parameters(name: &str) -> &str {
    let (mut angles, mut round) = (0_usize, 0_usize);
    let mut parameters = None;
    for (at, c) in name.char_indices() {
        match c {
            '<' if round == 0 => angles += 1,
            '>' if round == 0 => angles = angles.saturating_sub(1),
            '(' => {
                if angles == 0 && round == 0 && !name[at..].starts_with("(anonymous namespace)") {
                    parameters = Some(at);
                }
                round += 1;
            }
            ')' => round = round.saturating_sub(1),
            _ => {}
        }
    }
    parameters.map_or(name, |at| &name[..at])
}

/// A form in which two ways of writing one name are equal: no spaces but between words, no anonymous namespaces, literals
/// without suffixes and casts, and truths as numbers.
pub fn normal(name: &str) -> String {
    let name = name.replace(ANONYMOUS, "");
    let mut out = String::new();
    let mut rest = name.as_str();
    while let Some(c) = rest.chars().next() {
        if c.is_whitespace() {
            rest = rest.trim_start();
            let joins = |c: Option<char>| c.is_some_and(is_word);
            if joins(out.chars().last()) && joins(rest.chars().next()) {
                out.push(' ');
            }
        } else if let Some(after) = cast(rest) {
            rest = after;
        } else if is_word(c) {
            let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
            out.push_str(&word(&rest[..end]));
            rest = &rest[end..];
        } else {
            out.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    // A namespace that has a name from here on has it in every spelling.
    out.strip_prefix("::").map(str::to_owned).unwrap_or(out)
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '$'
}

/// What follows a cast of a literal: `(lib::Mode)5`, `(char)-1`.
fn cast(text: &str) -> Option<&str> {
    let inner = text.strip_prefix('(')?;
    let close = inner.find(')')?;
    let is_type = inner[..close].chars().all(|c| is_word(c) || c == ':' || c == ' ');
    let after = inner[close + 1..].trim_start();
    let literal = after.strip_prefix('-').unwrap_or(after);
    (is_type && close > 0 && literal.starts_with(|c: char| c.is_ascii_digit())).then_some(after)
}

/// A word without the suffix of an integer; hexadecimal ones as decimal.
fn word(word: &str) -> String {
    match word {
        "true" => return "1".to_owned(),
        "false" => return "0".to_owned(),
        _ if !word.starts_with(|c: char| c.is_ascii_digit()) => return word.to_owned(),
        _ => {}
    }
    let digits = word.trim_end_matches(['u', 'U', 'l', 'L']);
    let hexadecimal = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X"));
    let value = hexadecimal.map_or_else(|| digits.parse().ok(), |hex| u64::from_str_radix(hex, 16).ok());
    value.map_or_else(|| word.to_owned(), |value: u64| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_name_are_equal() {
        let table = [
            ("online<256>", "online< 256u >"),
            ("lib::k<256, true, (lib::Mode)5, float>", "lib::k<256,1,5,float>"),
            ("::k<0x10, -1>", "k<16,(int)-1>"),
            ("k<unsigned int, char const*>", "k<unsigned  int,char const *>"),
            ("k<(char)65>", "k<65>"),
            ("(anonymous namespace)::k<3ul>", "k<3>"),
            ("k<vec<4>, std::pair<int, float> >", "k<vec<4>,std::pair<int,float>>"),
        ];
        for (a, b) in table {
            assert_eq!(normal(a), normal(b), "{a} | {b}");
        }
        for (a, b) in [("k<2>", "k<3>"), ("k<int>", "k<unsigned int>"), ("k<-1>", "k<1>"), ("kk", "k k"), ("k8u", "k8")]
        {
            assert_ne!(normal(a), normal(b), "{a} | {b}");
        }
    }

    #[test]
    fn symbols_are_read_as_cpp() {
        let table = [
            ("softmax", "softmax", "softmax"),
            ("_Z4overPf", "over(float*)", "over"),
            (
                "_ZN3lib1kILi256ELb1ELNS_4ModeE5EfEEvPT2_i",
                "lib::k<256, true, (lib::Mode)5, float>(float*, int)",
                "lib::k<256,1,5,float>",
            ),
            ("_ZN1a33_GLOBAL__N__ef28be3b_4_w_cu_plain4anonEPi", "a::(anonymous namespace)::anon(int*)", "a::anon"),
            ("_Znonsense", "_Znonsense", "_Znonsense"),
        ];
        for (symbol, full, bare) in table {
            let name = Name::of(symbol);
            assert_eq!((name.full.as_str(), name.bare().as_str()), (full, bare));
        }
    }

    #[test]
    fn a_name_finds_its_entry_or_says_what_there_is() {
        let symbols = [
            "plain",
            "_Z4overPf",
            "_Z4overPi",
            "_ZN1a5innerEPi",
            "_ZN1b5innerEPi",
            "_ZN3lib1kILi256ELb1ELNS_4ModeE5EfEEvPT2_i",
            "_Z3oneILi7EEvPf",
            "_Z3twoILi1EEvPf",
            "_Z3twoILi2EEvPf",
        ];
        let names: Vec<Name> = symbols.iter().map(|s| Name::of(s)).collect();
        let found = |text: &str| resolve(text, &names).map(|i| symbols[i]);
        for (text, symbol) in [
            ("plain", "plain"),
            ("_Z4overPi", "_Z4overPi"),
            ("a::inner", "_ZN1a5innerEPi"),
            ("::b::inner", "_ZN1b5innerEPi"),
            ("lib::k< 256u, true, 5, float >", symbols[5]),
            ("k<256, true, 5, float>", symbols[5]),
            ("lib::k", symbols[5]),
            ("one", "_Z3oneILi7EEvPf"),
            ("two<2>", "_Z3twoILi2EEvPf"),
        ] {
            assert_eq!(found(text), Ok(symbol), "{text}");
        }
        let refused = |text: &str| resolve(text, &names).unwrap_err();
        let over = "`over` may be any of `_Z4overPf` (over(float*)), `_Z4overPi` (over(int*)): give a symbol";
        assert_eq!(refused("over"), over);
        assert!(refused("inner").contains("`_ZN1a5innerEPi` (a::inner(int*)), `_ZN1b5innerEPi` (b::inner(int*))"));
        assert!(refused("two").contains("(two<1>(float*)), `_Z3twoILi2EEvPf`"));
        assert!(refused("plane").starts_with("there is no `plane`: there are `plain`, `_Z4overPf` (over(float*))"));
        assert!(refused("plane").ends_with("(two<1>(float*)), 1 more"));
        assert_eq!(resolve("k", &[]).unwrap_err(), "there is no `k`, nor any other kernel");
    }
}
