//! Refusals that would tell by their time what their words do not: a name that is another tenant's, a key that exists.
//!
//! Such a refusal is answered at a fixed time after its request came, so how far the pipeline got before it refused does not
//! show. The time is a multiple of what the longest way takes: with policies it follows from their size, because a name that is not
//! there asks none, and one that is there and was not asked for yet asks all that can concern it. What is held meanwhile is the caller's own connection or stream,
//! of which there are so many at most; limits and places were given back before.

use std::time::{Duration, Instant};

use mesh_types::FaultClass;
use tokio::time::sleep_until;

/// When a refusal that must not tell anything is answered, after its request came, where there are no policies.
pub const REFUSED_AFTER: Duration = Duration::from_millis(2);

/// Whether a refusal of this class might tell something by its time: an unknown name, or a credential that lets nobody in.
pub const fn is_levelled(class: FaultClass) -> bool {
    matches!(class, FaultClass::NotFound | FaultClass::Unauthenticated)
}

/// Returns when a refusal of a request that came then is to be answered, where it takes so long at most to ask the policies.
pub(crate) async fn level(received: Instant, longest: Duration) {
    sleep_until((received + REFUSED_AFTER + longest).into()).await;
}
