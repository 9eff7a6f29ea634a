//! Who is it, and where: from what the bytes say to a registered agent, an environment and a meaning.

use tautline_detectors::event::{AgentRef, Event, Source};
use tautline_detectors::rulebook::{Agent, Rulebook};

/// Fills in what the rulebook knows of an event: the agent, the place, and what its operation means.
///
/// What the estate or an audit log knows overrides what the agent claims; policies see the disagreement. A principal
/// that no entry names is kept apart as unregistered, never given to a guess.
pub fn resolve(event: &mut Event, book: &Rulebook) {
    strip_secrets(&mut event.resource.id);
    if !event.source.is_audit() {
        believe_arn(event);
    }
    if event.source != Source::Statement {
        book.vocabulary.classify(event);
        book.estate.locate(event);
    }
    event.agent = if event.source.is_audit() { by_identity(event, book) } else { by_claim(event, book) };
}

/// Resolves an event that another rulebook has resolved: that of the log's records. What the source itself said its verb was
/// is not known any more, so that an operation that the vocabulary no longer knows keeps the verb that it had.
pub fn resolve_again(event: &mut Event, book: &Rulebook) {
    if event.source != Source::Statement {
        event.resource.asset.clear();
        event.resource.data.clear();
        book.vocabulary.classify(event);
        book.estate.locate(event);
    }
    event.agent = if event.source.is_audit() { by_identity(event, book) } else { by_claim(event, book) };
}

/// Takes out of a URL what may be a secret: who logs in with it, and its query (a presigned one is a credential).
fn strip_secrets(id: &mut String) {
    let Some((scheme, rest)) = id.split_once("://") else { return };
    let bare = rest.split(['?', '#']).next().unwrap_or_default();
    let (authority, path) = bare.split_at(bare.find('/').unwrap_or(bare.len()));
    let host = authority.rsplit('@').next().unwrap_or_default();
    *id = format!("{scheme}://{host}{path}");
}

/// An ARN names its account and region itself; what the agent says beside it is a claim, and a disagreement is kept.
fn believe_arn(event: &mut Event) {
    let (id, place) = (event.resource.id.trim(), &mut event.place);
    let is_arn = id.get(..4).is_some_and(|prefix| prefix.eq_ignore_ascii_case("arn:"));
    let mut parts = id.split(':').skip(3);
    let (region, account) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    if !is_arn || account.is_empty() {
        return;
    }
    place.disputed = !place.account.is_empty() && place.account != account;
    account.clone_into(&mut place.account);
    if !region.is_empty() {
        region.clone_into(&mut place.region);
    }
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
