//! Requests with any number of answers: what they hold while these come, and how they end.

use std::task::Poll;

use futures::FutureExt;
use mesh_types::{AnswerSender, ModelTransactionPolicy};

use super::*;
use crate::ManyAnswers;

const REFUSAL: &str = "one answer only";

/// A model that gives any number of answers.
fn streams() -> Target {
    let plain = version("streams", 1, vec![DeviceId::cpu(0)]);
    let entry = VersionEntry {
        config: Arc::new(ModelConfig {
            model_transaction_policy: Some(ModelTransactionPolicy { decoupled: true }),
            ..ModelConfig::clone(&plain.config)
        }),
        ..VersionEntry::clone(&plain)
    };
    let mut model = ModelEntry::clone(&model("streams", &[1], &[DeviceId::cpu(0)]));
    model.versions = [(Version::FIRST, Arc::new(entry))].into();
    Target::Model(Arc::new(model))
}

impl Bed {
    fn streaming() -> Self {
        let bed = Self::new();
        let mut targets = usual_targets();
        targets.push(("streams", streams()));
        bed.publish(TenantLimits::default(), &targets);
        bed
    }

    fn many(&self, name: &str) -> Call {
        Call {
            room: Room::Many,
            ..self.call("acme", name)
        }
    }

    /// Takes the job that is on a device; with it the place for its answers.
    fn take_job(&self) -> (InferJob, AnswerSender, Sender) {
        let (_, job, end) = self.workers.jobs.lock().pop().expect("there is a job");
        let sender = job.answers.clone().expect("it has room for answers");
        (job, sender, end)
    }

    async fn some_job(&self) {
        let mut count = self.workers.count.subscribe();
        count.wait_for(|_| !self.workers.jobs.lock().is_empty()).await.unwrap();
    }

    /// Begins a call, and gives as many answers as are wanted before it is answered itself.
    async fn begun(
        &self,
        call: Call,
        answers: usize,
    ) -> (Result<ManyAnswers, Answer>, (InferJob, AnswerSender, Sender)) {
        let (answer, job) = tokio::join!(self.router.infer(call), async {
            self.some_job().await;
            let job = self.take_job();
            for _ in 0..answers {
                give(&job);
            }
            job
        });
        (answer.into_many(), job)
    }
}

fn give((job, sender, _): &(InferJob, AnswerSender, Sender)) {
    sender.give(outcome(job, &["z", "y"]).outputs).unwrap();
}

fn ended(job: &InferJob) -> JobOutcome {
    outcome(job, &[])
}

#[test]
fn answers_come_one_by_one_and_the_request_is_held_until_its_end() {
    run(async {
        let bed = Bed::streaming();
        let mut call = bed.many("streams");
        call.request.outputs = vec!["y".into(), "z".into()];
        let (answers, job) = bed.begun(call, 2).await;
        let mut answers = answers.unwrap();
        for _ in 0..2 {
            let response = answers.next().await.unwrap().unwrap();
            let names: Vec<_> = response.outputs.iter().map(|output| output.name.to_string()).collect();
            assert_eq!(names, ["y", "z"], "in the order asked for");
            assert_eq!((response.id.as_deref(), &*response.model), (Some("mine"), "streams"));
        }
        assert!(answers.next().now_or_never().is_none(), "there is none yet");
        assert!(!bed.is_at_rest(), "it holds its place and its limits");
        give(&job);
        let (job, _, end) = job;
        end.send(Ok(ended(&job))).unwrap();
        assert!(
            answers.next().await.unwrap().is_ok(),
            "what came before the end comes first"
        );
        assert!(answers.next().await.is_none() && answers.next().await.is_none());
        assert!(answers.empty().outputs.is_empty());
        assert!(bed.is_at_rest());
        let text = bed.parts.telemetry.metrics().encode_prometheus().unwrap();
        for line in [
            r#"mesh_answers_total{tenant="acme",endpoint="streams",arm="",version="1"} 3"#,
            r#"mesh_time_to_first_answer_seconds_count{tenant="acme",endpoint="streams",arm="",version="1"} 1"#,
            r#"mesh_requests_total{tenant="acme",endpoint="streams",arm="",version="1",outcome="ok"} 1"#,
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
    });
}

#[test]
fn no_answer_is_a_stream_that_ends_and_a_fault_before_the_first_is_a_fault() {
    run(async {
        let bed = Bed::streaming();
        for fails in [false, true] {
            let (answer, ()) = tokio::join!(bed.router.infer(bed.many("streams")), async {
                bed.some_job().await;
                let (job, _, end) = bed.take_job();
                let outcome = if fails {
                    Err(Fault::internal("broken"))
                } else {
                    Ok(ended(&job))
                };
                end.send(outcome).unwrap();
            });
            match answer.into_many() {
                Ok(mut answers) => {
                    assert!(!fails && answers.next().await.is_none());
                }
                Err(answer) => {
                    assert!(fails);
                    assert_eq!(answer.result.unwrap_err().message, "broken");
                    answer.account.finish(Duration::ZERO);
                }
            }
            assert!(bed.is_at_rest());
        }
    });
}

#[test]
fn who_takes_exactly_one_answer_fails_with_none_and_with_two_and_is_counted_so() {
    run(async {
        let bed = Bed::streaming();
        for (count, fails) in [(0, false), (1, false), (2, false), (0, true), (1, true)] {
            let began = bed.router.infer(bed.many("streams"));
            let (answer, ()) = tokio::join!(began, async {
                bed.some_job().await;
                let job = bed.take_job();
                (0..count).for_each(|_| give(&job));
                let (job, _, end) = job;
                let outcome = if fails {
                    Err(Fault::internal("broken"))
                } else {
                    Ok(ended(&job))
                };
                end.send(outcome).unwrap();
            });
            let Ok(mut answers) = answer.into_many() else {
                assert!(
                    (count, fails) == (0, true),
                    "a fault before the first answer is the call's"
                );
                continue;
            };
            let told = answers.only("exactly one").await;
            match (count, fails) {
                (1, false) => assert_eq!(told.unwrap().outputs.len(), 2),
                (_, false) => assert_eq!(told.unwrap_err().message, "exactly one"),
                (_, true) => assert_eq!(told.unwrap_err().message, "broken"),
            }
            assert!(answers.next().await.is_none() && bed.is_at_rest());
        }
        let text = bed.parts.telemetry.metrics().encode_prometheus().unwrap();
        for (outcome, count) in [("ok", 1), ("client", 2)] {
            let series = r#"mesh_requests_total{tenant="acme",endpoint="streams",arm="",version="1",outcome="#;
            let line = format!("{series}\"{outcome}\"}} {count}\n");
            assert!(text.contains(&line), "{line} is not in {text}");
        }
    });
}

#[test]
fn a_fault_after_answers_is_the_last_thing_that_is_heard() {
    run(async {
        let bed = Bed::streaming();
        let (answers, (_, _, end)) = bed.begun(bed.many("streams"), 2).await;
        let mut answers = answers.unwrap();
        end.send(Err(Fault::internal("broken"))).unwrap();
        assert!(answers.next().await.unwrap().is_ok() && answers.next().await.unwrap().is_ok());
        assert_eq!(answers.next().await.unwrap().unwrap_err().message, "broken");
        assert!(answers.next().await.is_none() && bed.is_at_rest());
        assert_eq!(bed.series()[0].errors, 1);
    });
}

#[test]
fn who_leaves_gives_everything_back_and_the_device_hears_of_it() {
    run(async {
        let bed = Bed::streaming();
        let (answers, (_, sender, end)) = bed.begun(bed.many("streams"), 1).await;
        let mut answers = answers.unwrap();
        assert!(answers.next().await.unwrap().is_ok() && sender.is_wanted());
        drop(answers);
        assert!(!sender.is_wanted() && end.is_closed() && bed.is_at_rest());
        let (answers, (_, sender, end)) = bed.begun(bed.many("streams"), 1).await;
        answers.unwrap().failed(&Fault::internal("it cannot be written"));
        assert!(!sender.is_wanted() && end.is_closed() && bed.is_at_rest());
    });
}

#[test]
fn a_stream_ends_at_its_deadline_even_if_the_device_never_ends_it() {
    run(async {
        let bed = Bed::streaming();
        let mut call = bed.many("streams");
        call.timeout = Some(Duration::from_secs(2));
        let (answers, _job) = bed.begun(call, 1).await;
        let mut answers = answers.unwrap();
        assert!(answers.next().await.unwrap().is_ok());
        let fault = answers.next().await.unwrap().unwrap_err();
        assert_eq!(fault.class, FaultClass::DeadlineExceeded);
        assert!(answers.next().await.is_none() && bed.is_at_rest());
    });
}

#[test]
fn who_has_room_for_one_answer_is_refused_and_a_plain_model_has_one_for_everybody() {
    run(async {
        let bed = Bed::streaming();
        let fault = bed.refusal(bed.call("acme", "streams")).await;
        assert_eq!((fault.class, &*fault.message), (FaultClass::Unsupported, REFUSAL));
        assert!(bed.workers.jobs.lock().is_empty() && bed.is_at_rest());
        let answer = bed.answered(bed.many("digits")).await;
        let answer = answer.into_many().unwrap_err();
        assert_eq!(answer.result.unwrap().response.outputs.len(), 2);
        answer.account.finish(Duration::ZERO);
        let text = bed.parts.telemetry.metrics().encode_prometheus().unwrap();
        assert!(
            !text.contains("mesh_answers"),
            "a plain request has no answers to count"
        );
    });
}

#[test]
fn a_stream_counts_against_its_tenants_limit_until_it_ends_and_against_nobody_elses() {
    run(async {
        let bed = Bed::streaming();
        let limits = Limits {
            concurrency: Some(1),
            ..Limits::default()
        };
        let mut targets = usual_targets();
        targets.push(("streams", streams()));
        bed.publish(limits.into(), &targets);
        let (answers, _job) = bed.begun(bed.many("streams"), 1).await;
        let mut answers = answers.unwrap();
        assert!(answers.next().await.unwrap().is_ok());
        assert_eq!(bed.refusal(bed.many("streams")).await.class, FaultClass::RateLimited);
        let foreign = Call {
            room: Room::Many,
            ..bed.call("globex", "streams")
        };
        assert_eq!(bed.refusal(foreign).await, Fault::unknown_model("streams"));
        drop(answers);
        assert!(bed.is_at_rest());
        let mut next = Box::pin(bed.router.infer(bed.many("streams")));
        assert!(matches!(futures::poll!(&mut next), Poll::Pending));
    });
}
