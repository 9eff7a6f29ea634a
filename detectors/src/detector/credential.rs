//! Credentials: how the audit log says that an agent proved who it is, against what its registration asks for.

use serde::Deserialize;

use super::recurrence::{is_due, note, noted};
use super::{Clue, Detector, Sighting, Suspicion, duration};
use crate::baselines::{Note, Past};
use crate::event::{CredentialKind, Event, Millis};
use crate::rulebook::{Agent, Class};

const DAY: Millis = 24 * 3_600_000;
const MINUTE: Millis = 60_000;

/// Reports credentials that are not what an agent should have. What an agent says of its own credential is neither held
/// against it nor for it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Credentials {
    /// Classes that may have no key without an end.
    short_lived: Vec<Class>,
    /// How old a key without an end may get.
    #[serde(deserialize_with = "duration")]
    rotate_after: Millis,
    /// After how long the same fault is reported again.
    #[serde(deserialize_with = "duration")]
    again: Millis,
}

/// One thing that is wrong with a credential.
struct Fault {
    what: String,
    expected: String,
    /// By what it is known that it was reported.
    name: String,
}

impl Credentials {
    fn faults(&self, event: &Event, agent: &Agent, past: Past<'_>) -> Vec<Fault> {
        let credential = &event.credential;
        if !event.source.is_audit() || credential.kind == CredentialKind::Service {
            return Vec::new();
        }
        let principal = &event.principal.id;
        let fault = |what: String, expected: &str| {
            let name = format!("{expected} {principal}");
            Fault { what, expected: expected.to_owned(), name }
        };
        let is_key = credential.kind == CredentialKind::LongLived;
        let long_lived = (is_key && self.short_lived.contains(&agent.class))
            .then(|| fault("uses a key without an end".to_owned(), "a short-lived credential"));
        let limit = agent.credential_lifetime.zip(credential.issued_at);
        let old = limit.map(|(most, issued)| (most, event.at.saturating_sub(issued))).filter(|(most, age)| age > most);
        let old = old.map(|(most, age)| {
            // A second too old is a minute too old: the numbers must not look as if nothing were wrong.
            let (age, most) = (age / MINUTE + 1, most / MINUTE);
            fault(
                format!("uses a credential that is up to {age} minutes old"),
                &format!("a credential of at most {most} minutes"),
            )
        });
        let workload = (agent.workload_identity && credential.workload_identity != Some(true)).then(|| {
            fault("uses a credential that no workload identity stands behind".to_owned(), "a workload identity")
        });
        let mutual = (agent.mutual_tls && credential.mutual_tls != Some(true))
            .then(|| fault("comes without mutual authentication".to_owned(), "a certificate of the agent's own"));
        let overdue = self.overdue(event, past);
        [long_lived, old, workload, mutual, overdue].into_iter().flatten().collect()
    }

    /// A key that should have been changed for another. It is as old as its issuer says, or else as it is known here.
    fn overdue(&self, event: &Event, past: Past<'_>) -> Option<Fault> {
        let since = event.credential.issued_at.or_else(|| noted(past, &key(event)?))?;
        let age = event.at.saturating_sub(since);
        (age > self.rotate_after).then_some(())?;
        key(event).map(|key| Fault {
            what: format!("uses a key that is known for {} days", age / DAY),
            expected: format!("a key that is changed every {} days", self.rotate_after / DAY),
            name: format!("overdue {key}"),
        })
    }

    fn due(&self, sighting: Sighting<'_>) -> impl Iterator<Item = Fault> {
        let Sighting { event, past, agent, .. } = sighting;
        let faults = self.faults(event, agent, past).into_iter();
        faults.filter(move |fault| is_due(past, &fault.name, event.at, self.again))
    }
}

/// By what a key without an end is known.
fn key(event: &Event) -> Option<String> {
    let credential = &event.credential;
    let is_key = credential.kind == CredentialKind::LongLived && !credential.id.is_empty() && event.source.is_audit();
    is_key.then(|| format!("key {}", credential.id))
}

impl Detector for Credentials {
    fn assess(&self, sighting: Sighting<'_>) -> Option<Suspicion> {
        let faults: Vec<Fault> = self.due(sighting).collect();
        let listed = |of: fn(&Fault) -> &str| faults.iter().map(of).collect::<Vec<_>>().join(", and ");
        let evidence = faults.iter().map(|fault| Clue {
            what: "credential".to_owned(),
            observed: fault.what.clone(),
            expected: fault.expected.clone(),
            p_value: None,
            sample: 0,
        });
        (!faults.is_empty()).then(|| Suspicion {
            what: listed(|fault| &fault.what),
            evidence: evidence.collect(),
            counterfactual: format!("with {}", listed(|fault| &fault.expected)),
            remember: Vec::new(),
            severity: None,
            rollback: None,
        })
    }

    fn note(&self, sighting: Sighting<'_>, notes: &mut Vec<Note>) {
        let at = sighting.event.at;
        notes.extend(self.due(sighting).map(|fault| note(&fault.name, at)));
        let first = key(sighting.event).filter(|key| noted(sighting.past, key).is_none());
        notes.extend(first.map(|key| note(&key, at)));
    }

    fn is_statistical(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use std::sync::Arc;

    use crate::baselines::Baselines;
    use crate::engine::{Engine, Input};
    use crate::event::{Credential, CredentialKind, Event, Source};
    use crate::rulebook::Rulebook;
    use crate::testing::{at, book, control, event};

    const DETECTOR: &str = "[[detector]]\nkind = \"credential\"\nshort_lived = [\"operator\"]\nrotate_after = \"90d\"\n\
        again = \"1d\"\n";
    const NOON: &str = "2026-03-02T12:00:00Z";

    fn with(agent: &str) -> Arc<Rulebook> {
        let agent = format!(
            "[agents.bot]\nclass = \"operator\"\nowner = \"ana@example.com\"\nidentities = [\"role/bot\"]\n\
             environments = [\"staging\"]\n{agent}\n"
        );
        Arc::new(book(&[("registry/agents/bot.toml", &agent), ("extra/control.toml", &control("extra", DETECTOR))]))
    }

    fn by(number: u32, credential: Credential, time: &str) -> Event {
        Event { source: Source::Cloudtrail, credential, ..event(number, "s3:GetObject", time) }
    }

    fn says(engine: &mut Engine, event: Event) -> String {
        let found = engine.step(&Input::Event(Box::new(event))).1.into_iter().map(|deviation| deviation.what);
        found.collect::<Vec<_>>().join(" ")
    }

    fn key(id: &str) -> Credential {
        Credential { id: id.to_owned(), kind: CredentialKind::LongLived, ..Credential::default() }
    }

    fn session(issued: &str) -> Credential {
        Credential { kind: CredentialKind::ShortLived, issued_at: Some(at(issued)), ..Credential::default() }
    }

    #[test]
    fn each_fault_of_a_credential_is_named() {
        for (agent, credential, expected) in [
            ("", session("2026-03-01T12:00:00Z"), ""),
            ("", key("k"), "without an end"),
            ("class = \"observer\"", key("k"), ""),
            ("credential_lifetime = \"1h\"", session("2026-03-02T11:00:00Z"), ""),
            ("credential_lifetime = \"1h\"", session("2026-03-02T10:59:59Z"), "61 minutes old"),
            ("credential_lifetime = \"1h\"", Credential::default(), ""),
            ("workload_identity = true", Credential::default(), "no workload identity"),
            ("workload_identity = true", Credential { workload_identity: Some(true), ..Credential::default() }, ""),
            ("mutual_tls = true", Credential { mutual_tls: Some(false), ..Credential::default() }, "mutual"),
            ("mutual_tls = true", Credential { mutual_tls: Some(true), ..Credential::default() }, ""),
            ("mutual_tls = true", Credential { kind: CredentialKind::Service, ..Credential::default() }, ""),
        ] {
            let is_class = agent.starts_with("class");
            let book = if is_class { observer() } else { with(agent) };
            let found = says(&mut Engine::new(book), by(1, credential.clone(), NOON));
            assert!(
                found.contains(expected) && found.is_empty() == expected.is_empty(),
                "{agent} {credential:?}: {found}"
            );
            let claimed = Credential { claimed: true, ..credential };
            let own_word = Event { source: Source::AgentAction, ..by(1, claimed, NOON) };
            assert_eq!(says(&mut Engine::new(with(agent.trim_start_matches("class = \"observer\""))), own_word), "");
        }
    }

    fn observer() -> Arc<Rulebook> {
        let agent = "[agents.bot]\nclass = \"observer\"\nowner = \"ana@example.com\"\n";
        Arc::new(book(&[("registry/agents/bot.toml", agent), ("extra/control.toml", &control("extra", DETECTOR))]))
    }

    #[test]
    fn a_fault_is_reported_once_a_day() {
        let mut engine = Engine::new(with(""));
        let counts = ["2026-03-02T12:00:00Z", "2026-03-02T23:00:00Z", "2026-03-03T12:00:00Z"].map(|time| {
            let number = u32::try_from(at(time) / 1_000 % 1_000_000).unwrap();
            says(&mut engine, by(number, key("k"), time)).len()
        });
        assert!(counts[0] > 0 && counts[1] == 0 && counts[2] > 0, "{counts:?}");
    }

    #[test]
    fn a_key_is_overdue_from_when_it_was_issued_or_first_seen_also_after_a_restart() {
        let book = with("");
        let mut engine = Engine::new(Arc::clone(&book));
        says(&mut engine, by(1, key("old"), "2026-01-01T00:00:00Z"));
        let restored = Baselines::restore(&engine.baselines().snapshot().unwrap()).unwrap();
        let mut engine = Engine::resume(book, restored);
        assert!(!says(&mut engine, by(2, key("old"), "2026-04-01T00:00:00Z")).contains("known for"), "on the day");
        assert!(says(&mut engine, by(3, key("old"), "2026-04-01T01:00:00Z")).contains("known for 90 days"));
        assert!(!says(&mut engine, by(4, key("new"), "2026-04-03T00:00:00Z")).contains("known for"));
        let issued = Credential { issued_at: Some(at("2025-04-01T00:00:00Z")), ..key("new") };
        assert!(says(&mut engine, by(5, issued, "2026-04-03T01:00:00Z")).contains("known for 367 days"));
    }
}
