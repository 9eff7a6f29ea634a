//! What an audit log makes of a request's parameters: names, defaults, and what it leaves out, per native operation.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::toml_file::TomlFile;
use super::{RuleFile, RulebookError};
use crate::event::{Argument, Event, REDACTED};
use crate::statement::Approval;

/// Where the mappings stand.
const FILE: &str = "approvals/operations.toml";

/// From this length on a value may have been cut by the decoder.
const MAY_BE_CUT: usize = 1_000;

/// How audit logs write the parameters of operations.
#[derive(Clone, Debug, Default)]
pub struct Operations {
    by_name: BTreeMap<String, Operation>,
    /// What any operation's record may have besides its parameters.
    ignored: Vec<String>,
}

/// How the audit log writes one operation.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Operation {
    /// Parameter to the path of its value in the record, `instancesSet.items.*.instanceId`. A parameter that is not listed
    /// is looked for under its own name.
    fields: BTreeMap<String, String>,
    /// What the service takes, and the log shows, for a parameter that was not given.
    defaults: BTreeMap<String, Value>,
    /// Members of the record that are no parameters.
    ignored: Vec<String>,
    /// The operation that undoes it, where there is one.
    inverse: Option<String>,
}

/// How the executed parameters compare with the approved ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Comparison {
    /// Names of the parameters that differ.
    pub(crate) changed: Vec<String>,
    /// Parameters that the log does not show.
    pub(crate) unverifiable: Vec<String>,
}

impl Operations {
    /// Holds what the audit log shows against what was approved, field by field.
    pub(crate) fn compare(&self, approval: &Approval, event: &Event) -> Comparison {
        let nothing = Operation::default();
        let operation = self.by_name.get(&event.action).unwrap_or(&nothing);
        let mut comparison = Comparison::default();
        let mut seen: Vec<&str> = Vec::new();
        for (name, approved) in &approval.parameters {
            let path = operation.fields.get(name).map_or(name.as_str(), String::as_str);
            let argument = argument_of(&event.arguments, head(path));
            seen.extend(argument.map(|argument| argument.name.as_str()));
            match argument.map_or(Executed::Missing, |argument| executed(argument, path)) {
                Executed::Value(value) => match shows(&value, approved) {
                    Shown::Same => {}
                    Shown::Part => comparison.unverifiable.push(name.clone()),
                    Shown::Other => comparison.changed.push(name.clone()),
                },
                Executed::Missing if operation.defaults.get(name).is_some_and(|default| same(default, approved)) => {}
                Executed::Missing | Executed::Hidden => comparison.unverifiable.push(name.clone()),
            }
        }
        for argument in &event.arguments {
            let known = |name: &str| name.eq_ignore_ascii_case(&argument.name);
            let is_ignored = operation.ignored.iter().chain(&self.ignored).any(|name| known(name));
            if is_ignored || seen.contains(&argument.name.as_str()) || is_nothing(&argument.value) {
                continue;
            }
            let default = operation
                .defaults
                .iter()
                .find(|(name, _)| known(head(operation.fields.get(*name).map_or(name.as_str(), String::as_str))));
            if !default.is_some_and(|(_, default)| same(default, &parsed(&argument.value))) {
                comparison.changed.push(argument.name.clone());
            }
        }
        comparison
    }

    /// Holds what an agent says it did against what was approved, where both name the same.
    pub(crate) fn compare_declared(&self, approval: &Approval, event: &Event) -> Comparison {
        let differs = |argument: &&Argument| {
            let approved = approval.parameters.iter().find(|(name, _)| name.eq_ignore_ascii_case(&argument.name));
            approved.is_some_and(|(_, approved)| shows(&parsed(&argument.value), approved) == Shown::Other)
        };
        let changed = event.arguments.iter().filter(differs).map(|argument| argument.name.clone()).collect();
        Comparison { changed, unverifiable: Vec::new() }
    }

    /// The operation that undoes an event's.
    pub(crate) fn inverse(&self, event: &Event) -> Option<&str> {
        self.by_name.get(&event.action)?.inverse.as_deref()
    }

    pub(super) fn read(files: &[RuleFile], errors: &mut Vec<RulebookError>) -> Self {
        let Some(file) = files.iter().find(|file| file.name == FILE) else { return Self::default() };
        let mut toml = TomlFile::parse(file, errors);
        let named = toml.named::<Operation>("operations", errors);
        let by_name = named.into_iter().map(|entry| (entry.name, entry.value)).collect();
        let rest: Option<RawRest> = toml.rest(errors);
        Self { by_name, ignored: rest.map(|rest| rest.ignored).unwrap_or_default() }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRest {
    #[serde(default)]
    ignored: Vec<String>,
}

enum Executed {
    Value(Value),
    /// The log says nothing of it.
    Missing,
    /// The log has something in its place, or cuts it off.
    Hidden,
}

fn head(path: &str) -> &str {
    path.split('.').next().unwrap_or_default()
}

/// The record's parameter of this name. Logs write names in another case, and some write a second, empty one beside the
/// first.
fn argument_of<'e>(arguments: &'e [Argument], name: &str) -> Option<&'e Argument> {
    let alike = |argument: &&Argument| argument.name.eq_ignore_ascii_case(name) && !is_nothing(&argument.value);
    arguments.iter().find(|argument| argument.name == name).or_else(|| arguments.iter().find(alike))
}

/// The value at a path of a parameter, whose name the path begins with.
fn executed(argument: &Argument, path: &str) -> Executed {
    let parts: Vec<&str> = path.split('.').skip(1).collect();
    let value = parsed(&argument.value);
    match at(&value, &parts) {
        Some(value) => Executed::Value(value),
        None if value.as_str().is_some_and(conceals) => Executed::Hidden,
        None => Executed::Missing,
    }
}

fn at(value: &Value, path: &[&str]) -> Option<Value> {
    let Some((first, rest)) = path.split_first() else { return Some(value.clone()) };
    if *first == "*" {
        let items = value.as_array()?;
        return items.iter().map(|item| at(item, rest)).collect::<Option<Vec<_>>>().map(Value::Array);
    }
    let member = value.as_object()?.iter().find(|(name, _)| name.eq_ignore_ascii_case(first));
    member.and_then(|(_, member)| at(member, rest))
}

/// What a value that was executed shows of the one that was approved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    /// It is the same.
    Same,
    /// All that can be seen of it is the same; the rest is hidden or cut off.
    Part,
    /// It is another.
    Other,
}

/// Whoever acts chooses most of a value's text, and could write into it what looks as if something were hidden: all that it
/// shows beside that must be as approved.
fn shows(executed: &Value, approved: &Value) -> Shown {
    if same(executed, approved) {
        return Shown::Same;
    }
    let is_part = match (executed, approved) {
        (Value::String(text), _) => is_part(text, approved),
        (Value::Array(items), Value::Array(wanted)) => are_parts(items, wanted),
        (Value::Array(items), wanted) => are_parts(items, std::slice::from_ref(wanted)),
        (Value::Object(members), Value::Object(wanted)) => {
            let fits = |(name, member): (&String, &Value)| {
                let wanted = wanted.iter().find(|(wanted, _)| wanted.eq_ignore_ascii_case(name));
                wanted.is_some_and(|(_, wanted)| shows(member, wanted) != Shown::Other)
            };
            members.len() == wanted.len() && members.iter().all(fits)
        }
        _ => false,
    };
    if is_part { Shown::Part } else { Shown::Other }
}

/// Whether each item is, or is a part of, another one of the approved ones, in any order.
fn are_parts(items: &[Value], approved: &[Value]) -> bool {
    let mut left: Vec<&Value> = approved.iter().collect();
    let mut take = |item: &Value, shown: Shown| {
        let found = left.iter().position(|wanted| shows(item, wanted) == shown);
        found.map(|at| left.swap_remove(at)).is_some()
    };
    let hidden: Vec<&Value> = items.iter().filter(|item| !take(item, Shown::Same)).collect();
    items.len() == approved.len() && hidden.into_iter().all(|item| take(item, Shown::Part))
}

/// Whether a text has something in the place of an approved value, or of a part of it.
fn is_part(text: &str, approved: &Value) -> bool {
    match approved {
        _ if is_mark(text) => true,
        _ if !conceals(text) => false,
        Value::String(approved) => fits(text, approved),
        // Who writes a structure as text chooses in which order, and how wide.
        Value::Array(_) | Value::Object(_) => text.starts_with(['[', '{']),
        scalar => fits(text, &scalar.to_string()),
    }
}

/// Whether an approved text can be what another one shows with secrets redacted, or its end cut off.
fn fits(shown: &str, approved: &str) -> bool {
    let kept = shown.get(..shown.floor_char_boundary(MAY_BE_CUT)).unwrap_or(shown);
    let is_cut = shown.len() >= MAY_BE_CUT;
    let mut pieces = kept.split(REDACTED);
    let Some(mut rest) = pieces.next().and_then(|first| approved.strip_prefix(first)) else { return false };
    let mut ends = is_cut || rest.is_empty();
    for piece in pieces {
        let literal = piece.split_once(']').map_or("", |(_, literal)| literal);
        let Some((_, after)) = rest.split_once(literal) else { return false };
        ends = is_cut || literal.is_empty() || rest.ends_with(literal);
        rest = after;
    }
    ends
}

/// Whether a text is, as a whole, what logs write for what they hide.
fn is_mark(text: &str) -> bool {
    text == "HIDDEN_DUE_TO_SECURITY_REASONS" || (text.len() >= 3 && text.bytes().all(|byte| byte == b'*'))
}

/// Whether something of a value may be missing in a text: by the log, by redaction, or because a decoder cut it.
fn conceals(text: &str) -> bool {
    is_mark(text) || text.contains(REDACTED) || text.len() >= MAY_BE_CUT
}

/// Text as it is, anything else as JSON.
pub(super) fn parsed(value: &str) -> Value {
    serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()))
}

fn is_nothing(value: &str) -> bool {
    matches!(value, "" | "null" | "{}" | "[]")
}

/// Whether two values say the same: numbers and truths as their texts, lists in any order, names in any case.
fn same(a: &Value, b: &Value) -> bool {
    plain(a) == plain(b)
}

fn plain(value: &Value) -> Value {
    match value {
        Value::Array(items) => {
            let mut items: Vec<String> = items.iter().map(|item| plain(item).to_string()).collect();
            items.sort_unstable();
            // A log may write one value for a list of one.
            match <[String; 1]>::try_from(items) {
                Ok([only]) => parsed(&only),
                Err(items) => items.into(),
            }
        }
        Value::Object(members) => {
            let members: BTreeMap<String, Value> =
                members.iter().map(|(name, member)| (name.to_ascii_lowercase(), plain(member))).collect();
            members.into_iter().collect::<serde_json::Map<_, _>>().into()
        }
        Value::String(text) => match parsed(text) {
            inner @ (Value::Array(_) | Value::Object(_)) => plain(&inner),
            _ => Value::String(text.clone()),
        },
        Value::Null => Value::String(String::new()),
        other => Value::String(other.to_string()),
    }
}

#[cfg(test)]
mod tests;
