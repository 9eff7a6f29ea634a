//! Writing checkpoints, and deleting old ones.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Instant, SystemTime};

use anyhow::{Context, Result, bail};
use object_store::path::Path;

use super::manifest::{self, Manifest, Skip, SkipReason, Stored, checksum};
use super::store::{Object, Store};
use super::{Head, Piece, Place, REMINDER, Turn, piece};
use crate::status::Status;

/// The newest checkpoints of each place, which are kept in any case. Beyond them one is kept that is between one and two
/// hours old, for what went wrong unnoticed, the one that is to take its place, and the newest of another version, for
/// whoever goes back to it.
const KEPT: usize = 3;
/// How long what another process left lying about is left to it, in seconds: what it has just written may be of a
/// checkpoint that has no manifest yet. Many times what a checkpoint takes, with clocks that are minutes apart.
const GRACE: i64 = 900;
/// When a checkpoint is old, in seconds: one that goes further than ours is left to whoever wrote it until then.
const OLD: i64 = 3_600;
/// What the writer is told.
pub(super) enum Job {
    Save(Save),
    Forget(Place),
}

/// A checkpoint to write.
pub(super) struct Save {
    pub(super) turn: Turn,
    pub(super) head: Head,
    pub(super) pieces: Vec<Piece>,
    /// When it was handed over.
    pub(super) taken: SystemTime,
}

/// The thread's state.
pub(super) struct Writer {
    store: Arc<Store>,
    status: Arc<Status>,
    /// Part of the name of every object of this writer, and of nobody else's.
    id: String,
    /// How many objects were named.
    named: u64,
    known: BTreeMap<Place, Known>,
}

/// What the writer knows of a place.
#[derive(Default)]
pub(super) struct Known {
    /// The last checkpoint, if all of it is there.
    last: Option<Manifest>,
    /// When the failure that lasts was logged.
    complained: Option<Instant>,
    /// What the manifests in the store name, by their names; `None` for one that is not to be understood.
    manifests: BTreeMap<String, Option<Named>>,
}

/// What is remembered of a manifest.
struct Named {
    /// The version that wrote it.
    engine: String,
    objects: BTreeSet<String>,
}

/// Where the checkpoints of a place stand for whoever cleans up.
pub(super) struct Standing<'h> {
    /// The name of our own latest one, if there is one.
    pub(super) own: &'h str,
    /// How far the memory goes, and of which version it is.
    pub(super) offset: i64,
    pub(super) engine: &'h str,
    /// Whether there is no room for more than the newest.
    pub(super) full: bool,
}

/// A checkpoint under way.
struct Draft<'t> {
    turn: &'t Turn,
    directory: Path,
    /// The names of its new objects, in the order in which they were written.
    objects: Vec<String>,
    /// The length of all of them.
    bytes: u64,
}

impl Writer {
    pub(super) fn new(store: Arc<Store>, status: Arc<Status>) -> Self {
        // The standard library's hash keys are random numbers of the operating system.
        let id = format!("{:016x}", RandomState::new().hash_one(SystemTime::now()));
        Self { store, status, id, named: 0, known: BTreeMap::new() }
    }

    /// Works until nobody is left who could hand over anything.
    pub(super) fn run(mut self, jobs: Receiver<Job>) {
        for job in jobs {
            match job {
                Job::Save(save) => self.save(save),
                Job::Forget(place) => {
                    self.known.remove(&place);
                    self.status.metrics.checkpoints.forget(place.partition);
                }
            }
        }
    }

    fn save(&mut self, save: Save) {
        let Save { turn, head, pieces, taken } = save;
        let place = &turn.place;
        let mut known = self.known.remove(place).unwrap_or_default();
        let current = known.holds(&head, &pieces);
        let saved = if current { Ok(()) } else { self.renew(&mut known, &turn, head, pieces, taken) };
        let metrics = &self.status.metrics.checkpoints;
        if current {
            metrics.current(place.partition, taken);
        }
        if saved.is_err() {
            metrics.failed();
        }
        known.report(place, saved);
        self.known.insert(place.clone(), known);
    }

    /// Writes a checkpoint and deletes what it makes superfluous.
    fn renew(
        &mut self,
        known: &mut Known,
        turn: &Turn,
        head: Head,
        pieces: Vec<Piece>,
        taken: SystemTime,
    ) -> Result<()> {
        let (started, place) = (Instant::now(), &turn.place);
        let mut draft = Draft { turn, directory: self.store.directory(place), objects: Vec::new(), bytes: 0 };
        let (offset, engine) = (head.offset, head.engine.clone());
        let written = self.write(&mut draft, known.last.as_ref(), head, pieces).inspect_err(|error| {
            self.undo(&draft);
            let at = Standing { own: "", offset, engine: &engine, full: is_full(error) };
            // What fills the disk may be what nobody needs any more. Why it was not written says more than what fails here.
            let _ = self.store.list(&draft.directory).and_then(|objects| self.clean(known, place, &objects, &at));
        });
        let (name, manifest) = written?;
        known.manifests.insert(name.clone(), Some(Named::by(&manifest)));
        let last = known.last.insert(manifest);
        let objects = self.store.list(&draft.directory)?;
        let there: BTreeSet<&str> = objects.iter().map(|object| object.name.as_str()).collect();
        if let Some(lost) = last.pieces.iter().find(|piece| !there.contains(piece.object.as_str())) {
            let lost = lost.object.clone();
            known.last = None;
            bail!("`{lost}` has vanished from the store, all pieces will be written anew");
        }
        self.status.metrics.checkpoints.written(draft.bytes, started.elapsed());
        self.status.metrics.checkpoints.current(place.partition, taken);
        self.clean(known, place, &objects, &Standing { own: &name, offset, engine: &engine, full: false })
    }

    /// Writes what is new of a checkpoint, and last its manifest; gives it with its name.
    fn write(
        &mut self,
        draft: &mut Draft<'_>,
        last: Option<&Manifest>,
        head: Head,
        pieces: Vec<Piece>,
    ) -> Result<(String, Manifest)> {
        let pieces_of_last = last.iter().flat_map(|last| &last.pieces);
        let last: HashMap<(usize, u64), &Stored> =
            pieces_of_last.map(|stored| ((stored.number, stored.version), stored)).collect();
        let mut stored = Vec::with_capacity(pieces.len());
        for piece in pieces {
            stored.push(match last.get(&(piece.number, piece.version)) {
                Some(unchanged) => (*unchanged).clone(),
                None => self.write_piece(draft, piece)?,
            });
        }
        let manifest = Manifest { place: draft.turn.place.clone(), head, pieces: stored };
        let name = manifest::name(manifest.head.offset, &self.unique());
        draft.put(&self.store, &name, manifest.to_bytes()?)?;
        self.store.sync(&draft.directory)?;
        Ok((name, manifest))
    }

    fn write_piece(&mut self, draft: &mut Draft<'_>, piece: Piece) -> Result<Stored> {
        let Piece { number, version, tables } = piece;
        let bytes = tables().and_then(|tables| piece::encode(&tables));
        let bytes = bytes.with_context(|| format!("cannot lay out piece {number}"))?;
        let object = format!("piece-{number}-{version}-{}.arrows", self.unique());
        let (length, sha256) = (bytes.len() as u64, checksum(&bytes));
        draft.put(&self.store, &object, bytes)?;
        Ok(Stored { number, version, object, bytes: length, sha256 })
    }

    /// What no other object of any writer has in its name.
    fn unique(&mut self) -> String {
        self.named += 1;
        format!("{}-{:08}", self.id, self.named)
    }

    /// Deletes what was written of a checkpoint that failed, the manifest first.
    fn undo(&self, draft: &Draft<'_>) {
        let paths = draft.objects.iter().rev().map(|name| draft.directory.clone().join(name.as_str()));
        // What cannot be deleted now is left to the next clean-up.
        let _ = paths.into_iter().try_for_each(|path| self.store.delete(&path));
    }

    /// Deletes what nobody needs any more.
    pub(super) fn clean(&self, known: &mut Known, place: &Place, objects: &[Object], at: &Standing<'_>) -> Result<()> {
        let directory = self.store.directory(place);
        let now = now();
        let manifests = objects.iter().filter(|object| manifest::offset(&object.name).is_some());
        let unread = manifests.filter(|object| !known.read(&self.store, &directory, &object.name, place)).count();
        let (kept, rest) = known.sort(objects, at, now);
        for object in rest {
            self.store.delete(&directory.clone().join(object.name.as_str()))?;
        }
        known.manifests.retain(|name, _| kept.iter().any(|object| object.name == *name));
        if unread > 0 || known.manifests.values().any(Option::is_none) {
            // Whoever has just replaced a manifest that is gone may have named the same pieces in the next one.
            return Ok(());
        }
        let of_last = known.last.iter().flat_map(|last| &last.pieces).map(|piece| &piece.object);
        let named: BTreeSet<&String> =
            known.manifests.values().flatten().flat_map(|named| &named.objects).chain(of_last).collect();
        let is_waste = |object: &&Object| {
            let name = &object.name;
            let written = name.starts_with("piece-") || name.starts_with("manifest-") && name.ends_with(".part");
            written && !named.contains(name) && (name.contains(&self.id) || object.is_older(GRACE, now))
        };
        let mut waste = objects.iter().filter(is_waste);
        waste.try_for_each(|object| self.store.delete(&directory.clone().join(object.name.as_str())))
    }
}

/// Seconds since 1970, by our own clock: where nothing is written any more, the store's stands still.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    since.as_secs().cast_signed()
}

/// Whether there was no room.
fn is_full(error: &anyhow::Error) -> bool {
    let kinds = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind);
    kinds.into_iter().any(|kind| matches!(kind, ErrorKind::StorageFull | ErrorKind::QuotaExceeded))
}

impl Named {
    fn by(manifest: &Manifest) -> Self {
        let objects = manifest.pieces.iter().map(|piece| piece.object.clone()).collect();
        Self { engine: manifest.head.engine.clone(), objects }
    }
}

impl Known {
    /// Reads a manifest, if it was not read before; whether it could be, also if it is not to be understood.
    fn read(&mut self, store: &Store, directory: &Path, name: &str, place: &Place) -> bool {
        if self.manifests.contains_key(name) {
            return true;
        }
        let read = match Manifest::read(store, directory, name, place) {
            Ok(manifest) => Some(Named::by(&manifest)),
            // Perhaps only now.
            Err(Skip { reason: SkipReason::Missing | SkipReason::Unreadable, .. }) => return false,
            Err(_) => None,
        };
        self.manifests.insert(name.to_owned(), read);
        true
    }

    /// The manifests that stay, and those that go.
    ///
    /// What goes further than our own memory is another owner's and none of our business, unless it was left alone for
    /// long.
    fn sort<'o>(&self, objects: &'o [Object], at: &Standing<'_>, now: i64) -> (Vec<&'o Object>, Vec<&'o Object>) {
        let mut manifests: Vec<(i64, &Object)> =
            objects.iter().filter_map(|object| Some((manifest::offset(&object.name)?, object))).collect();
        manifests.sort_by_key(|(offset, object)| Reverse((*offset, object.name == at.own, &object.name)));
        let (further, ours): (Vec<_>, Vec<_>) = manifests.into_iter().partition(|(offset, _)| *offset > at.offset);
        let (old, foreign): (Vec<_>, Vec<_>) = further.into_iter().partition(|(_, object)| object.is_older(OLD, now));
        let ours: Vec<&Object> = ours.into_iter().map(|(_, object)| object).collect();
        let stays = self.worth_keeping(&ours, at, now);
        let mut kept: Vec<&Object> = foreign.into_iter().map(|(_, object)| object).collect();
        let mut rest: Vec<&Object> = old.into_iter().map(|(_, object)| object).collect();
        for (place, object) in ours.into_iter().enumerate() {
            let stays = place < KEPT || stays.contains(&object.name.as_str());
            if stays { kept.push(object) } else { rest.push(object) }
        }
        (kept, rest)
    }

    /// The names of those that stay though they are not of the newest; given newest first.
    fn worth_keeping<'o>(&self, ours: &[&'o Object], at: &Standing<'_>, now: i64) -> [&'o str; 3] {
        let named = |object: &&&Object| self.manifests.get(&object.name).and_then(Option::as_ref);
        let whole = || ours.iter().filter(|object| !at.full && named(object).is_some());
        let old = whole().find(|object| object.is_older(OLD, now));
        let to_be_old = whole().rfind(|object| !object.is_older(OLD, now));
        let other = whole().find(|object| named(object).is_some_and(|named| named.engine != at.engine));
        [old, to_be_old, other].map(|object| object.map_or("", |object| &object.name))
    }

    /// Whether the last checkpoint is this one.
    fn holds(&self, head: &Head, pieces: &[Piece]) -> bool {
        self.last.as_ref().is_some_and(|last| {
            let same =
                |(stored, piece): (&Stored, &Piece)| (stored.number, stored.version) == (piece.number, piece.version);
            last.head == *head && last.pieces.len() == pieces.len() && last.pieces.iter().zip(pieces).all(same)
        })
    }

    /// Logs failures when they begin, now and then while they last, and when they end.
    fn report(&mut self, place: &Place, saved: Result<()>) {
        match saved {
            Ok(()) => {
                if self.complained.take().is_some() {
                    tracing::info!(%place, "checkpoints are written again");
                }
            }
            Err(error) if self.complained.is_none_or(|at| at.elapsed() >= REMINDER) => {
                self.complained = Some(Instant::now());
                tracing::error!(%place, "no checkpoint, a restart will replay more of the log: {error:#}");
            }
            Err(_) => {}
        }
    }
}

impl Draft<'_> {
    fn put(&mut self, store: &Store, name: &str, bytes: Vec<u8>) -> Result<()> {
        // Noted before, for also what fails may leave something behind.
        self.objects.push(name.to_owned());
        self.bytes += bytes.len() as u64;
        let put = store.put(&self.directory.clone().join(name), bytes);
        self.turn.moved();
        put
    }
}
