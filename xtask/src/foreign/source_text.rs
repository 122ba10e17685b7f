//! The kernels that a CUDA source declares, read from its text: what a PTX no longer says of them, which are the names of
//! parameters and the templates that have no instance. A reading for suggestions; nothing is judged by it.
//! Leaves to others: macros, which only a preprocessor knows.

/// A kernel as its source writes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kernel {
    /// Name with its namespaces.
    pub name: String,
    /// Template parameters as written, e.g. `int THREADS`; empty for a function.
    pub template: Vec<String>,
    /// Parameters as written, e.g. `const half* x`.
    pub params: Vec<String>,
}

impl Kernel {
    /// The name, with its template parameters by their names: `lib::online<THREADS>`.
    pub fn id(&self) -> String {
        let names: Vec<&str> = self.template.iter().map(|p| declared_name(p)).collect();
        if names.is_empty() { self.name.clone() } else { format!("{}<{}>", self.name, names.join(", ")) }
    }
}

/// The name that a declaration like `const float *__restrict__ x = nullptr` gives; empty where it gives none.
pub fn declared_name(declaration: &str) -> &str {
    if let Some((_, pointer)) = declaration.split_once("(*") {
        let pointer = pointer.trim_start();
        return &pointer[..pointer.find(|c| !is_word(c)).unwrap_or(pointer.len())];
    }
    let declaration = declaration.split('=').next().unwrap_or_default().trim_end();
    let declaration = declaration.split('[').next().unwrap_or_default().trim_end();
    let start = declaration.rfind(|c| !is_word(c)).map_or(0, |at| at + 1);
    &declaration[start..]
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Every kernel of a source, in its order.
pub fn kernels(source: &str) -> Vec<Kernel> {
    let tokens = tokens(source);
    let mut reader = Reader { tokens: &tokens, at: 0 };
    let (mut scopes, mut found, mut template) = (Vec::<String>::new(), Vec::new(), Vec::new());
    while let Some(token) = reader.next() {
        match token {
            "namespace" => {
                let mut name = String::new();
                while let Some(part) = reader.next_if(|t| t != "{" && t != ";" && t != "=") {
                    name.push_str(part);
                }
                if reader.next_if(|t| t == "{").is_some() {
                    scopes.push(name);
                }
            }
            "{" => scopes.push(String::new()),
            "}" => drop(scopes.pop()),
            "template" => template = reader.next_if(|t| t == "<").map_or_else(Vec::new, |_| reader.list("<", ">")),
            ";" => template.clear(),
            "__global__" => {
                if let Some((name, params)) = reader.function() {
                    let scope = scopes.iter().filter(|s| !s.is_empty());
                    let name = scope.cloned().chain([name]).collect::<Vec<_>>().join("::");
                    let kernel = Kernel { name, template: std::mem::take(&mut template), params };
                    // A declaration and its definition are one kernel.
                    if !found.iter().any(|k: &Kernel| k.name == kernel.name && k.params.len() == kernel.params.len()) {
                        found.push(kernel);
                    }
                }
            }
            _ => {}
        }
    }
    found
}

struct Reader<'a> {
    tokens: &'a [&'a str],
    at: usize,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Option<&'a str> {
        self.at += 1;
        self.tokens.get(self.at - 1).copied()
    }

    fn next_if(&mut self, wanted: impl Fn(&str) -> bool) -> Option<&'a str> {
        let token = self.tokens.get(self.at).copied().filter(|t| wanted(t))?;
        self.at += 1;
        Some(token)
    }

    /// From after `open` to its `close`: the parts between commas that stand in no other brackets.
    fn list(&mut self, open: &str, close: &str) -> Vec<String> {
        let (mut parts, mut part, mut depth) = (Vec::new(), String::new(), 1);
        while let Some(token) = self.next() {
            match token {
                _ if token == open => depth += 1,
                _ if token == close => depth -= 1,
                "(" | "[" | "{" => depth += 1,
                "<" if open == "(" => depth += 1,
                ")" | "]" | "}" => depth -= 1,
                ">" if open == "(" => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                break;
            }
            if depth == 1 && token == "," {
                parts.push(std::mem::take(&mut part));
                continue;
            }
            let joins = part.ends_with(|c| is_word(c) || matches!(c, '*' | '&' | '>')) && token.starts_with(is_word);
            if joins {
                part.push(' ');
            }
            part.push_str(token);
        }
        parts.push(part);
        parts.retain(|part| !part.is_empty() && part != "void");
        parts
    }

    /// The name and the parameters of what follows `__global__`.
    fn function(&mut self) -> Option<(String, Vec<String>)> {
        let mut name = "";
        loop {
            match self.next()? {
                "(" if matches!(name, "__launch_bounds__" | "__cluster_dims__" | "__attribute__" | "__maxnreg__") => {
                    self.list("(", ")");
                }
                "(" => return Some((name.to_owned(), self.list("(", ")"))),
                ";" | "{" | "}" => return None,
                token => name = token,
            }
        }
    }
}

/// Words and single characters, without comments, texts and the lines of the preprocessor.
fn tokens(source: &str) -> Vec<&str> {
    let (mut tokens, mut rest, mut fresh_line) = (Vec::new(), source, true);
    while let Some(first) = rest.chars().next() {
        let (length, is_token) = if rest.starts_with("//") || first == '#' && fresh_line {
            (logical_line(rest), false)
        } else if rest.starts_with("/*") {
            (rest.find("*/").map_or(rest.len(), |end| end + 2), false)
        } else if first == '"' || first == '\'' {
            (quoted(rest, first), false)
        } else if is_word(first) {
            (rest.find(|c| !is_word(c)).unwrap_or(rest.len()), true)
        } else {
            (first.len_utf8(), !first.is_whitespace())
        };
        fresh_line = first == '\n' || fresh_line && first.is_whitespace();
        if is_token {
            tokens.push(&rest[..length]);
        }
        rest = &rest[length..];
    }
    tokens
}

/// Up to the end of a line that no backslash continues.
fn logical_line(text: &str) -> usize {
    let ends = text.match_indices('\n').map(|(at, _)| at);
    ends.into_iter().find(|at| !text[..*at].trim_end_matches('\r').ends_with('\\')).unwrap_or(text.len())
}

fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = true;
    for (at, c) in text.char_indices() {
        if c == quote && !escaped {
            return at + 1;
        }
        // The first character is the opening quote.
        escaped = at > 0 && c == '\\' && !escaped;
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = r#"
// __global__ void commented(int x);
/* __global__ void also(); */
#define KERNEL __global__ \
  void hidden()
const char* text = "__global__ void quoted(\"";
extern "C" __global__ void __launch_bounds__(256, 2) plain(const half* __restrict__ x, half *y, int n, float s = 1.0f) {
  for (;;) { if (n) break; }
}
namespace lib { namespace inner {
template <int THREADS, typename T = float, bool (*F)(int, int) = nullptr>
__global__ static void online(T* x, const unsigned long long n[4]);
} // inner
template <int THREADS> struct S { };
__global__ void plain2(void) {}
}
template <typename T> __device__ T helper(T x) { return x; }
__global__ void bare() { helper<int>(1); }
namespace a::b { template<int N> __global__ void k(std::pair<int, float> p) {} }
"#;

    #[test]
    fn kernels_are_found_with_their_parameters() {
        let found = kernels(SOURCE);
        let ids: Vec<String> = found.iter().map(Kernel::id).collect();
        assert_eq!(ids, ["plain", "lib::inner::online<THREADS, T, F>", "lib::plain2", "bare", "a::b::k<N>"]);
        assert_eq!(found[0].params, ["const half* __restrict__ x", "half* y", "int n", "float s=1.0f"]);
        let names: Vec<&str> = found[0].params.iter().map(|p| declared_name(p)).collect();
        assert_eq!(names, ["x", "y", "n", "s"]);
        assert_eq!(declared_name(&found[1].params[1]), "n");
        assert_eq!((found[2].params.len(), found[4].params.len()), (0, 1));
        assert_eq!(kernels("__global__ void broken("), [Kernel { name: "broken".into(), ..Kernel::default() }]);
        assert_eq!(kernels(""), []);
    }
}
