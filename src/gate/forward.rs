//! Other instances: where an agent's behaviour is not known here, they are asked, all at once.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use hyper::header::{AUTHORIZATION, HOST, HeaderValue};
use serde_json::Value;
use tokio::net::lookup_host;
use tokio::task::JoinSet;
use tokio::time::Instant;
use url::Url;

use super::client::{EVALUATION, Http, bearer, pool, post};
use super::config::{Gate, base_url};
use super::server::REQUEST_ID;

/// Marks what an instance asks another: it is not asked any further.
pub(crate) const FORWARDED: &str = "tautline-forwarded";

/// The other instances.
#[derive(Debug)]
pub(crate) struct Peers {
    peers: Vec<Arc<Peer>>,
    timeout: Duration,
}

/// A name of one or several instances.
#[derive(Debug)]
struct Peer {
    base: Url,
    http: Http,
    authority: HeaderValue,
    token: HeaderValue,
}

impl Peers {
    /// Those that the configuration names.
    ///
    /// # Errors
    ///
    /// When our token for them, or the certificates that they are trusted by, cannot be read.
    pub(crate) fn open(gate: &Gate) -> Result<Self> {
        let (true, Some(token)) = (!gate.peers.is_empty(), &gate.peer_token) else {
            return Ok(Self { peers: Vec::new(), timeout: gate.forward_timeout() });
        };
        let token = bearer(token.read()?.expose())?;
        let peer = |url: &String| Peer::new(url, token.clone(), gate.peer_ca.as_deref()).map(Arc::new);
        let peers = gate.peers.iter().map(|url| peer(url.get_ref())).collect::<Result<_>>()?;
        Ok(Self { peers, timeout: gate.forward_timeout() })
    }

    /// Until when they are waited for by a request that comes now.
    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.timeout
    }

    /// The answer of the first that knows the agent's behaviour, if any does in time.
    pub(crate) async fn ask(&self, request: &Value, id: &str, deadline: Instant) -> Option<Value> {
        if self.peers.is_empty() {
            return None;
        }
        let id = HeaderValue::try_from(id).ok()?;
        let (mut asking, request) = (JoinSet::new(), Arc::new(request.clone()));
        for peer in &self.peers {
            let (peer, request, id) = (Arc::clone(peer), Arc::clone(&request), id.clone());
            asking.spawn(async move { peer.ask(&request, &id).await });
        }
        let first = async {
            while let Some(asked) = asking.join_next().await {
                if let Ok(Some(answer)) = asked {
                    return Some(answer);
                }
            }
            None
        };
        tokio::time::timeout_at(deadline, first).await.ok().flatten()
    }
}

impl Peer {
    fn new(url: &str, token: HeaderValue, ca: Option<&Path>) -> Result<Self> {
        let base = base_url(url).map_err(|error| anyhow!(error))?;
        let authority = HeaderValue::try_from(base.authority())?;
        Ok(Self { http: pool(&base, ca)?, authority, token, base })
    }

    /// Asks at all addresses that the name has; the first answer counts that rests on the agent's behaviour.
    async fn ask(self: Arc<Self>, request: &Arc<Value>, id: &HeaderValue) -> Option<Value> {
        let endpoints = self.endpoints().await.inspect_err(|error| tracing::warn!("peer `{}`: {error:#}", self.base));
        let mut asking = JoinSet::new();
        for endpoint in endpoints.unwrap_or_default() {
            let (peer, request, id) = (Arc::clone(&self), Arc::clone(request), id.clone());
            asking.spawn(async move { peer.ask_at(&endpoint, &request, id).await });
        }
        while let Some(asked) = asking.join_next().await {
            match asked {
                Ok(Ok(answer)) if knows_behaviour(&answer) => return Some(answer),
                Ok(Err(error)) => tracing::debug!("peer `{}`: {error:#}", self.base),
                _ => {}
            }
        }
        None
    }

    async fn endpoints(&self) -> Result<Vec<String>> {
        let host = self.base.host_str().context("no host")?.trim_matches(['[', ']']);
        let port = self.base.port_or_known_default().context("no port")?;
        let (scheme, path) = (self.base.scheme(), self.base.path().trim_end_matches('/'));
        let addresses = lookup_host((host, port)).await?;
        Ok(addresses.map(|address| format!("{scheme}://{address}{path}{EVALUATION}")).collect())
    }

    async fn ask_at(&self, endpoint: &str, request: &Value, id: HeaderValue) -> Result<Value> {
        let headers = [
            (AUTHORIZATION.as_str(), self.token.clone()),
            (HOST.as_str(), self.authority.clone()),
            (REQUEST_ID, id),
            (FORWARDED, HeaderValue::from_static("1")),
        ];
        post(&self.http, endpoint, headers.into_iter(), request).await
    }
}

fn knows_behaviour(answer: &Value) -> bool {
    let behaviour = answer.pointer("/context/behaviour").and_then(Value::as_str);
    matches!(behaviour, Some("available" | "learning"))
}
