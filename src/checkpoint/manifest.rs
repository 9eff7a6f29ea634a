//! The manifest: what makes pieces a checkpoint.

use std::fmt::Display;

use anyhow::Result;
use object_store::path::Path;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use tautline_detectors::rulebook::hex;

use super::store::Store;
use super::{Head, Place};

/// Version of the manifest's form and of the pieces' encoding. That of 1 also named the version that wrote it, as the head
/// does.
const FORMAT: u32 = 2;

/// The kind of reason for which a checkpoint is skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SkipReason {
    /// A manifest or a piece is not what was written.
    Damaged,
    /// A piece is not there.
    Missing,
    /// A newer version of Tautline wrote it.
    Newer,
    /// It is whole, but the memory could not be restored from it.
    Refused,
    /// The store did not give it.
    Unreadable,
}

impl SkipReason {
    pub(crate) const ALL: [SkipReason; 5] =
        [Self::Damaged, Self::Missing, Self::Newer, Self::Refused, Self::Unreadable];

    /// The name, as in metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Damaged => "damaged",
            Self::Missing => "missing",
            Self::Newer => "newer",
            Self::Refused => "refused",
            Self::Unreadable => "unreadable",
        }
    }
}

/// Why a checkpoint is skipped.
#[derive(Debug)]
pub(super) struct Skip {
    pub(super) reason: SkipReason,
    pub(super) what: String,
}

impl Skip {
    pub(super) fn damaged(object: &str, what: impl Display) -> Self {
        Self { reason: SkipReason::Damaged, what: format!("`{object}` is damaged: {what}") }
    }

    pub(super) fn missing(object: &str) -> Self {
        Self { reason: SkipReason::Missing, what: format!("`{object}` is missing") }
    }

    pub(super) fn unreadable(error: &anyhow::Error) -> Self {
        Self { reason: SkipReason::Unreadable, what: format!("{error:#}") }
    }
}

/// A piece that is in the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stored {
    pub(super) number: usize,
    pub(super) version: u64,
    /// Name of the object, in the manifest's directory.
    pub(super) object: String,
    pub(super) bytes: u64,
    pub(super) sha256: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub(super) place: Place,
    pub(super) head: Head,
    pub(super) pieces: Vec<Stored>,
}

/// All that every version can read of every other version's manifests.
#[derive(Deserialize)]
struct Form {
    format: u32,
}

#[derive(Serialize, Deserialize)]
struct Envelope<'a> {
    format: u32,
    /// Of the body's bytes, in hex.
    sha256: String,
    #[serde(borrow)]
    body: &'a RawValue,
}

impl Manifest {
    pub(super) fn to_bytes(&self) -> Result<Vec<u8>> {
        let body = serde_json::value::to_raw_value(self)?;
        Ok(serde_json::to_vec(&Envelope { format: FORMAT, sha256: checksum(body.get().as_bytes()), body: &body })?)
    }

    /// Reads the bytes of the manifest `name` of a place.
    pub(super) fn from_bytes(bytes: &[u8], name: &str, place: &Place) -> Result<Self, Skip> {
        let Form { format } = serde_json::from_slice(bytes).map_err(|error| Skip::damaged(name, error))?;
        if format > FORMAT {
            let what = format!(
                "`{name}` has format {format}, this version reads {FORMAT}: a newer version wrote it, and can go on from it"
            );
            return Err(Skip { reason: SkipReason::Newer, what });
        }
        let envelope: Envelope<'_> = serde_json::from_slice(bytes).map_err(|error| Skip::damaged(name, error))?;
        let body = envelope.body.get();
        if format == 0 || checksum(body.as_bytes()) != envelope.sha256 {
            return Err(Skip::damaged(name, "its checksum does not hold"));
        }
        let manifest: Self = serde_json::from_str(body).map_err(|error| Skip::damaged(name, error))?;
        if manifest.place != *place || offset(name) != Some(manifest.head.offset) {
            let (found, at) = (&manifest.place, manifest.head.offset);
            return Err(Skip::damaged(name, format!("it is of `{found}` at offset {at}, and was moved here")));
        }
        Ok(manifest)
    }

    /// Reads the manifest `name` of a place from its directory.
    pub(super) fn read(store: &Store, directory: &Path, name: &str, place: &Place) -> Result<Self, Skip> {
        match store.get(&directory.clone().join(name)) {
            Ok(Some(bytes)) => Self::from_bytes(&bytes, name, place),
            Ok(None) => Err(Skip::missing(name)),
            Err(error) => Err(Skip::unreadable(&error)),
        }
    }
}

/// A manifest's name; names sort by their offsets.
pub(super) fn name(offset: i64, unique: &str) -> String {
    format!("manifest-{offset:020}-{unique}.json")
}

/// The offset in a manifest's name; `None` for any other name.
pub(super) fn offset(name: &str) -> Option<i64> {
    let (offset, _) = name.strip_prefix("manifest-")?.strip_suffix(".json")?.split_once('-')?;
    offset.parse().ok()
}

/// SHA-256 in hex.
pub(super) fn checksum(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}
