//! Who is it, and where: from what the bytes say to a registered agent, an environment and a meaning.

use tautline_detectors::event::{AgentRef, Event};
use tautline_detectors::rulebook::{Agent, Rulebook};

/// Fills in what the rulebook knows of an event: the agent, the place, and what its operation means.
///
/// What the estate or an audit log knows overrides what the agent claims; policies see the disagreement. A principal
/// that no entry names is kept apart as unregistered, never given to a guess.
pub fn resolve(event: &mut Event, book: &Rulebook) {
    book.vocabulary.classify(event);
    book.estate.locate(event);
    event.agent = if event.source.is_audit() { by_identity(event, book) } else { by_claim(event, book) };
}

fn by_identity(event: &Event, book: &Rulebook) -> AgentRef {
    known(book.registry.by_identity(&event.principal.id), &event.principal.id)
}

fn by_claim(event: &Event, book: &Rulebook) -> AgentRef {
    known(book.registry.by_id(&event.principal.claimed_agent), &event.principal.claimed_agent)
}

fn known(agent: Option<&Agent>, principal: &str) -> AgentRef {
    match agent {
        Some(agent) => AgentRef::Registered(agent.id.clone()),
        None => AgentRef::Unregistered(principal.to_owned()),
    }
}
