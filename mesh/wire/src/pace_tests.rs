//! Answers that nobody takes, and what is said where.

use std::future::poll_fn;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::*;
use crate::pulse::UnderWay;

const STILL: Duration = Duration::from_millis(200);

fn paced(room: usize) -> (Paced<DuplexStream>, DuplexStream) {
    let (ours, theirs) = duplex(room);
    let bounds = Bounds {
        head: Duration::from_secs(60),
        still: STILL,
    };
    (Paced::new(ours, bounds, Telemetry::local()), theirs)
}

fn begin(of: &Paced<DuplexStream>) -> UnderWay {
    let pulse = of.pulse();
    pulse.under_way.set(1);
    pulse.begun.set(1);
    UnderWay(pulse)
}

#[actix_web::test]
async fn an_answer_of_which_nothing_is_taken_ends_and_one_that_is_taken_slowly_does_not() {
    let (mut ours, mut theirs) = paced(4);
    let _under_way = begin(&ours);
    let said = async { ours.write_all(b"0123456789abcdef").await.map(|()| ours) };
    let heard = async {
        let mut heard = [0; 12];
        for four in heard.chunks_exact_mut(4) {
            tokio::time::sleep(STILL / 2).await;
            theirs.read_exact(four).await.unwrap();
        }
        heard
    };
    let (said, heard) = futures::join!(said, heard);
    assert_eq!(heard, *b"0123456789ab");
    let mut ours = said.unwrap();
    let late = tokio::time::timeout(20 * STILL, ours.write_all(b"more")).await;
    let late = late.expect("waits for ever").unwrap_err();
    assert_eq!(late.kind(), io::ErrorKind::TimedOut);
}

#[actix_web::test]
async fn nothing_is_said_into_the_middle_of_an_answer() {
    let (mut ours, mut theirs) = paced(64);
    ours.bounds.head = STILL;
    drop(begin(&ours));
    ours.write_all(b"half of an ").await.unwrap();
    theirs.write_all(b"GET /v2").await.unwrap();
    let mut read = [0; 64];
    assert_eq!(ours.read(&mut read).await.unwrap(), 7);
    // It waits without having said all: `flush` is not called.
    poll_fn(|context| {
        ours.look(context);
        Poll::Ready(())
    })
    .await;
    let ended = tokio::time::timeout(20 * STILL, ours.read(&mut read)).await;
    assert_eq!(ended.expect("waits for ever").unwrap(), 0);
    drop(ours);
    let mut heard = String::new();
    theirs.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "half of an ");
}
