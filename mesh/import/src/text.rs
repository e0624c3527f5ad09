//! Protobuf's text format, read without knowing any message: fields, their values, and the line of each.
//!
//! Owns the form: comments, texts with escapes that follow each other, lists, `{}` and `<>`, numbers in all their spellings. What
//! a field means, and whether there is such a field, is `schema`'s. A list is the field as often as it has values, as the format
//! says. Libraries that read the format need compiled descriptors and end at the first field that they do not know; here such
//! a field is only told of.
//!
//! Invariants: any text is read or refused with a line that it has; nesting and length are bounded.

mod lexer;
mod parser;

pub(crate) use parser::special;

/// The longest text.
pub const MAX_TEXT_BYTES: usize = 1 << 20;
/// How deep messages may lie within each other. A model configuration needs five.
pub const MAX_NESTING: usize = 32;

/// What stands between two braces, or the whole text.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Message {
    /// In the order of the text.
    pub fields: Vec<Field>,
}

/// A field's name and one value.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// The name; that of an extension with its brackets.
    pub name: String,
    /// The line of the value, the first being 1.
    pub line: u32,
    /// The value.
    pub value: Value,
}

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A message.
    Message(Message),
    /// A text, its escapes resolved and its parts put together.
    Text(String),
    /// A whole number: of 64 bits, signed or not.
    Integer(i128),
    /// A number with a fraction, an exponent or the suffix `f`.
    Float(f64),
    /// A bare word: a boolean, or the name of an enumeration's value.
    Word(String),
}

/// Why a text cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct TextError {
    /// Where, the first line being 1.
    pub line: u32,
    /// What is wrong.
    pub problem: TextProblem,
}

/// What is wrong with a text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each says what it is")]
pub enum TextProblem {
    #[error("the text has more than {MAX_TEXT_BYTES} bytes")]
    TooLong,
    #[error("messages lie more than {MAX_NESTING} deep within each other")]
    TooDeep,
    #[error("{found}: here stands {right}")]
    Unexpected { found: String, right: &'static str },
    #[error("the '{mark}' of line {opened} is never closed")]
    NeverClosed { mark: char, opened: u32 },
    #[error("the text in quotes does not end in its line")]
    OpenText,
    #[error("'\\{0}' is no escape: write \\\\ for a backslash")]
    Escape(String),
    #[error("the text in quotes is not UTF-8")]
    NotUtf8,
    #[error("'{0}' is not a number of 64 bits")]
    Number(String),
}

impl Message {
    /// Reads a whole text.
    pub fn parse(text: &str) -> Result<Self, TextError> {
        if text.len() > MAX_TEXT_BYTES {
            let problem = TextProblem::TooLong;
            return Err(TextError { line: 1, problem });
        }
        parser::parse(text)
    }
}

#[cfg(test)]
#[path = "text/text_tests.rs"]
mod tests;
