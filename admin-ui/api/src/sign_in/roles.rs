//! What the claims of an identity come to: a name in the audit log and a role, or neither.
//!
//! Invariant: who has no claim that the rules name has no role; nothing is granted by default.

use mesh_policies::access::Identity;
use mesh_resources::AdminRole;

/// The most values that give a role.
pub const MAX_ROLES: usize = 100;
/// The longest name in the audit log.
const MAX_WHO_BYTES: usize = 200;
/// How the names of people begin; no token's name can.
const WHO_PREFIX: &str = "oidc:";

/// What people need, and what it gives them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleRules {
    /// The claim that the audit log calls people by.
    pub user_claim: String,
    /// The claim that gives roles, such as `groups`.
    pub role_claim: String,
    /// Its values and what each gives; the first that somebody has counts.
    pub roles: Vec<(String, AdminRole)>,
    /// A claim and the value that it must be or hold, whatever the role.
    pub required: Option<(String, String)>,
}

/// Why somebody has no role.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NoRole {
    /// Who, as far as that is known.
    pub(super) who: String,
    /// Why.
    pub(super) why: &'static str,
}

impl RoleRules {
    /// The name and the role of somebody whose identity is proven.
    pub(super) fn admit(&self, identity: &Identity) -> Result<(String, AdminRole), NoRole> {
        let refused = |who: &str, why| {
            Err(NoRole {
                who: who.to_owned(),
                why,
            })
        };
        let name = identity.text(&self.user_claim).filter(|name| is_name(name));
        let Some(name) = name else {
            return refused("nobody", "no claim that names the person");
        };
        let who = format!("{WHO_PREFIX}{name}");
        // Else somebody could name another's address at a provider that asks nobody.
        if self.user_claim == "email" && !identity.is_true("email_verified") {
            return refused(&who, "the address is not verified");
        }
        if let Some((claim, value)) = &self.required
            && !identity.has(claim, value)
        {
            return refused(&who, "the required claim is missing");
        }
        let role = self
            .roles
            .iter()
            .find(|(value, _)| identity.has(&self.role_claim, value));
        match role {
            Some((_, role)) => Ok((who, *role)),
            None => refused(&who, "no claim that gives a role"),
        }
    }
}

fn is_name(name: &str) -> bool {
    (1..=MAX_WHO_BYTES).contains(&name.len()) && !name.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn rules() -> RoleRules {
        RoleRules {
            user_claim: "sub".into(),
            role_claim: "groups".into(),
            roles: vec![("ops".into(), AdminRole::Admin), ("staff".into(), AdminRole::Viewer)],
            required: None,
        }
    }

    fn admit(rules: &RoleRules, claims: &Value) -> Result<(String, AdminRole), &'static str> {
        let identity = Identity::of(claims.as_object().unwrap().clone());
        rules.admit(&identity).map_err(|refused| refused.why)
    }

    #[test]
    fn the_first_value_that_somebody_has_gives_the_role_and_no_value_none() {
        let rules = rules();
        let of = |groups: Value| admit(&rules, &json!({"sub": "anna", "groups": groups})).map(|(_, role)| role);
        assert_eq!(of(json!(["staff", "ops"])), Ok(AdminRole::Admin));
        assert_eq!(of(json!("staff")), Ok(AdminRole::Viewer));
        for none in [
            json!([]),
            json!(["Ops", "op"]),
            json!("ops staff"),
            json!({"ops": true}),
            Value::Null,
        ] {
            assert_eq!(of(none.clone()), Err("no claim that gives a role"), "{none}");
        }
        assert_eq!(
            admit(&rules, &json!({"sub": "anna"})),
            Err("no claim that gives a role")
        );
    }

    #[test]
    fn what_is_required_is_required_of_admins_too() {
        let rules = RoleRules {
            required: Some(("org".into(), "acme".into())),
            ..rules()
        };
        let of = |org: Value| admit(&rules, &json!({"sub": "anna", "groups": ["ops"], "org": org}));
        assert_eq!(of(json!("acme")).unwrap(), ("oidc:anna".to_owned(), AdminRole::Admin));
        assert_eq!(of(json!("globex")), Err("the required claim is missing"));
    }

    #[test]
    fn people_have_names_that_fit_the_log_and_addresses_that_are_verified() {
        let by = |claim: &str| RoleRules {
            user_claim: claim.into(),
            ..rules()
        };
        let with = |name: Value| json!({"sub": name, "groups": ["ops"]});
        assert!(admit(&by("sub"), &with(json!("a".repeat(MAX_WHO_BYTES)))).is_ok());
        for bad in [json!("a".repeat(MAX_WHO_BYTES + 1)), json!(""), json!("a\nb"), json!(7)] {
            assert_eq!(admit(&by("sub"), &with(bad)), Err("no claim that names the person"));
        }
        let mail = |verified: Value| json!({"sub": "1", "email": "anna@acme.example", "email_verified": verified, "groups": ["ops"]});
        assert_eq!(
            admit(&by("email"), &mail(json!(true))).unwrap().0,
            "oidc:anna@acme.example"
        );
        for unverified in [json!(false), json!("true"), Value::Null] {
            assert_eq!(
                admit(&by("email"), &mail(unverified)),
                Err("the address is not verified")
            );
        }
    }
}
