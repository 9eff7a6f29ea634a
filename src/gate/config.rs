//! `[gate]` of the configuration: where to listen, who may ask, and what is answered where too little is known.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use tautline_detectors::glob::Glob;
use toml::Spanned;
use url::{Host, Url};

use crate::secret::SecretSource;

/// The decision point, as it is configured. Nobody can ask where the section is not there.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Gate {
    /// Where it listens: without `tls` on a loopback address only.
    #[serde(default = "listen")]
    pub(crate) listen: Spanned<SocketAddr>,
    /// Its identifier in the metadata (`policy_decision_point`), by which clients reach it; where it listens, if not given.
    pub(crate) url: Option<Spanned<String>>,
    /// Its certificate, and whose certificates it takes.
    pub(crate) tls: Option<ServerTls>,
    /// Who may ask.
    #[serde(default, rename = "client")]
    pub(crate) clients: Vec<Spanned<Client>>,
    /// What is closed where nobody knows the agent's behaviour.
    #[serde(default)]
    pub(crate) unavailable: Unavailable,
    /// Base URLs of the other instances. All addresses of each are asked about agents that are not ours.
    #[serde(default)]
    pub(crate) peers: Vec<Spanned<String>>,
    /// What their `[[gate.client]]` for us has as its `token`.
    pub(crate) peer_token: Option<SecretSource>,
    /// Certificates that peers are trusted by, in PEM; those of the system without it.
    pub(crate) peer_ca: Option<PathBuf>,
    /// How long all peers together are waited for, in milliseconds.
    #[serde(default = "forward_timeout_ms")]
    forward_timeout_ms: u64,
}

/// TLS towards whoever asks.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ServerTls {
    /// Certificate with its chain, in PEM.
    pub(crate) cert: PathBuf,
    /// Its private key, in PEM.
    pub(crate) key: PathBuf,
    /// Certificates that clients' own are trusted by, in PEM; without it they have none.
    pub(crate) client_ca: Option<PathBuf>,
}

/// Somebody who may ask: an enforcement point, a CI job, another instance.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Client {
    pub(crate) name: String,
    /// Its bearer token (RFC 6750).
    pub(crate) token: Option<SecretSource>,
    /// Or a name in its certificate: a DNS name, URI or mail address of `subjectAltName` (RFC 5280, 4.2.1.6).
    pub(crate) certificate: Option<String>,
    /// Ids of the agents that it may ask about; `*` stands for anything.
    pub(crate) agents: Vec<Glob>,
    /// How many requests it may send in a second.
    #[serde(default = "requests_per_second")]
    pub(crate) requests_per_second: NonZeroU32,
}

/// What is denied, for want of knowledge, where an agent's behaviour is not available.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Unavailable {
    /// Changes in production and in places that the estate does not name, and what needs an approval.
    #[default]
    ProductionWritesClosed,
    /// Everything.
    Closed,
    /// Nothing: guardrails alone decide.
    Open,
}

fn listen() -> Spanned<SocketAddr> {
    Spanned::new(0..0, SocketAddr::from(([127, 0, 0, 1], 9465)))
}

fn forward_timeout_ms() -> u64 {
    200
}

fn requests_per_second() -> NonZeroU32 {
    NonZeroU32::MIN.saturating_add(999)
}

impl Gate {
    pub(crate) fn forward_timeout(&self) -> Duration {
        Duration::from_millis(self.forward_timeout_ms)
    }

    /// The identifier of this decision point, without a slash at its end.
    pub(crate) fn identifier(&self) -> String {
        let own = || format!("{}://{}", if self.tls.is_some() { "https" } else { "http" }, self.listen.get_ref());
        let url = self.url.as_ref().map_or_else(own, |url| url.get_ref().clone());
        url.trim_end_matches('/').to_owned()
    }

    /// All secrets that it names.
    pub(crate) fn secrets(&mut self) -> impl Iterator<Item = &mut SecretSource> {
        let tokens = self.clients.iter_mut().filter_map(|client| client.get_mut().token.as_mut());
        tokens.chain(&mut self.peer_token)
    }

    /// Makes paths relative to the configuration's own.
    pub(crate) fn locate(&mut self, base: &Path) {
        let tls =
            self.tls.iter_mut().flat_map(|tls| [&mut tls.cert, &mut tls.key].into_iter().chain(&mut tls.client_ca));
        for path in tls.chain(&mut self.peer_ca) {
            *path = base.join(&*path);
        }
    }

    /// What cannot be, or does not go together, each with the byte of the configuration where it begins.
    pub(crate) fn faults(&self) -> Vec<(usize, String)> {
        let mut faults = Vec::new();
        let listen = self.listen.get_ref();
        if !listen.ip().is_loopback() && self.tls.is_none() {
            let message =
                format!("`{listen}` is no loopback address: set `gate.tls`, tokens are not for everybody to read");
            faults.push((self.listen.span().start, message));
        }
        if self.clients.is_empty() {
            let message = "nobody may ask the gate: add a `[[gate.client]]`".to_owned();
            faults.push((self.listen.span().start, message));
        }
        for (index, client) in self.clients.iter().enumerate() {
            let of_client = self.faults_of(index, client.get_ref()).into_iter();
            faults.extend(of_client.map(|fault| (client.span().start, fault)));
        }
        for url in self.url.iter().chain(&self.peers) {
            let fault = base_url(url.get_ref()).err();
            faults.extend(fault.map(|fault| (url.span().start, fault)));
        }
        if let (Some(peer), None) = (self.peers.first(), &self.peer_token) {
            faults.push((peer.span().start, "peers let nobody in unknown: set `gate.peer_token`".to_owned()));
        }
        faults
    }

    fn faults_of(&self, index: usize, client: &Client) -> Vec<String> {
        let Client { name, token, certificate, .. } = client;
        let mut faults = Vec::new();
        if token.is_some() == certificate.is_some() {
            faults.push(format!("client `{name}` needs either a `token` or a `certificate`"));
        }
        if certificate.is_some() && self.tls.as_ref().is_none_or(|tls| tls.client_ca.is_none()) {
            faults
                .push(format!("client `{name}` has a `certificate`: set `gate.tls.client_ca`, which it is trusted by"));
        }
        if self.clients.iter().take(index).any(|other| other.get_ref().name == *name) {
            faults.push(format!("client `{name}` is there twice"));
        }
        faults
    }
}

/// The base URL of a decision point: `https`, or `http` on this machine, and no query or fragment (AuthZEN 1.0, 9.1.1).
///
/// # Errors
///
/// What is wrong with it.
pub(crate) fn base_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("`{text}` is no URL: {error}"))?;
    let is_local = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    if url.scheme() != "https" && !(url.scheme() == "http" && is_local) {
        return Err(format!("`{text}` is not `https://…`: only on this machine itself is `http://…` enough"));
    }
    if url.query().is_some() || url.fragment().is_some() || !url.username().is_empty() || url.password().is_some() {
        return Err(format!("`{text}` has more than a scheme, a host, a port and a path"));
    }
    Ok(url)
}
