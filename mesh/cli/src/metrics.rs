//! `metrics`: one tenant's own metrics, as the admin door writes them for Prometheus.

use mesh_types::TenantId;
use reqwest::Method;

use crate::{
    Failure, Terminal,
    client::{AdminClient, TIMEOUT, read},
};

pub(crate) async fn metrics(
    client: &AdminClient,
    tenant: &TenantId,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    let request = client.request(Method::GET, &format!("/tenants/{tenant}/metrics"));
    let answer = client.stream(request.timeout(TIMEOUT)).await?;
    let text = read(answer, client.url()).await?;
    write!(terminal.out, "{}", String::from_utf8_lossy(&text))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::commands_tests::serve;

    #[test]
    fn a_tenants_metrics_are_printed_as_they_come() {
        let path = "/admin/v1/tenants/acme/metrics";
        let server = serve(vec![("GET", path, 200, json!("# EOF"))]);
        let ran = server.mesh("", &["metrics", "acme"]);
        assert_eq!((ran.code, ran.out.as_str()), (0, "\"# EOF\""));
        let ran = server.mesh("", &["metrics", "globex"]);
        assert!(ran.code != 0 && ran.err.contains("no such thing"), "{}", ran.err);
        assert!(<crate::Cli as clap::Parser>::try_parse_from(["mesh", "metrics"]).is_err());
    }
}
