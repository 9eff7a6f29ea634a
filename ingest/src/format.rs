//! What the bytes of a stream may be: one line a format in [`WIRES`].

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use tautline_detectors::event::{Digest, Event};

use crate::json::{self, Raw};
use crate::wire::{self, Text, shown};
use crate::{Reason, Rejection, agent_action, azure, cloudtrail, gcp, github, kubernetes, mcp, ocsf, otlp, statement};

/// What the bytes of a stream are.
///
/// Give every stream its format in production: under `Auto` whoever can write agent actions can also write what looks
/// like the cloud's own word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Format {
    /// Whatever each record looks like.
    #[default]
    Auto,
    /// `tautline.agent.action.v1` in a CloudEvents envelope.
    AgentAction,
    /// AWS CloudTrail: one record, a log file's `{"Records": [...]}`, or an EventBridge envelope.
    Cloudtrail,
    /// Google Cloud's audit logs: log entries, bare or as Pub/Sub pushes them.
    Gcp,
    /// The audit log of a Kubernetes API server: `Event` and `EventList`.
    Kubernetes,
    /// Azure: activity and resource logs, audit and sign-in logs of Entra; one record, or Event Hubs' `{"records": [...]}`.
    Azure,
    /// GitHub's audit log: one event, or an array of them.
    Github,
    /// OCSF: API Activity and the other classes that tell of a call of an API.
    Ocsf,
    /// OpenTelemetry's spans as protobuf, the default of the Collector's Kafka exporter.
    OtlpProto,
    /// OpenTelemetry's spans as JSON.
    OtlpJson,
    /// Logs of MCP's messages, in an envelope of ours.
    Mcp,
    /// What issuers state about agents: JWS, compact or in the general JSON serialization.
    Statement,
}

/// One format: how its records are told from others, what they hold and how it is decoded.
pub(crate) struct Wire {
    pub(crate) format: Format,
    /// The name used in configuration.
    pub(crate) name: &'static str,
    /// The members at the top of a record by which it is known. None of them may stand there twice.
    pub(crate) tells: &'static [&'static str],
    /// Whether a record is of this format, as far as those members go.
    pub(crate) looks: fn(&Top<'_>) -> bool,
    /// What a record holds: one event, or a batch of them.
    pub(crate) open: for<'a> fn(&'a str) -> Result<Opened<'a>, Rejection>,
    /// Decodes one event; digest and plausibility of the time are the caller's.
    pub(crate) decode: fn(&str) -> Result<Event, Rejection>,
    /// Decodes a record that holds one event in one pass. `None` is for all else, and sends it the way of the others.
    pub(crate) sole: fn(&str) -> Option<Event>,
}

/// Every format. Under `auto`, the first that knows a record has it.
pub(crate) const WIRES: &[Wire] = &[
    agent_action::WIRE,
    cloudtrail::WIRE,
    kubernetes::WIRE,
    gcp::WIRE,
    azure::WIRE,
    ocsf::WIRE,
    github::WIRE,
    otlp::PROTO,
    otlp::JSON,
    mcp::WIRE,
    statement::WIRE,
];

impl Format {
    /// Every format, `auto` first.
    pub fn all() -> impl Iterator<Item = Format> {
        std::iter::once(Format::Auto).chain(WIRES.iter().map(|wire| wire.format))
    }

    /// The name used in configuration.
    pub fn name(self) -> &'static str {
        self.wire().map_or("auto", |wire| wire.name)
    }

    pub(crate) fn wire(self) -> Option<&'static Wire> {
        WIRES.iter().find(|wire| wire.format == self)
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
        Self::all().find(|format| format.name() == name).ok_or_else(|| {
            let names: Vec<&str> = Self::all().map(Self::name).collect();
            format!("unknown format `{}`, expected one of {}", shown(name), names.join(", "))
        })
    }
}

impl<'de> Deserialize<'de> for Format {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = Cow::<str>::deserialize(deserializer)?;
        name.parse().map_err(D::Error::custom)
    }
}

/// What one record holds.
pub(crate) enum Opened<'a> {
    One(Cow<'a, str>),
    Many(Vec<Raw<'a>>),
    /// A batch whose members cannot be read without what stands around them, read already.
    Read(Vec<Read>),
}

/// An event, with the digest of what it was read from.
pub(crate) type Read = Result<(Event, Digest), Rejection>;

impl<'a> Opened<'a> {
    /// The record itself is the event.
    pub(crate) fn one(text: &'a str) -> Self {
        Opened::One(Cow::Borrowed(text))
    }

    /// The members of a batch; one without any is refused.
    pub(crate) fn many(members: Vec<Raw<'a>>, name: &str) -> Result<Self, Rejection> {
        if members.is_empty() {
            return Err(Rejection::new(Reason::Empty, format!("`{name}` has no members")));
        }
        Ok(Opened::Many(members))
    }
}

/// The format of a record: the one that is given, else the first that knows it.
pub(crate) fn wire_of(text: &str, format: Format) -> Result<&'static Wire, Rejection> {
    if let Some(wire) = format.wire() {
        return Ok(wire);
    }
    if statement::is_compact(text) {
        return Ok(&statement::WIRE);
    }
    let top: Top<'_> = wire::object(text, "")?;
    WIRES.iter().find(|wire| (wire.looks)(&top)).ok_or_else(unknown)
}

fn unknown() -> Rejection {
    let names: Vec<&str> = WIRES.iter().map(|wire| wire.name).collect();
    Rejection::new(Reason::UnknownFormat, format!("this does not look like any of {}", names.join(", ")))
}

/// The top-level members that tell formats apart; everything else is skipped, and so is what is `null`.
pub(crate) struct Top<'a>(Vec<(&'static str, Raw<'a>)>);

impl Top<'_> {
    pub(crate) fn has(&self, name: &str) -> bool {
        self.raw(name).is_some()
    }

    /// The text of a member that is a string.
    pub(crate) fn text(&self, name: &str) -> Option<Cow<'_, str>> {
        self.raw(name)?.string()?.ok()
    }

    /// Whether a member is an object that has a member of this name itself.
    pub(crate) fn holds(&self, name: &str, inner: &str) -> bool {
        let members = self.raw(name).and_then(|raw| json::parse::<wire::Members<'_, IgnoredAny, 64>>(raw.get()).ok());
        members.is_some_and(|members| members.0.iter().any(|(member, _)| member == inner))
    }

    pub(crate) fn raw(&self, name: &str) -> Option<&Raw<'_>> {
        self.0.iter().find(|(member, raw)| *member == name && raw.get() != "null").map(|(_, raw)| raw)
    }
}

/// Every name by which formats are told apart, in order.
static TELLING: LazyLock<Vec<&'static str>> = LazyLock::new(|| {
    let mut names: Vec<&'static str> = WIRES.iter().flat_map(|wire| wire.tells).copied().collect();
    names.sort_unstable();
    names.dedup();
    names
});

/// The name itself, if formats are told apart by it.
fn telling(name: &str) -> Option<&'static str> {
    TELLING.binary_search(&name).ok().and_then(|at| TELLING.get(at)).copied()
}

impl<'de: 'a, 'a> Deserialize<'de> for Top<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TopVisitor<'a>(std::marker::PhantomData<&'a ()>);

        impl<'de: 'a, 'a> Visitor<'de> for TopVisitor<'a> {
            type Value = Top<'a>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members: Vec<(&'static str, Raw<'a>)> = Vec::new();
                while let Some(Text(name)) = map.next_key::<Text<'de, 0, { usize::MAX }>>()? {
                    let Some(name) = telling(&name) else {
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    };
                    if members.iter().any(|(known, _)| *known == name) {
                        return Err(A::Error::duplicate_field(name));
                    }
                    members.push((name, map.next_value()?));
                }
                Ok(Top(members))
            }
        }

        deserializer.deserialize_map(TopVisitor(std::marker::PhantomData))
    }
}
