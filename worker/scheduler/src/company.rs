//! Whether several tenants use the device.
//!
//! Owns no more than who came last. One tenant alone makes only itself wait; beside others, its batches are what they wait for.

use std::time::{Duration, Instant};

use crate::tenants::TenantIx;

/// Tenants that came within so long of one another use the device together.
const TOGETHER: Duration = Duration::from_secs(1);

/// Who came last, and since when more than one does.
#[derive(Debug, Default)]
pub(crate) struct Company {
    last: Option<TenantIx>,
    until: Option<Instant>,
}

impl Company {
    /// A tenant's request was taken in. One that takes over the index of a tenant that was forgotten passes for it, which is
    /// found out with whoever comes next.
    pub(crate) fn came(&mut self, now: Instant, tenant: TenantIx) {
        if self.last.replace(tenant).is_some_and(|last| last != tenant) {
            self.until = Some(now + TOGETHER);
        }
    }

    /// Whether there are several.
    pub(crate) fn is_there(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenants::Tenants;
    use mesh_types::{TenantId, TenantShare};

    #[test]
    fn two_that_come_in_turn_are_company_until_only_one_does() {
        let (mut tenants, mut company, start) = (Tenants::default(), Company::default(), Instant::now());
        let mut meet = |name: &str| tenants.meet(&TenantId::parse(name).unwrap(), TenantShare::default());
        let (one, other) = (meet("one"), meet("other"));
        company.came(start, one);
        company.came(start, one);
        assert!(!company.is_there(start));
        company.came(start, other);
        assert!(company.is_there(start));
        let later = start + TOGETHER - Duration::from_millis(1);
        company.came(later, other);
        assert!(company.is_there(later));
        assert!(!company.is_there(start + TOGETHER));
    }
}
