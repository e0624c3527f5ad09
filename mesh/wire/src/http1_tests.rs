//! A door that speaks HTTP/1.1 and nothing else, as its callers meet it.

use std::time::Instant;

use actix_web::{App, HttpResponse, middleware::from_fn, web};
use bytes::Bytes;
use futures::stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::{keep, pace::MAX_HEAD_BYTES};

const HEAD: Duration = Duration::from_millis(300);
const PATIENCE: Duration = Duration::from_secs(20);
const WHOLE: &str = "GET /whole HTTP/1.1\r\nhost: mesh\r\n";

/// A stream that says something four times in each time that a connection may be still, for ten times as long.
async fn events() -> HttpResponse {
    let events = stream::unfold(0, |count| async move {
        tokio::time::sleep(HEAD / 4).await;
        (count < 40).then(|| (Ok::<_, Error>(Bytes::from_static(b"event\n")), count + 1))
    });
    HttpResponse::Ok().streaming(events)
}

/// Asks a door whose connections may be still for as long as a head may take.
async fn at_door<O: Future<Output = ()>>(ask: impl FnOnce(SocketAddr, Telemetry) -> O) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, telemetry) = (listener.local_addr().unwrap(), Telemetry::local());
    let door = Http1Door {
        name: "test",
        workers: 1,
        max_connections: 64,
        bounds: Bounds {
            head: HEAD,
            still: HEAD,
        },
        grace: Duration::from_secs(1),
        tls: None,
    };
    let make = || {
        App::new()
            .wrap(from_fn(keep))
            .route("/whole", web::get().to(|| async { "whole" }))
            .route("/events", web::get().to(events))
    };
    let server = serve(door, listener, telemetry.clone(), make).unwrap();
    let handle = server.handle();
    let asked = async {
        ask(address, telemetry).await;
        handle.stop(true).await;
    };
    let (ended, ()) = futures::join!(server, asked);
    ended.unwrap();
}

async fn connect(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).await.unwrap()
}

/// All that is heard until the connection ends.
async fn heard(socket: &mut TcpStream) -> String {
    let mut heard = Vec::new();
    let ended = tokio::time::timeout(PATIENCE, socket.read_to_end(&mut heard)).await;
    let _ = ended.expect("not ended within 20 s");
    String::from_utf8(heard).unwrap()
}

/// Asks for what is whole, and reads the answer.
async fn works(socket: &mut TcpStream) {
    socket.write_all(format!("{WHOLE}\r\n").as_bytes()).await.unwrap();
    let mut heard = Vec::new();
    while !heard.ends_with(b"\r\n\r\nwhole") {
        let read = tokio::time::timeout(PATIENCE, socket.read_buf(&mut heard)).await;
        assert_ne!(read.expect("nothing within 20 s").unwrap(), 0, "{heard:?}");
    }
    assert!(heard.starts_with(b"HTTP/1.1 200 OK\r\n"));
}

fn refused(telemetry: &Telemetry, reason: &str) -> u64 {
    let text = telemetry.metrics().encode_prometheus().unwrap();
    let line = format!("mesh_refused_total{{reason=\"{reason}\"}} ");
    let count = text.lines().find_map(|text| text.strip_prefix(&line));
    count.map_or(0, |count| count.parse().unwrap())
}

#[actix_web::test]
async fn every_head_has_its_time() {
    at_door(async |address, telemetry| {
        for is_second in [false, true] {
            let mut socket = connect(address).await;
            if is_second {
                works(&mut socket).await;
            }
            let begun = Instant::now();
            socket.write_all(b"GET /whole HTTP/1.1\r\nx: ").await.unwrap();
            let heard = heard(&mut socket).await;
            assert!(heard.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{heard}");
            assert!(begun.elapsed() >= HEAD / 2);
        }
        assert_eq!(refused(&telemetry, "http1_slow_head"), 2);
        // Who says nothing hears nothing.
        let mut silent = connect(address).await;
        works(&mut silent).await;
        assert_eq!(heard(&mut silent).await, "");
        assert_eq!(refused(&telemetry, "http1_slow_head"), 2);
    })
    .await;
}

#[actix_web::test]
async fn every_head_has_so_many_bytes_and_no_more() {
    let with_head = |bytes: usize| {
        let rest = WHOLE.len() + "x: \r\n\r\n".len();
        format!("{WHOLE}x: {}\r\n\r\n", "x".repeat(bytes - rest))
    };
    at_door(async |address, telemetry| {
        for is_second in [false, true] {
            let (fits, long) = (with_head(MAX_HEAD_BYTES), with_head(MAX_HEAD_BYTES + 1));
            for (head, status) in [
                (fits, 200),
                (long.clone(), 431),
                (long.replace("\r\n\r\n", "xxxx"), 431),
            ] {
                let mut socket = connect(address).await;
                if is_second {
                    works(&mut socket).await;
                }
                socket.write_all(head.as_bytes()).await.unwrap();
                let heard = heard(&mut socket).await;
                assert!(heard.starts_with(&format!("HTTP/1.1 {status} ")), "{heard}");
                assert_eq!(heard.contains("connection: close"), status == 431, "{heard}");
            }
        }
        assert_eq!(refused(&telemetry, "http1_long_head"), 4);
    })
    .await;
}

#[actix_web::test]
async fn a_stream_of_events_is_not_ended() {
    at_door(async |address, _| {
        let mut socket = connect(address).await;
        works(&mut socket).await;
        let ask = "GET /events HTTP/1.1\r\nhost: mesh\r\nconnection: close\r\n\r\n";
        socket.write_all(ask.as_bytes()).await.unwrap();
        let heard = heard(&mut socket).await;
        assert_eq!(heard.matches("event\n").count(), 40, "{heard}");
    })
    .await;
}
