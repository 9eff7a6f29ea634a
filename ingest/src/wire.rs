//! Building blocks that every decoder shares: bounded text, strict objects, and errors that say what and where but
//! never quote what an agent or a caller wrote.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer, StrDeserializer};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Unexpected, Visitor};
use serde_json::error::Category;
use tautline_detectors::event::Millis;

use crate::json::{self, Raw};
use crate::{Reason, Rejection};

/// The most bytes that an id or a name may have.
pub(crate) const NAME_MAX: usize = 2_048;

/// How much of an offending input a message shows.
const SHOWN: usize = 80;

/// How deep a path goes before it is cut short; also the depth at which `serde_json` gives up.
const DEPTH: usize = 128;

/// Text of `MIN` to `MAX` bytes, borrowed from the record where it has no escapes.
#[derive(Debug)]
pub(crate) struct Text<'a, const MIN: usize = 0, const MAX: usize = NAME_MAX>(pub(crate) Cow<'a, str>);

/// An id or a name that must be there.
pub(crate) type Name<'a> = Text<'a, 1>;

impl<const MIN: usize, const MAX: usize> Text<'_, MIN, MAX> {
    pub(crate) fn into_string(self) -> String {
        self.0.into_owned()
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    fn check<E: Error>(text: &str) -> Result<(), E> {
        if text.len() > MAX {
            return Err(E::custom(format_args!("longer than {MAX} bytes")));
        }
        if text.len() < MIN {
            return Err(E::custom("empty"));
        }
        Ok(())
    }
}

impl<'de: 'a, 'a, const MIN: usize, const MAX: usize> Deserialize<'de> for Text<'a, MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor<'a, const MIN: usize, const MAX: usize>(PhantomData<&'a ()>);

        impl<'de: 'a, 'a, const MIN: usize, const MAX: usize> Visitor<'de> for TextVisitor<'a, MIN, MAX> {
            type Value = Text<'a, MIN, MAX>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
                Self::Value::check(text)?;
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                Self::Value::check(text)?;
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }

        deserializer.deserialize_str(TextVisitor(PhantomData))
    }
}

/// The text of an optional field; empty where the field is absent.
pub(crate) fn text<const MIN: usize, const MAX: usize>(field: Option<Text<'_, MIN, MAX>>) -> String {
    field.map(Text::into_string).unwrap_or_default()
}

/// The same, borrowed.
pub(crate) fn said<'t, const MIN: usize, const MAX: usize>(field: &'t Option<Text<'_, MIN, MAX>>) -> &'t str {
    field.as_ref().map(Text::as_str).unwrap_or_default()
}

/// A struct that only an object makes; derived structs would take an array as well.
#[derive(Debug)]
pub(crate) struct Object<T>(pub(crate) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }

        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

/// An array of at most `MAX` elements.
#[derive(Debug)]
pub(crate) struct List<T, const MAX: usize>(pub(crate) Vec<T>);

impl<T, const MAX: usize> Default for List<T, MAX> {
    fn default() -> Self {
        List(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for List<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ListVisitor<T, const MAX: usize>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for ListVisitor<T, MAX> {
            type Value = List<T, MAX>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut list = Vec::new();
                while let Some(element) = seq.next_element()? {
                    if list.len() == MAX {
                        return Err(A::Error::custom(format_args!("more than {MAX} elements")));
                    }
                    list.push(element);
                }
                Ok(List(list))
            }
        }

        deserializer.deserialize_seq(ListVisitor(PhantomData))
    }
}

/// A [`List`] that a lake without empty arrays may have written as an empty string.
#[derive(Debug)]
pub(crate) struct ListOrNothing<T, const MAX: usize>(pub(crate) List<T, MAX>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for ListOrNothing<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyVisitor<T, const MAX: usize>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for AnyVisitor<T, MAX> {
            type Value = ListOrNothing<T, MAX>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
                List::deserialize(SeqAccessDeserializer::new(seq)).map(ListOrNothing)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                if text.is_empty() {
                    return Ok(ListOrNothing(List::default()));
                }
                Err(E::invalid_type(Unexpected::Str(text), &self))
            }
        }

        deserializer.deserialize_any(AnyVisitor(PhantomData))
    }
}

/// The members of an object with free names, in their order: at most `MAX`, no name twice.
#[derive(Debug)]
pub(crate) struct Members<'a, T, const MAX: usize>(pub(crate) Vec<(Cow<'a, str>, T)>);

/// Up to so many names, comparing each to each is cheaper than hashing them.
const FEW: usize = 16;

impl<T, const MAX: usize> Default for Members<'_, T, MAX> {
    fn default() -> Self {
        Members(Vec::new())
    }
}

impl<'de: 'a, 'a, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for Members<'a, T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MembersVisitor<'a, T, const MAX: usize>(PhantomData<(&'a (), T)>);

        impl<'de: 'a, 'a, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for MembersVisitor<'a, T, MAX> {
            type Value = Members<'a, T, MAX>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut names = HashSet::new();
                let mut members: Vec<(Cow<'a, str>, T)> = Vec::new();
                while let Some(Text(name)) = map.next_key::<Text<'de>>()? {
                    if members.len() == MAX {
                        return Err(A::Error::custom(format_args!("more than {MAX} members")));
                    }
                    if members.len() == FEW {
                        names.extend(members.iter().map(|(known, _)| known.clone()));
                    }
                    let is_known = if members.len() < FEW {
                        members.iter().any(|(known, _)| *known == name)
                    } else {
                        !names.insert(name.clone())
                    };
                    if is_known {
                        return Err(A::Error::custom(format_args!("member `{}` twice", shown(&name))));
                    }
                    members.push((name, map.next_value()?));
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(MembersVisitor(PhantomData))
    }
}

/// One of an enum's names. A derived enum alone would take `{"name": null}` as well.
#[derive(Debug)]
pub(crate) struct Choice<T>(pub(crate) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Choice<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let choose =
            |name: &str| T::deserialize(StrDeserializer::new(name)).map(Choice).map_err(|UnknownName(message)| message);
        deserializer.deserialize_str(Parsed(choose))
    }
}

/// A visitor of a string that is parsed on the spot, so that an error has the string's own place.
struct Parsed<F>(F);

impl<T, F: FnOnce(&str) -> Result<T, String>> Visitor<'_> for Parsed<F> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.0)(text).map_err(E::custom)
    }
}

/// Why a name is not one of an enum's.
#[derive(Debug)]
pub(crate) struct UnknownName(String);

impl fmt::Display for UnknownName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UnknownName {}

impl Error for UnknownName {
    fn custom<T: fmt::Display>(message: T) -> Self {
        UnknownName(message.to_string())
    }

    fn unknown_variant(name: &str, expected: &'static [&'static str]) -> Self {
        UnknownName(format!("`{}` is none of {}", shown(name), expected.join(", ")))
    }
}

/// A truth value, which AWS writes now as a boolean and now as text, and Python as `True`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flag(pub(crate) bool);

impl<'de> Deserialize<'de> for Flag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FlagVisitor;

        impl Visitor<'_> for FlagVisitor {
            type Value = Flag;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true or false")
            }

            fn visit_bool<E: Error>(self, flag: bool) -> Result<Flag, E> {
                Ok(Flag(flag))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Flag, E> {
                match text {
                    "true" | "True" => Ok(Flag(true)),
                    "false" | "False" => Ok(Flag(false)),
                    _ => Err(E::custom(format_args!("`{}` is neither true nor false", shown(text)))),
                }
            }
        }

        deserializer.deserialize_any(FlagVisitor)
    }
}

/// A point in time, written as RFC 3339 says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Time(pub(crate) Millis);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let parse = |text: &str| match text.parse::<jiff::Timestamp>() {
            Ok(time) => Ok(Time(time.as_millisecond())),
            Err(_) => Err(format!("`{}` is no RFC 3339 time", shown(text))),
        };
        deserializer.deserialize_str(Parsed(parse))
    }
}

/// A point in time as audit logs and the lakes behind them write it: RFC 3339, the same without an offset (then it is
/// UTC) and with a space for the `T`, or a number of seconds, milliseconds, microseconds or nanoseconds since 1970.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment(pub(crate) Millis);

impl Moment {
    /// The time that a text names.
    pub(crate) fn of(text: &str) -> Option<Self> {
        if let Ok(time) = text.parse::<jiff::Timestamp>() {
            return Some(Moment(time.as_millisecond()));
        }
        // A date alone is no point in time.
        let time: jiff::civil::DateTime = text.contains(':').then(|| text.parse().ok())??;
        let time = jiff::tz::TimeZone::UTC.to_timestamp(time).ok()?;
        Some(Moment(time.as_millisecond()))
    }

    /// The time that a number names. The unit is the one that makes it lie between 1970 and 5138.
    fn counted(number: i64) -> Self {
        match number.unsigned_abs() {
            0..100_000_000_000 => Moment(number.saturating_mul(1_000)),
            100_000_000_000..100_000_000_000_000 => Moment(number),
            100_000_000_000_000..100_000_000_000_000_000 => Moment(number / 1_000),
            _ => Moment(number / 1_000_000),
        }
    }
}

/// A [`Moment`] that is written as text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WrittenMoment(pub(crate) Millis);

impl<'de> Deserialize<'de> for WrittenMoment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let parse = |text: &str| match Moment::of(text) {
            Some(Moment(time)) => Ok(WrittenMoment(time)),
            None => Err(format!("`{}` is no RFC 3339 time", shown(text))),
        };
        deserializer.deserialize_str(Parsed(parse))
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MomentVisitor;

        impl Visitor<'_> for MomentVisitor {
            type Value = Moment;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a time")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Moment, E> {
                Moment::of(text).ok_or_else(|| E::custom(format_args!("`{}` is no RFC 3339 time", shown(text))))
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Moment, E> {
                Ok(Moment::counted(number))
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Moment, E> {
                Ok(Moment::counted(i64::try_from(number).unwrap_or(i64::MAX)))
            }

            #[allow(clippy::cast_possible_truncation)]
            fn visit_f64<E: Error>(self, number: f64) -> Result<Moment, E> {
                Ok(Moment::counted(number as i64))
            }
        }

        deserializer.deserialize_any(MomentVisitor)
    }
}

/// A string, a number or a truth value as text: what some sources write now as one, now as another.
#[derive(Debug)]
pub(crate) struct Scalar<'a>(pub(crate) Cow<'a, str>);

impl Scalar<'_> {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// The text of an optional scalar; empty where the field is absent.
pub(crate) fn scalar(field: Option<&Scalar<'_>>) -> String {
    field.map(|scalar| scalar.0.clone().into_owned()).unwrap_or_default()
}

impl<'de: 'a, 'a> Deserialize<'de> for Scalar<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Raw::deserialize(deserializer)?;
        let text = match raw.string() {
            Some(text) => text.map_err(D::Error::custom)?.into_owned(),
            None if raw.get().starts_with(['{', '[']) => {
                return Err(D::Error::custom("neither a string nor a number"));
            }
            None => raw.get().to_owned(),
        };
        Text::<0, NAME_MAX>::check(&text)?;
        Ok(Scalar(Cow::Owned(text)))
    }
}

/// A value as text: a string as it is, anything else as JSON.
pub(crate) fn value_text(value: &Raw<'_>, path: impl FnOnce() -> String) -> Result<String, Rejection> {
    match value.string() {
        None => Ok(value.get().to_owned()),
        Some(Ok(text)) => Ok(text.into_owned()),
        Some(Err(error)) => Err(rejection(&error, value.get(), &path())),
    }
}

/// The first `SHOWN` characters of an input, to stand between backticks; what does not print is escaped.
pub(crate) fn shown(input: &str) -> String {
    let mut out = String::new();
    for c in input.chars().take(SHOWN) {
        match c {
            '`' => out.push('\''),
            '"' | '\'' | '\\' => out.push(c),
            _ => out.extend(c.escape_debug()),
        }
    }
    if input.chars().nth(SHOWN).is_some() {
        out.push('…');
    }
    out
}

/// Parses `json` as an object, found at `path` of the record (empty for the record itself).
pub(crate) fn object<'de, T: Deserialize<'de>>(json: &'de str, path: &str) -> Result<T, Rejection> {
    match json::parse::<Object<T>>(json) {
        Ok(Object(value)) => Ok(value),
        Err(error) => Err(rejection(&error, json, path)),
    }
}

/// Parses `json` as an array of values that are not looked into yet.
pub(crate) fn list<const MAX: usize>(json: &str) -> Result<List<Raw<'_>, MAX>, Rejection> {
    json::parse(json).map_err(|error| rejection(&error, json, ""))
}

/// Turns a parser's error into a rejection: what is wrong and where, never the input itself, which may be a secret.
/// (Messages from this module quote what is safe to show.)
pub(crate) fn rejection(error: &serde_json::Error, json: &str, path: &str) -> Rejection {
    let place = format!(" at line {} column {}", error.line(), error.column());
    let message = error.to_string();
    let message = message.strip_suffix(&place).unwrap_or(&message);
    if error.classify() == Category::Data {
        let inner = path_at(json, offset(json, error.line(), error.column()));
        return mismatch(message, &joined(path, &inner), &place);
    }
    let reason = match message {
        "recursion limit exceeded" => Reason::TooDeep,
        _ => Reason::NotJson,
    };
    let message = message.replace("EOF", "end of input");
    let within = if path.is_empty() { String::new() } else { format!(" of `{path}`") };
    Rejection::new(reason, format!("{message}{place}{within}"))
}

/// The rejection of JSON that is not what was expected at a path.
fn mismatch(message: &str, path: &str, place: &str) -> Rejection {
    let subject = if path.is_empty() { "the record".to_owned() } else { format!("`{path}`") };
    if let Some(name) = message.strip_prefix("missing field `") {
        let field = joined(path, name.trim_end_matches('`'));
        return Rejection::new(Reason::MissingField, format!("`{field}` is missing"));
    }
    if message.starts_with("duplicate field") {
        return Rejection::new(Reason::InvalidValue, format!("{subject} is there twice"));
    }
    if let Some(types) = message.strip_prefix("invalid type: ") {
        let expected = types.rsplit_once(", expected ").map_or("something else", |(_, expected)| expected);
        let found = types.split(['`', '"', ',']).next().unwrap_or_default().trim();
        let detail = format!("{subject} is {found}, not {expected},{place}");
        return Rejection::new(Reason::WrongType, detail);
    }
    let large = message.starts_with("longer than") || message.starts_with("more than");
    let reason = if large { Reason::TooLarge } else { Reason::InvalidValue };
    Rejection::new(reason, format!("{subject}: {message}{place}"))
}

/// A path inside another path.
fn joined(path: &str, inner: &str) -> String {
    match (path.is_empty(), inner.is_empty()) {
        (true, _) => inner.to_owned(),
        (_, true) => path.to_owned(),
        _ if inner.starts_with('[') => format!("{path}{inner}"),
        _ => format!("{path}.{inner}"),
    }
}

/// The byte that a line and a column (both as `serde_json` counts them) point behind.
fn offset(json: &str, line: usize, column: usize) -> usize {
    let before: usize = json.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    before + column
}

/// A container on the way to a place in a document.
enum Frame<'a> {
    Array(usize),
    Object { key: Option<&'a str>, expects_key: bool },
}

/// The path of the value at a byte of a document that is valid JSON up to there.
fn path_at(json: &str, offset: usize) -> String {
    let mut frames: Vec<Frame<'_>> = Vec::new();
    let mut deeper = 0_usize;
    let mut bytes = json.bytes().enumerate().take(offset);
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'{' | b'[' if frames.len() >= DEPTH => deeper += 1,
            b'{' => frames.push(Frame::Object { key: None, expects_key: true }),
            b'[' => frames.push(Frame::Array(0)),
            b'}' | b']' if deeper > 0 => deeper -= 1,
            b'}' | b']' => drop(frames.pop()),
            _ if deeper > 0 && byte != b'"' => {}
            b',' => match frames.last_mut() {
                Some(Frame::Array(index)) => *index += 1,
                Some(Frame::Object { expects_key, .. }) => *expects_key = true,
                None => {}
            },
            b'"' => {
                let Some(end) = string_end(&mut bytes) else {
                    break;
                };
                if let (0, Some(Frame::Object { key, expects_key: expects_key @ true })) = (deeper, frames.last_mut()) {
                    *key = json.get(at + 1..end);
                    *expects_key = false;
                }
            }
            _ => {}
        }
    }
    frames.iter().fold(String::new(), |path, frame| match frame {
        Frame::Array(index) => format!("{path}[{index}]"),
        Frame::Object { key, .. } => joined(&path, &key.map(shown).unwrap_or_default()),
    })
}

/// Where the string ends whose opening quote was just read.
pub(crate) fn string_end(bytes: &mut impl Iterator<Item = (usize, u8)>) -> Option<usize> {
    loop {
        match bytes.next()? {
            (_, b'\\') => drop(bytes.next()),
            (at, b'"') => return Some(at),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_path_names_the_value_at_an_offset() {
        let json = r#"{"a": {"b\"c": [1, {"d": 5}]}, "e": true}"#;
        let at = |needle: &str| path_at(json, json.find(needle).unwrap() + needle.len());
        assert_eq!(at(": 5"), r#"a.b\"c[1].d"#);
        assert_eq!(at("[1"), r#"a.b\"c[0]"#);
        assert_eq!(at("5}]"), r#"a.b\"c"#);
        assert_eq!(at("true"), "e");
        assert_eq!(path_at(json, json.len()), "");
    }

    #[test]
    fn an_offset_counts_lines_as_the_parser_does() {
        let json = "{\n  \"a\":\n  5}";
        let error = serde_json::from_str::<Object<std::collections::BTreeMap<String, String>>>(json).unwrap_err();
        assert_eq!(path_at(json, offset(json, error.line(), error.column())), "a");
    }

    #[test]
    fn what_is_shown_is_short_and_on_one_line() {
        assert_eq!(shown("a\nb`\u{202e}ü"), "a\\nb'\\u{202e}ü");
        assert_eq!(shown(&"x".repeat(90)).chars().count(), SHOWN + 1);
    }
}
