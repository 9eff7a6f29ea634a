//! All memory of the engine: one profile an agent, in chunks that are copied when written to, with snapshots in Arrow.

use std::hash::BuildHasher;
use std::hint;
use std::sync::{Arc, LazyLock};

use arrayvec::ArrayVec;
use hashbrown::{HashSet, HashTable};
use rustc_hash::FxBuildHasher;

use crate::event::{Digest, Event, Millis, Outcome, Verb};
use crate::stats::Tally;

mod cells;
mod credentials;
mod dossier;
mod habits;
mod interner;
mod kept;
mod layout_1;
mod pairing;
mod profile;
mod recent;
mod snapshot;

pub use cells::Cell;
pub(crate) use credentials::User;
pub(crate) use dossier::{Change, HeldApproval, HeldOverride, Side, Sum, Unapproved};
pub use dossier::{Dossier, Quarantine};
pub(crate) use habits::{ArgumentHabit, FirstTime, ReadHabit, ReasoningHabit, RunGroups, ToldText};
pub use kept::Kept;
pub(crate) use pairing::{Declared, Effect, MOST_FOLLOWED};
pub use pairing::{Heard, Pairing, Waiting};
pub use profile::{Profile, RateHistory, RunState};
pub use snapshot::RestoreError;

use cells::Key;
use credentials::Credentials;
use interner::{Interner, Texts};

/// Hours of a week; index 0 is Monday 00:00 UTC.
pub const HOURS_OF_WEEK: usize = 168;
/// Length of the windows in which bursts are counted.
pub const WINDOW: Millis = 600_000;
const HOUR: Millis = 3_600_000;
/// Most notices about unregistered principals that are remembered. What comes beyond is reported each time: loud, not
/// lost.
pub const MOST_NOTICES: usize = 65_536;
/// Agents per chunk: what the first write after a freeze copies, while all else waits.
const CHUNK: usize = 32;
/// Chunks per piece of a frozen memory.
const CHUNKS_OF_PIECE: usize = 32;

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
    /// Active hours of the week.
    Hour,
    /// What a detector counts for itself.
    Note,
}

/// All dimensions, in their order.
pub const DIMENSIONS: [Dimension; 13] = [
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
    Dimension::Hour,
    Dimension::Note,
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
            Dimension::Hour => "hour",
            Dimension::Note => "note",
        }
    }
}

/// Most values that one event adds.
const MOST_OBSERVED: usize = 7;

/// What an event adds to one dimension of behaviour, and what is known of that value before it.
#[derive(Clone, Copy, Debug)]
pub struct Observation<'e> {
    /// The dimension.
    pub dimension: Dimension,
    /// The value.
    pub value: &'e str,
    /// What the agent's past says of it.
    pub cell: Cell,
    /// The value's number in this shard, where it has one.
    code: Option<u32>,
    /// Where its cell is, if there is one.
    at: Option<usize>,
}

/// What a detector counts for itself, under a number of its own choice below [`Note::NUMBERS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Note {
    /// The number.
    pub number: u32,
    /// What is counted from now on.
    pub cell: Cell,
}

impl Note {
    /// There are no numbers from here on.
    pub const NUMBERS: u32 = Key::CODES;
}

/// What an event adds to each dimension of behaviour.
pub type Observed<'e> = ArrayVec<Observation<'e>, MOST_OBSERVED>;

fn observations(event: &Event) -> impl Iterator<Item = (Dimension, &str)> {
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

/// What an event adds to each dimension, and what is known of each value.
fn observe<'e>(profile: &Profile, values: &Interner, event: &'e Event) -> Observed<'e> {
    let observation = |(dimension, value)| {
        let code = values.code(value);
        let known = code.and_then(|code| {
            let at = profile.cells.find(dimension, code).ok()?;
            Some((at, profile.cells.at(at)?.1))
        });
        let (at, cell) = known.unzip();
        Observation { dimension, value, cell: cell.unwrap_or_default(), code, at }
    };
    observations(event).map(observation).collect()
}

/// The rates that an event counts towards.
fn rates(event: &Event, observed: &Observed<'_>) -> impl Iterator<Item = Rate> {
    let denied = matches!(event.outcome, Outcome::Denied(_)).then_some(Rate::Denials);
    // What was reported is known, though not learned: its repeats are no further new access.
    let new = observed.iter().any(|observation| observation.cell == Cell::default()).then_some(Rate::NewAccess);
    [Some(Rate::Requests), denied, new].into_iter().flatten()
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

/// Where an agent's profile lies in its shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot(usize);

/// Some agents' profiles.
#[derive(Clone, Debug)]
struct Chunk {
    /// The generation in which it was last written to.
    version: u64,
    profiles: Vec<Profile>,
}

/// What is remembered of nobody in this shard.
///
/// What was reported of unregistered principals, one line each, of which only the digest is kept: who makes up ids also
/// chooses how long they are. They have no profile: a million made-up ids push nobody's memory out.
#[derive(Clone, Debug, Default)]
struct Notices {
    version: u64,
    digests: HashSet<Digest, FxBuildHasher>,
    /// Of agents in all shards: whose credentials belong here by their ids.
    credentials: Credentials,
}

/// The memory of one shard: every registered agent's profile.
///
/// Profiles lie in chunks in the order of the agents' first events. [`Baselines::freeze`] shares the chunks with a
/// checkpoint; a chunk that is written to while it is shared is copied first.
#[derive(Clone, Debug, Default)]
pub struct Baselines {
    chunks: Vec<Arc<Chunk>>,
    /// Places of the agents' profiles, by the agents' ids.
    places: HashTable<u32>,
    values: Interner,
    notices: Arc<Notices>,
    /// Counts the freezes.
    generation: u64,
    /// An empty dossier to be filled: most events of most agents fill none.
    empty_dossier: Option<Box<Dossier>>,
}

/// A part of a frozen memory: what one file of a checkpoint holds.
#[derive(Clone, Debug)]
pub struct Piece {
    /// Its number, the same in every freeze.
    pub number: usize,
    /// Changes whenever its content does.
    pub version: u64,
    content: Content,
}

#[derive(Clone, Debug)]
enum Content {
    Profiles(Vec<Arc<Chunk>>, Arc<Texts>),
    Notices(Arc<Notices>),
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

    /// What is kept besides counts.
    pub(crate) fn dossier(self) -> &'b Dossier {
        static EMPTY: LazyLock<Dossier> = LazyLock::new(Dossier::default);
        self.profile.and_then(|profile| profile.dossier.as_deref()).unwrap_or(&EMPTY)
    }

    /// How often a value came in a dimension.
    pub fn cell(self, dimension: Dimension, value: &str) -> Cell {
        let found = || Some(self.profile?.cell(dimension, self.values.code(value)?));
        found().unwrap_or_default()
    }

    /// What a detector counts for itself under a number.
    pub fn note(self, number: u32) -> Cell {
        self.profile.map_or_else(Cell::default, |profile| profile.cell(Dimension::Note, number))
    }

    /// How often the agent was active in an hour of the week.
    pub fn hour(self, of_week: usize) -> u32 {
        let hour = u32::try_from(of_week).unwrap_or(u32::MAX);
        self.profile.map_or(0, |profile| profile.cell(Dimension::Hour, hour).count)
    }

    /// Whether the event repeats something that was reported and that nobody has accepted: a value, a burst or an hour.
    /// It is not reported again, and not learned from either.
    pub(crate) fn is_suspect(self, observed: &Observed<'_>, at: Millis) -> bool {
        let Some(profile) = self.profile else { return false };
        observed.iter().any(|observation| matches!(observation.cell, Cell { count: 0, withheld: 1.. }))
            || profile.rates.iter().any(|history| history.reported)
            || profile.hour_is_reported(hour_of_week(at).1)
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
            .map(|(code, cell)| (self.values.texts().get(code), cell.count))
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
        Past { profile: self.slot(agent).and_then(|slot| self.profile(slot)), values: &self.values }
    }

    /// The past of an agent whose place is known.
    pub(crate) fn past_at(&self, slot: Slot) -> Past<'_> {
        Past { profile: self.profile(slot), values: &self.values }
    }

    /// How many texts are kept.
    #[cfg(test)]
    pub(crate) fn known_values(&self) -> usize {
        self.values.texts().len()
    }

    /// All agents and their profiles, in the order of their first events.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Profile)> {
        self.chunks.iter().flat_map(|chunk| &chunk.profiles).map(|profile| (profile.agent.as_str(), profile))
    }

    /// How many notices about unregistered principals are remembered, of [`MOST_NOTICES`] at most.
    pub fn notices(&self) -> usize {
        self.notices.digests.len()
    }

    /// Whether anything waits for a tick: a playbook run under way, what is not paired yet, or what waits in a dossier.
    pub fn has_waiting(&self) -> bool {
        self.iter()
            .any(|(_, profile)| !profile.runs.is_empty() || profile.pairing.is_some() || has_waiting_dossier(profile))
    }

    /// How much waits for its counterpart.
    pub fn waiting(&self) -> Waiting {
        let mut waiting = Waiting::default();
        for (_, profile) in self.iter() {
            profile.pairing.iter().for_each(|pairing| waiting.add(profile.heard, pairing));
            let unapproved = profile.dossier.iter().flat_map(|dossier| &dossier.unapproved);
            waiting.approvals += unapproved.filter(|change| !change.reported).count();
        }
        waiting
    }

    /// A copy of the whole memory in pieces, at once: they share it until it is written to.
    pub fn freeze(&mut self) -> Vec<Piece> {
        self.generation += 1;
        let texts = Arc::new(self.values.texts().clone());
        let notices = Content::Notices(Arc::clone(&self.notices));
        let chunks = self.chunks.chunks(CHUNKS_OF_PIECE).enumerate().map(|(at, chunks)| Piece {
            number: at + 1,
            version: chunks.iter().map(|chunk| chunk.version).max().unwrap_or_default(),
            content: Content::Profiles(chunks.to_vec(), Arc::clone(&texts)),
        });
        let first = Piece { number: 0, version: self.notices.version, content: notices };
        std::iter::once(first).chain(chunks).collect()
    }

    /// Where an agent's profile lies; `None` before its first event.
    pub(crate) fn slot(&self, agent: &str) -> Option<Slot> {
        let is_agent = |place: &u32| agent_at(&self.chunks, *place) == agent;
        self.places.find(FxBuildHasher.hash_one(agent), is_agent).map(|place| slot(*place))
    }

    fn profile(&self, slot: Slot) -> Option<&Profile> {
        profile(&self.chunks, slot)
    }

    fn profile_mut(&mut self, slot: Slot) -> Option<&mut Profile> {
        profile_mut(&mut self.chunks, self.generation, slot)
    }

    /// Keeps a profile; `None` beyond the four billion that places can name.
    fn add(&mut self, profile: Profile) -> Option<Slot> {
        if self.chunks.last().is_none_or(|chunk| chunk.profiles.len() >= CHUNK) {
            self.chunks.push(Arc::new(Chunk { version: self.generation, profiles: Vec::new() }));
        }
        let place = (self.chunks.len() - 1) * CHUNK + self.chunks.last()?.profiles.len();
        let number = u32::try_from(place).ok()?;
        let hash = FxBuildHasher.hash_one(profile.agent.as_str());
        let chunk = Arc::make_mut(self.chunks.last_mut()?);
        chunk.version = self.generation;
        chunk.profiles.push(profile);
        let rehash = |place: &u32| FxBuildHasher.hash_one(agent_at(&self.chunks, *place));
        self.places.insert_unique(hash, number, rehash);
        Some(Slot(place))
    }

    /// Finds these agents' profiles and reads a little of each, in loops of which the processor takes several rounds at
    /// once: one after the other, each would wait for its memory.
    pub(crate) fn look_up<'a>(&self, agents: impl Iterator<Item = &'a str>) -> Vec<Slot> {
        let slots: Vec<Slot> = agents.filter_map(|agent| self.slot(agent)).collect();
        slots.iter().filter_map(|slot| self.profile(*slot)).for_each(|profile| {
            hint::black_box(profile.touch());
        });
        slots
    }

    /// When an agent was seen last; statements about it are nothing that it did.
    pub(crate) fn last_seen(&self, slot: Slot) -> Option<Millis> {
        self.profile(slot).filter(|profile| profile.seen > 0).map(|profile| profile.last_seen)
    }

    /// Whether an agent's profile lies here.
    pub(crate) fn is_at(&self, slot: Slot, agent: &str) -> bool {
        self.profile(slot).is_some_and(|profile| profile.agent == agent)
    }

    /// Notes that an event arrived: repeats are told apart, time moves on, windows close, and the event counts towards the
    /// rates of the open one, whether it deviates or not: a burst of what deviates is still a burst.
    ///
    /// `slot` is where the agent's profile lies, if that is known. Returns where it does, and what the event adds to it;
    /// `None` for a repeat of one of the agent's latest events, which changes nothing.
    pub(crate) fn arrive<'e>(
        &mut self,
        agent: &str,
        slot: Option<Slot>,
        event: &'e Event,
    ) -> Option<(Slot, Observed<'e>)> {
        let slot = match slot.or_else(|| self.slot(agent)) {
            Some(slot) => slot,
            None => self.add(Profile::starting(agent, event.at))?,
        };
        let profile = profile_mut(&mut self.chunks, self.generation, slot)?;
        if !event.digest.is_empty() && !profile.recent.is_new(event.digest.0) {
            return None;
        }
        profile.advance(event.at);
        profile.heard.add(Heard::of(event));
        let observed = observe(profile, &self.values, event);
        // What comes late belongs to a window that is closed.
        if profile.window == event.at.div_euclid(WINDOW) {
            profile.count(rates(event, &observed));
        }
        Some((slot, observed))
    }

    /// An agent's profile as it would be once an event had arrived, and what that adds to it, as if nothing had been reported
    /// yet. Nothing of the memory changes.
    pub(crate) fn imagine<'e>(&self, agent: &str, event: &'e Event) -> (Profile, Observed<'e>) {
        let known = self.slot(agent).and_then(|slot| self.profile(slot));
        let mut profile = known.map_or_else(|| Profile::starting(agent, event.at), Profile::unreported);
        profile.advance(event.at);
        profile.heard.add(Heard::of(event));
        let observed = observe(&profile, &self.values, event);
        if profile.window == event.at.div_euclid(WINDOW) {
            profile.count(rates(event, &observed));
        }
        (profile, observed)
    }

    /// The past that an imagined profile has.
    pub(crate) fn past_of<'b>(&'b self, profile: &'b Profile) -> Past<'b> {
        Past { profile: Some(profile), values: &self.values }
    }

    /// When each exception was last of use.
    pub fn excused(&self) -> impl Iterator<Item = (&str, Millis)> {
        let dossiers = self.iter().filter_map(|(_, profile)| profile.dossier.as_deref());
        dossiers.flat_map(|dossier| &dossier.excused).map(|(id, at)| (id.as_str(), *at))
    }

    /// The agents that are under quarantine.
    pub fn quarantined(&self) -> impl Iterator<Item = (&str, &Quarantine)> {
        self.iter().filter_map(|(id, profile)| Some((id, profile.dossier.as_deref()?.quarantine.as_ref()?)))
    }

    /// Learns from an event that did not deviate, or that a person accepted.
    pub(crate) fn learn(&mut self, slot: Slot, at: Millis, observed: &Observed<'_>) {
        let codes: ArrayVec<_, MOST_OBSERVED> = observed
            .iter()
            .map(|o| (o.dimension, o.code.or_else(|| self.intern(slot, o.dimension, o.value)), o.at))
            .collect();
        let Some(profile) = self.profile_mut(slot) else { return };
        for (dimension, code, at) in codes {
            if let Some(cell) = code.and_then(|code| profile.cell_mut(dimension, code, at)) {
                cell.count = cell.count.saturating_add(1);
            }
        }
        let (of_week, hour) = hour_of_week(at);
        // An hour counts once, however busy and in whatever order: rhythm is about when an agent works, not how much.
        if hour > profile.last_hour {
            profile.last_hour = hour;
            let code = u32::try_from(of_week).unwrap_or_default();
            if let Some(cell) = profile.cell_mut(Dimension::Hour, code, None) {
                cell.count = cell.count.saturating_add(1);
            }
        }
        profile.learned += 1;
        profile.learned_until = profile.learned_until.max(at);
    }

    /// The number of a value, whose text is kept only where there is room for its cell.
    fn intern(&mut self, slot: Slot, dimension: Dimension, value: &str) -> Option<u32> {
        self.values.code(value).or_else(|| {
            let has_room = self.profile(slot).is_some_and(|profile| profile.has_room(dimension));
            has_room.then(|| self.values.intern(value, Key::CODES)).flatten()
        })
    }

    /// Remembers that a value was reported, so that it is neither learned nor reported again.
    pub(crate) fn withhold(&mut self, slot: Slot, dimension: Dimension, value: &str) {
        let code = self.intern(slot, dimension, value);
        let profile = self.profile_mut(slot).zip(code);
        if let Some(cell) = profile.and_then(|(profile, code)| profile.cell_mut(dimension, code, None)) {
            cell.withheld = cell.withheld.saturating_add(1);
        }
    }

    /// Remembers what a detector counts for itself.
    pub(crate) fn note(&mut self, slot: Slot, notes: impl Iterator<Item = Note>) {
        let Some(profile) = self.profile_mut(slot) else { return };
        for Note { number, cell } in notes {
            if let Some(known) = profile.cell_mut(Dimension::Note, number, None) {
                *known = cell;
            }
        }
    }

    /// Remembers that the open window of a rate was reported.
    pub(crate) fn report_burst(&mut self, slot: Slot, rate: Rate) {
        if let Some(history) = self.profile_mut(slot).and_then(|profile| profile.rate_mut(rate)) {
            history.reported = true;
        }
    }

    /// Remembers that this hour was reported.
    pub(crate) fn report_hour(&mut self, slot: Slot, hour: i64) {
        if let Some(profile) = self.profile_mut(slot) {
            profile.reported_hour = hour;
        }
    }

    /// Puts a playbook run into its next state. Returns the run that had to make room for a new one.
    pub(crate) fn follow(&mut self, slot: Slot, state: RunState) -> Option<RunState> {
        self.profile_mut(slot)?.follow(state)
    }

    /// Takes out the runs that `ended` picks, with their agents, sorted by agent and run.
    pub(crate) fn take_runs(&mut self, ended: impl Fn(&RunState) -> bool) -> Vec<(String, RunState)> {
        let places = 0..self.chunks.len() * CHUNK;
        let has_ended = |slot: &Slot| self.profile(*slot).is_some_and(|profile| profile.runs.iter().any(&ended));
        let slots: Vec<Slot> = places.map(Slot).filter(has_ended).collect();
        let mut taken = Vec::new();
        for slot in slots {
            if let Some(profile) = self.profile_mut(slot) {
                let agent = profile.agent.to_string();
                taken.extend(profile.runs.extract_if(.., |run| ended(run)).map(|run| (agent.clone(), run)));
            }
        }
        taken.sort_by(|(a, x), (b, y)| (a, &x.playbook, &x.run).cmp(&(b, &y.playbook, &y.run)));
        taken
    }

    /// Notes that a statement about an agent arrived. Returns where its profile lies; `None` for a repeat.
    pub(crate) fn arrive_stated(&mut self, agent: &str, event: &Event) -> Option<Slot> {
        let slot = match self.slot(agent) {
            Some(slot) => slot,
            None => self.add(Profile::starting(agent, event.at))?,
        };
        let profile = self.profile_mut(slot)?;
        (event.digest.is_empty() || profile.recent.is_new(event.digest.0)).then_some(slot)
    }

    /// Marks what was heard of an agent.
    pub(crate) fn hear(&mut self, slot: Slot, heard: Heard) {
        if let Some(profile) = self.profile_mut(slot) {
            profile.heard.add(heard);
        }
    }

    /// Lets `change` change what waits of an agent, and what is settled. What is empty then takes no room.
    pub(crate) fn pair<T>(&mut self, slot: Slot, change: impl FnOnce(&mut Profile, &mut Pairing) -> T) -> Option<T> {
        let profile = self.profile_mut(slot)?;
        let mut pairing = profile.pairing.take().unwrap_or_default();
        let changed = change(profile, &mut pairing);
        profile.pairing = (!pairing.is_empty()).then_some(pairing);
        Some(changed)
    }

    /// Takes an agent's dossier out, to be changed and put back.
    pub(crate) fn take_dossier(&mut self, slot: Slot) -> Box<Dossier> {
        let kept = self.profile(slot).is_some_and(|profile| profile.dossier.is_some());
        let taken = if kept { self.profile_mut(slot).and_then(|profile| profile.dossier.take()) } else { None };
        taken.or_else(|| self.empty_dossier.take()).unwrap_or_default()
    }

    /// Puts an agent's dossier back. An empty one takes no room: it is the next one for whom nothing is kept.
    pub(crate) fn put_dossier(&mut self, slot: Slot, dossier: Box<Dossier>) {
        if *dossier == Dossier::default() {
            self.empty_dossier = Some(dossier);
        } else if let Some(profile) = self.profile_mut(slot) {
            profile.dossier = Some(dossier);
        }
    }

    /// The agents in whose dossier something waits, in the order of their names.
    pub(crate) fn with_waiting_dossier(&self) -> Vec<(String, Slot)> {
        self.agents_of(has_waiting_dossier)
    }

    /// The agents of whose pairing `is_due` holds, in the order of their names.
    pub(crate) fn unsettled(&self, is_due: impl Fn(&Profile, &Pairing) -> bool) -> Vec<(String, Slot)> {
        self.agents_of(|profile| profile.pairing.as_ref().is_some_and(|pairing| is_due(profile, pairing)))
    }

    /// The agents of whose profile this holds, in the order of their names.
    fn agents_of(&self, holds: impl Fn(&Profile) -> bool) -> Vec<(String, Slot)> {
        let mut agents: Vec<(String, Slot)> = self
            .iter()
            .map(|(_, profile)| profile)
            .filter(|profile| holds(profile))
            .filter_map(|profile| Some((profile.agent.to_string(), self.slot(&profile.agent)?)))
            .collect();
        agents.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        agents
    }

    /// Whether this was never reported of an unregistered principal; remembers it.
    pub(crate) fn notice(&mut self, what: String) -> bool {
        let what = Digest::of(what.as_bytes());
        if self.notices.digests.contains(&what) {
            return false;
        }
        if self.notices.digests.len() < MOST_NOTICES {
            let notices = Arc::make_mut(&mut self.notices);
            notices.version = self.generation;
            notices.digests.insert(what);
        }
        true
    }

    /// Takes in that an agent used a credential. Returns who else did, where this says something new.
    pub(crate) fn use_credential(&mut self, agent: &str, event: &Event) -> Vec<User> {
        // What is known is not written to: a checkpoint would have to be written anew.
        if self.notices.credentials.knows(agent, event) {
            return Vec::new();
        }
        let notices = Arc::make_mut(&mut self.notices);
        notices.version = self.generation;
        notices.credentials.take(agent, event)
    }

    /// Sets the decayed evidence against an agent.
    pub(crate) fn set_evidence(&mut self, slot: Slot, evidence: f64, at: Millis) {
        if let Some(profile) = self.profile_mut(slot) {
            profile.evidence = evidence;
            // A late event must not make old evidence look older than it is: the next one would find it decayed.
            profile.evidence_at = profile.evidence_at.max(at);
        }
    }
}

fn has_waiting_dossier(profile: &Profile) -> bool {
    profile.dossier.as_ref().is_some_and(|dossier| dossier.waits())
}

fn profile(chunks: &[Arc<Chunk>], Slot(place): Slot) -> Option<&Profile> {
    chunks.get(place / CHUNK)?.profiles.get(place % CHUNK)
}

fn agent_at(chunks: &[Arc<Chunk>], place: u32) -> &str {
    profile(chunks, slot(place)).map_or("", |profile| profile.agent.as_str())
}

/// A profile for writing: its chunk is copied where it is shared, and has changed from here on.
fn profile_mut(chunks: &mut [Arc<Chunk>], generation: u64, Slot(place): Slot) -> Option<&mut Profile> {
    let chunk = Arc::make_mut(chunks.get_mut(place / CHUNK)?);
    chunk.version = generation;
    chunk.profiles.get_mut(place % CHUNK)
}

/// The profile in this row of a table.
fn of_agent<T>(profiles: &mut [(Profile, T)], row: u32) -> Result<&mut Profile, RestoreError> {
    let profile = profiles.get_mut(usize::try_from(row).unwrap_or(usize::MAX));
    profile.map(|(profile, _)| profile).ok_or_else(|| RestoreError::Damaged("agent of what is kept".to_owned()))
}

fn slot(place: u32) -> Slot {
    Slot(usize::try_from(place).unwrap_or(usize::MAX))
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
