//! Which approval an act needs, before anybody was asked for one.

use serde_json::Map;

use super::Rulebook;
use super::operations::parsed;
use crate::event::Event;
use crate::statement::Approval;

/// The approval that an act needs.
#[derive(Clone, Debug, PartialEq)]
pub struct WantedApproval {
    /// What must be approved, as its statement has it.
    pub approval: Approval,
    /// How many people must have approved it.
    pub people: u32,
}

impl Rulebook {
    /// The approval that an event needs; `None` where the risk rules want none. The parameters are the event's arguments, as
    /// it has them: what redaction took out of them is not approved in clear either.
    pub fn wanted_approval(&self, event: &Event) -> Option<WantedApproval> {
        let people = self.risk.people(event);
        let requester = event.agent.registered().filter(|_| people > 0)?.to_owned();
        let arguments = event.arguments.iter();
        let parameters: Map<_, _> = arguments.map(|given| (given.name.clone(), parsed(&given.value))).collect();
        let mut approval = Approval {
            requester,
            operation: event.action.clone(),
            resource: event.resource.id.clone(),
            parameters,
            digest: String::new(),
            count: 1,
            irreversible: self.is_irreversible(event),
        };
        approval.digest = approval.digest();
        Some(WantedApproval { approval, people })
    }

    /// Whether nothing undoes a change: no operation that is declared to, and no state from before that was kept. The audit
    /// log knows nothing of the latter.
    pub(crate) fn is_irreversible(&self, event: &Event) -> bool {
        self.operations.inverse(event).is_none() && event.pre_state.is_none()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crate::statement::Approval;
    use crate::testing::{argument, book, change};

    const RISK: &str = "[[rule]]\noperations = [\"ec2:Delete*\"]\npeople = 2\n\
        [unlisted]\nenvironments = [\"production\"]\npeople = 1\n";

    #[test]
    fn the_wanted_approval_is_of_exactly_this_act() {
        let book = book(&[("approvals/risk.toml", RISK)]);
        let mut event = change(1, "ec2:DeleteVolume", "2026-03-02T09:00:00Z");
        event.resource.id = "vol-1".to_owned();
        event.arguments = vec![argument("Force", "true"), argument("Note", "all of it")];
        let wanted = book.wanted_approval(&event).unwrap();
        assert_eq!(wanted.people, 2);
        let Approval { requester, operation, resource, parameters, count, irreversible, .. } = &wanted.approval;
        assert_eq!((requester.as_str(), operation.as_str(), resource.as_str()), ("bot", "ec2:DeleteVolume", "vol-1"));
        assert_eq!(serde_json::json!(parameters), serde_json::json!({ "Force": true, "Note": "all of it" }));
        assert_eq!((*count, *irreversible), (1, true), "nothing undoes it");
        assert_eq!(wanted.approval.digest, wanted.approval.digest());
        event.pre_state = Some("snap-1".to_owned());
        assert!(!book.wanted_approval(&event).unwrap().approval.irreversible);
        event.verb = crate::event::Verb::Read;
        assert_eq!(book.wanted_approval(&event), None, "a read needs none");
    }
}
