//! The closed loop over gRPC: calls that each keep exactly one request on its way, several to a connection.
//!
//! Frames are those of a plain HTTP/2 library, and of an answer only its status is looked at, so that what is measured is the
//! server. Calls that share a connection share its writes, as those of a client do.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use bytes::{BufMut, Bytes, BytesMut};
use futures::{StreamExt, stream::FuturesUnordered};
use h2::client::SendRequest;
use http::{HeaderMap, Request, header};
use tokio::net::TcpStream;

use crate::run::{MAX_CONCURRENCY, Outcome, share};

/// Calls that share a connection.
pub const CALLS_PER_CONNECTION: usize = 8;
const WINDOW: u32 = 8 << 20;

/// What is called, where, and for how long.
#[derive(Debug, Clone)]
pub struct GrpcLoad {
    /// The server.
    pub address: SocketAddr,
    /// The call, such as `/package.Service/Call`.
    pub path: String,
    /// Bearer tokens, which requests bear in turn; empty for none.
    pub tokens: Vec<String>,
    /// The message, without its frame.
    pub message: Bytes,
    /// Calls at a time.
    pub concurrency: usize,
    /// Time before anything is counted.
    pub warm_up: Duration,
    /// Time that is counted.
    pub duration: Duration,
    /// Ends the run after so many counted answers, if given.
    pub max_requests: Option<u64>,
}

/// A message in its frame: not compressed, and its length.
pub fn framed(message: &[u8]) -> anyhow::Result<Bytes> {
    let mut frame = BytesMut::with_capacity(message.len() + 5);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).context("a message has at most 4 GiB")?);
    frame.put_slice(message);
    Ok(frame.freeze())
}

/// Runs the load on the current thread. Answers count as status 200, errors by their gRPC status.
pub async fn run_grpc(load: &GrpcLoad) -> anyhow::Result<Outcome> {
    ensure!(
        (1..=MAX_CONCURRENCY).contains(&load.concurrency),
        "concurrency is 1 to {MAX_CONCURRENCY}, got {}",
        load.concurrency
    );
    let message = framed(&load.message)?;
    let begin = Instant::now();
    let first_calls = (0..load.concurrency).step_by(CALLS_PER_CONNECTION);
    let mut connections: FuturesUnordered<_> = first_calls
        .map(|first| one_connection(load, message.clone(), first, begin))
        .collect();
    let mut outcome = Outcome::empty()?;
    while let Some(one) = connections.next().await {
        outcome.add(&one?)?;
    }
    Ok(outcome)
}

async fn one_connection(load: &GrpcLoad, message: Bytes, first: usize, begin: Instant) -> anyhow::Result<Outcome> {
    let stream = TcpStream::connect(load.address)
        .await
        .with_context(|| format!("cannot connect to {}", load.address))?;
    stream.set_nodelay(true)?;
    let (send, connection) = h2::client::Builder::new()
        .initial_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .handshake::<_, Bytes>(stream)
        .await?;
    let last = load.concurrency.min(first + CALLS_PER_CONNECTION);
    let mut calls: FuturesUnordered<_> = (first..last)
        .map(|index| one_caller(load, send.clone(), message.clone(), index, begin))
        .collect();
    drop(send);
    let calls = async {
        let mut outcome = Outcome::empty()?;
        while let Some(one) = calls.next().await {
            outcome.add(&one?)?;
        }
        anyhow::Ok(outcome)
    };
    // The connection moves what its calls send and read, and ends after them.
    tokio::select! {
        outcome = calls => outcome,
        ended = connection => {
            ended.context("the connection broke")?;
            bail!("the server closed the connection")
        }
    }
}

async fn one_caller(
    load: &GrpcLoad,
    mut send: SendRequest<Bytes>,
    message: Bytes,
    index: usize,
    begin: Instant,
) -> anyhow::Result<Outcome> {
    let counted_from = begin + load.warm_up;
    let end = counted_from + load.duration;
    let share = load.max_requests.map(|max| share(max, load.concurrency, index));
    let (mut outcome, mut sent_at, mut counted) = (Outcome::empty()?, Instant::now(), 0);
    let requests = requests(load)?;
    for request in requests.iter().cycle().skip(index % requests.len().max(1)) {
        if sent_at >= end || share.is_some_and(|share| counted >= share) {
            break;
        }
        send = send.ready().await?;
        let (answer, mut body) = send.send_request(request.clone(), false)?;
        body.send_data(message.clone(), true)?;
        let (status, bytes) = read(answer).await?;
        let now = Instant::now();
        if sent_at >= counted_from {
            counted += 1;
            outcome.count(status, bytes, now - sent_at);
        }
        sent_at = now;
    }
    outcome.counted = sent_at.saturating_duration_since(counted_from);
    Ok(outcome)
}

fn requests(load: &GrpcLoad) -> anyhow::Result<Vec<Request<()>>> {
    let request = |token: Option<&String>| {
        let mut request = Request::post(format!("http://{}{}", load.address, load.path))
            .header(header::CONTENT_TYPE, "application/grpc")
            .header("te", "trailers");
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        request.body(()).context("the call or a token cannot be written")
    };
    if load.tokens.is_empty() {
        return Ok(vec![request(None)?]);
    }
    load.tokens.iter().map(|token| request(Some(token))).collect()
}

async fn read(answer: h2::client::ResponseFuture) -> anyhow::Result<(u16, usize)> {
    let (head, mut body) = answer.await?.into_parts();
    let mut bytes = 0;
    while let Some(part) = body.data().await {
        let part = part?;
        bytes += part.len();
        body.flow_control().release_capacity(part.len())?;
    }
    let trailers = body.trailers().await?;
    let status = |headers: &HeaderMap| headers.get("grpc-status")?.to_str().ok()?.parse::<u16>().ok();
    let status = trailers.as_ref().and_then(status).or_else(|| status(&head.headers));
    match status.context("the answer has no gRPC status")? {
        0 => Ok((200, bytes)),
        code => Ok((code, bytes)),
    }
}
