//! One request sees one configuration, also where its body is read by it: with a clock that changes the configuration whenever it
//! is read, so that no two moments of a request need have the same.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use super::*;

/// Publishes one of two snapshots at each reading, in an order that looks like chance and is always the same.
struct Turning {
    snapshots: Arc<ArcSwap<MeshSnapshot>>,
    either: [Arc<MeshSnapshot>; 2],
    random: AtomicU64,
}

impl Clock for Turning {
    fn now(&self) -> Instant {
        let mut random = self.random.load(Ordering::Relaxed);
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        self.random.store(random, Ordering::Relaxed);
        let which = usize::from(random.count_ones() % 2 == 1);
        self.snapshots.store(self.either[which].clone());
        Instant::now()
    }

    fn unix_seconds(&self) -> i64 {
        SystemClock.unix_seconds()
    }
}

fn turning() -> Bed {
    let key = key();
    let of = |datatype| Arc::new(snapshot(TenantLimits::default(), &key, datatype));
    let either = [of(DataType::Int32), of(DataType::Uint8)];
    let snapshots = Arc::new(ArcSwap::new(either[0].clone()));
    let clock = Turning {
        snapshots: snapshots.clone(),
        either,
        random: AtomicU64::new(0x9e37_79b9_7f4a_7c15),
    };
    bed_by(snapshots, Arc::new(clock), key.text, |_| {})
}

#[actix_web::test]
async fn what_was_read_by_a_configuration_is_answered_by_it() {
    let bed = turning();
    let mut client = Client::new(&bed).await;
    let raw = "inference-header-content-length: 0\r\n";
    let mut whole = [0; 2];
    for round in 0..200 {
        let rows = client
            .post("/v1/models/echo:predict", "", br#"{"instances":[[1,2]]}"#)
            .await;
        assert_eq!(rows.status, 200, "{round}: {:?}", rows.body);
        assert_eq!(rows.json(), serde_json::json!({"predictions": [[1, 2]]}));
        let flat = client
            .post("/v2/models/echo/generate", "", br#"{"INPUT0":[3,4]}"#)
            .await;
        assert_eq!(flat.status, 200, "{round}: {:?}", flat.body);
        let bytes = client.post("/v2/models/echo/infer", raw, &[5, 0, 0, 0]).await;
        assert_eq!(bytes.status, 200, "{round}: {:?}", bytes.body);
        assert!(bytes.body.ends_with(&[5, 0, 0, 0]));
        // Four bytes are four small numbers or one large one, and the answer says which they were.
        let length = bytes.header("inference-header-content-length").unwrap();
        let head: serde_json::Value = serde_json::from_slice(&bytes.body[..length.parse().unwrap()]).unwrap();
        let output = &head["outputs"][0];
        let (datatype, shape) = (output["datatype"].as_str().unwrap(), &output["shape"]);
        let at = usize::from(datatype == "UINT8");
        assert_eq!(
            *shape,
            [serde_json::json!([1, 1]), serde_json::json!([1, 4])][at],
            "{datatype}"
        );
        whole[at] += 1;
    }
    assert!(whole[0] > 20 && whole[1] > 20, "both configurations came: {whole:?}");
}
