//! Sign-ins and sign-outs under way: what the mesh must know again when a browser comes back, found by its `state`, once.
//!
//! Invariants: at most [`MAX_LOGINS`] of either, each for at most [`LOGIN_SECONDS`]; one more ends the oldest, so that whoever begins many
//! must begin a thousand while somebody types a password to be in the way; a state is kept as its digest.

use std::collections::HashMap;

use parking_lot::Mutex;

use crate::sessions::{SessionKey, digest};

/// The most sign-ins under way, and the most sign-outs.
pub const MAX_LOGINS: usize = 1_000;
/// How long one may take.
pub const LOGIN_SECONDS: i64 = 600;

/// One sign-in.
pub(super) struct Login {
    /// What the browser's cookie holds.
    pub(super) browser: String,
    /// What the identity token must hold.
    pub(super) nonce: String,
    /// What PKCE's challenge was made of.
    pub(super) verifier: String,
    /// Where the browser was to come back to.
    pub(super) redirect_uri: String,
    /// Where it goes on to.
    pub(super) to: String,
}

/// All of one kind.
pub(super) struct Pending<T>(Mutex<HashMap<SessionKey, (i64, u64, T)>>);

impl<T> Default for Pending<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Pending<T> {
    /// Remembers one by its state.
    pub(super) fn begin(&self, state: &str, what: T, now: i64) {
        let mut logins = self.0.lock();
        if logins.len() >= MAX_LOGINS {
            logins.retain(|_, (ends, ..)| *ends > now);
        }
        let next = logins.values().map(|(_, number, _)| number + 1).max().unwrap_or(0);
        if logins.len() >= MAX_LOGINS {
            let oldest = logins.iter().min_by_key(|(_, (_, number, _))| *number);
            if let Some(oldest) = oldest.map(|(key, _)| *key) {
                logins.remove(&oldest);
            }
        }
        logins.insert(digest(state), (now + LOGIN_SECONDS, next, what));
    }

    /// The one of this state, if it is not over; there is none of it any more.
    pub(super) fn take(&self, state: &str, now: i64) -> Option<T> {
        let (ends, _, what) = self.0.lock().remove(&digest(state))?;
        (ends > now).then_some(what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login() -> Login {
        Login {
            browser: String::new(),
            nonce: String::new(),
            verifier: String::new(),
            redirect_uri: String::new(),
            to: String::new(),
        }
    }

    #[test]
    fn a_state_is_good_once_and_for_ten_minutes() {
        let logins = Pending::default();
        for state in ["a", "b"] {
            logins.begin(state, login(), 0);
        }
        assert!(logins.take("a", LOGIN_SECONDS - 1).is_some());
        assert!(logins.take("a", 0).is_none(), "it was taken twice");
        assert!(logins.take("b", LOGIN_SECONDS).is_none(), "it was over");
        assert!(logins.take("c", 0).is_none());
    }

    #[test]
    fn a_thousand_are_under_way_and_one_more_ends_the_oldest() {
        let logins = Pending::default();
        for number in 0..MAX_LOGINS {
            logins.begin(&number.to_string(), login(), 0);
        }
        assert_eq!(logins.0.lock().len(), MAX_LOGINS);
        logins.begin("more", login(), 0);
        assert_eq!(logins.0.lock().len(), MAX_LOGINS);
        assert!(logins.take("0", 0).is_none());
        assert!(logins.take("1", 0).is_some() && logins.take("more", 0).is_some());
        // What is over makes room first.
        logins.begin("late", login(), LOGIN_SECONDS);
        assert!(logins.take("2", 0).is_some());
    }
}
