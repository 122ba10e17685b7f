//! Text to [`ast`]: lexer and recursive descent.
//!
//! The parser knows the shape of the language (directives, scopes, operands) and nothing about
//! any instruction; the lowering decides which opcodes and modifiers exist.

pub(crate) mod ast;
mod body;
mod lexer;
mod unit;
mod variable;

use lexer::{Spanned, Token};

/// Text that is not PTX, or PTX whose declarations this crate does not know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("PTX line {line}: {message}")]
pub struct ParseError {
    /// Line of the PTX text, from 1.
    pub line: u32,
    /// What was expected or is unknown, with the token at fault.
    pub message: String,
}

impl ParseError {
    pub(crate) fn new(line: u32, message: impl Into<String>) -> ParseError {
        ParseError { line, message: message.into() }
    }
}

/// Parses a whole translation unit.
pub(crate) fn parse(source: &str) -> Result<ast::Unit, ParseError> {
    let tokens = lexer::tokenize(source)?;
    let mut cursor = Cursor { tokens: &tokens, at: 0 };
    unit::parse_unit(&mut cursor)
}

/// Largest variable accepted, in bytes: keeps a corrupt size from exhausting memory.
const MAX_VAR_BYTES: u64 = 1 << 30;

/// A position in the token list with the small steps all grammar rules share.
pub(crate) struct Cursor<'t, 'a> {
    tokens: &'t [Spanned<'a>],
    at: usize,
}

impl<'a> Cursor<'_, 'a> {
    fn peek(&self) -> Token<'a> {
        self.peek_at(0)
    }

    fn peek_at(&self, ahead: usize) -> Token<'a> {
        self.tokens.get(self.at + ahead).map_or(Token::End, |t| t.token)
    }

    fn line(&self) -> u32 {
        let last = self.tokens.len().saturating_sub(1);
        self.tokens.get(self.at.min(last)).map_or(1, |t| t.line)
    }

    fn next(&mut self) -> Token<'a> {
        let token = self.peek();
        if token != Token::End {
            self.at += 1;
        }
        token
    }

    fn error<T>(&self, message: impl Into<String>) -> Result<T, ParseError> {
        Err(ParseError::new(self.line(), message))
    }

    /// An error that names the token in the way.
    fn expected<T>(&self, what: &str) -> Result<T, ParseError> {
        let found = match self.peek() {
            Token::Ident(t) => format!("`{t}`"),
            Token::Directive(t) => format!("`.{t}`"),
            Token::Int(v) => format!("`{v}`"),
            Token::F32(b) => format!("`0f{b:08X}`"),
            Token::F64(b) => format!("`0d{b:016X}`"),
            Token::Str(t) => format!("\"{t}\""),
            Token::Punct(c) => format!("`{c}`"),
            Token::End => "the end of the text".into(),
        };
        self.error(format!("expected {what}, found {found}"))
    }

    fn eat(&mut self, c: char) -> bool {
        let hit = self.peek() == Token::Punct(c);
        self.at += usize::from(hit);
        hit
    }

    fn expect(&mut self, c: char) -> Result<(), ParseError> {
        if self.eat(c) { Ok(()) } else { self.expected(&format!("`{c}`")) }
    }

    fn ident(&mut self, what: &str) -> Result<&'a str, ParseError> {
        match self.peek() {
            Token::Ident(text) => {
                self.at += 1;
                Ok(text)
            }
            _ => self.expected(what),
        }
    }

    /// An integer with an optional sign.
    fn int(&mut self) -> Result<i64, ParseError> {
        let negative = self.eat('-');
        match self.peek() {
            Token::Int(value) => {
                self.at += 1;
                let value = value as i64;
                Ok(if negative { value.wrapping_neg() } else { value })
            }
            _ => self.expected("an integer"),
        }
    }

    fn u32(&mut self) -> Result<u32, ParseError> {
        let line = self.line();
        let value = self.int()?;
        u32::try_from(value).map_err(|_| ParseError::new(line, format!("{value} is out of range")))
    }

    /// Skips a balanced `{ … }` block that has just been entered.
    fn skip_block(&mut self) -> Result<(), ParseError> {
        let mut depth = 1u32;
        while depth > 0 {
            match self.next() {
                Token::Punct('{') => depth += 1,
                Token::Punct('}') => depth -= 1,
                Token::End => return self.expected("`}`"),
                _ => {}
            }
        }
        Ok(())
    }

    /// Skips to the end of a statement.
    fn skip_statement(&mut self) -> Result<(), ParseError> {
        loop {
            match self.next() {
                Token::Punct(';') => return Ok(()),
                Token::End => return self.expected("`;`"),
                _ => {}
            }
        }
    }
}
