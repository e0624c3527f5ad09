//! An admin at the admin API.

use std::{net::SocketAddr, path::Path};

use anyhow::{Context, ensure};
use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};

use crate::{eventually, wait::client};

/// Somebody with the admin token.
#[derive(Debug, Clone)]
pub struct Admin {
    client: Client,
    base: String,
    token: String,
}

impl Admin {
    /// Somebody at the admin door of this address.
    pub fn new(address: SocketAddr, token: &str) -> Self {
        Self {
            client: client(),
            base: format!("http://{address}/admin/v1"),
            token: token.to_owned(),
        }
    }

    /// The same where the door speaks TLS, by a client that trusts it.
    pub fn over_tls(client: Client, address: SocketAddr, token: &str) -> Self {
        Self {
            client,
            base: format!("https://{address}/admin/v1"),
            token: token.to_owned(),
        }
    }

    /// The token, for other clients.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// A request to a path under `/admin/v1`, to be completed.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client
            .request(method, format!("{}{path}", self.base))
            .bearer_auth(&self.token)
    }

    async fn send(&self, request: RequestBuilder) -> anyhow::Result<Value> {
        let answer = request.send().await?;
        let status = answer.status();
        let body = answer.bytes().await?;
        ensure!(status.is_success(), "{status} with {}", String::from_utf8_lossy(&body));
        if body.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&body).context("the admin API did not answer JSON")
    }

    /// Reads something.
    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.send(self.request(Method::GET, path)).await
    }

    /// Writes resources, all or none.
    pub async fn apply(&self, resources: &[Value]) -> anyhow::Result<Value> {
        let body = json!({"resources": resources});
        self.send(self.request(Method::POST, "/apply").json(&body)).await
    }

    /// Writes a tenant.
    pub async fn tenant(&self, name: &str, spec: Value) -> anyhow::Result<()> {
        let metadata = json!({"name": name});
        self.apply(&[resource("Tenant", &metadata, &spec)]).await.map(drop)
    }

    /// A new API key of the tenant.
    pub async fn key(&self, tenant: &str) -> anyhow::Result<String> {
        let request = self.request(Method::POST, &format!("/tenants/{tenant}/keys"));
        let made = self.send(request.json(&json!({}))).await?;
        Ok(made["key"].as_str().context("no key")?.to_owned())
    }

    /// Takes an API key back.
    pub async fn revoke(&self, tenant: &str, key: &str) -> anyhow::Result<()> {
        let path = format!("/tenants/{tenant}/keys/{key}");
        self.send(self.request(Method::DELETE, &path)).await.map(drop)
    }

    /// Writes a model with its labels.
    pub async fn model(&self, tenant: &str, name: &str, spec: Value) -> anyhow::Result<()> {
        self.apply(&[resource("Model", &json!({"tenant": tenant, "name": name}), &spec)])
            .await
            .map(drop)
    }

    /// Publishes a version and waits until it is ready; answers its number.
    pub async fn publish(&self, tenant: &str, model: &str, spec: &Value) -> anyhow::Result<u32> {
        let version = self.publish_only(tenant, model, spec).await?;
        self.until_state(tenant, model, version, "READY").await?;
        Ok(version)
    }

    /// Publishes a version; answers its number.
    pub async fn publish_only(&self, tenant: &str, model: &str, spec: &Value) -> anyhow::Result<u32> {
        let request = self.request(Method::POST, &format!("/tenants/{tenant}/models/{model}/versions"));
        let made = self.send(request.json(&json!({"spec": spec}))).await?;
        let name = made["metadata"]["name"].as_str().context("no name")?;
        let number = name.rsplit('/').next().unwrap_or_default();
        number.parse().context("no version number")
    }

    /// Uploads a TorchScript file and publishes it as a version with this configuration; waits until it is ready.
    pub async fn publish_torchscript(
        &self,
        tenant: &str,
        model: &str,
        file: &Path,
        config: &Value,
    ) -> anyhow::Result<u32> {
        let bytes = tokio::fs::read(file).await?;
        let artifact = self.upload(bytes).await?;
        let spec = json!({"format": "torchscript", "artifact": artifact, "config": config});
        self.publish(tenant, model, &spec).await
    }

    /// Uploads an artifact; answers its reference.
    pub async fn upload(&self, bytes: Vec<u8>) -> anyhow::Result<Value> {
        self.send(self.request(Method::POST, "/artifacts").body(bytes)).await
    }

    /// Writes an endpoint whose arms are written `(name, model, version or label, percent)`.
    pub async fn endpoint(&self, tenant: &str, name: &str, arms: &[(&str, &str, &str, f64)]) -> anyhow::Result<()> {
        self.endpoint_with(tenant, name, arms, json!({})).await
    }

    /// The same, with more of its specification.
    pub async fn endpoint_with(
        &self,
        tenant: &str,
        name: &str,
        arms: &[(&str, &str, &str, f64)],
        mut spec: Value,
    ) -> anyhow::Result<()> {
        let arm = |(name, model, version, weight): &(&str, &str, &str, f64)| {
            let mut arm = json!({"name": name, "model": model, "weight": weight});
            if !version.is_empty() {
                arm["version"] = json!(version);
            }
            arm
        };
        spec["arms"] = arms.iter().map(arm).collect();
        self.apply(&[resource("Endpoint", &json!({"tenant": tenant, "name": name}), &spec)])
            .await
            .map(drop)
    }

    /// Waits until a version is in this state on some device; answers what the device says of it.
    pub async fn until_state(&self, tenant: &str, model: &str, version: u32, state: &str) -> anyhow::Result<Value> {
        let is_it = |known: &&Value| {
            known["tenant"] == tenant
                && known["model"] == model
                && known["version"] == version
                && known["state"] == state
        };
        eventually(&format!("{tenant}/{model}/{version} is {state}"), || async {
            Ok(self.devices_models().await?.iter().find(is_it).cloned())
        })
        .await
    }

    /// Waits until no device has the version.
    pub async fn until_gone(&self, tenant: &str, model: &str, version: u32) -> anyhow::Result<()> {
        let is_it = |known: &Value| known["tenant"] == tenant && known["model"] == model && known["version"] == version;
        eventually(&format!("{tenant}/{model}/{version} is gone"), || async {
            Ok((!self.devices_models().await?.iter().any(is_it)).then_some(()))
        })
        .await
    }

    async fn devices_models(&self) -> anyhow::Result<Vec<Value>> {
        let devices = self.get("/devices").await?;
        let devices = devices
            .as_array()
            .or_else(|| devices["devices"].as_array())
            .context("no devices")?
            .clone();
        Ok(devices
            .iter()
            .filter_map(|device| device["models"].as_array())
            .flatten()
            .cloned()
            .collect())
    }
}

fn resource(kind: &str, metadata: &Value, spec: &Value) -> Value {
    json!({"apiVersion": "mesh/v1", "kind": kind, "metadata": metadata, "spec": spec})
}
