//! Answers packed as callers accept it: gzip, deflate (zlib) and zstd.
//!
//! Owns what `Accept-Encoding` says and the packing of predictions. Only answers from [`PACKED_FROM_BYTES`] on are packed, at
//! the fastest level, and large ones on a thread of the blocking pool; one that packing would not make smaller goes out as it is.
//! Unpacking of requests is [`crate::body`]'s.
//!
//! Invariants: who asks for nothing gets its answer as it is, and pays one look at its headers for that.

use std::io::{self, Write};

use actix_web::{
    HttpResponse,
    http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, HeaderMap, HeaderValue, VARY},
    web,
};
use bytes::Bytes;
use flate2::{
    Compression,
    write::{GzEncoder, ZlibEncoder},
};
use mesh_types::Fault;
use smallvec::SmallVec;

use crate::reply;

/// Smaller answers fit a packet or two: packing them would save nothing and cost time.
pub(crate) const PACKED_FROM_BYTES: usize = 2 * 1024;
/// Answers up to this size are packed in place.
const INLINE_BYTES: usize = 16 * 1024;
/// The level at which zstd is about as fast as the network.
const ZSTD_LEVEL: i32 = 1;

/// A body in pieces.
pub(crate) type Chunks = SmallVec<[Bytes; 2]>;

/// A way to pack, the preferred one first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packing {
    Zstd,
    Gzip,
    Deflate,
}

impl Packing {
    const ALL: [Self; 3] = [Self::Zstd, Self::Gzip, Self::Deflate];

    const fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
        }
    }
}

/// What a caller accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accepted {
    /// The answer as it is.
    Plain,
    /// Packed, or as it is.
    Packed(Packing),
    /// Packed and nothing else.
    OnlyPacked(Packing),
}

/// Reads what a request accepts; an error where it accepts nothing that there is.
pub(crate) fn accepted(headers: &HeaderMap) -> Result<Accepted, Fault> {
    if !headers.contains_key(ACCEPT_ENCODING) {
        return Ok(Accepted::Plain);
    }
    let (mut named, mut any, mut plain) = ([None; 3], None, None);
    let values = headers.get_all(ACCEPT_ENCODING).filter_map(|value| value.to_str().ok());
    for (name, weight) in values.flat_map(|value| value.split(',')).filter_map(element) {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        if is("*") {
            any = Some(weight);
        } else if is("identity") {
            plain = Some(weight);
        } else if is("gzip") || is("x-gzip") {
            named[1] = Some(weight);
        } else if is("zstd") {
            named[0] = Some(weight);
        } else if is("deflate") {
            named[2] = Some(weight);
        }
    }
    let weighed = Packing::ALL.into_iter().zip(named);
    let weighed = weighed.filter_map(|(packing, weight)| Some((packing, weight.or(any)?)));
    // The first of those that weigh most: they are in the order of our preference.
    let best = weighed
        .rev()
        .max_by_key(|(_, weight)| *weight)
        .filter(|(_, weight)| *weight > 0);
    match (best, plain.or(any.filter(|any| *any == 0))) {
        (Some((packing, _)), Some(0)) => Ok(Accepted::OnlyPacked(packing)),
        (None, Some(0)) => Err(Fault::invalid(
            "the header accept-encoding allows no answer: this server has identity, gzip, deflate and zstd",
        )),
        (Some((_, weight)), Some(plain)) if plain > weight => Ok(Accepted::Plain),
        (Some((packing, _)), _) => Ok(Accepted::Packed(packing)),
        (None, _) => Ok(Accepted::Plain),
    }
}

/// One element of the header: a name and its weight in thousandths; none where it is malformed.
fn element(text: &str) -> Option<(&str, u16)> {
    let mut parts = text.split(';').map(str::trim);
    let name = parts.next().filter(|name| !name.is_empty())?;
    let Some(parameter) = parts.next() else {
        return Some((name, 1000));
    };
    let weight = parameter.strip_prefix("q=").or_else(|| parameter.strip_prefix("Q="))?;
    let (whole, rest) = weight.split_once('.').unwrap_or((weight, ""));
    if rest.len() > 3 || !rest.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let thousandths: u16 = format!("{rest:0<3}").parse().ok()?;
    match (whole, thousandths) {
        ("0", thousandths) => Some((name, thousandths)),
        ("1", 0) => Some((name, 1000)),
        _ => None,
    }
}

/// A prediction as its caller accepts it.
///
/// The body is given in pieces, with how many bytes of it are JSON where not all are.
pub(crate) async fn answer(
    chunks: Chunks,
    json_bytes: Option<usize>,
    accepted: Accepted,
) -> Result<HttpResponse, Fault> {
    let bytes: usize = chunks.iter().map(Bytes::len).sum();
    let (packing, must) = match accepted {
        Accepted::OnlyPacked(packing) => (packing, true),
        Accepted::Packed(packing) if bytes >= PACKED_FROM_BYTES => (packing, false),
        Accepted::Packed(_) | Accepted::Plain => return Ok(reply::inference(json_bytes, chunks)),
    };
    let packed = if bytes <= INLINE_BYTES {
        pack(packing, &chunks)
    } else {
        let chunks = chunks.clone();
        let packed = web::block(move || pack(packing, &chunks)).await;
        packed.map_err(|_| Fault::internal("the answer could not be packed"))?
    };
    let packed = packed.map_err(|_| Fault::internal("the answer could not be packed"))?;
    if !must && packed.len() >= bytes {
        return Ok(reply::inference(json_bytes, chunks));
    }
    let mut response = reply::inference(json_bytes, Chunks::from_iter([Bytes::from(packed)]));
    let headers = response.headers_mut();
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static(packing.name()));
    headers.append(VARY, HeaderValue::from_static("accept-encoding"));
    Ok(response)
}

fn pack(packing: Packing, chunks: &[Bytes]) -> io::Result<Vec<u8>> {
    match packing {
        Packing::Gzip => {
            let mut packer = GzEncoder::new(Vec::new(), Compression::fast());
            chunks.iter().try_for_each(|chunk| packer.write_all(chunk))?;
            packer.finish()
        }
        Packing::Deflate => {
            let mut packer = ZlibEncoder::new(Vec::new(), Compression::fast());
            chunks.iter().try_for_each(|chunk| packer.write_all(chunk))?;
            packer.finish()
        }
        Packing::Zstd => {
            let mut packer = zstd::Encoder::new(Vec::new(), ZSTD_LEVEL)?;
            chunks.iter().try_for_each(|chunk| packer.write_all(chunk))?;
            packer.finish()
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(values: &[&str]) -> Result<Accepted, Fault> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(ACCEPT_ENCODING, HeaderValue::from_str(value).unwrap());
        }
        accepted(&headers)
    }

    #[test]
    fn who_says_nothing_gets_the_answer_as_it_is() {
        for values in [
            &[][..],
            &[""],
            &["identity"],
            &["br"],
            &["gzip;q=0"],
            &["gzip;q=0.5, identity"],
        ] {
            assert_eq!(of(values), Ok(Accepted::Plain), "{values:?}");
        }
    }

    #[test]
    fn what_weighs_most_is_taken_and_of_equals_what_packs_best() {
        for (values, packing) in [
            (&["gzip"][..], Packing::Gzip),
            (&["x-gzip"], Packing::Gzip),
            (&["GZIP, deflate"], Packing::Gzip),
            (&["gzip", "zstd"], Packing::Zstd),
            (&["deflate;q=0.9, gzip;q=0.8"], Packing::Deflate),
            (&["gzip;q=1.000,zstd;q=0.999"], Packing::Gzip),
            (&["*"], Packing::Zstd),
            (&["*;q=0.1, zstd;q=0"], Packing::Gzip),
            (&["gzip, identity;q=0.5"], Packing::Gzip),
            (&["br, gzip ; q=0.2"], Packing::Gzip),
        ] {
            assert_eq!(of(values), Ok(Accepted::Packed(packing)), "{values:?}");
        }
    }

    #[test]
    fn who_refuses_the_answer_as_it_is_gets_it_packed_or_an_error() {
        assert_eq!(of(&["gzip, identity;q=0"]), Ok(Accepted::OnlyPacked(Packing::Gzip)));
        assert_eq!(of(&["deflate, *;q=0"]), Ok(Accepted::OnlyPacked(Packing::Deflate)));
        for values in ["identity;q=0", "*;q=0", "br, identity;q=0.000"] {
            assert!(
                of(&[values]).unwrap_err().message.contains("accept-encoding"),
                "{values}"
            );
        }
    }

    #[test]
    fn malformed_elements_count_for_nothing() {
        for value in [
            "gzip;q=2",
            "gzip;q=1.5",
            "gzip;q=0.1234",
            "gzip;q=",
            "gzip;level=1",
            ";q=1",
            "gzip;q=-1",
        ] {
            assert_eq!(of(&[value]), Ok(Accepted::Plain), "{value}");
        }
    }

    proptest! {
        #[test]
        fn any_header_is_read(value in "[a-z*;=q0-9., ]{0,60}") {
            let _ = of(&[&value]);
        }
    }
}
