//! Quarantine: an agent that is to do nothing but declared reads, until a responder releases it.

use serde::Deserialize;

use super::{Detector, Hearing, Sighting, Suspicion};
use crate::baselines::{Dossier, Quarantine};
use crate::deviation::Severity;
use crate::event::Millis;
use crate::statement::Says;

const DAY: Millis = 24 * 3_600_000;
/// Most operations of which it is remembered that they were reported; of more, each is reported every time.
const MOST_TOLD: usize = 64;

/// Puts agents under quarantine and releases them as persons say, and reports what an agent does all the same, once a day
/// for each operation. Declared reads are reads that no policy forbids.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UnderQuarantine {
    /// How bad the other findings are.
    #[serde(default)]
    severities: Severities,
}

/// How bad the findings are, but for what an agent does, which is as bad as the control says. What is not given is as in the
/// rules that are shipped.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Severities {
    without_effect: Severity,
}

impl Default for Severities {
    fn default() -> Self {
        Self { without_effect: Severity::High }
    }
}

impl Detector for UnderQuarantine {
    fn assess(&self, sighting: Sighting<'_>) -> Option<Suspicion> {
        let held = broken(sighting)?;
        let Sighting { event, .. } = sighting;
        let day = event.at.div_euclid(DAY);
        if held.told.get(&event.action) == Some(&day) {
            return None;
        }
        let what = format!("is done under quarantine, since {}: {}", held.by, held.reason);
        Some(suspicion(&what, &event.action, "declared reads, until a responder releases the agent", None))
    }

    fn awaits(&self, sighting: Sighting<'_>) -> bool {
        broken(sighting).is_some()
    }

    fn keep(&self, sighting: Sighting<'_>, dossier: &mut Dossier) {
        let Some(held) = dossier.quarantine.as_mut().filter(|held| breaks(held, sighting)) else { return };
        let day = sighting.event.at.div_euclid(DAY);
        held.told.retain(|_, told| *told >= day);
        if held.told.len() < MOST_TOLD {
            held.told.insert(sighting.event.action.clone(), day);
        }
    }

    fn hear(&self, hearing: &Hearing<'_>, dossier: &mut Dossier) -> Option<Suspicion> {
        let (says, by) = (&hearing.claims.says, &hearing.claims.sub);
        let (Says::Quarantine(words) | Says::Release(words)) = says else { return None };
        let releases = matches!(says, Says::Release(_));
        let trouble = if !hearing.is_by_person() {
            Some("is by an agent or a bot, or by somebody who is not known as a person")
        } else if releases && *by == hearing.agent.owner {
            Some("is by the agent's own owner")
        } else if words.reason.trim().is_empty() {
            Some("says no reason")
        } else {
            None
        };
        if let Some(trouble) = trouble {
            let expected = "the word of a person, who to release it is not the agent's owner, and a reason";
            return Some(suspicion(
                &format!("{trouble}, and has no effect"),
                says.name(),
                expected,
                Some(self.severities.without_effect),
            ));
        }
        let since = hearing.claims.at();
        if !releases {
            let reason = words.reason.clone();
            let held = Quarantine { since, by: by.clone(), reason, told: Default::default() };
            dossier.quarantine.get_or_insert(held);
        } else if dossier.quarantine.as_ref().is_some_and(|held| held.since <= since) {
            dossier.quarantine = None;
        }
        None
    }

    fn is_statistical(&self) -> bool {
        false
    }
}

/// The quarantine that an event breaks.
fn broken<'a>(sighting: Sighting<'a>) -> Option<&'a Quarantine> {
    sighting.past.dossier().quarantine.as_ref().filter(|held| breaks(held, sighting))
}

fn breaks(held: &Quarantine, sighting: Sighting<'_>) -> bool {
    let Sighting { event, judgement, .. } = sighting;
    event.at >= held.since && !judgement.is_declared_read(event)
}

fn suspicion(what: &str, observed: &str, expected: &str, severity: Option<Severity>) -> Suspicion {
    let seen = [observed, expected].map(str::to_owned);
    Suspicion { severity, ..Suspicion::of_rule(what.to_owned(), "quarantine", seen) }
}

#[cfg(test)]
mod tests;
