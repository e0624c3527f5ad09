//! The rule across tenants, and the memory of decisions, with a judge that counts.

use std::{
    collections::{BTreeSet, HashMap},
    sync::atomic::{AtomicUsize, Ordering},
};

use super::*;
use crate::{access::PrincipalId, limits::TenantLimits, snapshot::tests::model};

#[derive(Debug, Default)]
struct Counting {
    asked: AtomicUsize,
    no: Option<&'static str>,
}

impl Judge for Counting {
    fn judge(&self, _: &Subject<'_>, _: Action, object: &Object<'_>) -> Verdict {
        self.asked.fetch_add(1, Ordering::Relaxed);
        Verdict {
            allowed: Some(object.name) != self.no,
            because: Because::NothingPermits,
        }
    }
}

fn principal(tenant: &str) -> Principal {
    Principal {
        id: PrincipalId::fresh(),
        tenant: TenantId::parse(tenant).unwrap(),
        subject: "ci".into(),
        credential: "key:ci".into(),
        scopes: [Scope::Infer].into_iter().collect(),
        groups: [].into(),
    }
}

fn entry(tenant: &str, models: &[&str]) -> TenantEntry {
    let target = |name: &&str| ((*name).to_owned(), Target::Model(Arc::new(model(name, &[(1, true)]))));
    TenantEntry {
        id: TenantId::parse(tenant).unwrap(),
        created: 0,
        suspended: false,
        limits: TenantLimits::default(),
        share: Default::default(),
        targets: models.iter().map(target).collect::<HashMap<_, _>>(),
    }
}

fn ask(authorization: &Authorization, principal: &Principal, entry: &TenantEntry, name: &str) -> bool {
    authorization.may_call(principal, entry, name, entry.target(name).unwrap())
}

#[test]
fn the_judge_is_asked_once_for_a_caller_and_a_name() {
    let judge = Arc::new(Counting {
        no: Some("b"),
        ..Counting::default()
    });
    let authorization = Authorization::by(judge.clone());
    let (entry, one, other) = (entry("acme", &["a", "b"]), principal("acme"), principal("acme"));
    for _ in 0..3 {
        assert!(ask(&authorization, &one, &entry, "a"));
        assert!(!ask(&authorization, &one, &entry, "b"));
    }
    assert_eq!(judge.asked.load(Ordering::Relaxed), 2);
    let clone = authorization.clone();
    assert!(ask(&clone, &one, &entry, "a"));
    assert_eq!(judge.asked.load(Ordering::Relaxed), 2, "clones share the memory");
    assert!(ask(&authorization, &other, &entry, "a"));
    assert_eq!(judge.asked.load(Ordering::Relaxed), 3, "callers do not");
}

#[test]
fn no_judge_is_even_asked_across_tenants() {
    let judge = Arc::new(Counting::default());
    let authorization = Authorization::by(judge.clone());
    // The models of `model` are acme's.
    let (entry, caller) = (entry("globex", &["a"]), principal("globex"));
    assert!(!ask(&authorization, &caller, &entry, "a"));
    assert!(!ask(&Authorization::default(), &caller, &entry, "a"));
    assert_eq!(judge.asked.load(Ordering::Relaxed), 0);
}

#[test]
fn what_is_granted_may_be_called_and_nothing_else_be_done_to_it() {
    let (acme, globex) = (TenantId::parse("acme").unwrap(), TenantId::parse("globex").unwrap());
    let grants = BTreeSet::from([globex]);
    let object = Object {
        granted: Granted::To(&grants),
        ..Object::new(ObjectKind::Model, Some(&acme), "m")
    };
    let caller = principal("globex");
    let subject = Subject::of(&caller);
    for action in Action::ALL {
        assert_eq!(
            crosses_tenants(&subject, *action, &object),
            *action != Action::Infer,
            "{action}"
        );
    }
    assert!(
        crosses_tenants(&subject, Action::MeshRead, &Object::MESH),
        "the mesh is not a tenant's"
    );
}

#[test]
fn callers_are_told_apart_by_their_credentials() {
    let of = |credential: &str| Principal {
        credential: credential.into(),
        ..principal("acme")
    };
    let kind = |credential| {
        let caller = of(credential);
        let subject = Subject::of(&caller);
        (subject.kind, subject.issuer.to_owned())
    };
    assert_eq!(kind("key:ci"), (SubjectKind::Key, String::new()));
    assert_eq!(kind("cert:ci"), (SubjectKind::Certificate, String::new()));
    assert_eq!(kind("jwt:https://idp"), (SubjectKind::User, "https://idp".to_owned()));
    assert_eq!(kind("local"), (SubjectKind::User, "local".to_owned()));
}

#[test]
fn nobody_permits_nothing() {
    let caller = principal("acme");
    let acme = TenantId::parse("acme").unwrap();
    let verdict = decide(
        &Nobody,
        &Subject::of(&caller),
        Action::Infer,
        &Object::new(ObjectKind::Model, Some(&acme), "m"),
    );
    assert!(!verdict.allowed);
}

#[test]
fn objects_are_called_as_people_write_them() {
    let acme = TenantId::parse("acme").unwrap();
    assert_eq!(Object::MESH.to_string(), "the mesh");
    assert_eq!(Object::tenant(&acme).to_string(), "Tenant/acme");
    assert_eq!(
        Object::new(ObjectKind::Model, Some(&acme), "m").to_string(),
        "Model/acme/m"
    );
    assert_eq!(
        Object::new(ObjectKind::Device, None, "cpu:0").to_string(),
        "Device/cpu:0"
    );
}
