//! Asking a decision point: what other instances, `tautline gate` and enforcement points of one's own do.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::{Request, StatusCode};
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::RootCertStore;
use rustls::pki_types::ServerName;
use serde_json::Value;
use url::{Host, Url};

use super::config::base_url;
use super::tls;

/// Default path of the Access Evaluation API (AuthZEN 1.0, table 1).
pub(crate) const EVALUATION: &str = "/access/v1/evaluation";
/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// The most bytes of an answer that are read.
const ANSWER_MAX: usize = 1_024 * 1_024;

/// A connection pool to a decision point.
pub(crate) type Http = legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// A client of an AuthZEN decision point, as an enforcement point needs it.
#[derive(Debug)]
pub struct Client {
    http: Http,
    endpoint: String,
    token: Option<HeaderValue>,
}

impl Client {
    /// A client of the decision point at a base URL, known to it by a bearer token. Its certificate is verified by `ca` (PEM),
    /// or by what the system trusts.
    ///
    /// # Errors
    ///
    /// When the URL is neither `https` nor on this machine, or the token or the certificates cannot be used.
    pub fn new(url: &str, token: Option<&str>, ca: Option<&Path>) -> Result<Self> {
        let base = base_url(url).map_err(|error| anyhow!(error))?;
        let endpoint = format!("{}{EVALUATION}", base.as_str().trim_end_matches('/'));
        Ok(Self { http: pool(&base, ca)?, endpoint, token: token.map(bearer).transpose()? })
    }

    /// Asks for one evaluation and gives the answer, with its `decision` and `context`.
    ///
    /// # Errors
    ///
    /// When there is no answer within ten seconds, or none of a decision point.
    pub async fn ask(&self, request: &Value) -> Result<Value> {
        let headers = self.token.iter().map(|token| (AUTHORIZATION.as_str(), token.clone()));
        let asked = post(&self.http, &self.endpoint, headers, request);
        let answer = tokio::time::timeout(PATIENCE, asked).await;
        answer
            .map_err(|_| anyhow!("no answer within {} seconds", PATIENCE.as_secs()))?
            .with_context(|| self.endpoint.clone())
    }
}

/// The header's value of a bearer token (RFC 6750, 2.1), which no log shows.
pub(crate) fn bearer(token: &str) -> Result<HeaderValue> {
    let mut value = HeaderValue::try_from(format!("Bearer {token}"))
        .map_err(|_| anyhow!("the token has characters that no header may have"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Connections to a decision point, also where it is reached by one of its addresses: its certificate is for the URL's host.
pub(crate) fn pool(base: &Url, ca: Option<&Path>) -> Result<Http> {
    let name = match base.host().context("a URL without a host")? {
        Host::Domain(name) => ServerName::try_from(name.to_owned())?,
        Host::Ipv4(address) => ServerName::IpAddress(IpAddr::V4(address).into()),
        Host::Ipv6(address) => ServerName::IpAddress(IpAddr::V6(address).into()),
    };
    // Without TLS there is nobody to be trusted.
    let config = if base.scheme() == "https" { tls::client(ca)? } else { tls::client_of(RootCertStore::empty())? };
    let builder = HttpsConnectorBuilder::new().with_tls_config(config).https_or_http();
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    let builder = builder.with_server_name_resolver(FixedServerNameResolver::new(name)).enable_http1();
    let connector = builder.wrap_connector(tcp);
    Ok(legacy::Client::builder(TokioExecutor::new()).build(connector))
}

/// Sends a JSON object and reads one.
pub(crate) async fn post(
    http: &Http,
    endpoint: &str,
    headers: impl Iterator<Item = (&str, HeaderValue)>,
    body: &Value,
) -> Result<Value> {
    let mut request = Request::post(endpoint).header(CONTENT_TYPE, "application/json");
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let response = http.request(request.body(Full::from(body.to_string()))?).await.context("cannot be reached")?;
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_MAX).collect().await;
    let bytes = body.map_err(|error| anyhow!("the answer broke off: {error}"))?.to_bytes();
    if status != StatusCode::OK {
        bail!("it answers {status}: {}", String::from_utf8_lossy(&bytes).chars().take(500).collect::<String>());
    }
    let answer: Value = serde_json::from_slice(&bytes).context("the answer is not JSON")?;
    ensure!(answer.get("decision").is_some_and(Value::is_boolean), "the answer has no `decision`");
    Ok(answer)
}
