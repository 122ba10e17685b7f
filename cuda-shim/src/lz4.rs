//! One block of LZ4, by its published format: runs of literal bytes, each followed by a copy of what came before.

/// A length that begins with the four bits of a token and goes on while bytes are full.
fn length(first: u8, input: &mut &[u8]) -> Option<usize> {
    let mut length = usize::from(first);
    if first == 15 {
        loop {
            let (&byte, rest) = input.split_first()?;
            *input = rest;
            length = length.checked_add(usize::from(byte))?;
            if byte != 255 {
                break;
            }
        }
    }
    Some(length)
}

/// What a block unpacks to, which has at most so many bytes; nothing where it is damaged.
pub fn unpack(mut input: &[u8], most: usize) -> Option<Vec<u8>> {
    /// Shortest copy: a token counts from here.
    const MIN_COPY: usize = 4;
    let mut out = Vec::with_capacity(most);
    while let Some((&token, rest)) = input.split_first() {
        input = rest;
        let literals = length(token >> 4, &mut input)?;
        let (bytes, rest) = input.split_at_checked(literals)?;
        out.extend_from_slice(bytes);
        input = rest;
        // The last run has no copy behind it.
        if input.is_empty() {
            break;
        }
        let (distance, rest) = input.split_at_checked(2)?;
        let distance = usize::from(u16::from_le_bytes(distance.try_into().ok()?));
        input = rest;
        let copied = length(token & 15, &mut input)? + MIN_COPY;
        let from = out.len().checked_sub(distance).filter(|_| distance > 0)?;
        if out.len() + copied > most {
            return None;
        }
        // It may reach into what it writes.
        (from..from + copied).for_each(|at| out.push(out[at]));
    }
    (out.len() <= most).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_and_copies_that_overlap_unpack() {
        // "ab", then 18 bytes from two before: ababab...; then "!".
        let block = [0x2e, b'a', b'b', 2, 0, 0x10, b'!'];
        assert_eq!(unpack(&block, 21).as_deref(), Some(&b"abababababababababab!"[..]));
        let long = [&[0xf0, 255, 0][..], &[7; 270], &[][..]].concat();
        assert_eq!(unpack(&long, 270), Some(vec![7; 270]));
    }

    #[test]
    fn damage_is_nothing() {
        for block in [&[0x2e, b'a'][..], &[0x2e, b'a', b'b', 3, 0, 0], &[0x2e, b'a', b'b', 0, 0, 0], &[0xf0, 255]] {
            assert_eq!(unpack(block, 100), None, "{block:?}");
        }
        assert_eq!(unpack(&[0x2e, b'a', b'b', 2, 0, 0x10, b'!'], 10), None, "too long");
    }
}
