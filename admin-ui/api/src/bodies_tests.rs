//! Bodies that come slowly: how much of them is taken, and what stays of those that are not.

use actix_web::http::Method;
use futures::stream;
use serde_json::json;
use tokio::time::sleep;

use super::*;
use crate::fixture_tests::{Ask, Fixture, tenant};

const SECOND: Duration = Duration::from_secs(1);

/// A body of pieces that each come so long after the one before.
fn slow(pieces: Vec<(Duration, usize)>) -> Payload {
    let pieces = stream::iter(pieces).then(|(after, bytes)| async move {
        sleep(after).await;
        Ok(Bytes::from(vec![b' '; bytes]))
    });
    Payload::Stream {
        payload: Box::pin(pieces),
    }
}

/// How many bytes of it come, and whether all do.
async fn read(pieces: Vec<(Duration, usize)>, pace: Pace) -> (usize, bool) {
    let is_late = Rc::new(Cell::new(false));
    let mut body = Box::pin(Paced::new(slow(pieces), pace, is_late.clone()));
    let mut bytes = 0;
    while let Some(piece) = body.next().await {
        match piece {
            Ok(piece) => bytes += piece.len(),
            Err(error) => assert!(matches!(error, PayloadError::Io(_)), "{error}"),
        }
    }
    (bytes, !is_late.get())
}

#[actix_web::test]
async fn a_body_has_its_time_in_all_and_a_part_of_an_upload_its_own() {
    tokio::time::pause();
    for pace in [Pace::WHOLE, Pace::LOGIN] {
        let seconds = usize::try_from(pace.time.as_secs()).unwrap();
        let trickle = |count: usize| vec![(SECOND, 1); count];
        assert_eq!(read(trickle(seconds - 1), pace).await, (seconds - 1, true));
        let (bytes, is_whole) = read(trickle(seconds + 1), pace).await;
        assert!(!is_whole && bytes <= seconds, "{bytes}");
    }
    let just = MAX_PART_TIME - SECOND;
    // As long as its file is large.
    let parts = vec![(just, PART_BYTES); 100];
    assert_eq!(read(parts, Pace::UPLOAD).await, (100 * PART_BYTES, true));
    // A part of its own is each of them, and what is there of the next one does not help it.
    let late = vec![(just, PART_BYTES), (just, PART_BYTES - 1), (2 * SECOND, 1)];
    assert_eq!(read(late, Pace::UPLOAD).await, (2 * PART_BYTES - 1, false));
    let last = vec![(just, PART_BYTES), (just, 1)];
    assert_eq!(read(last, Pace::UPLOAD).await, (PART_BYTES + 1, true));
}

#[actix_web::test]
async fn what_the_door_takes_for_itself_is_nobodys_delay() {
    tokio::time::pause();
    let pieces = vec![(SECOND, 1); 4];
    let is_late = Rc::new(Cell::new(false));
    let mut body = Box::pin(Paced::new(slow(pieces), Pace::LOGIN, is_late.clone()));
    while let Some(piece) = body.next().await {
        piece.unwrap();
        // Such as a disk that is slow.
        sleep(Pace::LOGIN.time).await;
    }
    assert!(!is_late.get());
}

#[actix_web::test]
async fn a_body_that_trickles_is_ended_and_nothing_of_it_stays() {
    let door = Fixture::new().await;
    tokio::time::pause();
    let trickle = || slow(vec![(SECOND, 1); 1_000]);
    let sent = |method, path: &str| {
        let json = ("content-type", "application/json");
        Ask::new(method, path)
            .bearer(&door.admin)
            .header(json.0, json.1)
            .payload(trickle())
    };
    for (method, path) in [
        (Method::PUT, "/tenants/acme"),
        (Method::POST, "/apply"),
        (Method::POST, "/admin-tokens"),
        (Method::POST, "/tenants/acme/endpoints/read/try"),
        (Method::POST, "/session"),
        (Method::POST, "/artifacts"),
    ] {
        let answer = door.send(sent(method, path)).await;
        assert_eq!(answer.status, 408, "{path}");
        let words = answer.body["error"].as_str().unwrap_or_default();
        assert!(words.contains("took too long"), "{path}: {}", answer.body);
    }
    // The registry's thread is not of the time that stands.
    tokio::time::resume();
    assert_eq!(door.get("/tenants").await.is(200).body["items"], json!([]));
    // Neither a place for uploads nor the name is taken.
    assert_eq!(door.state.inner.uploads.taken(), 0);
    let upload = Ask::new(Method::POST, "/artifacts").bearer(&door.admin).bytes(b"abc");
    door.send(upload).await.is(201);
    door.put("/tenants/acme", &tenant("acme")).await.is(201);
}
