//! What tenants and subjects of their tokens have used, to be shown, kept and taken over.
//!
//! Owns no counts: it goes through those of all accounts, each under its own lock and none for longer than its own takes. Does not
//! write: whoever keeps the counts over a restart is told what has changed, and tells what it could not keep.
//!
//! Invariant: what was used is told as changed until it has been told once, and again where it was told to be.

use mesh_types::TenantId;

use super::{Limiter, TenantUsage, TokenSubject, Usage};

impl Limiter {
    /// What a tenant has used today and this month; none if it has not called since the counts began.
    pub fn usage(&self, tenant: &TenantId) -> Option<Usage> {
        let unix = self.now().unix_seconds;
        let ledger = self.tenants.read().get(tenant).cloned()?;
        let mut state = ledger.state.lock();
        state.counts.follow(unix);
        Some(state.counts.usage)
    }

    /// What each subject of a tenant's tokens has used today and this month, in no order: those that have used something since budgets
    /// of subjects were declared.
    pub fn usage_of_subjects(&self, tenant: &TenantId) -> Vec<(TokenSubject, Usage)> {
        let unix = self.now().unix_seconds;
        let Some(ledger) = self.tenants.read().get(tenant).cloned() else {
            return Vec::new();
        };
        let mut state = ledger.state.lock();
        let tokens = state.tokens.iter_mut();
        let used = tokens.flat_map(|tokens| tokens.usages(unix));
        used.map(|(name, usage)| (name.clone(), usage)).collect()
    }

    /// Whether what a tenant, or a subject of its tokens, has used is still counted.
    pub fn is_counted(&self, tenant: &TenantId, subject: Option<&TokenSubject>) -> bool {
        let tenants = self.tenants.read();
        let (Some(ledger), Some(subject)) = (tenants.get(tenant), subject) else {
            return tenants.contains_key(tenant);
        };
        let mut state = ledger.state.lock();
        let tokens = state.tokens.as_mut();
        tokens.is_some_and(|tokens| tokens.known_counts(&subject.id()).is_some())
    }

    /// What has changed of tenants' use, and of that of their tokens' subjects, since this was last asked, for keeping.
    pub fn changed_usage(&self) -> Vec<TenantUsage> {
        let (tenants, mut all) = (self.tenants.read(), Vec::new());
        for (tenant, ledger) in tenants.iter() {
            let mut state = ledger.state.lock();
            // What is counted for a subject is counted for its tenant as well.
            if !std::mem::take(&mut state.counts.changed) {
                continue;
            }
            all.push(TenantUsage {
                tenant: tenant.clone(),
                subject: None,
                usage: state.counts.usage,
            });
            let tokens = state.tokens.iter_mut();
            let changed = tokens.flat_map(|tokens| tokens.changed());
            all.extend(changed.map(|(name, usage)| TenantUsage {
                tenant: tenant.clone(),
                subject: Some(name.clone()),
                usage,
            }));
        }
        all
    }

    /// What could not be kept has changed still.
    pub fn keep_again(&self, usages: &[TenantUsage]) {
        let tenants = self.tenants.read();
        for TenantUsage { tenant, subject, .. } in usages {
            let Some(ledger) = tenants.get(tenant) else { continue };
            let mut state = ledger.state.lock();
            state.counts.changed = true;
            let Some(subject) = subject else { continue };
            let tokens = state.tokens.as_mut();
            if let Some(counts) = tokens.and_then(|tokens| tokens.known_counts(&subject.id())) {
                counts.changed = true;
            }
        }
    }

    /// Takes over what was kept; what has been used since is counted besides. Tenants and subjects past the bounds are left out.
    pub fn restore_usage(&self, usages: impl IntoIterator<Item = TenantUsage>) {
        let unix = self.now().unix_seconds;
        for TenantUsage { tenant, subject, usage } in usages {
            let Ok(ledger) = self.ledger(&tenant) else { continue };
            let mut state = ledger.state.lock();
            match subject {
                None => state.counts.restore(usage),
                Some(subject) => state.tokens.get_or_insert_default().restore(subject, usage, unix),
            }
        }
    }
}
