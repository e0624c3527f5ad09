//! Mixed traffic over a while: callers who are right, callers who are hostile, and callers who leave.
//!
//! Owns what is sent and what must come back: every valid request is answered rightly, whatever the others do. What the others
//! are told is not looked at: that is the abuse suite's. What the server keeps of all this is for whoever runs it to watch.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use serde::Serialize;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
    time::timeout,
};

/// The longest that a valid request may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a hostile caller waits for what it is told.
const CURIOSITY: Duration = Duration::from_millis(100);
/// The longest answer that is read.
const MAX_ANSWER_BYTES: usize = 1 << 20;
/// The most failures that are told.
const MAX_TOLD: usize = 10;

/// Whom to ask, and for how long.
#[derive(Debug, Clone)]
pub struct Soak {
    /// The HTTP inference door.
    pub http: SocketAddr,
    /// The gRPC door.
    pub grpc: SocketAddr,
    /// A tenant's key.
    pub key: String,
    /// A model that gives back its one input `x` as `y`.
    pub model: String,
    /// How long.
    pub duration: Duration,
    /// Callers of each kind.
    pub callers: usize,
}

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SoakSummary {
    /// Valid requests sent.
    pub valid: u64,
    /// Those of them that were answered rightly.
    pub answered: u64,
    /// Connections of hostile callers.
    pub hostile: u64,
    /// Valid requests whose caller left.
    pub left: u64,
    /// What went wrong with valid requests, the first of it.
    pub failures: Vec<String>,
}

impl SoakSummary {
    fn add(&mut self, other: Self) {
        self.valid += other.valid;
        self.answered += other.answered;
        self.hostile += other.hostile;
        self.left += other.left;
        let room = MAX_TOLD.saturating_sub(self.failures.len());
        self.failures.extend(other.failures.into_iter().take(room));
    }
}

/// Sends all of it at once until the time is over.
pub async fn soak(soak: &Soak) -> anyhow::Result<SoakSummary> {
    let (until, mut callers) = (Instant::now() + soak.duration, JoinSet::new());
    for seed in 0..soak.callers {
        let seed = u64::try_from(seed)? + 1;
        let valid = soak.clone();
        callers.spawn(async move { Ok(right(&valid, until, seed).await) });
        let wrong = soak.clone();
        callers.spawn(async move { hostile(&wrong, until, seed).await });
        let fickle = soak.clone();
        callers.spawn(async move { leaving(&fickle, until, seed).await });
    }
    let mut summary = SoakSummary::default();
    while let Some(ended) = callers.join_next().await {
        summary.add(ended??);
    }
    Ok(summary)
}

/// Numbers without order, the same in each run.
fn draw(state: &mut u64, below: u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state % below.max(1)
}

fn request(soak: &Soak, numbers: &str) -> Vec<u8> {
    let count = numbers.split(',').count();
    let body = format!(r#"{{"inputs":[{{"name":"x","datatype":"FP32","shape":[1,{count}],"data":[{numbers}]}}]}}"#);
    let Soak { model, key, .. } = soak;
    format!(
        "POST /v2/models/{model}/infer HTTP/1.1\r\nhost: mesh\r\nauthorization: Bearer {key}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// Asks rightly over one connection after another, each for a while.
async fn right(soak: &Soak, until: Instant, seed: u64) -> SoakSummary {
    let (mut told, mut dice) = (SoakSummary::default(), seed * 977);
    while Instant::now() < until {
        let Ok(mut stream) = TcpStream::connect(soak.http).await else {
            told.failures.push("a connection was refused".to_owned());
            return told;
        };
        for _ in 0..200 {
            if Instant::now() >= until {
                break;
            }
            let (a, b) = (draw(&mut dice, 100), draw(&mut dice, 100));
            told.valid += 1;
            let request = request(soak, &format!("{a}.5,{b}.25"));
            let asked = timeout(PATIENCE, ask(&mut stream, &request));
            let wanted = format!("[{a}.5,{b}.25]");
            match asked.await {
                Ok(Ok(answer)) if answer.contains("200 OK") && answer.contains(&wanted) => told.answered += 1,
                other => {
                    let shown: String = format!("{other:?}").chars().take(400).collect();
                    told.failures.push(format!("{wanted} was answered {shown}"));
                    break;
                }
            }
        }
    }
    told.failures.truncate(MAX_TOLD);
    told
}

/// Sends a request and reads the answer whose length it says.
async fn ask(stream: &mut TcpStream, request: &[u8]) -> anyhow::Result<String> {
    stream.write_all(request).await?;
    let mut answer = Vec::new();
    loop {
        ensure!(stream.read_buf(&mut answer).await? > 0, "the connection ended");
        ensure!(answer.len() <= MAX_ANSWER_BYTES, "the answer does not end");
        let text = String::from_utf8_lossy(&answer);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        if body.len() >= length.context("no length")?.parse::<usize>()? {
            return Ok(text.into_owned());
        }
    }
}

/// What nobody should send, for either door.
fn attack(soak: &Soak, which: u64) -> Vec<u8> {
    let Soak { model, key, .. } = soak;
    let post = |headers: &str, body: &str| {
        let path = format!("/v2/models/{model}/infer");
        format!("POST {path} HTTP/1.1\r\nhost: mesh\r\nauthorization: Bearer {key}\r\n{headers}\r\n{body}").into_bytes()
    };
    let sized = |body: &str| post(&format!("content-length: {}\r\n", body.len()), body);
    match which {
        0 => sized("{"),
        1 => sized(&"[".repeat(20_000)),
        2 => sized(r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[-1,9223372036854775807],"data":[]}]}"#),
        3 => sized(r#"{"inputs":[{"name":"x","datatype":"FP64","shape":[1],"data":[1]}]}"#),
        4 => post("content-length: 1000000000\r\n", ""),
        5 => post(
            "content-length: 5\r\ntransfer-encoding: chunked\r\n",
            "0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        ),
        6 => post("transfer-encoding: chunked\r\n", "ffffffffffffffff\r\n"),
        7 => post(&format!("x-long: {}\r\n", "a".repeat(100_000)), ""),
        8 => post(&"x-many: 1\r\n".repeat(500), ""),
        9 => b"POST /v2/models/a/infer HTTP/1.1\nhost: mesh\n\n".to_vec(),
        10 => b"GET /v2/health/live HTTP/1.1\r\nhost".to_vec(),
        11 => [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", [0xff_u8; 64].as_slice()].concat(),
        12 => b"GET /v2/models/none HTTP/1.1\r\nhost: mesh\r\nauthorization: Bearer mesh_live_a_b_c\r\n\r\n".to_vec(),
        13 => sized(r#"{"inputs":[],"outputs":[{"name":"y","parameters":{"binary_data_size":99999999999}}]}"#),
        14 => post("content-encoding: gzip\r\ncontent-length: 4\r\n", "\x1f\u{8b}"),
        _ => vec![0; 300],
    }
}

const ATTACKS: u64 = 16;

/// Sends what nobody should, and goes.
async fn hostile(soak: &Soak, until: Instant, seed: u64) -> anyhow::Result<SoakSummary> {
    let (mut told, mut dice, mut sink) = (SoakSummary::default(), seed * 7_919, vec![0; 4_096]);
    while Instant::now() < until {
        let door = if draw(&mut dice, 4) == 0 { soak.grpc } else { soak.http };
        let mut stream = TcpStream::connect(door).await.context("a door takes no connection")?;
        // Whether it is refused in the middle of it is the server's to say.
        let _ = stream.write_all(&attack(soak, draw(&mut dice, ATTACKS))).await;
        let _ = timeout(CURIOSITY, stream.read(&mut sink)).await;
        told.hostile += 1;
    }
    Ok(told)
}

/// Asks rightly and leaves: in the middle of asking, or before the answer.
async fn leaving(soak: &Soak, until: Instant, seed: u64) -> anyhow::Result<SoakSummary> {
    let (mut told, mut dice) = (SoakSummary::default(), seed * 104_729);
    while Instant::now() < until {
        let mut stream = TcpStream::connect(soak.http)
            .await
            .context("the door takes no connection")?;
        let whole = request(soak, "1,2,3");
        let length = u64::try_from(whole.len())?;
        let part = usize::try_from(draw(&mut dice, 2 * length))?.min(whole.len());
        let _ = stream.write_all(whole.get(..part).unwrap_or_default()).await;
        tokio::time::sleep(Duration::from_millis(draw(&mut dice, 4))).await;
        told.left += 1;
    }
    Ok(told)
}
