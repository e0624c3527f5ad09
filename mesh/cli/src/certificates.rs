//! `certificate create`: which certificate stands for a tenant's caller.

use std::time::SystemTime;

use mesh_resources::{CertificateIdentity, ClientCertificateSpec, Kind, Resource, Scope};
use reqwest::{Method, header};

use crate::{CertificateCreateArgs, Failure, Terminal, client::AdminClient, paths, trust};

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
