//! What frames cost and give back, wherever they are cut, and how a flood of them ends.

use std::{future::poll_fn, time::Duration};

use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use super::*;

fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
}

#[test]
fn heads_are_found_in_whatever_pieces_they_come() {
    let frames = [
        frame(SETTINGS, 0, &[]),
        frame(DATA, 1, &[7; 300]),
        frame(PING, ACK, &[1; 8]),
    ];
    let sent = [&[9; PREFACE_BYTES][..], &frames.concat()].concat();
    for size in [1, 2, 8, 9, 10, 33, sent.len()] {
        let mut counted = Counted::new((), Flood::new(Instant::now()));
        let mut found = Vec::new();
        for piece in sent.chunks(size) {
            counted
                .came
                .find(piece, |kind, flags, length| found.push((kind, flags, length)));
        }
        assert_eq!(
            found,
            [(SETTINGS, 0, 0), (DATA, 1, 300), (PING, ACK, 8)],
            "in pieces of {size}"
        );
    }
}

#[test]
fn the_allowance_can_be_spent_and_not_one_more() {
    let now = Instant::now();
    let flood = Flood::new(now);
    for _ in 0..ALLOWANCE {
        flood.spend(1, now);
    }
    assert!(!flood.is_over());
    flood.spend(1, now);
    assert!(flood.is_over());
    flood.give(PER_ANSWER);
    assert!(flood.is_over(), "what is over stays so");
}

#[test]
fn answers_and_time_give_back_and_never_more_than_the_allowance() {
    let now = Instant::now();
    let flood = Flood::new(now);
    flood.give(PER_ANSWER);
    for _ in 0..ALLOWANCE {
        flood.spend(1, now);
    }
    flood.give(PER_ANSWER);
    for _ in 0..PER_ANSWER {
        flood.spend(1, now);
    }
    assert!(!flood.is_over());
    let later = now + Duration::from_secs(1);
    for _ in 0..100 {
        flood.spend(1, later);
    }
    assert!(!flood.is_over());
    flood.spend(1, later);
    assert!(flood.is_over());
    let patient = Flood::new(now);
    for _ in 0..ALLOWANCE {
        patient.spend(1, now);
    }
    for second in 1..60 {
        for _ in 0..100 {
            patient.spend(1, now + Duration::from_secs(second));
        }
    }
    assert!(!patient.is_over());
}

#[test]
fn bodies_and_what_answers_us_cost_nothing() {
    assert_eq!(cost(DATA, 0, 1), 0);
    assert_eq!(cost(DATA, END_STREAM, 0), 0);
    assert_eq!(cost(DATA, PADDED, MOST_PADDING), 1, "it may hold padding alone");
    assert_eq!(cost(DATA, PADDED, MOST_PADDING + 1), 0);
    assert_eq!(cost(DATA, PADDED | END_STREAM, 1), 0);
    assert_eq!(cost(SETTINGS, ACK, 0), 0);
    assert_eq!(cost(PING, ACK, 8), 0);
    for idle in [
        (DATA, 0, 0),
        (SETTINGS, 0, 0),
        (PING, 0, 8),
        (1, 4, 9),
        (2, 0, 5),
        (8, 0, 4),
        (9, 0, 1),
        (77, 0, 3),
    ] {
        assert_eq!(cost(idle.0, idle.1, idle.2), 1, "{idle:?}");
    }
    assert!(cost(RST_STREAM, 0, 4) > 1);
}

#[test]
fn answers_give_back_and_nothing_else_of_ours_does() {
    assert_eq!(gain(DATA, 0), PER_PIECE);
    assert_eq!(gain(DATA, END_STREAM), PER_PIECE + PER_ANSWER);
    assert_eq!(gain(HEADERS, END_STREAM | 4), PER_ANSWER);
    for (kind, flags) in [
        (HEADERS, 4),
        (SETTINGS, 0),
        (SETTINGS, ACK),
        (PING, ACK),
        (RST_STREAM, 0),
        (8, 0),
        (7, 0),
    ] {
        assert_eq!(gain(kind, flags), 0, "{kind} {flags}");
    }
}

/// Reads all that was sent, as the library would; how it ended.
async fn read(counted: &mut Counted<tokio::io::DuplexStream>) -> io::Result<usize> {
    let mut piece = [0; 4_096];
    let mut all = 0;
    loop {
        match tokio::time::timeout(Duration::from_secs(20), counted.read(&mut piece)).await? {
            Ok(0) => return Ok(all),
            Ok(read) => all += read,
            Err(error) => return Err(error),
        }
    }
}

#[actix_web::test]
async fn one_frame_too_many_is_the_last_that_is_read_and_the_other_end_hears_why() {
    let pings = frame(PING, 0, &[0; 8]).repeat(ALLOWANCE as usize);
    let begin = [&[9; PREFACE_BYTES][..], &pings].concat();
    // What of ours is said already: nothing, a frame, and half of one.
    let ours = frame(SETTINGS, 0, &[1; 6]);
    for (said, hears) in [(0, true), (ours.len(), true), (ours.len() - 1, false)] {
        let (socket, mut theirs) = duplex(1 << 20);
        let flood = Flood::new(Instant::now() + Duration::from_secs(3_600));
        let mut counted = Counted::new(socket, flood.clone());
        theirs.write_all(&begin).await.unwrap();
        let mut took = vec![0; begin.len()];
        counted.read_exact(&mut took).await.unwrap();
        counted.write_all(&ours[..said]).await.unwrap();
        assert!(!flood.is_over());
        theirs.write_all(&frame(PING, 0, &[0; 8]).repeat(2)).await.unwrap();
        let mut last = [0; 17];
        counted.read_exact(&mut last).await.unwrap();
        assert!(flood.is_over());
        // The library is heard no more.
        counted.write_all(&ours).await.unwrap();
        let mut heard = Vec::new();
        let hear = async {
            theirs.read_to_end(&mut heard).await.unwrap();
            drop(theirs);
        };
        let (rest, ()) = futures::join!(read(&mut counted), hear);
        assert_eq!(rest.unwrap(), 0);
        let farewell: &[u8] = if hears { &FAREWELL } else { &[] };
        assert_eq!(heard, [&ours[..said], farewell].concat());
        poll_fn(|context| Pin::new(&mut counted).poll_shutdown(context))
            .await
            .unwrap();
    }
}

#[actix_web::test]
async fn what_is_written_gives_back_in_whatever_pieces_it_is_written() {
    let (socket, mut theirs) = duplex(1 << 20);
    let flood = Flood::new(Instant::now() + Duration::from_secs(3_600));
    let mut counted = Counted::new(socket, flood.clone());
    flood.spend(1_000, Instant::now());
    let left = |flood: &Flood| flood.0.borrow().left;
    let answer = [
        frame(HEADERS, 4, &[1; 20]),
        frame(DATA, 0, &[2; 300]),
        frame(HEADERS, 5, &[3; 10]),
    ]
    .concat();
    for piece in answer.chunks(7) {
        counted.write_all(piece).await.unwrap();
    }
    assert_eq!(left(&flood), ALLOWANCE - 1_000 + PER_PIECE + PER_ANSWER);
    let (head, body) = answer.split_at(40);
    let mut pieces = &mut [io::IoSlice::new(head), io::IoSlice::new(body)][..];
    while !pieces.is_empty() {
        let written = poll_fn(|context| Pin::new(&mut counted).poll_write_vectored(context, pieces))
            .await
            .unwrap();
        io::IoSlice::advance_slices(&mut pieces, written);
    }
    assert_eq!(left(&flood), ALLOWANCE - 1_000 + 2 * (PER_PIECE + PER_ANSWER));
    let mut heard = vec![0; 2 * answer.len()];
    theirs.read_exact(&mut heard).await.unwrap();
    assert_eq!(heard, answer.repeat(2));
}
