//! What one caller may take of the door: time for a message, idle time, calls at once, metadata and the pieces it comes in. Each bound is
//! met by as much as it allows and by one more.

use super::{
    flood::{
        DATA, END_HEADERS, ENHANCE_YOUR_CALM, GOAWAY, HEADERS, PREFACE, RST_STREAM, call, call_to, frame, header,
        heard, is_answer, question, why,
    },
    *,
};

const CONTINUATION: u8 = 9;
/// As many as the library takes for metadata of 16 KiB, with the one that ends it.
const MOST_CONTINUATIONS: usize = 6;
const MOST_METADATA: usize = 16 * 1024;
const REFUSED_STREAM: [u8; 4] = [0, 0, 0, 7];

/// Opens `ModelInfer` with a message that comes once it is sent, or never.
async fn opened(bed: &Bed, requests: mpsc::Receiver<ModelInferRequest>) -> Result<ModelInferResponse, Status> {
    let client = Client::new(bed).await;
    let mut grpc = client.grpc.clone();
    grpc.ready().await.unwrap();
    let path = http::uri::PathAndQuery::from_static("/inference.GRPCInferenceService/ModelInfer");
    let requests = futures::stream::unfold(requests, |mut requests| async move {
        let request = requests.recv().await?;
        Some((request, requests))
    });
    let asked = grpc.client_streaming(client.request(requests), path, ProstCodec::default());
    let answered = tokio::time::timeout(PATIENCE, asked).await;
    Ok(answered.expect("no answer within 20 s")?.into_inner())
}

#[actix_rt::test]
async fn a_message_that_does_not_arrive_in_its_time_is_given_up_and_one_that_does_is_answered() {
    assert_eq!(GrpcDoorConfig::default().message_timeout, Duration::from_secs(60));
    let bed = bed_with(|config| config.message_timeout = Duration::from_secs(1));
    let (send, requests) = mpsc::channel(1);
    let begun = tokio::time::Instant::now();
    let late = opened(&bed, requests).await.unwrap_err();
    assert_eq!(late.code(), Code::DeadlineExceeded, "{late}");
    assert!(late.message().contains("longer than 1 seconds to arrive"), "{late}");
    assert!(begun.elapsed() >= Duration::from_secs(1));
    drop(send);
    // One that is there by then has its answer, however long that takes.
    let bed = bed_with(|config| config.message_timeout = Duration::from_millis(500));
    let (send, requests) = mpsc::channel(1);
    send.send(ints("never", &[1])).await.unwrap();
    drop(send);
    let (answer, ()) = futures::join!(opened(&bed, requests), async {
        until(&bed.workers.waiting, 1).await;
        // Another one has been given up meanwhile, which came later than this one.
        let (_send, requests) = mpsc::channel(1);
        let late = opened(&bed, requests).await.unwrap_err();
        assert_eq!(late.code(), Code::DeadlineExceeded, "{late}");
        bed.workers.release.send_replace(true);
    });
    assert_eq!(answer.unwrap().raw_output_contents, [raw(&[1])]);
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
        let late = [PREFACE, &call_to(path, 1), &frame(DATA, 0, 1, &[0; 2])].concat();
        let ended = |kind, _, stream| stream == 1 && matches!(kind, HEADERS | RST_STREAM);
        let late = heard(&bed, &late, ended).await;
        assert!(late.iter().all(|(kind, _)| *kind != DATA), "{path}: {late:?}");
    }
    let whole = heard(&bed, &[PREFACE, &call(1), &question(1)].concat(), is_answer).await;
    let answer = |(kind, payload): &(u8, Vec<u8>)| *kind == DATA && payload.len() >= 5;
    assert!(whole.iter().any(answer), "{whole:?}");
}

#[actix_rt::test]
async fn a_connection_that_makes_no_other_call_is_told_to_leave_in_time() {
    assert_eq!(GrpcDoorConfig::default().idle_timeout, Duration::from_secs(600));
    let bed = bed_with(|config| {
        config.idle_timeout = Duration::from_millis(50);
        // Nothing but the time behind a call ends it.
        config.first_call_timeout = 10 * PATIENCE;
    });
    let said = [PREFACE, &call(1), &question(1)].concat();
    let heard = heard(&bed, &said, |_, _, _| false).await;
    let kinds: Vec<u8> = heard.iter().map(|(kind, _)| *kind).collect();
    let place = |kind| kinds.iter().position(|one| *one == kind);
    assert!(place(DATA) < place(GOAWAY) && place(DATA).is_some(), "{kinds:?}");
    let farewell = heard.iter().rfind(|(kind, _)| *kind == GOAWAY).unwrap();
    assert_eq!(farewell.1[4..8], [0; 4], "there is nothing wrong with it");
}

#[actix_rt::test]
async fn as_many_calls_as_the_bound_run_at_once_and_one_more_is_refused() {
    let bed = bed();
    let most = GrpcDoorConfig::default().max_calls_per_connection;
    assert_eq!(most, 256);
    let open = |count: u32| -> Vec<u8> { (0..count).flat_map(|number| call(2 * number + 1)).collect() };
    let last = 2 * (most - 1) + 1;
    // All are open before the last of them is asked anything.
    let said = [PREFACE, &open(most), &question(last)].concat();
    let answer = heard(&bed, &said, |kind, flags, stream| {
        kind == RST_STREAM || (kind == HEADERS && stream == last && flags & 1 != 0)
    })
    .await;
    assert_eq!(answer.last().map(|(kind, _)| *kind), Some(HEADERS));
    let said = [PREFACE, &open(most + 1)].concat();
    let refused = heard(&bed, &said, |kind, _, stream| kind == RST_STREAM && stream == last + 2).await;
    assert_eq!(
        refused.last(),
        Some(&(RST_STREAM, REFUSED_STREAM.to_vec())),
        "{refused:?}"
    );
    Client::new(&bed).await.works().await;
}

/// The headers of a call, whose list counts so many bytes: 32 for each beside its text (RFC 9113, section 6.5.2).
fn metadata(bytes: usize) -> Vec<u8> {
    let fields = [
        (":path", "/grpc.health.v1.Health/Check"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    // POST and http, by their numbers.
    let mut head = vec![0x83, 0x86];
    let mut counted = 2 * (7 + 4 + 32);
    for (name, value) in fields {
        head.extend(header(name, value));
        counted += name.len() + value.len() + 32;
    }
    while counted < bytes {
        let left = bytes - counted;
        // The last two share what is left, so that none is too short.
        let counts = if left > 250 {
            120
        } else if left > 120 {
            left / 2
        } else {
            left
        };
        head.extend(header("x", &"v".repeat(counts - 33)));
        counted += counts;
    }
    head
}

#[actix_rt::test]
async fn metadata_passes_below_sixteen_kibibytes_and_not_at_them() {
    let bed = bed();
    let answer = async |bytes| {
        let said = [PREFACE, &frame(HEADERS, END_HEADERS, 1, &metadata(bytes)), &question(1)].concat();
        let heard = heard(&bed, &said, is_answer).await;
        assert_eq!(heard.last().map(|(kind, _)| *kind), Some(HEADERS), "{heard:?}");
        heard.iter().any(|(kind, _)| *kind == DATA)
    };
    assert!(answer(MOST_METADATA - 1).await, "it is answered with a message");
    assert!(!answer(MOST_METADATA).await, "it is refused");
    Client::new(&bed).await.works().await;
}

#[actix_rt::test]
async fn cve_2024_27316_metadata_in_so_many_pieces_is_read_and_in_one_more_ends_the_connection() {
    let bed = bed();
    let in_pieces = |more: usize| {
        let head = metadata(1_000);
        let size = head.len().div_ceil(more + 1);
        let pieces: Vec<&[u8]> = head.chunks(size).collect();
        assert_eq!(pieces.len(), more + 1);
        let kind = |index| if index == 0 { HEADERS } else { CONTINUATION };
        let flags = |index| if index == more { END_HEADERS } else { 0 };
        let frames = pieces.iter().enumerate();
        let frames: Vec<u8> = frames
            .flat_map(|(index, piece)| frame(kind(index), flags(index), 1, piece))
            .collect();
        [PREFACE, &frames, &question(1)].concat()
    };
    for more in [1, MOST_CONTINUATIONS] {
        let heard = heard(&bed, &in_pieces(more), is_answer).await;
        assert!(heard.iter().any(|(kind, _)| *kind == DATA), "{more}: {heard:?}");
    }
    assert_eq!(why(&bed, &in_pieces(MOST_CONTINUATIONS + 1)).await, ENHANCE_YOUR_CALM);
    // And without an end.
    let endless = frame(CONTINUATION, 0, 1, &header("a", "b")).repeat(5 * mesh_wire::ALLOWANCE as usize);
    let said = [PREFACE, &frame(HEADERS, 0, 1, &metadata(500)), &endless].concat();
    assert_eq!(why(&bed, &said).await, ENHANCE_YOUR_CALM);
    Client::new(&bed).await.works().await;
}
