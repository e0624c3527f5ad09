//! The admin API's client: one request, one answer, and every failure as a [`Failure`].

use std::time::{Duration, Instant};

use mesh_resources::Problem;
use reqwest::{Method, RequestBuilder, Response, StatusCode, header};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{Failure, TrustOptions};

pub(crate) const USER_AGENT: &str = concat!("mesh-cli/", env!("CARGO_PKG_VERSION"));
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// For an answer as a whole; uploads take as long as they take, but never stand still this long.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(30);
/// Of what may take long, each try: shorter than any of the above.
const LONGEST_TRY: Duration = Duration::from_secs(20);
const SHORTEST_TRY: Duration = Duration::from_millis(100);
/// The largest answer that is read.
const MAX_ANSWER_BYTES: usize = 64 << 20;
/// The most of a foreign answer that is shown.
const MAX_SHOWN_TEXT: usize = 200;

/// A client of one admin door.
#[derive(Debug, Clone)]
pub(crate) struct AdminClient {
    http: reqwest::Client,
    root: String,
    url: String,
    token: String,
}

#[derive(Debug, Deserialize)]
struct ErrorBody {
    error: String,
    #[serde(default)]
    problems: Vec<Problem>,
}

pub(crate) fn http_client(trust: &TrustOptions) -> Result<reqwest::Client, Failure> {
    let builder = reqwest::Client::builder()
        .user_agent(USER_AGENT)
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(TIMEOUT)
        .redirect(reqwest::redirect::Policy::none());
    trust
        .apply(builder)?
        .build()
        .map_err(|error| Failure::refused(format!("cannot set up http: {error}")))
}

impl AdminClient {
    pub(crate) fn new(url: &str, token: String, trust: &TrustOptions) -> Result<Self, Failure> {
        let url = url.trim_end_matches('/').to_owned();
        if header::HeaderValue::from_str(&token).is_err() || token.is_empty() {
            return Err(Failure::refused(
                "the admin token is empty or holds a control character: check where it comes from",
            ));
        }
        Ok(Self {
            http: http_client(trust)?,
            root: format!("{url}/admin/v1"),
            url,
            token,
        })
    }

    /// A request to a path below the API's root.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let url = format!("{}{path}", self.root);
        self.http.request(method, url).bearer_auth(&self.token)
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.send(self.request(Method::GET, path).timeout(TIMEOUT)).await
    }

    /// Reads something that may not be there.
    pub(crate) async fn find<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, Failure> {
        self.get_unless(StatusCode::NOT_FOUND, path).await
    }

    /// Reads something that the caller may not see, as whoever is bound to a tenant what is the mesh's.
    pub(crate) async fn permitted<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, Failure> {
        self.get_unless(StatusCode::FORBIDDEN, path).await
    }

    async fn get_unless<T: DeserializeOwned>(&self, none: StatusCode, path: &str) -> Result<Option<T>, Failure> {
        let request = self.request(Method::GET, path).timeout(TIMEOUT);
        match self.ask(request).await? {
            (status, _) if status == none => Ok(None),
            (status, body) if status.is_success() => self.understood(&body).map(Some),
            (status, body) => Err(refusal(status, &body)),
        }
    }

    pub(crate) async fn post<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<T, Failure> {
        self.send(self.request(Method::POST, path).timeout(TIMEOUT).json(body))
            .await
    }

    /// As [`Self::post`], for what may take long and can be asked for again: it is, until an answer comes or `patience` is over.
    pub(crate) async fn post_patiently<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &Value,
        patience: Duration,
    ) -> Result<T, Failure> {
        let begun = Instant::now();
        loop {
            let left = patience.saturating_sub(begun.elapsed()).max(SHORTEST_TRY);
            let once = self
                .request(Method::POST, path)
                .timeout(left.min(LONGEST_TRY))
                .json(body);
            match once.send().await {
                Err(error) if error.is_timeout() && begun.elapsed() < patience => {}
                sent => {
                    let (status, body) = self.heard(sent).await?;
                    return if status.is_success() {
                        self.understood(&body)
                    } else {
                        Err(refusal(status, &body))
                    };
                }
            }
        }
    }

    pub(crate) async fn delete(&self, path: &str, revision: Option<u64>) -> Result<(), Failure> {
        let mut request = self.request(Method::DELETE, path).timeout(TIMEOUT);
        if let Some(revision) = revision {
            request = request.header(header::IF_MATCH, format!("\"{revision}\""));
        }
        self.answer(request).await.map(drop)
    }

    /// Sends and reads the JSON of a success.
    pub(crate) async fn send<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, Failure> {
        self.understood(&self.answer(request).await?)
    }

    fn understood<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, Failure> {
        serde_json::from_slice(body).map_err(|error| {
            Failure::refused(format!("{} gave an answer that this version does not understand ({error}): is it a mesh admin door of the same version?", self.url))
        })
    }

    /// Where the door is.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Sends and answers with a success whose body is yet to be read; it may never stand still for long.
    pub(crate) async fn stream(&self, request: RequestBuilder) -> Result<Response, Failure> {
        let sent = request.send().await;
        let response = sent.map_err(|error| unreachable(&self.url, "MESH_ADMIN_URL", &error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        Err(refusal(status, &read(response, &self.url).await?))
    }

    async fn answer(&self, request: RequestBuilder) -> Result<Vec<u8>, Failure> {
        let (status, body) = self.ask(request).await?;
        if status.is_success() {
            return Ok(body);
        }
        Err(refusal(status, &body))
    }

    async fn ask(&self, request: RequestBuilder) -> Result<(StatusCode, Vec<u8>), Failure> {
        self.heard(request.send().await).await
    }

    async fn heard(&self, sent: reqwest::Result<Response>) -> Result<(StatusCode, Vec<u8>), Failure> {
        let response = sent.map_err(|error| unreachable(&self.url, "MESH_ADMIN_URL", &error))?;
        Ok((response.status(), read(response, &self.url).await?))
    }
}

/// Reads a bounded answer.
pub(crate) async fn read(mut response: Response, url: &str) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    let lost = |error: reqwest::Error| Failure::Unreachable(format!("{url} broke off its answer: {}", cause(&error)));
    while let Some(chunk) = response.chunk().await.map_err(lost)? {
        if body.len() + chunk.len() > MAX_ANSWER_BYTES {
            return Err(Failure::refused(format!(
                "{url} gave an answer of more than {MAX_ANSWER_BYTES} bytes"
            )));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// A refusal in the API's words, or the little that is known if the answer is not the API's.
pub(crate) fn refusal(status: StatusCode, body: &[u8]) -> Failure {
    let Ok(body) = serde_json::from_slice::<ErrorBody>(body) else {
        let text: String = String::from_utf8_lossy(body).chars().take(MAX_SHOWN_TEXT).collect();
        return Failure::refused(format!("the server answered {status}: {}", text.trim()));
    };
    match status {
        StatusCode::CONFLICT => Failure::Conflict(body.error),
        StatusCode::UNAUTHORIZED => Failure::refused(format!("{}: check the token or key", body.error)),
        _ => Failure::Refused {
            message: body.error,
            problems: body.problems,
        },
    }
}

/// Nobody there, or too slow.
pub(crate) fn unreachable(url: &str, variable: &str, error: &reqwest::Error) -> Failure {
    if error.is_builder() {
        return Failure::refused(format!(
            "'{url}' is no url: write http://host:port or https://host:port"
        ));
    }
    if error.is_timeout() {
        return Failure::Unreachable(format!("{url} did not answer in time: try again, or check its health"));
    }
    Failure::Unreachable(format!(
        "cannot reach {url} ({}): is `mesh serve` running there? the address comes from {variable}",
        cause(error)
    ))
}

/// The innermost cause, which is the one a person can act on.
pub(crate) fn cause(error: &reqwest::Error) -> String {
    let mut inner: &dyn std::error::Error = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_speak_in_the_apis_words_and_foreign_answers_are_cut() {
        let body = br#"{"error":"no","problems":[{"field":"spec.arms","problem":"too few"}]}"#;
        let text = refusal(StatusCode::BAD_REQUEST, body).to_string();
        assert_eq!(text, "error: no\n  - spec.arms: too few\n");
        assert_eq!(refusal(StatusCode::CONFLICT, body).exit_code(), 4);
        let long = "<html>".repeat(1_000);
        assert!(refusal(StatusCode::BAD_GATEWAY, long.as_bytes()).to_string().len() < 300);
    }

    #[test]
    fn an_empty_or_broken_token_is_refused_before_it_is_sent() {
        let trust = TrustOptions::default();
        assert!(AdminClient::new("http://x", String::new(), &trust).is_err());
        assert!(AdminClient::new("http://x", "a\nb".into(), &trust).is_err());
    }
}
