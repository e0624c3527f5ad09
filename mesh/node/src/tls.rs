//! TLS of the doors: the settings as they are written, the pair that each door serves with, and the watch over their files.

use std::{path::PathBuf, sync::Arc, time::Duration};

use clap::Args;
use mesh_actors::Tasks;
use mesh_admin_api::DoorsView;
use mesh_telemetry::Telemetry;
use mesh_tls::{ClientAuth, Renewal, ServerConfig, ServerTls, Shown, TlsError, TlsSettings, TlsVersion, Warning};
use mesh_types::Clock;
use serde::Deserialize;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{MissedTickBehavior, interval},
};

use crate::options::Text;

/// How often the files are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// The doors by name; the first stands for both inference doors.
const DOORS: [&str; 3] = ["inference", "admin", "metrics"];

/// What is asked of callers, once it is known of whose certificates.
type Ask = fn(PathBuf) -> ClientAuth;

/// The settings of `mesh serve` that are about TLS.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args, Deserialize)]
#[serde(default)]
pub struct TlsOptions {
    /// The certificate of the inference doors and the admin door, and those between it and its authority; PEM. Renewed files
    /// serve without a restart. [default: no TLS]
    #[arg(long, env = "MESH_TLS_CERT", value_name = "FILE", help_heading = "TLS")]
    pub tls_cert: Option<PathBuf>,
    /// The key of that certificate; PEM, not encrypted.
    #[arg(long, env = "MESH_TLS_KEY", value_name = "FILE", help_heading = "TLS")]
    pub tls_key: Option<PathBuf>,
    /// Ask callers of the inference doors for a certificate that one of these authorities has signed; PEM.
    #[arg(long, env = "MESH_TLS_CLIENT_CA", value_name = "FILE", help_heading = "TLS")]
    pub tls_client_ca: Option<PathBuf>,
    /// Whether callers must have one: required or optional. [default: required]
    #[arg(long, env = "MESH_TLS_CLIENT_AUTH", value_name = "MODE", help_heading = "TLS")]
    pub tls_client_auth: Option<Text>,
    /// The oldest version of TLS that is spoken: 1.3 or 1.2. [default: 1.3]
    #[arg(long, env = "MESH_TLS_MIN_VERSION", value_name = "VERSION", help_heading = "TLS")]
    pub tls_min_version: Option<Text>,
    /// Another certificate for the admin door.
    #[arg(long, env = "MESH_ADMIN_TLS_CERT", value_name = "FILE", help_heading = "TLS")]
    pub admin_tls_cert: Option<PathBuf>,
    /// The key of the admin door's certificate.
    #[arg(long, env = "MESH_ADMIN_TLS_KEY", value_name = "FILE", help_heading = "TLS")]
    pub admin_tls_key: Option<PathBuf>,
    /// Let only those to the admin door who have a certificate from one of these authorities, beside their token.
    #[arg(long, env = "MESH_ADMIN_TLS_CLIENT_CA", value_name = "FILE", help_heading = "TLS")]
    pub admin_tls_client_ca: Option<PathBuf>,
    /// TLS of metrics and health: off, on (with the inference doors' certificate) or mutual (callers need one too).
    /// [default: off]
    #[arg(long, env = "MESH_METRICS_TLS", value_name = "MODE", help_heading = "TLS")]
    pub metrics_tls: Option<Text>,
}

/// What each door is to serve with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsConfig {
    /// Both inference doors.
    pub inference: Option<TlsSettings>,
    /// The admin door.
    pub admin: Option<TlsSettings>,
    /// Metrics and health.
    pub metrics: Option<TlsSettings>,
}

impl TlsOptions {
    /// What is said here, and for the rest what the other says.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            tls_cert: self.tls_cert.or(other.tls_cert),
            tls_key: self.tls_key.or(other.tls_key),
            tls_client_ca: self.tls_client_ca.or(other.tls_client_ca),
            tls_client_auth: self.tls_client_auth.or(other.tls_client_auth),
            tls_min_version: self.tls_min_version.or(other.tls_min_version),
            admin_tls_cert: self.admin_tls_cert.or(other.admin_tls_cert),
            admin_tls_key: self.admin_tls_key.or(other.admin_tls_key),
            admin_tls_client_ca: self.admin_tls_client_ca.or(other.admin_tls_client_ca),
            metrics_tls: self.metrics_tls.or(other.metrics_tls),
        }
    }

    /// Checks that the settings go together, and adds what is wrong to the problems.
    pub(crate) fn check(self, problems: &mut Vec<String>) -> TlsConfig {
        let oldest = one_of(
            ("tls_min_version", self.tls_min_version),
            &[("1.3", TlsVersion::V1_3), ("1.2", TlsVersion::V1_2)],
            problems,
        );
        let named = self.tls_client_auth.is_some();
        let modes: [(&str, Ask); 2] = [("required", ClientAuth::Required), ("optional", ClientAuth::Optional)];
        let mode = one_of(("tls_client_auth", self.tls_client_auth), &modes, problems);
        if named && self.tls_client_ca.is_none() {
            problems.push("tls_client_auth: there is no authority to ask: set tls_client_ca too".to_owned());
        }
        let plain = pair(("tls_cert", self.tls_cert), ("tls_key", self.tls_key), oldest, problems);
        let own = pair(
            ("admin_tls_cert", self.admin_tls_cert),
            ("admin_tls_key", self.admin_tls_key),
            oldest,
            problems,
        );
        let inference = asking(("tls_client_ca", self.tls_client_ca), mode, plain.clone(), problems);
        let admin = own.or_else(|| plain.clone());
        let admin = asking(
            ("admin_tls_client_ca", self.admin_tls_client_ca),
            ClientAuth::Required,
            admin,
            problems,
        );
        let metrics = one_of(
            ("metrics_tls", self.metrics_tls),
            &[("off", 0), ("on", 1), ("mutual", 2)],
            problems,
        );
        let of_metrics = match metrics {
            0 => {
                return TlsConfig {
                    inference,
                    admin,
                    metrics: None,
                };
            }
            1 => plain,
            _ => inference
                .clone()
                .filter(|settings| settings.client_auth != ClientAuth::Off),
        };
        if of_metrics.is_none() {
            problems.push(
                "metrics_tls: there is nothing to serve with: set tls_cert and tls_key, and tls_client_ca for mutual"
                    .to_owned(),
            );
        }
        TlsConfig {
            inference,
            admin,
            metrics: of_metrics,
        }
    }
}

/// Reads a setting that has a few values, the first of which is the default.
fn one_of<T: Copy>((name, text): (&str, Option<Text>), values: &[(&str, T)], problems: &mut Vec<String>) -> T {
    let default = values[0].1;
    let Some(Text(text)) = text else { return default };
    let found = values.iter().find(|(value, _)| *value == text);
    found.map(|(_, value)| *value).unwrap_or_else(|| {
        let text: String = text.chars().take(100).collect();
        let right: Vec<_> = values.iter().map(|(value, _)| *value).collect();
        problems.push(format!("{name}: '{text}' is not one of {}", right.join(", ")));
        default
    })
}

fn pair(
    (cert_name, certificate): (&str, Option<PathBuf>),
    (key_name, key): (&str, Option<PathBuf>),
    oldest: TlsVersion,
    problems: &mut Vec<String>,
) -> Option<TlsSettings> {
    match (certificate, key) {
        (Some(certificate), Some(key)) => Some(TlsSettings {
            certificate,
            key,
            client_auth: ClientAuth::Off,
            oldest,
        }),
        (Some(_), None) => {
            problems.push(format!(
                "{key_name}: missing: name the key of the certificate in {cert_name}"
            ));
            None
        }
        (None, Some(_)) => {
            problems.push(format!(
                "{cert_name}: missing: name the certificate of the key in {key_name}"
            ));
            None
        }
        (None, None) => None,
    }
}

fn asking(
    (name, authority): (&str, Option<PathBuf>),
    mode: fn(PathBuf) -> ClientAuth,
    settings: Option<TlsSettings>,
    problems: &mut Vec<String>,
) -> Option<TlsSettings> {
    match (settings, authority) {
        (Some(settings), Some(authority)) => Some(TlsSettings {
            client_auth: mode(authority),
            ..settings
        }),
        (None, Some(_)) => {
            problems.push(format!(
                "{name}: the door has no certificate of its own: set tls_cert and tls_key too"
            ));
            None
        }
        (settings, None) => settings,
    }
}

/// The pairs that the doors serve with.
#[derive(Debug, Default)]
pub(crate) struct DoorsTls {
    served: Vec<(&'static str, Arc<ServerTls>)>,
    pub(crate) inference: Option<ServerConfig>,
    pub(crate) admin: Option<ServerConfig>,
    pub(crate) metrics: Option<ServerConfig>,
}

impl DoorsTls {
    /// Reads all files, before any door is opened.
    pub(crate) fn load(config: &TlsConfig, clock: &Arc<dyn Clock>) -> Result<Self, TlsError> {
        let mut doors = Self::default();
        let [inference, admin, metrics] = DOORS;
        doors.inference = doors.add(inference, config.inference.as_ref(), clock)?;
        doors.admin = doors.add(admin, config.admin.as_ref(), clock)?;
        doors.metrics = doors.add(metrics, config.metrics.as_ref(), clock)?;
        Ok(doors)
    }

    fn add(
        &mut self,
        door: &'static str,
        settings: Option<&TlsSettings>,
        clock: &Arc<dyn Clock>,
    ) -> Result<Option<ServerConfig>, TlsError> {
        let Some(settings) = settings else { return Ok(None) };
        let (tls, warnings) = ServerTls::load(settings.clone(), clock.clone())?;
        for warning in warnings {
            tracing::warn!(door, "{warning}");
        }
        // Which protocols it speaks is the door's to say.
        let config = tls.config(&[])?;
        self.served.push((door, Arc::new(tls)));
        Ok(Some(config))
    }

    /// What people are told of it.
    pub(crate) fn view(&self) -> ShownDoors {
        ShownDoors(self.served.clone())
    }

    /// Looks at the files now and then, and at SIGHUP, for as long as the tasks run.
    pub(crate) fn watch(&self, telemetry: &Telemetry, tasks: &Tasks) {
        if self.served.is_empty() {
            return;
        }
        let (served, telemetry) = (self.served.clone(), telemetry.clone());
        for (door, tls) in &served {
            telemetry.metrics().certificate_expires(door, tls.expires());
        }
        tasks.spawn("certificates", move |mut ending| async move {
            let mut hangups = signal(SignalKind::hangup()).ok();
            let mut looks = interval(LOOK_INTERVAL);
            looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    () = ending.ended() => return,
                    _ = looks.tick() => {}
                    () = hangup(&mut hangups) => tracing::info!("looking at the certificates, as SIGHUP asks"),
                }
                let (served, telemetry) = (served.clone(), telemetry.clone());
                let looked = tokio::task::spawn_blocking(move || {
                    for (door, tls) in served {
                        look(door, &tls, &telemetry);
                    }
                });
                if looked.await.is_err() {
                    tracing::error!("a look at the certificates panicked");
                }
            }
        });
    }
}

/// The doors' TLS, for people to look at.
#[derive(Debug)]
pub(crate) struct ShownDoors(Vec<(&'static str, Arc<ServerTls>)>);

impl DoorsView for ShownDoors {
    fn shown(&self) -> Vec<(&'static str, Option<Shown>)> {
        let of = |door| self.0.iter().find(|(name, _)| *name == door);
        let shown = |door| (door, of(door).and_then(|(_, tls)| tls.shown()));
        DOORS.map(shown).into()
    }
}

async fn hangup(signals: &mut Option<Signal>) {
    let heard = match signals {
        Some(signals) => signals.recv().await,
        None => None,
    };
    if heard.is_none() {
        // There is none to come.
        std::future::pending::<()>().await;
    }
}

fn warn(door: &'static str, warnings: &[Warning]) {
    for warning in warnings {
        tracing::warn!(door, "{warning}");
    }
}

fn look(door: &'static str, tls: &ServerTls, telemetry: &Telemetry) {
    match tls.renew() {
        Renewal::Unchanged => {}
        Renewal::Done(warnings) => {
            telemetry.metrics().certificate_changed(door, true);
            telemetry.metrics().certificate_expires(door, tls.expires());
            tracing::info!(door, expires = tls.expires(), "serves with a new certificate");
            warn(door, &warnings);
        }
        Renewal::Refused(error) => {
            telemetry.metrics().certificate_changed(door, false);
            tracing::error!(door, %error, "the new certificate is refused, and the old one serves on");
        }
    }
}

#[cfg(test)]
#[path = "tls_tests.rs"]
mod tests;
