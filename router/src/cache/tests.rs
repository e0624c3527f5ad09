//! What is remembered and forgotten, in time that the test moves; and that nothing crosses tenants.

use std::time::{Duration, Instant};

use bytes::Bytes;
use mesh_types::{
    DataType, Deadline, EndpointId, InferJob, ModelId, ModelVersionKey, ParameterValue, Parameters, RequestId, Shape,
    Standing, TenantId, Tensor, TraceContext, Version,
};
use proptest::prelude::*;

use super::{
    CacheBounds, CacheOutcome, CacheUse, MAX_COUNTED_VERSIONS, ResponseCache,
    key::{Asked, Key},
    store::{ENTRY_OVERHEAD, New, Place, Store, TENSOR_OVERHEAD, size_of},
};

fn tenant(name: &str) -> TenantId {
    TenantId::parse(name).unwrap()
}

fn endpoint(name: &str) -> EndpointId {
    EndpointId::parse(name).unwrap()
}

fn tensor(bytes: &[u8]) -> Tensor {
    let shape = Shape::from_slice(&[bytes.len() as u64]);
    Tensor::new("y".into(), DataType::Uint8, shape, Bytes::copy_from_slice(bytes)).unwrap()
}

/// What an answer of so many bytes takes.
const fn taken(bytes: usize) -> usize {
    ENTRY_OVERHEAD + TENSOR_OVERHEAD + 1 + bytes
}

/// A store and an endpoint of a tenant; keys are numbers.
struct Bed {
    store: Store,
    now: Instant,
}

impl Bed {
    fn new(bytes: usize, tenant_bytes: usize) -> Self {
        Self {
            store: Store::new(CacheBounds { bytes, tenant_bytes }),
            now: Instant::now(),
        }
    }

    fn put(&mut self, who: &str, name: &str, key: u8, bytes: usize) -> bool {
        self.put_of(1, who, name, key, bytes)
    }

    fn put_of(&mut self, serial: u64, who: &str, name: &str, key: u8, bytes: usize) -> bool {
        let epoch = self.store.epoch();
        let (who, name) = (tenant(who), endpoint(name));
        let place = Place {
            tenant: &who,
            endpoint: &name,
            serial,
        };
        let new = New {
            outputs: [tensor(&vec![key; bytes])].into(),
            expires: self.now + Duration::from_secs(10),
            max_bytes: taken(1_000),
        };
        let put = self.store.put(&place, [key; 32], &new, epoch);
        assert!(self.store.is_consistent());
        put
    }

    fn has(&mut self, who: &str, name: &str, key: u8) -> bool {
        self.has_of(1, who, name, key)
    }

    fn has_of(&mut self, serial: u64, who: &str, name: &str, key: u8) -> bool {
        let (who, name) = (tenant(who), endpoint(name));
        let place = Place {
            tenant: &who,
            endpoint: &name,
            serial,
        };
        let found = self.store.get(&place, &[key; 32], self.now);
        assert!(self.store.is_consistent());
        if let Some(found) = &found {
            assert!(found[0].data.iter().all(|byte| *byte == key));
        }
        found.is_some()
    }
}

#[test]
fn an_answer_lives_for_its_time_and_no_longer() {
    let mut bed = Bed::new(10_000, 10_000);
    assert!(bed.put("acme", "e", 1, 10));
    bed.now += Duration::from_millis(9_999);
    assert!(bed.has("acme", "e", 1));
    bed.now += Duration::from_millis(1);
    assert!(!bed.has("acme", "e", 1));
    assert_eq!(bed.store.usage(), CacheUse::default());
}

#[test]
fn one_answer_takes_no_more_than_the_endpoint_allows() {
    let mut bed = Bed::new(10_000, 10_000);
    assert!(bed.put("acme", "e", 1, 1_000));
    assert!(!bed.put("acme", "e", 2, 1_001));
}

#[test]
fn a_tenant_keeps_to_its_quota_and_forgets_what_it_has_not_asked_for_longest() {
    let mut bed = Bed::new(1 << 20, 3 * taken(10));
    for key in 1..=3 {
        assert!(bed.put("acme", if key == 2 { "f" } else { "e" }, key, 10));
    }
    assert_eq!(bed.store.usage().bytes, 3 * taken(10), "exactly the quota");
    assert!(bed.has("acme", "e", 1));
    // One byte more than what was forgotten for it: another goes too.
    assert!(bed.put("acme", "e", 4, 11));
    assert_eq!(
        [1, 3, 4].map(|key| bed.has("acme", "e", key)),
        [true, false, true],
        "the one asked for stays"
    );
    assert!(!bed.has("acme", "f", 2), "over all endpoints the oldest goes first");
    // Others have their own quota.
    assert!(bed.put("globex", "e", 1, 10));
    assert!(bed.has("acme", "e", 1));
}

#[test]
fn in_all_it_keeps_to_its_bound_and_who_has_most_gives() {
    let mut bed = Bed::new(4 * taken(10), 1 << 20);
    for key in 1..=3 {
        assert!(bed.put("acme", "e", key, 10));
    }
    assert!(bed.put("globex", "e", 1, 10));
    assert_eq!(
        bed.store.usage(),
        CacheUse {
            entries: 4,
            bytes: 4 * taken(10)
        }
    );
    assert!(bed.put("globex", "e", 2, 10));
    assert_eq!(
        bed.store.usage(),
        CacheUse {
            entries: 4,
            bytes: 4 * taken(10)
        }
    );
    assert!(bed.has("globex", "e", 1) && bed.has("globex", "e", 2));
    assert!(!bed.has("acme", "e", 1));
    // A cache of nothing remembers nothing.
    assert!(!Bed::new(0, 1 << 20).put("acme", "e", 1, 10));
    assert!(!Bed::new(1 << 20, 0).put("acme", "e", 1, 10));
}

#[test]
fn what_was_answered_before_a_change_is_never_found_after_it() {
    let mut bed = Bed::new(10_000, 10_000);
    assert!(bed.put_of(3, "acme", "e", 1, 10));
    assert!(!bed.has_of(4, "acme", "e", 1));
    assert_eq!(bed.store.usage(), CacheUse::default(), "and is forgotten");
    assert!(bed.put_of(4, "acme", "e", 1, 10));
    assert!(!bed.put_of(3, "acme", "e", 2, 10), "a request of before the change");
    assert!(bed.put_of(5, "acme", "e", 2, 10));
    assert_eq!(bed.store.usage().entries, 1);
    bed.store.retain(|_, _, serial| serial > 5);
    assert_eq!(bed.store.usage(), CacheUse::default());
}

#[test]
fn a_purge_forgets_one_endpoint_and_what_is_being_computed() {
    let mut bed = Bed::new(10_000, 10_000);
    for name in ["e", "f"] {
        assert!(bed.put("acme", name, 1, 10));
    }
    assert!(bed.put("globex", "e", 1, 10));
    let before = bed.store.epoch();
    let purged = bed.store.purge(&tenant("acme"), &endpoint("e"));
    assert_eq!(
        purged,
        CacheUse {
            entries: 1,
            bytes: taken(10)
        }
    );
    assert!(!bed.has("acme", "e", 1) && bed.has("acme", "f", 1) && bed.has("globex", "e", 1));
    let (who, name) = (tenant("acme"), endpoint("e"));
    let place = Place {
        tenant: &who,
        endpoint: &name,
        serial: 1,
    };
    let new = New {
        outputs: [tensor(&[1])].into(),
        expires: bed.now + Duration::from_secs(10),
        max_bytes: 1_000,
    };
    assert!(
        !bed.store.put(&place, [1; 32], &new, before),
        "it was begun before the purge"
    );
}

#[test]
fn a_purge_of_a_tenant_forgets_all_its_endpoints_and_nobody_elses() {
    let mut bed = Bed::new(10_000, 10_000);
    for (who, name) in [("acme", "e"), ("acme", "f"), ("globex", "e")] {
        assert!(bed.put(who, name, 1, 10));
    }
    let before = bed.store.epoch();
    let both = CacheUse {
        entries: 2,
        bytes: 2 * taken(10),
    };
    assert_eq!(bed.store.purge_tenant(&tenant("acme")), both);
    assert!(!bed.has("acme", "e", 1) && !bed.has("acme", "f", 1) && bed.has("globex", "e", 1));
    assert!(bed.store.is_consistent());
    assert_ne!(bed.store.epoch(), before, "what is being computed is not remembered");
    assert_eq!(bed.store.purge_tenant(&tenant("acme")), CacheUse::default());
}

#[test]
fn an_answer_keeps_no_batch_alive() {
    let batch = Bytes::from(vec![7; 1 << 16]);
    let row = Tensor {
        data: batch.slice(..16),
        ..tensor(&[7; 16])
    };
    let mut bed = Bed::new(10_000, 10_000);
    let (who, name) = (tenant("acme"), endpoint("e"));
    let place = Place {
        tenant: &who,
        endpoint: &name,
        serial: 1,
    };
    let new = New {
        outputs: [row].into(),
        expires: bed.now + Duration::from_secs(10),
        max_bytes: 1_000,
    };
    assert!(bed.store.put(&place, [1; 32], &new, 0));
    drop(new);
    let found = bed.store.get(&place, &[1; 32], bed.now).unwrap();
    assert_eq!(found[0].data, batch[..16]);
    assert!(batch.is_unique());
}

#[test]
fn so_many_versions_are_counted_and_of_more_the_last() {
    let cache = ResponseCache::default();
    let version = |number: usize| ModelVersionKey {
        tenant: tenant("acme"),
        model: ModelId::parse("m").unwrap(),
        version: Version::new(u32::try_from(number).unwrap()).unwrap(),
    };
    for number in 1..=MAX_COUNTED_VERSIONS {
        cache.count(&version(number), CacheOutcome::Hit, Duration::from_nanos(3));
    }
    assert_eq!(cache.times(&version(1))[0].count, 1);
    cache.count(
        &version(MAX_COUNTED_VERSIONS + 1),
        CacheOutcome::Miss,
        Duration::from_nanos(3),
    );
    assert_eq!(cache.times(&version(1))[0].count, 0);
    assert_eq!(cache.times(&version(MAX_COUNTED_VERSIONS + 1))[1].count, 1);
}

/// All that a key follows from, in small.
#[derive(Debug, Clone, PartialEq)]
struct Whole {
    tenant: String,
    endpoint: String,
    serial: u64,
    arm: String,
    owner: String,
    version: u32,
    digest: Option<String>,
    unit: Option<String>,
    parameters: Vec<(String, bool)>,
    outputs: Vec<String>,
    inputs: Vec<(String, Vec<u8>)>,
}

impl Whole {
    fn key(&self) -> Key {
        let input = |(name, bytes): &(String, Vec<u8>)| Tensor {
            name: name.as_str().into(),
            ..tensor(bytes)
        };
        let job = InferJob {
            request: RequestId(1),
            tenant: tenant(&self.tenant),
            version: std::sync::Arc::new(ModelVersionKey {
                tenant: tenant(&self.owner),
                model: ModelId::parse("m").unwrap(),
                version: Version::new(self.version).unwrap(),
            }),
            inputs: self.inputs.iter().map(input).collect(),
            outputs: self.outputs.clone(),
            rows: 1,
            deadline: Deadline::after(Instant::now(), Duration::from_secs(1)),
            standing: Standing::default(),
            sequence: None,
            answers: None,
            meter: None,
            trace: TraceContext {
                trace_id: 0,
                span_id: 0,
                sampled: false,
            },
            parameters: None,
        };
        let parameters: Parameters = (self.parameters.iter())
            .map(|(name, value)| (name.clone(), ParameterValue::Bool(*value)))
            .collect();
        Asked {
            endpoint: &self.endpoint,
            serial: self.serial,
            arm: &self.arm,
            digest: self.digest.as_deref(),
            unit: self.unit.as_deref(),
            parameters: &parameters,
            job: &job,
        }
        .key()
    }
}

prop_compose! {
    fn whole()(
        names in prop::array::uniform4("[ab]{1,2}"),
        serial in 0..2_u64,
        version in 1..3_u32,
        digest in prop::option::of("[ab]{0,2}"),
        unit in prop::option::of("[ab]{0,2}"),
        parameters in prop::collection::btree_map("[ab]{1,2}", any::<bool>(), 0..3),
        outputs in prop::collection::vec("[ab]{1,2}", 0..3),
        inputs in prop::collection::vec(("[ab]{1,2}", prop::collection::vec(0..2_u8, 0..3)), 0..3),
    ) -> Whole {
        let [tenant, endpoint, arm, owner] = names;
        let parameters = parameters.into_iter().collect();
        Whole { tenant, endpoint, serial, arm, owner, version, digest, unit, parameters, outputs, inputs }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Two requests have one key if and only if all that their answers follow from is equal: so no tenant has another's key.
    #[test]
    fn keys_are_equal_where_requests_are_and_nowhere_else(one in whole(), other in whole()) {
        prop_assert_eq!(one.key() == other.key(), one == other);
        let mut turned = one.clone();
        turned.parameters.reverse();
        prop_assert_eq!(turned.key(), one.key());
        let stranger = Whole { tenant: "stranger".into(), ..one.clone() };
        prop_assert_ne!(stranger.key(), one.key());
    }

    /// Whatever is put and asked, by whom ever: nothing of another tenant is found, and no bound is passed.
    #[test]
    fn no_answer_crosses_tenants_and_no_bound_is_passed(
        asks in prop::collection::vec((0..3_usize, 0..2_usize, 0..6_u8, 0..400_usize, any::<bool>(), 0..3_u64), 1..200),
    ) {
        const WHO: [&str; 3] = ["acme", "globex", "initech"];
        let bounds = CacheBounds { bytes: 6_000, tenant_bytes: 3_000 };
        let mut bed = Bed::new(bounds.bytes, bounds.tenant_bytes);
        let mut own: Vec<(usize, usize, u8)> = Vec::new();
        for (who, name, key, bytes, put, seconds) in asks {
            let endpoint = ["e", "f"][name];
            bed.now += Duration::from_secs(seconds);
            if put {
                if bed.put(WHO[who], endpoint, key, bytes) {
                    own.push((who, name, key));
                }
            } else if bed.has(WHO[who], endpoint, key) {
                prop_assert!(own.contains(&(who, name, key)), "nobody of this tenant has put it there");
            }
            let usage = bed.store.usage();
            prop_assert!(usage.bytes <= bounds.bytes);
            prop_assert!(WHO.iter().all(|who| bed.store.bytes_of(&tenant(who)) <= bounds.tenant_bytes));
        }
    }
}

#[test]
fn sizes_count_bytes_names_and_what_it_takes_to_find_them() {
    assert_eq!(size_of(&[]), ENTRY_OVERHEAD);
    assert_eq!(size_of(&[tensor(&[0; 100])]), taken(100));
}
