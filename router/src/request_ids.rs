//! Numbers for requests: unlike each other within the mesh's life and, by a random half, between lives and threads.

use std::{
    cell::Cell,
    hash::{BuildHasher, Hasher, RandomState},
};

use mesh_types::RequestId;

/// Makes the numbers of one thread.
#[derive(Debug)]
pub struct RequestIds {
    random: u64,
    next: Cell<u64>,
}

impl Default for RequestIds {
    fn default() -> Self {
        Self::new()
    }
}

impl RequestIds {
    /// Begins somewhere.
    pub fn new() -> Self {
        // The standard library's hashers start from the system's randomness.
        let random = || RandomState::new().build_hasher().finish();
        Self {
            random: random(),
            next: Cell::new(random()),
        }
    }

    /// The next number.
    pub fn next(&self) -> RequestId {
        let next = self.next.get().wrapping_add(1);
        self.next.set(next);
        RequestId(u128::from(self.random) << 64 | u128::from(next))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_differ_within_a_thread_and_between_threads() {
        let (one, other) = (RequestIds::new(), RequestIds::new());
        assert_ne!(one.next(), one.next());
        assert_ne!(one.next().0 >> 64, other.next().0 >> 64);
    }
}
