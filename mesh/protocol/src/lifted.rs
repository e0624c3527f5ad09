//! Large lists of numbers, taken out of a body before the JSON parser sees it.
//!
//! A parser that delimits a tensor's `data` looks at each of its bytes, and then they are read once more. Where the list is large and
//! holds nothing but numbers, its end is found many bytes at a time instead, and the parser reads the rest of the body with a `0` in
//! its place.
//!
//! Nothing is checked here beyond that: the bytes of a list are those of numbers, in whatever order, so whoever reads one checks its
//! syntax. Invariants: a body is lifted from or left alone, and what was lifted is only ever read as the `data` of an input; where
//! anything is not as usual (another key of that name, a fault of any kind) the body is read again as it came, so that lifting
//! changes neither what is taken nor what is said. Memory is that of the rest of the body.

use std::{borrow::Cow, cell::Cell};

use memchr::{memchr, memchr2};
use serde_json::value::RawValue;
use smallvec::SmallVec;

use crate::data::Syntax;

/// A body with less than this is read at once.
pub(crate) const LEAST_BYTES: usize = 4 * 1024;
/// How deep lists may nest; deeper ones than any shape are left to the parser.
const MAX_DEPTH: usize = 64;
/// So many bytes are looked at together.
const STRIDE: usize = 32;

/// The lists of a body, by where their places are in what is left of it.
#[derive(Debug)]
pub(crate) struct Lists<'a> {
    rest: Cow<'a, [u8]>,
    lifted: SmallVec<[(usize, &'a str); 4]>,
    read: Cell<usize>,
}

impl<'a> Lists<'a> {
    /// A body as it came.
    pub(crate) fn none(body: &'a [u8]) -> Self {
        Self {
            rest: Cow::Borrowed(body),
            lifted: SmallVec::new(),
            read: Cell::new(0),
        }
    }

    /// The body without its lists of at least so many bytes; none where it has none.
    pub(crate) fn lift(body: &'a [u8], least: usize) -> Option<Self> {
        if body.len() < least {
            return None;
        }
        let (mut rest, mut lifted, mut from) = (Vec::new(), SmallVec::new(), 0);
        let mut at = 0;
        while let Some(start) = list_of_data(body, &mut at) {
            let Some(end) = end_of_numbers(body, start) else {
                continue;
            };
            at = end;
            if end - start < least {
                continue;
            }
            // Its bytes are those of numbers, so it is text.
            let list = std::str::from_utf8(body.get(start..end)?).ok()?;
            rest.extend_from_slice(body.get(from..start)?);
            lifted.push((rest.len(), list));
            rest.push(b'0');
            from = end;
        }
        if lifted.is_empty() {
            return None;
        }
        rest.extend_from_slice(body.get(from..)?);
        Some(Self {
            rest: Cow::Owned(rest),
            lifted,
            read: Cell::new(0),
        })
    }

    /// What the parser reads.
    pub(crate) fn rest(&self) -> &[u8] {
        &self.rest
    }

    /// The list whose place this is, or what stands there.
    pub(crate) fn of<'b>(&'b self, value: &'b RawValue) -> (&'b str, Syntax) {
        let place = (value.get().as_ptr() as usize).wrapping_sub(self.rest.as_ptr() as usize);
        match self.lifted.iter().find(|(at, _)| *at == place) {
            Some((_, list)) => {
                self.read.set(self.read.get() + 1);
                (list, Syntax::Unchecked)
            }
            None => (value.get(), Syntax::Sound),
        }
    }

    /// Whether each list was asked for: one that was not stood elsewhere than where a list is expected.
    pub(crate) fn all_read(&self) -> bool {
        self.read.get() == self.lifted.len()
    }
}

/// Where the next list begins that a key `data` has; `at` is then behind its bracket. It may stand anywhere in the body.
fn list_of_data(body: &[u8], at: &mut usize) -> Option<usize> {
    loop {
        let open = *at + memchr(b'"', body.get(*at..)?)?;
        let end = end_of_string(body, open + 1)?;
        *at = end + 1;
        if body.get(open + 1..end)? != b"data" {
            continue;
        }
        let colon = skip_space(body, end + 1);
        let start = skip_space(body, colon + 1);
        if body.get(colon) == Some(&b':') && body.get(start) == Some(&b'[') {
            *at = start + 1;
            return Some(start);
        }
    }
}

/// Where the quotation mark is that ends a string.
fn end_of_string(body: &[u8], mut at: usize) -> Option<usize> {
    loop {
        at += memchr2(b'"', b'\\', body.get(at..)?)?;
        if body.get(at) == Some(&b'"') {
            return Some(at);
        }
        at += 2;
    }
}

fn skip_space(body: &[u8], at: usize) -> usize {
    let rest = body.get(at..).unwrap_or_default();
    let space = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
    at + rest.iter().take_while(|byte| space(byte)).count()
}

/// Whether a list of numbers has such a byte, brackets aside; some others pass as well, and no bracket, letter or quotation mark.
fn is_of_numbers(byte: u8) -> bool {
    // From the plus sign to the digit nine; the exponent; space.
    (byte.wrapping_sub(b'+') <= b'9' - b'+') | ((byte | 0x20) == b'e') | (byte <= b' ')
}

/// The end of the list that begins there, if there is nothing but numbers in it.
fn end_of_numbers(body: &[u8], start: usize) -> Option<usize> {
    let (mut at, mut depth) = (start, 0_usize);
    loop {
        while let Some(many) = body.get(at..at + STRIDE)
            && many.iter().fold(true, |all, byte| all & is_of_numbers(*byte))
        {
            at += STRIDE;
        }
        at += body.get(at..)?.iter().position(|byte| !is_of_numbers(*byte))?;
        match body.get(at)? {
            b'[' if depth < MAX_DEPTH => depth += 1,
            b']' => depth -= 1,
            _ => return None,
        }
        at += 1;
        if depth == 0 {
            return Some(at);
        }
    }
}

#[cfg(test)]
#[path = "lifted_tests.rs"]
mod tests;
