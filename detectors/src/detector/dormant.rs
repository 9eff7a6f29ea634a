//! Dormancy: an agent that nobody has seen for long, and that acts again.

use serde::Deserialize;

use super::{Detector, Sighting, Suspicion, duration};
use crate::event::Millis;

const DAY: Millis = 24 * 3_600_000;

/// Reports the first event of an agent after a long silence. Credentials that nobody uses are taken unnoticed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Dormant {
    /// For how long it was silent.
    #[serde(deserialize_with = "duration")]
    after: Millis,
}

impl Detector for Dormant {
    fn assess(&self, sighting: Sighting<'_>) -> Option<Suspicion> {
        let silence = sighting.event.at.saturating_sub(sighting.last_seen?);
        if silence < self.after {
            return None;
        }
        let (days, most) = (silence / DAY, self.after / DAY);
        let what = format!("wakes the agent after {days} days in which nothing was seen of it");
        let seen = [format!("{days} days"), format!("less than {most} days")];
        let counterfactual =
            format!("by an agent that works at least every {most} days: retire in the registry what is not needed");
        Some(Suspicion { counterfactual, ..Suspicion::of_rule(what, "silence", seen) })
    }

    fn only_advises(&self) -> bool {
        true
    }

    fn is_statistical(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;

    use crate::engine::{Engine, Input};
    use crate::testing::{book, control, event};

    #[test]
    fn an_agent_that_wakes_is_reported_once_and_what_comes_late_is_no_waking() {
        let detector = "[[detector]]\nkind = \"dormant\"\nafter = \"30d\"\n";
        let mut engine = Engine::new(Arc::new(book(&[("extra/control.toml", &control("extra", detector))])));
        let found: Vec<usize> = (1..)
            .zip([
                "2026-01-01T09:00:00Z",
                "2026-01-31T08:59:59.999Z",
                "2026-03-02T08:59:59.999Z",
                "2026-03-02T09:00:00Z",
                "2026-01-15T09:00:00Z",
                "2026-03-03T09:00:00Z",
            ])
            .map(|(number, time)| engine.step(&Input::Event(Box::new(event(number, "s3:GetObject", time)))).1.len())
            .collect();
        assert_eq!(found, [0, 0, 1, 0, 0, 0]);
    }
}
