//! When refusals are answered that must not tell anything by their time.

use mesh_policies::authorization::{Action, Authorization, Because, Judge, Object, Subject, Verdict};

use super::*;
use crate::REFUSED_AFTER;

/// Denies one name, and may take long for it.
#[derive(Debug)]
struct Slow;

const LONGEST: Duration = Duration::from_millis(17);

impl Judge for Slow {
    fn judge(&self, _: &Subject<'_>, _: Action, object: &Object<'_>) -> Verdict {
        Verdict {
            allowed: object.name != "loading",
            because: Because::NothingPermits,
        }
    }

    fn longest(&self) -> Duration {
        LONGEST
    }
}

/// How long after it came a call is refused, in time that moves only while everybody waits.
async fn refused_after(bed: &Bed, who: &str, name: &str) -> Duration {
    let came = tokio::time::Instant::now();
    let mut call = bed.call(who, name);
    call.received = came.into_std();
    let fault = bed.refusal(call).await;
    assert!(crate::is_levelled(fault.class), "{who} {name}: {fault}");
    came.elapsed()
}

#[test]
fn names_that_are_denied_foreign_and_not_there_are_refused_once_the_slowest_answer_would_be() {
    run(async {
        let bed = Bed::new();
        let of_another = ("globex", "digits");
        let kinds = [
            ("acme", "loading"),
            ("acme", "nonsense"),
            of_another,
            ("nobody", "digits"),
        ];
        for (who, name) in kinds.into_iter().skip(1) {
            assert_eq!(refused_after(&bed, who, name).await, REFUSED_AFTER, "{who} {name}");
        }
        let before = MeshSnapshot::clone(&bed.parts.snapshots.load());
        let judged = before.with_authorization(Authorization::by(Arc::new(Slow)));
        bed.parts.snapshots.store(Arc::new(judged));
        // Twice: what is asked for the first time is decided then, and remembered.
        for (who, name) in [kinds, kinds].concat() {
            let waited = refused_after(&bed, who, name).await;
            assert_eq!(waited, REFUSED_AFTER + LONGEST, "{who} {name}");
        }
    });
}
