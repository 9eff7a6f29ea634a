//! Sharing: one credential that two agents use, or that is used by an agent that it was not issued to.

use serde::Deserialize;

use super::{Clue, Detector, Sharing, Sighting, Suspicion};
use crate::deviation::Severity;

/// Reports the second agent that uses a credential. What an agent only says of itself is held against that agent alone:
/// whoever names another's credential accuses nobody but itself.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SharedCredential {
    /// How bad each finding is.
    #[serde(default)]
    severities: Severities,
}

/// How bad each finding is; what is not given is as in the rules that are shipped.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Severities {
    used: Severity,
    claimed: Severity,
    claimed_by_both: Severity,
}

impl Default for Severities {
    fn default() -> Self {
        Self { used: Severity::High, claimed: Severity::Medium, claimed_by_both: Severity::Low }
    }
}

impl Detector for SharedCredential {
    fn assess(&self, _sighting: Sighting<'_>) -> Option<Suspicion> {
        None
    }

    fn share(&self, sharing: &Sharing<'_>) -> Option<Suspicion> {
        let Sharing { credential, other, claimed, other_claimed } = sharing;
        let severities = &self.severities;
        let (what, severity) = match (claimed, other_claimed) {
            (false, _) => (format!("uses credential `{credential}`, which agent `{other}` uses too"), severities.used),
            (true, false) => (
                format!("says that it uses credential `{credential}`, which the audit log shows with agent `{other}`"),
                severities.claimed,
            ),
            (true, true) => (
                format!(
                    "says that it uses credential `{credential}`, and so does agent `{other}`, by both agents' word"
                ),
                severities.claimed_by_both,
            ),
        };
        Some(Suspicion {
            what,
            evidence: vec![Clue {
                what: "credential".to_owned(),
                observed: format!("credential `{credential}`, also of agent `{other}`"),
                expected: "a credential that was issued to this agent alone".to_owned(),
                p_value: None,
                sample: 0,
            }],
            counterfactual: "with a credential that was issued to this agent alone".to_owned(),
            remember: Vec::new(),
            severity: Some(severity),
            rollback: None,
        })
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
    use crate::deviation::Deviation;
    use crate::engine::{Engine, Input};
    use crate::event::{AgentRef, Credential, Event, Source};
    use crate::rulebook::Rulebook;
    use crate::testing::{book, control, event};

    const DETECTOR: &str = "[[detector]]\nkind = \"shared-credential\"\n";
    const OTHERS: &str = "[agents.other]\nclass = \"operator\"\nowner = \"ana@example.com\"\n\
        [agents.third]\nclass = \"operator\"\nowner = \"ana@example.com\"\n";

    fn rules() -> Arc<Rulebook> {
        rules_with("")
    }

    fn rules_with(more: &str) -> Arc<Rulebook> {
        let detector = control("extra", &format!("{DETECTOR}{more}"));
        Arc::new(book(&[("registry/agents/others.toml", OTHERS), ("extra/control.toml", &detector)]))
    }

    fn used(number: u32, agent: &str, source: Source) -> Input {
        let credential = Credential { id: "k".to_owned(), ..Credential::default() };
        let agent = AgentRef::Registered(agent.to_owned());
        let event = event(number, "s3:GetObject", "2026-03-02T09:00:00Z");
        Input::CredentialUse(Box::new(Event { source, agent, credential, ..event }))
    }

    fn about(found: &[Deviation]) -> Vec<(&str, &str, &str)> {
        found.iter().map(|d| (d.id.as_str(), d.agent.id.as_str(), d.severity.name())).collect()
    }

    #[test]
    fn the_second_agent_is_reported_and_a_claim_accuses_only_who_makes_it() {
        let mut engine = Engine::new(rules());
        let (said, done) = (Source::AgentAction, Source::Cloudtrail);
        assert_eq!(engine.step(&used(1, "bot", said)).1, []);
        assert_eq!(engine.step(&used(2, "bot", said)).1, []);
        // That the credential is `other`'s shows what `bot` said to be about somebody else's.
        let found = engine.step(&used(3, "other", done)).1;
        assert_eq!(about(&found), [("extra/test/1/credential/other/0", "bot", "medium")]);
        assert!((found[0].trust.after - found[0].trust.before).abs() < 1e-9, "its memory may lie in another shard");
        let found = engine.step(&used(4, "third", done)).1;
        let expected = [
            ("extra/test/1/credential/third/0", "bot", "medium"),
            ("extra/test/4/credential/other/0", "third", "high"),
        ];
        assert_eq!(about(&found), expected);
        assert_eq!(engine.step(&used(5, "third", done)).1, [], "once");
        assert_eq!(engine.step(&used(6, "nobody", done)).1, [], "no agent of the registry");
    }

    #[test]
    fn two_claims_are_told_as_such_and_as_bad_as_the_control_says() {
        for (severities, severity) in [("", "low"), ("severities = { claimed_by_both = \"high\" }\n", "high")] {
            let mut engine = Engine::new(rules_with(severities));
            engine.step(&used(1, "bot", Source::AgentAction));
            let found = engine.step(&used(2, "other", Source::Otel)).1;
            assert_eq!(about(&found), [("extra/test/2/credential/bot/0", "other", severity)]);
            assert_eq!(found[0].score.to_bits(), engine.rulebook().trust.score(found[0].severity).to_bits());
        }
    }

    #[test]
    fn who_used_a_credential_is_known_after_a_restart() {
        let mut engine = Engine::new(rules());
        engine.step(&used(1, "bot", Source::Cloudtrail));
        let restored = Baselines::restore(&engine.baselines().snapshot().unwrap()).unwrap();
        let found = Engine::resume(rules(), restored).step(&used(2, "other", Source::Cloudtrail)).1;
        assert_eq!(about(&found), [("extra/test/2/credential/bot/0", "other", "high")]);
        let pieces: Vec<_> = engine.freeze().iter().map(|piece| piece.tables().unwrap()).collect();
        let mut restored = Baselines::default();
        pieces.iter().for_each(|piece| restored.absorb(piece).unwrap());
        assert_eq!(Engine::resume(rules(), restored).step(&used(2, "other", Source::Cloudtrail)).1.len(), 1);
    }
}
