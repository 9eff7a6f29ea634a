//! Redaction: secrets, and what the configuration names, become keyed hashes before an event leaves memory.
//!
//! `[redacted:<kind>:<12 hex>]` stands for a secret: the first bytes of its HMAC-SHA256 under a key of the installation, so
//! that equal secrets stay comparable and nobody without the key can try guesses. An event's digest and that of its
//! reasoning are taken before, by the decoders.
//!
//! The order is: decode, resolve, redact, then log and judge. Resolution compares an event with the registry and the estate
//! and writes down only what these say, so it may see everything; behind it, whoever an event belongs to, where it happened
//! and what it meant are known, and no hash can hide them. Baselines and policies see what the log has.
//!
//! Ids are no secrets: account, access key, role and request ids, ARNs and digests stay. An identity that the registry
//! names stays whole, for the rulebook has it already.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;
use std::sync::Arc;

use hmac::{Hmac, KeyInit, Mac};
use percent_encoding::percent_decode_str;
use regex::{Regex, RegexBuilder};
use serde_json::Value;
use sha2::Sha256;
use tautline_detectors::event::{AgentRef, Argument, Event, Millis, Outcome};
use tautline_detectors::rulebook::{Registry, Rulebook, hex};
use tautline_detectors::statement::Token;

use crate::resolve::resolve;
use crate::{Reader, Reason, Rejection, cloudtrail};

mod secrets;

use secrets::Found;

/// The most names that never leave.
pub const NAMES_MAX: usize = 10_000;
/// The most bytes that the expressions of names, or one of the configured ones, may take when compiled.
const COMPILED_MAX: usize = 64 * 1_024 * 1_024;
/// A value of an audit record that is as long was cut: a character has four bytes at most.
const CUT: usize = cloudtrail::ARGUMENT_MAX - 3;

/// What a cluster calls an object that holds secrets, whatever their names and values, and where they are in it.
const SECRET: &str = "Secret";
const SECRET_DATA: [&str; 2] = ["data", "stringData"];

/// What is redacted beside secrets of known forms.
#[derive(Debug, Default)]
pub struct Settings {
    /// Texts of events that are redacted whole.
    pub fields: Vec<Field>,
    /// What matches is redacted: a kind and an expression.
    pub patterns: Vec<(String, Regex)>,
    /// Words that never leave, e.g. the names of people.
    pub names: Vec<String>,
}

/// A text of an event that can be redacted whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field {
    /// The values of all arguments, or of those with a name.
    Arguments(Option<String>),
    /// Any other, one of [`FIELDS`].
    Text(&'static str),
}

/// What can be redacted whole, beside arguments. Not what findings and revocations name agents by.
const FIELDS: [&str; 13] = [
    "reasoning.text",
    "reasoning.reference",
    "resource.id",
    "outcome.reason",
    "origin.address",
    "origin.user_agent",
    "principal.on_behalf_of",
    "run.session",
    "run.id",
    "approval",
    "trace.trace_id",
    "trace.span_id",
    "trace.request_id",
];

impl FromStr for Field {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        if name == "arguments" {
            return Ok(Field::Arguments(None));
        }
        if let Some(argument) = name.strip_prefix("arguments.").filter(|argument| !argument.is_empty()) {
            return Ok(Field::Arguments(Some(argument.to_owned())));
        }
        FIELDS.into_iter().find(|field| *field == name).map(Field::Text).ok_or_else(|| {
            format!("unknown field `{name}`, expected `arguments`, `arguments.<name>` or one of {}", FIELDS.join(", "))
        })
    }
}

/// Compiles the expression of a configured pattern.
///
/// # Errors
///
/// What is wrong with the expression, in one line.
pub fn pattern(expression: &str) -> Result<Regex, String> {
    let compiled = RegexBuilder::new(expression).size_limit(COMPILED_MAX).build();
    compiled.map_err(|error| error.to_string().lines().last().unwrap_or_default().trim().to_owned())
}

/// Decodes, resolves and redacts. Cheap to clone; a clone has buffers of its own.
#[derive(Clone)]
pub struct Redactor {
    rules: Arc<Rules>,
    /// The texts of an event, one a line, in lower case.
    buffer: String,
}

struct Rules {
    settings: Settings,
    /// Any of the names, as whole words.
    names: Option<Regex>,
    mac: Hmac<Sha256>,
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Redactor")
    }
}

impl Redactor {
    /// A redactor with a key: two with the same key give equal secrets equal hashes.
    ///
    /// # Errors
    ///
    /// When there are more names than can be looked for.
    pub fn new(key: &[u8], settings: Settings) -> Result<Self, String> {
        if settings.names.len() > NAMES_MAX {
            return Err(format!("{} names, more than {NAMES_MAX}", settings.names.len()));
        }
        let names = any_of(&settings.names)?;
        let mac = Hmac::<Sha256>::new_from_slice(key).map_err(|error| error.to_string())?;
        Ok(Self { rules: Arc::new(Rules { settings, names, mac }), buffer: String::new() })
    }

    /// The events of a record, resolved by the rulebook and redacted; what could not be read, without what was in it.
    pub fn read(
        &mut self,
        bytes: &[u8],
        reader: &Reader,
        received: Millis,
        book: &Rulebook,
    ) -> Vec<Result<Event, Rejection>> {
        let mut results = self.decode(bytes, reader, received);
        for result in &mut results {
            if let Ok(event) = result
                && let Err(rejection) = self.resolve(event, book)
            {
                *result = Err(rejection);
            }
        }
        results
    }

    /// The events of a record as they are: for nothing but [`Redactor::resolve`], by one rulebook or several.
    pub fn decode(&self, bytes: &[u8], reader: &Reader, received: Millis) -> Vec<Result<Event, Rejection>> {
        let mut results = reader.decode(bytes, received);
        results.iter_mut().filter_map(|result| result.as_mut().err()).for_each(|why| self.rules.reject(why));
        results
    }

    /// Resolves a decoded event by a rulebook, and redacts it.
    ///
    /// # Errors
    ///
    /// It is a statement that holds a secret.
    pub fn resolve(&mut self, event: &mut Event, book: &Rulebook) -> Result<(), Rejection> {
        resolve(event, book);
        self.redact(event, &book.registry);
        if Rules::holds_secret_statement(event) {
            let detail = "the statement holds a secret, which no log may have: state it without";
            return Err(Rejection::new(Reason::InvalidValue, detail));
        }
        Ok(())
    }

    /// Redacts a resolved event, but for the identities that the registry names.
    pub fn redact(&mut self, event: &mut Event, registry: &Registry) {
        if !self.rules.settings.fields.is_empty() {
            self.rules.redact_fields(event);
        }
        if self.may_hold(event) {
            let known = Known::of(event, registry);
            let rules = &self.rules;
            let cuts = event.source.is_audit();
            let is_kind = |argument: &Argument| argument.name == "kind" && argument.value == SECRET;
            let of_secret = event.resource.kind == "secrets" || event.arguments.iter().any(is_kind);
            each_argument(event, |name, value| {
                if of_secret && SECRET_DATA.contains(&name.as_str()) {
                    rules.redact_whole("secret", value);
                }
                rules.redact_argument(name, value, cuts);
            });
            rules.redact_operation(event);
            each_text(event, &mut |text| rules.redact_text(text));
            known.restore(event, registry);
        }
    }

    /// Whether anything in an event has to be looked at closely. Most have not, and this is all that they cost.
    fn may_hold(&mut self, event: &mut Event) -> bool {
        if !self.rules.settings.patterns.is_empty() {
            return true;
        }
        let (buffer, mut suspect) = (&mut self.buffer, false);
        buffer.clear();
        let mut add = |text: &mut String| {
            suspect |= secrets::has_mixed_run(text);
            buffer.push_str(text);
            buffer.push('\n');
        };
        each_text(event, &mut add);
        each_argument(event, |name, value| {
            add(name);
            add(value);
        });
        // An escape of JSON can hide anything, and a cut anything's end.
        let hides = |value: &str| value.len() >= CUT || value.starts_with(['{', '[']) && value.contains('\\');
        suspect |= event.arguments.iter().any(|argument| hides(&argument.value));
        suspect |= event.source.is_audit() && is_strange(&event.action);
        buffer.make_ascii_lowercase();
        suspect |= buffer.contains('%') || secrets::may_hold(buffer.as_bytes());
        suspect || !self.rules.names_in(buffer).is_empty()
    }
}

/// What the registry knows an event's agent by.
struct Known {
    principal: Option<String>,
    claimed: Option<String>,
}

impl Known {
    fn of(event: &Event, registry: &Registry) -> Self {
        let principal = &event.principal;
        Self {
            principal: registry.by_identity(&principal.id).map(|_| principal.id.clone()),
            claimed: registry.by_id(&principal.claimed_agent).map(|_| principal.claimed_agent.clone()),
        }
    }

    /// Gives back what the registry would not know any more.
    fn restore(self, event: &mut Event, registry: &Registry) {
        let principal = &mut event.principal;
        if let Some(id) = self.principal.filter(|_| registry.by_identity(&principal.id).is_none()) {
            principal.id = id;
        }
        if let Some(id) = self.claimed.filter(|_| registry.by_id(&principal.claimed_agent).is_none()) {
            principal.claimed_agent = id;
        }
    }
}

/// Visits what an event says in words of its source, arguments aside. What the rulebook says of it stays.
fn each_text(event: &mut Event, visit: &mut impl FnMut(&mut String)) {
    // Whoever adds a field has to decide.
    let Event {
        id,
        digest: _,
        data_event: _,
        source: _,
        at: _,
        agent,
        principal,
        tool,
        action,
        verb: _,
        resource,
        place,
        claimed_environment,
        run,
        arguments: _,
        reasoning,
        approval,
        pre_state,
        credential,
        origin,
        trace,
        outcome,
        // Whoever changes it breaks its signature: one that holds a secret is refused instead.
        statement: _,
    } = event;
    if let AgentRef::Unregistered(principal) = agent {
        visit(principal);
    }
    let said = [id, tool, action, &mut principal.id, &mut principal.session, &mut principal.claimed_agent];
    said.into_iter().chain(&mut principal.on_behalf_of).for_each(&mut *visit);
    let located = [&mut place.account, &mut place.region, &mut place.cluster, &mut place.namespace];
    let described = [&mut resource.kind, &mut resource.id, &mut credential.id];
    let came = [&mut origin.address, &mut origin.user_agent, &mut origin.channel];
    located.into_iter().chain(described).chain(came).for_each(&mut *visit);
    claimed_environment.iter_mut().chain(approval).chain(pre_state).for_each(&mut *visit);
    if let Some(run) = run {
        [&mut run.session, &mut run.playbook, &mut run.id].into_iter().for_each(&mut *visit);
    }
    if let Some(reasoning) = reasoning {
        let digests = [&mut reasoning.digest, &mut reasoning.claimed_digest];
        [&mut reasoning.text, &mut reasoning.reference].into_iter().chain(digests).for_each(&mut *visit);
    }
    if let Some(trace) = trace {
        [&mut trace.trace_id, &mut trace.span_id, &mut trace.request_id].into_iter().for_each(&mut *visit);
    }
    if let Outcome::Denied(reason) | Outcome::Failed(reason) = outcome {
        visit(reason);
    }
}

/// Visits the arguments' names and values.
fn each_argument(event: &mut Event, mut visit: impl FnMut(&mut String, &mut String)) {
    event.arguments.iter_mut().for_each(|argument| visit(&mut argument.name, &mut argument.value));
}

/// The texts of a field.
fn texts_of<'e>(event: &'e mut Event, field: &Field) -> Vec<&'e mut String> {
    let field = match field {
        Field::Text(field) => *field,
        Field::Arguments(name) => {
            let named = |argument: &str| name.as_ref().is_none_or(|name| name == argument);
            return event.arguments.iter_mut().filter(|a| named(&a.name)).map(|a| &mut a.value).collect();
        }
    };
    match field {
        "resource.id" => vec![&mut event.resource.id],
        "origin.address" => vec![&mut event.origin.address],
        "origin.user_agent" => vec![&mut event.origin.user_agent],
        "principal.on_behalf_of" => event.principal.on_behalf_of.iter_mut().collect(),
        "approval" => event.approval.iter_mut().collect(),
        "outcome.reason" => match &mut event.outcome {
            Outcome::Denied(reason) | Outcome::Failed(reason) => vec![reason],
            Outcome::Success | Outcome::Unknown => Vec::new(),
        },
        "reasoning.text" => event.reasoning.iter_mut().map(|reasoning| &mut reasoning.text).collect(),
        "reasoning.reference" => event.reasoning.iter_mut().map(|reasoning| &mut reasoning.reference).collect(),
        "run.session" => event.run.iter_mut().map(|run| &mut run.session).collect(),
        "run.id" => event.run.iter_mut().map(|run| &mut run.id).collect(),
        "trace.trace_id" => event.trace.iter_mut().map(|trace| &mut trace.trace_id).collect(),
        "trace.span_id" => event.trace.iter_mut().map(|trace| &mut trace.span_id).collect(),
        "trace.request_id" => event.trace.iter_mut().map(|trace| &mut trace.request_id).collect(),
        _ => Vec::new(),
    }
}

impl Rules {
    /// Whether what a statement says holds a secret. The persons in it stay, whatever the settings: who approved is what it
    /// is for.
    fn holds_secret_statement(event: &Event) -> bool {
        let token = event.statement.as_deref().and_then(|text| Token::read(text).ok());
        let claims = token.and_then(|token| serde_json::to_string(&token.claims).ok());
        claims.is_some_and(|claims| !secrets::find(&claims).is_empty())
    }

    /// What stands for a secret.
    fn hash(&self, kind: &str, secret: &str) -> String {
        let mut mac = self.mac.clone();
        mac.update(secret.as_bytes());
        let digest = mac.finalize().into_bytes();
        format!("[redacted:{kind}:{}]", hex(digest.get(..6).unwrap_or_default()))
    }

    fn redact_fields(&self, event: &mut Event) {
        for field in &self.settings.fields {
            for text in texts_of(event, field) {
                self.redact_whole("field", text);
            }
        }
    }

    fn redact_whole(&self, kind: &str, text: &mut String) {
        if !text.is_empty() && !is_redacted(text) {
            *text = self.hash(kind, text);
        }
    }

    fn redact_text(&self, text: &mut String) {
        if let Some(redacted) = self.redacted(text) {
            *text = redacted;
        }
    }

    /// Decoders take the names of operations and types apart, to make one of the other: where either has a secret, a part
    /// of it may stand in the other and not be known for one.
    fn redact_operation(&self, event: &mut Event) {
        if !event.source.is_audit() {
            return;
        }
        let named = [&mut event.action, &mut event.resource.kind];
        if named.iter().any(|name| self.redacted(name).is_some() || is_strange(name)) {
            named.into_iter().for_each(|name| self.redact_whole("operation", name));
        }
    }

    fn redact_argument(&self, name: &mut String, value: &mut String, cuts: bool) {
        if secrets::is_secret_name(name) {
            self.redact_whole(secrets::kind(name), value);
        } else if let Some(redacted) = self.redacted_value(value, cuts) {
            *value = redacted;
        }
        self.redact_text(name);
    }

    /// The value of an argument without its secrets, where it has any: within JSON by its own names and without its
    /// escapes. Of a value that was cut, the last word may be half a secret.
    fn redacted_value(&self, value: &str, cuts: bool) -> Option<String> {
        let is_cut = cuts && value.len() >= CUT;
        if value.starts_with(['{', '[']) && !is_redacted(value) {
            if let Ok(mut json) = serde_json::from_str::<Value>(value) {
                return self.redact_json(&mut json).then(|| json.to_string());
            }
            if value.contains('\\') {
                return Some(self.hash("unreadable", value));
            }
        }
        if !is_cut {
            return self.redacted(value);
        }
        let (whole, last) = value.split_at(last_word(value));
        Some(self.redacted(whole).unwrap_or_else(|| whole.to_owned()) + &self.hash("cut", last))
    }

    /// Redacts the strings within a value; returns whether there was anything to redact.
    fn redact_json(&self, value: &mut Value) -> bool {
        match value {
            Value::String(text) => match self.redacted_value(text, false) {
                Some(redacted) => {
                    *text = redacted;
                    true
                }
                None => false,
            },
            // All of them, also behind the first that has something.
            Value::Array(values) => {
                values.iter_mut().map(|value| self.redact_json(value)).filter(|any| *any).count() > 0
            }
            Value::Object(members) => {
                let mut any = false;
                let of_secret = members.get("kind").is_some_and(|kind| kind == SECRET);
                for (name, mut member) in std::mem::take(members) {
                    let is_secret = secrets::is_secret_name(&name) || of_secret && SECRET_DATA.contains(&name.as_str());
                    any |=
                        if is_secret { self.redact_member(&name, &mut member) } else { self.redact_json(&mut member) };
                    let safe = self.redacted(&name);
                    any |= safe.is_some();
                    members.insert(safe.unwrap_or(name), member);
                }
                any
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => false,
        }
    }

    /// Redacts a member that is a secret, whatever it holds; returns whether there was anything to redact.
    fn redact_member(&self, name: &str, member: &mut Value) -> bool {
        if matches!(member, Value::Null | Value::Bool(_)) {
            return false;
        }
        let text = member.as_str().map_or_else(|| member.to_string(), str::to_owned);
        if text.is_empty() || is_redacted(&text) {
            return false;
        }
        *member = Value::String(self.hash(secrets::kind(name), &text));
        true
    }

    /// The text without its secrets, where it has any.
    fn redacted(&self, text: &str) -> Option<String> {
        let mut found = self.found(text);
        found.extend(
            secrets::percent_encoded(text)
                .filter(|range| self.is_encoded(text, range))
                .map(|range| of_kind("encoded", range)),
        );
        (!found.is_empty()).then(|| self.replaced(text, found))
    }

    /// Whether a stretch holds something when it is decoded, once or twice.
    fn is_encoded(&self, text: &str, range: &Range<usize>) -> bool {
        let encoded = text.get(range.clone()).unwrap_or_default();
        let once = percent_decode_str(encoded).decode_utf8_lossy();
        let twice = percent_decode_str(&once).decode_utf8_lossy();
        !self.found(&once).is_empty() || !self.found(&twice).is_empty()
    }

    fn found(&self, text: &str) -> Vec<Found<'_>> {
        let mut found = secrets::find(text);
        for (kind, expression) in &self.settings.patterns {
            found.extend(expression.find_iter(text).filter(|m| !m.is_empty()).map(|m| of_kind(kind, m.range())));
        }
        found.extend(self.names_in(text).into_iter().map(|range| of_kind("name", range)));
        found
    }

    fn replaced(&self, text: &str, mut found: Vec<Found<'_>>) -> String {
        found.sort_by_key(|found| (found.range.start, usize::MAX - found.range.end));
        let (mut safe, mut from) = (String::with_capacity(text.len()), 0);
        for Found { range, kind } in found {
            // What only begins within another is a secret to its end.
            let start = range.start.max(from);
            if range.end <= from {
                continue;
            }
            safe.push_str(text.get(from..start).unwrap_or_default());
            safe.push_str(&self.hash(kind, text.get(start..range.end).unwrap_or_default()));
            from = range.end;
        }
        safe.push_str(text.get(from..).unwrap_or_default());
        safe
    }

    /// Where names stand. Between the words of a name may be anything that is no word.
    fn names_in(&self, text: &str) -> Vec<Range<usize>> {
        let Some(names) = &self.names else { return Vec::new() };
        // To a regular expression `_` is a part of a word.
        let text = text.replace('_', " ");
        let whole = |range: &Range<usize>| {
            let inside = |c: char| c.is_alphanumeric();
            let (before, after) = (text.get(..range.start), text.get(range.end..));
            !before.and_then(|t| t.chars().next_back()).is_some_and(inside)
                && !after.and_then(|t| t.chars().next()).is_some_and(inside)
        };
        names.find_iter(&text).map(|found| found.range()).filter(whole).collect()
    }

    /// Takes out of a rejection what it quotes, but for words that are a path, a name of a field or a time.
    fn reject(&self, rejection: &mut Rejection) {
        let parts = rejection.detail.split('`').enumerate();
        let parts = parts.map(
            |(at, part)| {
                if at % 2 == 1 && !is_plain(part) { self.hash("input", part) } else { part.to_owned() }
            },
        );
        let detail = parts.collect::<Vec<_>>().join("`");
        rejection.detail = self.redacted(&detail).unwrap_or(detail);
    }
}

fn of_kind(kind: &str, range: Range<usize>) -> Found<'_> {
    Found { range, kind }
}

/// An expression for any of some names, the longest first: none must hide one that it begins.
fn any_of(names: &[String]) -> Result<Option<Regex>, String> {
    let mut names: Vec<&str> = names.iter().map(|name| name.trim()).filter(|name| !name.is_empty()).collect();
    if names.is_empty() {
        return Ok(None);
    }
    names.sort_by_key(|name| usize::MAX - name.len());
    let word = |name: &&str| {
        let words = name.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(regex::escape);
        words.collect::<Vec<_>>().join(r"[^\p{L}\p{N}]+")
    };
    let names: Vec<String> = names.iter().map(word).filter(|name| !name.is_empty()).collect();
    let expression = format!(r"(?i)\b{{start-half}}(?:{})\b{{end-half}}", names.join("|"));
    pattern(&expression).map(Some)
}

/// Whether this is no name of a cloud's operation: before an `@` may be a password, out of a URL that was taken apart.
fn is_strange(operation: &str) -> bool {
    operation.contains('@')
}

/// Whether a text is what stands for a secret, and nothing else.
fn is_redacted(text: &str) -> bool {
    let inside = text.strip_prefix("[redacted:").and_then(|text| text.strip_suffix(']'));
    inside.is_some_and(|inside| !inside.contains(['[', ']', ' ']) && inside.len() < 100)
}

/// Where the last word of a text begins.
fn last_word(text: &str) -> usize {
    let breaks = |c: char| !c.is_alphanumeric() && !"_-./+=~%:@".contains(c);
    text.rfind(breaks).map_or(0, |at| text.ceil_char_boundary(at + 1))
}

/// Whether what a rejection quotes is a path, a word or a time, as far as its form goes.
fn is_plain(quoted: &str) -> bool {
    const OWN: [&str; 4] = ["1.0", "tautline.agent.action.v1", "audit.k8s.io", "via CloudTrail"];
    let is_word = |word: &str| {
        let name = word.split('[').next().unwrap_or_default();
        let index = word.get(name.len()..).unwrap_or_default();
        name.len() <= 40
            && name.bytes().all(|byte| byte.is_ascii_alphabetic() || b"_-@$".contains(&byte))
            && index.bytes().all(|byte| byte.is_ascii_digit() || b"[]".contains(&byte))
            && index.len() <= 20
    };
    OWN.contains(&quoted) || quoted.parse::<jiff::Timestamp>().is_ok() || quoted.split('.').all(is_word)
}

#[cfg(test)]
#[path = "redact/tests.rs"]
mod tests;
