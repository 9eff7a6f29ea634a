//! An event that is kept until something else comes, or does not.

use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::event::{Event, Outcome, Reasoning};

/// An event that waits. All copies of the memory share it, and it is laid out as JSON once, however many checkpoints it is
/// part of.
#[derive(Clone, Debug)]
pub struct Kept(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    event: Event,
    json: OnceLock<Box<RawValue>>,
}

impl Kept {
    /// What is kept of an event: enough to pair and to report it, and nothing that may be large or must not be kept.
    pub(crate) fn of(event: &Event) -> Self {
        let silent = !event.source.is_audit();
        let reasoning = event.reasoning.as_ref();
        Self::from(Event {
            id: event.id.clone(),
            digest: event.digest,
            source: event.source,
            at: event.at,
            agent: event.agent.clone(),
            principal: event.principal.clone(),
            tool: event.tool.clone(),
            action: event.action.clone(),
            verb: event.verb,
            resource: event.resource.clone(),
            data_event: event.data_event,
            place: event.place.clone(),
            claimed_environment: event.claimed_environment.clone(),
            run: event.run.clone(),
            arguments: Vec::new(),
            reasoning: reasoning.map(|reasoning| Reasoning {
                text: String::new(),
                reference: reasoning.reference.clone(),
                digest: reasoning.digest.clone(),
                claimed_digest: reasoning.claimed_digest.clone(),
            }),
            approval: event.approval.clone(),
            pre_state: event.pre_state.clone(),
            credential: event.credential.clone(),
            origin: event.origin.clone(),
            trace: event.trace.clone(),
            outcome: match &event.outcome {
                Outcome::Denied(_) if silent => Outcome::Denied(String::new()),
                Outcome::Failed(_) if silent => Outcome::Failed(String::new()),
                known => known.clone(),
            },
            statement: None,
        })
    }

    /// Its JSON.
    pub(super) fn json(&self) -> serde_json::Result<&RawValue> {
        if let Some(json) = self.0.json.get() {
            return Ok(json);
        }
        let json = serde_json::value::to_raw_value(&self.0.event)?;
        Ok(self.0.json.get_or_init(|| json))
    }
}

impl From<Event> for Kept {
    fn from(event: Event) -> Self {
        Self(Arc::new(Shared { event, json: OnceLock::new() }))
    }
}

impl Deref for Kept {
    type Target = Event;

    fn deref(&self) -> &Event {
        &self.0.event
    }
}

impl PartialEq for Kept {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Serialize for Kept {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.json().map_err(S::Error::custom)?.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Kept {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Event::deserialize(deserializer).map(Self::from)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::testing::event;

    #[test]
    fn it_is_laid_out_as_its_event_is() {
        let kept = Kept::of(&event(1, "ecs:StopTask", "2026-03-02T12:00:00Z"));
        let text = serde_json::to_string(&kept).unwrap();
        assert_eq!(text, serde_json::to_string(&*kept).unwrap());
        assert_eq!(serde_json::to_string(&kept.clone()).unwrap(), text, "once more, of a copy");
        assert_eq!(serde_json::from_str::<Kept>(&text).unwrap(), kept);
    }
}
