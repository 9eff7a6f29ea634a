//! Detectors: what needs memory. Adding one is a file here, a line in the table below and a folder in `rules/`.

mod approval;
mod argument_origin;
mod break_glass;
mod burst;
mod credential;
mod creep;
mod dormant;
mod environment_mixing;
mod forgery;
mod large_scale;
mod novelty;
mod playbook;
mod policy_drift;
mod principal;
mod quarantine;
mod read_habit;
mod reasoning;
mod recurrence;
mod rhythm;
mod rollback;
mod say_do;
mod sharing;
mod stranger;
mod unmapped;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};

use crate::baselines::{Dimension, Dossier, Kept, Note, Observed, Past, Rate, RunState};
use crate::deviation::{Evidence, Rollback, Severity};
use crate::event::{Event, Millis};
use crate::rulebook::{Agent, Judgement, Rulebook, Signers, parse_duration};
use crate::statement::{Claims, Distrust};
use crate::stats;

pub use playbook::Conformance;
pub use say_do::Now;
pub use say_do::SayDo;

/// Every detector by the name that `control.toml` uses.
const TABLE: [(&str, Build); 23] = [
    ("approval", build_one::<approval::Approvals>),
    ("argument-origin", build_one::<argument_origin::ArgumentOrigins>),
    ("break-glass", build_one::<break_glass::BreakGlass>),
    ("burst", build_one::<burst::Burst>),
    ("creep", build_one::<creep::Creep>),
    ("environment-mixing", build_one::<environment_mixing::EnvironmentMixing>),
    ("credential", build_one::<credential::Credentials>),
    ("dormant", build_one::<dormant::Dormant>),
    ("forgery", build_one::<forgery::Forgery>),
    ("large-scale", build_one::<large_scale::LargeScale>),
    ("novelty", build_one::<novelty::Novelty>),
    ("playbook", build_one::<playbook::Conformance>),
    ("policy-drift", build_one::<policy_drift::PolicyDrift>),
    ("principal", build_one::<principal::Principals>),
    ("quarantine", build_one::<quarantine::UnderQuarantine>),
    ("read-habit", build_one::<read_habit::ReadHabits>),
    ("reasoning", build_one::<reasoning::ReasoningGiven>),
    ("rhythm", build_one::<rhythm::Rhythm>),
    ("rollback", build_one::<rollback::Rollbacks>),
    ("say-do", build_one::<say_do::SayDo>),
    ("shared-credential", build_one::<sharing::SharedCredential>),
    ("unmapped-place", build_one::<unmapped::Unmapped>),
    ("unregistered-agent", build_one::<stranger::Strangers>),
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
    /// When the agent was seen last, before this event.
    pub last_seen: Option<Millis>,
    /// Its entry in the registry.
    pub agent: &'a Agent,
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
    pub evidence: Vec<Clue>,
    /// The smallest change that would have made the action compliant.
    pub counterfactual: String,
    /// What to remember, so that the same thing is not reported again.
    pub remember: Vec<Memory>,
    /// How bad this is, where it differs from what the control says.
    pub severity: Option<Severity>,
    /// What should be undone.
    pub rollback: Option<Rollback>,
}

impl Suspicion {
    /// What breaks a rule, by one piece of evidence. What was expected is also what would have complied, and the control says
    /// how bad it is.
    fn of_rule(what: String, kind: &str, [observed, expected]: [String; 2]) -> Self {
        let counterfactual = expected.clone();
        let clue = Clue { what: kind.to_owned(), observed, expected, p_value: None, sample: 0 };
        Self { what, evidence: vec![clue], counterfactual, remember: Vec::new(), severity: None, rollback: None }
    }
}

/// One thing that a detector rests on: evidence that nobody has weighed yet.
#[derive(Clone, Debug, PartialEq)]
pub struct Clue {
    /// What was looked at.
    pub what: String,
    /// What was seen.
    pub observed: String,
    /// What was expected.
    pub expected: String,
    /// How probable something at least as surprising was; nothing where a rule is broken.
    pub p_value: Option<f64>,
    /// How many observations the expectation rests on.
    pub sample: u64,
}

impl Clue {
    /// Weighs it: by its p-value, or else as a broken rule, whose score is given.
    pub(crate) fn weighed(self, of_rule: f64) -> Evidence {
        let Self { what, observed, expected, p_value, sample } = self;
        Evidence { what, observed, expected, p_value, sample, score: p_value.map_or(of_rule, stats::score) }
    }
}

/// A statement about an agent that an issuer of the rulebook made.
#[derive(Clone, Copy, Debug)]
pub struct Hearing<'a> {
    /// What it says.
    pub claims: &'a Claims,
    /// Who stands behind it.
    pub signers: &'a Signers,
    /// The agent that it is about.
    pub agent: &'a Agent,
    /// The rulebook in force.
    pub book: &'a Rulebook,
}

impl Hearing<'_> {
    /// Whether its subject is a person who may decide: known by people.toml or signed in by the issuer, and no agent.
    fn is_by_person(&self) -> bool {
        let by = &self.claims.sub;
        let is_agent = self.book.registry.by_id(by).is_some() || self.book.registry.by_identity(by).is_some();
        !is_agent && (self.book.people.contains(by) || self.signers.is_signed_in)
    }
}

/// An agent of which something may have waited long enough.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    /// How far time has come.
    pub now: Now,
    /// The agent.
    pub agent: &'a Agent,
    /// The rulebook in force.
    pub book: &'a Rulebook,
}

/// A credential that two agents use.
#[derive(Clone, Copy, Debug)]
pub struct Sharing<'a> {
    /// The credential's id.
    pub credential: &'a str,
    /// The agent that uses it besides the one that this is about.
    pub other: &'a str,
    /// Whether only the agent itself says that it uses it.
    pub claimed: bool,
    /// Whether only the other one says so of itself.
    pub other_claimed: bool,
}

/// What was found of an event that waited.
#[derive(Debug)]
pub struct Found {
    /// The event.
    pub event: Kept,
    /// What is wrong with it.
    pub suspicion: Suspicion,
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

    /// Whether the event waits for what may still come, so that nothing is learned from it.
    fn awaits(&self, _sighting: Sighting<'_>) -> bool {
        false
    }

    /// What is wrong with an event for want of an approval that may still come.
    fn lacks(&self, _sighting: Sighting<'_>) -> Option<Suspicion> {
        None
    }

    /// Whether what a control finds of an event is not to be reported, for persons have said so.
    fn silences(&self, _control: &str, _event: &Event, _book: &Rulebook, _dossier: &Dossier) -> bool {
        false
    }

    /// Takes what an event adds into what is kept of its agent, after it was assessed.
    fn keep(&self, _sighting: Sighting<'_>, _dossier: &mut Dossier) {}

    /// Takes what an event says of its agent's habits into what is kept of it: after it was assessed, or where a person has
    /// accepted it. `learnable` where it may be learned from.
    fn follow(&self, _event: &Event, _learnable: bool, _dossier: &mut Dossier) {}

    /// Takes in a statement that is believed; what may be wrong with it is about the statement.
    fn hear(&self, _hearing: &Hearing<'_>, _dossier: &mut Dossier) -> Option<Suspicion> {
        None
    }

    /// What is wrong with a record of the audit log that is about nobody in the registry.
    fn notice(&self, _event: &Event) -> Option<Suspicion> {
        None
    }

    /// What is wrong with a credential that two agents use.
    fn share(&self, _sharing: &Sharing<'_>) -> Option<Suspicion> {
        None
    }

    /// What is wrong with a statement that is not believed.
    fn disbelieve(&self, _claims: &Claims, _why: &Distrust) -> Option<Suspicion> {
        None
    }

    /// Ends what has waited for long enough.
    fn settle(&self, _case: &Case<'_>, _dossier: &mut Dossier) -> Vec<Found> {
        Vec::new()
    }

    /// Assesses a playbook run that ended for want of further actions.
    fn assess_end(&self, _run: &RunState, _book: &Rulebook) -> Option<Suspicion> {
        None
    }

    /// The rules by which it pairs what is declared with what is done, if it does.
    fn pairing(&self) -> Option<&SayDo> {
        None
    }

    /// Whether what it finds is about the agent and not about the act, so that nobody who asks before an act is denied for it.
    fn only_advises(&self) -> bool {
        false
    }

    /// Whether its findings are a matter of probability, so that they may not revoke by themselves.
    fn is_statistical(&self) -> bool;
}

/// Reads a length of time as rules write it.
fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Millis, D::Error> {
    parse_duration(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

/// Makes room for one more of a kind, where there are so many of it: the first of them goes.
fn make_room<T>(items: &mut Vec<T>, most: usize, is_of_kind: impl Fn(&T) -> bool) {
    let mut kind = (0..).zip(items.iter()).filter(|(_, item)| is_of_kind(item)).map(|(at, _)| at);
    if let (Some(oldest), true) = (kind.next(), kind.count() + 1 >= most) {
        items.remove(oldest);
    }
}
