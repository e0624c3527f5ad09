//! One door's TLS: from settings to what its listener is given, and the renewal of what lies behind it.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use mesh_types::Clock;
use parking_lot::Mutex;
use rustls::{
    ServerConfig, SupportedProtocolVersion,
    crypto::{CryptoProvider, aws_lc_rs},
    server::NoServerSessionStorage,
    version::{TLS12, TLS13},
};

use crate::{
    Asks, CertificateFacts, Shown, TlsError, Warning,
    handshake::{Current, Now, Verifier},
    material::{Contents, Material},
};

/// How long a handshake may take. A client that is slower is not waited for.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Whether clients show certificates.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ClientAuth {
    /// They are not asked.
    #[default]
    Off,
    /// Whoever shows one must have it from this authority; one can do without.
    Optional(PathBuf),
    /// Nobody comes in without one from this authority.
    Required(PathBuf),
}

impl ClientAuth {
    pub(crate) fn ca(&self) -> Option<&Path> {
        match self {
            Self::Off => None,
            Self::Optional(path) | Self::Required(path) => Some(path),
        }
    }
}

/// The oldest version of TLS that is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TlsVersion {
    /// Only the newest.
    #[default]
    V1_3,
    /// Also the one before, for old clients.
    V1_2,
}

static NEWEST: [&SupportedProtocolVersion; 1] = [&TLS13];
static BOTH: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];

impl TlsVersion {
    fn and_newer(self) -> &'static [&'static SupportedProtocolVersion] {
        match self {
            Self::V1_3 => &NEWEST,
            Self::V1_2 => &BOTH,
        }
    }
}

/// How a door speaks TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsSettings {
    /// A PEM file: the door's certificate, then those between it and its authority.
    pub certificate: PathBuf,
    /// A PEM file: the certificate's key, not encrypted.
    pub key: PathBuf,
    /// Whether clients show certificates.
    pub client_auth: ClientAuth,
    /// The oldest version that is spoken.
    pub oldest: TlsVersion,
}

/// What came of a look at the files.
#[derive(Debug)]
pub enum Renewal {
    /// They are what they were, or what was refused before.
    Unchanged,
    /// What they hold serves from the next handshake on.
    Done(Vec<Warning>),
    /// They have changed, but to nothing that can serve; what served before serves on.
    Refused(TlsError),
}

/// One door's TLS.
pub struct ServerTls {
    settings: TlsSettings,
    provider: Arc<CryptoProvider>,
    current: Current,
    clock: Arc<dyn Clock>,
    seen: Mutex<Seen>,
}

/// What was found at the last look.
struct Seen {
    contents: Contents,
    /// Said once, not at every look; with the Unix second since when.
    unreadable: Option<(String, i64)>,
    /// The Unix second at which contents were found that cannot serve.
    refused: Option<i64>,
    /// How often others were put in place.
    renewals: u64,
}

// Keys are nobody's to print.
impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl ServerTls {
    /// Reads the files and checks them. Blocks on the disk.
    pub fn load(settings: TlsSettings, clock: Arc<dyn Clock>) -> Result<(Self, Vec<Warning>), TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let contents = Contents::read(&settings)?;
        let now = clock.unix_seconds();
        let material = Material::of(&settings, &contents, &provider, now)?;
        let warnings = material.warnings(&settings, now);
        let tls = Self {
            settings,
            provider,
            current: Current(Arc::new(ArcSwap::from_pointee(material))),
            clock,
            seen: Mutex::new(Seen {
                contents,
                unreadable: None,
                refused: None,
                renewals: 0,
            }),
        };
        Ok((tls, warnings))
    }

    /// What a listener is given, once; renewals reach it. `protocols` are those it speaks, the best first (ALPN).
    pub fn config(&self, protocols: &[&str]) -> Result<ServerConfig, TlsError> {
        let builder = ServerConfig::builder_with_details(self.provider.clone(), Arc::new(Now(self.clock.clone())));
        let builder = builder
            .with_protocol_versions(self.settings.oldest.and_newer())
            .map_err(|error| TlsError::Setup(error.to_string()))?;
        let verifier = |mandatory| {
            Arc::new(Verifier {
                current: self.current.clone(),
                mandatory,
                provider: self.provider.clone(),
            })
        };
        let builder = match &self.settings.client_auth {
            ClientAuth::Off => builder.with_no_client_auth(),
            ClientAuth::Optional(_) => builder.with_client_cert_verifier(verifier(false)),
            ClientAuth::Required(_) => builder.with_client_cert_verifier(verifier(true)),
        };
        let mut config = builder.with_cert_resolver(Arc::new(self.current.clone()));
        if self.settings.client_auth != ClientAuth::Off {
            // A resumed session would bring along a client that the authorities of now were not asked about.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        Ok(config)
    }

    /// The Unix second at which the certificate that serves now ends.
    pub fn expires(&self) -> i64 {
        self.current.0.load().valid.1
    }

    /// What people are told of it now; none where its certificate says nothing that can be read.
    pub fn shown(&self) -> Option<Shown> {
        let (refused, renewals) = {
            let seen = self.seen.lock();
            (
                seen.unreadable.as_ref().map(|(_, at)| *at).or(seen.refused),
                seen.renewals,
            )
        };
        let serving = self.current.0.load();
        let chain = &serving.certified.cert;
        let (authorities, more_authorities) = serving.authorities.clone();
        Some(Shown {
            certificate: CertificateFacts::read(chain.first()?)?,
            chain: chain.len(),
            since: serving.since,
            renewals,
            refused,
            oldest: self.settings.oldest,
            asks: match self.settings.client_auth {
                ClientAuth::Off => Asks::Off,
                ClientAuth::Optional(_) => Asks::Optional,
                ClientAuth::Required(_) => Asks::Required,
            },
            authorities,
            more_authorities,
        })
    }

    /// Looks at the files again, and puts in place what they hold if it is new and fits. Blocks on the disk.
    pub fn renew(&self) -> Renewal {
        // Read before anything is held: whoever is shown what serves must not wait for a disk that hangs.
        let (contents, now) = (Contents::read(&self.settings), self.clock.unix_seconds());
        let mut seen = self.seen.lock();
        let contents = match contents {
            Ok(contents) => contents,
            Err(error) => {
                let text = error.to_string();
                if seen.unreadable.as_ref().is_some_and(|(said, _)| *said == text) {
                    return Renewal::Unchanged;
                }
                seen.unreadable = Some((text, now));
                return Renewal::Refused(error);
            }
        };
        seen.unreadable = None;
        if contents == seen.contents {
            return Renewal::Unchanged;
        }
        let material = Material::of(&self.settings, &contents, &self.provider, now);
        seen.contents = contents;
        match material {
            Ok(material) => {
                let warnings = material.warnings(&self.settings, now);
                self.current.0.store(Arc::new(material));
                (seen.refused, seen.renewals) = (None, seen.renewals + 1);
                Renewal::Done(warnings)
            }
            Err(error) => {
                seen.refused = Some(now);
                Renewal::Refused(error)
            }
        }
    }
}
