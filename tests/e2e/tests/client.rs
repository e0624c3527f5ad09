//! The client that tenants use, on both wires: what it sends comes back to the bit, its deadlines hold, and it sends again only
//! what is safe to be sent again.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use mesh_client::{Answer, Client, DataType, Element, Error, FaultClass, Input, Sequence, TraceContext};
use mesh_e2e::counted;
use mesh_harness::{Caller, Mesh, PATIENCE, builtin, eventually, identity};
use serde_json::{Value, json};

mod client {
    pub(crate) mod fakes;
}
use client::fakes::{FakeGrpc, FakeHttp};

/// An identity of one datatype.
fn identity_of(datatype: DataType) -> Value {
    let tensor = |name: &str| json!({"name": name, "datatype": datatype.as_str(), "dims": [-1]});
    let config = json!({
        "max_batch_size": 8, "input": [tensor("x")], "output": [tensor("y")], "parameters": {"builtin": "identity"},
    });
    json!({"format": "builtin", "config": config})
}

/// The same client on both wires.
fn both(mesh: &Mesh, caller: &Caller) -> anyhow::Result<[Client; 2]> {
    Ok([caller.client()?, mesh.grpc_client(caller.key())?])
}

async fn back(client: &Client, input: &Input, datatype: DataType) -> anyhow::Result<Answer> {
    let model = format!("same-{}", datatype.as_str().to_lowercase());
    let answer = client.model(&model).infer([input.clone()]).await?;
    ensure!(answer.version == "1" && answer.model == model, "{answer:?}");
    Ok(answer)
}

/// Sends elements there and back, by every way in which they can be read.
async fn same<T: Element + PartialEq + std::fmt::Debug>(client: &Client, elements: &[T]) -> anyhow::Result<()> {
    let count = u64::try_from(elements.len())?;
    let mut shapes = vec![[1, count]];
    if count.is_multiple_of(2) {
        shapes.push([2, count / 2]);
    }
    for shape in shapes {
        let input = Input::new("x", shape, elements)?;
        let answer = back(client, &input, T::DATATYPE).await?;
        let output = answer.output("y")?;
        // To the bit: NaN is not equal to itself, and -0.0 is to 0.0.
        let wanted = Input::new("y", shape, elements)?;
        let read = Input::new("y", shape, &output.to_vec::<T>()?)?;
        ensure!(read == wanted, "{output:?} instead of {elements:?}");
        ensure!(
            output.shape() == shape && output.datatype() == T::DATATYPE,
            "{output:?}"
        );
        let seen = Input::new("y", shape, &output.values::<T>()?)?;
        ensure!(seen == wanted, "{output:?} instead of {elements:?}");
    }
    Ok(())
}

#[tokio::test]
async fn every_datatype_comes_back_to_the_bit_on_both_wires() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    let caller = mesh.tenant("acme").await?;
    for datatype in DataType::ALL {
        let model = format!("same-{}", datatype.as_str().to_lowercase());
        mesh.admin()?.publish("acme", &model, &identity_of(datatype)).await?;
        caller.until_ready(&model).await?;
    }
    for client in both(&mesh, &caller)? {
        same(&client, &[true, false]).await?;
        same(&client, &[0, 1, u8::MAX]).await?;
        same(&client, &[0, 1, u16::MAX]).await?;
        same(&client, &[0, 1, u32::MAX, 7]).await?;
        same(&client, &[0, 1, u64::MAX]).await?;
        same(&client, &[0, i8::MIN, i8::MAX]).await?;
        same(&client, &[0, i16::MIN, i16::MAX]).await?;
        same(&client, &[0, i32::MIN, i32::MAX]).await?;
        same(&client, &[0, i64::MIN, i64::MAX, -1]).await?;
        let odd = f32::from_bits(0x7fc0_1234);
        let least = [f32::MIN_POSITIVE, f32::from_bits(1), f32::MAX, f32::MIN];
        let special = [f32::NAN, odd, f32::INFINITY, f32::NEG_INFINITY, -0.0, 0.0];
        same(&client, &[&special[..], &least].concat()).await?;
        let special = [
            f64::NAN,
            f64::INFINITY,
            f64::NEG_INFINITY,
            -0.0,
            f64::MAX,
            f64::from_bits(1),
        ];
        same(&client, &special).await?;
        for datatype in [DataType::Fp16, DataType::Bf16] {
            let bits = [0x3c00, 0xfc00, 0x7e01, 0x8000, 1, u16::MAX];
            let answer = back(&client, &Input::half("x", datatype, [2, 3], &bits)?, datatype).await?;
            assert_eq!(*answer.output("y")?.bits()?, bits);
        }
        let words = [&b"a\0b"[..], b"", "\u{e4}".as_bytes(), b"\xff\xfe", &[0; 70_000]];
        let answer = back(&client, &Input::bytes("x", [1, 5], words)?, DataType::Bytes).await?;
        assert_eq!(answer.output("y")?.elements()?.collect::<Vec<_>>(), words);
        // No elements, of every datatype.
        for datatype in DataType::ALL {
            let answer = back(&client, &Input::raw("x", datatype, [1, 0], Bytes::new())?, datatype).await?;
            let output = answer.output("y")?;
            assert_eq!((output.shape(), output.data().len()), (&[1, 0][..], 0), "{datatype}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn large_tensors_are_read_where_they_lie() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    let caller = mesh.tenant("acme").await?;
    mesh.admin()?.publish("acme", "m", &identity()).await?;
    caller.until_ready("m").await?;
    let numbers: Vec<f32> = (0..=u16::MAX).map(f32::from).cycle().take(500_000).collect();
    for client in both(&mesh, &caller)? {
        for columns in [499_999, 500_000] {
            let input = Input::new("x", [1, columns], &numbers[..usize::try_from(columns)?])?;
            let answer = client.model("m").infer([input]).await?;
            let output = answer.output("y")?;
            assert!(*output.values::<f32>()? == numbers[..usize::try_from(columns)?]);
        }
    }
    // Over HTTP the first output always lies right.
    let input = Input::new("x", [1, 3], &numbers[..3])?;
    let answer = caller
        .client()?
        .model("m")
        .request()
        .id("xyz")
        .input(input)
        .send()
        .await?;
    assert_eq!(answer.output("y")?.as_slice::<f32>()?, &numbers[..3]);
    Ok(())
}

/// A mesh with an identity `m` behind the endpoint `front`, and one that takes 400 ms.
async fn ready() -> anyhow::Result<(Mesh, Caller)> {
    let mesh = Mesh::start().await?;
    let caller = mesh.tenant("acme").await?;
    let admin = mesh.admin()?;
    admin.publish("acme", "m", &identity()).await?;
    admin
        .publish("acme", "slow", &builtin("busy", &json!({"busy_us": 400_000})))
        .await?;
    let sticky = json!({"sticky_by": "user"});
    admin
        .endpoint_with("acme", "front", &[("main", "m", "", 100.0)], sticky)
        .await?;
    for name in ["m", "slow", "front"] {
        caller.until_ready(name).await?;
    }
    Ok((mesh, caller))
}

fn one() -> anyhow::Result<Input> {
    Ok(Input::new("x", [1, 2], &[1.0_f32, 2.0])?)
}

#[tokio::test]
async fn both_wires_say_the_same_about_the_server_and_its_models() -> anyhow::Result<()> {
    let (mesh, caller) = ready().await?;
    let [http, grpc] = both(&mesh, &caller)?;
    http.model("m").infer([one()?]).await?;
    assert_eq!(http.server_metadata().await?, grpc.server_metadata().await?);
    for client in [&http, &grpc] {
        assert!(client.is_live().await? && client.is_ready().await?);
        assert!(client.model("m").version(1).is_ready().await?);
        let missing = client.model("none").metadata().await.map(drop).unwrap_err();
        assert_eq!((missing.class(), missing.may_retry()), (FaultClass::NotFound, false));
        assert!(missing.to_string().contains("unknown model"), "{missing}");
        let version = client
            .model("m")
            .version(7)
            .infer([one()?])
            .await
            .map(drop)
            .unwrap_err();
        assert_eq!(version.class(), FaultClass::NotFound, "{version}");
    }
    let (metadata, model) = (http.model("m").metadata().await?, grpc.model("m"));
    assert_eq!(metadata, model.metadata().await?);
    assert_eq!(
        (metadata.inputs[0].datatype, &metadata.inputs[0].shape[..]),
        (DataType::Fp32, &[-1, -1][..])
    );
    assert_eq!(http.model("m").config().await?, model.config().await?);
    assert_eq!(http.index(true).await?, grpc.index(true).await?);
    let (mut statistics, mut same) = (http.model("m").statistics().await?, model.statistics().await?);
    // A moment that is told as one and kept as a distance from now.
    for one in statistics.iter_mut().chain(&mut same) {
        assert!(one.last_inference > 0);
        one.last_inference = 0;
    }
    assert_eq!(statistics, same);
    assert_eq!(
        (
            statistics[0].inference_count,
            statistics[0].inference_stats.success.count
        ),
        (1, 1)
    );
    assert!(statistics[0].inference_stats.compute_infer.ns > 0);
    assert_eq!(http.statistics().await?.len(), 2);
    Ok(())
}

#[tokio::test]
async fn a_request_says_who_it_is_for_and_part_of_what() -> anyhow::Result<()> {
    let (mesh, caller) = ready().await?;
    let trace: TraceContext = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".parse()?;
    for client in both(&mesh, &caller)? {
        let request = client
            .model("front")
            .request()
            .input(one()?)
            .output("y")
            .id("7")
            .unit("ada");
        let request = request.priority(1).parameter("share", 0.5).trace(trace);
        let answer = request.timeout(PATIENCE).send().await?;
        assert_eq!((answer.id.as_deref(), answer.arm.as_deref()), (Some("7"), Some("main")));
        assert_eq!(answer.trace.context("no trace")?.trace_id, trace.trace_id);
        assert_eq!(answer.request_id.context("no number")?.len(), 32);
        let refused = client.model("front").request().input(one()?).output("z").send().await;
        let refused = refused.map(drop).unwrap_err();
        assert_eq!(refused.class(), FaultClass::InvalidArgument, "{refused}");
        assert!(refused.http_status() == Some(400) || refused.grpc_code() == Some(3));
    }
    let strangers = [
        Client::http(&format!("http://{}", mesh.addresses().http)),
        Client::grpc(&format!("http://{}", mesh.addresses().grpc)),
    ];
    for stranger in strangers {
        let refused = stranger
            .build()?
            .model("m")
            .infer([one()?])
            .await
            .map(drop)
            .unwrap_err();
        assert_eq!(refused.class(), FaultClass::Unauthenticated, "{refused}");
    }
    Ok(())
}

#[tokio::test]
async fn a_deadline_holds_at_the_server_and_where_there_is_only_silence() -> anyhow::Result<()> {
    let (mesh, caller) = ready().await?;
    for client in both(&mesh, &caller)? {
        // The model's own time is known by then, so the mesh may say at once that it is too short.
        client.model("slow").infer([one()?]).await?;
        let request = client.model("slow").request().input(one()?);
        let late = request
            .timeout(Duration::from_millis(60))
            .send()
            .await
            .map(drop)
            .unwrap_err();
        let classes = [FaultClass::DeadlineExceeded, FaultClass::Unavailable];
        assert!(classes.contains(&late.class()), "{late}");
    }
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", silent.local_addr()?);
    for builder in [Client::http(&url), Client::grpc(&url)] {
        let client = builder.timeout(Duration::from_millis(80)).build()?;
        let begun = Instant::now();
        let late = client.model("m").infer([one()?]).await.map(drop).unwrap_err();
        assert_eq!(late, Error::Deadline(Duration::from_millis(80)));
        assert!(begun.elapsed() < PATIENCE);
    }
    Ok(())
}

async fn under_way(mesh: &Mesh) -> anyhow::Result<u64> {
    let overview = mesh.admin()?.get("/overview").await?;
    overview["in_flight"].as_u64().context("no number of requests")
}

#[tokio::test]
async fn a_call_that_is_dropped_is_cancelled_on_the_server() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    let caller = mesh.tenant("acme").await?;
    let slow = builtin("busy", &json!({"busy_us": 1_500_000}));
    mesh.admin()?.publish("acme", "slow", &slow).await?;
    caller.until_ready("slow").await?;
    for (turn, client) in both(&mesh, &caller)?.into_iter().enumerate() {
        let call = async {
            let answer = client.model("slow").infer([one()?]).await;
            anyhow::bail!("it was answered: {answer:?}")
        };
        // The overview follows what happens a moment later.
        eventually("nothing is under way", || async {
            Ok((under_way(&mesh).await? == 0).then_some(()))
        })
        .await?;
        let begun = eventually("the call is under way", || async {
            Ok((under_way(&mesh).await? > 0).then_some(()))
        });
        tokio::select! {
            answered = call => answered?,
            begun = begun => begun?,
        }
        eventually("the call is cancelled", || async {
            let metrics = mesh.metrics().await?;
            let left = counted(&metrics, "mesh_requests_total", &["\"slow\"", "outcome=\"client\""]);
            Ok((left > turn as f64).then_some(()))
        })
        .await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_stream_answers_in_order_goes_on_after_an_error_and_ends_at_its_deadline() -> anyhow::Result<()> {
    let (mesh, caller) = ready().await?;
    let client = mesh.grpc_client(caller.key())?;
    let (requests, mut answers) = client.stream().open()?;
    let (m, none) = (client.model("m"), client.model("none"));
    let sending = async {
        // More than may wait, so that sending and reading go on side by side.
        for number in 0..200_u16 {
            let x = Input::new("x", [1, 1], &[f32::from(number)])?;
            let model = if number == 7 { &none } else { &m };
            requests.send(model.request().id(&number.to_string()).input(x)).await?;
        }
        drop(requests);
        anyhow::Ok(())
    };
    let reading = async {
        for number in 0..200_u16 {
            match answers.next().await.context("it ended")? {
                Ok(answer) => {
                    assert_eq!(answer.id, Some(number.to_string()));
                    assert_eq!(answer.output("y")?.to_vec::<f32>()?, [f32::from(number)]);
                }
                Err(Error::OnStream { id, message }) => {
                    assert_eq!((number, id.as_deref()), (7, Some("7")));
                    assert!(message.contains("unknown model"), "{message}");
                }
                Err(error) => return Err(error.into()),
            }
        }
        assert!(answers.next().await.is_none());
        anyhow::Ok(())
    };
    tokio::try_join!(sending, reading)?;
    let (requests, mut answers) = client.stream().timeout(Duration::from_millis(100)).open()?;
    requests.send(client.model("slow").request().input(one()?)).await?;
    let late = answers.next().await.context("it ended")?.map(drop).unwrap_err();
    let on_stream = matches!(&late, Error::OnStream { message, .. } if message.contains("deadline"));
    assert!(on_stream || late.class() == FaultClass::DeadlineExceeded, "{late}");
    let stranger = Client::grpc(&format!("http://{}", mesh.addresses().grpc)).build()?;
    let (_requests, mut answers) = stranger.stream().open()?;
    let refused = answers.next().await.context("it ended")?.map(drop).unwrap_err();
    assert_eq!(refused.class(), FaultClass::Unauthenticated, "{refused}");
    assert!(answers.next().await.is_none());
    Ok(())
}

#[tokio::test]
async fn over_http_only_what_is_marked_is_sent_again_and_a_step_never() -> anyhow::Result<()> {
    let mark = &[("retry-after", "1"), ("retry-after-ms", "1")][..];
    for status in [429, 503] {
        let fake = FakeHttp::start(vec![(status, mark), (status, mark), (200, &[])]).await?;
        let client = Client::http(&fake.url()).retries(2).build()?;
        let answer = client.model("m").infer([one()?]).await?;
        assert_eq!((answer.version.as_str(), fake.requests()), ("1", 3));
    }
    let fake = FakeHttp::start(vec![(503, mark); 5]).await?;
    let refused = Client::http(&fake.url())
        .retries(2)
        .build()?
        .model("m")
        .infer([one()?])
        .await;
    let refused = refused.map(drop).unwrap_err();
    assert_eq!((refused.http_status(), fake.requests()), (Some(503), 3));
    assert_eq!(refused.retry_after(), Some(Duration::from_millis(1)));
    // Past the deadline there is no further try.
    let slowly = &[("retry-after", "3600")][..];
    for (answer, step) in [
        ((503, slowly), false),
        ((503, &[][..]), false),
        ((500, mark), false),
        ((400, mark), false),
        ((504, mark), false),
        ((503, mark), true),
        ((FakeHttp::BREAK, &[][..]), false),
    ] {
        let fake = FakeHttp::start(vec![answer; 3]).await?;
        let client = Client::http(&fake.url()).retries(5).timeout(PATIENCE).build()?;
        let mut request = client.model("m").request().input(one()?);
        if step {
            request = request.sequence(Sequence::number(7).start());
        }
        let failed = request.send().await.map(drop).unwrap_err();
        assert_eq!(fake.requests(), 1, "{answer:?}: {failed}");
    }
    Ok(())
}

#[tokio::test]
async fn over_grpc_only_what_may_be_is_sent_again_and_a_step_never() -> anyhow::Result<()> {
    let soon = Some("1");
    for code in [14, 8] {
        let fake = FakeGrpc::start(vec![(code, soon), (code, soon), (0, None)]).await?;
        let client = Client::grpc(&fake.url()).retries(2).connections(1).build()?;
        let answer = client.model("m").infer([one()?]).await?;
        assert_eq!((answer.model.as_str(), fake.requests()), ("m", 3));
    }
    let fake = FakeGrpc::start(vec![(14, None), (0, None)]).await?;
    let client = Client::grpc(&fake.url()).connections(1).build()?;
    client.model("m").infer([one()?]).await?;
    assert_eq!(fake.requests(), 2);
    for (answer, step) in [
        ((14, Some("-1")), false),
        ((14, Some("3600000")), false),
        ((8, None), false),
        ((13, soon), false),
        ((4, soon), false),
        ((14, soon), true),
        ((FakeGrpc::BREAK, None), false),
    ] {
        let fake = FakeGrpc::start(vec![answer; 3]).await?;
        let client = Client::grpc(&fake.url())
            .retries(5)
            .timeout(PATIENCE)
            .connections(1)
            .build()?;
        let mut request = client.model("m").request().input(one()?);
        if step {
            request = request.sequence(Sequence::text("s"));
        }
        let failed = request.send().await.map(drop).unwrap_err();
        assert_eq!(fake.requests(), 1, "{answer:?}: {failed}");
    }
    Ok(())
}

#[tokio::test]
async fn where_nobody_is_nothing_was_sent_and_a_message_beyond_the_bound_is_not_begun() -> anyhow::Result<()> {
    // A door that was there and is gone.
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", gone.local_addr()?);
    drop(gone);
    for builder in [Client::http(&url), Client::grpc(&url)] {
        let client = builder.retries(1).build()?;
        let failed = client.model("m").infer([one()?]).await.map(drop).unwrap_err();
        assert!(
            matches!(failed, Error::Unreachable(_)) && failed.may_retry(),
            "{failed:?}"
        );
    }
    let (mesh, caller) = ready().await?;
    for (builder, bound) in [
        (Client::http(&format!("http://{}", mesh.addresses().http)), 400),
        (Client::grpc(&format!("http://{}", mesh.addresses().grpc)), 300),
    ] {
        let client = builder.api_key(caller.key()).max_message_bytes(bound).build()?;
        client.model("m").infer([one()?]).await?;
        let large = Input::new("x", [1, 200], &[0.0_f32; 200])?;
        let failed = client.model("m").infer([large]).await.map(drop).unwrap_err();
        assert_eq!(
            failed,
            Error::TooLarge {
                what: "the request",
                limit: bound
            }
        );
    }
    for builder in [
        Client::http(&format!("http://{}", mesh.addresses().http)),
        Client::grpc(&format!("http://{}", mesh.addresses().grpc)),
    ] {
        let bound = 40;
        let failed = builder.max_message_bytes(bound).build()?.server_metadata().await;
        let what = "the answer";
        assert_eq!(failed, Err(Error::TooLarge { what, limit: bound }));
    }
    Ok(())
}
