//! Policies that never speak: those that nothing can match, and those that a weightier policy of their control always
//! speaks for.
//!
//! Found by asking every policy about every combination of facts that it can tell apart. Of a text that is any of a known
//! list, those are the values that its own texts and patterns divide the list into; of any other, one text for each way of
//! matching and not matching them.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use cedar_policy::{Effect, Policy, PolicyId, PolicySet, ValidationWarning};
use serde_json::Value;

use super::facts::{Facts, NOT_APPLICABLE, Reads, TEXTS, TRUTHS, UNREGISTERED, values};
use super::policy::{Policies, PolicyRef, VERBS};
use super::{Rulebook, RulebookError, UNMAPPED_ENVIRONMENT};
use crate::deviation::Severity;

/// Most combinations of facts that a policy is asked about: a second's work.
const MOST_COMBINATIONS: usize = 50_000;
/// Most states of the search for texts that patterns tell apart.
const MOST_STATES: usize = 10_000;
/// Names of the two ids beside [`TEXTS`].
const AGENT: &str = "principal.id";
const RESOURCE: &str = "resource.id";

/// The policies of a rulebook that never speak, or of which that is not known, each with its place.
pub(super) fn find(book: &Rulebook) -> Vec<RulebookError> {
    let subjects: Vec<Subject<'_>> = book.policies.iter().map(|found| Subject::of(book, found)).collect();
    let said = said_by_cedar(&book.policies);
    let mut found = Vec::new();
    for subject in &subjects {
        let what = match said.get(subject.policy.id()) {
            Some(said) => Some(said.clone()),
            None => subject.cannot_match().or_else(|| subject.is_spoken_for(&subjects)),
        };
        found.extend(what.map(|what| subject.warning(&what)));
    }
    found.sort();
    found
}

/// What Cedar's own validator warns of.
fn said_by_cedar(policies: &Policies) -> BTreeMap<PolicyId, String> {
    let said = |warning: &ValidationWarning| match warning {
        ValidationWarning::ImpossiblePolicy(_) | ValidationWarning::InvalidActionApplication(_) => {
            "can never match: by the schema, no request has all that it asks for".to_owned()
        }
        warning => format!("may not say what it seems to: {warning}"),
    };
    let validated = policies.validated();
    validated.validation_warnings().map(|warning| (warning.policy_id().clone(), said(warning))).collect()
}

/// A policy, and what has to be known of it.
struct Subject<'b> {
    book: &'b Rulebook,
    policy: &'b Policy,
    reference: &'b PolicyRef,
    severity: Severity,
    json: Value,
    reads: Reads,
}

impl<'b> Subject<'b> {
    fn of(book: &'b Rulebook, (policy, reference): (&'b Policy, &'b PolicyRef)) -> Self {
        let own = book.control(&reference.control).map(|control| control.severity);
        Self {
            book,
            policy,
            reference,
            severity: reference.severity.or(own).unwrap_or(Severity::Informational),
            json: policy.to_json().unwrap_or_default(),
            reads: book.policies.reads_of(policy),
        }
    }

    fn warning(&self, what: &str) -> RulebookError {
        let PolicyRef { id, path, line, .. } = self.reference;
        RulebookError { path: path.clone(), line: *line, message: format!("policy `{id}` {what}") }
    }

    /// Which of two policies speaks for both is that of the higher rank.
    fn rank(&self) -> (Severity, Reverse<usize>) {
        (self.severity, Reverse(self.reference.line))
    }

    fn cannot_match(&self) -> Option<String> {
        let Some(domain) = Domain::of(&[self]) else { return Some(unknown("it can match anything")) };
        if domain.any(|fitting| !fitting.is_empty()) {
            return None;
        }
        let why = self.unknown_value().unwrap_or_else(|| "no event has all that it asks for".to_owned());
        Some(format!("can never match: {why}"))
    }

    /// A value that it asks for and that nothing has.
    fn unknown_value(&self) -> Option<String> {
        let mut asked = Vec::new();
        comparisons(&self.json, &mut asked);
        asked.into_iter().find_map(|(name, text)| {
            let known = known_values(&name, self.book).filter(|known| !known.contains(&text))?;
            let some: Vec<String> = known.iter().take(12).map(|value| format!("`{value}`")).collect();
            Some(format!("nothing has `{text}` as {name}, only {}", some.join(", ")))
        })
    }

    /// Whether, whenever it matches, a weightier policy of its control does too.
    fn is_spoken_for(&self, all: &[Self]) -> Option<String> {
        let outranks = |other: &&Self| {
            other.reference.control == self.reference.control
                && other.policy.effect() == Effect::Forbid
                && other.rank() > self.rank()
        };
        let mut some: Vec<&Self> = all.iter().filter(outranks).collect();
        if some.is_empty() || self.policy.effect() == Effect::Permit {
            return None;
        }
        some.push(self);
        let Some(domain) = Domain::of(&some) else { return Some(unknown("others always speak for it")) };
        let own = self.policy.id();
        let mut speakers: BTreeSet<PolicyId> = BTreeSet::new();
        let speaks = domain.any(|fitting| {
            if fitting.contains(own) {
                speakers.extend(fitting.iter().filter(|id| *id != own).cloned());
            }
            fitting.contains(own) && fitting.len() == 1
        });
        let names: Vec<String> = speakers.iter().map(|id| format!("`{id}`")).collect();
        let names = names.join(", ");
        (!speaks)
            .then(|| format!("never speaks: whenever it matches, one that is weightier or stands first does ({names})"))
    }
}

fn unknown(what: &str) -> String {
    format!("tells too much apart to look into: not known whether {what}")
}

/// All combinations of facts that some policies can tell apart.
struct Domain<'b> {
    policies: &'b Policies,
    set: PolicySet,
    reads: Reads,
    /// Texts that are read, with their candidates.
    texts: Vec<(&'static str, Vec<String>)>,
    /// Places in [`TRUTHS`] that are read.
    truths: Vec<usize>,
}

impl<'b> Domain<'b> {
    /// `None` where there are too many, or where texts are compared with each other.
    fn of(some: &[&Subject<'b>]) -> Option<Self> {
        let book = some.first()?.book;
        let (mut reads, mut patterns) = (Reads::default(), BTreeSet::new());
        for subject in some {
            reads.add(&subject.reads);
            if compares_texts(&subject.json) {
                return None;
            }
            texts_in(&subject.json, &mut patterns);
        }
        let patterns: Vec<Pattern> = patterns.into_iter().collect();
        let ids = [(AGENT, reads.agent), (RESOURCE, reads.resource_id)];
        let read = TEXTS.into_iter().zip(reads.texts).chain(ids).filter(|(_, is_read)| *is_read);
        let texts =
            read.map(|(name, _)| Some((name, candidates(name, &patterns, book)?))).collect::<Option<Vec<_>>>()?;
        // What is changed is said by the verb.
        let truths =
            (0..TRUTHS.len()).filter(|at| reads.truths.get(*at) == Some(&true) && TRUTHS.get(*at) != Some(&CHANGES));
        let truths: Vec<usize> = truths.collect();
        let of_truths = 1_usize.checked_shl(u32::try_from(truths.len()).ok()?)?;
        let many = texts.iter().try_fold(of_truths * VERBS.len(), |many, (_, texts)| many.checked_mul(texts.len()))?;
        let set = PolicySet::from_policies(some.iter().map(|subject| subject.policy.clone())).ok()?;
        (many <= MOST_COMBINATIONS).then_some(Self { policies: &book.policies, set, reads, texts, truths })
    }

    /// Whether `is_it` holds of what fits any combination; what cannot be asked about is said to fit alone.
    fn any(&self, mut is_it: impl FnMut(&BTreeSet<PolicyId>) -> bool) -> bool {
        VERBS.into_iter().any(|verb| {
            let mut facts = Facts { agent: "", resource_id: "", verb, texts: [""; _], truths: [false; _] };
            set(&mut facts.truths, TRUTHS.iter().position(|name| *name == CHANGES), verb.changes());
            self.any_of_texts(0, facts, &mut |facts| {
                let fitting = self.policies.fitting(&self.set, facts);
                fitting.is_ok_and(|fitting| is_it(&fitting))
            })
        })
    }

    fn any_of_texts(&self, from: usize, facts: Facts<'_>, is_it: &mut dyn FnMut(&Facts<'_>) -> bool) -> bool {
        let Some((name, texts)) = self.texts.get(from) else { return self.any_of_truths(facts, is_it) };
        texts.iter().any(|text| {
            let mut facts = facts;
            match *name {
                AGENT => facts.agent = text,
                RESOURCE => facts.resource_id = text,
                name => set(&mut facts.texts, TEXTS.iter().position(|known| *known == name), text.as_str()),
            }
            self.any_of_texts(from + 1, facts, is_it)
        })
    }

    fn any_of_truths(&self, facts: Facts<'_>, is_it: &mut dyn FnMut(&Facts<'_>) -> bool) -> bool {
        (0..1_usize << self.truths.len()).any(|bits| {
            let mut facts = facts;
            for (bit, at) in self.truths.iter().enumerate() {
                set(&mut facts.truths, Some(*at), bits >> bit & 1 == 1);
            }
            is_possible(&facts, &self.reads) && is_it(&facts)
        })
    }
}

fn set<T>(places: &mut [T], at: Option<usize>, value: T) {
    if let Some(place) = at.and_then(|at| places.get_mut(at)) {
        *place = value;
    }
}

const CHANGES: &str = "context.changes";

/// Whether one event can have these facts together, as far as they are read; what is not read can be whatever fits.
fn is_possible(facts: &Facts<'_>, reads: &Reads) -> bool {
    let at = |names: &[&str], name: &str| names.iter().position(|known| *known == name);
    let text = |name: &str| {
        let at = at(&TEXTS, name).filter(|at| reads.texts.get(*at) == Some(&true));
        at.and_then(|at| facts.texts.get(at).copied())
    };
    let truth = |name: &str| {
        let at = at(&TRUTHS, name).filter(|at| reads.truths.get(*at) == Some(&true));
        at.and_then(|at| facts.truths.get(at).copied())
    };
    let is = |name: &str, value: &str| text(name).is_none_or(|text| text == value);
    let holds = |name: &str, value: bool| truth(name).is_none_or(|truth| truth == value);
    let unregistered = ["principal.class", "principal.status"].map(|name| text(name).map(|text| text == UNREGISTERED));
    let stranger = match unregistered {
        [Some(class), Some(status)] if class != status => return false,
        [class, status] => class.or(status) == Some(true),
    };
    let is_audit = text("context.source").is_some_and(|source| !OWN_WORD.contains(&source));
    (!stranger
        || (holds("context.environment_cleared", false)
            && holds("context.resource_type_approved", false)
            && holds("context.identity_disputed", false)
            && is("context.playbook", NOT_APPLICABLE)
            && text("context.window").is_none_or(|window| matches!(window, "none" | "freeze"))
            && (truth("context.data_approved") != Some(true) || is("resource.data", ""))))
        && (!is_audit || (is("context.playbook", NOT_APPLICABLE) && holds("context.identity_disputed", false)))
        && (text("resource.data") != Some("") || holds("context.data_approved", true))
        && (truth("resource.mapped") != Some(false)
            || (is("context.environment", UNMAPPED_ENVIRONMENT)
                && is("resource.tier", "")
                && holds("resource.crown_jewel", false)))
}

/// Sources that are an agent's own word.
const OWN_WORD: [&str; 4] = ["agent-action", "otel", "mcp", "mapping"];
/// Values by which [`is_possible`] tells combinations apart, beside the policies.
const SPECIAL: [&str; 8] =
    [UNREGISTERED, UNMAPPED_ENVIRONMENT, NOT_APPLICABLE, "", "none", "freeze", "agent-action", "cloudtrail"];

/// Every value of a text attribute that is one of a known list.
fn known_values(name: &str, book: &Rulebook) -> Option<BTreeSet<String>> {
    match name {
        AGENT => Some(book.registry.iter().map(|agent| agent.id.clone()).chain([String::new()]).collect()),
        name => values(name, book),
    }
}

/// The texts of an attribute that stand for all that it can have.
fn candidates(name: &str, patterns: &[Pattern], book: &Rulebook) -> Option<Vec<String>> {
    let Some(known) = known_values(name, book) else { return witnesses(patterns) };
    let mut kinds = BTreeSet::new();
    let mut stands_for_others = |value: &String| {
        let fits: Vec<bool> = patterns.iter().map(|pattern| fits(pattern, value)).collect();
        SPECIAL.contains(&value.as_str()) || kinds.insert(fits)
    };
    Some(known.into_iter().filter(|value| stands_for_others(value)).collect())
}

/// A text of a policy: its characters, `None` where any run of them may stand.
type Pattern = Vec<Option<char>>;

/// Which places of a pattern can have been reached; behind a star one may stay.
type Reached = BTreeSet<usize>;

fn start(pattern: &Pattern) -> Reached {
    closed(pattern, BTreeSet::from([0]))
}

/// With the places that are reached through stars that stand for nothing.
fn closed(pattern: &Pattern, mut reached: Reached) -> Reached {
    for (at, symbol) in pattern.iter().enumerate() {
        if symbol.is_none() && reached.contains(&at) {
            reached.insert(at + 1);
        }
    }
    reached
}

fn step(pattern: &Pattern, reached: &Reached, letter: char) -> Reached {
    let next = reached.iter().filter_map(|at| match pattern.get(*at)? {
        None => Some(*at),
        Some(symbol) => (*symbol == letter).then_some(at + 1),
    });
    closed(pattern, next.collect())
}

fn fits(pattern: &Pattern, text: &str) -> bool {
    text.chars().fold(start(pattern), |reached, letter| step(pattern, &reached, letter)).contains(&pattern.len())
}

/// A text for every way in which texts can fit some patterns and not others; `None` where that takes too long to find out.
fn witnesses(patterns: &[Pattern]) -> Option<Vec<String>> {
    let mut letters: BTreeSet<char> = patterns.iter().flatten().flatten().copied().collect();
    letters.extend(('a'..).find(|letter| !letters.contains(letter)));
    let begin: Vec<Reached> = patterns.iter().map(start).collect();
    let (mut seen, mut open) = (BTreeSet::from([begin.clone()]), VecDeque::from([(begin, String::new())]));
    let mut found: BTreeMap<Vec<bool>, String> = BTreeMap::new();
    while let Some((state, text)) = open.pop_front() {
        let fitting = patterns.iter().zip(&state).map(|(pattern, reached)| reached.contains(&pattern.len())).collect();
        for letter in &letters {
            let next: Vec<Reached> =
                patterns.iter().zip(&state).map(|(pattern, reached)| step(pattern, reached, *letter)).collect();
            if seen.insert(next.clone()) {
                open.push_back((next, format!("{text}{letter}")));
            }
        }
        found.entry(fitting).or_insert(text);
        if seen.len() > MOST_STATES {
            return None;
        }
    }
    Some(found.into_values().collect())
}

/// The texts and patterns in a policy in Cedar's JSON form.
fn texts_in(json: &Value, found: &mut BTreeSet<Pattern>) {
    match json {
        Value::Object(object) => {
            for (key, value) in object.iter().filter(|(key, _)| *key != "annotations") {
                match (key.as_str(), value) {
                    ("Value", Value::String(text)) | ("id", Value::String(text)) => {
                        found.insert(text.chars().map(Some).collect());
                    }
                    ("Value", Value::Array(values)) => {
                        found.extend(
                            values.iter().filter_map(Value::as_str).map(|text| text.chars().map(Some).collect()),
                        );
                    }
                    ("pattern", Value::Array(parts)) => {
                        found.insert(parts.iter().flat_map(pattern_part).collect());
                    }
                    _ => texts_in(value, found),
                }
            }
        }
        Value::Array(array) => array.iter().for_each(|value| texts_in(value, found)),
        _ => {}
    }
}

/// One part of a pattern: `"Wildcard"`, or `{"Literal": …}`.
fn pattern_part(part: &Value) -> Pattern {
    match part.get("Literal").and_then(Value::as_str) {
        Some(text) => text.chars().map(Some).collect(),
        None => vec![None],
    }
}

/// Whether a policy compares what it reads with something else that it reads.
fn compares_texts(json: &Value) -> bool {
    let reads = |side: Option<&Value>| side.is_some_and(|side| side.to_string().contains("\"Var\":"));
    match json {
        Value::Object(object) => object.iter().any(|(key, value)| {
            let compares = ["==", "!=", "contains", "containsAll", "containsAny", "in"].contains(&key.as_str());
            compares && reads(value.get("left")) && reads(value.get("right")) || compares_texts(value)
        }),
        Value::Array(array) => array.iter().any(compares_texts),
        _ => false,
    }
}

/// What a policy compares with which attributes.
fn comparisons(json: &Value, found: &mut Vec<(String, String)>) {
    match json {
        Value::Object(object) => {
            for (key, value) in object {
                if ["==", "contains"].contains(&key.as_str()) {
                    let (left, right) = (value.get("left"), value.get("right"));
                    for (one, other) in [(left, right), (right, left)] {
                        let mut texts = BTreeSet::new();
                        other.into_iter().for_each(|other| texts_in(other, &mut texts));
                        let name = one.and_then(attribute);
                        let text = |text: &Pattern| text.iter().flatten().collect::<String>();
                        found.extend(
                            name.into_iter().flat_map(|name| texts.iter().map(move |t| (name.clone(), text(t)))),
                        );
                    }
                }
                if key == "entity" && value.get("type").is_some_and(|kind| kind == "Agent") {
                    found.extend(value.get("id").and_then(Value::as_str).map(|id| (AGENT.to_owned(), id.to_owned())));
                }
                comparisons(value, found);
            }
        }
        Value::Array(array) => array.iter().for_each(|value| comparisons(value, found)),
        _ => {}
    }
}

/// The name of an attribute of a variable.
fn attribute(json: &Value) -> Option<String> {
    let access = json.get(".")?;
    let (variable, attribute) = (access.pointer("/left/Var")?.as_str()?, access.get("attr")?.as_str()?);
    Some(format!("{variable}.{attribute}"))
}

#[cfg(test)]
mod tests;
