//! Module level of the grammar: directives and function headers.

use super::ast::{Formal, Function, RegDecl, Unit};
use super::lexer::Token;
use super::variable::{decl_words, declarator, variable};
use super::{Cursor, ParseError, body};

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
            let (index, name) = body::file(cursor)?;
            unit.files.insert(index, name.to_owned());
            Ok(())
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

/// Header and body of `.entry` or `.func`.
fn function(cursor: &mut Cursor<'_, '_>, entry: bool, external: bool) -> Result<Function, ParseError> {
    let mut function = Function { entry, line: cursor.line(), ..Function::default() };
    if cursor.peek() == Token::Punct('(') {
        function.returns = formals(cursor, &mut function)?;
    }
    function.name = cursor.ident("a function name")?.to_owned();
    if cursor.peek() == Token::Punct('(') {
        function.params = formals(cursor, &mut function)?;
    }
    loop {
        match cursor.peek() {
            // Old compilers end a declaration with nothing at all.
            Token::Directive(word) if begins_declaration(word) => return Ok(function),
            Token::End => return Ok(function),
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

/// Whether a directive starts the next declaration of the module.
fn begins_declaration(word: &str) -> bool {
    let first = word.split('.').next().unwrap_or_default();
    matches!(
        first,
        "visible" | "weak" | "extern" | "entry" | "func" | "global" | "const" | "shared" | "local" | "file" | "section"
    )
}

/// Parenthesised formal parameters.
fn formals(cursor: &mut Cursor<'_, '_>, function: &mut Function) -> Result<Vec<Formal>, ParseError> {
    cursor.expect('(')?;
    let mut formals = Vec::new();
    while !cursor.eat(')') {
        let words = decl_words(cursor)?;
        if words.reg {
            let Some(ty) = words.ty else {
                return cursor.expected("a register type");
            };
            let name = cursor.ident("a register name")?.to_owned();
            let regs = match words.vector {
                1 => {
                    function.regs.push(RegDecl { name, ty });
                    vec![function.regs.len() - 1]
                }
                count => body::vector_register(function, &name, ty, count),
            };
            formals.push(Formal::Regs(regs));
        } else {
            let var = declarator(cursor, &words, false)?;
            formals.push(Formal::Var(function.vars.len()));
            function.vars.push(var);
        }
        if !cursor.eat(',') {
            cursor.expect(')')?;
            break;
        }
    }
    Ok(formals)
}

/// One to three numbers; those left out are 1.
fn dimensions(cursor: &mut Cursor<'_, '_>) -> Result<[u32; 3], ParseError> {
    let mut dims = [1u32; 3];
    dims[0] = cursor.u32()?;
    for dim in &mut dims[1..] {
        if cursor.eat(',') {
            *dim = cursor.u32()?;
        }
    }
    Ok(dims)
}

/// Performance and launch-shape directives between header and body.
fn tuning(cursor: &mut Cursor<'_, '_>, function: &mut Function, word: &str) -> Result<(), ParseError> {
    match word {
        "maxntid" | "reqntid" => {
            let dims = dimensions(cursor)?;
            function.max_threads = Some(dims.iter().map(|&d| u64::from(d)).fold(1, u64::saturating_mul));
            if word == "reqntid" {
                function.required_block = Some(dims);
            }
            Ok(())
        }
        "minnctapersm" | "maxnctapersm" | "maxnreg" => cursor.int().map(drop),
        "noreturn" => Ok(()),
        "pragma" => cursor.skip_statement(),
        "reqnctapercluster" => {
            function.required_cluster = Some(dimensions(cursor)?);
            Ok(())
        }
        "maxclusterrank" => cursor.int().map(drop),
        "explicitcluster" => Ok(()),
        _ => cursor.error(format!("unknown directive `.{word}`")),
    }
}
