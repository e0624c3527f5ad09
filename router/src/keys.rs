//! Requests that wait for the keys of their token's issuer.
//!
//! Owns what becomes of a credential that was refused only because its issuer's newest keys are not here: the request waits at the
//! issuer's book until a fetch is over, and is judged once more. The book says who may wait; here is how long. Does not fetch.
//!
//! Invariants: a request waits within its own deadline, and never longer than [`KEY_PATIENCE`]; a credential that is refused for
//! another reason, or that holds, costs nothing here.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use mesh_actors::Permit;
use mesh_policies::{
    AuthError, MeshSnapshot, Principal,
    access::{Judged, KeyWait, Origin, judge_or_wait},
    snapshot::TenantEntry,
};
use mesh_types::Fault;

use crate::{Call, Credential, RouterHandle, RouterParts, flight::InFlight, pipeline::Versioned};

/// The longest wait for an issuer's keys.
pub const KEY_PATIENCE: Duration = Duration::from_secs(6);

/// The snapshot that a call was read by at its door, if it was.
pub(crate) type Seen = Option<Arc<MeshSnapshot>>;

/// How far a call has come without waiting.
pub(crate) enum Begun {
    /// It is on a device, or in an ensemble.
    InFlight(Box<InFlight>),
    /// Its inputs are in the memory of a device, and a driver is to be waited for while they are copied.
    Copies(Box<Versioned>),
    /// The keys of its issuer may be coming: it is to begin anew after that, if they come in time.
    Waits((Box<Call>, Seen), Permit, KeyWait, Instant),
}

impl Begun {
    /// Boxed here: what waits for it is moved about, and it is not.
    pub(crate) fn in_flight(in_flight: InFlight) -> Self {
        Self::InFlight(Box::new(in_flight))
    }
}

/// A caller with its tenant, or what to wait for.
pub(crate) type Proven<'a> = Judged<(Principal, &'a Arc<TenantEntry>)>;

/// Who is calling, or what to wait for to find out.
// Whole in a profile: the bench says what part of a request this is.
#[inline(never)]
pub(crate) fn prove<'a>(
    snapshot: &'a MeshSnapshot,
    parts: &RouterParts,
    credential: &Credential,
    unix_seconds: i64,
) -> Result<Proven<'a>, Fault> {
    let presented = credential.presented();
    let attempts = &*parts.attempts;
    let origin = credential.address().map(|address| Origin {
        attempts,
        address,
        is_ahead: false,
    });
    let proven = judge_or_wait(
        || snapshot.caller_from(presented, unix_seconds, origin),
        |refused| snapshot.credentials.book_for(presented, refused),
        || parts.clock.now(),
    );
    Ok(proven?)
}

/// Who is calling, for what is answered at once. Wrong tokens count for where they come from, as those of calls do.
pub(crate) fn caller<'a>(
    snapshot: &'a MeshSnapshot,
    parts: &RouterParts,
    credential: &Credential,
) -> Result<(Principal, &'a Arc<TenantEntry>), AuthError> {
    called(snapshot, parts, credential, false)
}

/// The same ahead of a call, which judges its credential by itself: a wrong token counts there, and not here as well.
pub(crate) fn caller_ahead<'a>(
    snapshot: &'a MeshSnapshot,
    parts: &RouterParts,
    credential: &Credential,
) -> Result<(Principal, &'a Arc<TenantEntry>), AuthError> {
    called(snapshot, parts, credential, true)
}

fn called<'a>(
    snapshot: &'a MeshSnapshot,
    parts: &RouterParts,
    credential: &Credential,
    is_ahead: bool,
) -> Result<(Principal, &'a Arc<TenantEntry>), AuthError> {
    let attempts = &*parts.attempts;
    let origin = credential.address().map(|address| Origin {
        attempts,
        address,
        is_ahead,
    });
    snapshot.caller_from(credential.presented(), parts.clock.unix_seconds(), origin)
}

/// Waits, but not beyond the deadline; false if that came first.
pub(crate) async fn waited(wait: KeyWait, until: Instant) -> bool {
    tokio::time::timeout_at(until.into(), wait).await.is_ok()
}

/// Until when a call that came at this time waits for keys, its own timeout considered.
pub(crate) fn patience(received: Instant, timeout: Duration) -> Instant {
    received.checked_add(timeout.min(KEY_PATIENCE)).unwrap_or(received)
}

/// The refusal of a credential whose keys did not come.
pub(crate) fn in_vain() -> Fault {
    AuthError::UnknownKey.into()
}

impl RouterHandle {
    /// Waits for the keys of a credential's issuer where they may be coming, so that whatever is asked next finds them; at most
    /// [`KEY_PATIENCE`]. Says nothing of the credential: that is for what is asked next.
    pub async fn await_keys(&self, credential: &Credential) {
        let parts = self.parts();
        let until = patience(parts.clock.now(), parts.default_timeout);
        loop {
            let wait = match prove(&parts.snapshots.load(), parts, credential, parts.clock.unix_seconds()) {
                Ok(Judged::Waits(wait)) => wait,
                Ok(Judged::Holds(_)) | Err(_) => return,
            };
            if !waited(wait, until).await {
                return;
            }
        }
    }
}
