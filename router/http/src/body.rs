//! Reads a request's body: bounded in bytes, in time and, when compressed, in what it unfolds to.
//!
//! A body that is refused leaves its connection usable where little of it is still to come: that is read and thrown away.
//!
//! A body that arrives in one piece is passed on without a copy. gzip, deflate (zlib) and zstd are unfolded; a large one on a
//! thread of the blocking pool, so that it does not hold up its neighbours.

use std::{
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
    #[error("the request body is larger than {max} bytes, the most that this server takes")]
    TooLarge { max: usize },
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

/// The bounds on a body.
#[derive(Debug, Clone)]
pub(crate) struct BodyLimits {
    pub(crate) max_bytes: usize,
    pub(crate) timeout: Duration,
    pub(crate) budget: Budget,
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

fn declared(request: &HttpRequest) -> Option<usize> {
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
        return Err(BodyError::TooLarge { max });
    }
    let mut share = limits.budget.share();
    let arrived = {
        let mut arriving = pin!(collect(payload, declared.unwrap_or(0), max, &mut share));
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
    max: usize,
    share: &mut Share,
) -> Result<Bytes, BodyError> {
    let mut whole = Bytes::new();
    let mut pieces = BytesMut::new();
    while let Some(piece) = payload.next().await {
        let piece = piece.map_err(|_| BodyError::Incomplete)?;
        if whole.len() + pieces.len() + piece.len() > max {
            return Err(BodyError::TooLarge { max });
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
mod tests {
    use super::*;
    use actix_web::{FromRequest, test::TestRequest};
    use flate2::{
        Compression,
        write::{GzEncoder, ZlibEncoder},
    };
    use std::io::Write;

    fn limits(max_bytes: usize) -> BodyLimits {
        BodyLimits {
            max_bytes,
            timeout: Duration::from_secs(5),
            budget: Budget::new(64 * 1024 * 1024),
        }
    }

    fn gzip(body: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap()
    }

    async fn read_as(encoding: Option<&str>, body: Vec<u8>, limits: BodyLimits) -> Result<Bytes, BodyError> {
        let mut request = TestRequest::post().set_payload(body);
        if let Some(encoding) = encoding {
            request = request.insert_header((CONTENT_ENCODING, encoding));
        }
        let (request, mut payload) = request.to_http_parts();
        let mut payload = web::Payload::from_request(&request, &mut payload).await.unwrap();
        read(&request, &mut payload, &limits).await.map(|body| body.bytes)
    }

    #[actix_web::test]
    async fn a_body_at_the_bound_passes_and_one_byte_more_does_not() {
        assert_eq!(read_as(None, vec![7; 1_000], limits(1_000)).await.unwrap().len(), 1_000);
        assert_eq!(
            read_as(None, vec![7; 1_001], limits(1_000)).await,
            Err(BodyError::TooLarge { max: 1_000 })
        );
        assert_eq!(
            read_as(Some("gzip"), gzip(&[7; 1_000]), limits(1_000))
                .await
                .unwrap()
                .len(),
            1_000
        );
        assert_eq!(
            read_as(Some("gzip"), gzip(&[7; 1_001]), limits(1_000)).await,
            Err(BodyError::Bomb { max: 1_000 })
        );
    }

    #[actix_web::test]
    async fn encodings_are_unfolded_or_refused_by_name() {
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
        zlib.write_all(b"hello").unwrap();
        assert_eq!(
            read_as(Some("deflate"), zlib.finish().unwrap(), limits(1_000))
                .await
                .unwrap(),
            "hello"
        );
        assert_eq!(
            read_as(Some("GZIP"), gzip(b"hello"), limits(1_000)).await.unwrap(),
            "hello"
        );
        assert_eq!(
            read_as(Some("identity"), b"hello".to_vec(), limits(1_000))
                .await
                .unwrap(),
            "hello"
        );
        assert_eq!(
            read_as(Some("br"), b"x".to_vec(), limits(1_000)).await,
            Err(BodyError::Encoding("br".into()))
        );
        assert_eq!(
            read_as(Some("gzip"), b"hello".to_vec(), limits(1_000)).await,
            Err(BodyError::Corrupt("gzip"))
        );
        let zstd = zstd::encode_all(&b"hello"[..], 1).unwrap();
        assert_eq!(
            read_as(Some("zstd"), zstd.clone(), limits(1_000)).await.unwrap(),
            "hello"
        );
        for broken in [zstd[..zstd.len() - 1].to_vec(), b"hello".to_vec()] {
            assert_eq!(
                read_as(Some("zstd"), broken, limits(1_000)).await,
                Err(BodyError::Corrupt("zstd"))
            );
        }
        let mut cut = gzip(b"hello, hello, hello");
        cut.truncate(cut.len() - 5);
        assert_eq!(
            read_as(Some("gzip"), cut, limits(1_000)).await,
            Err(BodyError::Corrupt("gzip"))
        );
    }

    #[actix_web::test]
    async fn a_bomb_is_refused_by_its_ratio_long_before_the_bound() {
        let limits = limits(64 * 1024 * 1024);
        let bomb = gzip(&vec![0; 32 * 1024 * 1024]);
        assert!(bomb.len() > INLINE_BYTES, "the blocking pool is what is tested");
        let refused = read_as(Some("gzip"), bomb.clone(), limits).await;
        assert_eq!(
            refused,
            Err(BodyError::Bomb {
                max: bomb.len() * MAX_RATIO
            })
        );
    }

    #[actix_web::test]
    async fn zstd_has_the_bounds_of_the_others_and_one_on_how_far_it_looks_back() {
        let packed = |bytes: usize| zstd::encode_all(&vec![7; bytes][..], 1).unwrap();
        assert_eq!(
            read_as(Some("zstd"), packed(1_000), limits(1_000)).await.unwrap().len(),
            1_000
        );
        let refused = read_as(Some("zstd"), packed(1_001), limits(1_000)).await;
        assert_eq!(refused, Err(BodyError::Bomb { max: 1_000 }));
        let bomb = packed(32 * 1024 * 1024);
        let refused = read_as(Some("zstd"), bomb.clone(), limits(64 * 1024 * 1024)).await;
        let max = RATIO_FLOOR_BYTES.max(bomb.len() * MAX_RATIO);
        assert_eq!(refused, Err(BodyError::Bomb { max }));
        let far = |log: u32| {
            let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
            encoder.window_log(log).unwrap();
            encoder.write_all(&[7; 1_000]).unwrap();
            encoder.finish().unwrap()
        };
        assert!(
            read_as(Some("zstd"), far(MAX_ZSTD_WINDOW_LOG), limits(1_000))
                .await
                .is_ok()
        );
        let refused = read_as(Some("zstd"), far(MAX_ZSTD_WINDOW_LOG + 1), limits(1_000)).await;
        assert_eq!(refused, Err(BodyError::Corrupt("zstd")));
    }

    #[actix_web::test]
    async fn a_body_that_memory_has_no_room_for_is_refused_and_others_pass() {
        let limits = BodyLimits {
            budget: Budget::new(RATIO_FLOOR_BYTES),
            ..limits(1024 * 1024)
        };
        assert_eq!(
            read_as(Some("gzip"), gzip(&[7; 100]), limits.clone())
                .await
                .unwrap()
                .len(),
            100
        );
        let mut taken = limits.budget.share();
        assert!(taken.grow(1));
        assert_eq!(
            read_as(Some("gzip"), gzip(&[7; 100]), limits.clone()).await,
            Err(BodyError::NoRoom)
        );
        assert_eq!(read_as(None, vec![7; 100], limits.clone()).await.unwrap().len(), 100);
        drop(taken);
        assert!(read_as(Some("gzip"), gzip(&[7; 100]), limits).await.is_ok());
    }
}
