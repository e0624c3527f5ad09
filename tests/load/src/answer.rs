//! The head of an answer: its status and how many bytes follow. Nothing else of it is read.

/// The longest head that is read.
pub const MAX_HEAD_BYTES: usize = 64 * 1024;
const END: &[u8] = b"\r\n\r\n";
const LENGTH: &[u8] = b"content-length:";
const CHUNKED: &[u8] = b"transfer-encoding:";

/// Why an answer cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnswerError {
    /// It does not begin as an HTTP/1.1 answer does.
    NotHttp,
    /// Its head is longer than [`MAX_HEAD_BYTES`].
    HeadTooLong,
    /// It gives no length, or one that is no number.
    NoLength,
}

impl std::fmt::Display for AnswerError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NotHttp => "the answer does not begin with HTTP/1.1 and a status",
            Self::HeadTooLong => "the head of the answer is longer than 64 KiB",
            Self::NoLength => "the answer has no content-length: only answers of known length are read",
        })
    }
}

impl std::error::Error for AnswerError {}

/// What is read of a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The status.
    pub status: u16,
    /// The bytes of the head, its empty line included.
    pub head_bytes: usize,
    /// The bytes of the body.
    pub body_bytes: usize,
}

impl Head {
    /// Reads a head at the start of the bytes; `None` if it has not ended yet.
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>, AnswerError> {
        let Some(end) = bytes.windows(END.len()).position(|window| window == END) else {
            return match bytes.len() {
                0..=MAX_HEAD_BYTES => Ok(None),
                _ => Err(AnswerError::HeadTooLong),
            };
        };
        let head = bytes.get(..end).unwrap_or_default();
        let mut lines = head.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
        let status = lines.next().and_then(status).ok_or(AnswerError::NotHttp)?;
        let mut length = None;
        for line in lines {
            if starts_with(line, CHUNKED) {
                return Err(AnswerError::NoLength);
            }
            if starts_with(line, LENGTH) {
                let digits = line.get(LENGTH.len()..).unwrap_or_default().trim_ascii();
                let number = std::str::from_utf8(digits).ok().and_then(|text| text.parse().ok());
                length = Some(number.ok_or(AnswerError::NoLength)?);
            }
        }
        let has_no_body = status == 204 || status == 304;
        let body_bytes = match length {
            Some(length) => length,
            None if has_no_body => 0,
            None => return Err(AnswerError::NoLength),
        };
        Ok(Some(Self {
            status,
            head_bytes: end + END.len(),
            body_bytes,
        }))
    }
}

fn starts_with(line: &[u8], name: &[u8]) -> bool {
    line.get(..name.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(name))
}

fn status(line: &[u8]) -> Option<u16> {
    let rest = line.strip_prefix(b"HTTP/1.1 ")?;
    std::str::from_utf8(rest.get(..3)?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_and_length_are_read_whatever_the_case() {
        let head = Head::parse(b"HTTP/1.1 200 OK\r\nContent-LENGTH: 12\r\nx: y\r\n\r\nhello").unwrap();
        assert_eq!(
            head,
            Some(Head {
                status: 200,
                head_bytes: 45,
                body_bytes: 12
            })
        );
        let empty = Head::parse(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap().unwrap();
        assert_eq!((empty.status, empty.body_bytes), (204, 0));
    }

    #[test]
    fn a_head_that_has_not_ended_waits_up_to_its_bound() {
        assert_eq!(Head::parse(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n"), Ok(None));
        assert_eq!(Head::parse(&vec![b'a'; MAX_HEAD_BYTES]), Ok(None));
        assert_eq!(
            Head::parse(&vec![b'a'; MAX_HEAD_BYTES + 1]),
            Err(AnswerError::HeadTooLong)
        );
    }

    #[test]
    fn what_is_no_answer_or_has_no_length_is_refused() {
        assert_eq!(Head::parse(b"SSH-2.0\r\n\r\n"), Err(AnswerError::NotHttp));
        assert_eq!(Head::parse(b"HTTP/1.1 200 OK\r\n\r\n"), Err(AnswerError::NoLength));
        assert_eq!(
            Head::parse(b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n"),
            Err(AnswerError::NoLength)
        );
        assert_eq!(
            Head::parse(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"),
            Err(AnswerError::NoLength)
        );
    }
}
