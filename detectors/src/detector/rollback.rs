//! Rollback: a change is watched for a while; when something goes wrong, its undoing is requested, and must come.

use serde::Deserialize;

use super::say_do::resources_agree;
use super::{Case, Detector, Found, Hearing, Sighting, Suspicion, duration};
use crate::baselines::{Change, Dossier, Heard, Kept};
use crate::deviation::{Rollback, Severity};
use crate::event::{Event, Millis, Outcome};
use crate::glob::{self, Glob};
use crate::rulebook::{Agent, Rulebook};
use crate::statement::{Acknowledgement, Says, Signal};

/// Most changes of one agent that are watched; of more, the oldest goes that no request is open for.
const MOST_WATCHED: usize = 64;

/// Requests the rollback of a change after which a risk signal came, or after which the cloud refused the agent again and
/// again, and reports when nobody acknowledges that.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rollbacks {
    /// How long after a change a signal may be about it.
    #[serde(deserialize_with = "duration")]
    watch: Millis,
    /// Until when a request must be acknowledged.
    #[serde(deserialize_with = "duration")]
    acknowledge: Millis,
    /// How long a request that nobody acknowledges is remembered.
    #[serde(deserialize_with = "duration")]
    forget: Millis,
    /// Environments in which changes are watched.
    environments: Vec<Glob>,
    /// How often the cloud may refuse the agent after a change before that is a signal; 0 for never.
    denials: u32,
    /// How bad the other findings are.
    #[serde(default)]
    severities: Severities,
}

/// How bad the findings are, but for a request, which is as bad as the control says. What is not given is as in the rules that
/// are shipped.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Severities {
    unacknowledged: Severity,
    refused: Severity,
}

impl Default for Severities {
    fn default() -> Self {
        Self { unacknowledged: Severity::Critical, refused: Severity::High }
    }
}

impl Rollbacks {
    /// Whether a change is watched: by the audit log, or by the agent's own word where the audit log never saw it.
    fn is_watched(&self, sighting: Sighting<'_>) -> bool {
        let Sighting { event, past, .. } = sighting;
        let is_audited = past.profile().is_some_and(|profile| profile.heard.has(Heard::AUDITED));
        event.verb.changes()
            && !matches!(event.outcome, Outcome::Denied(_) | Outcome::Failed(_))
            && (event.source.is_audit() || !is_audited)
            && glob::any(&self.environments, &event.place.environment)
    }

    fn is_denial(&self, event: &Event) -> bool {
        self.denials > 0 && event.source.is_audit() && matches!(event.outcome, Outcome::Denied(_))
    }

    /// The latest change that a sign at this time may be about.
    fn latest<'d>(&self, at: Millis, resource: &str, dossier: &'d Dossier) -> Option<(usize, &'d Change)> {
        let is_near = |change: &Change| change.event.at <= at && at.saturating_sub(change.event.at) <= self.watch;
        let changes =
            dossier.changes.iter().enumerate().filter(|(_, change)| change.requested.is_none() && is_near(change));
        changes
            .filter(|(_, change)| resources_agree(resource, &change.event.resource.id))
            .max_by_key(|(_, change)| change.event.at)
    }

    /// The change that one more refusal makes suspect.
    fn refused<'d>(&self, event: &Event, dossier: &'d Dossier) -> Option<(usize, &'d Change)> {
        self.latest(event.at, "", dossier)
            .filter(|(_, change)| self.is_denial(event) && change.denials + 1 >= self.denials)
    }

    fn signal(&self, signal: &Signal, hearing: &Hearing<'_>, dossier: &mut Dossier) -> Option<Suspicion> {
        let at = hearing.claims.at();
        let (index, change) = self.latest(at, &signal.resource, dossier)?;
        let sign = format!("signal `{}` came", signal.name);
        let suspicion = self.request(&sign, change, hearing.agent, hearing.book);
        dossier.changes.get_mut(index)?.requested = Some(at);
        Some(suspicion)
    }

    /// What asks for a change to be undone, because of what came after it.
    fn request(&self, sign: &str, change: &Change, agent: &Agent, book: &Rulebook) -> Suspicion {
        let rollback = rollback(change, agent, book);
        let event = &change.event;
        let how = match (&rollback.operation, &rollback.pre_state) {
            (Some(operation), _) => format!("undo it with `{operation}`"),
            (None, Some(_)) => "restore the state from before, which the agent kept".to_owned(),
            (None, None) => "nothing is known to undo it: repair it".to_owned(),
        };
        let what = format!("{sign} after {} on {}: {how}", event.action, event.resource.id);
        let mut suspicion = suspicion(&what, sign, "no sign of trouble", None);
        suspicion.rollback = Some(rollback);
        suspicion
    }

    fn acknowledged(&self, said: &Acknowledgement, dossier: &mut Dossier) -> Option<Suspicion> {
        let index = dossier
            .changes
            .iter()
            .position(|change| change.requested.is_some() && id_of(&change.event) == said.rollback)?;
        let change = dossier.changes.remove(index);
        let what = format!("says that the rollback of {} was refused: {}", change.event.action, said.note);
        (!said.restored).then(|| suspicion(&what, "refused", "the safe state restored", Some(self.severities.refused)))
    }
}

impl Detector for Rollbacks {
    fn assess(&self, sighting: Sighting<'_>) -> Option<Suspicion> {
        let Sighting { event, past, book, .. } = sighting;
        let (_, change) = self.refused(event, past.dossier())?;
        let agent = event.agent.registered().and_then(|id| book.registry.by_id(id))?;
        Some(self.request(&format!("the cloud refused the agent {} times", change.denials + 1), change, agent, book))
    }

    fn keep(&self, sighting: Sighting<'_>, dossier: &mut Dossier) {
        let event = sighting.event;
        if self.is_denial(event) {
            let refused = self.refused(event, dossier).map(|(index, _)| index);
            let latest = self.latest(event.at, "", dossier).map(|(index, _)| index);
            if let Some(change) = latest.and_then(|index| dossier.changes.get_mut(index)) {
                change.denials += 1;
                if refused.is_some() {
                    change.requested = Some(event.at);
                }
            }
        }
        if self.is_watched(sighting) {
            if dossier.changes.len() >= MOST_WATCHED {
                let oldest = dossier.changes.iter().position(|change| change.requested.is_none()).unwrap_or_default();
                dossier.changes.remove(oldest);
            }
            dossier.changes.push(Change { event: Kept::of(event), denials: 0, requested: None, overdue: false });
        }
    }

    fn hear(&self, hearing: &Hearing<'_>, dossier: &mut Dossier) -> Option<Suspicion> {
        match &hearing.claims.says {
            Says::Signal(signal) => self.signal(signal, hearing, dossier),
            Says::Acknowledgement(said) => self.acknowledged(said, dossier),
            _ => None,
        }
    }

    fn settle(&self, case: &Case<'_>, dossier: &mut Dossier) -> Vec<Found> {
        let now = case.now.at;
        let mut found = Vec::new();
        for change in &mut dossier.changes {
            let is_due = change.requested.is_some_and(|at| now.saturating_sub(at) > self.acknowledge);
            if is_due && !change.overdue {
                change.overdue = true;
                let what = "should have been rolled back, and nobody has acknowledged the request";
                let mut suspicion = suspicion(
                    what,
                    "no acknowledgement",
                    "an acknowledgement in time",
                    Some(self.severities.unacknowledged),
                );
                suspicion.rollback = Some(rollback(change, case.agent, case.book));
                found.push(Found { event: change.event.clone(), suspicion });
            }
        }
        dossier.changes.retain(|change| {
            let age = now.saturating_sub(change.event.at);
            if change.requested.is_some() { age <= self.forget } else { age <= self.watch }
        });
        found
    }

    fn is_statistical(&self) -> bool {
        false
    }
}

fn id_of(event: &Event) -> String {
    format!("rollback/{}", event.id)
}

fn rollback(change: &Change, agent: &Agent, book: &Rulebook) -> Rollback {
    let event = &change.event;
    let notify = [&agent.owner, &event.place.team].into_iter().filter(|name| !name.is_empty()).cloned();
    Rollback {
        id: id_of(event),
        operation: book.operations.inverse(event).map(str::to_owned),
        pre_state: event.pre_state.clone(),
        resource: event.resource.id.clone(),
        notify: notify.collect(),
    }
}

fn suspicion(what: &str, observed: &str, expected: &str, severity: Option<Severity>) -> Suspicion {
    let seen = [observed, expected].map(str::to_owned);
    Suspicion { severity, ..Suspicion::of_rule(what.to_owned(), "rollback", seen) }
}

#[cfg(test)]
mod tests;
