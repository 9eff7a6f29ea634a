//! Of which uses of credentials the shards of the credentials have been told.

use std::collections::HashSet;

use tautline_detectors::event::{Digest, Event, Millis};

/// Most uses that are not told of again; beyond, all are.
const MOST_TOLD: usize = 65_536;
const DAY: Millis = 24 * 3_600_000;

/// What was told lately. A filter only: to tell again does no harm.
#[derive(Debug, Default)]
pub(crate) struct Told {
    uses: HashSet<Digest>,
}

impl Told {
    /// Whether an event uses a credential in a way that is still to be told: once a day for each agent that uses it, and for
    /// each way in which that is known.
    pub(crate) fn is_news(&mut self, event: &Event) -> bool {
        let Some(agent) = event.credential_user() else { return false };
        let (audited, day) = (event.source.is_audit(), event.at.div_euclid(DAY));
        if self.uses.len() >= MOST_TOLD {
            self.uses.clear();
        }
        self.uses.insert(Digest::of(format!("{agent} {audited} {day} {}", event.credential.id).as_bytes()))
    }
}
