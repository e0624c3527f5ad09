//! The load generator against the empty handler, and against servers that misbehave.

use std::{num::NonZeroUsize, time::Duration};

use bytes::Bytes;
use mesh_load::{Floor, Load, MAX_CONCURRENCY, RequestParts, request_bytes, run};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

fn load(address: std::net::SocketAddr, concurrency: usize) -> Load {
    let request = request_bytes(&RequestParts {
        method: "POST",
        path: "/x",
        host: "h",
        headers: &[],
        body: &[7; 10_000],
    });
    Load {
        address,
        requests: vec![request],
        concurrency,
        warm_up: Duration::ZERO,
        duration: Duration::from_secs(30),
        max_requests: Some(200),
    }
}

#[test]
fn the_floor_answers_every_request_with_as_many_bytes_as_it_was_told_to() {
    actix_web::rt::System::new().block_on(async {
        let floor = Floor::start("127.0.0.1:0".parse().unwrap(), NonZeroUsize::MIN, 5_000).unwrap();
        let handle = floor.server.handle();
        let (served, outcome) = tokio::join!(floor.server, async {
            let outcome = run(&load(floor.address, 7)).await;
            handle.stop(false).await;
            outcome
        });
        served.unwrap();
        let outcome = outcome.unwrap();
        let summary = outcome.summary();
        assert_eq!((summary.ok, summary.not_ok, summary.broken), (200, 0, 0));
        assert_eq!(summary.answer_bytes, 5_000);
        assert!(
            summary.requests_per_second > 0.0 && summary.p50_us <= summary.p99_us,
            "{summary:?}"
        );
    });
}

/// A server that answers the n-th connection with the n-th text, whatever it is asked, and then closes it.
async fn scripted(listener: TcpListener, answers: &[&[u8]]) -> std::io::Result<()> {
    for answer in answers {
        let (mut stream, _) = listener.accept().await?;
        let mut buffer = vec![0; 20_000];
        let mut read = 0;
        while read < 10_000 {
            read += stream.read(&mut buffer[read..]).await?;
        }
        stream.write_all(answer).await?;
    }
    Ok(())
}

#[tokio::test]
async fn other_statuses_and_broken_connections_are_counted_apart() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut load = load(listener.local_addr().unwrap(), 1);
    load.max_requests = Some(2);
    let answers: [&[u8]; 3] = [
        b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nwhole",
    ];
    let (outcome, scripted) = tokio::join!(run(&load), scripted(listener, &answers));
    scripted.unwrap();
    let summary = outcome.unwrap().summary();
    // The first connection was closed after its answer: the next request on it broke as well as the cut answer.
    assert_eq!((summary.ok, summary.not_ok, summary.broken), (1, 1, 2), "{summary:?}");
}

#[tokio::test]
async fn bounds_are_checked_before_anything_is_sent() {
    let mut load = load("127.0.0.1:9".parse().unwrap(), MAX_CONCURRENCY + 1);
    assert!(run(&load).await.unwrap_err().to_string().contains("concurrency"));
    load.concurrency = 0;
    assert!(run(&load).await.unwrap_err().to_string().contains("concurrency"));
    load.concurrency = 1;
    load.requests = Vec::<Bytes>::new();
    assert!(run(&load).await.unwrap_err().to_string().contains("no request"));
}
