//! What a PTX text says of its entry functions: names, parameters, and the launch shapes that they were compiled for.
//! It reads declarations only and passes over everything else, so that any compiler's output will do.
//! Leaves to others: instructions, and whether a launch fits ([`crate::params`]).

use std::fmt;
use std::iter::Peekable;

/// What a parameter was declared as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PtxKind {
    /// `.u32`, `.s64` and the like. Compilers also declare pointers so.
    Integer,
    /// `.f32`, `.f64` and the like.
    Float,
    /// `.b32` and the like: as wide as it says, of any kind.
    Bits,
    /// Declared with `.ptr`.
    Pointer,
    /// An array: a struct by value, or a 16-bit or 8-bit float.
    Bytes,
    /// A texture, sampler or surface reference.
    Opaque,
}

/// One parameter of an entry function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PtxParam {
    /// Its symbol.
    pub name: String,
    /// Bytes from the start of the parameter block.
    pub offset: usize,
    /// Bytes.
    pub size: usize,
    /// Alignment in bytes; 0 where that is not known.
    pub align: usize,
    /// What it was declared as.
    pub kind: PtxKind,
    /// Type as declared, e.g. `.u64` or `.b8[24]`.
    pub declared: String,
}

/// An entry function that the text defines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Its symbol.
    pub name: String,
    /// Parameters in order.
    pub params: Vec<PtxParam>,
    /// `.maxntid`: the product limits the threads of a CTA.
    pub max_block: Option<[u32; 3]>,
    /// `.reqntid`: the block must be this.
    pub required_block: Option<[u32; 3]>,
    /// `.reqnctapercluster`: the cluster is this; zeros leave it to the launch.
    pub required_cluster: Option<[u32; 3]>,
    /// `.explicitcluster`: the launch must have a cluster.
    pub explicit_cluster: bool,
}

/// An entry function whose declaration cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: entry `{entry}`: {why}")]
pub struct PtxError {
    /// Line of the declaration, the first being 1.
    pub line: usize,
    /// Its symbol; empty where that is missing.
    pub entry: String,
    /// What is wrong.
    pub why: String,
}

impl fmt::Display for PtxParam {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.declared)
    }
}

/// Every entry function that the text defines, in its order. Prototypes without a body are left out.
pub fn entries(text: &str) -> Result<Vec<Entry>, PtxError> {
    let mut tokens = Tokens { text, at: 0 }.peekable();
    let mut found = Vec::new();
    while let Some((at, token)) = tokens.next() {
        if token != ".entry" {
            continue;
        }
        let mut entry = Entry::default();
        let read = declaration(&mut tokens, &mut entry);
        let defined = read.map_err(|why| PtxError {
            line: 1 + text[..at].matches('\n').count(),
            entry: entry.name.clone(),
            why,
        })?;
        if defined {
            found.push(entry);
        }
    }
    Ok(found)
}

struct Tokens<'a> {
    text: &'a str,
    at: usize,
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '$' | '%' | '.')
}

impl<'a> Tokens<'a> {
    /// Steps over white space and comments.
    fn skip(&mut self) {
        loop {
            let rest = &self.text[self.at..];
            let blank = rest.len() - rest.trim_start().len();
            let rest = &rest[blank..];
            let comment = if rest.starts_with("//") {
                rest.find('\n').unwrap_or(rest.len())
            } else if rest.starts_with("/*") {
                rest.find("*/").map_or(rest.len(), |end| end + 2)
            } else {
                0
            };
            self.at += blank + comment;
            if comment == 0 {
                return;
            }
        }
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = (usize, &'a str);

    fn next(&mut self) -> Option<(usize, &'a str)> {
        self.skip();
        let at = self.at;
        let rest = &self.text[at..];
        let first = rest.chars().next()?;
        let length = if is_word(first) {
            rest.find(|c| !is_word(c)).unwrap_or(rest.len())
        } else if first == '"' {
            rest[1..].find('"').map_or(rest.len(), |end| end + 2)
        } else {
            first.len_utf8()
        };
        self.at += length;
        Some((at, &rest[..length]))
    }
}

type Source<'a> = Peekable<Tokens<'a>>;

fn expect<'a>(tokens: &mut Source<'a>) -> Result<&'a str, String> {
    tokens.next().map(|(_, token)| token).ok_or_else(|| "the text ends within its declaration".to_owned())
}

fn eat(tokens: &mut Source<'_>, wanted: &str) -> bool {
    tokens.next_if(|(_, token)| *token == wanted).is_some()
}

/// From the name to the body; false for a prototype.
fn declaration(tokens: &mut Source<'_>, entry: &mut Entry) -> Result<bool, String> {
    let name = expect(tokens)?;
    if !name.starts_with(is_word) {
        return Err(format!("expected a name, found `{name}`"));
    }
    entry.name = name.to_owned();
    if eat(tokens, "(") && !eat(tokens, ")") {
        let mut end = 0;
        loop {
            let param = parameter(tokens, end)?;
            end = param.offset + param.size;
            entry.params.push(param);
            match expect(tokens)? {
                "," => {}
                ")" => break,
                other => return Err(format!("expected `,` or `)` after a parameter, found `{other}`")),
            }
        }
    }
    loop {
        match expect(tokens)? {
            "{" => return Ok(true),
            ";" => return Ok(false),
            ".maxntid" => entry.max_block = Some(extents(tokens)?),
            ".reqntid" => entry.required_block = Some(extents(tokens)?),
            ".reqnctapercluster" => entry.required_cluster = Some(extents(tokens)?),
            ".explicitcluster" => entry.explicit_cluster = true,
            ".pragma" => while expect(tokens)? != ";" {},
            _ => {}
        }
    }
}

/// One to three numbers; those that are left out are 1.
fn extents(tokens: &mut Source<'_>) -> Result<[u32; 3], String> {
    let mut extents = [1; 3];
    for (i, extent) in extents.iter_mut().enumerate() {
        if i > 0 && !eat(tokens, ",") {
            break;
        }
        let text = expect(tokens)?;
        *extent = text.parse().map_err(|_| format!("expected a number of threads or CTAs, found `{text}`"))?;
    }
    Ok(extents)
}

/// `.param .align 8 .b8 name[24]`, `.param .u64 .ptr .global .align 16 name`, and what lies between.
fn parameter(tokens: &mut Source<'_>, end: usize) -> Result<PtxParam, String> {
    let (mut declared, mut align, mut pointer) = ("", None, false);
    let name = loop {
        match expect(tokens)? {
            ".param" | ".global" | ".const" | ".shared" | ".local" | ".generic" => {}
            ".ptr" => pointer = true,
            ".align" => {
                let text = expect(tokens)?;
                let bytes = text.parse().ok().filter(|b: &usize| b.is_power_of_two() && *b <= 1 << 16);
                let bytes = bytes.ok_or_else(|| format!("`.align {text}` is no alignment"))?;
                // That of the pointee follows `.ptr`.
                align = if pointer { align } else { Some(bytes) };
            }
            token if token.starts_with('.') => declared = token,
            token if token.starts_with(is_word) => break token,
            other => return Err(format!("expected a parameter, found `{other}`")),
        }
    };
    let (element, kind) = element(declared).ok_or_else(|| format!("parameter `{name}` has no type that is known"))?;
    let mut param = PtxParam {
        name: name.to_owned(),
        offset: 0,
        size: element,
        align: align.unwrap_or(element),
        kind: if pointer { PtxKind::Pointer } else { kind },
        declared: declared.to_owned(),
    };
    if eat(tokens, "[") {
        let text = expect(tokens)?;
        let count = text.parse().ok().filter(|n: &usize| *n <= 1 << 16);
        let count = count.ok_or_else(|| format!("parameter `{name}[{text}]` has no size that is known"))?;
        if !eat(tokens, "]") {
            return Err(format!("parameter `{name}` has no closing bracket"));
        }
        param.size = element * count;
        param.kind = PtxKind::Bytes;
        param.declared = format!("{declared}[{count}]");
    }
    param.offset = end.next_multiple_of(param.align);
    Ok(param)
}

/// Bytes and kind of a type.
fn element(declared: &str) -> Option<(usize, PtxKind)> {
    if matches!(declared, ".texref" | ".samplerref" | ".surfref") {
        return Some((8, PtxKind::Opaque));
    }
    let kind = match declared.get(1..2)? {
        "u" | "s" => PtxKind::Integer,
        "f" => PtxKind::Float,
        "b" => PtxKind::Bits,
        _ => return None,
    };
    let bytes = match declared.get(2..)? {
        "8" => 1,
        "16" => 2,
        "32" | "16x2" => 4,
        "64" => 8,
        "128" => 16,
        _ => return None,
    };
    Some((bytes, kind))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEXT: &str = r#"
.version 9.0
.target sm_90a
.address_size 64
.file 1 "/a/.entry not_one("
.extern .func (.param .b32 retval0) vprintf (.param .b64 a, .param .b64 b);
// .entry commented(.param .u32 x) {
/* .entry also_commented { */
.visible .entry prototype(.param .u32 a);
	// .globl	_Z4gemmILi64EEvPKfPfif
.weak .entry _Z4gemmILi64EEvPKfPfif(
	.param .u64 .ptr .global .align 16 gemm_param_0,
	.param .u64 gemm_param_1,
	.param .u32 gemm_param_2,
	.param .f32 gemm_param_3,
	.param .u8 gemm_param_4,
	.param .align 2 .b8 gemm_param_5[2],
	.param .align 64 .b8 gemm_param_6[128],
	.param .b64 gemm_param_7
)
.maxntid 128, 1, 1
.minnctapersm 2
.reqnctapercluster 2, 1, 1
.explicitcluster
{
	.reg .b32 %r<2>;
	call.uni (retval0), vprintf, (param0, param1);
	ret;
}
.entry bare
.reqntid 32
.pragma "nounroll";
{
	ret;
}
"#;

    #[test]
    fn declarations_are_read_and_everything_else_is_passed_over() {
        let found = entries(TEXT).unwrap();
        assert_eq!(found.iter().map(|e| e.name.as_str()).collect::<Vec<_>>(), ["_Z4gemmILi64EEvPKfPfif", "bare"]);
        let gemm = &found[0];
        let layout: Vec<_> = gemm.params.iter().map(|p| (p.offset, p.size, p.align, p.kind)).collect();
        assert_eq!(
            layout,
            [
                (0, 8, 8, PtxKind::Pointer),
                (8, 8, 8, PtxKind::Integer),
                (16, 4, 4, PtxKind::Integer),
                (20, 4, 4, PtxKind::Float),
                (24, 1, 1, PtxKind::Integer),
                (26, 2, 2, PtxKind::Bytes),
                (64, 128, 64, PtxKind::Bytes),
                (192, 8, 8, PtxKind::Bits),
            ]
        );
        assert_eq!(gemm.params[6].to_string(), ".b8[128]");
        assert_eq!((gemm.max_block, gemm.required_block), (Some([128, 1, 1]), None));
        assert_eq!((gemm.required_cluster, gemm.explicit_cluster), (Some([2, 1, 1]), true));
        assert_eq!((found[1].params.len(), found[1].required_block), (0, Some([32, 1, 1])));
        assert_eq!(entries("nothing here").unwrap(), []);
    }

    #[test]
    fn what_cannot_be_read_is_one_line_with_line_and_entry() {
        let table = [
            ("\n.entry", "line 2: entry ``: the text ends within its declaration"),
            (".entry (", "line 1: entry ``: expected a name, found `(`"),
            (".entry k(.param .u32 a", "line 1: entry `k`: the text ends within its declaration"),
            (".entry k(.param .u32 a;", "line 1: entry `k`: expected `,` or `)` after a parameter, found `;`"),
            (".entry k(.param .u7 a)", "line 1: entry `k`: parameter `a` has no type that is known"),
            (".entry k(.param a)", "line 1: entry `k`: parameter `a` has no type that is known"),
            (".entry k(.param .b8 a[x])", "line 1: entry `k`: parameter `a[x]` has no size that is known"),
            (".entry k(.param .b8 a[4)", "line 1: entry `k`: parameter `a` has no closing bracket"),
            (".entry k(.param .align 3 .b8 a[4])", "line 1: entry `k`: `.align 3` is no alignment"),
            (".entry k().maxntid x {", "line 1: entry `k`: expected a number of threads or CTAs, found `x`"),
        ];
        for (text, line) in table {
            assert_eq!(entries(text).unwrap_err().to_string(), line);
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,80}", cut in 0..TEXT.len()) {
            let _ = entries(&text);
            let _ = entries(&TEXT[..cut]);
            let _ = entries(&format!("{}{text}{}", &TEXT[..cut], &TEXT[cut..]));
        }
    }
}
