//! Conformance: a playbook run against its declared steps.

use serde::Deserialize;

use super::{Clue, Detector, Sighting, Suspicion};
use crate::baselines::{Past, RunState};
use crate::event::Event;
use crate::rulebook::{Playbook, Rulebook};

/// Reports the first step of a run that its playbook does not have at that place, and what was left out at its end.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conformance {}

/// How an action fits into its run.
#[derive(Clone, Debug, PartialEq)]
enum Fit {
    /// It is the next step, or the present one again.
    Next(RunState),
    /// It is none of the steps.
    Unexpected,
    /// It is a step that was passed already.
    OutOfOrder { step: String },
    /// It is a later step, and this one was left out.
    Skipped { step: String, state: RunState },
    /// It is the present step once too often.
    Repeated { step: String, at_most: u32 },
}

impl Conformance {
    /// The state of the event's run after it; `None` where the event is in no declared playbook, or the run has not had a
    /// step yet.
    pub fn next_state(event: &Event, past: Past<'_>, book: &Rulebook) -> Option<RunState> {
        let (playbook, before) = run_of(event, past, book)?;
        match fit(event, playbook, before) {
            Fit::Next(state) | Fit::Skipped { state, .. } => Some(state),
            // Not a step forward, but the run is alive.
            Fit::Unexpected | Fit::OutOfOrder { .. } | Fit::Repeated { .. } => before.cloned().map(|state| RunState {
                last: event.at.max(state.last),
                last_event: event.id.clone(),
                ..state
            }),
        }
    }
}

impl Detector for Conformance {
    fn assess(&self, sighting: Sighting<'_>) -> Option<Suspicion> {
        let event = sighting.event;
        let (playbook, before) = run_of(event, sighting.past, sighting.book)?;
        let expected = due(playbook, before);
        let (what, kind) = match fit(event, playbook, before) {
            Fit::Next(_) => return None,
            Fit::Unexpected => ("is no step".to_owned(), "unexpected step"),
            Fit::OutOfOrder { step } => (format!("repeats step `{step}` after a later one"), "wrong order"),
            Fit::Skipped { step, .. } => (format!("skips required step `{step}`"), "skipped step"),
            Fit::Repeated { step, at_most } => {
                (format!("is step `{step}` more than {at_most} times"), "too many repeats")
            }
        };
        let observed = format!("`{}`", event.action);
        Some(suspicion(playbook, format!("{what} of playbook `{}`", playbook.id), kind, observed, expected))
    }

    fn assess_end(&self, run: &RunState, book: &Rulebook) -> Option<Suspicion> {
        let playbook = book.playbooks.get(&run.playbook)?;
        let left = playbook.steps.iter().skip(index(run.step) + 1).find(|step| !step.optional)?;
        let what = format!("ended without required step `{}`", left.id);
        Some(suspicion(playbook, what, "unfinished run", "nothing more".to_owned(), format!("step `{}`", left.id)))
    }

    fn is_statistical(&self) -> bool {
        false
    }
}

fn suspicion(playbook: &Playbook, what: String, kind: &str, observed: String, expected: String) -> Suspicion {
    let evidence = Clue { what: kind.to_owned(), observed, expected: expected.clone(), p_value: None, sample: 0 };
    let counterfactual = format!("{expected} of playbook `{}` ({}) at this place", playbook.id, playbook.title);
    Suspicion { what, evidence: vec![evidence], counterfactual, remember: Vec::new(), severity: None, rollback: None }
}

/// The playbook that the event says it runs, and where that run stands.
fn run_of<'a>(event: &Event, past: Past<'a>, book: &'a Rulebook) -> Option<(&'a Playbook, Option<&'a RunState>)> {
    let run = event.run.as_ref()?;
    let playbook = book.playbooks.get(&run.playbook)?;
    Some((playbook, past.profile().and_then(|profile| profile.run(&run.playbook, &run.id))))
}

/// Places the event in its run: the present step or the nearest later one that fits, else an earlier one.
fn fit(event: &Event, playbook: &Playbook, before: Option<&RunState>) -> Fit {
    let present = before.map_or(0, |state| index(state.step));
    let ahead = playbook.steps.iter().enumerate().skip(present).find(|(_, step)| step.fits(event));
    let Some((found, step)) = ahead else {
        let passed = playbook.steps.iter().take(present).find(|step| step.fits(event));
        return passed.map_or(Fit::Unexpected, |step| Fit::OutOfOrder { step: step.id.clone() });
    };
    let repeats = before.filter(|_| found == present).map_or(0, |state| state.repeats) + 1;
    if repeats > step.at_most {
        return Fit::Repeated { step: step.id.clone(), at_most: step.at_most };
    }
    let run = event.run.clone().unwrap_or_default();
    let state = RunState {
        playbook: run.playbook,
        run: run.id,
        step: u32::try_from(found).unwrap_or(u32::MAX),
        repeats,
        last: event.at.max(before.map_or(event.at, |state| state.last)),
        last_event: event.id.clone(),
    };
    // Before its first action a run stands before its first step; afterwards its present step is done.
    let from = if before.is_some() { present + 1 } else { 0 };
    let skipped = playbook.steps.iter().take(found).skip(from).find(|step| !step.optional);
    match skipped {
        Some(step) => Fit::Skipped { step: step.id.clone(), state },
        None => Fit::Next(state),
    }
}

/// The steps that may come next: those up to and including the next required one.
fn due(playbook: &Playbook, before: Option<&RunState>) -> String {
    let from = before.map_or(0, |state| index(state.step) + 1);
    let ahead = playbook.steps.iter().skip(from);
    let optional = ahead.clone().take_while(|step| step.optional).count();
    let steps: Vec<String> = ahead.take(optional + 1).map(|step| format!("`{}`", step.id)).collect();
    if steps.is_empty() { "the end of the run".to_owned() } else { format!("step {}", steps.join(" or ")) }
}

fn index(step: u32) -> usize {
    usize::try_from(step).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
