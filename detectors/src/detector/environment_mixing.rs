//! Environments that one run must not mix.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Clue, Detector, Sighting, Suspicion, duration, make_room};
use crate::baselines::{Dossier, RunGroups};
use crate::event::{Event, Millis, Outcome, Verb};
use crate::glob::{self, Glob};

/// Most runs of an agent that are followed at once; the one without a change for longest makes room.
const MOST_RUNS: usize = 64;

/// Reports the change with which a run crosses from one group of environments into another: once for each group that a run
/// comes to, and once for the agent's word and the audit log's about it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EnvironmentMixing {
    /// Which actions count as changing an environment.
    verbs: Vec<Verb>,
    /// A run without a change for this long has ended.
    #[serde(deserialize_with = "duration")]
    idle: Millis,
    /// How long after a report the other side's word about the same operation is not reported again.
    #[serde(deserialize_with = "duration")]
    settles: Millis,
    /// Groups of environments, by patterns. What is in no group mixes with all.
    groups: BTreeMap<String, Vec<Glob>>,
}

impl Detector for EnvironmentMixing {
    fn assess(&self, sighting: Sighting<'_>) -> Option<Suspicion> {
        let event = sighting.event;
        let group = self.group(event)?;
        let runs = &sighting.past.dossier().habits.runs;
        let before = self.crosses(event, group, runs)?.groups.join("`, `");
        Some(Suspicion {
            what: format!("changes `{group}` in a run that changed `{before}` before"),
            evidence: vec![Clue {
                what: "environments".to_owned(),
                observed: format!("`{before}`, then `{group}` in run `{}`", event.run_or_session()),
                expected: "one of them in one run".to_owned(),
                p_value: None,
                sample: 0,
            }],
            counterfactual: format!("the same in a run of its own for `{group}`"),
            remember: Vec::new(),
            severity: None,
            rollback: None,
        })
    }

    fn follow(&self, event: &Event, _learnable: bool, dossier: &mut Dossier) {
        let Some(group) = self.group(event) else { return };
        let runs = &mut dossier.habits.runs;
        let has_crossed = self.crosses(event, group, runs).is_some();
        let mut run = self.take_run(runs, event);
        if has_crossed {
            run.reported = Some((event.at, event.action.clone()));
        }
        if !run.groups.iter().any(|known| known == group) {
            run.groups.push(group.to_owned());
        }
        run.last = run.last.max(event.at);
        runs.push(run);
    }

    fn is_statistical(&self) -> bool {
        false
    }
}

impl EnvironmentMixing {
    /// The group that an event changes within a run.
    fn group(&self, event: &Event) -> Option<&str> {
        let refused = matches!(event.outcome, Outcome::Denied(_) | Outcome::Failed(_));
        if refused || event.run_or_session().is_empty() || !self.verbs.contains(&event.verb) {
            return None;
        }
        let fits = |patterns: &[Glob]| glob::any(patterns, &event.place.environment);
        self.groups.iter().find(|(_, patterns)| fits(patterns)).map(|(name, _)| name.as_str())
    }

    /// The run that an event takes into a group that it was not in, where that was not reported.
    fn crosses<'r>(&self, event: &Event, group: &str, runs: &'r [RunGroups]) -> Option<&'r RunGroups> {
        let crosses = |run: &&RunGroups| self.is_of(run, event) && !run.groups.iter().any(|known| known == group);
        runs.iter().find(crosses).filter(|_| !runs.iter().any(|run| self.was_reported(run, event)))
    }

    fn is_of(&self, run: &RunGroups, event: &Event) -> bool {
        let is_under_way = event.at.saturating_sub(run.last) <= self.idle;
        run.run == event.run_or_session() && run.audit == event.source.is_audit() && is_under_way
    }

    /// Whether the other side's word about this was reported already.
    fn was_reported(&self, run: &RunGroups, event: &Event) -> bool {
        let is_this = |(at, action): &(Millis, String)| {
            *action == event.action && event.at.saturating_sub(*at).saturating_abs() <= self.settles
        };
        run.audit != event.source.is_audit() && run.reported.as_ref().is_some_and(is_this)
    }

    /// Takes the run of an event out. What comes new makes the one go that was without a change for longest, of the same side:
    /// an agent that makes up runs pushes nothing out that the audit log knows.
    fn take_run(&self, runs: &mut Vec<RunGroups>, event: &Event) -> RunGroups {
        if let Some(at) = runs.iter().position(|run| self.is_of(run, event)) {
            return runs.remove(at);
        }
        let (run, audit) = (event.run_or_session().to_owned(), event.source.is_audit());
        // One of the same name that is over would be found first, and is of no use.
        runs.retain(|other| other.run != run || other.audit != audit);
        make_room(runs, MOST_RUNS, |other| other.audit == audit);
        RunGroups { run, audit, groups: Vec::new(), last: event.at, reported: None }
    }
}

#[cfg(test)]
mod tests;
