//! The registry: which agents exist, what they are, and what they are for.

use std::collections::BTreeMap;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use rustc_hash::FxHashMap;
use serde::Deserialize;
use toml::Spanned;

use super::calendar::{Calendar, RawWindow, Window};
use super::people::People;
use super::routes::Routes;
use super::toml_file::{Entry, TomlFile};
use super::{RuleFile, RulebookError};
use crate::event::Millis;
use crate::glob::{self, Glob};

/// What an agent may do at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// Looks, never changes.
    Observer,
    /// Proposes, never implements.
    Advisor,
    /// Acts, narrowly.
    Operator,
}

impl Class {
    /// The name used in policies and alerts.
    pub fn name(self) -> &'static str {
        match self {
            Class::Observer => "observer",
            Class::Advisor => "advisor",
            Class::Operator => "operator",
        }
    }
}

/// One registered agent, or a fleet of short-lived ones that share an entry and a baseline.
#[derive(Clone, Debug)]
pub struct Agent {
    /// Id, unique in the registry.
    pub id: String,
    /// What it may do at most.
    pub class: Class,
    /// The person who answers for it.
    pub owner: String,
    /// The team it belongs to.
    pub team: String,
    /// Identities it may act under.
    pub identities: Vec<Glob>,
    /// Environments it is cleared for.
    pub environments: Vec<Glob>,
    /// Resource types it may change.
    pub resource_types: Vec<Glob>,
    /// Tools it may call.
    pub tools: Vec<Glob>,
    /// Kinds of data it may read.
    pub data: Vec<Glob>,
    /// When it may change something; empty means at any time.
    pub windows: Vec<Window>,
    /// Playbooks it may run.
    pub playbooks: Vec<String>,
    /// How old its credentials may get.
    pub credential_lifetime: Option<Millis>,
    /// Whether it must act under an identity that its platform proves, and never by a key.
    pub workload_identity: bool,
    /// Whether it must authenticate by a certificate of its own.
    pub mutual_tls: bool,
    /// Whether it was taken out of service.
    pub retired: bool,
    /// The moment from which on its registration is over.
    pub expires: Option<Millis>,
    /// For a fleet: the ids of its members.
    pub members: Vec<Glob>,
}

impl Agent {
    /// Whether its registration was in force at a time: "active", "expired" or "retired".
    pub fn status(&self, at: Millis) -> &'static str {
        match self.expires {
            _ if self.retired => "retired",
            Some(expires) if at >= expires => "expired",
            _ => "active",
        }
    }

    /// Whether `at` lies in a change window; `None` where the agent has none.
    pub fn in_window(&self, at: Millis) -> Option<bool> {
        if self.windows.is_empty() {
            return None;
        }
        let Ok(at) = Timestamp::from_millisecond(at) else { return Some(false) };
        Some(self.windows.iter().any(|window| window.contains(at)))
    }
}

/// All registered agents.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    agents: Vec<Agent>,
    by_id: FxHashMap<String, usize>,
    /// Identities without a star, to their agent.
    by_identity: FxHashMap<String, usize>,
    /// Agents that have identities with a star.
    with_patterns: Vec<usize>,
    /// Entries that are fleets.
    fleets: Vec<usize>,
    /// The first agent of each team.
    teams: BTreeMap<String, FirstOfTeam>,
}

/// Whom a team is known by in messages: an agent, and where its entry stands.
#[derive(Clone, Debug)]
struct FirstOfTeam {
    agent: String,
    path: String,
    offset: usize,
}

impl Registry {
    /// The agent of this id, or the fleet it is a member of.
    pub fn by_id(&self, id: &str) -> Option<&Agent> {
        if let Some(&index) = self.by_id.get(id) {
            return self.agents.get(index);
        }
        self.fleets.iter().filter_map(|&i| self.agents.get(i)).find(|fleet| glob::any(&fleet.members, id))
    }

    /// The agent that may act under this identity: one at most, for a registry in which two entries claim the same one is
    /// refused.
    pub fn by_identity(&self, identity: &str) -> Option<&Agent> {
        if let Some(&index) = self.by_identity.get(identity) {
            return self.agents.get(index);
        }
        let agents = self.with_patterns.iter().filter_map(|&index| self.agents.get(index));
        agents.into_iter().find(|agent| glob::any(&agent.identities, identity))
    }

    /// All agents, in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = &Agent> {
        self.agents.iter()
    }

    /// Reads the registry's files; every error of every entry goes to `errors`.
    pub(super) fn read(
        files: &[&RuleFile],
        (people, calendar): (&People, &Calendar),
        playbooks: &dyn Fn(&str) -> bool,
        errors: &mut Vec<RulebookError>,
    ) -> Self {
        let mut templates = BTreeMap::new();
        let mut entries = Vec::new();
        for &file in files {
            let mut toml = TomlFile::parse(file, errors);
            for entry in toml.named::<RawAgent>("templates", errors) {
                if templates.insert(entry.name.clone(), entry.value).is_some() {
                    errors.push(file.error(entry.span.start, format!("template `{}` is written twice", entry.name)));
                }
            }
            for (section, fleet) in [("agents", false), ("fleets", true)] {
                entries.extend(toml.named::<RawAgent>(section, errors).into_iter().map(|e| (file, fleet, e)));
            }
            toml.finish(errors);
        }
        let mut agents: BTreeMap<String, Agent> = BTreeMap::new();
        let mut places = BTreeMap::new();
        for (file, fleet, entry) in entries {
            let span = entry.span.clone();
            places.insert(entry.name.clone(), (file, span.start));
            let reader = EntryReader { file, people, calendar, playbooks, span: entry.span.clone() };
            if let Some(agent) = reader.read(entry, fleet, &templates, errors)
                && let Some(twin) = agents.insert(agent.id.clone(), agent)
            {
                errors.push(file.error(span.start, format!("agent `{}` is registered twice", twin.id)));
            }
        }
        let mut registry = Self::index(agents.into_values().collect());
        registry.teams = registry.first_of_teams(&places);
        let identities = registry.shared_identities().into_iter().map(|shared| ("identity", shared));
        let members = registry.shared_members().into_iter().map(|shared| ("member", shared));
        for (kind, (agent, pattern, other)) in identities.chain(members) {
            if let Some((file, offset)) = places.get(&agent.id) {
                let message = format!("{kind} `{pattern}` of agent `{}` is also one of `{}`", agent.id, other.id);
                errors.push(file.error(*offset, format!("{message}: nobody could tell which of them acted")));
            }
        }
        registry
    }

    fn first_of_teams(&self, places: &BTreeMap<String, (&RuleFile, usize)>) -> BTreeMap<String, FirstOfTeam> {
        let mut teams = BTreeMap::new();
        for agent in self.agents.iter().filter(|agent| !agent.team.is_empty()) {
            if let Some((file, offset)) = places.get(&agent.id) {
                let first = || FirstOfTeam { agent: agent.id.clone(), path: file.path.clone(), offset: *offset };
                teams.entry(agent.team.clone()).or_insert_with(first);
            }
        }
        teams
    }

    /// Reports teams whose alerts would reach nobody.
    pub(super) fn check_routes(&self, routes: &Routes, files: &[&RuleFile], errors: &mut Vec<RulebookError>) {
        for (team, FirstOfTeam { agent, path, offset }) in self.teams.iter().filter(|(team, _)| !routes.knows(team)) {
            if let Some(file) = files.iter().find(|file| file.path == *path) {
                let message = format!("team `{team}` of agent `{agent}` has no route for its alerts");
                let what = "write `[default]`, or a `[[team]]` for it, in routes.toml";
                errors.push(file.error(*offset, format!("{message}: {what}")));
            }
        }
    }

    /// Identities that two agents claim, each with both.
    fn shared_identities(&self) -> Vec<(&Agent, &Glob, &Agent)> {
        let mut shared = Vec::new();
        for agent in &self.agents {
            for identity in &agent.identities {
                if let Some(text) = identity.literal() {
                    // The index holds the last agent of this very text.
                    let other = self.by_identity.get(text).and_then(|&index| self.agents.get(index));
                    shared.extend(other.filter(|other| other.id != agent.id).map(|other| (agent, identity, other)));
                    continue;
                }
                let others = self.agents.iter().filter(|other| other.id != agent.id);
                let clashing =
                    others.filter(|other| other.identities.iter().any(|theirs| could_be_one(theirs, identity)));
                shared.extend(clashing.map(|other| (agent, identity, other)));
            }
        }
        shared
    }

    /// Patterns of members that two fleets share, each with both.
    fn shared_members(&self) -> Vec<(&Agent, &Glob, &Agent)> {
        let fleets = || self.fleets.iter().filter_map(|&index| self.agents.get(index));
        let of = |fleet: &'_ Agent, member: &Glob| fleet.members.iter().any(|theirs| theirs.overlaps(member));
        let mut shared = Vec::new();
        for fleet in fleets() {
            for member in &fleet.members {
                let clashing = fleets().filter(|other| other.id != fleet.id && of(other, member));
                shared.extend(clashing.map(|other| (fleet, member, other)));
            }
        }
        shared
    }

    fn index(agents: Vec<Agent>) -> Self {
        let mut registry = Self { agents, ..Self::default() };
        for (index, agent) in registry.agents.iter().enumerate() {
            registry.by_id.insert(agent.id.clone(), index);
            for identity in &agent.identities {
                match identity.literal() {
                    Some(text) => drop(registry.by_identity.insert(text.to_owned(), index)),
                    None if registry.with_patterns.last() != Some(&index) => registry.with_patterns.push(index),
                    None => {}
                }
            }
            if !agent.members.is_empty() {
                registry.fleets.push(index);
            }
        }
        registry
    }
}

/// Whether one identity could fit both patterns. Neither an account nor the name of a role has a colon in it, so what a
/// star in a whole ARN stands for ends with its part.
fn could_be_one(ours: &Glob, theirs: &Glob) -> bool {
    let (a, b) = (ours.to_string(), theirs.to_string());
    let whole_arn = |text: &str| text.starts_with("arn:") && text.matches(':').count() == 5;
    if whole_arn(&a) && whole_arn(&b) {
        return a.split(':').zip(b.split(':')).all(|(ours, theirs)| Glob::new(ours).overlaps(&Glob::new(theirs)));
    }
    ours.overlaps(theirs)
}

/// Where an agent stands in its life, as written.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Status {
    Active,
    Retired,
}

/// An entry as written: everything may come from a template instead.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAgent {
    template: Option<Spanned<String>>,
    class: Option<Class>,
    owner: Option<Spanned<String>>,
    team: Option<String>,
    identities: Option<Vec<Glob>>,
    environments: Option<Vec<Glob>>,
    resource_types: Option<Vec<Glob>>,
    tools: Option<Vec<Glob>>,
    data: Option<Vec<Glob>>,
    windows: Option<Vec<Spanned<RawWindow>>>,
    playbooks: Option<Vec<Spanned<String>>>,
    credential_lifetime: Option<Spanned<String>>,
    workload_identity: Option<bool>,
    mutual_tls: Option<bool>,
    status: Option<Status>,
    expires: Option<Spanned<String>>,
    members: Option<Vec<Glob>>,
}

struct EntryReader<'a> {
    file: &'a RuleFile,
    people: &'a People,
    calendar: &'a Calendar,
    playbooks: &'a dyn Fn(&str) -> bool,
    span: std::ops::Range<usize>,
}

impl EntryReader<'_> {
    fn read(
        &self,
        entry: Entry<RawAgent>,
        fleet: bool,
        templates: &BTreeMap<String, RawAgent>,
        errors: &mut Vec<RulebookError>,
    ) -> Option<Agent> {
        let id = entry.name;
        let raw = self.with_template(entry.value, templates, errors);
        if fleet != raw.members.as_ref().is_some_and(|members| !members.is_empty()) {
            let message = format!("`{id}`: `members` belongs to `[fleets.…]`, and a fleet needs it");
            errors.push(self.file.error(self.span.start, message));
        }
        let (Some(class), Some(owner)) = (raw.class, &raw.owner) else {
            let message = format!("agent `{id}` needs a `class` (observer, advisor, operator) and an `owner`");
            errors.push(self.file.error(self.span.start, message));
            return None;
        };
        for identity in raw.identities.iter().flatten().map(Glob::to_string) {
            if let Some(trouble) = trouble_with(&identity) {
                let message = format!("identity `{identity}` of agent `{id}` {trouble}");
                errors.push(self.file.error(self.span.start, message));
            }
        }
        if !self.people.contains(owner.get_ref()) {
            let message = format!("owner `{}` of agent `{id}` is not in people.toml", owner.get_ref());
            errors.push(self.file.error(owner.span().start, message));
        }
        Some(Agent {
            class,
            owner: owner.get_ref().clone(),
            team: raw.team.clone().unwrap_or_default(),
            windows: self.windows(&raw, errors),
            playbooks: self.known_playbooks(&raw, errors),
            credential_lifetime: self.lifetime(&raw, errors),
            workload_identity: raw.workload_identity.unwrap_or_default(),
            mutual_tls: raw.mutual_tls.unwrap_or_default(),
            retired: matches!(raw.status, Some(Status::Retired)),
            expires: self.expiry(&raw, errors),
            identities: raw.identities.unwrap_or_default(),
            environments: raw.environments.unwrap_or_default(),
            resource_types: raw.resource_types.unwrap_or_default(),
            tools: raw.tools.unwrap_or_default(),
            data: raw.data.unwrap_or_default(),
            members: raw.members.unwrap_or_default(),
            id,
        })
    }

    fn with_template(
        &self,
        raw: RawAgent,
        templates: &BTreeMap<String, RawAgent>,
        errors: &mut Vec<RulebookError>,
    ) -> RawAgent {
        let Some(name) = &raw.template else { return raw };
        let Some(base) = templates.get(name.get_ref()).cloned() else {
            errors.push(self.file.error(name.span().start, format!("no template `{}`", name.get_ref())));
            return raw;
        };
        RawAgent {
            template: None,
            class: raw.class.or(base.class),
            owner: raw.owner.or(base.owner),
            team: raw.team.or(base.team),
            identities: raw.identities.or(base.identities),
            environments: raw.environments.or(base.environments),
            resource_types: raw.resource_types.or(base.resource_types),
            tools: raw.tools.or(base.tools),
            data: raw.data.or(base.data),
            windows: raw.windows.or(base.windows),
            playbooks: raw.playbooks.or(base.playbooks),
            credential_lifetime: raw.credential_lifetime.or(base.credential_lifetime),
            workload_identity: raw.workload_identity.or(base.workload_identity),
            mutual_tls: raw.mutual_tls.or(base.mutual_tls),
            status: raw.status.or(base.status),
            expires: raw.expires.or(base.expires),
            members: raw.members.or(base.members),
        }
    }

    fn windows(&self, raw: &RawAgent, errors: &mut Vec<RulebookError>) -> Vec<Window> {
        let mut windows = Vec::new();
        for window in raw.windows.iter().flatten() {
            match Window::read(window.get_ref(), self.calendar) {
                Ok(window) => windows.push(window),
                Err(faults) => {
                    errors.extend(faults.into_iter().map(|fault| self.file.error(window.span().start, fault)));
                }
            }
        }
        windows
    }

    fn known_playbooks(&self, raw: &RawAgent, errors: &mut Vec<RulebookError>) -> Vec<String> {
        for name in raw.playbooks.iter().flatten().filter(|name| !(self.playbooks)(name.get_ref())) {
            errors.push(self.file.error(name.span().start, format!("no playbook `{}`", name.get_ref())));
        }
        raw.playbooks.iter().flatten().map(|name| name.get_ref().clone()).collect()
    }

    fn lifetime(&self, raw: &RawAgent, errors: &mut Vec<RulebookError>) -> Option<Millis> {
        self.time(raw.credential_lifetime.as_ref(), parse_duration, errors)
    }

    fn expiry(&self, raw: &RawAgent, errors: &mut Vec<RulebookError>) -> Option<Millis> {
        self.time(raw.expires.as_ref(), end_of_day, errors)
    }

    fn time(
        &self,
        text: Option<&Spanned<String>>,
        read: fn(&str) -> Result<Millis, String>,
        errors: &mut Vec<RulebookError>,
    ) -> Option<Millis> {
        let text = text?;
        match read(text.get_ref()) {
            Ok(millis) => Some(millis),
            Err(message) => {
                errors.push(self.file.error(text.span().start, message));
                None
            }
        }
    }
}

/// The moment at which a day is over, in UTC.
fn end_of_day(text: &str) -> Result<Millis, String> {
    let over = text.parse::<Date>().and_then(|day| day.tomorrow()?.to_zoned(TimeZone::UTC));
    over.map(|over| over.timestamp().as_millisecond())
        .map_err(|_| format!("`{text}` is not a day: write for example `2026-12-31`"))
}

/// Reads a duration such as `90m`, `1h` or `7d`.
pub(crate) fn parse_duration(text: &str) -> Result<Millis, String> {
    let wrong = || format!("`{text}` is not a duration: write for example `90m`, `1h` or `7d`");
    // A day is 24 hours here: a lifetime is an amount of time, not a calendar matter.
    let hours = match text.strip_suffix('d') {
        Some(days) => format!("{}h", days.trim().parse::<u32>().map_err(|_| wrong())?.saturating_mul(24)),
        None => text.to_owned(),
    };
    let duration: SignedDuration = hours.parse().map_err(|_| wrong())?;
    Millis::try_from(duration.as_millis()).ok().filter(|millis| *millis > 0).ok_or_else(wrong)
}

/// Why an identity would never be, or always be, the agent's.
fn trouble_with(identity: &str) -> Option<&'static str> {
    if identity.bytes().all(|byte| byte == b'*') {
        return Some("fits everybody: name what only this agent acts under");
    }
    let session = identity.contains(":assumed-role/");
    session.then_some("is a session, which never comes back: name the role, `arn:aws:iam::<account>:role/<name>`")
}

#[cfg(test)]
mod tests;
