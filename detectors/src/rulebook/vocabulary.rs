//! The vocabulary: what native operations mean (verb, kind of asset, kind of data), as data in `rules/vocabulary/`.

use rustc_hash::FxHashMap;
use serde::Deserialize;

use super::toml_file::TomlFile;
use super::{RuleFile, RulebookError};
use crate::event::{Event, Verb};
use crate::glob::{self, Glob};

/// One entry: the operations it speaks of and what it says of them.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// Patterns over native operations (`iam:Attach*Policy`).
    operations: Vec<Glob>,
    /// Only for requests that change something, by the source's own word.
    #[serde(default)]
    changes_only: bool,
    /// Only for requests that open a resource to others.
    #[serde(default)]
    exposing_only: bool,
    verb: Option<Verb>,
    asset: Option<String>,
    data: Option<String>,
}

/// All entries, in the order of their files; the first that says something of a property decides it.
#[derive(Clone, Debug, Default)]
pub struct Vocabulary {
    entries: Vec<Entry>,
    /// Service (the operation's part before `:`) to its entries.
    by_service: FxHashMap<String, Vec<usize>>,
    /// Entries whose service holds a star.
    any_service: Vec<usize>,
}

impl Vocabulary {
    /// Fills in verb, asset and data of the event.
    pub fn classify(&self, event: &mut Event) {
        let service = event.action.split_once(':').map_or("", |(service, _)| service);
        let special = self.by_service.get(service).into_iter().flatten();
        let (mut verb, mut asset, mut data) = (None, None, None);
        for entry in special.chain(&self.any_service).filter_map(|&index| self.entries.get(index)) {
            let changes = verb.unwrap_or(event.verb).changes();
            let skipped = (entry.changes_only && !changes) || (entry.exposing_only && !event.resource.exposes);
            if skipped || !glob::any(&entry.operations, &event.action) {
                continue;
            }
            verb = verb.or(entry.verb);
            asset = asset.or(entry.asset.as_ref());
            data = data.or(entry.data.as_ref());
        }
        event.verb = verb.unwrap_or(event.verb);
        if let Some(asset) = asset {
            event.resource.asset.clone_from(asset);
        }
        if let Some(data) = data {
            event.resource.data.clone_from(data);
        }
    }

    pub(super) fn read(files: &[&RuleFile], errors: &mut Vec<RulebookError>) -> Self {
        let mut vocabulary = Self::default();
        for &file in files {
            let mut toml = TomlFile::parse(file, errors);
            for entry in toml.list::<Entry>("operations", errors) {
                vocabulary.add(entry.value);
            }
            toml.finish(errors);
        }
        vocabulary
    }

    fn add(&mut self, entry: Entry) {
        let index = self.entries.len();
        for operation in entry.operations.iter().map(Glob::to_string) {
            let list = match operation.split_once(':') {
                Some((service, _)) if !service.contains('*') => self.by_service.entry(service.to_owned()).or_default(),
                _ => &mut self.any_service,
            };
            if list.last() != Some(&index) {
                list.push(index);
            }
        }
        self.entries.push(entry);
    }
}
