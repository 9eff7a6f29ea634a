//! Exceptions: what persons expect for a while, so that a control does not report it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;
use toml::Spanned;

use super::people::People;
use super::registry::parse_duration;
use super::toml_file::{Entry, TomlFile};
use super::{Control, Registry, RuleFile, RulebookError};
use crate::event::{Event, Millis};
use crate::glob::{self, Glob};

/// Where exceptions stand.
const FILE: &str = "registry/exceptions.toml";

/// All exceptions, by the agents that they are for.
#[derive(Clone, Debug, Default)]
pub struct Exceptions {
    by_agent: BTreeMap<String, Vec<Exception>>,
}

/// What one control is not to report of one agent, and until when.
#[derive(Clone, Debug)]
pub struct Exception {
    /// Its id.
    pub id: String,
    /// The control.
    pub control: String,
    /// The agent.
    pub agent: String,
    /// The person who answers for it.
    pub by: String,
    /// Why.
    pub why: String,
    /// From when on.
    pub since: Millis,
    /// Until when.
    pub until: Millis,
    operations: Vec<Glob>,
    resources: Option<Vec<Glob>>,
    environments: Option<Vec<Glob>>,
}

impl Exception {
    fn covers(&self, control: &str, event: &Event) -> bool {
        let any = |patterns: &Option<Vec<Glob>>, text: &str| {
            patterns.as_ref().is_none_or(|patterns| glob::any(patterns, text))
        };
        self.control == control
            && (self.since..self.until).contains(&event.at)
            && glob::any(&self.operations, &event.action)
            && any(&self.resources, &event.resource.id)
            && any(&self.environments, &event.place.environment)
    }
}

impl Exceptions {
    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Exception> {
        self.by_agent.values().flatten()
    }

    /// The exception under which a control is silent about an agent's event, by when that happened.
    pub(crate) fn covering(&self, control: &str, agent: &str, event: &Event) -> Option<&Exception> {
        self.by_agent.get(agent)?.iter().find(|exception| exception.covers(control, event))
    }

    /// Reads `exceptions.toml`.
    pub(super) fn read(
        files: &[RuleFile],
        (people, registry, controls): (&People, &Registry, &BTreeMap<String, Control>),
        errors: &mut Vec<RulebookError>,
    ) -> Self {
        let Some(file) = files.iter().find(|file| file.name == FILE) else { return Self::default() };
        let mut toml = TomlFile::parse(file, errors);
        let entries = toml.named::<RawException>("exceptions", errors);
        let Some(RawRest { longest }) = toml.rest(errors) else { return Self::default() };
        let place = longest.span().start;
        let longest = parse_duration(longest.get_ref()).map_err(|message| errors.push(file.error(place, message)));
        let mut exceptions = Self::default();
        for Entry { name, value, span } in entries {
            let (exception, faults) = value.read(name, longest.unwrap_or(Millis::MAX));
            errors.extend(faults.into_iter().map(|(at, message)| file.error(at, message)));
            let unknown = [
                (!people.contains(&exception.by)).then(|| format!("`{}` is nobody of people.toml", exception.by)),
                registry.by_id(&exception.agent).is_none().then(|| format!("no agent `{}`", exception.agent)),
                (!controls.contains_key(&exception.control)).then(|| format!("no control `{}`", exception.control)),
            ];
            let unknown = unknown.into_iter().flatten();
            errors.extend(unknown.map(|what| file.error(span.start, format!("exception `{}`: {what}", exception.id))));
            exceptions.by_agent.entry(exception.agent.clone()).or_default().push(exception);
        }
        exceptions
    }
}

/// The rest of the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRest {
    /// For how long an exception may hold.
    longest: Spanned<String>,
}

/// An exception as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawException {
    control: String,
    agent: String,
    operations: Vec<Glob>,
    resources: Option<Vec<Glob>>,
    environments: Option<Vec<Glob>>,
    by: String,
    why: Spanned<String>,
    since: Spanned<String>,
    until: Spanned<String>,
}

impl RawException {
    /// The exception, and what is wrong with it, with the places.
    fn read(self, id: String, longest: Millis) -> (Exception, Vec<(usize, String)>) {
        let mut faults = Vec::new();
        let mut time = |text: &Spanned<String>| match text.get_ref().parse::<Timestamp>() {
            Ok(time) => time.as_millisecond(),
            Err(_) => {
                let message = format!("`{}` is not a time: write `2026-12-01T00:00:00Z`", text.get_ref());
                faults.push((text.span().start, message));
                0
            }
        };
        let (since, until) = (time(&self.since), time(&self.until));
        if faults.is_empty() && until <= since {
            faults.push((self.until.span().start, format!("exception `{id}` ends before it begins")));
        }
        if faults.is_empty() && until - since > longest {
            let message = format!("exception `{id}` holds for longer than `longest` allows: let it end sooner");
            faults.push((self.until.span().start, message));
        }
        if self.why.get_ref().trim().is_empty() {
            faults.push((self.why.span().start, format!("exception `{id}` says no reason: `why` must")));
        }
        let Self { control, agent, operations, resources, environments, by, why, .. } = self;
        let why = why.into_inner();
        let exception = Exception { id, control, agent, by, why, since, until, operations, resources, environments };
        (exception, faults)
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{book, change, faults};

    const EXCEPTION: &str = "[exceptions.move]\ncontrol = \"base\"\nagent = \"bot\"\noperations = [\"ec2:*\"]\n\
        environments = [\"production\"]\nby = \"ana@example.com\"\nwhy = \"the move of volumes\"\n\
        since = \"2026-03-02T00:00:00Z\"\nuntil = \"2026-03-09T00:00:00Z\"\n";

    fn with(from: &str, to: &str) -> String {
        format!("longest = \"30d\"\n{}", EXCEPTION.replace(from, to))
    }

    #[test]
    fn an_exception_is_for_one_control_and_agent_and_for_what_it_names_until_it_ends() {
        let book = book(&[("registry/exceptions.toml", &with("", ""))]);
        let covers = |control, agent, action, time| {
            book.exceptions.covering(control, agent, &change(1, action, time)).map(|exception| exception.id.as_str())
        };
        assert_eq!(covers("base", "bot", "ec2:DeleteVolume", "2026-03-02T00:00:00Z"), Some("move"));
        assert_eq!(covers("other", "bot", "ec2:DeleteVolume", "2026-03-02T00:00:00Z"), None);
        assert_eq!(covers("base", "other", "ec2:DeleteVolume", "2026-03-02T00:00:00Z"), None);
        assert_eq!(covers("base", "bot", "s3:DeleteBucket", "2026-03-02T00:00:00Z"), None);
        assert_eq!(covers("base", "bot", "ec2:DeleteVolume", "2026-03-01T23:59:59Z"), None);
        assert_eq!(covers("base", "bot", "ec2:DeleteVolume", "2026-03-09T00:00:00Z"), None, "it has ended");
        let mut elsewhere = change(1, "ec2:DeleteVolume", "2026-03-03T00:00:00Z");
        elsewhere.place.environment = "staging".to_owned();
        assert!(book.exceptions.covering("base", "bot", &elsewhere).is_none());
    }

    #[test]
    fn what_is_wrong_with_an_exception_is_named() {
        for (from, to, fault) in [
            ("\"ana@example.com\"", "\"eve\"", "`eve` is nobody of people.toml"),
            ("agent = \"bot\"", "agent = \"bog\"", "no agent `bog`"),
            ("\"base\"", "\"bass\"", "no control `bass`"),
            ("2026-03-09", "2026-03-01", "ends before it begins"),
            ("2026-03-09", "2026-04-09", "holds for longer than `longest` allows"),
            ("the move of volumes", " ", "says no reason"),
            ("2026-03-09T00:00:00Z", "soon", "`soon` is not a time"),
            ("why =", "because =", "because"),
        ] {
            let found = faults(&[("registry/exceptions.toml", &with(from, to))]);
            assert!(found.iter().any(|found| found.contains(fault)), "{fault}: {found:?}");
        }
        let found = faults(&[("registry/exceptions.toml", EXCEPTION)]);
        assert!(found.iter().any(|found| found.contains("longest")), "{found:?}");
    }
}
