//! The settings of signing in: what they come to, and every mistake told.

use super::*;

const LOOPBACK: ([u8; 4], u16) = ([127, 0, 0, 1], 8080);

fn text(text: &str) -> Option<Text> {
    Some(Text(text.to_owned()))
}

fn right() -> LoginOptions {
    LoginOptions {
        oidc_issuer: text("https://login.example/realms/x"),
        oidc_client_id: text("mesh-admin"),
        oidc_roles: text("ops=admin, a=b=viewer"),
        ..LoginOptions::default()
    }
}

fn check(options: LoginOptions, admin: ([u8; 4], u16)) -> Result<Option<LoginConfig>, String> {
    let mut problems = Vec::new();
    let config = options.check(admin.into(), &mut problems);
    if problems.is_empty() {
        Ok(config)
    } else {
        Err(problems.join("\n"))
    }
}

#[test]
fn nothing_said_is_tokens_only_and_three_settings_are_enough() {
    assert_eq!(check(LoginOptions::default(), LOOPBACK), Ok(None));
    let config = check(right(), LOOPBACK).unwrap().unwrap();
    assert_eq!(config.client.scopes, "openid");
    assert_eq!(config.client.secret, None);
    let roles = vec![
        ("ops".to_owned(), AdminRole::Admin),
        ("a=b".to_owned(), AdminRole::Viewer),
    ];
    assert_eq!(config.rules.roles, roles);
    assert_eq!(
        (&*config.rules.user_claim, &*config.rules.role_claim),
        ("sub", "groups")
    );
}

#[expect(clippy::too_many_lines, reason = "a line for each mistake")]
#[test]
fn each_mistake_names_its_setting() {
    let mut wrong: Vec<(LoginOptions, &str)> = vec![
        (
            LoginOptions {
                oidc_issuer: None,
                ..right()
            },
            "oidc_issuer",
        ),
        (
            LoginOptions {
                oidc_issuer: text("http://login.example"),
                ..right()
            },
            "oidc_issuer",
        ),
        (
            LoginOptions {
                oidc_client_id: None,
                ..right()
            },
            "oidc_client_id",
        ),
        (
            LoginOptions {
                oidc_scopes: text("email"),
                ..right()
            },
            "oidc_scopes",
        ),
        (
            LoginOptions {
                oidc_require: text("staff"),
                ..right()
            },
            "oidc_require",
        ),
        (
            LoginOptions {
                oidc_url: text("http://mesh.example"),
                ..right()
            },
            "oidc_url",
        ),
        (
            LoginOptions {
                oidc_name: text(&"n".repeat(MAX_TEXT + 1)),
                ..right()
            },
            "oidc_name",
        ),
        (
            LoginOptions {
                oidc_client_secret: Some(Secret(" ".into())),
                ..right()
            },
            "oidc_client_secret",
        ),
        (
            LoginOptions {
                oidc_client_secret_file: Some("/nowhere/at/all".into()),
                ..right()
            },
            "oidc_client_secret_file",
        ),
    ];
    let many = |count: usize| vec!["g=viewer"; count].join(",");
    for roles in ["", "ops", "ops=king", "=admin", &many(MAX_ROLES + 1)] {
        wrong.push((
            LoginOptions {
                oidc_roles: text(roles),
                ..right()
            },
            "oidc_roles",
        ));
    }
    for (options, setting) in wrong {
        let told = check(options, LOOPBACK).unwrap_err();
        assert!(
            told.starts_with(&format!("{setting}: ")) && !told.contains('\n'),
            "{told}"
        );
    }
    let most = LoginOptions {
        oidc_roles: text(&many(MAX_ROLES)),
        ..right()
    };
    assert!(check(most, LOOPBACK).is_ok());
    let told = check(right(), ([0, 0, 0, 0], 8080)).unwrap_err();
    assert!(
        told.starts_with("oidc_url: ") && told.contains("0.0.0.0:8080"),
        "{told}"
    );
    let named = LoginOptions {
        oidc_url: text("https://mesh.example"),
        ..right()
    };
    assert!(check(named, ([0, 0, 0, 0], 8080)).is_ok());
}

#[test]
fn a_secret_is_read_from_its_file_said_once_and_never_printed() {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), "s3cret\n").unwrap();
    let by_file = LoginOptions {
        oidc_client_secret_file: Some(file.path().into()),
        ..right()
    };
    let config = check(by_file.clone(), LOOPBACK).unwrap().unwrap();
    assert_eq!(config.client.secret, Some(ClientSecret::new("s3cret".to_owned())));
    let said = LoginOptions {
        oidc_client_secret: Some(Secret("s3cret".into())),
        ..right()
    };
    assert!(!format!("{said:?}{config:?}").contains("s3cret"));
    // The command line's wins over the file of settings', however each is said.
    assert_eq!(said.clone().or(by_file.clone()).oidc_client_secret_file, None);
    let twice = LoginOptions {
        oidc_client_secret: said.oidc_client_secret,
        ..by_file
    };
    assert!(check(twice, LOOPBACK).unwrap_err().contains("twice"));
}
