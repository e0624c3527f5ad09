//! Puts pieces together into messages.

use super::{
    Field, MAX_NESTING, Message, TextError, TextProblem, Value,
    lexer::{Lexer, Piece, shown},
};

const A_NAME: &str = "the name of a field";
const A_VALUE: &str = "a value: a number, a word, a text in quotes, or a message in braces";

pub(super) fn parse(text: &str) -> Result<Message, TextError> {
    let mut parser = Parser {
        lexer: Lexer::new(text),
        ahead: None,
    };
    parser.message(None, 0)
}

struct Parser<'a> {
    lexer: Lexer<'a>,
    /// A piece that was looked at, with its line.
    ahead: Option<(Piece<'a>, u32)>,
}

impl<'a> Parser<'a> {
    fn next(&mut self) -> Result<(Piece<'a>, u32), TextError> {
        match self.ahead.take() {
            Some(ahead) => Ok(ahead),
            None => {
                let piece = self.lexer.next()?;
                Ok((piece, self.lexer.line))
            }
        }
    }

    fn peek(&mut self) -> Result<&(Piece<'a>, u32), TextError> {
        let ahead = self.next()?;
        Ok(self.ahead.insert(ahead))
    }

    /// Takes the next piece if it is this mark.
    fn takes(&mut self, mark: char) -> Result<bool, TextError> {
        let is = self.peek()?.0 == Piece::Mark(mark);
        if is {
            self.ahead = None;
        }
        Ok(is)
    }

    /// Fields up to the closing mark, or to the end of the text.
    fn message(&mut self, opened: Option<(char, u32)>, depth: usize) -> Result<Message, TextError> {
        let close = opened.map(|(mark, _)| if mark == '{' { '}' } else { '>' });
        let mut message = Message::default();
        loop {
            let (piece, line) = self.next()?;
            let name = match (piece, opened) {
                (Piece::End, None) => return Ok(message),
                (Piece::End, Some((mark, opened))) => {
                    let problem = TextProblem::NeverClosed { mark, opened };
                    return Err(TextError { line, problem });
                }
                (Piece::Mark(mark), _) if Some(mark) == close => return Ok(message),
                (Piece::Mark('['), _) => format!("[{}]", self.lexer.bracketed()?),
                (Piece::Word(word), _) => word.to_owned(),
                (other, _) => return Err(unexpected(&other, line, A_NAME)),
            };
            self.values(name, depth, &mut message.fields)?;
            // Either may stand behind a field, once.
            let _ = self.takes(',')? || self.takes(';')?;
        }
    }

    /// The value or values of a field whose name was read.
    fn values(&mut self, name: String, depth: usize, fields: &mut Vec<Field>) -> Result<(), TextError> {
        let colon = self.takes(':')?;
        if !self.takes('[')? {
            let (line, value) = self.value(colon, depth)?;
            fields.push(Field { name, line, value });
            return Ok(());
        }
        if self.takes(']')? {
            return Ok(());
        }
        loop {
            let (line, value) = self.value(colon, depth)?;
            let name = name.clone();
            fields.push(Field { name, line, value });
            let (piece, line) = self.next()?;
            match piece {
                Piece::Mark(',') => {}
                Piece::Mark(']') => return Ok(()),
                other => return Err(unexpected(&other, line, "a ',' or the ']' that ends the list")),
            }
        }
    }

    /// One value and its line. Only messages may do without a colon.
    fn value(&mut self, colon: bool, depth: usize) -> Result<(u32, Value), TextError> {
        let (piece, line) = self.next()?;
        let value = match piece {
            Piece::Mark(mark @ ('{' | '<')) => {
                if depth >= MAX_NESTING {
                    let problem = TextProblem::TooDeep;
                    return Err(TextError { line, problem });
                }
                Value::Message(self.message(Some((mark, line)), depth + 1)?)
            }
            other if !colon => return Err(unexpected(&other, line, "a ':' or a '{' behind a field's name")),
            Piece::Quoted(bytes) => Value::Text(self.text(bytes, line)?),
            Piece::Word(word) => Value::Word(word.to_owned()),
            Piece::Number(number) => self.number(number, line, false)?,
            Piece::Mark('-') => match self.next()? {
                (Piece::Number(number), line) => self.number(number, line, true)?,
                (Piece::Word(word), line) => Value::Float(-special(word).ok_or_else(|| not_a_number(word, line))?),
                (other, line) => return Err(unexpected(&other, line, "a number behind '-'")),
            },
            other => return Err(unexpected(&other, line, A_VALUE)),
        };
        Ok((line, value))
    }

    /// Texts that follow each other are one.
    fn text(&mut self, mut bytes: Vec<u8>, line: u32) -> Result<String, TextError> {
        while let (Piece::Quoted(more), _) = self.peek()? {
            bytes.extend_from_slice(more);
            self.ahead = None;
        }
        let problem = TextProblem::NotUtf8;
        String::from_utf8(bytes).map_err(|_| TextError { line, problem })
    }

    fn number(&mut self, text: &str, line: u32, negative: bool) -> Result<Value, TextError> {
        let value = number(text, negative).ok_or_else(|| not_a_number(text, line))?;
        // `1.2.3` and `1 2` alike: what follows a number is not another.
        match self.peek()? {
            (Piece::Number(_), line) => Err(not_a_number(text, *line)),
            _ => Ok(value),
        }
    }
}

fn unexpected(piece: &Piece<'_>, line: u32, right: &'static str) -> TextError {
    let found = piece.shown();
    let problem = TextProblem::Unexpected { found, right };
    TextError { line, problem }
}

fn not_a_number(text: &str, line: u32) -> TextError {
    let problem = TextProblem::Number(shown(text));
    TextError { line, problem }
}

/// The numbers that are words.
pub(crate) fn special(word: &str) -> Option<f64> {
    match word.to_ascii_lowercase().as_str() {
        "inf" | "infinity" => Some(f64::INFINITY),
        "nan" => Some(f64::NAN),
        _ => None,
    }
}

fn number(text: &str, negative: bool) -> Option<Value> {
    let (digits, radix) = match text.get(..2) {
        Some("0x" | "0X") => (text.get(2..)?, 16),
        Some(start) if start.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit()) => (text.get(1..)?, 8),
        _ => (text, 10),
    };
    if radix != 10 || digits.bytes().all(|byte| byte.is_ascii_digit()) {
        // A sign within the digits would pass as part of a number.
        let plain = digits.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let magnitude = u64::from_str_radix(digits, radix).ok().filter(|_| plain)?;
        let value = i128::from(magnitude);
        let value = if negative { -value } else { value };
        return (value >= i128::from(i64::MIN)).then_some(Value::Integer(value));
    }
    let number = text.strip_suffix(['f', 'F']).unwrap_or(text);
    let spelt = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'+' | b'-');
    let value: f64 = number.parse().ok().filter(|_| number.bytes().all(spelt))?;
    Some(Value::Float(if negative { -value } else { value }))
}
