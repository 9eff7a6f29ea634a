//! The hop: decodes, resolves and redacts the sources' records and appends them to the log, keyed by agent. Stateless, but
//! for which uses of credentials it told of lately.

use std::sync::Arc;

use anyhow::Result;
use tautline_detectors::event::{Event, Millis};
use tautline_detectors::rulebook::Rulebook;
use tautline_ingest::log::LogRecord;
use tautline_ingest::redact::Redactor;
use tautline_ingest::{Reason, Rejection};

use super::Shared;
use super::client::Output;
use super::pump::{Assigned, Record, Stage, now};
use crate::credential_uses::Told;
use crate::output::ocsf::Position;

/// Most bytes of a record in the log, below the broker's default limit for a batch of one.
const MOST_LOGGED: usize = 900 * 1_024;

pub(super) struct Hop {
    shared: Arc<Shared>,
    log: Arc<str>,
    redactor: Redactor,
    /// The rulebook that resolves, until the next commit.
    book: Arc<Rulebook>,
    /// Uses of credentials that the log has already been told of.
    told: Told,
    /// How many partitions are ours.
    partitions: usize,
    /// Rejections of the open batch, counted once they are committed.
    rejections: Vec<Rejection>,
}

impl Hop {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let log = shared.config.log.topic.as_str().into();
        let (book, redactor) = (shared.book(), shared.redactor.clone());
        Self { shared, log, redactor, book, told: Told::default(), partitions: 0, rejections: Vec::new() }
    }

    /// Appends a record's events to the log.
    fn append(&mut self, record: &Record<'_>, outputs: &mut Vec<Output>) -> Result<()> {
        let mut rejected = Vec::new();
        let shared = Arc::clone(&self.shared);
        let topic = &*record.partition.topic;
        let Some(source) = shared.config.sources.iter().find(|source| source.topic == topic) else { return Ok(()) };
        for read in self.redactor.read(record.payload, &source.reader, record.timestamp.min(now()), &self.book) {
            let logged = read.and_then(|event| {
                let told = self.credential_use(&event);
                let key = event.agent.key();
                let event = LogRecord::Event { event: Box::new(event), resolved_by: self.book.hash().to_owned() };
                let event = self.output(&event, key, record.timestamp)?;
                let told = told.map(|(key, told)| self.output(&told, key, record.timestamp)).transpose()?;
                Ok([Some(event), told])
            });
            match logged {
                Ok(logged) => outputs.extend(logged.into_iter().flatten()),
                Err(rejection) => rejected.push(rejection),
            }
        }
        if !rejected.is_empty() {
            outputs.extend(dead_letter_of(&shared, record, &rejected)?);
            self.rejections.append(&mut rejected);
        }
        Ok(())
    }
}

impl Hop {
    /// A record for the log.
    fn output(&self, logged: &LogRecord, key: String, timestamp: Millis) -> Result<Output, Rejection> {
        let payload = logged.to_bytes().map_err(|_| too_large("it cannot be written as JSON"))?;
        if payload.len() > MOST_LOGGED {
            return Err(too_large(&format!("{} bytes in the log, over {MOST_LOGGED}", payload.len())));
        }
        Ok(Output { topic: Arc::clone(&self.log), key, payload, timestamp, ..Output::default() })
    }

    /// What the partition of a credential is told of its use, with that partition's key.
    fn credential_use(&mut self, event: &Event) -> Option<(String, LogRecord)> {
        self.told.is_news(event).then(|| {
            let told = LogRecord::CredentialUse { event: Box::new(event.without_contents()) };
            (format!("credential/{}", event.credential.id), told)
        })
    }
}

impl Stage for Hop {
    fn topics(&self) -> Vec<&str> {
        self.shared.config.sources.iter().map(|source| source.topic.as_str()).collect()
    }

    fn assigned(&mut self, assigned: Assigned) -> Result<i64> {
        self.partitions += 1;
        Ok(assigned.committed.unwrap_or(assigned.begins))
    }

    fn revoked(&mut self, _slot: usize) {
        self.partitions -= 1;
    }

    fn records(&mut self, records: &[Record<'_>], outputs: &mut Vec<Output>) -> Result<()> {
        records.iter().try_for_each(|record| self.append(record, outputs))
    }

    fn before_commit(&mut self, _outputs: &mut Vec<Output>) -> Result<()> {
        self.book = self.shared.book();
        Ok(())
    }

    fn note(&self, _slot: usize, _next: i64) -> Option<String> {
        Some(String::new())
    }

    fn committed(&mut self) {
        for rejection in self.rejections.drain(..) {
            self.shared.status.metrics.rejected(&rejection);
        }
    }

    fn ready(&self) -> bool {
        self.partitions > 0
    }
}

fn too_large(detail: &str) -> Rejection {
    Rejection { reason: Reason::TooLarge, detail: detail.to_owned(), index: None }
}

/// The dead letter of a record that could not be read; none where nothing of it is lost.
pub(super) fn dead_letter_of(shared: &Shared, record: &Record<'_>, rejections: &[Rejection]) -> Result<Option<Output>> {
    let lost: Vec<&Rejection> = rejections.iter().filter(|rejection| !rejection.is_ignored()).collect();
    if lost.is_empty() {
        return Ok(None);
    }
    let topic = record.partition.topic.to_string();
    let position = Position { topic: topic.clone(), partition: record.partition.number, offset: record.offset };
    let letter = shared.letters.letter(record.payload, &lost, &position, record.timestamp)?;
    Ok(Some(Output {
        topic: shared.config.outputs.dead_letter.as_str().into(),
        key: topic,
        payload: letter.to_string().into_bytes(),
        timestamp: record.timestamp,
        ..Output::default()
    }))
}
