//! One kept connection: a request out, an answer in.

use std::net::SocketAddr;

use anyhow::{Context, bail, ensure};
use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::answer::Head;

/// The longest body that is read.
pub const MAX_ANSWER_BYTES: usize = 64 << 20;

/// A connection that is kept between requests.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    buffer: BytesMut,
}

impl Connection {
    /// Connects.
    pub async fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address)
            .await
            .with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            buffer: BytesMut::with_capacity(16 * 1024),
        })
    }

    /// Sends a request and reads the whole answer; returns its status and the length of its body.
    pub async fn exchange(&mut self, request: &[u8]) -> anyhow::Result<(u16, usize)> {
        self.stream.write_all(request).await.context("cannot send")?;
        let head = loop {
            if let Some(head) = Head::parse(&self.buffer)? {
                break head;
            }
            self.fill().await?;
        };
        ensure!(
            head.body_bytes <= MAX_ANSWER_BYTES,
            "the answer has {} bytes, at most {MAX_ANSWER_BYTES} are read",
            head.body_bytes
        );
        let whole = head.head_bytes + head.body_bytes;
        while self.buffer.len() < whole {
            self.fill().await?;
        }
        self.buffer.advance(whole);
        Ok((head.status, head.body_bytes))
    }

    async fn fill(&mut self) -> anyhow::Result<()> {
        self.buffer.reserve(16 * 1024);
        if self.stream.read_buf(&mut self.buffer).await.context("cannot read")? == 0 {
            bail!("the server closed the connection before its answer was whole");
        }
        Ok(())
    }
}
