//! The engines' memory, a shard a partition: taken over from a checkpoint or from the log, saved to further checkpoints,
//! and given up with the partition.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use parking_lot::{FairMutex, FairMutexGuard};
use tautline_detectors::baselines::{Baselines, Waiting};
use tautline_detectors::engine::Engine;
use tautline_detectors::event::Millis;
use tautline_detectors::rulebook::Rulebook;

use super::client::Partition;
use super::desk::{Desk, Seat};
use super::pump::{Assigned, now};
use crate::checkpoint::{Checkpoints, Head, Piece, Place};
use crate::config;
use crate::status::Status;

/// How long the partitions that are given up in one round wait for their last checkpoints, all together: the group waits
/// for them.
const LAST_CHECKPOINTS: Duration = Duration::from_secs(5);
/// How long those that are taken over in one round may take to be restored, all together: the group takes whoever does not
/// poll for five minutes for dead.
const RESTORE: Duration = Duration::from_secs(240);

/// One partition's engine.
#[derive(Debug)]
pub struct Shard {
    /// The engine and how far it has come; whoever asks something sits there between two records.
    pub(super) seat: Arc<FairMutex<Seat>>,
    pub(super) partition: Partition,
    place: Place,
    /// Whether anything was committed before.
    known: bool,
    /// Hash of the rulebook that the partition began with.
    first_book: String,
    /// Events were stepped since the last tick that was appended.
    pub(super) moved: bool,
    /// Time of the latest event.
    pub(super) latest: Millis,
    /// How far the audit log has come, where any of it was read since the shard was taken over.
    pub(super) audited_until: Option<Millis>,
    /// When the shard was taken over.
    pub(super) taken_over: Millis,
    /// Whether the audit log is silent while declared actions wait for it.
    pub(super) audit_is_silent: bool,
    /// The rulebook that was appended since the last tick and has not come back yet.
    switching_to: Option<String>,
    /// Number of the latest record of our own that came back; an older one is one of ours sent again by somebody else.
    pub(super) opened: u64,
    /// Number of the latest record of our own that was sent.
    pub(super) sealed: u64,
}

impl Shard {
    /// The engine and how far it has come.
    pub fn seat(&self) -> FairMutexGuard<'_, Seat> {
        self.seat.lock()
    }

    /// Whether the replay has come to what is committed.
    pub(super) fn is_rebuilt(&self) -> bool {
        self.seat().rebuilt
    }

    /// Whether a switch to the rulebook of this hash is to be appended. It is asked for again with every tick until it comes
    /// back, for it may have been lost; a second one changes nothing.
    pub(super) fn has_to_switch(&mut self, hash: &str, tick: bool) -> bool {
        if tick {
            self.switching_to = None;
        }
        let switches = self.seat().engine.rulebook().hash() != hash && self.switching_to.as_deref() != Some(hash);
        if switches {
            self.switching_to = Some(hash.to_owned());
        }
        switches
    }

    /// For how long claims have waited for the audit log and nothing of it came.
    pub(super) fn audit_silence(&self, waiting: &Waiting, now: Millis) -> Millis {
        let heard = self.audited_until.unwrap_or(self.taken_over);
        waiting.since.map_or(0, |since| now.saturating_sub(since.max(heard)).max(0))
    }

    /// Whether the audit log has become silent for longer than its records may be late, or is so no longer, since this was
    /// last asked.
    pub(super) fn has_fallen_silent(&mut self, silence: Millis) -> Option<bool> {
        let book = Arc::clone(self.seat().engine.rulebook());
        let is_silent = book.pairing().is_some_and(|(_, _, rules)| silence > rules.lateness());
        (std::mem::replace(&mut self.audit_is_silent, is_silent) != is_silent).then_some(is_silent)
    }

    /// Hands a checkpoint to the writer; all that was taken is committed, now or before.
    fn save(&mut self, checkpoints: &Checkpoints) {
        let mut seat = self.seat.lock();
        if !self.known && seat.next == seat.speaks_from {
            // Nothing is committed yet: a checkpoint would look as if offsets had expired.
            return;
        }
        let head = Head {
            engine: env!("CARGO_PKG_VERSION").to_owned(),
            offset: seat.next,
            first_book: self.first_book.clone(),
            book: seat.engine.rulebook().hash().to_owned(),
            latest: self.latest,
            opened: self.opened,
            sealed: self.sealed,
        };
        let pieces = seat.engine.freeze().into_iter().map(|piece| Piece {
            number: piece.number,
            version: piece.version,
            tables: Box::new(move || piece.tables()),
        });
        // Where the one before is still being written, this one comes with the next.
        checkpoints.save(&self.place, head, pieces.collect());
    }
}

/// The shards of a stage.
#[derive(Debug)]
pub struct Shards {
    /// The stage's name, and where it says that it is alive.
    stage: &'static str,
    status: Arc<Status>,
    group: String,
    checkpoints: Arc<Checkpoints>,
    interval: Duration,
    saved: Instant,
    shards: BTreeMap<usize, Shard>,
    desk: Arc<Desk>,
    giving_up: Deadline,
    taking_over: Deadline,
}

/// A deadline that all of a round share.
#[derive(Debug, Default)]
struct Deadline(Option<Instant>);

impl Deadline {
    /// When it is, with so long from the first of the round on.
    fn within(&mut self, patience: Duration) -> Instant {
        *self.0.get_or_insert_with(|| Instant::now() + patience)
    }
}

impl Shards {
    /// No shards yet; those to come are saved under the name of the group at `url`, a directory or an object store.
    ///
    /// # Errors
    ///
    /// There can be no checkpoints at this place.
    pub fn open(group: &str, url: &str, interval: Duration) -> Result<Self> {
        let url = url.to_owned().try_into().map_err(|error: String| anyhow!(error))?;
        let config = config::Checkpoints { url, interval_seconds: interval.as_secs() };
        let status = Arc::new(Status::new()?);
        let checkpoints = Checkpoints::open(&config, Arc::clone(&status))?;
        Ok(Self::new("own", status, group, (Arc::new(checkpoints), interval), Arc::default()))
    }

    /// The same where there are checkpoints already.
    pub(super) fn new(
        stage: &'static str,
        status: Arc<Status>,
        group: &str,
        (checkpoints, interval): (Arc<Checkpoints>, Duration),
        desk: Arc<Desk>,
    ) -> Self {
        let (shards, giving_up, taking_over) = Default::default();
        let (group, saved) = (group.to_owned(), Instant::now());
        Self { stage, status, group, checkpoints, interval, saved, shards, desk, giving_up, taking_over }
    }

    /// Takes over a partition: restores the newest checkpoint that goes no further than what is committed, or begins with
    /// nothing. Returns the offset from which the partition is to be read; up to what is committed that is in silence.
    ///
    /// `book` is the hash of the rulebook in force, with which a partition begins that was never read before, and `find`
    /// gives rulebooks by their hash.
    ///
    /// # Errors
    ///
    /// The checkpoints cannot be read, nothing is committed of a partition that has one, or a rulebook that judged the
    /// partition cannot be found.
    pub fn take_over(
        &mut self,
        assigned: Assigned,
        book: &str,
        mut find: impl FnMut(&str) -> Result<Arc<Rulebook>>,
    ) -> Result<i64> {
        let speaks_from = assigned.committed.unwrap_or(assigned.begins);
        let Assigned { slot, partition, begins, committed, note } = assigned;
        let place =
            Place { group: self.group.clone(), topic: partition.topic.to_string(), partition: partition.number };
        let first_book = if note.is_empty() { book.to_owned() } else { note };
        let recovered = match committed {
            Some(at_most) => self.recover(&place, at_most)?,
            None => self.ensure_new(&place, begins).map(|()| None)?,
        };
        let (head, baselines) = recovered.unwrap_or_else(|| {
            let book = first_book.clone();
            if committed.is_some() {
                tracing::warn!(%place, "no usable checkpoint: the memory is learned anew from the log");
            }
            // What was there before anybody read it is no loss.
            let offset = if committed.is_some() { 0 } else { begins };
            let engine = env!("CARGO_PKG_VERSION").to_owned();
            let head = Head { engine, offset, first_book, book, latest: Millis::MIN, opened: 0, sealed: 0 };
            (head, Baselines::default())
        });
        say_what_is_replayed(&place, &head, begins, speaks_from);
        let next = head.offset.max(begins);
        let engine = Engine::resume(find(&head.book)?, baselines);
        let seat = Arc::new(FairMutex::new(Seat { engine, next, speaks_from, rebuilt: next >= speaks_from }));
        self.desk.open(&partition, &seat);
        let shard = Shard {
            seat,
            partition,
            place,
            known: committed.is_some(),
            first_book: head.first_book,
            moved: false,
            latest: head.latest,
            audited_until: None,
            taken_over: now(),
            audit_is_silent: false,
            switching_to: None,
            opened: head.opened,
            sealed: head.sealed,
        };
        self.shards.insert(slot, shard);
        Ok(next)
    }

    /// The newest valid checkpoint that goes no further than `at_most`.
    ///
    /// Those that cannot be read are not taken for none: without them we would speak from a part of the memory, and our
    /// own checkpoints would push out theirs.
    fn recover(&mut self, place: &Place, at_most: i64) -> Result<Option<(Head, Baselines)>> {
        let absorb = |baselines: &mut Baselines, tables: &[_]| {
            // A large memory takes its time; whoever restores it is not stuck.
            self.status.beat(self.stage, false);
            baselines.absorb(tables).map_err(|error| error.to_string())
        };
        let until = self.taking_over.within(RESTORE);
        let loaded = self.checkpoints.load(place, at_most, until, |_| Ok(Baselines::default()), absorb);
        loaded.with_context(|| format!("`{place}` is taken over only when its checkpoints can be read"))
    }

    /// Refuses a partition that has a checkpoint though nothing is committed: its offsets have expired, or the topic was
    /// made anew. To begin anew would alert all of the log again; to go on from the checkpoint would pass over the first
    /// records of a new topic. Which of the two it is only people know.
    fn ensure_new(&self, place: &Place, begins: i64) -> Result<()> {
        let furthest = match self.checkpoints.furthest(place) {
            Err(error) if begins == 0 => {
                tracing::error!(%place, "not known whether there are checkpoints, read from the log's start: {error:#}");
                None
            }
            listed => {
                listed.with_context(|| format!("`{place}` is taken over only when its checkpoints can be listed"))?
            }
        };
        let Some(to) = furthest.filter(|offset| *offset > 0) else { return Ok(()) };
        let Place { group, topic, partition } = place;
        bail!(
            "`{place}` has a checkpoint up to offset {to}, but the group `{group}` has committed nothing: its offsets have \
             expired or were deleted, or the topic was made anew. Stop every process of the group, then either go on from \
             there: `kafka-consumer-groups.sh --bootstrap-server … --group {group} --topic {topic}:{partition} \
             --reset-offsets --to-offset {to} --execute`; or begin anew, with all alerts of the log once more: delete the \
             checkpoints of `{place}`"
        );
    }

    /// A partition's shard.
    pub fn get_mut(&mut self, slot: usize) -> Option<&mut Shard> {
        self.shards.get_mut(&slot)
    }

    pub(super) fn get(&self, slot: usize) -> Option<&Shard> {
        self.shards.get(&slot)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Shard> {
        self.shards.values()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Shard> {
        self.shards.values_mut()
    }

    /// What to note with a partition's next offset: the rulebook that it began with. `None` while it is read in silence.
    pub fn note(&self, slot: usize, next: i64) -> Option<String> {
        let shard = self.get(slot)?;
        (next >= shard.seat().speaks_from).then(|| shard.first_book.clone())
    }

    /// Saves everything if it is time. To be called once a round, when all that was taken is committed.
    pub fn save_when_due(&mut self) {
        (self.giving_up, self.taking_over) = Default::default();
        if self.saved.elapsed() < self.interval {
            return;
        }
        self.saved = Instant::now();
        // Also in the midst of a replay: whoever has to begin again goes on from there, in silence up to the commit.
        for shard in self.shards.values_mut() {
            shard.save(&self.checkpoints);
        }
    }

    /// Gives up a partition, of which everything taken is committed. Whoever takes it over finds a checkpoint there, unless
    /// the store is slow.
    pub fn give_up(&mut self, slot: usize) {
        let Some(mut shard) = self.shards.remove(&slot) else { return };
        self.desk.close(&shard.partition);
        let until = self.giving_up.within(LAST_CHECKPOINTS);
        // One that is being written goes no further than the last interval.
        self.checkpoints.finish(until);
        shard.save(&self.checkpoints);
        self.checkpoints.finish(until);
        self.checkpoints.forget(&shard.place);
    }

    /// Whether every shard has caught up with what is committed.
    pub fn ready(&self) -> bool {
        !self.shards.is_empty() && self.shards.values().all(Shard::is_rebuilt)
    }
}

impl Drop for Shards {
    /// What failed answers nobody.
    fn drop(&mut self) {
        self.shards.values().for_each(|shard| self.desk.close(&shard.partition));
    }
}

/// Says how much of the log is learned again, and what cannot be.
fn say_what_is_replayed(place: &Place, head: &Head, begins: i64, speaks_from: i64) {
    let replayed = (speaks_from - head.offset.max(begins)).max(0);
    if head.offset < begins {
        let gone = begins - head.offset;
        tracing::error!(%place, gone, "the log has lost records that no checkpoint covers: what they taught is forgotten");
    }
    if head.engine != env!("CARGO_PKG_VERSION") && replayed > 0 {
        let from = &head.engine;
        tracing::warn!(%place, from, replayed, "records that another version judged are learned again by this one");
    } else {
        tracing::info!(%place, offset = head.offset, replayed, "memory taken over, the rest is replayed in silence");
    }
}

#[cfg(test)]
mod tests;
