//! Whether each line of a head ends as it must, in what comes over an HTTP/1.1 connection.
//!
//! A line ends in CR LF, and a recipient may take LF alone for its end (RFC 9112, section 2.2). Where one that does and one that does not
//! stand behind each other, they cut the same bytes into different requests, so here nobody does. The library takes it: the bytes are
//! looked at before it gets them. Of a head only what says where its body ends is read, and as the library reads it. Where the library
//! refuses a request, what is found behind it does not matter, for the connection ends.
//!
//! Bounds: of a line that does not come in one piece at most [`MAX_KEPT`] bytes are kept.

/// What is kept of a line whose end has not come.
pub(crate) const MAX_KEPT: usize = 1_024;
/// The fields that say where a body ends.
const FRAMING: [&[u8]; 3] = [b"content-length", b"transfer-encoding", b"upgrade"];
const LINE_END: u64 = 2;

/// Where in the requests of a connection what comes next is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// In front of a request: empty lines count for nothing.
    Before,
    /// At a line of a head.
    Head(Framing),
    /// At a chunk's size.
    Size,
    /// Behind the last chunk.
    Trailer,
    /// In so many bytes that have no lines, and then at a chunk's size or in front of a request.
    Body { left: u64, is_chunk: bool },
    /// In what never ends, or is refused.
    Rest,
}

/// What a head has said of its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Framing {
    length: u64,
    is_chunked: bool,
    /// Everything behind the head is its body, unless it says where that ends.
    is_tunnel: bool,
    /// It turns into a connection of another protocol.
    is_upgrade: bool,
    is_refused: bool,
}

impl Framing {
    /// What it says with one more field.
    fn with(mut self, name: &[u8], value: &[u8]) -> Self {
        let [length, coding, upgrade] = FRAMING;
        if name.eq_ignore_ascii_case(length) {
            match std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()) {
                Some(length) => self.length = length,
                None => self.is_refused = true,
            }
        } else if name.eq_ignore_ascii_case(coding) {
            self.is_chunked |= value.eq_ignore_ascii_case(b"chunked");
            self.is_refused |= !self.is_chunked;
        } else if name.eq_ignore_ascii_case(upgrade) {
            self.is_upgrade |= value.eq_ignore_ascii_case(b"websocket");
        }
        self
    }

    /// What is behind the head.
    fn body(self) -> At {
        if self.is_refused {
            At::Rest
        } else if self.is_chunked {
            At::Size
        } else if self.is_upgrade {
            At::Rest
        } else if self.length > 0 {
            At::Body {
                left: self.length,
                is_chunk: false,
            }
        } else if self.is_tunnel {
            At::Rest
        } else {
            At::Before
        }
    }
}

/// Follows the lines of a connection.
#[derive(Debug)]
pub(crate) struct Lines {
    at: At,
    /// The beginning of a line that came in an earlier piece.
    kept: Vec<u8>,
    /// The last byte of that piece; none where it ended with a line.
    last: Option<u8>,
}

impl Lines {
    /// In front of the first request.
    pub(crate) fn new() -> Self {
        Self {
            at: At::Before,
            kept: Vec::new(),
            last: None,
        }
    }

    /// Goes on with the next piece: where in it the first line feed is that stands alone, if there is one.
    pub(crate) fn alone(&mut self, piece: &[u8]) -> Option<usize> {
        let mut done = 0;
        while let Some(rest) = piece.get(done..).filter(|rest| !rest.is_empty()) {
            match &mut self.at {
                At::Rest => return None,
                At::Body { left, is_chunk } => {
                    let passed = usize::try_from(*left).map_or(rest.len(), |left| left.min(rest.len()));
                    *left -= passed as u64;
                    done += passed;
                    if *left == 0 {
                        self.at = if *is_chunk { At::Size } else { At::Before };
                    }
                }
                _ => {
                    let Some(end) = memchr::memchr(b'\n', rest) else {
                        self.keep(rest);
                        return None;
                    };
                    let before = if end == 0 {
                        self.last
                    } else {
                        rest.get(end - 1).copied()
                    };
                    // The library sees to the ends of chunks' sizes itself.
                    if before != Some(b'\r') && self.at != At::Size {
                        return Some(done + end);
                    }
                    if !self.line(rest.get(..end).unwrap_or_default()) {
                        return Some(done + end);
                    }
                    done += end + 1;
                }
            }
        }
        None
    }

    fn keep(&mut self, part: &[u8]) {
        // One byte more says that there was more.
        let room = (MAX_KEPT + 1).saturating_sub(self.kept.len());
        self.kept.extend(part.iter().take(room));
        self.last = part.last().copied().or(self.last);
    }

    /// Goes past a line, of which this came last; false where too little of it was kept to know where its body ends.
    fn line(&mut self, part: &[u8]) -> bool {
        if self.last.take().is_none() {
            self.at = self.behind(part);
            return true;
        }
        self.keep(part);
        let is_cut = self.kept.len() > MAX_KEPT;
        self.last = None;
        let mut kept = std::mem::take(&mut self.kept);
        let counts = match self.at {
            At::Head(_) => {
                field(&kept).is_some_and(|(name, _)| FRAMING.iter().any(|one| name.eq_ignore_ascii_case(one)))
            }
            At::Size => true,
            _ => false,
        };
        self.at = self.behind(&kept);
        kept.clear();
        self.kept = kept;
        !(is_cut && counts)
    }

    fn behind(&self, line: &[u8]) -> At {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        match self.at {
            At::Before if line.is_empty() => At::Before,
            At::Before => At::Head(Framing {
                is_tunnel: line.starts_with(b"CONNECT "),
                ..Framing::default()
            }),
            At::Head(framing) if line.is_empty() => framing.body(),
            At::Head(framing) => At::Head(field(line).map_or(framing, |(name, value)| framing.with(name, value))),
            At::Size => size(line),
            At::Trailer if line.is_empty() => At::Before,
            at => at,
        }
    }
}

/// A field's name and value.
fn field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = memchr::memchr(b':', line)?;
    let (name, value) = line.split_at(colon);
    Some((name, value.get(1..)?.trim_ascii()))
}

/// What is behind the line of a chunk's size.
fn size(line: &[u8]) -> At {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let digits = line.get(..digits).and_then(|digits| std::str::from_utf8(digits).ok());
    match digits.and_then(|digits| u64::from_str_radix(digits, 16).ok()) {
        Some(0) => At::Trailer,
        Some(size) => At::Body {
            left: size.saturating_add(LINE_END),
            is_chunk: true,
        },
        None => At::Rest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where the first line feed is alone, with the whole coming in pieces of this size.
    fn alone(all: &[u8], size: usize) -> Option<usize> {
        let (mut lines, mut before) = (Lines::new(), 0);
        for piece in all.chunks(size) {
            if let Some(at) = lines.alone(piece) {
                return Some(before + at);
            }
            before += piece.len();
        }
        None
    }

    fn is_fine(all: &str) {
        for size in [1, 2, 3, 7, 64, all.len()] {
            assert_eq!(alone(all.as_bytes(), size), None, "in pieces of {size}: {all:?}");
        }
    }

    /// The place is marked by `!`, in front of the line feed.
    fn is_found(marked: &str) {
        let place = marked.find('!').unwrap();
        let all = marked.replacen('!', "", 1);
        for size in [1, 2, 3, 7, 64, all.len()] {
            assert_eq!(alone(all.as_bytes(), size), Some(place), "in pieces of {size}: {all:?}");
        }
        // Behind whatever may be in front of it.
        for before in [
            "GET / HTTP/1.1\r\nhost: a\r\n\r\n",
            "POST / HTTP/1.1\r\nhost: a\r\nContent-Length: \t5 \r\n\r\n\n\n\n\n\n",
            "POST / HTTP/1.1\r\ntransfer-encoding: Chunked\r\n\r\n3;x=y\r\n\n\n\n\r\nA \r\n\n123456789\r\n00\r\nx: y\r\n\r\n",
            "\r\n\r\n",
        ] {
            let all = format!("{before}{all}");
            for size in [1, 2, 3, 7, 64, all.len()] {
                let found = alone(all.as_bytes(), size);
                assert_eq!(found, Some(before.len() + place), "in pieces of {size}: {all:?}");
            }
        }
    }

    #[test]
    fn in_a_head_and_behind_the_last_chunk_a_line_feed_alone_is_found() {
        is_found("!\nGET / HTTP/1.1\r\n");
        is_found("GET / HTTP/1.1!\nhost: a\n\n");
        is_found("GET / HTTP/1.1\r\nhost: a!\nb: c\r\n\r\n");
        is_found("GET / HTTP/1.1\r\nhost: a\r\n!\n");
        is_found("GET / HTTP/1.1\r\nhost: a\r\nx: a\rb!\n\r\n");
        is_found("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\r\n\n\r\n0\r\n!\n");
        is_found("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx: y!\n\r\n");
    }

    #[test]
    fn in_a_body_it_is_a_byte_like_all_others() {
        is_fine("POST / HTTP/1.1\r\ncontent-length: 4\r\n\r\n{\n}\nGET / HTTP/1.1\r\n\r\n");
        is_fine("POST / HTTP/1.1\r\nTRANSFER-ENCODING:chunked\r\n\r\n2\r\n\n\n\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n");
        is_fine("CONNECT a:1 HTTP/1.1\r\nhost: a\r\n\r\n\n\n");
        is_fine("GET / HTTP/1.1\r\nupgrade: websocket\r\ncontent-length: 1\r\n\r\n\n\n");
        is_fine("POST / HTTP/1.1\r\ncontent-length: 0\r\n\r\nGET / HTTP/1.1\r\n\r\n");
    }

    #[test]
    fn a_line_that_says_where_a_body_ends_is_kept_to_the_bound_and_one_more_byte_is_refused() {
        for (head, value) in [
            ("POST / HTTP/1.1\r\ncontent-length:", "2"),
            ("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n", "2"),
        ] {
            let begin = head.rfind('\n').unwrap() + 1;
            let filler = if head.ends_with(':') { " " } else { "0" };
            for more in [0, 1] {
                // With its carriage return.
                let fill = filler.repeat(MAX_KEPT + more - 1 - value.len() - (head.len() - begin));
                let all = format!("{head}{fill}{value}\r\n\r\n");
                // Also where the line's end comes by itself, behind what is not kept any more.
                for size in [1, 2, 100] {
                    let found = alone(all.as_bytes(), size);
                    assert_eq!(found.is_some(), more == 1, "{found:?} in pieces of {size}: {head:?}");
                }
                assert_eq!(alone(all.as_bytes(), all.len()), None, "in one piece nothing is kept");
            }
        }
        is_fine(&format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "x".repeat(2 * MAX_KEPT)));
    }
}
