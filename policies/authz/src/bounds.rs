//! How deep and how long a statement may be.
//!
//! The engine reads and evaluates expressions by recursion, and a text of a few kilobytes of brackets ends the process. So a
//! text is measured before it is read, by a scan that only knows strings, comments, brackets and words.

/// Brackets within brackets.
pub(crate) const MAX_DEPTH: usize = 32;
/// Words and signs of one statement: each could be a level of its own in what is evaluated.
pub(crate) const MAX_TOKENS: usize = 2_048;

/// What is too much, and at which byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TooMuch {
    /// Brackets within brackets.
    Depth(usize),
    /// Words and signs.
    Tokens(usize),
}

/// Measures a text; one that is not well-formed is measured as far as it goes.
pub(crate) fn measure(text: &str) -> Result<(), TooMuch> {
    let bytes = text.as_bytes();
    let byte = |at: usize| bytes.get(at).copied();
    let (mut at, mut depth, mut tokens) = (0, 0_usize, 0_usize);
    while let Some(first) = byte(at) {
        let begin = at;
        at += 1;
        match first {
            b'"' => {
                while let Some(next) = byte(at).filter(|next| *next != b'"') {
                    at += if next == b'\\' { 2 } else { 1 };
                }
                at += 1;
            }
            b'/' if byte(at) == Some(b'/') => {
                while byte(at).is_some_and(|next| next != b'\n' && next != b'\r') {
                    at += 1;
                }
                continue;
            }
            b';' => {
                (depth, tokens) = (0, 0);
                continue;
            }
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            blank if blank.is_ascii_whitespace() => continue,
            letter if is_word(letter) => {
                while byte(at).is_some_and(is_word) {
                    at += 1;
                }
            }
            _ => {}
        }
        tokens += 1;
        if depth > MAX_DEPTH {
            return Err(TooMuch::Depth(begin));
        }
        if tokens > MAX_TOKENS {
            return Err(TooMuch::Tokens(begin));
        }
    }
    Ok(())
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_deep_and_as_long_as_may_be_and_not_one_more() {
        let deep = |depth: usize| format!("{}true{}", "(".repeat(depth), ")".repeat(depth));
        assert_eq!(measure(&deep(MAX_DEPTH)), Ok(()));
        assert_eq!(measure(&deep(MAX_DEPTH + 1)), Err(TooMuch::Depth(MAX_DEPTH)));
        let long = |tokens: usize| "a ".repeat(tokens);
        assert_eq!(measure(&long(MAX_TOKENS)), Ok(()));
        assert_eq!(measure(&long(MAX_TOKENS + 1)), Err(TooMuch::Tokens(2 * MAX_TOKENS)));
        assert_eq!(
            measure(&format!("{};{}", long(MAX_TOKENS), long(MAX_TOKENS))),
            Ok(()),
            "each statement for itself"
        );
    }

    #[test]
    fn strings_and_comments_are_not_read() {
        let many = "(".repeat(100);
        assert_eq!(measure(&format!("\"{many}\\\"{many}\" // {many}\n()")), Ok(()));
        assert!(measure(&format!("// x\r{many}")).is_err(), "a line ends at either sign");
        assert_eq!(measure("\"never closed \\"), Ok(()));
    }
}
