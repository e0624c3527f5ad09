//! The memory of verified tokens, so that a signature is checked once and not for each request.
//!
//! Owns a bounded map from the SHA-256 of a token to what it proved. It belongs to one set of issuers: whoever changes them
//! starts a new memory. Does not decide on time: whoever asks checks the token's window and its key again, so nothing outlives its
//! `exp` or the key that signed it.
//!
//! Invariant: at most [`MAX_VERIFIED_TOKENS`] tokens, in two generations; a full young one becomes the old one and the former
//! old one is forgotten.

use std::{collections::HashMap, mem, sync::Arc};

use parking_lot::RwLock;
use sha2::{Digest, Sha256};

use super::jwt::VerifiedToken;

/// Tokens remembered at any time.
pub const MAX_VERIFIED_TOKENS: usize = 8_192;
const GENERATION: usize = MAX_VERIFIED_TOKENS / 2;

/// What stands for a token, so that the memory holds none.
pub(super) type Fingerprint = [u8; 32];

/// The fingerprint of a token.
pub(super) fn fingerprint(token: &str) -> Fingerprint {
    Sha256::digest(token.as_bytes()).into()
}

type Generation = HashMap<Fingerprint, Arc<VerifiedToken>>;

/// Tokens whose signature, issuer and audience held.
#[derive(Default)]
pub(super) struct VerifiedTokens {
    /// The young one, then the old one.
    generations: RwLock<(Generation, Generation)>,
}

impl VerifiedTokens {
    pub(super) fn get(&self, fingerprint: &Fingerprint) -> Option<Arc<VerifiedToken>> {
        let generations = self.generations.read();
        let (young, old) = &*generations;
        young.get(fingerprint).or_else(|| old.get(fingerprint)).cloned()
    }

    pub(super) fn insert(&self, fingerprint: Fingerprint, token: Arc<VerifiedToken>) {
        let mut generations = self.generations.write();
        let (young, old) = &mut *generations;
        if young.len() >= GENERATION {
            *old = mem::take(young);
        }
        young.insert(fingerprint, token);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        let generations = self.generations.read();
        generations.0.len() + generations.1.len()
    }
}
