//! Every setting is checked, all mistakes are told at once, and what nobody says has a default.

use super::*;

fn text(text: &str) -> Option<Text> {
    Some(Text(text.to_owned()))
}

#[test]
fn nothing_said_is_a_valid_configuration() {
    let config = NodeConfig::check(ServeOptions::default()).unwrap();
    assert_eq!(config.http.port(), 8000);
    assert!(config.admin.ip().is_loopback());
    assert!(config.threads_per_device >= 1);
    assert!(config.otlp.is_none());
}

#[test]
fn the_doors_are_where_tritons_are() {
    for compat in [None, text("triton")] {
        let options = ServeOptions {
            model_repository: compat.is_some().then(|| "/models".into()),
            compat,
            ..ServeOptions::default()
        };
        let config = NodeConfig::check(options).unwrap();
        let ports = [config.http, config.grpc, config.metrics].map(|address| address.port());
        assert_eq!(ports, [8000, 8001, 8002]);
    }
}

#[test]
fn every_mistake_is_told_at_once_with_what_would_be_right() {
    let options = ServeOptions {
        http_listen: text("localhost"),
        devices: text("0"),
        queue: text("many"),
        otlp_sample_ratio: text("1.5"),
        otlp_endpoint: text("collector:4317"),
        log_format: text("xml"),
        forward_headers: text("("),
        cors_origins: text("example.com"),
        ..ServeOptions::default()
    };
    let error = NodeConfig::check(options).unwrap_err();
    assert_eq!(error.problems.len(), 8, "{error}");
    let shown = error.to_string();
    for part in [
        "http_listen: 'localhost'",
        "devices: '0'",
        "queue: 'many'",
        "from 0 to 1",
        "text or json",
        "forward_headers: a regular expression",
        "cors_origins: 'example.com' is no origin",
    ] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
}

#[test]
fn numbers_at_their_bounds_pass_and_one_beyond_do_not() {
    let with = |devices: &str| {
        let options = ServeOptions {
            devices: text(devices),
            ..ServeOptions::default()
        };
        NodeConfig::check(options)
    };
    assert_eq!(with("64").unwrap().devices, 64);
    assert!(with("65").is_err());
    assert_eq!(with("1").unwrap().devices, 1);
    assert!(with("0").is_err());
}

#[test]
fn a_repositorys_models_are_the_default_tenants_or_those_of_whom_is_said() {
    let with = |tenant: Option<Text>| {
        let options = ServeOptions {
            model_repository: Some("/models".into()),
            model_repository_tenant: tenant,
            ..ServeOptions::default()
        };
        NodeConfig::check(options).map(|config| config.model_repository.unwrap().1.to_string())
    };
    assert_eq!(with(None).unwrap(), "default");
    assert_eq!(with(text("acme")).unwrap(), "acme");
    assert!(
        with(text("Acme"))
            .unwrap_err()
            .to_string()
            .contains("model_repository_tenant: invalid tenant name")
    );
}

#[test]
fn models_are_loaded_on_demand_of_a_repository_only() {
    let with = |mode: &str, repository: bool, load: Option<&str>| {
        let options = ServeOptions {
            model_repository: repository.then(|| "/models".into()),
            model_control_mode: text(mode),
            load_model: load.map(|name| vec![Text(name.to_owned())]),
            ..ServeOptions::default()
        };
        NodeConfig::check(options).map(|config| config.on_demand)
    };
    assert_eq!(with("none", true, None), Ok(None));
    assert_eq!(with("explicit", true, None), Ok(Some(Vec::new())));
    assert_eq!(with("explicit", true, Some("*")), Ok(Some(vec!["*".to_owned()])));
    for (mode, repository, load, part) in [
        ("explicit", false, None, "name one with model_repository"),
        ("none", true, Some("a"), "load_model: all models"),
        ("poll", true, None, "write none or explicit"),
    ] {
        let error = with(mode, repository, load).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn compatibility_is_off_until_it_is_asked_for_and_a_name_that_was_said_stays() {
    let with = |compat: Option<Text>, server_name: Option<Text>| {
        let options = ServeOptions {
            compat,
            server_name,
            ..ServeOptions::default()
        };
        NodeConfig::check(options).map(|config| (config.as_triton, config.local_tenant, config.server_name))
    };
    let default = TenantId::parse("default").ok();
    assert_eq!(with(None, None), Ok((false, None, "mesh".to_owned())));
    assert_eq!(with(None, text("ours")), Ok((false, None, "ours".to_owned())));
    assert_eq!(
        with(text("triton"), None),
        Ok((true, default.clone(), "triton".to_owned()))
    );
    assert_eq!(
        with(text("triton"), text("ours")),
        Ok((true, default, "ours".to_owned()))
    );
    assert!(
        with(text("kserve"), None)
            .unwrap_err()
            .to_string()
            .contains("write triton")
    );
    assert!(with(None, text(&"n".repeat(MAX_SERVER_NAME_BYTES))).is_ok());
    for bad in [String::new(), "n".repeat(MAX_SERVER_NAME_BYTES + 1)] {
        assert!(with(None, text(&bad)).is_err(), "{bad}");
    }
}

#[test]
fn two_doors_on_one_port_are_refused_unless_the_port_is_chosen_by_the_system() {
    let with = |http: &str, admin: &str| {
        let options = ServeOptions {
            http_listen: text(http),
            admin_listen: text(admin),
            ..ServeOptions::default()
        };
        NodeConfig::check(options)
    };
    assert!(
        with("127.0.0.1:9000", "127.0.0.1:9000")
            .unwrap_err()
            .to_string()
            .contains("also http_listen")
    );
    assert!(with("127.0.0.1:0", "127.0.0.1:0").is_ok());
}

#[test]
fn the_command_line_wins_over_the_file_and_an_unknown_setting_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mesh.toml");
    std::fs::write(&path, "devices = 3\nqueue = \"77\"\notlp_sample_ratio = 0.5\n").unwrap();
    let options = ServeOptions {
        config: Some(path.clone()),
        devices: text("2"),
        ..ServeOptions::default()
    };
    let config = NodeConfig::load(options.clone()).unwrap();
    assert_eq!((config.devices, config.queue), (2, 77));
    std::fs::write(&path, "device = 3\n").unwrap();
    let error = NodeConfig::load(options.clone()).unwrap_err().to_string();
    assert!(error.contains("unknown field `device`"), "{error}");
    std::fs::remove_file(&path).unwrap();
    assert!(
        NodeConfig::load(options)
            .unwrap_err()
            .to_string()
            .contains("cannot read")
    );
}
