//! Snapshots as version 0.1 wrote them, for the upgrade: `agents`, `values` (a row an agent, dimension and value), `runs`
//! and `notices`, with agents and values by their texts.

use arrow::array::RecordBatch;
use arrow::datatypes::UInt32Type;
use rustc_hash::FxHashMap;

use super::cells::Key;
use super::snapshot::{AgentColumns, RunColumns, bytes, damaged, numbers, of_table, text};
use super::{Baselines, Cell, Dimension, HOURS_OF_WEEK, Profile, RestoreError};

/// The layout's name.
pub(super) const VERSION: &str = "1";

/// Adds what a snapshot of this layout holds.
pub(super) fn absorb(baselines: &mut Baselines, batches: &[RecordBatch]) -> Result<(), RestoreError> {
    let mut profiles = Vec::new();
    for batch in tables(batches, "agents")? {
        add_agents(&mut profiles, batch)?;
    }
    let places = profiles.iter().enumerate().map(|(place, (profile, _))| (profile.agent.to_string(), place));
    let places: FxHashMap<String, usize> = places.collect();
    let place = |agent: &str| places.get(agent).copied().ok_or_else(|| damaged(format!("agent {agent}")));
    for batch in tables(batches, "values")? {
        let keys = baselines.keys(batch)?;
        let (agents, counts) = (text(batch, "agent")?, numbers::<UInt32Type>(batch, "count")?);
        let withheld = numbers::<UInt32Type>(batch, "withheld")?;
        for (row, key) in keys.into_iter().enumerate() {
            let cell = Cell { count: counts.value(row), withheld: withheld.value(row) };
            let profile = profiles.get_mut(place(agents.value(row))?);
            profile.into_iter().for_each(|(_, cells)| cells.push((key, cell)));
        }
    }
    for batch in tables(batches, "runs")? {
        let (agents, runs) = (text(batch, "agent")?, RunColumns::of(batch)?);
        for row in 0..batch.num_rows() {
            let profile = profiles.get_mut(place(agents.value(row))?);
            profile.into_iter().for_each(|(profile, _)| profile.runs.push(runs.run(row)));
        }
    }
    for batch in tables(batches, "notices")? {
        baselines.absorb_lines(batch)?;
    }
    profiles.into_iter().try_for_each(|(profile, cells)| baselines.admit(profile, cells))
}

fn add_agents(profiles: &mut Vec<(Profile, Vec<(Key, Cell)>)>, batch: &RecordBatch) -> Result<(), RestoreError> {
    let (columns, hours) = (AgentColumns::of(batch)?, bytes(batch, "hours")?);
    for row in 0..batch.num_rows() {
        let (counts, rest) = hours.value(row).as_chunks::<2>();
        if !rest.is_empty() || !matches!(counts.len(), 0 | HOURS_OF_WEEK) {
            return Err(damaged("hours"));
        }
        let counts = counts.iter().map(|bytes| u32::from(u16::from_le_bytes(*bytes)));
        let counted = (0..).zip(counts).filter(|(_, count)| *count > 0);
        let cells = counted.map(|(hour, count)| (Key::new(Dimension::Hour, hour), Cell { count, withheld: 0 }));
        profiles.push((columns.profile(row)?, cells.collect()));
    }
    Ok(())
}

fn tables<'b>(batches: &'b [RecordBatch], name: &str) -> Result<Vec<&'b RecordBatch>, RestoreError> {
    let found: Vec<&RecordBatch> = of_table(batches, name).collect();
    if found.is_empty() { Err(RestoreError::Missing(format!("table {name}"))) } else { Ok(found) }
}
