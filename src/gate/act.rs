//! What is asked, as the event that it would be: the agent's own word about the act, read by the decoder that reads it
//! when the act is done. So a question is judged as the deed will be.

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tautline_detectors::event::{Event, Millis};
use tautline_detectors::rulebook::Rulebook;
use tautline_ingest::agent_action::TYPE;
use tautline_ingest::cloudtrail::assumed_role;
use tautline_ingest::redact::Redactor;
use tautline_ingest::{Format, Reader};

use super::authzen::{Fault, Request, member};

/// The `type` of subjects that are named by their id in the registry. All others are identities.
const AGENT: &str = "agent";

/// Members of the context that an agent's own word has under the same names (`schemas/README.md`).
const OF_CONTEXT: [&str; 5] = ["approval", "credential", "origin", "pre_state", "trace"];

/// Properties of the resource that are members of it there.
const OF_RESOURCE: [&str; 5] = ["account", "cluster", "environment", "namespace", "region"];

/// Whom a request is about: an agent by its id, as the registry or the asker has it, and the identity that it acts under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Subject {
    pub(crate) agent: String,
    identity: Option<String>,
}

impl Subject {
    /// The agent of a request; `None` where the subject is an identity that no agent of the registry has.
    pub(crate) fn of(request: &Request, book: &Rulebook) -> Option<Self> {
        let subject = &request.subject;
        if subject.r#type == AGENT {
            let identity = member(subject.properties.as_ref(), "identity").and_then(Value::as_str);
            return Some(Self { agent: subject.id.clone(), identity: identity.map(str::to_owned) });
        }
        // A session of a role is named by the role, in the registry and in what is logged.
        let role = assumed_role(&subject.id).map(|assumed| assumed.role());
        let agent = book.registry.by_identity(role.as_ref().unwrap_or(&subject.id))?;
        Some(Self { agent: agent.id.clone(), identity: Some(subject.id.clone()) })
    }
}

/// When an act is to happen: as the request says, else now.
pub(crate) fn time(request: &Request, now: Timestamp) -> Result<Timestamp, Fault> {
    let Some(time) = request.context("time") else { return Ok(now) };
    let parsed = time.as_str().and_then(|time| time.parse().ok());
    parsed.ok_or_else(|| Fault::bad(format!("`context.time`: `{time}` is no RFC 3339 time")))
}

/// The event that an act would be, resolved and redacted.
pub(crate) fn event(
    request: &Request,
    subject: &Subject,
    (id, at): (&str, Timestamp),
    redactor: &mut Redactor,
    book: &Rulebook,
) -> Result<Event, Fault> {
    let action = json!({
        "specversion": "1.0", "type": TYPE, "source": "authzen", "id": id, "time": at.to_string(),
        "data": data(request, subject)?,
    });
    // What may be is asked about any time: it is received when it happens.
    let received: Millis = at.as_millisecond();
    let mut read = redactor.read(action.to_string().as_bytes(), &Reader::Format(Format::AgentAction), received, book);
    match read.pop() {
        Some(Ok(event)) => Ok(event),
        Some(Err(rejection)) => Err(Fault::bad(format!("no action of an agent: {rejection}"))),
        None => Err(Fault::bad("no action of an agent")),
    }
}

/// `data` of the agent's word.
fn data(request: &Request, subject: &Subject) -> Result<Map<String, Value>, Fault> {
    let action = request.action.properties.as_ref();
    let mut data = Map::new();
    let mut put = |name: &str, value: Option<Value>| drop(value.map(|value| data.insert(name.to_owned(), value)));
    put("agent", Some(agent(request, subject)));
    let name = &request.action.name;
    let tool = request.context("tool").cloned();
    // A name in a cloud's own words is an operation, whatever tool it is done with; any other is the tool's.
    put("operation", (tool.is_some() || name.contains(':')).then(|| name.as_str().into()));
    put("tool", Some(tool.unwrap_or_else(|| name.as_str().into())));
    put("verb", member(action, "verb").cloned());
    put("arguments", arguments(action)?);
    put("resource", Some(json!({ "type": request.resource.r#type, "id": request.resource.id })));
    for name in OF_RESOURCE {
        put(name, member(request.resource.properties.as_ref(), name).cloned());
    }
    for name in OF_CONTEXT {
        put(name, request.context(name).cloned());
    }
    put("reasoning", reasoning(request));
    let run = |name: &str| request.context("run").and_then(|run| run.get(name)).cloned();
    put("session", request.context("session").cloned().or_else(|| run("session")));
    put("playbook", run("playbook").map(|playbook| compact([("id", Some(playbook)), ("run", run("id"))])));
    Ok(data)
}

fn agent(request: &Request, subject: &Subject) -> Value {
    let on_behalf_of = member(request.subject.properties.as_ref(), "on_behalf_of").cloned();
    let identity = subject.identity.clone().map(Value::from);
    compact([("id", Some(subject.agent.clone().into())), ("identity", identity), ("on_behalf_of", on_behalf_of)])
}

/// The parameters, each with the origin of its value where that is known.
fn arguments(action: Option<&Map<String, Value>>) -> Result<Option<Value>, Fault> {
    let Some(parameters) = member(action, "parameters") else { return Ok(None) };
    let parameters = parameters.as_object().ok_or_else(|| Fault::bad("`action.properties.parameters` is no object"))?;
    let origins = member(action, "origins");
    let argument = |(name, value): (&String, &Value)| {
        let origin = origins.and_then(|origins| origins.get(name)).cloned();
        (name.clone(), compact([("value", Some(value.clone())), ("origin", origin)]))
    };
    Ok(Some(parameters.iter().map(argument).collect()))
}

/// The reasoning: its text, or an object as an agent's own word has it.
fn reasoning(request: &Request) -> Option<Value> {
    let digest = request.context("reasoning_digest").cloned();
    match request.context("reasoning") {
        Some(Value::String(text)) => Some(compact([("text", Some(text.clone().into())), ("digest", digest)])),
        None => digest.map(|digest| json!({ "digest": digest })),
        Some(other) => Some(other.clone()),
    }
}

/// An object of the members that there are.
fn compact<const N: usize>(members: [(&str, Option<Value>); N]) -> Value {
    members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}
