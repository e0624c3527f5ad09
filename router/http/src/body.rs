//! Reads a request's body: bounded in bytes, in time and, when compressed, in what it unfolds to.
//!
//! A body that is refused leaves its connection usable where little of it is still to come: that is read and thrown away.
//!
//! A body that arrives in one piece is passed on without a copy. gzip, deflate (zlib) and zstd are unfolded; a large one on a
//! thread of the blocking pool, so that it does not hold up its neighbours.

use std::{
    fmt,
    io::{self, Read},
    pin::pin,
    task::Poll,
    time::Duration,
};

use actix_web::{
    HttpRequest,
    http::{
        Version,
        header::{CONTENT_ENCODING, CONTENT_LENGTH},
    },
    web,
};
use bytes::{Bytes, BytesMut};
use flate2::read::{MultiGzDecoder, ZlibDecoder};
use futures::StreamExt;

use mesh_router::{Budget, Share};

/// What a compressed body may unfold to: so many times its size, where that is more than the floor.
const MAX_RATIO: usize = 100;
const RATIO_FLOOR_BYTES: usize = 1024 * 1024;
/// Compressed bodies up to this size are unfolded in place.
const INLINE_BYTES: usize = 16 * 1024;
/// The memory that a body may ask zstd to look back on: 2 to this power, the most that its specification has every reader allow.
const MAX_ZSTD_WINDOW_LOG: u32 = 23;
/// Room taken before the first byte is there; more is taken as the body grows.
const FIRST_ROOM_BYTES: usize = 256 * 1024;

/// What is read of a refused body, so that its connection can serve the next request; where more is to come, or not in this
/// time, the connection is closed.
pub(crate) const DRAIN_BYTES: usize = 64 * 1024;
const DRAIN_TIME: Duration = Duration::from_secs(1);

/// Why there is no body.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("the request body is larger than {max} bytes, the most that {of} takes")]
    TooLarge { max: usize, of: BoundOf },
    #[error("the request body unfolds to more than {max} bytes, the most allowed for one of its size")]
    Bomb { max: usize },
    #[error("the content encoding '{0}' is not supported: send the body as it is, or as gzip, deflate or zstd")]
    Encoding(String),
    #[error("the request body is not valid {0}")]
    Corrupt(&'static str),
    #[error("the server has no room for another large body: try again")]
    NoRoom,
    #[error("the request body ended early")]
    Incomplete,
    #[error("the request body took longer than {0} seconds to arrive")]
    Slow(u64),
}

impl BodyError {
    pub(crate) fn status(&self) -> u16 {
        match self {
            Self::TooLarge { .. } | Self::Bomb { .. } => 413,
            Self::Encoding(_) => 415,
            Self::Corrupt(_) | Self::Incomplete => 400,
            Self::Slow(_) => 408,
            Self::NoRoom => 503,
        }
    }

    /// Whether the rest of the body may still be on its way.
    fn leaves_unread(&self) -> bool {
        matches!(self, Self::TooLarge { .. } | Self::NoRoom)
    }

    /// Whether the rest of the body will never come, so that the connection can serve no other request.
    fn breaks_off(&self) -> bool {
        matches!(self, Self::Incomplete | Self::Slow(_))
    }
}

/// Whose bound on bodies is met first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BoundOf {
    Server,
    Model,
}

impl fmt::Display for BoundOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Server => "this server",
            Self::Model => "this model",
        })
    }
}

/// The bounds on a body.
#[derive(Debug, Clone)]
pub(crate) struct BodyLimits {
    pub(crate) max_bytes: usize,
    /// Whose bound that is.
    pub(crate) of: BoundOf,
    pub(crate) timeout: Duration,
    pub(crate) budget: Budget,
}

impl BodyLimits {
    /// The same for a model that takes no more than so many bytes.
    pub(crate) fn of_model(&self, bound: u64) -> Self {
        match usize::try_from(bound) {
            Ok(bound) if bound < self.max_bytes => Self {
                max_bytes: bound,
                of: BoundOf::Model,
                ..self.clone()
            },
            _ => self.clone(),
        }
    }

    fn too_large(&self) -> BodyError {
        BodyError::TooLarge {
            max: self.max_bytes,
            of: self.of,
        }
    }
}

/// A body and its share of the memory for bodies, to be held until the call is answered.
#[derive(Debug)]
pub(crate) struct Body {
    pub(crate) bytes: Bytes,
    _share: Share,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Plain,
    Gzip,
    Deflate,
    Zstd,
}

/// The length that a head says, if it does.
pub(crate) fn declared(request: &HttpRequest) -> Option<usize> {
    let length = request.headers().get(CONTENT_LENGTH)?;
    length.to_str().ok()?.parse().ok()
}

/// After a refusal: whether the connection can serve another request. Reads what little may be left of the body, for a
/// bounded time.
pub(crate) async fn is_done_with(
    request: &HttpRequest,
    payload: &mut web::Payload,
    limits: &BodyLimits,
    error: &BodyError,
) -> bool {
    if request.version() == Version::HTTP_2 {
        // The rest belongs to its stream, which ends with the answer.
        return true;
    }
    // A length over the bound was refused before anything was read: all of it is left.
    let is_far = declared(request).is_some_and(|declared| declared > limits.max_bytes && declared > DRAIN_BYTES);
    if error.breaks_off() || is_far {
        return false;
    }
    if !error.leaves_unread() {
        return true;
    }
    let drain = async {
        let mut left = DRAIN_BYTES;
        while let Some(piece) = payload.next().await {
            match piece.ok().and_then(|piece| left.checked_sub(piece.len())) {
                Some(less) => left = less,
                None => return false,
            }
        }
        true
    };
    let drained = tokio::time::timeout(limits.timeout.min(DRAIN_TIME), drain).await;
    drained.unwrap_or(false)
}

/// Reads the whole body.
pub(crate) async fn read(
    request: &HttpRequest,
    payload: &mut web::Payload,
    limits: &BodyLimits,
) -> Result<Body, BodyError> {
    let declared = declared(request);
    let max = limits.max_bytes;
    if declared.is_some_and(|declared| declared > max) {
        return Err(limits.too_large());
    }
    let mut share = limits.budget.share();
    let arrived = {
        let mut arriving = pin!(collect(payload, declared.unwrap_or(0), limits, &mut share));
        // Most bodies are there already; only one that is not needs a timer.
        match futures::poll!(&mut arriving) {
            Poll::Ready(body) => Ok(body),
            Poll::Pending => tokio::time::timeout(limits.timeout, arriving).await,
        }
    };
    let bytes = arrived.map_err(|_| BodyError::Slow(limits.timeout.as_secs()))??;
    // Only now, so that the refusal leaves nothing unread on the connection.
    let bytes = match encoding(request)? {
        Encoding::Plain => bytes,
        encoding => unfold_within(encoding, bytes, max, &mut share).await?,
    };
    Ok(Body { bytes, _share: share })
}

async fn unfold_within(encoding: Encoding, bytes: Bytes, max: usize, share: &mut Share) -> Result<Bytes, BodyError> {
    let max = max.min(RATIO_FLOOR_BYTES.max(bytes.len().saturating_mul(MAX_RATIO)));
    if !share.grow(max) {
        return Err(BodyError::NoRoom);
    }
    let unfolded = if bytes.len() <= INLINE_BYTES {
        unfold(encoding, &bytes, max)?
    } else {
        let unfolded = web::block(move || unfold(encoding, &bytes, max)).await;
        unfolded.map_err(|_| BodyError::Incomplete)??
    };
    share.shrink_to(unfolded.len());
    Ok(unfolded)
}

async fn collect(
    payload: &mut web::Payload,
    declared: usize,
    limits: &BodyLimits,
    share: &mut Share,
) -> Result<Bytes, BodyError> {
    let mut whole = Bytes::new();
    let mut pieces = BytesMut::new();
    while let Some(piece) = payload.next().await {
        let piece = piece.map_err(|_| BodyError::Incomplete)?;
        if whole.len() + pieces.len() + piece.len() > limits.max_bytes {
            return Err(limits.too_large());
        }
        if whole.is_empty() && pieces.is_empty() {
            whole = piece;
            continue;
        }
        if !share.grow(piece.len()) {
            return Err(BodyError::NoRoom);
        }
        if pieces.is_empty() {
            pieces.reserve(declared.min(FIRST_ROOM_BYTES).max(whole.len() + piece.len()));
            pieces.extend_from_slice(&std::mem::take(&mut whole));
        }
        pieces.extend_from_slice(&piece);
    }
    Ok(if pieces.is_empty() { whole } else { pieces.freeze() })
}

fn encoding(request: &HttpRequest) -> Result<Encoding, BodyError> {
    let Some(value) = request.headers().get(CONTENT_ENCODING) else {
        return Ok(Encoding::Plain);
    };
    let text = value.to_str().unwrap_or("?").trim();
    let is = |name: &str| text.eq_ignore_ascii_case(name);
    if is("gzip") || is("x-gzip") {
        Ok(Encoding::Gzip)
    } else if is("deflate") {
        Ok(Encoding::Deflate)
    } else if is("zstd") {
        Ok(Encoding::Zstd)
    } else if is("identity") || text.is_empty() {
        Ok(Encoding::Plain)
    } else {
        Err(BodyError::Encoding(text.chars().take(32).collect()))
    }
}

fn unfold(encoding: Encoding, body: &[u8], max: usize) -> Result<Bytes, BodyError> {
    // One byte more than allowed tells a body at the bound from one beyond it.
    let bound = max as u64 + 1;
    let mut out = Vec::with_capacity(body.len().saturating_mul(2).min(max));
    let (result, name) = match encoding {
        Encoding::Zstd => (unfold_zstd(body, bound, &mut out), "zstd"),
        Encoding::Deflate => (ZlibDecoder::new(body).take(bound).read_to_end(&mut out), "deflate"),
        Encoding::Gzip | Encoding::Plain => (MultiGzDecoder::new(body).take(bound).read_to_end(&mut out), "gzip"),
    };
    match result {
        Ok(_) if out.len() > max => Err(BodyError::Bomb { max }),
        Ok(_) => Ok(Bytes::from(out)),
        Err(_) => Err(BodyError::Corrupt(name)),
    }
}

fn unfold_zstd(body: &[u8], bound: u64, out: &mut Vec<u8>) -> io::Result<usize> {
    let mut decoder = zstd::Decoder::with_buffer(body)?;
    decoder.window_log_max(MAX_ZSTD_WINDOW_LOG)?;
    decoder.take(bound).read_to_end(out)
}

#[cfg(test)]
#[path = "body_tests.rs"]
mod tests;
