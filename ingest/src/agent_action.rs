//! What an agent says it did: `tautline.agent.action.v1`, in a CloudEvents 1.0 envelope.
//!
//! The schema is `schemas/agent-action.v1.schema.json`. Members that are not in it are ignored.

use std::borrow::Cow;

use serde::Deserialize;
use sha2::{Digest, Sha256};
use tautline_detectors::event::{
    Argument, ArgumentOrigin, Credential, CredentialKind, Event, Origin, Outcome, Place, Principal, Reasoning,
    Resource, Run, Source, Trace, Verb,
};
use tautline_detectors::rulebook::hex;

use crate::aws;
use crate::cloudtrail::assumed_role;
use crate::format::{Format, Opened, Top, Wire};
use crate::json::Raw;
use crate::wire::{self, Choice, List, Members, Name, Object, Text, Time, shown, text};
use crate::{Reason, Rejection};

/// The CloudEvents `type` of the records decoded here.
pub const TYPE: &str = "tautline.agent.action.v1";

/// The most arguments that one call may have.
pub const ARGUMENTS_MAX: usize = 256;

/// The most bytes of JSON that the value of one argument may have.
pub const ARGUMENT_MAX: usize = 65_536;

/// The most bytes that the text of the reasoning may have.
pub const REASONING_MAX: usize = 65_536;

/// The most principals that a call may be made on behalf of.
pub const ON_BEHALF_OF_MAX: usize = 32;

pub(crate) const WIRE: Wire = Wire {
    format: Format::AgentAction,
    name: "agent-action",
    tells: &["specversion", "type"],
    looks: |top: &Top<'_>| top.has("specversion") && top.has("type"),
    open: |text| Ok(Opened::one(text)),
    decode,
    sole: |_| None,
};

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    specversion: Text<'a>,
    #[serde(borrow)]
    id: Name<'a>,
    #[serde(borrow)]
    source: Name<'a>,
    #[serde(borrow)]
    r#type: Text<'a>,
    time: Time,
    #[serde(borrow)]
    traceparent: Option<Text<'a>>,
    #[serde(borrow)]
    data: Object<Data<'a>>,
}

#[derive(Deserialize)]
struct Data<'a> {
    #[serde(borrow)]
    agent: Object<Agent<'a>>,
    #[serde(borrow)]
    session: Option<Text<'a>>,
    #[serde(borrow)]
    playbook: Option<Object<Playbook<'a>>>,
    #[serde(borrow)]
    tool: Name<'a>,
    #[serde(borrow)]
    operation: Option<Text<'a>>,
    verb: Option<Choice<Verb>>,
    #[serde(borrow)]
    arguments: Option<Members<'a, Object<Value<'a>>, ARGUMENTS_MAX>>,
    #[serde(borrow)]
    resource: Option<Object<Target<'a>>>,
    #[serde(borrow)]
    environment: Option<Text<'a>>,
    #[serde(borrow)]
    account: Option<Text<'a>>,
    #[serde(borrow)]
    region: Option<Text<'a>>,
    #[serde(borrow)]
    cluster: Option<Text<'a>>,
    #[serde(borrow)]
    namespace: Option<Text<'a>>,
    #[serde(borrow)]
    reasoning: Option<Object<Thought<'a>>>,
    #[serde(borrow)]
    approval: Option<Text<'a>>,
    #[serde(borrow)]
    pre_state: Option<Text<'a>>,
    #[serde(borrow)]
    credential: Option<Object<Claim<'a>>>,
    #[serde(borrow)]
    origin: Option<Object<Caller<'a>>>,
    #[serde(borrow)]
    trace: Option<Object<Ids<'a>>>,
    #[serde(borrow)]
    outcome: Option<Object<End<'a>>>,
}

#[derive(Deserialize)]
struct Agent<'a> {
    #[serde(borrow)]
    id: Name<'a>,
    #[serde(borrow)]
    identity: Option<Text<'a>>,
    #[serde(borrow)]
    on_behalf_of: Option<List<Name<'a>, ON_BEHALF_OF_MAX>>,
}

#[derive(Deserialize)]
struct Playbook<'a> {
    #[serde(borrow)]
    id: Name<'a>,
    #[serde(borrow)]
    run: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct Value<'a> {
    #[serde(borrow)]
    value: Raw<'a>,
    origin: Option<Choice<ArgumentOrigin>>,
}

#[derive(Deserialize, Default)]
struct Target<'a> {
    #[serde(borrow)]
    r#type: Option<Text<'a>>,
    #[serde(borrow)]
    id: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct Thought<'a> {
    #[serde(borrow)]
    text: Option<Text<'a, 0, REASONING_MAX>>,
    #[serde(borrow)]
    reference: Option<Text<'a>>,
    #[serde(borrow)]
    digest: Option<Text<'a>>,
}

#[derive(Deserialize, Default)]
struct Claim<'a> {
    #[serde(borrow)]
    id: Option<Text<'a>>,
    kind: Option<Choice<ClaimedKind>>,
    issued_at: Option<Time>,
    mfa: Option<bool>,
}

/// What an agent may say about its credential; that it is the cloud's own service is not for an agent to say.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum ClaimedKind {
    ShortLived,
    LongLived,
}

#[derive(Deserialize, Default)]
struct Caller<'a> {
    #[serde(borrow)]
    address: Option<Text<'a>>,
    #[serde(borrow)]
    user_agent: Option<Text<'a>>,
}

#[derive(Deserialize, Default)]
struct Ids<'a> {
    #[serde(borrow)]
    trace_id: Option<Text<'a>>,
    #[serde(borrow)]
    span_id: Option<Text<'a>>,
    #[serde(borrow)]
    request_id: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct End<'a> {
    status: Choice<Status>,
    #[serde(borrow)]
    reason: Option<Text<'a>>,
}

/// How a call ended, in the words of our schema.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Status {
    Success,
    Denied,
    Failed,
    Unknown,
}

/// Decodes one agent action; digest and plausibility of the time are the caller's.
pub(crate) fn decode(json: &str) -> Result<Event, Rejection> {
    let envelope: Envelope<'_> = match wire::object(json, "") {
        Ok(envelope) => envelope,
        // What is wrong with a record of another type is none of our business: it is another type.
        Err(rejection) => {
            return Err(Kind::of(json).and_then(Kind::unsupported).unwrap_or(rejection));
        }
    };
    let kind = Kind { specversion: Some(envelope.specversion), r#type: Some(envelope.r#type) };
    match kind.unsupported() {
        Some(rejection) => Err(rejection),
        None => event(
            format!("agent/{}/{}", envelope.source.as_str(), envelope.id.as_str()),
            envelope.time,
            envelope.traceparent.as_ref().map(Text::as_str),
            envelope.data.0,
        ),
    }
}

/// What a CloudEvents envelope says of itself.
#[derive(Deserialize)]
struct Kind<'a> {
    #[serde(borrow)]
    specversion: Option<Text<'a>>,
    #[serde(borrow)]
    r#type: Option<Text<'a>>,
}

impl<'a> Kind<'a> {
    fn of(json: &'a str) -> Option<Self> {
        wire::object(json, "").ok()
    }

    fn unsupported(self) -> Option<Rejection> {
        let differs = |name: &str, found: Option<Text<'_>>, ours: &str| {
            let found = found.filter(|found| found.as_str() != ours)?;
            let detail = format!("`{name}` is `{}`, not `{ours}`", shown(found.as_str()));
            Some(Rejection::new(Reason::Unsupported, detail))
        };
        differs("specversion", self.specversion, "1.0").or_else(|| differs("type", self.r#type, TYPE))
    }
}

fn event(id: String, time: Time, traceparent: Option<&str>, data: Data<'_>) -> Result<Event, Rejection> {
    let tool = data.tool.into_string();
    let target = data.resource.map(|Object(target)| target).unwrap_or_default();
    let origin = data.origin.map(|Object(origin)| origin).unwrap_or_default();
    let operation = data.operation.map(Text::into_string).filter(|name| !name.is_empty()).map(canonical);
    let verb = believed(data.verb.map(|Choice(verb)| verb), operation.as_deref());
    Ok(Event {
        id,
        source: Source::AgentAction,
        at: time.0,
        principal: principal(data.agent.0),
        action: operation.unwrap_or_else(|| tool.clone()),
        tool,
        verb,
        resource: Resource { kind: text(target.r#type), id: text(target.id), ..Resource::default() },
        place: Place {
            account: text(data.account),
            region: text(data.region),
            cluster: text(data.cluster),
            namespace: text(data.namespace),
            ..Place::default()
        },
        claimed_environment: given(data.environment),
        run: run(data.session, data.playbook),
        arguments: arguments(data.arguments.unwrap_or_default())?,
        reasoning: data.reasoning.and_then(|Object(thought)| reasoning(thought)),
        approval: given(data.approval),
        pre_state: given(data.pre_state),
        credential: credential(data.credential.map(|Object(claim)| claim).unwrap_or_default()),
        origin: Origin { address: text(origin.address), user_agent: text(origin.user_agent), ..Origin::default() },
        trace: trace(data.trace.map(|Object(ids)| ids).unwrap_or_default(), traceparent),
        outcome: data.outcome.map_or(Outcome::Unknown, |Object(end)| end.status.0.outcome(text(end.reason))),
        ..Event::default()
    })
}

/// An operation with its service in lower case, as the audit logs have it.
pub(crate) fn canonical(mut operation: String) -> String {
    if let Some(service) = operation.find(':').and_then(|end| operation.get_mut(..end)) {
        service.make_ascii_lowercase();
    }
    operation
}

/// The verb, as far as an agent's word goes. What an operation does is not for the agent to say: a read by one that does
/// not have the name of one that only looks is taken for a change, and so is a proposal by an AWS operation
/// (`service:Operation`). What has no verb at all is a change, unless it is an AWS operation with such a name.
pub(crate) fn believed(verb: Option<Verb>, operation: Option<&str>) -> Verb {
    let is_native = |name: &str| name.starts_with(|c: char| c.is_ascii_uppercase());
    let native = operation.filter(|operation| operation.split_once(':').is_some_and(|(_, name)| is_native(name)));
    match (verb, native) {
        (None, Some(operation)) if aws::only_reads(operation) => Verb::Read,
        (Some(Verb::Propose), Some(operation)) if !aws::only_reads(operation) => Verb::Write,
        (Some(Verb::Read), _) if !operation.is_none_or(is_named_like_a_read) => Verb::Write,
        (verb, _) => verb.unwrap_or_default(),
    }
}

/// Words that name what only looks, in the languages of clouds, clusters and tools.
const LOOKING: [&str; 26] = [
    "get", "list", "describe", "head", "batch", "lookup", "filter", "query", "scan", "read", "search", "find", "show",
    "view", "watch", "fetch", "count", "check", "validate", "select", "explain", "logs", "top", "ls", "cat", "diff",
];

/// Whether the first or the last word of an operation (behind its service) is one of [`LOOKING`].
fn is_named_like_a_read(operation: &str) -> bool {
    if aws::only_reads(operation) {
        return true;
    }
    let name = operation.rsplit_once(':').map_or(operation, |(_, name)| name);
    let mut words = name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let looks = |word: &str| LOOKING.iter().any(|known| word.eq_ignore_ascii_case(known));
    let first = words.next().unwrap_or_default();
    looks(first) || words.next_back().is_some_and(looks)
}

/// Text that says something; an empty approval is none.
fn given(field: Option<Text<'_>>) -> Option<String> {
    field.map(Text::into_string).filter(|text| !text.is_empty())
}

fn principal(agent: Agent<'_>) -> Principal {
    let identity = text(agent.identity);
    let assumed = assumed_role(&identity).map(|assumed| (assumed.role(), assumed.session.to_owned()));
    let (id, session) = assumed.unwrap_or((identity, String::new()));
    let on_behalf_of = agent.on_behalf_of.unwrap_or_default().0;
    Principal {
        id,
        session,
        claimed_agent: agent.id.into_string(),
        on_behalf_of: on_behalf_of.into_iter().map(Text::into_string).collect(),
    }
}

fn run(session: Option<Text<'_>>, playbook: Option<Object<Playbook<'_>>>) -> Option<Run> {
    let session = text(session);
    let (playbook, id) = playbook.map(|Object(book)| (book.id.into_string(), text(book.run))).unwrap_or_default();
    // A run without an id of its own is its session's.
    let id = if id.is_empty() && !playbook.is_empty() { session.clone() } else { id };
    let run = Run { session, playbook, id };
    (run != Run::default()).then_some(run)
}

fn arguments(members: Members<'_, Object<Value<'_>>, ARGUMENTS_MAX>) -> Result<Vec<Argument>, Rejection> {
    let argument = |(name, Object(value)): (Cow<'_, str>, Object<Value<'_>>)| {
        let path = || format!("data.arguments.{}.value", shown(&name));
        if value.value.get().len() > ARGUMENT_MAX {
            let detail = format!("`{}`: longer than {ARGUMENT_MAX} bytes", path());
            return Err(Rejection::new(Reason::TooLarge, detail));
        }
        let text = wire::value_text(&value.value, path)?;
        let origin = value.origin.map(|Choice(origin)| origin);
        Ok(Argument { name: name.into_owned(), value: text, origin })
    };
    members.0.into_iter().map(argument).collect()
}

/// The reasoning with the digest of its text. A claimed one that the text does not have is kept beside it, for a control to
/// judge: whoever keeps only the digest could later be shown another text. Here the text is still whole.
fn reasoning(thought: Thought<'_>) -> Option<Reasoning> {
    let (text, reference, claimed) = (text(thought.text), text(thought.reference), text(thought.digest));
    let reasoning = if text.is_empty() {
        Reasoning { reference, digest: claimed, ..Reasoning::default() }
    } else {
        let own = reasoning_of(text);
        let is_own = claimed.is_empty() || claimed.eq_ignore_ascii_case(&own.digest);
        Reasoning { reference, claimed_digest: if is_own { String::new() } else { claimed }, ..own }
    };
    (reasoning != Reasoning::default()).then_some(reasoning)
}

fn digest_of(text: &str) -> String {
    format!("sha256:{}", hex(&Sha256::digest(text)))
}

/// The reasoning that a text is.
pub(crate) fn reasoning_of(text: String) -> Reasoning {
    let digest = digest_of(&text);
    Reasoning { text, digest, ..Reasoning::default() }
}

fn credential(claim: Claim<'_>) -> Credential {
    let kind = match claim.kind {
        Some(Choice(ClaimedKind::ShortLived)) => CredentialKind::ShortLived,
        Some(Choice(ClaimedKind::LongLived)) => CredentialKind::LongLived,
        None => CredentialKind::Unknown,
    };
    let issued_at = claim.issued_at.map(|Time(at)| at);
    Credential { id: text(claim.id), kind, issued_at, mfa: claim.mfa, claimed: true, ..Credential::default() }
}

/// The ids of the trace: what the action says, else what the envelope's `traceparent` says. A `traceparent` that does
/// not parse is ignored, as its specification asks.
fn trace(ids: Ids<'_>, traceparent: Option<&str>) -> Option<Trace> {
    let (parent_trace, parent_span) = traceparent.and_then(parse_traceparent).unwrap_or_default();
    let own =
        |id: Option<Text<'_>>, parent: &str| given(id).map_or_else(|| parent.to_owned(), |id| id.to_ascii_lowercase());
    let trace = Trace {
        trace_id: own(ids.trace_id, parent_trace),
        span_id: own(ids.span_id, parent_span),
        request_id: text(ids.request_id),
    };
    (trace != Trace::default()).then_some(trace)
}

/// Trace id and parent id of a W3C `traceparent`.
pub(crate) fn parse_traceparent(traceparent: &str) -> Option<(&str, &str)> {
    let mut parts = traceparent.split('-');
    let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let hex = |part: &str, length| part.len() == length && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let valid = hex(version, 2) && hex(trace, 32) && hex(parent, 16) && hex(flags, 2);
    valid.then_some((trace, parent))
}

impl Status {
    pub(crate) fn outcome(self, reason: String) -> Outcome {
        match self {
            Status::Success => Outcome::Success,
            Status::Denied => Outcome::Denied(reason),
            Status::Failed => Outcome::Failed(reason),
            Status::Unknown => Outcome::Unknown,
        }
    }
}

#[cfg(test)]
#[path = "agent_action/tests.rs"]
mod tests;
