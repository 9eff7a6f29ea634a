//! Detectors: what needs memory. Adding one is a file here, a line in the table below and a folder in `rules/`.

mod burst;
mod novelty;
mod playbook;
mod policy_drift;
mod rhythm;
mod say_do;
mod unmapped;

use serde::de::DeserializeOwned;

use crate::baselines::{Dimension, Note, Observed, Past, Rate, RunState};
use crate::deviation::Evidence;
use crate::event::Event;
use crate::rulebook::{Judgement, Rulebook};

pub use playbook::Conformance;
pub(crate) use say_do::Now;
pub use say_do::SayDo;

/// Every detector by the name that `control.toml` uses.
const TABLE: [(&str, Build); 7] = [
    ("burst", build_one::<burst::Burst>),
    ("novelty", build_one::<novelty::Novelty>),
    ("playbook", build_one::<playbook::Conformance>),
    ("policy-drift", build_one::<policy_drift::PolicyDrift>),
    ("rhythm", build_one::<rhythm::Rhythm>),
    ("say-do", build_one::<say_do::SayDo>),
    ("unmapped-place", build_one::<unmapped::Unmapped>),
];

type Build = fn(toml::Table) -> Result<Box<dyn Detector>, toml::de::Error>;

fn build_one<D: Detector + DeserializeOwned + 'static>(
    parameters: toml::Table,
) -> Result<Box<dyn Detector>, toml::de::Error> {
    Ok(Box::new(D::deserialize(parameters)?))
}

/// Builds a detector from its `[[detector]]` table.
pub(crate) fn build(mut parameters: toml::Table) -> Result<Box<dyn Detector>, String> {
    let kind = parameters.remove("kind").and_then(|kind| kind.as_str().map(str::to_owned)).unwrap_or_default();
    let Some((_, build)) = TABLE.iter().find(|(name, _)| *name == kind) else {
        let known: Vec<&str> = TABLE.iter().map(|(name, _)| *name).collect();
        return Err(format!("`{kind}` is not a detector: `kind` is one of {}", known.join(", ")));
    };
    build(parameters).map_err(|error| error.message().replace('\n', "; "))
}

/// One event together with everything that it may be held against.
#[derive(Clone, Copy, Debug)]
pub struct Sighting<'a> {
    /// The event.
    pub event: &'a Event,
    /// The agent's past, before this event.
    pub past: Past<'a>,
    /// What the event adds to that past.
    pub observed: &'a Observed<'a>,
    /// What the policies say of it.
    pub judgement: &'a Judgement,
    /// The rulebook in force.
    pub book: &'a Rulebook,
}

/// What a detector found.
#[derive(Clone, Debug, PartialEq)]
pub struct Suspicion {
    /// What is wrong, as the end of a sentence about the event.
    pub what: String,
    /// What it rests on.
    pub evidence: Vec<Evidence>,
    /// The smallest change that would have made the action compliant.
    pub counterfactual: String,
    /// What to remember, so that the same thing is not reported again.
    pub remember: Vec<Memory>,
}

/// What the engine notes in the baselines for a detector.
#[derive(Clone, Debug, PartialEq)]
pub enum Memory {
    /// A value was reported.
    Value(Dimension, String),
    /// The open window of a rate was reported.
    Burst(Rate),
    /// An hour since the epoch was reported.
    Hour(i64),
}

/// Holds events against an agent's past. Reads only; what it wants remembered it says in its suspicion.
pub trait Detector: Send + Sync + std::fmt::Debug {
    /// Assesses one event before anything is learned from it.
    fn assess(&self, sighting: Sighting<'_>) -> Option<Suspicion>;

    /// Counts for itself, event by event, whatever was found: pushes the notes that it wants kept.
    fn note(&self, _sighting: Sighting<'_>, _notes: &mut Vec<Note>) {}

    /// Assesses a playbook run that ended for want of further actions.
    fn assess_end(&self, _run: &RunState, _book: &Rulebook) -> Option<Suspicion> {
        None
    }

    /// The rules by which it pairs what is declared with what is done, if it does.
    fn pairing(&self) -> Option<&SayDo> {
        None
    }

    /// Whether its findings are a matter of probability, so that they may not revoke by themselves.
    fn is_statistical(&self) -> bool;
}
