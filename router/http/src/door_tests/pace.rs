//! What a caller of HTTP/1.1 may take its time for, and what its heads may come to.

use std::time::Instant;

use super::*;
use mesh_wire::MAX_HEAD_BYTES;

const HEAD: Duration = Duration::from_millis(300);
const LIVE: &str = "GET /v2/health/live HTTP/1.1\r\nhost: mesh\r\n";

fn paced(head: Duration, keep_alive: Duration) -> Bed {
    bed_with(TenantLimits::default(), |config| {
        config.head_timeout = head;
        config.keep_alive = keep_alive;
    })
}

/// Says this byte by byte, and takes what is answered.
async fn drip(client: Client, head: &str) -> (String, Duration) {
    let begun = Instant::now();
    let (mut read, mut write) = client.stream.into_split();
    let say = async {
        for byte in head.as_bytes().iter().cycle() {
            if write.write_all(&[*byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(HEAD / 20).await;
        }
    };
    let mut heard = client.buffer;
    let hear = async {
        let _ = read.read_to_end(&mut heard).await;
    };
    tokio::select! {
        () = say => {}
        () = hear => {}
        () = tokio::time::sleep(Duration::from_secs(20)) => panic!("not ended within 20 s"),
    }
    (String::from_utf8(heard).unwrap(), begun.elapsed())
}

#[actix_web::test]
async fn a_head_is_whole_in_time_be_it_a_connections_first_or_not() {
    let bed = paced(HEAD, Duration::from_secs(60));
    // Without an end, and with one byte at a time it never comes to one.
    let endless = "GET /v2 HTTP/1.1\r\nhost: mesh\r\nx: ";
    let mut requests = Vec::new();
    requests.push((Client::new(&bed).await, endless));
    let mut second = Client::new(&bed).await;
    second.works().await;
    requests.push((second, endless));
    let mut behind = Client::new(&bed).await;
    // A whole one with the beginning of the next.
    assert_eq!(behind.raw(format!("{LIVE}\r\nGET /v2").as_bytes()).await.status, 200);
    requests.push((behind, &endless["GET /v2".len()..]));
    for (client, head) in requests {
        let (heard, after) = drip(client, head).await;
        assert!(heard.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{heard}");
        assert!(
            heard.ends_with(r#"{"error":"the head of the request took too long"}"#),
            "{heard}"
        );
        assert!(after >= HEAD, "{after:?}");
    }
    assert_eq!(refused(&bed, "http1_slow_head"), 3);
    Client::new(&bed).await.works().await;
}

fn refused(bed: &Bed, reason: &str) -> u64 {
    let text = bed.telemetry.metrics().encode_prometheus().unwrap();
    let line = format!("mesh_refused_total{{reason=\"{reason}\"}} ");
    let count = text.lines().find_map(|text| text.strip_prefix(&line));
    count.map_or(0, |count| count.parse().unwrap())
}

#[actix_web::test]
async fn a_beginning_left_alone_ends_too() {
    let bed = paced(HEAD, HEAD);
    let mut client = Client::new(&bed).await;
    assert_eq!(client.raw(format!("{LIVE}\r\nGET /v2").as_bytes()).await.status, 200);
    client.is_closed().await;
}

#[actix_web::test]
async fn an_idle_connection_ends_without_a_word_and_one_in_use_does_not() {
    let bed = paced(Duration::from_secs(60), HEAD);
    let mut client = Client::new(&bed).await;
    for _ in 0..8 {
        client.works().await;
        tokio::time::sleep(HEAD / 4).await;
    }
    client.is_closed().await;
    assert_eq!(refused(&bed, "http1_slow_head"), 0);
}

#[actix_web::test]
async fn a_request_under_way_is_not_cut_off() {
    let bed = paced(HEAD / 10, HEAD / 10);
    let mut client = Client::new(&bed).await;
    let late = client
        .post(
            "/v2/models/never/infer",
            "x-request-timeout-ms: 1000\r\n",
            GOOD.as_bytes(),
        )
        .await;
    assert_eq!(late.status, 504, "{:?}", late.body);
}

/// A request whose head has so many bytes.
fn with_head(bytes: usize) -> String {
    let rest = LIVE.len() + "x: \r\n\r\n".len();
    let head = format!("{LIVE}x: {}\r\n\r\n", "x".repeat(bytes - rest));
    assert_eq!(head.len(), bytes);
    head
}

#[actix_web::test]
async fn a_head_has_so_many_bytes_and_no_more() {
    let bed = bed();
    let mut client = Client::new(&bed).await;
    for _ in 0..2 {
        assert_eq!(client.raw(with_head(MAX_HEAD_BYTES).as_bytes()).await.status, 200);
    }
    // A body is no head, and neither are many requests at once.
    let large = format!("{}{GOOD}", " ".repeat(2 * MAX_HEAD_BYTES));
    let reply = client.post("/v2/models/echo/infer", "", large.as_bytes()).await;
    assert_eq!(reply.status, 200, "{:?}", reply.body);
    let many = format!("{LIVE}\r\n").repeat(MAX_HEAD_BYTES / LIVE.len() + 1);
    client.stream.write_all(many.as_bytes()).await.unwrap();
    for _ in 0..=MAX_HEAD_BYTES / LIVE.len() {
        assert_eq!(client.reply().await.status, 200);
    }
    // One more, whole or not, as the first and as a later one.
    let long = with_head(MAX_HEAD_BYTES + 1);
    let told = format!("the head of the request has more than {MAX_HEAD_BYTES} bytes");
    let unfinished = format!("{LIVE}x: {}", "x".repeat(MAX_HEAD_BYTES));
    for (count, head) in [&long, &unfinished].into_iter().enumerate() {
        for used in [false, true] {
            let mut client = Client::new(&bed).await;
            if used {
                client.works().await;
            }
            let reply = client.raw(head.as_bytes()).await;
            assert_eq!(
                (reply.status, reply.header("connection")),
                (431, Some("close")),
                "{count} {used}"
            );
            assert_eq!(reply.json()["error"], told.as_str());
            client.is_closed().await;
        }
    }
    assert_eq!(refused(&bed, "http1_long_head"), 4);
}
