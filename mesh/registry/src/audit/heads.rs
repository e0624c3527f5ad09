//! Signed heads, checked as the log is read from its beginning: each must hold for everything before it.

use mesh_policies::PublicKey;

use crate::journal::{Head, Record, signed_text};

/// What was seen of the log's signatures so far.
pub(super) struct Heads {
    /// Whose signatures they must be; none: whose they say they are.
    key: Option<PublicKey>,
    /// The write before the one that comes; none before the first.
    before: Option<Head>,
    /// How many there were.
    pub(super) count: u64,
    /// The last revision that one is of.
    pub(super) signed: Option<u64>,
    /// Whose the last one is.
    pub(super) last_key: Option<PublicKey>,
}

impl Heads {
    pub(super) fn new(key: Option<PublicKey>) -> Self {
        Self {
            key,
            before: None,
            count: 0,
            signed: None,
            last_key: None,
        }
    }

    /// The same, where it is known what the first entry follows.
    pub(super) fn after(key: Option<PublicKey>, head: Head) -> Self {
        Self {
            before: Some(head),
            ..Self::new(key)
        }
    }

    /// Takes in the next entry, after which the log's head is this one.
    pub(super) fn take(&mut self, record: &Record, next: Head) -> Result<(), String> {
        let before = self.before.replace(next);
        // Of the first entry that is there it is not known what it follows, if others went before it.
        let (Some(signed), Some(before)) = (&record.head, before) else {
            return Ok(());
        };
        if let Some(key) = self.key.filter(|key| *key != signed.key) {
            return Err(format!("it is by {}, and must be by {key}", signed.key));
        }
        let text = signed_text(before, record.time);
        if !signed.key.holds(text.as_bytes(), &signed.signature) {
            return Err(format!(
                "what is written up to revision {} is not what was signed",
                before.revision
            ));
        }
        self.count += 1;
        self.signed = Some(before.revision);
        self.last_key = Some(signed.key);
        Ok(())
    }
}
