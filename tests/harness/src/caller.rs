//! A tenant's client at the inference door.

use std::net::SocketAddr;

use anyhow::{Context, ensure};
use bytes::Bytes;
use reqwest::{Client, RequestBuilder, StatusCode, header::HeaderMap};
use serde_json::Value;

use crate::{PATIENCE, eventually, wait::client};

/// Somebody who calls.
#[derive(Debug, Clone)]
pub struct Caller {
    client: Client,
    base: String,
    key: Option<String>,
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> anyhow::Result<Value> {
        serde_json::from_slice(&self.body)
            .with_context(|| format!("{} with {}", self.status, String::from_utf8_lossy(&self.body)))
    }

    /// The message of an error.
    pub fn error(&self) -> anyhow::Result<String> {
        let json = self.json()?;
        Ok(json["error"].as_str().context("no error")?.to_owned())
    }

    /// A header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Itself, if it is a success.
    pub fn ok(self) -> anyhow::Result<Self> {
        ensure!(
            self.status.is_success(),
            "{} with {}",
            self.status,
            String::from_utf8_lossy(&self.body)
        );
        Ok(self)
    }

    /// The numbers of an output.
    pub fn numbers(&self, output: usize) -> anyhow::Result<Vec<f64>> {
        let json = self.json()?;
        let data = json["outputs"][output]["data"].as_array().context("no such output")?;
        Ok(data.iter().filter_map(Value::as_f64).collect())
    }
}

impl Caller {
    /// Somebody at the inference door of this address.
    pub fn new(address: SocketAddr, key: Option<&str>) -> Self {
        Self {
            client: client(),
            base: format!("http://{address}"),
            key: key.map(str::to_owned),
        }
    }

    /// The same where the door speaks TLS, by a client that trusts it.
    pub fn over_tls(client: Client, address: SocketAddr, key: Option<&str>) -> Self {
        Self {
            client,
            base: format!("https://{address}"),
            key: key.map(str::to_owned),
        }
    }

    /// The same client with another credential: to make one takes longer than most calls.
    #[must_use]
    pub fn showing(&self, key: &str) -> Self {
        Self {
            key: Some(key.to_owned()),
            ..self.clone()
        }
    }

    /// The key, for other clients.
    pub fn key(&self) -> &str {
        self.key.as_deref().unwrap_or_default()
    }

    /// The client that tenants use, at the same door with the same key.
    pub fn client(&self) -> anyhow::Result<mesh_client::Client> {
        Ok(mesh_client::Client::http(&self.base)
            .api_key(self.key())
            .timeout(PATIENCE)
            .build()?)
    }

    /// A request with the credential, to be completed.
    pub fn post(&self, path: &str) -> RequestBuilder {
        self.with_key(self.client.post(format!("{}{path}", self.base)))
    }

    /// A request with the credential, to be completed.
    pub fn get(&self, path: &str) -> RequestBuilder {
        self.with_key(self.client.get(format!("{}{path}", self.base)))
    }

    fn with_key(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    /// Asks for a prediction.
    pub async fn infer(&self, target: &str, body: &Value) -> anyhow::Result<Answer> {
        let request = self.post(&format!("/v2/models/{target}/infer")).json(body);
        send(request).await
    }

    /// Sends numbers to the one input `x` of a vector model.
    pub async fn ask(&self, target: &str, numbers: &[f32]) -> anyhow::Result<Answer> {
        self.infer(target, &one_row(numbers)).await
    }

    /// Asks until the target answers.
    pub async fn until_answers(&self, target: &str, body: &Value) -> anyhow::Result<Answer> {
        eventually(&format!("{target} answers"), || async {
            let answer = self.infer(target, body).await?;
            Ok(answer.status.is_success().then_some(answer))
        })
        .await
    }

    /// Asks until the target says that it is ready; that calls no model.
    pub async fn until_ready(&self, target: &str) -> anyhow::Result<()> {
        eventually(&format!("{target} is ready"), || async {
            Ok(self.is_ready(target).await?.then_some(()))
        })
        .await
    }

    /// Whether the target says that it is ready.
    pub async fn is_ready(&self, target: &str) -> anyhow::Result<bool> {
        let answer = send(self.get(&format!("/v2/models/{target}/ready"))).await?;
        Ok(answer.status.is_success())
    }

    /// Asks until the key is known.
    pub async fn until_let_in(&self) -> anyhow::Result<()> {
        eventually("the key is known", || async {
            let answer = send(self.get("/v2/models/no-such-model")).await?;
            Ok((answer.status == StatusCode::NOT_FOUND).then_some(()))
        })
        .await
    }
}

/// A body for a vector model: one row in the input `x`.
fn one_row(numbers: &[f32]) -> Value {
    serde_json::json!({
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, numbers.len()], "data": numbers}],
    })
}

impl Answer {
    /// Sends a request and takes the whole answer in.
    pub async fn of(request: RequestBuilder) -> anyhow::Result<Self> {
        send(request).await
    }
}

async fn send(request: RequestBuilder) -> anyhow::Result<Answer> {
    let response = request.send().await?;
    Ok(Answer {
        status: response.status(),
        headers: response.headers().clone(),
        body: response.bytes().await?,
    })
}
