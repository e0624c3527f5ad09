//! How a client is set up: where to, as whom, and within which bounds. Everything is checked once, in [`ClientBuilder::build`].

use std::{sync::Arc, time::Duration};

use http::HeaderValue;
use reqwest::Url;

use crate::{
    Client, Error,
    client::{Inner, Wire},
    grpc::GrpcWire,
    http::HttpWire,
    retry::{DEFAULT_RETRIES, MAX_RETRIES},
};

/// How long a call may take where nothing is said.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest that a call may take: a day, which is also the server's bound.
pub const MAX_TIMEOUT: Duration = Duration::from_secs(86_400);
/// The largest message where nothing is said, sent or received, in bytes.
pub const DEFAULT_MAX_MESSAGE_BYTES: usize = 64 << 20;
/// Connections where nothing is said.
pub const DEFAULT_CONNECTIONS: usize = 8;
/// The most connections that are kept.
pub const MAX_CONNECTIONS: usize = 256;
const USER_AGENT: &str = concat!("mesh-client/", env!("CARGO_PKG_VERSION"));
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Sets up a [`Client`].
///
/// ```no_run
/// # use std::time::Duration;
/// # use mesh_client::Client;
/// let client = Client::grpc("http://127.0.0.1:8001")
///     .api_key("mesh_...")
///     .timeout(Duration::from_millis(200))
///     .connections(2)
///     .build()?;
/// # Ok::<(), mesh_client::Error>(())
/// ```
#[derive(Debug, Clone)]
#[must_use = "build() makes the client"]
pub struct ClientBuilder {
    url: String,
    grpc: bool,
    credential: Option<Result<HeaderValue, ()>>,
    user_agent: String,
    timeout: Duration,
    connect_timeout: Duration,
    connections: usize,
    max_message_bytes: usize,
    retries: u32,
    tls: Tls,
}

/// What a connection over TLS trusts and shows, as PEM; the system's authorities and no certificate where nothing is said.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tls {
    pub(crate) authorities: Option<Vec<u8>>,
    pub(crate) identity: Option<Vec<u8>>,
}

/// What both wires are made of, checked.
#[derive(Debug)]
pub(crate) struct Setting {
    pub(crate) url: Url,
    pub(crate) credential: Option<HeaderValue>,
    pub(crate) user_agent: HeaderValue,
    pub(crate) connect_timeout: Duration,
    pub(crate) connections: usize,
    pub(crate) max_message_bytes: usize,
    pub(crate) tls: Tls,
}

impl ClientBuilder {
    pub(crate) fn new(url: &str, grpc: bool) -> Self {
        Self {
            url: url.to_owned(),
            grpc,
            credential: None,
            user_agent: USER_AGENT.to_owned(),
            timeout: DEFAULT_TIMEOUT,
            connect_timeout: CONNECT_TIMEOUT,
            connections: DEFAULT_CONNECTIONS,
            max_message_bytes: DEFAULT_MAX_MESSAGE_BYTES,
            retries: DEFAULT_RETRIES,
            tls: Tls::default(),
        }
    }

    /// Over https, trusts these authorities (certificates in PEM) and no others.
    pub fn trust_only(mut self, authorities: &[u8]) -> Self {
        self.tls.authorities = Some(authorities.to_vec());
        self
    }

    /// Over https, shows this certificate where the server asks for one: the chain and its key in PEM.
    pub fn identity(mut self, identity: &[u8]) -> Self {
        self.tls.identity = Some(identity.to_vec());
        self
    }

    /// Calls with an API key.
    pub fn api_key(self, key: &str) -> Self {
        self.bearer(key)
    }

    /// Calls with a token (JWT). The last one given counts; the server tells keys and tokens apart.
    pub fn bearer(mut self, token: &str) -> Self {
        let value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(drop);
        self.credential = Some(value.map(|mut value| {
            value.set_sensitive(true);
            value
        }));
        self
    }

    /// What the client calls itself.
    pub fn user_agent(mut self, name: &str) -> Self {
        name.clone_into(&mut self.user_agent);
        self
    }

    /// How long a call may take in all, further tries included, where it does not say so itself.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How long a connection may take to be made.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Over HTTP how many idle connections are kept; over gRPC how many there are, used in turn. 1 to [`MAX_CONNECTIONS`].
    pub fn connections(mut self, connections: usize) -> Self {
        self.connections = connections;
        self
    }

    /// The largest message that is sent or received.
    pub fn max_message_bytes(mut self, bytes: usize) -> Self {
        self.max_message_bytes = bytes;
        self
    }

    /// How often a call that may safely be sent again is, at most [`MAX_RETRIES`] times; 0 for never.
    pub fn retries(mut self, retries: u32) -> Self {
        self.retries = retries;
        self
    }

    /// Checks everything and makes the client. Connects to nothing yet: each call does where there is no connection.
    ///
    /// Over gRPC it must be called within a Tokio runtime.
    pub fn build(self) -> Result<Client, Error> {
        check_timeout(self.timeout)?;
        if !(1..=MAX_CONNECTIONS).contains(&self.connections) {
            return Err(Error::invalid(format!(
                "connections are 1 to {MAX_CONNECTIONS}, got {}",
                self.connections
            )));
        }
        if self.max_message_bytes == 0 {
            return Err(Error::invalid("max_message_bytes is 1 or more"));
        }
        if self.retries > MAX_RETRIES {
            return Err(Error::invalid(format!(
                "retries are 0 to {MAX_RETRIES}, got {}",
                self.retries
            )));
        }
        let credential = self.credential.transpose();
        let credential = credential.map_err(|()| Error::invalid("the key or token holds a control character"))?;
        let user_agent = HeaderValue::from_str(&self.user_agent);
        let setting = Setting {
            url: url(&self.url, self.grpc)?,
            credential,
            user_agent: user_agent.map_err(|_| Error::invalid("the user agent holds a control character"))?,
            connect_timeout: self.connect_timeout,
            connections: self.connections,
            max_message_bytes: self.max_message_bytes,
            tls: self.tls,
        };
        let wire = if self.grpc {
            Wire::Grpc(GrpcWire::new(&setting)?)
        } else {
            Wire::Http(HttpWire::new(&setting)?)
        };
        Ok(Client(Arc::new(Inner {
            wire,
            timeout: self.timeout,
            retries: self.retries,
        })))
    }
}

/// A time that a call may take.
pub(crate) fn check_timeout(timeout: Duration) -> Result<Duration, Error> {
    if timeout.is_zero() || timeout > MAX_TIMEOUT {
        return Err(Error::invalid(format!(
            "a timeout is more than nothing and at most {} s",
            MAX_TIMEOUT.as_secs()
        )));
    }
    Ok(timeout)
}

fn url(text: &str, grpc: bool) -> Result<Url, Error> {
    let wrong = |problem: &str| Error::invalid(format!("the URL {problem}: write it as http://HOST:PORT"));
    let url = Url::parse(text).map_err(|error| wrong(&format!("cannot be read ({error})")))?;
    if url.host_str().is_none_or(str::is_empty) {
        return Err(wrong("names no host"));
    }
    if url.query().is_some() || url.fragment().is_some() || !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("has a query, a fragment or a user"));
    }
    match (url.scheme(), grpc) {
        ("http", _) | ("https", false) => {}
        ("https", true) => return Err(wrong("asks for TLS, which the gRPC wire does not have")),
        _ => return Err(wrong("is not one of HTTP")),
    }
    if grpc && url.path() != "/" {
        return Err(wrong("has a path, which gRPC does not know"));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(builder: ClientBuilder) -> String {
        builder.build().map(drop).unwrap_err().to_string()
    }

    #[test]
    fn what_cannot_be_is_said_before_anything_is_sent() {
        let http = || Client::http("http://h:1");
        assert!(wrong(Client::http("h:1")).contains("names no host"));
        assert!(wrong(Client::http("ftp://h")).contains("not one of HTTP"));
        assert!(wrong(Client::http("http://h?x")).contains("query"));
        assert!(wrong(Client::grpc("https://h")).contains("TLS"));
        assert!(wrong(Client::grpc("http://h/x")).contains("path"));
        assert!(wrong(http().api_key("a\nb")).contains("control character"));
        assert!(wrong(http().user_agent("\u{7}")).contains("user agent"));
        assert!(wrong(http().max_message_bytes(0)).contains("1 or more"));
    }

    #[test]
    fn bounds_are_kept() {
        let http = || Client::http("http://h:1/behind/a/proxy");
        assert!(http().connections(MAX_CONNECTIONS).build().is_ok());
        assert!(wrong(http().connections(MAX_CONNECTIONS + 1)).contains("256"));
        assert!(wrong(http().connections(0)).contains("256"));
        assert!(http().retries(MAX_RETRIES).build().is_ok());
        assert!(wrong(http().retries(MAX_RETRIES + 1)).contains("10"));
        assert!(http().timeout(MAX_TIMEOUT).build().is_ok());
        assert!(wrong(http().timeout(MAX_TIMEOUT + Duration::from_nanos(1))).contains("86400"));
        assert!(wrong(http().timeout(Duration::ZERO)).contains("86400"));
    }

    #[test]
    fn the_key_is_not_shown() {
        let text = format!("{:?}", Client::http("http://h:1").api_key("mesh_secret"));
        assert!(!text.contains("mesh_secret"), "{text}");
    }
}
