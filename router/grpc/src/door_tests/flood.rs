//! What breaks servers of HTTP/2 below gRPC: frames that are no work. Counted as at the HTTP door, and ended with a reason.

use mesh_wire::ALLOWANCE;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::*;

pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const PRIORITY: u8 = 2;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
pub(super) const ENHANCE_YOUR_CALM: [u8; 4] = [0, 0, 0, 11];

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A header that is kept for no other, as HPACK writes it; all of it is short.
pub(super) fn header(name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    [vec![0], text(name), text(value)].concat()
}

/// The headers of a call that needs no credential: POST and http by their numbers in the static table.
pub(super) fn call(stream: u32) -> Vec<u8> {
    call_to("/grpc.health.v1.Health/Check", stream)
}

pub(super) fn call_to(path: &str, stream: u32) -> Vec<u8> {
    let head = [
        vec![0x83, 0x86],
        header(":path", path),
        header("content-type", "application/grpc"),
        header("te", "trailers"),
    ];
    frame(HEADERS, END_HEADERS, stream, &head.concat())
}

/// The one message of that call, which is empty, and the end of it.
pub(super) fn question(stream: u32) -> Vec<u8> {
    frame(DATA, END_STREAM, stream, &[0; 5])
}

/// Says all of it, and hears what comes until the connection ends or a frame fits.
pub(super) async fn heard(bed: &Bed, said: &[u8], fits: impl Fn(u8, u8, u32) -> bool) -> Vec<(u8, Vec<u8>)> {
    let (mut read, mut write) = TcpStream::connect(bed.door.addr()).await.unwrap().into_split();
    let say = async {
        // It may be cut off in the middle.
        let _ = write.write_all(said).await;
        write
    };
    let hear = async {
        let mut heard = Vec::new();
        let mut head = [0; 9];
        while read.read_exact(&mut head).await.is_ok() {
            let [high, middle, low, kind, flags, stream @ ..] = head;
            let mut payload = vec![0; usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low)];
            if read.read_exact(&mut payload).await.is_err() {
                break;
            }
            heard.push((kind, payload));
            if fits(kind, flags, u32::from_be_bytes(stream)) {
                break;
            }
        }
        heard
    };
    let both = async { futures::join!(say, hear).1 };
    tokio::time::timeout(PATIENCE, both)
        .await
        .expect("not over within 20 s")
}

pub(super) fn is_answer(kind: u8, flags: u8, stream: u32) -> bool {
    kind == HEADERS && stream == 1 && flags & END_STREAM != 0
}

/// Why the connection ended that said all of this.
pub(super) async fn why(bed: &Bed, said: &[u8]) -> Vec<u8> {
    let heard = heard(bed, said, |_, _, _| false).await;
    let farewell = heard.iter().rev().find(|(kind, _)| *kind == GOAWAY);
    farewell.map_or_else(|| panic!("no farewell: {heard:?}"), |(_, why)| why[4..8].to_vec())
}

#[actix_rt::test]
async fn a_flood_of_frames_that_are_no_work_is_ended_with_a_reason_and_disturbs_nobody() {
    let bed = bed();
    let friend = Client::new(&bed).await;
    let begin = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    for (name, each) in [
        ("pings", frame(PING, 0, 0, &[0; 8])),
        ("settings", frame(SETTINGS, 0, 0, &[])),
        ("priorities", frame(PRIORITY, 0, 3, &[0; 5])),
        ("windows", frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])),
    ] {
        // As many as may be, of which the beginning and the call are one each, and the call is answered.
        let many = each.repeat(ALLOWANCE as usize - 2);
        let said = [&begin[..], &many, &call(1), &question(1)].concat();
        let answer = heard(&bed, &said, is_answer).await;
        assert_eq!(
            answer.last().map(|(kind, _)| *kind),
            Some(HEADERS),
            "{name}: {answer:?}"
        );
        // More than time gives back meanwhile.
        let said = [&begin[..], &each.repeat(5 * ALLOWANCE as usize)].concat();
        assert_eq!(why(&bed, &said).await, ENHANCE_YOUR_CALM, "{name}");
        friend.works().await;
    }
    let text = bed.telemetry.metrics().encode_prometheus().unwrap();
    assert!(text.contains("mesh_refused_total{reason=\"http2_flood\"} 4"), "{text}");
    // Of empty pieces the library takes fewer.
    let pieces = frame(DATA, 0, 1, &[]).repeat(5 * ALLOWANCE as usize);
    let said = [&begin[..], &call(1), &pieces].concat();
    assert_eq!(why(&bed, &said).await, ENHANCE_YOUR_CALM);
    friend.works().await;
}

#[actix_rt::test]
async fn cve_2023_44487_calls_that_are_taken_back_without_end_end_the_connection() {
    let bed = bed();
    let said: Vec<u8> = (0..4 * ALLOWANCE)
        .flat_map(|number| {
            [
                call(2 * number + 1),
                frame(RST_STREAM, 0, 2 * number + 1, &[0, 0, 0, 8]),
            ]
            .concat()
        })
        .collect();
    let said = [PREFACE, &frame(SETTINGS, 0, 0, &[]), &said].concat();
    assert_eq!(why(&bed, &said).await, ENHANCE_YOUR_CALM);
    Client::new(&bed).await.works().await;
}
