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
const CHANGES: [(Change, &str); 13] = [
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
    (Change::Propose, "as a proposal that a person carries out"),
    (Change::Text("principal.class", "operator"), "by an operator"),
];

/// What is left where no two changes help.
const NOTHING: &str = "nothing that this agent may do by itself: ask a person to do it";

/// Finds one change, or else two, that make `allowed` true.
pub(super) fn find(facts: &Facts<'_>, allowed: impl Fn(&Facts<'_>) -> bool) -> String {
    if facts.texts.contains(&UNREGISTERED) {
        return "by an agent that the registry names, with a person who answers for it".to_owned();
    }
    let changed: Vec<(Facts<'_>, &str)> =
        CHANGES.iter().filter_map(|(change, words)| Some((apply(facts, change)?, *words))).collect();
    if let Some((_, words)) = changed.iter().find(|(facts, _)| allowed(facts)) {
        return (*words).to_owned();
    }
    for (once, first) in &changed {
        for (change, second) in &CHANGES {
            if apply(once, change).is_some_and(|twice| allowed(&twice)) {
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
