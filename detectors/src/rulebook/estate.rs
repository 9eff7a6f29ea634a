//! The map of the ground: which account, cluster or resource belongs to which environment.

use std::collections::BTreeSet;

use rustc_hash::FxHashMap;
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
    /// Accounts without a star, to their entries.
    by_account: FxHashMap<String, Vec<usize>>,
    /// All other entries.
    elsewhere: Vec<usize>,
}

impl Estate {
    /// Fills in what the map knows of the event's place. What it does not name is production.
    pub fn locate(&self, event: &mut Event) {
        let found = self.first_that_fits(event);
        let place = &mut event.place;
        place.mapped = found.is_some();
        match found {
            Some(entry) => {
                place.environment.clone_from(&entry.environment);
                place.tier.clone_from(&entry.tier);
                place.team.clone_from(&entry.team);
                place.crown_jewel = glob::any(&entry.crown_jewels, &event.resource.id);
            }
            None => {
                UNMAPPED_ENVIRONMENT.clone_into(&mut place.environment);
                place.tier.clear();
                place.team.clear();
                place.crown_jewel = false;
            }
        }
    }

    /// Every environment that a place can have.
    pub(super) fn environments(&self) -> BTreeSet<String> {
        let named = self.entries.iter().map(|entry| entry.environment.clone());
        named.chain([UNMAPPED_ENVIRONMENT.to_owned()]).collect()
    }

    /// Every tier that a place can have.
    pub(super) fn tiers(&self) -> BTreeSet<String> {
        self.entries.iter().map(|entry| entry.tier.clone()).chain([String::new()]).collect()
    }

    fn first_that_fits(&self, event: &Event) -> Option<&Entry> {
        let fits = |index: &&usize| self.entries.get(**index).is_some_and(|entry| entry.fits(event));
        let here = self.by_account.get(&event.place.account).and_then(|entries| entries.iter().find(fits));
        let elsewhere = self.elsewhere.iter().take_while(|&index| here.is_none_or(|here| index < here)).find(fits);
        elsewhere.or(here).and_then(|&index| self.entries.get(index))
    }

    pub(super) fn read(files: &[&RuleFile], errors: &mut Vec<RulebookError>) -> Self {
        let mut estate = Self::default();
        for &file in files {
            let mut toml = TomlFile::parse(file, errors);
            for entry in toml.list::<Entry>("place", errors) {
                if entry.value.names_nothing() {
                    let message = "a place needs an `account`, `region`, `cluster`, `namespace`, `resource` or `tool`";
                    errors.push(file.error(entry.span.start, message));
                }
                estate.add(entry.value);
            }
            toml.finish(errors);
        }
        estate
    }

    fn add(&mut self, entry: Entry) {
        let list = match entry.account.as_ref().and_then(Glob::literal) {
            Some(account) => self.by_account.entry(account.to_owned()).or_default(),
            None => &mut self.elsewhere,
        };
        list.push(self.entries.len());
        self.entries.push(entry);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::event::{Place, Resource};
    use crate::testing::{book, faults};

    const ESTATE: &str = r#"
[[place]]
account = "1*"
region = "eu-*"
environment = "production"
tier = "1"
team = "payments"
crown_jewels = ["arn:aws:s3:::ledger-*"]

[[place]]
account = "1*"
environment = "staging"

[[place]]
cluster = "prod-*"
namespace = "tools"
environment = "shared"

[[place]]
resource = "https://git.example.com/*"
environment = "shared"

[[place]]
tool = "search_*"
environment = "shared"
"#;

    fn located(event: Event) -> Place {
        let book = book(&[("registry/estate.toml", ESTATE)]);
        let mut event = event;
        book.estate.locate(&mut event);
        event.place
    }

    fn place(account: &str, region: &str, cluster: &str, namespace: &str) -> Event {
        let place = Place {
            account: account.to_owned(),
            region: region.to_owned(),
            cluster: cluster.to_owned(),
            namespace: namespace.to_owned(),
            ..Place::default()
        };
        Event { place, ..Event::default() }
    }

    #[test]
    fn the_first_entry_whose_every_key_fits_counts() {
        for (event, environment, mapped) in [
            (place("111", "eu-west-1", "", ""), "production", true),
            (place("111", "us-east-1", "", ""), "staging", true),
            (place("", "", "prod-1", "tools"), "shared", true),
            (place("", "", "prod-1", "web"), UNMAPPED_ENVIRONMENT, false),
            (place("222", "eu-west-1", "", ""), UNMAPPED_ENVIRONMENT, false),
            (Event { tool: "search_logs".to_owned(), ..Event::default() }, "shared", true),
            (Event::default(), UNMAPPED_ENVIRONMENT, false),
        ] {
            let place = located(event.clone());
            assert_eq!((place.environment.as_str(), place.mapped), (environment, mapped), "{event:?}");
        }
    }

    #[test]
    fn crown_jewels_are_those_of_the_entry_that_counts() {
        let jewel = |region: &str, id: &str| {
            let resource = Resource { id: id.to_owned(), ..Resource::default() };
            located(Event { resource, ..place("111", region, "", "") }).crown_jewel
        };
        assert!(jewel("eu-west-1", "arn:aws:s3:::ledger-2026"));
        assert!(!jewel("eu-west-1", "arn:aws:s3:::other"));
        assert!(!jewel("us-east-1", "arn:aws:s3:::ledger-2026"), "there the second entry counts");
    }

    #[test]
    fn what_was_known_of_another_place_does_not_stay() {
        let found = located(place("111", "eu-west-1", "", ""));
        assert_eq!((found.tier.as_str(), found.team.as_str()), ("1", "payments"));
        let again = located(Event { place: Place { account: "999".to_owned(), ..found }, ..Event::default() });
        assert_eq!(
            (again.environment.as_str(), again.tier.as_str(), again.team.as_str()),
            (UNMAPPED_ENVIRONMENT, "", "")
        );
        assert!(!again.mapped && !again.crown_jewel);
    }

    #[test]
    fn faults_of_the_map_are_named() {
        let text = "[[place]]\nenvironment = \"staging\"\n\n[[place]]\nacount = \"1\"\nenvironment = \"staging\"\n\n\
            [[place]]\naccount = \"1\"\n\n[[plaice]]\naccount = \"1\"\n";
        let found = faults(&[("registry/estate.toml", text)]);
        for (line, says) in [(1, "a place needs"), (5, "acount"), (8, "environment"), (11, "unknown section `plaice`")]
        {
            let place = format!("rules/registry/estate.toml:{line}: ");
            assert!(found.iter().any(|fault| fault.starts_with(&place) && fault.contains(says)), "{line}: {found:#?}");
        }
        assert_eq!(found.len(), 4, "{found:#?}");
    }
}
