//! Ensembles against devices made for the test: what their jobs carry, what runs beside what, and how they end early.

use futures::FutureExt as _;
use mesh_policies::graph::{MAX_WIDTH, Plan, StepVersionEntry};
use mesh_types::Parameters;
use serde_json::{Value, json};

use super::*;

#[path = "sequence_tests.rs"]
mod sequences;

fn one(name: &str, input: &str, output: &str) -> Value {
    json!({"name": name, "model": name, "inputs": {"x": input}, "outputs": {"y": output}})
}

/// The model `pipe` of `acme`, whose steps' models are ready on a device. Names in `inner` are ensembles themselves.
fn ensemble(
    graph: &Value,
    outputs: &[&str],
    inner: &[(&str, Arc<VersionEntry>)],
    callers: &[&str],
) -> Arc<VersionEntry> {
    let mut config = ModelConfig::clone(&version("pipe", 1, Vec::new()).config);
    let spec = config.output[0].clone();
    config.output = outputs
        .iter()
        .map(|name| TensorSpec {
            name: (*name).to_owned(),
            ..spec.clone()
        })
        .collect();
    config.graph = Some(serde_json::from_value(graph.clone()).unwrap());
    let key = ModelVersionKey::clone(&version("pipe", 1, Vec::new()).key);
    let plan = Plan::compile(&key, &config, |wanted| {
        let known = inner.iter().find(|(name, _)| *name == wanted.model.as_str());
        let plain = || version(wanted.model.as_str(), 3, vec![DeviceId::cpu(0)]);
        let mut entry = VersionEntry::clone(&known.map_or_else(plain, |(_, entry)| entry.clone()));
        if !callers.is_empty() {
            entry.key = Arc::new(ModelVersionKey {
                tenant: tenant("other"),
                ..ModelVersionKey::clone(&entry.key)
            });
        }
        Ok(StepVersionEntry {
            entry: Arc::new(entry),
            callers: callers.iter().map(|name| tenant(name)).collect(),
        })
    });
    Arc::new(VersionEntry {
        key: Arc::new(key),
        config: Arc::new(config),
        format: ArtifactFormat::Ensemble,
        digest: None,
        ready_on: Vec::new(),
        plan: Some(Arc::new(plan.unwrap())),
        unavailable_reason: None,
        phase: Default::default(),
    })
}

fn target(entry: Arc<VersionEntry>) -> Target {
    Target::Model(Arc::new(ModelEntry {
        grants: Arc::default(),
        owner: tenant("acme"),
        model: ModelId::parse("pipe").unwrap(),
        labels: BTreeMap::new(),
        versions: [(Version::FIRST, entry)].into(),
        default: None,
    }))
}

fn bed(graph: &Value, outputs: &[&str]) -> Bed {
    let bed = Bed::new();
    bed.publish(
        TenantLimits::default(),
        &[("pipe", target(ensemble(graph, outputs, &[], &[])))],
    );
    bed
}

impl Bed {
    /// The steps that run now, by their models' names.
    fn running(&self) -> Vec<String> {
        let jobs = self.workers.jobs.lock();
        jobs.iter().map(|(_, job, _)| job.version.model.to_string()).collect()
    }

    /// Takes the job of a step off its device.
    fn pick(&self, step: &str) -> (InferJob, Sender) {
        let mut jobs = self.workers.jobs.lock();
        let at = jobs
            .iter()
            .position(|(_, job, _)| job.version.model.as_str() == step)
            .unwrap();
        let (_, job, answer) = jobs.remove(at);
        (job, answer)
    }

    /// Answers a step with what it got, after what it took.
    fn end(&self, step: &str) -> InferJob {
        let (job, answer) = self.pick(step);
        let outcome = outcome(&job, &["y", "z"]);
        answer.send(Ok(outcome)).unwrap();
        job
    }

    fn fail(&self, step: &str, fault: Fault) {
        self.pick(step).1.send(Err(fault)).unwrap();
    }

    fn reading(&self) -> mesh_telemetry::EnsembleReading {
        let key = version("pipe", 1, Vec::new()).key.clone();
        self.parts.telemetry.metrics().ensemble_reading(&key).unwrap()
    }

    /// Requests that were answered, failed and left.
    fn requests(&self) -> (u64, u64, u64) {
        let reading = self.reading();
        (reading.ok, reading.failed, reading.cancelled)
    }

    fn steps(&self) -> Vec<(String, u64, u64, u64, u64)> {
        let reading = self.reading();
        let of = |step: mesh_telemetry::StepReading| (step.step, step.ok, step.failed, step.cancelled, step.left_out);
        reading.steps.into_iter().map(of).collect()
    }
}

/// Drives a call until nothing more happens by itself; its answer, if it is there.
async fn settle(answering: &mut std::pin::Pin<Box<impl Future<Output = Answer>>>) -> Option<Answer> {
    // The actor's turn, and then the call's own.
    for _ in 0..4 {
        if let Some(answer) = answering.as_mut().now_or_never() {
            return Some(answer);
        }
        tokio::task::yield_now().await;
    }
    None
}

fn diamond() -> Value {
    json!({"steps": [
        one("first", "x", "a"), one("left", "a", "l"), one("right", "a", "r"),
        {"name": "last", "model": "last", "inputs": {"x": ["l", "r"]}, "outputs": {"z": "both"}},
    ], "outputs": {"y": "r", "z": "both"}})
}

#[test]
fn steps_are_jobs_of_the_caller_with_all_that_the_request_has() {
    run(async {
        let bed = bed(&diamond(), &["z", "y"]);
        let mut call = bed.call("acme", "pipe");
        call.request
            .parameters
            .insert("priority".to_owned(), ParameterValue::Int(2));
        call.request
            .parameters
            .insert("service_class".to_owned(), ParameterValue::String("batch".into()));
        call.timeout = Some(Duration::from_secs(9));
        let (received, sent) = (call.received, call.request.inputs[0].data.as_ptr());
        let mut answering = Box::pin(bed.router.infer(call));
        assert!(settle(&mut answering).await.is_none());
        assert_eq!(bed.running(), ["first"]);
        let first = bed.end("first");
        assert_eq!((&*first.inputs[0].name, first.inputs[0].data.as_ptr()), ("x", sent));
        assert_eq!(first.outputs, ["y"], "what nobody uses is not asked for");
        assert!(settle(&mut answering).await.is_none());
        assert_eq!(bed.running(), ["left", "right"], "side by side");
        let left = bed.end("left");
        assert!(settle(&mut answering).await.is_none());
        assert_eq!(bed.running(), ["right", "last"], "as soon as its inputs are there");
        let last = bed.end("last");
        bed.end("right");
        for job in [&first, &left, &last] {
            assert_eq!(job.tenant, tenant("acme"));
            assert_eq!(job.request, RequestId(7));
            assert_eq!(job.deadline.instant(), received + Duration::from_secs(9));
            assert_eq!((job.standing.priority, job.standing.class), (2, ServiceClass::Batch));
            assert_eq!(job.standing.share.weight, 3);
            assert_eq!(job.inputs[0].data.as_ptr(), sent, "handed on, not copied");
            assert_eq!(job.version.version.get(), 3);
        }
        let answer = settle(&mut answering).await.unwrap();
        let completed = answer.result.as_ref().unwrap();
        let names: Vec<_> = completed.response.outputs.iter().map(|tensor| &*tensor.name).collect();
        assert_eq!(names, ["z", "y"], "in the order of the configuration");
        assert_eq!(completed.response.version.get(), 1);
        // Three steps one after the other, as the longest way has them: not four.
        assert_eq!(completed.timings.compute_infer, Duration::from_millis(6));
        answer.account.finish(Duration::ZERO);
        assert!(bed.is_at_rest());
        let ok = |name: &str| (name.to_owned(), 1, 0, 0, 0);
        assert_eq!(bed.steps(), [ok("first"), ok("left"), ok("right"), ok("last")]);
        let [series] = bed.series().try_into().unwrap();
        assert_eq!(
            (series.target.as_ref(), series.ok),
            ("pipe", 1),
            "one request, whatever its steps"
        );
    });
}

#[test]
fn only_what_the_wanted_outputs_need_runs_and_limits_count_one_request() {
    run(async {
        let limits: TenantLimits = Limits {
            concurrency: Some(1),
            ..Limits::default()
        }
        .into();
        let bed = Bed::with(limits.clone(), 100);
        bed.publish(limits, &[("pipe", target(ensemble(&diamond(), &["y", "z"], &[], &[])))]);
        let mut call = bed.call("acme", "pipe");
        call.request.outputs = vec!["y".to_owned()];
        let mut answering = Box::pin(bed.router.infer(call));
        for step in ["first", "right"] {
            assert!(settle(&mut answering).await.is_none());
            assert_eq!(bed.running(), [step]);
            assert_eq!(bed.parts.limiter.in_flight(&tenant("acme")), 1);
            bed.end(step);
        }
        let answer = settle(&mut answering).await.unwrap();
        assert_eq!(answer.result.as_ref().unwrap().response.outputs.len(), 1);
        answer.account.finish(Duration::ZERO);
        assert!(bed.is_at_rest());
        assert_eq!(bed.steps()[1], ("left".to_owned(), 0, 0, 0, 1));
    });
}

#[test]
fn a_step_that_fails_ends_the_rest_and_is_named() {
    run(async {
        let bed = bed(&diamond(), &["y", "z"]);
        let mut answering = Box::pin(bed.router.infer(bed.call("acme", "pipe")));
        settle(&mut answering).await;
        bed.end("first");
        settle(&mut answering).await;
        let (_, right) = bed.pick("right");
        bed.fail("left", Fault::unavailable(FaultSource::Device, "no memory"));
        let answer = settle(&mut answering).await.unwrap();
        let fault = answer.result.as_ref().unwrap_err();
        assert_eq!(fault.message, "step 'left': no memory");
        assert_eq!(
            (fault.class, fault.source, fault.retry),
            (FaultClass::Unavailable, FaultSource::Device, Retry::Now)
        );
        assert!(right.is_closed(), "its sister is cancelled");
        drop(answer);
        assert!(bed.is_at_rest());
        assert_eq!(bed.steps()[1], ("left".to_owned(), 0, 1, 0, 0));
        assert_eq!(bed.steps()[2], ("right".to_owned(), 0, 0, 1, 0));
        // A device that refuses at once is a step that fails.
        *bed.workers.full.lock() = true;
        let fault = bed.refusal(bed.call("acme", "pipe")).await;
        assert_eq!(fault.message, "step 'first': Exceeds maximum queue size");
    });
}

#[test]
fn a_step_that_may_fail_leaves_the_rest_alone() {
    run(async {
        let mut soft = one("soft", "x", "s");
        soft["dependency"] = json!("Soft");
        let graph = json!({"steps": [soft, one("hard", "x", "h")], "outputs": {"y": ["s", "h"], "z": "s"},
            "optional_outputs": ["z"]});
        let bed = bed(&graph, &["y", "z"]);
        let mut answering = Box::pin(bed.router.infer(bed.call("acme", "pipe")));
        settle(&mut answering).await;
        bed.fail("soft", Fault::internal("broken"));
        assert!(settle(&mut answering).await.is_none());
        bed.end("hard");
        let answer = settle(&mut answering).await.unwrap();
        let outputs = &answer.result.as_ref().unwrap().response.outputs;
        let names: Vec<_> = outputs.iter().map(|tensor| &*tensor.name).collect();
        assert_eq!(names, ["y"], "what is missing is left out");
        drop(answer);
        // Refused at once is the same; and so is what its model should have given and has not.
        *bed.workers.full.lock() = true;
        let fault = bed.refusal(bed.call("acme", "pipe")).await;
        assert_eq!(fault.message, "step 'hard': Exceeds maximum queue size");
    });
}

#[test]
fn a_caller_that_leaves_takes_every_step_with_it() {
    run(async {
        let bed = bed(&diamond(), &["y", "z"]);
        let mut answering = Box::pin(bed.router.infer(bed.call("acme", "pipe")));
        settle(&mut answering).await;
        bed.end("first");
        settle(&mut answering).await;
        assert_eq!(bed.running(), ["left", "right"]);
        drop(answering);
        assert!(bed.workers.jobs.lock().iter().all(|(_, _, answer)| answer.is_closed()));
        assert!(bed.is_at_rest());
        assert_eq!(bed.requests(), (0, 0, 1), "it is told that it left");
    });
}

#[test]
fn the_deadline_ends_it_between_and_within_steps_and_names_them() {
    run(async {
        let bed = bed(&diamond(), &["y", "z"]);
        let mut call = bed.call("acme", "pipe");
        call.timeout = Some(Duration::from_secs(5));
        call.received = tokio::time::Instant::now().into_std();
        let mut answering = Box::pin(bed.router.infer(call));
        settle(&mut answering).await;
        bed.end("first");
        settle(&mut answering).await;
        let answer = answering.await;
        let fault = answer.result.as_ref().unwrap_err();
        assert_eq!(fault.class, FaultClass::DeadlineExceeded);
        assert_eq!(
            fault.message,
            "deadline exceeded while running or waiting to run step 'left', 'right'"
        );
        drop(answer);
        assert!(bed.workers.jobs.lock().iter().all(|(_, _, answer)| answer.is_closed()));
        assert!(bed.is_at_rest());
        assert_eq!(bed.requests(), (0, 1, 0));
    });
}

#[test]
fn a_bounded_step_takes_as_many_as_it_may_and_the_next_waits_in_its_place() {
    run(async {
        let mut step = one("narrow", "x", "y");
        step["max_inflight_requests"] = json!(2);
        let bed = bed(&json!({"steps": [step]}), &["y"]);
        let mut calls: Vec<_> = (0..3)
            .map(|_| Box::pin(bed.router.infer(bed.call("acme", "pipe"))))
            .collect();
        for call in &mut calls {
            assert!(settle(call).await.is_none());
        }
        assert_eq!(bed.running().len(), 2, "the third waits outside");
        bed.end("narrow");
        settle(&mut calls[0]).await.unwrap();
        assert!(settle(&mut calls[2]).await.is_none());
        assert_eq!(bed.running().len(), 2, "it has taken the place");
        drop(calls);
        assert!(bed.is_at_rest());
    });
}

#[test]
fn as_many_steps_run_side_by_side_as_may_and_the_next_starts_when_one_ends() {
    run(async {
        // A step each at the first and at the second level: none is wide, but those of both could run at once.
        let name = |kind: &str, at: usize| format!("{kind}{at}");
        let mut steps: Vec<Value> = vec![one("begin", "x", "b")];
        steps.extend((1..MAX_WIDTH).map(|at| one(&name("slow", at), "x", &name("s", at))));
        steps.extend((0..3).map(|at| one(&name("next", at), "b", &name("n", at))));
        let names: Vec<String> = (1..MAX_WIDTH)
            .map(|at| name("s", at))
            .chain((0..3).map(|at| name("n", at)))
            .collect();
        let outputs: Vec<&str> = names.iter().map(String::as_str).collect();
        let bed = bed(&json!({"steps": steps}), &outputs);
        let mut answering = Box::pin(bed.router.infer(bed.call("acme", "pipe")));
        assert!(settle(&mut answering).await.is_none());
        assert_eq!(bed.running().len(), MAX_WIDTH);
        bed.end("begin");
        assert!(settle(&mut answering).await.is_none());
        let running = bed.running();
        assert_eq!(running.len(), MAX_WIDTH, "{running:?}");
        assert_eq!(running.last().unwrap(), "next0");
        bed.end("slow1");
        assert!(settle(&mut answering).await.is_none());
        assert_eq!(bed.running().last().unwrap(), "next1");
        let mut answer = None;
        while answer.is_none() {
            let next = bed.running()[0].clone();
            bed.end(&next);
            answer = settle(&mut answering).await;
        }
        assert_eq!(answer.unwrap().result.unwrap().response.outputs.len(), outputs.len());
    });
}

#[test]
fn ensembles_within_ensembles_run_and_a_failure_names_the_way_to_it() {
    run(async {
        let inner = ensemble(&json!({"steps": [one("deep", "x", "y")]}), &["y"], &[], &[]);
        let graph = json!({"steps": [one("inner", "x", "i"), one("after", "i", "y")]});
        let bed = Bed::new();
        let outer = ensemble(&graph, &["y"], &[("inner", inner)], &[]);
        bed.publish(TenantLimits::default(), &[("pipe", target(outer))]);
        let mut answering = Box::pin(bed.router.infer(bed.call("acme", "pipe")));
        for step in ["deep", "after"] {
            assert!(settle(&mut answering).await.is_none());
            assert_eq!(bed.running(), [step]);
            bed.end(step);
        }
        let answer = settle(&mut answering).await.unwrap();
        assert_eq!(
            answer.result.as_ref().unwrap().timings.compute_infer,
            Duration::from_millis(4)
        );
        drop(answer);
        let mut answering = Box::pin(bed.router.infer(bed.call("acme", "pipe")));
        settle(&mut answering).await;
        bed.fail("deep", Fault::internal("broken"));
        let answer = settle(&mut answering).await.unwrap();
        let message = answer.result.as_ref().unwrap_err().message.clone();
        assert_eq!(message, "step 'inner': step 'deep': broken");
    });
}

#[test]
fn an_ensemble_within_an_ensemble_that_is_not_ready_is_a_step_that_fails() {
    run(async {
        let inner = ensemble(&json!({"steps": [one("deep", "x", "y")]}), &["y"], &[], &[]);
        let mut asleep = VersionEntry::clone(&inner);
        asleep.plan = inner.plan.as_ref().map(|plan| Arc::new(plan.kept_off()));
        asleep.unavailable_reason = Some("it sleeps".to_owned());
        let mut soft = one("inner", "x", "i");
        soft["dependency"] = json!("Soft");
        let graph = json!({"steps": [soft, one("spare", "x", "s")], "outputs": {"y": ["i", "s"], "z": "i"},
            "optional_outputs": ["z"]});
        let outer = ensemble(&graph, &["y", "z"], &[("inner", Arc::new(asleep))], &[]);
        assert!(outer.is_ready(), "it does without it");
        let bed = Bed::new();
        bed.publish(TenantLimits::default(), &[("pipe", target(outer))]);
        let mut answering = Box::pin(bed.router.infer(bed.call("acme", "pipe")));
        assert!(settle(&mut answering).await.is_none());
        assert_eq!(bed.running(), ["spare"]);
        bed.end("spare");
        let answer = settle(&mut answering).await.unwrap();
        let outputs = &answer.result.as_ref().unwrap().response.outputs;
        assert_eq!((outputs.len(), &*outputs[0].name), (1, "y"));
        drop(answer);
        assert_eq!(bed.steps()[0], ("inner".to_owned(), 0, 1, 0, 0));
    });
}

#[test]
fn who_may_not_call_a_foreign_step_does_not_see_the_ensemble() {
    run(async {
        let graph = json!({"steps": [one("theirs", "x", "y")]});
        let bed = Bed::new();
        let hidden = ensemble(&graph, &["y"], &[], &["globex"]);
        bed.publish(TenantLimits::default(), &[("pipe", target(hidden))]);
        let call = bed.call("acme", "pipe");
        let described = bed.router.describe(&call.credential, "pipe", &VersionSelector::Default);
        assert_eq!(described.unwrap_err(), Fault::unknown_model("pipe"));
        assert_eq!(bed.refusal(call).await, Fault::unknown_model("pipe"));
        assert!(bed.workers.jobs.lock().is_empty());
        let open = ensemble(&graph, &["y"], &[], &["acme"]);
        bed.publish(TenantLimits::default(), &[("pipe", target(open))]);
        let call = bed.call("acme", "pipe");
        let described = bed
            .router
            .describe(&call.credential, "pipe", &VersionSelector::Default)
            .unwrap();
        assert_eq!((described.platform, described.ready), ("ensemble", true));
        assert!(bed.answered(call).await.result.is_ok());
    });
}

#[test]
fn what_a_step_makes_of_the_wrong_shape_is_the_models_fault_and_what_the_caller_sends_the_callers() {
    run(async {
        let bed = bed(
            &json!({"steps": [one("first", "x", "a"), one("second", "a", "y")]}),
            &["y"],
        );
        let mut answering = Box::pin(bed.router.infer(bed.call("acme", "pipe")));
        settle(&mut answering).await;
        let (job, answer) = bed.pick("first");
        let mut wrong = outcome(&job, &["y"]);
        wrong.outputs[0].shape = Shape::from_slice(&[2, 1]);
        answer.send(Ok(wrong)).unwrap();
        let answer = settle(&mut answering).await.unwrap();
        let fault = answer.result.as_ref().unwrap_err();
        assert_eq!((fault.class, fault.source), (FaultClass::Internal, FaultSource::Model));
        assert!(fault.message.starts_with("step 'second': unexpected shape"), "{fault}");
        drop(answer);
        let mut answering = Box::pin(bed.router.infer(bed.call("acme", "pipe")));
        settle(&mut answering).await;
        let (job, answer) = bed.pick("first");
        answer.send(Ok(outcome(&job, &["z"]))).unwrap();
        let answer = settle(&mut answering).await.unwrap();
        let message = answer.result.as_ref().unwrap_err().message.clone();
        assert_eq!(message, "step 'first': its model gave no output 'y'");
    });
}

/// An entry whose input and output have any extent.
fn open(entry: &Arc<VersionEntry>) -> Arc<VersionEntry> {
    let mut entry = VersionEntry::clone(entry);
    let mut config = ModelConfig::clone(&entry.config);
    for spec in config.input.iter_mut().chain(&mut config.output) {
        spec.dims = vec![-1];
    }
    entry.config = Arc::new(config);
    Arc::new(entry)
}

#[test]
fn an_output_of_another_shape_than_declared_is_the_models_fault() {
    run(async {
        let any = open(&version("any", 3, vec![DeviceId::cpu(0)]));
        let pipe = ensemble(&json!({"steps": [one("any", "x", "y")]}), &["y"], &[("any", any)], &[]);
        let bed = Bed::new();
        bed.publish(TenantLimits::default(), &[("pipe", target(pipe))]);
        let mut answering = Box::pin(bed.router.infer(bed.call("acme", "pipe")));
        settle(&mut answering).await;
        let (job, answer) = bed.pick("any");
        let mut longer = outcome(&job, &["y"]);
        longer.outputs[0].shape = Shape::from_slice(&[1, 3]);
        answer.send(Ok(longer)).unwrap();
        let answer = settle(&mut answering).await.unwrap();
        let fault = answer.result.as_ref().unwrap_err();
        assert_eq!((fault.class, fault.source), (FaultClass::Internal, FaultSource::Model));
        assert_eq!(
            fault.message,
            "output 'y' has the shape [1, 3], but model 'pipe' declares [-1, 2]"
        );
        drop(answer);
        assert_eq!(bed.requests(), (0, 1, 0));
    });
}

#[test]
fn what_an_outer_step_made_is_not_blamed_on_the_caller_by_an_inner_ensemble() {
    run(async {
        let any = open(&version("any", 3, vec![DeviceId::cpu(0)]));
        // The inner one takes any length, and its first step takes two.
        let inner = open(&ensemble(&json!({"steps": [one("deep", "x", "y")]}), &["y"], &[], &[]));
        let within = |steps: Value| {
            let named = [("any", any.clone()), ("inner", inner.clone())];
            open(&ensemble(&json!({"steps": steps}), &["y"], &named, &[]))
        };
        let bed = Bed::new();
        let publish = |entry| bed.publish(TenantLimits::default(), &[("pipe", target(entry))]);
        publish(within(json!([one("any", "x", "a"), one("inner", "a", "y")])));
        let mut answering = Box::pin(bed.router.infer(bed.call("acme", "pipe")));
        settle(&mut answering).await;
        let (job, answer) = bed.pick("any");
        let mut longer = outcome(&job, &["y"]);
        longer.outputs[0].shape = Shape::from_slice(&[1, 3]);
        answer.send(Ok(longer)).unwrap();
        let answer = settle(&mut answering).await.unwrap();
        let fault = answer.result.as_ref().unwrap_err();
        assert_eq!((fault.class, fault.source), (FaultClass::Internal, FaultSource::Model));
        drop(answer);
        publish(within(json!([one("inner", "x", "y")])));
        let mut long = bed.call("acme", "pipe");
        long.request.inputs[0].shape = Shape::from_slice(&[1, 3]);
        long.request.inputs[0].data = Bytes::from(vec![0; 12]);
        let fault = bed.refusal(long).await;
        assert_eq!(fault.class, FaultClass::InvalidArgument, "the caller's own: {fault}");
    });
}

#[test]
fn an_ensemble_is_also_run_for_an_admins_trial() {
    run(async {
        let bed = Bed::new();
        let entry = ensemble(&json!({"steps": [one("only", "x", "y")]}), &["y"], &[], &[]);
        let call = bed.call("acme", "pipe");
        let job = InferJob {
            request: RequestId(1),
            tenant: tenant("acme"),
            version: entry.key.clone(),
            inputs: call.request.inputs,
            outputs: Vec::new(),
            rows: 1,
            deadline: mesh_types::Deadline::after(Instant::now(), LONG),
            standing: mesh_types::Standing::default(),
            sequence: None,
            answers: None,
            trace: TraceContext::default(),
            meter: None,
            parameters: None,
        };
        let reply = crate::infer_ensemble(&bed.parts, &entry, job.clone(), Parameters::default()).unwrap();
        let (answered, ()) = tokio::join!(reply, async {
            bed.job().await;
            bed.end("only");
        });
        assert_eq!(&*answered.unwrap().outputs[0].name, "y");
        let missing = crate::infer_ensemble(
            &bed.parts,
            &version("pipe", 1, Vec::new()),
            job.clone(),
            Parameters::default(),
        );
        assert_eq!(missing.err().unwrap().class, FaultClass::Unavailable);
        // As for any caller: not past a grant, and by the way that the parameters decide.
        let theirs = ensemble(&json!({"steps": [one("only", "x", "y")]}), &["y"], &[], &["globex"]);
        let hidden = crate::infer_ensemble(&bed.parts, &theirs, job.clone(), Parameters::default());
        assert_eq!(hidden.err().unwrap(), Fault::unknown_model("pipe"));
        let graph = json!({"steps": [{"name": "way", "switch": [
            {"when": "parameters.mode == 'high'", "steps": [one("high", "x", "y")]},
            {"steps": [one("low", "x", "y")]},
        ]}]});
        let switch = ensemble(&graph, &["y"], &[], &[]);
        let parameters = Parameters::from([("mode".to_owned(), ParameterValue::String("high".into()))]);
        let mut reply = crate::infer_ensemble(&bed.parts, &switch, job, parameters).unwrap();
        assert!(reply.as_mut().now_or_never().is_none());
        assert_eq!(bed.running(), ["high"]);
    });
}
