//! What callers ask about models: each sees what its names lead to, and nothing of anybody else's.

use mesh_types::VersionStatistics;

use super::*;
use crate::{Change, ChangeOrder, Controlled, ModelControl, RepositoryEntry, state_of};

fn numbered(names: &[(String, u32)]) -> Vec<(&str, u32)> {
    names.iter().map(|(name, version)| (name.as_str(), *version)).collect()
}

fn index(bed: &Bed, who: &str, only_ready: bool) -> Result<Vec<(String, u32)>, Fault> {
    let index = bed.router.index(&credential(bed, who), only_ready)?;
    Ok(index
        .into_iter()
        .map(|entry| (entry.name, entry.version.get()))
        .collect())
}

fn statistics(bed: &Bed, who: &str, name: Option<&str>, version: &str) -> Result<Vec<(String, u32)>, Fault> {
    let selector = match version {
        "" => VersionSelector::Default,
        text => VersionSelector::parse(text).unwrap(),
    };
    let entries = bed.router.statistics(&credential(bed, who), name, &selector)?;
    Ok(entries
        .into_iter()
        .map(|entry| (entry.name, entry.version.get()))
        .collect())
}

fn credential(bed: &Bed, who: &str) -> Credential {
    Credential::from_header(bed.keys.get(who).map(String::as_str))
}

#[test]
fn the_index_is_what_the_callers_names_lead_to() {
    run(async {
        let bed = Bed::new();
        let all = index(&bed, "acme", false).unwrap();
        let expected = [("digits", 1), ("digits", 2), ("loading", 1), ("split", 1), ("split", 2)];
        assert_eq!(numbered(&all), expected);
        let ready = index(&bed, "acme", true).unwrap();
        assert_eq!(
            numbered(&ready),
            [("digits", 1), ("digits", 2), ("split", 1), ("split", 2)]
        );
        assert_eq!(index(&bed, "globex", false), Ok(Vec::new()));
        let index = bed.router.index(&credential(&bed, "acme"), false).unwrap();
        let loading = index.iter().find(|entry| entry.name == "loading").unwrap();
        assert!(!loading.ready);
    });
}

#[test]
fn names_come_in_pages_of_what_the_caller_may_call() {
    run(async {
        let bed = Bed::new();
        let view = bed.router.view();
        let page = |who: &str, behind: Option<&str>, most: usize| {
            let page = view.names(&credential(&bed, who), behind, most).unwrap();
            (page.names.join(" "), page.more)
        };
        assert_eq!(page("acme", None, 3), ("digits loading split".to_owned(), false));
        assert_eq!(page("acme", None, 2), ("digits loading".to_owned(), true));
        assert_eq!(page("acme", Some("loading"), 2), ("split".to_owned(), false));
        // Behind a name that is not there, and behind the last one.
        assert_eq!(page("acme", Some("e"), 1), ("loading".to_owned(), true));
        assert_eq!(page("acme", Some("split"), 1), (String::new(), false));
        assert_eq!(page("globex", None, 9), (String::new(), false));
        assert!(view.names(&credential(&bed, "nobody"), None, 1).is_err());
    });
}

#[test]
fn statistics_are_of_a_name_a_version_or_all_models() {
    run(async {
        let bed = Bed::new();
        let of = |name, version| statistics(&bed, "acme", name, version).unwrap();
        assert_eq!(numbered(&of(None, "")), [("digits", 1), ("digits", 2), ("loading", 1)]);
        assert_eq!(numbered(&of(Some("digits"), "")), [("digits", 1), ("digits", 2)]);
        assert_eq!(numbered(&of(Some("digits"), "2")), [("digits", 2)]);
        assert_eq!(numbered(&of(Some("digits"), "stable")), [("digits", 1)]);
        assert_eq!(numbered(&of(Some("split"), "")), [("split", 1), ("split", 2)]);
        assert_eq!(numbered(&of(Some("split"), "2")), [("split", 2)]);
        let entry = bed
            .router
            .statistics(&credential(&bed, "acme"), Some("digits"), &VersionSelector::Default)
            .unwrap();
        assert_eq!(entry[0].numbers, VersionStatistics::default());
    });
}

#[test]
fn what_is_unknown_and_what_is_anothers_answer_alike() {
    run(async {
        let bed = Bed::new();
        let foreign = statistics(&bed, "globex", Some("digits"), "").unwrap_err();
        let nothing = statistics(&bed, "acme", Some("nothing"), "").unwrap_err();
        assert_eq!(foreign.class, FaultClass::NotFound);
        assert_eq!(
            foreign.message.replace("digits", "x"),
            nothing.message.replace("nothing", "x")
        );
        assert_eq!(
            statistics(&bed, "acme", Some("digits"), "9").unwrap_err().class,
            FaultClass::NotFound
        );
        for who in ["nobody", "blind", "asleep"] {
            let expected = match who {
                "nobody" => FaultClass::Unauthenticated,
                "blind" => FaultClass::InsufficientScope,
                _ => FaultClass::PermissionDenied,
            };
            assert_eq!(index(&bed, who, false).unwrap_err().class, expected, "{who}");
            assert_eq!(statistics(&bed, who, None, "").unwrap_err().class, expected, "{who}");
            assert_eq!(
                bed.router.authenticate(&credential(&bed, who)).unwrap_err().class,
                expected
            );
            assert_eq!(change(&bed, who, None).await.unwrap_err().class, expected, "{who}");
        }
        assert!(bed.router.authenticate(&credential(&bed, "acme")).is_ok());
    });
}

/// A repository of `acme` that notes what it is asked to do.
#[derive(Debug)]
struct Noted(TenantId, Mutex<Vec<String>>);

impl ModelControl for Noted {
    fn tenant(&self) -> &TenantId {
        &self.0
    }

    fn change(&self, order: ChangeOrder) -> Controlled<()> {
        self.1.lock().push(order.model);
        Box::pin(std::future::ready(Ok(())))
    }

    fn index(&self) -> Controlled<Vec<RepositoryEntry>> {
        let entry = |name: &str, ready| RepositoryEntry {
            name: name.to_owned(),
            version: None,
            ready,
            state: state_of(ready, mesh_policies::snapshot::VersionPhase::Settled),
            reason: String::new(),
        };
        Box::pin(std::future::ready(Ok(vec![entry("idle", false), entry("up", true)])))
    }
}

async fn change(bed: &Bed, who: &str, control: Option<&Arc<dyn ModelControl>>) -> Result<(), Fault> {
    change_in(bed, who, control, "").await
}

async fn change_in(
    bed: &Bed,
    who: &str,
    control: Option<&Arc<dyn ModelControl>>,
    repository: &str,
) -> Result<(), Fault> {
    let order = |deadline| {
        Ok(ChangeOrder {
            repository: repository.to_owned(),
            model: "digits".to_owned(),
            change: Change::Unload { dependents: false },
            deadline,
            request: RequestId(1),
            door: "http",
        })
    };
    bed.router
        .change_model(control, &credential(bed, who), None, order)
        .await
}

#[test]
fn nobody_changes_models_without_a_repository_and_the_refusal_says_where_they_are_changed() {
    run(async {
        let bed = Bed::new();
        let refused = change(&bed, "acme", None).await.unwrap_err();
        assert_eq!(refused.class, FaultClass::PermissionDenied);
        assert!(
            refused
                .message
                .starts_with("explicit model load / unload is not allowed"),
            "{refused}"
        );
    });
}

#[test]
fn a_repository_is_its_tenants_alone_and_to_others_as_if_it_were_not_there() {
    run(async {
        let bed = Bed::new();
        let noted = Arc::new(Noted(TenantId::parse("acme").unwrap(), Mutex::default()));
        let control: Arc<dyn ModelControl> = noted.clone();
        change(&bed, "acme", Some(&control)).await.unwrap();
        let refused = change(&bed, "globex", Some(&control)).await.unwrap_err();
        assert_eq!(refused, Fault::unknown_model("digits"));
        assert_eq!(*noted.1.lock(), ["digits"]);
        let index = |who: &'static str, only_ready| {
            let (bed, control) = (&bed, &control);
            async move {
                let index = bed
                    .router
                    .full_index(Some(control), &credential(bed, who), ("", only_ready))
                    .await;
                let names = index.unwrap().into_iter().map(|entry| entry.name);
                names.collect::<Vec<_>>()
            }
        };
        assert_eq!(index("acme", false).await, ["idle", "up"]);
        assert_eq!(index("acme", true).await, ["up"]);
        assert!(!index("globex", false).await.contains(&"idle".to_owned()));
    });
}

#[test]
fn a_repository_is_named_by_its_tenant_and_any_other_name_leads_nowhere() {
    run(async {
        let bed = Bed::new();
        let noted = Arc::new(Noted(TenantId::parse("acme").unwrap(), Mutex::default()));
        let control: Arc<dyn ModelControl> = noted.clone();
        let index = |who: &'static str, control, repository: &'static str| {
            let bed = &bed;
            async move {
                let asked = (repository, false);
                let index = bed.router.full_index(control, &credential(bed, who), asked).await?;
                Ok::<_, Fault>(index.into_iter().map(|entry| entry.name).collect::<Vec<_>>())
            }
        };
        for control in [None, Some(&control)] {
            let unnamed = index("acme", control, "").await;
            assert!(!unnamed.clone().unwrap().is_empty());
            assert_eq!(index("acme", control, "acme").await, unnamed);
            assert_eq!(index("globex", control, "globex").await, Ok(Vec::new()));
            // Another tenant's repository, and one that nobody has.
            for (who, name) in [
                ("globex", "acme"),
                ("acme", "globex"),
                ("acme", "nowhere"),
                ("acme", "Acme"),
            ] {
                let refused = index(who, control, name).await.unwrap_err();
                assert_eq!(refused, Fault::unknown_repository(name), "{who}");
                assert_eq!(refused.class, FaultClass::NotFound);
            }
            let nobody = index("nobody", control, "acme").await.unwrap_err();
            assert_eq!(nobody.class, FaultClass::Unauthenticated);
        }
        for (who, name) in [("globex", "acme"), ("acme", "globex"), ("acme", "nowhere")] {
            let refused = change_in(&bed, who, Some(&control), name).await.unwrap_err();
            assert_eq!(refused, Fault::unknown_repository(name), "{who}");
        }
        assert!(noted.1.lock().is_empty());
        change_in(&bed, "acme", Some(&control), "acme").await.unwrap();
        assert_eq!(*noted.1.lock(), ["digits"]);
    });
}
