//! Sessions of the web app: random, in memory only, bounded, gone after half a day or a restart.

use std::collections::HashMap;

use mesh_types::KeyId;
use parking_lot::Mutex;
use rand::RngExt as _;
use sha2::{Digest as _, Sha256};

/// The most sessions at once; one more ends the one that would end first.
pub const MAX_SESSIONS: usize = 1_000;
/// How long a session lasts.
pub const SESSION_SECONDS: i64 = 12 * 3_600;

/// Which token a session stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Session {
    /// The token's name.
    pub(crate) token: KeyId,
    /// The hash it had: another one under the same name is another token.
    pub(crate) hash: String,
    expires: i64,
}

/// The open sessions, by the digest of their identifier, so that a lookup's time says nothing about one.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    open: Mutex<HashMap<[u8; 32], Session>>,
}

fn digest(identifier: &str) -> [u8; 32] {
    Sha256::digest(identifier.as_bytes()).into()
}

impl Sessions {
    /// Opens a session; the answer is its identifier, 64 hexadecimal digits.
    pub(crate) fn open(&self, token: KeyId, hash: String, now: i64) -> String {
        let random: [u8; 32] = rand::rng().random();
        let identifier: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let session = Session {
            token,
            hash,
            expires: now + SESSION_SECONDS,
        };
        let mut open = self.open.lock();
        if open.len() >= MAX_SESSIONS {
            open.retain(|_, session| session.expires > now);
        }
        if open.len() >= MAX_SESSIONS {
            let first = open.iter().min_by_key(|(_, session)| session.expires);
            if let Some(first) = first.map(|(key, _)| *key) {
                open.remove(&first);
            }
        }
        open.insert(digest(&identifier), session);
        identifier
    }

    /// The session, while it lasts.
    pub(crate) fn find(&self, identifier: &str, now: i64) -> Option<Session> {
        let open = self.open.lock();
        open.get(&digest(identifier))
            .filter(|session| session.expires > now)
            .cloned()
    }

    /// Ends a session.
    pub(crate) fn close(&self, identifier: &str) {
        self.open.lock().remove(&digest(identifier));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(sessions: &Sessions, now: i64) -> String {
        sessions.open(KeyId::parse("root").unwrap(), "h".into(), now)
    }

    #[test]
    fn a_session_lasts_half_a_day_or_until_it_is_closed() {
        let sessions = Sessions::default();
        let (first, second) = (open(&sessions, 0), open(&sessions, 0));
        assert_ne!(first, second);
        assert!(sessions.find(&first, SESSION_SECONDS - 1).is_some());
        assert!(sessions.find(&first, SESSION_SECONDS).is_none());
        sessions.close(&second);
        assert!(sessions.find(&second, 0).is_none());
        assert!(sessions.find("", 0).is_none());
    }

    #[test]
    fn one_past_the_bound_ends_the_one_that_would_end_first() {
        let sessions = Sessions::default();
        let first = open(&sessions, 0);
        let kept: Vec<_> = (1..MAX_SESSIONS).map(|_| open(&sessions, 1)).collect();
        assert!(sessions.find(&first, 1).is_some());
        let last = open(&sessions, 2);
        assert!(sessions.find(&first, 2).is_none());
        assert!(
            kept.iter()
                .chain([&last])
                .all(|session| sessions.find(session, 2).is_some())
        );
    }
}
