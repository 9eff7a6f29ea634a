//! The wire: bytes in, events out.
//!
//! One file per format. A decoder takes what the bytes say and nothing else: who the agent is, which environment a
//! place belongs to and how sensitive a resource is are resolved later, against the rulebook. Whatever cannot be
//! decoded becomes a [`Rejection`] that says why; no input makes a decoder panic.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::Deserialize;
use serde::de::IgnoredAny;
use sha2::{Digest as _, Sha256};
use tautline_detectors::event::{Digest, Event, Millis, Source};

pub mod agent_action;
pub mod cloudtrail;
mod json;
pub mod log;
pub mod resolve;
mod wire;

use json::Raw;
use wire::{List, Text, shown};

/// The most bytes that one record may have.
pub const RECORD_MAX: usize = 16 * 1_024 * 1_024;

/// The most members that one batch may have.
pub const BATCH_MAX: usize = 65_536;

/// The earliest time that is believed, 2000-01-01T00:00:00Z.
pub const EARLIEST: Millis = 946_684_800_000;

/// How far the time of an event may lie after its receipt: 15 minutes. Time in the engine comes from events; one clock
/// that runs ahead must not drag an agent's windows along.
pub const AHEAD_MAX: Millis = 15 * 60 * 1_000;

/// What the bytes of a stream are.
///
/// Give every stream its format in production: under `Auto` whoever can write agent actions can also write what looks
/// like the cloud's own word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// Whatever each record looks like.
    #[default]
    Auto,
    /// `tautline.agent.action.v1` in a CloudEvents envelope.
    AgentAction,
    /// AWS CloudTrail: one record, a log file's `{"Records": [...]}`, or an EventBridge envelope.
    Cloudtrail,
}

impl Format {
    const ALL: [Format; 3] = [Format::Auto, Format::AgentAction, Format::Cloudtrail];

    /// The name used in configuration.
    pub fn name(self) -> &'static str {
        match self {
            Format::Auto => "auto",
            Format::AgentAction => "agent-action",
            Format::Cloudtrail => "cloudtrail",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|format| format.name() == name).ok_or_else(|| {
            format!("unknown format `{}`, expected one of {}", shown(name), Self::ALL.map(Self::name).join(", "))
        })
    }
}

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

/// Decodes one record: an agent action, a CloudTrail record, a `{"Records": [...]}` batch of them or an EventBridge
/// envelope around one.
///
/// `received` is when the record arrived by our own clock or the broker's. A batch gives one result per member, in
/// order; anything else gives exactly one.
pub fn decode(bytes: &[u8], format: Format, received: Millis) -> Vec<Result<Event, Rejection>> {
    if format == Format::Cloudtrail
        && let Ok(text) = record_text(bytes)
        && let Some(event) = cloudtrail::sole(text)
    {
        return vec![finish(Ok(event), text, received)];
    }
    let parcel = record_text(bytes).and_then(|text| match format {
        Format::AgentAction => Ok(Parcel::AgentAction(text)),
        Format::Auto | Format::Cloudtrail => open(text, format),
    });
    match parcel {
        Err(rejection) => vec![Err(rejection)],
        Ok(Parcel::AgentAction(text)) => vec![finish(agent_action::decode(text), text, received)],
        Ok(Parcel::Cloudtrail(text)) => vec![finish(cloudtrail::decode(&text), &text, received)],
        Ok(Parcel::CloudtrailBatch(members)) => members
            .into_iter()
            .enumerate()
            .map(|(index, member)| {
                finish(cloudtrail::decode(member.get()), member.get(), received)
                    .map_err(|rejection| Rejection { index: Some(index), ..rejection })
            })
            .collect(),
    }
}

/// What one record holds.
enum Parcel<'a> {
    AgentAction(&'a str),
    Cloudtrail(Cow<'a, str>),
    CloudtrailBatch(Vec<Raw<'a>>),
}

/// The top-level members that tell formats apart; everything else is skipped.
#[derive(Deserialize)]
struct Probe<'a> {
    specversion: Option<IgnoredAny>,
    r#type: Option<IgnoredAny>,
    #[serde(rename = "Records", borrow)]
    records: Option<List<Raw<'a>, BATCH_MAX>>,
    #[serde(borrow)]
    detail: Option<Raw<'a>>,
    #[serde(rename = "detail-type", borrow)]
    detail_type: Option<Text<'a>>,
    #[serde(rename = "eventVersion")]
    event_version: Option<IgnoredAny>,
    #[serde(rename = "eventSource")]
    event_source: Option<IgnoredAny>,
}

/// Looks at the top level only, to tell what a record holds.
fn open(text: &str, format: Format) -> Result<Parcel<'_>, Rejection> {
    let probe: Probe<'_> = wire::object(text, "")?;
    if format == Format::Auto && probe.specversion.is_some() && probe.r#type.is_some() {
        return Ok(Parcel::AgentAction(text));
    }
    if let Some(List(members)) = probe.records {
        return if members.is_empty() {
            Err(Rejection::new(Reason::Empty, "`Records` has no members"))
        } else {
            Ok(Parcel::CloudtrailBatch(members))
        };
    }
    if probe.event_version.is_some() || probe.event_source.is_some() {
        return Ok(Parcel::Cloudtrail(Cow::Borrowed(text)));
    }
    match (probe.detail, probe.detail_type) {
        (Some(_), Some(kind)) if !kind.as_str().ends_with(" via CloudTrail") => Err(Rejection::new(
            Reason::Unsupported,
            format!("`detail-type` is `{}`, not one that ends in `via CloudTrail`", shown(kind.as_str())),
        )),
        (Some(detail), _) => Ok(Parcel::Cloudtrail(detail.0)),
        (None, _) if format == Format::Cloudtrail => Err(Rejection::new(
            Reason::UnknownFormat,
            "none of `Records`, `detail`, `eventVersion`, `eventSource` is there, so this is not CloudTrail",
        )),
        (None, _) => Err(Rejection::new(
            Reason::UnknownFormat,
            "neither an agent action (`specversion` and `type`) nor CloudTrail (`Records`, `detail`, `eventVersion` or \
             `eventSource`)",
        )),
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
        Source::Cloudtrail => event.id,
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
