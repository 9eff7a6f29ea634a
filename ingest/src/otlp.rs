//! What an agent's framework says it did: OpenTelemetry's spans, as the Collector's Kafka exporter writes them.
//!
//! Field references: OTLP 1.x (`ExportTraceServiceRequest`, as protobuf and as JSON) and the conventions for generative AI
//! and MCP, those up to 1.36 and the later ones. A span of a tool's execution is an event; a batch mixes it with spans of
//! everything else, which tell of no request and are counted. Whatever stands in a span is the agent's own word.

use std::borrow::Cow;

use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tautline_detectors::event::{Event, Millis, Origin, Outcome, Place, Principal, Resource, Run, Source, Trace};

use crate::format::{Format, Opened, Read, Top, Wire};
use crate::tool;
use crate::wire::{NAME_MAX, shown};
use crate::{BATCH_MAX, Reason, Rejection};

mod json;
mod proto;

pub(crate) use proto::{is_proto, open as open_proto};

/// Protobuf is no text: its records take another way, see [`open_proto`].
pub(crate) const PROTO: Wire = Wire {
    format: Format::OtlpProto,
    name: "otlp_proto",
    tells: &[],
    looks: |_| false,
    open: |_| Err(Rejection::new(Reason::NotProtobuf, "this is text")),
    decode: never,
    sole: |_| None,
};

pub(crate) const JSON: Wire = Wire {
    format: Format::OtlpJson,
    name: "otlp_json",
    tells: &["resourceSpans"],
    looks: |top: &Top<'_>| top.has("resourceSpans"),
    open: |text| json::open(text).map(Opened::Read),
    decode: never,
    sole: |_| None,
};

/// A batch of spans is read where it is opened.
fn never(_: &str) -> Result<Event, Rejection> {
    Err(Rejection::new(Reason::Unsupported, "a span alone"))
}

/// The most bytes that the arguments of a call may have.
const ARGUMENTS_MAX: usize = 1_024 * 1_024;

/// How deep the value of an attribute may nest.
const DEPTH_MAX: usize = 32;

/// The number of the kind of span that a server writes.
const SERVERS: u64 = 2;

/// The number of the status of what failed.
const FAILED: u64 = 2;

const OPERATION: &str = "gen_ai.operation.name";
const METHOD: &str = "mcp.method.name";
const TOOL: &str = "gen_ai.tool.name";
const ARGUMENTS: &str = "gen_ai.tool.call.arguments";
const AGENT: [&str; 2] = ["gen_ai.agent.id", "gen_ai.agent.name"];
const SERVICE: &str = "service.name";
const SESSION: [&str; 3] = ["gen_ai.conversation.id", "mcp.session.id", "session.id"];
const USER: [&str; 2] = ["enduser.id", "user.id"];
const ERROR: &str = "error.type";
const SERVER: &str = "server.address";
const ADDRESS: &str = "client.address";
const USER_AGENT: &str = "user_agent.original";
const REQUEST: &str = "aws.request_id";
const RESOURCE: [&str; 2] = ["cloud.resource_id", "mcp.resource.uri"];
const ENVIRONMENT: [&str; 2] = ["deployment.environment.name", "deployment.environment"];
const ACCOUNT: &str = "cloud.account.id";
const REGION: &str = "cloud.region";
const CLUSTER: &str = "k8s.cluster.name";
const NAMESPACE: &str = "k8s.namespace.name";

/// The attributes that are read. Every other is skipped: prompts and answers are among them.
const READ: [&str; 26] = [
    OPERATION,
    METHOD,
    TOOL,
    ARGUMENTS,
    AGENT[0],
    AGENT[1],
    SERVICE,
    SESSION[0],
    SESSION[1],
    SESSION[2],
    USER[0],
    USER[1],
    ERROR,
    SERVER,
    ADDRESS,
    USER_AGENT,
    REQUEST,
    RESOURCE[0],
    RESOURCE[1],
    ENVIRONMENT[0],
    ENVIRONMENT[1],
    ACCOUNT,
    REGION,
    CLUSTER,
    NAMESPACE,
    "mcp.tool.name",
];

/// The attributes of a span or of a resource, as far as they are read.
#[derive(Default)]
struct Attributes(Vec<(&'static str, Value)>);

impl Attributes {
    /// The name itself, if it is one that is read.
    fn known(name: &str) -> Option<&'static str> {
        READ.into_iter().find(|known| *known == name)
    }

    /// Keeps an attribute. No name may stand there twice: two readers could take it for two things.
    fn add(&mut self, name: &'static str, value: Value) -> Result<(), Rejection> {
        if self.0.iter().any(|(known, _)| *known == name) {
            return Err(Rejection::new(Reason::InvalidValue, format!("attribute `{name}` is there twice")));
        }
        self.0.push((name, value));
        Ok(())
    }

    fn value(&self, name: &str) -> &Value {
        self.0.iter().find(|(known, _)| *known == name).map_or(&Value::Null, |(_, value)| value)
    }

    /// The text of the first of these attributes that has one.
    fn text<const N: usize>(&self, names: [&str; N]) -> Result<String, Rejection> {
        for name in names {
            let text = match self.value(name) {
                Value::Null => continue,
                Value::String(text) => text.clone(),
                value @ (Value::Bool(_) | Value::Number(_)) => value.to_string(),
                Value::Array(_) | Value::Object(_) => {
                    let detail = format!("attribute `{name}` is neither a string nor a number");
                    return Err(Rejection::new(Reason::WrongType, detail));
                }
            };
            if text.len() > NAME_MAX {
                let detail = format!("attribute `{name}`: longer than {NAME_MAX} bytes");
                return Err(Rejection::new(Reason::TooLarge, detail));
            }
            if !text.is_empty() {
                return Ok(text);
            }
        }
        Ok(String::new())
    }
}

/// A span, as far as it is read.
#[derive(Default)]
struct Span<'a> {
    trace_id: String,
    span_id: String,
    name: Cow<'a, str>,
    is_servers: bool,
    /// In nanoseconds since 1970; 0 where it is not said.
    started: u64,
    ended: u64,
    is_error: bool,
    message: Cow<'a, str>,
    attributes: Attributes,
}

/// Where a span comes from: what its resource says, and the digest of that.
struct Group {
    /// What is wrong with the resource is wrong with every span that needs it, and with no other.
    attributes: Result<Attributes, Rejection>,
    digest: [u8; 32],
}

impl Group {
    fn of<'p>(attributes: Result<Attributes, Rejection>, parts: impl Iterator<Item = &'p [u8]>) -> Self {
        let mut digest = Sha256::new();
        parts.for_each(|part| digest.update(part));
        Group { attributes, digest: digest.finalize().into() }
    }

    /// The text of the first of these attributes that has one.
    fn text<const N: usize>(&self, names: [&str; N]) -> Result<String, Rejection> {
        let attributes = self.attributes.as_ref().map_err(Clone::clone);
        attributes.and_then(|attributes| attributes.text(names)).map_err(|rejection| {
            let detail = format!("the span's resource: {}", rejection.detail);
            Rejection { detail, ..rejection }
        })
    }

    /// The same of a span, else of its resource.
    fn text_of<const N: usize>(&self, span: &Attributes, names: [&str; N]) -> Result<String, Rejection> {
        let text = span.text(names)?;
        if text.is_empty() { self.text(names) } else { Ok(text) }
    }

    /// What a span tells, with the digest of its bytes and of its resource's, because that may be what says whose it is.
    fn read(&self, span: Result<Span<'_>, Rejection>, bytes: &[u8]) -> Read {
        let event = event(&span?, self)?;
        Ok((event, crate::digest_of(Sha256::new().chain_update(self.digest).chain_update(bytes))))
    }
}

/// What was read of a batch so far.
#[derive(Default)]
struct Reads(Vec<Read>);

impl Reads {
    /// Keeps what a span tells, or why it, or what should hold spans, could not be read. One over the bound is enough to know.
    fn push(&mut self, read: Read) {
        if self.0.len() <= BATCH_MAX {
            self.0.push(read);
        }
    }

    fn all(self) -> Result<Vec<Read>, Rejection> {
        match self.0.len() {
            0 => Err(Rejection::new(Reason::Empty, "the batch has no spans")),
            1..=BATCH_MAX => Ok(self.0),
            _ => Err(Rejection::new(Reason::TooLarge, format!("more than {BATCH_MAX} spans"))),
        }
    }
}

/// One level less to go; none is left where a value nests too deep.
fn deeper(depth: usize) -> Result<usize, Rejection> {
    let detail = || format!("the value of an attribute nests deeper than {DEPTH_MAX}");
    depth.checked_sub(1).ok_or_else(|| Rejection::new(Reason::TooDeep, detail()))
}

/// Bytes, of which only the length is told. It is no text, which somebody could take for a name.
fn bytes(length: usize) -> Value {
    serde_json::json!({ "bytes": length })
}

/// The event that a span tells of.
fn event(span: &Span<'_>, group: &Group) -> Result<Event, Rejection> {
    let attributes = &span.attributes;
    let Some(tool) = tool(span)? else {
        return Err(Rejection::not_a_request("a span of no tool's execution"));
    };
    let agent = attributes.text(AGENT)?;
    if span.is_servers && agent.is_empty() {
        return Err(Rejection::not_a_request("the server's own span of a call, which does not say whose call it was"));
    }
    let session = attributes.text(SESSION)?;
    Ok(Event {
        id: format!("otel/{}/{}", id(&span.trace_id, "trace id", 32)?, id(&span.span_id, "span id", 16)?),
        source: Source::Otel,
        at: at(span)?,
        principal: principal(agent, attributes, group)?,
        action: tool.clone(),
        verb: tool::verb(&tool),
        resource: resource(attributes, &tool)?,
        place: Place {
            account: group.text_of(attributes, [ACCOUNT])?,
            region: group.text_of(attributes, [REGION])?,
            cluster: group.text_of(attributes, [CLUSTER])?,
            namespace: group.text_of(attributes, [NAMESPACE])?,
            ..Place::default()
        },
        claimed_environment: Some(group.text_of(attributes, ENVIRONMENT)?).filter(|name| !name.is_empty()),
        run: (!session.is_empty()).then(|| Run { session, ..Run::default() }),
        arguments: tool::arguments(attributes.value(ARGUMENTS).clone()),
        origin: Origin {
            address: attributes.text([ADDRESS])?,
            user_agent: attributes.text([USER_AGENT])?,
            ..Origin::default()
        },
        trace: Some(Trace {
            trace_id: span.trace_id.clone(),
            span_id: span.span_id.clone(),
            request_id: attributes.text([REQUEST])?,
        }),
        outcome: outcome(span)?,
        tool,
        ..Event::default()
    })
}

/// The tool that was executed; `None` for a span that tells of something else.
fn tool(span: &Span<'_>) -> Result<Option<String>, Rejection> {
    let attributes = &span.attributes;
    let (operation, method) = (attributes.text([OPERATION])?, attributes.text([METHOD])?);
    // Some frameworks give the span its name and leave the rest out.
    let named = span.name.strip_prefix("execute_tool ").or_else(|| span.name.strip_prefix("tools/call "));
    let executes = match (&*operation, &*method) {
        ("", "") => named.is_some(),
        (operation, method) => operation == "execute_tool" || method == "tools/call",
    };
    if !executes {
        return Ok(None);
    }
    let tool = attributes.text([TOOL, "mcp.tool.name"])?;
    let tool = if tool.is_empty() { named.unwrap_or_default().trim().to_owned() } else { tool };
    if tool.is_empty() || tool.len() > NAME_MAX {
        return Err(Rejection::new(Reason::MissingField, format!("attribute `{TOOL}` is missing")));
    }
    Ok(Some(tool))
}

/// An id of so many hexadecimal digits; one of zeros only is none.
fn id<'s>(id: &'s str, name: &str, digits: usize) -> Result<&'s str, Rejection> {
    let is_hex = id.len() == digits && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_hex && id.bytes().any(|byte| byte != b'0') {
        return Ok(id);
    }
    let detail = format!("the {name} `{}` is not {digits} hexadecimal digits, or only zeros", shown(id));
    Err(Rejection::new(Reason::InvalidValue, detail))
}

/// When the call began, which is when the cloud saw it; else when it ended.
fn at(span: &Span<'_>) -> Result<Millis, Rejection> {
    match [span.started, span.ended].into_iter().find(|time| *time != 0) {
        Some(time) => Ok(i64::try_from(time / 1_000_000).unwrap_or(i64::MAX)),
        None => Err(Rejection::new(Reason::MissingField, "`startTimeUnixNano` is missing")),
    }
}

/// The agent, as its framework names it in the span or for all of them, else the service that ran it.
fn principal(agent: String, attributes: &Attributes, group: &Group) -> Result<Principal, Rejection> {
    let claimed_agent = if agent.is_empty() { group.text([AGENT[0], AGENT[1], SERVICE])? } else { agent };
    if claimed_agent.is_empty() {
        let detail = "attributes `gen_ai.agent.id`, `gen_ai.agent.name` and the resource's `service.name` are missing";
        return Err(Rejection::new(Reason::MissingField, detail));
    }
    let user = attributes.text(USER)?;
    let on_behalf_of = if user.is_empty() { Vec::new() } else { vec![user] };
    Ok(Principal { claimed_agent, on_behalf_of, ..Principal::default() })
}

/// What the span says the call was aimed at, else the tool.
fn resource(attributes: &Attributes, tool: &str) -> Result<Resource, Rejection> {
    let id = attributes.text(RESOURCE)?;
    if id.is_empty() {
        return Ok(tool::resource(&attributes.text([SERVER])?, tool));
    }
    Ok(Resource { id, ..Resource::default() })
}

/// An instrumentation leaves the status unset where nothing went wrong.
fn outcome(span: &Span<'_>) -> Result<Outcome, Rejection> {
    let kind = span.attributes.text([ERROR])?;
    if kind.is_empty() && !span.is_error {
        return Ok(Outcome::Success);
    }
    let reason = if kind.is_empty() { tool::cut(&span.message, NAME_MAX) } else { &kind };
    Ok(tool::failure(reason))
}

#[cfg(test)]
#[path = "otlp/tests.rs"]
mod tests;
