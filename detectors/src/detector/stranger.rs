//! Strangers: principals of the audit log that nobody registered and that look like agents.

use serde::Deserialize;

use super::{Detector, Sighting, Suspicion};
use crate::event::Event;
use crate::glob::{self, Glob};

/// Reports, once each, unregistered principals whose requests come from an agent's software, or by a way that the cloud
/// itself says is an agent's. Whoever hides that is taken for a person.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Strangers {
    /// Patterns over user agents, in lower case.
    user_agents: Vec<Glob>,
    /// Patterns over the cloud's own word for how an agent was at work.
    channels: Vec<Glob>,
}

impl Strangers {
    /// What gives an agent away.
    fn tell<'e>(&self, event: &'e Event) -> Option<(&'static str, &'e str)> {
        let (channel, user_agent) = (&event.origin.channel, &event.origin.user_agent);
        if !channel.is_empty() && glob::any(&self.channels, channel) {
            return Some(("channel", channel));
        }
        let is_agents = !user_agent.is_empty() && glob::any(&self.user_agents, &user_agent.to_ascii_lowercase());
        is_agents.then_some(("user agent", user_agent))
    }
}

impl Detector for Strangers {
    fn assess(&self, _sighting: Sighting<'_>) -> Option<Suspicion> {
        None
    }

    fn notice(&self, event: &Event) -> Option<Suspicion> {
        let (tell, text) = self.tell(event)?;
        let what = format!("behaves like an agent by its {tell} `{text}`, and is in no registry");
        let seen = [text.to_owned(), "an agent's work under an identity that the registry names".to_owned()];
        let counterfactual = "by an agent that the registry names, with a person who answers for it".to_owned();
        Some(Suspicion { counterfactual, ..Suspicion::of_rule(what, tell, seen) })
    }

    fn is_statistical(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;

    use crate::engine::{Engine, Input};
    use crate::event::{AgentRef, Event, Origin, Source};
    use crate::testing::{book, control, event};

    const DETECTOR: &str =
        "[[detector]]\nkind = \"unregistered-agent\"\nuser_agents = [\"*claude*\"]\nchannels = [\"agent*\"]\n";

    fn by(number: u32, who: &str, user_agent: &str, channel: &str) -> Event {
        let origin = Origin { user_agent: user_agent.to_owned(), channel: channel.to_owned(), ..Origin::default() };
        let agent = AgentRef::Unregistered(who.to_owned());
        Event { source: Source::Cloudtrail, agent, origin, ..event(number, "s3:GetObject", "2026-03-02T09:00:00Z") }
    }

    #[test]
    fn who_behaves_like_an_agent_is_reported_once_and_people_never() {
        let mut engine = Engine::new(Arc::new(book(&[("extra/control.toml", &control("extra", DETECTOR))])));
        let mut found = |event: Event| engine.step(&Input::Event(Box::new(event))).1.len();
        assert_eq!(found(by(1, "role/a", "Claude-Code/2.1", "")), 1);
        assert_eq!(found(by(2, "role/a", "Claude-Code/2.2", "")), 0);
        assert_eq!(found(by(3, "role/b", "Mozilla/5.0", "agentic")), 1);
        assert_eq!(found(by(4, "user/ana", "aws-cli/2.31", "")), 0);
        assert_eq!(found(by(5, "user/ana", "", "")), 0);
    }
}
