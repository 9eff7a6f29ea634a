//! What the tests of this crate share: small rulebooks, and events that nothing is wrong with.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use crate::event::{AgentRef, Digest, Event, Millis, Outcome, Place, Run, Verb};
use crate::rulebook::{RuleFile, Rulebook, RulebookError};

const SCHEMA: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../rules/schema.cedarschema"));
const PEOPLE: &str = "[people.\"ana@example.com\"]\nname = \"Ana\"\n";
const AGENT: &str = "[agents.bot]\nclass = \"operator\"\nowner = \"ana@example.com\"\nidentities = [\"role/bot\"]\n\
    environments = [\"staging\"]\nresource_types = [\"*\"]\ntools = [\"*\"]\n";
const CONTROL: &str = "title = \"A test\"\nseverity = \"high\"\nresponse = \"alert\"\n";
const PERMIT: &str =
    "@id(\"known\")\npermit (principal, action, resource) when { principal.class != \"unregistered\" };\n";

pub(crate) fn file(name: &str, text: &str) -> RuleFile {
    RuleFile { name: name.to_owned(), path: format!("rules/{name}"), text: text.to_owned() }
}

/// A rulebook of one operator, `bot`, to whom everything is permitted; `files` replace what is there, or come on top.
pub(crate) fn read(files: &[(&str, &str)]) -> Result<Rulebook, Vec<RulebookError>> {
    let base = [
        ("schema.cedarschema", SCHEMA.to_owned()),
        ("registry/people.toml", PEOPLE.to_owned()),
        ("registry/agents/bot.toml", AGENT.to_owned()),
        ("base/control.toml", format!("id = \"base\"\n{CONTROL}")),
        ("base/policy.cedar", PERMIT.to_owned()),
    ];
    let kept = base.iter().filter(|(name, _)| files.iter().all(|(other, _)| other != name));
    let files = kept.map(|(name, text)| file(name, text)).chain(files.iter().map(|(name, text)| file(name, text)));
    Rulebook::read(files.collect())
}

pub(crate) fn book(files: &[(&str, &str)]) -> Rulebook {
    read(files).unwrap_or_else(|errors| panic!("{}", texts(&errors).join("\n")))
}

/// What is wrong with a rulebook, as people read it.
pub(crate) fn faults(files: &[(&str, &str)]) -> Vec<String> {
    match read(files) {
        Ok(book) => panic!("nothing is wrong with rulebook {}", book.hash()),
        Err(errors) => texts(&errors),
    }
}

fn texts(errors: &[RulebookError]) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

/// A `control.toml` with detectors.
pub(crate) fn control(id: &str, rest: &str) -> String {
    format!("id = \"{id}\"\n{CONTROL}{rest}")
}

/// The milliseconds of `2026-03-02T09:00:00Z`.
pub(crate) fn at(time: &str) -> Millis {
    time.parse::<jiff::Timestamp>().unwrap().as_millisecond()
}

/// An action of `bot` at a place that it is cleared for.
pub(crate) fn event(number: u32, action: &str, time: &str) -> Event {
    Event {
        id: format!("test/{number}"),
        digest: Digest(number.into()),
        at: at(time),
        agent: AgentRef::Registered("bot".to_owned()),
        action: action.to_owned(),
        verb: Verb::Read,
        place: Place { environment: "staging".to_owned(), mapped: true, ..Place::default() },
        outcome: Outcome::Success,
        ..Event::default()
    }
}

/// The same as a part of a playbook's run.
pub(crate) fn in_run(event: Event, playbook: &str, run: &str) -> Event {
    let run = Run { session: String::new(), playbook: playbook.to_owned(), id: run.to_owned() };
    Event { run: Some(run), ..event }
}
