//! A declared way to read the records of a framework of one's own: which member of its JSON is what.
//!
//! A pointer is a JSON pointer (RFC 6901) into the record, or, with a dot before it (`./name`), into the member that `each`
//! names. Whatever a mapping reads is the agent's own word. A call is read from one record; where another says how it ended, the
//! outcome is unknown.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use serde::de::value::{MapAccessDeserializer, StrDeserializer};
use serde::de::{Deserialize, DeserializeOwned, Deserializer, Error, MapAccess, Visitor};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tautline_detectors::event::{
    Credential, Event, Millis, Origin, Outcome, Place, Principal, Reasoning, Resource, Run, Source, Trace, Verb,
};

use crate::agent_action::{ON_BEHALF_OF_MAX, REASONING_MAX, Status, believed, canonical, reasoning_of};
use crate::audit::{MEMBERS_MAX, parsed};
use crate::format::Read;
use crate::json::Raw;
use crate::tool;
use crate::wire::{self, List, Members, Moment, NAME_MAX, Name, Text, UnknownName, shown};
use crate::{BATCH_MAX, Decoded, Reason, Rejection, digest_of};

/// How deep a pointer may go.
const STEPS_MAX: usize = 32;

/// The most bytes that the arguments of a call may have.
const ARGUMENTS_MAX: usize = 1_024 * 1_024;

/// How the records of one framework are read.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mapping {
    /// The name that a source's format refers to, behind `mapping:`.
    pub name: String,
    /// What a record, or a member of it, must say to be a call; what says otherwise is counted and left.
    #[serde(default)]
    when: BTreeMap<Pointer, Literal>,
    /// Where the calls stand in a record that holds several; `*` is every element of an array.
    each: Option<Pointer>,
    id: Option<Field<String>>,
    time: Pointer,
    agent: Field<String>,
    tool: Field<String>,
    operation: Option<Field<String>>,
    verb: Option<Field<Verb>>,
    resource_type: Option<Field<String>>,
    resource: Option<Field<String>>,
    environment: Option<Field<String>>,
    account: Option<Field<String>>,
    region: Option<Field<String>>,
    cluster: Option<Field<String>>,
    namespace: Option<Field<String>>,
    session: Option<Field<String>>,
    playbook: Option<Field<String>>,
    run: Option<Field<String>>,
    identity: Option<Field<String>>,
    /// Outermost first; each leads to a principal, or to a list of them.
    #[serde(default)]
    on_behalf_of: Vec<Pointer>,
    credential: Option<Field<String>>,
    approval: Option<Field<String>>,
    reasoning: Option<Field<String>>,
    arguments: Option<Pointer>,
    trace_id: Option<Field<String>>,
    span_id: Option<Field<String>>,
    request_id: Option<Field<String>>,
    address: Option<Field<String>>,
    user_agent: Option<Field<String>>,
    outcome: Option<Field<Status>>,
    reason: Option<Field<String>>,
}

/// A way into a record, or into one of its members.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Pointer {
    is_relative: bool,
    steps: Vec<String>,
    text: String,
}

impl FromStr for Pointer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (is_relative, absolute) = text.strip_prefix('.').map_or((false, text), |rest| (true, rest));
        let unknown = || format!("`{}` is no JSON pointer: it begins with `/`, or with `./`", shown(text));
        let path = absolute.strip_prefix('/').ok_or_else(unknown)?;
        let steps: Vec<String> = path.split('/').map(|step| step.replace("~1", "/").replace("~0", "~")).collect();
        if steps.len() > STEPS_MAX {
            return Err(format!("`{}` goes deeper than {STEPS_MAX} steps", shown(text)));
        }
        Ok(Pointer { is_relative, steps, text: text.to_owned() })
    }
}

impl<'de> Deserialize<'de> for Pointer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<str>::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// What a condition compares with: a text, a number or a truth value, as text.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Literal(String);

impl<'de> Deserialize<'de> for Literal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct LiteralVisitor;

        impl Visitor<'_> for LiteralVisitor {
            type Value = Literal;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, a whole number, true or false")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Literal, E> {
                Ok(Literal(text.to_owned()))
            }

            fn visit_bool<E: Error>(self, flag: bool) -> Result<Literal, E> {
                Ok(Literal(flag.to_string()))
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Literal, E> {
                Ok(Literal(number.to_string()))
            }
        }

        deserializer.deserialize_any(LiteralVisitor)
    }
}

/// Where the value of a field stands, what it is where it does not stand there, and what the framework's words mean.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Declared<T> {
    pointer: Option<Pointer>,
    default: Option<T>,
    #[serde(default = "BTreeMap::new")]
    words: BTreeMap<String, T>,
}

#[derive(Clone, Debug)]
struct Field<T>(Declared<T>);

impl<'de, T: DeserializeOwned> Deserialize<'de> for Field<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FieldVisitor<T>(PhantomData<T>);

        impl<'de, T: DeserializeOwned> Visitor<'de> for FieldVisitor<T> {
            type Value = Field<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON pointer, or a table of `pointer`, `default` and `words`")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                let pointer = Some(text.parse().map_err(E::custom)?);
                Ok(Field(Declared { pointer, default: None, words: BTreeMap::new() }))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                let declared = Declared::<T>::deserialize(MapAccessDeserializer::new(map))?;
                if declared.pointer.is_none() && declared.default.is_none() {
                    return Err(A::Error::custom("neither `pointer` nor `default` is there"));
                }
                Ok(Field(declared))
            }
        }

        deserializer.deserialize_any(FieldVisitor(PhantomData))
    }
}

impl<T: DeserializeOwned + Clone> Field<T> {
    /// The value in a record: with `words`, what they say, and what they do not name counts as not there.
    fn value(&self, place: &Here<'_>, max: usize) -> Result<Option<T>, Rejection> {
        let Field(Declared { pointer, default, words }) = self;
        let found = pointer.as_ref().map(|pointer| place.text(pointer, max)).transpose()?.flatten();
        let Some(found) = found.filter(|text| !text.is_empty()) else { return Ok(default.clone()) };
        if !words.is_empty() {
            return Ok(words.get(&found).cloned().or_else(|| default.clone()));
        }
        T::deserialize(StrDeserializer::<UnknownName>::new(&found)).map(Some).map_err(|unknown| {
            let path = pointer.as_ref().map_or("", |pointer| &pointer.text);
            Rejection::new(Reason::InvalidValue, format!("`{path}`: {unknown}"))
        })
    }
}

/// A text that may not be declared, or not be there.
fn text(field: Option<&Field<String>>, place: &Here<'_>) -> Result<String, Rejection> {
    Ok(field.map(|field| field.value(place, NAME_MAX)).transpose()?.flatten().unwrap_or_default())
}

/// Where a mapping reads: a record, and a member of it.
struct Here<'a> {
    record: &'a str,
    member: &'a str,
}

impl Here<'_> {
    fn raw(&self, pointer: &Pointer) -> Result<Option<Raw<'_>>, Rejection> {
        let start = if pointer.is_relative { self.member } else { self.record };
        let found = find(Cow::Borrowed(start), &pointer.steps)?;
        Ok(found.filter(|json| json != "null").map(Raw))
    }

    /// A string, a number or a truth value, as text.
    fn text(&self, pointer: &Pointer, max: usize) -> Result<Option<String>, Rejection> {
        let Some(raw) = self.raw(pointer)? else { return Ok(None) };
        if raw.get().starts_with(['{', '[']) {
            let detail = format!("`{}` is neither a string nor a number", pointer.text);
            return Err(Rejection::new(Reason::WrongType, detail));
        }
        let text = wire::value_text(&raw, || pointer.text.clone())?;
        if text.len() > max {
            return Err(Rejection::new(Reason::TooLarge, format!("`{}`: longer than {max} bytes", pointer.text)));
        }
        Ok(Some(text))
    }
}

/// The value that a way leads to.
fn find<'j>(json: Cow<'j, str>, steps: &[String]) -> Result<Option<Cow<'j, str>>, Rejection> {
    let Some((step, rest)) = steps.split_first() else { return Ok(Some(json)) };
    match json {
        Cow::Borrowed(json) => inner(json, step)?.map_or(Ok(None), |found| find(found, rest)),
        Cow::Owned(json) => {
            let found = inner(&json, step)?.map_or(Ok(None), |found| find(found, rest))?;
            Ok(found.map(|found| Cow::Owned(found.into_owned())))
        }
    }
}

/// A member of an object, or an element of an array.
fn inner<'j>(json: &'j str, step: &str) -> Result<Option<Cow<'j, str>>, Rejection> {
    let at = |error: serde_json::Error| wire::rejection(&error, json, "");
    if json.starts_with('{') {
        let Members(members) = crate::json::parse::<Members<'_, Raw<'_>, MEMBERS_MAX>>(json).map_err(at)?;
        return Ok(members.into_iter().find(|(name, _)| name == step).map(|(_, Raw(value))| value));
    }
    let Some(index) = step.parse::<usize>().ok().filter(|_| json.starts_with('[')) else { return Ok(None) };
    let List(elements) = wire::list::<BATCH_MAX>(json)?;
    Ok(elements.into_iter().nth(index).map(|Raw(value)| value))
}

/// The values that a way with stars leads to.
fn spread<'j>(json: Cow<'j, str>, steps: &[String], out: &mut Vec<Cow<'j, str>>) -> Result<(), Rejection> {
    let Some(star) = steps.iter().position(|step| step == "*") else {
        let found = find(json, steps)?.filter(|json| json != "null");
        if out.len() == BATCH_MAX {
            return Err(Rejection::new(Reason::TooLarge, format!("more than {BATCH_MAX} members")));
        }
        out.extend(found);
        return Ok(());
    };
    let (before, behind) = (steps.get(..star).unwrap_or_default(), steps.get(star + 1..).unwrap_or_default());
    let Some(list) = find(json, before)?.filter(|json| json.starts_with('[')) else { return Ok(()) };
    let elements: Vec<Cow<'j, str>> = match list {
        Cow::Borrowed(list) => wire::list::<BATCH_MAX>(list)?.0.into_iter().map(|Raw(element)| element).collect(),
        Cow::Owned(list) => {
            let owned = |Raw(element): Raw<'_>| Cow::Owned(element.into_owned());
            wire::list::<BATCH_MAX>(&list)?.0.into_iter().map(owned).collect()
        }
    };
    elements.into_iter().try_for_each(|element| spread(element, behind, out))
}

impl Mapping {
    /// Decodes one record, or a JSON array of records; see [`crate::decode`].
    pub fn decode(&self, bytes: &[u8], received: Millis) -> Vec<Result<Event, Rejection>> {
        Decoded::of(received, |decoded| {
            let bytes = crate::bare(bytes)?;
            let text = crate::record_text(&bytes)?;
            if text.starts_with('[') {
                let records = crate::array(text)?;
                decoded.is_batch = true;
                records.iter().for_each(|record| decoded.mapped(self.record(record.get())));
            } else {
                decoded.mapped(self.record(text));
            }
            Ok(())
        })
    }

    /// Reads what a record holds.
    fn record(&self, record: &str) -> Result<Mapped, Rejection> {
        // Also where nothing but defaults is asked for: what is no object is no record.
        let _: wire::Object<serde::de::IgnoredAny> =
            crate::json::parse(record).map_err(|error| wire::rejection(&error, record, ""))?;
        let whole = Here { record, member: record };
        let Some(each) = &self.each else { return Ok(Mapped::One(Box::new(self.call(&whole)))) };
        if !self.holds(&whole, |pointer| !pointer.is_relative)? {
            return Err(Rejection::not_a_request("the record is none that `when` asks for"));
        }
        let mut members = Vec::new();
        spread(Cow::Borrowed(record), &each.steps, &mut members)?;
        if members.is_empty() {
            return Err(Rejection::not_a_request(format!("the record has nothing at `{}`", each.text)));
        }
        Ok(Mapped::Many(members.iter().map(|member| self.call(&Here { record, member })).collect()))
    }

    fn holds(&self, place: &Here<'_>, asked: impl Fn(&Pointer) -> bool) -> Result<bool, Rejection> {
        for (pointer, Literal(expected)) in self.when.iter().filter(|(pointer, _)| asked(pointer)) {
            let found = place.raw(pointer)?.filter(|raw| !raw.get().starts_with(['{', '[']));
            let found = found.map(|raw| wire::value_text(&raw, || pointer.text.clone())).transpose()?;
            if found.as_deref() != Some(expected) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn call(&self, place: &Here<'_>) -> Read {
        if !self.holds(place, |_| true)? {
            return Err(Rejection::not_a_request("the record is none that `when` asks for"));
        }
        let event = self.event(place)?;
        // What it is known by: its own bytes, and what was read from around them.
        let digest = Sha256::new().chain_update(place.member);
        let around = if self.each.is_some() { serde_json::to_vec(&event).unwrap_or_default() } else { Vec::new() };
        Ok((event, digest_of(digest.chain_update(around))))
    }

    fn event(&self, place: &Here<'_>) -> Result<Event, Rejection> {
        let get = |field: &Option<Field<String>>| text(field.as_ref(), place);
        let required = |field: &Field<String>, name: &str| {
            let found = field.value(place, NAME_MAX)?.filter(|text| !text.is_empty());
            found.ok_or_else(|| Rejection::new(Reason::MissingField, format!("`{name}` is missing{}", behind(field))))
        };
        let tool = required(&self.tool, "tool")?;
        let operation = Some(get(&self.operation)?).filter(|name| !name.is_empty()).map(canonical);
        let session = get(&self.session)?;
        Ok(Event {
            id: format!("mapping/{}/{session}/{}", self.name, get(&self.id)?),
            source: Source::Mapping,
            at: self.at(place)?,
            principal: Principal {
                id: get(&self.identity)?,
                claimed_agent: required(&self.agent, "agent")?,
                on_behalf_of: self.on_behalf_of(place)?,
                ..Principal::default()
            },
            verb: self.verb(place, &tool, operation.as_deref())?,
            resource: self.resource(place, &tool)?,
            place: Place {
                account: get(&self.account)?,
                region: get(&self.region)?,
                cluster: get(&self.cluster)?,
                namespace: get(&self.namespace)?,
                ..Place::default()
            },
            claimed_environment: Some(get(&self.environment)?).filter(|name| !name.is_empty()),
            run: self.run(session, place)?,
            arguments: self.arguments(place)?,
            reasoning: self.reasoning(place)?,
            approval: Some(get(&self.approval)?).filter(|name| !name.is_empty()),
            credential: Credential { id: get(&self.credential)?, claimed: true, ..Credential::default() },
            origin: Origin { address: get(&self.address)?, user_agent: get(&self.user_agent)?, ..Origin::default() },
            trace: self.trace(place)?,
            outcome: self.outcome(place)?,
            action: operation.unwrap_or_else(|| tool.clone()),
            tool,
            ..Event::default()
        })
    }

    fn at(&self, place: &Here<'_>) -> Result<Millis, Rejection> {
        let missing = || Rejection::new(Reason::MissingField, format!("`time` is missing (`{}`)", self.time.text));
        let raw = place.raw(&self.time)?.ok_or_else(missing)?;
        let Moment(at) = parsed(&raw, &self.time.text)?;
        Ok(at)
    }

    fn on_behalf_of(&self, place: &Here<'_>) -> Result<Vec<String>, Rejection> {
        let mut principals = Vec::new();
        for pointer in &self.on_behalf_of {
            match place.raw(pointer)?.filter(|raw| raw.get().starts_with('[')) {
                Some(raw) => {
                    let List(names) = parsed::<List<Name<'_>, ON_BEHALF_OF_MAX>>(&raw, &pointer.text)?;
                    principals.extend(names.into_iter().map(Text::into_string));
                }
                None => principals.extend(place.text(pointer, NAME_MAX)?),
            }
        }
        principals.retain(|principal| !principal.is_empty());
        if principals.len() > ON_BEHALF_OF_MAX {
            let detail = format!("`on_behalf_of`: more than {ON_BEHALF_OF_MAX} principals");
            return Err(Rejection::new(Reason::TooLarge, detail));
        }
        Ok(principals)
    }

    /// The verb, as far as an agent's word goes: what the mapping itself makes of a word is the word of who wrote it.
    fn verb(&self, place: &Here<'_>, tool: &str, operation: Option<&str>) -> Result<Verb, Rejection> {
        let Some(field) = &self.verb else { return Ok(tool::verb(tool)) };
        let found = field.value(place, NAME_MAX)?;
        if field.0.pointer.is_none() || !field.0.words.is_empty() {
            return Ok(found.unwrap_or_else(|| tool::verb(tool)));
        }
        Ok(believed(found, operation.or(Some(tool))))
    }

    fn resource(&self, place: &Here<'_>, tool: &str) -> Result<Resource, Rejection> {
        let (kind, id) = (text(self.resource_type.as_ref(), place)?, text(self.resource.as_ref(), place)?);
        if kind.is_empty() && id.is_empty() {
            return Ok(tool::resource("", tool));
        }
        Ok(Resource { kind, id, ..Resource::default() })
    }

    fn run(&self, session: String, place: &Here<'_>) -> Result<Option<Run>, Rejection> {
        let (playbook, id) = (text(self.playbook.as_ref(), place)?, text(self.run.as_ref(), place)?);
        // A run without an id of its own is its session's.
        let id = if id.is_empty() && !playbook.is_empty() { session.clone() } else { id };
        let run = Run { session, playbook, id };
        Ok((run != Run::default()).then_some(run))
    }

    fn arguments(&self, place: &Here<'_>) -> Result<Vec<tautline_detectors::event::Argument>, Rejection> {
        let Some(pointer) = &self.arguments else { return Ok(Vec::new()) };
        let Some(raw) = place.raw(pointer)? else { return Ok(Vec::new()) };
        if raw.get().len() > ARGUMENTS_MAX {
            let detail = format!("`{}`: longer than {ARGUMENTS_MAX} bytes", pointer.text);
            return Err(Rejection::new(Reason::TooLarge, detail));
        }
        Ok(tool::arguments(parsed::<Value>(&raw, &pointer.text)?))
    }

    fn reasoning(&self, place: &Here<'_>) -> Result<Option<Reasoning>, Rejection> {
        let field = self.reasoning.as_ref().map(|field| field.value(place, REASONING_MAX));
        let text = field.transpose()?.flatten().filter(|text| !text.is_empty());
        Ok(text.map(reasoning_of))
    }

    fn trace(&self, place: &Here<'_>) -> Result<Option<Trace>, Rejection> {
        let trace = Trace {
            trace_id: text(self.trace_id.as_ref(), place)?.to_ascii_lowercase(),
            span_id: text(self.span_id.as_ref(), place)?.to_ascii_lowercase(),
            request_id: text(self.request_id.as_ref(), place)?,
        };
        Ok((trace != Trace::default()).then_some(trace))
    }

    fn outcome(&self, place: &Here<'_>) -> Result<Outcome, Rejection> {
        let status = self.outcome.as_ref().map(|field| field.value(place, NAME_MAX)).transpose()?.flatten();
        let reason = text(self.reason.as_ref(), place)?;
        Ok(status.map_or(Outcome::Unknown, |status| status.outcome(reason)))
    }
}

/// What a record holds by a mapping.
pub(crate) enum Mapped {
    One(Box<Read>),
    Many(Vec<Read>),
}

/// The pointer of a field, to stand behind its name.
fn behind(field: &Field<String>) -> String {
    field.0.pointer.as_ref().map_or_else(String::new, |pointer| format!(" (`{}`)", pointer.text))
}

#[cfg(test)]
#[path = "mapping/tests.rs"]
mod tests;
