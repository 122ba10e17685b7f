//! For tests: a struct of a C header, laid out as the compiler for the device does, so that a twin in Rust is held to what
//! the header says and not to a copy of it.

/// Name, offset and size of a field; an array is as many fields, `name[0]` first.
pub type Field = (String, usize, usize);

/// The fields of a struct.
pub fn c_layout(header: &str, name: &str) -> Vec<Field> {
    let body = header.split(&format!("struct {name} {{")).nth(1).unwrap().split("};").next().unwrap();
    let mut end: usize = 0;
    let mut fields = Vec::new();
    for declaration in body.lines().filter_map(|line| line.split("//").next()?.trim().strip_suffix(';')) {
        let (kind, field) = declaration.rsplit_once(' ').unwrap();
        let size = match kind {
            pointer if pointer.ends_with('*') => 8,
            "int32_t" | "uint32_t" | "float" => 4,
            other => panic!("`{other}` has an unknown size"),
        };
        let names = match field.strip_suffix(']').and_then(|field| field.split_once('[')) {
            Some((array, count)) => (0..count.parse().unwrap()).map(|i: usize| format!("{array}[{i}]")).collect(),
            None => vec![field.to_owned()],
        };
        for name in names {
            let offset = end.next_multiple_of(size);
            fields.push((name, offset, size));
            end = offset + size;
        }
    }
    fields
}

/// What stands in a field.
pub fn value(bytes: &[u8], (_, offset, size): &Field) -> u64 {
    bytes[*offset..offset + size].iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// Every field with what stands in it, in the order of the header.
pub fn values(header: &str, name: &str, bytes: &[u8]) -> Vec<(String, u64)> {
    c_layout(header, name).iter().map(|field| (field.0.clone(), value(bytes, field))).collect()
}
