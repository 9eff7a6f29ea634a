//! Playbooks: the approved workflows, as declared steps.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

use super::registry::parse_duration;
use super::toml_file::TomlFile;
use super::{RuleFile, RulebookError};
use crate::event::{Event, Millis};
use crate::glob::{self, Glob};

/// One approved workflow: its steps, in the order in which they must come.
#[derive(Clone, Debug)]
pub struct Playbook {
    /// Id, unique in the rulebook.
    pub id: String,
    /// What it is for.
    pub title: String,
    /// The steps in order.
    pub steps: Vec<Step>,
    /// After how long without an action a run counts as ended.
    pub idle: Millis,
}

/// One step of a playbook.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Id, unique in the playbook.
    pub id: String,
    /// Patterns over the native operation or the tool.
    pub operations: Vec<Glob>,
    /// Whether a run may leave it out.
    #[serde(default)]
    pub optional: bool,
    /// How often it may come in a row.
    #[serde(default = "once")]
    pub at_most: u32,
}

fn once() -> u32 {
    1
}

impl Step {
    /// Whether the event is this step.
    pub fn fits(&self, event: &Event) -> bool {
        glob::any(&self.operations, &event.action)
            || (!event.tool.is_empty() && glob::any(&self.operations, &event.tool))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPlaybook {
    title: String,
    idle: Spanned<String>,
    steps: Vec<Step>,
}

/// All playbooks by id.
#[derive(Clone, Debug, Default)]
pub struct Playbooks {
    by_id: BTreeMap<String, Playbook>,
}

impl Playbooks {
    /// The playbook of this id.
    pub fn get(&self, id: &str) -> Option<&Playbook> {
        self.by_id.get(id)
    }

    pub(super) fn read(files: &[&RuleFile], errors: &mut Vec<RulebookError>) -> Self {
        let mut by_id = BTreeMap::new();
        for &file in files {
            let mut toml = TomlFile::parse(file, errors);
            for entry in toml.named::<RawPlaybook>("playbooks", errors) {
                let (id, raw) = (entry.name, entry.value);
                let idle = parse_duration(raw.idle.get_ref())
                    .map_err(|message| errors.push(file.error(raw.idle.span().start, message)))
                    .unwrap_or_default();
                for (at, step) in raw.steps.iter().enumerate() {
                    if raw.steps.iter().take(at).any(|earlier| earlier.id == step.id) {
                        errors.push(
                            file.error(entry.span.start, format!("playbook `{id}` has step `{}` twice", step.id)),
                        );
                    }
                    if step.at_most == 0 {
                        let message = format!("step `{}` of playbook `{id}` may never come: `at_most` is 0", step.id);
                        errors.push(file.error(entry.span.start, message));
                    }
                }
                if raw.steps.is_empty() {
                    errors.push(file.error(entry.span.start, format!("playbook `{id}` has no steps")));
                }
                let playbook = Playbook { id: id.clone(), title: raw.title, steps: raw.steps, idle };
                if by_id.insert(id.clone(), playbook).is_some() {
                    errors.push(file.error(entry.span.start, format!("playbook `{id}` is written twice")));
                }
            }
            toml.finish(errors);
        }
        Self { by_id }
    }
}
