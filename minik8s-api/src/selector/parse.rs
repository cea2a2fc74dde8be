//! The grammar of label selectors.

use super::SelectorError;
use super::label::{Operator, Requirement};

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token<'a> {
    /// A key, a value, or a word such as `in` where a value may stand.
    Word(&'a str),
    /// One of the operators and punctuation marks.
    Mark(&'a str),
    End,
}

impl<'a> Token<'a> {
    fn text(&self) -> &'a str {
        match self {
            Self::Word(s) | Self::Mark(s) => s,
            Self::End => "",
        }
    }

    fn is(&self, mark: &str) -> bool {
        matches!(self, Self::Mark(m) if *m == mark)
    }
}

const MARKS: &str = "=!(),<>";

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Token<'a> {
        self.scan().0
    }

    fn next(&mut self) -> Token<'a> {
        let (token, rest) = self.scan();
        self.rest = rest;
        token
    }

    fn scan(&self) -> (Token<'a>, &'a str) {
        let text = self.rest.trim_start_matches([' ', '\t', '\r', '\n']);
        let Some(first) = text.chars().next() else {
            return (Token::End, text);
        };
        if MARKS.contains(first) {
            let length = if text.starts_with("==") || text.starts_with("!=") { 2 } else { 1 };
            let (mark, rest) = text.split_at(length);
            return (Token::Mark(mark), rest);
        }
        let end = text.find(|c: char| MARKS.contains(c) || " \t\r\n".contains(c)).unwrap_or(text.len());
        let (word, rest) = text.split_at(end);
        (Token::Word(word), rest)
    }
}

fn found<T>(token: &Token<'_>, expected: &str) -> Result<T, SelectorError> {
    Err(SelectorError(format!("found '{}', expected: {expected}", token.text())))
}

pub(super) fn label_selector(text: &str) -> Result<Vec<Requirement>, SelectorError> {
    let mut parser = Parser { rest: text };
    let mut requirements = Vec::new();
    if parser.peek() == Token::End {
        return Ok(requirements);
    }
    let first = parser.peek();
    if !(matches!(first, Token::Word(_)) || first.is("!")) {
        return found(&first, "!, identifier, or 'end of string'");
    }
    loop {
        let parsed = requirement(&mut parser);
        requirements
            .push(parsed.map_err(|e| SelectorError(format!("unable to parse requirement: {}", e.0)))?);
        match parser.next() {
            Token::End => return Ok(requirements),
            comma if comma.is(",") => {
                let next = parser.peek();
                if !(matches!(next, Token::Word(_)) || next.is("!")) {
                    return found(&next, "identifier after ','");
                }
            }
            other => return found(&other, "',' or 'end of string'"),
        }
    }
}

fn requirement(parser: &mut Parser<'_>) -> Result<Requirement, SelectorError> {
    let absent = parser.peek().is("!");
    if absent {
        parser.next();
    }
    let key = match parser.next() {
        Token::Word(key) => key,
        other => return found(&other, "identifier"),
    };
    if absent {
        return Requirement::new(key, Operator::DoesNotExist, []);
    }
    let next = parser.peek();
    if next == Token::End || next.is(",") {
        return Requirement::new(key, Operator::Exists, []);
    }
    let token = parser.next();
    let operator = match token.text() {
        "in" => Operator::In,
        "notin" => Operator::NotIn,
        "=" => Operator::Equals,
        "==" => Operator::DoubleEquals,
        "!=" => Operator::NotEquals,
        ">" => Operator::GreaterThan,
        "<" => Operator::LessThan,
        _ => return found(&token, "in, notin, =, ==, !=, gt, lt"),
    };
    let values = match operator {
        Operator::In | Operator::NotIn => values(parser)?,
        _ => vec![exact_value(parser)?],
    };
    Requirement::new(key, operator, values)
}

fn exact_value(parser: &mut Parser<'_>) -> Result<String, SelectorError> {
    let next = parser.peek();
    if next == Token::End || next.is(",") {
        return Ok(String::new());
    }
    match parser.next() {
        Token::Word(value) => Ok(value.to_owned()),
        other => found(&other, "identifier"),
    }
}

/// `(a, b)`. Nothing between two commas or parentheses is the empty value.
fn values(parser: &mut Parser<'_>) -> Result<Vec<String>, SelectorError> {
    let open = parser.next();
    if !open.is("(") {
        return found(&open, "'('");
    }
    let mut values = Vec::new();
    loop {
        let value = match parser.peek() {
            Token::Word(value) => {
                parser.next();
                value
            }
            _ => "",
        };
        values.push(value.to_owned());
        match parser.next() {
            comma if comma.is(",") => {}
            close if close.is(")") => return Ok(values),
            other => return found(&other, "',' or ')'"),
        }
    }
}
