//! What callers ask about models: each sees what its names lead to, and nothing of anybody else's.

use mesh_types::VersionStatistics;

use super::*;

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
            let expected = if who == "nobody" {
                FaultClass::Unauthenticated
            } else {
                FaultClass::PermissionDenied
            };
            assert_eq!(index(&bed, who, false).unwrap_err().class, expected, "{who}");
            assert_eq!(statistics(&bed, who, None, "").unwrap_err().class, expected, "{who}");
            assert_eq!(
                bed.router.authenticate(&credential(&bed, who)).unwrap_err().class,
                expected
            );
            let refused = bed.router.refuse_change(&credential(&bed, who), "loading models is");
            assert_eq!(refused.class, expected, "{who}");
        }
        assert!(bed.router.authenticate(&credential(&bed, "acme")).is_ok());
    });
}

#[test]
fn nobody_changes_models_here_and_the_refusal_says_where_they_are_changed() {
    run(async {
        let bed = Bed::new();
        let refused = bed.router.refuse_change(&credential(&bed, "acme"), "loading models is");
        assert_eq!(refused.class, FaultClass::PermissionDenied);
        assert!(refused.message.contains("admin door"), "{refused}");
    });
}
