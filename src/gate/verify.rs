//! Answers, asked again of the log: whoever kept what a gate said can see that it was right to say so.
//!
//! An answer names the rulebook and the place in the log that it rests on. The engines' memory is a function of the log, so
//! it is learned again up to each of these places, by the rulebooks that judged there, and asked there.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use tautline_detectors::engine::{Engine, Input};
use tautline_ingest::log::LogRecord;
use tautline_ingest::redact::Redactor;

use super::act::{self, Subject};
use super::authzen::{Fault, Request};
use super::decision::Question;
use super::{Answer, Gate};
use crate::config::Config;
use crate::kafka::{self, Shape, Taken, Topics};
use crate::output::ocsf::Position;
use crate::redaction;
use crate::rules::RulebookStore;

/// A question and its answer, as they were kept.
#[derive(Deserialize)]
struct Kept {
    request: Value,
    answer: Value,
    /// Its line in the file.
    #[serde(skip)]
    line: usize,
}

impl Kept {
    /// The place that it rests on; `None` where the behaviour was not available.
    fn position(&self) -> Option<Position> {
        let position = self.answer.pointer("/context/position")?;
        serde_json::from_value(position.clone()).ok()
    }

    fn text(&self, pointer: &str) -> &str {
        self.answer.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }
}

/// What is to be asked again, by partition and then by offset, and how that goes.
struct Verifier {
    questions: BTreeMap<i32, Vec<Kept>>,
    engines: BTreeMap<i32, Engine>,
    store: RulebookStore,
    redactor: Redactor,
    gate: Gate,
    same: usize,
    differing: Vec<(usize, Value, Value)>,
}

/// Asks the kept questions of a file again, of the configuration's log, and writes those whose answers differ. Returns whether
/// there were none.
///
/// # Errors
///
/// The file or the log cannot be read, or a rulebook is no longer there.
pub(crate) fn verify(config: &Config, text: &str, out: &mut impl Write) -> Result<bool> {
    let gate = config.gate.clone().context("no `[gate]` in the configuration: it says how answers are given")?;
    let topic = config.log_topic();
    let mut questions: BTreeMap<i32, Vec<Kept>> = BTreeMap::new();
    let (mut all, mut unplaced) = (0, 0);
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let read = serde_json::from_str(line);
        let kept: Kept = read.with_context(|| format!("line {}: no `{{\"request\", \"answer\"}}`", index + 1))?;
        all += 1;
        match kept.position().filter(|position| position.topic == topic) {
            Some(position) => questions.entry(position.partition).or_default().push(Kept { line: index + 1, ..kept }),
            None => unplaced += 1,
        }
    }
    let offset = |kept: &Kept| kept.position().map_or(0, |position| position.offset);
    // The latest first: what is due next is at the end.
    questions.values_mut().for_each(|kept| kept.sort_by_key(|kept| std::cmp::Reverse(offset(kept))));
    let mut verifier = Verifier {
        questions,
        engines: BTreeMap::new(),
        store: RulebookStore::open(&config.rulebook.store)?,
        redactor: redaction::live(config)?,
        gate,
        same: 0,
        differing: Vec::new(),
    };
    for (partition, book) in kafka::first_books(config)? {
        let book = verifier.store.find(&book)?;
        verifier.engines.insert(partition, Engine::new(book));
    }
    Topics::open(config, &[topic.to_owned()])?.each(|taken| verifier.take(taken))?;
    verifier.ask_all_before(None)?;
    for (line, kept, again) in &verifier.differing {
        writeln!(out, "line {line}: answered {kept}, now {again}")?;
    }
    let (same, differing) = (verifier.same, verifier.differing.len());
    writeln!(out, "{all} answers: {same} the same, {differing} differ, {unplaced} rest on no place in `{topic}`")?;
    Ok(differing == 0)
}

impl Verifier {
    fn take(&mut self, taken: &Taken<'_>) -> Result<()> {
        self.ask_all_before(Some((taken.partition, taken.offset)))?;
        let Some(engine) = self.engines.get_mut(&taken.partition) else { return Ok(()) };
        let inputs: Vec<Input> = match taken.shape {
            Shape::Log => match LogRecord::from_bytes(taken.payload) {
                Ok(LogRecord::Event { event, .. }) => vec![Input::Event(event)],
                Ok(LogRecord::CredentialUse { event }) => vec![Input::CredentialUse(event)],
                Ok(LogRecord::Tick { at, audited_until }) => vec![Input::Tick { at, audited_until }],
                Ok(LogRecord::Rulebook { hash }) => vec![Input::Rulebook(self.store.find(&hash)?)],
                Err(_) => Vec::new(),
            },
            Shape::Direct(reader) | Shape::Source(reader) => {
                let read = self.redactor.read(taken.payload, reader, taken.received, engine.rulebook());
                read.into_iter().flatten().map(|event| Input::Event(Box::new(event))).collect()
            }
        };
        for input in &inputs {
            engine.step(input);
            if let (Input::Event(event), Shape::Direct(_)) = (input, taken.shape) {
                engine.use_credential(event);
            }
        }
        Ok(())
    }

    /// Asks what rests on no record from a place on; everything that is left, without one.
    fn ask_all_before(&mut self, place: Option<(i32, i64)>) -> Result<()> {
        let partitions: Vec<i32> = match place {
            Some((partition, _)) => vec![partition],
            None => self.questions.keys().copied().collect(),
        };
        for partition in partitions {
            while let Some(kept) = self.due(partition, place.map(|(_, offset)| offset)) {
                let again = self.ask(partition, &kept).with_context(|| format!("line {}", kept.line))?;
                if again == kept.answer {
                    self.same += 1;
                } else {
                    self.differing.push((kept.line, kept.answer, again));
                }
            }
        }
        Ok(())
    }

    fn due(&mut self, partition: i32, before: Option<i64>) -> Option<Kept> {
        let questions = self.questions.get_mut(&partition)?;
        let offset = questions.last()?.position()?.offset;
        if before.is_none_or(|next| offset <= next) { questions.pop() } else { None }
    }

    fn ask(&mut self, partition: i32, kept: &Kept) -> Result<Value> {
        let told = |fault: Fault| anyhow!("{}", fault.message);
        let engine = self.engines.get_mut(&partition).context("nothing was ever committed of its partition")?;
        let book = Arc::clone(engine.rulebook());
        let (id, time) = (kept.text("/context/id"), kept.text("/context/time"));
        let at: Timestamp = time.parse().with_context(|| format!("`{time}` is no time"))?;
        let request = Request::read(kept.request.clone()).map_err(told)?;
        let subject = Subject::of(&request, &book).context("its subject is nobody whom the rulebook knows")?;
        let event = act::event(&request, &subject, (id, at), &mut self.redactor, &book).map_err(told)?;
        let answer = Answer { opinion: engine.ask(&event), position: kept.position() };
        Ok(self.gate.unavailable.answer(Question { event: &event, id, at }, &answer, &book))
    }
}
