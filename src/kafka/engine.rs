//! The engine's stage: reads the log, one shard a partition, and writes alerts, revocation requests and ticks.
//!
//! A shard's memory is that of its latest checkpoint and the log from there on, replayed in silence up to what is
//! committed. The first rulebook of a partition is noted with every committed offset; every later one is a record of the
//! log.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use tautline_detectors::deviation::Deviation;
use tautline_detectors::engine::{Hushed, Input, Verdict};
use tautline_detectors::event::{Event, Millis, Source};
use tautline_ingest::Rejection;
use tautline_ingest::log::LogRecord;
use tautline_ingest::redact::Redactor;

use super::Shared;
use super::client::{Output, Partition, SEAL, create_topics, log_partitions};
use super::hop::dead_letter_of;
use super::pump::{Assigned, Record, Stage, now};
use super::shards::{Shard, Shards};
use crate::census::Census;
use crate::metrics::UNREGISTERED;
use crate::output::caep;
use crate::output::ocsf::{self, Position};
use crate::output::rollback;
use crate::rules::RulebookStore;

impl Shard {
    /// The time of a tick that is due, if one would end anything.
    ///
    /// While events come, time is theirs: a backlog that is worked off must not look like agents that fell silent. When
    /// none come, it is the clock's.
    fn due_tick(&mut self) -> Option<Millis> {
        let moved = std::mem::take(&mut self.moved);
        let waiting = self.seat().engine.baselines().has_waiting();
        waiting.then(|| if moved { self.latest.min(now()) } else { now() })
    }

    /// A record of our own for this shard's partition, sealed.
    fn control(&mut self, record: &LogRecord, store: &RulebookStore) -> Result<Output> {
        let payload = record.to_bytes()?;
        // Later than every earlier one, also of the partition's owners before: all were sealed with their clocks.
        let clock = u64::try_from(now()).unwrap_or_default();
        self.sealed = clock.max(self.sealed + 1).max(self.opened + 1);
        let Partition { topic, number } = &self.partition;
        let seal = store.seal(self.sealed, topic, *number, &payload);
        Ok(Output {
            topic: Arc::clone(topic),
            partition: Some(*number),
            payload,
            timestamp: now(),
            seal: Some(seal),
            ..Output::default()
        })
    }
}

/// What one record holds.
type Inputs = Vec<Result<Input, Rejection>>;

/// How often agents are counted.
const COUNT_AGENTS: Duration = Duration::from_secs(5);

/// From when on an event counts as late: twice what CloudTrail takes to deliver.
const LATE: Millis = 30 * 60 * 1_000;

pub(super) struct EngineStage {
    shared: Arc<Shared>,
    redactor: Redactor,
    store: RulebookStore,
    shards: Shards,
    last_tick: Instant,
    last_count: Instant,
    /// What the open batch led to, counted and shown once it is committed.
    held: Held,
}

#[derive(Default)]
struct Held {
    events: Vec<(Source, Verdict)>,
    deviations: Vec<Deviation>,
    hushed: Vec<Hushed>,
    rejections: Vec<Rejection>,
    arrivals: Vec<Millis>,
    lateness: Vec<(Source, Millis)>,
    late: Vec<(String, Source)>,
}

impl Held {
    fn note_lateness(&mut self, event: &Event, arrived: Millis) {
        let lateness = arrived.saturating_sub(event.at);
        self.lateness.push((event.source, lateness));
        if lateness > LATE {
            let agent = event.agent.registered().unwrap_or(UNREGISTERED);
            self.late.push((agent.to_owned(), event.source));
        }
    }
}

impl EngineStage {
    /// The stage's name, which also ends its group's.
    pub(super) const NAME: &str = "engine";

    pub(super) fn open(shared: Arc<Shared>) -> Result<Self> {
        create_topics(&shared)?;
        let mut store = RulebookStore::open(&shared.config.rulebook.store)?;
        store.keep(&shared.book())?;
        let group = format!("{}-{}", shared.config.kafka.group, Self::NAME);
        let interval = Duration::from_secs(shared.config.checkpoints.interval_seconds);
        let status = Arc::clone(&shared.status);
        let checkpoints = (Arc::clone(&shared.checkpoints), interval);
        let shards = Shards::new(Self::NAME, status, &group, checkpoints, Arc::clone(&shared.desk));
        let (last_tick, last_count) = (Instant::now(), Instant::now());
        let redactor = shared.redactor.clone();
        Ok(Self { shared, redactor, store, shards, last_tick, last_count, held: Held::default() })
    }

    /// What the engine is to step over for a record: several in `direct` mode, where a record may be a batch.
    fn inputs(&mut self, record: &Record<'_>) -> Result<Inputs> {
        if !self.shared.config.log.direct || self.is_own(record) {
            return Ok(vec![match LogRecord::from_bytes(record.payload) {
                Ok(logged) => Ok(self.input(logged)?),
                Err(rejection) => Err(rejection),
            }]);
        }
        let Some(shard) = self.shards.get(record.slot) else { return Ok(Vec::new()) };
        let book = Arc::clone(shard.seat().engine.rulebook());
        let Some(source) = self.shared.config.sources.first() else { return Ok(Vec::new()) };
        let events = self.redactor.read(record.payload, &source.reader, record.timestamp, &book);
        Ok(events.into_iter().map(|event| event.map(|event| Input::Event(Box::new(event)))).collect())
    }

    /// Counts the agents now and then; there may be many.
    fn count_agents(&mut self) {
        if self.last_count.elapsed() < COUNT_AGENTS {
            return;
        }
        self.last_count = Instant::now();
        let (status, book) = (&self.shared.status, self.shared.book());
        let mut census = Census::default();
        self.shards.iter().for_each(|shard| census.add(shard.seat().engine.baselines(), &book.learning));
        status.agents(&book, &census);
        status.metrics.quiet.state(&book, now(), &census);
        self.count_waiting();
    }

    /// Counts what waits for its counterpart, and says when that is for want of an audit log.
    fn count_waiting(&mut self) {
        let mut all = Vec::new();
        for shard in self.shards.iter_mut().filter(|shard| shard.is_rebuilt()) {
            let waiting = shard.seat().engine.baselines().waiting();
            let silence = shard.audit_silence(&waiting, now());
            let (partition, claims, minutes) = (shard.partition.number, waiting.claims, silence / 60_000);
            match shard.has_fallen_silent(silence) {
                Some(true) => {
                    tracing::warn!(partition, claims, minutes, "the audit log is silent: declared actions wait for it");
                }
                Some(false) => tracing::info!(partition, "declared actions wait for the audit log no longer"),
                None => {}
            }
            all.push((waiting, Duration::from_millis(silence.unsigned_abs())));
        }
        self.shared.status.metrics.pairing(&all);
    }

    /// Whether a record of a log that others write too is our own: sealed, and not one of ours sent again.
    fn is_own(&mut self, record: &Record<'_>) -> bool {
        let Partition { topic, number } = record.partition;
        let seal = record.message.header(SEAL);
        let opened = seal.and_then(|seal| self.store.open_seal(seal, topic, *number, record.payload));
        match (opened, self.shards.get_mut(record.slot)) {
            (Some(number), Some(shard)) if number > shard.opened => {
                shard.opened = number;
                true
            }
            _ => false,
        }
    }

    fn input(&mut self, logged: LogRecord) -> Result<Input> {
        Ok(match logged {
            LogRecord::Event { event, .. } => Input::Event(event),
            LogRecord::CredentialUse { event } => Input::CredentialUse(event),
            LogRecord::Tick { at, audited_until } => Input::Tick { at, audited_until },
            LogRecord::Rulebook { hash } => Input::Rulebook(self.store.find(&hash)?),
        })
    }

    /// Steps over what some records hold.
    fn step<'r, 'm>(&mut self, ahead: &mut Vec<(&'r Record<'m>, Inputs)>, outputs: &mut Vec<Output>) -> Result<()> {
        if let Some(shard) = ahead.first().and_then(|(record, _)| self.shards.get_mut(record.slot)) {
            shard.seat().engine.look_ahead(ahead.iter().flat_map(|(_, inputs)| inputs).flatten());
        }
        for (record, inputs) in ahead.drain(..) {
            self.step_over(record, inputs, outputs)?;
        }
        Ok(())
    }

    fn step_over(&mut self, record: &Record<'_>, inputs: Inputs, outputs: &mut Vec<Output>) -> Result<()> {
        let Some(shard) = self.shards.get_mut(record.slot) else { return Ok(()) };
        let (mut rejected, mut found) = (Vec::new(), Vec::new());
        // Locked over the whole record: what is asked meanwhile rests on all of it or on nothing of it.
        let mut seat = shard.seat.lock();
        let speaks = seat.take(record.offset);
        for input in inputs {
            let input = match input {
                Ok(input) => input,
                Err(rejection) => {
                    rejected.push(rejection);
                    continue;
                }
            };
            let (verdict, deviations) = seat.engine.step(&input);
            found.extend(deviations);
            if let Input::Event(event) = &input {
                // Nobody tells the partitions of each other's credentials then.
                if self.shared.config.log.direct {
                    found.extend(seat.engine.use_credential(event));
                }
                shard.moved = true;
                shard.latest = shard.latest.max(event.at);
                if event.source.is_audit() {
                    // A record cannot be from after its arrival, whatever its clock says.
                    let at = event.at.min(record.timestamp);
                    shard.audited_until = shard.audited_until.max(Some(at));
                }
                if speaks {
                    self.held.events.push((event.source, verdict));
                    self.held.arrivals.push(record.timestamp);
                    self.held.note_lateness(event, record.timestamp);
                }
            }
            if speaks {
                self.held.hushed.extend_from_slice(seat.engine.hushed());
            }
        }
        drop(seat);
        if speaks {
            self.speak(record, found, outputs);
        }
        if speaks && !rejected.is_empty() {
            outputs.extend(dead_letter_of(&self.shared, record, &rejected)?);
            self.held.rejections.append(&mut rejected);
        }
        Ok(())
    }

    fn speak(&mut self, record: &Record<'_>, deviations: Vec<Deviation>, outputs: &mut Vec<Output>) {
        let config = &self.shared.config;
        let Partition { topic, number } = record.partition;
        let position = Position { topic: topic.to_string(), partition: *number, offset: record.offset };
        for deviation in deviations {
            let output = |topic: &str, payload: String| Output {
                topic: topic.into(),
                key: deviation.agent.id.clone(),
                payload: payload.into_bytes(),
                timestamp: record.timestamp,
                ..Output::default()
            };
            let alert = ocsf::detection_finding(&deviation, Some(&position)).to_string();
            outputs.push(output(&config.outputs.alerts, alert));
            if let Some(claims) = caep::claims(&deviation, &config.revocation, now()) {
                outputs.push(output(&config.outputs.revocations, claims.to_string()));
            }
            if let Some(request) = rollback::remediation(&deviation) {
                outputs.push(output(&config.outputs.rollbacks, request.to_string()));
            }
            self.held.deviations.push(deviation);
        }
    }
}

impl Stage for EngineStage {
    fn topics(&self) -> Vec<&str> {
        vec![self.shared.config.log_topic()]
    }

    fn assigned(&mut self, assigned: Assigned) -> Result<i64> {
        let Self { shared, store, shards, .. } = self;
        // Only now is the topic there for sure; partitions that it is given later would move agents to others.
        if !shared.desk.knows_partitions() {
            shared.desk.has_partitions(log_partitions(shared)?);
        }
        shards.take_over(assigned, shared.book().hash(), |hash| store.find(hash))
    }

    fn revoked(&mut self, slot: usize) {
        self.shards.give_up(slot);
    }

    fn records(&mut self, records: &[Record<'_>], outputs: &mut Vec<Output>) -> Result<()> {
        let mut ahead = Vec::with_capacity(records.len());
        for record in records {
            let inputs = self.inputs(record)?;
            // What comes behind a rulebook is resolved by it.
            let switches = inputs.iter().any(|input| matches!(input, Ok(Input::Rulebook(_))));
            ahead.push((record, inputs));
            if switches {
                self.step(&mut ahead, outputs)?;
            }
        }
        self.step(&mut ahead, outputs)
    }

    /// Appends ticks that are due, and the rulebook in force where a partition is judged by another.
    fn before_commit(&mut self, outputs: &mut Vec<Output>) -> Result<()> {
        self.count_agents();
        let tick = self.last_tick.elapsed() >= Duration::from_secs(self.shared.config.log.tick_seconds);
        let book = self.shared.book();
        let hash = book.hash();
        for shard in self.shards.iter_mut().filter(|shard| shard.is_rebuilt()) {
            if shard.has_to_switch(hash, tick) {
                self.store.keep(&book)?;
                let switch = LogRecord::Rulebook { hash: hash.to_owned() };
                outputs.push(shard.control(&switch, &self.store)?);
            }
            if tick && let Some(at) = shard.due_tick() {
                let tick = LogRecord::Tick { at, audited_until: shard.audited_until };
                outputs.push(shard.control(&tick, &self.store)?);
            }
        }
        if tick {
            self.last_tick = Instant::now();
        }
        Ok(())
    }

    fn note(&self, slot: usize, next: i64) -> Option<String> {
        self.shards.note(slot, next)
    }

    fn committed(&mut self) {
        let held = std::mem::take(&mut self.held);
        let (status, now) = (&self.shared.status, now());
        status.metrics.events(&held.events);
        let since = |arrival: &Millis| Duration::from_millis(u64::try_from(now - arrival).unwrap_or_default());
        status.metrics.latencies(held.arrivals.iter().map(since));
        status.metrics.lateness(&held.lateness, &held.late);
        held.rejections.iter().for_each(|rejection| status.metrics.rejected(rejection));
        held.hushed.iter().for_each(|hushed| status.metrics.quiet.hushed(hushed));
        held.deviations.into_iter().for_each(|deviation| status.deviation(deviation));
    }

    fn idle(&mut self) {
        self.shards.save_when_due();
    }

    fn ready(&self) -> bool {
        self.shards.ready()
    }
}
