//! What an agent's own events say of its ways, where counts do not suffice. Nothing here waits for a tick.

use serde::{Deserialize, Serialize};

use crate::event::{Digest, Millis};
use crate::stats::WindowCounts;

/// An agent's ways. Every list is bounded by whoever writes to it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Habits {
    /// How it gives its reasoning.
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) reasoning: ReasoningHabit,
    /// Where its arguments come from, the step that came last at the end.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) arguments: Vec<ArgumentHabit>,
    /// The environments that its latest runs changed, the run that came last at the end.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) runs: Vec<RunGroups>,
    /// Where it worked, in the order of the first times.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) places: Vec<FirstTime>,
    /// How much data it reads.
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) reads: ReadHabit,
}

pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// How an agent gives its reasoning.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ReasoningHabit {
    /// Whether it ever gave any.
    pub(crate) given: bool,
    /// Its latest texts, the one that came last at the end.
    pub(crate) texts: Vec<ToldText>,
    /// The day (since the epoch) of the latest report.
    pub(crate) day: i64,
    /// What was reported on that day.
    pub(crate) reported: Vec<Digest>,
}

/// A text that was given as reasoning, and for what.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ToldText {
    pub(crate) text: Digest,
    /// Since when its actions are counted.
    pub(crate) since: Millis,
    pub(crate) actions: Vec<Digest>,
}

/// Where the values of an argument of an operation come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ArgumentHabit {
    /// Digest of operation and argument.
    pub(crate) step: Digest,
    pub(crate) user_request: u32,
    pub(crate) tool_output: u32,
    pub(crate) neither: u32,
    /// The latest values.
    pub(crate) values: Vec<Digest>,
}

/// Which groups of environments a run changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct RunGroups {
    pub(crate) run: String,
    /// Whether the audit log tells of it.
    pub(crate) audit: bool,
    pub(crate) groups: Vec<String>,
    pub(crate) last: Millis,
    /// The crossing that was reported last: when, and the operation.
    pub(crate) reported: Option<(Millis, String)>,
}

/// A place, and when the agent was first there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct FirstTime {
    /// Whether it is an account, else an environment.
    pub(crate) account: bool,
    pub(crate) name: String,
    pub(crate) at: Millis,
}

/// How much data an agent reads in a window, and from how many resources.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ReadHabit {
    /// Index of the open window.
    pub(crate) window: i64,
    /// Reads in it.
    pub(crate) reads: u32,
    /// The resources that were read in it.
    pub(crate) resources: Vec<Digest>,
    /// Whether it was reported; it will not be learned.
    pub(crate) reported: bool,
    /// Reads in the windows before.
    pub(crate) closed_reads: WindowCounts,
    /// Resources in the windows before.
    pub(crate) closed_resources: WindowCounts,
}
