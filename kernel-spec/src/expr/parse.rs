//! The grammar: tokens to a tree whose depth is bounded, however long the text is. Operators of one level are a list,
//! not a nest, so that neither reading, evaluating nor dropping a long sum goes deep. Leaves to others: values.

use std::collections::BTreeSet;

use super::lex::{self, Token};
use super::{Fault, MAX_DEPTH, MAX_TEXT, Value};
use crate::words;

/// Functions and how many arguments each takes at least and at most.
pub(super) const FUNCTIONS: [(&str, (usize, usize)); 7] = [
    ("ceil_div", (2, 2)),
    ("min", (1, usize::MAX)),
    ("max", (1, usize::MAX)),
    ("next_pow2", (1, 1)),
    ("sqrt", (1, 1)),
    ("exp2", (1, 1)),
    ("log2", (1, 1)),
];

const COMPARISONS: [&str; 6] = ["==", "!=", "<=", ">=", "<", ">"];
const RESERVED: [&str; 7] = ["and", "or", "not", "if", "else", "True", "False"];

/// A node; `at` is the byte of its operator or name.
#[derive(Clone, Debug)]
pub(super) enum Node {
    Constant(Value),
    Name {
        name: String,
        at: usize,
    },
    Negate {
        at: usize,
        of: Box<Node>,
    },
    Not(Box<Node>),
    /// Left-associative operators of one level.
    Chain {
        first: Box<Node>,
        rest: Vec<Operation>,
    },
    /// `a < b <= c`: every neighbouring pair.
    Compare {
        first: Box<Node>,
        rest: Vec<Operation>,
    },
    Power(Box<Node>, usize, Box<Node>),
    /// The first that decides, or the last: false for `and`, true for `or`.
    Logic {
        or: bool,
        terms: Vec<Node>,
    },
    If {
        condition: Box<Node>,
        then: Box<Node>,
        otherwise: Box<Node>,
    },
    Call {
        function: &'static str,
        at: usize,
        arguments: Vec<Node>,
    },
}

/// An operator and what stands right of it.
#[derive(Clone, Debug)]
pub(super) struct Operation {
    pub(super) sign: &'static str,
    pub(super) at: usize,
    pub(super) right: Node,
}

impl From<Value> for Node {
    fn from(value: Value) -> Node {
        Node::Constant(value)
    }
}

impl From<String> for Node {
    fn from(text: String) -> Node {
        Node::Constant(Value::Str(text))
    }
}

impl Node {
    pub(super) fn names<'a>(&'a self, found: &mut BTreeSet<&'a str>) {
        match self {
            Node::Constant(_) => {}
            Node::Name { name, .. } => {
                found.insert(name);
            }
            Node::Negate { of, .. } | Node::Not(of) => of.names(found),
            Node::Chain { first, rest } | Node::Compare { first, rest } => {
                first.names(found);
                rest.iter().for_each(|operation| operation.right.names(found));
            }
            Node::Power(base, _, exponent) => {
                base.names(found);
                exponent.names(found);
            }
            Node::If { condition, then, otherwise } => {
                [condition, then, otherwise].iter().for_each(|node| node.names(found));
            }
            Node::Logic { terms: nodes, .. } | Node::Call { arguments: nodes, .. } => {
                nodes.iter().for_each(|node| node.names(found));
            }
        }
    }
}

/// Reads a whole text.
pub(super) fn parse(text: &str) -> Result<Node, Fault> {
    if text.len() > MAX_TEXT {
        return Err(Fault::new(
            MAX_TEXT,
            format!("the expression is longer than {MAX_TEXT} bytes: split it with `let`"),
        ));
    }
    let tokens = lex::tokens(text)?;
    let mut parser = Parser { tokens: &tokens, next: 0, end: text.len(), depth: 0 };
    let node = parser.conditional()?;
    match parser.peek() {
        None => Ok(node),
        Some(token) => Err(Fault::new(parser.at(), format!("unexpected {} after the end", shown(token)))),
    }
}

fn shown(token: &Token<'_>) -> String {
    match token {
        Token::Int(value) => format!("`{value}`"),
        Token::Float(value) => format!("`{value:?}`"),
        Token::Str(text) => format!("the text '{}'", words::one_line(text)),
        Token::Word(word) => format!("`{}`", words::one_line(word)),
        Token::Sign(sign) => format!("`{sign}`"),
    }
}

struct Parser<'a> {
    tokens: &'a [(usize, Token<'a>)],
    next: usize,
    end: usize,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<&'a Token<'a>> {
        self.tokens.get(self.next).map(|(_, token)| token)
    }

    /// The byte of the next token.
    fn at(&self) -> usize {
        self.tokens.get(self.next).map_or(self.end, |(at, _)| *at)
    }

    fn eat_sign(&mut self, signs: &[&'static str]) -> Option<&'static str> {
        match self.peek() {
            Some(Token::Sign(sign)) if signs.contains(sign) => {
                self.next += 1;
                Some(sign)
            }
            _ => None,
        }
    }

    fn eat_word(&mut self, word: &str) -> bool {
        let found = matches!(self.peek(), Some(Token::Word(w)) if *w == word);
        self.next += usize::from(found);
        found
    }

    fn expect(&mut self, sign: &'static str) -> Result<(), Fault> {
        if self.eat_sign(&[sign]).is_some() { Ok(()) } else { Err(self.expected(&format!("`{sign}`"))) }
    }

    fn expected(&self, what: &str) -> Fault {
        let found = self.peek().map_or("the end".to_owned(), shown);
        Fault::new(self.at(), format!("expected {what}, found {found}"))
    }

    /// Everything that contains itself goes through here.
    fn nested<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, Fault>) -> Result<T, Fault> {
        if self.depth == MAX_DEPTH {
            return Err(Fault::new(self.at(), format!("nested more than {MAX_DEPTH} deep: split it with `let`")));
        }
        self.depth += 1;
        let result = read(self);
        self.depth -= 1;
        result
    }

    fn conditional(&mut self) -> Result<Node, Fault> {
        let then = self.logic(true)?;
        if !self.eat_word("if") {
            return Ok(then);
        }
        let condition = self.logic(true)?;
        if !self.eat_word("else") {
            return Err(self.expected("`else`"));
        }
        let otherwise = self.nested(Parser::conditional)?;
        Ok(Node::If { condition: condition.into(), then: then.into(), otherwise: otherwise.into() })
    }

    /// `or` over `and` over `not`.
    fn logic(&mut self, or: bool) -> Result<Node, Fault> {
        let term = |parser: &mut Self| if or { parser.logic(false) } else { parser.negation() };
        let mut terms = vec![term(self)?];
        while self.eat_word(if or { "or" } else { "and" }) {
            terms.push(term(self)?);
        }
        Ok(if terms.len() == 1 { terms.remove(0) } else { Node::Logic { or, terms } })
    }

    fn negation(&mut self) -> Result<Node, Fault> {
        if self.eat_word("not") {
            return Ok(Node::Not(self.nested(Parser::negation)?.into()));
        }
        let first = self.sum()?;
        let rest = self.operations(&COMPARISONS, Parser::sum)?;
        Ok(if rest.is_empty() { first } else { Node::Compare { first: first.into(), rest } })
    }

    fn sum(&mut self) -> Result<Node, Fault> {
        let first = self.product()?;
        let rest = self.operations(&["+", "-"], Parser::product)?;
        Ok(if rest.is_empty() { first } else { Node::Chain { first: first.into(), rest } })
    }

    fn product(&mut self) -> Result<Node, Fault> {
        let first = self.signed()?;
        let rest = self.operations(&["*", "/", "//", "%"], Parser::signed)?;
        Ok(if rest.is_empty() { first } else { Node::Chain { first: first.into(), rest } })
    }

    fn operations(
        &mut self,
        signs: &[&'static str],
        operand: impl Fn(&mut Self) -> Result<Node, Fault>,
    ) -> Result<Vec<Operation>, Fault> {
        let mut found = Vec::new();
        loop {
            let at = self.at();
            let Some(sign) = self.eat_sign(signs) else { return Ok(found) };
            found.push(Operation { sign, at, right: operand(self)? });
        }
    }

    /// A sign binds weaker than a power on its right and stronger than one on its left, as in Python.
    fn signed(&mut self) -> Result<Node, Fault> {
        let at = self.at();
        match self.eat_sign(&["-", "+"]) {
            Some("-") => Ok(Node::Negate { at, of: self.nested(Parser::signed)?.into() }),
            Some(_) => self.nested(Parser::signed),
            None => self.power(),
        }
    }

    fn power(&mut self) -> Result<Node, Fault> {
        let base = self.atom()?;
        let at = self.at();
        if self.eat_sign(&["**"]).is_none() {
            return Ok(base);
        }
        let exponent = self.nested(Parser::signed)?;
        Ok(Node::Power(base.into(), at, exponent.into()))
    }

    fn atom(&mut self) -> Result<Node, Fault> {
        let at = self.at();
        let constant = match self.peek() {
            Some(Token::Int(value)) => Value::Int(*value),
            Some(Token::Float(value)) => Value::Float(*value),
            Some(Token::Str(text)) => Value::from(*text),
            Some(Token::Word("True")) => Value::Bool(true),
            Some(Token::Word("False")) => Value::Bool(false),
            Some(Token::Word(word)) if !RESERVED.contains(word) => {
                self.next += 1;
                return self.name_or_call(word, at);
            }
            Some(Token::Sign("(")) => {
                self.next += 1;
                let inner = self.nested(Parser::conditional)?;
                self.expect(")")?;
                return Ok(inner);
            }
            _ => return Err(self.expected("a number or a name")),
        };
        self.next += 1;
        Ok(constant.into())
    }

    fn name_or_call(&mut self, word: &str, at: usize) -> Result<Node, Fault> {
        let function = FUNCTIONS.iter().find(|(name, _)| *name == word);
        if self.eat_sign(&["("]).is_none() {
            return match function {
                Some((name, _)) => Err(Fault::new(at, format!("`{name}` is a function: write `{name}(...)`"))),
                None => Ok(Node::Name { name: word.to_owned(), at }),
            };
        }
        let Some((function, (least, most))) = function else {
            let known = FUNCTIONS.map(|(name, _)| name);
            let word_shown = words::one_line(word);
            return Err(Fault::new(at, format!("unknown function `{word_shown}`: {}", words::suggestion(word, known))));
        };
        let arguments = self.nested(Parser::arguments)?;
        if !(*least..=*most).contains(&arguments.len()) {
            let wanted = if least == most { least.to_string() } else { format!("at least {least}") };
            return Err(Fault::new(at, format!("{function} takes {wanted} arguments, {} are given", arguments.len())));
        }
        Ok(Node::Call { function, at, arguments })
    }

    /// Up to the closing parenthesis.
    fn arguments(&mut self) -> Result<Vec<Node>, Fault> {
        let mut arguments = Vec::new();
        if self.eat_sign(&[")"]).is_some() {
            return Ok(arguments);
        }
        loop {
            arguments.push(self.conditional()?);
            if self.eat_sign(&[","]).is_none() {
                self.expect(")")?;
                return Ok(arguments);
            }
        }
    }
}
