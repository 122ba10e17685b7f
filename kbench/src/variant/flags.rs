//! The compiler flags that a gate file may give. Any other could read files, write them, or change what is judged.
//! Leaves to others: running the compiler.

/// Flags of nvcc, with one dash; two are as good.
const ALLOWED: [&str; 19] = [
    "-std=c++14",
    "-std=c++17",
    "-std=c++20",
    "-use_fast_math",
    "-fmad=true",
    "-fmad=false",
    "-ftz=true",
    "-ftz=false",
    "-prec-div=true",
    "-prec-div=false",
    "-prec-sqrt=true",
    "-prec-sqrt=false",
    "-expt-relaxed-constexpr",
    "-expt-extended-lambda",
    "-extended-lambda",
    "-extra-device-vectorization",
    "-restrict",
    "-default-device",
    "-device-int128",
];

/// Whether a flag is allowed; if not, what to do.
pub(super) fn check(flag: &str) -> Result<(), String> {
    let one_dash = flag.strip_prefix('-').filter(|rest| rest.starts_with('-')).unwrap_or(flag);
    if ALLOWED.contains(&one_dash) {
        return Ok(());
    }
    let instead = match one_dash.get(..2) {
        Some("-D") => "use `define`".to_owned(),
        Some("-I") => "use `include`".to_owned(),
        _ => format!("use one of {}", ALLOWED.join(", ")),
    };
    Err(format!("{flag:?} is not an allowed flag: {instead}"))
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn flags_are_a_list() {
        for good in ["-std=c++20", "--std=c++17", "--use_fast_math", "-fmad=false"] {
            assert_eq!(check(good), Ok(()));
        }
        for (bad, instead) in [
            ("-DX=1", "use `define`"),
            ("-I/usr", "use `include`"),
            ("-o", "use one of"),
            ("---restrict", "use one of"),
            ("", "use one of"),
            ("-Xcompiler=-fplugin=x.so", "use one of"),
        ] {
            assert!(check(bad).unwrap_err().contains(instead), "{bad}");
        }
    }
}
