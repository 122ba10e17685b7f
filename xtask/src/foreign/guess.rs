//! What a kernel's parameter is, by its declaration in the source and by its type in the PTX. Guesses for a draft: a typedef, a
//! macro or a template hides a type from both.
//! Leaves to others: names, and which parameters belong together.

use kernel_spec::dtype::Dtype;
use kernel_spec::ptx::{PtxKind, PtxParam};

/// Words of a declaration that say nothing of the element.
const QUALIFIERS: [&str; 8] =
    ["const", "volatile", "__restrict__", "__restrict", "restrict", "struct", "std", "__grid_constant__"];

fn words(declaration: &str) -> impl Iterator<Item = &str> {
    declaration.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// Whether a parameter is an address.
pub fn is_pointer(declaration: Option<&str>, compiled: Option<&PtxParam>) -> bool {
    match (declaration, compiled) {
        (Some(text), _) => text.contains('*') || text.contains('['),
        // Compilers declare pointers as 64-bit integers.
        (None, Some(param)) => param.kind == PtxKind::Pointer || param.kind == PtxKind::Integer && param.size == 8,
        (None, None) => false,
    }
}

/// Whether a parameter is the address of something that is only read.
pub fn is_const_pointer(declaration: &str) -> bool {
    let pointee = declaration.rsplit_once('*').map_or(declaration, |(pointee, _)| pointee);
    is_pointer(Some(declaration), None) && words(pointee).any(|word| word == "const")
}

/// The element of a declaration, where it names one that is known. Vectors are of their elements.
pub fn element(declaration: &str) -> Option<Dtype> {
    let declaration = declaration.split(['=', '[']).next().unwrap_or_default();
    let name = super::source_text::declared_name(declaration);
    let all = words(declaration).filter(|word| !QUALIFIERS.contains(word));
    // The last word is the parameter's name, if there is one besides the type.
    let mut of_type: Vec<&str> = all.collect();
    if of_type.len() > 1 && of_type.last() == Some(&name) && !is_of_integer(name) {
        of_type.pop();
    }
    let unsigned = of_type.contains(&"unsigned");
    let signed = |wide: Dtype, other: Dtype| Some(if unsigned { other } else { wide });
    let rest: Vec<&str> = of_type.into_iter().filter(|w| !matches!(*w, "unsigned" | "signed")).collect();
    match rest.as_slice() {
        [] | ["int"] => signed(Dtype::I32, Dtype::U32),
        ["char"] => signed(Dtype::I8, Dtype::U8),
        ["short"] | ["short", "int"] => signed(Dtype::I16, Dtype::U16),
        ["long", ..] if rest.iter().all(|w| matches!(*w, "long" | "int")) => signed(Dtype::I64, Dtype::U64),
        [one] => named(one),
        _ => None,
    }
}

/// Words of C's integers, which cannot be a name.
fn is_of_integer(word: &str) -> bool {
    matches!(word, "int" | "char" | "short" | "long" | "unsigned" | "signed")
}

fn named(word: &str) -> Option<Dtype> {
    match word {
        "__nv_fp8_e4m3" => return Some(Dtype::E4m3),
        "__nv_fp8_e5m2" => return Some(Dtype::E5m2),
        _ => {}
    }
    // `float4` is of floats, `half2` of halves.
    let scalar = word.strip_suffix(['2', '3', '4']).unwrap_or(word);
    Some(match scalar {
        "half" | "__half" | "float16_t" | "half_t" => Dtype::F16,
        "__nv_bfloat16" | "nv_bfloat16" | "bfloat16_t" | "bfloat16" | "bf16" => Dtype::Bf16,
        "float" => Dtype::F32,
        "double" => Dtype::F64,
        "bool" => Dtype::Bool,
        "int" | "int32_t" => Dtype::I32,
        "uint" | "uint32_t" => Dtype::U32,
        "int8_t" | "char" => Dtype::I8,
        "uint8_t" | "uchar" => Dtype::U8,
        "int16_t" | "short" => Dtype::I16,
        "uint16_t" | "ushort" => Dtype::U16,
        "int64_t" | "ptrdiff_t" | "ssize_t" | "longlong" => Dtype::I64,
        "uint64_t" | "size_t" | "ulonglong" => Dtype::U64,
        _ => return None,
    })
}

/// The type of a number by value; none for a struct.
pub fn scalar(declaration: Option<&str>, compiled: Option<&PtxParam>) -> Option<Dtype> {
    let by_ptx = compiled.map(|p| match (p.kind, p.size) {
        (PtxKind::Float, 4) => Some(Dtype::F32),
        (PtxKind::Float, 8) => Some(Dtype::F64),
        (PtxKind::Integer, 1) => Some(Dtype::I8),
        (PtxKind::Integer, 2) => Some(Dtype::I16),
        (PtxKind::Integer, 4) => Some(Dtype::I32),
        (PtxKind::Integer, 8) => Some(Dtype::I64),
        (PtxKind::Bytes, 2) => Some(Dtype::F16),
        _ => None,
    });
    let by_text = declaration.and_then(element);
    match (by_text, by_ptx) {
        // The source says the sign, and which of two floats; the PTX has the last word on the size.
        (Some(text), Some(_)) if compiled.is_some_and(|p| p.size == text.bytes()) => Some(text),
        (text, None) => text,
        (_, Some(ptx)) => ptx,
    }
}

/// A struct by value, as zeros of its alignment: its members are in no PTX.
pub fn members(param: Option<&PtxParam>) -> String {
    let (size, align) = param.map_or((8, 8), |p| (p.size, p.align));
    let (bytes, dtype) = match align {
        1 => (1, "u8"),
        2 => (2, "u16"),
        4 => (4, "u32"),
        _ => (8, "u64"),
    };
    let members = vec![format!("\"0: {dtype}\""); (size / bytes).max(1)].join(", ");
    let wider = if align > 8 { format!(", align = {align}") } else { String::new() };
    format!("{{ struct = [{members}]{wider} }}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_read_off_declarations() {
        for (declaration, dtype) in [
            ("const half* __restrict__ x", Some(Dtype::F16)),
            ("__nv_bfloat16 *x", Some(Dtype::Bf16)),
            ("const __nv_bfloat162* x", Some(Dtype::Bf16)),
            ("__nv_fp8_e4m3* x", Some(Dtype::E4m3)),
            ("const __nv_fp8_e5m2* x", Some(Dtype::E5m2)),
            ("float4* v", Some(Dtype::F32)),
            ("unsigned long long n[4]", Some(Dtype::U64)),
            ("unsigned n", Some(Dtype::U32)),
            ("unsigned char* bytes", Some(Dtype::U8)),
            ("std::int64_t n=4", Some(Dtype::I64)),
            ("long int n", Some(Dtype::I64)),
            ("bool masked", Some(Dtype::Bool)),
            ("float", Some(Dtype::F32)),
            ("T* x", None),
            ("Params p", None),
            ("void* workspace", None),
        ] {
            assert_eq!(element(declaration), dtype, "{declaration}");
        }
    }

    #[test]
    fn addresses_that_are_only_read_are_known_by_const() {
        assert!(is_const_pointer("const half* x") && is_const_pointer("half const *__restrict__ x"));
        assert!(!is_const_pointer("half* const x") && !is_const_pointer("const int n") && !is_const_pointer("half* y"));
    }
}
