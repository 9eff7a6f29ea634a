//! Drift between policy and reality, live: what policy forbids and the cloud let happen.

use serde::Deserialize;

use super::{Clue, Detector, Memory, Sighting, Suspicion};
use crate::baselines::{Cell, Dimension};
use crate::event::Outcome;
use crate::rulebook::PolicyRef;

/// Reports a gap the first time that an audit log shows it: this agent, this policy, this operation.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PolicyDrift {}

impl Detector for PolicyDrift {
    fn assess(&self, sighting: Sighting<'_>) -> Option<Suspicion> {
        let event = sighting.event;
        if !event.source.is_audit() || event.outcome != Outcome::Success {
            return None;
        }
        let gaps: Vec<(&str, String)> = sighting
            .judgement
            .violations
            .iter()
            .map(|violation| (violation.policy.id.as_str(), format!("{} {}", violation.policy.id, event.action)))
            .filter(|(_, gap)| sighting.past.cell(Dimension::Gap, gap) == Cell::default())
            .collect();
        let severity = |policy: &&PolicyRef| {
            policy.severity.or_else(|| sighting.book.control(&policy.control).map(|control| control.severity))
        };
        let broken = sighting.judgement.violations.iter().map(|violation| &violation.policy);
        let open = broken.filter(|policy| gaps.iter().any(|(id, _)| *id == policy.id));
        let worst = &open.rev().max_by_key(severity)?.id;
        Some(Suspicion {
            what: format!("is forbidden by policy `{worst}`, yet the cloud let it happen"),
            evidence: gaps.iter().map(|(policy, _)| evidence(policy)).collect(),
            counterfactual: "the same denied by the cloud, as policy says".to_owned(),
            remember: gaps.into_iter().map(|(_, gap)| Memory::Value(Dimension::Gap, gap)).collect(),
            severity: None,
            rollback: None,
        })
    }

    fn is_statistical(&self) -> bool {
        false
    }
}

fn evidence(policy: &str) -> Clue {
    Clue {
        what: "gap".to_owned(),
        observed: "allowed by the cloud".to_owned(),
        expected: format!("denied, as policy `{policy}` says"),
        p_value: None,
        sample: 0,
    }
}
