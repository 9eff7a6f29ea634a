//! Parsing, by two libraries.
//!
//! `sonic-rs` is fast, `serde_json` says precisely what is wrong and where. What the one does not take, the other parses
//! again, so nothing is refused that `serde_json` would take. And nothing is taken that it would refuse: where `sonic-rs`
//! is laxer, it is not asked (see [`is_tame`]). The tests hold the two against each other.

use std::borrow::Cow;

use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::value::RawValue;
use sonic_rs::LazyValue;

use crate::wire::string_end;

/// How deep a text that the fast parser is given may nest; in a build without optimisation, a level is 37 KiB of stack.
const DEPTH_MAX: usize = 32;

/// Parses one JSON document.
pub(crate) fn parse<'de, T: Deserialize<'de>>(json: &'de str) -> serde_json::Result<T> {
    fast(json).map_or_else(|| serde_json::from_str(json), Ok)
}

/// The same without a reason, for whoever has another way to find it.
pub(crate) fn fast<'de, T: Deserialize<'de>>(json: &'de str) -> Option<T> {
    if is_tame(json) { sonic_rs::from_str(json).ok() } else { None }
}

/// Whether the fast parser can be trusted with this text. What it skips, it skips recursively to any depth, and without
/// a look at the digits of an escape (`"\u"` would swallow its own quote).
fn is_tame(json: &str) -> bool {
    let (mut containers, mut escapes) = (0, false);
    // So few that a byte can count what is in them: the compiler makes vectors of this.
    for chunk in json.as_bytes().chunks(128) {
        let (mut opened, mut backslashes) = (0_u8, 0_u8);
        for byte in chunk {
            opened += u8::from(byte | 0x20 == b'{');
            backslashes |= u8::from(*byte == b'\\');
        }
        containers += usize::from(opened);
        escapes |= backslashes != 0;
    }
    (containers <= DEPTH_MAX || is_shallow(json)) && (!escapes || has_whole_escapes(json))
}

/// Whether a text nests no deeper than it may. What is behind the first thing that is no JSON does not matter.
fn is_shallow(json: &str) -> bool {
    let mut depth = 0_usize;
    let mut bytes = json.bytes().enumerate();
    while let Some((_, byte)) = bytes.next() {
        match byte {
            b'"' => drop(string_end(&mut bytes)),
            b'{' | b'[' if depth == DEPTH_MAX => return false,
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    true
}

/// Whether every `\u` has its four digits. Outside of strings, where a backslash cannot be, the parser sees to it.
fn has_whole_escapes(json: &str) -> bool {
    let mut rest = json;
    while let Some((_, escape)) = rest.split_once('\\') {
        let length = match escape.as_bytes() {
            [b'u', digits @ ..] => match digits.first_chunk::<4>() {
                Some(digits) if digits.iter().all(u8::is_ascii_hexdigit) => 5,
                _ => return false,
            },
            _ => 1,
        };
        let Some(after) = escape.get(length..) else { return false };
        rest = after;
    }
    true
}

/// A value that is not looked into yet: valid JSON, without space around it.
#[derive(Debug)]
pub(crate) struct Raw<'a>(pub(crate) Cow<'a, str>);

impl Raw<'_> {
    /// The JSON.
    pub(crate) fn get(&self) -> &str {
        &self.0
    }

    /// What it says, if it is a string. An error is half of a surrogate pair.
    pub(crate) fn string(&self) -> Option<serde_json::Result<Cow<'_, str>>> {
        let inside = self.0.strip_prefix('"')?.strip_suffix('"')?;
        Some(if inside.contains('\\') { parse(&self.0).map(Cow::Owned) } else { Ok(Cow::Borrowed(inside)) })
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Raw<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        LazyValue::deserialize(EitherParser(deserializer)).map(|value| Raw(value.as_raw_cow()))
    }
}

/// A deserializer that takes its own raw value for a [`LazyValue`], where it knows none.
struct EitherParser<D>(D);

impl<'de, D: Deserializer<'de>> Deserializer<'de> for EitherParser<D> {
    type Error = D::Error;

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        self.0.deserialize_newtype_struct(name, EitherVisitor(visitor))
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        self.0.deserialize_any(visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct seq tuple
        tuple_struct map struct enum identifier ignored_any
    }
}

struct EitherVisitor<V>(V);

impl<'de, V: Visitor<'de>> Visitor<'de> for EitherVisitor<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.expecting(f)
    }

    fn visit_str<E: Error>(self, json: &str) -> Result<Self::Value, E> {
        self.0.visit_str(json)
    }

    fn visit_borrowed_str<E: Error>(self, json: &'de str) -> Result<Self::Value, E> {
        self.0.visit_borrowed_str(json)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        self.0.visit_borrowed_str(<&RawValue>::deserialize(deserializer)?.get())
    }
}

#[cfg(test)]
#[path = "json_tests.rs"]
mod tests;
