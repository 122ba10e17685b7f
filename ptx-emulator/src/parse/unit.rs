//! Module level of the grammar: directives, variables with initialisers, function headers.

use super::ast::{Function, InitItem, Ty, Unit, Var, VarSpace};
use super::lexer::Token;
use super::{Cursor, MAX_VAR_BYTES, ParseError, body};

pub(super) fn parse_unit(cursor: &mut Cursor<'_, '_>) -> Result<Unit, ParseError> {
    let mut unit = Unit::default();
    let mut versioned = false;
    loop {
        match cursor.peek() {
            Token::End if versioned => return Ok(unit),
            Token::End => return cursor.error("no `.version`: this is not PTX text"),
            Token::Directive("version") => {
                cursor.next();
                versioned = true;
                version(cursor)?;
            }
            Token::Directive(word) => directive(cursor, &mut unit, word)?,
            Token::Punct(';') => {
                cursor.next();
            }
            _ => return cursor.expected("a directive"),
        }
    }
}

/// `9.0` arrives as the integer 9 and then `.0`.
fn version(cursor: &mut Cursor<'_, '_>) -> Result<(), ParseError> {
    cursor.int()?;
    match cursor.peek() {
        Token::Directive(_) => {
            cursor.next();
            Ok(())
        }
        _ => cursor.expected("the minor version"),
    }
}

fn directive(cursor: &mut Cursor<'_, '_>, unit: &mut Unit, word: &str) -> Result<(), ParseError> {
    match word {
        "target" => {
            cursor.next();
            unit.target = cursor.ident("a target")?.to_owned();
            while cursor.eat(',') {
                cursor.ident("a target option")?;
            }
            Ok(())
        }
        "address_size" => {
            cursor.next();
            if cursor.int()? == 64 { Ok(()) } else { cursor.error("only 64-bit addresses are supported") }
        }
        "file" => {
            cursor.next();
            file(cursor, unit)
        }
        "section" => {
            cursor.next();
            cursor.next();
            cursor.expect('{')?;
            cursor.skip_block()
        }
        "pragma" => cursor.skip_statement(),
        "loc" => {
            cursor.next();
            body::loc(cursor).map(drop)
        }
        _ => declaration(cursor, unit),
    }
}

fn file(cursor: &mut Cursor<'_, '_>, unit: &mut Unit) -> Result<(), ParseError> {
    let index = cursor.u32()?;
    let Token::Str(name) = cursor.next() else {
        return cursor.error("`.file` without a name");
    };
    unit.files.insert(index, name.to_owned());
    while cursor.eat(',') {
        cursor.int()?;
    }
    Ok(())
}

/// Linkage words, then a variable or a function.
fn declaration(cursor: &mut Cursor<'_, '_>, unit: &mut Unit) -> Result<(), ParseError> {
    let mut external = false;
    loop {
        match cursor.peek() {
            Token::Directive("visible" | "weak" | "common") => {}
            Token::Directive("extern") => external = true,
            Token::Directive(word @ ("entry" | "func")) => {
                cursor.next();
                let function = function(cursor, word == "entry", external)?;
                unit.functions.push(function);
                return Ok(());
            }
            Token::Directive(_) => {
                let vars = variable(cursor, external)?;
                unit.vars.extend(vars);
                return Ok(());
            }
            _ => return cursor.expected("a declaration"),
        }
        cursor.next();
    }
}

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

/// Header and body of `.entry` or `.func`.
fn function(cursor: &mut Cursor<'_, '_>, entry: bool, external: bool) -> Result<Function, ParseError> {
    let mut function = Function { entry, line: cursor.line(), ..Function::default() };
    if cursor.peek() == Token::Punct('(') {
        function.returns = formals(cursor, &mut function.vars)?;
    }
    function.name = cursor.ident("a function name")?.to_owned();
    if cursor.peek() == Token::Punct('(') {
        function.params = formals(cursor, &mut function.vars)?;
    }
    loop {
        match cursor.peek() {
            Token::Directive(word) => {
                cursor.next();
                tuning(cursor, &mut function, word)?;
            }
            Token::Punct(';') => {
                cursor.next();
                return Ok(function);
            }
            Token::Punct('{') if !external => {
                cursor.next();
                function.defined = true;
                body::parse_body(cursor, &mut function)?;
                return Ok(function);
            }
            _ => return cursor.expected("a function body or `;`"),
        }
    }
}

/// Parenthesised formal parameters.
fn formals(cursor: &mut Cursor<'_, '_>, vars: &mut Vec<Var>) -> Result<Vec<usize>, ParseError> {
    cursor.expect('(')?;
    let mut indices = Vec::new();
    while !cursor.eat(')') {
        let words = decl_words(cursor)?;
        if words.reg {
            return cursor.error("register parameters (`.reg`) are not supported, only `.param`");
        }
        let var = declarator(cursor, &words, false)?;
        indices.push(vars.len());
        vars.push(var);
        if !cursor.eat(',') {
            cursor.expect(')')?;
            break;
        }
    }
    Ok(indices)
}

/// Performance and launch-shape directives between header and body.
fn tuning(cursor: &mut Cursor<'_, '_>, function: &mut Function, word: &str) -> Result<(), ParseError> {
    match word {
        "maxntid" | "reqntid" => {
            let mut dims = [1u32; 3];
            dims[0] = cursor.u32()?;
            for dim in &mut dims[1..] {
                if cursor.eat(',') {
                    *dim = cursor.u32()?;
                }
            }
            function.max_threads = Some(dims.iter().map(|&d| u64::from(d)).fold(1, u64::saturating_mul));
            if word == "reqntid" {
                function.required_block = Some(dims);
            }
            Ok(())
        }
        "minnctapersm" | "maxnctapersm" | "maxnreg" => cursor.int().map(drop),
        "noreturn" => Ok(()),
        "pragma" => cursor.skip_statement(),
        "reqnctapercluster" | "explicitcluster" | "maxclusterrank" => {
            cursor.error(format!("thread-block clusters (`.{word}`) are not supported"))
        }
        _ => cursor.error(format!("unknown directive `.{word}`")),
    }
}
