//! Spans as protobuf: `ExportTraceServiceRequest`, which is `TracesData` on the wire.

use std::borrow::Cow;
use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::{ARGUMENTS, ARGUMENTS_MAX, Attributes, DEPTH_MAX, Group, Reads, Span};
use crate::format::Read;
use crate::protobuf::{Field, Fields};
use crate::{Reason, Rejection};

/// Whether bytes are a batch of spans, as far as the first two levels of its messages tell.
pub(crate) fn is_proto(bytes: &[u8]) -> bool {
    let is_message = |message: &[u8], known: std::ops::RangeInclusive<u64>| {
        Fields::of(message).all(|field| matches!(field, Ok((number, Field::Bytes(_))) if known.contains(&number)))
    };
    let mut groups = messages(bytes, 1);
    !bytes.is_empty()
        && is_message(bytes, 1..=1)
        && groups.all(|group| group.is_ok_and(|group| is_message(group, 1..=3)))
}

/// Reads a batch of spans. What is wrong in one group of them is wrong in no other.
pub(crate) fn open(bytes: &[u8]) -> Result<Vec<Read>, Rejection> {
    let mut reads = Reads::default();
    for message in messages(bytes, 1) {
        if let Err(rejection) = group(message?, &mut reads) {
            reads.push(Err(rejection));
        }
    }
    reads.all()
}

fn group(message: &[u8], reads: &mut Reads) -> Result<(), Rejection> {
    let group = Group::of(described(message), messages(message, 1).flatten());
    for scope in messages(message, 2) {
        messages(scope?, 2).for_each(|bytes| reads.push(bytes.and_then(|bytes| group.read(span(bytes), bytes))));
    }
    Ok(())
}

/// The messages in a field of a message.
fn messages(message: &[u8], number: u64) -> impl Iterator<Item = Result<&[u8], Rejection>> {
    Fields::of(message).filter_map(move |field| match field {
        Err(rejection) => Some(Err(rejection)),
        Ok((found, Field::Bytes(inner))) if found == number => Some(Ok(inner)),
        Ok(_) => None,
    })
}

fn described(group: &[u8]) -> Result<Attributes, Rejection> {
    let mut attributes = Attributes::default();
    for resource in messages(group, 1) {
        for attribute in messages(resource?, 1) {
            add(&mut attributes, attribute?)?;
        }
    }
    Ok(attributes)
}

fn span(bytes: &[u8]) -> Result<Span<'_>, Rejection> {
    let mut span = Span::default();
    for field in Fields::of(bytes) {
        match field? {
            (1, Field::Bytes(id)) => span.trace_id = hex(id),
            (2, Field::Bytes(id)) => span.span_id = hex(id),
            (5, Field::Bytes(name)) => span.name = Cow::Borrowed(text(name)?),
            (6, Field::Number(kind)) => span.is_servers = kind == super::SERVERS,
            (7, Field::Number(time)) => span.started = time,
            (8, Field::Number(time)) => span.ended = time,
            (9, Field::Bytes(attribute)) => add(&mut span.attributes, attribute)?,
            (15, Field::Bytes(status)) => self::status(&mut span, status)?,
            _ => {}
        }
    }
    Ok(span)
}

fn status<'a>(span: &mut Span<'a>, status: &'a [u8]) -> Result<(), Rejection> {
    for field in Fields::of(status) {
        match field? {
            (2, Field::Bytes(message)) => span.message = Cow::Borrowed(text(message)?),
            (3, Field::Number(code)) => span.is_error = code == super::FAILED,
            _ => {}
        }
    }
    Ok(())
}

/// The digits of an id; of one that is too long for any, none.
fn hex(id: &[u8]) -> String {
    let mut digits = String::new();
    for byte in id.iter().filter(|_| id.len() <= 16) {
        // Writing to a string cannot fail.
        let _ = write!(digits, "{byte:02x}");
    }
    digits
}

fn text(bytes: &[u8]) -> Result<&str, Rejection> {
    std::str::from_utf8(bytes).map_err(|_| Rejection::new(Reason::NotUtf8, "a text in the span is not UTF-8"))
}

fn add(attributes: &mut Attributes, attribute: &[u8]) -> Result<(), Rejection> {
    let (key, value) = key_value(attribute)?;
    let Some(name) = Attributes::known(key) else { return Ok(()) };
    if value.len() > ARGUMENTS_MAX {
        let detail = format!("attribute `{name}`: longer than {ARGUMENTS_MAX} bytes");
        return Err(Rejection::new(Reason::TooLarge, detail));
    }
    let depth = if name == ARGUMENTS { DEPTH_MAX } else { 1 };
    attributes.add(name, any(value, depth)?)
}

fn key_value(attribute: &[u8]) -> Result<(&str, &[u8]), Rejection> {
    let (mut key, mut value) = ("", &[][..]);
    for field in Fields::of(attribute) {
        match field? {
            (1, Field::Bytes(name)) => key = text(name)?,
            (2, Field::Bytes(any)) => value = any,
            _ => {}
        }
    }
    Ok((key, value))
}

/// A value of any type.
fn any(message: &[u8], depth: usize) -> Result<Value, Rejection> {
    let mut value = Value::Null;
    for field in Fields::of(message) {
        value = match field? {
            (1, Field::Bytes(bytes)) => text(bytes)?.into(),
            (2, Field::Number(flag)) => (flag != 0).into(),
            (3, Field::Number(number)) => number.cast_signed().into(),
            (4, Field::Number(bits)) => f64::from_bits(bits).into(),
            (5, Field::Bytes(list)) => array(list, super::deeper(depth)?)?,
            (6, Field::Bytes(list)) => object(list, super::deeper(depth)?)?,
            (7, Field::Bytes(bytes)) => super::bytes(bytes.len()),
            _ => continue,
        };
    }
    Ok(value)
}

fn array(list: &[u8], depth: usize) -> Result<Value, Rejection> {
    messages(list, 1).map(|element| any(element?, depth)).collect()
}

fn object(list: &[u8], depth: usize) -> Result<Value, Rejection> {
    let mut members = Map::new();
    for member in messages(list, 1) {
        let (key, value) = key_value(member?)?;
        members.insert(key.to_owned(), any(value, depth)?);
    }
    Ok(Value::Object(members))
}
