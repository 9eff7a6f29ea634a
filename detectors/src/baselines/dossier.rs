//! What is kept of an agent besides counts: what was stated about it, and what of its actions waits for a statement.

use std::collections::BTreeMap;

use arrow::array::{RecordBatch, StringArray, UInt32Array};
use arrow::datatypes::UInt32Type;
use arrow::error::ArrowError;
use serde::{Deserialize, Serialize};

use super::habits::{Habits, is_default};
use super::snapshot::{Table, damaged, numbers, one_table, text};
use super::{Kept, Profile, RestoreError, of_agent};
use crate::event::{Event, Millis};
use crate::statement::{Approval, Override};

/// What is kept of one agent. Every list is bounded by whoever writes to it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Dossier {
    /// Approvals that were believed, in the order of their arrival.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) approvals: Vec<HeldApproval>,
    /// Actions that need an approval and wait for it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) unapproved: Vec<Unapproved>,
    /// Emergency overrides that were believed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) overrides: Vec<HeldOverride>,
    /// Changes that are watched for signs that they went wrong.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) changes: Vec<Change>,
    /// What was changed lately, summed up.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) sums: Vec<Sum>,
    /// What its own events say of its ways.
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) habits: Habits,
    /// The quarantine that it is under.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) quarantine: Option<Quarantine>,
    /// When each exception was last of use, by its id.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) excused: BTreeMap<String, Millis>,
}

/// Under quarantine an agent is to do nothing but declared reads, until a responder releases it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantine {
    /// Since when.
    pub since: Millis,
    /// The person or control that put it there.
    pub by: String,
    /// Why: a person's words, or the id of a deviation.
    pub reason: String,
    /// The day (since the epoch) on which each operation was reported last.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) told: BTreeMap<String, i64>,
}

impl Dossier {
    /// Whether anything in it may be for a tick to end. Habits and sums are not: most agents have some, and a tick that went through
    /// all of them would write to all of the memory.
    pub(super) fn waits(&self) -> bool {
        let Self { approvals, unapproved, overrides, changes, sums: _, habits: _, quarantine: _, excused: _ } = self;
        !(approvals.is_empty() && unapproved.is_empty() && overrides.is_empty() && changes.is_empty())
    }
}

impl Dossier {
    /// The same as if nothing had been reported yet: what is asked about is told each time.
    pub(super) fn unreported(&mut self) {
        self.unapproved.clear();
        self.sums.iter_mut().for_each(|sum| sum.reported = None);
        self.quarantine.iter_mut().for_each(|quarantine| quarantine.told.clear());
        self.habits.reasoning.reported.clear();
        self.habits.runs.iter_mut().for_each(|run| run.reported = None);
        self.habits.reads.reported = false;
    }
}

/// Which side tells of an action: the agent, or the audit log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Side {
    Said,
    Done,
}

impl Side {
    pub(crate) fn of(event: &Event) -> Self {
        if event.source.is_audit() { Side::Done } else { Side::Said }
    }
}

/// An approval that was believed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct HeldApproval {
    pub(crate) id: String,
    pub(crate) by: String,
    pub(crate) at: Millis,
    pub(crate) until: Millis,
    pub(crate) approval: Approval,
    /// How many resources were changed under it, by the agent's word and by the audit log.
    pub(crate) used_said: u32,
    pub(crate) used_done: u32,
}

impl HeldApproval {
    pub(crate) fn used(&self, side: Side) -> u32 {
        match side {
            Side::Said => self.used_said,
            Side::Done => self.used_done,
        }
    }

    pub(crate) fn use_up(&mut self, side: Side, amount: u32) {
        let used = match side {
            Side::Said => &mut self.used_said,
            Side::Done => &mut self.used_done,
        };
        *used = used.saturating_add(amount);
    }
}

/// A change that is watched.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Change {
    pub(crate) event: Kept,
    /// How often the cloud refused the agent since.
    pub(crate) denials: u32,
    /// When its rollback was requested.
    pub(crate) requested: Option<Millis>,
    /// Whether it was reported that nobody acknowledged that.
    pub(crate) overdue: bool,
}

/// An emergency override that was believed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct HeldOverride {
    pub(crate) id: String,
    pub(crate) by: String,
    /// Who signed it.
    pub(crate) signers: Vec<String>,
    pub(crate) at: Millis,
    pub(crate) until: Millis,
    pub(crate) says: Override,
    /// The change that it was first used for.
    pub(crate) used: Option<Kept>,
    /// Whether it was reported that nobody reviewed it.
    pub(crate) escalated: bool,
}

/// An action that waits for its approval, or that was reported for want of one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Unapproved {
    pub(crate) event: Kept,
    /// Whether it was reported: it is kept for a while, so that the other side's word about it is not reported again.
    pub(crate) reported: bool,
}

/// How many resources were changed in a run, or in an hour.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sum {
    /// Name of the limit.
    pub(crate) limit: String,
    pub(crate) side: Side,
    /// The run; empty for the hour.
    pub(crate) run: String,
    /// Changes by the minute they were made in; for a run all in one.
    pub(crate) minutes: Vec<(i64, u32)>,
    /// When it was reported last.
    pub(crate) reported: Option<Millis>,
}

/// The table of what is kept: a row an agent that has a dossier, as JSON.
pub(super) fn table(profiles: &[&Profile]) -> Result<Table, ArrowError> {
    let kept: Vec<(u32, &Dossier)> =
        (0_u32..).zip(profiles).filter_map(|(row, profile)| Some((row, profile.dossier.as_deref()?))).collect();
    let json = |dossier| serde_json::to_string(dossier).map_err(|error| ArrowError::JsonError(error.to_string()));
    let texts: Vec<String> = kept.iter().map(|(_, dossier)| json(*dossier)).collect::<Result<_, _>>()?;
    Ok(Table::new("dossiers")
        .with("agent", UInt32Array::from_iter_values(kept.iter().map(|(row, _)| *row)))
        .with("dossier", StringArray::from(texts)))
}

/// Puts back what was kept.
pub(super) fn restore<T>(profiles: &mut [(Profile, T)], batches: &[RecordBatch]) -> Result<(), RestoreError> {
    let batch = one_table(batches, "dossiers")?;
    let (agents, texts) = (numbers::<UInt32Type>(batch, "agent")?, text(batch, "dossier")?);
    for row in 0..batch.num_rows() {
        let dossier = serde_json::from_str(texts.value(row)).map_err(|_| damaged("dossier of an agent"))?;
        of_agent(profiles, agents.value(row))?.dossier = Some(dossier);
    }
    Ok(())
}
