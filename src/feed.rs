//! From bytes to deviations without a broker: decode, resolve, step. What `replay`, `demo` and `check` share.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use flate2::read::MultiGzDecoder;
use indicatif::ProgressBar;
use tautline_detectors::deviation::Deviation;
use tautline_detectors::engine::{Engine, Input, Verdict};
use tautline_detectors::event::{Event, Millis, Source};
use tautline_detectors::rulebook::Rulebook;
use tautline_ingest::resolve::resolve;
use tautline_ingest::{Format, RECORD_MAX, Rejection, decode};

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
    format: Format,
    tick: Millis,
    audited_until: Option<Millis>,
}

impl Feed {
    pub(crate) fn new(book: Arc<Rulebook>, format: Format) -> Self {
        Self { engine: Engine::new(book), format, tick: Millis::MIN, audited_until: None }
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
        for decoded in decode(bytes, self.format, received) {
            match decoded {
                Ok(mut event) => {
                    resolve(&mut event, self.engine.rulebook());
                    if event.agent.registered().is_some() {
                        fed.deviations.extend(self.tick_before(event.at));
                    }
                    let source = event.source;
                    if source.is_audit() {
                        self.audited_until = self.audited_until.max(Some(event.at));
                    }
                    let (verdict, deviations) = self.engine.step(&input(Box::new(event)));
                    fed.events.push((source, verdict));
                    fed.deviations.extend(deviations);
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

/// The records of a file, one a line; `-` is standard input, and gzip is recognised by its first bytes.
pub(crate) struct Records {
    reader: Box<dyn BufRead + Send>,
}

impl Records {
    /// Opens a file; what is read of it moves the bar.
    pub(crate) fn open(path: &Path, bar: &ProgressBar) -> Result<Self> {
        let raw: Box<dyn Read + Send> = if path == Path::new("-") {
            Box::new(io::stdin())
        } else {
            Box::new(File::open(path).with_context(|| format!("cannot open `{}`", path.display()))?)
        };
        Self::of(bar.wrap_read(raw)).with_context(|| format!("cannot read `{}`", path.display()))
    }

    pub(crate) fn of(raw: impl Read + Send + 'static) -> io::Result<Self> {
        let mut buffered = BufReader::with_capacity(256 * 1_024, raw);
        let zipped = buffered.fill_buf()?.starts_with(&[0x1f, 0x8b]);
        let reader: Box<dyn BufRead + Send> =
            if zipped { Box::new(BufReader::new(MultiGzDecoder::new(buffered))) } else { Box::new(buffered) };
        Ok(Self { reader })
    }

    /// The next record's bytes without the line's end; `false` at the end. A line over the bound for records is read
    /// to just past it, so that its rejection can say so, and the rest of it is skipped.
    pub(crate) fn next_into(&mut self, record: &mut Vec<u8>) -> io::Result<bool> {
        record.clear();
        let bound = u64::try_from(RECORD_MAX).unwrap_or(u64::MAX).saturating_add(2);
        if (&mut self.reader).take(bound).read_until(b'\n', record)? == 0 {
            return Ok(false);
        }
        if record.last() == Some(&b'\n') {
            record.pop();
        } else {
            self.reader.skip_until(b'\n')?;
        }
        if record.last() == Some(&b'\r') {
            record.pop();
        }
        Ok(true)
    }
}
