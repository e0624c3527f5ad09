//! A difference of two texts, line by line.

use std::fmt::Write as _;

/// Above this many pairs of lines the texts are shown whole, one after the other.
const MAX_PAIRS: usize = 4_000_000;
/// Unchanged lines shown around a change.
const CONTEXT: usize = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line<'a> {
    Same(&'a str),
    Gone(&'a str),
    New(&'a str),
}

/// Lines with `-`, `+` or a space in front; far from a change they are left out.
pub(crate) fn line_diff(before: &str, after: &str) -> String {
    let (before, after): (Vec<_>, Vec<_>) = (before.lines().collect(), after.lines().collect());
    let lines = compare(&before, &after);
    let near = |index: usize| {
        let window = lines
            .iter()
            .skip(index.saturating_sub(CONTEXT))
            .take(CONTEXT + 1 + CONTEXT.min(index));
        window.clone().any(|line| !matches!(line, Line::Same(_)))
    };
    let (mut text, mut left_out) = (String::new(), false);
    for (index, line) in lines.iter().enumerate() {
        // Writing to a String cannot fail.
        let _ = match line {
            Line::Gone(line) => writeln!(text, "- {line}"),
            Line::New(line) => writeln!(text, "+ {line}"),
            Line::Same(line) if near(index) => writeln!(text, "  {line}"),
            Line::Same(_) if left_out => continue,
            Line::Same(_) => writeln!(text, "  ..."),
        };
        left_out = matches!(line, Line::Same(_)) && !near(index);
    }
    text
}

/// The longest common subsequence, kept; everything else goes or comes.
fn compare<'a>(before: &[&'a str], after: &[&'a str]) -> Vec<Line<'a>> {
    let width = after.len() + 1;
    if (before.len() + 1).saturating_mul(width) > MAX_PAIRS {
        let gone = before.iter().copied().map(Line::Gone);
        return gone.chain(after.iter().copied().map(Line::New)).collect();
    }
    // common[i * width + j]: how many lines before[i..] and after[j..] have in common.
    let mut common = vec![0u32; (before.len() + 1) * width];
    let at = |common: &[u32], i: usize, j: usize| common.get(i * width + j).copied().unwrap_or(0);
    for (i, old) in before.iter().enumerate().rev() {
        for (j, new) in after.iter().enumerate().rev() {
            let longest = if old == new {
                at(&common, i + 1, j + 1) + 1
            } else {
                at(&common, i + 1, j).max(at(&common, i, j + 1))
            };
            if let Some(cell) = common.get_mut(i * width + j) {
                *cell = longest;
            }
        }
    }
    let (mut lines, mut i, mut j) = (Vec::new(), 0, 0);
    loop {
        match (before.get(i), after.get(j)) {
            (Some(old), Some(new)) if old == new => {
                lines.push(Line::Same(old));
                (i, j) = (i + 1, j + 1);
            }
            (Some(old), new) if new.is_none() || at(&common, i + 1, j) >= at(&common, i, j + 1) => {
                lines.push(Line::Gone(old));
                i += 1;
            }
            (_, Some(new)) => {
                lines.push(Line::New(new));
                j += 1;
            }
            (Some(_), None) | (None, None) => return lines,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_line_goes_and_comes_with_three_lines_around_it() {
        let before = "a\nb\nc\nd\ne\nf\ng\nh\ni\n";
        let after = before.replace('f', "F");
        assert_eq!(
            line_diff(before, &after),
            "  ...\n  c\n  d\n  e\n- f\n+ F\n  g\n  h\n  i\n"
        );
    }

    #[test]
    fn from_nothing_all_is_new_and_to_nothing_all_is_gone() {
        assert_eq!(line_diff("", "a\nb\n"), "+ a\n+ b\n");
        assert_eq!(line_diff("a\nb\n", ""), "- a\n- b\n");
    }

    #[test]
    fn texts_past_the_bound_are_shown_whole() {
        let lines = |count: usize| "x\n".repeat(count);
        assert!(!line_diff(&lines(1_999), &lines(1_999)).contains('-'));
        assert!(line_diff(&lines(2_000), &lines(2_000)).contains('-'));
    }
}
