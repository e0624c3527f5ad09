//! The key that snapshots and backups are signed with, and the signature: HMAC-SHA-256.
//!
//! A checksum tells damage; a seal also tells a file that somebody made without the key. The key comes from whoever opens the
//! registry and is never in the registry's folder.

use std::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

/// Bytes of a seal.
pub(crate) const SEAL_BYTES: usize = 32;
/// HMAC's own block for SHA-256.
const BLOCK_BYTES: usize = 64;

/// Signs snapshots and backups.
#[derive(Clone, Copy, Default)]
pub struct SealKey([u8; 32]);

impl SealKey {
    /// The key that follows from a secret; the secret itself cannot be found from it.
    pub fn derive(secret: &[u8]) -> Self {
        Self(Sha256::digest(secret).into())
    }

    fn mac(&self, bytes: &[u8]) -> Hmac<Sha256> {
        let mut block = [0; BLOCK_BYTES];
        for (to, from) in block.iter_mut().zip(self.0) {
            *to = from;
        }
        // Padding with zeros is what HMAC itself does; the array form cannot fail.
        let mut mac = Hmac::<Sha256>::new(&block.into());
        mac.update(bytes);
        mac
    }

    /// The seal of these bytes.
    pub(crate) fn seal(&self, bytes: &[u8]) -> [u8; SEAL_BYTES] {
        self.mac(bytes).finalize().into_bytes().into()
    }

    /// Whether a seal is that of these bytes; compares in constant time.
    pub(crate) fn holds(&self, bytes: &[u8], seal: &[u8]) -> bool {
        self.mac(bytes).verify_slice(seal).is_ok()
    }
}

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealKey([redacted])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{hex, unhex};

    #[test]
    fn the_seal_is_hmac_sha_256() {
        // RFC 4231, test case 2, has the key "Jefe", which HMAC pads with zeros as we do.
        let mut key = SealKey::default();
        key.0[..4].copy_from_slice(b"Jefe");
        let seal = key.seal(b"what do ya want for nothing?");
        assert_eq!(
            hex(&seal),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        assert_eq!(unhex(&hex(&seal)), Some(seal));
    }

    #[test]
    fn a_seal_holds_for_its_bytes_and_its_key_only() {
        let key = SealKey::derive(b"a");
        let seal = key.seal(b"bytes");
        assert!(key.holds(b"bytes", &seal));
        assert!(!key.holds(b"byteS", &seal));
        assert!(!key.holds(b"bytes", &seal[..31]));
        assert!(!SealKey::derive(b"b").holds(b"bytes", &seal));
        assert_eq!(format!("{key:?}"), "SealKey([redacted])");
    }
}
