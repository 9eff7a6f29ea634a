//! The persons who can own agents and approve actions.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::toml_file::TomlFile;
use super::{RuleFile, RulebookError};

/// One person.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Person {
    /// Full name.
    pub name: String,
    /// Teams the person belongs to.
    #[serde(default)]
    pub teams: Vec<String>,
}

/// All persons, by their id (the identity provider's subject or mail address).
#[derive(Clone, Debug, Default)]
pub struct People {
    by_id: BTreeMap<String, Person>,
}

impl People {
    /// Whether `id` is a known person.
    pub fn contains(&self, id: &str) -> bool {
        self.by_id.contains_key(id)
    }

    /// The person of this id.
    pub fn get(&self, id: &str) -> Option<&Person> {
        self.by_id.get(id)
    }

    pub(super) fn read(files: &[&RuleFile], errors: &mut Vec<RulebookError>) -> Self {
        let mut by_id = BTreeMap::new();
        for &file in files {
            let mut toml = TomlFile::parse(file, errors);
            by_id.extend(toml.named::<Person>("people", errors).into_iter().map(|entry| (entry.name, entry.value)));
            toml.finish(errors);
        }
        Self { by_id }
    }
}
