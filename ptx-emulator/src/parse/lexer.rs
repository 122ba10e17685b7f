//! Splits PTX text into tokens.
//!
//! Identifiers swallow their dotted tail and `::`, so `wmma.load.a.sync`, `%tid.x` and
//! `.L1::no_allocate` are one token each. Meaning is left to the parser.

use super::ParseError;

/// One token; text borrows from the source.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Token<'a> {
    /// Name with its dotted tail: opcode, register, label or symbol.
    Ident(&'a str),
    /// Word that starts with a dot, tail included, without the leading dot.
    Directive(&'a str),
    /// Integer literal; the sign is a separate token.
    Int(u64),
    /// `0f` literal: the bits of a 32-bit float.
    F32(u32),
    /// `0d` literal: the bits of a 64-bit float.
    F64(u64),
    /// Quoted text without its quotes, escapes kept as written.
    Str(&'a str),
    /// Any other single character.
    Punct(char),
    /// End of the text.
    End,
}

/// A token and the line it stands on (from 1).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spanned<'a> {
    pub(crate) token: Token<'a>,
    pub(crate) line: u32,
}

/// Tokenises the whole source; the last token is [`Token::End`].
pub(crate) fn tokenize(source: &str) -> Result<Vec<Spanned<'_>>, ParseError> {
    let mut lexer = Lexer { source, at: 0, line: 1 };
    let mut tokens = Vec::with_capacity(source.len() / 4);
    loop {
        let next = lexer.next_token()?;
        tokens.push(next);
        if next.token == Token::End {
            return Ok(tokens);
        }
    }
}

struct Lexer<'a> {
    source: &'a str,
    at: usize,
    line: u32,
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$'
}

impl<'a> Lexer<'a> {
    fn peek(&self, ahead: usize) -> u8 {
        self.source.as_bytes().get(self.at + ahead).copied().unwrap_or(0)
    }

    fn error(&self, message: String) -> ParseError {
        ParseError::new(self.line, message)
    }

    fn next_token(&mut self) -> Result<Spanned<'a>, ParseError> {
        self.skip_blanks()?;
        let line = self.line;
        let token = match self.peek(0) {
            0 if self.at >= self.source.len() => Token::End,
            b'"' => self.string()?,
            b'.' if is_word(self.peek(1)) => {
                let text = self.word_with_tail();
                Token::Directive(&text[1..])
            }
            c if c.is_ascii_digit() => self.number()?,
            c if is_word(c) || (c == b'%' && is_word(self.peek(1))) => Token::Ident(self.word_with_tail()),
            c if c.is_ascii_graphic() => {
                self.at += 1;
                Token::Punct(char::from(c))
            }
            c => return Err(self.error(format!("unexpected byte 0x{c:02x}"))),
        };
        Ok(Spanned { token, line })
    }

    fn skip_blanks(&mut self) -> Result<(), ParseError> {
        loop {
            match self.peek(0) {
                b'\n' => {
                    self.line += 1;
                    self.at += 1;
                }
                b' ' | b'\t' | b'\r' => self.at += 1,
                b'/' if self.peek(1) == b'/' => {
                    while self.at < self.source.len() && self.peek(0) != b'\n' {
                        self.at += 1;
                    }
                }
                b'/' if self.peek(1) == b'*' => self.skip_block_comment()?,
                _ => return Ok(()),
            }
        }
    }

    fn skip_block_comment(&mut self) -> Result<(), ParseError> {
        let start = self.line;
        self.at += 2;
        while !(self.peek(0) == b'*' && self.peek(1) == b'/') {
            if self.at >= self.source.len() {
                return Err(ParseError::new(start, "comment is not closed"));
            }
            self.line += u32::from(self.peek(0) == b'\n');
            self.at += 1;
        }
        self.at += 2;
        Ok(())
    }

    /// A word, then every `.word` and `::word` that follows without a blank.
    fn word_with_tail(&mut self) -> &'a str {
        let start = self.at;
        self.at += 1;
        loop {
            if is_word(self.peek(0)) {
                self.at += 1;
            } else if self.peek(0) == b'.' && is_word(self.peek(1)) {
                self.at += 2;
            } else if self.peek(0) == b':' && self.peek(1) == b':' && is_word(self.peek(2)) {
                self.at += 3;
            } else {
                return &self.source[start..self.at];
            }
        }
    }

    fn string(&mut self) -> Result<Token<'a>, ParseError> {
        self.at += 1;
        let start = self.at;
        loop {
            match self.peek(0) {
                b'"' => break,
                b'\\' => self.at += 1,
                b'\n' | 0 => return Err(self.error("text is not closed".into())),
                _ => {}
            }
            self.at += 1;
        }
        // A backslash before a multi-byte character may leave `at` inside it.
        let text = self.source.get(start..self.at);
        self.at += 1;
        text.map(Token::Str).ok_or_else(|| self.error("text is not valid".into()))
    }

    fn number(&mut self) -> Result<Token<'a>, ParseError> {
        let start = self.at;
        while is_word(self.peek(0)) {
            self.at += 1;
        }
        let text = &self.source[start..self.at];
        parse_number(text).ok_or_else(|| self.error(format!("`{text}` is not a number")))
    }
}

fn parse_number(text: &str) -> Option<Token<'static>> {
    if let Some(hex) = text.strip_prefix("0f").or_else(|| text.strip_prefix("0F")) {
        return u32::from_str_radix(exact(hex, 8)?, 16).ok().map(Token::F32);
    }
    if let Some(hex) = text.strip_prefix("0d").or_else(|| text.strip_prefix("0D")) {
        return u64::from_str_radix(exact(hex, 16)?, 16).ok().map(Token::F64);
    }
    let digits = text.strip_suffix('U').unwrap_or(text);
    let (radix, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &digits[2..]),
        [b'0', b'b' | b'B', ..] => (2, &digits[2..]),
        [b'0', _, ..] => (8, &digits[1..]),
        _ => (10, digits),
    };
    u64::from_str_radix(digits, radix).ok().map(Token::Int)
}

fn exact(text: &str, length: usize) -> Option<&str> {
    (text.len() == length).then_some(text)
}
