//! Declarations of variables: space, type, dimensions and initialiser.

use super::ast::{InitItem, Ty, Var, VarSpace};
use super::lexer::Token;
use super::{Cursor, MAX_VAR_BYTES, ParseError};

/// The words of a declaration before its name: space, alignment and type.
#[derive(Default)]
pub(super) struct DeclWords {
    pub(super) space: Option<VarSpace>,
    pub(super) reg: bool,
    pub(super) align: Option<u32>,
    pub(super) ty: Option<Ty>,
    pub(super) vector: u32,
}

/// Reads `.shared .align 16 .b8`, also when written `.shared.align`, and `.ptr .global`.
pub(super) fn decl_words(cursor: &mut Cursor<'_, '_>) -> Result<DeclWords, ParseError> {
    let mut words = DeclWords { vector: 1, ..DeclWords::default() };
    let mut pointer = false;
    while let Token::Directive(text) = cursor.peek() {
        cursor.next();
        for word in text.split('.') {
            match word {
                // After `.ptr` the space and alignment describe the pointee.
                "global" | "const" | "shared" | "local" | "param" if pointer => {}
                "global" => words.space = Some(VarSpace::Global),
                "const" => words.space = Some(VarSpace::Const),
                "shared" => words.space = Some(VarSpace::Shared),
                "local" => words.space = Some(VarSpace::Local),
                "param" => words.space = Some(VarSpace::Param),
                "reg" => words.reg = true,
                "ptr" => pointer = true,
                "v2" => words.vector = 2,
                "v4" => words.vector = 4,
                "align" => {
                    let align = cursor.u32()?;
                    if !align.is_power_of_two() || align > 4096 {
                        return cursor.error(format!("alignment {align} is not a power of two up to 4096"));
                    }
                    if !pointer {
                        words.align = Some(align);
                    }
                }
                // Type suffix of a unified address attribute; nothing to keep.
                "attribute" => cursor.skip_parenthesised()?,
                other => match Ty::parse(other) {
                    Some(ty) => words.ty = Some(ty),
                    None => return cursor.error(format!("unknown directive `.{other}`")),
                },
            }
        }
    }
    Ok(words)
}

impl Cursor<'_, '_> {
    fn skip_parenthesised(&mut self) -> Result<(), ParseError> {
        self.expect('(')?;
        while !self.eat(')') {
            if self.next() == Token::End {
                return self.expected("`)`");
            }
        }
        Ok(())
    }
}

/// One or more variables of the same type, ended by `;`.
pub(super) fn variable(cursor: &mut Cursor<'_, '_>, external: bool) -> Result<Vec<Var>, ParseError> {
    let words = decl_words(cursor)?;
    let mut vars = Vec::new();
    loop {
        vars.push(declarator(cursor, &words, external)?);
        if cursor.eat(',') {
            continue;
        }
        cursor.expect(';')?;
        return Ok(vars);
    }
}

/// Name, dimensions and initialiser behind the declaration words.
pub(super) fn declarator(cursor: &mut Cursor<'_, '_>, words: &DeclWords, external: bool) -> Result<Var, ParseError> {
    let line = cursor.line();
    let (Some(space), Some(ty)) = (words.space, words.ty) else {
        return cursor.expected("a state space and a type before the name");
    };
    let name = cursor.ident("a variable name")?.to_owned();
    let mut count = u64::from(words.vector);
    let mut open = false;
    while cursor.eat('[') {
        if cursor.eat(']') {
            open = true;
            continue;
        }
        let extent = u64::try_from(cursor.int()?).unwrap_or(u64::MAX);
        count = count.saturating_mul(extent);
        cursor.expect(']')?;
    }
    let mut init = Vec::new();
    if cursor.eat('=') {
        initialiser(cursor, ty, &mut init, 0)?;
    }
    let bytes = if open && init.is_empty() {
        0
    } else if open {
        init_bytes(&init)
    } else {
        count.saturating_mul(u64::from(ty.bytes()))
    };
    if bytes > MAX_VAR_BYTES || init_bytes(&init) > bytes {
        return Err(ParseError::new(line, format!("`{name}` has an impossible size")));
    }
    let align = words.align.unwrap_or(ty.bytes() * words.vector);
    Ok(Var { name, space, align, bytes, init, external, line })
}

fn init_bytes(init: &[InitItem]) -> u64 {
    init.iter()
        .map(|item| match item {
            InitItem::Bytes(bytes) => bytes.len() as u64,
            InitItem::Address(..) => 8,
        })
        .sum()
}

fn initialiser(cursor: &mut Cursor<'_, '_>, ty: Ty, out: &mut Vec<InitItem>, depth: u32) -> Result<(), ParseError> {
    if depth > 8 {
        return cursor.error("initialiser is nested too deeply");
    }
    if cursor.eat('{') {
        while !cursor.eat('}') {
            initialiser(cursor, ty, out, depth + 1)?;
            if !cursor.eat(',') {
                cursor.expect('}')?;
                break;
            }
        }
        return Ok(());
    }
    let size = ty.bytes() as usize;
    let item = match cursor.peek() {
        Token::F32(bits) if size == 4 => {
            cursor.next();
            InitItem::Bytes(bits.to_le_bytes().to_vec())
        }
        Token::F64(bits) if size == 8 => {
            cursor.next();
            InitItem::Bytes(bits.to_le_bytes().to_vec())
        }
        Token::Ident(word) if size == 8 => {
            cursor.next();
            address(cursor, word)?
        }
        _ => InitItem::Bytes(cursor.int()?.to_le_bytes()[..size].to_vec()),
    };
    if let (InitItem::Bytes(new), Some(InitItem::Bytes(last))) = (&item, out.last_mut()) {
        last.extend_from_slice(new);
    } else {
        out.push(item);
    }
    Ok(())
}

/// `name`, `name+4` or `generic(name)` in an initialiser.
fn address(cursor: &mut Cursor<'_, '_>, word: &str) -> Result<InitItem, ParseError> {
    let name = if word == "generic" {
        cursor.expect('(')?;
        let name = cursor.ident("a symbol")?;
        cursor.expect(')')?;
        name
    } else {
        word
    };
    let offset = if cursor.eat('+') { cursor.int()? } else { 0 };
    Ok(InitItem::Address(name.to_owned(), offset))
}
