//! The rulebook: policies, controls, registry, estate, people, playbooks and vocabulary, read as one and named by its
//! content.

mod calendar;
mod control;
mod estate;
mod exceptions;
mod facts;
mod issuers;
mod mute;
mod operations;
mod people;
mod playbook;
mod policy;
mod registry;
mod remedy;
mod risk;
mod routes;
mod toml_file;
mod trust;
mod vocabulary;
mod wanted;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub(crate) use calendar::WorkingDays;
pub use calendar::{Calendar, Window};
pub use control::{Catalogue, Control, Framework, Gate, Mode, Need, Response};
pub use estate::{Estate, UNMAPPED_ENVIRONMENT};
pub use exceptions::{Exception, Exceptions};
#[cfg(test)]
pub(crate) use facts::MOST_DECISIONS;
pub use facts::{DecisionCache, Facts};
pub use issuers::{Issuers, RemoteKeys, Signers};
pub(crate) use operations::Comparison;
pub use operations::Operations;
pub use people::{People, Person};
pub use playbook::{Playbook, Playbooks, Step};
pub use policy::{Judgement, PolicyRef, Violation};
pub(crate) use registry::parse_duration;
pub use registry::{Agent, Class, Registry};
pub(crate) use risk::Limit;
pub use risk::Risk;
pub use routes::{Route, Routes};
pub use trust::{Learning, Trust};
pub use vocabulary::Vocabulary;
pub use wanted::WantedApproval;

use crate::baselines::Heard;
use crate::detector::{Detector, SayDo};
use crate::deviation::Severity;
use policy::Policies;

/// One file of a rulebook. Its logical name says what it is; its path is only for messages.
///
/// Names: `schema.cedarschema`, `trust.toml`, `vocabulary/*.toml`, `<control>/control.toml`, `<control>/*.cedar`,
/// `approvals/risk.toml`, `approvals/operations.toml`, and below `registry/`: `agents/*.toml`, `playbooks/*.toml`,
/// `estate.toml`, `people.toml`, `calendar.toml`, `routes.toml`, `issuers.toml`, `issuers/*.json`, `exceptions.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleFile {
    /// Logical name, the same wherever the file lies.
    pub name: String,
    /// Where it was read from, as the user would write it.
    pub path: String,
    /// Its text.
    pub text: String,
}

impl RuleFile {
    pub(crate) fn error(&self, offset: usize, message: impl Into<String>) -> RulebookError {
        RulebookError { path: self.path.clone(), line: self.line(offset), message: message.into() }
    }

    /// The line (from 1) of a byte offset.
    pub(crate) fn line(&self, offset: usize) -> usize {
        1 + self.text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
    }
}

/// What is wrong with a rulebook, and where.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RulebookError {
    /// File, as the user would write it.
    pub path: String,
    /// Line, from 1.
    pub line: usize,
    /// What is wrong and what to do.
    pub message: String,
}

impl fmt::Display for RulebookError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.message)
    }
}

impl std::error::Error for RulebookError {}

/// Everything that events are held against, validated as a whole.
#[derive(Debug)]
pub struct Rulebook {
    /// SHA-256 over the names and texts of all files, hex.
    hash: String,
    /// The files it was read from.
    files: Vec<RuleFile>,
    /// Registered agents.
    pub registry: Registry,
    /// The map of the ground.
    pub estate: Estate,
    /// The persons who own and approve.
    pub people: People,
    /// Holidays and freezes.
    pub calendar: Calendar,
    /// How alerts reach people.
    pub routes: Routes,
    /// Who may state something about an agent.
    pub issuers: Issuers,
    /// What is expected for a while.
    pub exceptions: Exceptions,
    /// Which changes need an approval.
    pub risk: Risk,
    /// How long agents learn.
    pub learning: Learning,
    /// What evidence does to trust.
    pub trust: Trust,
    /// How audit logs write the parameters of operations.
    pub operations: Operations,
    /// What native operations mean.
    pub vocabulary: Vocabulary,
    /// Approved workflows.
    pub playbooks: Playbooks,
    controls: BTreeMap<String, Control>,
    policies: Policies,
}

impl Rulebook {
    /// Reads and validates a rulebook.
    ///
    /// # Errors
    ///
    /// Every error of every file, sorted by file and line.
    pub fn read(files: Vec<RuleFile>) -> Result<Self, Vec<RulebookError>> {
        Self::read_whole(files, true)
    }

    /// Reads a rulebook that has judged already. It may be of a time when nobody asked for routes: part of the log is
    /// judged by it all the same.
    ///
    /// # Errors
    ///
    /// As of [`Rulebook::read`].
    pub fn read_kept(files: Vec<RuleFile>) -> Result<Self, Vec<RulebookError>> {
        Self::read_whole(files, false)
    }

    fn read_whole(mut files: Vec<RuleFile>, asks_for_routes: bool) -> Result<Self, Vec<RulebookError>> {
        files.sort_by(|a, b| a.name.cmp(&b.name));
        let mut errors = Vec::new();
        let of_kind = |kind: fn(&str) -> bool| files.iter().filter(move |f| kind(&f.name)).collect::<Vec<_>>();

        let people = People::read(&of_kind(|name| name == "registry/people.toml"), &mut errors);
        let calendar = Calendar::read(&files, &mut errors);
        let routes = Routes::read(&files, &mut errors);
        let issuers = Issuers::read(&of_kind(|name| name.starts_with("registry/issuers")), &people, &mut errors);
        let risk = Risk::read(&files, &mut errors);
        let (learning, trust) = trust::read(&files, &mut errors);
        let operations = Operations::read(&files, &mut errors);
        let playbooks = Playbooks::read(&of_kind(|name| name.starts_with("registry/playbooks/")), &mut errors);
        let known_playbook = |id: &str| playbooks.get(id).is_some();
        let agents = of_kind(|name| name.starts_with("registry/agents/"));
        let registry = Registry::read(&agents, (&people, &calendar), &known_playbook, &mut errors);
        if asks_for_routes {
            registry.check_routes(&routes, &agents, &mut errors);
        }
        let estate = Estate::read(&of_kind(|name| name == "registry/estate.toml"), &mut errors);
        let vocabulary = Vocabulary::read(&of_kind(|name| name.starts_with("vocabulary/")), &mut errors);
        let controls = control::read_all(&of_kind(|name| name.ends_with("/control.toml")), &mut errors);
        check_for_effect(&controls, &files, &mut errors);
        let exceptions = Exceptions::read(&files, (&people, &registry, &controls), &mut errors);
        let schema = files.iter().find(|file| file.name == "schema.cedarschema");
        let policies = Policies::read(schema, &of_kind(|name| name.ends_with(".cedar")), &mut errors);
        if let Some(policies) = &policies {
            let is_control = |id: &str| files.iter().any(|file| file.name == format!("{id}/control.toml"));
            policies.check_controls(is_control, &mut errors);
        }
        match policies {
            Some(policies) if errors.is_empty() => {
                let hash = content_hash(&files);
                Ok(Self {
                    hash,
                    files,
                    registry,
                    estate,
                    people,
                    calendar,
                    routes,
                    issuers,
                    exceptions,
                    risk,
                    learning,
                    trust,
                    operations,
                    vocabulary,
                    playbooks,
                    controls,
                    policies,
                })
            }
            _ => {
                errors.sort();
                errors.dedup();
                Err(errors)
            }
        }
    }

    /// The name of this rulebook: the SHA-256 of its content, hex.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// Whether another rulebook resolves every event as this one does: to the same agent, place and meaning.
    pub fn resolves_as(&self, other: &Self) -> bool {
        let resolving = |file: &&RuleFile| {
            ["vocabulary/", "registry/agents/", "registry/estate.toml"].iter().any(|name| file.name.starts_with(name))
        };
        let (ours, theirs) = (self.files.iter().filter(resolving), other.files.iter().filter(resolving));
        ours.map(|file| (&file.name, &file.text)).eq(theirs.map(|file| (&file.name, &file.text)))
    }

    /// The files it was read from, sorted by name.
    pub fn files(&self) -> &[RuleFile] {
        &self.files
    }

    /// All controls, by id.
    pub fn controls(&self) -> impl Iterator<Item = &Control> {
        self.controls.values()
    }

    /// All detectors of all controls.
    pub(crate) fn detectors(&self) -> impl Iterator<Item = &dyn Detector> {
        self.controls().flat_map(|control| &control.detectors).map(|(_, detector)| &**detector)
    }

    /// The control of this id.
    pub fn control(&self, id: &str) -> Option<&Control> {
        self.controls.get(id)
    }

    /// For how many agents each control is blind, and for want of what, where `heard` counts the agents by what was heard of
    /// them. Sources that no agent lacks are told as well.
    pub fn blind(&self, heard: &BTreeMap<Heard, usize>) -> Vec<(&str, Need, usize)> {
        let mut anybody = Heard::default();
        heard.keys().for_each(|heard| anybody.add(*heard));
        let lacking = |need: Need| {
            heard.iter().filter(|(heard, _)| !need.is_met(**heard, anybody)).map(|(_, agents)| agents).sum()
        };
        let needs = self.controls().flat_map(|control| control.needs.iter().map(|need| (control.id.as_str(), *need)));
        needs.map(|(control, need)| (control, need, lacking(need))).collect()
    }

    /// How an alert of this severity about a team's agent reaches people.
    pub fn route(&self, team: &str, severity: Severity) -> Route {
        self.routes.route(team, severity)
    }

    /// The control that pairs what is declared with what is done, the severity of what it finds, and its rules.
    pub fn pairing(&self) -> Option<(&Control, Severity, &SayDo)> {
        self.controls().find_map(|control| {
            let mut rules = control.detectors.iter().filter_map(|(severity, d)| Some((*severity, d.pairing()?)));
            rules.next().map(|(severity, rules)| (control, severity, rules))
        })
    }

    /// Policies that read what cannot be cached (a resource id), one sentence each.
    pub fn warnings(&self) -> &[String] {
        self.policies.warnings()
    }

    /// Policies that never speak, because nothing can match them or because others always speak for them, and those of which
    /// that cannot be known; each with its place. Takes up to seconds.
    pub fn mute_policies(&self) -> Vec<RulebookError> {
        mute::find(self)
    }

    /// Judges bounded facts by all policies, and says what would have been allowed instead.
    pub fn judge(&self, facts: &Facts<'_>) -> Judgement {
        let mut judgement = self.policies.judge(facts);
        if !judgement.is_allowed() {
            let violations = |changed: &Facts<'_>| self.policies.judge(changed).violations.len();
            judgement.remedy = remedy::find(facts, self.policies.reads_bounded(), violations);
        }
        judgement
    }

    /// What any policy reads.
    fn reads(&self) -> &facts::Reads {
        self.policies.reads()
    }

    /// Gives a control a detector that is not in the table of [`crate::detector`], for programs with detectors of their
    /// own. The hash says nothing of it. Returns whether there is such a control.
    pub fn add_detector(&mut self, control: &str, detector: Box<dyn Detector>) -> bool {
        let control = self.controls.get_mut(control);
        control.map(|control| control.detectors.push((control.severity, detector))).is_some()
    }
}

/// Reports controls that could never find anything: a policy that is misnamed must not vanish in silence.
fn check_for_effect(controls: &BTreeMap<String, Control>, files: &[RuleFile], errors: &mut Vec<RulebookError>) {
    for control in controls.values().filter(|control| control.detectors.is_empty()) {
        let folder = format!("{}/", control.id);
        let has_policy = files.iter().any(|file| file.name.starts_with(&folder) && file.name.ends_with(".cedar"));
        let own = files.iter().find(|file| file.name == format!("{folder}control.toml")).filter(|_| !has_policy);
        // A detector that could not be read has its own error already.
        if let Some(file) = own.filter(|file| errors.iter().all(|error| error.path != file.path)) {
            errors.push(file.error(0, format!("control `{}` has neither a policy nor a detector", control.id)));
        }
    }
}

fn content_hash(files: &[RuleFile]) -> String {
    let mut hasher = Sha256::new();
    for file in files {
        for part in [&file.name, &file.text] {
            // Lengths first, so that no two sets of files run together to the same bytes.
            hasher.update((part.len() as u64).to_be_bytes());
            hasher.update(part.as_bytes());
        }
    }
    hex(&hasher.finalize())
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from(if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 });
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(digit(byte >> 4));
        text.push(digit(byte & 15));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::Need;
    use crate::baselines::Heard;
    use crate::testing::{book, control, faults};

    #[test]
    fn a_control_is_blind_for_the_agents_of_which_its_source_says_nothing() {
        let needs = "needs = [\"agent-action\", \"data-events\"]\n";
        let book =
            book(&[("extra/control.toml", &control("extra", &format!("{needs}[[detector]]\nkind = \"forgery\"\n")))]);
        let mut both = Heard::DECLARED;
        both.add(Heard::AUDITED);
        let blind = |heard: &[(Heard, usize)]| book.blind(&heard.iter().copied().collect::<BTreeMap<_, _>>());
        let told = |actions: usize, data: usize| {
            vec![("extra", Need::AgentAction, actions), ("extra", Need::DataEvents, data)]
        };
        assert_eq!(blind(&[]), told(0, 0));
        assert_eq!(blind(&[(Heard::AUDITED, 2), (both, 3)]), told(2, 5));
        let mut data = Heard::AUDITED;
        data.add(Heard::DATA_EVENTS);
        assert_eq!(blind(&[(data, 1), (both, 3)]), told(1, 0), "one agent's show that they are written");
    }

    #[test]
    fn a_need_that_there_is_not_is_refused() {
        let found = faults(&[("extra/control.toml", &control("extra", "needs = [\"telepathy\"]\n"))]);
        assert!(found.iter().any(|fault| fault.contains("telepathy") && fault.contains("agent-action")), "{found:?}");
    }
}
