//! What breaks HTTP/2 servers, frame by frame: each is ended in time and within bounds, gives back what it held, and others are
//! served meanwhile.

use tokio::time::Instant;

use super::{
    http2::{Friend, PATIENCE, until},
    *,
};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// Error codes (RFC 9113, section 7).
const NO_ERROR: u32 = 0;
const PROTOCOL_ERROR: u32 = 1;
const REFUSED_STREAM: u32 = 7;
const CANCEL: u32 = 8;
const ENHANCE_YOUR_CALM: u32 = 11;
const FLOOD: usize = 10_000;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A text as HPACK writes it: its length in seven bits and more, then its bytes.
fn text(text: &str) -> Vec<u8> {
    let mut written = Vec::new();
    match u8::try_from(text.len()) {
        Ok(length @ ..127) => written.push(length),
        _ => {
            let mut rest = text.len() - 127;
            written.push(127);
            while rest >= 128 {
                written.push(u8::try_from(rest % 128).unwrap() | 128);
                rest /= 128;
            }
            written.push(u8::try_from(rest).unwrap());
        }
    }
    written.extend_from_slice(text.as_bytes());
    written
}

fn header(name: &str, value: &str) -> Vec<u8> {
    [vec![0], text(name), text(value)].concat()
}

/// The headers of a prediction, without any that is kept for the next.
fn infer(key: &str, model: &str) -> Vec<u8> {
    let path = header(":path", &format!("/v2/models/{model}/infer"));
    // `:method: POST` and `:scheme: http` by their numbers in the static table.
    [
        vec![0x83, 0x86],
        path,
        header("authorization", &format!("Bearer {key}")),
    ]
    .concat()
}

/// A client that does what is written here and nothing else.
struct Raw {
    stream: TcpStream,
    key: String,
}

/// A frame that came: kind, flags, stream, payload.
type Came = (u8, u8, u32, Vec<u8>);

impl Raw {
    /// One that has begun as it should.
    async fn new(bed: &Bed) -> Self {
        let mut raw = Self::silent(bed).await;
        raw.say(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).await;
        raw
    }

    async fn silent(bed: &Bed) -> Self {
        Self {
            stream: TcpStream::connect(bed.door.addr()).await.unwrap(),
            key: bed.key.clone(),
        }
    }

    async fn say(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// A call as it is sent at once: headers and body.
    fn call(&self, stream: u32, model: &str) -> Vec<u8> {
        [
            frame(HEADERS, END_HEADERS, stream, &infer(&self.key, model)),
            frame(DATA, END_STREAM, stream, GOOD.as_bytes()),
        ]
        .concat()
    }

    async fn hears(&mut self) -> Option<Came> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).await.ok()?;
        let [high, middle, low, kind, flags, stream @ ..] = head;
        let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        let mut payload = vec![0; length];
        self.stream.read_exact(&mut payload).await.ok()?;
        Some((kind, flags, u32::from_be_bytes(stream), payload))
    }

    /// The first frame of a kind, and none where the connection ends before.
    async fn hears_of(&mut self, kind: u8) -> Option<Came> {
        let heard = async {
            loop {
                match self.hears().await {
                    Some(came) if came.0 == kind => return Some(came),
                    Some(_) => {}
                    None => return None,
                }
            }
        };
        tokio::time::timeout(PATIENCE, heard)
            .await
            .expect("nothing within 20 s")
    }

    /// Says all of it, and reads why the connection ended.
    async fn sent_away(self, bytes: &[u8]) -> Option<u32> {
        let (mut read, mut write) = self.stream.into_split();
        let say = async {
            // It may be cut off in the middle.
            let _ = write.write_all(bytes).await;
        };
        let mut heard = Vec::new();
        let hear = async {
            let _ = read.read_to_end(&mut heard).await;
        };
        let both = async { futures::join!(say, hear) };
        tokio::time::timeout(PATIENCE, both)
            .await
            .expect("not ended within 20 s");
        why(&heard)
    }

    /// How the connection ends, and after how long.
    async fn ends(mut self) -> (Option<u32>, Duration) {
        let begun = Instant::now();
        let mut heard = Vec::new();
        let ended = tokio::time::timeout(PATIENCE, self.stream.read_to_end(&mut heard)).await;
        let _ = ended.expect("not ended within 20 s");
        (why(&heard), begun.elapsed())
    }
}

/// The code of the last farewell in what was heard.
fn why(mut heard: &[u8]) -> Option<u32> {
    let mut code = None;
    while let Some((head, rest)) = heard.split_first_chunk::<9>() {
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let Some((payload, rest)) = rest.split_at_checked(length) else {
            break;
        };
        if head[3] == GOAWAY {
            code = payload
                .get(4..8)
                .map(|code| u32::from_be_bytes(code.try_into().unwrap()));
        }
        heard = rest;
    }
    code
}

fn code(frame: &Came) -> u32 {
    u32::from_be_bytes(frame.3[..4].try_into().unwrap())
}

/// A bed whose tenant may have so few requests under way that one that is not given back is missed.
fn narrow() -> Bed {
    let limits = Limits {
        concurrency: Some(4),
        ..Limits::default()
    };
    bed_with(limits.into(), |_| {})
}

async fn all_given_back(bed: &Bed) {
    let waiting = *bed.workers.waiting.borrow();
    until(&bed.workers.cancelled, waiting).await;
    let friend = Friend::new(bed).await;
    for _ in 0..8 {
        friend.works().await;
    }
    Client::new(bed).await.works().await;
}

#[actix_web::test]
async fn cve_2023_44487_calls_that_are_taken_back_at_once_end_the_connection() {
    let bed = narrow();
    let (raw, other) = (Raw::new(&bed).await, Friend::new(&bed).await);
    let calls = (0..FLOOD).map(|at| {
        let stream = u32::try_from(at).unwrap() * 2 + 1;
        [
            raw.call(stream, "never"),
            frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes()),
        ]
        .concat()
    });
    let calls = calls.collect::<Vec<_>>().concat();
    let (reason, ()) = futures::join!(raw.sent_away(&calls), async {
        for _ in 0..20 {
            other.works().await;
        }
    });
    assert_eq!(reason, Some(ENHANCE_YOUR_CALM));
    all_given_back(&bed).await;
}

#[actix_web::test]
async fn cve_2023_44487_calls_that_are_taken_back_once_they_run_end_the_connection_too() {
    let bed = narrow();
    let mut raw = Raw::new(&bed).await;
    let mut taken_back = 0;
    let reason = loop {
        let stream = u32::try_from(taken_back).unwrap() * 2 + 1;
        let call = raw.call(stream, "never");
        if raw.stream.write_all(&call).await.is_err() {
            break raw.ends().await.0;
        }
        taken_back += 1;
        let runs = async {
            let mut waiting = bed.workers.waiting.subscribe();
            waiting.wait_for(|waiting| *waiting >= taken_back).await.map(|_| ())
        };
        tokio::select! {
            ran = runs => ran.unwrap(),
            away = raw.hears_of(GOAWAY) => break away.map(|away| u32::from_be_bytes(away.3[4..8].try_into().unwrap())),
        }
        let back = frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes());
        if raw.stream.write_all(&back).await.is_err() {
            break raw.ends().await.0;
        }
        assert!(taken_back < FLOOD, "nobody minds");
    };
    assert_eq!(reason, Some(ENHANCE_YOUR_CALM));
    // Twice as many as may run at once were within what is allowed: a client in trouble takes all its calls back.
    assert!(taken_back > 200, "{taken_back}");
    all_given_back(&bed).await;
}

#[actix_web::test]
async fn cve_2025_8671_calls_that_break_the_protocol_end_the_connection() {
    let bed = narrow();
    let raw = Raw::new(&bed).await;
    let calls = (0..1_000).map(|at| {
        let stream = at * 2 + 1;
        // More room than there can be is an error of the stream, which the server then resets.
        let more = frame(WINDOW_UPDATE, 0, stream, &0x7fff_ffff_u32.to_be_bytes());
        [frame(HEADERS, END_HEADERS, stream, &infer(&raw.key, "never")), more].concat()
    });
    let calls = calls.collect::<Vec<_>>().concat();
    assert_eq!(raw.sent_away(&calls).await, Some(ENHANCE_YOUR_CALM));
    all_given_back(&bed).await;
}

#[actix_web::test]
async fn cve_2024_27316_headers_that_go_on_for_ever_end_the_connection() {
    let bed = narrow();
    for piece in [&[][..], &[0, 1, b'a', 1, b'b'], &header("x-long", &"x".repeat(16_000))] {
        let raw = Raw::new(&bed).await;
        let begin = frame(HEADERS, 0, 1, &infer(&raw.key, "never"));
        let on = frame(CONTINUATION, 0, 1, piece);
        let flood = [begin, on.repeat(1_000)].concat();
        assert_eq!(raw.sent_away(&flood).await, Some(ENHANCE_YOUR_CALM), "{}", piece.len());
    }
    all_given_back(&bed).await;
}

#[actix_web::test]
async fn cve_2019_9512_9513_9515_9518_frames_that_are_no_work_end_the_connection() {
    let bed = narrow();
    let window = frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0]);
    let stream_of_empties = |raw: &Raw| frame(HEADERS, END_HEADERS, 1, &infer(&raw.key, "echo"));
    for (name, kind) in [
        ("pings", frame(PING, 0, 0, &[7; 8])),
        ("settings", frame(SETTINGS, 0, 0, &[])),
        ("settings that change every window", window),
        ("priorities", frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 7])),
        ("window updates", frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])),
        ("empty data", frame(DATA, 0, 1, &[])),
        ("frames of no known kind", frame(77, 0, 0, &[])),
    ] {
        let raw = Raw::new(&bed).await;
        let flood = [stream_of_empties(&raw), kind.repeat(FLOOD)].concat();
        assert_eq!(raw.sent_away(&flood).await, Some(ENHANCE_YOUR_CALM), "{name}");
    }
    all_given_back(&bed).await;
}

#[actix_web::test]
async fn as_many_frames_that_are_no_work_as_is_allowed_leave_the_connection_usable() {
    let bed = bed();
    let mut raw = Raw::new(&bed).await;
    raw.say(&frame(PING, 0, 0, &[7; 8]).repeat(1_900)).await;
    for _ in 0..1_900 {
        raw.hears_of(PING).await.unwrap();
    }
    let call = raw.call(1, "echo");
    raw.say(&call).await;
    assert_eq!(raw.hears_of(HEADERS).await.unwrap().2, 1);
}

#[actix_web::test]
async fn as_many_calls_at_once_as_the_bound_run_and_one_more_is_refused() {
    const BOUND: u32 = 3;
    let bed = bed_with(TenantLimits::default(), |config| {
        config.max_calls_per_connection = BOUND;
    });
    let mut raw = Raw::new(&bed).await;
    let (_, _, _, settings) = raw.hears_of(SETTINGS).await.unwrap();
    let told = settings.chunks(6).find(|setting| setting[..2] == [0, 3]).unwrap();
    assert_eq!(told[2..], BOUND.to_be_bytes());
    for at in 0..=BOUND {
        let call = raw.call(at * 2 + 1, "never");
        raw.say(&call).await;
    }
    let refused = raw.hears_of(RST_STREAM).await.unwrap();
    assert_eq!((refused.2, code(&refused)), (BOUND * 2 + 1, REFUSED_STREAM));
    until(&bed.workers.waiting, BOUND as usize).await;
    bed.workers.release.send_replace(true);
    for _ in 0..BOUND {
        raw.hears_of(HEADERS).await.unwrap();
    }
    let call = raw.call(101, "echo");
    raw.say(&call).await;
    assert_eq!(raw.hears_of(HEADERS).await.unwrap().2, 101);
    assert_eq!(HttpDoorConfig::default().max_calls_per_connection, 100);
}

#[actix_web::test]
async fn headers_of_an_http_1_1_connection_are_refused() {
    let bed = bed();
    let mut raw = Raw::new(&bed).await;
    for (at, (name, value)) in (0..).zip([
        ("transfer-encoding", "chunked"),
        ("connection", "keep-alive"),
        ("upgrade", "h2c"),
        ("te", "gzip"),
    ]) {
        let stream = at * 2 + 1;
        let headers = [infer(&raw.key, "never"), header(name, value)].concat();
        let call = [
            frame(HEADERS, END_HEADERS, stream, &headers),
            frame(DATA, END_STREAM, stream, GOOD.as_bytes()),
        ];
        raw.say(&call.concat()).await;
        let refused = raw.hears_of(RST_STREAM).await;
        let Some(refused) = refused else {
            panic!("{name}: the connection ended")
        };
        assert_eq!((refused.2, code(&refused)), (stream, PROTOCOL_ERROR), "{name}");
    }
    // What cannot be read at all leaves the state of the headers in doubt, and ends the connection.
    for (name, value) in [
        ("Host", "mesh"),
        ("x-split", "a\r\nhost: other"),
        ("x split", "a"),
        ("", "a"),
    ] {
        let raw = Raw::new(&bed).await;
        let headers = [infer(&raw.key, "never"), header(name, value)].concat();
        let call = [
            frame(HEADERS, END_HEADERS, 1, &headers),
            frame(DATA, END_STREAM, 1, GOOD.as_bytes()),
        ];
        assert_eq!(raw.sent_away(&call.concat()).await, Some(PROTOCOL_ERROR), "{name}");
    }
    assert_eq!(*bed.workers.waiting.borrow(), 0);
}

#[actix_web::test]
async fn a_beginning_that_takes_too_long_is_cut_off_whatever_it_was() {
    let bed = bed_with(TenantLimits::default(), |config| {
        // HTTP/1.1's library counts in half seconds.
        config.head_timeout = Duration::from_secs(1);
        config.keep_alive = Duration::from_millis(100);
    });
    for (said, reason) in [
        (&b""[..], None),
        (&PREFACE[..1], None),
        (&PREFACE[..23], None),
        (PREFACE, Some(NO_ERROR)),
        (b"POST /v2/models/echo/infer HTTP/1.1\r\nhost: me", None),
    ] {
        let mut raw = Raw::silent(&bed).await;
        raw.say(said).await;
        let (why, after) = raw.ends().await;
        assert_eq!(why, reason, "{} bytes", said.len());
        assert!(after < Duration::from_secs(5), "{} bytes: {after:?}", said.len());
    }
    // Byte by byte is no faster.
    let raw = Raw::silent(&bed).await;
    let (mut read, mut write) = raw.stream.into_split();
    let drip = async {
        for byte in PREFACE {
            tokio::time::sleep(Duration::from_millis(100)).await;
            if write.write_all(&[*byte]).await.is_err() {
                return;
            }
        }
    };
    let begun = Instant::now();
    let mut heard = Vec::new();
    tokio::select! {
        _ = read.read_to_end(&mut heard) => {}
        () = drip => panic!("it could say all of it"),
    }
    assert!(heard.is_empty() && begun.elapsed() < Duration::from_secs(5));
    Friend::new(&bed).await.works().await;
}

#[actix_web::test]
async fn a_preface_in_pieces_is_one_all_the_same() {
    let bed = bed();
    let mut raw = Raw::silent(&bed).await;
    for byte in PREFACE {
        raw.say(&[*byte]).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let call = [frame(SETTINGS, 0, 0, &[]), raw.call(1, "echo")].concat();
    for byte in call {
        raw.say(&[byte]).await;
    }
    assert_eq!(raw.hears_of(HEADERS).await.unwrap().2, 1);
}

#[actix_web::test]
async fn cve_2019_9511_9517_a_caller_that_does_not_read_its_answer_is_given_up() {
    let bed = bed_with(TenantLimits::default(), |config| {
        config.body_timeout = Duration::from_millis(50);
    });
    let mut raw = Raw::silent(&bed).await;
    // SETTINGS_INITIAL_WINDOW_SIZE: no room for any answer.
    let begin = [PREFACE, &frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])].concat();
    raw.say(&begin).await;
    let call = raw.call(1, "echo");
    raw.say(&call).await;
    let given_up = raw.hears_of(RST_STREAM).await.unwrap();
    assert_eq!((given_up.2, code(&given_up)), (1, CANCEL));
    Friend::new(&bed).await.works().await;
}

#[actix_web::test]
async fn a_caller_that_is_gone_without_a_word_gives_back_its_calls() {
    let bed = bed_with(TenantLimits::default(), |config| {
        config.ping_interval = Duration::from_millis(50);
        config.ping_timeout = Duration::from_millis(50);
    });
    let mut raw = Raw::new(&bed).await;
    let call = raw.call(1, "never");
    raw.say(&call).await;
    // One that answers is still there.
    for _ in 0..3 {
        let ping = loop {
            let ping = raw.hears_of(PING).await.unwrap();
            if ping.1 == 0 {
                break ping;
            }
        };
        raw.say(&frame(PING, 1, 0, &ping.3)).await;
    }
    assert_eq!(*bed.workers.cancelled.borrow(), 0);
    until(&bed.workers.cancelled, 1).await;
}

#[actix_web::test]
async fn a_client_that_says_nothing_does_not_hold_up_the_end() {
    let bed = bed();
    let mut silent = Raw::new(&bed).await;
    // Its settings have been taken in once ours are here.
    silent.hears_of(SETTINGS).await.unwrap();
    let (_undecided, mut half) = (Raw::silent(&bed).await, Raw::silent(&bed).await);
    half.say(&PREFACE[..7]).await;
    let begun = Instant::now();
    assert!(bed.door.stop(PATIENCE).await);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}
