//! How much data an agent reads, and from how many resources, against its own habit.

use serde::Deserialize;

use super::{Clue, Detector, Sighting, Suspicion};
use crate::baselines::{Dossier, ReadHabit, WINDOW};
use crate::event::{Digest, Event, Verb};
use crate::glob::{self, Glob};
use crate::stats::{Probability, WindowCounts};

/// Most resources that are told apart within a window.
const MOST_RESOURCES: usize = 512;

/// Reports a window in which an agent reads improbably much data, or from improbably many resources, for its own windows
/// before; once a window, as soon as it is reached.
///
/// Gamma–Poisson predictive (see [`WindowCounts::burst_p`]) over the windows in which it read any.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReadHabits {
    /// Kinds of data that count, by patterns over the vocabulary's.
    data: Vec<Glob>,
    /// Fewer closed windows than this say nothing about an agent.
    least_windows: u64,
    /// When it is many reads.
    reads: Limit,
    /// When it is many resources.
    resources: Limit,
}

/// When a count is too much.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Limit {
    /// The p-value at or below which it is reported.
    p_value: Probability,
    /// Fewer than this are never too much.
    least: u32,
}

impl Detector for ReadHabits {
    fn assess(&self, sighting: Sighting<'_>) -> Option<Suspicion> {
        let known = &sighting.past.dossier().habits.reads;
        if !self.counts(sighting.event, known) {
            return None;
        }
        let mut habit = known.clone();
        take(sighting.event, &mut habit);
        if habit.reported {
            return None;
        }
        let evidence = self.evidence(&habit);
        let first = evidence.first()?;
        Some(Suspicion {
            what: format!("reads far more data than ever: {} {}", first.what, first.observed),
            counterfactual: format!("the same at this agent's usual rate, {}", first.expected),
            evidence,
            remember: Vec::new(),
            severity: None,
            rollback: None,
        })
    }

    fn follow(&self, event: &Event, _learnable: bool, dossier: &mut Dossier) {
        let habit = &mut dossier.habits.reads;
        if self.counts(event, habit) {
            take(event, habit);
            habit.reported = habit.reported || !self.evidence(habit).is_empty();
        }
    }

    fn is_statistical(&self) -> bool {
        true
    }
}

impl ReadHabits {
    /// Whether the event is a read of data, and not of a window that is closed.
    fn counts(&self, event: &Event, habit: &ReadHabit) -> bool {
        event.verb == Verb::Read
            && glob::any(&self.data, &event.resource.data)
            && event.at.div_euclid(WINDOW) >= habit.window
    }

    /// What is too much in the open window.
    fn evidence(&self, habit: &ReadHabit) -> Vec<Clue> {
        let resources = u32::try_from(habit.resources.len()).unwrap_or(u32::MAX);
        [
            self.excess("reads", habit.reads, habit.closed_reads, &self.reads),
            self.excess("resources", resources, habit.closed_resources, &self.resources),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn excess(&self, what: &str, count: u32, closed: WindowCounts, limit: &Limit) -> Option<Clue> {
        let is_quiet = count < limit.least || closed.windows < self.least_windows || f64::from(count) <= closed.mean();
        let p_value = if is_quiet { 1.0 } else { closed.burst_p(count) };
        limit.p_value.reached_by(p_value).then(|| Clue {
            what: what.to_owned(),
            observed: format!("{count} in an open window of {} minutes", WINDOW / 60_000),
            expected: format!("{:.1} in a whole one", closed.mean()),
            p_value: Some(p_value),
            sample: closed.windows,
        })
    }
}

/// Counts a read in its window.
fn take(event: &Event, habit: &mut ReadHabit) {
    let window = event.at.div_euclid(WINDOW);
    if window > habit.window {
        close(habit, window);
    }
    habit.reads = habit.reads.saturating_add(1);
    let resource = event.resource.id.as_str();
    let id = Digest::of(resource.as_bytes());
    if !resource.is_empty() && habit.resources.len() < MOST_RESOURCES && !habit.resources.contains(&id) {
        habit.resources.push(id);
    }
}

/// Ends the open window, which counts from now on unless it was reported, and opens another.
fn close(habit: &mut ReadHabit, window: i64) {
    if !habit.reported && habit.reads > 0 {
        habit.closed_reads.add(habit.reads);
        habit.closed_resources.add(u32::try_from(habit.resources.len()).unwrap_or(u32::MAX));
    }
    let (closed_reads, closed_resources) = (habit.closed_reads, habit.closed_resources);
    *habit = ReadHabit { window, closed_reads, closed_resources, ..ReadHabit::default() };
}

#[cfg(test)]
mod tests;
