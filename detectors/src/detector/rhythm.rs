//! Rhythm: the hours of the week in which an agent works.

use serde::Deserialize;

use super::{Clue, Detector, Memory, Sighting, Suspicion};
use crate::baselines::{Dimension, HOURS_OF_WEEK, Past, Profile, hour_of_week};
use crate::stats::Probability;

const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

/// Reports work in an hour of the week in which, and next to which, this agent never worked, where its past makes that
/// surprising. Once an hour.
///
/// Hours are the values of a Pitman–Yor predictive (see [`Tally::unseen_p`](crate::stats::Tally::unseen_p)), one observation an active hour: an
/// agent around the clock, and one whose week is not yet over, keep meeting new hours and so surprise nobody.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rhythm {
    /// The p-value at or below which an hour is reported.
    p_value: Probability,
}

impl Detector for Rhythm {
    fn assess(&self, sighting: Sighting<'_>) -> Option<Suspicion> {
        let profile = sighting.past.profile()?;
        let (of_week, hour) = hour_of_week(sighting.event.at);
        if near(sighting.past, of_week) || profile.hour_is_reported(hour) {
            return None;
        }
        let tally = sighting.past.tally(Dimension::Hour);
        let p_value = tally.unseen_p();
        if !self.p_value.reached_by(p_value) {
            return None;
        }
        let observed = name(of_week);
        Some(Suspicion {
            what: format!("comes at {observed}, when this agent never works"),
            evidence: vec![Clue {
                what: "hour-of-week".to_owned(),
                observed,
                expected: format!("one of {} known hours, most often {}", tally.distinct, busiest(profile)),
                p_value: Some(p_value),
                sample: tally.total,
            }],
            counterfactual: format!("the same in this agent's own hours, such as {}", busiest(profile)),
            remember: vec![Memory::Hour(hour)],
            severity: None,
            rollback: None,
        })
    }

    fn is_statistical(&self) -> bool {
        true
    }
}

/// Whether the agent worked in this hour of the week or in one beside it.
fn near(past: Past<'_>, of_week: usize) -> bool {
    let beside = [of_week, of_week + HOURS_OF_WEEK - 1, of_week + 1].map(|hour| hour % HOURS_OF_WEEK);
    beside.into_iter().any(|hour| past.hour(hour) > 0)
}

fn busiest(profile: &Profile) -> String {
    let most = profile.hours().max_by_key(|(hour, count)| (*count, std::cmp::Reverse(*hour)));
    most.and_then(|(hour, _)| usize::try_from(hour).ok()).map_or_else(String::new, name)
}

fn name(of_week: usize) -> String {
    format!("{} {:02}:00 UTC", DAYS.get(of_week / 24).copied().unwrap_or_default(), of_week % 24)
}
