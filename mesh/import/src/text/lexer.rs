//! Cuts a text into words, numbers, texts in quotes and marks, each with its line.

use super::{TextError, TextProblem};

/// The most of a foreign word that a message repeats.
const MAX_SHOWN: usize = 40;

/// A piece of the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    Word(&'a str),
    Number(&'a str),
    /// The bytes of one pair of quotes.
    Quoted(Vec<u8>),
    Mark(char),
    End,
}

impl Piece<'_> {
    /// Itself, for a message.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Word(text) | Self::Number(text) => format!("'{}'", shown(text)),
            Self::Quoted(_) => "a text in quotes".to_owned(),
            Self::Mark(mark) => format!("'{}'", mark.escape_debug()),
            Self::End => "the end of the text".to_owned(),
        }
    }
}

pub(super) fn shown(text: &str) -> String {
    text.chars().take(MAX_SHOWN).collect()
}

pub(super) struct Lexer<'a> {
    rest: &'a str,
    pub(super) line: u32,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        // An editor's mark of the encoding is not part of the text.
        let rest = text.strip_prefix('\u{feff}').unwrap_or(text);
        Self { rest, line: 1 }
    }

    pub(super) fn error(&self, problem: TextProblem) -> TextError {
        TextError {
            line: self.line,
            problem,
        }
    }

    fn take(&mut self, bytes: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at_checked(bytes).unwrap_or((self.rest, ""));
        self.rest = rest;
        taken
    }

    /// As long as the characters are such.
    fn take_while(&mut self, such: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !such(c)).unwrap_or(self.rest.len());
        self.take(end)
    }

    fn skip_blanks(&mut self) {
        loop {
            let blanks = self.take_while(char::is_whitespace);
            let lines = blanks.bytes().filter(|byte| *byte == b'\n').count();
            self.line = self.line.saturating_add(u32::try_from(lines).unwrap_or(u32::MAX));
            if !self.rest.starts_with('#') {
                return;
            }
            self.take_while(|c| c != '\n');
        }
    }

    /// The next piece; `self.line` is its line.
    pub(super) fn next(&mut self) -> Result<Piece<'a>, TextError> {
        self.skip_blanks();
        let Some(first) = self.rest.chars().next() else {
            return Ok(Piece::End);
        };
        Ok(match first {
            'a'..='z' | 'A'..='Z' | '_' => Piece::Word(self.take_while(|c| c.is_ascii_alphanumeric() || c == '_')),
            '0'..='9' | '.' => Piece::Number(self.number()),
            '"' | '\'' => {
                self.take(1);
                Piece::Quoted(self.quoted(first)?)
            }
            mark => {
                self.take(mark.len_utf8());
                Piece::Mark(mark)
            }
        })
    }

    /// What stands up to the closing bracket: an extension's name.
    pub(super) fn bracketed(&mut self) -> Result<&'a str, TextError> {
        let name = self.take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '/' | '-' | ' '));
        if self.rest.starts_with(']') {
            self.take(1);
            return Ok(name.trim());
        }
        let found = Piece::Mark('[').shown();
        let right = "the name of a field";
        Err(self.error(TextProblem::Unexpected { found, right }))
    }

    /// Letters too, so that `1x` is one wrong number and not a number and a word; a sign only behind an exponent.
    fn number(&mut self) -> &'a str {
        let hexadecimal = self.rest.starts_with("0x") || self.rest.starts_with("0X");
        let mut before = ' ';
        let end = self.rest.find(|c: char| {
            let exponent = !hexadecimal && matches!(before, 'e' | 'E');
            before = c;
            !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_') || exponent && matches!(c, '+' | '-'))
        });
        self.take(end.unwrap_or(self.rest.len()))
    }

    fn quoted(&mut self, quote: char) -> Result<Vec<u8>, TextError> {
        let mut bytes = Vec::new();
        loop {
            let plain = self.take_while(|c| c != quote && c != '\\' && c != '\n');
            bytes.extend_from_slice(plain.as_bytes());
            match self.rest.chars().next() {
                Some('\\') => {
                    self.take(1);
                    self.escape(&mut bytes)?;
                }
                Some(end) if end == quote => {
                    self.take(1);
                    return Ok(bytes);
                }
                _ => return Err(self.error(TextProblem::OpenText)),
            }
        }
    }

    fn escape(&mut self, bytes: &mut Vec<u8>) -> Result<(), TextError> {
        let Some(letter) = self.rest.chars().next() else {
            return Err(self.error(TextProblem::OpenText));
        };
        if let '0'..='7' = letter {
            let byte = self.digits(3, 8).and_then(|code| u8::try_from(code).ok());
            bytes.push(byte.ok_or_else(|| self.error(TextProblem::Escape(letter.to_string())))?);
            return Ok(());
        }
        self.take(letter.len_utf8());
        let plain = match letter {
            'a' => 7,
            'b' => 8,
            't' => b'\t',
            'n' => b'\n',
            'v' => 11,
            'f' => 12,
            'r' => b'\r',
            '\\' | '\'' | '"' | '?' => u8::try_from(letter).unwrap_or_default(),
            'x' | 'X' => {
                let byte = self.digits(2, 16).and_then(|code| u8::try_from(code).ok());
                byte.ok_or_else(|| self.error(TextProblem::Escape(letter.to_string())))?
            }
            'u' | 'U' => return self.character(letter, bytes),
            other => return Err(self.error(TextProblem::Escape(other.escape_debug().to_string()))),
        };
        bytes.push(plain);
        Ok(())
    }

    /// A character by its number: four digits, or eight.
    fn character(&mut self, letter: char, bytes: &mut Vec<u8>) -> Result<(), TextError> {
        let length = if letter == 'u' { 4 } else { 8 };
        let before = self.rest.len();
        let code = self.digits(length, 16).filter(|_| before - self.rest.len() == length);
        let Some(character) = code.and_then(char::from_u32) else {
            return Err(self.error(TextProblem::Escape(letter.to_string())));
        };
        bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        Ok(())
    }

    /// A number of at most so many digits.
    fn digits(&mut self, most: usize, radix: u32) -> Option<u32> {
        let length = self.rest.chars().take(most).take_while(|c| c.is_digit(radix)).count();
        u32::from_str_radix(self.take(length), radix).ok()
    }
}
