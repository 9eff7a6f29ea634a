//! What follows from a deviation: whether, and whose, access should be revoked.

use crate::baselines::{Cell, Dimension, Past};
use crate::deviation::RevocationSubject;
use crate::event::{CredentialKind, Event, Millis};
use crate::rulebook::{Control, Response, Rulebook};

/// How long one request about a subject stands for further ones. A session's name can come back (an instance id).
const STANDS: Millis = 24 * 3_600_000;

/// What is remembered of a request: its subject, and the day it was made.
pub(crate) fn request(subject: &RevocationSubject, at: Millis) -> String {
    format!("{} on day {}", subject.key(), at.div_euclid(STANDS))
}

/// The revocation that a control asks for after this event, unless it was asked for on the same day.
///
/// A session is preferred to a credential, and a credential to nothing: the smallest thing that ends this access. What
/// only the agent says about its credential never names a credential to revoke, and what comes under an identity that is
/// not the agent's may be anybody's word: it must not end the agent's session.
pub(crate) fn revocation(
    control: &Control,
    event: &Event,
    book: &Rulebook,
    past: Past<'_>,
) -> Option<RevocationSubject> {
    if control.response != Response::Revoke {
        return None;
    }
    let subject = if event.source.is_audit() { of_audit(event) } else { of_action(event, book) }?;
    (past.cell(Dimension::Revoked, &request(&subject, event.at)) == Cell::default()).then_some(subject)
}

/// Whether what a control found of an event puts the agent under quarantine: not by a word that may be anybody's.
pub(crate) fn quarantines(control: &Control, event: &Event, book: &Rulebook) -> bool {
    control.quarantine && (event.source.is_audit() || is_own(event, book))
}

fn of_audit(event: &Event) -> Option<RevocationSubject> {
    let principal = event.principal.id.clone();
    if event.credential.kind == CredentialKind::Service {
        return None;
    }
    if !event.principal.session.is_empty() {
        return Some(RevocationSubject::Session { principal, session: event.principal.session.clone() });
    }
    let credential = event.credential.id.clone();
    (!credential.is_empty()).then_some(RevocationSubject::Credential { principal, credential })
}

fn of_action(event: &Event, book: &Rulebook) -> Option<RevocationSubject> {
    if !is_own(event, book) {
        return None;
    }
    let session = event.run.as_ref().map(|run| run.session.clone()).filter(|session| !session.is_empty())?;
    Some(RevocationSubject::Session { principal: event.principal.claimed_agent.clone(), session })
}

/// Whether an agent's word comes under an identity of its own, or under none.
fn is_own(event: &Event, book: &Rulebook) -> bool {
    let identity = event.principal.id.as_str();
    let owner = book.registry.by_identity(identity).map(|agent| agent.id.as_str());
    identity.is_empty() || owner == event.agent.registered()
}
