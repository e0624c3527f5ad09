//! Bodies at their bounds, in every encoding, and what is broken.

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
        of: BoundOf::Server,
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
        Err(limits(1_000).too_large())
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
async fn a_models_bound_counts_where_it_is_below_the_servers() {
    let of_model = |bound: u64| limits(1_000).of_model(bound);
    let too_large = |max| {
        Err(BodyError::TooLarge {
            max,
            of: BoundOf::Model,
        })
    };
    assert_eq!(read_as(None, vec![7; 10], of_model(10)).await.unwrap().len(), 10);
    assert_eq!(read_as(None, vec![7; 11], of_model(10)).await, too_large(10));
    assert!(
        read_as(None, vec![7; 11], of_model(10))
            .await
            .unwrap_err()
            .to_string()
            .ends_with("that this model takes")
    );
    // What it unfolds to counts.
    assert_eq!(
        read_as(Some("gzip"), gzip(&[7; 500]), of_model(500))
            .await
            .unwrap()
            .len(),
        500
    );
    assert!(read_as(Some("gzip"), gzip(&[7; 501]), of_model(500)).await.is_err());
    for bound in [1_000, 1_001, u64::MAX] {
        assert_eq!(
            read_as(None, vec![7; 1_001], of_model(bound)).await,
            Err(limits(1_000).too_large())
        );
    }
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
