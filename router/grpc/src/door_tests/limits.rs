//! What a connection and a call may take at the gRPC door, at each bound and one past it, as frames that no library would send.

use super::{
    flood::{PREFACE, *},
    *,
};

const CONTINUATION: u8 = 9;
const REFUSED_STREAM: [u8; 4] = [0, 0, 0, 7];
/// The largest metadata of a call.
const MAX_METADATA_BYTES: usize = 16 * 1024;

fn begin() -> Vec<u8> {
    [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()
}

#[actix_rt::test]
async fn as_many_calls_as_a_connection_may_have_are_taken_up_and_one_more_is_refused() {
    let bed = bed_with(|config| config.max_calls_per_connection = 2);
    // None of them has its message yet, so all are under way.
    let calls = [call(1), call(3), call(5)].concat();
    let refused = heard(&bed, &[begin(), calls].concat(), |kind, _, _| kind == RST_STREAM).await;
    assert_eq!(
        refused.last(),
        Some(&(RST_STREAM, REFUSED_STREAM.to_vec())),
        "{refused:?}"
    );
    let streams: Vec<_> = refused.iter().filter(|(kind, _)| *kind == RST_STREAM).collect();
    assert_eq!(streams.len(), 1, "the third, and not the two that may be");
    let two = [begin(), call(1), call(3), question(1)].concat();
    let answered = heard(&bed, &two, is_answer).await;
    assert!(answered.iter().all(|(kind, _)| *kind != RST_STREAM), "{answered:?}");
    assert_eq!(answered.last().map(|(kind, _)| *kind), Some(HEADERS));
}

/// A call whose metadata has so many bytes in all, as HTTP/2 counts them: names, values and 32 for each.
fn call_of(bytes: usize) -> Vec<u8> {
    let fields = [
        (":path", "/grpc.health.v1.Health/Check"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    let own: usize = fields.iter().map(|(name, value)| name.len() + value.len() + 32).sum();
    let by_number = (":method".len() + "POST".len() + 32) + (":scheme".len() + "http".len() + 32);
    let value = "v".repeat(bytes - own - by_number - ("x".len() + 32));
    // A length of seven bits, and the rest in pieces of seven (RFC 7541, section 5.1).
    let mut length = vec![0x7f];
    let mut rest = value.len() - 0x7f;
    while rest >= 0x80 {
        length.push(u8::try_from(rest % 0x80).unwrap() | 0x80);
        rest /= 0x80;
    }
    length.push(u8::try_from(rest).unwrap());
    let fields: Vec<u8> = fields.iter().flat_map(|(name, value)| header(name, value)).collect();
    let head = [&[0x83, 0x86], &fields[..], &[0, 1, b'x'], &length, value.as_bytes()].concat();
    frame(HEADERS, END_HEADERS, 1, &head)
}

#[actix_rt::test]
async fn metadata_passes_below_its_bound_and_not_at_it() {
    let bed = bed();
    let status = |bytes: usize| {
        let said = [begin(), call_of(bytes), question(1)].concat();
        let bed = &bed;
        async move {
            let heard = heard(bed, &said, |kind, flags, stream| {
                is_answer(kind, flags, stream) || (kind == RST_STREAM && stream == 1)
            });
            heard.await
        }
    };
    let passed = status(MAX_METADATA_BYTES - 1).await;
    let data = passed
        .iter()
        .filter(|(kind, payload)| *kind == DATA && payload.len() >= 5);
    assert_eq!(data.count(), 1, "its answer: {passed:?}");
    let refused = status(MAX_METADATA_BYTES).await;
    assert!(refused.iter().all(|(kind, _)| *kind != DATA), "{refused:?}");
    Client::new(&bed).await.works().await;
}

#[actix_rt::test]
async fn a_message_that_does_not_come_in_time_ends_its_call_and_one_that_comes_is_answered() {
    let bed = bed_with(|config| config.message_timeout = Duration::from_millis(50));
    for path in [
        "/grpc.health.v1.Health/Check",
        "/inference.GRPCInferenceService/ServerLive",
        "/inference.GRPCInferenceService/ModelInfer",
    ] {
        // Half of the five bytes in front of a message, and nothing after.
        let late = [begin(), call_to(path, 1), frame(DATA, 0, 1, &[0; 2])].concat();
        let ended = |kind, _, stream| stream == 1 && matches!(kind, HEADERS | RST_STREAM);
        let late = heard(&bed, &late, ended).await;
        assert!(late.iter().all(|(kind, _)| *kind != DATA), "{path}: {late:?}");
    }
    let whole = heard(&bed, &[begin(), call(1), question(1)].concat(), is_answer).await;
    let answer = |(kind, payload): &(u8, Vec<u8>)| *kind == DATA && payload.len() >= 5;
    assert!(whole.iter().any(answer), "{whole:?}");
    assert_eq!(GrpcDoorConfig::default().message_timeout, Duration::from_secs(60));
    assert_eq!(GrpcDoorConfig::default().max_calls_per_connection, 256);
}

#[actix_rt::test]
async fn cve_2024_27316_headers_that_go_on_without_end_end_the_connection() {
    let bed = bed();
    let friend = Client::new(&bed).await;
    let open = frame(HEADERS, 0, 1, &[0x83, 0x86]);
    // Each says nothing: what is bounded is how many there are, and not how long they are.
    let more = frame(CONTINUATION, 0, 1, &[]).repeat(5 * mesh_wire::ALLOWANCE as usize);
    let said = [begin(), open, more].concat();
    assert_eq!(why(&bed, &said).await, ENHANCE_YOUR_CALM);
    friend.works().await;
}
