//! Forgery: statements that nobody who may make them has signed.

use serde::Deserialize;

use super::{Detector, Sighting, Suspicion};
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
        let observed = format!("a statement that {why}");
        let expected = "the signature of a configured issuer that may say so".to_owned();
        let what = format!("{why}, and is not believed");
        let counterfactual = format!("the {kind} by an issuer of issuers.toml, signed with one of its keys");
        let found = Suspicion::of_rule(what, "signature", [observed, expected]);
        Some(Suspicion { counterfactual, ..found })
    }

    fn is_statistical(&self) -> bool {
        false
    }
}
