//! The wire: bytes in, events out.
//!
//! One file per format. A decoder takes what the bytes say and nothing else: who the agent is, which environment a
//! place belongs to and how sensitive a resource is are resolved later, against the rulebook. Whatever cannot be
//! decoded becomes a [`Rejection`] that says why; no input makes a decoder panic.

use std::borrow::Cow;
use std::fmt;

use sha2::{Digest as _, Sha256};
use tautline_detectors::event::{Digest, Event, Millis, Source};

pub mod agent_action;
mod audit;
mod aws;
mod azure;
pub mod cloudtrail;
mod format;
mod gcp;
mod github;
mod json;
mod kubernetes;
pub mod log;
mod ocsf;
pub mod resolve;
mod wire;

pub use format::Format;
use format::{Opened, Wire};
use wire::List;

/// The most bytes that one record may have.
pub const RECORD_MAX: usize = 16 * 1_024 * 1_024;

/// The most members that one batch may have.
pub const BATCH_MAX: usize = 65_536;

/// The earliest time that is believed, 2000-01-01T00:00:00Z.
pub const EARLIEST: Millis = 946_684_800_000;

/// How far the time of an event may lie after its receipt: 15 minutes. Time in the engine comes from events; one clock
/// that runs ahead must not drag an agent's windows along.
pub const AHEAD_MAX: Millis = 15 * 60 * 1_000;

/// Why a record, or a member of one, was not decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The kind of reason, bounded: a metric's label.
    pub reason: Reason,
    /// What is wrong and where. It quotes no argument and no reasoning.
    pub detail: String,
    /// Which member of a batch it was, from 0; `None` if the whole record is rejected.
    pub index: Option<usize>,
}

impl Rejection {
    pub(crate) fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Rejection { reason, detail: detail.into(), index: None }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(index) = self.index {
            write!(f, "member {index}: ")?;
        }
        write!(f, "{}: {}", self.reason.name(), self.detail)
    }
}

impl std::error::Error for Rejection {}

/// The kind of reason for a rejection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Nothing in it: no bytes, or a batch without members.
    Empty,
    /// The bytes are not UTF-8.
    NotUtf8,
    /// The text is not one JSON document.
    NotJson,
    /// Nested too deep.
    TooDeep,
    /// The record or a part of it is over its bound.
    TooLarge,
    /// JSON, but of no format known here.
    UnknownFormat,
    /// Of a known format, but of a kind or version that says nothing about a request.
    Unsupported,
    /// A required field is not there.
    MissingField,
    /// A field has another JSON type than it should.
    WrongType,
    /// A field has the right type and a value that cannot be.
    InvalidValue,
    /// The time of the event cannot be right.
    ImplausibleTime,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Reason; 11] = [
        Reason::Empty,
        Reason::NotUtf8,
        Reason::NotJson,
        Reason::TooDeep,
        Reason::TooLarge,
        Reason::UnknownFormat,
        Reason::Unsupported,
        Reason::MissingField,
        Reason::WrongType,
        Reason::InvalidValue,
        Reason::ImplausibleTime,
    ];

    /// The name used in metrics and the dead-letter topic.
    pub fn name(self) -> &'static str {
        match self {
            Reason::Empty => "empty",
            Reason::NotUtf8 => "not-utf8",
            Reason::NotJson => "not-json",
            Reason::TooDeep => "too-deep",
            Reason::TooLarge => "too-large",
            Reason::UnknownFormat => "unknown-format",
            Reason::Unsupported => "unsupported",
            Reason::MissingField => "missing-field",
            Reason::WrongType => "wrong-type",
            Reason::InvalidValue => "invalid-value",
            Reason::ImplausibleTime => "implausible-time",
        }
    }
}

/// Decodes one record: whatever its format has as one event, a batch or an envelope, or a JSON array of those.
///
/// `received` is when the record arrived by our own clock or the broker's. A batch gives one result per member, in
/// order; anything else gives exactly one.
pub fn decode(bytes: &[u8], format: Format, received: Millis) -> Vec<Result<Event, Rejection>> {
    let text = match record_text(bytes) {
        Ok(text) => text,
        Err(rejection) => return vec![Err(rejection)],
    };
    let mut decoded = Decoded { received, results: Vec::new(), is_batch: false };
    if text.starts_with('[') {
        decoded.array(text, format)
    } else {
        decoded.record(text, format)
    }
    decoded.numbered()
}

/// What was decoded of one record so far.
struct Decoded {
    received: Millis,
    results: Vec<Result<Event, Rejection>>,
    is_batch: bool,
}

impl Decoded {
    /// Decodes records that stand in an array, each for itself.
    fn array(&mut self, text: &str, format: Format) {
        self.is_batch = true;
        match wire::list::<BATCH_MAX>(text) {
            Ok(List(records)) if records.is_empty() => {
                self.refuse(Rejection::new(Reason::Empty, "the array has no members"));
            }
            Ok(List(records)) => records.iter().for_each(|record| self.record(record.get(), format)),
            Err(rejection) => {
                self.is_batch = false;
                self.refuse(rejection);
            }
        }
    }

    fn record(&mut self, text: &str, format: Format) {
        let wire = match format::wire_of(text, format) {
            Ok(wire) => wire,
            Err(rejection) => return self.refuse(rejection),
        };
        if let Some(event) = (wire.sole)(text) {
            return self.results.push(finish(Ok(event), text, self.received));
        }
        match (wire.open)(text) {
            Err(rejection) => self.refuse(rejection),
            Ok(Opened::One(json)) => self.event(wire, &json),
            Ok(Opened::Many(members)) => {
                self.is_batch = true;
                members.iter().for_each(|member| self.event(wire, member.get()));
            }
        }
    }

    fn event(&mut self, wire: &Wire, json: &str) {
        self.results.push(finish((wire.decode)(json), json, self.received));
    }

    fn refuse(&mut self, rejection: Rejection) {
        self.results.push(Err(rejection));
    }

    /// The results; in a batch, what is refused has its number.
    fn numbered(mut self) -> Vec<Result<Event, Rejection>> {
        if self.is_batch {
            for (index, result) in self.results.iter_mut().enumerate() {
                if let Err(rejection) = result {
                    rejection.index = Some(index);
                }
            }
        }
        self.results
    }
}

/// The record as text, if it is that and within bounds.
fn record_text(bytes: &[u8]) -> Result<&str, Rejection> {
    if bytes.len() > RECORD_MAX {
        let detail = format!("the record has {} bytes, more than {RECORD_MAX}", bytes.len());
        return Err(Rejection::new(Reason::TooLarge, detail));
    }
    let bytes = bytes.trim_ascii();
    if bytes.is_empty() {
        return Err(Rejection::new(Reason::Empty, "the record has no content"));
    }
    std::str::from_utf8(bytes)
        .map_err(|error| Rejection::new(Reason::NotUtf8, format!("invalid UTF-8 after byte {}", error.valid_up_to())))
}

/// Adds what every event has: the digest of its own bytes, and a time that can be.
fn finish(decoded: Result<Event, Rejection>, json: &str, received: Millis) -> Result<Event, Rejection> {
    let event = decoded?;
    let late = received.saturating_add(AHEAD_MAX);
    if event.at < EARLIEST {
        let detail = format!("{} is before {}", clock(event.at), clock(EARLIEST));
        return Err(Rejection::new(Reason::ImplausibleTime, detail));
    }
    if event.at > late {
        let detail = format!("{} is more than 15 minutes after its receipt at {}", clock(event.at), clock(received));
        return Err(Rejection::new(Reason::ImplausibleTime, detail));
    }
    let digest = digest(json);
    let id = match event.source {
        // An agent picks its own ids. With its content in the identity, a second action under a used id is a second event.
        Source::AgentAction => format!("{}/{:08x}", event.id, digest.0 >> 96),
        // Where the source gave the record no key, its content is what it is known by.
        _ if event.id.ends_with('/') => format!("{}{:032x}", event.id, digest.0),
        _ => event.id,
    };
    Ok(Event { id, digest, ..event })
}

/// A time as people read it.
fn clock(at: Millis) -> Cow<'static, str> {
    jiff::Timestamp::from_millisecond(at)
        .map_or(Cow::Borrowed("a time out of range"), |time| Cow::Owned(format!("`{time}`")))
}

fn digest(json: &str) -> Digest {
    let digest = Sha256::digest(json);
    Digest(digest.first_chunk::<16>().map_or(0, |first| u128::from_be_bytes(*first)))
}
