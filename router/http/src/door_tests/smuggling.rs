//! Requests of HTTP/1.1 that two readers could cut in two ways: refused, and the connection closed behind the refusal, so that
//! what follows is nobody's request.

use super::*;

/// A second request, behind the one that is refused; its answer would be 200.
const SECOND: &str = "GET /v2/health/live HTTP/1.1\r\nhost: mesh\r\n\r\n";

async fn is_refused_and_closed(bed: &Bed, hostile: &str) {
    let mut client = Client::new(bed).await;
    let reply = client.raw(format!("{hostile}{SECOND}").as_bytes()).await;
    assert!((400..500).contains(&reply.status), "{}: {hostile:?}", reply.status);
    let closed = async {
        // An unread rest may be answered with a reset, which is an end as well.
        while client
            .stream
            .read_buf(&mut client.buffer)
            .await
            .is_ok_and(|read| read > 0)
        {}
    };
    tokio::time::timeout(Duration::from_secs(20), closed)
        .await
        .expect("not closed within 20 s");
    assert!(
        client.buffer.is_empty(),
        "{hostile:?}: {:?}",
        String::from_utf8_lossy(&client.buffer)
    );
}

fn post(headers: &str, body: &str) -> String {
    format!("POST /v2/models/echo/infer HTTP/1.1\r\nhost: mesh\r\n{headers}\r\n{body}")
}

#[actix_web::test]
async fn rfc_9112_6_3_a_length_beside_chunks_is_refused() {
    let bed = bed();
    for headers in [
        "content-length: 5\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 5\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n",
    ] {
        is_refused_and_closed(&bed, &post(headers, "0\r\n\r\n")).await;
    }
}

#[actix_web::test]
async fn rfc_9112_6_3_two_lengths_and_lengths_that_are_none_are_refused() {
    let bed = bed();
    for headers in [
        "content-length: 5\r\ncontent-length: 6\r\n",
        "content-length: 5, 6\r\n",
        "content-length: +5\r\n",
        "content-length: -5\r\n",
        "content-length: 5 5\r\n",
        "content-length: 0x5\r\n",
        "content-length: five\r\n",
        "content-length: 99999999999999999999999\r\n",
    ] {
        is_refused_and_closed(&bed, &post(headers, "hello")).await;
    }
}

#[actix_web::test]
async fn rfc_9112_6_1_codings_that_do_not_end_in_chunked_are_refused() {
    let bed = bed();
    for headers in [
        "transfer-encoding: identity, chunked, identity\r\n",
        "transfer-encoding: chunked, gzip\r\n",
        "transfer-encoding: xchunked\r\n",
        "transfer-encoding: \"chunked\"\r\n",
        "transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n",
    ] {
        is_refused_and_closed(&bed, &post(headers, "0\r\n\r\n")).await;
    }
}

#[actix_web::test]
async fn rfc_9112_5_1_space_before_a_colon_is_refused() {
    let bed = bed();
    for headers in [
        "content-length : 5\r\n",
        "transfer-encoding\t: chunked\r\n",
        "x y: 1\r\n",
    ] {
        is_refused_and_closed(&bed, &post(headers, "hello")).await;
    }
}

#[actix_web::test]
async fn rfc_9112_5_2_folded_lines_are_refused() {
    let bed = bed();
    for headers in [
        "x-a: 1\r\n content-length: 5\r\n",
        "x-a: 1\r\n\tb\r\n",
        " content-length: 5\r\n",
    ] {
        is_refused_and_closed(&bed, &post(headers, "hello")).await;
    }
}

#[actix_web::test]
async fn rfc_9112_7_1_chunks_that_are_none_are_refused() {
    let bed = bed();
    for body in [
        "5\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "5\r\nhelloXX0\r\n\r\n",
        "\r\n0\r\n\r\n",
    ] {
        is_refused_and_closed(&bed, &post("transfer-encoding: chunked\r\n", body)).await;
    }
}

#[actix_web::test]
async fn rfc_9112_2_2_a_carriage_return_alone_ends_nothing() {
    let bed = bed();
    for hostile in [
        "GET /v2 HTTP/1.1\r\nhost: mesh\rx-a: 1\r\n\r\n".to_owned(),
        "GET /v2\r HTTP/1.1\r\nhost: mesh\r\n\r\n".to_owned(),
        post("x-a: a\0b\r\n", ""),
    ] {
        is_refused_and_closed(&bed, &hostile).await;
    }
}

#[actix_web::test]
async fn rfc_9112_2_2_a_line_feed_alone_ends_no_line() {
    let bed = bed();
    let chunked = "transfer-encoding: chunked\r\n";
    let hostile = [
        "GET /v2 HTTP/1.1\nhost: mesh\r\n\r\n".to_owned(),
        "GET /v2 HTTP/1.1\r\nhost: mesh\n\r\n".to_owned(),
        "GET /v2 HTTP/1.1\r\nhost: mesh\r\n\n".to_owned(),
        "GET /v2 HTTP/1.1\nhost: mesh\n\n".to_owned(),
        "\nGET /v2 HTTP/1.1\r\nhost: mesh\r\n\r\n".to_owned(),
        post("x-a: 1\ncontent-length: 5\r\n", "hello"),
        post("content-length: 5\nx-a: 1\r\n", "hello"),
        post("x-a: 1\ntransfer-encoding: chunked\r\n", "0\r\n\r\n"),
        post(chunked, "5\nhello\r\n0\r\n\r\n"),
        post(chunked, "5;a=b\nhello\r\n0\r\n\r\n"),
        post(chunked, "5\r\nhello\n0\r\n\r\n"),
        post(chunked, "5\r\nhello\r\n0\n\r\n"),
        post(chunked, "5\r\nhello\r\n0\r\n\n"),
        post(chunked, "5\r\nhello\r\n0\r\nx: y\n\r\n"),
        post(chunked, "5\r\nhello\r\n0\r\nx: y\r\n\n"),
    ];
    for hostile in &hostile {
        is_refused_and_closed(&bed, hostile).await;
    }
    // Behind a request with a body that holds some, on a connection that is used again.
    let mut client = Client::new(&bed).await;
    let length = GOOD.len() + 4;
    let authorized = format!("authorization: Bearer {}\r\ncontent-length: {length}\r\n", client.key);
    let good = post(&authorized, &format!("\n\n{GOOD}\n\n"));
    for _ in 0..2 {
        let answer = client.raw(good.as_bytes()).await;
        assert_eq!(answer.status, 200, "{:?}", answer.body);
    }
    assert_eq!(client.raw(b"GET /v2 HTTP/1.1\n").await.status, 400);
    client.is_closed().await;
    // Together with it, the connection ends, whether the former is answered or not.
    let mut client = Client::new(&bed).await;
    let all = format!("{good}GET /v2 HTTP/1.1\r\nhost: mesh\n\r\n{SECOND}");
    client.stream.write_all(all.as_bytes()).await.unwrap();
    let mut heard = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(20), client.stream.read_to_end(&mut heard)).await;
    assert!(ended.is_ok(), "not closed within 20 s");
    let heard = String::from_utf8(heard).unwrap();
    assert!(heard.matches("HTTP/1.1 200").count() <= 1, "{heard}");
    let text = bed.telemetry.metrics().encode_prometheus().unwrap();
    assert!(
        text.contains("mesh_refused_total{reason=\"http1_bare_line_feed\"}"),
        "{text}"
    );
}

#[actix_web::test]
async fn rfc_9112_3_2_hosts_are_one() {
    let bed = bed();
    for hostile in [
        "GET /v2 HTTP/1.1\r\n\r\n",
        "GET /v2 HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
    ] {
        is_refused_and_closed(&bed, hostile).await;
    }
}

#[actix_web::test]
async fn an_upgrade_to_http_2_is_not_taken_up_and_the_request_is_answered() {
    let bed = bed();
    let mut client = Client::new(&bed).await;
    let upgrade = "GET /v2 HTTP/1.1\r\nhost: mesh\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n\r\n";
    let reply = client.raw(upgrade.as_bytes()).await;
    assert_eq!((reply.status, reply.header("upgrade")), (200, None));
}

const UPGRADE: &str = "connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n";
/// How HTTP/2 begins, and an empty SETTINGS frame.
const HTTP_2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

#[actix_web::test]
async fn an_upgrade_to_http_2_hides_no_request() {
    let bed = bed();
    // With a body it is one request of HTTP/1.1, and what follows is the next.
    let mut client = Client::new(&bed).await;
    let first = client.post_bytes("/v2/models/echo/infer", UPGRADE, GOOD.as_bytes());
    let reply = client.raw(&[&first[..], SECOND.as_bytes()].concat()).await;
    assert_eq!((reply.status, reply.header("upgrade")), (200, None));
    let second = client.reply().await;
    assert_eq!((second.status, &second.body[..]), (200, &br#"{"live":true}"#[..]));
    client.works().await;
    // Who goes on as if it had been taken up, as a proxy may have been led to believe, is refused: no frame is read.
    for path in ["/v2/health/live", "/v2"] {
        let begin = format!("GET {path} HTTP/1.1\r\nhost: mesh\r\n{UPGRADE}\r\n");
        let mut client = Client::new(&bed).await;
        let reply = client
            .raw(&[begin.as_bytes(), HTTP_2, SECOND.as_bytes()].concat())
            .await;
        assert_eq!((reply.status, reply.header("upgrade")), (200, None));
        let refused = client.reply().await;
        assert!((400..500).contains(&refused.status), "{}", refused.status);
        let rest = async {
            while client
                .stream
                .read_buf(&mut client.buffer)
                .await
                .is_ok_and(|read| read > 0)
            {}
        };
        tokio::time::timeout(Duration::from_secs(20), rest)
            .await
            .expect("not closed within 20 s");
        assert!(
            client.buffer.is_empty(),
            "{:?}",
            String::from_utf8_lossy(&client.buffer)
        );
    }
    // Two readers that do not agree on the upgrade agree on the lengths.
    for headers in [
        "content-length: 5\r\ntransfer-encoding: chunked\r\n",
        "content-length: 5\r\ncontent-length: 6\r\n",
    ] {
        is_refused_and_closed(&bed, &post(&format!("{UPGRADE}{headers}"), "0\r\n\r\n")).await;
    }
}
