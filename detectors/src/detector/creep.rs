//! Creep: a sphere of influence that grows, step by small step.

use serde::Deserialize;

use super::{Clue, Detector, Sighting, Suspicion, duration};
use crate::baselines::{Dossier, FirstTime};
use crate::event::{Event, Millis, Outcome};

/// Most places of an agent that are remembered. One that works in more of them is beyond creeping.
const MOST_PLACES: usize = 256;

/// Reports when an agent comes to more new environments, or accounts, within a while than is allowed. One new place is no
/// creep, and `unexpected-access` reports it where it is surprising.
///
/// Only places that the estate names count: an agent can make up any other.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Creep {
    /// How long a place counts as new.
    #[serde(deserialize_with = "duration")]
    within: Millis,
    /// What an agent comes to in this time from its first event on is its home.
    #[serde(deserialize_with = "duration")]
    home: Millis,
    /// Most new environments at once.
    environments: usize,
    /// Most new accounts at once.
    accounts: usize,
}

impl Detector for Creep {
    fn assess(&self, sighting: Sighting<'_>) -> Option<Suspicion> {
        let Sighting { event, past, .. } = sighting;
        let start = past.profile()?.first_seen;
        let places = &past.dossier().habits.places;
        let evidence: Vec<Clue> = unknown(event, places)
            .filter_map(|(account, name)| self.growth(event.at, start, places, (account, name)))
            .collect();
        let first = evidence.first()?;
        let days = self.within / (24 * 3_600_000);
        Some(Suspicion {
            what: format!("widens the agent's reach again: new within {days} days are {}", first.observed),
            counterfactual: "the same in a place that the agent knows, or the registry's word that it is to grow"
                .to_owned(),
            evidence,
            remember: Vec::new(),
            severity: None,
            rollback: None,
        })
    }

    fn follow(&self, event: &Event, _learnable: bool, dossier: &mut Dossier) {
        let places = &mut dossier.habits.places;
        let new: Vec<FirstTime> = unknown(event, places)
            .map(|(account, name)| FirstTime { account, name: name.to_owned(), at: event.at })
            .collect();
        let room = MOST_PLACES.saturating_sub(places.len());
        places.extend(new.into_iter().take(room));
    }

    fn is_statistical(&self) -> bool {
        false
    }
}

impl Creep {
    /// What a new place adds to those that are new already, if that is too much.
    fn growth(&self, at: Millis, start: Millis, places: &[FirstTime], (account, name): (bool, &str)) -> Option<Clue> {
        let is_full = places.len() >= MOST_PLACES;
        let is_home = |at: Millis| at.saturating_sub(start) <= self.home;
        if is_full || is_home(at) {
            return None;
        }
        let is_new = |place: &&FirstTime| {
            place.account == account && !is_home(place.at) && at.saturating_sub(place.at) <= self.within
        };
        let others = places.iter().filter(is_new).map(|place| place.name.as_str());
        let new: Vec<String> = others.chain([name]).map(|name| format!("`{name}`")).collect();
        let (kind, most) = if account { ("accounts", self.accounts) } else { ("environments", self.environments) };
        (new.len() > most).then(|| Clue {
            what: format!("new-{kind}"),
            observed: format!("{kind} {}", new.join(", ")),
            expected: format!("at most {most}"),
            p_value: None,
            sample: u64::try_from(places.len()).unwrap_or(u64::MAX),
        })
    }
}

/// The environment and the account of an event, where the agent was never before. What was refused was not reached.
fn unknown<'e>(event: &'e Event, places: &[FirstTime]) -> impl Iterator<Item = (bool, &'e str)> {
    let place = &event.place;
    let is_reached = place.mapped && !matches!(event.outcome, Outcome::Denied(_) | Outcome::Failed(_));
    [(false, place.environment.as_str()), (true, place.account.as_str())].into_iter().filter(move |(account, name)| {
        let is_known = || places.iter().any(|known| known.account == *account && known.name == *name);
        is_reached && !name.is_empty() && !is_known()
    })
}

#[cfg(test)]
mod tests;
