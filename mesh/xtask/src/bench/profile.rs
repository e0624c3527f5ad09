//! Reads what callgrind writes: instructions by the source file that causes them, and by function with everything below it.
//!
//! The format is that of "Callgrind Format Specification" in Valgrind's manual: names are written out once and numbered;
//! a line of costs begins with a position; the line after `calls=` is what the call has cost, and no cost of its own.
//!
//! A crate's own functions are those whose names begin with its name. What one of them does, with code that is inlined into
//! it, is counted to the file that the code is written in; what it calls that is not the crate's own, and what of the
//! standard library is inlined, to the file that asks for it: the last one of the crate before it in the function.

use std::collections::{BTreeMap, HashMap};

/// Instructions.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Profile {
    /// By the crate's own files, what they call of others included.
    pub(crate) files: BTreeMap<String, u64>,
    /// By function called, with everything below it.
    pub(crate) calls: BTreeMap<String, u64>,
}

/// The crate whose own functions and files are looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Own<'a> {
    /// As functions are named.
    pub(crate) krate: &'a str,
    /// The end of the path of its sources.
    pub(crate) sources: &'a str,
}

impl Own<'_> {
    fn function(self, name: &str) -> bool {
        let rest = name.strip_prefix('<').unwrap_or(name).strip_prefix(self.krate);
        rest.is_some_and(|rest| rest.starts_with("::"))
    }

    /// The file's name within the crate.
    fn file(self, path: &str) -> Option<&str> {
        path.rsplit_once(self.sources).map(|(_, name)| name)
    }
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

/// Where in the text we are.
#[derive(Default)]
struct Place {
    files: Names,
    functions: Names,
    file: String,
    /// Whether the function is one of the crate's own, and the last of the crate's files in it.
    is_own: bool,
    part: Option<String>,
    called: Option<String>,
    is_call: bool,
}

impl Place {
    fn name(&mut self, own: Own<'_>, key: &str, value: &str) {
        match key {
            "fl" | "fi" | "fe" => self.file = self.files.resolve(value),
            "cfi" | "cfl" => drop(self.files.resolve(value)),
            "fn" => {
                self.is_own = own.function(&self.functions.resolve(value));
                self.part = None;
            }
            "cfn" => self.called = Some(self.functions.resolve(value)),
            "calls" => self.is_call = true,
            _ => {}
        }
        if let Some(file) = own.file(&self.file) {
            self.part = Some(file.to_owned());
        }
    }
}

/// Reads it; none where a line of costs is none, or where nothing of the crate is in it.
pub(crate) fn read(text: &str, own: Own<'_>) -> Option<Profile> {
    let mut place = Place::default();
    let mut profile = Profile::default();
    for line in text.lines() {
        if let Some((key, value)) = line.split_once('=') {
            place.name(own, key, value);
        } else if line.starts_with(|first: char| first.is_ascii_digit() || "+-*".contains(first)) {
            // A line without a cost costs nothing.
            let cost: u64 = line.split(' ').nth(1).map_or(Some(0), |cost| cost.parse().ok())?;
            let mut counts = place.is_own;
            if place.is_call {
                place.is_call = false;
                let called = place.called.take()?;
                counts &= !own.function(&called);
                *profile.calls.entry(called).or_default() += cost;
            }
            if counts {
                let part = place.part.clone().unwrap_or_else(|| "lib.rs".to_owned());
                *profile.files.entry(part).or_default() += cost;
            }
        }
    }
    (!profile.files.is_empty()).then_some(profile)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Own<'_> = Own {
        krate: "made",
        sources: "made/src/",
    };

    #[test]
    fn what_a_file_causes_is_its_own_and_what_it_calls_of_others() {
        let text = "version: 1\nevents: Ir\n\
            fl=(1) main.rs\nfn=(1) main\n16 400\ncfi=(2) /x/made/src/a.rs\ncfn=(2) made::go\ncalls=3 50\n16 900\n\n\
            fl=(2)\nfn=(2)\n51 300\nfi=(3) /std/map.rs\n+4 20\ncfn=(3) malloc\ncalls=1 1\n* 80\nfe=(4) /x/made/src/b.rs\n-1 7\n\
            cfn=(4) <made::Thing as Drop>::drop\ncalls=1 1\n* 500\n\n\
            fl=(4)\nfn=(4)\n9 500\n\nfl=(5) malloc.c\nfn=(3)\n1 80\n\ntotals: 1321\n";
        let profile = read(text, OWN).unwrap();
        assert_eq!(
            profile.files,
            BTreeMap::from([("a.rs".to_owned(), 400), ("b.rs".to_owned(), 507)])
        );
        assert_eq!(profile.calls.get("made::go"), Some(&900));
        assert_eq!(profile.calls.get("malloc"), Some(&80));
    }

    #[test]
    fn what_is_no_profile_is_none() {
        assert_eq!(read("events: Ir\n", OWN), None);
        assert_eq!(read("fl=(1) /made/src/a.rs\nfn=(1) made::go\n16 x\n", OWN), None);
        // Nothing of the crate.
        assert_eq!(read("fl=(1) main.rs\nfn=(1) main\n16 4\n", OWN), None);
    }
}
