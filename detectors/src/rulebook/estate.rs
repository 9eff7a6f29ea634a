//! The map of the ground: which account, cluster or resource belongs to which environment.

use serde::Deserialize;

use super::toml_file::TomlFile;
use super::{RuleFile, RulebookError};
use crate::event::Event;
use crate::glob::{self, Glob};

/// The environment of every place that the map does not name.
pub const UNMAPPED_ENVIRONMENT: &str = "production";

/// One entry of the map. Every key that is given must fit; the first entry that fits counts.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    account: Option<Glob>,
    region: Option<Glob>,
    cluster: Option<Glob>,
    namespace: Option<Glob>,
    /// Pattern over the resource's id, for what has no account (web services, repositories).
    resource: Option<Glob>,
    /// Pattern over the tool, for agents whose tools reach one environment only.
    tool: Option<Glob>,
    environment: String,
    #[serde(default)]
    tier: String,
    #[serde(default)]
    team: String,
    #[serde(default)]
    crown_jewels: Vec<Glob>,
}

impl Entry {
    fn fits(&self, event: &Event) -> bool {
        let place = &event.place;
        [
            (&self.account, &place.account),
            (&self.region, &place.region),
            (&self.cluster, &place.cluster),
            (&self.namespace, &place.namespace),
            (&self.resource, &event.resource.id),
            (&self.tool, &event.tool),
        ]
        .into_iter()
        .all(|(pattern, text)| pattern.as_ref().is_none_or(|glob| glob.matches(text)))
    }

    fn names_nothing(&self) -> bool {
        [&self.account, &self.region, &self.cluster, &self.namespace, &self.resource, &self.tool]
            .into_iter()
            .all(Option::is_none)
    }
}

/// The whole map.
#[derive(Clone, Debug, Default)]
pub struct Estate {
    entries: Vec<Entry>,
}

impl Estate {
    /// Fills in what the map knows of the event's place. What it does not name is production.
    pub fn locate(&self, event: &mut Event) {
        let found = self.entries.iter().find(|entry| entry.fits(event));
        let place = &mut event.place;
        place.mapped = found.is_some();
        match found {
            Some(entry) => {
                place.environment.clone_from(&entry.environment);
                place.tier.clone_from(&entry.tier);
                place.team.clone_from(&entry.team);
                place.crown_jewel = glob::any(&entry.crown_jewels, &event.resource.id);
            }
            None => UNMAPPED_ENVIRONMENT.clone_into(&mut place.environment),
        }
    }

    pub(super) fn read(files: &[&RuleFile], errors: &mut Vec<RulebookError>) -> Self {
        let mut entries = Vec::new();
        for &file in files {
            let mut toml = TomlFile::parse(file, errors);
            for entry in toml.list::<Entry>("place", errors) {
                if entry.value.names_nothing() {
                    let message = "a place needs an `account`, `region`, `cluster`, `namespace`, `resource` or `tool`";
                    errors.push(file.error(entry.span.start, message));
                }
                entries.push(entry.value);
            }
            toml.finish(errors);
        }
        Self { entries }
    }
}
