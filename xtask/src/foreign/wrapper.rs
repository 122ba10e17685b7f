//! How an instance of a template gets into the PTX, and which symbol it has: a wrapper includes the source and has the
//! compiler instantiate, for each template-id, a variable whose template argument is the kernel's address. The variable's
//! own name then says which kernel that is, with defaults filled in and constants folded, as no reading of text could.
//! The variables are taken out of the PTX again. Leaves to others: calling the compiler.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;

use regex::Regex;

use super::names::Name;

/// The variables are called so, and the compiler reports the lines that name them under this name.
const ENTRY: &str = "gate_entry";

/// Whether an entry is given as a template-id.
pub fn is_template_id(entry: &str) -> bool {
    entry.contains('<')
}

/// The text that is compiled instead of the source.
pub fn text(source: &Path, entries: &[&str]) -> String {
    let mut text = format!("#include \"{}\"\n", source.display());
    for (i, entry) in entries.iter().enumerate() {
        let name = format!("{ENTRY}_{i}");
        text += &format!("#line {} \"{ENTRY}\"\n", i + 1);
        text += &format!("template <auto K> __device__ int {name}; template __device__ int {name}<&{entry}>;\n");
    }
    text
}

/// Which of the entries a compiler's complaint is about, and what it says.
pub fn complaint(error: &str) -> Option<(usize, &str)> {
    let (_, rest) = error.split_once(&format!("{ENTRY}("))?;
    let (line, rest) = rest.split_once(')')?;
    let index = line.parse::<usize>().ok()?.checked_sub(1)?;
    Some((index, rest.trim_start_matches(": error: ")))
}

/// The declaration of an uninitialised integer.
static DECLARATION: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^(?:\.visible |\.weak )?\.global \.align 4 \.u32 (?<symbol>\w+);$").expect("a fixed pattern")
});

/// The PTX without the variables, and for each entry the name that its variable says: `k<256>(float*)`.
pub fn unwrap(ptx: &str, entries: &[&str]) -> (String, BTreeMap<String, String>) {
    let mut instances = BTreeMap::new();
    let mut rest = String::with_capacity(ptx.len());
    for line in ptx.split_inclusive('\n') {
        let variable = DECLARATION.captures(line.trim_end()).and_then(|found| instance(&found["symbol"]));
        match variable.filter(|(index, _)| *index < entries.len()) {
            Some((index, kernel)) => {
                instances.insert(entries[index].to_owned(), kernel);
            }
            None => rest.push_str(line),
        }
    }
    (rest, instances)
}

/// The number and the argument of one of the variables; those of static kernels lie in a namespace of the compiler's.
fn instance(symbol: &str) -> Option<(usize, String)> {
    static VARIABLE: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(&format!(r"^(?:\w+::)?{ENTRY}_(?<index>\d+)<&(?<kernel>.+)>$")).expect("a fixed pattern")
    });
    let name = Name::of(symbol);
    let found = VARIABLE.captures(&name.full)?;
    Some((found["index"].parse().ok()?, found["kernel"].trim_end().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variables_are_read_and_taken_out_and_nothing_else() {
        let ours = [
            ".global .align 4 .u32 _Z12gate_entry_0IXadL_ZN3lib1kILi256ELb1ELNS0_4ModeE5EfEEvPT2_iEEE;",
            ".global .align 4 .u32 _ZN31_INTERNAL_ef28be3b_4_w_cu_plain12gate_entry_1IXadL_ZN3lib2stILi7EEEvPfEEEE;",
        ];
        let theirs = [
            ".global .align 4 .u32 counter;",
            ".global .align 4 .u32 gate_entry_0;",
            ".global .align 4 .u32 _Z12gate_entry_9IXadL_ZN3lib2stILi7EEEvPfEEE;",
            ".const .align 4 .b8 table[16];",
            ".entry _ZN3lib2stILi7EEEvPf() { }",
        ];
        let ptx = [&theirs[..2], &ours, &theirs[2..]].concat().join("\n") + "\n";
        let (rest, instances) = unwrap(&ptx, &["k", "st<7>"]);
        assert_eq!(rest, theirs.join("\n") + "\n");
        assert_eq!(instances["k"], "lib::k<256, true, (lib::Mode)5, float>(float*, int)");
        assert_eq!(instances["st<7>"], "lib::st<7>(float*)");
    }

    #[test]
    fn complaints_about_an_entry_are_told_from_others() {
        let said = "nvcc: gate_entry(2): error: identifier \"onlin\" is undefined";
        assert_eq!(complaint(said), Some((1, "identifier \"onlin\" is undefined")));
        assert_eq!(complaint("nvcc: softmax.cu(2): error: expected a \";\""), None);
        assert_eq!(complaint("nvcc: gate_entry(0): error: x"), None);
        assert!(text(Path::new("/a/b.cu"), &["k<1>"]).contains("template __device__ int gate_entry_0<&k<1>>;"));
    }
}
