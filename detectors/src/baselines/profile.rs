//! What is remembered of one agent.

use compact_str::CompactString;

use super::cells::{Cell, Cells, Key};
use super::dossier::Dossier;
use super::pairing::{Heard, Pairing};
use super::recent::Recent;
use super::{Dimension, RATES, Rate, WINDOW};
use crate::event::Millis;
use crate::stats::WindowCounts;

/// Most distinct values kept per agent and dimension; further ones count as never seen.
const MOST_VALUES: usize = 512;
/// Most playbook runs of an agent that are followed at once; the oldest makes room.
const MOST_RUNS: usize = 32;

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

/// What is remembered of one agent. Everything counted lies in one block of memory: a million agents are mostly cache
/// misses.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Profile {
    /// The agent.
    pub(super) agent: CompactString,
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
    /// What was ever heard of the agent.
    pub heard: Heard,
    /// Until when effects are settled: whoever declares one now comes too late.
    pub(crate) settled: Millis,
    /// What waits for its counterpart.
    pub(crate) pairing: Option<Box<Pairing>>,
    /// What was stated about it, and waits for that.
    pub(crate) dossier: Option<Box<Dossier>>,
    /// Digests of the latest events, to tell repeats.
    pub(super) recent: Recent,
    /// What is counted.
    pub(super) cells: Cells,
}

impl Profile {
    pub(super) fn starting(agent: &str, at: Millis) -> Self {
        Self {
            agent: agent.into(),
            first_seen: at,
            last_seen: at,
            learned_until: at,
            window: at.div_euclid(WINDOW),
            last_hour: i64::MIN,
            reported_hour: i64::MIN,
            settled: Millis::MIN,
            ..Self::default()
        }
    }

    /// The same as if nothing had been reported yet.
    pub(super) fn unreported(&self) -> Self {
        let mut profile = Self { reported_hour: i64::MIN, ..self.clone() };
        profile.rates.iter_mut().for_each(|rate| rate.reported = false);
        profile.cells = profile.cells.unreported();
        profile.dossier.iter_mut().for_each(|dossier| dossier.unreported());
        profile
    }

    /// Reads a little of everything that an event will need.
    pub(super) fn touch(&self) -> u64 {
        let rates: u64 = self.rates.iter().map(|history| history.closed.windows).sum();
        self.seen + rates + self.cells.touch()
    }

    /// Time moves on: windows that are over close.
    pub(super) fn advance(&mut self, at: Millis) {
        self.seen += 1;
        self.last_seen = self.last_seen.max(at);
        let window = at.div_euclid(WINDOW);
        if window <= self.window {
            return;
        }
        self.window = window;
        for history in &mut self.rates {
            if !history.reported {
                history.closed.add(history.open);
            }
            history.open = 0;
            history.reported = false;
        }
    }

    /// What is counted of a value.
    pub(super) fn cell(&self, dimension: Dimension, code: u32) -> Cell {
        let found = self.cells.find(dimension, code).ok().and_then(|at| self.cells.at(at));
        found.map_or_else(Cell::default, |(_, cell)| cell)
    }

    /// The cell of a value, made where it is missing; `None` beyond the bound. Where it was found before, it is mostly
    /// still.
    pub(super) fn cell_mut(&mut self, dimension: Dimension, code: u32, before: Option<usize>) -> Option<&mut Cell> {
        let key = Key::new(dimension, code);
        let before = before.filter(|at| self.cells.at(*at).is_some_and(|(known, _)| known == key));
        let at = match before.map_or_else(|| self.cells.find(dimension, code), Ok) {
            Ok(at) => at,
            Err(_) if !self.has_room(dimension) => return None,
            Err(at) => {
                self.cells.insert(at, dimension, code);
                at
            }
        };
        self.cells.at_mut(at)
    }

    /// Whether a further value of a dimension can be kept.
    pub(super) fn has_room(&self, dimension: Dimension) -> bool {
        self.cells.of_dimension(dimension).len() < MOST_VALUES
    }

    /// Codes and cells of a dimension.
    pub(super) fn of(&self, dimension: Dimension) -> impl Iterator<Item = (u32, Cell)> {
        self.cells.of_dimension(dimension).iter().map(|(key, cell)| (key.code(), *cell))
    }

    /// Active hours, by hour of week (0 is Monday 00:00 UTC).
    pub fn hours(&self) -> impl Iterator<Item = (u32, u32)> {
        self.of(Dimension::Hour).map(|(hour, cell)| (hour, cell.count))
    }

    /// Whether this hour, or one beside it, was the last to be reported: work at an hour's edge is one finding.
    pub fn hour_is_reported(&self, hour: i64) -> bool {
        self.reported_hour.saturating_sub(hour).unsigned_abs() <= 1
    }

    /// The state of a run.
    pub fn run(&self, playbook: &str, run: &str) -> Option<&RunState> {
        self.runs.iter().find(|state| state.playbook == playbook && state.run == run)
    }

    /// Puts a playbook run into its next state. Returns the run that had to make room for a new one.
    pub(super) fn follow(&mut self, state: RunState) -> Option<RunState> {
        self.runs.retain(|run| run.playbook != state.playbook || run.run != state.run);
        let oldest = (self.runs.len() >= MOST_RUNS).then(|| self.runs.remove(0));
        self.runs.push(state);
        oldest
    }

    /// One rate.
    pub fn rate(&self, rate: Rate) -> RateHistory {
        RATES.iter().zip(self.rates).find(|(r, _)| **r == rate).map(|(_, history)| history).unwrap_or_default()
    }

    pub(super) fn rate_mut(&mut self, rate: Rate) -> Option<&mut RateHistory> {
        RATES.iter().zip(&mut self.rates).find(|(r, _)| **r == rate).map(|(_, history)| history)
    }

    /// Counts an event in the open window.
    pub(super) fn count(&mut self, rates: impl Iterator<Item = Rate>) {
        for rate in rates {
            if let Some(history) = self.rate_mut(rate) {
                history.open = history.open.saturating_add(1);
            }
        }
    }
}
