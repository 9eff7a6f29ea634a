//! Forgery: statements that nobody who may make them has signed.

use serde::Deserialize;

use super::{Detector, Sighting, Suspicion};
use crate::deviation::{Evidence, Severity};
use crate::statement::{Claims, Distrust};

/// Reports statements that are not believed. Nothing of what they say has any effect.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Forgery {}

impl Detector for Forgery {
    fn assess(&self, _sighting: Sighting<'_>) -> Option<Suspicion> {
        None
    }

    fn disbelieve(&self, claims: &Claims, why: &Distrust) -> Option<Suspicion> {
        let kind = claims.says.name();
        let evidence = Evidence {
            what: "signature".to_owned(),
            observed: format!("a statement that {why}"),
            expected: "the signature of a configured issuer that may say so".to_owned(),
            p_value: None,
            sample: 0,
            score: Severity::Critical.score(),
        };
        Some(Suspicion {
            what: format!("{why}, and is not believed"),
            evidence: vec![evidence],
            counterfactual: format!("the {kind} by an issuer of issuers.toml, signed with one of its keys"),
            remember: Vec::new(),
            severity: None,
            rollback: None,
        })
    }

    fn is_statistical(&self) -> bool {
        false
    }
}
