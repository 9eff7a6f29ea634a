//! Risk: which changes need an approval and by how many people, and what counts as large.

use serde::Deserialize;

use super::toml_file::TomlFile;
use super::{RuleFile, RulebookError};
use crate::event::{Event, Verb};
use crate::glob::{self, Glob};

/// Where the rules stand.
const FILE: &str = "approvals/risk.toml";

/// Which changes need an approval.
#[derive(Clone, Debug, Default)]
pub struct Risk {
    rules: Vec<Rule>,
    limits: Vec<Limit>,
    unlisted: Unlisted,
}

/// One rule. What it does not name fits.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    verbs: Option<Vec<Verb>>,
    operations: Option<Vec<Glob>>,
    resource_types: Option<Vec<Glob>>,
    assets: Option<Vec<Glob>>,
    environments: Option<Vec<Glob>>,
    tiers: Option<Vec<Glob>>,
    people: u32,
}

impl Rule {
    fn fits(&self, event: &Event) -> bool {
        let any = |patterns: &Option<Vec<Glob>>, text: &str| {
            patterns.as_ref().is_none_or(|patterns| glob::any(patterns, text))
        };
        self.verbs.as_ref().is_none_or(|verbs| verbs.contains(&event.verb))
            && any(&self.operations, &event.action)
            && any(&self.resource_types, &event.resource.kind)
            && any(&self.assets, &event.resource.asset)
            && any(&self.environments, &event.place.environment)
            && any(&self.tiers, &event.place.tier)
    }
}

/// From how many resources on a change is large.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Limit {
    /// Its name in alerts.
    pub(crate) name: String,
    operations: Vec<Glob>,
    environments: Option<Vec<Glob>>,
    /// The most resources in one action, in one run, and in an hour, without a bulk approval.
    pub(crate) per_action: u32,
    pub(crate) per_run: u32,
    pub(crate) per_hour: u32,
}

impl Limit {
    fn fits(&self, event: &Event) -> bool {
        let there = self.environments.as_ref();
        glob::any(&self.operations, &event.action)
            && there.is_none_or(|environments| glob::any(environments, &event.place.environment))
    }
}

/// What needs an approval though no rule lists it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Unlisted {
    environments: Vec<Glob>,
    people: u32,
}

impl Risk {
    /// How many people must have approved an event; 0 where it changes nothing or needs no approval.
    pub fn people(&self, event: &Event) -> u32 {
        if !event.verb.changes() {
            return 0;
        }
        match self.rules.iter().find(|rule| rule.fits(event)) {
            Some(rule) => rule.people,
            None if glob::any(&self.unlisted.environments, &event.place.environment) => self.unlisted.people,
            None => 0,
        }
    }

    /// The limit that an event counts towards.
    pub(crate) fn limit(&self, event: &Event) -> Option<&Limit> {
        self.limits.iter().find(|limit| event.verb.changes() && limit.fits(event))
    }

    pub(super) fn read(files: &[RuleFile], errors: &mut Vec<RulebookError>) -> Self {
        let Some(file) = files.iter().find(|file| file.name == FILE) else { return Self::default() };
        let mut toml = TomlFile::parse(file, errors);
        let rules = toml.list::<Rule>("rule", errors).into_iter().map(|entry| entry.value).collect();
        let limits = toml.list::<Limit>("limit", errors).into_iter().map(|entry| entry.value).collect();
        let unlisted: Option<RawRest> = toml.rest(errors);
        Self { rules, limits, unlisted: unlisted.map(|rest| rest.unlisted).unwrap_or_default() }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRest {
    unlisted: Unlisted,
}
