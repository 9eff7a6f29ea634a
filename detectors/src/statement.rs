//! What somebody says who can be believed: approvals, overrides, risk signals, acknowledgements, verdicts and quarantines,
//! signed as JWS (RFC 7515) over claims (RFC 7519).
//!
//! A statement comes as one compact JWS, or in the general JSON serialization where two sign it. Reading one believes
//! nothing: [`Issuers::verify`](crate::rulebook::Issuers::verify) does, with the keys of the rulebook in force.

use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use crate::event::Millis;
use crate::rulebook::hex;

/// The `typ` of a statement, so that no token that an issuer signed for something else passes for one (RFC 8725, 3.11).
pub const TYPE: &str = "tautline-statement+jwt";

/// The most signatures that are looked at.
const MOST_SIGNATURES: usize = 8;

/// A statement as it came, not believed.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    /// What it claims.
    pub claims: Claims,
    /// Its signatures; none where the claims came bare.
    pub signatures: Vec<Signature>,
}

/// One signature over a statement.
#[derive(Clone, Debug, PartialEq)]
pub struct Signature {
    /// What was signed: header and claims, each in base64url.
    pub signed: String,
    /// The signature, in base64url.
    pub signature: String,
    /// The header.
    pub header: Header,
}

/// The members of a JOSE header that count here.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Header {
    /// Algorithm.
    pub alg: String,
    /// Key id.
    pub kid: String,
    /// What the JWS is for: [`TYPE`].
    pub typ: String,
    /// Extensions that must be understood; there are none that are.
    pub crit: Option<Value>,
}

/// What a statement claims.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Claims {
    /// Issuer.
    pub iss: String,
    /// The statement's id at its issuer; what an agent names as its approval.
    pub jti: String,
    /// The person who decided, or the system that measured.
    pub sub: String,
    /// When it was said, in seconds since the epoch.
    pub iat: i64,
    /// Until when it holds, in seconds since the epoch.
    pub exp: i64,
    /// The agent that it is about, by its id in the registry.
    pub agent: String,
    /// What is said.
    #[serde(flatten)]
    pub says: Says,
}

impl Claims {
    /// When it was said.
    pub fn at(&self) -> Millis {
        self.iat.saturating_mul(1_000)
    }

    /// Until when it holds.
    pub fn until(&self) -> Millis {
        self.exp.saturating_mul(1_000)
    }
}

/// What is said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Says {
    /// The agent may do this.
    Approval(Approval),
    /// Something that a rule forbids is allowed for a while, in an emergency.
    Override(Override),
    /// Somebody looked at an override afterwards.
    Review(Review),
    /// Something may be wrong since a change.
    Signal(Signal),
    /// A rollback was done, or refused with a reason.
    Acknowledgement(Acknowledgement),
    /// An analyst judged a finding.
    Verdict(Verdict),
    /// The agent is to do nothing but declared reads.
    Quarantine(Confinement),
    /// The agent may go on.
    Release(Confinement),
}

impl Says {
    /// The name used in rules, alerts and claims.
    pub fn name(&self) -> &'static str {
        match self {
            Says::Approval(_) => "approval",
            Says::Override(_) => "override",
            Says::Review(_) => "review",
            Says::Signal(_) => "signal",
            Says::Acknowledgement(_) => "acknowledgement",
            Says::Verdict(_) => "verdict",
            Says::Quarantine(_) => "quarantine",
            Says::Release(_) => "release",
        }
    }
}

/// Names of all that can be said.
pub const KINDS: [&str; 8] =
    ["approval", "override", "review", "signal", "acknowledgement", "verdict", "quarantine", "release"];

/// An agent may do this.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Approval {
    /// Who asked for it: a person, or the agent.
    pub requester: String,
    /// The native operation; a bulk approval may have a `*` in it.
    pub operation: String,
    /// The resource by its native id; a bulk approval may have a `*` in it. Empty where the operation names none.
    #[serde(default)]
    pub resource: String,
    /// The parameters that were approved.
    #[serde(default)]
    pub parameters: Map<String, Value>,
    /// Digest of operation, resource and parameters, see [`Approval::digest`].
    pub digest: String,
    /// How many resources may be changed under it. More than one makes it a bulk approval, whose parameters are not held
    /// against what was executed.
    #[serde(default = "one")]
    pub count: u32,
    /// Whether those who approved were told that the change cannot be undone.
    #[serde(default)]
    pub irreversible: bool,
}

fn one() -> u32 {
    1
}

impl Approval {
    /// `sha-256:` and the hexadecimal SHA-256 of all else but the requester as canonical JSON (RFC 8785).
    pub fn digest(&self) -> String {
        let covered = serde_json::json!({
            "operation": self.operation, "resource": self.resource, "parameters": self.parameters, "count": self.count,
            "irreversible": self.irreversible,
        });
        // Writing a value of strings as JSON cannot fail.
        let canonical = serde_json_canonicalizer::to_vec(&covered).unwrap_or_default();
        format!("sha-256:{}", hex(&Sha256::digest(canonical)))
    }
}

/// Something that a rule forbids is allowed for a while, in an emergency.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Override {
    /// Why.
    pub reason: String,
    /// Controls that are silent for the agent while it holds.
    pub controls: Vec<String>,
    /// Operations that it is for; `*` stands for anything.
    pub operations: Vec<String>,
    /// Environments that it is for; `*` stands for anything.
    pub environments: Vec<String>,
}

/// Somebody looked at an override afterwards.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Review {
    /// Id of the override.
    #[serde(rename = "override")]
    pub of: String,
    /// What was found.
    pub finding: String,
}

/// Something may be wrong since a change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Signal {
    /// What is wrong, e.g. the name of the alert.
    pub name: String,
    /// The resource that it is about, by its native id; empty where it is about whatever the agent changed.
    #[serde(default)]
    pub resource: String,
}

/// A rollback was done, or refused with a reason.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Acknowledgement {
    /// Id of the rollback request.
    pub rollback: String,
    /// Whether the safe state was restored.
    pub restored: bool,
    /// What was done, or why not.
    #[serde(default)]
    pub note: String,
}

/// An analyst judged a finding.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// Id of the deviation.
    pub deviation: String,
    /// Whether the analyst agrees that it is one.
    pub confirmed: bool,
}

/// An agent is put under quarantine, or released from it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Confinement {
    /// Why.
    pub reason: String,
}

#[derive(Deserialize)]
struct General {
    payload: String,
    signatures: Vec<RawSignature>,
}

#[derive(Deserialize)]
struct RawSignature {
    protected: String,
    signature: String,
}

impl Token {
    /// Reads a statement: a compact JWS, the general JSON serialization of one, or bare claims, which nobody will believe.
    ///
    /// # Errors
    ///
    /// What is wrong with it; nothing of its contents is quoted.
    pub fn read(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if !text.starts_with('{') {
            return Self::compact(text);
        }
        if let Ok(general) = serde_json::from_str::<General>(text) {
            return Self::general(&general);
        }
        Ok(Self { claims: claims(text.as_bytes())?, signatures: Vec::new() })
    }

    fn compact(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split('.').collect();
        let [header, payload, signature] = parts.as_slice() else {
            return Err(format!("{} parts between dots, where a JWS has three", parts.len()));
        };
        let signature = Signature::read(header, payload, signature)?;
        Ok(Self { claims: claims(&decoded(payload, "claims")?)?, signatures: vec![signature] })
    }

    fn general(general: &General) -> Result<Self, String> {
        let General { payload, signatures } = general;
        if signatures.len() > MOST_SIGNATURES {
            return Err(format!("{} signatures, more than {MOST_SIGNATURES}", signatures.len()));
        }
        let read = |raw: &RawSignature| Signature::read(&raw.protected, payload, &raw.signature);
        let signatures = signatures.iter().map(read).collect::<Result<_, _>>()?;
        Ok(Self { claims: claims(&decoded(payload, "claims")?)?, signatures })
    }
}

impl Signature {
    fn read(header: &str, payload: &str, signature: &str) -> Result<Self, String> {
        let read = serde_json::from_slice(&decoded(header, "header")?);
        let header_read = read.map_err(|_| "the header of the JWS is no JSON object as RFC 7515 has it".to_owned())?;
        Ok(Self { signed: format!("{header}.{payload}"), signature: signature.to_owned(), header: header_read })
    }
}

fn decoded(part: &str, name: &str) -> Result<Vec<u8>, String> {
    BASE64_URL_SAFE_NO_PAD.decode(part).map_err(|_| format!("the {name} of the JWS are not base64url"))
}

fn claims(json: &[u8]) -> Result<Claims, String> {
    let claims: Claims = serde_json::from_slice(json).map_err(|error| {
        let place = format!("line {} column {}", error.line(), error.column());
        format!("the claims lack what a statement needs, or have another type, at {place}")
    })?;
    for (name, text) in [("iss", &claims.iss), ("jti", &claims.jti), ("sub", &claims.sub), ("agent", &claims.agent)] {
        if text.is_empty() || text.len() > 512 {
            return Err(format!("`{name}` has {} bytes, where 1 to 512 are allowed", text.len()));
        }
    }
    Ok(claims)
}

/// Why a statement is not believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Distrust {
    /// Nobody signed it.
    Unsigned,
    /// No issuer of the rulebook is called so.
    UnknownIssuer,
    /// The issuer has no key of this id, for this algorithm.
    UnknownKey,
    /// The signature is not that of the issuer's key over these claims.
    BadSignature,
    /// It is a token for something else.
    WrongType,
    /// The issuer may not say such things.
    NotEntitled,
    /// It ends before it begins, or holds for longer than its issuer may grant.
    Lifetime,
    /// The digest is not that of what it covers.
    Digest,
}

impl fmt::Display for Distrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Distrust::Unsigned => "is not signed",
            Distrust::UnknownIssuer => "comes from an issuer that is not configured",
            Distrust::UnknownKey => "is signed with a key that its issuer does not have",
            Distrust::BadSignature => "has a signature that does not fit",
            Distrust::WrongType => "is a token for something else",
            Distrust::NotEntitled => "comes from an issuer that may not say so",
            Distrust::Lifetime => "holds for longer than its issuer may grant, or for no time at all",
            Distrust::Digest => "has a digest that is not that of its contents",
        })
    }
}
