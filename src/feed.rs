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
    /// How many were found besides that exceptions expect, or by controls on trial.
    pub(crate) hushed: usize,
    /// Members that could not be read.
    pub(crate) rejections: Vec<Rejection>,
}

/// Time where nobody but the registered agents' events tells it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    tick: Millis,
    audited_until: Option<Millis>,
}

impl Default for Clock {
    fn default() -> Self {
        Self { tick: Millis::MIN, audited_until: None }
    }
}

impl Clock {
    /// The tick that is due before an event.
    pub(crate) fn tick_before(&mut self, event: &Event) -> Option<Input> {
        let due = event.at.div_euclid(TICK) * TICK;
        let is_due = event.agent.registered().is_some() && due > self.tick;
        let tick = is_due.then_some(Input::Tick { at: due, audited_until: self.audited_until });
        if is_due {
            self.tick = due;
        }
        if event.source.is_audit() {
            self.audited_until = self.audited_until.max(Some(event.at));
        }
        tick
    }
}

/// An engine that is fed records. Ticks come from the time of the registered agents' events.
#[derive(Debug)]
pub(crate) struct Feed {
    engine: Engine,
    redactor: Redactor,
    reader: Reader,
    clock: Clock,
}

impl Feed {
    pub(crate) fn new(book: Arc<Rulebook>, redactor: Redactor, reader: impl Into<Reader>) -> Self {
        Self { engine: Engine::new(book), redactor, reader: reader.into(), clock: Clock::default() }
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
                    let tick = self.clock.tick_before(&event);
                    if let Some(tick) = tick {
                        fed.deviations.extend(self.engine.step(&tick).1);
                        fed.hushed += self.engine.hushed().len();
                    }
                    let source = event.source;
                    let input = input(Box::new(event));
                    let (verdict, deviations) = self.engine.step(&input);
                    fed.events.push((source, verdict));
                    fed.deviations.extend(deviations);
                    if let Input::Event(event) = &input {
                        fed.deviations.extend(self.engine.use_credential(event));
                    }
                    fed.hushed += self.engine.hushed().len();
                }
                Err(rejection) => fed.rejections.push(rejection),
            }
        }
        fed
    }
}
