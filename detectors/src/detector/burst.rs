//! Bursts: more requests, denials or first uses in a window than this agent's own rate explains.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Clue, Detector, Memory, Sighting, Suspicion};
use crate::baselines::{Rate, WINDOW};
use crate::stats::Probability;

/// Reports a rate that is improbably high for this agent, once a window, as soon as it is reached.
///
/// Gamma–Poisson predictive (see [`crate::stats::WindowCounts::burst_p`]).
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Burst {
    /// Fewer closed windows than this say nothing about an agent's rate.
    least_windows: u64,
    /// Per rate the limits.
    rates: BTreeMap<Rate, Limit>,
}

/// When a rate is a burst.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Limit {
    /// The p-value at or below which it is reported.
    p_value: Probability,
    /// Fewer than this are never a burst.
    least: u32,
}

impl Detector for Burst {
    fn assess(&self, sighting: Sighting<'_>) -> Option<Suspicion> {
        let profile = sighting.past.profile()?;
        let mut evidence = Vec::new();
        let mut remember = Vec::new();
        for (rate, limit) in &self.rates {
            let history = profile.rate(*rate);
            let quiet = history.reported || history.open < limit.least || history.closed.windows < self.least_windows;
            // Nothing below the mean is a burst; spare the tail.
            if quiet || f64::from(history.open) <= history.closed.mean() {
                continue;
            }
            let p_value = history.closed.burst_p(history.open);
            if !limit.p_value.reached_by(p_value) {
                continue;
            }
            evidence.push(Clue {
                what: rate.name().to_owned(),
                observed: format!("{} in an open window of {} minutes", history.open, WINDOW / 60_000),
                expected: format!("{:.1} in a whole one", history.closed.mean()),
                p_value: Some(p_value),
                sample: history.closed.windows,
            });
            remember.push(Memory::Burst(*rate));
        }
        let first = evidence.first()?;
        Some(Suspicion {
            what: format!("comes in a burst of {}: {}", first.what.replace('-', " "), first.observed),
            counterfactual: format!("the same at this agent's usual rate, {}", first.expected),
            evidence,
            remember,
            severity: None,
            rollback: None,
        })
    }

    fn is_statistical(&self) -> bool {
        true
    }
}
