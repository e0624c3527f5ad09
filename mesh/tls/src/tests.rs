//! What is said of files that do not fit, and what a renewal does and leaves alone.

use std::{fs, path::Path, sync::Arc};

use mesh_types::ManualClock;
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use tempfile::TempDir;

use super::*;

/// 2030-01-01.
const NOW: i64 = 1_893_456_000;

fn pair(until: i32) -> (String, String) {
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.not_after = date_time_ymd(until, 1, 1);
    let key = KeyPair::generate().unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

struct Files(TempDir);

impl Files {
    fn new() -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        files.put(&pair(2040));
        files
    }

    fn put(&self, (certificate, key): &(String, String)) {
        fs::write(self.at("cert.pem"), certificate).unwrap();
        fs::write(self.at("key.pem"), key).unwrap();
    }

    fn at(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    fn settings(&self) -> TlsSettings {
        TlsSettings {
            certificate: self.at("cert.pem"),
            key: self.at("key.pem"),
            client_auth: ClientAuth::Off,
            oldest: TlsVersion::V1_3,
        }
    }

    fn load(&self) -> Result<(ServerTls, Vec<Warning>), TlsError> {
        ServerTls::load(self.settings(), Arc::new(ManualClock::at(NOW)))
    }
}

fn named(error: &TlsError, path: &Path, words: &str) {
    let text = error.to_string();
    assert!(
        text.contains(&path.display().to_string()) && text.contains(words),
        "{text}"
    );
}

#[test]
fn errors_name_the_file_and_what_would_be_right() {
    let files = Files::new();
    let (cert, key) = (files.at("cert.pem"), files.at("key.pem"));
    let good = fs::read_to_string(&key).unwrap();
    fs::write(&key, pair(2040).1).unwrap();
    named(&files.load().unwrap_err(), &key, "is not that of the certificate");
    fs::write(
        &key,
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAA==\n-----END ENCRYPTED PRIVATE KEY-----\n",
    )
    .unwrap();
    named(&files.load().unwrap_err(), &key, "without a passphrase");
    fs::write(&key, "hello").unwrap();
    named(&files.load().unwrap_err(), &key, "-----BEGIN PRIVATE KEY-----");
    fs::remove_file(&key).unwrap();
    named(&files.load().unwrap_err(), &key, "cannot read the key");
    fs::write(&key, good).unwrap();
    fs::write(&cert, "\u{30}\u{82}").unwrap();
    named(&files.load().unwrap_err(), &cert, "-----BEGIN CERTIFICATE-----");
    fs::write(&cert, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    named(&files.load().unwrap_err(), &cert, "cannot be used");
}

#[test]
fn a_file_of_the_bound_is_read_and_of_one_byte_more_is_not() {
    let files = Files::new();
    let mut text = fs::read(files.at("cert.pem")).unwrap();
    text.resize(usize::try_from(MAX_FILE_BYTES).unwrap(), b'\n');
    fs::write(files.at("cert.pem"), &text).unwrap();
    assert!(files.load().is_ok());
    text.push(b'\n');
    fs::write(files.at("cert.pem"), &text).unwrap();
    named(
        &files.load().unwrap_err(),
        &files.at("cert.pem"),
        "more than 1048576 bytes",
    );
}

#[test]
fn an_expired_certificate_and_a_key_that_everybody_reads_are_warned_of() {
    use std::os::unix::fs::PermissionsExt as _;
    let files = Files::new();
    files.put(&pair(2029));
    fs::set_permissions(files.at("key.pem"), fs::Permissions::from_mode(0o644)).unwrap();
    let (_, warnings) = files.load().unwrap();
    let expected = [
        Warning::Expired(files.at("cert.pem")),
        Warning::KeyReadable(files.at("key.pem")),
    ];
    assert_eq!(warnings, expected);
    files.put(&pair(2040));
    fs::set_permissions(files.at("key.pem"), fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(files.load().unwrap().1, []);
}

#[test]
fn a_renewal_is_taken_once_and_what_does_not_fit_is_refused_once() {
    let files = Files::new();
    let (tls, _) = files.load().unwrap();
    let first = tls.expires();
    assert!(matches!(tls.renew(), Renewal::Unchanged));
    // The key alone is a pair that does not fit.
    let new = pair(2050);
    fs::write(files.at("key.pem"), &new.1).unwrap();
    assert!(matches!(tls.renew(), Renewal::Refused(TlsError::Mismatch { .. })));
    assert!(matches!(tls.renew(), Renewal::Unchanged));
    assert_eq!(tls.expires(), first);
    fs::remove_file(files.at("key.pem")).unwrap();
    assert!(matches!(tls.renew(), Renewal::Refused(TlsError::Unreadable { .. })));
    assert!(matches!(tls.renew(), Renewal::Unchanged));
    files.put(&new);
    assert!(matches!(tls.renew(), Renewal::Done(_)));
    assert!(matches!(tls.renew(), Renewal::Unchanged));
    assert!(tls.expires() > first);
}

#[test]
fn what_serves_is_told_with_when_it_came_and_what_was_refused_since() {
    let files = Files::new();
    let clock = Arc::new(ManualClock::at(NOW));
    let settings = TlsSettings {
        client_auth: ClientAuth::Optional(files.at("cert.pem")),
        ..files.settings()
    };
    let (tls, _) = ServerTls::load(settings, clock.clone()).unwrap();
    let first = tls.shown().unwrap();
    assert_eq!(first.certificate.names, ["localhost"]);
    assert_eq!(first.certificate.until, tls.expires());
    assert_eq!(
        (first.since, first.renewals, first.refused, first.chain),
        (NOW, 0, None, 1)
    );
    assert_eq!((first.asks, first.authorities.len()), (Asks::Optional, 1));
    let after = |seconds: u64| {
        clock.advance(std::time::Duration::from_secs(seconds));
        tls.renew();
        tls.shown().unwrap()
    };
    let (new, old) = (pair(2050), fs::read(files.at("key.pem")).unwrap());
    fs::write(files.at("key.pem"), &new.1).unwrap();
    let refused = after(1);
    assert_eq!((refused.since, refused.refused), (NOW, Some(NOW + 1)));
    assert_eq!(refused.certificate, first.certificate);
    fs::remove_file(files.at("key.pem")).unwrap();
    assert_eq!(after(1).refused, Some(NOW + 2));
    assert_eq!(after(1).refused, Some(NOW + 2), "since it was found");
    // Readable again, and what it was before: that it served was never in doubt.
    fs::write(files.at("key.pem"), &old).unwrap();
    assert_eq!(after(1).refused, None);
    files.put(&new);
    let last = after(1);
    assert_eq!((last.since, last.refused), (NOW + 5, None));
    assert!(last.renewals > first.renewals && last.certificate.until > first.certificate.until);
}

#[test]
fn where_clients_are_verified_no_session_is_resumed() {
    let files = Files::new();
    let settings = TlsSettings {
        client_auth: ClientAuth::Required(files.at("cert.pem")),
        ..files.settings()
    };
    let (tls, _) = ServerTls::load(settings, Arc::new(ManualClock::at(NOW))).unwrap();
    let config = tls.config(&["h2"]).unwrap();
    assert_eq!(config.send_tls13_tickets, 0);
    assert!(!config.session_storage.can_cache());
    assert_eq!(config.alpn_protocols, [b"h2".to_vec()]);
    let plain = files.load().unwrap().0.config(&[]).unwrap();
    assert!(plain.session_storage.can_cache());
}
