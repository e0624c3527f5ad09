//! From the characters of a condition to its words.

use super::{ConditionError, Number, Operator};

/// A word, and the character it begins at, counted from 1.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Token {
    pub(super) at: usize,
    pub(super) word: Word,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Word {
    Number(Number),
    Text(String),
    /// A name as it stands: it may be a keyword.
    Name(String),
    /// A name in backquotes: never a keyword.
    Quoted(String),
    Compare(Operator),
    And,
    Or,
    Not,
    Open,
    Close,
    OpenIndex,
    CloseIndex,
}

/// Splits a condition into its words.
pub(super) fn words(text: &str) -> Result<Vec<Token>, ConditionError> {
    let characters: Vec<char> = text.chars().collect();
    let mut lexer = Lexer { characters, next: 0 };
    let mut tokens = Vec::new();
    while let Some(token) = lexer.token()? {
        tokens.push(token);
    }
    Ok(tokens)
}

struct Lexer {
    characters: Vec<char>,
    next: usize,
}

fn wrong(at: usize, problem: impl Into<String>) -> ConditionError {
    ConditionError {
        at,
        problem: problem.into(),
    }
}

fn in_name(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '_' | '.' | '-')
}

impl Lexer {
    fn peek(&self) -> Option<char> {
        self.characters.get(self.next).copied()
    }

    fn eat(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        self.next += usize::from(found);
        found
    }

    fn token(&mut self) -> Result<Option<Token>, ConditionError> {
        while self.peek().is_some_and(char::is_whitespace) {
            self.next += 1;
        }
        let Some(first) = self.peek() else { return Ok(None) };
        self.next += 1;
        let at = self.next;
        let word = match first {
            '(' => Word::Open,
            ')' => Word::Close,
            '[' => Word::OpenIndex,
            ']' => Word::CloseIndex,
            '"' | '\'' => Word::Text(self.quoted(first, at)?),
            '`' => Word::Quoted(self.quoted(first, at)?),
            '=' if self.eat('=') => Word::Compare(Operator::Equal),
            '=' => return Err(wrong(at, "a single '=': write == to compare")),
            '!' if self.eat('=') => Word::Compare(Operator::NotEqual),
            '!' => Word::Not,
            '<' if self.eat('=') => Word::Compare(Operator::LessOrEqual),
            '<' => Word::Compare(Operator::Less),
            '>' if self.eat('=') => Word::Compare(Operator::GreaterOrEqual),
            '>' => Word::Compare(Operator::Greater),
            '&' if self.eat('&') => Word::And,
            '|' if self.eat('|') => Word::Or,
            '&' | '|' => return Err(wrong(at, format!("a single '{first}': write {first}{first}"))),
            '0'..='9' | '-' => Word::Number(self.number(at)?),
            first if first.is_ascii_alphabetic() || first == '_' => Word::Name(self.name()),
            other => {
                let problem = format!("'{}' means nothing here", other.escape_debug());
                return Err(wrong(at, problem));
            }
        };
        Ok(Some(Token { at, word }))
    }

    /// From the character before the next on.
    fn taken_while(&mut self, fits: impl Fn(char, char) -> bool) -> String {
        let start = self.next.saturating_sub(1);
        let mut before = self.characters.get(start).copied().unwrap_or_default();
        while let Some(character) = self.peek().filter(|character| fits(before, *character)) {
            before = character;
            self.next += 1;
        }
        self.characters
            .get(start..self.next)
            .unwrap_or_default()
            .iter()
            .collect()
    }

    fn name(&mut self) -> String {
        self.taken_while(|_, character| in_name(character))
    }

    fn number(&mut self, at: usize) -> Result<Number, ConditionError> {
        let text = self
            .taken_while(|before, character| in_name(character) || (character == '+' && matches!(before, 'e' | 'E')));
        if let Ok(whole) = text.parse::<i64>() {
            return Ok(Number::Whole(whole.into()));
        }
        if let Ok(whole) = text.parse::<u64>() {
            return Ok(Number::Whole(whole.into()));
        }
        let digit = text
            .trim_start_matches('-')
            .starts_with(|first: char| first.is_ascii_digit());
        match text.parse::<f64>() {
            Ok(real) if digit && real.is_finite() => Ok(Number::Real(real)),
            _ => Err(wrong(at, format!("'{text}' is no number"))),
        }
    }

    fn quoted(&mut self, quote: char, at: usize) -> Result<String, ConditionError> {
        let mut text = String::new();
        loop {
            let Some(character) = self.peek() else {
                return Err(wrong(at, format!("the {quote} is never closed")));
            };
            self.next += 1;
            match character {
                _ if character == quote => return Ok(text),
                '\\' => {
                    let escaped = self.peek();
                    self.next += 1;
                    text.push(match escaped {
                        Some('n') => '\n',
                        Some('t') => '\t',
                        Some(plain @ ('\\' | '"' | '\'' | '`')) => plain,
                        _ => {
                            let problem = "after \\ comes one of \\ \" ' ` n t";
                            return Err(wrong(self.next.saturating_sub(1), problem));
                        }
                    });
                }
                plain => text.push(plain),
            }
        }
    }
}
