//! Spans as JSON: ids in hexadecimal digits, numbers of 64 bits as text or as numbers.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{ARGUMENTS, ARGUMENTS_MAX, Attributes, DEPTH_MAX, Group, Reads, Span};
use crate::audit::{ENTRIES_MAX, parsed};
use crate::format::Read;
use crate::json::Raw;
use crate::wire::{self, List, Scalar, Text, scalar, shown};
use crate::{BATCH_MAX, Reason, Rejection};

/// A list that is not looked into yet.
type Lazy<'a, const MAX: usize> = Option<List<Raw<'a>, MAX>>;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Batch<'a> {
    #[serde(borrow)]
    resource_spans: List<Raw<'a>, BATCH_MAX>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Origin<'a> {
    #[serde(borrow)]
    resource: Option<Raw<'a>>,
    #[serde(borrow)]
    scope_spans: Lazy<'a, BATCH_MAX>,
}

#[derive(Deserialize)]
struct Scope<'a> {
    #[serde(borrow)]
    spans: Lazy<'a, BATCH_MAX>,
}

#[derive(Deserialize)]
struct Described<'a> {
    #[serde(borrow)]
    attributes: Lazy<'a, ENTRIES_MAX>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record<'a> {
    #[serde(borrow)]
    trace_id: Option<Text<'a>>,
    #[serde(borrow)]
    span_id: Option<Text<'a>>,
    #[serde(borrow)]
    name: Option<Text<'a, 0, { usize::MAX }>>,
    #[serde(borrow)]
    kind: Option<Scalar<'a>>,
    #[serde(borrow)]
    start_time_unix_nano: Option<Scalar<'a>>,
    #[serde(borrow)]
    end_time_unix_nano: Option<Scalar<'a>>,
    #[serde(borrow)]
    attributes: Lazy<'a, ENTRIES_MAX>,
    #[serde(borrow)]
    status: Option<wire::Object<Status<'a>>>,
}

#[derive(Deserialize)]
struct Status<'a> {
    #[serde(borrow)]
    code: Option<Scalar<'a>>,
    #[serde(borrow)]
    message: Option<Text<'a, 0, { usize::MAX }>>,
}

#[derive(Deserialize)]
struct KeyValue<'a> {
    #[serde(borrow)]
    key: Text<'a, 0, { usize::MAX }>,
    #[serde(borrow)]
    value: Option<Raw<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Any<'a> {
    #[serde(borrow)]
    string_value: Option<Text<'a, 0, ARGUMENTS_MAX>>,
    bool_value: Option<bool>,
    #[serde(borrow)]
    int_value: Option<Scalar<'a>>,
    #[serde(borrow)]
    double_value: Option<Scalar<'a>>,
    #[serde(borrow)]
    array_value: Option<wire::Object<Values<'a>>>,
    #[serde(borrow)]
    kvlist_value: Option<wire::Object<Values<'a>>>,
    #[serde(borrow)]
    bytes_value: Option<Text<'a, 0, ARGUMENTS_MAX>>,
}

#[derive(Deserialize)]
struct Values<'a> {
    #[serde(borrow)]
    values: Lazy<'a, BATCH_MAX>,
}

/// Reads a batch of spans. What is wrong in one group of them is wrong in no other.
pub(super) fn open(text: &str) -> Result<Vec<Read>, Rejection> {
    let batch: Batch<'_> = wire::object(text, "")?;
    let mut reads = Reads::default();
    for raw in batch.resource_spans.0 {
        if let Err(rejection) = group(&raw, &mut reads) {
            reads.push(Err(rejection));
        }
    }
    reads.all()
}

fn group(raw: &Raw<'_>, reads: &mut Reads) -> Result<(), Rejection> {
    let Origin { resource, scope_spans } = wire::object(raw.get(), "resourceSpans")?;
    let resource = resource.filter(|raw| raw.get() != "null");
    let group = Group::of(described(resource.as_ref()), resource.iter().map(|raw| raw.get().as_bytes()));
    for raw in scope_spans.unwrap_or_default().0 {
        match wire::object::<Scope<'_>>(raw.get(), "scopeSpans") {
            Ok(scope) => {
                let spans = scope.spans.unwrap_or_default().0;
                spans.iter().for_each(|raw| reads.push(group.read(span(raw), raw.get().as_bytes())));
            }
            Err(rejection) => reads.push(Err(rejection)),
        }
    }
    Ok(())
}

fn described(resource: Option<&Raw<'_>>) -> Result<Attributes, Rejection> {
    let Some(raw) = resource else { return Ok(Attributes::default()) };
    let described: Described<'_> = wire::object(raw.get(), "resource")?;
    attributes(described.attributes)
}

fn span<'a>(raw: &'a Raw<'_>) -> Result<Span<'a>, Rejection> {
    let record: Record<'a> = wire::object(raw.get(), "")?;
    let status = record.status.map(|wire::Object(status)| status);
    let code = status.as_ref().and_then(|status| status.code.as_ref());
    Ok(Span {
        trace_id: wire::text(record.trace_id).to_ascii_lowercase(),
        span_id: wire::text(record.span_id).to_ascii_lowercase(),
        name: record.name.map_or(Cow::Borrowed(""), |Text(name)| name),
        is_servers: is(record.kind.as_ref(), super::SERVERS, "SPAN_KIND_SERVER"),
        started: nanos(record.start_time_unix_nano.as_ref(), "startTimeUnixNano")?,
        ended: nanos(record.end_time_unix_nano.as_ref(), "endTimeUnixNano")?,
        is_error: is(code, super::FAILED, "STATUS_CODE_ERROR"),
        message: status.and_then(|status| status.message).map_or(Cow::Borrowed(""), |Text(message)| message),
        attributes: attributes(record.attributes)?,
    })
}

/// Whether a field of an enum says this. It should be the number, and some write the name.
fn is(field: Option<&Scalar<'_>>, number: u64, name: &str) -> bool {
    field.is_some_and(|field| field.as_str() == name || field.as_str().parse() == Ok(number))
}

fn nanos(field: Option<&Scalar<'_>>, name: &str) -> Result<u64, Rejection> {
    let Some(text) = field.map(Scalar::as_str) else { return Ok(0) };
    text.parse().map_err(|_| {
        Rejection::new(Reason::InvalidValue, format!("`{name}`: `{}` is no number of nanoseconds", shown(text)))
    })
}

fn attributes(list: Lazy<'_, ENTRIES_MAX>) -> Result<Attributes, Rejection> {
    let mut attributes = Attributes::default();
    for raw in list.unwrap_or_default().0 {
        let (key, value) = key_value(&raw)?;
        if let (Some(name), Some(value)) = (Attributes::known(&key), value) {
            let depth = if name == ARGUMENTS { DEPTH_MAX } else { 1 };
            attributes.add(name, any(&value, name, depth)?)?;
        }
    }
    Ok(attributes)
}

fn key_value<'a>(raw: &'a Raw<'_>) -> Result<(Cow<'a, str>, Option<Raw<'a>>), Rejection> {
    let KeyValue { key: Text(key), value } = wire::object(raw.get(), "attributes")?;
    Ok((key, value.filter(|value| value.get() != "null")))
}

/// A value of any type.
fn any(raw: &Raw<'_>, name: &str, depth: usize) -> Result<Value, Rejection> {
    if raw.get().len() > ARGUMENTS_MAX {
        let detail = format!("attribute `{name}`: longer than {ARGUMENTS_MAX} bytes");
        return Err(Rejection::new(Reason::TooLarge, detail));
    }
    let any: Any<'_> = parsed::<wire::Object<Any<'_>>>(raw, name)?.0;
    Ok(match any {
        Any { string_value: Some(text), .. } => text.into_string().into(),
        Any { bool_value: Some(flag), .. } => flag.into(),
        Any { int_value: Some(number), .. } => integer(&number),
        Any { double_value: Some(number), .. } => double(&number),
        Any { array_value: Some(wire::Object(list)), .. } => array(list, name, super::deeper(depth)?)?,
        Any { kvlist_value: Some(wire::Object(list)), .. } => object(list, name, super::deeper(depth)?)?,
        Any { bytes_value: Some(base64), .. } => super::bytes(base64.as_str().trim_end_matches('=').len() * 3 / 4),
        _ => Value::Null,
    })
}

/// A whole number, written as text or as a number.
fn integer(number: &Scalar<'_>) -> Value {
    number.as_str().parse::<i64>().map_or_else(|_| scalar(Some(number)).into(), Value::from)
}

/// A number, or the name of one that JSON has no way to write.
fn double(number: &Scalar<'_>) -> Value {
    number.as_str().parse::<f64>().map_or_else(|_| scalar(Some(number)).into(), Value::from)
}

fn array(list: Values<'_>, name: &str, depth: usize) -> Result<Value, Rejection> {
    list.values.unwrap_or_default().0.iter().map(|element| any(element, name, depth)).collect()
}

fn object(list: Values<'_>, name: &str, depth: usize) -> Result<Value, Rejection> {
    let mut members = Map::new();
    for raw in list.values.unwrap_or_default().0 {
        let (key, value) = key_value(&raw)?;
        let value = value.map_or(Ok(Value::Null), |value| any(&value, name, depth))?;
        members.insert(key.into_owned(), value);
    }
    Ok(Value::Object(members))
}
