//! Dead letters: what could not be read, with its reason and its place, and its bytes as far as they may leave.

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use hmac::{Hmac, KeyInit, Mac};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tautline_detectors::rulebook::hex;
use tautline_ingest::Rejection;

use super::ocsf::Position;
use crate::config::{DeadLetters, Redaction};

/// Most bytes of a record that its dead letter carries. More, in base64 and with the rest of the letter, would be over
/// the broker's default record limit, and the transaction could never commit.
const MOST_BYTES: usize = 512 * 1_024;
/// Most members of a batch that its dead letter names one by one.
const MOST_NAMED: usize = 100;
/// How long a nonce is.
const NONCE: usize = 24;

/// What becomes of the bytes of a record that could not be read.
pub(crate) enum Letters {
    Withheld,
    Encrypted(Keys),
    Plain,
}

/// The keys of encrypted letters, both from the configured one.
pub(crate) struct Keys {
    cipher: XChaCha20Poly1305,
    /// Gives each letter a nonce of its own: equal ones only to equal letters, so that a repeat is the same letter again.
    nonces: Hmac<Sha256>,
}

impl std::fmt::Debug for Letters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Letters::Withheld => "Withheld",
            Letters::Encrypted(_) => "Encrypted",
            Letters::Plain => "Plain",
        })
    }
}

impl Letters {
    pub(crate) fn new(redaction: &Redaction) -> Result<Self> {
        Ok(match redaction.dead_letters {
            DeadLetters::Withheld => Letters::Withheld,
            DeadLetters::Plain => Letters::Plain,
            DeadLetters::Encrypted => Letters::Encrypted(Keys::new(redaction)?),
        })
    }

    /// The one letter of a record that could not be read, or of which some members could not: however many of its members
    /// are bad, and with its bytes once at most.
    pub(crate) fn letter(
        &self,
        bytes: &[u8],
        rejections: &[&Rejection],
        position: &Position,
        received: i64,
    ) -> Result<Value> {
        let first = rejections.first();
        let members = rejections.iter().filter(|rejection| rejection.index.is_some()).take(MOST_NAMED);
        let mut letter = json!({
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
        });
        let kept = bytes.get(..MOST_BYTES).unwrap_or(bytes);
        let content = match self {
            Letters::Withheld => json!({ "content": "withheld" }),
            // Of bytes that must not be known there is no digest: whoever can guess them could be sure.
            Letters::Plain => {
                let digest = hex(&Sha256::digest(bytes));
                json!({ "content": "plain", "bytes": STANDARD.encode(kept), "sha256": digest })
            }
            Letters::Encrypted(keys) => {
                let sealed = keys.seal(kept, &aad(position))?;
                json!({ "content": "encrypted", "cipher": "XChaCha20-Poly1305", "sealed": STANDARD.encode(sealed) })
            }
        };
        if let (Value::Object(letter), Value::Object(mut content)) = (&mut letter, content) {
            if !matches!(self, Letters::Withheld) {
                content.insert("truncated".to_owned(), json!(kept.len() < bytes.len()));
            }
            letter.append(&mut content);
        }
        Ok(letter)
    }
}

impl Keys {
    pub(crate) fn new(redaction: &Redaction) -> Result<Self> {
        let source = redaction.dead_letter_key.as_ref().context("no `redaction.dead_letter_key`")?;
        Self::of(&source.read_key()?)
    }

    fn of(key: &[u8]) -> Result<Self> {
        let derived = |purpose: &[u8]| {
            let mac = Hmac::<Sha256>::new_from_slice(key).map(|mac| mac.chain_update(purpose));
            mac.map(|mac| mac.finalize().into_bytes()).context("the key is none for HMAC")
        };
        let cipher = XChaCha20Poly1305::new_from_slice(&derived(b"tautline dead letters: cipher")?);
        let nonces = Hmac::<Sha256>::new_from_slice(&derived(b"tautline dead letters: nonces")?);
        Ok(Self { cipher: cipher.context("the key is none for the cipher")?, nonces: nonces.context("no key")? })
    }

    /// The nonce, and behind it the sealed bytes.
    fn seal(&self, bytes: &[u8], aad: &[u8]) -> Result<Vec<u8>> {
        let mut mac = self.nonces.clone();
        mac.update(&u64::try_from(aad.len())?.to_be_bytes());
        mac.update(aad);
        mac.update(bytes);
        let digest = mac.finalize().into_bytes();
        let mut sealed = digest.get(..NONCE).context("a nonce is shorter than a digest")?.to_vec();
        let nonce = XNonce::try_from(sealed.as_slice()).context("a nonce has 24 bytes")?;
        let secret = self.cipher.encrypt(&nonce, Payload { msg: bytes, aad });
        sealed.extend(secret.ok().context("cannot encrypt a dead letter")?);
        Ok(sealed)
    }

    /// The letter with the bytes of its record, in base64, in the place of what was sealed. One that has none stays.
    pub(crate) fn open(&self, mut letter: Value) -> Result<Value> {
        let members = letter.as_object_mut().context("no letter: it is no object")?;
        if members.get("content").is_none_or(|content| content != "encrypted") {
            return Ok(letter);
        }
        let Sealed { sealed, position } = Sealed::deserialize(&*members).context("the letter is not whole")?;
        let sealed = STANDARD.decode(sealed).context("the letter is not whole")?;
        let (nonce, secret) = sealed.split_at_checked(NONCE).context("the letter is cut")?;
        let nonce = XNonce::try_from(nonce).context("the letter is cut")?;
        let opened = self.cipher.decrypt(&nonce, Payload { msg: secret, aad: &aad(&position) });
        let opened = opened.ok().context("another key, or a letter that was changed")?;
        members.retain(|name, _| name != "sealed" && name != "cipher");
        members.insert("content".to_owned(), json!("plain"));
        members.insert("bytes".to_owned(), json!(STANDARD.encode(opened)));
        Ok(letter)
    }
}

/// What it takes to open a letter, beside the key.
#[derive(Deserialize)]
struct Sealed {
    sealed: String,
    #[serde(flatten)]
    position: Position,
}

/// A letter opens as that of its own record only.
fn aad(position: &Position) -> Vec<u8> {
    format!("{}/{}/{}", position.topic, position.partition, position.offset).into_bytes()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    const RECORD: &[u8] = b"{\"password\": \"hunter2\"";

    fn letter(letters: &Letters, bytes: &[u8], offset: i64) -> Value {
        let position = Position { topic: "source".to_owned(), partition: 3, offset };
        letters.letter(bytes, &[], &position, 1).unwrap()
    }

    fn keys(key: &[u8]) -> Keys {
        Keys::of(key).unwrap()
    }

    #[test]
    fn what_is_sealed_is_opened_with_its_key_only() {
        let sealed = letter(&Letters::Encrypted(keys(b"one")), RECORD, 7);
        assert!(sealed.get("bytes").is_none() && sealed.get("sha256").is_none());
        let opened = keys(b"one").open(sealed.clone()).unwrap();
        assert_eq!(opened["bytes"], STANDARD.encode(RECORD));
        assert_eq!((&opened["offset"], &opened["truncated"]), (&json!(7), &json!(false)));
        assert!(keys(b"another").open(sealed.clone()).is_err());
        let mut moved = sealed.clone();
        moved["offset"] = json!(8);
        assert!(keys(b"one").open(moved).is_err(), "a letter opens as that of its own record only");
        let mut cut = sealed;
        cut["sealed"] = json!("AAAA");
        assert!(keys(b"one").open(cut).is_err());
    }

    #[test]
    fn a_nonce_comes_twice_only_where_everything_does() {
        let letters = Letters::Encrypted(keys(b"one"));
        let nonce = |bytes: &[u8], offset| {
            letter(&letters, bytes, offset)["sealed"].as_str().unwrap().get(..32).map(str::to_owned)
        };
        assert_eq!(nonce(RECORD, 7), nonce(RECORD, 7));
        assert_ne!(nonce(RECORD, 7), nonce(RECORD, 8));
        assert_ne!(nonce(RECORD, 7), nonce(b"else", 7));
    }

    #[test]
    fn a_withheld_letter_says_where_its_record_is_and_nothing_of_it() {
        let withheld = letter(&Letters::Withheld, RECORD, 7);
        assert_eq!((&withheld["content"], &withheld["length"]), (&json!("withheld"), &json!(RECORD.len())));
        for member in ["bytes", "sealed", "sha256", "truncated"] {
            assert!(withheld.get(member).is_none(), "`{member}`");
        }
        assert_eq!(keys(b"one").open(withheld.clone()).unwrap(), withheld, "one that has no bytes stays");
    }
}
