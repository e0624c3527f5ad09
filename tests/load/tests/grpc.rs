//! The gRPC loop against a server that answers as it is told to.

use std::time::Duration;

use bytes::Bytes;
use http::Response;
use mesh_load::{CALLS_PER_CONNECTION, GrpcLoad, MAX_CONCURRENCY, framed, run_grpc};
use tokio::{net::TcpListener, task::JoinSet};

/// Serves so many connections; every tenth call on each is refused.
async fn serve(listener: TcpListener, connections: usize) -> anyhow::Result<()> {
    let mut serving = JoinSet::new();
    for _ in 0..connections {
        let (stream, _) = listener.accept().await?;
        serving.spawn(async move {
            let mut connection = h2::server::handshake(stream).await?;
            let mut count = 0;
            while let Some(call) = connection.accept().await {
                let (request, mut respond) = call?;
                assert_eq!(request.uri().path(), "/a.B/C");
                assert_eq!(request.headers()["authorization"], "Bearer key");
                count += 1;
                let code = if count % 10 == 0 { 8 } else { 0 };
                let mut send = respond.send_response(Response::new(()), false)?;
                send.send_data(framed(b"four")?, false)?;
                let status = [("grpc-status".parse()?, code.into())];
                send.send_trailers(status.into_iter().collect())?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(served) = serving.join_next().await {
        // A client that is done just goes.
        let _ = served?;
    }
    Ok(())
}

fn load(address: std::net::SocketAddr, concurrency: usize) -> GrpcLoad {
    GrpcLoad {
        address,
        path: "/a.B/C".into(),
        tokens: vec!["key".into()],
        message: Bytes::from_static(b"x"),
        concurrency,
        warm_up: Duration::ZERO,
        duration: Duration::from_secs(30),
        max_requests: Some(160),
    }
}

#[tokio::test]
async fn calls_share_connections_and_are_counted_by_their_status() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let load = load(listener.local_addr().unwrap(), 2 * CALLS_PER_CONNECTION);
    let (outcome, served) = tokio::join!(run_grpc(&load), serve(listener, 2));
    served.unwrap();
    let summary = outcome.unwrap().summary();
    assert_eq!(
        (summary.ok, summary.not_ok, summary.answer_bytes),
        (144, 16, 9),
        "{summary:?}"
    );
    assert_eq!(summary.statuses.get(&8), Some(&16));
}

#[tokio::test]
async fn bounds_are_checked_before_anything_is_sent() {
    let address = "127.0.0.1:9".parse().unwrap();
    for concurrency in [0, MAX_CONCURRENCY + 1] {
        let error = run_grpc(&load(address, concurrency)).await.unwrap_err();
        assert!(error.to_string().contains("concurrency"));
    }
}
