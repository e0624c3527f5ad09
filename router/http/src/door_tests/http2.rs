//! The door over HTTP/2 as a friendly client meets it: the same answers, and calls that end with their stream.

use std::collections::BTreeMap;

use h2::{
    Reason,
    client::{ResponseFuture, SendRequest},
};
use tokio::time::Instant;

use super::*;

pub(super) const PATIENCE: Duration = Duration::from_secs(20);
const INFER: &str = "/v2/models/echo/infer";
/// What is of each answer alone, or of its connection.
const OWN: [&str; 4] = ["x-request-id", "traceparent", "date", "connection"];

pub(super) async fn until(count: &watch::Sender<usize>, wanted: usize) {
    let mut count = count.subscribe();
    let reached = tokio::time::timeout(PATIENCE, count.wait_for(|count| *count >= wanted)).await;
    reached.expect("not within 20 s").unwrap();
}

/// A client that does what the protocol says.
#[derive(Clone)]
pub(super) struct Friend {
    send: SendRequest<Bytes>,
    key: String,
}

impl Friend {
    pub(super) async fn new(bed: &Bed) -> Self {
        let stream = TcpStream::connect(bed.door.addr()).await.unwrap();
        let (send, connection) = h2::client::handshake(stream).await.unwrap();
        bed.tasks.spawn("client", |_| async move {
            let _ = connection.await;
        });
        Self {
            send,
            key: bed.key.clone(),
        }
    }

    fn request(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> http::Request<()> {
        let request = http::Request::builder().method(method);
        let request = request.uri(format!("http://mesh{path}"));
        let request = request.header("authorization", format!("Bearer {}", self.key));
        let with = |request: http::request::Builder, (name, value): &(&str, &str)| request.header(*name, *value);
        headers.iter().fold(request, with).body(()).unwrap()
    }

    async fn begin(&self, request: http::Request<()>, body: &[u8]) -> ResponseFuture {
        let mut send = self.send.clone().ready().await.unwrap();
        let (response, mut stream) = send.send_request(request, body.is_empty()).unwrap();
        let mut body = Bytes::copy_from_slice(body);
        while !body.is_empty() {
            stream.reserve_capacity(body.len());
            let room = std::future::poll_fn(|context| stream.poll_capacity(context)).await;
            // A stream that was answered before it was read takes no more.
            let Some(Ok(room)) = room else { break };
            let piece = body.split_to(room.min(body.len()));
            if stream.send_data(piece, body.is_empty()).is_err() {
                break;
            }
        }
        response
    }

    async fn begin_infer(&self, model: &str) -> ResponseFuture {
        let request = self.request("POST", &format!("/v2/models/{model}/infer"), &[]);
        self.begin(request, GOOD.as_bytes()).await
    }

    async fn ask(&self, request: http::Request<()>, body: &[u8]) -> Reply {
        let response = self.begin(request, body).await;
        let response = tokio::time::timeout(PATIENCE, response)
            .await
            .expect("no answer within 20 s");
        reply(response.unwrap()).await
    }

    pub(super) async fn post(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        self.ask(self.request("POST", path, headers), body).await
    }

    pub(super) async fn works(&self) {
        let reply = self.post(INFER, &[], GOOD.as_bytes()).await;
        assert_eq!(reply.status, 200, "{:?}", reply.body);
    }
}

async fn reply(response: http::Response<h2::RecvStream>) -> Reply {
    let (head, mut stream) = response.into_parts();
    let mut body = Vec::new();
    while let Some(piece) = stream.data().await {
        let piece = piece.unwrap();
        stream.flow_control().release_capacity(piece.len()).unwrap();
        body.extend_from_slice(&piece);
    }
    let text = |value: &http::HeaderValue| value.to_str().unwrap().to_owned();
    let headers = head.headers.iter();
    Reply {
        status: head.status.as_u16(),
        headers: headers.map(|(name, value)| (name.to_string(), text(value))).collect(),
        body: body.into(),
    }
}

fn said(reply: &Reply) -> (u16, BTreeMap<&str, &str>, &Bytes) {
    let headers = reply.headers.iter();
    let headers = headers.map(|(name, value)| (&**name, &**value));
    let common = headers.filter(|(name, _)| !OWN.contains(name));
    (reply.status, common.collect(), &reply.body)
}

#[actix_web::test]
async fn answers_over_http_2_are_those_over_http_1_1_to_the_byte() {
    let bed = bed_with(TenantLimits::default(), |config| {
        config.max_body_bytes = 4 * 1024 * 1024;
        config.cors = Some("https://a.example".parse().unwrap());
    });
    let (mut old, new) = (Client::new(&bed).await, Friend::new(&bed).await);
    let elements = 500_000;
    let json = format!(
        r#"{{"parameters":{{"binary_data_output":true}},"inputs":[{{"name":"INPUT0","datatype":"INT32","shape":[1,{elements}],"parameters":{{"binary_data_size":{}}}}}]}}"#,
        elements * 4
    );
    let large = [json.as_bytes(), &vec![7; elements * 4]].concat();
    let length = json.len().to_string();
    let many = format!(
        r#"{{"inputs":[{{"name":"INPUT0","datatype":"INT32","shape":[1,2000],"data":{:?}}}]}}"#,
        [1; 2000]
    );
    let generate = br#"{"id":"7","INPUT0":[1,-2]}"#;
    let v1 = br#"{"instances":[[1,2]]}"#;
    type Case<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], &'a [u8]);
    let calls: &[Case<'_>] = &[
        ("POST", INFER, &[], GOOD.as_bytes()),
        ("POST", "/v2/models/split/versions/1/infer", &[], GOOD.as_bytes()),
        ("POST", INFER, &[("inference-header-content-length", &length)], &large),
        ("POST", INFER, &[("accept-encoding", "gzip")], many.as_bytes()),
        ("POST", INFER, &[("content-encoding", "br")], b"x"),
        ("POST", INFER, &[("x-request-timeout-ms", "soon")], GOOD.as_bytes()),
        ("POST", INFER, &[("origin", "https://a.example")], b"{"),
        ("POST", "/v2/models/full/infer", &[], GOOD.as_bytes()),
        ("POST", "/v2/models/none/infer", &[], GOOD.as_bytes()),
        ("POST", "/v2/models/panics/infer", &[], GOOD.as_bytes()),
        ("POST", "/v2/models/echo/generate", &[], generate),
        ("POST", "/v2/models/echo/generate_stream", &[], generate),
        ("POST", "/v1/models/echo:predict", &[], v1),
        ("GET", "/v2?any=query", &[], b""),
        ("GET", "/v2/models/echo", &[], b""),
        ("GET", "/v2/health/ready", &[], b""),
        ("GET", "/v2/docs", &[], b""),
        ("GET", "//v2", &[], b""),
        ("DELETE", "/v2", &[], b""),
        (
            "OPTIONS",
            INFER,
            &[
                ("origin", "https://a.example"),
                ("access-control-request-method", "POST"),
            ],
            b"",
        ),
    ];
    for (method, path, headers, body) in calls {
        let lines: String = headers
            .iter()
            .map(|(name, value)| format!("{name}: {value}\r\n"))
            .collect();
        let bytes = old.post_bytes(path, &lines, body);
        let bytes = [method.as_bytes(), &bytes["POST".len()..]].concat();
        let (before, now) = (
            old.raw(&bytes).await,
            new.ask(new.request(method, path, headers), body).await,
        );
        assert_eq!(said(&before), said(&now), "{method} {path}");
        for name in ["x-request-id", "date"] {
            assert_eq!(
                before.header(name).map(str::len),
                now.header(name).map(str::len),
                "{method} {path} {name}"
            );
        }
    }
    let anonymous = http::Request::post(format!("http://mesh{INFER}")).body(()).unwrap();
    let refused = new.ask(anonymous, GOOD.as_bytes()).await;
    assert_eq!(
        (refused.status, refused.header("www-authenticate")),
        (401, Some("Bearer realm=\"mesh\""))
    );
    let head = new.ask(new.request("HEAD", "/v2", &[]), b"").await;
    assert!(
        head.body.is_empty() && head.header("content-length") != Some("0"),
        "{:?}",
        head.headers
    );
}

#[actix_web::test]
async fn calls_of_one_connection_overtake_each_other() {
    let bed = bed();
    let friend = Friend::new(&bed).await;
    let slow = friend.begin_infer("never").await;
    until(&bed.workers.waiting, 1).await;
    for _ in 0..3 {
        let broken = friend.post("/v2/models/panics/infer", &[], GOOD.as_bytes()).await;
        assert_eq!(broken.status, 500);
        friend.works().await;
    }
    bed.workers.release.send_replace(true);
    assert_eq!(slow.await.unwrap().status(), 200);
}

#[actix_web::test]
async fn a_call_that_is_taken_back_cancels_its_job_and_no_other() {
    let bed = bed();
    let friend = Friend::new(&bed).await;
    let (back, stays) = (friend.begin_infer("never").await, friend.begin_infer("never").await);
    until(&bed.workers.waiting, 2).await;
    drop(back);
    until(&bed.workers.cancelled, 1).await;
    friend.works().await;
    assert_eq!(*bed.workers.cancelled.borrow(), 1);
    bed.workers.release.send_replace(true);
    assert_eq!(stays.await.unwrap().status(), 200);
}

#[actix_web::test]
async fn a_connection_that_goes_cancels_all_its_jobs() {
    let bed = bed();
    let stream = TcpStream::connect(bed.door.addr()).await.unwrap();
    let (send, connection) = h2::client::handshake(stream).await.unwrap();
    let friend = Friend {
        send,
        key: bed.key.clone(),
    };
    {
        let mut connection = std::pin::pin!(connection);
        let calls = async {
            let calls = [friend.begin_infer("never").await, friend.begin_infer("never").await];
            until(&bed.workers.waiting, 2).await;
            calls
        };
        tokio::select! {
            _ = &mut connection => panic!("the connection ended"),
            _ = calls => {}
        }
    }
    until(&bed.workers.cancelled, 2).await;
}

#[actix_web::test]
async fn bodies_over_http_2_have_the_bounds_of_http_1_1() {
    const SMALL: usize = 1_000;
    let bed = bed_with(TenantLimits::default(), |config| {
        config.max_body_bytes = SMALL;
        config.body_timeout = Duration::from_millis(50);
    });
    let friend = Friend::new(&bed).await;
    let padded = |bytes: usize| [GOOD.as_bytes(), &vec![b' '; bytes - GOOD.len()]].concat();
    assert_eq!(friend.post(INFER, &[], &padded(SMALL)).await.status, 200);
    assert_eq!(friend.post(INFER, &[], &padded(SMALL + 1)).await.status, 413);
    // Many times what may be sent before it is read: the answer comes before the end.
    let endless = friend.post(INFER, &[], &padded(8 * 1024 * 1024)).await;
    assert_eq!(endless.status, 413);
    let declared = friend.request("POST", INFER, &[("content-length", "1099511627776")]);
    let mut send = friend.send.clone().ready().await.unwrap();
    let (response, _stream) = send.send_request(declared, false).unwrap();
    assert_eq!(response.await.unwrap().status(), 413);
    let (response, _never_ends) = send.send_request(friend.request("POST", INFER, &[]), false).unwrap();
    assert_eq!(response.await.unwrap().status(), 408);
    friend.works().await;
}

#[actix_web::test]
async fn a_list_of_headers_passes_below_the_bound_and_not_at_it() {
    let bed = bed();
    let friend = Friend::new(&bed).await;
    // RFC 9113, section 6.5.2; the path and method are headers too.
    let size = |request: &http::Request<()>| {
        let pseudo = [
            (":method", request.method().as_str()),
            (":scheme", "http"),
            (":authority", "mesh"),
            (":path", request.uri().path()),
        ];
        let headers = request.headers().iter();
        let headers: usize = headers
            .map(|(name, value)| name.as_str().len() + value.len() + 32)
            .sum();
        let pseudo: usize = pseudo.iter().map(|(name, value)| name.len() + value.len() + 32).sum();
        headers + pseudo
    };
    let of = |bytes: usize| {
        let empty = size(&friend.request("GET", "/v2", &[("x-long", "")]));
        let request = friend.request("GET", "/v2", &[("x-long", &"x".repeat(bytes - empty))]);
        assert_eq!(size(&request), bytes);
        request
    };
    assert_eq!(friend.ask(of(16 * 1024 - 1), b"").await.status, 200);
    assert_eq!(friend.ask(of(16 * 1024), b"").await.status, 431);
    let many = |count: usize| {
        let mut request = friend.request("GET", "/v2", &[]);
        for at in 1..count {
            let name = http::HeaderName::try_from(format!("x-{at}")).unwrap();
            request.headers_mut().insert(name, http::HeaderValue::from_static("1"));
        }
        request
    };
    assert_eq!(friend.ask(many(100), b"").await.status, 200);
    let refused = friend.ask(many(101), b"").await;
    assert_eq!(
        (refused.status, refused.error()),
        (431, "a request has at most 100 headers".to_owned())
    );
    friend.works().await;
}

#[actix_web::test]
async fn as_many_connections_as_the_bound_are_served_and_one_more_waits_for_a_place() {
    let bed = bed_with(TenantLimits::default(), |config| config.max_connections_per_worker = 2);
    let (mut old, new) = (Client::new(&bed).await, Friend::new(&bed).await);
    old.works().await;
    new.works().await;
    let mut waits = Client::new(&bed).await;
    let bytes = waits.post_bytes(INFER, "", GOOD.as_bytes());
    waits.stream.write_all(&bytes).await.unwrap();
    for _ in 0..20 {
        old.works().await;
        new.works().await;
    }
    let early = tokio::time::timeout(Duration::from_millis(50), waits.stream.readable()).await;
    assert!(early.is_err(), "answered though every place was taken");
    drop(new);
    assert_eq!(waits.reply().await.status, 200);
    old.works().await;
}

#[actix_web::test]
async fn a_caller_on_this_machine_is_local_over_http_2_too() {
    let local = mesh_router::LocalTenant::new(TenantId::parse("acme").unwrap());
    let bed = bed_with(TenantLimits::default(), |config| config.local_tenant = Some(local));
    let friend = Friend::new(&bed).await;
    let anonymous = || http::Request::post(format!("http://mesh{INFER}"));
    let known = friend.ask(anonymous().body(()).unwrap(), GOOD.as_bytes()).await;
    assert_eq!(known.status, 200);
    let claims = anonymous().header("x-forwarded-for", "127.0.0.1").body(()).unwrap();
    assert_eq!(friend.ask(claims, GOOD.as_bytes()).await.status, 401);
}

#[actix_web::test]
async fn a_stop_with_idle_connections_is_quick_and_finishes_what_is_under_way() {
    let bed = bed();
    let (mut old, idle, busy) = (
        Client::new(&bed).await,
        Friend::new(&bed).await,
        Friend::new(&bed).await,
    );
    old.works().await;
    idle.works().await;
    let under_way = busy.begin_infer("never").await;
    until(&bed.workers.waiting, 1).await;
    let begun = Instant::now();
    let (stopped, status) = futures::join!(bed.door.stop(PATIENCE), async {
        // The one that is idle is told at once, while the other's call goes on.
        let gone = async {
            while idle.send.clone().ready().await.is_ok() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, gone)
            .await
            .expect("still there after 20 s");
        bed.workers.release.send_replace(true);
        under_way.await.unwrap().status()
    });
    assert!(stopped && status == 200, "{status}");
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    assert!(TcpStream::connect(bed.door.addr()).await.is_err());
}

#[actix_web::test]
async fn an_idle_connection_is_told_to_leave_in_time_and_a_busy_one_is_not() {
    let bed = bed_with(TenantLimits::default(), |config| {
        config.keep_alive = Duration::from_millis(50);
    });
    let busy = Friend::new(&bed).await;
    let slow = busy.begin_infer("never").await;
    let idle = Friend::new(&bed).await;
    let gone = async {
        while idle.send.clone().ready().await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, gone)
        .await
        .expect("still there after 20 s");
    bed.workers.release.send_replace(true);
    assert_eq!(slow.await.unwrap().status(), 200);
}

#[actix_web::test]
async fn what_http_2_forbids_is_refused_at_its_stream() {
    let bed = bed();
    let friend = Friend::new(&bed).await;
    let broken = [("content-length", "5"), ("content-length", "2000")];
    for (name, value) in broken {
        let request = friend.request("POST", "/v2/models/never/infer", &[(name, value)]);
        let response = friend.begin(request, GOOD.as_bytes()).await;
        let reason = match tokio::time::timeout(PATIENCE, response).await.unwrap() {
            Ok(response) => panic!("{value}: answered with {}", response.status()),
            Err(error) => error.reason(),
        };
        assert_eq!(reason, Some(Reason::PROTOCOL_ERROR), "{value}");
    }
    assert_eq!(
        *bed.workers.waiting.borrow(),
        0,
        "a request that lies about its length runs nowhere"
    );
    friend.works().await;
}

#[actix_web::test]
async fn who_leaves_in_the_midst_of_the_preface_is_gone_at_once_and_stops_nobody() {
    let bed = bed();
    for said in ["P", "PRI * H", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r"] {
        let mut half = TcpStream::connect(bed.door.addr()).await.unwrap();
        half.write_all(said.as_bytes()).await.unwrap();
        half.shutdown().await.unwrap();
        let mut heard = Vec::new();
        let ended = half.read_to_end(&mut heard);
        let ended = tokio::time::timeout(Duration::from_secs(5), ended).await;
        // Whether the end is a reset, since what was said is never taken, is the system's to say.
        let _ = ended.expect("still there after 5 s");
        assert!(heard.is_empty(), "{said:?}");
    }
    Friend::new(&bed).await.works().await;
}
