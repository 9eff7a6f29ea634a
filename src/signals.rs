//! Risk signals of Alertmanager: the alerts of its webhook, as statements that are signed with a key of our own.
//!
//! The payload is that of Alertmanager's `webhook_configs`, version 4.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use jiff::Timestamp;
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest, Sha256};
use tautline_detectors::rulebook::Rulebook;
use tautline_detectors::statement::Token;

use crate::secret::SecretSource;
use crate::signing::{self, Key};

/// The version of the payload.
const VERSION: &str = "4";

/// How long a signal holds, in seconds: it tells of the moment in which its alert began to fire.
const HOLDS: i64 = 60;

/// Who may send alerts, and how they become statements.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Alertmanager {
    /// What the sender shows as `Authorization: Bearer <token>`.
    token: SecretSource,
    /// The private JSON Web Key that signs.
    key: SecretSource,
    /// The `iss` of the issuer whose key that is.
    issuer: String,
    /// The source of statements that they are written to.
    pub(crate) topic: String,
    /// The label that names the agent.
    #[serde(default = "agent")]
    agent_label: String,
}

fn agent() -> String {
    "agent".to_owned()
}

impl Alertmanager {
    pub(crate) fn secrets(&mut self) -> [&mut SecretSource; 2] {
        [&mut self.token, &mut self.key]
    }

    /// What cannot be read.
    pub(crate) fn faults(&self) -> Vec<String> {
        let unread = [self.token.read().err(), self.signing_key().err()];
        unread.into_iter().flatten().map(|error| format!("{error:#}")).collect()
    }

    fn signing_key(&self) -> Result<Key> {
        Key::read(self.key.read()?.expose()).context("`alertmanager.key`")
    }

    /// Whether the rulebook would believe what is signed here.
    pub(crate) fn check(&self, book: &Rulebook) -> Result<()> {
        let alert = Alert { starts_at: Timestamp::UNIX_EPOCH.to_string(), ..Alert::default() };
        let token = signed(&self.issuer, &[self.signing_key()?], "agent", &alert)?;
        let read = Token::read(&token).map_err(|message| anyhow!(message))?;
        book.issuers.verify(&read).map(drop).map_err(|distrust| {
            let issuer = &self.issuer;
            anyhow!(
                "`alertmanager.issuer`: nobody would believe a signal of `{issuer}`: it {distrust}; see issuers.toml"
            )
        })
    }
}

/// What Alertmanager sends.
#[derive(Deserialize)]
struct Notification {
    version: String,
    alerts: Vec<Alert>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Alert {
    status: String,
    labels: BTreeMap<String, String>,
    starts_at: String,
    fingerprint: String,
}

/// A signal about an agent, signed.
#[derive(Debug, PartialEq)]
pub(crate) struct Signed {
    agent: String,
    statement: String,
}

/// The receiver of alerts.
pub(crate) struct Webhook {
    section: Alertmanager,
    token: [u8; 32],
    keys: [Key; 1],
    producer: FutureProducer,
}

impl Webhook {
    pub(crate) fn new(section: &Alertmanager, producer: FutureProducer) -> Result<Self> {
        let token = Sha256::digest(section.token.read()?.expose()).into();
        Ok(Self { section: section.clone(), token, keys: [section.signing_key()?], producer })
    }

    /// Whether an `Authorization` header has our token (RFC 6750). What is compared are digests: how soon they differ tells
    /// nothing of the token.
    pub(crate) fn admits(&self, authorization: Option<&str>) -> bool {
        let token = authorization.and_then(|text| text.split_once(' '));
        token.is_some_and(|(scheme, token)| {
            scheme.eq_ignore_ascii_case("bearer") && <[u8; 32]>::from(Sha256::digest(token)) == self.token
        })
    }

    /// The alerts of a notification that fire and name an agent. An alert that is told of again is the same statement, byte
    /// for byte, and is judged once.
    pub(crate) fn signals(&self, body: &[u8]) -> Result<Vec<Signed>> {
        let read: Notification = serde_json::from_slice(body).context("no notification of Alertmanager's")?;
        ensure!(read.version == VERSION, "version `{}` of the payload, where `{VERSION}` is known", read.version);
        let label = &self.section.agent_label;
        let firing = read.alerts.iter().filter(|alert| alert.status == "firing");
        firing
            .filter_map(|alert| Some((alert, alert.labels.get(label).filter(|agent| !agent.is_empty())?)))
            .map(|(alert, agent)| {
                let statement = signed(&self.section.issuer, &self.keys, agent, alert)?;
                Ok(Signed { agent: agent.clone(), statement })
            })
            .collect()
    }

    /// Writes signals to the topic of statements.
    pub(crate) async fn send(&self, signals: &[Signed]) -> Result<()> {
        for Signed { agent, statement } in signals {
            let record = FutureRecord::to(&self.section.topic).key(agent).payload(statement);
            let sent = self.producer.send(record, Duration::from_secs(5)).await;
            sent.map_err(|(error, _)| error).with_context(|| format!("cannot write to `{}`", self.section.topic))?;
        }
        Ok(())
    }
}

/// The statement that something may be wrong since an agent's change before this alert.
fn signed(issuer: &str, keys: &[Key], agent: &str, alert: &Alert) -> Result<String> {
    let starts_at = &alert.starts_at;
    let starts_at: Timestamp = starts_at.parse().with_context(|| format!("`startsAt` is no time: `{starts_at}`"))?;
    // Rounded up: what was changed within the second before the alert was changed before it.
    let at = starts_at.as_millisecond().saturating_add(999).div_euclid(1_000);
    let name = alert.labels.get("alertname").map_or("alert", String::as_str);
    let claims = json!({
        "iss": issuer, "jti": format!("alertmanager/{}/{at}", alert.fingerprint), "sub": "alertmanager", "agent": agent,
        "iat": at, "exp": at + HOLDS, "signal": { "name": name },
    });
    signing::sign(claims, keys)
}

#[cfg(test)]
mod tests;
