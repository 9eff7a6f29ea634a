//! Principals: an agent that acts as a person, or as an account that is everybody's.

use serde::Deserialize;

use super::recurrence::{is_due, note};
use super::{Clue, Detector, Sighting, Suspicion, duration};
use crate::baselines::Note;
use crate::deviation::Severity;
use crate::event::{Event, Millis};
use crate::glob::{self, Glob};

/// Reports events of the audit log that are an agent's by the registry, and somebody else's by how they came about.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Principals {
    /// Principals that are persons.
    persons: Vec<Glob>,
    /// Those among them that are none.
    machines: Vec<Glob>,
    /// Operations that only persons make.
    operations: Vec<Glob>,
    /// User agents that only persons use.
    user_agents: Vec<Glob>,
    /// Accounts of a general purpose.
    general_accounts: Vec<Glob>,
    /// After how long the same is reported again.
    #[serde(deserialize_with = "duration")]
    again: Millis,
    /// How bad each finding is.
    #[serde(default)]
    severities: Severities,
}

/// How bad each finding is; what is not given is as in the rules that are shipped.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Severities {
    person: Severity,
    general_account: Severity,
}

impl Default for Severities {
    fn default() -> Self {
        Self { person: Severity::High, general_account: Severity::Medium }
    }
}

/// Who stands behind a request instead of the agent itself.
struct Fault {
    /// What was seen.
    observed: String,
    /// What that is.
    what: &'static str,
    severity: Severity,
}

impl Principals {
    fn fault(&self, event: &Event) -> Option<Fault> {
        let principal = &event.principal.id;
        if !event.source.is_audit() {
            return None;
        }
        if let Some(observed) = self.person(event) {
            let severity = self.severities.person;
            return Some(Fault { observed, what: "is done with a person's credential", severity });
        }
        glob::any(&self.general_accounts, principal).then(|| Fault {
            observed: format!("principal `{principal}`"),
            what: "is done by a general account, which is not the agent's own",
            severity: self.severities.general_account,
        })
    }

    /// What shows that a person made the request.
    fn person(&self, event: &Event) -> Option<String> {
        let (principal, user_agent) = (&event.principal.id, &event.origin.user_agent);
        if glob::any(&self.persons, principal) && !glob::any(&self.machines, principal) {
            return Some(format!("principal `{principal}`"));
        }
        if event.credential.mfa == Some(true) {
            return Some("a second factor".to_owned());
        }
        if glob::any(&self.operations, &event.action) {
            return Some(format!("operation `{}`", event.action));
        }
        glob::any(&self.user_agents, user_agent).then(|| format!("user agent `{user_agent}`"))
    }
}

/// What is noted of a fault that was reported.
fn name(fault: &Fault, event: &Event) -> String {
    format!("{} {}", fault.what, event.principal.id)
}

impl Detector for Principals {
    fn assess(&self, sighting: Sighting<'_>) -> Option<Suspicion> {
        let Sighting { event, past, .. } = sighting;
        let fault = self.fault(event).filter(|fault| is_due(past, &name(fault, event), event.at, self.again))?;
        Some(Suspicion {
            what: format!("{} ({})", fault.what, fault.observed),
            evidence: vec![Clue {
                what: "principal".to_owned(),
                observed: fault.observed,
                expected: "an identity that only this agent has".to_owned(),
                p_value: None,
                sample: 0,
            }],
            counterfactual: "under an identity of the agent's own".to_owned(),
            remember: Vec::new(),
            severity: Some(fault.severity),
            rollback: None,
        })
    }

    fn note(&self, sighting: Sighting<'_>, notes: &mut Vec<Note>) {
        let Sighting { event, past, .. } = sighting;
        let fault = self.fault(event).map(|fault| name(&fault, event));
        notes.extend(fault.filter(|name| is_due(past, name, event.at, self.again)).map(|name| note(&name, event.at)));
    }

    /// What a person does is no habit of the agent's.
    fn awaits(&self, sighting: Sighting<'_>) -> bool {
        sighting.event.source.is_audit() && self.person(sighting.event).is_some()
    }

    fn is_statistical(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;

    use crate::baselines::Dimension;
    use crate::engine::{Engine, Input};
    use crate::event::{Credential, Event, Source};
    use crate::testing::{book, control, event};

    const DETECTOR: &str = r#"[[detector]]
kind = "principal"
persons = ["*@*"]
machines = ["*.gserviceaccount.com"]
operations = ["signin:ConsoleLogin"]
user_agents = ["console*"]
general_accounts = ["*-compute@developer.gserviceaccount.com"]
again = "1d"
"#;

    fn engine() -> Engine {
        Engine::new(Arc::new(book(&[("extra/control.toml", &control("extra", DETECTOR))])))
    }

    fn by(number: u32, principal: &str, time: &str) -> Event {
        let mut event = Event { source: Source::Gcp, ..event(number, "s3:GetObject", time) };
        principal.clone_into(&mut event.principal.id);
        event
    }

    fn found(engine: &mut Engine, event: Event) -> Vec<String> {
        engine.step(&Input::Event(Box::new(event))).1.into_iter().map(|deviation| deviation.what).collect()
    }

    #[test]
    fn persons_and_general_accounts_are_told_from_the_agents_own() {
        let time = "2026-03-02T09:00:00Z";
        let says = |event: Event| found(&mut engine(), event).join(" ");
        assert!(says(by(1, "ana@example.com", time)).contains("a person's credential (principal `ana@"));
        assert!(says(by(2, "1-compute@developer.gserviceaccount.com", time)).contains("general account"));
        let second_factor = Credential { mfa: Some(true), ..Credential::default() };
        assert!(says(Event { credential: second_factor, ..by(3, "role/bot", time) }).contains("second factor"));
        let login = Event { action: "signin:ConsoleLogin".to_owned(), ..by(4, "role/bot", time) };
        assert!(says(login).contains("signin:ConsoleLogin"));
        let mut clicked = by(5, "role/bot", time);
        clicked.origin.user_agent = "console.amazonaws.com".to_owned();
        assert!(says(clicked).contains("user agent"));
        assert_eq!(says(by(6, "bot@project.iam.gserviceaccount.com", time)), "");
        assert_eq!(says(Event { source: Source::AgentAction, ..by(7, "ana@example.com", time) }), "", "its own word");
    }

    #[test]
    fn the_same_is_reported_once_a_day_and_nothing_is_learned_of_a_person() {
        let mut engine = engine();
        let times = ["2026-03-02T09:30:00Z", "2026-03-02T10:00:00Z", "2026-03-03T09:00:00Z", "2026-03-03T10:00:00Z"];
        let counts: Vec<usize> =
            (1..).zip(times).map(|(n, time)| found(&mut engine, by(n, "ana@example.com", time)).len()).collect();
        assert_eq!(counts, [1, 0, 1, 0], "hours are what is remembered");
        assert_eq!(found(&mut engine, by(9, "tom@example.com", times[3])).len(), 1, "somebody else");
        let past = engine.baselines().past("bot");
        assert_eq!(past.cell(Dimension::Read, "s3:GetObject").count, 0);
    }
}
