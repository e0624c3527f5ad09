//! Old records still read: one golden file of each kind, as version 1 wrote it.

use std::{fs, path::PathBuf};

use mesh_resources::Kind;

use crate::{RecordError, record};

fn golden() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

#[test]
fn a_golden_record_of_each_kind_reads_and_is_written_the_same() {
    for kind in Kind::ALL {
        let path = golden().join(format!("{}.v1.json", kind.as_str()));
        let text = fs::read_to_string(&path).unwrap();
        let resource = record::decode(text.as_bytes()).unwrap();
        assert_eq!(resource.kind(), kind);
        assert!(resource.problems().is_empty(), "{:?}", resource.problems());
        assert!(resource.metadata.revision.is_some());
        assert_eq!(record::encode(&resource).unwrap(), text.trim_end(), "{kind}");
    }
}

#[test]
fn a_record_of_another_version_or_none_is_refused_and_says_so() {
    let text = fs::read_to_string(golden().join("Tenant.v1.json")).unwrap();
    let newer = text.replacen("\"v\":1", "\"v\":2", 1);
    let error = record::decode(newer.as_bytes()).unwrap_err();
    assert_eq!(error, RecordError::Version { found: 2 });
    assert!(
        error.to_string().contains("version 2, this mesh reads up to version 1"),
        "{error}"
    );
    for bad in ["", "{}", "[]", r#"{"v":1}"#, r#"{"v":1,"resource":{},"more":1}"#] {
        assert!(
            matches!(record::decode(bad.as_bytes()), Err(RecordError::Unreadable(_))),
            "{bad}"
        );
    }
}
