//! What doors bring and get.

use std::{
    fmt,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use mesh_policies::{PeerCertificate, Principal, access::Presented};
use mesh_types::{Fault, InferRequest, InferResponse, RequestId, StageTimings, TraceContext};

use crate::{
    Account, CacheOutcome,
    stream::{Room, Stream},
};

/// The `Authorization` header of a call, if it has one, and the certificate of its connection; or who need not have either. Never
/// printed.
#[derive(Clone, Default)]
pub struct Credential {
    shown: Shown,
    certificate: Option<Arc<PeerCertificate>>,
    from: Option<IpAddr>,
}

#[derive(Clone, Default)]
enum Shown {
    #[default]
    Nothing,
    Header(String),
    Local(Arc<Principal>),
}

impl Credential {
    /// A header that cannot be read as one text, as it would be written: with nothing in it that could let anybody in.
    pub const UNREADABLE: &'static str = "Bearer";

    /// Takes the header's value.
    pub fn from_header(value: Option<&str>) -> Self {
        Self {
            shown: value.map_or(Shown::Nothing, |value| Shown::Header(value.to_owned())),
            certificate: None,
            from: None,
        }
    }

    /// The same over a connection whose client has shown this certificate.
    #[must_use]
    pub fn over(mut self, certificate: Option<Arc<PeerCertificate>>) -> Self {
        self.certificate = certificate;
        self
    }

    /// The same from this address.
    #[must_use]
    pub fn from_address(mut self, address: Option<IpAddr>) -> Self {
        self.from = address;
        self
    }

    pub(crate) fn address(&self) -> Option<IpAddr> {
        self.from
    }

    /// Somebody on this machine who shows nothing.
    pub(crate) fn local(principal: Arc<Principal>) -> Self {
        Self {
            shown: Shown::Local(principal),
            certificate: None,
            from: None,
        }
    }

    pub(crate) fn presented(&self) -> Presented<'_> {
        let certificate = self.certificate.as_deref();
        match &self.shown {
            Shown::Nothing => certificate.map_or(Presented::None, Presented::Certificate),
            Shown::Header(value) => Presented::from_header(Some(value)).over(certificate),
            Shown::Local(principal) => Presented::Local(principal),
        }
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.shown {
            Shown::Nothing if self.certificate.is_some() => "Credential(certificate)",
            Shown::Nothing => "Credential(none)",
            Shown::Header(_) => "Credential(..)",
            Shown::Local(_) => "Credential(local)",
        })
    }
}

/// A decoded request and what came with it.
#[derive(Debug, Clone)]
pub struct Call {
    /// What is asked.
    pub request: InferRequest,
    /// How many bytes it was read from, unpacked.
    pub bytes: usize,
    /// Who asks.
    pub credential: Credential,
    /// The unit of a sticky split, where the request has no parameter for it.
    pub unit: Option<String>,
    /// How many answers the caller has room for.
    pub room: Room,
    /// How long the caller waits.
    pub timeout: Option<Duration>,
    /// The caller's span.
    pub trace_parent: Option<TraceContext>,
    /// The mesh's number for it.
    pub request_id: RequestId,
    /// When its first byte came.
    pub received: Instant,
    /// How long decoding took.
    pub decode: Duration,
}

/// A prediction.
#[derive(Debug)]
pub struct Completed {
    /// For the caller; without outputs where any number of answers follow.
    pub response: InferResponse,
    /// The arm of the split; none where there was none.
    pub arm: Option<Arc<str>>,
    /// Where the answer came from; none where the endpoint has no cache.
    pub cached: Option<CacheOutcome>,
    /// Where the time went.
    pub timings: StageTimings,
    /// The answers of a decoupled model: see [`Answer::into_many`].
    pub(crate) more: Option<Box<Stream>>,
}

/// The answer to a call, and the account of it that the door closes.
#[derive(Debug)]
pub struct Answer {
    /// What came of it.
    pub result: Result<Box<Completed>, Fault>,
    /// To be finished once the answer is encoded; dropped unfinished it counts as cancelled.
    pub account: Box<Account>,
}
