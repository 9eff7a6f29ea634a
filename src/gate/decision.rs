//! From what is known of an act to the answer: permit or deny, and why.

use jiff::Timestamp;
use serde_json::{Value, json};
use tautline_detectors::baselines::Quarantine;
use tautline_detectors::deviation::{Deviation, LearningState};
use tautline_detectors::event::{AgentRef, Event};
use tautline_detectors::rulebook::{Rulebook, UNMAPPED_ENVIRONMENT, WantedApproval};

use super::Answer;
use super::config::Unavailable;

/// What is asked, when, under which id.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question<'a> {
    pub(crate) event: &'a Event,
    pub(crate) id: &'a str,
    pub(crate) at: Timestamp,
}

impl Unavailable {
    /// The answer, as its asker gets it (AuthZEN 1.0, 5.5). Neither arguments nor reasoning are in its reasons; the approval
    /// that it asks for names the act whole.
    pub(crate) fn answer(self, question: Question<'_>, answer: &Answer, book: &Rulebook) -> Value {
        let Question { event, id, at } = question;
        let Answer { opinion, position } = answer;
        let (against, seen): (Vec<_>, Vec<_>) = opinion.objections.iter().partition(|objection| objection.denies);
        let barred = opinion.quarantine.as_ref().filter(|_| opinion.barred);
        let mut reasons: Vec<Value> = barred.map(quarantined).into_iter().collect();
        reasons.extend(against.into_iter().map(|objection| reason(&objection.deviation)));
        reasons.extend(unregistered(event).filter(|_| reasons.is_empty()));
        let mut advice: Vec<Value> = seen.into_iter().map(|objection| reason(&objection.deviation)).collect();
        if let Some((is_closed, unknown)) = self.unknown(event, answer) {
            if is_closed { reasons.push(unknown) } else { advice.push(unknown) }
        }
        let decision = reasons.is_empty();
        let mut context = json!({
            "id": id, "time": at.to_string(), "rulebook": book.hash(), "behaviour": answer.behaviour(),
            "reasons": reasons, "advice": advice,
        });
        let told = [
            ("trust", position.as_ref().map(|_| json!(opinion.trust.round() as u8))),
            ("quarantine", opinion.quarantine.as_ref().map(shown)),
            ("position", position.as_ref().map(|position| json!(position))),
            ("approval", opinion.wanted.as_ref().map(asked_for)),
        ];
        if let Some(context) = context.as_object_mut() {
            context.extend(told.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
        }
        json!({ "decision": decision, "context": context })
    }

    /// What is to be said of an act of whose agent too little is known, and whether it is denied for that.
    fn unknown(self, event: &Event, answer: &Answer) -> Option<(bool, Value)> {
        if answer.position.is_some() || event.agent.registered().is_none() {
            return None;
        }
        let needs_approval = answer.opinion.wanted.is_some();
        let is_production = event.place.environment == UNMAPPED_ENVIRONMENT || !event.place.mapped;
        let is_closed = match self {
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
        match (&self.position, self.opinion.state) {
            (None, _) => "unavailable",
            (Some(_), LearningState::Learning) => "learning",
            (Some(_), LearningState::Active) => "available",
        }
    }
}

fn quarantined(held: &Quarantine) -> Value {
    let what = format!("the agent is in quarantine since {}, by {}: {}", time(held.since), held.by, held.reason);
    json!({ "what": what, "counterfactual": "the same after a responder has released the agent" })
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
