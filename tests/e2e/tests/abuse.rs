//! What is known to have broken servers of models, sent to this one at both doors: each is refused by name and costs next to
//! nothing, and the next request is answered.
//!
//! A test is named after where its abuse was first seen. The mesh runs in this process, so its memory is the process's: the most
//! that was ever resident is set back before a case, and read after it.

use std::{
    io::Write,
    pin::Pin,
    task::{Context as TaskContext, Poll},
};

use anyhow::{Context, ensure};
use bytes::Bytes;
use flate2::{
    Compression,
    write::{GzEncoder, ZlibEncoder},
};
use futures::future::poll_fn;
use http_body::{Body as _, Frame};
use mesh_harness::{Caller, Mesh, MeshOptions, PATIENCE, ServeOptions, Text, identity};
use mesh_protocol::grpc::messages::{ModelInferRequest, model_infer_request::InferInputTensor};
use prost::Message as _;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{Mutex, MutexGuard},
    time::timeout,
};
use tonic::{
    Code, Status,
    body::Body,
    client::GrpcService,
    transport::{Channel, Endpoint},
};

/// The largest body that the mesh of these tests takes.
const MAX_BODY: usize = 8 << 20;
/// What may be resident beyond what was there before: the largest body some times over (as sent, as put together, as unfolded), and
/// what allocators keep. What the abuses claim is hundreds of times that.
const FLAT: u64 = 64 << 20;

/// One at a time: they share a memory where they share a process.
static ALONE: Mutex<()> = Mutex::const_new(());

struct Bed {
    mesh: Mesh,
    caller: Caller,
    _alone: MutexGuard<'static, ()>,
}

async fn bed() -> anyhow::Result<Bed> {
    let alone = ALONE.lock().await;
    let mesh = Mesh::start_with(MeshOptions {
        serve: ServeOptions {
            max_body_bytes: Some(Text(MAX_BODY.to_string())),
            ..ServeOptions::default()
        },
        ..MeshOptions::default()
    })
    .await?;
    let caller = mesh.tenant("acme").await?;
    mesh.admin()?.publish("acme", "plain", &identity()).await?;
    caller.until_ready("plain").await?;
    let bed = Bed {
        mesh,
        caller,
        _alone: alone,
    };
    bed.works().await?;
    Ok(bed)
}

/// A line of what the system says of this process, in bytes.
fn resident(name: &str) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .context("no such line")?;
    let kilobytes = line.trim_start_matches(':').trim().trim_end_matches(" kB");
    Ok(kilobytes.parse::<u64>()? * 1024)
}

/// What was resident before a case.
struct Before(u64);

impl Before {
    fn now() -> anyhow::Result<Self> {
        // Sets the most that was ever resident back to what is.
        std::fs::write("/proc/self/clear_refs", "5")?;
        Ok(Self(resident("VmHWM")?))
    }

    fn is_flat(&self, what: &str) -> anyhow::Result<()> {
        let grown = resident("VmHWM")?.saturating_sub(self.0);
        ensure!(grown <= FLAT, "{what}: {grown} bytes more were resident");
        Ok(())
    }
}

impl Bed {
    async fn works(&self) -> anyhow::Result<()> {
        let answer = self.caller.ask("plain", &[1.0, 2.0]).await?.ok()?;
        ensure!(answer.numbers(0)? == [1.0, 2.0], "another answer");
        Ok(())
    }

    fn head(&self, headers: &str) -> String {
        let key = self.caller.key();
        format!("POST /v2/models/plain/infer HTTP/1.1\r\nhost: mesh\r\nauthorization: Bearer {key}\r\n{headers}\r\n")
    }

    /// Sends a request as it stands over a connection of its own: the status and the body of the answer, which may come before
    /// everything was sent.
    async fn raw(&self, pieces: impl IntoIterator<Item = Vec<u8>>) -> anyhow::Result<(u16, String)> {
        let stream = TcpStream::connect(self.mesh.addresses().http).await?;
        let (mut reading, mut writing) = stream.into_split();
        let send = async {
            for piece in pieces {
                // A server that has refused closes; its answer says why.
                if writing.write_all(&piece).await.is_err() {
                    break;
                }
            }
            writing
        };
        let receive = async {
            let mut answer = Vec::new();
            loop {
                if let Some(whole) = whole(&answer)? {
                    return anyhow::Ok(whole);
                }
                ensure!(reading.read_buf(&mut answer).await? > 0, "closed without an answer");
            }
        };
        let both = async { futures::join!(send, receive).1 };
        timeout(PATIENCE, both).await.context("no answer")?
    }

    async fn posted(&self, headers: &str, body: &[u8]) -> anyhow::Result<(u16, String)> {
        let head = self.head(&format!("{headers}content-length: {}\r\n", body.len()));
        self.raw([head.into_bytes(), body.to_vec()]).await
    }

    /// Each case, by its headers and its body, is refused with this status and text, and memory stays flat.
    async fn refuses(&self, cases: Vec<(String, Vec<u8>, u16, &str)>) -> anyhow::Result<()> {
        for (headers, body, status, text) in cases {
            let before = Before::now()?;
            let (got, answer) = self.posted(&headers, &body).await?;
            let start: String = answer.chars().take(300).collect();
            ensure!(
                got == status && answer.contains(text),
                "{status} with '{text}' is due, not {got} with {start}"
            );
            ensure!(answer.len() < 1_000, "a message of {} bytes", answer.len());
            before.is_flat(text)?;
            self.works().await?;
        }
        Ok(())
    }
}

/// Status and body, once all of the answer is there.
fn whole(answer: &[u8]) -> anyhow::Result<Option<(u16, String)>> {
    let Some(head_end) = answer.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = std::str::from_utf8(&answer[..head_end])?.to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length: usize = length.map_or(Ok(0), str::parse)?;
    let body = &answer[head_end + 4..];
    if body.len() < length {
        return Ok(None);
    }
    let status = head.split(' ').nth(1).context("no status")?.parse()?;
    Ok(Some((status, String::from_utf8(body[..length].to_vec())?)))
}

fn input(rest: &str) -> String {
    format!(r#"{{"inputs":[{{"name":"x","datatype":"FP32",{rest}}}]}}"#)
}

fn good() -> String {
    input(r#""shape":[1,2],"data":[1,2]"#)
}

fn deep(depth: usize) -> String {
    "[".repeat(depth) + &"]".repeat(depth)
}

fn of_json(json: &str) -> String {
    format!("inference-header-content-length: {}\r\n", json.len())
}

/// A million chunks of one byte each, six bytes on the wire: a server that keeps a record of each on its stack or heap ends there.
#[tokio::test]
async fn cve_2025_23310_six_byte_chunks_by_the_million() -> anyhow::Result<()> {
    const CHUNKS: usize = 1_000_000;
    let bed = bed().await?;
    let chunked = |text: String| {
        let head = bed.head("transfer-encoding: chunked\r\n");
        let bytes: Vec<u8> = text
            .bytes()
            .chain(std::iter::repeat_n(b' ', CHUNKS - text.len()))
            .collect();
        let pieces: Vec<Vec<u8>> = bytes
            .chunks(10_000)
            .map(|some| {
                some.iter()
                    .flat_map(|byte| [b'1', b'\r', b'\n', *byte, b'\r', b'\n'])
                    .collect()
            })
            .collect();
        let ends = [b"0\r\n\r\n".to_vec()];
        [vec![head.into_bytes()], pieces, ends.to_vec()].concat()
    };
    let (fine, nonsense) = (chunked(good()), chunked("x".to_owned()));
    let before = Before::now()?;
    let (status, answer) = bed.raw(fine).await?;
    ensure!(status == 200, "{status} with {answer}");
    let (status, answer) = bed.raw(nonsense).await?;
    ensure!(
        status == 400 && answer.contains("failed to parse"),
        "{status} with {answer}"
    );
    before.is_flat("chunks")?;
    bed.works().await
}

#[tokio::test]
async fn cve_2025_33201_payloads_beyond_the_bound_in_either_framing() -> anyhow::Result<()> {
    let bed = bed().await?;
    let before = Before::now()?;
    for length in ["8388609", "9223372036854775807"] {
        let (status, answer) = bed
            .raw([bed.head(&format!("content-length: {length}\r\n")).into_bytes()])
            .await?;
        ensure!(
            status == 413 && answer.contains("larger than 8388608 bytes"),
            "{status} with {answer}"
        );
    }
    // Sixteen times the bound, as long as somebody reads it.
    let chunk = [b"100000\r\n".to_vec(), vec![b' '; 1 << 20], b"\r\n".to_vec()].concat();
    let head = bed.head("transfer-encoding: chunked\r\n").into_bytes();
    let endless = std::iter::once(head).chain(std::iter::repeat_n(chunk, 128));
    let (status, answer) = bed.raw(endless).await?;
    ensure!(
        status == 413 && answer.contains("larger than"),
        "{status} with {answer}"
    );
    before.is_flat("endless body")?;
    bed.works().await
}

#[tokio::test]
async fn triton_8676_sizes_that_overflow_or_lie() -> anyhow::Result<()> {
    let bed = bed().await?;
    let plain = |rest: &str, text| (String::new(), input(rest).into_bytes(), 400, text);
    let sized = |size: &str, text| {
        let json = input(&format!(r#""shape":[1,2],"parameters":{{"binary_data_size":{size}}}"#));
        (of_json(&json), [json.as_bytes(), &[0; 8]].concat(), 400, text)
    };
    bed.refuses(vec![
        plain(r#""shape":[4294967296,4294967296],"data":[1]"#, "overflows"),
        plain(r#""shape":[9223372036854775807,3],"data":[1]"#, "overflows"),
        plain(
            r#""shape":[9223372036854775807,2],"data":[1]"#,
            "its shape needs 18446744073709551614",
        ),
        plain(
            r#""shape":[18446744073709551615,18446744073709551615,0],"data":[]"#,
            "overflows",
        ),
        plain(
            r#""shape":[1,1099511627776],"data":[1]"#,
            "its shape needs 1099511627776",
        ),
        plain(r#""shape":[-1,2],"data":[1,2]"#, "extent -1"),
        plain(
            r#""shape":[1,-9223372036854775808],"data":[1]"#,
            "extent -9223372036854775808",
        ),
        plain(r#""shape":[0,2],"data":[]"#, "batch-size must be at least 1"),
        plain(
            r#""shape":[1,2],"data":[1]"#,
            "has 1 elements in 'data', its shape needs 2",
        ),
        plain(r#""shape":[1,2],"data":[1,2,3]"#, "more than 2"),
        plain(
            r#""shape":[1,2],"parameters":{"binary_data_size":8}"#,
            "needs the header",
        ),
        sized("4", "holds 4 bytes, its shape and datatype need 8"),
        sized("9", "only 8 bytes of binary data"),
        sized("1099511627776", "only 8 bytes of binary data"),
        sized("18446744073709551615", "only 8 bytes of binary data"),
        sized("18446744073709551616", "expected a whole number"),
        sized("-8", "it must be 0 or more"),
    ])
    .await?;
    let words = "the header inference-header-content-length must be a whole number";
    let header = |value: &str, text| {
        let header = format!("inference-header-content-length: {value}\r\n");
        (header, good().into_bytes(), 400, text)
    };
    bed.refuses(vec![
        header("9999", "the body has only"),
        header("18446744073709551615", "the body has only"),
        header("18446744073709551616", words),
        header("-1", words),
        header("0x10", words),
        header("1", "failed to parse"),
    ])
    .await
}

#[tokio::test]
async fn triton_8676_json_ten_thousand_deep() -> anyhow::Result<()> {
    let bed = bed().await?;
    for depth in [10_000, 1_000_000] {
        let nested = deep(depth);
        let data = input(&format!(r#""shape":[1,2],"data":{nested}"#));
        let objects = format!(r#"{{"parameters":{}1{}}}"#, r#"{"a":"#.repeat(depth), "}".repeat(depth));
        let unended = format!(r#"{{"inputs":{}"#, "[".repeat(depth));
        bed.refuses(vec![
            (String::new(), data.into_bytes(), 400, "nested otherwise"),
            (
                String::new(),
                format!(r#"{{"parameters":{{"a":{nested}}}}}"#).into_bytes(),
                400,
                "failed to parse",
            ),
            (String::new(), objects.into_bytes(), 400, "failed to parse"),
            (String::new(), unended.into_bytes(), 400, "failed to parse"),
        ])
        .await?;
        // Where nobody looks, depth means nothing.
        let unknown = good().replacen('{', &format!(r#"{{"unknown":{nested},"#), 1);
        let before = Before::now()?;
        let (status, answer) = bed.posted("", unknown.as_bytes()).await?;
        ensure!(status == 200, "{status} with {answer}");
        before.is_flat("unknown field")?;
    }
    Ok(())
}

#[tokio::test]
async fn cwe_770_many_tensors_parameters_and_long_names() -> anyhow::Result<()> {
    let bed = bed().await?;
    let one = |name: &str| format!(r#"{{"name":"{name}","datatype":"FP32","shape":[1,1],"data":[1]}}"#);
    let many: Vec<String> = (0..100_000).map(|at| one(&at.to_string())).collect();
    let parameters: Vec<String> = (0..200_000).map(|at| format!(r#""p{at}":1"#)).collect();
    let outputs = vec![r#"{"name":"y"}"#; 400_000].join(",");
    let plain = |body: String, text| (String::new(), body.into_bytes(), 400, text);
    bed.refuses(vec![
        plain(format!(r#"{{"inputs":[{}]}}"#, many.join(",")), "at most 64"),
        plain(
            good().replacen('{', &format!(r#"{{"outputs":[{outputs}],"#), 1),
            "at most 64",
        ),
        plain(
            good().replacen('{', &format!(r#"{{"parameters":{{{}}},"#, parameters.join(",")), 1),
            "at most 64 parameters",
        ),
        plain(
            format!(r#"{{"inputs":[{}]}}"#, one(&"n".repeat(4_000_000))),
            "a tensor name has 1 to 255 bytes, got 4000000",
        ),
        plain(
            good().replacen('{', &format!(r#"{{"id":"{}","#, "i".repeat(4_000_000)), 1),
            "at most 1024 are allowed",
        ),
        plain(good().replace("FP32", &"F".repeat(4_000_000)), "unknown datatype"),
    ])
    .await
}

/// Zeros by the hundred megabytes in some hundred kilobytes.
fn zeros(into: &mut impl Write) -> anyhow::Result<()> {
    let piece = vec![0_u8; 1 << 20];
    for _ in 0..256 {
        into.write_all(&piece)?;
    }
    Ok(())
}

fn gzip_bomb() -> anyhow::Result<Vec<u8>> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    zeros(&mut gzip)?;
    Ok(gzip.finish()?)
}

fn zlib_bomb() -> anyhow::Result<Vec<u8>> {
    let mut zlib = ZlibEncoder::new(Vec::new(), Compression::fast());
    zeros(&mut zlib)?;
    Ok(zlib.finish()?)
}

fn packed(body: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(body)?;
    Ok(gzip.finish()?)
}

#[tokio::test]
async fn cwe_409_bombs_of_every_encoding() -> anyhow::Result<()> {
    let bed = bed().await?;
    let gzip = || "content-encoding: gzip\r\n".to_owned();
    let bomb = gzip_bomb()?;
    ensure!(bomb.len() < 4 << 20, "a bomb of {} bytes", bomb.len());
    let twice = packed(&bomb)?;
    let members = packed(b"")?.repeat(200_000);
    let mut cut = packed(good().as_bytes())?;
    cut.truncate(cut.len() - 4);
    bed.refuses(vec![
        (gzip(), bomb, 413, "unfolds to more than"),
        (
            "content-encoding: deflate\r\n".to_owned(),
            zlib_bomb()?,
            413,
            "unfolds to more than",
        ),
        // Unfolded once only.
        (gzip(), twice, 400, "failed to parse"),
        (gzip(), members, 400, "EOF while parsing"),
        (gzip(), cut, 400, "not valid gzip"),
        (
            "content-encoding: gzip, gzip\r\n".to_owned(),
            packed(good().as_bytes())?,
            415,
            "is not supported",
        ),
    ])
    .await
}

/// A request's body as it stands: the frames of gRPC are in it.
struct Frames(Option<Bytes>);

impl http_body::Body for Frames {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut TaskContext<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
    }
}

/// A message of gRPC: packed or not, the length that it claims, and what comes.
fn frame(flag: u8, claimed: usize, message: &[u8]) -> anyhow::Result<Vec<u8>> {
    Ok([&[flag], &u32::try_from(claimed)?.to_be_bytes()[..], message].concat())
}

fn framed(message: &[u8]) -> anyhow::Result<Vec<u8>> {
    frame(0, message.len(), message)
}

struct GrpcBed {
    bed: Bed,
    channel: Channel,
}

impl GrpcBed {
    async fn new() -> anyhow::Result<Self> {
        let bed = bed().await?;
        let endpoint = Endpoint::from_shared(format!("http://{}", bed.mesh.addresses().grpc))?;
        let channel = endpoint.connect().await?;
        let all = Self { bed, channel };
        all.works().await?;
        Ok(all)
    }

    /// Sends frames as they stand; the status of the answer.
    async fn send(&self, encoding: Option<&str>, frames: Vec<u8>) -> anyhow::Result<Status> {
        let mut request = http::Request::post(format!(
            "http://{}/inference.GRPCInferenceService/ModelInfer",
            self.bed.mesh.addresses().grpc
        ))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("authorization", format!("Bearer {}", self.bed.caller.key()));
        if let Some(encoding) = encoding {
            request = request.header("grpc-encoding", encoding);
        }
        let request = request.body(Body::new(Frames(Some(frames.into()))))?;
        let mut channel = self.channel.clone();
        let answered = async {
            poll_fn(|context| GrpcService::<Body>::poll_ready(&mut channel, context)).await?;
            let answer = GrpcService::call(&mut channel, request).await?;
            if let Some(status) = Status::from_header_map(answer.headers()) {
                return Ok(status);
            }
            let mut body = Box::pin(answer.into_body());
            while let Some(frame) = poll_fn(|context| body.as_mut().poll_frame(context)).await {
                if let Some(status) = frame?.trailers_ref().and_then(Status::from_header_map) {
                    return Ok(status);
                }
            }
            anyhow::bail!("an answer without a status")
        };
        timeout(PATIENCE, answered).await.context("no answer")?
    }

    async fn works(&self) -> anyhow::Result<()> {
        let status = self
            .send(None, framed(&message(&[1, 2], &[0; 8]).encode_to_vec())?)
            .await?;
        ensure!(status.code() == Code::Ok, "{status}");
        Ok(())
    }

    async fn refuses(&self, cases: Vec<(Option<&str>, Vec<u8>, Code, &str)>) -> anyhow::Result<()> {
        for (encoding, frames, code, text) in cases {
            let before = Before::now()?;
            let status = self.send(encoding, frames).await?;
            let start: String = status.message().chars().take(300).collect();
            ensure!(
                status.code() == code && start.contains(text),
                "{code:?} with '{text}' is due, not {:?} with {start}",
                status.code()
            );
            ensure!(
                status.message().len() < 1_000,
                "a message of {} bytes",
                status.message().len()
            );
            before.is_flat(text)?;
            self.works().await?;
        }
        Ok(())
    }
}

fn message(shape: &[i64], raw: &[u8]) -> ModelInferRequest {
    ModelInferRequest {
        model_name: "plain".into(),
        inputs: vec![InferInputTensor {
            name: "x".into(),
            datatype: "FP32".into(),
            shape: shape.to_vec(),
            ..InferInputTensor::default()
        }],
        raw_input_contents: vec![Bytes::copy_from_slice(raw)],
        ..ModelInferRequest::default()
    }
}

#[tokio::test]
async fn cve_2025_33201_grpc_lengths_that_are_huge_or_never_come() -> anyhow::Result<()> {
    let bed = GrpcBed::new().await?;
    let whole = message(&[1, 2], &[0; 8]).encode_to_vec();
    // What cannot be taken out of its frame is INTERNAL by gRPC's own table of codes, whoever is to blame.
    bed.refuses(vec![
        (
            None,
            frame(0, 0xffff_ffff, &whole)?,
            Code::ResourceExhausted,
            "too large",
        ),
        (
            None,
            frame(0, MAX_BODY + 1, &whole)?,
            Code::ResourceExhausted,
            "too large",
        ),
        (None, frame(0, MAX_BODY, &whole)?, Code::Internal, "Unexpected EOF"),
        (
            None,
            frame(0, whole.len() + 1, &whole)?,
            Code::Internal,
            "Unexpected EOF",
        ),
        (None, vec![0, 0], Code::Internal, "Unexpected EOF"),
        (None, frame(7, whole.len(), &whole)?, Code::Internal, "compression flag"),
        (None, frame(1, whole.len(), &whole)?, Code::Internal, "no grpc-encoding"),
        (None, framed(&[])?, Code::InvalidArgument, "no 'inputs'"),
    ])
    .await
}

#[tokio::test]
async fn cve_2025_23310_grpc_messages_cut_short_or_of_a_million_parts() -> anyhow::Result<()> {
    let bed = GrpcBed::new().await?;
    let whole = message(&[1, 2], &[0; 8]).encode_to_vec();
    let invalid = |message: &[u8], text| anyhow::Ok((None, framed(message)?, Code::InvalidArgument, text));
    let mut cases = vec![
        invalid(&[0x2a, 0].repeat(1_000_000), "at most 64")?,
        invalid(&[0x3a, 0].repeat(1_000_000), "at most 64")?,
        invalid(&[0x22, 0].repeat(1_000_000), "at most 64")?,
        // An input of 2^63 bytes, a number of eleven bytes, a group within a group within a group.
        invalid(
            &[0x2a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f],
            "cut short",
        )?,
        invalid(&[0xff; 11], "key")?,
        invalid(&[0x0b].repeat(100_000), "group")?,
    ];
    for length in 1..whole.len() {
        // The model's name comes first: cut within it or between fields the rest is whole, but is no request.
        cases.push(invalid(&whole[..length], "")?);
    }
    bed.refuses(cases).await
}

#[tokio::test]
async fn triton_8676_grpc_shapes_sizes_and_names() -> anyhow::Result<()> {
    let bed = GrpcBed::new().await?;
    let invalid =
        |one: ModelInferRequest, text| anyhow::Ok((None, framed(&one.encode_to_vec())?, Code::InvalidArgument, text));
    let named = |name: String| {
        let mut one = message(&[1, 2], &[0; 8]);
        one.inputs[0].name = name;
        one
    };
    let mut text = message(&[1, 1], &[0xff, 0xff, 0xff, 0xff, 1]);
    text.inputs[0].datatype = "BYTES".into();
    let mut unread = message(&[1, 2], &[0; 8]);
    unread.raw_input_contents.clear();
    let long = ModelInferRequest {
        model_name: "m".repeat(4_000_000),
        ..message(&[1, 2], &[0; 8])
    };
    bed.refuses(vec![
        invalid(message(&[1 << 32, 1 << 32], &[0; 8]), "overflows")?,
        invalid(message(&[i64::MAX, 2], &[0; 8]), "overflows")?,
        invalid(message(&[i64::MAX, i64::MAX, 0], &[]), "overflows")?,
        invalid(message(&[-1, 2], &[0; 8]), "extent -1")?,
        invalid(message(&[1, i64::MIN], &[0; 8]), "extent -9223372036854775808")?,
        invalid(message(&[0, 2], &[]), "batch-size must be at least 1")?,
        invalid(message(&[1; 100_000], &[0; 4]), "more than 16 dimensions")?,
        invalid(
            message(&[1, 2], &[0; 7]),
            "holds 7 bytes, its shape and datatype need 8",
        )?,
        invalid(message(&[1, 1 << 40], &[0; 8]), "holds 8 bytes")?,
        invalid(text, "cut short")?,
        invalid(unread, "neither 'contents' nor 'raw_input_contents'")?,
        invalid(
            named("n".repeat(4_000_000)),
            "a tensor name has 1 to 255 bytes, got 4000000",
        )?,
        (
            None,
            framed(&long.encode_to_vec())?,
            Code::NotFound,
            "Request for unknown model",
        ),
    ])
    .await
}

#[tokio::test]
async fn cwe_409_grpc_bombs_of_every_encoding() -> anyhow::Result<()> {
    let bed = GrpcBed::new().await?;
    let (gzip, zlib) = (gzip_bomb()?, zlib_bomb()?);
    let cut = packed(&message(&[1, 2], &[0; 8]).encode_to_vec())?;
    let cut = &cut[..cut.len() - 6];
    bed.refuses(vec![
        (
            Some("gzip"),
            frame(1, gzip.len(), &gzip)?,
            Code::ResourceExhausted,
            "8388608 bytes",
        ),
        (
            Some("deflate"),
            frame(1, zlib.len(), &zlib)?,
            Code::ResourceExhausted,
            "8388608 bytes",
        ),
        (Some("gzip"), frame(1, cut.len(), cut)?, Code::Internal, "decompressing"),
        (
            Some("br"),
            frame(1, gzip.len(), &gzip)?,
            Code::Unimplemented,
            "`br` which isn't supported",
        ),
    ])
    .await
}
