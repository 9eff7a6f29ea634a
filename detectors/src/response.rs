//! What follows from a deviation: whether, and whose, access should be revoked.

use crate::baselines::{Cell, Dimension, Past};
use crate::deviation::RevocationSubject;
use crate::event::{CredentialKind, Event};
use crate::rulebook::{Control, Response};

/// The revocation that a control asks for after this event, unless it was asked for before.
///
/// A session is preferred to a credential, and a credential to nothing: the smallest thing that ends this access. What
/// only the agent says about its credential never names a credential to revoke.
pub(crate) fn revocation(control: &Control, event: &Event, past: Past<'_>) -> Option<RevocationSubject> {
    if control.response != Response::Revoke {
        return None;
    }
    let subject = subject(event)?;
    (past.cell(Dimension::Revoked, &subject.key()) == Cell::default()).then_some(subject)
}

fn subject(event: &Event) -> Option<RevocationSubject> {
    let credential = &event.credential;
    if event.source.is_audit() {
        let principal = event.principal.id.clone();
        if credential.kind == CredentialKind::Service {
            return None;
        }
        if !event.principal.session.is_empty() {
            return Some(RevocationSubject::Session { principal, session: event.principal.session.clone() });
        }
        let credential = credential.id.clone();
        return (!credential.is_empty()).then_some(RevocationSubject::Credential { principal, credential });
    }
    let session = event.run.as_ref().map(|run| run.session.clone()).filter(|session| !session.is_empty())?;
    Some(RevocationSubject::Session { principal: event.agent.key(), session })
}
