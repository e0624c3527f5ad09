//! What is remembered of open sequences, and for how long.

use mesh_policies::snapshot::ModelEntry;
use mesh_types::{InferRequest, JobOutcome, ModelConfig, StageTimings, Version};

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const START: (bool, bool) = (true, false);
const NEXT: (bool, bool) = (false, false);
const END: (bool, bool) = (false, true);

fn entry(model: &str) -> Arc<VersionEntry> {
    // Without `sequence_batching` a sequence is over at its deadline.
    Arc::new(VersionEntry {
        key: Arc::new(ModelVersionKey {
            tenant: tenant("acme"),
            model: ModelId::parse(model).unwrap(),
            version: Version::FIRST,
        }),
        config: Arc::new(ModelConfig::default()),
        format: ArtifactFormat::Builtin,
        digest: None,
        ready_on: Vec::new(),
        unavailable_reason: None,
        phase: Default::default(),
        plan: None,
    })
}

fn target(model: &str) -> Target {
    Target::Model(Arc::new(ModelEntry {
        grants: Arc::default(),
        owner: tenant("acme"),
        model: ModelId::parse(model).unwrap(),
        versions: BTreeMap::new(),
        labels: BTreeMap::new(),
        default: None,
    }))
}

fn tenant(name: &str) -> TenantId {
    TenantId::parse(name).unwrap()
}

fn caller(name: &str) -> TenantEntry {
    TenantEntry {
        id: tenant(name),
        created: 0,
        suspended: false,
        limits: Default::default(),
        share: Default::default(),
        targets: Default::default(),
    }
}

fn name(number: u64) -> SequenceName {
    let request = InferRequest {
        model: "ears".to_owned(),
        ..InferRequest::default()
    };
    SequenceName::of(&request, &CorrelationId::Number(number))
}

/// A step that has gone to a device; what its answer does happens when it is waited for.
fn send(
    homes: &Arc<Homes>,
    (owner, number): (&str, u64),
    flags: (bool, bool),
    until: Instant,
    ran: bool,
) -> WorkerReply {
    let (start, end) = flags;
    let id = CorrelationId::Number(number);
    let routed = Routed {
        step: SequenceStep { id, start, end },
        name: name(number),
        place: None,
    };
    let answer = if ran {
        Ok(JobOutcome {
            outputs: Vec::new(),
            timings: StageTimings::default(),
        })
    } else {
        Err(Fault::unavailable(FaultSource::Device, "full"))
    };
    let home = (entry("ears"), None, DeviceId::cpu(1));
    let reply = Box::pin(std::future::ready(answer));
    homes.follow(&tenant(owner), routed, home, until, reply)
}

fn finish(reply: WorkerReply) {
    let _ = futures::executor::block_on(reply);
}

fn begin(homes: &Arc<Homes>, owner: &str, number: u64, until: Instant) {
    finish(send(homes, (owner, number), START, until, true));
}

fn is_known(homes: &Homes, number: u64, now: Instant) -> bool {
    homes
        .find(&caller("acme"), &target("ears"), &name(number), now)
        .is_some()
}

#[test]
fn a_home_is_its_tenants_own_and_counts_while_the_name_leads_to_its_model() {
    let (homes, now) = (Arc::new(Homes::default()), Instant::now());
    begin(&homes, "acme", 1, now + SECOND);
    let found = |tenant: &str, model: &str| homes.find(&caller(tenant), &target(model), &name(1), now);
    let place = found("acme", "ears").unwrap().place;
    assert!(matches!(place, Place::Device(device) if device == DeviceId::cpu(1)));
    assert!(found("globex", "ears").is_none());
    assert!(found("acme", "eyes").is_none(), "the name leads elsewhere now");
}

#[test]
fn a_home_is_there_until_its_last_step_has_run() {
    let (homes, now) = (Arc::new(Homes::default()), Instant::now());
    begin(&homes, "acme", 1, now + SECOND);
    let lost = send(&homes, ("acme", 1), END, now + SECOND, false);
    assert!(is_known(&homes, 1, now), "nobody knows yet whether it runs");
    finish(lost);
    assert!(is_known(&homes, 1, now), "it did not, and may be sent again");
    let last = send(&homes, ("acme", 1), END, now + SECOND, true);
    assert!(is_known(&homes, 1, now));
    finish(last);
    assert!(!is_known(&homes, 1, now));
    let known = homes.known.lock();
    assert!(known.tenants.is_empty() && known.next.is_empty());
}

#[test]
fn a_home_is_there_while_its_first_step_runs_and_no_longer_if_that_fails() {
    let (homes, now) = (Arc::new(Homes::default()), Instant::now());
    let first = send(&homes, ("acme", 1), START, now + SECOND, false);
    assert!(is_known(&homes, 1, now), "the next one may come before the answer does");
    finish(first);
    assert!(!is_known(&homes, 1, now));
    // What ends at once has no home.
    finish(send(&homes, ("acme", 1), (true, true), now + SECOND, true));
    assert_eq!(homes.len(), 0);
}

#[test]
fn what_began_anew_is_not_ended_by_what_was_before() {
    let (homes, now) = (Arc::new(Homes::default()), Instant::now());
    begin(&homes, "acme", 1, now + SECOND);
    let last = send(&homes, ("acme", 1), END, now + SECOND, true);
    let failed = send(&homes, ("acme", 1), START, now + SECOND, false);
    begin(&homes, "acme", 1, now + SECOND);
    finish(last);
    finish(failed);
    assert!(is_known(&homes, 1, now));
    assert_eq!(homes.len(), 1);
}

#[test]
fn a_home_that_is_over_is_not_used() {
    let (homes, now) = (Arc::new(Homes::default()), Instant::now());
    begin(&homes, "acme", 1, now + 2 * SECOND);
    assert!(is_known(&homes, 1, now + SECOND));
    assert!(!is_known(&homes, 1, now + 2 * SECOND));
    // Each step lets it go on for longer, and none for less.
    for (number, until) in [(1, 5), (1, 3), (2, 9)] {
        finish(send(&homes, ("acme", number), NEXT, now + until * SECOND, true));
    }
    assert!(is_known(&homes, 1, now + 4 * SECOND) && !is_known(&homes, 1, now + 5 * SECOND));
    assert_eq!(homes.len(), 1, "what was never begun has none");
}

#[test]
fn a_tenant_has_so_many_homes_and_those_that_are_over_give_way() {
    let (homes, now) = (Arc::new(Homes::default()), Instant::now());
    let most = u64::try_from(MAX_HOMES).unwrap();
    for number in 1..most {
        begin(&homes, "acme", number, now + Duration::from_secs(10 + number));
    }
    let has_room = |number: u64, now: Instant| homes.has_room(&tenant("acme"), &name(number), now);
    assert!(has_room(most, now).is_ok());
    begin(&homes, "acme", most, now + Duration::from_secs(10));
    let refused = has_room(most + 1, now).unwrap_err();
    assert_eq!(refused.retry, Retry::After(Duration::from_secs(10)));
    assert!(has_room(1, now).is_ok(), "one that is there begins anew");
    assert!(homes.has_room(&tenant("b"), &name(1), now).is_ok());
    assert!(has_room(most + 1, now + Duration::from_secs(10)).is_ok());
    assert_eq!(homes.len(), MAX_HOMES - 1);
}

#[test]
fn what_is_over_is_forgotten_by_whoever_comes_some_at_a_time() {
    let (homes, now) = (Arc::new(Homes::default()), Instant::now());
    let many = FORGOTTEN_AT_ONCE + 1;
    for number in 0..many {
        let owner = format!("t{number}");
        begin(&homes, &owner, 1, now + SECOND);
    }
    let comes = |now: Instant| homes.has_room(&tenant("b"), &name(1), now).unwrap();
    comes(now);
    assert_eq!(homes.len(), many, "nothing is over yet");
    comes(now + SECOND);
    assert_eq!(homes.len(), 1);
    comes(now + SECOND);
    assert_eq!(homes.len(), 0);
}

#[test]
fn a_tenants_own_give_way_though_many_of_others_are_over() {
    let (homes, now) = (Arc::new(Homes::default()), Instant::now());
    for number in 0..2 * FORGOTTEN_AT_ONCE {
        let owner = format!("t{number}");
        begin(&homes, &owner, 1, now);
    }
    for number in 1..=u64::try_from(MAX_HOMES).unwrap() {
        begin(&homes, "acme", number, now + SECOND);
    }
    assert!(homes.has_room(&tenant("acme"), &name(0), now + SECOND).is_ok());
}

#[tokio::test]
async fn who_comes_by_an_old_name_goes_on_with_no_sequence_of_before() {
    let homes = Arc::new(Homes::default());
    let now = Instant::now();
    for owner in ["acme", "globex"] {
        send(&homes, (owner, 1), START, now + SECOND, true).await.unwrap();
    }
    homes.forget_tenants(|tenant| tenant.as_str() == "acme", now);
    let known = |owner: &str| homes.find(&caller(owner), &target("ears"), &name(1), now).is_some();
    assert_eq!((known("acme"), known("globex")), (false, true));
    // A device may have its state yet.
    let model = ModelId::parse("ears").unwrap();
    let goes_on = |owner: &str, number, at| {
        let id = CorrelationId::Number(number);
        homes.may_go_on(&tenant(owner), &model, &id, at).is_ok()
    };
    assert_eq!(
        (
            goes_on("acme", 1, now),
            goes_on("acme", 2, now),
            goes_on("globex", 1, now)
        ),
        (false, true, true)
    );
    assert!(goes_on("acme", 1, now + SECOND));
    homes.forget_tenants(|_| false, now + SECOND);
    assert!(homes.known.lock().closed.is_empty());
    // Of what is gone nothing is looked for again.
    let later = now + SECOND * 2;
    assert!(homes.has_room(&tenant("other"), &name(2), later).is_ok());
    assert_eq!(homes.known.lock().next.len(), 0);
}
