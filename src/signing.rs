//! Signing statements: what `tautline sign` does where console and identity provider are down, and what `tautline check`
//! does for the statements among a control's events.
//!
//! Keys are Ed25519 (RFC 8032) as JSON Web Keys (RFC 8037).

use anyhow::{Context, Result, anyhow, bail};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use ed25519_dalek::{Signer, SigningKey};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tautline_detectors::statement::{Approval, Says, TYPE, Token};

/// A private key that signs statements.
pub(crate) struct Key {
    id: String,
    key: SigningKey,
}

#[derive(Deserialize)]
struct PrivateJwk {
    kid: String,
    crv: String,
    d: String,
}

impl Key {
    /// A key from its 32 secret bytes.
    pub(crate) fn new(id: &str, secret: [u8; 32]) -> Self {
        Self { id: id.to_owned(), key: SigningKey::from_bytes(&secret) }
    }

    /// Reads a private JSON Web Key.
    pub(crate) fn read(text: &str) -> Result<Self> {
        let jwk: PrivateJwk = serde_json::from_str(text).map_err(|error| {
            anyhow!(
                "not a private JSON Web Key with `kid`, `crv` and `d`, at line {}: make one with `tautline keygen`",
                error.line()
            )
        })?;
        if jwk.crv != "Ed25519" {
            bail!("the key's curve is `{}`, and only Ed25519 signs here", jwk.crv);
        }
        let secret = BASE64.decode(&jwk.d).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
        Ok(Self::new(&jwk.kid, secret.context("`d` is not 32 bytes in base64url")?))
    }

    /// The public key, for the issuer's key set.
    pub(crate) fn public(&self) -> Value {
        let x = BASE64.encode(self.key.verifying_key().as_bytes());
        json!({ "kty": "OKP", "crv": "Ed25519", "kid": self.id, "alg": "EdDSA", "use": "sig", "x": x })
    }

    /// The private key.
    pub(crate) fn private(&self) -> Value {
        let mut jwk = self.public();
        if let Some(members) = jwk.as_object_mut() {
            members.insert("d".to_owned(), BASE64.encode(self.key.to_bytes()).into());
        }
        jwk
    }

    fn header(&self) -> String {
        BASE64.encode(json!({ "alg": "EdDSA", "kid": self.id, "typ": TYPE }).to_string())
    }

    fn sign(&self, header: &str, payload: &str) -> String {
        BASE64.encode(self.key.sign(format!("{header}.{payload}").as_bytes()).to_bytes())
    }
}

/// Signs claims: a compact JWS for one key, the general JSON serialization for several.
///
/// Times may be RFC 3339, and an approval's digest may be left out: both are made what the claims need.
pub(crate) fn sign(claims: Value, keys: &[Key]) -> Result<String> {
    let token = signed(claims, keys)?;
    let read = Token::read(&token).map_err(|message| anyhow!("not a statement: {message}"))?;
    if let Says::Approval(approval) = &read.claims.says {
        anyhow::ensure!(approval.digest == approval.digest(), "the digest is not that of the approval: leave it out");
    }
    Ok(token)
}

fn signed(claims: Value, keys: &[Key]) -> Result<String> {
    let payload = BASE64.encode(complete(claims)?.to_string());
    Ok(match keys {
        [] => bail!("nobody signs: name a key"),
        [key] => {
            let header = key.header();
            format!("{header}.{payload}.{}", key.sign(&header, &payload))
        }
        keys => {
            let signature = |key: &Key| {
                let header = key.header();
                json!({ "signature": key.sign(&header, &payload), "protected": header })
            };
            let signatures: Vec<Value> = keys.iter().map(signature).collect();
            json!({ "payload": payload, "signatures": signatures }).to_string()
        }
    })
}

/// The claims with their times in seconds and the digest of what they approve.
fn complete(claims: Value) -> Result<Value> {
    let Value::Object(mut claims) = claims else { bail!("claims are a JSON object") };
    for name in ["iat", "exp"] {
        if let Some(Value::String(text)) = claims.get(name) {
            let time: Timestamp = text.parse().with_context(|| format!("`{name}` is no time in RFC 3339: `{text}`"))?;
            claims.insert(name.to_owned(), time.as_second().into());
        }
    }
    if let Some(Value::Object(approval)) = claims.get_mut("approval")
        && !approval.contains_key("digest")
    {
        approval.insert("digest".to_owned(), "".into());
        let read: Approval =
            serde_json::from_value(approval.clone().into()).context("`approval` lacks what it needs")?;
        approval.insert("digest".to_owned(), read.digest().into());
    }
    Ok(claims.into())
}

/// The key that stands for this one in the events of controls.
fn example(id: &str) -> Key {
    Key::new(id, Sha256::digest(format!("tautline check {id}")).into())
}

/// A key set with the keys of the examples under the same ids.
pub(crate) fn example_keys(set: &str) -> Option<String> {
    let set: Value = serde_json::from_str(set).ok()?;
    let ids = set.get("keys")?.as_array()?.iter().filter_map(|key| key.get("kid")?.as_str());
    let keys: Vec<Value> = ids.map(|id| example(id).public()).collect();
    Some(json!({ "keys": keys }).to_string())
}

/// A line of a control's events that is a statement to be signed.
#[derive(Deserialize)]
struct ToSign {
    sign: Vec<String>,
    claims: Value,
}

/// A line of a control's events: one that is `{"sign": [<key id>, …], "claims": {…}}` becomes the statement.
pub(crate) fn example_line(line: &str) -> Result<String> {
    if !line.starts_with("{\"sign\"") {
        return Ok(line.to_owned());
    }
    let ToSign { sign: ids, claims } = serde_json::from_str(line)?;
    let keys: Vec<Key> = ids.iter().map(|id| example(id)).collect();
    if keys.is_empty() { Ok(complete(claims)?.to_string()) } else { signed(claims, &keys) }
}
