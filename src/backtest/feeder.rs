//! From records to tasks: decoded once, resolved once where the rulebooks resolve alike, and given to the shard of the agent
//! or of the credential.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, Hash};
use std::iter::repeat_n;
use std::sync::Arc;

use anyhow::Result;
use rustc_hash::FxBuildHasher;
use tautline_detectors::engine::Input;
use tautline_detectors::event::{Event, Millis};
use tautline_detectors::rulebook::Rulebook;
use tautline_ingest::log::LogRecord;
use tautline_ingest::redact::Redactor;
use tautline_ingest::resolve::resolve_again;
use tautline_ingest::{Reader, Rejection};

use super::report::day;
use super::shards::{Found, Shards, Task};
use crate::credential_uses::Told;
use crate::feed::Clock;
use crate::rules::RulebookStore;

/// Events in a round of the engines.
const ROUND: u64 = 4_096;

/// One record to judge, or to learn from.
pub(super) struct Record<'r> {
    /// Which of the sequences that know nothing of each other it belongs to.
    pub(super) lane: usize,
    pub(super) kind: Kind<'r>,
    pub(super) bytes: &'r [u8],
    pub(super) received: Millis,
}

/// What a record is.
#[derive(Clone, Copy)]
pub(super) enum Kind<'r> {
    /// Accepted past: learned, not judged.
    History(&'r Reader),
    /// Of a source. Time comes from the events.
    Source(&'r Reader),
    /// Of a source that is the log itself, with ticks of its own between.
    Direct(&'r Reader),
    /// Of the log.
    Log,
}

/// What the events hold that were read.
#[derive(Debug, Default)]
pub(super) struct Read {
    pub(super) events: u64,
    pub(super) learned: u64,
    pub(super) ignored: u64,
    pub(super) unreadable: u64,
    /// Days since 1970 of the judged events.
    pub(super) days: BTreeSet<i64>,
}

/// A rulebook that resolves events, for itself or for all.
struct Ground {
    book: Arc<Rulebook>,
    /// The only rulebook for which it does.
    side: Option<usize>,
    clock: Clock,
    told: Told,
}

pub(super) struct Feeder {
    grounds: Vec<Ground>,
    redactor: Redactor,
    /// Where the rulebooks are that resolved the log's events; `None` where there are none.
    store: Option<RulebookStore>,
    /// Of the rulebooks that resolved the log's events: whether each ground resolves as they did.
    resolved_alike: BTreeMap<String, Vec<bool>>,
    /// The same of the latest.
    alike: Vec<bool>,
    shards: Shards,
    position: u64,
    pub(super) read: Read,
}

impl Feeder {
    pub(super) fn new(
        books: &[Arc<Rulebook>],
        (lanes, threads): (usize, usize),
        redactor: Redactor,
        store: Option<RulebookStore>,
    ) -> Result<Self> {
        let alike = books.iter().zip(books.iter().skip(1)).all(|(one, other)| one.resolves_as(other));
        let ground = |(number, book): (usize, &Arc<Rulebook>)| Ground {
            book: Arc::clone(book),
            side: (!alike).then_some(number),
            clock: Clock::default(),
            told: Told::default(),
        };
        let grounds = books.iter().enumerate().take(if alike { 1 } else { books.len() }).map(ground);
        let shards = Shards::start(books, lanes, threads)?;
        let grounds: Vec<Ground> = grounds.collect();
        let (resolved_alike, alike, read) = (BTreeMap::new(), vec![true; grounds.len()], Read::default());
        Ok(Self { grounds, redactor, store, resolved_alike, alike, shards, position: 0, read })
    }

    /// Takes a record; returns why not all of it could be read, and what was found meanwhile.
    pub(super) fn take(&mut self, record: &Record<'_>) -> Result<(Vec<Rejection>, Vec<Found>)> {
        let before = self.position / ROUND;
        let rejections = match record.kind {
            Kind::Log => self.take_logged(record),
            Kind::History(reader) | Kind::Source(reader) | Kind::Direct(reader) => self.take_events(record, reader),
        };
        let lost = rejections.iter().filter(|rejection| !rejection.is_ignored()).count();
        self.read.unreadable += u64::try_from(lost).unwrap_or_default();
        self.read.ignored += u64::try_from(rejections.len() - lost).unwrap_or_default();
        let found = if self.position / ROUND > before { self.shards.round()? } else { Vec::new() };
        Ok((rejections, found))
    }

    /// What is found at last.
    pub(super) fn finish(self) -> Result<(Read, Vec<Found>)> {
        Ok((self.read, self.shards.finish()?))
    }

    fn take_events(&mut self, record: &Record<'_>, reader: &Reader) -> Vec<Rejection> {
        let mut rejections = Vec::new();
        for decoded in self.redactor.decode(record.bytes, reader, record.received) {
            if let Err(why) = decoded.and_then(|event| self.take_event(record, event)) {
                rejections.push(why);
            }
        }
        rejections
    }

    fn take_event(&mut self, record: &Record<'_>, event: Event) -> Result<(), Rejection> {
        self.position += 1;
        let (speaks, position, many) = (!matches!(record.kind, Kind::History(_)), self.position, self.grounds.len());
        let at = event.at;
        for (ground, mut event) in self.grounds.iter_mut().zip(repeat_n(event, many)) {
            self.redactor.resolve(&mut event, &ground.book)?;
            let task = |input| Task { position, side: ground.side, speaks, input };
            let tick = if matches!(record.kind, Kind::Direct(_)) { None } else { ground.clock.tick_before(&event) };
            if let Some(tick) = tick {
                self.shards.give_all(record.lane, &task(tick));
            }
            let told = speaks && ground.told.is_news(&event);
            let told = told.then(|| (hash(&event.credential.id), Box::new(event.without_contents())));
            let (of_agent, event) = (hash(&event.agent), Box::new(event));
            let input = if speaks { Input::Event(event) } else { Input::Accepted(event) };
            self.shards.give(record.lane, of_agent, task(input));
            if let Some((of_credential, told)) = told {
                self.shards.give(record.lane, of_credential, task(Input::CredentialUse(told)));
            }
        }
        self.count(speaks, at);
        Ok(())
    }

    fn take_logged(&mut self, record: &Record<'_>) -> Vec<Rejection> {
        self.position += 1;
        match LogRecord::from_bytes(record.bytes) {
            Err(why) => return vec![why],
            Ok(LogRecord::Event { event, resolved_by }) => {
                self.count(true, event.at);
                self.alike = self.resolved_alike(&resolved_by);
                self.give_resolved(record.lane, *event, Input::Event, |event| hash(&event.agent));
            }
            // Which rulebook resolved it, the record does not say: that which resolved the event before it.
            Ok(LogRecord::CredentialUse { event }) => {
                self.give_resolved(record.lane, *event, Input::CredentialUse, |event| hash(&event.credential.id));
            }
            Ok(LogRecord::Tick { at, audited_until }) => {
                let input = Input::Tick { at, audited_until };
                self.shards.give_all(record.lane, &Task { position: self.position, side: None, speaks: true, input });
            }
            // What is to be tried judges everything.
            Ok(LogRecord::Rulebook { .. }) => {}
        }
        Vec::new()
    }

    /// Gives an event as it was resolved, or resolved again where a rulebook resolves otherwise.
    fn give_resolved(&mut self, lane: usize, event: Event, input: fn(Box<Event>) -> Input, of: fn(&Event) -> u64) {
        let events = repeat_n(event, self.grounds.len());
        for ((ground, alike), mut event) in self.grounds.iter().zip(&self.alike).zip(events) {
            if !alike {
                resolve_again(&mut event, &ground.book);
            }
            let (shard, input) = (of(&event), input(Box::new(event)));
            self.shards.give(lane, shard, Task { position: self.position, side: ground.side, speaks: true, input });
        }
    }

    /// Whether each ground resolves as the rulebook of a hash did; not where that is not known.
    fn resolved_alike(&mut self, hash: &str) -> Vec<bool> {
        if let Some(known) = self.resolved_alike.get(hash) {
            return known.clone();
        }
        let book = self.store.as_mut().and_then(|store| store.find(hash).ok());
        let is_alike = |ground: &Ground| {
            ground.book.hash() == hash || book.as_ref().is_some_and(|book| book.resolves_as(&ground.book))
        };
        let alike: Vec<bool> = self.grounds.iter().map(is_alike).collect();
        self.resolved_alike.insert(hash.to_owned(), alike.clone());
        alike
    }

    fn count(&mut self, speaks: bool, at: Millis) {
        if speaks {
            self.read.events += 1;
            self.read.days.insert(day(at));
        } else {
            self.read.learned += 1;
        }
    }
}

fn hash(what: &impl Hash) -> u64 {
    FxBuildHasher.hash_one(what)
}
