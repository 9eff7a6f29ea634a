//! Who may ask about whom, and how often.

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tautline_detectors::glob::{self, Glob};

use super::config::{self, Gate};

/// Everybody who may ask.
#[derive(Debug)]
pub(crate) struct Clients(Vec<Client>);

/// Somebody who may ask.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) name: String,
    proof: Proof,
    agents: Vec<Glob>,
    limiter: DefaultDirectRateLimiter,
}

/// By what a client is known.
#[derive(Debug)]
enum Proof {
    /// SHA-256 of its token: of one length for all, so that comparing tells nothing of another's.
    Token([u8; 32]),
    /// A name in its certificate.
    Certificate(String),
}

impl Clients {
    /// Reads everybody's token.
    ///
    /// # Errors
    ///
    /// Every token that cannot be read, is too short, or is another client's as well.
    pub(crate) fn read(gate: &Gate) -> Result<Self, Vec<String>> {
        let (mut clients, mut faults): (Vec<Client>, Vec<String>) = (Vec::new(), Vec::new());
        for client in gate.clients.iter().map(|client| client.get_ref()) {
            match Client::read(client) {
                Ok(client) => match clients.iter().find(|other| other.has_token_of(&client)) {
                    Some(other) => {
                        faults.push(format!("clients `{}` and `{}` have one token", other.name, client.name))
                    }
                    None => clients.push(client),
                },
                Err(fault) => faults.push(format!("{fault:#}")),
            }
        }
        if faults.is_empty() { Ok(Self(clients)) } else { Err(faults) }
    }

    /// The client with this token, or with one of these names in its certificate. All are compared, whoever it is.
    pub(crate) fn authenticate(&self, token: Option<&str>, names: &[String]) -> Option<&Client> {
        let digest: Option<[u8; 32]> = token.map(|token| Sha256::digest(token).into());
        let mut known = None;
        for client in &self.0 {
            let is_this = match &client.proof {
                Proof::Token(own) => digest.is_some_and(|digest| bool::from(digest.ct_eq(own))),
                Proof::Certificate(name) => names.contains(name),
            };
            if is_this && known.is_none() {
                known = Some(client);
            }
        }
        known
    }
}

impl Client {
    fn read(client: &config::Client) -> anyhow::Result<Self> {
        let proof = match &client.token {
            Some(token) => Proof::Token(Sha256::digest(token.read_key()?).into()),
            None => Proof::Certificate(client.certificate.clone().unwrap_or_default()),
        };
        let quota = Quota::per_second(client.requests_per_second);
        let limiter = DefaultDirectRateLimiter::direct(quota);
        Ok(Self { name: client.name.clone(), proof, agents: client.agents.clone(), limiter })
    }

    fn has_token_of(&self, other: &Self) -> bool {
        matches!((&self.proof, &other.proof), (Proof::Token(own), Proof::Token(theirs)) if own == theirs)
    }

    /// Whether it may ask about an agent.
    pub(crate) fn may_ask_about(&self, agent: &str) -> bool {
        glob::any(&self.agents, agent)
    }

    /// Takes one request off what it may send.
    ///
    /// # Errors
    ///
    /// After how many seconds it may send the next.
    pub(crate) fn admit(&self) -> Result<(), u64> {
        self.limiter.check().map_err(|until| until.wait_time_from(DefaultClock::default().now()).as_secs() + 1)
    }
}
