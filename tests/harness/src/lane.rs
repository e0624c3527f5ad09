//! A caller at its cheapest: one kept connection, one request at a time, bytes made and read by hand.
//!
//! For tests of very many requests, where a full HTTP client would cost more than the mesh. Speaks raw FP32 tensors: one
//! input `x`, one output `y`, rows of one length.

use std::net::SocketAddr;

use anyhow::{Context, bail, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::PATIENCE;

/// The longest answer that is read.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;

/// One connection of one caller to one model.
#[derive(Debug)]
pub struct Lane {
    stream: TcpStream,
    path: String,
    key: String,
    columns: usize,
    buffer: Vec<u8>,
}

/// What came back.
#[derive(Debug, Clone, PartialEq)]
pub struct LaneAnswer {
    /// The status.
    pub status: u16,
    /// The rows of `y`, one behind the other; empty where there are none.
    pub values: Vec<f32>,
}

impl Lane {
    /// Connects to an inference door, for rows of so many columns to a target.
    pub async fn open(door: SocketAddr, key: &str, target: &str, columns: usize) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(door).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            path: format!("/v2/models/{target}/infer"),
            key: key.to_owned(),
            columns,
            buffer: Vec::new(),
        })
    }

    /// Sends rows, one behind the other, and takes the whole answer in.
    pub async fn ask(&mut self, values: &[f32]) -> anyhow::Result<LaneAnswer> {
        let request = self.request(values);
        let asked = async {
            self.stream.write_all(&request).await?;
            self.answer().await
        };
        timeout(PATIENCE, asked).await.context("no answer")?
    }

    fn request(&self, values: &[f32]) -> Vec<u8> {
        let (rows, bytes) = (values.len() / self.columns.max(1), values.len() * 4);
        let json = format!(
            "{{\"parameters\":{{\"binary_data_output\":true}},\"inputs\":[{{\"name\":\"x\",\"datatype\":\"FP32\",\
             \"shape\":[{rows},{}],\"parameters\":{{\"binary_data_size\":{bytes}}}}}]}}",
            self.columns
        );
        let mut request = format!(
            "POST {} HTTP/1.1\r\nhost: mesh\r\nauthorization: Bearer {}\r\ninference-header-content-length: {}\r\n\
             content-length: {}\r\n\r\n{json}",
            self.path,
            self.key,
            json.len(),
            json.len() + bytes
        )
        .into_bytes();
        request.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        request
    }

    async fn answer(&mut self) -> anyhow::Result<LaneAnswer> {
        self.buffer.clear();
        let head_end = loop {
            if let Some(at) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            self.read().await?;
        };
        let head = Head::read(&self.buffer[..head_end])?;
        while self.buffer.len() < head_end + head.length {
            self.read().await?;
        }
        ensure!(
            self.buffer.len() == head_end + head.length,
            "more came than was announced"
        );
        let body = &self.buffer[head_end..];
        let raw = head.json_length.and_then(|json| body.get(json..)).unwrap_or_default();
        let (chunks, rest) = raw.as_chunks::<4>();
        ensure!(rest.is_empty(), "no whole number of values");
        Ok(LaneAnswer {
            status: head.status,
            values: chunks.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
        })
    }

    async fn read(&mut self) -> anyhow::Result<()> {
        if self.stream.read_buf(&mut self.buffer).await? == 0 || self.buffer.len() > MAX_ANSWER_BYTES {
            bail!("the connection was closed, or the answer does not end");
        }
        Ok(())
    }
}

struct Head {
    status: u16,
    length: usize,
    json_length: Option<usize>,
}

impl Head {
    fn read(head: &[u8]) -> anyhow::Result<Self> {
        let head = std::str::from_utf8(head)?;
        let mut lines = head.lines();
        let status = lines
            .next()
            .and_then(|line| line.split(' ').nth(1))
            .context("no status")?;
        let (mut length, mut json_length) = (0, None);
        for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
            if name.eq_ignore_ascii_case("content-length") {
                length = value.parse()?;
            } else if name.eq_ignore_ascii_case("inference-header-content-length") {
                json_length = Some(value.parse()?);
            }
        }
        Ok(Self {
            status: status.parse()?,
            length,
            json_length,
        })
    }
}
