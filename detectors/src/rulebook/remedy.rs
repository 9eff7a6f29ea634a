//! The counterfactual of a guardrail: the smallest change to the facts that all policies would have allowed.

use super::facts::{Facts, TEXTS, TRUTHS, UNREGISTERED};
use crate::event::Verb;

/// One thing that could have been otherwise.
enum Change {
    Text(&'static str, &'static str),
    Truth(&'static str, bool),
    Propose,
}

/// What could have been otherwise, the likeliest first, with its words.
const CHANGES: [(Change, &str); 14] = [
    (Change::Text("context.window", "inside"), "inside the agent's change window"),
    (Change::Text("context.playbook", "approved"), "as part of a playbook that the agent may run"),
    (Change::Truth("context.environment_cleared", true), "in an environment that the agent is cleared for"),
    (Change::Truth("context.environment_disputed", false), "with the environment stated as the estate knows it"),
    (Change::Truth("resource.mapped", true), "in a place that the estate maps"),
    (Change::Truth("context.resource_type_approved", true), "on a resource type that the agent may change"),
    (Change::Truth("context.tool_approved", true), "with a tool that the agent may call"),
    (Change::Truth("context.data_approved", true), "on data that the agent may read"),
    (Change::Truth("context.exposes", false), "without opening the resource to others"),
    (Change::Truth("context.identity_disputed", false), "under an identity that the registry gives the agent"),
    (Change::Truth("context.approval_referenced", true), "with an approval"),
    (Change::Text("principal.status", "active"), "by an agent whose registration is in force"),
    (Change::Propose, "as a proposal that a person carries out"),
    (Change::Text("principal.class", "operator"), "by an operator"),
];

/// What is left where no two changes help.
const NOTHING: &str = "nothing that this agent may do by itself: ask a person to do it";

/// Finds one change, or else two, after which `violations` counts none.
///
/// A judgement costs tens of microseconds. Where an agent can make up facts that were never judged (`bounded` is false),
/// two changes are only tried where the first alone takes a violation away.
pub(super) fn find(facts: &Facts<'_>, bounded: bool, violations: impl Fn(&Facts<'_>) -> usize) -> String {
    // The first text is the class.
    if facts.texts.first() == Some(&UNREGISTERED) {
        return "by an agent that the registry names, with a person who answers for it".to_owned();
    }
    let before = violations(facts);
    let mut nearer: Vec<(Facts<'_>, &str)> = Vec::new();
    for (change, words) in &CHANGES {
        let Some(changed) = apply(facts, change) else { continue };
        match violations(&changed) {
            0 => return (*words).to_owned(),
            left if bounded || left < before => nearer.push((changed, words)),
            _ => {}
        }
    }
    for (once, first) in &nearer {
        for (change, second) in &CHANGES {
            if apply(once, change).is_some_and(|twice| violations(&twice) == 0) {
                return format!("{first}, and {second}");
            }
        }
    }
    NOTHING.to_owned()
}

/// The facts with one change; `None` where it changes nothing.
fn apply<'e>(facts: &Facts<'e>, change: &Change) -> Option<Facts<'e>> {
    let mut changed = *facts;
    match change {
        Change::Text(name, value) => {
            let at = TEXTS.iter().position(|text| text == name)?;
            let text = changed.texts.get_mut(at).filter(|text| *text != value)?;
            // A window or playbook that the registry does not ask for cannot be what is missing.
            if matches!(*text, "none" | "not-applicable") && *name == "context.window" {
                return None;
            }
            *text = value;
        }
        Change::Truth(name, value) => {
            let at = TRUTHS.iter().position(|truth| truth == name)?;
            *changed.truths.get_mut(at).filter(|truth| *truth != value)? = *value;
        }
        Change::Propose => {
            if !changed.verb.changes() {
                return None;
            }
            changed.verb = Verb::Propose;
            let at = TRUTHS.iter().position(|truth| *truth == "context.changes")?;
            *changed.truths.get_mut(at)? = false;
        }
    }
    Some(changed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::event::Event;
    use crate::testing::{book, control, event};

    /// The remedy that `forbid … when { condition }` leaves to a change by `bot` that is fine but for `change`.
    fn remedy(condition: &str, change: impl Fn(&mut Event)) -> String {
        let policy = format!("@id(\"x\")\nforbid (principal, action, resource) when {{ {condition} }};");
        let book = book(&[("extra/control.toml", &control("extra", "")), ("extra/policy.cedar", &policy)]);
        let mut event = Event { verb: Verb::Write, ..event(1, "ecs:StopTask", "2026-03-02T09:00:00Z") };
        change(&mut event);
        let agent = event.agent.registered().and_then(|id| book.registry.by_id(id));
        book.judge(&Facts::of(&event, agent, &book)).remedy
    }

    fn production(event: &mut Event) {
        event.place.environment = "production".to_owned();
    }

    #[test]
    fn one_change_is_found_before_two() {
        assert_eq!(remedy("false", |_| {}), "", "what is allowed needs none");
        assert_eq!(
            remedy("!context.environment_cleared", production),
            "in an environment that the agent is cleared for"
        );
        assert_eq!(
            remedy("context.exposes", |event| event.resource.exposes = true),
            "without opening the resource to others"
        );
        assert_eq!(remedy("!context.approval_referenced", |_| {}), "with an approval");
        assert_eq!(
            remedy("!context.environment_cleared || !context.approval_referenced", production),
            "in an environment that the agent is cleared for, and with an approval"
        );
        assert_eq!(remedy("context.changes", |_| {}), "as a proposal that a person carries out");
    }

    #[test]
    fn where_two_changes_do_not_help_a_person_must() {
        assert_eq!(remedy("context.operation == \"ecs:StopTask\"", |_| {}), NOTHING);
        let three = "!context.environment_cleared || !context.approval_referenced || context.exposes";
        let worst = |event: &mut Event| {
            production(event);
            event.resource.exposes = true;
        };
        assert_eq!(remedy(three, worst), NOTHING);
    }

    #[test]
    fn a_window_that_nobody_asks_for_is_no_remedy() {
        // `bot` has no windows: to be inside one is nothing that it could do.
        assert_ne!(remedy("context.window != \"inside\"", |_| {}), "inside the agent's change window");
    }

    #[test]
    fn what_is_called_unregistered_is_not_an_unregistered_agent() {
        assert_eq!(
            remedy("!context.environment_cleared", |event| event.place.environment = "unregistered".to_owned()),
            "in an environment that the agent is cleared for"
        );
        let nobody = remedy("false", |event| event.agent = crate::event::AgentRef::Unregistered("eve".to_owned()));
        assert!(nobody.contains("by an agent that the registry names"), "{nobody}");
    }
}
