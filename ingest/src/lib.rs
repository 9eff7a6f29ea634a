//! The wire: bytes in, events out.
//!
//! One file per format. A decoder takes what the bytes say and nothing else: who the agent is, which environment a
//! place belongs to and how sensitive a resource is are resolved later, against the rulebook. Whatever cannot be
//! decoded becomes a [`Rejection`] that says why; no input makes a decoder panic.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use tautline_detectors::event::{Digest, Event, Millis, Source};
use twox_hash::XxHash3_128;

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
pub mod mapping;
mod mcp;
mod ocsf;
mod otlp;
mod payload;
mod protobuf;
pub mod redact;
pub mod resolve;
mod statement;
mod tool;
mod wire;

pub use format::Format;
use format::{Opened, Read, Wire};
use json::Raw;
use mapping::Mapped;
pub use mapping::Mapping;
use wire::List;

/// The most bytes that one record may have, and that one may unpack to.
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
    /// Whether nothing is lost by it.
    pub fn is_ignored(&self) -> bool {
        self.reason == Reason::NotARequest
    }

    pub(crate) fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Rejection { reason, detail: detail.into(), index: None }
    }

    pub(crate) fn not_a_request(detail: impl Into<String>) -> Self {
        Rejection::new(Reason::NotARequest, detail)
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
    /// Compressed, and does not unpack.
    Damaged,
    /// The bytes are not UTF-8.
    NotUtf8,
    /// The text is not one JSON document.
    NotJson,
    /// The bytes are not a protobuf message of the format's.
    NotProtobuf,
    /// Nested too deep.
    TooDeep,
    /// The record or a part of it is over its bound.
    TooLarge,
    /// JSON, but of no format known here.
    UnknownFormat,
    /// Of a known format, but of a kind or version that is not read.
    Unsupported,
    /// What stands beside requests in a log by its nature (another span, another message) and tells of none. It is counted,
    /// and is no dead letter.
    NotARequest,
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
    pub const ALL: [Reason; 14] = [
        Reason::Empty,
        Reason::Damaged,
        Reason::NotUtf8,
        Reason::NotJson,
        Reason::NotProtobuf,
        Reason::TooDeep,
        Reason::TooLarge,
        Reason::UnknownFormat,
        Reason::Unsupported,
        Reason::NotARequest,
        Reason::MissingField,
        Reason::WrongType,
        Reason::InvalidValue,
        Reason::ImplausibleTime,
    ];

    /// The name used in metrics and the dead-letter topic.
    pub fn name(self) -> &'static str {
        match self {
            Reason::Empty => "empty",
            Reason::Damaged => "damaged",
            Reason::NotUtf8 => "not-utf8",
            Reason::NotJson => "not-json",
            Reason::NotProtobuf => "not-protobuf",
            Reason::TooDeep => "too-deep",
            Reason::TooLarge => "too-large",
            Reason::UnknownFormat => "unknown-format",
            Reason::Unsupported => "unsupported",
            Reason::NotARequest => "not-a-request",
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
    Decoded::of(received, |decoded| decoded.bytes(bytes, format))
}

/// How the records of a source are read.
#[derive(Clone, Debug)]
pub enum Reader {
    /// By a format that is known here.
    Format(Format),
    /// By a mapping that the configuration declares.
    Mapping(Arc<Mapping>),
}

impl Reader {
    /// Decodes one record; see [`decode`].
    pub fn decode(&self, bytes: &[u8], received: Millis) -> Vec<Result<Event, Rejection>> {
        match self {
            Reader::Format(format) => decode(bytes, *format, received),
            Reader::Mapping(mapping) => mapping.decode(bytes, received),
        }
    }
}

impl Default for Reader {
    fn default() -> Self {
        Reader::Format(Format::Auto)
    }
}

impl From<Format> for Reader {
    fn from(format: Format) -> Self {
        Reader::Format(format)
    }
}

/// What was decoded of one record so far.
struct Decoded {
    received: Millis,
    results: Vec<Result<Event, Rejection>>,
    is_batch: bool,
}

impl Decoded {
    /// What a record decodes to.
    fn of(received: Millis, read: impl FnOnce(&mut Self) -> Result<(), Rejection>) -> Vec<Result<Event, Rejection>> {
        // Most records hold one event. A vector that grows by itself makes room for four at first.
        let mut decoded = Decoded { received, results: Vec::with_capacity(1), is_batch: false };
        if let Err(rejection) = read(&mut decoded) {
            decoded.refuse(rejection);
        }
        decoded.numbered()
    }

    fn bytes(&mut self, bytes: &[u8], format: Format) -> Result<(), Rejection> {
        let bytes = bare(bytes)?;
        if format == Format::OtlpProto || (format == Format::Auto && otlp::is_proto(&bytes)) {
            self.read(otlp::open_proto(&bytes)?);
            return Ok(());
        }
        let text = record_text(&bytes)?;
        if !text.starts_with('[') {
            self.record(text, format);
            return Ok(());
        }
        let records = array(text)?;
        if format == Format::Mcp || (format == Format::Auto && mcp::is_log(&records)) {
            self.read(mcp::paired(&records));
        } else {
            self.is_batch = true;
            records.iter().for_each(|record| self.record(record.get(), format));
        }
        Ok(())
    }

    fn mapped(&mut self, mapped: Result<Mapped, Rejection>) {
        match mapped {
            Err(rejection) => self.refuse(rejection),
            Ok(Mapped::Many(members)) => self.read(members),
            Ok(Mapped::One(read)) => self.known(*read),
        }
    }

    fn record(&mut self, text: &str, format: Format) {
        let wire = match format::wire_of(text, format) {
            Ok(wire) => wire,
            Err(rejection) => return self.refuse(rejection),
        };
        if let Some(event) = (wire.sole)(text) {
            return self.keep(Ok(event), |event| digest(event, text));
        }
        match (wire.open)(text) {
            Err(rejection) => self.refuse(rejection),
            Ok(Opened::One(json)) => self.event(wire, &json),
            Ok(Opened::Many(members)) => {
                self.is_batch = true;
                members.iter().for_each(|member| self.event(wire, member.get()));
            }
            Ok(Opened::Read(members)) => self.read(members),
        }
    }

    fn event(&mut self, wire: &Wire, json: &str) {
        self.keep((wire.decode)(json), |event| digest(event, json));
    }

    fn read(&mut self, members: Vec<Read>) {
        self.is_batch = true;
        members.into_iter().for_each(|member| self.known(member));
    }

    fn known(&mut self, read: Read) {
        match read {
            Ok((event, digest)) => self.keep(Ok(event), |_| digest),
            Err(rejection) => self.refuse(rejection),
        }
    }

    /// Keeps what was decoded, finished where it lies: an event has a thousand bytes, which are not to be moved in vain.
    fn keep(&mut self, mut decoded: Result<Event, Rejection>, digest: impl FnOnce(&Event) -> Digest) {
        if let Ok(event) = &mut decoded
            && let Err(rejection) = finish(event, digest, self.received)
        {
            decoded = Err(rejection);
        }
        self.push(decoded);
    }

    fn refuse(&mut self, rejection: Rejection) {
        self.push(Err(rejection));
    }

    /// Keeps a result. An array may hold batches, so that its own bound is not one for what is in it: what is more than a
    /// batch may have is refused, once.
    fn push(&mut self, result: Result<Event, Rejection>) {
        match self.results.len() {
            0..BATCH_MAX => self.results.push(result),
            BATCH_MAX => {
                let detail = format!("more than {BATCH_MAX} members; those from here on are not read");
                self.results.push(Err(Rejection::new(Reason::TooLarge, detail)));
            }
            _ => {}
        }
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

/// The bytes of the record without what lies around them.
fn bare(bytes: &[u8]) -> Result<Cow<'_, [u8]>, Rejection> {
    if bytes.len() <= RECORD_MAX {
        return payload::bare(bytes);
    }
    let detail = format!("the record has {} bytes, more than {RECORD_MAX}", bytes.len());
    Err(Rejection::new(Reason::TooLarge, detail))
}

/// What some tools write before a text in UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The record as text, if it is that.
fn record_text(bytes: &[u8]) -> Result<&str, Rejection> {
    let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
    // Read once from its beginning to its end, before anything looks at the end: memory is fetched ahead that way.
    let text = simdutf8::basic::from_utf8(bytes).map_err(|_| not_utf8(bytes.trim_ascii()))?.trim_ascii();
    if text.is_empty() {
        return Err(Rejection::new(Reason::Empty, "the record has no content"));
    }
    Ok(text)
}

/// The rejection of a record that is no text, and where.
fn not_utf8(bytes: &[u8]) -> Rejection {
    let valid = std::str::from_utf8(bytes).map_or_else(|error| error.valid_up_to(), str::len);
    Rejection::new(Reason::NotUtf8, format!("invalid UTF-8 after byte {valid}"))
}

/// The members of an array, not looked into yet.
fn array(text: &str) -> Result<Vec<Raw<'_>>, Rejection> {
    let List(records) = wire::list::<BATCH_MAX>(text)?;
    if records.is_empty() {
        return Err(Rejection::new(Reason::Empty, "the array has no members"));
    }
    Ok(records)
}

/// Adds what every event has: the digest of its own bytes, and a time that can be.
fn finish(event: &mut Event, digest: impl FnOnce(&Event) -> Digest, received: Millis) -> Result<(), Rejection> {
    let late = received.saturating_add(AHEAD_MAX);
    if event.at < EARLIEST {
        let detail = format!("{} is before {}", clock(event.at), clock(EARLIEST));
        return Err(Rejection::new(Reason::ImplausibleTime, detail));
    }
    if event.at > late {
        let detail = format!("{} is more than 15 minutes after its receipt at {}", clock(event.at), clock(received));
        return Err(Rejection::new(Reason::ImplausibleTime, detail));
    }
    event.digest = digest(event);
    let Digest(digest) = event.digest;
    match event.source {
        // Where the source gave the record no key, its content is what it is known by.
        source if event.id.ends_with('/') && (source.is_audit() || source == Source::Mapping) => {
            event.id = format!("{}{digest:032x}", event.id);
        }
        // An agent picks its own ids. With its content in the identity, a second action under a used id is a second event.
        source if !source.is_audit() => event.id = format!("{}/{:08x}", event.id, digest >> 96),
        _ => {}
    }
    Ok(())
}

/// A time as people read it.
fn clock(at: Millis) -> Cow<'static, str> {
    jiff::Timestamp::from_millisecond(at)
        .map_or(Cow::Borrowed("a time out of range"), |time| Cow::Owned(format!("`{time}`")))
}

/// The digest of what an event was decoded from, by which repeats are told.
///
/// Whoever finds two contents of one digest can have an event passed over as a repeat, so it is a SHA-256 of every byte. Of a
/// CloudTrail record it is one of the id, which CloudTrail makes at random for one event, and of a checksum of every byte,
/// which only has to tell apart what came under one id.
fn digest(event: &Event, json: &str) -> Digest {
    match event.source {
        Source::Cloudtrail => {
            let checksum = XxHash3_128::oneshot(json.as_bytes()).to_be_bytes();
            digest_of(Sha256::new().chain_update(&event.id).chain_update(checksum))
        }
        _ => digest_of(Sha256::new().chain_update(json)),
    }
}

fn digest_of(hash: Sha256) -> Digest {
    Digest(hash.finalize().first_chunk::<16>().map_or(0, |first| u128::from_be_bytes(*first)))
}
