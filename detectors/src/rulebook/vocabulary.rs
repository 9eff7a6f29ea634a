//! The vocabulary: what native operations mean (verb, kind of asset, kind of data), as data in `rules/vocabulary/`.

use std::collections::BTreeSet;

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
    /// Only for requests that change who may do what, by the source's own word or an entry's before.
    #[serde(default)]
    permissions_only: bool,
    /// Only for requests that open a resource to others.
    #[serde(default)]
    exposing_only: bool,
    verb: Option<Verb>,
    asset: Option<String>,
    data: Option<String>,
}

impl Entry {
    /// Whether it speaks of requests of this verb, which open a resource to others or not.
    fn speaks_of(&self, verb: Verb, exposes: bool) -> bool {
        (!self.changes_only || verb.changes())
            && (!self.permissions_only || verb == Verb::PermissionChange)
            && (!self.exposing_only || exposes)
    }
}

/// All entries, in the order of their files; the first that says something of a property decides it.
#[derive(Clone, Debug, Default)]
pub struct Vocabulary {
    entries: Vec<Entry>,
    /// Service (the operation's part before `:`) to its entries.
    by_service: FxHashMap<String, Vec<Mention>>,
    /// Entries whose service holds a star.
    any_service: Vec<Mention>,
}

/// What an entry says of one service: only those of its patterns.
#[derive(Clone, Debug)]
struct Mention {
    entry: usize,
    operations: Vec<Glob>,
}

impl Vocabulary {
    /// Fills in verb, asset and data of the event.
    pub fn classify(&self, event: &mut Event) {
        let service = event.action.split_once(':').map_or("", |(service, _)| service);
        let special = self.by_service.get(service).into_iter().flatten();
        let (mut verb, mut asset, mut data) = (None, None, None);
        for mention in special.chain(&self.any_service) {
            let Some(entry) = self.entries.get(mention.entry) else { continue };
            if !entry.speaks_of(verb.unwrap_or(event.verb), event.resource.exposes)
                || !glob::any(&mention.operations, &event.action)
            {
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

    /// Every kind of asset that it knows, and none.
    pub(super) fn assets(&self) -> BTreeSet<String> {
        self.entries.iter().filter_map(|entry| entry.asset.clone()).chain([String::new()]).collect()
    }

    /// Every kind of data that it knows, and none.
    pub(super) fn data(&self) -> BTreeSet<String> {
        self.entries.iter().filter_map(|entry| entry.data.clone()).chain([String::new()]).collect()
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
        for operation in &entry.operations {
            let list = match operation.to_string().split_once(':') {
                Some((service, _)) if !service.contains('*') => self.by_service.entry(service.to_owned()).or_default(),
                _ => &mut self.any_service,
            };
            match list.last_mut() {
                Some(mention) if mention.entry == index => mention.operations.push(operation.clone()),
                _ => list.push(Mention { entry: index, operations: vec![operation.clone()] }),
            }
        }
        self.entries.push(entry);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::event::Resource;
    use crate::testing::{book, faults};

    const WORDS: &str = r#"
[[operations]]
operations = ["iam:*", "sts:Assume*"]
changes_only = true
verb = "permission_change"
asset = "identity"

[[operations]]
operations = ["iam:Get*"]
data = "credentials"

[[operations]]
operations = ["s3:Put*Policy"]
exposing_only = true
asset = "exposed"

[[operations]]
operations = ["s3:Put*Acl"]
verb = "permission_change"
asset = ""

[[operations]]
operations = ["s3:*", "graph:*"]
permissions_only = true
asset = "identity"

[[operations]]
operations = ["s3:*"]
asset = "store"
data = "stores"

[[operations]]
operations = ["*:Delete*", "drop_*"]
asset = "deleted"
verb = "execute"
"#;

    fn classified(action: &str, verb: Verb, exposes: bool) -> (Verb, String, String) {
        let book = book(&[("vocabulary/test.toml", WORDS)]);
        let resource = Resource { exposes, ..Resource::default() };
        let mut event = Event { action: action.to_owned(), verb, resource, ..Event::default() };
        book.vocabulary.classify(&mut event);
        (event.verb, event.resource.asset, event.resource.data)
    }

    #[test]
    fn the_first_entry_that_says_something_of_a_property_decides_it() {
        for (action, verb, exposes, expected) in [
            ("iam:CreateUser", Verb::Write, false, (Verb::PermissionChange, "identity", "")),
            ("iam:GetUser", Verb::Read, false, (Verb::Read, "", "credentials")),
            ("iam:GetUser", Verb::Write, false, (Verb::PermissionChange, "identity", "credentials")),
            ("sts:AssumeRole", Verb::Write, false, (Verb::PermissionChange, "identity", "")),
            ("sts:GetCallerIdentity", Verb::Read, false, (Verb::Read, "", "")),
            ("s3:PutBucketPolicy", Verb::Write, true, (Verb::Write, "exposed", "stores")),
            ("s3:PutBucketPolicy", Verb::Write, false, (Verb::Write, "store", "stores")),
            ("s3:PutBucketAcl", Verb::Write, false, (Verb::PermissionChange, "", "stores")),
            ("graph:POST members", Verb::PermissionChange, false, (Verb::PermissionChange, "identity", "")),
            ("graph:POST messages", Verb::Write, false, (Verb::Write, "", "")),
            // Entries of the service come first, those of any service fill in the rest.
            ("s3:DeleteObject", Verb::Write, false, (Verb::Execute, "store", "stores")),
            ("rds:DeleteDBInstance", Verb::Write, false, (Verb::Execute, "deleted", "")),
            ("drop_table", Verb::Write, false, (Verb::Execute, "deleted", "")),
            ("search_logs", Verb::Read, false, (Verb::Read, "", "")),
            ("", Verb::Propose, false, (Verb::Propose, "", "")),
        ] {
            let (found, asset, data) = classified(action, verb, exposes);
            assert_eq!((found, asset.as_str(), data.as_str()), expected, "{action} {verb:?} {exposes}");
        }
    }

    #[test]
    fn a_read_by_the_sources_word_stays_one_where_only_changes_are_meant() {
        assert_eq!(classified("iam:ListUsers", Verb::Read, false).0, Verb::Read);
        assert_eq!(classified("iam:ListUsers", Verb::Propose, false).0, Verb::Propose);
        assert_eq!(classified("iam:ListUsers", Verb::Execute, false).0, Verb::PermissionChange);
    }

    #[test]
    fn faults_of_the_vocabulary_are_named() {
        let text = "[[operations]]\noperations = [\"a:*\"]\nverb = \"look\"\n\n[[operations]]\nverb = \"read\"\n\n[[operation]]\n";
        let found = faults(&[("vocabulary/test.toml", text)]);
        for (line, says) in [(3, "look"), (5, "operations"), (8, "unknown section `operation`")] {
            let place = format!("rules/vocabulary/test.toml:{line}: ");
            assert!(found.iter().any(|fault| fault.starts_with(&place) && fault.contains(says)), "{line}: {found:#?}");
        }
        assert_eq!(found.len(), 3, "{found:#?}");
    }
}
