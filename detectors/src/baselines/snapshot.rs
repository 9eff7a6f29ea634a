//! Snapshots of the baselines as Arrow record batches, and back.
//!
//! Layout 5, ten tables: `agents` (a row an agent), `cells` (what is counted of each agent, agent by agent), `texts` (the
//! values that the cells are of), `runs` (a row a playbook run under way), `notices` (a row the digest of a report about
//! an unregistered principal), those of what waits to be paired (`pairing.rs`), `dossiers` (`dossier.rs`) and `credentials`
//! (`credentials.rs`). Layout 4 has neither of these, layout 3 nothing that waits either, and layout 2 the reports themselves for their digests. A whole snapshot is one set of them, sorted by its texts, so that
//! equal memory gives equal bytes whatever the order in which it was learned; a piece of a checkpoint is a set in the
//! order of the memory.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Float64Array, Int64Array, PrimitiveArray, RecordBatch,
    StringArray, UInt32Array, UInt64Array,
};
use arrow::datatypes::{ArrowPrimitiveType, DataType, Float64Type, Int64Type, Schema, UInt32Type, UInt64Type};
use arrow::error::ArrowError;
use rustc_hash::FxHashMap;

use super::cells::{Cells, Key};
use super::{
    Baselines, Cell, Content, DIMENSIONS, Dimension, HOURS_OF_WEEK, Notices, Piece, Profile, RATES, RateHistory,
    RunState, Texts, dossier, layout_1, pairing,
};
use crate::event::Digest;
use crate::stats::WindowCounts;

/// Version of the tables' layout, kept in each schema's metadata.
const VERSION: &str = "5";
/// Those before.
const WITHOUT_DOSSIERS: &str = "4";
const WITHOUT_PAIRING: &str = "3";
const WITH_LINES: &str = "2";

/// Why a snapshot could not be restored.
#[derive(Debug)]
pub enum RestoreError {
    /// It has a layout that this version does not know.
    Version(String),
    /// A table or column is missing, or has the wrong type.
    Missing(String),
    /// A value cannot be right.
    Damaged(String),
}

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(found) => write!(
                f,
                "baselines of layout `{found}` cannot be read: this version reads layouts `{}` to `{VERSION}`",
                layout_1::VERSION
            ),
            Self::Missing(what) => write!(f, "baselines without `{what}`: the snapshot is damaged"),
            Self::Damaged(what) => write!(f, "baselines with an impossible `{what}`: the snapshot is damaged"),
        }
    }
}

impl std::error::Error for RestoreError {}

/// A table under construction: names and columns.
pub(super) struct Table {
    name: &'static str,
    columns: Vec<(String, ArrayRef)>,
}

impl Table {
    pub(super) fn new(name: &'static str) -> Self {
        Self { name, columns: Vec::new() }
    }

    pub(super) fn with(mut self, column: impl Into<String>, values: impl Array + 'static) -> Self {
        self.columns.push((column.into(), Arc::new(values)));
        self
    }

    fn batch(self) -> Result<RecordBatch, ArrowError> {
        let batch = RecordBatch::try_from_iter(self.columns)?;
        let metadata = HashMap::from([
            ("tautline.table".to_owned(), self.name.to_owned()),
            ("tautline.layout".to_owned(), VERSION.to_owned()),
        ]);
        let schema = Schema::new_with_metadata(batch.schema().fields().clone(), metadata);
        batch.with_schema(Arc::new(schema))
    }
}

impl Baselines {
    /// The whole memory as Arrow record batches.
    ///
    /// # Errors
    ///
    /// Only if Arrow refuses columns of unequal length, which would be a defect here.
    pub fn snapshot(&self) -> Result<Vec<RecordBatch>, ArrowError> {
        let mut profiles: Vec<&Profile> = self.iter().map(|(_, profile)| profile).collect();
        profiles.sort_unstable_by(|a, b| a.agent.cmp(&b.agent));
        let texts = self.values.texts();
        let mut cells = CellColumns::of(texts, &profiles);
        for profile in &profiles {
            let mut sorted = profile.cells.all().to_vec();
            sorted.sort_unstable_by_key(|(key, _)| (key.dimension(), cells.order(*key)));
            cells.add(&sorted);
        }
        tables(&profiles, cells, &self.notices)
    }

    /// Adds what one snapshot, or one piece of a frozen memory, holds. After an error the memory is not to be used.
    ///
    /// # Errors
    ///
    /// When the layout is unknown, when a table, column or value is not what its layout has, or when an agent is there
    /// already.
    pub fn absorb(&mut self, batches: &[RecordBatch]) -> Result<(), RestoreError> {
        match layout(batches)? {
            layout_1::VERSION => layout_1::absorb(self, batches),
            layout @ (WITH_LINES | WITHOUT_PAIRING | WITHOUT_DOSSIERS | VERSION) => self.absorb_tables(layout, batches),
            other => Err(RestoreError::Version(other.to_owned())),
        }
    }

    /// Rebuilds the memory from the batches of [`Baselines::snapshot`].
    ///
    /// # Errors
    ///
    /// As [`Baselines::absorb`].
    pub fn restore(batches: &[RecordBatch]) -> Result<Self, RestoreError> {
        let mut baselines = Self::default();
        baselines.absorb(batches)?;
        Ok(baselines)
    }

    fn absorb_tables(&mut self, layout: &str, batches: &[RecordBatch]) -> Result<(), RestoreError> {
        let keys = self.keys(one_table(batches, "texts")?)?;
        let mut profiles = profiles(one_table(batches, "agents")?)?;
        let cells = cells(&profiles, one_table(batches, "cells")?, &keys)?;
        runs(&mut profiles, one_table(batches, "runs")?)?;
        if matches!(layout, WITHOUT_DOSSIERS | VERSION) {
            pairing::restore(&mut profiles, batches)?;
        }
        if layout == VERSION {
            dossier::restore(&mut profiles, batches)?;
            Arc::make_mut(&mut self.notices).credentials.restore(batches)?;
        }
        for ((profile, _), cells) in profiles.into_iter().zip(cells) {
            self.admit(profile, cells)?;
        }
        let notices = one_table(batches, "notices")?;
        if layout == WITH_LINES { self.absorb_lines(notices) } else { self.absorb_notices(notices) }
    }

    /// Takes in a profile, with its cells in any order, of an agent that is not there yet.
    pub(super) fn admit(&mut self, profile: Profile, cells: Vec<(Key, Cell)>) -> Result<(), RestoreError> {
        if self.slot(&profile.agent).is_some() {
            return Err(damaged(format!("second agent {}", profile.agent)));
        }
        let cells = Cells::of(cells).ok_or_else(|| damaged(format!("cells of agent {}", profile.agent)))?;
        self.add(Profile { cells, ..profile }).map(drop).ok_or_else(|| damaged("number of agents"))
    }

    /// The keys of a table of dimensions and values.
    pub(super) fn keys(&mut self, batch: &RecordBatch) -> Result<Vec<Key>, RestoreError> {
        let (dimensions, values) = (text(batch, "dimension")?, text(batch, "value")?);
        (0..batch.num_rows()).map(|row| self.key(dimensions.value(row), values.value(row))).collect()
    }

    fn key(&mut self, dimension: &str, value: &str) -> Result<Key, RestoreError> {
        let found = DIMENSIONS.into_iter().find(|known| known.name() == dimension);
        let found = found.ok_or_else(|| damaged(format!("dimension {dimension}")))?;
        let code = match found {
            Dimension::Hour => value.parse().ok().filter(|hour| (*hour as usize) < HOURS_OF_WEEK),
            Dimension::Note => value.parse().ok().filter(|number| *number < Key::CODES),
            _ => self.values.intern(value, Key::CODES),
        };
        code.map(|code| Key::new(found, code)).ok_or_else(|| damaged(format!("{dimension} {value}")))
    }

    /// The notices as layouts 1 and 2 have them: the lines themselves.
    pub(super) fn absorb_lines(&mut self, batch: &RecordBatch) -> Result<(), RestoreError> {
        let lines = text(batch, "notice")?;
        let digests = (0..batch.num_rows()).map(|row| Digest::of(lines.value(row).as_bytes()));
        Arc::make_mut(&mut self.notices).digests.extend(digests);
        Ok(())
    }

    fn absorb_notices(&mut self, batch: &RecordBatch) -> Result<(), RestoreError> {
        let digests = bytes(batch, "digest")?;
        let notices = Arc::make_mut(&mut self.notices);
        for row in 0..batch.num_rows() {
            let digest: [u8; 16] = digests.value(row).try_into().map_err(|_| damaged("digest of a notice"))?;
            notices.digests.insert(Digest(u128::from_be_bytes(digest)));
        }
        Ok(())
    }
}

impl Piece {
    /// Its content as Arrow record batches, for [`Baselines::absorb`].
    ///
    /// # Errors
    ///
    /// Only if Arrow refuses columns of unequal length, which would be a defect here.
    pub fn tables(&self) -> Result<Vec<RecordBatch>, ArrowError> {
        let nothing = Texts::default();
        match &self.content {
            Content::Notices(notices) => tables(&[], CellColumns::of(&nothing, &[]), notices),
            Content::Profiles(chunks, texts) => {
                let profiles: Vec<&Profile> = chunks.iter().flat_map(|chunk| &chunk.profiles).collect();
                let mut cells = CellColumns::of(texts, &profiles);
                profiles.iter().for_each(|profile| cells.add(profile.cells.all()));
                tables(&profiles, cells, &Notices::default())
            }
        }
    }
}

/// The cells of one set of tables, and the texts that they are of.
struct CellColumns<'t> {
    texts: &'t Texts,
    /// Rows of the texts' table.
    rows: FxHashMap<u32, u32>,
    keys: Vec<Key>,
    /// Cells per agent, and of each its text's row and its counts.
    agents: Vec<u32>,
    values: Vec<u32>,
    counts: Vec<u32>,
    withheld: Vec<u32>,
}

impl<'t> CellColumns<'t> {
    /// None yet of these profiles'.
    fn of(texts: &'t Texts, profiles: &[&Profile]) -> Self {
        let most = profiles.iter().map(|profile| profile.cells.all().len()).sum();
        Self {
            texts,
            rows: FxHashMap::default(),
            keys: Vec::new(),
            agents: Vec::with_capacity(profiles.len()),
            values: Vec::with_capacity(most),
            counts: Vec::with_capacity(most),
            withheld: Vec::with_capacity(most),
        }
    }

    /// What orders a dimension's cells in a whole snapshot.
    fn order(&self, key: Key) -> (&'t str, u32) {
        if is_number(key) { ("", key.code()) } else { (self.texts.get(key.code()), 0) }
    }

    fn add(&mut self, cells: &[(Key, Cell)]) {
        self.agents.push(number(cells.len()));
        for (key, cell) in cells {
            let next = number(self.keys.len());
            let row = *self.rows.entry(key.word()).or_insert_with(|| {
                self.keys.push(*key);
                next
            });
            self.values.push(row);
            self.counts.push(cell.count);
            self.withheld.push(cell.withheld);
        }
    }

    fn texts_table(&self) -> Table {
        let dimension = |key: &Key| DIMENSIONS.into_iter().find(|known| *known as u32 == key.dimension());
        let dimensions = self.keys.iter().map(|key| dimension(key).map_or("", Dimension::name));
        let value = |key: &Key| match is_number(*key) {
            true => key.code().to_string(),
            false => self.texts.get(key.code()).to_owned(),
        };
        Table::new("texts")
            .with("dimension", StringArray::from_iter_values(dimensions))
            .with("value", StringArray::from_iter_values(self.keys.iter().map(value)))
    }

    fn table(self) -> Table {
        Table::new("cells")
            .with("text", UInt32Array::from(self.values))
            .with("count", UInt32Array::from(self.counts))
            .with("withheld", UInt32Array::from(self.withheld))
    }
}

/// Whether a key's code is a number of its own and not one of a text.
fn is_number(key: Key) -> bool {
    [Dimension::Hour, Dimension::Note].iter().any(|dimension| key.dimension() == *dimension as u32)
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn tables(profiles: &[&Profile], cells: CellColumns<'_>, notices: &Notices) -> Result<Vec<RecordBatch>, ArrowError> {
    let agents = agents_table(profiles).with("cells", UInt32Array::from(cells.agents.clone()));
    let mut digests: Vec<[u8; 16]> = notices.digests.iter().map(|digest| digest.0.to_be_bytes()).collect();
    digests.sort_unstable();
    let digests = Table::new("notices").with("digest", BinaryArray::from_iter_values(digests));
    let texts = cells.texts_table();
    let whole = [agents, texts, cells.table(), runs_table(profiles), digests];
    let kept = [dossier::table(profiles)?, notices.credentials.table()?];
    whole.into_iter().chain(pairing::tables(profiles)?).chain(kept).map(Table::batch).collect()
}

fn agents_table(profiles: &[&Profile]) -> Table {
    let i64s = |value: fn(&Profile) -> i64| Int64Array::from_iter_values(profiles.iter().map(|p| value(p)));
    let u64s = |value: fn(&Profile) -> u64| UInt64Array::from_iter_values(profiles.iter().map(|p| value(p)));
    let recent = profiles.iter().map(|p| {
        let mut bytes = Vec::with_capacity(p.recent.iter().len() * size_of::<u128>());
        p.recent.iter().for_each(|digest| bytes.extend_from_slice(&digest.to_le_bytes()));
        bytes
    });
    let mut table = Table::new("agents")
        .with("agent", StringArray::from_iter_values(profiles.iter().map(|p| &p.agent)))
        .with("first_seen", i64s(|p| p.first_seen))
        .with("last_seen", i64s(|p| p.last_seen))
        .with("learned_until", i64s(|p| p.learned_until))
        .with("learned", u64s(|p| p.learned))
        .with("seen", u64s(|p| p.seen))
        .with("last_hour", i64s(|p| p.last_hour))
        .with("reported_hour", i64s(|p| p.reported_hour))
        .with("window", i64s(|p| p.window))
        .with("evidence", Float64Array::from_iter_values(profiles.iter().map(|p| p.evidence)))
        .with("evidence_at", i64s(|p| p.evidence_at))
        .with("recent", BinaryArray::from_iter_values(recent));
    for rate in RATES {
        let of =
            |value: fn(RateHistory) -> u64| UInt64Array::from_iter_values(profiles.iter().map(|p| value(p.rate(rate))));
        let name = |part: &str| format!("{}_{part}", rate.name());
        let reported: Vec<bool> = profiles.iter().map(|p| p.rate(rate).reported).collect();
        table = table
            .with(name("open"), UInt32Array::from_iter_values(profiles.iter().map(|p| p.rate(rate).open)))
            .with(name("reported"), BooleanArray::from(reported))
            .with(name("windows"), of(|history| history.closed.windows))
            .with(name("sum"), of(|history| history.closed.sum))
            .with(name("squares"), of(|history| history.closed.squares));
    }
    table
}

fn runs_table(profiles: &[&Profile]) -> Table {
    // The order of an agent's runs is memory too: the oldest makes room for a new one.
    let mut rows: Vec<(u32, &RunState)> = Vec::new();
    for (row, profile) in profiles.iter().enumerate() {
        rows.extend(profile.runs.iter().map(|run| (number(row), run)));
    }
    Table::new("runs")
        .with("agent", UInt32Array::from_iter_values(rows.iter().map(|(agent, _)| *agent)))
        .with("playbook", StringArray::from_iter_values(rows.iter().map(|(_, run)| &run.playbook)))
        .with("run", StringArray::from_iter_values(rows.iter().map(|(_, run)| &run.run)))
        .with("step", UInt32Array::from_iter_values(rows.iter().map(|(_, run)| run.step)))
        .with("repeats", UInt32Array::from_iter_values(rows.iter().map(|(_, run)| run.repeats)))
        .with("last", Int64Array::from_iter_values(rows.iter().map(|(_, run)| run.last)))
        .with("last_event", StringArray::from_iter_values(rows.iter().map(|(_, run)| &run.last_event)))
}

/// The profiles of an `agents` table, each with how many cells it has.
fn profiles(batch: &RecordBatch) -> Result<Vec<(Profile, u32)>, RestoreError> {
    let agents = AgentColumns::of(batch)?;
    let cells = numbers::<UInt32Type>(batch, "cells")?;
    (0..batch.num_rows()).map(|row| Ok((agents.profile(row)?, cells.value(row)))).collect()
}

/// The columns that the `agents` tables of all layouts have.
pub(super) struct AgentColumns<'b> {
    agent: &'b StringArray,
    first_seen: &'b Int64Array,
    last_seen: &'b Int64Array,
    learned_until: &'b Int64Array,
    learned: &'b UInt64Array,
    seen: &'b UInt64Array,
    last_hour: &'b Int64Array,
    reported_hour: &'b Int64Array,
    window: &'b Int64Array,
    evidence: &'b Float64Array,
    evidence_at: &'b Int64Array,
    recent: &'b BinaryArray,
    rates: Vec<RateColumns<'b>>,
}

struct RateColumns<'b> {
    open: &'b UInt32Array,
    reported: &'b BooleanArray,
    windows: &'b UInt64Array,
    sum: &'b UInt64Array,
    squares: &'b UInt64Array,
}

impl<'b> AgentColumns<'b> {
    pub(super) fn of(batch: &'b RecordBatch) -> Result<Self, RestoreError> {
        let i64s = |name| numbers::<Int64Type>(batch, name);
        let u64s = |name| numbers::<UInt64Type>(batch, name);
        let rates = RATES.iter().map(|rate| {
            let name = |part: &str| format!("{}_{part}", rate.name());
            Ok(RateColumns {
                open: numbers::<UInt32Type>(batch, &name("open"))?,
                reported: column(batch, &name("reported"), &DataType::Boolean)?.as_boolean(),
                windows: numbers::<UInt64Type>(batch, &name("windows"))?,
                sum: numbers::<UInt64Type>(batch, &name("sum"))?,
                squares: numbers::<UInt64Type>(batch, &name("squares"))?,
            })
        });
        Ok(Self {
            agent: text(batch, "agent")?,
            first_seen: i64s("first_seen")?,
            last_seen: i64s("last_seen")?,
            learned_until: i64s("learned_until")?,
            learned: u64s("learned")?,
            seen: u64s("seen")?,
            last_hour: i64s("last_hour")?,
            reported_hour: i64s("reported_hour")?,
            window: i64s("window")?,
            evidence: numbers::<Float64Type>(batch, "evidence")?,
            evidence_at: i64s("evidence_at")?,
            recent: bytes(batch, "recent")?,
            rates: rates.collect::<Result<_, _>>()?,
        })
    }

    pub(super) fn profile(&self, row: usize) -> Result<Profile, RestoreError> {
        let mut profile = Profile {
            agent: self.agent.value(row).into(),
            first_seen: self.first_seen.value(row),
            last_seen: self.last_seen.value(row),
            learned_until: self.learned_until.value(row),
            learned: self.learned.value(row),
            seen: self.seen.value(row),
            last_hour: self.last_hour.value(row),
            reported_hour: self.reported_hour.value(row),
            settled: i64::MIN,
            window: self.window.value(row),
            evidence: self.evidence.value(row),
            evidence_at: self.evidence_at.value(row),
            recent: u128s(self.recent.value(row))?.into_iter().collect(),
            ..Profile::default()
        };
        if !profile.evidence.is_finite() || profile.evidence < 0.0 {
            return Err(damaged("evidence"));
        }
        for (columns, history) in self.rates.iter().zip(&mut profile.rates) {
            *history = RateHistory {
                open: columns.open.value(row),
                reported: columns.reported.value(row),
                closed: WindowCounts {
                    windows: columns.windows.value(row),
                    sum: columns.sum.value(row),
                    squares: columns.squares.value(row),
                },
            };
        }
        Ok(profile)
    }
}

/// Each agent's cells.
fn cells(
    profiles: &[(Profile, u32)],
    batch: &RecordBatch,
    keys: &[Key],
) -> Result<Vec<Vec<(Key, Cell)>>, RestoreError> {
    let texts = numbers::<UInt32Type>(batch, "text")?.values();
    let counts = numbers::<UInt32Type>(batch, "count")?.values();
    let withheld = numbers::<UInt32Type>(batch, "withheld")?.values();
    let mut rows = texts.iter().zip(counts).zip(withheld);
    let mut of_agents = Vec::with_capacity(profiles.len());
    for (_, many) in profiles {
        let many = *many as usize;
        let mut cells = Vec::with_capacity(many.min(batch.num_rows()));
        for ((text, count), withheld) in rows.by_ref().take(many) {
            let key = keys.get(*text as usize).ok_or_else(|| damaged("text of a cell"))?;
            cells.push((*key, Cell { count: *count, withheld: *withheld }));
        }
        if cells.len() != many {
            return Err(damaged("number of cells"));
        }
        of_agents.push(cells);
    }
    rows.next().map_or(Ok(of_agents), |_| Err(damaged("number of cells")))
}

fn runs(profiles: &mut [(Profile, u32)], batch: &RecordBatch) -> Result<(), RestoreError> {
    let columns = RunColumns::of(batch)?;
    let agents = numbers::<UInt32Type>(batch, "agent")?;
    for row in 0..batch.num_rows() {
        let (profile, _) = profiles.get_mut(agents.value(row) as usize).ok_or_else(|| damaged("agent of a run"))?;
        profile.runs.push(columns.run(row));
    }
    Ok(())
}

/// The columns that the `runs` tables of all layouts have.
pub(super) struct RunColumns<'b> {
    playbook: &'b StringArray,
    run: &'b StringArray,
    step: &'b UInt32Array,
    repeats: &'b UInt32Array,
    last: &'b Int64Array,
    last_event: &'b StringArray,
}

impl<'b> RunColumns<'b> {
    pub(super) fn of(batch: &'b RecordBatch) -> Result<Self, RestoreError> {
        Ok(Self {
            playbook: text(batch, "playbook")?,
            run: text(batch, "run")?,
            step: numbers::<UInt32Type>(batch, "step")?,
            repeats: numbers::<UInt32Type>(batch, "repeats")?,
            last: numbers::<Int64Type>(batch, "last")?,
            last_event: text(batch, "last_event")?,
        })
    }

    pub(super) fn run(&self, row: usize) -> RunState {
        RunState {
            playbook: self.playbook.value(row).to_owned(),
            run: self.run.value(row).to_owned(),
            step: self.step.value(row),
            repeats: self.repeats.value(row),
            last: self.last.value(row),
            last_event: self.last_event.value(row).to_owned(),
        }
    }
}

/// The layout that all batches have.
fn layout(batches: &[RecordBatch]) -> Result<&str, RestoreError> {
    let of = |batch: &RecordBatch| batch.schema_ref().metadata().get("tautline.layout").is_some();
    let named = batches.iter().find(|batch| !of(batch));
    if named.is_some() {
        return Err(RestoreError::Version("none".to_owned()));
    }
    let mut layouts = batches.iter().filter_map(|batch| batch.schema_ref().metadata().get("tautline.layout"));
    let first = layouts.next().ok_or_else(|| RestoreError::Missing("table agents".to_owned()))?;
    layouts.find(|other| *other != first).map_or(Ok(first.as_str()), |other| Err(RestoreError::Version(other.clone())))
}

/// All batches of a table.
pub(super) fn of_table<'b>(batches: &'b [RecordBatch], name: &str) -> impl Iterator<Item = &'b RecordBatch> {
    let is_named = move |batch: &&RecordBatch| {
        batch.schema_ref().metadata().get("tautline.table").is_some_and(|table| table == name)
    };
    batches.iter().filter(is_named)
}

pub(super) fn one_table<'b>(batches: &'b [RecordBatch], name: &str) -> Result<&'b RecordBatch, RestoreError> {
    let mut found = of_table(batches, name);
    match (found.next(), found.next()) {
        (Some(batch), None) => Ok(batch),
        _ => Err(RestoreError::Missing(format!("table {name}"))),
    }
}

pub(super) fn column<'b>(batch: &'b RecordBatch, name: &str, kind: &DataType) -> Result<&'b ArrayRef, RestoreError> {
    let column = batch.column_by_name(name).filter(|column| column.data_type() == kind && column.null_count() == 0);
    column.ok_or_else(|| RestoreError::Missing(format!("column {name}")))
}

pub(super) fn text<'b>(batch: &'b RecordBatch, name: &str) -> Result<&'b StringArray, RestoreError> {
    Ok(column(batch, name, &DataType::Utf8)?.as_string::<i32>())
}

pub(super) fn bytes<'b>(batch: &'b RecordBatch, name: &str) -> Result<&'b BinaryArray, RestoreError> {
    Ok(column(batch, name, &DataType::Binary)?.as_binary::<i32>())
}

pub(super) fn numbers<'b, T: ArrowPrimitiveType>(
    batch: &'b RecordBatch,
    name: &str,
) -> Result<&'b PrimitiveArray<T>, RestoreError> {
    Ok(column(batch, name, &T::DATA_TYPE)?.as_primitive::<T>())
}

fn u128s(bytes: &[u8]) -> Result<Vec<u128>, RestoreError> {
    let (whole, rest) = bytes.as_chunks::<16>();
    if rest.is_empty() { Ok(whole.iter().map(|b| u128::from_le_bytes(*b)).collect()) } else { Err(damaged("recent")) }
}

pub(super) fn damaged(what: impl Into<String>) -> RestoreError {
    RestoreError::Damaged(what.into())
}

#[cfg(test)]
mod tests;
