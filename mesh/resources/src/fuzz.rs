//! The body of this crate's fuzz target, here so that ordinary tests run it too: any bytes for a model's file.
//!
//! Returns what does not hold; the fuzzer and the tests panic on it. Not for use by the mesh.

use std::io::Cursor;

use crate::archive_problem;

/// What an archive may take when it is unpacked.
const MOST: u64 = 1 << 20;
/// What is wrong with one is said in no more than this: a name is quoted, each of its letters escaped.
const MOST_CHARS: usize = 8_192;

/// A file that may be an archive: looked at without more than a plain refusal, always the same one; where less may come out of it, it is
/// refused for as much at least.
pub fn archive(data: &[u8]) -> Result<(), String> {
    let ask = |most| archive_problem(&mut Cursor::new(data), most).map_err(|error| format!("not read: {error}"));
    let problem = ask(MOST)?;
    if ask(MOST)? != problem {
        return Err("two answers for one archive".to_owned());
    }
    let is_plain = |text: &String| !text.is_empty() && text.chars().count() < MOST_CHARS;
    if !problem.as_ref().is_none_or(is_plain) {
        return Err(format!("a refusal of {} bytes", problem.unwrap_or_default().len()));
    }
    if problem.is_some() && ask(0)?.is_none() {
        return Err("what may not come to much may come to nothing".to_owned());
    }
    Ok(())
}
