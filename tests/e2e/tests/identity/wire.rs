//! What the identity providers of these tests have in common: a port of their own, one request for each connection, read whole,
//! and one answer. What they answer is theirs.

use std::{future::Future, sync::Arc, time::Duration};

use anyhow::Context;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};

/// How long the end of a connection may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// A server, until it is dropped.
pub(crate) struct Serving(JoinHandle<()>);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What somebody asks.
pub(crate) struct Asked {
    head: String,
    pub(crate) form: String,
}

impl Asked {
    /// The value of a header; empty where it is not there.
    pub(crate) fn header(&self, wanted: &str) -> &str {
        let lines = self.head.lines().filter_map(|line| line.split_once(':'));
        let mut values = lines.filter(|(name, _)| name.eq_ignore_ascii_case(wanted));
        values.next().map(|(_, value)| value.trim()).unwrap_or_default()
    }

    /// Path and query.
    pub(crate) fn target(&self) -> anyhow::Result<(&str, &str)> {
        let target = self.head.split(' ').nth(1).context("no path")?;
        Ok(target.split_once('?').unwrap_or((target, "")))
    }
}

/// What is answered: a status, lines of headers, each with its end, and a body.
pub(crate) type Answer = (&'static str, String, Vec<u8>);

/// Answers everybody who comes, each beside all others.
pub(crate) fn serve<T, F>(listener: TcpListener, shared: Arc<T>, answer: fn(Arc<T>, Asked) -> F) -> Serving
where
    T: Send + Sync + 'static,
    F: Future<Output = anyhow::Result<Answer>> + Send + 'static,
{
    let mut open = JoinSet::new();
    #[expect(
        clippy::disallowed_methods,
        reason = "a server of a test, aborted when it is dropped"
    )]
    let serving = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            open.spawn(one(stream, shared.clone(), answer));
            while open.try_join_next().is_some() {}
        }
    });
    Serving(serving)
}

async fn one<T, F>(mut stream: TcpStream, shared: Arc<T>, answer: fn(Arc<T>, Asked) -> F) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<Answer>>,
{
    let Some(asked) = read(&mut stream).await? else {
        return Ok(());
    };
    let (status, header, body) = answer(shared, asked).await?;
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\n{header}content-length: {length}\r\nconnection: close\r\n\r\n");
    stream.write_all(&[head.as_bytes(), &body].concat()).await?;
    Ok(tokio::time::timeout(FAREWELL, stream.shutdown()).await??)
}

/// A request with all of its body; none where the other end leaves before.
async fn read(stream: &mut TcpStream) -> anyhow::Result<Option<Asked>> {
    let mut request = Vec::new();
    let head = loop {
        if let Some(end) = request.windows(4).position(|four| four == b"\r\n\r\n") {
            break String::from_utf8_lossy(&request[..end]).into_owned();
        }
        if stream.read_buf(&mut request).await? == 0 {
            return Ok(None);
        }
    };
    let begins = head.len() + 4;
    let mut asked = Asked {
        head,
        form: String::new(),
    };
    let length: usize = asked.header("content-length").parse().unwrap_or(0);
    while request.len() < begins + length && stream.read_buf(&mut request).await? > 0 {}
    let form = request.get(begins..).unwrap_or_default();
    asked.form = String::from_utf8_lossy(form).into_owned();
    Ok(Some(asked))
}
