//! Checkpoints: the memory of a partition, kept outside of the process, so that a restart replays little of the log.
//!
//! A checkpoint is a set of *pieces* of the memory and one *manifest*, written last, that names them all with their
//! lengths and checksums. Object names are never used twice, so that two processes which both believe to own a partition
//! cannot harm each other's checkpoints. One thread writes; whoever hands over a checkpoint never waits for it.
//!
//! ```text
//! <store>/<group>/<topic>/<partition>/manifest-<offset>-<writer>-<sequence>.json
//!                                     piece-<number>-<version>-<writer>-<sequence>.arrows
//! ```

mod load;
mod manifest;
mod piece;
mod store;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use serde::{Deserialize, Serialize};

pub(crate) use manifest::SkipReason;
pub(crate) use store::{Location, environment};

use crate::config;
use crate::status::Status;
use store::Store;
use writer::{Job, Save, Writer};

/// How long nothing may come of what is being written until that counts as a failure: longer than a cloud's store is
/// waited for.
const STUCK: Duration = Duration::from_secs(30);
/// How often a failure that lasts is logged.
const REMINDER: Duration = Duration::from_secs(30);

/// Whose memory it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Place {
    /// The consumer group.
    pub(crate) group: String,
    pub(crate) topic: String,
    pub(crate) partition: i32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.group, self.topic, self.partition)
    }
}

/// What a shard has to know beside its pieces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Head {
    /// Version of the product whose engine the memory is of.
    pub(crate) engine: String,
    /// Next offset to read: everything below is in the memory.
    pub(crate) offset: i64,
    /// Hash of the rulebook that the partition began with.
    pub(crate) first_book: String,
    /// Hash of the rulebook in force.
    pub(crate) book: String,
    /// Time of the latest event, in milliseconds since 1970.
    pub(crate) latest: i64,
    /// Number of the latest record of our own that came back.
    pub(crate) opened: u64,
    /// Number of the latest record of our own that was sent.
    pub(crate) sealed: u64,
}

/// Lays out a piece as tables; called by the writer's thread, and only if the piece has to be written.
pub(crate) type Tables = Box<dyn FnOnce() -> Result<Vec<RecordBatch>, ArrowError> + Send>;

/// One part of the memory.
pub(crate) struct Piece {
    /// Which part it is; the same in every checkpoint.
    pub(crate) number: usize,
    /// Another one whenever the part has changed.
    pub(crate) version: u64,
    pub(crate) tables: Tables,
}

/// The store of checkpoints, and the thread that writes to it.
#[derive(Debug)]
pub(crate) struct Checkpoints {
    store: Arc<Store>,
    status: Arc<Status>,
    jobs: Sender<Job>,
    busy: Arc<Busy>,
    /// How long the writer may stand still.
    patience: Duration,
}

impl Checkpoints {
    /// Opens the store; a local directory is created. A cloud's store is not asked for anything yet.
    ///
    /// # Errors
    ///
    /// The directory cannot be created, or the environment lacks what the cloud's store needs.
    pub(crate) fn open(config: &config::Checkpoints, status: Arc<Status>) -> Result<Self> {
        let store = Arc::new(Store::open(&config.url).context("checkpoints cannot be kept: see `checkpoints.url`")?);
        let (jobs, received) = channel();
        let writer = Writer::new(Arc::clone(&store), Arc::clone(&status));
        let thread = std::thread::Builder::new().name("checkpoint".to_owned());
        thread.spawn(move || writer.run(received)).context("cannot start a thread")?;
        Ok(Self { store, status, jobs, busy: Arc::default(), patience: STUCK })
    }

    /// Hands a checkpoint over to the writer and returns at once; `false` where the one before is still being written,
    /// so that the caller comes again later with a newer one.
    ///
    /// A piece of the same number and version as in the last checkpoint since the partition was loaded is not written
    /// again, and nothing at all is written of a checkpoint like the last one: to be called also where nothing happens, so
    /// that the timestamp that Prometheus sees stays current. What fails is logged and counted, and never reaches the
    /// caller.
    pub(crate) fn save(&self, place: &Place, head: Head, pieces: Vec<Piece>) -> bool {
        let Some(turn) = Busy::take(&self.busy, place) else {
            self.check_writer(place);
            return false;
        };
        let taken = SystemTime::now();
        // The writer ends before its sender only if it panicked, which the failures tell.
        let handed = self.jobs.send(Job::Save(Save { turn, head, pieces, taken })).is_ok();
        if !handed {
            self.status.metrics.checkpoints.failed();
        }
        handed
    }

    /// Counts it as a failure that a place has to wait for a writer that stands still: a directory whose disk is gone can
    /// hold it for ever.
    fn check_writer(&self, place: &Place) {
        let Some((still, is_news)) = self.busy.stands_still(self.patience) else { return };
        self.status.metrics.checkpoints.failed();
        if is_news {
            tracing::error!(%place, ?still, "no checkpoint, a restart will replay more of the log: the store hangs");
        }
    }

    /// The partition is no longer ours: nothing that was written is built upon any more.
    pub(crate) fn forget(&self, place: &Place) {
        // A writer that has ended has nothing to forget.
        let _ = self.jobs.send(Job::Forget(place.clone()));
    }

    /// Waits until everything handed over is written or has failed, or the time is up; whether it is.
    pub(crate) fn finish(&self, until: Instant) -> bool {
        self.busy.wait(until.saturating_duration_since(Instant::now()))
    }

    /// How far the newest checkpoint goes by its name, whether it is valid or not.
    ///
    /// # Errors
    ///
    /// As [`Checkpoints::load`].
    pub(crate) fn furthest(&self, place: &Place) -> Result<Option<i64>> {
        load::furthest(&self.store, &self.status.metrics, place)
    }

    /// Restores the newest valid checkpoint that goes no further than `at_most`, and forgets what was written before.
    ///
    /// Newer ones are passed over: they hold records whose outputs were never committed. Each attempt begins with
    /// `start`, and `add` takes the pieces in the order in which they were saved, one in memory at a time; where either
    /// refuses, as where anything is damaged or missing, the next older checkpoint is tried. Each one that is skipped is
    /// logged and counted. `None` where there is no valid one.
    ///
    /// # Errors
    ///
    /// The store cannot be read, also after a few tries within about ten seconds, or not until the time is up.
    pub(crate) fn load<S>(
        &self,
        place: &Place,
        at_most: i64,
        until: Instant,
        start: impl FnMut(&Head) -> Result<S, String>,
        add: impl FnMut(&mut S, &[RecordBatch]) -> Result<(), String>,
    ) -> Result<Option<(Head, S)>> {
        self.forget(place);
        load::newest(&self.store, &self.status.metrics, place, at_most, until, start, add)
    }
}

/// What is being written.
#[derive(Debug, Default)]
struct Busy {
    queue: Mutex<Queue>,
    freed: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    /// The places whose checkpoints are being written.
    places: BTreeSet<Place>,
    /// When anything came of it last.
    moved: Option<Instant>,
    /// When it was logged that nothing does.
    complained: Option<Instant>,
}

/// A place's turn at the writer; the next one may come when it is dropped.
struct Turn {
    place: Place,
    busy: Arc<Busy>,
}

impl Busy {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(busy: &Arc<Self>, place: &Place) -> Option<Turn> {
        let mut queue = busy.queue();
        if queue.places.is_empty() {
            queue.moved = Some(Instant::now());
        }
        queue.places.insert(place.clone()).then(|| Turn { place: place.clone(), busy: Arc::clone(busy) })
    }

    fn wait(&self, patience: Duration) -> bool {
        let waited = self.freed.wait_timeout_while(self.queue(), patience, |queue| !queue.places.is_empty());
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// For how long nothing has come of what is being written, if it is longer than this, and whether to log it.
    fn stands_still(&self, patience: Duration) -> Option<(Duration, bool)> {
        let mut queue = self.queue();
        let still = queue.moved?.elapsed();
        if still <= patience {
            return None;
        }
        let is_news = queue.complained.is_none_or(|at| at.elapsed() >= REMINDER);
        if is_news {
            queue.complained = Some(Instant::now());
        }
        Some((still, is_news))
    }
}

impl Turn {
    /// Something was written, or could not be.
    fn moved(&self) {
        self.busy.queue().moved = Some(Instant::now());
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.moved();
        self.busy.queue().places.remove(&self.place);
        self.busy.freed.notify_all();
    }
}
