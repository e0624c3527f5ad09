//! Which settings of TLS go together, and what each door then serves with.

use super::*;

fn file(name: &str) -> Option<PathBuf> {
    Some(PathBuf::from(name))
}

fn text(text: &str) -> Option<Text> {
    Some(Text(text.to_owned()))
}

fn check(options: TlsOptions) -> (TlsConfig, Vec<String>) {
    let mut problems = Vec::new();
    let config = options.check(&mut problems);
    (config, problems)
}

#[test]
fn one_pair_serves_inference_and_admin_and_only_inference_asks_for_certificates() {
    let options = TlsOptions {
        tls_cert: file("c"),
        tls_key: file("k"),
        tls_client_ca: file("ca"),
        ..TlsOptions::default()
    };
    let (config, problems) = check(options);
    assert_eq!(problems, [""; 0]);
    let inference = config.inference.unwrap();
    assert_eq!(inference.client_auth, ClientAuth::Required("ca".into()));
    assert_eq!(inference.oldest, TlsVersion::V1_3);
    assert_eq!(config.admin.unwrap().client_auth, ClientAuth::Off);
    assert_eq!(config.metrics, None);
    assert_eq!(check(TlsOptions::default()), (TlsConfig::default(), Vec::new()));
}

#[test]
fn the_admin_door_and_metrics_have_settings_of_their_own() {
    let options = TlsOptions {
        tls_cert: file("c"),
        tls_key: file("k"),
        tls_client_ca: file("ca"),
        tls_client_auth: text("optional"),
        tls_min_version: text("1.2"),
        admin_tls_cert: file("ac"),
        admin_tls_key: file("ak"),
        admin_tls_client_ca: file("aca"),
        metrics_tls: text("mutual"),
    };
    let (config, problems) = check(options);
    assert_eq!(problems, [""; 0]);
    let admin = config.admin.unwrap();
    assert_eq!((admin.certificate, admin.key), ("ac".into(), "ak".into()));
    assert_eq!(admin.client_auth, ClientAuth::Required("aca".into()));
    let metrics = config.metrics.unwrap();
    assert_eq!(metrics.client_auth, ClientAuth::Optional("ca".into()));
    assert_eq!(metrics.oldest, TlsVersion::V1_2);
}

#[test]
fn settings_that_do_not_go_together_are_all_told() {
    let options = TlsOptions {
        tls_cert: file("c"),
        tls_client_auth: text("perhaps"),
        tls_min_version: text("1.1"),
        admin_tls_key: file("k"),
        admin_tls_client_ca: file("ca"),
        metrics_tls: text("on"),
        ..TlsOptions::default()
    };
    let (_, problems) = check(options);
    let begin = |start: &str| problems.iter().any(|problem| problem.starts_with(start));
    for name in [
        "tls_key: missing",
        "admin_tls_cert: missing",
        "tls_client_auth: 'perhaps'",
        "tls_client_auth: there is no authority",
        "tls_min_version: '1.1' is not one of 1.3, 1.2",
        "admin_tls_client_ca: ",
        "metrics_tls: ",
    ] {
        assert!(begin(name), "{name} in {problems:?}");
    }
}
