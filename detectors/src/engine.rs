//! The engine: one input of the log at a time, deviations out. The same log gives the same deviations, whatever the
//! batches, the interleaving of agents, or the restarts in between.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::baselines::{
    Baselines, Dimension, Dossier, Heard, Note, Observed, Pairing, Past, Piece, Profile, Quarantine, RunState, Slot,
    User,
};
use crate::detector::{Case, Conformance, Detector, Found, Hearing, Memory, Now, Sharing, Sighting, Suspicion};
use crate::deviation::{AgentFacts, Deviation, Evidence, LearningState, Rollback, Severity, TrustChange};
use crate::event::{AgentRef, Credential, Event, Millis, Outcome, Source};
use crate::response;
use crate::rulebook::{Agent, Control, DecisionCache, Facts, Judgement, PolicyRef, Rulebook, Violation};
use crate::statement::{Claims, Distrust, Token};

mod ask;
mod hush;

pub use ask::{Objection, Opinion};
use hush::excused;
pub use hush::{Hush, Hushed};

const DAY: Millis = 24 * 3_600_000;

/// Every input of the engine is a record of the log.
#[derive(Clone, Debug)]
pub enum Input {
    /// Something happened.
    Event(Box<Event>),
    /// Something happened that a person has accepted: it is learned from, not judged.
    Accepted(Box<Event>),
    /// An agent used a credential. Agents lie in different shards: this is for the shard of the credential.
    CredentialUse(Box<Event>),
    /// From here on this rulebook judges.
    Rulebook(Arc<Rulebook>),
    /// Time has come this far: what was waiting for it ends.
    Tick {
        /// The time.
        at: Millis,
        /// How far the audit log has come: the time of its latest record, where any was read.
        audited_until: Option<Millis>,
    },
}

/// What one input led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Judged and assessed.
    Judged,
    /// A repeat of an event that was judged before.
    Repeated,
    /// An unregistered principal's event, without a baseline to hold it against.
    Unregistered,
    /// Not an event.
    Control,
}

/// One shard's engine.
#[derive(Debug)]
pub struct Engine {
    book: Arc<Rulebook>,
    baselines: Baselines,
    decisions: DecisionCache,
    /// What detectors noted of the event under way.
    notes: Vec<Note>,
    /// Where the profiles lie that are needed next.
    ahead: VecDeque<Slot>,
    /// What the latest input's step found and did not report.
    hushed: Vec<Hushed>,
}

impl Engine {
    /// An engine with nothing learned.
    pub fn new(book: Arc<Rulebook>) -> Self {
        Self::resume(book, Baselines::default())
    }

    /// An engine that goes on from a snapshot.
    pub fn resume(book: Arc<Rulebook>, baselines: Baselines) -> Self {
        let (decisions, notes, ahead, hushed) = Default::default();
        Self { book, baselines, decisions, notes, ahead, hushed }
    }

    /// The memory.
    pub fn baselines(&self) -> &Baselines {
        &self.baselines
    }

    /// The memory as it is now, in pieces that are copied only when they change.
    pub fn freeze(&mut self) -> Vec<Piece> {
        self.baselines.freeze()
    }

    /// The rulebook in force.
    pub fn rulebook(&self) -> &Arc<Rulebook> {
        &self.book
    }

    /// What was found since the latest input's step began and is not reported: it is counted only.
    pub fn hushed(&self) -> &[Hushed] {
        &self.hushed
    }

    /// Looks up what inputs that come next will need of the memory, so that the processor fetches it for all of them at
    /// once.
    pub fn look_ahead<'i>(&mut self, inputs: impl Iterator<Item = &'i Input>) {
        let agents = inputs.filter_map(|input| match input {
            Input::Event(event) | Input::Accepted(event) => event.agent.registered(),
            Input::CredentialUse(_) | Input::Rulebook(_) | Input::Tick { .. } => None,
        });
        self.ahead = self.baselines.look_up(agents).into();
    }

    /// Where an agent's profile lies, if it was looked up as the next one.
    fn looked_up(&mut self, agent: &str) -> Option<Slot> {
        self.ahead.pop_front_if(|slot| self.baselines.is_at(*slot, agent))
    }

    /// Takes one input. Never fails: whatever could, was checked when the rulebook was read and the event decoded.
    pub fn step(&mut self, input: &Input) -> (Verdict, Vec<Deviation>) {
        self.hushed.clear();
        match input {
            Input::Event(event) if event.source == Source::Statement => self.hear(event),
            Input::Event(event) => self.judge(event),
            Input::Accepted(event) => (self.accept(event), Vec::new()),
            Input::CredentialUse(event) => (Verdict::Control, self.use_credential(event)),
            Input::Rulebook(book) => {
                self.book = Arc::clone(book);
                self.decisions = DecisionCache::default();
                (Verdict::Control, Vec::new())
            }
            Input::Tick { at, audited_until } => {
                let mut deviations = self.end_idle_runs(*at);
                let now = Now { at: *at, audited_until: *audited_until };
                deviations.extend(self.settle(now));
                deviations.extend(self.settle_dossiers(now));
                (Verdict::Control, deviations)
            }
        }
    }

    fn judge(&mut self, event: &Event) -> (Verdict, Vec<Deviation>) {
        let book = Arc::clone(&self.book);
        let known = event.agent.registered().and_then(|id| Some((id, book.registry.by_id(id)?)));
        let Some((id, agent)) = known else { return self.judge_unregistered(&book, event) };
        let known = self.looked_up(id).or_else(|| self.baselines.slot(id));
        let last_seen = known.and_then(|slot| self.baselines.last_seen(slot));
        let arrived = self.baselines.arrive(id, known, event);
        let Some((slot, observed)) = arrived else { return (Verdict::Repeated, Vec::new()) };
        let judgement = self.decisions.judge(&book, &Facts::of(event, Some(agent), &book));
        let past = self.baselines.past_at(slot);
        let judgement = unsilenced(&book, judgement, event, past.dossier());
        let next_run = Conformance::next_state(event, past, &book);
        let arrival = Arrival { event, last_seen, agent, observed: &observed, judgement: &judgement, book: &book };
        let sighting = arrival.against(past);
        let found = findings(&book, sighting, &mut self.notes);
        // What the cloud refused is no habit, and a repeat of what was reported is no more acceptable for being silent.
        let refused = matches!(event.outcome, Outcome::Denied(_));
        let waits = book.detectors().any(|detector| detector.awaits(sighting));
        let learnable = found.is_empty() && !waits && !refused && !past.is_suspect(&observed, event.at);
        self.baselines.note(slot, self.notes.drain(..));
        let excused = excused(&book, &found, id, event);
        let mut deviations = self.report(&book, (id, agent, slot), event, found);
        self.keep(slot, &arrival, learnable, &excused);
        if learnable {
            self.baselines.learn(slot, event.at, &observed);
        }
        self.pair(&book, slot, event);
        if let Some(oldest) = next_run.and_then(|state| self.baselines.follow(slot, state)) {
            deviations.extend(self.end_run(&book, id, &oldest));
        }
        (Verdict::Judged, deviations)
    }

    /// Takes what an event adds into what is kept of its agent, except for controls to which it is excused.
    fn keep(&mut self, slot: Slot, arrival: &Arrival<'_>, learnable: bool, excused: &[&str]) {
        let mut dossier = self.baselines.take_dossier(slot);
        let sighting = arrival.against(self.baselines.past_at(slot));
        for control in arrival.book.controls() {
            let is_excused = excused.contains(&control.id.as_str());
            for (_, detector) in &control.detectors {
                if !is_excused {
                    detector.keep(sighting, &mut dossier);
                }
                detector.follow(arrival.event, learnable, &mut dossier);
            }
        }
        self.baselines.put_dossier(slot, dossier);
    }

    /// Takes in a statement about an agent: one that its issuer signed is believed, any other is reported.
    fn hear(&mut self, event: &Event) -> (Verdict, Vec<Deviation>) {
        let book = Arc::clone(&self.book);
        let known = event.agent.registered().and_then(|id| Some((id, book.registry.by_id(id)?)));
        let token = event.statement.as_deref().and_then(|text| Token::read(text).ok());
        let (Some((id, agent)), Some(token)) = (known, token) else { return (Verdict::Unregistered, Vec::new()) };
        let Some(slot) = self.baselines.arrive_stated(id, event) else { return (Verdict::Repeated, Vec::new()) };
        let deviations = match book.issuers.verify(&token) {
            Err(why) => self.disbelieve(&book, (id, agent, slot), event, (&token.claims, why)),
            Ok(signers) => {
                let hearing = Hearing { claims: &token.claims, signers: &signers, agent, book: &book };
                let mut dossier = self.baselines.take_dossier(slot);
                let found = of_detectors(&book, |detector| detector.hear(&hearing, &mut dossier));
                self.baselines.put_dossier(slot, dossier);
                self.report(&book, (id, agent, slot), event, found)
            }
        };
        (Verdict::Judged, deviations)
    }

    /// Reports a statement that is not believed, once a day for each agent, kind and reason. Anybody may have written it:
    /// it moves nobody's trust.
    fn disbelieve(
        &mut self,
        book: &Rulebook,
        (id, agent, slot): (&str, &Agent, Slot),
        event: &Event,
        (claims, why): (&Claims, Distrust),
    ) -> Vec<Deviation> {
        let day = event.at.div_euclid(DAY);
        if !self.baselines.notice(format!("{id} {} {why} {day}", claims.says.name())) {
            return Vec::new();
        }
        let profile = self.baselines.past_at(slot).profile();
        let evidence = profile.map_or(0.0, |p| book.trust.evidence(p, event.at));
        let (facts, unmoved) = (registered(book, (id, agent), profile), book.trust.change(evidence, evidence));
        let found = of_detectors(book, |detector| detector.disbelieve(claims, &why));
        self.tell(book, &facts, event, found, unmoved)
    }

    /// An unregistered principal has no baseline, only policy, and each policy that it breaks is reported once. A cloud's
    /// own records of people and services are none of an agent's business, unless a detector knows better.
    fn judge_unregistered(&mut self, book: &Rulebook, event: &Event) -> (Verdict, Vec<Deviation>) {
        let found = if event.source.is_audit() {
            of_detectors(book, |detector| detector.notice(event))
        } else {
            policy_findings(book, &self.decisions.judge(book, &Facts::of(event, None, book)))
        };
        let facts = unregistered(event);
        let mut fresh = found;
        fresh.retain(|finding| {
            let broken = finding.policy.as_ref().map_or(&finding.control.id, |policy| &policy.id);
            self.baselines.notice(format!("{} {broken}", facts.id))
        });
        (Verdict::Unregistered, self.tell(book, &facts, event, fresh, book.trust.change(0.0, 0.0)))
    }

    /// Turns findings that move nobody's trust into deviations, one a control.
    fn tell(
        &mut self,
        book: &Rulebook,
        facts: &AgentFacts,
        event: &Event,
        found: Vec<Finding<'_>>,
        unmoved: TrustChange,
    ) -> Vec<Deviation> {
        let mut deviations = Vec::new();
        for finding in found {
            let why = Hush::of(book, finding.control, &facts.id, event);
            let deviation = assemble(book, facts.clone(), event, finding, 0, unmoved);
            match why {
                Some(why) => self.hushed.push(Hushed { why, deviation }),
                None => deviations.push(deviation),
            }
        }
        deviations
    }

    /// Takes in that an agent used a credential, and reports others that did. Nothing of the agents' own memory is used:
    /// it may lie in another shard.
    pub fn use_credential(&mut self, event: &Event) -> Vec<Deviation> {
        let book = Arc::clone(&self.book);
        let Some(agent) = event.credential_user().filter(|id| book.registry.by_id(id).is_some()) else {
            return Vec::new();
        };
        let others = self.baselines.use_credential(agent, event);
        others.iter().flat_map(|other| self.report_sharing(&book, agent, event, other)).collect()
    }

    /// What is wrong with two agents' using one credential: it is about the one that came later, unless only the other one
    /// says that it uses what the audit log shows with this one.
    fn report_sharing(&mut self, book: &Rulebook, agent: &str, event: &Event, other: &User) -> Vec<Deviation> {
        let claimed = !event.source.is_audit();
        let is_about_other = other.claimed && !claimed;
        let (culprit, owner) =
            if is_about_other { (other.agent.as_str(), agent) } else { (agent, other.agent.as_str()) };
        let Some(entry) = book.registry.by_id(culprit) else { return Vec::new() };
        let use_of = if is_about_other {
            let (id, credential) = (other.event.clone(), Credential { claimed: true, ..event.credential.clone() });
            let agent = AgentRef::Registered(culprit.to_owned());
            let action = "use of a credential".to_owned();
            Event { id, source: other.source, at: other.at, agent, action, credential, ..Event::default() }
        } else {
            event.clone()
        };
        // The event may have been judged by the same control, which names its deviations by it.
        let use_of = Event { id: format!("{}/credential/{owner}", use_of.id), ..use_of };
        let (claimed, other_claimed) = (claimed || is_about_other, other.claimed && claimed);
        let sharing = Sharing { credential: &event.credential.id, other: owner, claimed, other_claimed };
        let found = of_detectors(book, |detector| detector.share(&sharing));
        self.tell(book, &registered(book, (culprit, entry), None), &use_of, found, book.trust.change(0.0, 0.0))
    }

    fn accept(&mut self, event: &Event) -> Verdict {
        let Some(id) = event.agent.registered() else { return Verdict::Unregistered };
        let Some((slot, observed)) = self.baselines.arrive(id, None, event) else { return Verdict::Repeated };
        let next_run = Conformance::next_state(event, self.baselines.past_at(slot), &self.book);
        self.baselines.learn(slot, event.at, &observed);
        let mut dossier = self.baselines.take_dossier(slot);
        self.book.detectors().for_each(|detector| detector.follow(event, true, &mut dossier));
        self.baselines.put_dossier(slot, dossier);
        if let Some(state) = next_run {
            self.baselines.follow(slot, state);
        }
        if event.source.is_audit() && event.verb.changes() {
            self.baselines.hear(slot, Heard::KNOWN_UNDECLARED);
        }
        Verdict::Judged
    }

    /// Turns findings into deviations, moves trust and remembers what was reported.
    ///
    /// However many controls one event breaks, it is one event: trust moves once, by the weightiest finding.
    fn report(
        &mut self,
        book: &Rulebook,
        of: (&str, &Agent, Slot),
        event: &Event,
        found: Vec<Finding<'_>>,
    ) -> Vec<Deviation> {
        if found.is_empty() {
            return Vec::new();
        }
        let (id, agent, slot) = of;
        let (mut told, mut hushed) = (Vec::with_capacity(found.len()), Vec::new());
        for finding in found {
            match Hush::of(book, finding.control, id, event) {
                Some(why) => hushed.push((why, finding)),
                None => told.push(finding),
            }
        }
        let profile = self.baselines.past_at(slot).profile();
        let facts = registered(book, (id, agent), profile);
        let before = profile.map_or(0.0, |p| book.trust.evidence(p, event.at));
        self.hush(book, (&facts, slot), event, hushed, book.trust.change(before, before));
        let Some(weight) = told.iter().map(Finding::score).reduce(f64::max) else { return Vec::new() };
        let evidence = before + weight;
        let change = book.trust.change(before, evidence);
        let mut deviations: Vec<Deviation> = Vec::with_capacity(told.len());
        for finding in told {
            let ordinal = finding.ordinal + earlier(&finding, deviations.iter());
            let revocation = response::revocation(finding.control, event, book, self.baselines.past_at(slot));
            if let Some(subject) = &revocation {
                self.baselines.withhold(slot, Dimension::Revoked, &response::request(subject, event.at));
            }
            let (memory, control) = (finding.remember.clone(), finding.control);
            let deviation = assemble(book, facts.clone(), event, finding, ordinal, change);
            if response::quarantines(control, event, book) {
                self.put_under_quarantine(slot, &deviation);
            }
            deviations.push(Deviation { revocation, ..deviation });
            self.remember(slot, memory);
        }
        self.baselines.set_evidence(slot, evidence, event.at);
        deviations
    }

    /// Keeps what is not reported: nobody's trust moves by it, and nothing follows.
    fn hush(
        &mut self,
        book: &Rulebook,
        (facts, slot): (&AgentFacts, Slot),
        event: &Event,
        found: Vec<(Hush, Finding<'_>)>,
        unmoved: TrustChange,
    ) {
        let from = self.hushed.len();
        for (why, finding) in found {
            let before = self.hushed.iter().skip(from).map(|hushed| &hushed.deviation);
            let ordinal = finding.ordinal + earlier(&finding, before);
            let memory = finding.remember.iter().filter(|memory| why.remembers(memory)).cloned().collect();
            self.remember(slot, memory);
            if let Hush::Exception(id) = &why {
                let mut dossier = self.baselines.take_dossier(slot);
                let last = dossier.excused.entry(id.clone()).or_insert(event.at);
                *last = event.at.max(*last);
                dossier.excused.retain(|id, _| book.exceptions.iter().any(|exception| exception.id == *id));
                self.baselines.put_dossier(slot, dossier);
            }
            let deviation = assemble(book, facts.clone(), event, finding, ordinal, unmoved);
            self.hushed.push(Hushed { why, deviation });
        }
    }

    fn put_under_quarantine(&mut self, slot: Slot, deviation: &Deviation) {
        let mut dossier = self.baselines.take_dossier(slot);
        dossier.quarantine.get_or_insert_with(|| Quarantine {
            since: deviation.at,
            by: format!("control {}", deviation.control),
            reason: deviation.id.clone(),
            told: BTreeMap::new(),
        });
        self.baselines.put_dossier(slot, dossier);
    }

    fn remember(&mut self, slot: Slot, memory: Vec<Memory>) {
        for item in memory {
            match item {
                Memory::Value(dimension, value) => self.baselines.withhold(slot, dimension, &value),
                Memory::Burst(rate) => self.baselines.report_burst(slot, rate),
                Memory::Hour(hour) => self.baselines.report_hour(slot, hour),
            }
        }
    }

    /// Ends the playbook runs that have been idle for too long.
    fn end_idle_runs(&mut self, at: Millis) -> Vec<Deviation> {
        let book = Arc::clone(&self.book);
        let idle = |run: &RunState| {
            book.playbooks.get(&run.playbook).is_none_or(|playbook| at.saturating_sub(run.last) > playbook.idle)
        };
        let ended = self.baselines.take_runs(idle);
        ended.iter().flat_map(|(id, run)| self.end_run(&book, id, run)).collect()
    }

    /// Holds a change that was declared against what was done, and the other way round, as far as either is known.
    fn pair(&mut self, book: &Rulebook, slot: Slot, event: &Event) {
        let waits = || self.baselines.past_at(slot).profile().is_some_and(|profile| profile.pairing.is_some());
        // What changes nothing may still be what was claimed.
        let takes_part = event.verb.changes() || (event.source.is_audit() && waits());
        if takes_part && let Some((_, _, rules)) = book.pairing() {
            self.baselines.pair(slot, |profile, pairing| rules.hear(pairing, event, profile.settled));
        }
    }

    /// Ends what has waited long enough for its counterpart, and reports what stayed alone. Where no control pairs any
    /// more, nothing waits.
    fn settle(&mut self, now: Now) -> Vec<Deviation> {
        let book = Arc::clone(&self.book);
        let pairing = book.pairing();
        let is_due = |profile: &Profile, waiting: &Pairing| {
            pairing.is_none_or(|(_, _, rules)| rules.is_due(profile, waiting, now))
        };
        let mut deviations = Vec::new();
        for (id, slot) in self.baselines.unsettled(is_due) {
            let Some((control, severity, rules)) = pairing else {
                self.baselines.pair(slot, |_, waiting| *waiting = Pairing::default());
                continue;
            };
            let unpaired = self.baselines.pair(slot, |profile, waiting| rules.settle(profile, waiting, now));
            let Some(agent) = book.registry.by_id(&id) else { continue };
            for alone in unpaired.into_iter().flatten() {
                let finding = Finding::of_suspicion(&book, control, severity, rules.suspicion(&alone));
                deviations.extend(self.report(&book, (&id, agent, slot), alone.event(), vec![finding]));
            }
        }
        deviations
    }

    /// Ends what has waited long enough for a statement, and reports what comes of that.
    fn settle_dossiers(&mut self, now: Now) -> Vec<Deviation> {
        let book = Arc::clone(&self.book);
        let mut deviations = Vec::new();
        for (id, slot) in self.baselines.with_waiting_dossier() {
            let Some(agent) = book.registry.by_id(&id) else { continue };
            let case = Case { now, agent, book: &book };
            let mut dossier = self.baselines.take_dossier(slot);
            let mut ended = Vec::new();
            for control in book.controls() {
                // Behind all that was found when the events came: the policies' one finding, and one of each detector.
                for (ordinal, (severity, detector)) in (control.detectors.len() + 1..).zip(&control.detectors) {
                    let found = detector.settle(&case, &mut dossier).into_iter();
                    ended.extend(found.map(|Found { event, suspicion }| {
                        (event, Finding { ordinal, ..Finding::of_suspicion(&book, control, *severity, suspicion) })
                    }));
                }
            }
            ended.retain(|(event, finding)| !is_silenced(&book, &finding.control.id, event, &dossier));
            self.baselines.put_dossier(slot, dossier);
            for (event, finding) in ended {
                deviations.extend(self.report(&book, (&id, agent, slot), &event, vec![finding]));
            }
        }
        deviations
    }

    /// Assesses a run that goes no further.
    fn end_run(&mut self, book: &Rulebook, id: &str, run: &RunState) -> Vec<Deviation> {
        let known = book.registry.by_id(id).zip(self.baselines.slot(id));
        let Some((agent, slot)) = known else { return Vec::new() };
        let event = end_of(run, id);
        let mut found = Vec::new();
        for control in book.controls() {
            for (severity, detector) in &control.detectors {
                let suspicion = detector.assess_end(run, book);
                found.extend(suspicion.map(|suspicion| Finding::of_suspicion(book, control, *severity, suspicion)));
            }
        }
        self.report(book, (id, agent, slot), &event, found)
    }
}

/// The end of a run as an event, with what is remembered of its last action.
fn end_of(run: &RunState, agent: &str) -> Event {
    Event {
        id: format!("{}/end", run.last_event),
        at: run.last,
        agent: AgentRef::Registered(agent.to_owned()),
        action: format!("run `{}` of playbook `{}`", run.run, run.playbook),
        run: Some(crate::event::Run { playbook: run.playbook.clone(), id: run.run.clone(), ..Default::default() }),
        ..Event::default()
    }
}

/// An event with what is known of it besides its agent's past, which changes while it is judged.
struct Arrival<'a> {
    event: &'a Event,
    last_seen: Option<Millis>,
    agent: &'a Agent,
    observed: &'a Observed<'a>,
    judgement: &'a Judgement,
    book: &'a Rulebook,
}

impl Arrival<'_> {
    fn against<'s>(&'s self, past: Past<'s>) -> Sighting<'s> {
        let Self { event, last_seen, agent, observed, judgement, book } = *self;
        Sighting { event, past, last_seen, agent, observed, judgement, book }
    }
}

/// What a policy or a detector found, before it becomes a deviation.
#[derive(Debug)]
struct Finding<'b> {
    control: &'b Control,
    severity: Severity,
    policy: Option<PolicyRef>,
    policy_failed: bool,
    what: String,
    evidence: Vec<Evidence>,
    counterfactual: String,
    remember: Vec<Memory>,
    rollback: Option<Rollback>,
    /// The ordinal in the deviation's id, where no other finding of its control on this event comes first.
    ordinal: usize,
    statistical: bool,
    /// Whether it denies no act that somebody asks about.
    only_advises: bool,
}

impl<'b> Finding<'b> {
    fn of_suspicion(book: &Rulebook, control: &'b Control, severity: Severity, suspicion: Suspicion) -> Self {
        let severity = suspicion.severity.unwrap_or(severity);
        let of_rule = book.trust.score(severity);
        Self {
            control,
            severity,
            policy: None,
            policy_failed: false,
            what: suspicion.what,
            statistical: suspicion.evidence.iter().any(|evidence| evidence.p_value.is_some()),
            evidence: suspicion.evidence.into_iter().map(|clue| clue.weighed(of_rule)).collect(),
            counterfactual: suspicion.counterfactual,
            remember: suspicion.remember,
            rollback: suspicion.rollback,
            ordinal: 0,
            only_advises: false,
        }
    }

    /// One finding for all policies of a control that an event breaks: the most severe one speaks, each counts as
    /// evidence.
    fn of_violations(book: &Rulebook, control: &'b Control, violations: &[Violation], remedy: &str) -> Option<Self> {
        let severity = |violation: &Violation| violation.policy.severity.unwrap_or(control.severity);
        // Among equally severe ones, the first in its file: the author's own order.
        let rank = |violation: &&Violation| (severity(violation), std::cmp::Reverse(violation.policy.line));
        let worst = violations.iter().max_by_key(rank)?;
        let evidence = violations.iter().map(|violation| Evidence {
            what: "policy".to_owned(),
            observed: words(violation),
            expected: format!("what policy `{}` allows", violation.policy.id),
            p_value: None,
            sample: 0,
            score: book.trust.score(severity(violation)),
        });
        Some(Self {
            control,
            severity: severity(worst),
            policy: Some(worst.policy.clone()),
            policy_failed: violations.iter().any(|violation| violation.error.is_some()),
            what: words(worst),
            evidence: evidence.collect(),
            counterfactual: remedy.to_owned(),
            remember: Vec::new(),
            rollback: None,
            ordinal: 0,
            statistical: false,
            only_advises: false,
        })
    }

    fn score(&self) -> f64 {
        self.evidence.iter().map(|evidence| evidence.score).sum()
    }
}

/// How many findings of a control on an event came before this one.
fn earlier<'d>(finding: &Finding<'_>, before: impl Iterator<Item = &'d Deviation>) -> usize {
    before.filter(|deviation| deviation.control == finding.control.id).count()
}

/// What all controls find of an event, without what persons have said that it is not to be reported.
fn findings<'b>(book: &'b Rulebook, sighting: Sighting<'_>, notes: &mut Vec<Note>) -> Vec<Finding<'b>> {
    let mut found = policy_findings(book, sighting.judgement);
    for control in book.controls() {
        for (severity, detector) in &control.detectors {
            let only_advises = detector.only_advises();
            let finding =
                |suspicion| Finding { only_advises, ..Finding::of_suspicion(book, control, *severity, suspicion) };
            found.extend(detector.assess(sighting).map(finding));
            detector.note(sighting, notes);
        }
    }
    found.retain(|finding| !is_silenced(book, &finding.control.id, sighting.event, sighting.past.dossier()));
    found
}

/// What all detectors find when they are asked.
fn of_detectors<'b>(book: &'b Rulebook, mut ask: impl FnMut(&dyn Detector) -> Option<Suspicion>) -> Vec<Finding<'b>> {
    let mut found = Vec::new();
    for control in book.controls() {
        for (severity, detector) in &control.detectors {
            found.extend(ask(&**detector).map(|suspicion| Finding::of_suspicion(book, control, *severity, suspicion)));
        }
    }
    found
}

/// Whether persons have said that a finding is not to be reported.
fn is_silenced(book: &Rulebook, control: &str, event: &Event, dossier: &Dossier) -> bool {
    book.detectors().any(|detector| detector.silences(control, event, book, dossier))
}

/// What policies say of an event, without the controls that persons have silenced for it.
fn unsilenced(book: &Rulebook, judgement: Arc<Judgement>, event: &Event, dossier: &Dossier) -> Arc<Judgement> {
    let stays = |violation: &Violation| !is_silenced(book, &violation.policy.control, event, dossier);
    if judgement.violations.iter().all(stays) {
        return judgement;
    }
    let violations = judgement.violations.iter().filter(|violation| stays(violation)).cloned().collect();
    Arc::new(Judgement { violations, remedy: judgement.remedy.clone() })
}

fn policy_findings<'b>(book: &'b Rulebook, judgement: &Judgement) -> Vec<Finding<'b>> {
    let by_control = judgement.violations.chunk_by(|a, b| a.policy.control == b.policy.control);
    by_control
        .filter_map(|violations| {
            let control = book.control(&violations.first()?.policy.control)?;
            Finding::of_violations(book, control, violations, &judgement.remedy)
        })
        .collect()
}

/// What a violation is, as the end of a sentence about the event.
fn words(violation: &Violation) -> String {
    match &violation.error {
        Some(error) => format!("meets policy `{}`, which could not be evaluated: {error}", violation.policy.id),
        None if violation.policy.message.is_empty() => format!("breaks policy `{}`", violation.policy.id),
        None => violation.policy.message.clone(),
    }
}

fn assemble(
    book: &Rulebook,
    agent: AgentFacts,
    event: &Event,
    finding: Finding<'_>,
    ordinal: usize,
    trust: TrustChange,
) -> Deviation {
    let learning = finding.statistical && agent.state == LearningState::Learning;
    Deviation {
        id: format!("{}/{}/{ordinal}", finding.control.id, event.id),
        control: finding.control.id.clone(),
        title: finding.control.title.clone(),
        severity: if learning { finding.severity.lowered() } else { finding.severity },
        summary: format!("{} `{}`: {}", agent.class, agent.id, sentence(event, &finding.what, learning)),
        agent,
        at: event.at,
        score: finding.score(),
        what: finding.what,
        policy: finding.policy,
        policy_failed: finding.policy_failed,
        evidence: finding.evidence,
        counterfactual: finding.counterfactual,
        trust,
        frameworks: finding.control.frameworks.clone(),
        rulebook: book.hash().to_owned(),
        event: event.without_contents(),
        revocation: None,
        rollback: finding.rollback,
    }
}

/// What was done to what, where, how it ended, and what is wrong with it.
fn sentence(event: &Event, what: &str, learning: bool) -> String {
    let resource = &event.resource;
    let target = match (resource.kind.as_str(), resource.id.as_str()) {
        ("", "") => String::new(),
        (kind, "") => format!(" on {kind}"),
        ("", id) => format!(" on {id}"),
        (kind, id) => format!(" on {kind} {id}"),
    };
    let place = if event.place.environment.is_empty() { "" } else { " in " };
    let outcome = match event.outcome {
        Outcome::Unknown => String::new(),
        ref outcome => format!(" ({})", outcome.name()),
    };
    let note = if learning { " (still learning)" } else { "" };
    format!("{}{target}{place}{}{outcome}: {what}{note}", event.action, event.place.environment)
}

fn registered(book: &Rulebook, (id, agent): (&str, &Agent), profile: Option<&Profile>) -> AgentFacts {
    AgentFacts {
        id: id.to_owned(),
        class: agent.class.name().to_owned(),
        owner: agent.owner.clone(),
        team: agent.team.clone(),
        state: profile.map_or(LearningState::Learning, |profile| book.learning.state(profile)),
        learned: profile.map_or(0, |profile| profile.learned),
    }
}

fn unregistered(event: &Event) -> AgentFacts {
    AgentFacts {
        id: event.agent.key(),
        class: "unregistered".to_owned(),
        owner: String::new(),
        team: String::new(),
        state: LearningState::Learning,
        learned: 0,
    }
}

#[cfg(test)]
mod tests;
