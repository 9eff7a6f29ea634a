//! What of an agent's words and effects is not settled yet: declared actions, and records of the audit log, that wait
//! for their counterparts.

use arrow::array::{AsArray, BooleanArray, Int64Array, RecordBatch, StringArray, UInt32Array};
use arrow::datatypes::{DataType, Int64Type, UInt32Type};
use arrow::error::ArrowError;
use serde_json::value::RawValue;

use super::snapshot::{Table, column, damaged, numbers, one_table, text};
use super::{Kept, Profile, RestoreError, of_agent};
use crate::event::{Event, Millis};

/// Most declared actions, and most effects, that are followed of one agent at once.
pub(crate) const MOST_FOLLOWED: usize = 1_024;

/// What an agent was ever heard of, and what was said about that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Heard(u32);

impl Heard {
    /// It declared an action.
    pub const DECLARED: Self = Self(1);
    /// The audit log has seen it.
    pub const AUDITED: Self = Self(2);
    /// That it declares nothing was reported, or accepted by a person.
    pub const KNOWN_UNDECLARED: Self = Self(4);
    /// That the audit log never sees it was reported.
    pub const KNOWN_UNAUDITED: Self = Self(8);
    /// The audit log has seen it read or write data.
    pub const DATA_EVENTS: Self = Self(16);
    /// Everything that can be heard.
    const ALL: u32 = 31;

    /// The marks that an event makes.
    pub(super) fn of(event: &Event) -> Self {
        match event.source.is_audit() {
            true if event.data_event => Self(Self::AUDITED.0 | Self::DATA_EVENTS.0),
            true => Self::AUDITED,
            false => Self::DECLARED,
        }
    }

    pub(super) fn from_bits(bits: u32) -> Option<Self> {
        (bits & !Self::ALL == 0).then_some(Self(bits))
    }

    pub(super) fn bits(self) -> u32 {
        self.0
    }

    /// Whether all of `other` is in it.
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

/// A change that an agent said it made.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Declared {
    /// Counts the agent's declared actions while any is followed.
    pub(crate) number: u32,
    /// The action, without its contents.
    pub(crate) event: Kept,
    /// Whether the audit log must show it.
    pub(crate) claim: bool,
    /// Whether the audit log has shown it.
    pub(crate) shown: bool,
    /// The time at which the audit log had come so far that its record should have been there.
    pub(crate) covered: Option<Millis>,
}

/// A change that the audit log has seen.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Effect {
    /// The audit record, without its contents.
    pub(crate) event: Kept,
    /// Whether a declared action explains it.
    pub(crate) explained: bool,
    /// Whether its ids say which action it belongs to, so that it can show no other.
    pub(crate) pinned: bool,
    /// Number of the declared action that it shows.
    pub(crate) shows: Option<u32>,
    /// Whether its own waiting is over. It may still change the claim that it shows for another.
    pub(crate) settled: bool,
}

/// What is not settled of one agent. There is none where nothing waits.
#[derive(Clone, Debug, PartialEq)]
pub struct Pairing {
    /// Declared actions in the order of their arrival.
    pub(crate) declared: Vec<Declared>,
    /// Effects in the order of their arrival.
    pub(crate) effects: Vec<Effect>,
    /// Number of the next declared action.
    pub(crate) next: u32,
    /// Until when effects may belong to a declared action that made room.
    pub(crate) lost_until: Millis,
    /// How many can be paired no more, for they or their counterparts may have made room.
    pub(crate) lost: u32,
    /// The first of them since that was last reported.
    pub(crate) first_lost: Option<Kept>,
    /// When it was last reported.
    pub(crate) lost_reported: Millis,
}

impl Default for Pairing {
    fn default() -> Self {
        let (declared, effects, never) = (Vec::new(), Vec::new(), Millis::MIN);
        Self { declared, effects, next: 0, lost_until: never, lost: 0, first_lost: None, lost_reported: never }
    }
}

impl Pairing {
    /// Whether nothing waits any more.
    pub(crate) fn is_empty(&self) -> bool {
        self.declared.is_empty() && self.effects.is_empty() && self.first_lost.is_none()
    }

    /// Counts what can be paired no more; the first is kept for its report.
    pub(crate) fn lose(&mut self, event: Kept) {
        self.first_lost.get_or_insert(event);
        self.lost = self.lost.saturating_add(1);
    }
}

/// How much of a shard waits for its counterpart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Declared actions, of agents that the audit log has seen, that it has not shown yet.
    pub claims: usize,
    /// Effects that no declared action explains yet.
    pub effects: usize,
    /// What can be paired no more.
    pub lost: usize,
    /// Changes that need an approval and have none yet.
    pub approvals: usize,
    /// Time of the earliest of the claims.
    pub since: Option<Millis>,
}

impl Waiting {
    pub(super) fn add(&mut self, heard: Heard, pairing: &Pairing) {
        if heard.has(Heard::AUDITED) {
            for claim in pairing.declared.iter().filter(|declared| declared.claim && !declared.shown) {
                self.claims += 1;
                self.since = Some(self.since.map_or(claim.event.at, |since| since.min(claim.event.at)));
            }
        }
        self.effects += pairing.effects.iter().filter(|effect| !effect.explained).count();
        self.lost += usize::try_from(pairing.lost).unwrap_or(usize::MAX);
    }
}

/// The tables of what waits: `pairings` (a row an agent that was heard of), `declared` and `effects` (a row a declared
/// action and an effect that wait, agent by agent), with events as JSON.
pub(super) fn tables(profiles: &[&Profile]) -> Result<[Table; 3], ArrowError> {
    let rows = || (0_u32..).zip(profiles);
    let known: Vec<(u32, &Profile)> =
        rows().map(|(row, profile)| (row, *profile)).filter(|(_, profile)| is_heard(profile)).collect();
    let nothing = Pairing::default();
    let pairings: Vec<&Pairing> =
        known.iter().map(|(_, profile)| profile.pairing.as_deref().unwrap_or(&nothing)).collect();
    let lost: Vec<&str> =
        pairings.iter().map(|p| p.first_lost.as_ref().map_or(Ok(""), json)).collect::<Result<_, _>>()?;
    let heads = Table::new("pairings")
        .with("agent", UInt32Array::from_iter_values(known.iter().map(|(row, _)| *row)))
        .with("heard", UInt32Array::from_iter_values(known.iter().map(|(_, profile)| profile.heard.bits())))
        .with("settled", Int64Array::from_iter_values(known.iter().map(|(_, profile)| profile.settled)))
        .with("next", UInt32Array::from_iter_values(pairings.iter().map(|pairing| pairing.next)))
        .with("lost_until", Int64Array::from_iter_values(pairings.iter().map(|pairing| pairing.lost_until)))
        .with("lost_reported", Int64Array::from_iter_values(pairings.iter().map(|pairing| pairing.lost_reported)))
        .with("lost", UInt32Array::from_iter_values(pairings.iter().map(|pairing| pairing.lost)))
        .with("first_lost", StringArray::from(lost));
    let waiting = || rows().filter_map(|(row, profile)| Some((row, profile.pairing.as_deref()?)));
    let declared: Vec<(u32, &Declared)> =
        waiting().flat_map(|(row, pairing)| pairing.declared.iter().map(move |one| (row, one))).collect();
    let effects: Vec<(u32, &Effect)> =
        waiting().flat_map(|(row, pairing)| pairing.effects.iter().map(move |one| (row, one))).collect();
    Ok([heads, declared_table(&declared)?, effects_table(&effects)?])
}

/// Whether there is anything to remember of an agent's pairing.
fn is_heard(profile: &Profile) -> bool {
    profile.heard != Heard::default() || profile.settled != Millis::MIN || profile.pairing.is_some()
}

fn declared_table(rows: &[(u32, &Declared)]) -> Result<Table, ArrowError> {
    let events: Vec<&str> = rows.iter().map(|(_, one)| json(&one.event)).collect::<Result<_, _>>()?;
    let claims: Vec<bool> = rows.iter().map(|(_, one)| one.claim).collect();
    let shown: Vec<bool> = rows.iter().map(|(_, one)| one.shown).collect();
    Ok(Table::new("declared")
        .with("agent", UInt32Array::from_iter_values(rows.iter().map(|(agent, _)| *agent)))
        .with("number", UInt32Array::from_iter_values(rows.iter().map(|(_, one)| one.number)))
        .with("event", StringArray::from(events))
        .with("claim", BooleanArray::from(claims))
        .with("shown", BooleanArray::from(shown))
        .with("covered", Int64Array::from_iter_values(rows.iter().map(|(_, one)| one.covered.unwrap_or(Millis::MIN)))))
}

fn effects_table(rows: &[(u32, &Effect)]) -> Result<Table, ArrowError> {
    let events: Vec<&str> = rows.iter().map(|(_, one)| json(&one.event)).collect::<Result<_, _>>()?;
    let explained: Vec<bool> = rows.iter().map(|(_, one)| one.explained).collect();
    let pinned: Vec<bool> = rows.iter().map(|(_, one)| one.pinned).collect();
    let settled: Vec<bool> = rows.iter().map(|(_, one)| one.settled).collect();
    let shows = rows.iter().map(|(_, one)| one.shows.map_or(-1, i64::from));
    Ok(Table::new("effects")
        .with("agent", UInt32Array::from_iter_values(rows.iter().map(|(agent, _)| *agent)))
        .with("event", StringArray::from(events))
        .with("explained", BooleanArray::from(explained))
        .with("pinned", BooleanArray::from(pinned))
        .with("settled", BooleanArray::from(settled))
        .with("shows", Int64Array::from_iter_values(shows)))
}

fn json(event: &Kept) -> Result<&str, ArrowError> {
    event.json().map(RawValue::get).map_err(|error| ArrowError::JsonError(error.to_string()))
}

fn event(text: &str) -> Result<Kept, RestoreError> {
    serde_json::from_str(text).map_err(|_| damaged("event that waits"))
}

/// Puts back what waited.
pub(super) fn restore<T>(profiles: &mut [(Profile, T)], batches: &[RecordBatch]) -> Result<(), RestoreError> {
    restore_heads(profiles, one_table(batches, "pairings")?)?;
    restore_declared(profiles, one_table(batches, "declared")?)?;
    restore_effects(profiles, one_table(batches, "effects")?)
}

fn restore_heads<T>(profiles: &mut [(Profile, T)], batch: &RecordBatch) -> Result<(), RestoreError> {
    let u32s = |name| numbers::<UInt32Type>(batch, name);
    let (agents, heard, next, lost) = (u32s("agent")?, u32s("heard")?, u32s("next")?, u32s("lost")?);
    let i64s = |name| numbers::<Int64Type>(batch, name);
    let (settled, until, reported) = (i64s("settled")?, i64s("lost_until")?, i64s("lost_reported")?);
    let first_lost = text(batch, "first_lost")?;
    for row in 0..batch.num_rows() {
        let profile = of_agent(profiles, agents.value(row))?;
        profile.heard = Heard::from_bits(heard.value(row)).ok_or_else(|| damaged("marks of an agent"))?;
        profile.settled = settled.value(row);
        let first_lost = Some(first_lost.value(row)).filter(|text| !text.is_empty()).map(event).transpose()?;
        let (next, lost) = (next.value(row), lost.value(row));
        let (lost_until, lost_reported) = (until.value(row), reported.value(row));
        let pairing = Pairing { next, lost_until, lost, first_lost, lost_reported, ..Pairing::default() };
        if pairing != Pairing::default() {
            profile.pairing = Some(Box::new(pairing));
        }
    }
    Ok(())
}

fn restore_declared<T>(profiles: &mut [(Profile, T)], batch: &RecordBatch) -> Result<(), RestoreError> {
    let (agents, numbers_of) = (numbers::<UInt32Type>(batch, "agent")?, numbers::<UInt32Type>(batch, "number")?);
    let (events, covered) = (text(batch, "event")?, numbers::<Int64Type>(batch, "covered")?);
    let (claims, shown) = (booleans(batch, "claim")?, booleans(batch, "shown")?);
    for row in 0..batch.num_rows() {
        let declared = Declared {
            number: numbers_of.value(row),
            event: event(events.value(row))?,
            claim: claims.value(row),
            shown: shown.value(row),
            covered: Some(covered.value(row)).filter(|at| *at != Millis::MIN),
        };
        of_agent(profiles, agents.value(row))?.pairing.get_or_insert_default().declared.push(declared);
    }
    Ok(())
}

fn restore_effects<T>(profiles: &mut [(Profile, T)], batch: &RecordBatch) -> Result<(), RestoreError> {
    let (agents, shows) = (numbers::<UInt32Type>(batch, "agent")?, numbers::<Int64Type>(batch, "shows")?);
    let events = text(batch, "event")?;
    let (explained, pinned) = (booleans(batch, "explained")?, booleans(batch, "pinned")?);
    let settled = booleans(batch, "settled")?;
    for row in 0..batch.num_rows() {
        let effect = Effect {
            event: event(events.value(row))?,
            explained: explained.value(row),
            pinned: pinned.value(row),
            shows: u32::try_from(shows.value(row)).ok(),
            settled: settled.value(row),
        };
        of_agent(profiles, agents.value(row))?.pairing.get_or_insert_default().effects.push(effect);
    }
    Ok(())
}

fn booleans<'b>(batch: &'b RecordBatch, name: &str) -> Result<&'b BooleanArray, RestoreError> {
    Ok(column(batch, name, &DataType::Boolean)?.as_boolean())
}
