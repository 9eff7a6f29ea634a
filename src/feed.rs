//! From bytes to deviations without a broker: decode, resolve, redact, step. What `replay`, `demo` and `check` share.

use std::sync::Arc;

use tautline_detectors::deviation::Deviation;
use tautline_detectors::engine::{Engine, Input, Verdict};
use tautline_detectors::event::{Event, Millis, Source};
use tautline_detectors::rulebook::Rulebook;
use tautline_ingest::redact::Redactor;
use tautline_ingest::{Reader, Rejection};

/// How far event time goes on between two ticks.
const TICK: Millis = 60_000;

/// What one record led to.
#[derive(Debug, Default)]
pub(crate) struct Fed {
    /// The source of each of its events, and what became of it.
    pub(crate) events: Vec<(Source, Verdict)>,
    /// Deviations, those of ticks that came due before the events included.
    pub(crate) deviations: Vec<Deviation>,
    /// Members that could not be read.
    pub(crate) rejections: Vec<Rejection>,
}

/// An engine that is fed records. Ticks come from the time of the registered agents' events.
#[derive(Debug)]
pub(crate) struct Feed {
    engine: Engine,
    redactor: Redactor,
    reader: Reader,
    tick: Millis,
    audited_until: Option<Millis>,
}

impl Feed {
    pub(crate) fn new(book: Arc<Rulebook>, redactor: Redactor, reader: impl Into<Reader>) -> Self {
        Self { engine: Engine::new(book), redactor, reader: reader.into(), tick: Millis::MIN, audited_until: None }
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Judges the events of a record.
    pub(crate) fn judge(&mut self, bytes: &[u8], received: Millis) -> Fed {
        self.feed(bytes, received, Input::Event)
    }

    /// Learns from the events of a record without judging them: a person has accepted them.
    pub(crate) fn accept(&mut self, bytes: &[u8], received: Millis) -> Fed {
        self.feed(bytes, received, Input::Accepted)
    }

    fn feed(&mut self, bytes: &[u8], received: Millis, input: fn(Box<Event>) -> Input) -> Fed {
        let mut fed = Fed::default();
        for read in self.redactor.read(bytes, &self.reader, received, self.engine.rulebook()) {
            match read {
                Ok(event) => {
                    if event.agent.registered().is_some() {
                        fed.deviations.extend(self.tick_before(event.at));
                    }
                    let source = event.source;
                    if source.is_audit() {
                        self.audited_until = self.audited_until.max(Some(event.at));
                    }
                    let input = input(Box::new(event));
                    let (verdict, deviations) = self.engine.step(&input);
                    fed.events.push((source, verdict));
                    fed.deviations.extend(deviations);
                    if let Input::Event(event) = &input {
                        fed.deviations.extend(self.engine.use_credential(event));
                    }
                }
                Err(rejection) => fed.rejections.push(rejection),
            }
        }
        fed
    }

    fn tick_before(&mut self, at: Millis) -> Vec<Deviation> {
        let due = at.div_euclid(TICK) * TICK;
        if due <= self.tick {
            return Vec::new();
        }
        self.tick = due;
        self.engine.step(&Input::Tick { at: due, audited_until: self.audited_until }).1
    }
}
