//! Reads what callgrind writes: instructions by source file, and by function with everything below it.
//!
//! The format is that of "Callgrind Format Specification" in Valgrind's manual: names are written out once and numbered;
//! a line of costs begins with a position; the line after `calls=` is what the call has cost, and no cost of its own.

use std::collections::{BTreeMap, HashMap};

/// Instructions.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Profile {
    /// By the file in which the code is written, inlined or not.
    pub(crate) files: BTreeMap<String, u64>,
    /// By function called, with everything below it.
    pub(crate) calls: BTreeMap<String, u64>,
}

/// Names by number, as the format compresses them.
#[derive(Default)]
struct Names(HashMap<String, String>);

impl Names {
    fn resolve(&mut self, text: &str) -> String {
        let Some((number, name)) = text.strip_prefix('(').and_then(|rest| rest.split_once(')')) else {
            return text.to_owned();
        };
        match name.trim_start() {
            "" => self.0.get(number).cloned().unwrap_or_default(),
            name => {
                self.0.insert(number.to_owned(), name.to_owned());
                name.to_owned()
            }
        }
    }
}

/// Reads it; none where a line of costs is none, or where there is nothing.
pub(crate) fn read(text: &str) -> Option<Profile> {
    let (mut files, mut functions) = (Names::default(), Names::default());
    let (mut file, mut called, mut is_call) = (String::new(), String::new(), false);
    let mut profile = Profile::default();
    for line in text.lines() {
        if let Some((key, value)) = line.split_once('=') {
            match key {
                "fl" | "fi" | "fe" => file = files.resolve(value),
                "cfi" | "cfl" => drop(files.resolve(value)),
                "fn" => drop(functions.resolve(value)),
                "cfn" => called = functions.resolve(value),
                "calls" => is_call = true,
                _ => {}
            }
        } else if line.starts_with(|first: char| first.is_ascii_digit() || "+-*".contains(first)) {
            // A line without a cost costs nothing.
            let cost: u64 = line.split(' ').nth(1).map_or(Some(0), |cost| cost.parse().ok())?;
            if is_call {
                *profile.calls.entry(called.clone()).or_default() += cost;
            } else {
                *profile.files.entry(file.clone()).or_default() += cost;
            }
            is_call = false;
        }
    }
    (!profile.files.is_empty()).then_some(profile)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_go_to_the_file_of_their_line_and_those_of_calls_to_the_function() {
        let text = "version: 1\nevents: Ir\nfl=(1) a.rs\nfn=(1) main\n16 400\ncfi=(2) b.rs\ncfn=(2) work\n\
            calls=3 50\n16 900\nfi=(2)\n+4 20\nfe=(1)\n* 1\n\nfl=(2)\nfn=(2)\n51 880\n-1 20\n\ntotals: 1321\n";
        let profile = read(text).unwrap();
        assert_eq!(
            profile.files,
            BTreeMap::from([("a.rs".to_owned(), 401), ("b.rs".to_owned(), 920)])
        );
        assert_eq!(profile.calls, BTreeMap::from([("work".to_owned(), 900)]));
        assert_eq!(read("events: Ir\n"), None);
        assert_eq!(read("fl=(1) a\n16 x\n"), None);
    }
}
