//! Sessions of the web app: random, in memory only, bounded, gone after half a day, two hours without a sign of life, or a restart.

use std::{collections::HashMap, sync::Arc};

use mesh_policies::access::IdToken;
use mesh_resources::AdminRole;
use mesh_types::KeyId;
use parking_lot::Mutex;
use rand::RngExt as _;
use sha2::{Digest as _, Sha256};

/// The most sessions at once; one more ends the one that would end first.
pub const MAX_SESSIONS: usize = 1_000;
/// How long a session lasts.
pub const SESSION_SECONDS: i64 = 12 * 3_600;
/// How long a session lasts that nobody uses.
pub const IDLE_SECONDS: i64 = 2 * 3_600;

/// Whom a session stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Owner {
    /// The holder of an admin token.
    Token {
        /// The token's name.
        name: KeyId,
        /// The hash it had: another one under the same name is another token.
        hash: String,
    },
    /// Somebody whom the identity provider has vouched for.
    Person {
        /// The name in the audit log.
        who: Arc<str>,
        /// What the provider's claims came to.
        role: AdminRole,
        /// By which the provider knows whose session it is.
        token: IdToken,
    },
}

/// A session, as the memory knows it: the digest of its identifier, so that a lookup's time says nothing about one.
pub(crate) type SessionKey = [u8; 32];

#[derive(Debug)]
struct Session {
    owner: Owner,
    expires: i64,
    seen: i64,
}

impl Session {
    fn ends(&self) -> i64 {
        self.expires.min(self.seen.saturating_add(IDLE_SECONDS))
    }
}

/// The open sessions.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    open: Mutex<HashMap<SessionKey, Session>>,
}

/// What stands for an identifier.
pub(crate) fn digest(identifier: &str) -> SessionKey {
    Sha256::digest(identifier.as_bytes()).into()
}

/// 256 random bits in hexadecimal digits.
pub(crate) fn random_text() -> String {
    let random: [u8; 32] = rand::rng().random();
    random.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Sessions {
    /// Opens a session; the answer is its identifier, 64 hexadecimal digits, which nobody has seen before.
    pub(crate) fn open(&self, owner: Owner, now: i64) -> String {
        let identifier = random_text();
        let session = Session {
            owner,
            expires: now + SESSION_SECONDS,
            seen: now,
        };
        let mut open = self.open.lock();
        if open.len() >= MAX_SESSIONS {
            open.retain(|_, session| session.ends() > now);
        }
        if open.len() >= MAX_SESSIONS {
            let first = open.iter().min_by_key(|(_, session)| session.ends());
            if let Some(first) = first.map(|(key, _)| *key) {
                open.remove(&first);
            }
        }
        open.insert(digest(&identifier), session);
        identifier
    }

    /// Whom a session stands for, while it lasts. Asking is a sign of life.
    pub(crate) fn find(&self, key: &SessionKey, now: i64) -> Option<Owner> {
        let mut open = self.open.lock();
        let session = open.get_mut(key)?;
        if session.ends() <= now {
            open.remove(key);
            return None;
        }
        session.seen = now;
        Some(session.owner.clone())
    }

    /// Ends a session; the answer is whose it was, if it was not over.
    pub(crate) fn close(&self, key: &SessionKey, now: i64) -> Option<Owner> {
        let session = self.open.lock().remove(key)?;
        (session.ends() > now).then_some(session.owner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(sessions: &Sessions, now: i64) -> SessionKey {
        let owner = Owner::Token {
            name: KeyId::parse("root").unwrap(),
            hash: "h".into(),
        };
        digest(&sessions.open(owner, now))
    }

    #[test]
    fn a_session_lasts_half_a_day_or_until_it_is_closed() {
        let sessions = Sessions::default();
        let (first, second) = (open(&sessions, 0), open(&sessions, 0));
        assert_ne!(first, second);
        for now in (0..SESSION_SECONDS).step_by(3_600) {
            assert!(sessions.find(&first, now).is_some(), "{now}");
        }
        assert!(sessions.find(&first, SESSION_SECONDS - 1).is_some());
        assert!(sessions.find(&first, SESSION_SECONDS).is_none());
        assert!(sessions.close(&second, 0).is_some());
        assert!(sessions.close(&second, 0).is_none() && sessions.close(&first, SESSION_SECONDS).is_none());
        assert!(sessions.find(&second, 0).is_none());
        assert!(sessions.find(&digest(""), 0).is_none());
    }

    #[test]
    fn a_session_that_nobody_uses_ends_after_two_hours() {
        let sessions = Sessions::default();
        let session = open(&sessions, 0);
        assert!(sessions.find(&session, IDLE_SECONDS - 1).is_some());
        assert!(sessions.find(&session, 2 * IDLE_SECONDS - 1).is_none());
        // For good: no later sign of life wakes it.
        assert!(sessions.find(&session, 0).is_none());
    }

    #[test]
    fn one_past_the_bound_ends_the_one_that_would_end_first() {
        let sessions = Sessions::default();
        let first = open(&sessions, 0);
        let kept: Vec<_> = (1..MAX_SESSIONS).map(|_| open(&sessions, 1)).collect();
        let last = open(&sessions, 2);
        assert!(sessions.find(&first, 2).is_none());
        assert!(
            kept.iter()
                .chain([&last])
                .all(|session| sessions.find(session, 2).is_some())
        );
    }
}
