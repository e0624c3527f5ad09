//! What the door does beside plain predictions: generate, as one object and as events.

use super::*;
use crate::packing::PACKED_FROM_BYTES;

const GENERATE: &[u8] = br#"{"id":"7","INPUT0":[1,-2],"temperature":0.5}"#;

#[actix_web::test]
async fn generate_maps_keys_to_inputs_and_outputs_to_keys() {
    let bed = bed();
    let mut client = Client::new(&bed).await;
    for path in ["/v2/models/split/generate", "/v2/models/split/versions/1/generate"] {
        let reply = client.post(path, "", GENERATE).await;
        assert_eq!(reply.status, 200, "{:?}", reply.body);
        let right = serde_json::json!({"id": "7", "model_name": "split", "model_version": "1", "OUTPUT0": [1, -2]});
        assert_eq!(reply.json(), right);
        assert_eq!(reply.header("content-type"), Some("application/json"));
        assert_eq!(reply.header("x-mesh-version"), Some("1"));
    }
    let one = client.post("/v2/models/echo/generate", "", br#"{"INPUT0":5}"#).await;
    assert_eq!(one.json()["OUTPUT0"], 5);
}

#[actix_web::test]
async fn generate_stream_answers_with_events() {
    let bed = bed();
    let mut client = Client::new(&bed).await;
    let reply = client.post("/v2/models/echo/generate_stream", "", GENERATE).await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("content-type"), Some("text/event-stream; charset=utf-8"));
    assert_eq!(reply.header("cache-control"), Some("no-cache"));
    let text = std::str::from_utf8(&reply.body).unwrap();
    let event = text
        .strip_prefix("data: ")
        .and_then(|rest| rest.strip_suffix("\n\n"))
        .unwrap();
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(event).unwrap()["OUTPUT0"],
        serde_json::json!([1, -2])
    );
    client.works().await;
}

#[actix_web::test]
async fn what_goes_wrong_before_the_first_response_is_the_status() {
    let bed = bed();
    let mut client = Client::new(&bed).await;
    for kind in ["generate", "generate_stream"] {
        for (model, body, status, text) in [
            ("none", "{}", 404, "Request for unknown model"),
            ("full", r#"{"INPUT0":1}"#, 503, "Exceeds maximum queue size"),
            ("echo", "{}", 400, "expected 1 inputs but got 0 inputs"),
            ("echo", r#"{"INPUT0":"x"}"#, 400, "a string is not a whole number"),
            ("echo", r#"{"INPUT0":1,"other":[1]}"#, 400, "'other' is neither"),
            ("echo", "{", 400, "EOF"),
        ] {
            let reply = client
                .post(&format!("/v2/models/{model}/{kind}"), "", body.as_bytes())
                .await;
            assert_eq!(reply.status, status, "{model} {body}: {:?}", reply.body);
            assert!(reply.error().contains(text), "{}", reply.error());
            assert_eq!(reply.header("content-type"), Some("application/json"));
        }
        let reply = client.get(&format!("/v2/models/echo/{kind}")).await;
        assert_eq!((reply.status, reply.header("allow")), (405, Some("POST")));
        let binary = "inference-header-content-length: 2\r\n";
        let reply = client.post(&format!("/v2/models/echo/{kind}"), binary, b"{}").await;
        assert_eq!(reply.status, 400);
        let head = format!("POST /v2/models/echo/{kind} HTTP/1.1\r\nhost: mesh\r\ncontent-length: 2\r\n\r\n{{}}");
        assert_eq!(client.raw(head.as_bytes()).await.status, 401);
    }
    client.works().await;
}

#[actix_web::test]
async fn a_caller_that_leaves_a_stream_cancels_its_call() {
    let bed = bed();
    let mut client = Client::new(&bed).await;
    let bytes = client.post_bytes("/v2/models/never/generate_stream", "", GENERATE);
    client.stream.write_all(&bytes).await.unwrap();
    bed.workers
        .waiting
        .subscribe()
        .wait_for(|waiting| *waiting == 1)
        .await
        .unwrap();
    drop(client);
    let mut cancelled = bed.workers.cancelled.subscribe();
    let gone = tokio::time::timeout(Duration::from_secs(20), cancelled.wait_for(|count| *count == 1)).await;
    assert!(gone.expect("not cancelled within 20 s").is_ok());
}

#[actix_web::test]
async fn requests_sent_at_once_are_answered_in_their_order_on_one_connection() {
    let bed = bed();
    let mut client = Client::new(&bed).await;
    let body = |number: usize| GOOD.replace(r#""id":"7""#, &format!(r#""id":"{number}""#));
    let all: Vec<u8> = (0..20)
        .flat_map(|number| client.post_bytes("/v2/models/echo/infer", "", body(number).as_bytes()))
        .collect();
    client.stream.write_all(&all).await.unwrap();
    for number in 0..20 {
        let reply = client.reply().await;
        assert_eq!(
            (reply.status, &reply.json()["id"]),
            (200, &serde_json::json!(number.to_string()))
        );
    }
    client.works().await;
}

#[actix_web::test]
async fn pages_of_allowed_origins_may_call_and_read_the_answer() {
    let bed = bed_with(TenantLimits::default(), |config| {
        config.cors = Some("https://a.example,https://b.example".parse().unwrap());
    });
    let mut client = Client::new(&bed).await;
    let preflight = |origin: &str| {
        format!(
            "OPTIONS /v2/models/echo/infer HTTP/1.1\r\nhost: mesh\r\norigin: {origin}\r\n\
             access-control-request-method: POST\r\naccess-control-request-headers: authorization, content-type\r\n\r\n"
        )
    };
    let reply = client.raw(preflight("https://b.example").as_bytes()).await;
    assert_eq!((reply.status, reply.body.len()), (204, 0));
    assert_eq!(reply.header("access-control-allow-origin"), Some("https://b.example"));
    assert_eq!(reply.header("access-control-allow-methods"), Some("GET, POST"));
    assert_eq!(
        reply.header("access-control-allow-headers"),
        Some("authorization, content-type")
    );
    assert_eq!(reply.header("access-control-allow-credentials"), None);
    assert_eq!(reply.header("vary"), Some("origin"));
    let refused = client.raw(preflight("https://evil.example").as_bytes()).await;
    assert_eq!(
        (refused.status, refused.header("access-control-allow-origin")),
        (403, None)
    );
    let told = client
        .post(
            "/v2/models/echo/infer",
            "origin: https://a.example\r\n",
            GOOD.as_bytes(),
        )
        .await;
    assert_eq!(told.status, 200);
    assert_eq!(told.header("access-control-allow-origin"), Some("https://a.example"));
    assert!(
        told.header("access-control-expose-headers")
            .unwrap()
            .contains("inference-header-content-length")
    );
    let error = client
        .post(
            "/v2/models/none/infer",
            "origin: https://a.example\r\n",
            GOOD.as_bytes(),
        )
        .await;
    assert_eq!(
        (error.status, error.header("access-control-allow-origin")),
        (404, Some("https://a.example"))
    );
    let other = client
        .post(
            "/v2/models/echo/infer",
            "origin: https://evil.example\r\n",
            GOOD.as_bytes(),
        )
        .await;
    assert_eq!((other.status, other.header("access-control-allow-origin")), (200, None));
    assert_eq!(other.header("vary"), Some("origin"));
    // What is no preflight is a verb that there is not.
    let plain = client
        .raw(b"OPTIONS /v2 HTTP/1.1\r\nhost: mesh\r\norigin: https://a.example\r\n\r\n")
        .await;
    assert_eq!(plain.status, 405);
}

#[actix_web::test]
async fn without_origins_no_answer_speaks_of_them_and_with_all_each_is_told_so() {
    let bed = bed();
    let mut client = Client::new(&bed).await;
    let preflight = b"OPTIONS /v2/models/echo/infer HTTP/1.1\r\nhost: mesh\r\norigin: https://a.example\r\n\
        access-control-request-method: POST\r\n\r\n";
    assert_eq!(client.raw(preflight).await.status, 405);
    let reply = client
        .post(
            "/v2/models/echo/infer",
            "origin: https://a.example\r\n",
            GOOD.as_bytes(),
        )
        .await;
    assert_eq!(
        (reply.header("access-control-allow-origin"), reply.header("vary")),
        (None, None)
    );
    let bed = bed_with(TenantLimits::default(), |config| {
        config.cors = Some("*".parse().unwrap());
    });
    let mut client = Client::new(&bed).await;
    assert_eq!(
        client.raw(preflight).await.header("access-control-allow-origin"),
        Some("*")
    );
    let reply = client
        .post(
            "/v2/models/echo/infer",
            "origin: https://a.example\r\n",
            GOOD.as_bytes(),
        )
        .await;
    assert_eq!(
        (reply.header("access-control-allow-origin"), reply.header("vary")),
        (Some("*"), None)
    );
}

fn unpacked(name: &str, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let read = match name {
        "gzip" => std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(body), &mut out),
        "deflate" => std::io::Read::read_to_end(&mut flate2::read::ZlibDecoder::new(body), &mut out),
        _ => std::io::Read::read_to_end(&mut zstd::Decoder::new(body).unwrap(), &mut out),
    };
    read.unwrap();
    out
}

#[actix_web::test]
async fn a_body_that_comes_packed_is_predicted_as_the_same_one_unpacked() {
    let bed = bed();
    let mut client = Client::new(&bed).await;
    let plain = client.post("/v2/models/echo/infer", "", GOOD.as_bytes()).await;
    assert_eq!(plain.status, 200);
    let zstd = zstd::encode_all(GOOD.as_bytes(), 1).unwrap();
    let packed = "content-encoding: zstd\r\n";
    let reply = client.post("/v2/models/echo/infer", packed, &zstd).await;
    assert_eq!((reply.status, &reply.body), (200, &plain.body));
    let cut = client
        .post("/v2/models/echo/infer", packed, &zstd[..zstd.len() - 1])
        .await;
    assert_eq!(cut.status, 400);
}

#[actix_web::test]
async fn answers_are_packed_as_they_are_accepted_from_a_size_on() {
    let bed = bed();
    let mut client = Client::new(&bed).await;
    // An answer of 32 KiB of numbers, in JSON and behind it.
    let numbers = vec!["7"; 8_192].join(",");
    let body = |binary: bool| {
        format!(
            r#"{{"inputs":[{{"name":"INPUT0","datatype":"INT32","shape":[1,8192],"data":[{numbers}]}}],
                "parameters":{{"binary_data_output":{binary}}}}}"#
        )
    };
    for binary in [false, true] {
        let plain = client.post("/v2/models/echo/infer", "", body(binary).as_bytes()).await;
        assert_eq!(
            (plain.status, plain.header("content-encoding"), plain.header("vary")),
            (200, None, None)
        );
        for name in ["gzip", "deflate", "zstd"] {
            let accept = format!("accept-encoding: {name}\r\n");
            let reply = client
                .post("/v2/models/echo/infer", &accept, body(binary).as_bytes())
                .await;
            assert_eq!((reply.status, reply.header("content-encoding")), (200, Some(name)));
            assert_eq!(reply.header("vary"), Some("accept-encoding"));
            assert!(reply.body.len() < plain.body.len() / 4, "{} bytes", reply.body.len());
            assert_eq!(unpacked(name, &reply.body), plain.body);
            let json_bytes = "inference-header-content-length";
            assert_eq!(reply.header(json_bytes), plain.header(json_bytes));
        }
        let reply = client
            .post(
                "/v2/models/echo/infer",
                "accept-encoding: br\r\n",
                body(binary).as_bytes(),
            )
            .await;
        assert_eq!((reply.header("content-encoding"), &reply.body), (None, &plain.body));
    }
    let gzip = "accept-encoding: gzip\r\n";
    let generate = format!(r#"{{"INPUT0":[{numbers}]}}"#);
    let reply = client.post("/v2/models/echo/generate", gzip, generate.as_bytes()).await;
    assert_eq!((reply.status, reply.header("content-encoding")), (200, Some("gzip")));
    let object: serde_json::Value = serde_json::from_slice(&unpacked("gzip", &reply.body)).unwrap();
    assert_eq!(object["OUTPUT0"].as_array().unwrap().len(), 8_192);
    let small = client.post("/v2/models/echo/infer", gzip, GOOD.as_bytes()).await;
    assert_eq!((small.status, small.header("content-encoding")), (200, None));
    let only = "accept-encoding: gzip, identity;q=0\r\n";
    let small = client.post("/v2/models/echo/infer", only, GOOD.as_bytes()).await;
    assert_eq!(small.header("content-encoding"), Some("gzip"));
    assert_eq!(
        serde_json::from_slice::<serde_json::Value>(&unpacked("gzip", &small.body)).unwrap()["id"],
        "7"
    );
    let none = client
        .post(
            "/v2/models/echo/infer",
            "accept-encoding: identity;q=0\r\n",
            GOOD.as_bytes(),
        )
        .await;
    assert_eq!(none.status, 400);
    client.works().await;
}

#[actix_web::test]
async fn an_answer_is_packed_from_the_threshold_on_and_not_a_byte_below() {
    let bed = bed();
    let mut client = Client::new(&bed).await;
    // The id pads the answer to any size.
    let body = |padding: usize| GOOD.replace(r#""id":"7""#, &format!(r#""id":"{}""#, "7".repeat(padding)));
    let body = |padding: usize| {
        let values = vec!["1"; 700].join(",");
        body(padding)
            .replace("[1,2]", "[1,700]")
            .replace("[1,-2]", &format!("[{values}]"))
    };
    let first = client.post("/v2/models/echo/infer", "", body(1).as_bytes()).await;
    let padding = PACKED_FROM_BYTES - first.body.len() + 1;
    for (padding, packed) in [(padding - 1, None), (padding, Some("zstd"))] {
        let reply = client
            .post(
                "/v2/models/echo/infer",
                "accept-encoding: *\r\n",
                body(padding).as_bytes(),
            )
            .await;
        assert_eq!(
            (reply.status, reply.header("content-encoding")),
            (200, packed),
            "{:?}",
            reply.body
        );
    }
}
