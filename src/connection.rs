//! How to reach the broker: TLS and SASL, as librdkafka wants to be told.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rdkafka::config::ClientConfig;
use serde::Deserialize;

use crate::secret::SecretSource;

/// TLS towards the broker, whose certificate and name are verified.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// File or directory of the certificates that are trusted; without it, those of the system.
    pub ca: Option<PathBuf>,
    /// Our own certificate, with its chain, in PEM.
    pub certificate: Option<PathBuf>,
    /// Its private key, in PEM.
    pub key: Option<PathBuf>,
    /// What the key is encrypted with.
    pub key_password: Option<SecretSource>,
}

/// How this process says who it is.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sasl {
    /// Which mechanism.
    pub mechanism: Mechanism,
    /// For PLAIN and SCRAM.
    pub username: Option<String>,
    /// For PLAIN and SCRAM.
    pub password: Option<SecretSource>,
    /// For OAUTHBEARER: where tokens are issued.
    pub token_url: Option<String>,
    /// For OAUTHBEARER: as whom to ask for them.
    pub client_id: Option<String>,
    /// For OAUTHBEARER.
    pub client_secret: Option<SecretSource>,
    /// For OAUTHBEARER: what to ask for.
    pub scope: Option<String>,
    /// For OAUTHBEARER: what the broker wants to know besides, `name=value`, separated by commas.
    pub extensions: Option<String>,
}

/// A mechanism of SASL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Mechanism {
    /// The password as it is: over TLS only.
    #[serde(rename = "PLAIN")]
    Plain,
    /// A proof of the password.
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    /// A proof of the password.
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
    /// A token of an OpenID Connect provider.
    #[serde(rename = "OAUTHBEARER")]
    OauthBearer,
}

impl Mechanism {
    fn name(self) -> &'static str {
        match self {
            Mechanism::Plain => "PLAIN",
            Mechanism::ScramSha256 => "SCRAM-SHA-256",
            Mechanism::ScramSha512 => "SCRAM-SHA-512",
            Mechanism::OauthBearer => "OAUTHBEARER",
        }
    }
}

impl Tls {
    /// What does not go together.
    pub(crate) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.certificate.is_some() != self.key.is_some() {
            faults.push("`kafka.tls`: `certificate` and `key` go together".to_owned());
        }
        if self.key_password.is_some() && self.key.is_none() {
            faults.push("`kafka.tls`: `key_password` without a `key`".to_owned());
        }
        faults
    }

    /// Makes paths relative to the configuration's own.
    pub(crate) fn locate(&mut self, base: &Path) {
        for path in [&mut self.ca, &mut self.certificate, &mut self.key].into_iter().flatten() {
            *path = base.join(&*path);
        }
    }

    fn apply(&self, config: &mut ClientConfig) -> Result<()> {
        let path = |path: &Path| path.to_str().map(str::to_owned).context("a path of `kafka.tls` is not UTF-8");
        config.set("ssl.ca.location", self.ca.as_deref().map_or_else(|| Ok("probe".to_owned()), path)?);
        for (name, file) in [("ssl.certificate.location", &self.certificate), ("ssl.key.location", &self.key)] {
            if let Some(file) = file {
                config.set(name, path(file)?);
            }
        }
        if let Some(password) = &self.key_password {
            config.set("ssl.key.password", password.read()?.expose());
        }
        Ok(())
    }
}

impl Sasl {
    /// What does not go together, or lacks.
    pub(crate) fn faults(&self) -> Vec<String> {
        let of_password = [("username", self.username.is_some()), ("password", self.password.is_some())];
        let of_token = [
            ("token_url", self.token_url.is_some()),
            ("client_id", self.client_id.is_some()),
            ("client_secret", self.client_secret.is_some()),
        ];
        let beside_token = [("scope", self.scope.is_some()), ("extensions", self.extensions.is_some())];
        let by_token = self.mechanism == Mechanism::OauthBearer;
        let (wanted, others): (&[_], Vec<_>) = if by_token {
            (&of_token, of_password.to_vec())
        } else {
            (&of_password, [&of_token[..], &beside_token].concat())
        };
        let name = self.mechanism.name();
        let lacking = wanted.iter().filter(|(_, given)| !given);
        let mut faults: Vec<String> =
            lacking.map(|(field, _)| format!("`kafka.sasl`: `{name}` needs `{field}`")).collect();
        let needless = others.iter().filter(|(_, given)| *given);
        faults.extend(needless.map(|(field, _)| format!("`kafka.sasl`: `{field}` is not for `{name}`")));
        if by_token && !cfg!(feature = "oidc") {
            faults.push(format!("`kafka.sasl`: `{name}` needs a build with `--features oidc`"));
        }
        faults
    }

    fn apply(&self, config: &mut ClientConfig) -> Result<()> {
        config.set("sasl.mechanism", self.mechanism.name());
        if self.mechanism == Mechanism::OauthBearer {
            config.set("sasl.oauthbearer.method", "oidc");
        }
        let texts = [
            ("sasl.username", &self.username),
            ("sasl.oauthbearer.token.endpoint.url", &self.token_url),
            ("sasl.oauthbearer.client.id", &self.client_id),
            ("sasl.oauthbearer.scope", &self.scope),
            ("sasl.oauthbearer.extensions", &self.extensions),
        ];
        for (name, text) in texts {
            if let Some(text) = text {
                config.set(name, text);
            }
        }
        let secrets = [("sasl.password", &self.password), ("sasl.oauthbearer.client.secret", &self.client_secret)];
        for (name, secret) in secrets {
            if let Some(secret) = secret {
                config.set(name, secret.read()?.expose());
            }
        }
        Ok(())
    }
}

/// Sets what a client needs to be let in. Secrets are read anew each time, so that a new password needs no restart.
pub(crate) fn apply(tls: Option<&Tls>, sasl: Option<&Sasl>, config: &mut ClientConfig) -> Result<()> {
    let protocol = match (tls, sasl) {
        (None, None) => return Ok(()),
        (Some(_), None) => "ssl",
        (None, Some(_)) => "sasl_plaintext",
        (Some(_), Some(_)) => "sasl_ssl",
    };
    config.set("security.protocol", protocol);
    tls.map_or(Ok(()), |tls| tls.apply(config))?;
    sasl.map_or(Ok(()), |sasl| sasl.apply(config))
}
