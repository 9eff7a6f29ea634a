//! Dead letters: what could not be read, with its reason, its place and its bytes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tautline_detectors::rulebook::hex;
use tautline_ingest::Rejection;

use super::ocsf::Position;

/// Most bytes of a record that its dead letter carries. More, in base64 and with the rest of the letter, would be over
/// the broker's default record limit, and the transaction could never commit.
const MOST_BYTES: usize = 512 * 1_024;

/// A record, or a member of it, that could not be read.
pub(crate) fn letter(bytes: &[u8], rejection: &Rejection, position: &Position, received: i64) -> Value {
    let kept = bytes.get(..MOST_BYTES).unwrap_or(bytes);
    json!({
        "reason": rejection.reason.name(),
        "detail": rejection.detail,
        "member": rejection.index,
        "topic": position.topic,
        "partition": position.partition,
        "offset": position.offset,
        "received": received,
        "length": bytes.len(),
        "truncated": kept.len() < bytes.len(),
        "sha256": hex(&Sha256::digest(bytes)),
        "bytes": STANDARD.encode(kept),
    })
}
