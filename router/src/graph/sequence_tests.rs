//! Sequences through ensembles: who is told of them, where their state stays, and in which order they travel.

use mesh_types::{CorrelationId, SequenceBatching, SequenceStep};

use super::*;

/// A model that keeps a state, ready on these devices.
fn stateful(model: &str, number: u32, devices: &[DeviceId]) -> Arc<VersionEntry> {
    let mut entry = VersionEntry::clone(&version(model, number, devices.to_vec()));
    let mut config = ModelConfig::clone(&entry.config);
    config.sequence_batching = Some(SequenceBatching::default());
    entry.config = Arc::new(config);
    Arc::new(entry)
}

const BOTH: [DeviceId; 2] = [DeviceId::cpu(0), DeviceId::cpu(1)];

fn graph() -> Value {
    json!({"steps": [one("plain", "x", "a"), one("sum", "a", "y")]})
}

fn publish(bed: &Bed, graph: &Value, sum: Arc<VersionEntry>) {
    let pipe = ensemble(graph, &["y"], &[("sum", sum)], &[]);
    bed.publish(TenantLimits::default(), &[("pipe", target(pipe))]);
}

fn bed_of(sum: Arc<VersionEntry>) -> Bed {
    let bed = Bed::new();
    publish(&bed, &graph(), sum);
    bed
}

fn step(bed: &Bed, id: i64, (start, end): (bool, bool)) -> Call {
    let mut call = bed.call("acme", "pipe");
    for (name, value) in [
        ("sequence_id", ParameterValue::Int(id)),
        ("sequence_start", ParameterValue::Bool(start)),
        ("sequence_end", ParameterValue::Bool(end)),
    ] {
        call.request.parameters.insert(name.to_owned(), value);
    }
    call
}

const FIRST: (bool, bool) = (true, false);
const NEXT: (bool, bool) = (false, false);
const LAST: (bool, bool) = (false, true);

impl Bed {
    /// Sends a request of a sequence through both steps; the stateful one's job, and where it was.
    async fn sums(&self, call: Call) -> (InferJob, DeviceId) {
        let mut answering = Box::pin(self.router.infer(call));
        assert!(settle(&mut answering).await.is_none());
        let plain = self.end("plain");
        assert_eq!(plain.sequence, None, "a step without state is told nothing");
        assert!(settle(&mut answering).await.is_none());
        let device = self.workers.jobs.lock()[0].0;
        let job = self.end("sum");
        let answer = settle(&mut answering).await.unwrap();
        assert!(answer.result.is_ok());
        (job, device)
    }
}

fn told(job: &InferJob) -> SequenceStep {
    SequenceStep::clone(job.sequence.as_ref().unwrap())
}

fn is(id: u64, (start, end): (bool, bool)) -> SequenceStep {
    SequenceStep {
        id: CorrelationId::Number(id),
        start,
        end,
    }
}

#[test]
fn stateful_steps_are_told_the_sequence_and_stay_where_they_began() {
    run(async {
        let bed = bed_of(stateful("sum", 3, &BOTH));
        let mut began = BTreeMap::new();
        for id in 1..=12 {
            let (job, device) = bed.sums(step(&bed, id, FIRST)).await;
            assert_eq!(told(&job), is(id.unsigned_abs(), FIRST));
            began.insert(id, device);
        }
        let used: std::collections::BTreeSet<_> = began.values().collect();
        assert_eq!(used.len(), 2, "sequences spread over the devices");
        assert_eq!(bed.parts.sequences.len(), 12);
        // The label of the step moves to a version elsewhere: what is open stays, what begins does not.
        publish(&bed, &graph(), stateful("sum", 4, &[DeviceId::cpu(7)]));
        for (flags, kept) in [(NEXT, 12), (LAST, 0)] {
            for (id, device) in &began {
                let (job, at) = bed.sums(step(&bed, *id, flags)).await;
                assert_eq!((told(&job), at), (is(id.unsigned_abs(), flags), *device));
                assert_eq!(job.version.version.get(), 3);
            }
            assert_eq!(bed.parts.sequences.len(), kept);
        }
        let (job, at) = bed.sums(step(&bed, 1, FIRST)).await;
        assert_eq!((job.version.version.get(), at), (4, DeviceId::cpu(7)));
        assert!(bed.is_at_rest());
    });
}

#[test]
fn a_request_without_a_sequence_or_with_several_rows_is_refused_and_the_step_is_named() {
    run(async {
        let bed = bed_of(stateful("sum", 3, &BOTH));
        let fault = bed.refusal(bed.call("acme", "pipe")).await;
        assert_eq!(fault.class, FaultClass::InvalidArgument);
        assert_eq!(
            fault.message,
            "step 'sum': inference request to model 'sum' must specify a non-zero or non-empty correlation ID"
        );
        let mut wide = step(&bed, 1, FIRST);
        wide.request.inputs[0].shape = Shape::from_slice(&[2, 2]);
        wide.request.inputs[0].data = Bytes::from(vec![0; 16]);
        let fault = bed.refusal(wide).await;
        assert!(
            fault.message.starts_with("step 'sum': ") && fault.message.contains("batch-size 1"),
            "{fault}"
        );
        // Through an ensemble within it as well.
        let inner = ensemble(&graph(), &["y"], &[("sum", stateful("sum", 3, &BOTH))], &[]);
        let outer = ensemble(
            &json!({"steps": [one("inner", "x", "y")]}),
            &["y"],
            &[("inner", inner)],
            &[],
        );
        bed.publish(TenantLimits::default(), &[("pipe", target(outer))]);
        let fault = bed.refusal(bed.call("acme", "pipe")).await;
        assert!(
            fault.message.starts_with("step 'inner': step 'sum': inference request"),
            "{fault}"
        );
        let (job, _) = bed.sums(step(&bed, 5, FIRST)).await;
        assert_eq!(told(&job), is(5, FIRST));
        assert!(bed.is_at_rest());
    });
}

#[test]
fn requests_of_one_sequence_travel_in_order_and_those_of_two_side_by_side() {
    run(async {
        let bed = bed_of(stateful("sum", 3, &[DeviceId::cpu(0)]));
        let mut first = Box::pin(bed.router.infer(step(&bed, 1, FIRST)));
        assert!(settle(&mut first).await.is_none());
        let mut second = Box::pin(bed.router.infer(step(&bed, 1, NEXT)));
        assert!(settle(&mut second).await.is_none());
        assert_eq!(bed.running(), ["plain"], "the second waits for its turn");
        let mut other = Box::pin(bed.router.infer(step(&bed, 2, FIRST)));
        assert!(settle(&mut other).await.is_none());
        assert_eq!(bed.running(), ["plain", "plain"]);
        bed.end("plain");
        assert!(settle(&mut first).await.is_none());
        bed.end("sum");
        assert!(settle(&mut first).await.unwrap().result.is_ok());
        assert!(settle(&mut second).await.is_none());
        assert_eq!(bed.running(), ["plain", "plain"]);
        drop((other, second));
        assert!(bed.is_at_rest());
    });
}

#[test]
fn a_sequence_of_one_request_is_not_remembered() {
    run(async {
        let bed = bed_of(stateful("sum", 3, &BOTH));
        let (job, _) = bed.sums(step(&bed, 1, FIRST)).await;
        assert_eq!((told(&job), bed.parts.sequences.len()), (is(1, FIRST), 1));
        let mut answering = Box::pin(bed.router.infer(step(&bed, 1, (true, true))));
        assert!(settle(&mut answering).await.is_none());
        assert_eq!(bed.parts.sequences.len(), 0, "nor what was there of that name");
        drop(answering);
        assert!(bed.is_at_rest());
    });
}

#[test]
fn a_first_request_that_fails_leaves_nothing_behind_and_nothing_begins_in_its_place() {
    run(async {
        let bed = bed_of(stateful("sum", 3, &BOTH));
        let mut first = Box::pin(bed.router.infer(step(&bed, 1, FIRST)));
        assert!(settle(&mut first).await.is_none());
        let mut behind = Box::pin(bed.router.infer(step(&bed, 1, NEXT)));
        assert!(settle(&mut behind).await.is_none());
        bed.end("plain");
        assert!(settle(&mut first).await.is_none());
        assert_eq!(bed.parts.sequences.len(), 1, "the next may come before the answer");
        bed.fail("sum", Fault::unavailable(FaultSource::Device, "no memory"));
        let answer = settle(&mut first).await.unwrap();
        assert_eq!(answer.result.as_ref().unwrap_err().message, "step 'sum': no memory");
        assert_eq!(bed.parts.sequences.len(), 0);
        let refused = settle(&mut behind).await.unwrap();
        let fault = refused.result.as_ref().unwrap_err();
        assert_eq!(fault.message, "a request before it in its sequence was not run");
        assert_eq!((bed.running(), fault.retry), (Vec::<String>::new(), Retry::No));
        // Who goes on all the same is led where the placement leads, and the device is not told that it begins.
        let (job, _) = bed.sums(step(&bed, 1, NEXT)).await;
        assert_eq!(told(&job), is(1, NEXT));
        let (job, _) = bed.sums(step(&bed, 1, FIRST)).await;
        assert_eq!((told(&job), bed.parts.sequences.len()), (is(1, FIRST), 1));
        drop((answer, refused));
        assert!(bed.is_at_rest());
    });
}

#[test]
fn a_first_request_whose_caller_leaves_lets_nothing_begin_in_its_place() {
    run(async {
        let bed = bed_of(stateful("sum", 3, &BOTH));
        let mut first = Box::pin(bed.router.infer(step(&bed, 1, FIRST)));
        assert!(settle(&mut first).await.is_none());
        let mut behind = Box::pin(bed.router.infer(step(&bed, 1, NEXT)));
        assert!(settle(&mut behind).await.is_none());
        assert_eq!(bed.parts.sequences.len(), 1);
        drop(first);
        let refused = settle(&mut behind).await.unwrap();
        let fault = refused.result.as_ref().unwrap_err();
        assert_eq!(fault.message, "a request before it in its sequence was not run");
        assert_eq!((bed.parts.sequences.len(), fault.retry), (0, Retry::No));
    });
}

#[test]
fn a_first_request_that_fails_leaves_who_has_begun_anew_alone() {
    run(async {
        let bed = bed_of(stateful("sum", 3, &BOTH));
        let mut first = Box::pin(bed.router.infer(step(&bed, 1, FIRST)));
        assert!(settle(&mut first).await.is_none());
        let mut anew = Box::pin(bed.router.infer(step(&bed, 1, FIRST)));
        assert!(settle(&mut anew).await.is_none());
        bed.fail("plain", Fault::unavailable(FaultSource::Device, "no memory"));
        assert!(settle(&mut first).await.unwrap().result.is_err());
        assert_eq!(bed.parts.sequences.len(), 1);
        bed.end("plain");
        assert!(settle(&mut anew).await.is_none());
        bed.end("sum");
        assert!(settle(&mut anew).await.unwrap().result.is_ok());
        let (job, _) = bed.sums(step(&bed, 1, LAST)).await;
        assert_eq!((told(&job), bed.parts.sequences.len()), (is(1, LAST), 0));
        assert!(bed.is_at_rest());
    });
}

#[test]
fn one_that_waits_for_its_turn_ends_at_its_deadline() {
    run(async {
        let bed = bed_of(stateful("sum", 3, &[DeviceId::cpu(0)]));
        let mut first = Box::pin(bed.router.infer(step(&bed, 1, FIRST)));
        assert!(settle(&mut first).await.is_none());
        let mut late = step(&bed, 1, NEXT);
        late.timeout = Some(Duration::from_secs(5));
        late.received = tokio::time::Instant::now().into_std();
        let answer = bed.router.infer(late).await;
        let fault = answer.result.as_ref().unwrap_err();
        assert_eq!(fault.class, FaultClass::DeadlineExceeded, "{fault}");
        drop((answer, first));
        assert!(bed.is_at_rest());
    });
}

#[test]
fn a_step_that_the_way_leads_to_later_begins_then() {
    run(async {
        let mut sum = one("sum", "a", "s");
        sum["when"] = json!("parameters.mode == 'sum'");
        let graph = json!({"steps": [one("plain", "x", "a"), sum], "outputs": {"y": ["s", "a"]}});
        let bed = Bed::new();
        publish(&bed, &graph, stateful("sum", 3, &BOTH));
        let mut answering = Box::pin(bed.router.infer(step(&bed, 5, FIRST)));
        assert!(settle(&mut answering).await.is_none());
        bed.end("plain");
        assert!(settle(&mut answering).await.unwrap().result.is_ok());
        for flags in [FIRST, NEXT, LAST] {
            let mut call = step(&bed, 5, (false, flags.1));
            let mode = ParameterValue::String("sum".into());
            call.request.parameters.insert("mode".to_owned(), mode);
            let (job, _) = bed.sums(call).await;
            assert_eq!(told(&job), is(5, flags));
        }
        assert_eq!(bed.parts.sequences.len(), 0);
    });
}
