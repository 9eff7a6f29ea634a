//! The event: a request that already happened.
//!
//! Its shape is Cedar's own (principal, action, resource, context) plus when it happened and how it ended. Policy says
//! what should be, the outcome says what was.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Milliseconds since 1970-01-01T00:00:00Z. All time in the core comes from events.
pub type Millis = i64;

/// One request that already happened, from an agent's own trace or from a cloud's audit log.
///
/// A decoder fills what the bytes say; resolution against the rulebook fills `agent`, `place`, `verb` and the
/// classification of the resource.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Event {
    /// Identity: source, account and the source's own key. Two deliveries of one event share it.
    pub id: String,
    /// Digest of the bytes this event was decoded from (of CloudTrail's id and a checksum of them). A repeat has the same id
    /// *and* content.
    pub digest: Digest,
    /// Which stream told us.
    pub source: Source,
    /// When it happened, by the source's clock.
    pub at: Millis,
    /// Whose baseline this event belongs to.
    pub agent: AgentRef,
    /// The identity that acted, as the source knows it.
    pub principal: Principal,
    /// The tool an agent called; empty for audit events.
    pub tool: String,
    /// The native operation, `service:Operation` for AWS; for an agent action the operation that the tool performs, or
    /// the tool's own name.
    pub action: String,
    /// What kind of request it was.
    pub verb: Verb,
    /// What it was aimed at.
    pub resource: Resource,
    /// Whether the cloud calls it an event of the data plane (an object read, a function called), of which it keeps a log
    /// only where it is told to.
    #[serde(skip_serializing_if = "is_false")]
    pub data_event: bool,
    /// Where it happened.
    pub place: Place,
    /// The environment that the agent said it was working in; the estate's word counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claimed_environment: Option<String>,
    /// The session and playbook run that the agent said it was in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<Run>,
    /// The arguments of the call.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub arguments: Vec<Argument>,
    /// The agent's stated reasoning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<Reasoning>,
    /// Reference of the approval that the agent invoked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approval: Option<String>,
    /// Where the state before the change is kept, by the agent's own word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pre_state: Option<String>,
    /// What is known about the credential used.
    pub credential: Credential,
    /// Where the request came from.
    pub origin: Origin,
    /// Distributed-trace ids, to join what an agent says with what the cloud saw.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace: Option<Trace>,
    /// How it ended.
    pub outcome: Outcome,
    /// The statement itself, signatures and all, where this is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub statement: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_false(is: &bool) -> bool {
    !*is
}

/// How redaction begins what it puts in a secret's place; it ends with a bracket.
pub(crate) const REDACTED: &str = "[redacted:";

/// The first 16 bytes of a SHA-256, in hex where it is written; empty where nothing is known of the bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Cow<str>", into = "String")]
pub struct Digest(pub u128);

impl Digest {
    /// The digest of some bytes.
    pub fn of(bytes: &[u8]) -> Self {
        let digest = Sha256::digest(bytes);
        Self(digest.first_chunk::<16>().map_or(0, |first| u128::from_be_bytes(*first)))
    }

    /// Whether nothing is known of the bytes.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl TryFrom<Cow<'_, str>> for Digest {
    type Error = String;

    fn try_from(text: Cow<'_, str>) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let parsed = Some(&text).filter(|text| text.len() == 32).and_then(|text| u128::from_str_radix(text, 16).ok());
        parsed.map(Self).ok_or_else(|| format!("`{text}` is not a digest of 32 hexadecimal digits"))
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        if digest.is_empty() { Self::new() } else { format!("{:032x}", digest.0) }
    }
}

/// The stream an event came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// An agent's own word about what it did (`tautline.agent.action.v1`).
    #[default]
    AgentAction,
    /// AWS CloudTrail.
    Cloudtrail,
    /// Google Cloud's audit logs.
    Gcp,
    /// The audit log of a Kubernetes API server.
    Kubernetes,
    /// Azure's activity and resource logs, and the audit and sign-in logs of Entra.
    Azure,
    /// GitHub's audit log.
    Github,
    /// Any of them or another, as an OCSF event.
    Ocsf,
    /// A span of OpenTelemetry: an agent's own word again.
    Otel,
    /// A call in a log of MCP's messages, which whoever runs the agent may write.
    Mcp,
    /// A record of a framework of one's own, read by a declared mapping.
    Mapping,
    /// What an issuer states about an agent; believed by its signature only.
    Statement,
}

impl Source {
    /// Every source.
    pub const ALL: [Source; 11] = [
        Source::AgentAction,
        Source::Cloudtrail,
        Source::Gcp,
        Source::Kubernetes,
        Source::Azure,
        Source::Github,
        Source::Ocsf,
        Source::Otel,
        Source::Mcp,
        Source::Mapping,
        Source::Statement,
    ];

    /// The name used in policies, metrics and alerts.
    pub fn name(self) -> &'static str {
        match self {
            Source::AgentAction => "agent-action",
            Source::Cloudtrail => "cloudtrail",
            Source::Gcp => "gcp",
            Source::Kubernetes => "kubernetes",
            Source::Azure => "azure",
            Source::Github => "github",
            Source::Ocsf => "ocsf",
            Source::Otel => "otel",
            Source::Mcp => "mcp",
            Source::Mapping => "mapping",
            Source::Statement => "statement",
        }
    }

    /// Whether the cloud wrote this record, so that the agent could not have made it up.
    pub fn is_audit(self) -> bool {
        !matches!(self, Source::AgentAction | Source::Otel | Source::Mcp | Source::Mapping | Source::Statement)
    }
}

/// Whose event it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind", content = "id")]
pub enum AgentRef {
    /// A registered agent, or the fleet that a short-lived one belongs to, by its id in the registry.
    Registered(String),
    /// A principal that no registry entry names, kept apart and never given a baseline.
    Unregistered(String),
    /// Not yet resolved.
    #[default]
    Unknown,
}

impl AgentRef {
    /// The key of the event's record in the log: one agent, one partition.
    pub fn key(&self) -> String {
        match self {
            AgentRef::Registered(id) => id.clone(),
            AgentRef::Unregistered(principal) => format!("unregistered/{principal}"),
            AgentRef::Unknown => "unknown".to_owned(),
        }
    }

    /// The registry id, when there is one.
    pub fn registered(&self) -> Option<&str> {
        match self {
            AgentRef::Registered(id) => Some(id),
            _ => None,
        }
    }
}

/// The identity that acted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Principal {
    /// Stable identity: for an assumed role the role (the session issuer), never the session.
    pub id: String,
    /// The session's name, where the source has one.
    pub session: String,
    /// The id by which an agent introduced itself; a claim.
    pub claimed_agent: String,
    /// On whose behalf, outermost first (human, then agents between).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub on_behalf_of: Vec<String>,
}

/// What kind of request it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    /// Looks, changes nothing.
    Read,
    /// Changes a resource. Also what an unclassified request is taken for.
    #[default]
    Write,
    /// Suggests a change that somebody else makes (pull request, ticket).
    Propose,
    /// Runs code or commands, or opens a session, on something.
    Execute,
    /// Changes who may do what.
    PermissionChange,
}

impl Verb {
    /// The name used in policies and alerts.
    pub fn name(self) -> &'static str {
        match self {
            Verb::Read => "read",
            Verb::Write => "write",
            Verb::Propose => "propose",
            Verb::Execute => "execute",
            Verb::PermissionChange => "permission_change",
        }
    }

    /// Whether the request changes something by itself (a proposal does not).
    pub fn changes(self) -> bool {
        matches!(self, Verb::Write | Verb::Execute | Verb::PermissionChange)
    }
}

/// What a request was aimed at.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resource {
    /// Its type in the cloud's own terms, e.g. `AWS::S3::Bucket`.
    pub kind: String,
    /// Its native id (ARN, URL, name); empty if the source names none.
    pub id: String,
    /// What kind of asset it is to an attacker (`identity`, `network`, `audit-trail` …), from the vocabulary.
    pub asset: String,
    /// What kind of data a read would give (`secrets`, `logs` …), from the vocabulary.
    pub data: String,
    /// Whether the request opens the resource to the public or to another organisation.
    pub exposes: bool,
}

/// Where a request happened: what the source says, and what the estate makes of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Place {
    /// Cloud account, project or subscription.
    pub account: String,
    /// Region.
    pub region: String,
    /// Cluster.
    pub cluster: String,
    /// Namespace.
    pub namespace: String,
    /// Environment by the estate; `production` where the estate does not know the place.
    pub environment: String,
    /// Tier by the estate.
    pub tier: String,
    /// Whether the agent named another account than the resource's own name does.
    pub disputed: bool,
    /// Whether the estate names this place at all.
    pub mapped: bool,
    /// Whether the estate calls the resource a crown jewel.
    pub crown_jewel: bool,
    /// The team that owns the place.
    pub team: String,
}

/// The session and playbook run an agent said it was in.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Run {
    /// Session id.
    pub session: String,
    /// Playbook id; empty outside a playbook.
    pub playbook: String,
    /// Id of this run of the playbook.
    pub id: String,
}

/// One argument of a call.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Argument {
    /// Its name.
    pub name: String,
    /// Its value: text as it is, anything else as JSON.
    pub value: String,
    /// Where the value came from, when the framework can say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<ArgumentOrigin>,
}

/// Where an argument's value came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ArgumentOrigin {
    /// The user's own request.
    UserRequest,
    /// The output of a tool: data, and possibly an attacker's.
    ToolOutput,
    /// Neither: the model came up with it.
    Neither,
}

/// The reasoning behind an action.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reasoning {
    /// The text, when it was sent along.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub text: String,
    /// Where it is kept.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reference: String,
    /// `sha256:` digest of the text.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub digest: String,
    /// What the agent said that digest was, where it is not so.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub claimed_digest: String,
}

/// What is known about the credential used.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Credential {
    /// The credential's own id (access key id, token id); never the secret.
    pub id: String,
    /// What it is.
    pub kind: CredentialKind,
    /// When it was issued.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issued_at: Option<Millis>,
    /// Whether multi-factor authentication stood behind it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mfa: Option<bool>,
    /// Whether its platform vouched for who used it (a web identity, an instance's or a pod's own), rather than a key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload_identity: Option<bool>,
    /// Whether a certificate of the caller's own stood behind it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mutual_tls: Option<bool>,
    /// Whether this is only what the agent says about itself.
    pub claimed: bool,
}

/// The kind of a credential.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CredentialKind {
    /// Not known.
    #[default]
    Unknown,
    /// Issued for a while (session token, workload identity).
    ShortLived,
    /// A key without an end.
    LongLived,
    /// The cloud's own service acting.
    Service,
}

/// Where a request came from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Origin {
    /// Network address, or the cloud service that called on the principal's behalf.
    pub address: String,
    /// User agent.
    pub user_agent: String,
    /// How the cloud itself says that an agent was at work (`agenticAppInstance` of Entra); empty where it does not say.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub channel: String,
}

/// Distributed-trace ids.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Trace {
    /// Trace id, hex.
    pub trace_id: String,
    /// Span id, hex.
    pub span_id: String,
    /// The cloud's own request id, when the tool returned it.
    pub request_id: String,
}

/// How a request ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind", content = "reason")]
pub enum Outcome {
    /// The source does not say.
    #[default]
    Unknown,
    /// It was done.
    Success,
    /// It was refused for lack of permission.
    Denied(String),
    /// It failed for another reason.
    Failed(String),
}

impl Outcome {
    /// The name used in policies, metrics and alerts.
    pub fn name(&self) -> &'static str {
        match self {
            Outcome::Unknown => "unknown",
            Outcome::Success => "success",
            Outcome::Denied(_) => "denied",
            Outcome::Failed(_) => "failed",
        }
    }
}

/// Most arguments that an alert names.
const SHOWN_ARGUMENTS: usize = 32;
/// Most characters of an argument's name in an alert.
const SHOWN_NAME: usize = 64;

impl Event {
    /// The run of the event, else its session; for the audit log, which knows no runs, the principal's session.
    pub(crate) fn run_or_session(&self) -> &str {
        let own = self.run.as_ref().map(|run| if run.id.is_empty() { run.session.as_str() } else { run.id.as_str() });
        own.filter(|run| !run.is_empty()).unwrap_or(&self.principal.session)
    }

    /// The registered agent that used a credential of which the id is known; a statement is nobody's use.
    pub fn credential_user(&self) -> Option<&str> {
        let is_use = !self.credential.id.is_empty() && self.source != Source::Statement;
        self.agent.registered().filter(|_| is_use)
    }

    /// The event without what must not leave memory: the values of its arguments, the text of its reasoning, and what an
    /// agent says about its outcome. Also small enough for a record of its own, whatever an agent calls its arguments.
    pub fn without_contents(&self) -> Self {
        let arguments = self.arguments.iter().take(SHOWN_ARGUMENTS).map(|argument| Argument {
            name: argument.name.chars().take(SHOWN_NAME).collect(),
            value: String::new(),
            origin: argument.origin,
        });
        let reasoning = self.reasoning.as_ref().map(|r| Reasoning { text: String::new(), ..r.clone() });
        let outcome = match &self.outcome {
            Outcome::Denied(_) if !self.source.is_audit() => Outcome::Denied(String::new()),
            Outcome::Failed(_) if !self.source.is_audit() => Outcome::Failed(String::new()),
            known => known.clone(),
        };
        Self { arguments: arguments.collect(), reasoning, outcome, statement: None, ..self.clone() }
    }
}
