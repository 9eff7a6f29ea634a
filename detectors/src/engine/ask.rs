//! Asking before the act: what would be found of it, by the same policies and the same detectors, and nothing learned.

use std::sync::Arc;

use super::{
    Arrival, Engine, Finding, assemble, earlier, findings, is_silenced, policy_findings, registered, unregistered,
    unsilenced,
};
use crate::baselines::Quarantine;
use crate::deviation::{AgentFacts, Deviation, LearningState};
use crate::engine::Hush;
use crate::event::Event;
use crate::rulebook::{Agent, Facts, Gate, Judgement, Rulebook, WantedApproval};

/// What is wrong with an act.
#[derive(Clone, Debug, PartialEq)]
pub struct Objection {
    /// What would be reported.
    pub deviation: Deviation,
    /// Whether the act is denied for it; else it is told only.
    pub denies: bool,
    /// Whether it is that an approval is lacking.
    pub lacks_approval: bool,
}

/// What the engine says of an act before it happens.
#[derive(Clone, Debug, PartialEq)]
pub struct Opinion {
    /// What is wrong with it. What an exception expects, and what controls on trial find, is not in it.
    pub objections: Vec<Objection>,
    /// The approval that it lacks, or that it has for something else.
    pub wanted: Option<WantedApproval>,
    /// The agent's trust, 0 to 100.
    pub trust: f64,
    /// How far its baseline can be relied on.
    pub state: LearningState,
    /// The quarantine that the agent is under.
    pub quarantine: Option<Quarantine>,
    /// Whether the quarantine bars the act: all but reads that no policy forbids.
    pub barred: bool,
}

impl Opinion {
    /// Whether the act is not to happen.
    pub fn is_denied(&self) -> bool {
        self.barred || self.objections.iter().any(|objection| objection.denies)
    }
}

impl Engine {
    /// What would be found of an event if it came next and nothing after it: an approval that may still come is lacking. What
    /// was reported before is told each time. Only decisions of policies are cached; nothing is learned or remembered.
    pub fn ask(&mut self, event: &Event) -> Opinion {
        let book = Arc::clone(&self.book);
        let known = event.agent.registered().and_then(|id| Some((id, book.registry.by_id(id)?)));
        let judgement = self.decisions.judge(&book, &Facts::of(event, known.map(|(_, agent)| agent), &book));
        match known {
            Some((id, agent)) => self.ask_of(&book, (id, agent), event, &judgement),
            None => Opinion {
                objections: object(&book, &unregistered(event), event, 0.0, policy_findings(&book, &judgement)),
                wanted: None,
                trust: book.trust.of(0.0),
                state: LearningState::Learning,
                quarantine: None,
                barred: false,
            },
        }
    }

    fn ask_of(
        &self,
        book: &Rulebook,
        (id, agent): (&str, &Agent),
        event: &Event,
        judgement: &Arc<Judgement>,
    ) -> Opinion {
        let last_seen = self.baselines.slot(id).and_then(|slot| self.baselines.last_seen(slot));
        let (profile, observed) = self.baselines.imagine(id, event);
        let past = self.baselines.past_of(&profile);
        let judgement = &unsilenced(book, Arc::clone(judgement), event, past.dossier());
        let arrival = Arrival { event, last_seen, agent, observed: &observed, judgement, book };
        let sighting = arrival.against(past);
        let found = findings(book, sighting, &mut Vec::new());
        let mut lacking = Vec::new();
        for control in book.controls() {
            for (severity, detector) in &control.detectors {
                let finding =
                    detector.lacks(sighting).map(|lack| Finding::of_suspicion(book, control, *severity, lack));
                lacking.extend(finding.filter(|found| !is_silenced(book, &found.control.id, event, past.dossier())));
            }
        }
        let evidence = book.trust.evidence(&profile, event.at);
        let facts = registered(book, (id, agent), Some(&profile));
        let quarantine = past.dossier().quarantine.clone();
        let mut objections = object(book, &facts, event, evidence, found);
        let lacking = object(book, &facts, event, evidence, lacking).into_iter();
        objections.extend(lacking.map(|objection| Objection { lacks_approval: true, ..objection }));
        let differs = |objection: &Objection| {
            objection.lacks_approval || objection.deviation.evidence.iter().any(|evidence| evidence.what == "executed")
        };
        Opinion {
            state: facts.state,
            wanted: if objections.iter().any(differs) { book.wanted_approval(event) } else { None },
            objections,
            trust: book.trust.of(evidence),
            barred: quarantine.is_some() && !judgement.is_declared_read(event),
            quarantine,
        }
    }
}

/// Findings as objections, without those that are not reported.
fn object(
    book: &Rulebook,
    facts: &AgentFacts,
    event: &Event,
    evidence: f64,
    found: Vec<Finding<'_>>,
) -> Vec<Objection> {
    let mut objections: Vec<Objection> = Vec::with_capacity(found.len());
    for finding in found {
        if Hush::of(book, finding.control, &facts.id, event).is_some() {
            continue;
        }
        let unless_said = if finding.statistical || finding.only_advises { Gate::Advise } else { Gate::Deny };
        let denies = finding.control.gate.unwrap_or(unless_said) == Gate::Deny;
        let ordinal = finding.ordinal + earlier(&finding, objections.iter().map(|objection| &objection.deviation));
        let unmoved = book.trust.change(evidence, evidence);
        let deviation = assemble(book, facts.clone(), event, finding, ordinal, unmoved);
        objections.push(Objection { deviation, denies, lacks_approval: false });
    }
    objections
}

#[cfg(test)]
mod tests;
