//! A deviation: what was expected, what was seen, how much evidence stands behind it, and what would have complied.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::event::{Event, Millis};
use crate::rulebook::{Framework, PolicyRef};

/// How bad it is, in OCSF's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Worth knowing.
    Informational,
    /// Worth a look.
    Low,
    /// Worth a ticket.
    Medium,
    /// Worth a page in working hours.
    High,
    /// Worth a page now.
    Critical,
}

impl Severity {
    /// Every severity, the least first.
    pub const ALL: [Severity; 5] =
        [Severity::Informational, Severity::Low, Severity::Medium, Severity::High, Severity::Critical];

    /// The name used in rules, metrics and alerts.
    pub fn name(self) -> &'static str {
        match self {
            Severity::Informational => "informational",
            Severity::Low => "low",
            Severity::Medium => "medium",
            Severity::High => "high",
            Severity::Critical => "critical",
        }
    }

    /// One step less, for findings on an agent that is still learning.
    pub fn lowered(self) -> Self {
        match self {
            Severity::Critical => Severity::High,
            Severity::High => Severity::Medium,
            Severity::Medium => Severity::Low,
            Severity::Low | Severity::Informational => Severity::Informational,
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Severity {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Severity::ALL
            .into_iter()
            .find(|severity| severity.name() == text)
            .ok_or_else(|| format!("`{text}` is not a severity: write informational, low, medium, high or critical"))
    }
}

/// One piece of evidence. The scores of all pieces add up to the deviation's score.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// What was looked at (`policy`, `tool`, `hour-of-week`, `requests` …).
    pub what: String,
    /// What was seen.
    pub observed: String,
    /// What was expected.
    pub expected: String,
    /// How probable something at least as surprising was, for statistical evidence.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub p_value: Option<f64>,
    /// How many observations the expectation rests on.
    pub sample: u64,
    /// Its part of the score: −log10 of the p-value, or the rule's weight.
    pub score: f64,
}

/// How far an agent's baseline can be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LearningState {
    /// Too little history: guardrails apply in full, behaviour findings are weighed down and say so.
    Learning,
    /// Enough history.
    Active,
}

impl LearningState {
    /// The name used in metrics and alerts.
    pub fn name(self) -> &'static str {
        match self {
            LearningState::Learning => "learning",
            LearningState::Active => "active",
        }
    }
}

/// An agent's trust before and after a deviation, 0 to 100.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrustChange {
    /// Before.
    pub before: f64,
    /// After.
    pub after: f64,
}

/// What a revocation would end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum RevocationSubject {
    /// One session of a principal.
    Session {
        /// The principal (role, service account, or the agent by its own word).
        principal: String,
        /// The session.
        session: String,
    },
    /// One credential, by its id.
    Credential {
        /// The principal that it belongs to.
        principal: String,
        /// The credential's id; never the secret.
        credential: String,
    },
}

impl RevocationSubject {
    /// A key that is the same for every request about this subject.
    pub fn key(&self) -> String {
        match self {
            Self::Session { principal, session } => format!("session {session} of {principal}"),
            Self::Credential { principal, credential } => format!("credential {credential} of {principal}"),
        }
    }
}

/// A change that should be undone, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollback {
    /// The request's id; what an acknowledgement names.
    pub id: String,
    /// The operation that undoes the change.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub operation: Option<String>,
    /// Where the state before the change is kept, by the agent's own word.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pre_state: Option<String>,
    /// What was changed, by its native id.
    pub resource: String,
    /// Whom to notify: the agent's owner, and the team of the place.
    pub notify: Vec<String>,
}

/// A deviation of an agent from policy or from its own habit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Deviation {
    /// `control/event id/ordinal`: the same in every run over the same log.
    pub id: String,
    /// The control that it belongs to.
    pub control: String,
    /// The control's title.
    pub title: String,
    /// How bad it is.
    pub severity: Severity,
    /// One sentence: who did what where, and what is wrong with it.
    pub summary: String,
    /// What is wrong, as the end of that sentence.
    pub what: String,
    /// The agent.
    pub agent: AgentFacts,
    /// When the event happened.
    pub at: Millis,
    /// Sum of the evidence's scores.
    pub score: f64,
    /// Which policy was broken, if one was.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub policy: Option<PolicyRef>,
    /// Whether a policy could not be evaluated, so that this is a finding about the rulebook too.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub policy_failed: bool,
    /// What it rests on.
    pub evidence: Vec<Evidence>,
    /// The smallest change that would have made the action compliant.
    pub counterfactual: String,
    /// The agent's trust before and after.
    pub trust: TrustChange,
    /// Entries of public catalogues.
    pub frameworks: Vec<Framework>,
    /// Hash of the rulebook that judged it.
    pub rulebook: String,
    /// The event, without the values of its arguments and without its reasoning.
    pub event: Event,
    /// What should be revoked, if the control asks for it and nobody was asked yet.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub revocation: Option<RevocationSubject>,
    /// What should be undone, if something should.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rollback: Option<Rollback>,
}

/// Who deviated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentFacts {
    /// Id in the registry, or the principal of an unregistered one.
    pub id: String,
    /// Class, or `unregistered`.
    pub class: String,
    /// The person who answers for it.
    pub owner: String,
    /// Its team.
    pub team: String,
    /// How far its baseline can be relied on.
    pub state: LearningState,
    /// How many of its events are behind the baseline.
    pub learned: u64,
}
