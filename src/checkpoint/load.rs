//! Reading checkpoints back.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};
use arrow::array::RecordBatch;
use object_store::path::Path;

use super::manifest::{self, Manifest, Skip, SkipReason, Stored, checksum};
use super::store::Store;
use super::{Head, Place, piece};
use crate::metrics::Metrics;

/// How often a store that does not answer is asked, and the pause in between.
const TRIES: usize = 3;
const PAUSE: Duration = Duration::from_millis(500);

/// Restores the newest valid checkpoint that goes no further than `at_most`; see [`super::Checkpoints::load`].
pub(super) fn newest<S>(
    store: &Store,
    metrics: &Metrics,
    place: &Place,
    at_most: i64,
    until: Instant,
    mut start: impl FnMut(&Head) -> Result<S, String>,
    mut add: impl FnMut(&mut S, &[RecordBatch]) -> Result<(), String>,
) -> Result<Option<(Head, S)>> {
    let directory = store.directory(place);
    let source = Source { store, place, lengths: lengths(store, metrics, &directory)?, directory, until };
    let mut unreadable = None;
    for name in source.candidates(at_most) {
        match source.restore(name, &mut start, &mut add) {
            Ok(loaded) => return Ok(Some(loaded)),
            Err(skip) => {
                tracing::warn!(checkpoint = %source.path(name), reason = skip.reason.name(), "skipped: {}", skip.what);
                metrics.checkpoints.skipped(skip.reason);
                unreadable = unreadable.or((skip.reason == SkipReason::Unreadable).then_some(skip.what));
            }
        }
    }
    match unreadable {
        Some(what) => bail!("checkpoints of `{place}` cannot be read: {what}"),
        None => Ok(None),
    }
}

/// See [`super::Checkpoints::furthest`].
pub(super) fn furthest(store: &Store, metrics: &Metrics, place: &Place) -> Result<Option<i64>> {
    let lengths = lengths(store, metrics, &store.directory(place))?;
    Ok(lengths.keys().filter_map(|name| manifest::offset(name)).max())
}

/// The lengths of a directory's objects by their names, in bytes.
fn lengths(store: &Store, metrics: &Metrics, directory: &Path) -> Result<BTreeMap<String, u64>> {
    let mut listed = store.list(directory);
    for _ in 1..TRIES {
        let Err(error) = &listed else { break };
        tracing::warn!("checkpoints cannot be read, will try again: {error:#}");
        thread::sleep(PAUSE);
        listed = store.list(directory);
    }
    let listed = listed.inspect_err(|_| metrics.checkpoints.skipped(SkipReason::Unreadable));
    Ok(listed?.into_iter().map(|object| (object.name, object.bytes)).collect())
}

/// One place's checkpoints.
struct Source<'s> {
    store: &'s Store,
    place: &'s Place,
    directory: Path,
    lengths: BTreeMap<String, u64>,
    /// When to stop.
    until: Instant,
}

impl Source<'_> {
    fn path(&self, name: &str) -> Path {
        self.directory.clone().join(name)
    }

    /// The names of the manifests that go no further than `at_most`, newest first.
    fn candidates(&self, at_most: i64) -> Vec<&str> {
        let mut found: Vec<(i64, &str)> =
            self.lengths.keys().filter_map(|name| Some((manifest::offset(name)?, name.as_str()))).collect();
        found.retain(|(offset, name)| {
            if *offset > at_most {
                tracing::debug!(checkpoint = %self.path(name), at_most, "goes further than what is committed");
            }
            *offset <= at_most
        });
        found.sort_by_key(|found| Reverse(*found));
        found.into_iter().map(|(_, name)| name).collect()
    }

    fn restore<S>(
        &self,
        name: &str,
        start: &mut impl FnMut(&Head) -> Result<S, String>,
        add: &mut impl FnMut(&mut S, &[RecordBatch]) -> Result<(), String>,
    ) -> Result<(Head, S), Skip> {
        let refused = |what| Skip { reason: SkipReason::Refused, what };
        self.check_time()?;
        let manifest = Manifest::read(self.store, &self.directory, name, self.place)?;
        // Before anything is fetched: one that lacks a piece is of no use.
        manifest.pieces.iter().try_for_each(|piece| self.check_length(piece))?;
        let mut state = start(&manifest.head).map_err(refused)?;
        for piece in &manifest.pieces {
            self.check_time()?;
            add(&mut state, &self.tables(piece)?).map_err(refused)?;
        }
        Ok((manifest.head, state))
    }

    fn check_time(&self) -> Result<(), Skip> {
        if Instant::now() < self.until { Ok(()) } else { Err(Skip::unreadable(&anyhow!("the store is too slow"))) }
    }

    fn check_length(&self, piece: &Stored) -> Result<(), Skip> {
        match self.lengths.get(&piece.object) {
            None => Err(Skip::missing(&piece.object)),
            Some(found) if *found != piece.bytes => {
                let what = format!("it has {found} bytes instead of {}", piece.bytes);
                Err(Skip::damaged(&piece.object, what))
            }
            Some(_) => Ok(()),
        }
    }

    fn tables(&self, piece: &Stored) -> Result<Vec<RecordBatch>, Skip> {
        let read = self.store.get(&self.path(&piece.object)).map_err(|error| Skip::unreadable(&error))?;
        let bytes = read.ok_or_else(|| Skip::missing(&piece.object))?;
        if checksum(&bytes) != piece.sha256 {
            return Err(Skip::damaged(&piece.object, "its checksum does not hold"));
        }
        piece::decode(&bytes).map_err(|error| Skip::damaged(&piece.object, error))
    }
}
