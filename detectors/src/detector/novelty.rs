//! Novelty: the first use of a tool, operation, service, resource type, environment or network, by its predictive
//! rarity for this agent.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Clue, Detector, Memory, Sighting, Suspicion};
use crate::baselines::{Cell, Dimension, Observation};
use crate::stats::Probability;

/// Reports values that this agent never used, where its past makes that surprising.
///
/// The p-value is the Pitman–Yor predictive's (see [`Tally::unseen_p`](crate::stats::Tally::unseen_p)); an agent without a past surprises
/// nobody.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Novelty {
    /// Per dimension the p-value at or below which a first use is reported.
    dimensions: BTreeMap<Dimension, Probability>,
}

impl Detector for Novelty {
    fn assess(&self, sighting: Sighting<'_>) -> Option<Suspicion> {
        let mut evidence = Vec::new();
        let mut remember = Vec::new();
        let (mut what, mut usual) = (String::new(), String::new());
        let new = sighting.observed.iter().filter(|observation| observation.cell == Cell::default());
        for &Observation { dimension, value, .. } in new {
            let Some(limit) = self.dimensions.get(&dimension) else { continue };
            let tally = sighting.past.tally(dimension);
            let p_value = tally.unseen_p();
            if !limit.reached_by(p_value) {
                continue;
            }
            if evidence.is_empty() {
                usual = usual_values(sighting, dimension);
                what = words(dimension, value);
            }
            evidence.push(Clue {
                what: dimension.name().to_owned(),
                observed: format!("`{value}`, for the first time"),
                expected: format!("one of {} known, most often {}", tally.distinct, usual_values(sighting, dimension)),
                p_value: Some(p_value),
                sample: tally.total,
            });
            remember.push(Memory::Value(dimension, value.to_owned()));
        }
        if evidence.is_empty() {
            return None;
        }
        Some(Suspicion {
            what,
            counterfactual: format!("something that this agent is known for, most often {usual}"),
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

/// What is new, as the end of a sentence about the event.
fn words(dimension: Dimension, value: &str) -> String {
    match dimension {
        Dimension::Tool => format!("calls tool `{value}` for the first time"),
        Dimension::Read => "is a read that this agent makes for the first time".to_owned(),
        Dimension::Change => "is a change that this agent makes for the first time".to_owned(),
        Dimension::Sensitive => "is a sensitive operation that this agent uses for the first time".to_owned(),
        Dimension::Service => format!("is this agent's first use of service `{value}`"),
        Dimension::ResourceType => format!("changes a `{value}` for the first time"),
        Dimension::Environment => format!("is this agent's first work in environment `{value}`"),
        Dimension::Origin => format!("comes from network `{value}` for the first time"),
        Dimension::Denial => "is refused by the cloud, as this agent never was".to_owned(),
        Dimension::Gap | Dimension::Revoked | Dimension::Hour | Dimension::Note => format!("is new: `{value}`"),
    }
}

fn usual_values(sighting: Sighting<'_>, dimension: Dimension) -> String {
    let values = sighting.past.usual(dimension, 3);
    let texts: Vec<String> = values.iter().map(|(value, count)| format!("`{value}` ({count}×)")).collect();
    texts.join(", ")
}
