//! Say–do: what an agent declares against what the audit log shows. Nothing is found at the event itself: what is not
//! paired waits, and ticks end the waiting.

mod matching;
mod settling;

use serde::Deserialize;

use super::{Clue, Detector, Sighting, Suspicion, duration};
use crate::baselines::MOST_FOLLOWED;
use crate::event::{CredentialKind, Event, Millis, Outcome, Trace};
use crate::glob::{self, Glob};

pub use settling::Now;
use settling::Unpaired;

/// Pairs the changes that an agent declares with those that the audit log shows, and reports what stays alone.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SayDo {
    /// How much earlier than its declared action an effect may be, for clocks that differ and for actions that are
    /// written down when they are done.
    #[serde(deserialize_with = "duration")]
    before: Millis,
    /// How much later it may be.
    #[serde(deserialize_with = "duration")]
    after: Millis,
    /// How long after an effect its declaration may still come.
    #[serde(deserialize_with = "duration")]
    patience: Millis,
    /// How late the audit log's records may come.
    #[serde(deserialize_with = "duration")]
    lateness: Millis,
    /// Tools that run what they are given: a call that names no operation may have done anything.
    open_tools: Vec<Glob>,
    /// What else tools do, besides the operation that they declare.
    #[serde(default)]
    effects: Vec<ToolEffects>,
    /// Operations that need no declaration.
    undeclared: Vec<Glob>,
    /// Addresses of the cloud's own services, which act later and on their own.
    services: Vec<Glob>,
    /// Operations that the audit log is known to record.
    audited: Vec<Glob>,
    /// Those among them that it is not.
    unaudited: Vec<Glob>,
}

/// What some tools do.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ToolEffects {
    /// The tools.
    tools: Vec<Glob>,
    /// The operations that a call of them may lead to.
    operations: Vec<Glob>,
}

/// How well an effect shows a claim; a better one is greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    /// The same operation at about the time, where one of the two names no resource.
    Likely,
    /// The same operation on the same resource, at about the time.
    Close,
    /// The ids say so.
    Sure,
}

impl SayDo {
    /// How late the audit log's records may come before it counts as silent.
    pub fn lateness(&self) -> Millis {
        self.lateness
    }

    /// Whether an audit record needs a declaration: it changes something, and no service of the cloud did it.
    fn needs_declaration(&self, done: &Event) -> bool {
        done.verb.changes()
            && done.credential.kind != CredentialKind::Service
            && !glob::any(&self.services, &done.origin.address)
            && !glob::any(&self.undeclared, &done.action)
    }

    /// Whether a declared action claims what the audit log must show.
    fn is_claim(&self, said: &Event) -> bool {
        is_native(said)
            && matches!(said.outcome, Outcome::Success | Outcome::Unknown)
            && glob::any(&self.audited, &said.action)
            && !glob::any(&self.unaudited, &said.action)
            && !glob::any(&self.undeclared, &said.action)
    }

    /// Whether a declared action explains an effect.
    fn explains(&self, said: &Event, done: &Event) -> bool {
        same_request(said, done)
            || same_trace(said, done)
            || (self.is_near(said, done)
                && accounts_agree(said, done)
                && (same_operation(said, done) || self.may_do(said, done) || is_named(said, done)))
    }

    /// How well an effect shows a declared action, if it does. A trace may hold many actions, so that it shows one only
    /// together with the operation.
    fn shows(&self, said: &Event, done: &Event) -> Option<Fit> {
        let same = same_operation(said, done);
        if same_request(said, done) || (same && same_trace(said, done)) {
            return Some(Fit::Sure);
        }
        let fits = same && self.is_near(said, done) && accounts_agree(said, done);
        let close = !said.resource.id.is_empty() && !done.resource.id.is_empty();
        fits.then_some(if close { Fit::Close } else { Fit::Likely })
    }

    fn is_near(&self, said: &Event, done: &Event) -> bool {
        let later = done.at.saturating_sub(said.at);
        -self.before <= later && later <= self.after
    }

    /// Whether the tool is known to do such things.
    fn may_do(&self, said: &Event, done: &Event) -> bool {
        let of_tool = |effects: &ToolEffects| {
            glob::any(&effects.tools, &said.tool) && glob::any(&effects.operations, &done.action)
        };
        (!is_native(said) && glob::any(&self.open_tools, &said.tool)) || self.effects.iter().any(of_tool)
    }

    /// What is wrong with what stayed alone.
    pub(crate) fn suspicion(&self, unpaired: &Unpaired) -> Suspicion {
        let minutes = |time: Millis| time / 60_000;
        let window = format!("from {} min before to {} min after", minutes(self.before), minutes(self.after));
        let action = &unpaired.event().action;
        let (what, kind, observed, expected, counterfactual) = match unpaired {
            Unpaired::Effect(_) => (
                "is in the audit log, and no declared action explains it",
                "undeclared effect",
                "none".to_owned(),
                format!("a declared action with its request id, or one of this operation and resource, {window}"),
                format!("the same after an agent action that declares `{action}`, or whose tool is known to do it"),
            ),
            Unpaired::Claim(_) => (
                "was declared as done, and the audit log does not show it",
                "false claim",
                "no record, and the log has come further since".to_owned(),
                format!("an audit record of this operation and resource, {window}"),
                "an action that is declared only when it is done, or as failed when it is not".to_owned(),
            ),
            Unpaired::Undeclared(_) => (
                "is in the audit log, and this agent never declared an action; the next ones are not reported",
                "undeclared agent",
                "no declared action, ever".to_owned(),
                "an agent that declares what it does".to_owned(),
                "the same by an agent that sends its actions to Tautline".to_owned(),
            ),
            Unpaired::Unaudited(_) => (
                "was declared as done, and the audit log never saw this agent; the next ones are not reported",
                "unaudited agent",
                "no audit record, ever".to_owned(),
                "an agent whose account sends its audit log".to_owned(),
                "the same in an account whose audit log Tautline reads, under an identity of this agent".to_owned(),
            ),
            Unpaired::Lost(_, lost) => (
                "is one of more changes at once than can be followed; what was not declared of them stays unknown",
                "too many changes",
                format!("{lost} so far that cannot be paired"),
                format!("at most {MOST_FOLLOWED} declared, and as many in the audit log, that wait to be paired"),
                "the same at a slower pace".to_owned(),
            ),
        };
        let evidence = Clue { what: kind.to_owned(), observed, expected, p_value: None, sample: 0 };
        Suspicion {
            what: what.to_owned(),
            evidence: vec![evidence],
            counterfactual,
            remember: Vec::new(),
            severity: None,
            rollback: None,
        }
    }
}

impl Detector for SayDo {
    fn assess(&self, _sighting: Sighting<'_>) -> Option<Suspicion> {
        None
    }

    fn pairing(&self) -> Option<&SayDo> {
        Some(self)
    }

    fn is_statistical(&self) -> bool {
        false
    }
}

/// Whether an agent says which operation of a cloud its tool performed.
fn is_native(said: &Event) -> bool {
    said.action != said.tool
        && said.action.split_once(':').is_some_and(|(service, name)| !service.is_empty() && !name.is_empty())
}

fn same_id(said: &Event, done: &Event, id: fn(&Trace) -> &str) -> bool {
    let ids = said.trace.as_ref().map(id).zip(done.trace.as_ref().map(id));
    ids.is_some_and(|(said, done)| !said.is_empty() && said == done)
}

fn same_request(said: &Event, done: &Event) -> bool {
    same_id(said, done, |trace| &trace.request_id)
}

fn same_trace(said: &Event, done: &Event) -> bool {
    same_id(said, done, |trace| &trace.trace_id)
}

fn same_operation(said: &Event, done: &Event) -> bool {
    said.action.eq_ignore_ascii_case(&done.action) && resources_agree(&said.resource.id, &done.resource.id)
}

/// Whether neither names another account than the other.
fn accounts_agree(said: &Event, done: &Event) -> bool {
    let (said, done) = (&said.place.account, &done.place.account);
    said.is_empty() || done.is_empty() || said == done
}

/// Whether an action that names no operation names the resource of the effect.
fn is_named(said: &Event, done: &Event) -> bool {
    let (said_id, done_id) = (&said.resource.id, &done.resource.id);
    !is_native(said) && !said_id.is_empty() && !done_id.is_empty() && resources_agree(said_id, done_id)
}

/// Whether two names may be of one resource: one says nothing, or is a whole part of the other, as a name is of its ARN.
pub(super) fn resources_agree(said: &str, done: &str) -> bool {
    let (short, long) = if said.len() <= done.len() { (said, done) } else { (done, said) };
    if short.is_empty() || short == long {
        return true;
    }
    long.match_indices(short).any(|(at, _)| {
        let before = long.get(..at).unwrap_or_default().chars().next_back();
        let after = long.get(at + short.len()..).unwrap_or_default();
        before.is_none_or(|c| matches!(c, '/' | ':')) && (ends_a_name(after) || short.ends_with(['/', ':']))
    })
}

/// Whether a name may end before this: at the end, before a part of its own, or before the six characters that a
/// secret's ARN has after its name.
fn ends_a_name(after: &str) -> bool {
    let suffix = after.strip_prefix('-').unwrap_or_default();
    after.is_empty()
        || after.starts_with(['/', ':'])
        || (suffix.len() == 6 && suffix.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

#[cfg(test)]
mod scenario_tests;
#[cfg(test)]
mod tests;
