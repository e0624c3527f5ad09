//! `mock_llm`: a model that says a text, whole or in pieces, always the same for the same input.
//!
//! With the tensors `text_input`, `max_tokens` and `stream` it says the words of the text over and over until there are
//! `max_tokens` of them (as many as the text has, where that is left out): each word an answer where `stream` is true, else one
//! answer with all of them. With `PROMPT`, `STREAM` and `REPETITION` it is the model of the same name in Triton's tests, which
//! says the text `REPETITION` times (once where that is left out), each an answer.

use std::sync::Arc;

use bytes::Bytes;
use mesh_backend::{BackendError, Next};
use mesh_types::{DataType, ModelConfig, Shape, Tensor, TensorSpec};

use crate::decoupled::{Given, Speaker};

/// The most words or repetitions of one request.
const MAX_PIECES: u32 = 1_000_000;

/// The most bytes of one answer.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;

/// Which tensors it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// `text_input`, `max_tokens`, `stream`.
    Words,
    /// `PROMPT`, `REPETITION`, `STREAM`.
    Repetitions,
}

impl Dialect {
    const ALL: [Self; 2] = [Self::Words, Self::Repetitions];

    /// The names of the text, the number and the flag.
    fn names(self) -> [&'static str; 3] {
        match self {
            Self::Words => ["text_input", "max_tokens", "stream"],
            Self::Repetitions => ["PROMPT", "REPETITION", "STREAM"],
        }
    }

    /// That of a configuration.
    pub(crate) fn of(config: &ModelConfig) -> Result<Self, BackendError> {
        let fits = |dialect: &Self| {
            let [text, number, flag] = dialect.names();
            let known = |spec: &TensorSpec| {
                let kind = match spec.name.as_str() {
                    name if name == text => DataType::Bytes,
                    name if name == number => return matches!(spec.datatype, DataType::Int32 | DataType::Uint32),
                    name if name == flag => DataType::Bool,
                    _ => return false,
                };
                spec.datatype == kind
            };
            config.input.iter().all(known) && config.input.iter().any(|spec| spec.name == text)
        };
        let single = config.input.iter().chain(&config.output).all(|spec| spec.dims == [1]);
        let one_text = matches!(config.output.as_slice(), [spec] if spec.datatype == DataType::Bytes);
        let found = Self::ALL.into_iter().find(fits).filter(|_| single && one_text);
        found.filter(|_| !config.batches()).ok_or_else(|| {
            BackendError::Load(
                "mock_llm has the inputs text_input (BYTES), max_tokens (INT32) and stream (BOOL), or PROMPT, REPETITION and STREAM \
                 of the same types, one output of BYTES, all of dims [1], and max_batch_size 0; of the inputs the first is needed"
                    .to_owned(),
            )
        })
    }
}

/// Says it.
pub(crate) fn speak(
    config: &ModelConfig,
    dialect: Dialect,
    given: &Given<'_>,
    speaker: &mut Speaker<'_>,
) -> Result<(), BackendError> {
    let [prompt, number, flag] = dialect.names();
    let wrong = BackendError::InvalidInput;
    // The length before the only element is the tensor's own business.
    let text = given.bytes(prompt).and_then(|bytes| bytes.get(4..)).unwrap_or_default();
    let text = std::str::from_utf8(text).map_err(|_| wrong(format!("{prompt} is not UTF-8")))?;
    let said = given.numbers(number).next();
    let streams = given
        .bytes(flag)
        .is_some_and(|flag| flag.first().is_some_and(|byte| *byte != 0));
    if said.is_some_and(|said| said > MAX_PIECES) {
        return Err(wrong(format!("{number} is from 0 to {MAX_PIECES}")));
    }
    let mut say = |piece: &str| speaker.say(vec![output(config, piece)]);
    if dialect == Dialect::Repetitions {
        for _ in 0..said.unwrap_or(1) {
            if say(text)? == Next::Stop {
                return Ok(());
            }
        }
        return Ok(());
    }
    let words: Vec<&str> = text.split_whitespace().collect();
    let count = usize::try_from(said.unwrap_or(u32::MAX)).unwrap_or(usize::MAX);
    let count = if said.is_some() { count } else { words.len() };
    let pieces = words.iter().copied().cycle().take(count).enumerate();
    let pieces = pieces.map(|(at, word)| if at == 0 { word.to_owned() } else { format!(" {word}") });
    if !streams {
        let mut all = String::new();
        for piece in pieces {
            if all.len() + piece.len() > MAX_ANSWER_BYTES {
                return Err(wrong(format!(
                    "so many words have more than {MAX_ANSWER_BYTES} bytes: ask for fewer"
                )));
            }
            all.push_str(&piece);
        }
        let _ = say(&all)?;
        return Ok(());
    }
    for piece in pieces {
        if say(&piece)? == Next::Stop {
            break;
        }
    }
    Ok(())
}

fn output(config: &ModelConfig, piece: &str) -> Tensor {
    let name = config.output.first().map_or("", |spec| spec.name.as_str());
    let length = u32::try_from(piece.len()).unwrap_or(u32::MAX).to_le_bytes();
    Tensor {
        name: Arc::from(name),
        datatype: DataType::Bytes,
        shape: Shape::from_slice(&[1]),
        data: Bytes::from([length.as_slice(), piece.as_bytes()].concat()),
    }
}
