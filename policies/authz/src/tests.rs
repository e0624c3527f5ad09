//! What the built-in policies permit, what a text may not say, and that nothing crosses tenants.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use cedar_policy::{EntityUid, Schema};
use mesh_policies::{
    ModelEntry, Principal, Route, Scope, Scopes, Target, TenantEntry, TenantLimits,
    access::PrincipalId,
    authorization::{
        Action, Authorization, Because, Effect, Granted, Judge, Object, ObjectKind, Role, Subject, SubjectKind,
        Verdict, decide,
    },
};
use mesh_resources::{CertificateIdentity, ClientCertificateSpec};
use mesh_types::{EndpointId, ModelId, ServiceClass, TenantId, TenantShare};
use proptest::prelude::*;

use crate::{
    BUILTIN, Holder, MAX_POLICY_BYTES, MAX_SET_BYTES, MAX_STATEMENTS, Policies, SCHEMA, check, engine::CompileError,
};

fn tenant(name: &str) -> TenantId {
    TenantId::parse(name).unwrap()
}

fn admin<'a>(name: &'a str, role: Option<Role>, tenant: Option<&'a TenantId>) -> Subject<'a> {
    Subject {
        kind: SubjectKind::Admin,
        tenant,
        name,
        issuer: "",
        groups: &[],
        scopes: Scopes::NONE,
        role,
    }
}

fn infer() -> Scopes {
    [Scope::Infer].into_iter().collect()
}

fn key<'a>(tenant: &'a TenantId, name: &'a str, groups: &'a [Arc<str>]) -> Subject<'a> {
    Subject {
        kind: SubjectKind::Key,
        tenant: Some(tenant),
        name,
        issuer: "",
        groups,
        scopes: infer(),
        role: None,
    }
}

/// One object of each kind, of this tenant where it belongs to one.
fn object(kind: ObjectKind, tenant: &TenantId) -> Object<'_> {
    match kind {
        ObjectKind::Mesh => Object::MESH,
        ObjectKind::Tenant => Object::tenant(tenant),
        kind if kind.is_of_tenant() => Object::new(kind, Some(tenant), "thing"),
        kind => Object::new(kind, None, "thing"),
    }
}

fn declared(text: &str) -> Policies {
    check(text).unwrap_or_else(|problems| panic!("{problems:?}"));
    Policies::compile([("own", text)]).unwrap()
}

#[test]
fn the_schema_and_the_table_of_actions_say_the_same() {
    let (schema, warnings) = Schema::from_cedarschema_str(SCHEMA).unwrap();
    assert_eq!(warnings.count(), 0);
    let uid = |kind: &str, id: &str| format!("Mesh::{kind}::\"{id}\"").parse::<EntityUid>().unwrap();
    let groups = ["view", "experiment", "operate", "administer"].map(|group| uid("Action", group));
    let mut known: BTreeSet<String> = schema.actions().map(ToString::to_string).collect();
    for group in &groups {
        assert!(known.remove(&group.to_string()), "{group}");
    }
    let table: BTreeSet<String> = Action::ALL
        .iter()
        .map(|action| uid("Action", action.as_str()).to_string())
        .collect();
    assert_eq!(known, table);
    for action in Action::ALL {
        let uid = uid("Action", action.as_str());
        let objects: BTreeSet<String> = schema
            .resources_for_action(&uid)
            .unwrap()
            .map(ToString::to_string)
            .collect();
        let wanted: BTreeSet<String> = action
            .objects()
            .iter()
            .map(|kind| format!("Mesh::{}", kind.as_str()))
            .collect();
        assert_eq!(objects, wanted, "{action}");
        let principals: BTreeSet<String> = schema
            .principals_for_action(&uid)
            .unwrap()
            .map(ToString::to_string)
            .collect();
        let wanted: &[&str] = match action.least_role() {
            None => &["Mesh::Certificate", "Mesh::Key", "Mesh::User"],
            Some(_) => &["Mesh::Admin"],
        };
        assert_eq!(
            principals,
            wanted.iter().map(|name| (*name).to_owned()).collect(),
            "{action}"
        );
    }
}

#[test]
fn the_built_in_policies_fit_the_schema() {
    assert_eq!(check(BUILTIN), Ok(5));
}

#[test]
fn every_role_may_do_what_the_table_says_and_nothing_else() {
    let policies = Policies::builtin().unwrap();
    let acme = tenant("acme");
    for action in Action::ALL {
        for kind in action.objects() {
            let object = object(*kind, &acme);
            for role in Role::ALL {
                let verdict = decide(&policies, &admin("root", Some(role), None), *action, &object);
                let wanted = action.least_role().is_some_and(|least| role >= least);
                assert_eq!(verdict.allowed, wanted, "{role:?} {action} {object}: {verdict:?}");
            }
            let nobody = decide(&policies, &admin("root", None, None), *action, &object);
            assert_eq!(nobody, Verdict::denied(Because::NothingPermits), "{action}");
        }
    }
}

#[test]
fn an_admin_of_a_tenant_has_its_role_there_and_nowhere_else() {
    let policies = Policies::builtin().unwrap();
    let (acme, globex) = (tenant("acme"), tenant("globex"));
    for action in Action::ALL {
        for kind in action.objects() {
            for role in Role::ALL {
                let bound = admin("root", Some(role), Some(&acme));
                let own = decide(&policies, &bound, *action, &object(*kind, &acme));
                let wanted = kind.is_of_tenant()
                    && *action != Action::TenantAdmin
                    && action.least_role().is_some_and(|least| role >= least);
                assert_eq!(own.allowed, wanted, "{role:?} {action} {kind:?}: {own:?}");
                let foreign = decide(&policies, &bound, *action, &object(*kind, &globex));
                assert_eq!(
                    foreign,
                    Verdict::denied(Because::OtherTenant),
                    "{role:?} {action} {kind:?}"
                );
            }
        }
    }
}

#[test]
fn a_tenants_caller_infers_what_is_its_own_or_granted_to_it_and_needs_the_scope() {
    let policies = Policies::builtin().unwrap();
    let (acme, globex) = (tenant("acme"), tenant("globex"));
    let own = Object::new(ObjectKind::Model, Some(&acme), "digits");
    let front = Object::new(ObjectKind::Endpoint, Some(&acme), "front");
    let foreign = Object::new(ObjectKind::Model, Some(&globex), "cats");
    let grants = BTreeSet::from([acme.clone()]);
    let granted = Object {
        granted: Granted::To(&grants),
        ..foreign
    };
    let caller = key(&acme, "ci", &[]);
    for (object, allowed) in [(own, true), (front, true), (foreign, false), (granted, true)] {
        let may = |action| decide(&policies, &caller, action, &object).allowed;
        assert_eq!(may(Action::Infer), allowed, "{object}");
        // Only one's own models are loaded, and an endpoint is none.
        assert_eq!(may(Action::Load), object.name == "digits", "{object}");
    }
    let narrowed = Subject {
        scopes: Scopes::NONE,
        ..caller
    };
    assert!(!decide(&policies, &narrowed, Action::Infer, &own).allowed);
    for action in Action::ALL.iter().filter(|action| action.least_role().is_some()) {
        for kind in action.objects() {
            assert!(
                !decide(&policies, &caller, *action, &object(*kind, &acme)).allowed,
                "{action}"
            );
        }
    }
}

#[test]
fn a_verdict_names_the_statements_that_decided_and_their_lines() {
    let text = "// only the front\nforbid (principal == Mesh::Key::\"acme/ci\", action, resource)\n  unless { resource == \
                Mesh::Endpoint::\"acme/front\" };\n\npermit (principal in Mesh::Group::\"on-call\",\n  action == \
                Mesh::Action::\"device:drain\", resource);\n";
    let policies = declared(text);
    let acme = tenant("acme");
    let model = Object::new(ObjectKind::Model, Some(&acme), "digits");
    let verdict = decide(&policies, &key(&acme, "ci", &[]), Action::Infer, &model);
    let Because::Policies(deciding) = &verdict.because else {
        panic!("{verdict:?}")
    };
    assert!(!verdict.allowed);
    assert_eq!(deciding.len(), 1, "a forbid beats what is permitted: {deciding:?}");
    let first = &deciding[0];
    assert_eq!(
        (&*first.policy, first.statement, first.line, first.effect),
        ("own", 1, 2, Effect::Forbid)
    );
    assert!(decide(&policies, &key(&acme, "other", &[]), Action::Infer, &model).allowed);
    let front = Object::new(ObjectKind::Endpoint, Some(&acme), "front");
    let verdict = decide(&policies, &key(&acme, "ci", &[]), Action::Infer, &front);
    let Because::Policies(deciding) = &verdict.because else {
        panic!("{verdict:?}")
    };
    assert_eq!(
        (&*deciding[0].policy, deciding[0].effect),
        ("builtin:infer", Effect::Permit)
    );
    let groups = [Arc::from("on-call")];
    let on_call = Subject {
        groups: &groups,
        ..admin("kim", Some(Role::Viewer), None)
    };
    let device = Object::new(ObjectKind::Device, None, "cpu:0");
    let verdict = decide(&policies, &on_call, Action::DeviceDrain, &device);
    let Because::Policies(deciding) = &verdict.because else {
        panic!("{verdict:?}")
    };
    assert!(verdict.allowed);
    assert_eq!((deciding[0].statement, deciding[0].line), (2, 5));
    assert_eq!(policies.name_of_subject(&on_call), "Mesh::Admin::\"kim\"");
    assert_eq!(policies.name_of_object(&device), "Mesh::Device::\"cpu:0\"");
}

#[test]
fn a_certificates_record_gives_its_caller_groups_as_a_key_has_them() {
    let policies = declared("forbid (principal in Mesh::Group::\"acme/services\", action, resource);");
    let acme = tenant("acme");
    let model = Object::new(ObjectKind::Model, Some(&acme), "m");
    let may = |groups: &[&str]| {
        let spec = ClientCertificateSpec {
            identity: CertificateIdentity::Dns("a.acme.test".to_owned()),
            scopes: vec![mesh_resources::Scope::Infer],
            expires: None,
            revoked: false,
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
            description: None,
        };
        let holder = Holder::of_certificate(&acme, "billing", &spec);
        decide(&policies, &holder.subject(), Action::Infer, &model).allowed
    };
    assert!(may(&[]) && may(&["others"]));
    assert!(!may(&["others", "services"]));
}

#[test]
fn groups_are_of_a_tenant_and_a_user_is_known_with_its_issuer() {
    let policies = declared(
        "forbid (principal in Mesh::Group::\"acme/interns\", action, resource);\n\
         forbid (principal == Mesh::User::\"https://idp.example al%20ice bob\", action, resource);\n\
         forbid (principal == Mesh::User::\"https://idp.example alice\", action, resource);",
    );
    let (acme, globex) = (tenant("acme"), tenant("globex"));
    let groups = [Arc::from("interns")];
    let of = |tenant| Object::new(ObjectKind::Model, Some(tenant), "m");
    assert!(!decide(&policies, &key(&acme, "k", &groups), Action::Infer, &of(&acme)).allowed);
    assert!(decide(&policies, &key(&globex, "k", &groups), Action::Infer, &of(&globex)).allowed);
    let user = |issuer, name| Subject {
        kind: SubjectKind::User,
        issuer,
        ..key(&acme, name, &[])
    };
    for (issuer, name, allowed) in [
        ("https://idp.example", "alice", false),
        ("https://other.example", "alice", true),
        ("https://idp.example al ice", "bob", true),
        ("https://idp.example", "al%20ice bob", false),
        ("https://idp.example al", "ice bob", true),
    ] {
        let verdict = decide(&policies, &user(issuer, name), Action::Infer, &of(&acme));
        // The first blank parts issuer and name, because an issuer's own are escaped.
        assert_eq!(verdict.allowed, allowed, "{issuer} {name}");
    }
}

#[test]
fn a_text_that_is_wrong_is_refused_with_its_place() {
    let digits = "Mesh::Model::\"acme/digits\"";
    for (text, line, column, part) in [
        ("permit (principal, action, resource)", 1, 37, "unexpected end"),
        (
            "permit (principal, action, resource);\npermi (principal, action, resource);",
            2,
            1,
            "permi",
        ),
        (
            "permit (principal, action, resource)\nwhen { principal.nmae == \"x\" };",
            2,
            8,
            "nmae",
        ),
        (
            "permit (principal, action == Mesh::Action::\"model:eat\", resource);",
            1,
            30,
            "model:eat",
        ),
        ("permit (principal is Mesh::Cat, action, resource);", 1, 0, "Mesh::Cat"),
        (
            "permit (principal, action == Mesh::Action::\"model:infer\", resource) when { principal.name == 3 };",
            1,
            0,
            "String",
        ),
        (
            "permit (principal, action == Mesh::Action::\"model:infer\", resource is Mesh::Device);",
            1,
            0,
            "unable to find an applicable action",
        ),
        ("permit (principal == ?principal, action, resource);", 1, 1, "template"),
        ("// nothing", 1, 1, "no statement"),
    ] {
        let problems = check(text).unwrap_err();
        let first = &problems[0];
        assert_eq!(first.line, line, "{text}: {first}");
        if column > 0 {
            assert_eq!(first.column, column, "{text}: {first}");
        }
        assert!(first.message.contains(part), "{text}: {first}");
    }
    let told = check(&format!(
        "forbid (principal, action, resource == {digits}) when {{ resource.owner == 1 }};"
    ));
    let told = told.unwrap_err()[0].to_string();
    assert!(told.starts_with("line 1, column "), "{told}");
}

#[test]
fn as_many_bytes_and_statements_as_there_may_be_and_not_one_more() {
    let statement = "permit (principal, action == Mesh::Action::\"model:infer\", resource);\n";
    let padded = |bytes: usize| format!("{statement}{}", " ".repeat(bytes - statement.len()));
    assert_eq!(check(&padded(MAX_POLICY_BYTES)), Ok(1));
    let problems = check(&padded(MAX_POLICY_BYTES + 1)).unwrap_err();
    assert!(problems[0].message.contains("at most 65536"), "{}", problems[0]);

    let half = statement.repeat(MAX_STATEMENTS / 2);
    assert!(Policies::compile([("a", half.as_str()), ("b", half.as_str())]).is_ok());
    let error = Policies::compile([("a", half.as_str()), ("b", half.as_str()), ("c", statement)]).unwrap_err();
    assert_eq!(error, CompileError::TooMany);
    let twice = Policies::compile([("a", statement), ("a", statement)]).unwrap_err();
    assert_eq!(twice, CompileError::Twice("a".to_owned()));
}

#[test]
fn as_many_bytes_of_all_policies_as_there_may_be_and_not_one_more() {
    let statement = "permit (principal, action == Mesh::Action::\"model:infer\", resource);\n";
    let padded = |bytes: usize| format!("{statement}{}", " ".repeat(bytes - statement.len()));
    let texts: Vec<(String, String)> = (0..MAX_SET_BYTES / MAX_POLICY_BYTES)
        .map(|index| (format!("p{index}"), padded(MAX_POLICY_BYTES)))
        .collect();
    let all = || texts.iter().map(|(name, text)| (name.as_str(), text.as_str()));
    assert!(Policies::compile(all()).is_ok());
    let short = padded(MAX_POLICY_BYTES - statement.len());
    let shorter = || all().skip(1).chain([("short", short.as_str())]);
    assert!(Policies::compile(shorter().chain([("last", statement)])).is_ok());
    let longer = format!("{statement} ");
    let error = Policies::compile(shorter().chain([("last", longer.as_str())])).unwrap_err();
    assert_eq!(error, CompileError::TooLong);
}

#[test]
fn the_longest_answer_follows_from_what_a_caller_can_be_answered_by() {
    let longest = |text: &str| Policies::compile([("own", text)]).unwrap().longest();
    let builtin = Policies::builtin().unwrap().longest();
    let one = "forbid (principal, action == Mesh::Action::\"model:infer\", resource) unless { resource has tenant };";
    let with = |count: usize| longest(&one.repeat(count)) - builtin;
    assert_eq!(
        with(1),
        Duration::from_micros(20) + Duration::from_nanos(200) * one.len() as u32
    );
    assert_eq!(with(300), with(1) * 300);
    assert!(with(300) > Duration::from_millis(2), "{:?}", with(300));
    // What only admins do is asked of no caller, and what names no action, or several, may be.
    let drains = one.replace("model:infer", "device:drain");
    assert_eq!(longest(&drains), builtin);
    let open = one.replace("action == Mesh::Action::\"model:infer\"", "action");
    assert!(longest(&open) > builtin);
    let several = one.replace(
        "action == Mesh::Action::\"model:infer\"",
        "action in [Mesh::Action::\"model:infer\", Mesh::Action::\"device:drain\"]",
    );
    assert!(longest(&several) > builtin);
}

#[test]
fn a_statement_that_fails_denies_because_what_it_would_forbid_is_not_known() {
    let text =
        "forbid (principal, action == Mesh::Action::\"model:infer\", resource)\nwhen { 9223372036854775807 + 1 > 0 };";
    let policies = Policies::compile([("own", text)]).unwrap();
    let acme = tenant("acme");
    let model = Object::new(ObjectKind::Model, Some(&acme), "m");
    let verdict = decide(&policies, &key(&acme, "ci", &[]), Action::Infer, &model);
    assert!(!verdict.allowed);
    assert!(
        matches!(verdict.because, Because::Failed(ref why) if why.contains("overflow")),
        "{verdict:?}"
    );
}

#[test]
fn deep_and_hostile_texts_are_answered_and_not_fallen_over() {
    let deep = format!(
        "permit (principal, action, resource) when {{ {}true{} }};",
        "(".repeat(10_000),
        ")".repeat(10_000)
    );
    assert!(check(&deep).unwrap_err()[0].message.contains("32 deep"));
    // What is just within the bounds is read, checked and evaluated on a thread with little stack.
    let within = |condition: String| {
        format!("permit (principal, action == Mesh::Action::\"model:infer\", resource) when {{ {condition} }};")
    };
    let nested = |open: &str, inner: &str, close: &str, times: usize| {
        format!("{}{inner}{}", open.repeat(times), close.repeat(times))
    };
    for text in [
        within(nested("(", "true", ")", 30)),
        within(nested("if (true) then (", "true", ") else false", 28)),
        within(format!("true{}", " && true".repeat(900))),
        within(format!("true{}", " || true".repeat(900))),
        within(format!("1{} > 0", " + 1".repeat(900))),
        within(format!("{}true", "if true then false else ".repeat(300))),
        within(format!("principal{} == resource", ".tenant".repeat(400))),
        within(format!("[{}].contains(1)", vec!["1"; 900].join(", "))),
    ] {
        let handle = std::thread::Builder::new().stack_size(2 << 20).spawn(move || {
            let _ = check(&text);
            let Ok(policies) = Policies::compile([("own", text.as_str())]) else {
                return;
            };
            let acme = tenant("acme");
            let model = Object::new(ObjectKind::Model, Some(&acme), "m");
            let _ = decide(&policies, &key(&acme, "ci", &[]), Action::Infer, &model);
        });
        handle.unwrap().join().unwrap();
    }
    for text in [
        "",
        "\0",
        "permit",
        "permit(",
        "@",
        "//",
        "\u{202e}permit (principal, action, resource);",
    ] {
        assert!(check(text).is_err(), "{text:?}");
    }
}

/// A tenant's name, mostly one of three.
fn a_tenant() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just("acme"), Just("globex"), Just("initech")]
}

fn a_statement() -> impl Strategy<Value = String> {
    let scope = |is: &'static str| {
        a_tenant().prop_flat_map(move |tenant| {
            prop_oneof![
                Just(String::new()),
                Just(format!(" in Mesh::Tenant::\"{tenant}\"")),
                Just(format!(" == Mesh::{is}::\"{tenant}/one\"")),
                Just(format!(" in Mesh::Group::\"{tenant}/team\"")),
            ]
        })
    };
    let action = prop_oneof![
        Just(String::new()),
        Just(" in Mesh::Action::\"administer\"".to_owned()),
        proptest::sample::select(Action::ALL).prop_map(|action| format!(" == Mesh::Action::\"{action}\"")),
    ];
    let condition = prop_oneof![
        4 => Just(""),
        1 => Just("when { principal.tenant != resource.tenant }"),
        1 => Just("when { resource has granted && resource.granted.contains(principal.tenant) }"),
        1 => Just("unless { principal has scopes }"),
        1 => Just("when { principal.name == \"one\" || resource.name like \"o*\" }"),
        1 => Just("when { 9223372036854775807 + 1 > 0 }"),
    ];
    let effect = prop_oneof![3 => Just("permit"), 1 => Just("forbid")];
    (effect, scope("Key"), action, scope("Model"), condition).prop_map(|(effect, who, action, what, condition)| {
        format!("{effect} (principal{who}, action{action}, resource{what}) {condition};")
    })
}

fn a_subject() -> impl Strategy<Value = (SubjectKind, Option<&'static str>, bool, bool, Option<Role>)> {
    let kind = prop_oneof![
        Just(SubjectKind::Key),
        Just(SubjectKind::Certificate),
        Just(SubjectKind::User),
        Just(SubjectKind::Admin)
    ];
    let role = proptest::option::of(proptest::sample::select(Role::ALL.as_slice()));
    (
        kind,
        proptest::option::of(a_tenant()),
        any::<bool>(),
        any::<bool>(),
        role,
    )
        .prop_map(|(kind, tenant, grouped, scoped, role)| match kind {
            SubjectKind::Admin => (kind, tenant, grouped, scoped, role),
            _ => (kind, Some(tenant.unwrap_or("acme")), grouped, scoped, None),
        })
}

fn model(owner: &str, name: &str, granted: &[&str]) -> ModelEntry {
    ModelEntry {
        owner: tenant(owner),
        model: ModelId::parse(name).unwrap(),
        grants: Arc::new(granted.iter().map(|name| tenant(name)).collect()),
        versions: BTreeMap::new(),
        labels: BTreeMap::new(),
        default: None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// Whatever is declared, nobody reaches across tenants; and within one, the answer is the policies' own.
    #[test]
    fn no_decision_crosses_tenants(
        statements in proptest::collection::vec(a_statement(), 1..6),
        everything in any::<bool>(),
        (kind, of, grouped, scoped, role) in a_subject(),
        owner in a_tenant(),
        granted in proptest::collection::btree_set(a_tenant(), 0..3),
        at in any::<proptest::sample::Index>(),
    ) {
        let mut text = statements.join("\n");
        if everything {
            text = format!("permit (principal, action, resource);\n{text}");
        }
        let policies = Policies::compile([("own", text.as_str())]).unwrap();
        let (of, owner) = (of.map(tenant), tenant(owner));
        let groups: &[Arc<str>] = if grouped { &[Arc::from("team")] } else { &[] };
        let subject = Subject {
            kind,
            tenant: of.as_ref(),
            name: "one",
            issuer: "https://idp.example",
            groups,
            scopes: if scoped { infer() } else { Scopes::NONE },
            role,
        };
        let granted: BTreeSet<TenantId> = granted.into_iter().map(tenant).collect();
        let action = *at.get(Action::ALL);
        for kind in action.objects() {
            let object = Object { granted: Granted::To(&granted), ..object(*kind, &owner) };
            let verdict = decide(&policies, &subject, action, &object);
            // Said once more in other words than the rule's own.
            let reachable = match (&of, object.tenant) {
                (None, _) => true,
                (Some(own), Some(theirs)) if own == theirs => true,
                (Some(own), Some(_)) => action == Action::Infer && granted.contains(own),
                (Some(_), None) => false,
            };
            if reachable {
                prop_assert_eq!(verdict, policies.judge(&subject, action, &object));
            } else {
                prop_assert_eq!(verdict, Verdict::denied(Because::OtherTenant), "{} {} {}", text, action, object);
            }
        }
    }

    /// Statements that are looked up by what they are about decide what all of them together decide, for the same reasons.
    #[test]
    fn what_is_not_evaluated_would_have_changed_nothing(
        statements in proptest::collection::vec(a_statement(), 0..12),
        (kind, of, grouped, scoped, role) in a_subject(),
        owner in a_tenant(),
        name in prop_oneof![Just("one"), Just("two")],
        at in any::<proptest::sample::Index>(),
    ) {
        let text = statements.join("\n");
        let compile = || Policies::compile((!text.is_empty()).then_some(("own", text.as_str()))).unwrap();
        let (indexed, whole) = (compile(), compile().in_one());
        let (of, owner) = (of.map(tenant), tenant(owner));
        let groups = [Arc::from("team")];
        let subject = Subject {
            kind,
            tenant: of.as_ref(),
            name,
            issuer: "https://idp.example",
            groups: if grouped { &groups } else { &[] },
            scopes: if scoped { infer() } else { Scopes::NONE },
            role,
        };
        let action = *at.get(Action::ALL);
        for kind in action.objects() {
            let object = object(*kind, &owner);
            let (one, other) = (indexed.judge(&subject, action, &object), whole.judge(&subject, action, &object));
            match (&one.because, &other.because) {
                // Of several that fail, either is told.
                (Because::Failed(_), Because::Failed(_)) => {}
                _ => prop_assert_eq!(one, other, "{}", text),
            }
        }
    }

    /// What is remembered is what would be decided, the first time and each time after.
    #[test]
    fn a_remembered_decision_is_the_decision(
        statements in proptest::collection::vec(a_statement(), 0..6),
        (kind, of, grouped, scoped, _) in a_subject(),
        granted in any::<bool>(),
    ) {
        let text = statements.join("\n");
        let declared = (!text.is_empty()).then_some(("own", text.as_str()));
        let policies = Arc::new(Policies::compile(declared).unwrap());
        let authorization = Authorization::by(policies.clone());
        let own = tenant(of.unwrap_or("acme"));
        let credential = match kind {
            SubjectKind::User => "jwt:https://idp.example",
            SubjectKind::Certificate => "cert:one",
            SubjectKind::Key | SubjectKind::Admin => "key:one",
        };
        let principal = Principal {
            id: PrincipalId::fresh(),
            tenant: own.clone(),
            subject: Arc::from("one"),
            credential: Arc::from(credential),
            scopes: if scoped { infer() } else { Scopes::NONE },
            groups: if grouped { [Arc::from("team")].into() } else { [].into() },
        };
        let route = Route {
            endpoint: EndpointId::parse("front").unwrap(),
            arms: Vec::new(),
            unit: None,
            salt: String::new(),
            timeout: None,
            class: ServiceClass::default(),
            cache: None,
        };
        // One that is not granted must not be among a tenant's targets; if it were, it would still be out of reach.
        let foreign = model("umbrella", "cats", if granted { &["acme", "globex", "initech"] } else { &[] });
        let targets = HashMap::from([
            ("one".to_owned(), Target::Model(Arc::new(model(own.as_str(), "one", &[])))),
            ("two".to_owned(), Target::Model(Arc::new(model(own.as_str(), "two", &[])))),
            ("cats".to_owned(), Target::Model(Arc::new(foreign.clone()))),
            ("front".to_owned(), Target::Endpoint(Arc::new(route))),
        ]);
        let entry = TenantEntry {
            id: own.clone(),
            created: 0,
            suspended: false,
            limits: TenantLimits::default(),
            share: TenantShare::default(),
            targets,
        };
        let subject = Subject::of(&principal);
        for (name, object) in [
            ("one", Object::new(ObjectKind::Model, Some(&own), "one")),
            ("two", Object::new(ObjectKind::Model, Some(&own), "two")),
            ("cats", Object {
                granted: Granted::To(&foreign.grants),
                ..Object::new(ObjectKind::Model, Some(&foreign.owner), "cats")
            }),
            ("front", Object::new(ObjectKind::Endpoint, Some(&own), "front")),
        ] {
            let wanted = decide(&*policies, &subject, Action::Infer, &object).allowed;
            for _ in 0..3 {
                let target = entry.target(name).unwrap();
                prop_assert_eq!(authorization.may_call(&principal, &entry, name, target), wanted, "{}", name);
            }
            if declared.is_none() {
                // Without a judge the answer is the built-in policies' own.
                let plain = Authorization::default().may_call(&principal, &entry, name, entry.target(name).unwrap());
                prop_assert_eq!(plain, wanted, "{}", name);
            }
        }
    }
}

#[test]
fn the_examples_of_the_readme_hold() {
    let readme = include_str!("../README.md");
    let examples: Vec<&str> = readme
        .split("```cedar\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .collect();
    assert!(examples.len() >= 4, "{}", examples.len());
    for text in examples {
        assert_eq!(check(text), Ok(1), "{text}");
    }
    for role in Role::ALL {
        assert!(readme.contains(&format!("| `{}` |", role.as_str())));
    }
    for action in Action::ALL {
        assert!(readme.contains(&format!("`{action}`")), "{action}");
    }
}
