//! Snapshots of the baselines as Arrow record batches, and back.
//!
//! Four tables: `agents` (a row an agent), `values` (a row an agent, dimension and value), `runs` (a row a playbook run
//! under way) and `notices` (a row a report about an unregistered principal). Rows are sorted by their texts, so that equal memory gives equal bytes whatever the order in which it
//! was learned.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray,
    UInt32Array, UInt64Array,
};
use arrow::datatypes::{DataType, Float64Type, Int64Type, Schema, UInt32Type, UInt64Type};
use arrow::error::ArrowError;

use super::{Baselines, Cell, DIMENSIONS, HOURS_OF_WEEK, Profile, RATES, RateHistory, RunState};
use crate::stats::WindowCounts;

/// Version of the tables' layout, kept in each schema's metadata.
const VERSION: &str = "1";

/// Why a snapshot could not be restored.
#[derive(Debug)]
pub enum RestoreError {
    /// It has another layout than this version writes.
    Version(String),
    /// A table or column is missing, or has the wrong type.
    Missing(String),
    /// A value cannot be right.
    Damaged(String),
}

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(found) => {
                write!(f, "baselines of layout `{found}` cannot be read: this version reads layout `{VERSION}`")
            }
            Self::Missing(what) => write!(f, "baselines without `{what}`: the snapshot is damaged"),
            Self::Damaged(what) => write!(f, "baselines with an impossible `{what}`: the snapshot is damaged"),
        }
    }
}

impl std::error::Error for RestoreError {}

/// A table under construction: names and columns.
struct Table {
    name: &'static str,
    columns: Vec<(String, ArrayRef)>,
}

impl Table {
    fn new(name: &'static str) -> Self {
        Self { name, columns: Vec::new() }
    }

    fn with(mut self, column: impl Into<String>, values: impl Array + 'static) -> Self {
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
    /// The whole memory as Arrow record batches: `agents`, `values`, `runs`, `notices`.
    ///
    /// # Errors
    ///
    /// Only if Arrow refuses columns of unequal length, which would be a defect here.
    pub fn snapshot(&self) -> Result<Vec<RecordBatch>, ArrowError> {
        let mut agents: Vec<(&str, &Profile)> = self.iter().collect();
        agents.sort_unstable_by_key(|(agent, _)| *agent);
        let mut notices: Vec<&String> = self.notices.iter().collect();
        notices.sort_unstable();
        let notices = Table::new("notices").with("notice", StringArray::from_iter_values(notices));
        let tables = [agents_table(&agents), self.values_table(&agents), runs_table(&agents), notices];
        tables.into_iter().map(Table::batch).collect()
    }

    fn values_table(&self, agents: &[(&str, &Profile)]) -> Table {
        let mut rows: Vec<(&str, &'static str, &str, Cell)> = agents
            .iter()
            .flat_map(|(agent, profile)| {
                profile.cells.iter().map(|(d, code, cell)| (*agent, d.name(), self.values.text(*code), *cell))
            })
            .collect();
        rows.sort_unstable_by_key(|(agent, dimension, value, _)| (*agent, *dimension, *value));
        Table::new("values")
            .with("agent", StringArray::from_iter_values(rows.iter().map(|row| row.0)))
            .with("dimension", StringArray::from_iter_values(rows.iter().map(|row| row.1)))
            .with("value", StringArray::from_iter_values(rows.iter().map(|row| row.2)))
            .with("count", UInt32Array::from_iter_values(rows.iter().map(|row| row.3.count)))
            .with("withheld", UInt32Array::from_iter_values(rows.iter().map(|row| row.3.withheld)))
    }

    /// Rebuilds the memory from the batches of [`Baselines::snapshot`].
    ///
    /// # Errors
    ///
    /// When the layout is another version's, or a table, column or value is not what this version writes.
    pub fn restore(batches: &[RecordBatch]) -> Result<Self, RestoreError> {
        let mut baselines = Self::default();
        for batch in tables(batches, "agents")? {
            baselines.restore_agents(batch)?;
        }
        for batch in tables(batches, "values")? {
            baselines.restore_values(batch)?;
        }
        for batch in tables(batches, "runs")? {
            baselines.restore_runs(batch)?;
        }
        for batch in tables(batches, "notices")? {
            for row in 0..batch.num_rows() {
                baselines.notices.insert(Columns(batch).text("notice", row)?.to_owned());
            }
        }
        Ok(baselines)
    }

    fn restore_agents(&mut self, batch: &RecordBatch) -> Result<(), RestoreError> {
        let columns = Columns(batch);
        for row in 0..batch.num_rows() {
            let mut profile = Profile {
                first_seen: columns.i64("first_seen", row)?,
                last_seen: columns.i64("last_seen", row)?,
                learned_until: columns.i64("learned_until", row)?,
                learned: columns.u64("learned", row)?,
                seen: columns.u64("seen", row)?,
                hours: u16s(columns.bytes("hours", row)?)?,
                last_hour: columns.i64("last_hour", row)?,
                reported_hour: columns.i64("reported_hour", row)?,
                window: columns.i64("window", row)?,
                evidence: columns.f64("evidence", row)?,
                evidence_at: columns.i64("evidence_at", row)?,
                recent: u128s(columns.bytes("recent", row)?)?.into(),
                ..Profile::default()
            };
            if !matches!(profile.hours.len(), 0 | HOURS_OF_WEEK) {
                return Err(damaged("hours"));
            }
            if !profile.evidence.is_finite() || profile.evidence < 0.0 {
                return Err(damaged("evidence"));
            }
            for (rate, history) in RATES.iter().zip(&mut profile.rates) {
                let name = |part: &str| format!("{}_{part}", rate.name());
                *history = RateHistory {
                    open: columns.u32(&name("open"), row)?,
                    reported: columns.bool(&name("reported"), row)?,
                    closed: WindowCounts {
                        windows: columns.u64(&name("windows"), row)?,
                        sum: columns.u64(&name("sum"), row)?,
                        squares: columns.u64(&name("squares"), row)?,
                    },
                };
            }
            self.agents.insert(columns.text("agent", row)?.into(), profile);
        }
        Ok(())
    }

    fn restore_values(&mut self, batch: &RecordBatch) -> Result<(), RestoreError> {
        let columns = Columns(batch);
        for row in 0..batch.num_rows() {
            let name = columns.text("dimension", row)?;
            let dimension = DIMENSIONS.into_iter().find(|dimension| dimension.name() == name);
            let dimension = dimension.ok_or_else(|| RestoreError::Damaged(format!("dimension {name}")))?;
            let code = self.values.intern(columns.text("value", row)?);
            let code = code.ok_or_else(|| RestoreError::Damaged("number of values".to_owned()))?;
            let profile = self.profile_mut(columns.text("agent", row)?)?;
            if let Some(cell) = profile.cell_mut(dimension, code) {
                *cell = Cell { count: columns.u32("count", row)?, withheld: columns.u32("withheld", row)? };
            }
        }
        Ok(())
    }

    fn restore_runs(&mut self, batch: &RecordBatch) -> Result<(), RestoreError> {
        let columns = Columns(batch);
        for row in 0..batch.num_rows() {
            let state = RunState {
                playbook: columns.text("playbook", row)?.to_owned(),
                run: columns.text("run", row)?.to_owned(),
                step: columns.u32("step", row)?,
                repeats: columns.u32("repeats", row)?,
                last: columns.i64("last", row)?,
                last_event: columns.text("last_event", row)?.to_owned(),
            };
            self.profile_mut(columns.text("agent", row)?)?.runs.push(state);
        }
        Ok(())
    }

    fn profile_mut(&mut self, agent: &str) -> Result<&mut Profile, RestoreError> {
        self.agents.get_mut(agent).ok_or_else(|| RestoreError::Damaged(format!("agent {agent}")))
    }
}

fn agents_table(agents: &[(&str, &Profile)]) -> Table {
    let profiles = || agents.iter().map(|(_, profile)| *profile);
    let i64s = |value: fn(&Profile) -> i64| Int64Array::from_iter_values(profiles().map(value));
    let u64s = |value: fn(&Profile) -> u64| UInt64Array::from_iter_values(profiles().map(value));
    let hours = profiles().map(|p| p.hours.iter().flat_map(|count| count.to_le_bytes()).collect::<Vec<u8>>());
    let recent = profiles().map(|p| p.recent.iter().flat_map(|digest| digest.to_le_bytes()).collect::<Vec<u8>>());
    let mut table = Table::new("agents")
        .with("agent", StringArray::from_iter_values(agents.iter().map(|(agent, _)| *agent)))
        .with("first_seen", i64s(|p| p.first_seen))
        .with("last_seen", i64s(|p| p.last_seen))
        .with("learned_until", i64s(|p| p.learned_until))
        .with("learned", u64s(|p| p.learned))
        .with("seen", u64s(|p| p.seen))
        .with("hours", BinaryArray::from_iter_values(hours))
        .with("last_hour", i64s(|p| p.last_hour))
        .with("reported_hour", i64s(|p| p.reported_hour))
        .with("window", i64s(|p| p.window))
        .with("evidence", Float64Array::from_iter_values(profiles().map(|p| p.evidence)))
        .with("evidence_at", i64s(|p| p.evidence_at))
        .with("recent", BinaryArray::from_iter_values(recent));
    for rate in RATES {
        let of = |value: fn(RateHistory) -> u64| UInt64Array::from_iter_values(profiles().map(|p| value(p.rate(rate))));
        let name = |part: &str| format!("{}_{part}", rate.name());
        let reported: Vec<bool> = profiles().map(|p| p.rate(rate).reported).collect();
        table = table
            .with(name("open"), UInt32Array::from_iter_values(profiles().map(|p| p.rate(rate).open)))
            .with(name("reported"), BooleanArray::from(reported))
            .with(name("windows"), of(|history| history.closed.windows))
            .with(name("sum"), of(|history| history.closed.sum))
            .with(name("squares"), of(|history| history.closed.squares));
    }
    table
}

fn runs_table(agents: &[(&str, &Profile)]) -> Table {
    // The order of an agent's runs is memory too: the oldest makes room for a new one.
    let rows: Vec<(&str, &RunState)> =
        agents.iter().flat_map(|(agent, profile)| profile.runs.iter().map(|run| (*agent, run))).collect();
    Table::new("runs")
        .with("agent", StringArray::from_iter_values(rows.iter().map(|(agent, _)| *agent)))
        .with("playbook", StringArray::from_iter_values(rows.iter().map(|(_, run)| &run.playbook)))
        .with("run", StringArray::from_iter_values(rows.iter().map(|(_, run)| &run.run)))
        .with("step", UInt32Array::from_iter_values(rows.iter().map(|(_, run)| run.step)))
        .with("repeats", UInt32Array::from_iter_values(rows.iter().map(|(_, run)| run.repeats)))
        .with("last", Int64Array::from_iter_values(rows.iter().map(|(_, run)| run.last)))
        .with("last_event", StringArray::from_iter_values(rows.iter().map(|(_, run)| &run.last_event)))
}

fn tables<'b>(batches: &'b [RecordBatch], name: &str) -> Result<Vec<&'b RecordBatch>, RestoreError> {
    let mut found = Vec::new();
    for batch in batches {
        let schema = batch.schema_ref();
        let layout = schema.metadata().get("tautline.layout").map_or("none", String::as_str);
        if layout != VERSION {
            return Err(RestoreError::Version(layout.to_owned()));
        }
        if schema.metadata().get("tautline.table").is_some_and(|table| table == name) {
            found.push(batch);
        }
    }
    if found.is_empty() { Err(RestoreError::Missing(format!("table {name}"))) } else { Ok(found) }
}

/// Typed access to a batch's columns by name.
struct Columns<'b>(&'b RecordBatch);

impl<'b> Columns<'b> {
    fn column(&self, name: &str, kind: &DataType) -> Result<&'b ArrayRef, RestoreError> {
        let column =
            self.0.column_by_name(name).filter(|column| column.data_type() == kind && column.null_count() == 0);
        column.ok_or_else(|| RestoreError::Missing(format!("column {name}")))
    }

    fn text(&self, name: &str, row: usize) -> Result<&'b str, RestoreError> {
        Ok(self.column(name, &DataType::Utf8)?.as_string::<i32>().value(row))
    }

    fn bytes(&self, name: &str, row: usize) -> Result<&'b [u8], RestoreError> {
        Ok(self.column(name, &DataType::Binary)?.as_binary::<i32>().value(row))
    }

    fn i64(&self, name: &str, row: usize) -> Result<i64, RestoreError> {
        Ok(self.column(name, &DataType::Int64)?.as_primitive::<Int64Type>().value(row))
    }

    fn u64(&self, name: &str, row: usize) -> Result<u64, RestoreError> {
        Ok(self.column(name, &DataType::UInt64)?.as_primitive::<UInt64Type>().value(row))
    }

    fn u32(&self, name: &str, row: usize) -> Result<u32, RestoreError> {
        Ok(self.column(name, &DataType::UInt32)?.as_primitive::<UInt32Type>().value(row))
    }

    fn f64(&self, name: &str, row: usize) -> Result<f64, RestoreError> {
        Ok(self.column(name, &DataType::Float64)?.as_primitive::<Float64Type>().value(row))
    }

    fn bool(&self, name: &str, row: usize) -> Result<bool, RestoreError> {
        Ok(self.column(name, &DataType::Boolean)?.as_boolean().value(row))
    }
}

fn u16s(bytes: &[u8]) -> Result<Vec<u16>, RestoreError> {
    let (whole, rest) = bytes.as_chunks::<2>();
    if rest.is_empty() { Ok(whole.iter().map(|b| u16::from_le_bytes(*b)).collect()) } else { Err(damaged("hours")) }
}

fn u128s(bytes: &[u8]) -> Result<Vec<u128>, RestoreError> {
    let (whole, rest) = bytes.as_chunks::<16>();
    if rest.is_empty() { Ok(whole.iter().map(|b| u128::from_le_bytes(*b)).collect()) } else { Err(damaged("recent")) }
}

fn damaged(what: &str) -> RestoreError {
    RestoreError::Damaged(what.to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

    use super::*;
    use crate::engine::{Engine, Input};
    use crate::event::{AgentRef, Event, Verb};
    use crate::testing::{book, control, event, in_run};

    /// A memory with something in every table.
    fn memory() -> Baselines {
        let playbook = "[playbooks.p]\ntitle = \"P\"\nidle = \"1h\"\nsteps = [{ id = \"a\", operations = [\"*\"], at_most = 9 }]\n";
        let forbid = "@id(\"x\")\nforbid (principal, action == Action::\"write\", resource);";
        let mut engine = Engine::new(Arc::new(book(&[
            ("extra/control.toml", &control("extra", "")),
            ("extra/policy.cedar", forbid),
            ("registry/playbooks/p.toml", playbook),
        ])));
        let time = "2026-03-02T12:00:00Z";
        for event in [
            in_run(event(1, "ecs:List", time), "p", "r-2"),
            in_run(event(2, "ecs:List", time), "p", "r-1"),
            Event { verb: Verb::Write, ..event(3, "ecs:StopTask", "2026-03-02T13:00:00Z") },
            Event { agent: AgentRef::Unregistered("eve".to_owned()), ..event(4, "ecs:List", time) },
        ] {
            engine.step(&Input::Event(Box::new(event)));
        }
        engine.baselines().clone()
    }

    fn tables() -> Vec<RecordBatch> {
        memory().snapshot().unwrap()
    }

    /// The table with one column replaced, or left out.
    fn with_column(table: &RecordBatch, name: &str, column: Option<ArrayRef>) -> RecordBatch {
        let columns = table.schema_ref().fields().iter().zip(table.columns()).filter_map(|(field, old)| {
            let new = if field.name() == name { column.clone() } else { Some(Arc::clone(old)) };
            new.map(|new| (field.name().clone(), new))
        });
        let batch =
            RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap();
        let schema = Schema::new_with_metadata(batch.schema().fields().clone(), table.schema_ref().metadata().clone());
        batch.with_schema(Arc::new(schema)).unwrap()
    }

    fn error(tables: &[RecordBatch]) -> RestoreError {
        Baselines::restore(tables).err().unwrap()
    }

    #[test]
    fn what_is_written_is_restored() {
        let tables = tables();
        assert!(tables.iter().all(|table| table.num_rows() > 0), "something in every table");
        let again = Baselines::restore(&tables).unwrap();
        assert_eq!(again.snapshot().unwrap(), tables);
        let (old, new) = (memory(), again);
        let (old, new) = (old.past("bot").profile().unwrap(), new.past("bot").profile().unwrap());
        assert_eq!(
            (old.seen, old.learned, &old.hours, &old.runs, &old.recent),
            (new.seen, new.learned, &new.hours, &new.runs, &new.recent)
        );
        assert_eq!(old.runs[0].run, "r-2", "the oldest comes first, whatever its name");
        let empty = Baselines::default().snapshot().unwrap();
        assert_eq!(Baselines::restore(&empty).unwrap().snapshot().unwrap(), empty);
    }

    #[test]
    fn another_layout_is_refused_by_its_name() {
        let mut tables = tables();
        let last = tables.len() - 1;
        for metadata in
            [[("tautline.layout", "999"), ("tautline.table", "agents")], [("x", "y"), ("tautline.table", "agents")]]
        {
            let metadata = metadata.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
            let schema = Schema::new_with_metadata(tables[last].schema_ref().fields().clone(), metadata);
            tables[last] = tables[last].clone().with_schema(Arc::new(schema)).unwrap_or_else(|_| {
                RecordBatch::new_empty(Arc::new(Schema::new_with_metadata(
                    tables[0].schema_ref().fields().clone(),
                    HashMap::new(),
                )))
            });
            let found = error(&tables);
            assert!(matches!(&found, RestoreError::Version(_)), "{found}");
            assert!(found.to_string().contains("cannot be read"), "{found}");
        }
        assert!(matches!(error(&[]), RestoreError::Missing(table) if table == "table agents"));
    }

    #[test]
    fn a_missing_table_is_named() {
        let whole = tables();
        for missing in 0..whole.len() {
            let name = whole[missing].schema_ref().metadata()["tautline.table"].clone();
            let rest: Vec<RecordBatch> =
                whole.iter().enumerate().filter(|(at, _)| *at != missing).map(|(_, table)| table.clone()).collect();
            let found = error(&rest);
            assert!(matches!(&found, RestoreError::Missing(what) if *what == format!("table {name}")), "{found}");
        }
    }

    #[test]
    fn every_column_is_needed_with_its_own_type_and_no_gaps() {
        let whole = tables();
        for (at, table) in whole.iter().enumerate() {
            for field in table.schema_ref().fields() {
                let rows = table.num_rows();
                let floats: ArrayRef = Arc::new(arrow::array::Float32Array::from(vec![1.0; rows]));
                let gaps = arrow::array::new_null_array(field.data_type(), rows);
                // A table of one column cannot lose it and still have rows.
                let removed = (table.num_columns() > 1).then_some(None);
                for column in removed.into_iter().chain([Some(floats), Some(gaps)]) {
                    let mut tables = whole.clone();
                    tables[at] = with_column(table, field.name(), column.clone());
                    let found = error(&tables);
                    let named = format!("column {}", field.name());
                    assert!(
                        matches!(&found, RestoreError::Missing(what) if *what == named),
                        "{named}, {column:?}: {found}"
                    );
                }
            }
        }
    }

    #[test]
    fn values_that_cannot_be_are_refused() {
        let whole = tables();
        let texts = |text: &str, rows| -> ArrayRef { Arc::new(StringArray::from_iter_values(vec![text; rows])) };
        let bytes = |bytes: &[u8], rows| -> ArrayRef { Arc::new(BinaryArray::from_iter_values(vec![bytes; rows])) };
        let rows = |table: usize| whole[table].num_rows();
        let cases: [(usize, &str, ArrayRef); 8] = [
            (0, "hours", bytes(&[1], rows(0))),
            (0, "hours", bytes(&[1, 0, 2, 0], rows(0))),
            (0, "recent", bytes(&[1; 15], rows(0))),
            (0, "evidence", Arc::new(Float64Array::from(vec![f64::NAN; rows(0)]))),
            (0, "evidence", Arc::new(Float64Array::from(vec![-1.0; rows(0)]))),
            (1, "dimension", texts("colour", rows(1))),
            (1, "agent", texts("nobody", rows(1))),
            (2, "agent", texts("nobody", rows(2))),
        ];
        for (table, name, column) in cases {
            let mut tables = whole.clone();
            tables[table] = with_column(&whole[table], name, Some(Arc::clone(&column)));
            let found = error(&tables);
            assert!(matches!(&found, RestoreError::Damaged(_)), "{name} {column:?}: {found}");
            assert!(found.to_string().contains("the snapshot is damaged"), "{found}");
        }
    }
}
