//! A device thread dies under load: what it had is answered, what comes later is served, and nobody waits for ever.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use mesh_harness::{Answer, Caller, DeadlyBackend, Gate, Mesh, MeshOptions, builtin, eventually, identity};
use serde_json::json;
use tokio::task::JoinSet;

const CALLERS: u64 = 8;
const DEATHS: u32 = 3;

/// Callers that ask again and again, and keep every answer that was no success.
struct Crowd {
    callers: JoinSet<anyhow::Result<Vec<Answer>>>,
    answered: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
}

impl Crowd {
    fn gather(caller: &Caller, target: &'static str) -> Self {
        let (answered, is_over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let mut callers = JoinSet::new();
        for number in 0..CALLERS {
            let (caller, answered, is_over) = (caller.clone(), answered.clone(), is_over.clone());
            callers.spawn(async move {
                let (mut lost, mark) = (Vec::new(), f32::from(u8::try_from(number)?));
                while !is_over.load(Ordering::Acquire) {
                    // One that is never answered is an error after the client's patience.
                    let answer = caller.ask(target, &[mark, 1.0]).await?;
                    if answer.status.is_success() {
                        anyhow::ensure!(answer.numbers(0)? == [f64::from(mark), 1.0], "another's row");
                        answered.fetch_add(1, Ordering::AcqRel);
                    } else {
                        lost.push(answer);
                    }
                }
                Ok(lost)
            });
        }
        Self {
            callers,
            answered,
            is_over,
        }
    }

    /// Waits until so many more have been answered well.
    async fn go_on_for(&self, requests: u64) -> anyhow::Result<()> {
        let goal = self.answered.load(Ordering::Acquire) + requests;
        eventually("requests are answered", || async {
            Ok((self.answered.load(Ordering::Acquire) >= goal).then_some(()))
        })
        .await
    }

    async fn end(mut self) -> anyhow::Result<Vec<Answer>> {
        self.is_over.store(true, Ordering::Release);
        let mut lost = Vec::new();
        while let Some(caller) = self.callers.join_next().await {
            lost.extend(caller??);
        }
        Ok(lost)
    }
}

/// A request that was lost may be sent again, and says so.
fn may_be_sent_again(answer: &Answer) {
    let body = String::from_utf8_lossy(&answer.body);
    assert_eq!(answer.status.as_u16(), 503, "{body}");
    assert!(answer.header("retry-after").is_some(), "{body}");
}

#[tokio::test]
async fn a_device_thread_that_dies_under_load_loses_no_request_without_an_answer_and_comes_back() -> anyhow::Result<()>
{
    let gate = Gate::default();
    let mesh = Mesh::start_with(MeshOptions {
        backends: vec![Arc::new(DeadlyBackend::new(&gate))],
        ..MeshOptions::default()
    })
    .await?;
    let caller = mesh.tenant("acme").await?;
    let admin = mesh.admin()?;
    // Busy, so that there is a batch on the device and others behind it at any time.
    let busy = builtin("busy", &json!({"busy_us": 500}));
    admin.publish("acme", "busy", &busy).await?;
    admin.publish("acme", "deadly", &identity()).await?;
    caller.until_ready("busy").await?;
    caller.until_ready("deadly").await?;
    let crowd = Crowd::gather(&caller, "busy");
    for _ in 0..DEATHS {
        crowd.go_on_for(5 * CALLERS).await?;
        assert_eq!(caller.ask("deadly", &[7.0]).await?.ok()?.numbers(0)?, [7.0]);
        let killer = caller.ask("deadly", &[-1.0]).await?;
        may_be_sent_again(&killer);
        // It is away as long as its load waits at the gate, and says so.
        eventually("the model is away", || async {
            Ok((!caller.is_ready("deadly").await?).then_some(()))
        })
        .await?;
        may_be_sent_again(&caller.ask("deadly", &[7.0]).await?);
        gate.open();
        caller.until_ready("deadly").await?;
        assert_eq!(caller.ask("deadly", &[7.0]).await?.ok()?.numbers(0)?, [7.0]);
        crowd.go_on_for(5 * CALLERS).await?;
    }
    let lost = crowd.end().await?;
    lost.iter().for_each(may_be_sent_again);
    // Nothing is held by what was lost.
    eventually("nothing is in flight", || async {
        let metrics = mesh.metrics().await?;
        Ok(metrics
            .lines()
            .any(|line| line == "mesh_requests_in_flight 0")
            .then_some(()))
    })
    .await
}
