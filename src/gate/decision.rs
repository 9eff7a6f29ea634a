//! From what is known of an act to the answer: permit or deny, and why.

use jiff::Timestamp;
use serde_json::{Value, json};
use tautline_detectors::deviation::{Deviation, Severity};
use tautline_detectors::event::{AgentRef, Event, Verb};
use tautline_detectors::rulebook::{Rulebook, UNMAPPED_ENVIRONMENT, WantedApproval};

use super::config::{Gate, Unavailable};
use super::{Answer, Quarantine};

/// What the control of approvals calls its evidence: that there is none, or one of something else.
const OF_APPROVALS: [&str; 2] = ["approval", "executed"];

/// What denies, as far as the configuration has a say.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// From which severity on findings that rest on statistics do.
    pub(crate) deny_statistical: Severity,
    /// Whether not knowing does.
    pub(crate) unavailable: Unavailable,
}

impl From<&Gate> for Rules {
    fn from(gate: &Gate) -> Self {
        Self { deny_statistical: gate.deny_statistical, unavailable: gate.unavailable }
    }
}

/// What is asked, when, under which id.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question<'a> {
    pub(crate) event: &'a Event,
    pub(crate) id: &'a str,
    pub(crate) at: Timestamp,
}

impl Rules {
    /// The answer, as its asker gets it (AuthZEN 1.0, 5.5). Neither arguments nor reasoning are in its reasons; the approval
    /// that it asks for names the act whole.
    pub(crate) fn answer(self, question: Question<'_>, answer: &Answer, book: &Rulebook) -> Value {
        let Question { event, id, at } = question;
        let (against, seen): (Vec<_>, Vec<_>) = answer.deviations.iter().partition(|deviation| self.denies(deviation));
        let lacks_approval = answer.trust.is_none() || against.iter().any(|deviation| lacks_approval(deviation));
        let wanted = book.wanted_approval(event).filter(|_| lacks_approval);
        let mut reasons: Vec<Value> = answer.quarantine.iter().filter_map(|held| quarantined(held, event)).collect();
        reasons.extend(against.into_iter().map(reason));
        reasons.extend(unregistered(event).filter(|_| reasons.is_empty()));
        let mut advice: Vec<Value> = seen.into_iter().map(reason).collect();
        if let Some((is_closed, unknown)) = self.unknown(event, answer, wanted.is_some()) {
            if is_closed { reasons.push(unknown) } else { advice.push(unknown) }
        }
        let decision = reasons.is_empty();
        let mut context = json!({
            "id": id, "time": at.to_string(), "rulebook": answer.rulebook, "behaviour": answer.behaviour(),
            "reasons": reasons, "advice": advice,
        });
        let told = [
            ("trust", answer.trust.map(|trust| json!(trust.round() as u8))),
            ("quarantine", answer.quarantine.as_ref().map(shown)),
            ("position", answer.position.as_ref().map(|position| json!(position))),
            ("approval", wanted.map(|wanted| asked_for(&wanted))),
        ];
        if let Some(context) = context.as_object_mut() {
            context.extend(told.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
        }
        json!({ "decision": decision, "context": context })
    }

    /// A broken rule denies; what is merely improbable does from a severity on.
    fn denies(self, deviation: &Deviation) -> bool {
        let is_statistical = deviation.evidence.iter().any(|evidence| evidence.p_value.is_some());
        !is_statistical || deviation.severity >= self.deny_statistical
    }

    /// What is to be said of an act of whose agent too little is known, and whether it is denied for that.
    fn unknown(self, event: &Event, answer: &Answer, needs_approval: bool) -> Option<(bool, Value)> {
        if answer.trust.is_some() || event.agent.registered().is_none() {
            return None;
        }
        let is_production = event.place.environment == UNMAPPED_ENVIRONMENT || !event.place.mapped;
        let is_closed = match self.unavailable {
            Unavailable::Open => false,
            Unavailable::Closed => true,
            Unavailable::ProductionWritesClosed => needs_approval || event.verb.changes() && is_production,
        };
        let what = if needs_approval {
            "needs an approval, and nobody can look now whether there is one"
        } else {
            "nobody can say now whether the agent is known to do this"
        };
        let counterfactual = "the same when the instance that knows this agent answers";
        (is_closed || needs_approval).then(|| (is_closed, json!({ "what": what, "counterfactual": counterfactual })))
    }
}

impl Answer {
    /// What is known of the agent's habit.
    fn behaviour(&self) -> &'static str {
        match (self.trust, self.learning) {
            (None, _) => "unavailable",
            (Some(_), Some(true)) => "learning",
            (Some(_), _) => "available",
        }
    }
}

fn lacks_approval(deviation: &Deviation) -> bool {
    deviation.evidence.iter().any(|evidence| OF_APPROVALS.contains(&evidence.what.as_str()))
}

/// In quarantine an agent may do nothing but look, as far as policy lets it.
fn quarantined(held: &Quarantine, event: &Event) -> Option<Value> {
    (event.verb != Verb::Read).then(|| {
        let what = format!("the agent is in quarantine since {}, by {}: {}", time(held.since), held.by, held.reason);
        json!({ "what": what, "counterfactual": "the same after a responder has released the agent" })
    })
}

/// Nobody answers for what is in no registry, even where no policy is against it.
fn unregistered(event: &Event) -> Option<Value> {
    let AgentRef::Unregistered(id) = &event.agent else { return None };
    Some(
        json!({ "what": format!("`{id}` is no agent of the registry"), "counterfactual": "an agent that is registered" }),
    )
}

/// The approval as a statement has it, and how many people must have given it.
fn asked_for(wanted: &WantedApproval) -> Value {
    let WantedApproval { approval, people } = wanted;
    let mut asked = json!(approval);
    if let Some(asked) = asked.as_object_mut() {
        asked.insert("people".to_owned(), json!(people));
    }
    asked
}

fn shown(held: &Quarantine) -> Value {
    json!({ "since": time(held.since), "by": held.by, "reason": held.reason })
}

fn time(at: i64) -> String {
    Timestamp::from_millisecond(at).map_or_else(|_| at.to_string(), |at| at.to_string())
}

fn reason(deviation: &Deviation) -> Value {
    let mut reason = json!({
        "control": deviation.control, "severity": deviation.severity, "what": deviation.what,
        "counterfactual": deviation.counterfactual,
    });
    if let (Some(members), Some(policy)) = (reason.as_object_mut(), &deviation.policy) {
        members.insert("policy".to_owned(), policy.id.as_str().into());
    }
    reason
}

/// The answer about somebody who is no agent.
pub(crate) fn nobody(subject: &str, kind: &str, (id, at): (&str, Timestamp), book: &Rulebook) -> Value {
    let what = format!("`{subject}` of type `{kind}` is neither an agent nor an identity of one");
    json!({
        "decision": false,
        "context": {
            "id": id, "time": at.to_string(), "rulebook": book.hash(), "behaviour": "unavailable",
            "reasons": [{ "what": what, "counterfactual": "an agent of the registry, by its id or by an identity of it" }],
            "advice": [],
        },
    })
}
