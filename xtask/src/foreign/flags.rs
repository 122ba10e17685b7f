//! The compiler flags that a gate file may give. Flags decide what is judged, so they are a list: one that reads another
//! file, runs another program or changes what the other flags mean is not on it.
//! Leaves to others: the flags that every build gets ([`crate::compiler`]).

use std::sync::LazyLock;

use regex::Regex;

use super::Refused;
use crate::compiler::STANDARD;

/// Patterns of flags for nvcc, and what a person may write.
const NVCC: [(&str, &str); 8] = [
    (r"-std=c\+\+(14|17|20|23)", "-std=c++NN"),
    ("--?use_fast_math", "-use_fast_math"),
    ("--?(ftz|prec-div|prec-sqrt|fmad)=(true|false)", "-ftz= -prec-div= -prec-sqrt= -fmad="),
    ("--?(expt-)?(relaxed-constexpr|extended-lambda)", "--expt-relaxed-constexpr --extended-lambda"),
    ("--?restrict", "--restrict"),
    ("--?extra-device-vectorization", "--extra-device-vectorization"),
    ("--?diag-suppress=[0-9,]+", "-diag-suppress=N"),
    ("-w", "-w"),
];
/// The same for ptxas, without `-Xptxas=`.
const PTXAS: [(&str, &str); 3] = [
    (r"--?maxrregcount=\d+", "-maxrregcount=N"),
    ("-O[0-3]", "-Xptxas=-ON"),
    ("--?(dlcm|dscm)=(ca|cg|cs|cv|wb|wt)", "-Xptxas=-dlcm="),
];

static ALLOWED: LazyLock<[Regex; 2]> = LazyLock::new(|| {
    let any = |patterns: &[(&str, &str)]| patterns.iter().map(|(p, _)| *p).collect::<Vec<_>>().join("|");
    [any(&NVCC), any(&PTXAS)].map(|p| Regex::new(&format!("^(?:{p})$")).expect("fixed patterns"))
});

/// Flags by the program that gets them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flags {
    /// The standard of C++.
    pub standard: String,
    /// For nvcc.
    pub nvcc: Vec<String>,
    /// For ptxas.
    pub ptxas: Vec<String>,
}

impl Flags {
    /// Sorts the flags of a gate file.
    pub fn of(flags: &[String]) -> Result<Flags, Refused> {
        let mut sorted = Flags { standard: STANDARD.to_owned(), nvcc: Vec::new(), ptxas: Vec::new() };
        for (i, flag) in flags.iter().enumerate() {
            let for_ptxas = flag.strip_prefix("-Xptxas=").or_else(|| flag.strip_prefix("--ptxas-options="));
            let own = flag.trim_start_matches('-').starts_with("maxrregcount=").then_some(flag.as_str());
            if let Some(flag) = for_ptxas.or(own).filter(|flag| ALLOWED[1].is_match(flag)) {
                sorted.ptxas.push(flag.to_owned());
            } else if for_ptxas.is_none() && ALLOWED[0].is_match(flag) {
                if flag.starts_with("-std=") {
                    sorted.standard.clone_from(flag);
                } else {
                    sorted.nvcc.push(flag.clone());
                }
            } else {
                let known: Vec<&str> = NVCC.iter().chain(&PTXAS).map(|(_, shown)| *shown).collect();
                let why = format!("`{flag}` is not one of the flags that are known: {}", known.join(" "));
                return Err(Refused::new(format!("flags[{i}]"), why));
            }
        }
        Ok(sorted)
    }

    /// Whether a template may take any constant, which naming its instances needs.
    pub fn has_auto_parameters(&self) -> bool {
        self.standard != "-std=c++14"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(flags: &[&str]) -> Result<Flags, Refused> {
        Flags::of(&flags.iter().map(|f| (*f).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn flags_go_to_their_program() {
        let flags = of(&["-std=c++20", "--use_fast_math", "-Xptxas=-O2", "-maxrregcount=64", "-fmad=false"]).unwrap();
        assert_eq!(flags.standard, "-std=c++20");
        assert_eq!(flags.nvcc, ["--use_fast_math", "-fmad=false"]);
        assert_eq!(flags.ptxas, ["-O2", "-maxrregcount=64"]);
        assert_eq!(of(&[]).unwrap().standard, STANDARD);
        assert!(!of(&["-std=c++14"]).unwrap().has_auto_parameters());
    }

    #[test]
    fn flags_that_are_not_known_are_refused() {
        for flag in
            ["-I/etc", "-include", "-ccbin=/x", "-Xcompiler=-O3", "-O3", "-Xptxas", "-Xptxas=-w", "-std=c++17 -G", ""]
        {
            let refused = of(&["-w", flag]).unwrap_err();
            assert_eq!(refused.key, "flags[1]", "{flag}");
            assert!(refused.why.starts_with(&format!("`{flag}` is not one of")), "{refused}");
        }
    }
}
