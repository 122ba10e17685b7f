//! Function bodies: scopes, register families, labels, `.loc` and instructions.

use std::collections::HashMap;

use super::ast::{Function, Inst, Label, Loc, Operand, Part, Pos, RegDecl, Ty};
use super::lexer::Token;
use super::variable::{decl_words, declarator};
use super::{Cursor, ParseError};

/// Nesting of `{ }` scopes accepted; nvcc emits two or three.
const MAX_SCOPES: usize = 64;
/// Operands nest at most as `[ { } ]`.
const MAX_OPERAND_DEPTH: u32 = 8;

/// Names visible in one `{ }` scope.
#[derive(Default)]
struct Scope {
    /// Index into `scope_parent`.
    id: usize,
    regs: HashMap<String, usize>,
    /// `%r<N>`: prefix, type and count; members become registers when first named.
    families: Vec<(String, Ty, u32)>,
    vars: HashMap<String, usize>,
    /// Vector registers: their elements in order.
    vectors: HashMap<String, Vec<usize>>,
}

struct Body<'f> {
    function: &'f mut Function,
    scopes: Vec<Scope>,
    loc: Option<usize>,
}

/// Parses statements up to the closing brace of the body.
pub(super) fn parse_body(cursor: &mut Cursor<'_, '_>, function: &mut Function) -> Result<(), ParseError> {
    let vars = function.vars.iter().enumerate().map(|(i, v)| (v.name.clone(), i)).collect();
    let mut scope = Scope { vars, ..Scope::default() };
    // Registers declared so far are formal parameters.
    for (index, reg) in function.regs.iter().enumerate() {
        scope.regs.insert(reg.name.clone(), index);
        if let Some((vector, _)) = reg.name.split_once('.') {
            scope.vectors.entry(vector.to_owned()).or_default().push(index);
        }
    }
    function.scope_parent.push(0);
    let mut body = Body { function, scopes: vec![scope], loc: None };
    while !body.scopes.is_empty() {
        body.statement(cursor)?;
    }
    Ok(())
}

/// The rest of a `.loc` directive.
pub(super) fn loc(cursor: &mut Cursor<'_, '_>) -> Result<Loc, ParseError> {
    let pos = position(cursor)?;
    let mut loc = Loc { pos, inlined_at: None };
    while cursor.eat(',') {
        match cursor.ident("`function_name` or `inlined_at`")? {
            "function_name" => {
                cursor.ident("a debug label")?;
                if cursor.eat('+') {
                    cursor.int()?;
                }
            }
            "inlined_at" => loc.inlined_at = Some(position(cursor)?),
            other => return cursor.error(format!("unknown `.loc` attribute `{other}`")),
        }
    }
    Ok(loc)
}

fn position(cursor: &mut Cursor<'_, '_>) -> Result<Pos, ParseError> {
    Ok(Pos { file: cursor.u32()?, line: cursor.u32()?, column: cursor.u32()? })
}

impl Body<'_> {
    fn scope(&mut self) -> &mut Scope {
        self.scopes.last_mut().expect("a statement is parsed only inside a scope")
    }

    fn statement(&mut self, cursor: &mut Cursor<'_, '_>) -> Result<(), ParseError> {
        match cursor.peek() {
            Token::Punct('{') => {
                cursor.next();
                if self.scopes.len() >= MAX_SCOPES {
                    return cursor.error("scopes are nested too deeply");
                }
                let parent = self.scope().id;
                let id = self.function.scope_parent.len();
                self.function.scope_parent.push(parent);
                self.scopes.push(Scope { id, ..Scope::default() });
                Ok(())
            }
            Token::Punct('}') => {
                cursor.next();
                self.scopes.pop();
                Ok(())
            }
            Token::Punct(';') => {
                cursor.next();
                Ok(())
            }
            Token::Directive("loc") => {
                cursor.next();
                self.function.locs.push(loc(cursor)?);
                self.loc = Some(self.function.locs.len() - 1);
                Ok(())
            }
            Token::Directive("pragma") => cursor.skip_statement(),
            Token::Directive("file") => {
                cursor.next();
                file(cursor).map(drop)
            }
            Token::Directive(word) => self.declaration(cursor, word),
            Token::Ident(name) if cursor.peek_at(1) == Token::Punct(':') => {
                cursor.next();
                cursor.next();
                if let Token::Directive(word @ ("callprototype" | "calltargets" | "branchtargets")) = cursor.peek() {
                    cursor.next();
                    return self.targets(cursor, name, word);
                }
                let (scope, at) = (self.scope().id, self.function.insts.len());
                self.function.labels.push(Label { scope, name: name.to_owned(), at });
                Ok(())
            }
            Token::Ident(_) | Token::Punct('@') => self.instruction(cursor),
            _ => cursor.expected("a statement"),
        }
    }

    fn declaration(&mut self, cursor: &mut Cursor<'_, '_>, first: &str) -> Result<(), ParseError> {
        let words = decl_words(cursor)?;
        loop {
            if words.reg {
                self.register(cursor, words.ty, words.vector)?;
            } else if words.space.is_some() {
                let var = declarator(cursor, &words, false)?;
                let index = self.function.vars.len();
                self.scope().vars.insert(var.name.clone(), index);
                self.function.vars.push(var);
            } else {
                return cursor.error(format!("unknown directive `.{first}`"));
            }
            if !cursor.eat(',') {
                return cursor.expect(';');
            }
        }
    }

    /// What may stand behind a label instead of an instruction.
    fn targets(&mut self, cursor: &mut Cursor<'_, '_>, label: &str, word: &str) -> Result<(), ParseError> {
        if word == "callprototype" {
            // The functions that fit are found by the arguments given.
            return cursor.skip_statement();
        }
        let mut names = Vec::new();
        loop {
            names.push(cursor.ident("a target")?.to_owned());
            if !cursor.eat(',') {
                break;
            }
        }
        self.function.targets.insert(label.to_owned(), names);
        cursor.expect(';')
    }

    fn register(&mut self, cursor: &mut Cursor<'_, '_>, ty: Option<Ty>, vector: u32) -> Result<(), ParseError> {
        let Some(ty) = ty else {
            return cursor.expected("a register type");
        };
        let name = cursor.ident("a register name")?.to_owned();
        if vector != 1 {
            for name in vector_names(cursor, name)? {
                let elements = vector_register(self.function, &name, ty, vector);
                for &index in &elements {
                    let element = self.function.regs[index].name.clone();
                    self.scope().regs.insert(element, index);
                }
                self.scope().vectors.insert(name, elements);
            }
        } else if cursor.eat('<') {
            let count = cursor.u32()?;
            cursor.expect('>')?;
            self.scope().families.push((name, ty, count));
        } else {
            let index = self.function.regs.len();
            self.function.regs.push(RegDecl { name: name.clone(), ty });
            self.scope().regs.insert(name, index);
        }
        Ok(())
    }

    fn instruction(&mut self, cursor: &mut Cursor<'_, '_>) -> Result<(), ParseError> {
        let line = cursor.line();
        let mut guard = None;
        if cursor.eat('@') {
            let negated = cursor.eat('!');
            let name = cursor.ident("a predicate register")?;
            match self.resolve(name) {
                Some(Operand::Reg(reg)) if self.function.regs[reg].ty == Ty::Pred => {
                    guard = Some((reg, negated));
                }
                _ => return cursor.error(format!("guard `{name}` is not a predicate register")),
            }
        }
        let text = cursor.ident("an instruction")?;
        let mut words = text.split('.').map(str::to_owned);
        let opcode = words.next().unwrap_or_default();
        let modifiers = words.collect();
        let mut operands = Vec::new();
        while !cursor.eat(';') {
            operands.push(self.operand(cursor, 0)?);
            if !cursor.eat(',') {
                cursor.expect(';')?;
                break;
            }
        }
        let scope = self.scope().id;
        let loc = self.loc;
        self.function.insts.push(Inst { guard, opcode, modifiers, operands, line, loc, scope });
        Ok(())
    }

    /// A register or variable of the enclosing scopes, or a special register.
    fn resolve(&mut self, name: &str) -> Option<Operand> {
        for depth in (0..self.scopes.len()).rev() {
            let scope = &self.scopes[depth];
            if let Some(&reg) = scope.regs.get(name) {
                return Some(Operand::Reg(reg));
            }
            if let Some(&var) = scope.vars.get(name) {
                return Some(Operand::Var(var, 0));
            }
            if let Some(elements) = scope.vectors.get(name) {
                return Some(Operand::Vector(elements.iter().map(|&reg| Operand::Reg(reg)).collect()));
            }
            if let Some(ty) = family_member(&scope.families, name) {
                let index = self.function.regs.len();
                self.function.regs.push(RegDecl { name: name.to_owned(), ty });
                self.scopes[depth].regs.insert(name.to_owned(), index);
                return Some(Operand::Reg(index));
            }
        }
        if let Some((base, suffix)) = name.rsplit_once('.')
            && let Some(part) = part(suffix)
            && let Some(Operand::Reg(reg)) = self.resolve(base)
        {
            return Some(Operand::Part(reg, part));
        }
        if name == "WARP_SZ" {
            return Some(Operand::Int(32));
        }
        name.starts_with('%').then(|| Operand::Special(name.to_owned()))
    }

    fn operand(&mut self, cursor: &mut Cursor<'_, '_>, depth: u32) -> Result<Operand, ParseError> {
        if depth > MAX_OPERAND_DEPTH {
            return cursor.error("operand is nested too deeply");
        }
        match cursor.peek() {
            Token::Punct('[') => {
                cursor.next();
                self.address(cursor, depth)
            }
            Token::Punct('{') => {
                cursor.next();
                Ok(Operand::Vector(self.operands_until(cursor, '}', depth)?))
            }
            Token::Punct('(') => {
                cursor.next();
                Ok(Operand::List(self.operands_until(cursor, ')', depth)?))
            }
            Token::Punct('!') => {
                cursor.next();
                Ok(Operand::Not(Box::new(self.operand(cursor, depth + 1)?)))
            }
            Token::Punct('-') | Token::Int(_) => Ok(Operand::Int(cursor.int()?)),
            Token::F32(bits) => {
                cursor.next();
                Ok(Operand::F32(bits))
            }
            Token::F64(bits) => {
                cursor.next();
                Ok(Operand::F64(bits))
            }
            Token::Ident("_") => {
                cursor.next();
                self.pair(cursor, Operand::Sink, depth)
            }
            Token::Ident(_) => {
                let base = match self.named(cursor)? {
                    Operand::Reg(reg) if cursor.eat('+') => Operand::Sum(reg, cursor.int()?),
                    other => other,
                };
                self.pair(cursor, base, depth)
            }
            _ => cursor.expected("an operand"),
        }
    }

    /// A name with an optional `+offset`.
    fn named(&mut self, cursor: &mut Cursor<'_, '_>) -> Result<Operand, ParseError> {
        let name = cursor.ident("a name")?;
        let base = self.resolve(name).unwrap_or_else(|| Operand::Name(name.to_owned(), 0));
        let offset = if matches!(base, Operand::Var(..) | Operand::Name(..)) { signed_offset(cursor)? } else { 0 };
        Ok(match base {
            Operand::Var(var, _) => Operand::Var(var, offset),
            Operand::Name(name, _) => Operand::Name(name, offset),
            other => other,
        })
    }

    fn pair(&mut self, cursor: &mut Cursor<'_, '_>, first: Operand, depth: u32) -> Result<Operand, ParseError> {
        if !cursor.eat('|') {
            return Ok(first);
        }
        let second = self.operand(cursor, depth + 1)?;
        Ok(Operand::Pair(Box::new(first), Box::new(second)))
    }

    fn operands_until(
        &mut self,
        cursor: &mut Cursor<'_, '_>,
        close: char,
        depth: u32,
    ) -> Result<Vec<Operand>, ParseError> {
        let mut list = Vec::new();
        while !cursor.eat(close) {
            list.push(self.operand(cursor, depth + 1)?);
            if !cursor.eat(',') {
                cursor.expect(close)?;
                break;
            }
        }
        Ok(list)
    }

    fn address(&mut self, cursor: &mut Cursor<'_, '_>, depth: u32) -> Result<Operand, ParseError> {
        let base = match cursor.peek() {
            Token::Int(_) | Token::Punct('-') => Operand::Int(cursor.int()?),
            _ => self.named(cursor)?,
        };
        let offset = signed_offset(cursor)?;
        if cursor.eat(',') {
            // A tensor address: coordinates follow. Kept so that lowering names the opcode.
            let rest = self.operands_until(cursor, ']', depth)?;
            let mut list = vec![Operand::Addr(Box::new(base), offset)];
            list.extend(rest);
            return Ok(Operand::List(list));
        }
        cursor.expect(']')?;
        Ok(Operand::Addr(Box::new(base), offset))
    }
}

/// `b0` to `b3`, `h0` and `h1` behind a register.
fn part(suffix: &str) -> Option<Part> {
    let (bits, index) = match suffix.as_bytes() {
        [b'b', digit @ b'0'..=b'3'] => (8, digit - b'0'),
        [b'h', digit @ b'0'..=b'1'] => (16, digit - b'0'),
        _ => return None,
    };
    Some(Part { first_bit: bits * u32::from(index), bits })
}

/// Most members of a family of vector registers, all of which are declared at once.
const MOST_VECTORS: u32 = 4096;

/// The vector registers that a declaration names: one, or a family of them.
fn vector_names(cursor: &mut Cursor<'_, '_>, name: String) -> Result<Vec<String>, ParseError> {
    if !cursor.eat('<') {
        return Ok(vec![name]);
    }
    let count = cursor.u32()?;
    if count > MOST_VECTORS {
        return cursor.expected("a count of vector registers up to 4096");
    }
    cursor.expect('>')?;
    Ok((0..count).map(|i| format!("{name}{i}")).collect())
}

/// Declares the elements of a vector register and returns them.
pub(super) fn vector_register(function: &mut Function, name: &str, ty: Ty, count: u32) -> Vec<usize> {
    let first = function.regs.len();
    for element in ["x", "y", "z", "w"].into_iter().take(count as usize) {
        function.regs.push(RegDecl { name: format!("{name}.{element}"), ty });
    }
    (first..function.regs.len()).collect()
}

/// The rest of a `.file` directive: index and name.
pub(super) fn file<'a>(cursor: &mut Cursor<'_, 'a>) -> Result<(u32, &'a str), ParseError> {
    let index = cursor.u32()?;
    let Token::Str(name) = cursor.next() else {
        return cursor.error("`.file` without a name");
    };
    while cursor.eat(',') {
        cursor.int()?;
    }
    Ok((index, name))
}

/// `+4`, `+-4`, `-4` or nothing.
fn signed_offset(cursor: &mut Cursor<'_, '_>) -> Result<i64, ParseError> {
    if cursor.eat('+') || cursor.peek() == Token::Punct('-') { cursor.int() } else { Ok(0) }
}

fn family_member(families: &[(String, Ty, u32)], name: &str) -> Option<Ty> {
    families.iter().find_map(|(prefix, ty, count)| {
        let digits = name.strip_prefix(prefix.as_str())?;
        let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        let index: u32 = plain.then(|| digits.parse().ok())??;
        (index < *count).then_some(*ty)
    })
}
