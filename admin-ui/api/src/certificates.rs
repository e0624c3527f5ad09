//! The certificates that the mesh's own doors serve with: whose, until when, since when, and which authorities callers need one of.
//!
//! Owns what counts as ending soon, which the web app warns of. Reads no file and no certificate: the doors' TLS says what it serves
//! with. Which callers are known by their certificates is in the resources of kind `ClientCertificate`.

use actix_web::{
    HttpResponse,
    web::{self, Data},
};
use jiff::Timestamp;
use mesh_policies::authorization::{Action, ObjectKind};
use mesh_tls::{Asks, CertificateFacts, Shown, TlsVersion};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{AdminState, entry::Entry};

/// A certificate ends soon in its last fifth, which whoever renews in time does not come to; of long ones in the last 30 days.
const SOON_SHARE: i64 = 5;
const SOON_SECONDS: i64 = 30 * 86_400;

/// One door, and what it serves with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct DoorView {
    /// `inference` (HTTP and gRPC), `admin` or `metrics`.
    door: String,
    /// How it speaks TLS; null: it does not.
    tls: Option<DoorTls>,
}

/// How a door speaks TLS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct DoorTls {
    /// The certificate that it serves with.
    certificate: CertificateView,
    /// How many certificates are sent along, itself included.
    chain: usize,
    /// Since when it serves: the start of the mesh, or its last renewal.
    #[schema(value_type = String, format = DateTime)]
    since: Timestamp,
    /// How often one was put in place of another since the start.
    renewals: u64,
    /// Since when its files hold something that cannot serve, so that the certificate before serves on; null: they do not.
    #[schema(value_type = Option<String>, format = DateTime)]
    refused_since: Option<Timestamp>,
    /// The oldest version that is spoken: `1.3` or `1.2`.
    oldest_version: String,
    /// Whether callers show certificates: `off`, `optional` or `required`.
    clients: String,
    /// The authorities that callers' certificates must come from; at most 32.
    authorities: Vec<CertificateView>,
    /// How many more there are.
    more_authorities: usize,
}

/// What a certificate says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct CertificateView {
    /// Whose it is.
    subject: String,
    /// Who has signed it.
    issuer: String,
    /// Its alternative names: DNS names, addresses and URIs; at most 32.
    names: Vec<String>,
    /// How many more there are.
    more_names: usize,
    /// From when on it holds.
    #[schema(value_type = String, format = DateTime)]
    not_before: Timestamp,
    /// When it ends.
    #[schema(value_type = String, format = DateTime)]
    not_after: Timestamp,
    /// How it stands now.
    standing: Standing,
    /// SHA-256 of it, in hexadecimal.
    sha256: String,
}

/// How a certificate stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Standing {
    /// It does not hold yet.
    NotYet,
    /// It holds, and for a good while.
    Valid,
    /// It is in the last fifth of its time, or in its last 30 days if that is less: by now it should have been renewed.
    EndsSoon,
    /// It has ended, and clients refuse it.
    Ended,
}

impl Standing {
    fn of(facts: &CertificateFacts, now: i64) -> Self {
        let soon = (facts.until.saturating_sub(facts.from) / SOON_SHARE).min(SOON_SECONDS);
        match now {
            now if now < facts.from => Self::NotYet,
            now if now > facts.until => Self::Ended,
            now if now > facts.until.saturating_sub(soon) => Self::EndsSoon,
            _ => Self::Valid,
        }
    }
}

fn time(unix: i64) -> Timestamp {
    // A certificate may name a time beyond those that can be written: the last second of the year 9999 means no end (RFC 5280, 4.1.2.5).
    let outermost = if unix < 0 { Timestamp::MIN } else { Timestamp::MAX };
    Timestamp::from_second(unix).unwrap_or(outermost)
}

fn certificate(facts: CertificateFacts, now: i64) -> CertificateView {
    CertificateView {
        standing: Standing::of(&facts, now),
        not_before: time(facts.from),
        not_after: time(facts.until),
        subject: facts.subject,
        issuer: facts.issuer,
        names: facts.names,
        more_names: facts.more_names,
        sha256: facts.sha256,
    }
}

fn view(shown: Shown, now: i64) -> DoorTls {
    let version = match shown.oldest {
        TlsVersion::V1_3 => "1.3",
        TlsVersion::V1_2 => "1.2",
    };
    let clients = match shown.asks {
        Asks::Off => "off",
        Asks::Optional => "optional",
        Asks::Required => "required",
    };
    DoorTls {
        certificate: certificate(shown.certificate, now),
        chain: shown.chain,
        since: time(shown.since),
        renewals: shown.renewals,
        refused_since: shown.refused.map(time),
        oldest_version: version.to_owned(),
        clients: clients.to_owned(),
        authorities: shown
            .authorities
            .into_iter()
            .map(|facts| certificate(facts, now))
            .collect(),
        more_authorities: shown.more_authorities,
    }
}

/// Answers every door.
fn list(state: &AdminState) -> HttpResponse {
    let now = state.now_unix();
    let doors = state.inner.parts.doors.shown().into_iter();
    let doors: Vec<_> = doors
        .map(|(door, shown)| DoorView {
            door: door.to_owned(),
            tls: shown.map(|shown| view(shown, now)),
        })
        .collect();
    HttpResponse::Ok().json(doors)
}

/// Its route.
pub(crate) fn entry() -> Entry {
    let listed = web::get().to(|state: Data<AdminState>| async move { list(&state) });
    let about = "The certificates that the mesh's doors serve with, until when, and whom each door admits.";
    Entry::get("/door-certificates", "listDoorCertificates", about, listed)
        .tag("credentials")
        .takes_right(Action::MeshRead, ObjectKind::Mesh)
        .answers("DoorList")
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::fixture_tests::Fixture;

    const DAY: i64 = 86_400;

    #[test]
    fn a_certificate_ends_soon_in_its_last_fifth_or_its_last_thirty_days() {
        for (lifetime, soon) in [(365 * DAY, 30 * DAY), (90 * DAY, 18 * DAY), (DAY, DAY / 5)] {
            let facts = CertificateFacts {
                subject: String::new(),
                issuer: String::new(),
                names: Vec::new(),
                more_names: 0,
                from: 1_000,
                until: 1_000 + lifetime,
                sha256: String::new(),
            };
            for (now, standing) in [
                (999, Standing::NotYet),
                (1_000, Standing::Valid),
                (facts.until - soon, Standing::Valid),
                (facts.until - soon + 1, Standing::EndsSoon),
                (facts.until, Standing::EndsSoon),
                (facts.until + 1, Standing::Ended),
            ] {
                assert_eq!(Standing::of(&facts, now), standing, "{lifetime} {now}");
            }
        }
    }

    #[actix_web::test]
    async fn every_door_is_told_with_its_certificate_or_that_it_has_none() {
        let door = Fixture::new().await;
        let doors = door.get("/door-certificates").await.is(200).body;
        let names: Vec<_> = doors.as_array().unwrap().iter().map(|one| &one["door"]).collect();
        assert_eq!(names, ["inference", "admin", "metrics"]);
        let tls = &doors[0]["tls"];
        assert_eq!(tls["certificate"]["subject"], "CN=mesh.test");
        assert_eq!(tls["certificate"]["names"][0], "mesh.test");
        assert_eq!(tls["certificate"]["standing"], "ends_soon");
        assert_eq!(tls["certificate"]["not_after"], "2030-03-18T17:46:40Z");
        assert_eq!(
            (&tls["renewals"], &tls["oldest_version"], &tls["clients"]),
            (&2.into(), &"1.3".into(), &"optional".into())
        );
        assert_eq!(tls["since"], "2030-03-17T16:46:40Z");
        assert_eq!(tls["refused_since"], Value::Null);
        assert_eq!(tls["authorities"][0]["standing"], "valid");
        assert_eq!(doors[2]["tls"], Value::Null);
    }
}
