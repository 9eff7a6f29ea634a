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
/// Most members of a batch that its dead letter names one by one.
const MOST_NAMED: usize = 100;

/// The one letter of a record that could not be read, or of which some members could not: its bytes once, however many
/// of its members are bad.
pub(crate) fn letter(bytes: &[u8], rejections: &[&Rejection], position: &Position, received: i64) -> Value {
    let kept = bytes.get(..MOST_BYTES).unwrap_or(bytes);
    let first = rejections.first();
    let members = rejections.iter().filter(|rejection| rejection.index.is_some()).take(MOST_NAMED);
    json!({
        "reason": first.map(|rejection| rejection.reason.name()),
        "detail": first.map(|rejection| &rejection.detail),
        "rejected": rejections.len(),
        "members": members
            .map(|r| json!({ "member": r.index, "reason": r.reason.name(), "detail": r.detail }))
            .collect::<Vec<_>>(),
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
