//! Callers on this machine who need no credential, where an operator has said so.
//!
//! Owns the decision whether a call without a credential, and without a certificate, is let in, and as whom. It looks at the
//! connection's other end, which a caller cannot make up, and never at what a header claims. A header can only take the right away: what was passed on by a
//! proxy, or sent by a page in a browser, comes from somebody else than the machine it comes from.
//!
//! Invariants: a caller from elsewhere is never let in here; one who shows a credential, right or wrong, is judged by it alone.

use std::{net::IpAddr, sync::Arc};

use mesh_policies::{Principal, Scope, access::PrincipalId};
use mesh_types::TenantId;

use crate::Credential;

/// Headers that proxies and browsers add: a call that has one is not its sender's own.
pub const PASSED_ON: [&str; 6] = [
    "forwarded",
    "x-forwarded-for",
    "x-real-ip",
    "via",
    "origin",
    "sec-fetch-site",
];

/// Whom callers on this machine are where they show no credential.
#[derive(Debug, Clone)]
pub struct LocalTenant(Arc<Principal>);

impl LocalTenant {
    /// They are this tenant, with the right to call its models.
    pub fn new(tenant: TenantId) -> Self {
        Self(Arc::new(Principal {
            id: PrincipalId::fresh(),
            groups: [].into(),
            tenant,
            subject: Arc::from("local"),
            credential: Arc::from("local"),
            scopes: [Scope::Infer].into_iter().collect(),
        }))
    }

    /// The tenant.
    pub fn tenant(&self) -> &TenantId {
        &self.0.tenant
    }

    /// Whether the other end of a connection is this machine.
    pub fn is_here(peer: IpAddr) -> bool {
        peer.to_canonical().is_loopback()
    }

    /// What a call without a credential has instead of one; `has` says whether it has a header. Only for connections from
    /// this machine.
    pub fn credential(&self, has: impl Fn(&str) -> bool) -> Credential {
        if PASSED_ON.iter().any(|name| has(name)) {
            return Credential::default();
        }
        Credential::local(self.0.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_policies::access::Presented;

    #[test]
    fn here_is_the_loopback_and_nowhere_else() {
        for here in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            assert!(LocalTenant::is_here(here.parse().unwrap()), "{here}");
        }
        for elsewhere in ["10.0.0.1", "0.0.0.0", "::", "::ffff:10.0.0.1", "192.168.0.1", "fe80::1"] {
            assert!(!LocalTenant::is_here(elsewhere.parse().unwrap()), "{elsewhere}");
        }
    }

    #[test]
    fn what_was_passed_on_is_nobodys() {
        let local = LocalTenant::new(TenantId::parse("acme").unwrap());
        let own = local.credential(|_| false);
        assert!(matches!(own.presented(), Presented::Local(principal) if principal.tenant.as_str() == "acme"));
        assert_eq!(format!("{own:?}"), "Credential(local)");
        for header in PASSED_ON {
            let passed_on = local.credential(|name| name == header);
            assert_eq!(passed_on.presented(), Presented::None, "{header}");
        }
    }
}
