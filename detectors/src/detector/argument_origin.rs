//! Where arguments come from: what a tool put out is data, and may be an attacker's words.

use serde::Deserialize;

use super::{Clue, Detector, Memory, Sighting, Suspicion};
use crate::baselines::{ArgumentHabit, Cell, Dimension, Dossier, Past};
use crate::event::{Argument, ArgumentOrigin, Digest, Event};
use crate::stats::{Probability, Tally};

/// Most arguments of operations that are remembered of an agent; the one that was not used for longest makes room.
const MOST_ARGUMENTS: usize = 128;
/// Most values of an argument that are remembered; the oldest makes room.
const MOST_VALUES: usize = 32;

/// Reports changes with an argument that comes from a tool's output, as this argument of this operation never did for
/// this agent, with a value that it never had. Each value once.
///
/// The p-value is the Pitman–Yor predictive's (see [`Tally::unseen_p`]) over the argument's origins; an argument without
/// a past surprises nobody.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ArgumentOrigins {
    /// The p-value at or below which such an argument is reported.
    p_value: Probability,
}

/// An argument that is not where it comes from.
struct Surprise<'e> {
    argument: &'e Argument,
    p_value: f64,
    sample: u64,
}

impl Detector for ArgumentOrigins {
    fn assess(&self, sighting: Sighting<'_>) -> Option<Suspicion> {
        let Sighting { event, past, .. } = sighting;
        let is_new =
            |found: &Surprise<'_>| past.cell(Dimension::Gap, &reported_as(event, found.argument)) == Cell::default();
        let found: Vec<Surprise<'_>> = self.surprises(event, past).filter(is_new).collect();
        let first = found.first()?;
        Some(Suspicion {
            what: format!("takes argument `{}` from a tool's output, as this agent never did", first.argument.name),
            evidence: found.iter().map(evidence).collect(),
            counterfactual: "the same with a value that the user gave, or that this agent used before".to_owned(),
            remember: found
                .iter()
                .map(|found| Memory::Value(Dimension::Gap, reported_as(event, found.argument)))
                .collect(),
            severity: None,
            rollback: None,
        })
    }

    /// What was reported once is no more acceptable for coming again.
    fn awaits(&self, sighting: Sighting<'_>) -> bool {
        self.surprises(sighting.event, sighting.past).next().is_some()
    }

    fn follow(&self, event: &Event, learnable: bool, dossier: &mut Dossier) {
        let known = event.arguments.iter().filter(|argument| learnable && is_of_change(event, argument));
        for argument in known {
            let Some(origin) = argument.origin else { continue };
            let mut habit = take_habit(&mut dossier.habits.arguments, step(event, argument));
            let count = match origin {
                ArgumentOrigin::UserRequest => &mut habit.user_request,
                ArgumentOrigin::ToolOutput => &mut habit.tool_output,
                ArgumentOrigin::Neither => &mut habit.neither,
            };
            *count = count.saturating_add(1);
            let value = Digest::of(argument.value.as_bytes());
            habit.values.retain(|known| *known != value);
            if habit.values.len() >= MOST_VALUES {
                habit.values.remove(0);
            }
            habit.values.push(value);
            dossier.habits.arguments.push(habit);
        }
    }

    fn is_statistical(&self) -> bool {
        true
    }
}

impl ArgumentOrigins {
    /// The arguments that come from a tool's output and surprise.
    fn surprises<'e>(&self, event: &'e Event, past: Past<'e>) -> impl Iterator<Item = Surprise<'e>> {
        let from_tools =
            |argument: &&Argument| argument.origin == Some(ArgumentOrigin::ToolOutput) && is_of_change(event, argument);
        event.arguments.iter().filter(from_tools).filter_map(move |argument| {
            let step = step(event, argument);
            let habit = past.dossier().habits.arguments.iter().find(|habit| habit.step == step)?;
            let is_usual = habit.tool_output > 0 || habit.values.contains(&Digest::of(argument.value.as_bytes()));
            let origins = Tally::of([habit.user_request, habit.neither].into_iter());
            let p_value = origins.unseen_p();
            let surprises = !is_usual && self.p_value.reached_by(p_value);
            surprises.then_some(Surprise { argument, p_value, sample: origins.total })
        })
    }
}

fn evidence(found: &Surprise<'_>) -> Clue {
    Clue {
        what: "argument-origin".to_owned(),
        observed: format!("`{}` from a tool's output, with a new value", found.argument.name),
        expected: "the user's request, or the model's own choice, as always".to_owned(),
        p_value: Some(found.p_value),
        sample: found.sample,
    }
}

/// Whether an argument tells of a change, and where it comes from.
fn is_of_change(event: &Event, argument: &Argument) -> bool {
    !event.source.is_audit() && event.verb.changes() && argument.origin.is_some()
}

fn step(event: &Event, argument: &Argument) -> Digest {
    Digest::of(format!("{}\n{}", event.action, argument.name).as_bytes())
}

/// What a report is remembered by. The value itself is kept nowhere.
fn reported_as(event: &Event, argument: &Argument) -> String {
    let text = format!("{}\n{}\n{}", event.action, argument.name, argument.value);
    format!("argument {}", String::from(Digest::of(text.as_bytes())))
}

/// Takes the habit of a step out; what comes new makes the one go that was not used for longest.
fn take_habit(habits: &mut Vec<ArgumentHabit>, step: Digest) -> ArgumentHabit {
    if let Some(at) = habits.iter().position(|habit| habit.step == step) {
        return habits.remove(at);
    }
    if habits.len() >= MOST_ARGUMENTS {
        habits.remove(0);
    }
    ArgumentHabit { step, user_request: 0, tool_output: 0, neither: 0, values: Vec::new() }
}

#[cfg(test)]
mod tests;
