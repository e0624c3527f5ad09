//! Doors that answer as they were told to and count what they were asked. Each answer has a connection of its own.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use http::{HeaderMap, Response};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// What is common to both.
struct Door {
    address: SocketAddr,
    requests: Arc<AtomicUsize>,
    // Ends with the door.
    _serving: JoinSet<()>,
}

/// A fake HTTP door: statuses and headers in turn; one of 200 has an answer without outputs.
pub(crate) struct FakeHttp(Door);

/// A fake gRPC door: codes and pushbacks in turn; one of 0 has an answer without outputs.
pub(crate) struct FakeGrpc(Door);

type Headers = &'static [(&'static str, &'static str)];

impl FakeHttp {
    /// Instead of a status: the connection is closed once the request is read.
    pub(crate) const BREAK: u16 = 0;

    pub(crate) async fn start(answers: Vec<(u16, Headers)>) -> anyhow::Result<Self> {
        let (listener, door) = bind().await?;
        let counter = door.requests.clone();
        Ok(Self(door.serving(async move {
            for (status, headers) in answers {
                let Ok((stream, _)) = listener.accept().await else {
                    return;
                };
                // A client that goes is seen in what it was not asked.
                let _ = http(stream, status, headers, &counter).await;
            }
        })))
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.0.address)
    }

    pub(crate) fn requests(&self) -> usize {
        self.0.requests.load(Ordering::Acquire)
    }
}

impl FakeGrpc {
    /// Instead of a code: the connection is closed once the request is read.
    pub(crate) const BREAK: i32 = -1;

    pub(crate) async fn start(answers: Vec<(i32, Option<&'static str>)>) -> anyhow::Result<Self> {
        let (listener, door) = bind().await?;
        let counter = door.requests.clone();
        Ok(Self(door.serving(async move {
            let mut answers = answers.into_iter();
            while let Ok((stream, _)) = listener.accept().await {
                let _ = grpc(stream, &mut answers, &counter).await;
            }
        })))
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.0.address)
    }

    pub(crate) fn requests(&self) -> usize {
        self.0.requests.load(Ordering::Acquire)
    }
}

async fn bind() -> anyhow::Result<(TcpListener, Door)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let door = Door {
        address: listener.local_addr()?,
        requests: Arc::default(),
        _serving: JoinSet::new(),
    };
    Ok((listener, door))
}

impl Door {
    fn serving(mut self, serve: impl Future<Output = ()> + Send + 'static) -> Self {
        self._serving.spawn(serve);
        self
    }
}

async fn http(mut stream: TcpStream, status: u16, headers: Headers, counter: &AtomicUsize) -> anyhow::Result<()> {
    let mut read = Vec::new();
    let (head, length) = loop {
        if let Some(at) = read.windows(4).position(|window| window == b"\r\n\r\n") {
            let text = String::from_utf8_lossy(&read[..at]).to_lowercase();
            let length = text
                .lines()
                .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            // A body without a length would be sent in chunks: the client knows its lengths.
            break (at + 4, length.unwrap_or(usize::MAX));
        }
        anyhow::ensure!(stream.read_buf(&mut read).await? > 0, "it left");
    };
    while read.len() < head + length {
        anyhow::ensure!(stream.read_buf(&mut read).await? > 0, "it left");
    }
    counter.fetch_add(1, Ordering::AcqRel);
    if status == FakeHttp::BREAK {
        return Ok(());
    }
    let body = if status == 200 {
        r#"{"model_name":"m","model_version":"1","outputs":[]}"#
    } else {
        r#"{"error":"told to"}"#
    };
    let mut answer = format!(
        "HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        answer.push_str(&format!("{name}: {value}\r\n"));
    }
    stream.write_all(format!("{answer}\r\n{body}").as_bytes()).await?;
    Ok(())
}

async fn grpc(
    stream: TcpStream,
    answers: &mut impl Iterator<Item = (i32, Option<&'static str>)>,
    counter: &AtomicUsize,
) -> anyhow::Result<()> {
    let mut connection = h2::server::handshake(stream).await?;
    while let Some(call) = connection.accept().await {
        let (request, mut respond) = call?;
        counter.fetch_add(1, Ordering::AcqRel);
        let Some((code, pushback)) = answers.next().filter(|(code, _)| *code != FakeGrpc::BREAK) else {
            return Ok(());
        };
        drop(request);
        let mut status = HeaderMap::new();
        status.insert("grpc-status", code.into());
        if let Some(pushback) = pushback {
            status.insert("grpc-retry-pushback-ms", pushback.parse()?);
        }
        let mut response = Response::new(());
        response
            .headers_mut()
            .insert("content-type", "application/grpc".parse()?);
        if code == 0 {
            let mut send = respond.send_response(response, false)?;
            // A message with the model's name, field 1, alone.
            send.send_data(Bytes::from_static(b"\0\0\0\0\x03\x0a\x01m"), false)?;
            send.send_trailers(status)?;
        } else {
            response.headers_mut().extend(status);
            respond.send_response(response, true)?;
        }
    }
    Ok(())
}
