//! Approvals: a risky change needs persons who agreed to exactly this change, beforehand and once.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::say_do::resources_agree;
use super::{Case, Detector, Found, Hearing, Now, Sighting, Suspicion, duration};
use crate::baselines::{Dossier, HeldApproval, Kept, Side, Unapproved};
use crate::deviation::Severity;
use crate::event::{Event, Millis, Outcome};
use crate::glob::Glob;
use crate::rulebook::{Comparison, Rulebook};
use crate::statement::Says;

/// Most approvals that are held of one agent; of more, those that end first make room.
const MOST_HELD: usize = 256;
/// Most actions of one agent that wait for an approval; of more, the oldest is reported at once.
const MOST_WAITING: usize = 512;

/// Reports changes that the risk rules want approved and that nobody approved, or that are not what was approved.
///
/// A change is held against the approvals of its agent by what the audit log shows, field by field, and by the agent's own
/// word as far as it goes. One that has no approval yet waits: the approval may come later in the log.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Approvals {
    /// How long after a change its approval, given before, may still arrive.
    #[serde(deserialize_with = "duration")]
    grace: Millis,
    /// How long after a report the other side's word about the same change is not reported again.
    #[serde(deserialize_with = "duration")]
    settles: Millis,
    /// How far clocks may differ.
    #[serde(deserialize_with = "duration")]
    skew: Millis,
    /// What an approval clears besides.
    clears: Option<Clears>,
    /// How bad each finding is.
    #[serde(default)]
    severities: Severities,
}

/// How bad each finding is; what is not given is as in the rules that are shipped.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Severities {
    unverifiable: Severity,
}

impl Default for Severities {
    fn default() -> Self {
        Self { unverifiable: Severity::Low }
    }
}

/// What an approval clears that covers a change exactly, as far as all of it can be seen.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Clears {
    /// Controls that are silent about the change.
    controls: Vec<String>,
    /// How many people must have given it at least.
    people: u32,
}

/// How an event stands to what was approved.
#[derive(Debug, PartialEq)]
enum Standing {
    /// It needs no approval.
    Free,
    /// It is approved by these, as far as can be seen.
    Approved { by: Vec<usize>, unverifiable: Vec<String> },
    /// It is not what was approved: the approval's id, and the parameters that differ.
    Changed { id: String, parameters: Vec<String> },
    /// No approval covers it.
    Missing { why: String },
}

impl Approvals {
    fn standing(&self, event: &Event, book: &Rulebook, dossier: &Dossier) -> Standing {
        let people = book.risk.people(event);
        if people == 0 || matches!(event.outcome, Outcome::Denied(_) | Outcome::Failed(_)) {
            return Standing::Free;
        }
        self.standing_by(event, book, dossier, people)
    }

    /// The same where so many people must have approved it.
    fn standing_by(&self, event: &Event, book: &Rulebook, dossier: &Dossier, people: u32) -> Standing {
        let covering: Vec<(usize, &HeldApproval)> =
            dossier.approvals.iter().enumerate().filter(|(_, held)| covers(held, event)).collect();
        if let Some(why) = self.names_another(event, dossier) {
            return Standing::Missing { why };
        }
        let (fit, unfit): (Vec<_>, Vec<_>) =
            covering.into_iter().partition(|(_, held)| self.trouble(held, event).is_none());
        let mut closest: Option<Standing> = None;
        for (_, held) in &fit {
            let alike: Vec<(usize, &HeldApproval)> =
                fit.iter().copied().filter(|(_, other)| other.approval.digest == held.approval.digest).collect();
            let persons: BTreeSet<&str> = alike.iter().map(|(_, held)| held.by.as_str()).collect();
            if persons.len() < usize::try_from(people).unwrap_or(usize::MAX) {
                let why = format!("has an approval by {} of {people} people", persons.len());
                closest.get_or_insert(Standing::Missing { why });
                continue;
            }
            if !held.approval.irreversible && book.is_irreversible(event) {
                let why = format!("cannot be undone, which approval `{}` does not say", held.id);
                closest.get_or_insert(Standing::Missing { why });
                continue;
            }
            let Comparison { changed, unverifiable } = compare(held, event, book);
            if changed.is_empty() {
                return Standing::Approved { by: alike.iter().map(|(index, _)| *index).collect(), unverifiable };
            }
            closest = Some(Standing::Changed { id: held.id.clone(), parameters: changed });
        }
        closest.unwrap_or_else(|| {
            let trouble = unfit.last().and_then(|(_, held)| {
                Some(format!("has approval `{}`, which {}", held.id, self.trouble(held, event)?))
            });
            Standing::Missing { why: trouble.unwrap_or_else(|| "has no approval".to_owned()) }
        })
    }

    /// What is wrong where an agent names an approval that is for something else.
    fn names_another(&self, event: &Event, dossier: &Dossier) -> Option<String> {
        let named = event.approval.as_ref()?;
        let held = dossier.approvals.iter().find(|held| held.id == *named)?;
        let is_for = &held.approval.operation;
        (!covers(held, event))
            .then(|| format!("names approval `{named}`, which is for `{is_for}` on another resource or operation"))
    }

    /// Why an approval that covers an event does not count for it.
    fn trouble(&self, held: &HeldApproval, event: &Event) -> Option<&'static str> {
        if held.at > event.at.saturating_add(self.skew) {
            Some("was given only afterwards")
        } else if held.until < event.at {
            Some("had ended")
        } else if held.used(Side::of(event)) >= held.approval.count {
            Some("was used up")
        } else {
            None
        }
    }

    fn missing(&self, event: &Event, why: &str, people: u32) -> Suspicion {
        let who = if people == 1 { "a person".to_owned() } else { format!("{people} people") };
        let wanted = format!("an approval by {who} for `{}` on this resource, given before and unused", event.action);
        suspicion(&format!("{why}, and needs one by {who}"), "approval", why, wanted)
    }

    /// Takes the change into what waits, or uses its approvals up.
    fn take(&self, event: &Event, book: &Rulebook, dossier: &mut Dossier) {
        match self.standing(event, book, dossier) {
            Standing::Free | Standing::Changed { .. } => {}
            Standing::Approved { by, .. } => use_up(event, &by, dossier),
            Standing::Missing { .. } if self.is_known(event, dossier) => {}
            Standing::Missing { .. } => {
                let event = Kept::from(Event { reasoning: None, ..event.clone() });
                dossier.unapproved.push(Unapproved { event, reported: false });
            }
        }
    }

    /// Whether the other side told of this very change before, and it waits or was reported.
    fn is_known(&self, event: &Event, dossier: &Dossier) -> bool {
        dossier.unapproved.iter().any(|waiting| {
            let other = &waiting.event;
            Side::of(other) != Side::of(event)
                && event.at.saturating_sub(other.at).abs() <= self.settles
                && other.action.eq_ignore_ascii_case(&event.action)
                && resources_agree(&other.resource.id, &event.resource.id)
        })
    }

    /// What became of a change that has waited for long enough.
    fn late(&self, event: &Event, book: &Rulebook, dossier: &mut Dossier) -> Option<Suspicion> {
        match self.standing(event, book, dossier) {
            Standing::Free => None,
            Standing::Approved { by, unverifiable } => {
                use_up(event, &by, dossier);
                unverified(&unverifiable, self.severities.unverifiable)
            }
            Standing::Changed { id, parameters } => Some(changed(&id, &parameters)),
            Standing::Missing { why } => Some(self.missing(event, &why, book.risk.people(event))),
        }
    }
}

impl Detector for Approvals {
    fn assess(&self, sighting: Sighting<'_>) -> Option<Suspicion> {
        let Sighting { event, past, book, .. } = sighting;
        match self.standing(event, book, past.dossier()) {
            Standing::Free | Standing::Missing { .. } => None,
            Standing::Approved { unverifiable, .. } => unverified(&unverifiable, self.severities.unverifiable),
            Standing::Changed { id, parameters } => Some(changed(&id, &parameters)),
        }
    }

    fn awaits(&self, sighting: Sighting<'_>) -> bool {
        let Sighting { event, past, book, .. } = sighting;
        matches!(self.standing(event, book, past.dossier()), Standing::Missing { .. })
    }

    fn lacks(&self, sighting: Sighting<'_>) -> Option<Suspicion> {
        let Sighting { event, past, book, .. } = sighting;
        let Standing::Missing { why } = self.standing(event, book, past.dossier()) else { return None };
        Some(self.missing(event, &why, book.risk.people(event)))
    }

    fn silences(&self, control: &str, event: &Event, book: &Rulebook, dossier: &Dossier) -> bool {
        let clears = self.clears.as_ref().filter(|clears| clears.controls.iter().any(|known| known == control));
        clears.is_some_and(|Clears { people, .. }| {
            let people = book.risk.people(event).max(*people);
            let standing = self.standing_by(event, book, dossier, people);
            matches!(standing, Standing::Approved { unverifiable, .. } if unverifiable.is_empty())
        })
    }

    fn keep(&self, sighting: Sighting<'_>, dossier: &mut Dossier) {
        self.take(sighting.event, sighting.book, dossier);
    }

    fn hear(&self, hearing: &Hearing<'_>, dossier: &mut Dossier) -> Option<Suspicion> {
        let Says::Approval(approval) = &hearing.claims.says else { return None };
        let by = &hearing.claims.sub;
        if let Some(what) = not_entitled(hearing) {
            let expected = "a person who is neither the requester nor the agent's owner".to_owned();
            return Some(suspicion(&what, "approver", &format!("`{by}`"), expected));
        }
        if dossier.approvals.iter().all(|held| held.id != hearing.claims.jti) {
            let soonest = |held: &HeldApproval| (held.until, held.id.clone());
            if dossier.approvals.len() >= MOST_HELD
                && let Some(index) =
                    (0..dossier.approvals.len()).min_by_key(|index| dossier.approvals.get(*index).map(soonest))
            {
                dossier.approvals.remove(index);
            }
            dossier.approvals.push(HeldApproval {
                id: hearing.claims.jti.clone(),
                by: by.clone(),
                at: hearing.claims.at(),
                until: hearing.claims.until(),
                approval: approval.clone(),
                used_said: 0,
                used_done: 0,
            });
        }
        None
    }

    fn settle(&self, case: &Case<'_>, dossier: &mut Dossier) -> Vec<Found> {
        let Now { at, .. } = case.now;
        let mut found = Vec::new();
        let excess = dossier.unapproved.len().saturating_sub(MOST_WAITING);
        let waited = std::mem::take(&mut dossier.unapproved);
        for (index, waiting) in waited.into_iter().enumerate() {
            let age = at.saturating_sub(waiting.event.at);
            let waits = !waiting.reported && index >= excess && age <= self.grace;
            if waits || (waiting.reported && age <= self.settles) {
                dossier.unapproved.push(waiting);
            } else if !waiting.reported
                && let Some(suspicion) = self.late(&waiting.event, case.book, dossier)
            {
                found.push(Found { event: waiting.event.clone(), suspicion });
                if age <= self.settles {
                    dossier.unapproved.push(Unapproved { reported: true, ..waiting });
                }
            }
        }
        let ended = self.grace.max(self.settles);
        dossier.approvals.retain(|held| at.saturating_sub(held.until) <= ended);
        found
    }

    fn is_statistical(&self) -> bool {
        false
    }
}

/// Whether an approval is for such an operation on such a resource.
fn covers(held: &HeldApproval, event: &Event) -> bool {
    let approval = &held.approval;
    if approval.count > 1 {
        let fits = |pattern: &str, text: &str| Glob::new(pattern).matches(text);
        return fits(&approval.operation, &event.action)
            && (approval.resource.is_empty() || fits(&approval.resource, &event.resource.id));
    }
    approval.operation.eq_ignore_ascii_case(&event.action) && resources_agree(&approval.resource, &event.resource.id)
}

/// How what was executed, or declared, compares with what was approved. A bulk approval names no parameters of one change.
fn compare(held: &HeldApproval, event: &Event, book: &Rulebook) -> Comparison {
    if held.approval.count > 1 {
        return Comparison::default();
    }
    match Side::of(event) {
        Side::Done => book.operations.compare(&held.approval, event),
        Side::Said => book.operations.compare_declared(&held.approval, event),
    }
}

fn use_up(event: &Event, by: &[usize], dossier: &mut Dossier) {
    let amount = super::large_scale::resources(event);
    for index in by {
        if let Some(held) = dossier.approvals.get_mut(*index) {
            let amount = if held.approval.count > 1 { amount } else { 1 };
            held.use_up(Side::of(event), amount);
        }
    }
}

/// Why somebody's approval of this agent's change does not count.
fn not_entitled(hearing: &Hearing<'_>) -> Option<String> {
    let Says::Approval(approval) = &hearing.claims.says else { return None };
    let by = &hearing.claims.sub;
    if !hearing.is_by_person() {
        return Some("is by an agent or a bot, or by somebody who is not known as a person".to_owned());
    }
    if *by == approval.requester {
        return Some("is by the one who asked for it".to_owned());
    }
    (*by == hearing.agent.owner).then(|| "is by the agent's own owner".to_owned())
}

fn changed(id: &str, parameters: &[String]) -> Suspicion {
    let names = names(parameters);
    suspicion(
        &format!("is not what approval `{id}` is for, in {names}"),
        "executed",
        &format!("other {names}"),
        format!("what approval `{id}` has"),
    )
}

fn unverified(parameters: &[String], severity: Severity) -> Option<Suspicion> {
    let names = (!parameters.is_empty()).then(|| names(parameters))?;
    let what =
        format!("is approved, but the audit log does not show {names}: that these are as approved cannot be verified");
    let suspicion = suspicion(&what, "executed", "unverifiable", format!("{names} as approved"));
    Some(Suspicion { severity: Some(severity), ..suspicion })
}

fn names(parameters: &[String]) -> String {
    let quoted: Vec<String> = parameters.iter().take(8).map(|name| format!("`{name}`")).collect();
    quoted.join(", ")
}

fn suspicion(what: &str, kind: &str, observed: &str, expected: String) -> Suspicion {
    let counterfactual = format!("the same with {expected}");
    let seen = [observed.to_owned(), expected];
    Suspicion { counterfactual, ..Suspicion::of_rule(what.to_owned(), kind, seen) }
}

#[cfg(test)]
mod tests;
