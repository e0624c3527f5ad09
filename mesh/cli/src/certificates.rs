//! `certificate create`: which certificate stands for a tenant's caller.

use std::{path::PathBuf, time::SystemTime};

use clap::{Args, Subcommand};
use mesh_resources::{CertificateIdentity, ClientCertificateSpec, Kind, Resource, Scope};
use mesh_types::TenantId;
use reqwest::{Method, header};

use crate::{Failure, Terminal, client::AdminClient, keys::Expiry, paths, trust};

/// `mesh certificate`.
#[derive(Debug, Clone, Subcommand)]
pub enum CertificateCommand {
    /// Have callers with a certificate be a tenant's, without a key or token.
    #[command(after_help = "Examples:
  mesh certificate create billing --tenant acme --spiffe spiffe://acme.example/ns/prod/sa/billing
  mesh certificate create edge --tenant acme --dns edge.acme.example
  mesh certificate create sensor-7 --tenant acme --cert sensor-7.pem   its key, however its certificates are named

The inference doors ask for certificates where `mesh serve` has --tls-client-ca; only what was signed by those authorities counts.
With --tls-client-auth optional, callers without a certificate still come in with keys and tokens.")]
    Create(CertificateCreateArgs),
}

/// `mesh certificate create`.
#[derive(Debug, Clone, Args)]
#[command(group(clap::ArgGroup::new("identity").required(true).args(["spiffe", "dns", "cert"])))]
pub struct CertificateCreateArgs {
    /// What the caller is called, in logs, metrics and the audit log.
    pub name: String,
    /// The tenant that the caller stands for.
    #[arg(short, long)]
    pub tenant: TenantId,
    /// The certificate's SPIFFE ID, exactly.
    #[arg(long, value_name = "URI")]
    pub spiffe: Option<String>,
    /// A DNS name of the certificate, exactly.
    #[arg(long, value_name = "NAME")]
    pub dns: Option<String>,
    /// A certificate whose public key it is; PEM.
    #[arg(long, value_name = "FILE")]
    pub cert: Option<PathBuf>,
    /// When it ends: a time from now such as 90d or 12h, or a date such as 2030-01-31T00:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = Expiry::parse)]
    pub expires: Option<Expiry>,
    /// A group of the tenant's that it is in, for policies; may be given again.
    #[arg(long = "group", value_name = "GROUP")]
    pub groups: Vec<String>,
    /// A note for people.
    #[arg(long, value_name = "TEXT")]
    pub description: Option<String>,
}

pub(crate) async fn create(
    client: &AdminClient,
    args: &CertificateCreateArgs,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    let expires = args
        .expires
        .map(|expiry| expiry.counted_from(SystemTime::now()))
        .transpose()?;
    let spec = ClientCertificateSpec {
        identity: identity(args)?,
        scopes: vec![Scope::Infer],
        expires,
        revoked: false,
        groups: args.groups.clone(),
        description: args.description.clone(),
    };
    let key = paths::key(Kind::ClientCertificate, &args.name, Some(&args.tenant))?;
    let request = client
        .request(Method::PUT, &paths::of(&key))
        .header(header::IF_NONE_MATCH, "*")
        .json(&Resource::new(&key, spec));
    let written: Resource = client.send(request).await?;
    let mesh_resources::Spec::ClientCertificate(spec) = &written.spec else {
        return Err(Failure::refused("the server answered with something else"));
    };
    writeln!(
        terminal.err,
        "{} is caller {} of {}\ntake it back: mesh delete certificate {} -t {}",
        spec.identity, written.metadata.name, args.tenant, written.metadata.name, args.tenant
    )?;
    Ok(())
}

fn identity(args: &CertificateCreateArgs) -> Result<CertificateIdentity, Failure> {
    if let Some(id) = &args.spiffe {
        return Ok(CertificateIdentity::Spiffe(id.clone()));
    }
    if let Some(name) = &args.dns {
        return Ok(CertificateIdentity::Dns(name.clone()));
    }
    let path = args
        .cert
        .as_ref()
        .ok_or_else(|| Failure::refused("which certificate? give --spiffe, --dns or --cert"))?;
    let digest = mesh_tls::key_digest(&trust::read(path)?).ok_or_else(|| {
        let path = path.display();
        Failure::refused(format!(
            "{path} is no PEM file that begins with a certificate: check --cert"
        ))
    })?;
    Ok(CertificateIdentity::SpkiSha256(digest))
}
