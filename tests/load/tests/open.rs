//! The open loop against the empty handler, and against servers that stall or misbehave.

use std::{num::NonZeroUsize, time::Duration};

use mesh_load::{
    Arrivals, Floor, MAX_CONCURRENCY, OpenLoad, OpenSummary, RequestParts, Spread, request_bytes, run_open,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

fn even(rate: f64) -> Option<Arrivals> {
    Arrivals::new(Spread::Even, rate, 1)
}

fn load(address: std::net::SocketAddr, arrivals: Arrivals, seconds: f64) -> OpenLoad {
    let request = request_bytes(&RequestParts {
        method: "POST",
        path: "/x",
        host: "h",
        headers: &[],
        body: b"1234567890",
    });
    OpenLoad {
        address,
        requests: vec![request],
        arrivals,
        connections: 8,
        warm_up: Duration::ZERO,
        duration: Duration::from_secs_f64(seconds),
        within: Duration::from_secs(60),
    }
}

#[test]
fn everything_that_was_due_is_sent_once_and_answered() {
    let summary: OpenSummary = actix_web::rt::System::new().block_on(async {
        let floor = Floor::start("127.0.0.1:0".parse().unwrap(), NonZeroUsize::MIN, 5_000).unwrap();
        let handle = floor.server.handle();
        let (served, outcome) = tokio::join!(floor.server, async {
            let outcome = run_open(&load(floor.address, even(1_000.0).unwrap(), 0.25)).await;
            handle.stop(false).await;
            outcome
        });
        served.unwrap();
        outcome.unwrap().summary()
    });
    // Due at 1, 2, .. 249 ms: before the end at 250.
    assert_eq!((summary.ok.count, summary.broken), (249, 0), "{summary:?}");
    assert_eq!((summary.refused.count, summary.other.count), (0, 0));
    assert_eq!(summary.answer_bytes, 5_000);
    assert!((summary.good_share - 1.0).abs() < 1e-9, "{summary:?}");
    assert!(summary.ok.sent_p99_us <= summary.ok.max_us, "{summary:?}");
}

/// A server that answers one connection, in order, and the first request only once the gate is open.
async fn stalling(listener: TcpListener, answers: usize, gate: impl Future<Output = ()>) -> std::io::Result<()> {
    let (mut stream, _) = listener.accept().await?;
    let mut read = vec![0; 4_096];
    let _ = stream.read(&mut read).await?;
    gate.await;
    for index in 0..answers {
        if index > 0 {
            let _ = stream.read(&mut read).await?;
        }
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            .await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_stall_is_charged_to_all_who_were_due_meanwhile() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut load = load(listener.local_addr().unwrap(), even(100.0).unwrap(), 0.1);
    load.connections = 1;
    // Nine are due; the first answer comes once all are, so late because the server is slow and not because a test waits.
    let stall = Duration::from_millis(200);
    let (outcome, served) = tokio::join!(run_open(&load), stalling(listener, 9, tokio::time::sleep(stall)));
    served.unwrap();
    let summary = outcome.unwrap().summary();
    assert_eq!(summary.ok.count, 9, "{summary:?}");
    // From when it was due, half of them took more than half of the stall; from when it was sent, most took no time.
    assert!(summary.ok.p50_us > 100_000.0, "{summary:?}");
    assert!(summary.ok.sent_p50_us < summary.ok.p50_us, "{summary:?}");
    assert!(summary.late_p50_us > 100_000.0, "{summary:?}");
}

#[tokio::test]
async fn a_connection_that_breaks_is_counted_and_made_anew() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut load = load(listener.local_addr().unwrap(), even(100.0).unwrap(), 0.035);
    load.connections = 1;
    let answers: [&[u8]; 3] = [
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf",
        b"HTTP/1.1 503 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
        b"HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n",
    ];
    let server = async {
        let mut held = Vec::new();
        for (index, answer) in answers.iter().enumerate() {
            // The second and third requests come on the same connection.
            if index < 2 {
                held.push(listener.accept().await?.0);
            }
            let stream = held.last_mut().ok_or(std::io::ErrorKind::NotConnected)?;
            let _ = stream.read(&mut [0; 4_096]).await?;
            stream.write_all(answer).await?;
            if index == 0 {
                held.clear();
            }
        }
        std::io::Result::Ok(())
    };
    let (outcome, served) = tokio::join!(run_open(&load), server);
    served.unwrap();
    let summary = outcome.unwrap().summary();
    let counts = (summary.ok.count, summary.refused.count, summary.other.count);
    assert_eq!((counts, summary.broken), ((0, 1, 1), 1), "{summary:?}");
}

#[tokio::test]
async fn bounds_are_checked_before_anything_is_sent() {
    let mut load = load("127.0.0.1:9".parse().unwrap(), even(1.0).unwrap(), 1.0);
    for connections in [0, MAX_CONCURRENCY + 1] {
        load.connections = connections;
        let error = run_open(&load).await.unwrap_err().to_string();
        assert!(error.contains("connections are 1 to"), "{error}");
    }
    load.connections = 1;
    load.requests = Vec::new();
    assert!(run_open(&load).await.unwrap_err().to_string().contains("no request"));
}
