//! Splits an expression into numbers, texts, names and signs, each with its place. Leaves to others: grammar.

use super::Fault;

/// A piece of the text.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token<'a> {
    Int(i64),
    Float(f64),
    Str(&'a str),
    /// A name, a function or a word such as `and`.
    Word(&'a str),
    /// An operator, a parenthesis or a comma.
    Sign(&'static str),
}

/// Longer signs before those that they begin with.
const SIGNS: [&str; 16] = ["**", "//", "==", "!=", "<=", ">=", "+", "-", "*", "/", "%", "<", ">", "(", ")", ","];

/// The tokens, each with the byte it begins at.
pub(super) fn tokens(text: &str) -> Result<Vec<(usize, Token<'_>)>, Fault> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(first) = text[at..].chars().next() {
        let rest = &text[at..];
        if first.is_whitespace() {
            at += first.len_utf8();
            continue;
        }
        let (token, length) = if first.is_ascii_digit() || first == '.' {
            number(rest, at)?
        } else if first.is_ascii_alphabetic() || first == '_' {
            let length = length_while(rest, |c| c.is_ascii_alphanumeric() || c == '_');
            (Token::Word(&rest[..length]), length)
        } else if first == '\'' || first == '"' {
            let end = rest[1..].find(first).ok_or_else(|| Fault::new(at, "the text has no closing quote"))?;
            (Token::Str(&rest[1..1 + end]), end + 2)
        } else if let Some(sign) = SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            (Token::Sign(sign), sign.len())
        } else {
            return Err(Fault::new(at, format!("unexpected {first:?}: {}", instead(first))));
        };
        found.push((at, token));
        at += length;
    }
    Ok(found)
}

fn instead(first: char) -> &'static str {
    match first {
        '=' => "compare with ==",
        '!' => "write `not`",
        '&' | '|' => "write `and`, `or`",
        '?' => "write `a if condition else b`",
        '^' => "a power is **",
        _ => "an expression has numbers, names, + - * / // % **, comparisons, and or not, if else",
    }
}

fn length_while(text: &str, keep: impl Fn(char) -> bool) -> usize {
    text.find(|c| !keep(c)).unwrap_or(text.len())
}

/// A number as Python writes it, in decimal; underscores may stand between digits.
fn number(text: &str, at: usize) -> Result<(Token<'_>, usize), Fault> {
    let digits = |from: usize| from + length_while(&text[from..], |c| c.is_ascii_digit() || c == '_');
    let mut end = digits(0);
    let mut whole = true;
    if text[end..].starts_with('.') {
        whole = false;
        end = digits(end + 1);
    }
    if text[end..].starts_with(['e', 'E']) {
        let sign = usize::from(text[end + 1..].starts_with(['+', '-']));
        let exponent = digits(end + 1 + sign);
        if exponent > end + 1 + sign {
            whole = false;
            end = exponent;
        }
    }
    let written = &text[..end];
    let malformed = || Fault::new(at, format!("`{}` is not a number", crate::words::one_line(written)));
    if text[end..].starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.') || written.ends_with('_') {
        return Err(Fault::new(at, "a number runs into a word: write a decimal number, and * for products"));
    }
    let plain = written.replace('_', "");
    let token = if whole {
        let too_large = |_| Fault::new(at, format!("`{}` is beyond 64-bit integers", crate::words::one_line(written)));
        Token::Int(plain.parse().map_err(too_large)?)
    } else {
        let value: f64 = plain.parse().map_err(|_| malformed())?;
        if !value.is_finite() {
            return Err(malformed());
        }
        Token::Float(value)
    };
    Ok((token, end))
}
