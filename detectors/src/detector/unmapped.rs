//! Places that the estate does not name.

use serde::Deserialize;

use super::{Clue, Detector, Memory, Sighting, Suspicion};
use crate::baselines::{Cell, Dimension};
use crate::event::Event;
use crate::rulebook::UNMAPPED_ENVIRONMENT;

/// Reports, once for each agent and place, that an agent works where the estate knows nothing of. Such a place counts as
/// production; an agent that is cleared for production would otherwise work there unnoticed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Unmapped {}

impl Detector for Unmapped {
    fn assess(&self, sighting: Sighting<'_>) -> Option<Suspicion> {
        let event = sighting.event;
        // What a policy forbids is reported by the policy.
        if event.place.mapped || !sighting.judgement.is_allowed() {
            return None;
        }
        let place = place(event);
        let gap = format!("unmapped {place}");
        if sighting.past.cell(Dimension::Gap, &gap) != Cell::default() {
            return None;
        }
        Some(Suspicion {
            what: format!("is in {place}, which the estate does not name: taken for {UNMAPPED_ENVIRONMENT}"),
            evidence: vec![Clue {
                what: "place".to_owned(),
                observed: place,
                expected: "a place that the estate names".to_owned(),
                p_value: None,
                sample: 0,
            }],
            counterfactual: "the same in a place that the estate names: add this one to it".to_owned(),
            remember: vec![Memory::Value(Dimension::Gap, gap)],
            severity: None,
            rollback: None,
        })
    }

    fn is_statistical(&self) -> bool {
        false
    }
}

/// The most telling name of the event's place.
fn place(event: &Event) -> String {
    let place = &event.place;
    let names = [("account", &place.account), ("cluster", &place.cluster), ("namespace", &place.namespace)];
    let named = names.iter().find(|(_, name)| !name.is_empty());
    named.map_or_else(|| "a place without a name".to_owned(), |(kind, name)| format!("{kind} `{name}`"))
}
