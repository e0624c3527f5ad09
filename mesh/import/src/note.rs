//! What is to be said of a model: what was ignored, and why it was not taken.

use std::fmt;

/// The most notes of one model; what is beyond is counted.
pub const MAX_NOTES: usize = 50;
/// The longest part of a note, in characters: a configuration may hold any text.
const MAX_CHARACTERS: usize = 4_000;

/// What a note means for its model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// It is brought in all the same.
    Ignored,
    /// It is skipped.
    Refused,
}

/// Something to be said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// What it means.
    pub weight: Weight,
    /// The model's folder.
    pub model: String,
    /// What is the case.
    pub what: String,
    /// Where, within the model's folder; a line is the first being 1.
    pub place: Option<Place>,
    /// Why, or what would be right.
    pub right: String,
}

/// A place in a model's folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: String,
    /// The line.
    pub line: Option<u32>,
}

impl Note {
    /// A note in one line: it is printed and logged.
    pub(crate) fn new(
        weight: Weight,
        model: &str,
        what: impl Into<String>,
        place: Option<Place>,
        right: impl Into<String>,
    ) -> Self {
        Self {
            weight,
            model: line(model),
            what: line(&what.into()),
            place,
            right: line(&right.into()),
        }
    }
}

fn line(text: &str) -> String {
    let mut line = String::new();
    for character in text.chars().take(MAX_CHARACTERS) {
        if character.is_control() {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
    line
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.model, self.what)?;
        match &self.place {
            Some(Place { file, line: Some(line) }) => write!(f, " ({file}:{line})")?,
            Some(Place { file, line: None }) => write!(f, " ({file})")?,
            None => {}
        }
        if self.right.is_empty() {
            return Ok(());
        }
        write!(f, ": {}", self.right)
    }
}

/// The notes of one model.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Notes {
    model: String,
    found: Vec<Note>,
    more: usize,
    refused: bool,
}

impl Notes {
    pub(crate) fn of(model: &str) -> Self {
        Self {
            model: model.to_owned(),
            ..Self::default()
        }
    }

    /// Whether the model is skipped.
    pub(crate) fn refused(&self) -> bool {
        self.refused
    }

    pub(crate) fn say(
        &mut self,
        weight: Weight,
        what: impl Into<String>,
        place: Option<Place>,
        right: impl Into<String>,
    ) {
        self.refused |= weight == Weight::Refused;
        if self.found.len() >= MAX_NOTES {
            self.more += 1;
            return;
        }
        self.found.push(Note::new(weight, &self.model, what, place, right));
    }

    pub(crate) fn refuse(&mut self, what: impl Into<String>, place: Option<Place>, right: impl Into<String>) {
        self.say(Weight::Refused, what, place, right);
    }

    /// All of them; the last counts those that are left out.
    pub(crate) fn into_all(self) -> Vec<Note> {
        let mut found = self.found;
        if self.more > 0 {
            let weight = if self.refused { Weight::Refused } else { Weight::Ignored };
            found.push(Note::new(
                weight,
                &self.model,
                format!("and {} more", self.more),
                None,
                "",
            ));
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_says_what_where_and_what_would_be_right() {
        let what = "backend 'onnxruntime' is not supported";
        let note = |place| Note::new(Weight::Refused, "densenet_onnx", what, place, "export the model");
        let file = || "config.pbtxt".to_owned();
        let at = |line| Some(Place { file: file(), line });
        assert_eq!(
            note(at(Some(3))).to_string(),
            "densenet_onnx: backend 'onnxruntime' is not supported (config.pbtxt:3): export the model"
        );
        assert!(note(at(None)).to_string().contains("supported (config.pbtxt): export"));
        assert!(note(None).to_string().contains("supported: export"));
    }

    #[test]
    fn a_note_is_one_line_of_bounded_length() {
        let note = |what: &str| Note::new(Weight::Ignored, "m\n", what, None, "").to_string();
        assert_eq!(note("a\nb\u{1b}"), "m\\n: a\\nb\\u{1b}");
        let long = |length: usize| note(&"x".repeat(length)).len();
        assert_eq!(long(MAX_CHARACTERS + 1), long(MAX_CHARACTERS));
        assert!(long(MAX_CHARACTERS) > long(MAX_CHARACTERS - 1));
    }

    #[test]
    fn as_many_notes_as_there_may_be_are_kept_and_one_more_is_counted() {
        let notes = |count: usize| {
            let mut notes = Notes::of("m");
            (0..count).for_each(|_| notes.say(Weight::Ignored, "x", None, ""));
            notes
        };
        assert_eq!(notes(MAX_NOTES).into_all().len(), MAX_NOTES);
        let mut beyond = notes(MAX_NOTES);
        beyond.refuse("y", None, "");
        assert!(beyond.refused());
        let all = beyond.into_all();
        assert_eq!(all.len(), MAX_NOTES + 1);
        assert_eq!(all[MAX_NOTES].to_string(), "m: and 1 more");
        assert_eq!(all[MAX_NOTES].weight, Weight::Refused);
    }
}
