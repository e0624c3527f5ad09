//! From the words of a condition to its meaning. Recursive descent, its depth bounded.

use mesh_types::MAX_CONDITION_BYTES;

use super::{
    Condition, ConditionError, Expression, MAX_CONDITION_DEPTH, Named, Number, Operand, What,
    lexer::{Token, Word, words},
};

const PARAMETERS: &str = "parameters";

/// Reads a condition.
pub(super) fn parse(text: &str) -> Result<Condition, ConditionError> {
    if text.len() > MAX_CONDITION_BYTES {
        let problem = format!("{} bytes: a condition has at most {MAX_CONDITION_BYTES}", text.len());
        return Err(ConditionError { at: 1, problem });
    }
    let mut parser = Parser {
        tokens: words(text)?,
        next: 0,
        end: text.chars().count() + 1,
        names: Vec::new(),
        depth: 0,
    };
    let root = parser.or()?;
    if let Some(token) = parser.tokens.get(parser.next) {
        return Err(ConditionError {
            at: token.at,
            problem: "expected && or || or the end".to_owned(),
        });
    }
    Ok(Condition {
        text: text.into(),
        root,
        names: parser.names,
    })
}

struct Parser {
    tokens: Vec<Token>,
    next: usize,
    /// Where the text ends, for what is missing there.
    end: usize,
    names: Vec<Named>,
    depth: usize,
}

impl Parser {
    fn at(&self) -> usize {
        self.tokens.get(self.next).map_or(self.end, |token| token.at)
    }

    fn wrong(&self, problem: impl Into<String>) -> ConditionError {
        ConditionError {
            at: self.at(),
            problem: problem.into(),
        }
    }

    fn peek(&self) -> Option<&Word> {
        self.tokens.get(self.next).map(|token| &token.word)
    }

    fn eat(&mut self, word: &Word) -> bool {
        let found = self.peek() == Some(word);
        self.next += usize::from(found);
        found
    }

    fn need(&mut self, word: &Word, what: &str) -> Result<(), ConditionError> {
        if self.eat(word) {
            return Ok(());
        }
        Err(self.wrong(format!("expected {what}")))
    }

    fn deeper(&mut self) -> Result<(), ConditionError> {
        self.depth += 1;
        if self.depth > MAX_CONDITION_DEPTH {
            return Err(self.wrong(format!("nested more than {MAX_CONDITION_DEPTH} deep")));
        }
        Ok(())
    }

    fn or(&mut self) -> Result<Expression, ConditionError> {
        let mut parts = vec![self.and()?];
        while self.eat(&Word::Or) {
            parts.push(self.and()?);
        }
        Ok(one_or(parts, Expression::Or))
    }

    fn and(&mut self) -> Result<Expression, ConditionError> {
        let mut parts = vec![self.not()?];
        while self.eat(&Word::And) {
            parts.push(self.not()?);
        }
        Ok(one_or(parts, Expression::And))
    }

    fn not(&mut self) -> Result<Expression, ConditionError> {
        if self.eat(&Word::Not) {
            self.deeper()?;
            let inner = self.not()?;
            self.depth -= 1;
            return Ok(Expression::Not(Box::new(inner)));
        }
        if self.eat(&Word::Open) {
            self.deeper()?;
            let inner = self.or()?;
            self.depth -= 1;
            self.need(&Word::Close, "a closing )")?;
            return Ok(inner);
        }
        let left = self.operand()?;
        let Some(Word::Compare(operator)) = self.peek() else {
            return Ok(Expression::Truth(left));
        };
        let operator = *operator;
        self.next += 1;
        let right = self.operand()?;
        Ok(Expression::Compare(left, operator, right))
    }

    fn operand(&mut self) -> Result<Operand, ConditionError> {
        let at = self.at();
        let missing = || ConditionError {
            at,
            problem: "expected a number, a text, true, false, a tensor, or parameters.NAME".to_owned(),
        };
        let word = self.peek().cloned().ok_or_else(missing)?;
        self.next += 1;
        let what = match word {
            Word::Number(number) => What::Number(number),
            Word::Text(text) => What::Text(text.into()),
            Word::Quoted(name) => self.element(&name, at)?,
            Word::Name(name) => self.named(&name, at)?,
            _ => return Err(missing()),
        };
        Ok(Operand { at, what })
    }

    fn named(&mut self, name: &str, at: usize) -> Result<What, ConditionError> {
        match name {
            "true" => return Ok(What::Bool(true)),
            "false" => return Ok(What::Bool(false)),
            "present" | "size" if self.peek() == Some(&Word::Open) => {
                self.next += 1;
                let inner_at = self.at();
                let tensor = match self.peek().cloned() {
                    Some(Word::Name(inner) | Word::Quoted(inner)) => inner,
                    _ => return Err(self.wrong(format!("expected the name of a tensor, as in {name}(x)"))),
                };
                self.next += 1;
                self.need(&Word::Close, "a closing )")?;
                let place = self.place(&tensor, inner_at);
                return Ok(if name == "size" {
                    What::Size(place)
                } else {
                    What::Present(place)
                });
            }
            PARAMETERS if self.eat(&Word::OpenIndex) => {
                let Some(Word::Text(parameter)) = self.peek().cloned() else {
                    return Err(self.wrong("expected a name in quotes, as in parameters[\"mode\"]"));
                };
                self.next += 1;
                self.need(&Word::CloseIndex, "a closing ]")?;
                return Ok(What::Parameter(parameter.into()));
            }
            _ => {}
        }
        if let Some(parameter) = name.strip_prefix(PARAMETERS).and_then(|rest| rest.strip_prefix('.')) {
            if parameter.is_empty() {
                return Err(ConditionError {
                    at,
                    problem: "which parameter? write parameters.NAME".to_owned(),
                });
            }
            return Ok(What::Parameter(parameter.into()));
        }
        self.element(name, at)
    }

    fn element(&mut self, name: &str, at: usize) -> Result<What, ConditionError> {
        let place = self.place(name, at);
        if !self.eat(&Word::OpenIndex) {
            return Ok(What::Element(place, 0));
        }
        let index = match self.peek() {
            Some(Word::Number(Number::Whole(number))) => usize::try_from(*number).ok(),
            _ => None,
        };
        let Some(index) = index else {
            return Err(self.wrong("expected the number of an element, counted from 0 over the flat tensor"));
        };
        self.next += 1;
        self.need(&Word::CloseIndex, "a closing ]")?;
        Ok(What::Element(place, index))
    }

    fn place(&mut self, name: &str, at: usize) -> usize {
        if let Some(place) = self.names.iter().position(|known| *known.name == *name) {
            return place;
        }
        self.names.push(Named { name: name.into(), at });
        self.names.len() - 1
    }
}

fn one_or(mut parts: Vec<Expression>, several: impl Fn(Vec<Expression>) -> Expression) -> Expression {
    match parts.pop() {
        Some(only) if parts.is_empty() => only,
        Some(last) => {
            parts.push(last);
            several(parts)
        }
        None => several(parts),
    }
}
