//! What is counted of the keys that issuers publish: fetches, how many keys there are, and since when.

use std::sync::atomic::{AtomicI64, AtomicU64};

use parking_lot::Mutex;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

/// Issuers that are named; all others are one.
const MAX_ISSUERS_NAMED: usize = 200;
const OTHERS: &str = "other";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct IssuerLabels {
    issuer: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FetchLabels {
    issuer: String,
    outcome: &'static str,
}

/// The issuers whose keys are fetched, by the names that admins have given them.
#[derive(Debug, Default)]
pub(crate) struct Issuers {
    fetches: Family<FetchLabels, Counter>,
    keys: Family<IssuerLabels, Gauge<u64, AtomicU64>>,
    fetched: Family<IssuerLabels, Gauge<i64, AtomicI64>>,
    // What each has ended in so far, so that one that goes takes its series along.
    named: Mutex<Vec<(String, Vec<&'static str>)>>,
}

impl Issuers {
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register(
            "mesh_issuer_key_fetches",
            "Fetches of the keys that an issuer publishes, by what came of them",
            self.fetches.clone(),
        );
        registry.register(
            "mesh_issuer_keys",
            "Keys of an issuer that tokens are checked with",
            self.keys.clone(),
        );
        registry.register(
            "mesh_issuer_keys_fetched_timestamp_seconds",
            "When the keys of an issuer were fetched last, in Unix seconds",
            self.fetched.clone(),
        );
    }

    fn named(&self, issuer: &str, outcome: &'static str) -> String {
        let mut named = self.named.lock();
        let room = named.len() < MAX_ISSUERS_NAMED;
        match named.iter_mut().find(|(name, _)| name == issuer) {
            Some((_, outcomes)) => {
                if !outcomes.contains(&outcome) {
                    outcomes.push(outcome);
                }
            }
            None if room => named.push((issuer.to_owned(), vec![outcome])),
            None => return OTHERS.to_owned(),
        }
        issuer.to_owned()
    }

    fn ended(&self, issuer: &str, outcome: &'static str) -> String {
        let issuer = self.named(issuer, outcome);
        let labels = FetchLabels {
            issuer: issuer.clone(),
            outcome,
        };
        self.fetches.get_or_create(&labels).inc();
        issuer
    }

    pub(crate) fn fetched(&self, issuer: &str, keys: usize, unix_seconds: i64) {
        let issuer = self.ended(issuer, "fetched");
        // Many that share a name have no number of their own.
        if issuer != OTHERS {
            let labels = IssuerLabels { issuer };
            self.keys.get_or_create(&labels).set(keys as u64);
            self.fetched.get_or_create(&labels).set(unix_seconds);
        }
    }

    pub(crate) fn failed(&self, issuer: &str, reason: &'static str) {
        self.ended(issuer, reason);
    }

    pub(crate) fn gone(&self, issuer: &str) {
        let mut named = self.named.lock();
        let Some(at) = named.iter().position(|(name, _)| name == issuer) else {
            return;
        };
        let (issuer, outcomes) = named.swap_remove(at);
        for outcome in outcomes {
            let issuer = issuer.clone();
            self.fetches.remove(&FetchLabels { issuer, outcome });
        }
        let labels = IssuerLabels { issuer };
        self.keys.remove(&labels);
        self.fetched.remove(&labels);
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;

    fn lines(issuers: &Issuers) -> Vec<String> {
        let mut registry = Registry::default();
        issuers.register(&mut registry);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        text.lines()
            .filter(|line| !line.starts_with('#'))
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn an_issuer_that_goes_takes_its_series_along() {
        let issuers = Issuers::default();
        issuers.fetched("sso", 3, 1_000);
        issuers.failed("sso", "timeout");
        let there = lines(&issuers);
        assert_eq!(there.len(), 4, "{there:?}");
        assert!(
            there.contains(&"mesh_issuer_keys{issuer=\"sso\"} 3".to_owned()),
            "{there:?}"
        );
        issuers.gone("sso");
        issuers.gone("sso");
        assert_eq!(lines(&issuers), [""; 0]);
    }

    #[test]
    fn two_hundred_issuers_are_named_and_the_next_is_one_of_the_others() {
        let issuers = Issuers::default();
        for index in 0..=MAX_ISSUERS_NAMED {
            issuers.failed(&format!("i{index}"), "timeout");
        }
        let there = lines(&issuers);
        assert_eq!(there.len(), MAX_ISSUERS_NAMED + 1);
        assert!(there.iter().any(|line| line.contains("issuer=\"other\"")), "{there:?}");
    }
}
