//! The one log: every input of the engine as a record of `tautline.events`.

use serde::{Deserialize, Serialize};
use tautline_detectors::event::{Event, Millis};

use crate::{Reason, Rejection, json};

/// One record of the log, as JSON: `{"event": …}`, `{"credential-use": …}`, `{"tick": …}` or `{"rulebook": …}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogRecord {
    /// Something happened; resolved against the rulebook of this hash.
    Event {
        /// The event.
        event: Box<Event>,
        /// Hash of the rulebook whose registry resolved it.
        resolved_by: String,
    },
    /// An agent used a credential: told once more in the partition of the credential, where the uses of all agents meet.
    CredentialUse {
        /// The event, without its contents.
        event: Box<Event>,
    },
    /// Time has come this far, by the clock of the partition's owner.
    Tick {
        /// Milliseconds since the epoch.
        at: Millis,
        /// How far the audit log has come, where any of it was read.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        audited_until: Option<Millis>,
    },
    /// From here on the rulebook of this hash judges.
    Rulebook {
        /// SHA-256 of its content, hex.
        hash: String,
    },
}

impl LogRecord {
    /// The record's bytes.
    ///
    /// # Errors
    ///
    /// When the record cannot be written as JSON, which no record of ours is.
    pub fn to_bytes(&self) -> Result<Vec<u8>, sonic_rs::Error> {
        sonic_rs::to_vec(self)
    }

    /// Reads a record's bytes.
    ///
    /// # Errors
    ///
    /// When the bytes are not a record of this log; the place is in the message, and nothing of what stands there.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Rejection> {
        if let Some(record) = std::str::from_utf8(bytes).ok().and_then(json::fast) {
            return Ok(record);
        }
        serde_json::from_slice(bytes).map_err(|error| {
            let detail = format!("not a record of the log, at line {} column {}", error.line(), error.column());
            Rejection::new(Reason::UnknownFormat, detail)
        })
    }
}
