//! What agents and MCP servers say to each other: logs of JSON-RPC messages, of which a request for `tools/call` is an
//! event.
//!
//! JSON-RPC says neither when nor who, and there is no standard for a log of it, so a line is an envelope of ours
//! (`schemas/README.md`): `time`, `session`, `agent`, and the `message`, or a `request` with its `response`. In an array of
//! lines a response is paired with the request before it that has its session and id. A request whose response is
//! elsewhere ended nobody knows how; a response alone tells of no request, for it does not name the tool.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tautline_detectors::event::{Event, Outcome, Principal, Run, Source, Trace};

use crate::agent_action::{ON_BEHALF_OF_MAX, parse_traceparent};
use crate::audit::parsed;
use crate::format::{Format, Opened, Read, Top, Wire, wire_of};
use crate::json::Raw;
use crate::tool;
use crate::wire::{self, List, Moment, Name, Object, Text, said, text};
use crate::{Reason, Rejection, digest_of};

pub(crate) const WIRE: Wire = Wire {
    format: Format::Mcp,
    name: "mcp",
    tells: &["jsonrpc", "message", "request", "response"],
    looks,
    open: |text| Ok(Opened::Read(vec![line(text).and_then(|line| line.alone())])),
    decode: |_| Err(Rejection::new(Reason::Unsupported, "a message alone")),
    sole: |_| None,
};

fn looks(top: &Top<'_>) -> bool {
    top.has("jsonrpc") || ["message", "request", "response"].into_iter().any(|name| top.holds(name, "jsonrpc"))
}

/// The method that is a request.
const CALL: &str = "tools/call";

/// The most bytes that the arguments of a call may have.
const ARGUMENTS_MAX: usize = 1_024 * 1_024;

#[derive(Deserialize)]
struct Envelope<'a> {
    time: Option<Moment>,
    #[serde(borrow, alias = "session_id", alias = "sessionId")]
    session: Option<Name<'a>>,
    #[serde(borrow)]
    agent: Option<Name<'a>>,
    #[serde(borrow)]
    server: Option<Text<'a>>,
    #[serde(borrow)]
    on_behalf_of: Option<List<Name<'a>, ON_BEHALF_OF_MAX>>,
    #[serde(borrow)]
    message: Option<Raw<'a>>,
    #[serde(borrow)]
    request: Option<Raw<'a>>,
    #[serde(borrow)]
    response: Option<Raw<'a>>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    id: Option<Raw<'a>>,
    #[serde(borrow)]
    method: Option<Text<'a>>,
    #[serde(borrow)]
    params: Option<Raw<'a>>,
    #[serde(borrow)]
    result: Option<Raw<'a>>,
    #[serde(borrow)]
    error: Option<Object<Fault<'a>>>,
}

#[derive(Deserialize)]
struct Fault<'a> {
    #[serde(borrow)]
    code: Option<Raw<'a>>,
    #[serde(borrow)]
    message: Option<Text<'a, 0, { usize::MAX }>>,
}

#[derive(Deserialize)]
struct Call<'a> {
    #[serde(borrow)]
    name: Name<'a>,
    #[serde(borrow)]
    arguments: Option<Raw<'a>>,
    #[serde(rename = "_meta", borrow)]
    meta: Option<Object<Meta<'a>>>,
}

#[derive(Deserialize)]
struct Meta<'a> {
    #[serde(borrow)]
    traceparent: Option<Text<'a>>,
}

/// What a line holds.
struct Line {
    /// What its messages are known by: server, session and the id as it is written, for `1` is not `"1"`.
    key: String,
    digest: Sha256,
    said: Said,
}

enum Said {
    /// A request for a call; its outcome is unknown where the response is elsewhere.
    Call(Box<Event>),
    /// Another request, for which a response may come as well.
    Other(String),
    Response(Outcome),
}

/// Whether the members of an array are lines of a log of messages, as far as they are of any format.
pub(crate) fn is_log(records: &[Raw<'_>]) -> bool {
    let mut formats =
        records.iter().filter_map(|record| wire_of(record.get(), Format::Auto).ok()).map(|wire| wire.format);
    formats.next() == Some(Format::Mcp) && formats.all(|format| format == Format::Mcp)
}

/// Reads the lines of an array.
pub(crate) fn paired(lines: &[Raw<'_>]) -> Vec<Read> {
    let mut results: Vec<Read> = Vec::new();
    // For each key the call that waits for its response, with its digest so far; none where it was another request.
    let mut open: HashMap<String, Option<(usize, Sha256)>> = HashMap::new();
    for raw in lines {
        let line = match line(raw.get()) {
            Ok(line) => line,
            Err(rejection) => {
                results.push(Err(rejection));
                continue;
            }
        };
        match &line.said {
            Said::Call(event) if event.outcome == Outcome::Unknown => {
                open.insert(line.key.clone(), Some((results.len(), line.digest.clone())));
            }
            Said::Other(_) => drop(open.insert(line.key.clone(), None)),
            Said::Call(_) => {}
            Said::Response(outcome) => {
                if let Some(Some((call, digest))) = open.remove(&line.key)
                    && let Some(Ok((event, known))) = results.get_mut(call)
                {
                    event.outcome = outcome.clone();
                    *known = digest_of(digest.chain_update(raw.get()));
                    results.push(Err(Rejection::not_a_request(format!("the response to member {call}"))));
                    continue;
                }
            }
        }
        results.push(line.alone());
    }
    results
}

impl Line {
    fn alone(self) -> Read {
        match self.said {
            Said::Call(event) => Ok((*event, digest_of(self.digest))),
            Said::Other(method) => {
                Err(Rejection::not_a_request(format!("a message with method `{}`", wire::shown(&method))))
            }
            Said::Response(_) => Err(Rejection::not_a_request("a response without its request, which names the tool")),
        }
    }
}

fn line(json: &str) -> Result<Line, Rejection> {
    let envelope: Envelope<'_> = wire::object(json, "")?;
    let [message, request, response] = [&envelope.message, &envelope.request, &envelope.response]
        .map(|raw| raw.as_ref().filter(|raw| raw.get() != "null"));
    let (first, path) = match (message, request, response) {
        (Some(message), None, None) => (message.get(), "message"),
        (None, Some(request), _) => (request.get(), "request"),
        (None, None, Some(response)) => (response.get(), "response"),
        // The members of the envelope stand beside those of the message.
        (None, None, None) => (json, ""),
        (Some(_), ..) => {
            let detail = "`message` is there with a `request` or a `response`";
            return Err(Rejection::new(Reason::InvalidValue, detail));
        }
    };
    let first: Message<'_> = wire::object(first, path)?;
    let key = key(&envelope, first.id.as_ref());
    let said = match first.method.as_ref().map(Text::as_str) {
        None => Said::Response(outcome(&first, path)?),
        Some(CALL) => Said::Call(Box::new(call(&envelope, &key, &first, response)?)),
        Some(method) => Said::Other(method.to_owned()),
    };
    Ok(Line { key, digest: Sha256::new().chain_update(json), said })
}

fn key(envelope: &Envelope<'_>, id: Option<&Raw<'_>>) -> String {
    let session = envelope.session.as_ref().map(Text::as_str).unwrap_or_default();
    format!("mcp/{}/{session}/{}", said(&envelope.server), id.map(Raw::get).unwrap_or_default())
}

fn call(
    envelope: &Envelope<'_>,
    key: &str,
    request: &Message<'_>,
    response: Option<&Raw<'_>>,
) -> Result<Event, Rejection> {
    let missing = |name: &str| Rejection::new(Reason::MissingField, format!("`{name}` is missing"));
    let Some(Moment(at)) = envelope.time else { return Err(missing("time")) };
    let session = envelope.session.as_ref().ok_or_else(|| missing("session"))?.as_str().to_owned();
    let claimed_agent = envelope.agent.as_ref().ok_or_else(|| missing("agent"))?.as_str().to_owned();
    id(request.id.as_ref())?;
    let params = request.params.as_ref().ok_or_else(|| missing("params"))?;
    let Object(call): Object<Call<'_>> = parsed(params, "params")?;
    let tool = call.name.as_str().to_owned();
    let behind = envelope.on_behalf_of.iter().flat_map(|List(principals)| principals);
    Ok(Event {
        id: key.to_owned(),
        source: Source::Mcp,
        at,
        principal: Principal {
            claimed_agent,
            on_behalf_of: behind.map(|principal| principal.as_str().to_owned()).collect(),
            ..Principal::default()
        },
        action: tool.clone(),
        verb: tool::verb(&tool),
        resource: tool::resource(said(&envelope.server), &tool),
        run: Some(Run { session, ..Run::default() }),
        arguments: tool::arguments(arguments(call.arguments.as_ref())?),
        trace: trace(&text(call.meta.and_then(|Object(meta)| meta.traceparent))),
        outcome: response.and_then(|response| answer(response, request)).unwrap_or_default(),
        tool,
        ..Event::default()
    })
}

/// The id of a request, which is a text or a number; without one it would be a notification, and nobody would call.
fn id(id: Option<&Raw<'_>>) -> Result<(), Rejection> {
    match id.map(Raw::get) {
        None | Some("null") => Err(Rejection::new(Reason::MissingField, "`id` is missing")),
        Some(id) if id.starts_with(['{', '[', 't', 'f']) => {
            Err(Rejection::new(Reason::WrongType, "`id` is neither a string nor a number"))
        }
        Some(id) if id.len() > wire::NAME_MAX => {
            Err(Rejection::new(Reason::TooLarge, format!("`id`: longer than {} bytes", wire::NAME_MAX)))
        }
        Some(_) => Ok(()),
    }
}

fn arguments(raw: Option<&Raw<'_>>) -> Result<Value, Rejection> {
    let Some(raw) = raw else { return Ok(Value::Null) };
    if raw.get().len() > ARGUMENTS_MAX {
        let detail = format!("`params.arguments`: longer than {ARGUMENTS_MAX} bytes");
        return Err(Rejection::new(Reason::TooLarge, detail));
    }
    parsed(raw, "params.arguments")
}

fn trace(traceparent: &str) -> Option<Trace> {
    let (trace_id, span_id) = parse_traceparent(traceparent)?;
    Some(Trace { trace_id: trace_id.to_owned(), span_id: span_id.to_owned(), ..Trace::default() })
}

/// How a call ended, by what was logged as its response. The server chooses that: what cannot be read, or answers something
/// else, says nothing, and must not hide the call.
fn answer(response: &Raw<'_>, request: &Message<'_>) -> Option<Outcome> {
    let response: Message<'_> = wire::object(response.get(), "response").ok()?;
    let is_its = response.id.as_ref().map(Raw::get) == request.id.as_ref().map(Raw::get);
    if is_its { outcome(&response, "response").ok() } else { None }
}

/// How a call ended, by its response. A tool that fails says so in a result; what the server refuses is an error.
fn outcome(response: &Message<'_>, path: &str) -> Result<Outcome, Rejection> {
    #[derive(Deserialize)]
    struct Ended {
        #[serde(rename = "isError")]
        is_error: Option<bool>,
    }
    if let Some(Object(fault)) = &response.error {
        let code = fault.code.as_ref().map(|code| tool::cut(code.get(), 32).to_owned()).unwrap_or_default();
        return Ok(match tool::failure(said(&fault.message)) {
            Outcome::Denied(_) => Outcome::Denied(code),
            _ => Outcome::Failed(code),
        });
    }
    let Some(result) = response.result.as_ref().filter(|result| result.get() != "null") else {
        let detail = format!("`{path}` has no method, no result and no error");
        return Err(Rejection::new(Reason::Unsupported, detail.replace("`` has", "the message has")));
    };
    let Object(ended): Object<Ended> = parsed(result, "result")?;
    Ok(if ended.is_error == Some(true) { Outcome::Failed("tool_error".to_owned()) } else { Outcome::Success })
}

#[cfg(test)]
#[path = "mcp/tests.rs"]
mod tests;
