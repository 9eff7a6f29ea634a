//! All memory of the engine: one profile an agent, with snapshots in Arrow.

use hashbrown::{HashMap, HashSet};
use rustc_hash::FxBuildHasher;
use std::collections::VecDeque;

use crate::event::{Event, Millis, Outcome, Verb};
use crate::stats::{Tally, WindowCounts};

mod snapshot;

pub use snapshot::RestoreError;

/// Hours of a week; index 0 is Monday 00:00 UTC.
pub const HOURS_OF_WEEK: usize = 168;
/// Length of the windows in which bursts are counted.
pub const WINDOW: Millis = 600_000;
const HOUR: Millis = 3_600_000;
/// Most distinct values kept per agent and dimension; further ones count as never seen.
const MOST_VALUES: usize = 512;
/// Most playbook runs of an agent that are followed at once; the oldest makes room.
const MOST_RUNS: usize = 32;
/// Most notices about unregistered principals that are remembered. What comes beyond is reported each time: loud, not
/// lost.
const MOST_NOTICES: usize = 65_536;
/// Most content digests an agent keeps to tell repeats.
const MOST_RECENT: usize = 1_024;
/// History from which a baseline counts (CSA ATF 0.9.1, B-3).
const ENOUGH_EVENTS: u64 = 1_000;
const ENOUGH_TIME: Millis = 7 * 24 * HOUR;
/// Active hours below which no span of time is a history.
const LEAST_HOURS: u32 = 7;

/// What is counted about an agent's events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dimension {
    /// Tool called.
    Tool,
    /// Operation of an ordinary read.
    Read,
    /// Operation of an ordinary change.
    Change,
    /// Operation with more at stake: permissions, execution, secrets, and whatever the vocabulary calls an asset.
    Sensitive,
    /// Service (the operation's part before `:`).
    Service,
    /// Type of a resource that is changed.
    ResourceType,
    /// Environment.
    Environment,
    /// Network that requests come from.
    Origin,
    /// Operation that the cloud refused, among all that it allowed.
    Denial,
    /// Gaps between policy and reality that were reported already.
    Gap,
    /// Subjects whose revocation was requested already.
    Revoked,
}

/// All dimensions, in their order.
pub const DIMENSIONS: [Dimension; 11] = [
    Dimension::Tool,
    Dimension::Read,
    Dimension::Change,
    Dimension::Sensitive,
    Dimension::Service,
    Dimension::ResourceType,
    Dimension::Environment,
    Dimension::Origin,
    Dimension::Denial,
    Dimension::Gap,
    Dimension::Revoked,
];

impl Dimension {
    /// The name used in rules, snapshots and alerts.
    pub fn name(self) -> &'static str {
        match self {
            Dimension::Tool => "tool",
            Dimension::Read => "read",
            Dimension::Change => "change",
            Dimension::Sensitive => "sensitive",
            Dimension::Service => "service",
            Dimension::ResourceType => "resource-type",
            Dimension::Environment => "environment",
            Dimension::Origin => "origin",
            Dimension::Denial => "denial",
            Dimension::Gap => "gap",
            Dimension::Revoked => "revoked",
        }
    }
}

/// What an event adds to each dimension of behaviour.
pub fn observations(event: &Event) -> impl Iterator<Item = (Dimension, &str)> {
    let secret = matches!(event.resource.data.as_str(), "secrets" | "credentials");
    let operation = match event.verb {
        Verb::Execute | Verb::PermissionChange => Dimension::Sensitive,
        _ if secret || !event.resource.asset.is_empty() => Dimension::Sensitive,
        Verb::Write => Dimension::Change,
        Verb::Read | Verb::Propose => Dimension::Read,
    };
    let service = event.action.split_once(':').map_or("", |(service, _)| service);
    let denied = matches!(event.outcome, Outcome::Denied(_));
    let changed_type = if event.verb.changes() { event.resource.kind.as_str() } else { "" };
    [
        (Dimension::Tool, event.tool.as_str()),
        (operation, event.action.as_str()),
        (Dimension::Service, service),
        (Dimension::ResourceType, changed_type),
        (Dimension::Environment, event.place.environment.as_str()),
        (Dimension::Origin, network(&event.origin.address)),
        (Dimension::Denial, if denied { event.action.as_str() } else { "allowed" }),
    ]
    .into_iter()
    .filter(|(_, value)| !value.is_empty())
}

/// The network of an address: the first three parts of an IPv4, the first four groups of an IPv6 address, and anything
/// else (a cloud service that calls) as it is.
fn network(address: &str) -> &str {
    let cut = |separator: char, parts: usize| {
        address.match_indices(separator).nth(parts - 1).and_then(|(at, _)| address.get(..at)).unwrap_or(address)
    };
    if address.contains(':') {
        cut(':', 4)
    } else if address.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        cut('.', 3)
    } else {
        address
    }
}

/// How often a value came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    /// Learned observations.
    pub count: u32,
    /// Observations that deviated, and so were reported and not learned.
    pub withheld: u32,
}

/// The rates that are held against an agent's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rate {
    /// All requests.
    Requests,
    /// Requests refused by the cloud.
    Denials,
    /// Requests with something that the agent never used before.
    NewAccess,
}

/// All rates, in their order.
pub const RATES: [Rate; 3] = [Rate::Requests, Rate::Denials, Rate::NewAccess];

impl Rate {
    /// The name used in rules and alerts.
    pub fn name(self) -> &'static str {
        match self {
            Rate::Requests => "requests",
            Rate::Denials => "denials",
            Rate::NewAccess => "new-access",
        }
    }
}

/// One rate of one agent: the open window and those before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RateHistory {
    /// Count in the open window.
    pub open: u32,
    /// Whether the open window was reported as a burst; it will not be learned.
    pub reported: bool,
    /// Closed windows.
    pub closed: WindowCounts,
}

/// A playbook run that is under way.
#[derive(Clone, Debug, PartialEq)]
pub struct RunState {
    /// Playbook id.
    pub playbook: String,
    /// Run id.
    pub run: String,
    /// Index of the step that the run stands at.
    pub step: u32,
    /// How often that step came.
    pub repeats: u32,
    /// Time of the last action.
    pub last: Millis,
    /// Id of the event that was the last action.
    pub last_event: String,
}

/// What is remembered of one agent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Profile {
    /// Time of the first event.
    pub first_seen: Millis,
    /// Time of the latest event.
    pub last_seen: Millis,
    /// Time of the latest event that was learned from.
    pub learned_until: Millis,
    /// Events learned from.
    pub learned: u64,
    /// Events seen.
    pub seen: u64,
    /// Active hours per hour of week.
    pub hours: Vec<u16>,
    /// The hour (since the epoch) that was counted last.
    pub last_hour: i64,
    /// The hour (since the epoch) that was reported last.
    pub reported_hour: i64,
    /// Index of the open window.
    pub window: i64,
    /// The rates, in the order of [`RATES`].
    pub rates: [RateHistory; RATES.len()],
    /// Playbook runs under way, oldest first.
    pub runs: Vec<RunState>,
    /// Decayed evidence against the agent, as of `evidence_at`.
    pub evidence: f64,
    /// When the evidence was last decayed.
    pub evidence_at: Millis,
    /// Digests of the latest events, to tell repeats.
    recent: VecDeque<u128>,
    /// Counts by dimension and value code, sorted.
    cells: Vec<(Dimension, u32, Cell)>,
}

impl Profile {
    fn position(&self, dimension: Dimension, code: u32) -> Result<usize, usize> {
        self.cells.binary_search_by_key(&(dimension, code), |(d, c, _)| (*d, *c))
    }

    /// The cell of a value, made where it is missing; `None` beyond the bound.
    fn cell_mut(&mut self, dimension: Dimension, code: u32) -> Option<&mut Cell> {
        let at = match self.position(dimension, code) {
            Ok(at) => at,
            Err(_) if self.of(dimension).count() >= MOST_VALUES => return None,
            Err(at) => {
                self.cells.insert(at, (dimension, code, Cell::default()));
                at
            }
        };
        self.cells.get_mut(at).map(|(_, _, cell)| cell)
    }

    /// The same by the value's text, which is kept only where there is room for its cell.
    fn cell_of(&mut self, dimension: Dimension, value: &str, values: &mut Interner) -> Option<&mut Cell> {
        let code = match values.code(value) {
            Some(code) => code,
            None if self.of(dimension).count() >= MOST_VALUES => return None,
            None => values.intern(value)?,
        };
        self.cell_mut(dimension, code)
    }

    fn of(&self, dimension: Dimension) -> impl Iterator<Item = (u32, Cell)> {
        let start = self.cells.partition_point(|(d, _, _)| *d < dimension);
        let tail = self.cells.get(start..).unwrap_or_default();
        tail.iter().take_while(move |(d, _, _)| *d == dimension).map(|(_, code, cell)| (*code, *cell))
    }

    /// Whether there is enough history to rely on.
    pub fn is_active(&self) -> bool {
        let hours: u32 = self.hours.iter().map(|count| u32::from(*count)).sum();
        let long = self.learned_until.saturating_sub(self.first_seen) >= ENOUGH_TIME;
        self.learned >= ENOUGH_EVENTS || (long && hours >= LEAST_HOURS)
    }

    /// Whether this hour, or one beside it, was the last to be reported: work at an hour's edge is one finding.
    pub fn hour_is_reported(&self, hour: i64) -> bool {
        self.reported_hour.saturating_sub(hour).unsigned_abs() <= 1
    }

    /// The state of a run.
    pub fn run(&self, playbook: &str, run: &str) -> Option<&RunState> {
        self.runs.iter().find(|state| state.playbook == playbook && state.run == run)
    }

    /// One rate.
    pub fn rate(&self, rate: Rate) -> RateHistory {
        RATES.iter().zip(self.rates).find(|(r, _)| **r == rate).map(|(_, history)| history).unwrap_or_default()
    }

    fn rate_mut(&mut self, rate: Rate) -> Option<&mut RateHistory> {
        RATES.iter().zip(&mut self.rates).find(|(r, _)| **r == rate).map(|(_, history)| history)
    }
}

/// Texts to small numbers, inside one shard. The numbers never order anything that reaches a score.
#[derive(Clone, Debug, Default)]
struct Interner {
    codes: HashMap<Box<str>, u32, FxBuildHasher>,
    texts: Vec<Box<str>>,
}

impl Interner {
    fn code(&self, text: &str) -> Option<u32> {
        self.codes.get(text).copied()
    }

    fn intern(&mut self, text: &str) -> Option<u32> {
        if let Some(code) = self.code(text) {
            return Some(code);
        }
        let code = u32::try_from(self.texts.len()).ok()?;
        self.codes.insert(text.into(), code);
        self.texts.push(text.into());
        Some(code)
    }

    fn text(&self, code: u32) -> &str {
        usize::try_from(code).ok().and_then(|code| self.texts.get(code)).map_or("", AsRef::as_ref)
    }
}

/// The memory of one shard: every registered agent's profile.
#[derive(Clone, Debug, Default)]
pub struct Baselines {
    agents: HashMap<String, Profile, FxBuildHasher>,
    values: Interner,
    /// What was reported of unregistered principals, one line each. They have no profile: a million made-up ids push
    /// nobody's memory out.
    notices: HashSet<String, FxBuildHasher>,
}

/// An agent's past, for reading.
#[derive(Clone, Copy, Debug)]
pub struct Past<'b> {
    profile: Option<&'b Profile>,
    values: &'b Interner,
}

impl<'b> Past<'b> {
    /// The profile; `None` before the agent's first event.
    pub fn profile(self) -> Option<&'b Profile> {
        self.profile
    }

    /// How often a value came in a dimension.
    pub fn cell(self, dimension: Dimension, value: &str) -> Cell {
        let found = || {
            let profile = self.profile?;
            let at = profile.position(dimension, self.values.code(value)?).ok()?;
            profile.cells.get(at).map(|(_, _, cell)| *cell)
        };
        found().unwrap_or_default()
    }

    /// Whether the event repeats something that was reported and that nobody has accepted: a value, a burst or an hour.
    /// It is not reported again, and not learned from either.
    pub fn is_suspect(self, event: &Event) -> bool {
        let Some(profile) = self.profile else { return false };
        let withheld = |(dimension, value)| matches!(self.cell(dimension, value), Cell { count: 0, withheld: 1.. });
        observations(event).any(withheld)
            || profile.rates.iter().any(|history| history.reported)
            || profile.hour_is_reported(hour_of_week(event.at).1)
    }

    /// What is known of a dimension.
    pub fn tally(self, dimension: Dimension) -> Tally {
        Tally::of(self.profile.into_iter().flat_map(|profile| profile.of(dimension)).map(|(_, cell)| cell.count))
    }

    /// The most frequent values of a dimension, with their counts; ties in the order of the text.
    pub fn usual(self, dimension: Dimension, most: usize) -> Vec<(&'b str, u32)> {
        let mut values: Vec<(&str, u32)> = self
            .profile
            .into_iter()
            .flat_map(|profile| profile.of(dimension))
            .filter(|(_, cell)| cell.count > 0)
            .map(|(code, cell)| (self.values.text(code), cell.count))
            .collect();
        values.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
        values.truncate(most);
        values
    }
}

/// The hour of week and the hour since the epoch.
pub fn hour_of_week(at: Millis) -> (usize, i64) {
    let hour = at.div_euclid(HOUR);
    // The epoch was a Thursday, 00:00 UTC.
    let of_week = (hour + 3 * 24).rem_euclid(HOURS_OF_WEEK as i64);
    (usize::try_from(of_week).unwrap_or_default(), hour)
}

impl Baselines {
    /// An agent's past.
    pub fn past(&self, agent: &str) -> Past<'_> {
        Past { profile: self.agents.get(agent), values: &self.values }
    }

    /// How many texts are kept.
    #[cfg(test)]
    pub(crate) fn known_values(&self) -> usize {
        self.values.texts.len()
    }

    /// All agents and their profiles, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Profile)> {
        self.agents.iter().map(|(agent, profile)| (agent.as_str(), profile))
    }

    /// Whether any playbook run is under way.
    pub fn has_runs(&self) -> bool {
        self.agents.values().any(|profile| !profile.runs.is_empty())
    }

    /// Notes that an event arrived: time moves on, windows close, repeats are told apart.
    ///
    /// Returns whether the event is new; a repeat of one of the agent's latest events changes nothing.
    pub(crate) fn arrive(&mut self, agent: &str, event: &Event) -> bool {
        let profile = self.agents.entry_ref(agent).or_insert_with(|| Profile::starting(event.at));
        let digest = u128::from_str_radix(&event.digest, 16).ok();
        if let Some(digest) = digest {
            if profile.recent.contains(&digest) {
                return false;
            }
            if profile.recent.len() >= MOST_RECENT {
                profile.recent.pop_front();
            }
            profile.recent.push_back(digest);
        }
        profile.seen += 1;
        profile.last_seen = profile.last_seen.max(event.at);
        let window = event.at.div_euclid(WINDOW);
        if window > profile.window {
            profile.close_window(window);
        }
        true
    }

    /// Counts the event towards the rates of the open window, whether it deviates or not: a burst of what deviates is
    /// still a burst. What comes late belongs to a window that is closed.
    pub(crate) fn count_rates(&mut self, agent: &str, at: Millis, rates: impl Iterator<Item = Rate>) {
        let open = |profile: &&mut Profile| profile.window == at.div_euclid(WINDOW);
        if let Some(profile) = self.agents.get_mut(agent).filter(open) {
            for rate in rates {
                if let Some(history) = profile.rate_mut(rate) {
                    history.open = history.open.saturating_add(1);
                }
            }
        }
    }

    /// Learns from an event that did not deviate, or that a person accepted.
    pub(crate) fn learn(&mut self, agent: &str, event: &Event) {
        let Some(profile) = self.agents.get_mut(agent) else { return };
        for (dimension, value) in observations(event) {
            if let Some(cell) = profile.cell_of(dimension, value, &mut self.values) {
                cell.count = cell.count.saturating_add(1);
            }
        }
        let (of_week, hour) = hour_of_week(event.at);
        // An hour counts once, however busy and in whatever order: rhythm is about when an agent works, not how much.
        if hour > profile.last_hour {
            profile.last_hour = hour;
            profile.hours.resize(HOURS_OF_WEEK, 0);
            if let Some(count) = profile.hours.get_mut(of_week) {
                *count = count.saturating_add(1);
            }
        }
        profile.learned += 1;
        profile.learned_until = profile.learned_until.max(event.at);
    }

    /// Remembers that a value was reported, so that it is neither learned nor reported again.
    pub(crate) fn withhold(&mut self, agent: &str, dimension: Dimension, value: &str) {
        let Some(profile) = self.agents.get_mut(agent) else { return };
        if let Some(cell) = profile.cell_of(dimension, value, &mut self.values) {
            cell.withheld = cell.withheld.saturating_add(1);
        }
    }

    /// Remembers that the open window of a rate was reported.
    pub(crate) fn report_burst(&mut self, agent: &str, rate: Rate) {
        if let Some(history) = self.agents.get_mut(agent).and_then(|profile| profile.rate_mut(rate)) {
            history.reported = true;
        }
    }

    /// Remembers that this hour was reported.
    pub(crate) fn report_hour(&mut self, agent: &str, hour: i64) {
        if let Some(profile) = self.agents.get_mut(agent) {
            profile.reported_hour = hour;
        }
    }

    /// Puts a playbook run into its next state. Returns the run that had to make room for a new one.
    pub(crate) fn follow(&mut self, agent: &str, state: RunState) -> Option<RunState> {
        let profile = self.agents.get_mut(agent)?;
        profile.runs.retain(|run| run.playbook != state.playbook || run.run != state.run);
        let oldest = (profile.runs.len() >= MOST_RUNS).then(|| profile.runs.remove(0));
        profile.runs.push(state);
        oldest
    }

    /// Takes out the runs that `ended` picks, with their agents, sorted by agent and run.
    pub(crate) fn take_runs(&mut self, ended: impl Fn(&RunState) -> bool) -> Vec<(String, RunState)> {
        let mut taken = Vec::new();
        for (agent, profile) in &mut self.agents {
            let runs = profile.runs.extract_if(.., |run| ended(run));
            taken.extend(runs.map(|run| (agent.to_string(), run)));
        }
        taken.sort_by(|(a, x), (b, y)| (a, &x.playbook, &x.run).cmp(&(b, &y.playbook, &y.run)));
        taken
    }

    /// Whether this was never reported of an unregistered principal; remembers it.
    pub(crate) fn notice(&mut self, what: String) -> bool {
        if self.notices.contains(&what) {
            return false;
        }
        if self.notices.len() < MOST_NOTICES {
            self.notices.insert(what);
        }
        true
    }

    /// Sets the decayed evidence against an agent.
    pub(crate) fn set_evidence(&mut self, agent: &str, evidence: f64, at: Millis) {
        if let Some(profile) = self.agents.get_mut(agent) {
            profile.evidence = evidence;
            // A late event must not make old evidence look older than it is: the next one would find it decayed.
            profile.evidence_at = profile.evidence_at.max(at);
        }
    }
}

impl Profile {
    fn starting(at: Millis) -> Self {
        let window = at.div_euclid(WINDOW);
        Self {
            first_seen: at,
            last_seen: at,
            learned_until: at,
            window,
            last_hour: i64::MIN,
            reported_hour: i64::MIN,
            ..Self::default()
        }
    }

    fn close_window(&mut self, next: i64) {
        self.window = next;
        for history in &mut self.rates {
            if !history.reported {
                history.closed.add(history.open);
            }
            history.open = 0;
            history.reported = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn monday_midnight_is_hour_zero() {
        // 2024-01-01 was a Monday.
        assert_eq!(hour_of_week(1_704_067_200_000).0, 0);
        assert_eq!(hour_of_week(1_704_067_200_000 - 1).0, 167);
        assert_eq!(hour_of_week(-1).1, -1);
    }

    #[test]
    fn networks_of_addresses() {
        assert_eq!(network("192.168.10.20"), "192.168.10");
        assert_eq!(network("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2");
        assert_eq!(network("cloudtrail.amazonaws.com"), "cloudtrail.amazonaws.com");
        assert_eq!(network(""), "");
        assert_eq!(network("::1"), "::1");
    }
}
